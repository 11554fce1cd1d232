//! One state, read in one transaction, every row verified.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use conclave_core::apply::Local;
use conclave_core::digest::{Digest, RowHash};
use conclave_core::view::{Base, Row};
use conclave_core::{Fault, Table, query, row};
use conclave_protocol::Zxid;
use heed::{RoTxn, WithoutTls};

use crate::environment::Environment;
use crate::error::{reading, storage};

/// Rows of a table that are stepped over to the next one that is wanted, before it is looked up.
const STEPS: usize = 4;

/// The state as of one commit. It owns what it needs, so it can be moved between threads; while it is held, LMDB can't
/// use again the pages that later commits free: never hold one while waiting.
pub struct Snapshot {
    /// Before the environment, so that it is closed first.
    txn: RoTxn<'static, WithoutTls>,
    environment: Arc<Environment>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("commit", &self.txn.id()).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn new(environment: Arc<Environment>) -> Result<Self, Fault> {
        let txn = environment.env.clone().static_read_txn().map_err(storage)?;
        environment.reader_opened(txn.id());
        Ok(Self { txn, environment })
    }

    /// What is kept beside the tables: chain, digest, the last entry applied, membership.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn local(&self) -> Result<Local, Fault> {
        self.environment.read_local(&self.txn)
    }

    /// What the next transaction builds on; before genesis, zeroes.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn state(&self) -> Result<row::State, Fault> {
        query::state(self)
    }

    /// The last transaction that it holds.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn zxid(&self) -> Result<Zxid, Fault> {
        Ok(self.state()?.zxid)
    }

    /// Reads every row, the history's too, verifies it, and adds up the digest anew: it equals the one in
    /// [`Self::local`], or the tables are damaged in a way that no single row shows. Takes as long as the tree is
    /// large, and pins pages meanwhile.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn scrub(&self) -> Result<Digest, Fault> {
        let mut digest = Digest::default();
        self.each_row(|table, _, _, hash| {
            if table.is_digested() {
                digest.add(hash);
            }
            Ok::<_, Fault>(())
        })?;
        Ok(digest)
    }

    /// Reads every row in the order of tables and keys, verifies it, and hands it on.
    pub(crate) fn each_row<E: From<Fault>>(
        &self,
        mut each: impl FnMut(Table, &[u8], &[u8], RowHash) -> Result<(), E>,
    ) -> Result<(), E> {
        for table in Table::ALL {
            self.each_checked(table, |key, row| {
                let (hash, value) = row?;
                each(table, key, value, hash)
            })?;
        }
        Ok(())
    }

    /// Reads every row of a table, and hands on what the check of its hash gave.
    pub(crate) fn each_checked<E: From<Fault>>(
        &self,
        table: Table,
        mut each: impl FnMut(&[u8], Result<(RowHash, &[u8]), Fault>) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.environment.table(table).iter(&self.txn).map_err(reading)? {
            let (key, stored) = row.map_err(reading)?;
            each(key, verify(table, key, stored))?;
        }
        Ok(())
    }

    /// How many rows there are in all tables.
    pub(crate) fn rows(&self) -> Result<u64, Fault> {
        let mut rows = 0;
        for table in Table::ALL {
            rows += self.environment.table(table).len(&self.txn).map_err(reading)?;
        }
        Ok(rows)
    }
}

impl Base for Snapshot {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() {
            // LMDB takes it for a mistake; no table has such a key.
            return Ok(None);
        }
        let Some(stored) = self.environment.table(table).get(&self.txn, key).map_err(reading)? else { return Ok(None) };
        let (_, value) = verify(table, key, stored)?;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let start = match start {
            // As above: the empty key is before all others.
            Bound::Included([]) | Bound::Excluded([]) => Bound::Unbounded,
            start => start,
        };
        let mut rows = Vec::new();
        for row in
            self.environment.table(table).range(&self.txn, &(start, Bound::Unbounded)).map_err(reading)?.take(limit)
        {
            let (key, stored) = row.map_err(reading)?;
            if !key.starts_with(prefix) {
                break;
            }
            let (_, value) = verify(table, key, stored)?;
            rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
        }
        Ok(rows)
    }

    fn several(&self, table: Table, keys: &[[u8; 8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        let table_rows = self.environment.table(table);
        let from = |key: &[u8]| table_rows.range(&self.txn, &(Bound::Included(key), Bound::Unbounded)).map_err(reading);
        // All values lie in one piece of memory: they are small, many, and die together.
        let mut found = Vec::with_capacity(keys.len());
        let mut values = Vec::new();
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let mut rows = from(first)?;
        let mut at = rows.next().transpose().map_err(reading)?;
        for key in keys {
            for _ in 0..STEPS {
                if at.is_none_or(|(there, _)| there >= key.as_slice()) {
                    break;
                }
                at = rows.next().transpose().map_err(reading)?;
            }
            if at.is_some_and(|(there, _)| there < key.as_slice()) {
                rows = from(key)?;
                at = rows.next().transpose().map_err(reading)?;
            }
            found.push(match at.filter(|(there, _)| *there == key) {
                Some((_, stored)) => {
                    let (_, value) = verify(table, key, stored)?;
                    values.extend_from_slice(value);
                    Some(values.len() - value.len()..values.len())
                }
                None => None,
            });
        }
        let values = Bytes::from(values);
        Ok(found.into_iter().map(|place| place.map(|place| values.slice(place))).collect())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.environment.reader_closed(self.txn.id());
    }
}

/// Takes a stored row apart, and verifies it.
pub(crate) fn verify<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Result<(RowHash, &'a [u8]), Fault> {
    if let Some((hash, value)) = split(stored)
        && hash == RowHash::of(table, key, value)
    {
        return Ok((hash, value));
    }
    Err(damaged(table, key))
}

/// The hash and the value of a stored row.
pub(crate) fn split(stored: &[u8]) -> Option<(RowHash, &[u8])> {
    let (hash, value) = stored.split_first_chunk::<{ RowHash::BYTES }>()?;
    Some((RowHash(u128::from_be_bytes(*hash)), value))
}

/// That this row is not what was written.
pub(crate) fn damaged(table: Table, key: &[u8]) -> Fault {
    Fault::Damaged { table, key: key.iter().map(|byte| format!("{byte:02x}")).collect() }
}
