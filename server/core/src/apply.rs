//! What every member does with an entry: check the chain, write its rows, verify the digest.

use bytes::Bytes;

use crate::digest::{Chain, Digest, RowHash};
use crate::entry::Entry;
use crate::{Fault, Table};

/// What a member keeps beside the tables, in the same transaction, and outside the digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Local {
    /// Of the last entry that was not void.
    pub chain: Chain,
    /// Of all digested rows.
    pub digest: u128,
    /// The last entry of the log that was applied.
    pub applied: Option<Position>,
    /// The membership that the log holds up to there, as the Raft layer encodes it.
    pub membership: Bytes,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The index.
    pub index: u64,
}

/// Tables that are being written, in one transaction.
pub trait Tables {
    /// Writes a row, or deletes it; gives the hash of the row that was there.
    ///
    /// # Errors
    /// A fault of this member.
    fn write(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<Option<RowHash>, Fault>;

    /// What is kept beside the tables.
    fn local(&mut self) -> &mut Local;
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Its transactions are part of the state.
    Done(Entry),
    /// It was planned on another state than this, or by a planner of another term: it changed nothing, on every member
    /// alike.
    Void,
}

impl Digest {
    /// As it is kept in [`Local`].
    #[must_use]
    pub fn of(local: &Local) -> Self {
        Self(local.digest)
    }
}
