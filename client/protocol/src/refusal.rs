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
    /// There is such a znode, and it is of another kind than the one to be created or set.
    #[error("{path} exists and is {actual}, you want it {wanted}")]
    OtherKind {
        /// Its path.
        path: Path,
        /// What it is, in words.
        actual: String,
        /// What it should be, in words.
        wanted: String,
    },
    /// What a check demanded is not so.
    #[error("{path} has {actual}, you said {expected}")]
    CheckFailed {
        /// Which znode.
        path: Path,
        /// What it has, in words.
        actual: String,
        /// What was demanded, in words.
        expected: String,
    },
    /// Its data can't be calculated with.
    #[error("the data of {path} {why}")]
    BadNumber {
        /// Which znode.
        path: Path,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody could set the access list again.
    #[error("the access list for {path} allows nobody to administer it")]
    LocksOut {
        /// Which znode.
        path: Path,
    },
    /// Its access list has another version.
    #[error("the access list of {path} is at version {actual}, you said {expected}")]
    BadAclVersion {
        /// Which znode.
        path: Path,
        /// The version that it has.
        actual: u64,
        /// The version that the request named.
        expected: u64,
    },
    /// No transaction has that number yet.
    #[error("{zxid} is not reached yet, the last transaction is {last}")]
    FutureZxid {
        /// What was named.
        zxid: Zxid,
        /// The last one.
        last: Zxid,
    },
    /// The client was talking to another cluster, or resumes from one.
    #[error("this is cluster {actual}, what you go on from is of cluster {expected}")]
    OtherCluster {
        /// The cluster that the client means.
        expected: String,
        /// The cluster that it reached.
        actual: String,
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
        /// The zxid of the holder znode now, if there is one that may be read.
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
    /// The plugin has no such query.
    #[error("plugin {plugin} has no query {query}")]
    NoQuery {
        /// The plugin's name.
        plugin: String,
        /// The query's.
        query: String,
    },
    /// A plugin of that name is installed already.
    #[error("a plugin {plugin} is installed already, version {version}")]
    PluginExists {
        /// The name.
        plugin: String,
        /// Its version.
        version: String,
    },
    /// The arguments are not those that the procedure takes.
    #[error("{plugin} {procedure}: {why}")]
    BadArguments {
        /// The plugin's name.
        plugin: String,
        /// The procedure's or query's.
        procedure: String,
        /// What is wrong with them.
        why: String,
    },
    /// The plugin does not run: it was disabled or suspended, or is not active yet.
    #[error("plugin {plugin} is {state}")]
    PluginDisabled {
        /// Its name.
        plugin: String,
        /// What it is, in words, and why.
        state: String,
    },
    /// A call that parked was woken by what holds already, again and again; or triggers ran triggers too deep.
    #[error("plugin {plugin} goes round in circles: {why}")]
    PluginLoop {
        /// Its name.
        plugin: String,
        /// How.
        why: String,
    },
    /// The component can't be a plugin of this cluster.
    #[error("the component can't be installed as {plugin}: {why}")]
    PluginUnfit {
        /// The name that it was to have.
        plugin: String,
        /// Why not.
        why: String,
    },
    /// The plugin was not allowed that at its installation.
    #[error("plugin {plugin} may not {action} {path}")]
    PluginNotAllowed {
        /// Its name.
        plugin: String,
        /// What it wanted to do.
        action: String,
        /// Where.
        path: Path,
    },
    /// The run may only read.
    #[error("{what} may only read")]
    ReadOnly {
        /// What kind of run it is.
        what: String,
    },
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The call has ended, and its end was acknowledged: there is nothing to cancel any more.
    #[error("the call of sequence {sequence} is done, and its end was acknowledged")]
    AlreadyDone {
        /// Its sequence.
        sequence: u64,
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
            Self::OtherKind { .. } => "other-kind",
            Self::CheckFailed { .. } => "check-failed",
            Self::BadNumber { .. } => "bad-number",
            Self::LocksOut { .. } => "locks-out",
            Self::BadAclVersion { .. } => "bad-acl-version",
            Self::FutureZxid { .. } => "future-zxid",
            Self::OtherCluster { .. } => "other-cluster",
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
            Self::NoQuery { .. } => "no-query",
            Self::PluginExists { .. } => "plugin-exists",
            Self::BadArguments { .. } => "bad-arguments",
            Self::PluginDisabled { .. } => "plugin-disabled",
            Self::PluginLoop { .. } => "plugin-loop",
            Self::PluginUnfit { .. } => "plugin-unfit",
            Self::PluginNotAllowed { .. } => "plugin-not-allowed",
            Self::ReadOnly { .. } => "read-only",
            Self::Cancelled => "cancelled",
            Self::AlreadyDone { .. } => "already-done",
            Self::PluginRefused { .. } => "plugin-refused",
            Self::PluginFailed { .. } => "plugin-failed",
        }
    }
}

impl Refusal {
    /// The same refusal with every path in it, however deep, put through `map`: for a client that shows other paths than
    /// the members know. Words that people wrote stay as they are.
    #[must_use]
    pub fn map_paths(self, map: &dyn Fn(&Path) -> Path) -> Self {
        match self {
            Self::NoZnode { path } => Self::NoZnode { path: map(&path) },
            Self::ZnodeExists { path } => Self::ZnodeExists { path: map(&path) },
            Self::BadVersion { path, actual, expected } => Self::BadVersion { path: map(&path), actual, expected },
            Self::NotEmpty { path, children } => Self::NotEmpty { path: map(&path), children },
            Self::OtherKind { path, actual, wanted } => Self::OtherKind { path: map(&path), actual, wanted },
            Self::CheckFailed { path, actual, expected } => Self::CheckFailed { path: map(&path), actual, expected },
            Self::BadNumber { path, why } => Self::BadNumber { path: map(&path), why },
            Self::LocksOut { path } => Self::LocksOut { path: map(&path) },
            Self::BadAclVersion { path, actual, expected } => {
                Self::BadAclVersion { path: map(&path), actual, expected }
            }
            Self::EphemeralParent { path } => Self::EphemeralParent { path: map(&path) },
            Self::Fenced { fence: Fence { path, zxid }, actual } => {
                Self::Fenced { fence: Fence { path: map(&path), zxid }, actual }
            }
            Self::NotAllowed { principal, action, path } => Self::NotAllowed { principal, action, path: map(&path) },
            Self::PluginNotAllowed { plugin, action, path } => {
                Self::PluginNotAllowed { plugin, action, path: map(&path) }
            }
            Self::Step { step, cause } => Self::Step { step, cause: Box::new(cause.map_paths(map)) },
            // All that is left, by name: a new one must be thought about here.
            Self::FutureZxid { .. }
            | Self::OtherCluster { .. }
            | Self::NoSession { .. }
            | Self::SessionOver { .. }
            | Self::Limit { .. }
            | Self::DiskFull { .. }
            | Self::BadPath { .. }
            | Self::BadRequest { .. }
            | Self::NoPlugin { .. }
            | Self::NoProcedure { .. }
            | Self::NoQuery { .. }
            | Self::PluginExists { .. }
            | Self::BadArguments { .. }
            | Self::PluginDisabled { .. }
            | Self::PluginLoop { .. }
            | Self::PluginUnfit { .. }
            | Self::ReadOnly { .. }
            | Self::Cancelled
            | Self::AlreadyDone { .. }
            | Self::PluginRefused { .. }
            | Self::PluginFailed { .. } => self,
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
