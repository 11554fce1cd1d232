//! The only writer: a batch of entries, and what is kept beside the tables, in one transaction.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use conclave_core::apply::{Local, Tables};
use conclave_core::digest::RowHash;
use conclave_core::{Fault, Table};
use heed::RwTxn;

use crate::Store;
use crate::environment::Environment;
use crate::error::storage;
use crate::snapshot::{damaged, split, verify};

/// The longest key that LMDB takes. The protocol's limits keep keys far below it.
const KEY_BYTES: usize = 511;

/// Writes the tables. There is one, so it keeps what lies beside them in memory.
#[derive(Debug)]
pub struct Writer {
    pub(crate) store: Store,
    pub(crate) environment: Arc<Environment>,
    pub(crate) local: Local,
}

impl Writer {
    pub(crate) fn new(store: Store) -> Result<Self, Fault> {
        let environment = store.0.current();
        let local = environment.read_local(&environment.env.read_txn().map_err(storage)?)?;
        Ok(Self { store, environment, local })
    }

    /// What is kept beside the tables, as of the last commit.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Writes a batch in one transaction, `Local` included. `before_commit` sees what will be committed: there the
    /// caller waits until the log has written up to `applied`. When either fails, nothing of the batch was done.
    ///
    /// The commit is not synced: it survives this process, and the machine only after [`Store::sync`].
    ///
    /// # Errors
    /// The closures' own; [`Fault::Full`] when the disk is full, and the same write can be tried again; or
    /// [`Fault::Storage`]: after one from a commit, every write fails.
    pub fn write<R>(
        &mut self,
        batch: impl FnOnce(&mut dyn Tables) -> Result<R, Fault>,
        before_commit: impl FnOnce(&Local) -> Result<(), Fault>,
    ) -> Result<R, Fault> {
        let written = self.write_once(batch, before_commit);
        if matches!(written, Err(Fault::Full(_))) {
            self.turn();
        }
        written
    }

    fn write_once<R>(
        &mut self,
        batch: impl FnOnce(&mut dyn Tables) -> Result<R, Fault>,
        before_commit: impl FnOnce(&Local) -> Result<(), Fault>,
    ) -> Result<R, Fault> {
        let (shared, environment) = (&*self.store.0, &*self.environment);
        shared.check()?;
        let txn = environment.env.write_txn().map_err(storage)?;
        let mut writing = Writing { environment, txn, local: self.local.clone() };
        let done = batch(&mut writing)?;
        let Writing { mut txn, local, .. } = writing;
        if local != self.local {
            environment.write_local(&mut txn, &local)?;
        }
        before_commit(&local)?;
        // A commit that failed has been aborted by LMDB: the pages that it wrote are free ones, which no state refers
        // to, since the page with the roots comes last. Had that one failed, the next transaction would fail too.
        shared.keep(txn.commit().map_err(|error| environment.fault(error)))?;
        environment.succeeded();
        self.local = local;
        Ok(done)
    }

    /// Commits a transaction that changes nothing. LMDB uses the pages that a commit freed from the second transaction
    /// after it on: when the first one finds no room, for ever, those that the last deletes freed would never be used.
    fn turn(&self) {
        let (shared, environment) = (&*self.store.0, &*self.environment);
        let turn = || -> Result<(), Fault> {
            let mut txn = environment.env.write_txn().map_err(storage)?;
            environment.write_local(&mut txn, &self.local)?;
            txn.commit().map_err(|error| environment.fault(error))
        };
        // Without room for a few pages, the next failure tries again; any other failure is kept.
        if let Err(fault) = shared.keep(turn()) {
            tracing::debug!(%fault, "the disk is full to the last page");
        }
    }

    /// Syncs, and marks the tables as closed: the next open believes them, in another boot too. Readers may go on, until
    /// the last of them is dropped nobody else can open the tables.
    ///
    /// A writer that is dropped instead counts as a crash.
    ///
    /// # Errors
    /// [`Fault::Storage`]: the tables count as not closed.
    pub fn close(self) -> Result<(), Fault> {
        self.store.0.close()
    }
}

/// A batch that is being written.
struct Writing<'a> {
    environment: &'a Environment,
    txn: RwTxn<'a>,
    local: Local,
}

impl Tables for Writing<'_> {
    fn write(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<Option<RowHash>, Fault> {
        if key.is_empty() || key.len() > KEY_BYTES {
            let bytes = key.len();
            return Err(Fault::Invariant(format!("a key of {bytes} bytes for table {}", table.name())));
        }
        let rows = self.environment.table(table);
        let old = match rows.get(&self.txn, key).map_err(storage)? {
            // The stored hash is what the digest was made of; whether the value still has it, readers check.
            Some(stored) => Some(split(stored).ok_or_else(|| damaged(table, key))?.0),
            None => None,
        };
        match value {
            Some(value) => {
                let hash = RowHash::of(table, key, value).0.to_be_bytes();
                rows.put_reserved(&mut self.txn, key, hash.len() + value.len(), |row| {
                    row.write_all(&hash)?;
                    row.write_all(value)
                })
                .map_err(|error| self.environment.fault(error))?;
            }
            None if old.is_some() => {
                _ = rows.delete(&mut self.txn, key).map_err(|error| self.environment.fault(error))?;
            }
            None => {}
        }
        Ok(old)
    }

    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() {
            // LMDB takes it for a mistake; no table has such a key.
            return Ok(None);
        }
        let Some(stored) = self.environment.table(table).get(&self.txn, key).map_err(storage)? else { return Ok(None) };
        let (_, value) = verify(table, key, stored)?;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    fn after(&self, table: Table, key: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Fault> {
        let rows = self.environment.table(table);
        let found = if key.is_empty() { rows.first(&self.txn) } else { rows.get_greater_than(&self.txn, key) };
        let Some((key, stored)) = found.map_err(storage)? else { return Ok(None) };
        let (_, value) = split(stored).ok_or_else(|| damaged(table, key))?;
        Ok(Some((key.to_vec(), value.len())))
    }

    fn local(&mut self) -> &mut Local {
        &mut self.local
    }
}
