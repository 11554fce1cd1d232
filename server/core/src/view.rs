//! What a plan sees: an applied state, and over it the overlay of rows that were planned since.

use std::collections::VecDeque;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use conclave_protocol::Zxid;

use crate::layer::Layer;
use crate::{Fault, Table};

pub use crate::tx::{Stop, Tx};

/// One applied state, unchanging while it is held: one read transaction of the store, or tables in memory.
///
/// Each read verifies the row's hash: a mismatch is a [`Fault`].
pub trait Base: Send {
    /// A row's value.
    ///
    /// # Errors
    /// A fault of this member.
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Rows whose keys start with `prefix` and come after `after` (exclusive; none, or one before the prefix: from the
    /// first), in order, at most `limit` of them. The prefix may be empty: the whole table.
    ///
    /// # Errors
    /// A fault of this member.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault>;

    /// The values of several rows, whose keys ascend.
    ///
    /// # Errors
    /// A fault of this member.
    fn several(&self, table: Table, keys: &[[u8; 8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        keys.iter().map(|key| self.row(table, key)).collect()
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Bytes);

/// A row that is written or deleted over the base.
#[derive(Clone, Debug)]
struct Over {
    zxid: Zxid,
    /// None is a tombstone.
    value: Option<Bytes>,
}

/// A base, and the rows planned over it.
pub struct View {
    base: Box<dyn Base>,
    overlay: Layer<Over>,
    /// Which keys each transaction wrote, to drop them without a search.
    written: VecDeque<(Zxid, Table, Vec<u8>)>,
}

impl View {
    /// A base with nothing planned over it.
    #[must_use]
    pub fn new(base: Box<dyn Base>) -> Self {
        Self { base, overlay: Layer::default(), written: VecDeque::new() }
    }

    /// Puts a newer base below the overlay, and drops the rows that it holds: those of writers at or below `zxid`,
    /// which the caller has read inside that base.
    pub fn rebase(&mut self, base: Box<dyn Base>, zxid: Zxid) {
        self.base = base;
        while let Some((writer, ..)) = self.written.front()
            && *writer <= zxid
        {
            let (writer, table, key) = self.written.pop_front().expect("the front was just seen");
            // A later transaction may have written the row again: then it stays.
            if let Entry::Occupied(row) = self.overlay.table_mut(table).entry(key)
                && row.get().zxid == writer
            {
                row.remove();
            }
        }
    }

    /// Rows in the overlay.
    #[must_use]
    pub fn overlay_rows(&self) -> usize {
        self.overlay.len()
    }

    /// Writes a transaction's rows over it; none deletes. Zxids never go down from call to call.
    pub fn write(&mut self, zxid: Zxid, rows: impl IntoIterator<Item = (Table, Vec<u8>, Option<Bytes>)>) {
        for (table, key, value) in rows {
            self.written.push_back((zxid, table, key.clone()));
            self.overlay.insert(table, key, Over { zxid, value });
        }
    }
}

impl Base for View {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.overlay.get(table, key) {
            Some(over) => Ok(over.value.clone()),
            None => self.base.row(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        let over = self.overlay.range(table, prefix, after).map(|(key, over)| (key, over.value.as_ref()));
        merge(over, limit, |from, count| self.base.scan(table, prefix, from.or(after), count))
    }
}

/// The most rows that one look below fetches to replace rows that turned out to be deleted.
const REFILL: usize = 256;

/// Merges sorted written rows (none: deleted) with a source of sorted rows below them: at most `limit` rows. `below`
/// gives rows after a key (none: from the first), at most as many as it is asked for.
pub(crate) fn merge<'a>(
    over: impl Iterator<Item = (&'a [u8], Option<&'a Bytes>)>,
    limit: usize,
    below: impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Row>, Fault>,
) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    if limit == 0 {
        return Ok(rows);
    }
    let mut over = over.peekable();
    let mut below = Below::start(below, limit)?;
    if over.peek().is_none() {
        return Ok(below.chunk.into());
    }
    while rows.len() < limit {
        let take_over = match (over.peek(), below.chunk.front()) {
            (Some((planned, _)), Some((applied, _))) => *planned <= applied.as_slice(),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if take_over {
            let (key, value) = over.next().expect("it was just peeked");
            if below.chunk.front().is_some_and(|(applied, _)| applied == key) {
                below.pop()?;
            }
            rows.extend(value.map(|value| (key.to_vec(), value.clone())));
        } else {
            rows.extend(below.pop()?);
        }
    }
    Ok(rows)
}

/// Rows from below, chunk by chunk.
struct Below<F> {
    fetch: F,
    chunk: VecDeque<Row>,
    /// How many the last chunk could have held: a full one may not be the last.
    asked: usize,
    more: bool,
}

impl<F: FnMut(Option<&[u8]>, usize) -> Result<Vec<Row>, Fault>> Below<F> {
    fn start(mut fetch: F, limit: usize) -> Result<Self, Fault> {
        let chunk: VecDeque<Row> = fetch(None, limit)?.into();
        Ok(Self { fetch, asked: limit, more: chunk.len() == limit, chunk })
    }

    /// Takes the first row, and fetches the next ones when it was the last of its chunk: always with a row in sight,
    /// or none left.
    fn pop(&mut self) -> Result<Option<Row>, Fault> {
        let row = self.chunk.pop_front();
        if let Some((key, _)) = &row
            && self.chunk.is_empty()
            && self.more
        {
            // Twice as many each time, or a limit of 1 behind many deleted rows costs a look for each of them.
            self.asked = self.asked.saturating_mul(2).min(REFILL);
            self.chunk = (self.fetch)(Some(key), self.asked)?.into();
            self.more = self.chunk.len() == self.asked;
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests;
