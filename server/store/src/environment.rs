//! One environment of LMDB, `env-N`: its databases, who reads it, and its end when another one took its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use conclave_core::apply::Local;
use conclave_core::digest::Chain;
use conclave_core::{Fault, Table};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use rustix::process::{Resource, getrlimit};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{io, no_room, reading, storage};
use crate::marker::{Place, sync_dir};
use crate::{DirLock, Error, Options};

/// The format of the tables that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 3;

/// Keys of the database `local`.
const FORMAT_KEY: &[u8] = b"format";
const CLUSTER_KEY: &[u8] = b"cluster";
const LOCAL_KEY: &[u8] = b"local";

/// After a write that was cut short for want of room, there is no room for this either: the part took what was left.
const PROBE_BYTES: usize = 1 << 20;

/// So many writes in a row are tried again that failed as on a full disk which has room an instant later; the next one
/// that fails so is the disk's fault.
const UNCLEAR: u32 = 3;

/// A database of LMDB; what it holds is checked by hand, row by row.
pub(crate) type Rows = Database<'static, Bytes, Bytes>;

/// Held by the store, by its writer, and by each snapshot of it. The fields are dropped in this order: first LMDB closes
/// the file, then the directory goes if it was replaced, then the lock.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) env: Env<WithoutTls>,
    /// By the table's number, less one.
    tables: [Rows; Table::ALL.len()],
    local: Rows,
    number: u32,
    /// Writes in a row that failed in a way that is a full disk's or a broken one's.
    unclear: AtomicU32,
    /// LMDB's transaction id → snapshots that are open on it, and since when.
    readers: Mutex<BTreeMap<usize, (usize, Instant)>>,
    home: Home,
}

/// The directory.
#[derive(Debug)]
struct Home {
    path: PathBuf,
    /// Another environment took its place: nobody needs the directory when the last reader is gone.
    replaced: AtomicBool,
    _lock: DirLock,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // The next start tries again.
            tracing::warn!(path = %self.path.display(), %error, "the replaced tables can't be removed");
        }
    }
}

impl Environment {
    /// Opens `env-N`, or makes it. Nothing is read or written before [`Self::tables`].
    pub(crate) fn create(lock: &DirLock, number: u32, options: &Options) -> Result<Opening, Error> {
        let path = directory(lock.dir(), number);
        fs::create_dir_all(&path).map_err(io("create the directory", &path))?;
        let env = open_env(&path, options, EnvFlags::NO_SYNC)?;
        let home = Home { path, replaced: AtomicBool::new(false), _lock: lock.clone() };
        Ok(Opening { env, number, home })
    }

    /// Opens one that is there, to look at it: nothing is written, not even LMDB's list of readers.
    pub(crate) fn read_only(lock: &DirLock, number: u32) -> Result<Self, Error> {
        let path = directory(lock.dir(), number);
        let env = open_env(&path, &Options::default(), EnvFlags::READ_ONLY | EnvFlags::NO_LOCK)?;
        let txn = env.read_txn().map_err(storage)?;
        let opened: heed::Result<_> = env.open_databases_and_commit(txn, |opener, txn| {
            let Some(local) = opener.open_database::<Bytes, Bytes>(txn, Some("local"))? else {
                return Ok(CommitOrAbort::Abort("local"));
            };
            let mut tables = [local; Table::ALL.len()];
            for (slot, table) in tables.iter_mut().zip(Table::ALL) {
                match opener.open_database(txn, Some(table.name()))? {
                    Some(rows) => *slot = rows,
                    None => return Ok(CommitOrAbort::Abort(table.name())),
                }
            }
            Ok(CommitOrAbort::Commit((tables, local)))
        });
        let (tables, local) = Result::from(opened.map_err(storage)?)
            .map_err(|name| Fault::Corrupt(format!("there is no table {name}")))?;
        let home = Home { path, replaced: AtomicBool::new(false), _lock: lock.clone() };
        Ok(Self { env, tables, local, number, unclear: AtomicU32::new(0), readers: Mutex::default(), home })
    }

    /// Whose it says that it is.
    pub(crate) fn cluster(&self) -> Result<Option<String>, Fault> {
        let txn = self.env.read_txn().map_err(storage)?;
        let cluster = self.local.get(&txn, CLUSTER_KEY).map_err(storage)?;
        Ok(cluster.map(|cluster| String::from_utf8_lossy(cluster).into_owned()))
    }

    /// Its N.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.home.path
    }

    /// Which file on which mount its pages are in.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        place(&self.home.path)
    }

    /// The database of a table.
    pub(crate) fn table(&self, table: Table) -> Rows {
        self.tables[usize::from(table.number()) - 1]
    }

    /// What is kept beside the tables.
    pub(crate) fn read_local(&self, txn: &RoTxn<'_, WithoutTls>) -> Result<Local, Fault> {
        read_local(self.local, txn)
    }

    /// Keeps it, in the transaction of the rows that it belongs to.
    pub(crate) fn write_local(&self, txn: &mut RwTxn<'_>, local: &Local) -> Result<(), Fault> {
        write_local(self.local, txn, local).map_err(|error| self.fault(error))
    }

    /// Makes everything that is committed durable, the file's name included.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.env.force_sync().map_err(storage)?;
        sync_dir(&self.home.path)
    }

    /// Bytes of the file.
    pub(crate) fn disk_bytes(&self) -> Result<u64, Fault> {
        let data = fs::metadata(self.home.path.join(DATA)).map_err(|error| Fault::Storage(error.to_string()))?;
        Ok(data.len())
    }

    /// What a failed write means. LMDB makes one `EIO` of the disk's, and of a write that was cut short, which is how a
    /// disk that fills up in the middle of several pages shows.
    pub(crate) fn fault(&self, error: heed::Error) -> Fault {
        let cut_short = Some(rustix::io::Errno::IO.raw_os_error());
        match error {
            heed::Error::Io(error) if error.raw_os_error() == cut_short && self.ran_out_of_room() => {
                self.succeeded();
                Fault::Full("a write was cut short".to_owned())
            }
            // There may be room again by now: others delete, and this member gives up its reserve at such a moment. The
            // commit is undone and can be tried again, which a broken disk fails just so.
            heed::Error::Io(error)
                if error.raw_os_error() == cut_short && self.unclear.fetch_add(1, Ordering::Relaxed) < UNCLEAR =>
            {
                Fault::Full("a write was cut short, though there is room now".to_owned())
            }
            error => storage(error),
        }
    }

    /// A commit went well, or why it did not is clear.
    pub(crate) fn succeeded(&self) {
        self.unclear.store(0, Ordering::Relaxed);
    }

    /// Whether there is no room for more: for this file by the process's limit, or for any by what a try gives.
    fn ran_out_of_room(&self) -> bool {
        let limit = getrlimit(Resource::Fsize).current;
        if limit.is_some_and(|limit| self.disk_bytes().is_ok_and(|bytes| bytes >= limit)) {
            return true;
        }
        let path = self.home.path.join("probe");
        let tried = fs::write(&path, vec![0; PROBE_BYTES]);
        // It may not be there.
        _ = fs::remove_file(&path);
        tried.is_err_and(|error| no_room(&error))
    }

    /// Another one took its place: its directory goes with the last that holds it.
    pub(crate) fn replace(&self) {
        self.home.replaced.store(true, Ordering::Release);
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

    /// How many snapshots are open; the oldest one's transaction, and since when it is read.
    pub(crate) fn oldest_reader(&self) -> Option<(usize, usize, Instant)> {
        let readers = self.readers();
        let open = readers.values().map(|(count, _)| count).sum();
        readers.first_key_value().map(|(id, (_, since))| (open, *id, *since))
    }

    /// The last commit's transaction.
    pub(crate) fn last_txn(&self) -> usize {
        self.env.info().last_txn_id
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<usize, (usize, Instant)>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An environment whose databases are not open yet.
pub(crate) struct Opening {
    env: Env<WithoutTls>,
    number: u32,
    home: Home,
}

impl Opening {
    /// Which file on which mount: LMDB has made it by now.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        place(&self.home.path)
    }

    /// Opens the databases, or makes them with an empty state in them.
    pub(crate) fn tables(self, cluster: &str) -> Result<Environment, Error> {
        let (tables, local) = open_tables(&self.env, cluster)?;
        let Self { env, number, home } = self;
        Ok(Environment { env, tables, local, number, unclear: AtomicU32::new(0), readers: Mutex::default(), home })
    }
}

/// The file with the pages, in an environment's directory.
pub(crate) const DATA: &str = "data.mdb";

/// The directory of `env-N`.
pub(crate) fn directory(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("env-{number}"))
}

fn place(path: &Path) -> Result<Place, Error> {
    let data = path.join(DATA);
    Place::of(&data)?.ok_or_else(|| io("find", &data)(std::io::ErrorKind::NotFound.into()))
}

/// The directories `env-N` in a data directory, with their N.
pub(crate) fn environments(dir: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let list = || -> std::io::Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix("env-")).and_then(|n| n.parse::<u32>().ok());
            found.extend(number.map(|number| (number, path)));
        }
        Ok(found)
    };
    list().map_err(io("list", dir))
}

/// Removes all environments but one.
pub(crate) fn remove_environments(dir: &Path, but: Option<u32>) -> Result<(), Error> {
    for (number, path) in environments(dir)? {
        if Some(number) != but {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    sync_dir(dir)
}

fn open_env(path: &Path, options: &Options, flags: EnvFlags) -> Result<Env<WithoutTls>, Error> {
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(options.map_bytes).max_readers(options.max_readers);
    open.max_dbs(u32::try_from(Table::ALL.len() + 1).expect("a dozen"));
    // SAFETY: the map is of a file that this process alone has, by the lock on the data directory, and that nobody
    // changes behind LMDB's back, so that NO_LOCK is safe too. NO_SYNC is what the marker is for; never WRITE_MAP, with which a stray pointer or a
    // crash of the process damages the file.
    #[allow(unsafe_code)]
    let opened = unsafe {
        open.flags(flags);
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

fn read_local(rows: Database<'_, Bytes, Bytes>, txn: &RoTxn<'_, WithoutTls>) -> Result<Local, Fault> {
    let damaged = || Fault::Corrupt("the record beside the tables is damaged".to_owned());
    let bytes = rows.get(txn, LOCAL_KEY).map_err(reading)?.ok_or_else(damaged)?;
    let (check, body) = bytes.split_first_chunk::<16>().ok_or_else(damaged)?;
    if xxh3_128(body).to_be_bytes() != *check {
        return Err(damaged());
    }
    postcard::from_bytes(body).map_err(|_| damaged())
}

fn write_local(rows: Database<'_, Bytes, Bytes>, txn: &mut RwTxn<'_>, local: &Local) -> heed::Result<()> {
    let mut bytes =
        postcard::to_extend(local, vec![0; 16]).expect("a Vec takes every byte, and fields have known lengths");
    let check = xxh3_128(&bytes[16..]).to_be_bytes();
    bytes[..16].copy_from_slice(&check);
    rows.put(txn, LOCAL_KEY, &bytes)
}
