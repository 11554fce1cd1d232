//! What rows hold, and their bytes: a format byte, then postcard.

use bytes::Bytes;
use conclave_protocol::{Change, Path, SessionId, Stat, Zxid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Fault, Table, ZnodeId};

/// The format of rows that this version writes, and the only one that it reads.
const FORMAT: u8 = 1;

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

/// One ephemeral znode of a session. Paths never change, so that the session's end need not look them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Where it is.
    pub path: Path,
}

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// SHA-256 of its component.
    pub digest: [u8; 32],
    /// Bytes of its component.
    pub component_bytes: u64,
    /// Chunks that these bytes lie in.
    pub chunks: u32,
    /// Its settings.
    pub settings: Bytes,
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
}

/// One transaction's changes, in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes(pub Vec<Change>);

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
