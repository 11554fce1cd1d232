//! How much of the changes is kept: the last so many transactions, and the last so many bytes of them.

use conclave_protocol::{Zxid, limits};

use crate::apply::Tables;
use crate::entry::Entry;
use crate::row::{self, Kept, Recorded};
use crate::tree::typed;
use crate::view::Base;
use crate::{Fault, Table, key};

/// What the history may hold; whichever is reached first ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The last so many transactions, those without changes included.
    pub transactions: u64,
    /// Bytes of the rows that hold their changes.
    pub bytes: u64,
}

impl Default for Bounds {
    /// [`limits::HISTORY_TRANSACTIONS`] and [`limits::HISTORY_BYTES`].
    fn default() -> Self {
        Self { transactions: limits::HISTORY_TRANSACTIONS, bytes: limits::HISTORY_BYTES as u64 }
    }
}

/// Adds an entry's changes to the history, and drops the oldest transactions until it is within its bounds: as many as
/// came, on the average.
///
/// # Errors
/// A fault of this member.
pub fn keep(tables: &mut dyn Tables, entry: &Entry, bounds: Bounds) -> Result<(), Fault> {
    let before = mark(tables)?;
    let mut kept = match before {
        Some(kept) => kept,
        None => count(tables, entry.base, bounds)?,
    };
    for (zxid, transaction) in entry.numbered().filter(|(_, transaction)| !transaction.changes.is_empty()) {
        let row = row::encode(&ChangesRef(&transaction.changes));
        tables.write(Table::Change, &key::change(zxid), Some(&row))?;
        kept.bytes += row.len() as u64;
    }
    let too_old = entry.last().0.saturating_sub(bounds.transactions);
    while let Some((zxid, bytes)) = next(tables, Zxid(0))? {
        if zxid.0 > too_old && kept.bytes <= bounds.bytes {
            break;
        }
        tables.write(Table::Change, &key::change(zxid), None)?;
        kept.lost = zxid;
        kept.bytes = kept.bytes.saturating_sub(bytes);
    }
    if before != Some(kept) {
        tables.write(Table::Change, &key::KEPT, Some(&row::encode(&kept)))?;
    }
    Ok(())
}

/// The last transaction whose changes are not kept any more, in a state whose last transaction is `last`; 0: all are
/// kept.
///
/// # Errors
/// A fault of this member.
pub fn lost(base: &dyn Base, last: Zxid) -> Result<Zxid, Fault> {
    let kept: Option<Kept> = typed(base, Table::Change, &key::KEPT)?;
    Ok(kept.map_or_else(|| lost_uncounted(last, Bounds::default()), |kept| kept.lost))
}

/// The row that says what is kept; none before the first entry, and in a state of a version that kept no such row.
fn mark(tables: &dyn Tables) -> Result<Option<Kept>, Fault> {
    tables.value(Table::Change, &key::KEPT)?.map(|row| row::decode(Table::Change, &row)).transpose()
}

/// What is kept where no row says it: once, at the first entry that is applied there.
fn count(tables: &dyn Tables, last: Zxid, bounds: Bounds) -> Result<Kept, Fault> {
    let mut kept = Kept { lost: lost_uncounted(last, bounds), bytes: 0 };
    let mut after = Zxid(0);
    while let Some((zxid, bytes)) = next(tables, after)? {
        kept.bytes += bytes;
        after = zxid;
    }
    Ok(kept)
}

/// Where no row says what is lost, transactions were counted, and nothing else: what was further back is gone, if it
/// changed anything.
fn lost_uncounted(last: Zxid, bounds: Bounds) -> Zxid {
    Zxid(last.0.saturating_sub(bounds.transactions))
}

/// The first kept transaction after this one, and the bytes of its row.
fn next(tables: &dyn Tables, after: Zxid) -> Result<Option<(Zxid, u64)>, Fault> {
    let Some((key, bytes)) = tables.after(Table::Change, &key::change(after))? else { return Ok(None) };
    Ok(Some((zxid(&key)?, bytes as u64)))
}

/// The transaction whose changes have this key.
pub(crate) fn zxid(key: &[u8]) -> Result<Zxid, Fault> {
    let zxid = key.try_into().map(u64::from_be_bytes).map(Zxid);
    zxid.map_err(|_| Fault::Row { table: Table::Change, why: "its key is no zxid".to_owned() })
}

/// The bytes of [`row::Changes`], without a copy of them.
#[derive(serde::Serialize)]
struct ChangesRef<'a>(&'a [Recorded]);
