//! Rows in memory, by table and key: what the overlay, a transaction's rows and an entry's rows are kept in.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::Table;

/// Sorted rows of all tables. Lookups take a borrowed key, so that they allocate nothing.
#[derive(Clone, Debug)]
pub(crate) struct Layer<V> {
    tables: [BTreeMap<Vec<u8>, V>; Table::ALL.len()],
}

impl<V> Default for Layer<V> {
    fn default() -> Self {
        Self { tables: std::array::from_fn(|_| BTreeMap::new()) }
    }
}

impl<V> Layer<V> {
    pub(crate) fn table(&self, table: Table) -> &BTreeMap<Vec<u8>, V> {
        &self.tables[slot(table)]
    }

    pub(crate) fn table_mut(&mut self, table: Table) -> &mut BTreeMap<Vec<u8>, V> {
        &mut self.tables[slot(table)]
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<&V> {
        self.table(table).get(key)
    }

    pub(crate) fn insert(&mut self, table: Table, key: Vec<u8>, value: V) -> Option<V> {
        self.table_mut(table).insert(key, value)
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Rows whose keys start with `prefix` and come after `after`, in order.
    pub(crate) fn range<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a V)> {
        self.table(table)
            .range::<[u8], _>((start(prefix, after), Bound::Unbounded))
            .map(|(key, value)| (key.as_slice(), value))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// All rows, sorted by (table, key).
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (Table, Vec<u8>, V)> {
        let numbered = Table::ALL.into_iter().zip(self.tables);
        numbered.flat_map(|(table, rows)| rows.into_iter().map(move |(key, value)| (table, key, value)))
    }
}

/// Where a scan of `prefix` after `after` begins: an `after` below the prefix must not end the scan before it began.
pub(crate) fn start<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

fn slot(table: Table) -> usize {
    usize::from(table.number()) - 1
}
