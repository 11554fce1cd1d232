//! Restoring a backup, which is a checkpoint's file, into an empty data directory as another cluster.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use conclave_core::apply::{Local, Position};
use conclave_core::digest::{Chain, Digest};
use conclave_protocol::Zxid;

use crate::checkpoint::{Checkpoint, Checkpoints, OnProgress};
use crate::environment::{Environment, FORMAT, remove_environments};
use crate::error::io;
use crate::marker::{Marker, sync_dir};
use crate::opening::FIRST;
use crate::{DirLock, Error, Options, Store, Writer, install};

/// Is there from before the first thing that a restore writes until after the last.
const UNFINISHED: &str = "restoring";

/// What a data directory holds, apart from its lock.
const NAMES: [&str; 4] = ["marker", "checkpoints", "log", "env-"];

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The sum of all rows: that of the cluster that the backup is of.
    pub digest: Digest,
    /// Its last transaction.
    pub zxid: Zxid,
    /// Rows.
    pub rows: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
}

/// A data directory that holds what was restored, and counts as half restored until [`Self::finish`]: what the member
/// needs beside it, its log, is made before that.
#[derive(Debug)]
#[must_use = "the directory counts as half restored until it is finished"]
pub struct Restoring {
    restored: Restored,
    lock: DirLock,
}

impl Restoring {
    /// Lets the directory count. What else was put in it must be durable before.
    ///
    /// # Errors
    /// [`Error::Io`]: it still counts as half restored, or does again after a crash.
    pub fn finish(self) -> Result<Restored, Error> {
        let unfinished = self.lock.dir().join(UNFINISHED);
        fs::remove_file(&unfinished).map_err(io("remove", &unfinished))?;
        sync_dir(self.lock.dir())?;
        Ok(self.restored)
    }
}

/// Restores a backup into an empty data directory: the same rows, of a new cluster, whose log begins after `position`
/// with this membership. Leaves closed tables, and a checkpoint of them, so that the log may be purged up to there.
/// Until it is finished, nothing but another restore can be done with the directory, which begins anew, the log included.
///
/// The chain begins anew, from the new cluster's id and the old chain: entries of the old cluster are void here.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::DamagedCheckpoint`], [`Error::Checkpoint`] when it is cancelled or of another format,
/// [`Error::Io`], [`Error::Fault`].
pub fn restore(
    lock: &DirLock,
    file: &Path,
    cluster: &str,
    position: Position,
    membership: Bytes,
    progress: &mut OnProgress<'_>,
) -> Result<Restoring, Error> {
    let dir = lock.dir();
    let backup = Checkpoint::open(file)?;
    backup.verify(progress)?;
    let unfinished = dir.join(UNFINISHED);
    if unfinished.exists() {
        clear(dir)?;
    } else {
        refuse_content(dir)?;
        File::create(&unfinished).and_then(|file| file.sync_all()).map_err(io("create", &unfinished))?;
        sync_dir(dir)?;
    }

    let chain = Chain::after(&[cluster.as_bytes(), &backup.local().chain.0.to_be_bytes()].concat());
    let local = Local { chain, digest: backup.local().digest, applied: Some(position), membership };
    let options = Options::default();
    let environment = Environment::create(lock, FIRST, &options)?.tables(cluster)?;
    install::load(&environment, &backup, &local, progress)?;
    environment.sync()?;
    sync_dir(dir)?;
    let marker = Marker::open(cluster, FIRST, &options.boot, environment.place()?, 0);
    marker.write(dir, FORMAT)?;
    let store = Store::new(environment, marker, cluster, lock, &options);
    let made = Checkpoints::open(lock, cluster)?.make(&store, progress)?;
    Writer::new(store)?.close()?;

    let restored =
        Restored { digest: Digest(local.digest), zxid: made.zxid(), rows: made.rows(), bytes: made.raw_bytes() };
    Ok(Restoring { restored, lock: lock.clone() })
}

/// Refuses a directory in which a restore was interrupted.
pub(crate) fn refuse_half(dir: &Path) -> Result<(), Error> {
    if dir.join(UNFINISHED).exists() { Err(Error::HalfRestored { dir: dir.to_owned() }) } else { Ok(()) }
}

/// Refuses a directory that holds anything of a member.
fn refuse_content(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(io("list", dir))? {
        let entry = entry.map_err(io("list", dir))?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let empty = fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none());
        if NAMES.iter().any(|name| found.starts_with(name)) && !empty {
            return Err(Error::NotEmpty { dir: dir.to_owned(), found });
        }
    }
    Ok(())
}

/// Removes what an interrupted restore wrote, and what was put beside it: when it began, none of that was there.
fn clear(dir: &Path) -> Result<(), Error> {
    Marker::remove(dir)?;
    remove_environments(dir, None)?;
    for name in ["checkpoints", "log"] {
        let path = dir.join(name);
        // The directory itself may be a mount, or a link.
        match fs::read_dir(&path) {
            Ok(entries) => {
                entries.into_iter().try_for_each(|entry| remove(&entry?.path())).map_err(io("clear", &path))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(io("list", &path)(error)),
        }
        sync_dir(&path)?;
    }
    sync_dir(dir)
}

/// Removes a file, or a directory with all that is in it.
fn remove(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
