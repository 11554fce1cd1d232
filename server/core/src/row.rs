//! What rows hold, and their bytes: a format byte, then postcard.

use bytes::Bytes;
use conclave_protocol::plugin::{ComponentDigest, Need, PluginInfo, Version};
use conclave_protocol::{Change, Path, SessionId, Stat, Zxid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plugin::{Found, Park};
use crate::{Fault, Table, ZnodeId};

/// The format of rows that this version writes, and the only one that it reads.
const FORMAT: u8 = 3;

/// A znode without its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Znode {
    /// Its stat.
    pub stat: Stat,
    /// The number that its next sequential child gets. Never goes back, so names are never reused.
    pub next_sequence: u64,
    /// Its access list; 0 is the open one.
    pub acl: u32,
    /// Its parent; the root's is the root.
    pub parent: ZnodeId,
    /// Cluster time of its row in `Expiry`; 0: it has none. Never later than the time at which it has to go.
    pub expiry_ms: u64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who opened it; nobody else can use it.
    pub principal: String,
    /// Milliseconds without a renewal after which it is expired.
    pub timeout_ms: u64,
    /// The lowest sequence whose reply the client has not acknowledged.
    pub floor: u64,
    /// The next sequence.
    pub next: u64,
    /// How many ephemeral znodes it owns.
    pub owned: u64,
    /// What ending it would write for them, in bytes at most: bounded when they are created, so that it fits an entry.
    pub owned_bytes: u64,
    /// Bytes of its unacknowledged replies, wherever they lie.
    pub reply_bytes: u64,
    /// Its rows in `Parked`.
    pub calls: u64,
    /// Those of them that wait.
    pub parked: u64,
    /// The replies to `floor..next` that lie in this row, in order; those missing have rows of their own.
    pub packed: Vec<Packed>,
}

/// A small reply in its session's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Its sequence.
    pub sequence: u64,
    /// It.
    pub reply: Reply,
}

/// A stored reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The transaction's zxid.
    pub zxid: Zxid,
    /// CBOR of an [`Outcome`](conclave_protocol::Outcome).
    pub outcome: Bytes,
}

/// A one-shot write that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Until when, cluster time in milliseconds.
    pub until_ms: u64,
    /// What was answered.
    pub reply: Reply,
}

/// What is remembered of a principal's one-shot writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// How many.
    pub count: u64,
    /// Bytes of their outcomes.
    pub bytes: u64,
}

/// Where a znode is that a session owns, or that may have to go. Paths never change, so that the session's end need not look them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Where it is.
    pub path: Path,
}

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// What is told of it; `parked` is counted when it is told.
    pub info: PluginInfo,
    /// Versions that ran before, and that parked calls may have begun with.
    pub older: Vec<Version>,
}

impl Plugin {
    /// What runs and what ran before: what parked calls may have begun with.
    pub fn ran(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.info.version).chain(&self.info.previous).chain(&self.older)
    }

    /// These, and what is to run.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.ran().chain(self.info.next.as_ref().map(|next| &next.version))
    }
}

/// A component that was uploaded and is not installed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Bytes of its chunks.
    pub bytes: u64,
    /// When it is forgotten, cluster time in milliseconds.
    pub until_ms: u64,
}

/// A session's call of a procedure that may park, until the client has acknowledged its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The plugin.
    pub plugin: String,
    /// The component that it began with.
    pub digest: ComponentDigest,
    /// What that was allowed.
    pub allowed: Vec<Need>,
    /// The procedure.
    pub procedure: String,
    /// Its arguments, checked and completed.
    pub args: Bytes,
    /// What the run sees as the root.
    pub root: Path,
    /// The zxid of its first run.
    pub ticket: Zxid,
    /// When that was, cluster time in milliseconds.
    pub since_ms: u64,
    /// How far it is.
    pub phase: Phase,
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It waits.
    Waiting {
        /// For what.
        park: Park,
        /// Since which transaction.
        since: Zxid,
    },
    /// It never parked: its end is the reply to its sequence.
    Answered,
    /// It parked, and has ended like this.
    Completed(Reply),
}

/// One condition that a parked call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Whose call.
    pub session: SessionId,
    /// Which.
    pub sequence: u64,
    /// Since which transaction it waits.
    pub since: Zxid,
    /// Which of its conditions this is.
    pub condition: u8,
}

/// Something that parked calls are to be run again for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Woken {
    /// A znode changed: those that wait for it, after this key of `Waiting`.
    Znode {
        /// That of who was woken by it last.
        after: Option<Bytes>,
        /// How it was after that change: who is woken with all others goes by this.
        found: Option<Found>,
    },
    /// The time of a call is over.
    Deadline {
        /// Whose.
        session: SessionId,
        /// Which.
        sequence: u64,
    },
    /// The plugin runs no more: all its calls end.
    Plugin {
        /// Its name.
        plugin: String,
        /// What it is now, in words.
        state: String,
    },
}

/// What the next transaction builds on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last transaction.
    pub zxid: Zxid,
    /// The next znode's id.
    pub next_id: u64,
    /// The last stamped time, milliseconds since 1970.
    pub time_ms: u64,
    /// How many znodes there are, the root included.
    pub znodes: u64,
    /// How many access lists there are besides the open one; they are numbered from 1.
    pub acls: u32,
    /// How many calls wait.
    pub parked: u64,
    /// Bytes of components that are uploaded and not installed.
    pub uploaded: u64,
}

/// A change, and who may be told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What happened.
    pub change: Change,
    /// The znode's access list at that moment. Whoever may read by this list, or by the one beside it, is told.
    pub acl: u32,
    /// Of a creation and a deletion the parent's list, as a listing of it shows the name too; of a new access list the one
    /// before; otherwise the same again.
    pub beside: u32,
}

/// One transaction's changes, in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes(pub Vec<Recorded>);

/// What the history holds, under a zxid that no transaction has: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The last transaction whose changes are not kept any more; 0: all are kept.
    pub lost: Zxid,
    /// Bytes of the rows that hold the changes of those after it.
    pub bytes: u64,
}

/// A row's bytes.
#[must_use]
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![FORMAT]).expect("a Vec takes every byte, and rows have only known lengths")
}

/// The row that these bytes are.
///
/// # Errors
/// A [`Fault`]: rows are our own, and their hash was right.
pub fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, Fault> {
    let fault = |why: String| Fault::Row { table, why };
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| fault(error.to_string())),
        Some((format, _)) => Err(fault(format!("it has format {format}, this version reads {FORMAT}"))),
        None => Err(fault("it is empty".to_owned())),
    }
}

impl Znode {
    /// The session that it goes with, when it is ephemeral.
    #[must_use]
    pub fn owner(&self) -> Option<SessionId> {
        self.stat.owner
    }
}
