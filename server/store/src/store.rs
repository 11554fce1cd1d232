//! The tables as the whole member shares them: snapshots for readers, whichever environment they lie in just now.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use conclave_core::Fault;

use crate::environment::{Environment, FORMAT};
use crate::error::storage;
use crate::marker::{Marker, sync_dir};
use crate::{Boot, DirLock, Discarded, Snapshot, Writer};

/// How to open the tables.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of address space for the map, which the file never outgrows: a multiple of the page size. It costs nothing
    /// until it is used, so it is set large once instead of being grown while transactions wait.
    pub map_bytes: usize,
    /// How many snapshots can be held at once.
    pub max_readers: u32,
    /// Which boot this is.
    pub boot: Boot,
    /// After so long without a crash, the tables are not suspected to be the cause of one.
    pub settled_after: Duration,
    /// Throw the tables away, whatever the marker says: they are known to be wrong.
    pub discard: bool,
}

impl Default for Options {
    /// 1 TiB, 1,024 snapshots, the present boot, a minute; what can be believed is kept.
    fn default() -> Self {
        let settled_after = Duration::from_secs(60);
        Self { map_bytes: 1 << 40, max_readers: 1024, boot: Boot::current(), settled_after, discard: false }
    }
}

/// The tables, opened.
#[derive(Debug)]
pub struct Opened {
    /// For readers.
    pub store: Store,
    /// The only writer.
    pub writer: Writer,
    /// Why the tables that were there had to be thrown away; then these are those of `rebuilt_from`, or empty (nothing
    /// applied), and the log after that is to be applied again.
    pub discarded: Option<Discarded>,
    /// The checkpoint that the tables were built again from.
    pub rebuilt_from: Option<conclave_core::apply::Position>,
}

/// The tables, for readers: cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Shared>);

/// Of all environments.
#[derive(Debug)]
pub(crate) struct Shared {
    current: RwLock<Arc<Environment>>,
    /// Those that were replaced, and are still read.
    draining: Mutex<Vec<Weak<Environment>>>,
    marked: Mutex<Marked>,
    /// The first failure of the disk: after it nothing is written or synced, since the kernel may have dropped the
    /// pages and would report success.
    failed: OnceLock<Fault>,
    pub(crate) options: Options,
    pub(crate) cluster: String,
    pub(crate) lock: DirLock,
}

/// The marker on the disk.
#[derive(Debug)]
struct Marked {
    marker: Marker,
    /// Since when the tables that it names are open.
    since: Instant,
    /// LMDB's transaction that they began at.
    first_txn: usize,
}

/// Who reads. An old snapshot pins the pages of its time: the file grows, and never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Snapshots that are open.
    pub open: usize,
    /// For how long the oldest state has been read.
    pub oldest: Duration,
    /// How many commits came after that state.
    pub commits_behind: usize,
}

impl Store {
    pub(crate) fn new(
        environment: Environment,
        marker: Marker,
        cluster: &str,
        lock: &DirLock,
        options: &Options,
    ) -> Self {
        let first_txn = environment.last_txn();
        Self(Arc::new(Shared {
            current: RwLock::new(Arc::new(environment)),
            draining: Mutex::default(),
            marked: Mutex::new(Marked { marker, since: Instant::now(), first_txn }),
            failed: OnceLock::new(),
            options: options.clone(),
            cluster: cluster.to_owned(),
            lock: lock.clone(),
        }))
    }

    /// The state as of the last commit, unchanging while it is held. Hold it briefly: it pins pages.
    ///
    /// # Errors
    /// [`Fault::Storage`], also when more snapshots are open than [`Options::max_readers`].
    pub fn snapshot(&self) -> Result<Snapshot, Fault> {
        Snapshot::new(self.0.current())
    }

    /// Makes everything that is committed durable, which keeps the closing of the tables short; to be called every few
    /// seconds, from any thread but the one that writes, since it waits for the disk.
    ///
    /// # Errors
    /// [`Fault::Storage`]: not to be tried again, the process has to end.
    pub fn sync(&self) -> Result<(), Fault> {
        self.0.check()?;
        self.0.keep(self.0.current().env.force_sync().map_err(storage))?;
        let mut marked = self.0.marked();
        if marked.marker.is_young() && marked.since.elapsed() >= self.0.options.settled_after {
            match self.0.mark(&mut marked, Marker::settled) {
                // It only stays suspected a little longer.
                Err(Fault::Full(_)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Bytes of the files: of the present environment, and of those that are replaced and still read.
    ///
    /// # Errors
    /// [`Fault::Storage`].
    pub fn disk_bytes(&self) -> Result<u64, Fault> {
        let mut bytes = self.0.current().disk_bytes()?;
        for old in self.0.draining() {
            bytes += old.disk_bytes()?;
        }
        Ok(bytes)
    }

    /// Who reads, in the present environment and in those that are replaced.
    #[must_use]
    pub fn readers(&self) -> Readers {
        let current = self.0.current();
        let since_first = current.last_txn().saturating_sub(self.0.marked().first_txn);
        let mut all = Readers::default();
        let old = self.0.draining().into_iter().map(|old| {
            let last = old.last_txn();
            // The swap counts as a commit.
            (old, last + 1 + since_first)
        });
        let last = current.last_txn();
        for (environment, last) in old.chain([(current, last)]) {
            if let Some((open, id, since)) = environment.oldest_reader() {
                all.open += open;
                all.oldest = all.oldest.max(since.elapsed());
                all.commits_behind = all.commits_behind.max(last.saturating_sub(id));
            }
        }
        all
    }

    /// The N of the directory `env-N` that the tables lie in: one more after each install.
    #[must_use]
    pub fn environment(&self) -> u32 {
        self.0.current().number()
    }
}

impl Shared {
    /// The environment that is written and read now.
    pub(crate) fn current(&self) -> Arc<Environment> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that are replaced and still held.
    fn draining(&self) -> Vec<Arc<Environment>> {
        let mut draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        draining.retain(|old| old.strong_count() > 0);
        draining.iter().filter_map(Weak::upgrade).collect()
    }

    /// Makes the marker name another environment, durably. When this fails with [`Fault::Full`], nothing changed.
    pub(crate) fn mark_replaced(&self, by: &Environment) -> Result<(), Fault> {
        let place = by.place().map_err(|error| Fault::Storage(error.to_string()))?;
        let next = Marker::open(&self.cluster, by.number(), &self.options.boot, place, 0);
        let mut marked = self.marked();
        self.mark(&mut marked, |_| next)?;
        marked.since = Instant::now();
        marked.first_txn = by.last_txn();
        Ok(())
    }

    /// Lets readers have another environment. Those of the old one go on, until the last of them is dropped.
    pub(crate) fn swap(&self, by: &Arc<Environment>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::clone(by));
        drop(current);
        self.draining.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&old));
        old.replace();
    }

    /// The failure that came before, if one did.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.failed.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Remembers a failure of the disk. A full disk is none: what failed was undone.
    pub(crate) fn keep<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.inspect_err(|fault| {
            if !matches!(fault, Fault::Full(_)) {
                _ = self.failed.set(fault.clone());
            }
        })
    }

    /// Syncs, and says so in the marker: the next open believes the tables, wherever that is.
    pub(crate) fn close(&self) -> Result<(), Fault> {
        self.check()?;
        let current = self.current();
        self.keep(current.env.force_sync().map_err(storage))?;
        self.keep(sync_dir(current.path()).map_err(|error| Fault::Storage(error.to_string())))?;
        self.mark(&mut self.marked(), Marker::closed)
    }

    fn mark(&self, marked: &mut Marked, change: impl FnOnce(&Marker) -> Marker) -> Result<(), Fault> {
        let next = change(&marked.marker);
        let written = next.write(self.lock.dir(), FORMAT).map_err(|error| match error {
            error if error.is_full() => Fault::Full(error.to_string()),
            error => Fault::Storage(error.to_string()),
        });
        self.keep(written)?;
        marked.marker = next;
        Ok(())
    }

    fn marked(&self) -> MutexGuard<'_, Marked> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
