//! The entry that is being filled: transactions, and their rows coalesced by key.

use bytes::Bytes;
use conclave_protocol::Zxid;

use crate::digest::{Chain, Digest, RowHash};
use crate::entry::{Entry, Origin, RowWrite, Transaction};
use crate::layer::Layer;
use crate::tx::Written;
use crate::view::{Base, View};
use crate::{Fault, Table};

/// What a row costs in an entry besides its key and value: table, lengths.
const ROW_BYTES: usize = 8;

/// What a transaction costs besides its changes and its outcome.
const TRANSACTION_BYTES: usize = 64;

/// A row that the entry writes.
struct Write {
    /// The hash of the row before the entry.
    before: Option<RowHash>,
    value: Option<Bytes>,
}

/// Transactions that are planned and not yet cut into an entry. Rows are hashed when the entry is cut: a hot row once,
/// however many transactions wrote it.
#[derive(Default)]
pub(crate) struct Pending {
    rows: Layer<Write>,
    pub(crate) transactions: Vec<Transaction>,
    /// Bytes of the entry, about.
    pub(crate) bytes: usize,
}

impl Pending {
    /// Takes a transaction in, and writes its rows over the view.
    pub(crate) fn add(
        &mut self,
        view: &mut View,
        zxid: Zxid,
        written: Written,
        origin: Origin,
        outcome: Bytes,
    ) -> Result<(), Fault> {
        let rows: Vec<(Table, Vec<u8>, Option<Bytes>)> = written.rows.into_rows().collect();
        for (table, key, value) in &rows {
            self.write(*table, key, value.clone(), view)?;
        }
        view.write(zxid, rows);
        let changes = written.changes;
        self.bytes += TRANSACTION_BYTES + outcome.len();
        self.bytes += changes.iter().map(|recorded| recorded.change.path.as_str().len() + ROW_BYTES).sum::<usize>();
        self.transactions.push(Transaction { origin, changes, outcome });
        Ok(())
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<Bytes>, view: &View) -> Result<(), Fault> {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += bytes(&value);
        if let Some(write) = self.rows.table_mut(table).get_mut(key) {
            self.bytes -= bytes(&write.value);
            write.value = value;
            return Ok(());
        }
        self.bytes += key.len() + ROW_BYTES;
        let before = view.row(table, key)?.map(|value| RowHash::of(table, key, &value));
        self.rows.insert(table, key.to_vec(), Write { before, value });
        Ok(())
    }

    /// Makes the entry; the digest goes on from the one before it.
    pub(crate) fn entry(self, term: u64, prev: Chain, base: Zxid, time_ms: u64, digest: &mut Digest) -> Entry {
        let mut rows = Vec::with_capacity(self.rows.len());
        for (table, key, Write { before, value }) in self.rows.into_rows() {
            if let Some(before) = before {
                digest.remove(before);
            }
            match &value {
                Some(value) => digest.add(RowHash::of(table, &key, value)),
                // It was written and deleted within the entry.
                None if before.is_none() => continue,
                None => {}
            }
            rows.push(RowWrite { table: table.number(), key, value });
        }
        Entry { term, prev, base, time_ms, transactions: self.transactions, rows, digest: digest.0 }
    }

    /// Writes one row that no transaction writes, such as the state's: its hash before is known.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], before: Option<RowHash>, value: Bytes) {
        self.rows.insert(table, key.to_vec(), Write { before, value: Some(value) });
    }
}
