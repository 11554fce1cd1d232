//! Opening the tables of a data directory: believed as they are, built again from a checkpoint, or new.

use std::path::Path;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::environment::{Environment, FORMAT, directory, environments, remove_environments};
use crate::marker::{Found, Marker, Place};
use crate::{Boot, DirLock, Discarded, Error, Opened, Options, Store, Writer, install, restore};

/// The first environment's number, and the one after a discard. Installing a checkpoint makes the next one.
pub(crate) const FIRST: u32 = 1;

/// What the marker of a data directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// These tables are believed.
    Believed {
        /// The N of `env-N`.
        environment: u32,
        /// How many runs before this one ended early, in a row.
        early_crashes: u32,
    },
    /// Those that are there, if any, are not.
    Discarded(Discarded),
    /// There is nothing yet.
    New,
}

impl Store {
    /// Opens the tables in `env-N` of a locked data directory, makes them when there are none, or throws away those
    /// that can't be believed: then they are built again from the newest checkpoint, or begin empty without one.
    ///
    /// # Errors
    /// [`Error::OtherCluster`], [`Error::OtherFormat`], [`Error::Locked`] when they are open in this process,
    /// [`Error::DamagedCheckpoint`] when one is needed (to begin without it, forget it and open again),
    /// [`Error::HalfRestored`], [`Error::Io`], [`Error::Fault`].
    pub fn open(lock: &DirLock, cluster: &str, checkpoints: &Checkpoints, options: &Options) -> Result<Opened, Error> {
        let dir = lock.dir();
        restore::refuse_half(dir)?;
        refuse_open(dir)?;
        match judge(dir, cluster, &options.boot, options.discard)? {
            Judged::Believed { environment, early_crashes } => {
                let opening = Environment::create(lock, environment, options)?;
                remove_environments(dir, Some(environment))?;
                // Durable before the first commit that is not synced.
                let marker = Marker::open(cluster, environment, &options.boot, opening.place()?, early_crashes);
                marker.write(dir, FORMAT)?;
                let store = Self::new(opening.tables(cluster)?, marker, cluster, lock, options);
                let writer = Writer::new(store.clone())?;
                Ok(Opened { store, writer, discarded: None, rebuilt_from: None })
            }
            Judged::Discarded(why) => begin(lock, cluster, checkpoints, options, Some(why)),
            Judged::New => begin(lock, cluster, checkpoints, options, None),
        }
    }
}

/// Removes what is there, and builds new tables.
fn begin(
    lock: &DirLock,
    cluster: &str,
    checkpoints: &Checkpoints,
    options: &Options,
    discarded: Option<Discarded>,
) -> Result<Opened, Error> {
    let dir = lock.dir();
    // Before anything goes: a damaged one is told while the tables, such as they are, can still be looked at.
    let checkpoint = checkpoints.needed(cluster)?;
    let discarded = discarded.or(checkpoint.as_ref().map(|_| Discarded::Missing));
    if let Some(why) = discarded {
        let position = checkpoint.as_ref().map(Checkpoint::position);
        tracing::warn!(%why, checkpoint = ?position, "the tables are discarded, and built again");
    }
    // First, so that an interruption leaves tables that nobody believes.
    Marker::remove(dir)?;
    remove_environments(dir, None)?;
    let opening = Environment::create(lock, FIRST, options)?;
    let (environment, marker) = match &checkpoint {
        None => {
            let marker = Marker::open(cluster, FIRST, &options.boot, opening.place()?, 0);
            marker.write(dir, FORMAT)?;
            (opening.tables(cluster)?, marker)
        }
        Some(checkpoint) => {
            let environment = opening.tables(cluster)?;
            install::load(&environment, checkpoint, checkpoint.local(), &mut install::silent)?;
            environment.sync()?;
            crate::marker::sync_dir(dir)?;
            let marker = Marker::open(cluster, FIRST, &options.boot, environment.place()?, 0);
            marker.write(dir, FORMAT)?;
            (environment, marker)
        }
    };
    let store = Store::new(environment, marker, cluster, lock, options);
    let writer = Writer::new(store.clone())?;
    Ok(Opened { store, writer, discarded, rebuilt_from: checkpoint.map(|checkpoint| checkpoint.position()) })
}

/// What the marker says about the tables in a data directory.
pub(crate) fn judge(dir: &Path, cluster: &str, boot: &Boot, discard: bool) -> Result<Judged, Error> {
    let marker = match Marker::read(dir, FORMAT)? {
        Found::Marker(marker) => marker,
        Found::OtherFormat(found) => return Err(Error::OtherFormat { found, expected: FORMAT }),
        Found::Nothing if environments(dir)?.is_empty() => return Ok(Judged::New),
        Found::Nothing => return Ok(Judged::Discarded(Discarded::Unmarked)),
    };
    // Before anything is thrown away: what is another's is not ours to discard.
    if marker.cluster != cluster {
        return Err(Error::OtherCluster { found: marker.cluster, expected: cluster.to_owned() });
    }
    if discard {
        return Ok(Judged::Discarded(Discarded::Asked));
    }
    let environment = marker.environment;
    let place = Place::of(&directory(dir, environment).join(crate::environment::DATA))?;
    Ok(match marker.judge(boot, place) {
        Ok(early_crashes) => Judged::Believed { environment, early_crashes },
        Err(why) => Judged::Discarded(why),
    })
}

/// Tables that are open in this process must not be removed from under it.
fn refuse_open(dir: &Path) -> Result<(), Error> {
    for (_, path) in environments(dir)? {
        if heed::env_closing_event(&path).is_some() {
            return Err(Error::Locked { dir: path, pid: Some(std::process::id()) });
        }
    }
    Ok(())
}
