//! What a client can ask: operations that write, queries that read, watches.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::plugin::{Install, Manage, Upload};
use crate::{AccessList, Kinds, Path, Pattern, SessionId, WatchId, Zxid};

/// How long a znode lives, and how it gets its name.
///
/// All of it can be combined, except that an ephemeral znode is no container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// It goes with the session that created it.
    pub ephemeral: bool,
    /// Its name is completed with its parent's next number: at least ten digits, zero-padded.
    pub sequential: bool,
    /// It goes some time ([`limits::CONTAINER_GRACE_MS`](crate::limits::CONTAINER_GRACE_MS)) after its last child went;
    /// not before it had one.
    pub container: bool,
    /// It goes when neither its data nor its list of children has changed for so many milliseconds of cluster time, and
    /// it has no children. Never earlier.
    pub ttl_ms: Option<u64>,
}

/// Creates a znode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Its path; with `sequential`, the prefix of it.
    pub path: Path,
    /// Its data.
    pub data: Bytes,
    /// Its kind.
    pub kind: Kind,
    /// Create missing parents too, persistent and empty.
    pub parents: bool,
    /// If it is there already and of that kind (and the same session's, when it is ephemeral), set its data. Not with
    /// `sequential`.
    pub or_set: bool,
    /// Its access list, and that of the parents that are created with it; none: its parent's. What is there already keeps
    /// its own.
    pub acl: Option<AccessList>,
}

impl Create {
    /// A persistent znode with its parent's access list.
    #[must_use]
    pub fn new(path: Path, data: impl Into<Bytes>) -> Self {
        Self { path, data: data.into(), ..Self::default() }
    }
}

/// Replaces a znode's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Which znode.
    pub path: Path,
    /// The new data.
    pub data: Bytes,
    /// Only when its data has this version.
    pub if_version: Option<u64>,
}

/// Changes a znode's data by what it is, in one transaction. Needs the right to write it and, as the answer tells what it
/// was, to read it; where it creates, the right to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which znode.
    pub path: Path,
    /// How.
    pub edit: Edit,
    /// Only when its data has this version.
    pub if_version: Option<u64>,
    /// If it is not there, it is created, persistent, as if it had been there without data. Not with
    /// [`Edit::Swap`] of other than empty data.
    pub or_create: bool,
}

/// What [`Update`] makes of the data. Numbers are 64-bit integers, written in decimal; no data counts as 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// Adds to the number; refused when the sum is no 64-bit integer.
    Add(i64),
    /// The lesser of the number and this one. No data: this one.
    Min(i64),
    /// The greater of the number and this one. No data: this one.
    Max(i64),
    /// Puts bytes behind the data.
    Append(Bytes),
    /// Replaces the data if it is what is expected; refused with `check-failed` otherwise.
    Swap {
        /// What it must be.
        expected: Bytes,
        /// What it becomes.
        data: Bytes,
    },
}

/// Deletes a znode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Which znode.
    pub path: Path,
    /// Only when its data has this version.
    pub if_version: Option<u64>,
    /// With everything below it, as one transaction.
    pub recursive: bool,
}

/// Deletes a part of a subtree, the deepest znodes first, so that one of any size can be deleted piece by piece: call it
/// until there is no more. The znode itself goes last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// The top of it.
    pub path: Path,
    /// How many znodes at most; [`limits::PRUNE_ZNODES`](crate::limits::PRUNE_ZNODES) is the most that go at once.
    pub limit: u32,
}

/// Replaces a znode's access list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAcl {
    /// Which znode.
    pub path: Path,
    /// The new list. Somebody must be allowed [`Permission::Admin`](crate::Permission::Admin).
    pub acl: AccessList,
    /// Only when its list has this version.
    pub if_acl_version: Option<u64>,
}

/// Demands that something is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Of which znode.
    pub path: Path,
    /// What.
    pub condition: Condition,
}

/// What a [`Check`] demands. All but `absent` also demand that the znode exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It exists.
    Exists,
    /// It does not exist.
    Absent,
    /// Its data has this version.
    Version(u64),
    /// It is ephemeral and belongs to this session.
    Owner(SessionId),
    /// It has at least and at most so many children.
    Children {
        /// At least.
        least: u64,
        /// At most.
        most: u64,
    },
    /// Its data is this.
    Data(Bytes),
    /// It was created by this transaction: a fence.
    Created(Zxid),
}

/// Calls a plugin's procedure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The name that the plugin is installed under.
    pub plugin: String,
    /// The procedure's name.
    pub procedure: String,
    /// Its arguments: CBOR, a map from names to values, or an array of positional ones. Texts are taken for what the
    /// parameter is. No bytes: none.
    pub args: Bytes,
    /// The znode that all paths of the run are relative to, as if it were the root.
    pub root: Path,
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
    /// See [`Update`].
    Update(Update),
    /// See [`SetAcl`].
    Acl(SetAcl),
}

macro_rules! step {
    ($($operation:ident => $step:ident),*) => {
        $(impl From<$operation> for Step {
            fn from(operation: $operation) -> Self {
                Self::$step(operation)
            }
        })*
    };
}

step!(Check => Check, Create => Create, Set => Set, Delete => Delete, Update => Update, SetAcl => Acl);

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
    /// See [`Update`].
    Update(Update),
    /// See [`Prune`].
    Prune(Prune),
    /// See [`SetAcl`].
    Acl(SetAcl),
    /// See [`Call`].
    Call(Call),
    /// Cancels the call of a procedure that the session made under this sequence: it is run again to give back what it
    /// took. Answered with [`Value::Cancelled`](crate::Value::Cancelled).
    Cancel {
        /// The call's sequence.
        sequence: u64,
    },
    /// See [`Upload`].
    Upload(Upload),
    /// See [`Install`].
    Install(Install),
    /// See [`Manage`].
    Manage(Manage),
    /// Ends another session: one of the same principal, or any for whoever may administer the root.
    End(SessionId),
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
    /// Every write that was acknowledged to anybody so many milliseconds before the read began is in it; does not wait for
    /// the writes sent before it.
    Within(u64),
}

/// How much of each child a page of them tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Its name.
    Names,
    /// And its stat.
    #[default]
    Stats,
    /// And its data.
    Data,
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
        /// Only names that begin with this.
        prefix: String,
        /// Only names after this one: the last of the page before, whether it is still there or not.
        after: Option<String>,
        /// At most this many, and one at least; [`crate::limits::PAGE_CHILDREN`] is the most that is given.
        limit: u32,
        /// How much of each.
        detail: Detail,
    },
    /// Several znodes at one zxid, with their data; those that are not there are none.
    Many {
        /// Which; at most [`crate::limits::READ_PATHS`], and [`crate::limits::READ_BYTES`] of data.
        paths: Vec<Path>,
    },
    /// How many znodes lie below one, however deep.
    Count {
        /// Below which.
        path: Path,
    },
    /// A znode's access list. Needs the right to read it, or to administer it.
    Acl {
        /// Of which znode.
        path: Path,
    },
    /// A page of a session's ephemeral znodes, in the order of their creation.
    Owned {
        /// Whose.
        session: SessionId,
        /// Only after this cursor: a page's `next`.
        after: Option<u64>,
        /// At most this many, and one at least; [`crate::limits::PAGE_CHILDREN`] is the most that is given.
        limit: u32,
    },
    /// A page of open sessions, by number: the principal's own, or all of them for whoever may administer the root.
    Sessions {
        /// Only after this one.
        after: Option<SessionId>,
        /// At most this many, and one at least; [`crate::limits::PAGE_CHILDREN`] is the most that is given.
        limit: u32,
    },
    /// Asks a plugin.
    Call(Call),
    /// Installed plugins: that of this name, or all.
    Plugins {
        /// Which; none: all.
        name: Option<String>,
    },
    /// A page of parked calls, by ticket: the principal's own, or all for whoever administers the cluster.
    Calls {
        /// Of this plugin.
        plugin: String,
        /// Only those whose ticket is greater: of the last of the page before.
        after: Option<Zxid>,
        /// At most this many, and one at least; [`crate::limits::PAGE_CHILDREN`] is the most that is given.
        limit: u32,
    },
    /// The cluster as this member sees it.
    Status,
}

/// What a watch watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The znode itself: created, data, access list, deleted.
    Data,
    /// Whether the znode is there: created, deleted.
    Existence,
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
    /// Only changes of these kinds; none: of all kinds.
    pub kinds: Option<Kinds>,
    /// Only changes of znodes whose last name matches this.
    pub names: Option<Pattern>,
    /// With the present data and stat of what was changed.
    pub data: bool,
    /// Ends with its first event.
    pub once: bool,
    /// Tell of every change after this zxid, those that have happened already first. None: from now on.
    pub since: Option<Zxid>,
}

impl WatchRequest {
    /// A standing watch of all kinds of changes, from now on, without data.
    #[must_use]
    pub fn new(watch: WatchId, path: Path, scope: Scope) -> Self {
        Self { watch, path, scope, kinds: None, names: None, data: false, once: false, since: None }
    }
}
