//! Refusals: answers that say no, each with a stable code that programs may test for.

use serde::{Deserialize, Serialize};

use crate::{Fence, Path, SessionId, Zxid};

/// Why a request was answered with no. Nothing of the request was carried out.
///
/// Its text says what, where, and the actual against the expected value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such znode.
    #[error("{path} does not exist")]
    NoZnode {
        /// The path that is missing; of a create, the parent.
        path: Path,
    },
    /// There is such a znode already.
    #[error("{path} exists already")]
    ZnodeExists {
        /// Its path.
        path: Path,
    },
    /// Its version is another.
    #[error("{path} is at version {actual}, you said {expected}")]
    BadVersion {
        /// Which znode.
        path: Path,
        /// The version that it has.
        actual: u64,
        /// The version that the request named.
        expected: u64,
    },
    /// It has children.
    #[error("{path} has {children} children")]
    NotEmpty {
        /// Which znode.
        path: Path,
        /// How many.
        children: u64,
    },
    /// The parent is ephemeral and belongs to another session, or the child would outlive it.
    #[error("{path} is ephemeral: only ephemeral znodes of its own session can be created below it")]
    EphemeralParent {
        /// The parent.
        path: Path,
    },
    /// The request needs a session, and came without.
    #[error("{what} needs a session")]
    NoSession {
        /// What was asked for.
        what: String,
    },
    /// The session is over.
    #[error("session {session} is over: its time ran out, or it was closed")]
    SessionOver {
        /// Which one.
        session: SessionId,
    },
    /// The fence does not hold: the award was lost or given back.
    #[error("fence {fence} does not hold: {}", match actual {
        Some(zxid) => format!("the holder is now {zxid}"),
        None => "nobody holds it".to_owned(),
    })]
    Fenced {
        /// What the request carried.
        fence: Fence,
        /// The zxid of the holder znode now, if there is one.
        actual: Option<Zxid>,
    },
    /// The principal may not do this.
    #[error("{principal} may not {action} {path}")]
    NotAllowed {
        /// Who asked.
        principal: String,
        /// What it wanted to do.
        action: String,
        /// Where.
        path: Path,
    },
    /// A limit is exceeded.
    #[error("{what} is {actual}, {limit} is the limit")]
    Limit {
        /// Which quantity.
        what: String,
        /// The limit.
        limit: u64,
        /// The actual value.
        actual: u64,
    },
    /// The leader has too little of its disk left: what makes the tree larger has to wait. Deletes, ends of sessions and
    /// what leaves the tree as large as it was go on.
    #[error("the leader's disk has {} free, nothing may grow below {}", bytes(*free_bytes), bytes(*least_bytes))]
    DiskFull {
        /// Bytes that the leader's disk had free when it last looked.
        free_bytes: u64,
        /// Bytes that have to be free before the tree may grow again.
        least_bytes: u64,
    },
    /// The path is none.
    #[error("{why}")]
    BadPath {
        /// What is wrong with it.
        why: String,
    },
    /// The request makes no sense.
    #[error("{why}")]
    BadRequest {
        /// Why.
        why: String,
    },
    /// A step of a multi was refused, and so the whole multi.
    #[error("step {step}: {cause}")]
    Step {
        /// Which step, from 0.
        step: u32,
        /// Why.
        cause: Box<Self>,
    },
    /// No plugin of that name is installed.
    #[error("no plugin {plugin} is installed")]
    NoPlugin {
        /// The name.
        plugin: String,
    },
    /// The plugin has no such procedure.
    #[error("plugin {plugin} has no procedure {procedure}")]
    NoProcedure {
        /// The plugin's name.
        plugin: String,
        /// The procedure's.
        procedure: String,
    },
    /// The plugin said no.
    #[error("{plugin}: {message}")]
    PluginRefused {
        /// Its name.
        plugin: String,
        /// What it said.
        message: String,
    },
    /// The plugin failed: it trapped, or exceeded its budget. What it had written is undone.
    #[error("plugin {plugin} failed: {why}")]
    PluginFailed {
        /// Its name.
        plugin: String,
        /// `trap`, or the budget that it exceeded.
        why: String,
    },
}

/// A number of bytes as people write it: in MiB, with one decimal, once there is one.
fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    if count < MIB {
        return format!("{} KiB", count >> 10);
    }
    format!("{}.{} MiB", count / MIB, count % MIB * 10 / MIB)
}

impl From<crate::PathError> for Refusal {
    fn from(error: crate::PathError) -> Self {
        Self::BadPath { why: error.to_string() }
    }
}

impl Refusal {
    /// The stable code: lower case, words joined by `-`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoZnode { .. } => "no-znode",
            Self::ZnodeExists { .. } => "znode-exists",
            Self::BadVersion { .. } => "bad-version",
            Self::NotEmpty { .. } => "not-empty",
            Self::EphemeralParent { .. } => "ephemeral-parent",
            Self::NoSession { .. } => "no-session",
            Self::SessionOver { .. } => "session-over",
            Self::Fenced { .. } => "fenced",
            Self::NotAllowed { .. } => "not-allowed",
            Self::Limit { .. } => "limit",
            Self::DiskFull { .. } => "disk-full",
            Self::BadPath { .. } => "bad-path",
            Self::BadRequest { .. } => "bad-request",
            Self::Step { cause, .. } => cause.code(),
            Self::NoPlugin { .. } => "no-plugin",
            Self::NoProcedure { .. } => "no-procedure",
            Self::PluginRefused { .. } => "plugin-refused",
            Self::PluginFailed { .. } => "plugin-failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_how_much_is_free_and_how_much_has_to_be() {
        let said = |free_bytes, least_bytes| Refusal::DiskFull { free_bytes, least_bytes }.to_string();
        assert_eq!(
            said(12_345_678, 256 << 20),
            "the leader's disk has 11.7 MiB free, nothing may grow below 256.0 MiB"
        );
        assert_eq!(said(0, 1_023 << 10), "the leader's disk has 0 KiB free, nothing may grow below 1023 KiB");
        assert_eq!(
            said(u64::MAX, 1 << 20),
            "the leader's disk has 17592186044415.9 MiB free, nothing may grow below 1.0 MiB"
        );
    }
}
