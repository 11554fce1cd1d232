//! Opening the tables, and what the whole member shares of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use conclave_core::apply::Local;
use conclave_core::digest::Chain;
use conclave_core::{Fault, Table};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{io, storage};
use crate::marker::{Found, Marker, Place, sync_dir};
use crate::{Boot, DirLock, Discarded, Error, Snapshot, Writer};

/// The format of the tables that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// Keys of the database `local`.
const FORMAT_KEY: &[u8] = b"format";
const CLUSTER_KEY: &[u8] = b"cluster";
const LOCAL_KEY: &[u8] = b"local";

/// The first environment's number. Installing a snapshot will make the next one.
const FIRST: u32 = 1;

/// A database of LMDB; what it holds is checked by hand, row by row.
pub(crate) type Rows = Database<'static, Bytes, Bytes>;

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
}

impl Default for Options {
    /// 1 TiB, 1,024 snapshots, the present boot, a minute.
    fn default() -> Self {
        let settled_after = Duration::from_secs(60);
        Self { map_bytes: 1 << 40, max_readers: 1024, boot: Boot::current(), settled_after }
    }
}

/// The tables, opened.
#[derive(Debug)]
pub struct Opened {
    /// For readers.
    pub store: Store,
    /// The only writer.
    pub writer: Writer,
    /// Why the tables that were there had to be thrown away; then these are empty (nothing applied), and the whole log
    /// is to be applied again.
    pub discarded: Option<Discarded>,
}

/// The tables, for readers: cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Shared>);

/// Held by every reader and the writer. The lock comes last: it is released when the environment is closed.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env<WithoutTls>,
    /// By the table's number, less one.
    tables: [Rows; Table::ALL.len()],
    local: Rows,
    path: PathBuf,
    opened: Instant,
    settled_after: Duration,
    marker: Mutex<Marker>,
    /// The first failure of the disk: after it nothing is written or synced, since the kernel may have dropped the
    /// pages and would report success.
    failed: OnceLock<Fault>,
    /// LMDB's transaction id → snapshots that are open on it, and since when.
    readers: Mutex<BTreeMap<usize, (usize, Instant)>>,
    lock: DirLock,
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
    /// Opens the tables in `env-N` of a locked data directory, makes them when there are none, or throws away those
    /// that can't be believed: then they begin empty.
    ///
    /// # Errors
    /// [`Error::OtherCluster`], [`Error::OtherFormat`], [`Error::Locked`] when they are open in this process,
    /// [`Error::Io`], [`Error::Fault`].
    pub fn open(lock: &DirLock, cluster: &str, options: &Options) -> Result<Opened, Error> {
        let dir = lock.dir();
        let Judged { environment, early_crashes, discarded } = judge(dir, cluster, &options.boot)?;
        let path = dir.join(format!("env-{environment}"));
        if let Some(why) = discarded {
            tracing::warn!(%why, "the tables are discarded, and rebuilt from the log");
            discard(dir)?;
        }
        fs::create_dir_all(&path).map_err(io("create the directory", &path))?;
        let env = open_env(&path, options)?;

        // Durable before the first commit that is not synced. LMDB has made the file by now.
        let data = path.join("data.mdb");
        let place = Place::of(&data)?.ok_or_else(|| io("find", &data)(std::io::ErrorKind::NotFound.into()))?;
        let marker = Marker::open(cluster, environment, &options.boot, place, early_crashes);
        marker.write(dir, FORMAT)?;

        let (tables, local) = open_tables(&env, cluster)?;
        let store = Self(Arc::new(Shared {
            env,
            tables,
            local,
            path,
            opened: Instant::now(),
            settled_after: options.settled_after,
            marker: Mutex::new(marker),
            failed: OnceLock::new(),
            readers: Mutex::default(),
            lock: lock.clone(),
        }));
        let writer = Writer::new(store.clone())?;
        Ok(Opened { store, writer, discarded })
    }

    /// The state as of the last commit, unchanging while it is held. Hold it briefly: it pins pages.
    ///
    /// # Errors
    /// [`Fault::Storage`], also when more snapshots are open than [`Options::max_readers`].
    pub fn snapshot(&self) -> Result<Snapshot, Fault> {
        Snapshot::new(self.clone())
    }

    /// Makes everything that is committed durable, which keeps the closing of the tables short; to be called every few
    /// seconds, from any thread but the one that writes, since it waits for the disk.
    ///
    /// # Errors
    /// [`Fault::Storage`]: not to be tried again, the process has to end.
    pub fn sync(&self) -> Result<(), Fault> {
        self.0.check()?;
        self.0.keep(self.0.env.force_sync().map_err(storage))?;
        let mut marker = self.0.marker();
        if marker.is_young() && self.0.opened.elapsed() >= self.0.settled_after {
            self.0.mark(&mut marker, Marker::settled)?;
        }
        Ok(())
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// [`Fault::Storage`].
    pub fn disk_bytes(&self) -> Result<u64, Fault> {
        fs::metadata(self.0.path.join("data.mdb"))
            .map(|data| data.len())
            .map_err(|error| Fault::Storage(error.to_string()))
    }

    /// Who reads.
    #[must_use]
    pub fn readers(&self) -> Readers {
        let readers = self.0.readers();
        let last = self.0.env.info().last_txn_id;
        readers.first_key_value().map_or_else(Readers::default, |(id, (_, since))| Readers {
            open: readers.values().map(|(count, _)| count).sum(),
            oldest: since.elapsed(),
            commits_behind: last.saturating_sub(*id),
        })
    }
}

impl Shared {
    /// The database of a table.
    pub(crate) fn table(&self, table: Table) -> Rows {
        self.tables[usize::from(table.number()) - 1]
    }

    /// What is kept beside the tables.
    pub(crate) fn read_local(&self, txn: &RoTxn<'_, WithoutTls>) -> Result<Local, Fault> {
        let damaged = || Fault::Storage("the record beside the tables is damaged".to_owned());
        let bytes = self.local.get(txn, LOCAL_KEY).map_err(storage)?.ok_or_else(damaged)?;
        let (check, body) = bytes.split_first_chunk::<16>().ok_or_else(damaged)?;
        if xxh3_128(body).to_be_bytes() != *check {
            return Err(damaged());
        }
        postcard::from_bytes(body).map_err(|_| damaged())
    }

    /// Keeps it, in the transaction of the rows that it belongs to.
    pub(crate) fn write_local(&self, txn: &mut RwTxn<'_>, local: &Local) -> Result<(), Fault> {
        write_local(self.local, txn, local).map_err(storage)
    }

    /// A snapshot was opened on this transaction.
    pub(crate) fn reader_opened(&self, id: usize) {
        self.readers().entry(id).or_insert_with(|| (0, Instant::now())).0 += 1;
    }

    /// It was closed.
    pub(crate) fn reader_closed(&self, id: usize) {
        let mut readers = self.readers();
        if let Some((count, _)) = readers.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&id);
            }
        }
    }

    /// The failure that came before, if one did.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.failed.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Remembers a failure of the disk.
    pub(crate) fn keep<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.inspect_err(|fault| _ = self.failed.set(fault.clone()))
    }

    /// Syncs, and says so in the marker: the next open believes the tables, wherever that is.
    pub(crate) fn close(&self) -> Result<(), Fault> {
        self.check()?;
        self.keep(self.env.force_sync().map_err(storage))?;
        self.keep(sync_dir(&self.path).map_err(|error| Fault::Storage(error.to_string())))?;
        self.mark(&mut self.marker(), Marker::closed)
    }

    fn mark(&self, marker: &mut Marker, change: impl FnOnce(&Marker) -> Marker) -> Result<(), Fault> {
        let next = change(marker);
        let written = next.write(self.lock.dir(), FORMAT).map_err(|error| Fault::Storage(error.to_string()));
        self.keep(written)?;
        *marker = next;
        Ok(())
    }

    fn marker(&self) -> MutexGuard<'_, Marker> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<usize, (usize, Instant)>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the marker says about the tables in a data directory.
struct Judged {
    environment: u32,
    early_crashes: u32,
    discarded: Option<Discarded>,
}

fn judge(dir: &Path, cluster: &str, boot: &Boot) -> Result<Judged, Error> {
    let marker = match Marker::read(dir, FORMAT)? {
        Found::Marker(marker) => marker,
        Found::OtherFormat(found) => return Err(Error::OtherFormat { found, expected: FORMAT }),
        Found::Nothing => {
            let discarded = environments(dir)?.first().map(|_| Discarded::Unmarked);
            return Ok(Judged { environment: FIRST, early_crashes: 0, discarded });
        }
    };
    // Before anything is thrown away: what is another's is not ours to discard.
    if marker.cluster != cluster {
        return Err(Error::OtherCluster { found: marker.cluster, expected: cluster.to_owned() });
    }
    let environment = marker.environment;
    let place = Place::of(&dir.join(format!("env-{environment}")).join("data.mdb"))?;
    Ok(match marker.judge(boot, place) {
        Ok(early_crashes) => Judged { environment, early_crashes, discarded: None },
        Err(why) => Judged { environment: FIRST, early_crashes: 0, discarded: Some(why) },
    })
}

/// The directories `env-N` in a data directory.
fn environments(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.and_then(|name| name.strip_prefix("env-")).is_some_and(|n| n.parse::<u32>().is_ok()) {
                found.push(path);
            }
        }
        Ok(found)
    };
    list().map_err(io("list", dir))
}

/// Removes all environments. When that is interrupted, the marker still says what it said.
fn discard(dir: &Path) -> Result<(), Error> {
    for path in environments(dir)? {
        fs::remove_dir_all(&path).map_err(io("remove", &path))?;
    }
    sync_dir(dir)
}

fn open_env(path: &Path, options: &Options) -> Result<Env<WithoutTls>, Error> {
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(options.map_bytes).max_readers(options.max_readers);
    open.max_dbs(u32::try_from(Table::ALL.len() + 1).expect("a dozen"));
    // SAFETY: the map is of a file that this process alone has, by the lock on the data directory, and that nobody
    // changes behind LMDB's back. NO_SYNC is what the marker is for; never WRITE_MAP, with which a stray pointer or a
    // crash of the process damages the file.
    #[allow(unsafe_code)]
    let opened = unsafe {
        open.flags(EnvFlags::NO_SYNC);
        open.open(path)
    };
    opened.map_err(|error| match error {
        heed::Error::EnvAlreadyOpened => Error::Locked { dir: path.to_owned(), pid: Some(std::process::id()) },
        error => Error::Fault(storage(error)),
    })
}

/// Opens the databases, or makes them with an empty state in them: all in one transaction.
fn open_tables(env: &Env<WithoutTls>, cluster: &str) -> Result<([Rows; Table::ALL.len()], Rows), Error> {
    let txn = env.write_txn().map_err(storage)?;
    let opened: heed::Result<_> = env.create_databases_and_commit(txn, |opener, txn| {
        let local = opener.create_database::<Bytes, Bytes>(txn, Some("local"))?;
        let mut tables = [local; Table::ALL.len()];
        for (slot, table) in tables.iter_mut().zip(Table::ALL) {
            *slot = opener.create_database(txn, Some(table.name()))?;
        }
        if let Err(error) = open_local(local, txn, cluster)? {
            return Ok(CommitOrAbort::Abort(error));
        }
        Ok(CommitOrAbort::Commit((tables, local)))
    });
    Result::from(opened.map_err(storage)?)
}

/// Whose tables they are; when nobody's, they become this cluster's.
fn open_local(
    local: Database<'_, Bytes, Bytes>,
    txn: &mut RwTxn<'_>,
    cluster: &str,
) -> heed::Result<Result<(), Error>> {
    let Some(format) = local.get(txn, FORMAT_KEY)? else {
        local.put(txn, FORMAT_KEY, &FORMAT.to_be_bytes())?;
        local.put(txn, CLUSTER_KEY, cluster.as_bytes())?;
        write_local(local, txn, &Local { chain: Chain::start(cluster), ..Local::default() })?;
        return Ok(Ok(()));
    };
    let found = format.try_into().map_or(0, u32::from_be_bytes);
    if found != FORMAT {
        return Ok(Err(Error::OtherFormat { found, expected: FORMAT }));
    }
    let found = local.get(txn, CLUSTER_KEY)?.unwrap_or_default();
    if found != cluster.as_bytes() {
        let found = String::from_utf8_lossy(found).into_owned();
        return Ok(Err(Error::OtherCluster { found, expected: cluster.to_owned() }));
    }
    Ok(Ok(()))
}

fn write_local(rows: Database<'_, Bytes, Bytes>, txn: &mut RwTxn<'_>, local: &Local) -> heed::Result<()> {
    let mut bytes =
        postcard::to_extend(local, vec![0; 16]).expect("a Vec takes every byte, and fields have known lengths");
    let check = xxh3_128(&bytes[16..]).to_be_bytes();
    bytes[..16].copy_from_slice(&check);
    rows.put(txn, LOCAL_KEY, &bytes)
}
