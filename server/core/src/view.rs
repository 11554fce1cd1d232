//! What a plan sees: an applied state, the overlay of rows planned since, and the rows of the transaction at hand.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use conclave_protocol::Zxid;

use crate::{Fault, Table};

/// One applied state, unchanging while it is held: one read transaction of the store, or tables in memory.
///
/// Each read verifies the row's hash: a mismatch is a [`Fault`].
pub trait Base: Send {
    /// A row's value.
    ///
    /// # Errors
    /// A fault of this member.
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Rows whose keys start with `prefix` and come after `after` (exclusive; none: from the first), in order, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// A fault of this member.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault>;
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
    overlay: BTreeMap<(Table, Vec<u8>), Over>,
    /// Which keys each transaction wrote, to drop them without a search.
    written: VecDeque<(Zxid, Table, Vec<u8>)>,
}

impl View {
    /// A base with nothing planned over it.
    #[must_use]
    pub fn new(base: Box<dyn Base>) -> Self {
        Self { base, overlay: BTreeMap::new(), written: VecDeque::new() }
    }

    /// Puts a newer base below the overlay, and drops the rows that it holds: those of writers at or below `zxid`,
    /// which the caller has read inside that base.
    pub fn rebase(&mut self, base: Box<dyn Base>, zxid: Zxid) {
        self.base = base;
        while let Some((writer, ..)) = self.written.front()
            && *writer <= zxid
        {
            let (writer, table, key) = self.written.pop_front().expect("the front was just seen");
            if let std::collections::btree_map::Entry::Occupied(row) = self.overlay.entry((table, key))
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

    /// Writes a transaction's rows over it.
    pub fn write(&mut self, zxid: Zxid, rows: impl IntoIterator<Item = (Table, Vec<u8>, Option<Bytes>)>) {
        for (table, key, value) in rows {
            self.written.push_back((zxid, table, key.clone()));
            self.overlay.insert((table, key), Over { zxid, value });
        }
    }

    /// A row's value, planned or applied.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.overlay.get(&(table, key.to_vec())) {
            Some(over) => Ok(over.value.clone()),
            None => self.base.row(table, key),
        }
    }

    /// As [`Base::scan`], planned rows merged in.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        let start = (table, after.map_or_else(|| prefix.to_vec(), <[u8]>::to_vec));
        let over = self
            .overlay
            .range(start..)
            .map(|((t, k), over)| (*t, k, over.value.as_ref()))
            .take_while(|(t, k, _)| *t == table && k.starts_with(prefix))
            .filter(|(_, k, _)| after.is_none_or(|after| k.as_slice() > after))
            .map(|(_, k, value)| (k, value));
        merge(over, limit, |from, count| self.base.scan(table, prefix, from.or(after), count))
    }
}

/// Merges sorted written rows (none: deleted) with a source of sorted rows below them.
pub(crate) fn merge<'a>(
    over: impl Iterator<Item = (&'a Vec<u8>, Option<&'a Bytes>)>,
    limit: usize,
    mut below: impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Row>, Fault>,
) -> Result<Vec<Row>, Fault> {
    let mut over = over.peekable();
    let mut rows: Vec<Row> = Vec::new();
    let mut chunk: VecDeque<Row> = below(None, limit)?.into();
    let mut more = chunk.len() == limit;
    while rows.len() < limit {
        let take_over = match (over.peek(), chunk.front()) {
            (Some((planned, _)), Some((applied, _))) => planned.as_slice() <= applied.as_slice(),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if take_over {
            let (key, value) = over.next().expect("it was just peeked");
            if chunk.front().is_some_and(|(applied, _)| applied == key) {
                pop(&mut chunk, &mut more, limit, &mut below)?;
            }
            if let Some(value) = value {
                rows.push((key.clone(), value.clone()));
            }
        } else if let Some(row) = pop(&mut chunk, &mut more, limit, &mut below)? {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Takes the first row from below, and fetches the next ones when it was the last of its chunk.
fn pop(
    chunk: &mut VecDeque<Row>,
    more: &mut bool,
    limit: usize,
    below: &mut impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Row>, Fault>,
) -> Result<Option<Row>, Fault> {
    let row = chunk.pop_front();
    if let Some((key, _)) = &row
        && chunk.is_empty()
        && *more
    {
        *chunk = below(Some(key), limit)?.into();
        *more = chunk.len() == limit;
    }
    Ok(row)
}

/// The transaction at hand: the view, and the rows that it has written so far. Dropped, nothing of it happened.
pub struct Tx {
    /// What lies below.
    view: View,
}
