//! Faults: reasons to stop this member. Never an answer.

use conclave_protocol::Zxid;

use crate::Table;

/// What is wrong with this member's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A row's bytes do not have the hash that they were written with.
    #[error("a row of table {} is damaged: its bytes do not match its hash (key {key})", table.name())]
    Damaged {
        /// Of which table.
        table: Table,
        /// Its key, hexadecimal.
        key: String,
    },
    /// A row with the right hash that is not of its table's form.
    #[error("a row of table {} can't be read: {why}", table.name())]
    Row {
        /// Of which table.
        table: Table,
        /// Why.
        why: String,
    },
    /// An entry of the log that is none.
    #[error("an entry of the log can't be read: {0}")]
    Entry(String),
    /// After an entry the digest is another than the entry says.
    #[error("digest mismatch at zxid {zxid}: this member computes {computed:032x}, the entry says {expected:032x}")]
    Digest {
        /// After which transaction.
        zxid: Zxid,
        /// What this member computes.
        computed: u128,
        /// What the leader computed.
        expected: u128,
    },
    /// Something that cannot be, is.
    #[error("broken invariant: {0}")]
    Invariant(String),
    /// The structure of the tables is damaged, so that what they hold can't be told: they have to be built again. A disk
    /// that fails to read or write is [`Self::Storage`].
    #[error("the tables' structure is damaged: {0}")]
    Corrupt(String),
    /// The disk, or the database on it.
    #[error("storage: {0}")]
    Storage(String),
    /// No room on the disk: nothing was changed, and the same can be tried again when there is room.
    #[error("the disk is full: {0}")]
    Full(String),
}
