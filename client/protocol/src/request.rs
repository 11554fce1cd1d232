//! What a client can ask: operations that write, queries that read, watches.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Path, WatchId, Zxid};

/// How long a znode lives, and how it gets its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// It goes with the session that created it.
    pub ephemeral: bool,
    /// Its name is completed with its parent's next number: at least ten digits, zero-padded.
    pub sequential: bool,
}

/// Creates a znode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Its path; with `sequential`, the prefix of it.
    pub path: Path,
    /// Its data.
    pub data: Bytes,
    /// Its kind.
    pub kind: Kind,
    /// Create missing parents too, persistent and empty.
    pub parents: bool,
}

/// Replaces a znode's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Which znode.
    pub path: Path,
    /// The new data.
    pub data: Bytes,
    /// Only when its data has this version.
    pub if_version: Option<u64>,
}

/// Deletes a znode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Which znode.
    pub path: Path,
    /// Only when its data has this version.
    pub if_version: Option<u64>,
    /// With everything below it, as one transaction.
    pub recursive: bool,
}

/// Demands that a znode exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which znode.
    pub path: Path,
    /// And that its data has this version.
    pub if_version: Option<u64>,
}

/// Calls a plugin's procedure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The name that the plugin is installed under.
    pub plugin: String,
    /// The procedure's name.
    pub procedure: String,
    /// Its arguments, in the form that the plugin documents.
    pub args: Bytes,
}

/// One step of a multi: a flat list, so that a message nests only so deep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// See [`Check`].
    Check(Check),
    /// See [`Create`].
    Create(Create),
    /// See [`Set`].
    Set(Set),
    /// See [`Delete`].
    Delete(Delete),
}

/// An operation that writes: one atomic transaction, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// See [`Create`].
    Create(Create),
    /// See [`Set`].
    Set(Set),
    /// See [`Delete`].
    Delete(Delete),
    /// All steps or none, in order, each seeing what those before it did.
    Multi(Vec<Step>),
    /// See [`Call`].
    Call(Call),
    /// Ends the session: its ephemeral znodes go, its locks are free.
    Close,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Never older than what this connection, or the session before it, has seen.
    #[default]
    Session,
    /// Every write that was acknowledged to anybody before the read began is in it.
    Linearizable,
    /// Whatever the member has; does not wait for the writes sent before it.
    Stale,
}

/// An operation that reads, from one applied state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// Data and stat; refused with `no-znode` when it is not there.
    Get {
        /// Which znode.
        path: Path,
    },
    /// The stat, or none.
    Exists {
        /// Which znode.
        path: Path,
    },
    /// A page of children in order of names.
    Children {
        /// Of which znode.
        path: Path,
        /// Only names after this one.
        after: Option<String>,
        /// At most this many; [`crate::limits::PAGE_CHILDREN`] is the most that is given.
        limit: u32,
        /// With their data.
        data: bool,
    },
    /// The cluster as this member sees it.
    Status,
}

/// What a watch watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The znode itself: created, data, deleted.
    Data,
    /// Its children: which are created and deleted; and its own deletion.
    Children,
    /// The znode and everything below it.
    Subtree,
}

/// Asks to be told of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchRequest {
    /// The number that its events will carry.
    pub watch: WatchId,
    /// Where; it need not exist.
    pub path: Path,
    /// What there.
    pub scope: Scope,
    /// Ends with its first event.
    pub once: bool,
    /// Tell of every change after this zxid, those that have happened already first. None: from now on.
    pub since: Option<Zxid>,
}
