//! What every member does with an entry: check the chain, write its rows, verify the digest.

use bytes::Bytes;

use crate::digest::{Chain, Digest, RowHash};
use crate::entry::Entry;
use crate::history::{self, Bounds};
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

    /// A row's value as it is now, verified.
    ///
    /// # Errors
    /// A fault of this member.
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The first row after this key (exclusive; the empty one is before all): its key and the bytes of its value, which is
    /// not looked at.
    ///
    /// # Errors
    /// A fault of this member.
    fn after(&self, table: Table, key: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Fault>;

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

/// Whose digest holds after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The entry's: another one is a fault.
    Entry,
    /// This member's own: a majority of voters computed the same, so the entry's planner is the one that is wrong. Its
    /// rows are history of the log all the same.
    Own,
}

/// Applies an entry of the log: writes its rows, keeps its changes, and verifies the digest.
///
/// # Errors
/// A fault of this member: what was written must be dropped, with all that [`Tables::local`] gave.
pub fn apply(tables: &mut dyn Tables, at: Position, payload: &[u8]) -> Result<Applied, Fault> {
    apply_trusting(tables, at, payload, Trust::Entry)
}

/// As [`apply`], when it has been decided whose digest holds.
///
/// # Errors
/// As [`apply`]; no [`Fault::Digest`] with [`Trust::Own`].
pub fn apply_trusting(tables: &mut dyn Tables, at: Position, payload: &[u8], trust: Trust) -> Result<Applied, Fault> {
    let entry = Entry::decode(payload)?;
    // Only what the log holds decides: every member comes to the same.
    if entry.prev != tables.local().chain || entry.term != at.term {
        tables.local().applied = Some(at);
        return Ok(Applied::Void);
    }
    let mut digest = Digest::of(tables.local());
    for row in &entry.rows {
        let table = Table::of_number(row.table).filter(|table| table.is_digested());
        let table = table.ok_or_else(|| Fault::Entry(format!("it writes to a table of number {}", row.table)))?;
        let value = row.value.as_deref();
        if let Some(before) = tables.write(table, &row.key, value)? {
            digest.remove(before);
        }
        if let Some(value) = value {
            digest.add(RowHash::of(table, &row.key, value));
        }
    }
    if digest.0 != entry.digest && trust == Trust::Entry {
        return Err(Fault::Digest { zxid: entry.last(), computed: digest.0, expected: entry.digest });
    }
    history::keep(tables, &entry, Bounds::default())?;
    let local = tables.local();
    local.chain = Chain::after(payload);
    local.digest = digest.0;
    local.applied = Some(at);
    Ok(Applied::Done(entry))
}

/// Notes an entry of the log that changes no row: a blank one, or a membership.
pub fn skip(tables: &mut dyn Tables, at: Position, membership: Option<Bytes>) {
    let local = tables.local();
    local.applied = Some(at);
    if let Some(membership) = membership {
        local.membership = membership;
    }
}
