//! The directory `checkpoints/` of a data directory: which one is the newest, and what is left over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conclave_core::apply::Position;

use super::{Checkpoint, Offer};
use crate::error::io;
use crate::marker::sync_dir;
use crate::{CheckpointError, DirLock, Error};

/// Its name in the data directory.
const DIR: &str = "checkpoints";
/// What a file that is being made ends with.
pub(super) const NEW: &str = ".new";
/// What a file that is being received ends with.
pub(super) const PART: &str = ".part";

/// A member's checkpoints: the newest one, and those that are being made or received. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoints(pub(super) Arc<Shelf>);

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) dir: PathBuf,
    pub(super) cluster: String,
    content: Mutex<Content>,
    /// Held while one takes the place of the others: longer than whoever asks for the newest should wait.
    adopting: Mutex<()>,
    making: AtomicBool,
    receiving: AtomicBool,
    _lock: DirLock,
}

#[derive(Debug, Default)]
struct Content {
    newest: Option<Checkpoint>,
    /// Files that have the name of a checkpoint, and are none; with what is wrong with them.
    damaged: Vec<(PathBuf, String)>,
}

impl Checkpoints {
    /// Opens the directory, or makes it; removes what was being made; finds the newest checkpoint, of which header and
    /// trailer are read. A damaged one is no error yet: see [`Self::damaged`].
    ///
    /// # Errors
    /// [`Error::OtherCluster`] when the newest one is another cluster's; [`Error::Io`].
    pub fn open(lock: &DirLock, cluster: &str) -> Result<Self, Error> {
        let dir = lock.dir().join(DIR);
        if !dir.exists() {
            fs::create_dir(&dir).map_err(io("create the directory", &dir))?;
            sync_dir(lock.dir())?;
        }
        let mut content = Content::default();
        for (position, path) in files(&dir)? {
            match read(&path, position) {
                Ok(checkpoint) => {
                    content.newest = Some(checkpoint);
                    break;
                }
                Err(CheckpointError::Damaged { path, why }) => {
                    tracing::warn!(path = %path.display(), why, "a checkpoint is damaged");
                    content.damaged.push((path, why));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(found) = content.newest.as_ref().map(Checkpoint::cluster).filter(|found| *found != cluster) {
            return Err(Error::OtherCluster { found: found.to_owned(), expected: cluster.to_owned() });
        }
        clear(&dir, NEW, None)?;
        let content = Mutex::new(content);
        let (making, receiving) = (AtomicBool::new(false), AtomicBool::new(false));
        let cluster = cluster.to_owned();
        Ok(Self(Arc::new(Shelf {
            dir,
            cluster,
            content,
            adopting: Mutex::default(),
            making,
            receiving,
            _lock: lock.clone(),
        })))
    }

    /// The newest one that is not known to be damaged: the last one that was made or received.
    #[must_use]
    pub fn newest(&self) -> Option<Checkpoint> {
        self.content().newest.clone()
    }

    /// Files newer than [`Self::newest`] that have the name of a checkpoint and can't be read, with what is wrong.
    #[must_use]
    pub fn damaged(&self) -> Vec<(PathBuf, String)> {
        self.content().damaged.clone()
    }

    /// Removes a checkpoint, because it is damaged or can't be believed. Nothing happens when it is not there any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let mut content = self.content();
        if content.newest.as_ref().is_some_and(|newest| newest.id() == checkpoint.id()) {
            self.remove(checkpoint.path())?;
            content.newest = None;
        }
        Ok(())
    }

    /// Removes the files of [`Self::damaged`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget_damaged(&self) -> Result<(), Error> {
        let mut content = self.content();
        while let Some((path, _)) = content.damaged.last() {
            self.remove(path)?;
            content.damaged.pop();
        }
        Ok(())
    }

    /// Bytes of all files in the directory, those that are being made or received included; 0 when it can't be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.0.dir) else { return 0 };
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The one that this cluster's tables have to be built from.
    pub(crate) fn needed(&self, cluster: &str) -> Result<Option<Checkpoint>, Error> {
        if cluster != self.0.cluster {
            return Err(Error::OtherCluster { found: self.0.cluster.clone(), expected: cluster.to_owned() });
        }
        let content = self.content();
        match content.damaged.first() {
            Some((path, why)) => Err(Error::DamagedCheckpoint { path: path.clone(), why: why.clone() }),
            None => Ok(content.newest.clone()),
        }
    }

    /// As [`Self::adopt`], for one that was made here: when a newer one was received meanwhile, that one stays, since the
    /// log may be purged up to there already. What came of one that is no newer than this goes; what comes just now stays.
    pub(super) fn adopt_made(&self, from: &Path, position: Position) -> Result<Checkpoint, CheckpointError> {
        let adopting = self.adopting();
        if let Some(newer) = self.newest().filter(|newest| newest.position() > position) {
            fs::remove_file(from).map_err(|source| CheckpointError::io("remove", from, source))?;
            return Ok(newer);
        }
        let made = self.adopt(from, position, &adopting)?;
        if let Some(_claim) = self.claim(|shelf| &shelf.receiving) {
            self.remove_parts(|of| of <= position);
        }
        Ok(made)
    }

    /// As [`Self::adopt`], for one that was received: see [`Self::refuse_older`].
    pub(super) fn adopt_newer(&self, from: &Path, offer: &Offer) -> Result<Checkpoint, CheckpointError> {
        let adopting = self.adopting();
        self.refuse_older(from, offer)?;
        self.adopt(from, offer.position, &adopting)
    }

    /// As [`Self::adopt`], for one that was received in the place of what is here, which is not believed any more.
    pub(super) fn adopt_only(&self, from: &Path, position: Position) -> Result<Checkpoint, CheckpointError> {
        self.adopt(from, position, &self.adopting())
    }

    /// Refuses one that is no newer than the newest, unless it is the same: the log may be purged up to the newest one.
    pub(super) fn refuse_older(&self, path: &Path, offer: &Offer) -> Result<(), CheckpointError> {
        let newest = self.newest().map(|newest| newest.offer());
        match newest.filter(|newest| newest.position >= offer.position && newest != offer) {
            Some(Offer { position: newest, .. }) => {
                Err(CheckpointError::Older { path: path.to_owned(), position: offer.position, newest })
            }
            None => Ok(()),
        }
    }

    /// Removes what came of checkpoints at such positions, and what has no such name. The right to receive one is held.
    pub(super) fn remove_parts(&self, which: impl Fn(Position) -> bool) {
        let removed = suffixed(&self.0.dir, PART).and_then(|parts| {
            let mut useless = parts.into_iter().filter(|path| part_position(path).is_none_or(&which));
            useless.try_for_each(|path| self.remove(&path))
        });
        if let Err(error) = removed {
            // It only takes room, until the next one.
            tracing::warn!(%error, "what came of another checkpoint can't be removed");
        }
    }

    /// Makes a verified one the only one, as long as it is the newest.
    pub(super) fn keep_only(&self, newest: &Checkpoint) {
        let _adopting = self.adopting();
        let mut content = self.content();
        if content.newest.as_ref().is_some_and(|now| now.id() == newest.id()) {
            content.damaged.clear();
            self.remove_others(newest.path());
        }
    }

    /// Gives a verified, durable file its name, durably; it is the newest then, and all others go.
    fn adopt(&self, from: &Path, position: Position, _: &MutexGuard<'_, ()>) -> Result<Checkpoint, CheckpointError> {
        let shelf = &*self.0;
        let path = shelf.dir.join(name(position));
        fs::rename(from, &path).map_err(|source| CheckpointError::io("rename", from, source))?;
        sync_dir(&shelf.dir)?;
        let checkpoint = Checkpoint::open(&path)?;
        let mut content = self.content();
        *content = Content { newest: Some(checkpoint.clone()), damaged: Vec::new() };
        // Not before the new one is durable. A file that stays is a matter for the next one.
        self.remove_others(&path);
        Ok(checkpoint)
    }

    /// Removes all finished files but this one.
    fn remove_others(&self, path: &Path) {
        let others = files(&self.0.dir).and_then(|files| {
            files.into_iter().filter(|(_, other)| other != path).try_for_each(|(_, other)| self.remove(&other))
        });
        if let Err(error) = others {
            tracing::warn!(%error, "an older checkpoint can't be removed");
        }
    }

    /// The right to make one.
    pub(super) fn claim_making(&self) -> Result<Claim, CheckpointError> {
        self.claim(|shelf| &shelf.making).ok_or(CheckpointError::Busy("made"))
    }

    /// The right to receive one.
    pub(super) fn claim_receiving(&self) -> Result<Claim, CheckpointError> {
        self.claim(|shelf| &shelf.receiving).ok_or(CheckpointError::Busy("received"))
    }

    fn claim(&self, which: fn(&Shelf) -> &AtomicBool) -> Option<Claim> {
        let taken = which(&self.0).swap(true, Ordering::AcqRel);
        (!taken).then(|| Claim { shelf: Arc::clone(&self.0), which })
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
            _ => sync_dir(&self.0.dir),
        }
    }

    fn adopting(&self) -> MutexGuard<'_, ()> {
        self.0.adopting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One is made, or received, at a time.
#[derive(Debug)]
pub(super) struct Claim {
    shelf: Arc<Shelf>,
    which: fn(&Shelf) -> &AtomicBool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        (self.which)(&self.shelf).store(false, Ordering::Release);
    }
}

/// The name of a checkpoint's file: sorted by index.
pub(super) fn name(position: Position) -> String {
    format!("checkpoint-{:020}-{}", position.index, position.term)
}

fn position(name: &str) -> Option<Position> {
    let (index, term) = name.strip_prefix("checkpoint-")?.split_once('-')?;
    let position = Position { index: index.parse().ok()?, term: term.parse().ok()? };
    (self::name(position) == name).then_some(position)
}

/// The finished files in the directory, the newest first.
pub(crate) fn files(dir: &Path) -> Result<Vec<(Position, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("list", dir))? {
        let path = entry.map_err(io("list", dir))?.path();
        let at = path.file_name().and_then(|name| name.to_str()).and_then(position);
        found.extend(at.map(|at| (at, path)));
    }
    found.sort_by_key(|(at, _)| std::cmp::Reverse((at.index, at.term)));
    Ok(found)
}

/// Opens one, which has to be what its name says.
pub(crate) fn read(path: &Path, position: Position) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    if checkpoint.position() != position {
        return Err(CheckpointError::damaged(path, "it is not the one that its name says"));
    }
    Ok(checkpoint)
}

/// The name of the file for what comes of a checkpoint.
pub(super) fn part_name(offer: &Offer) -> String {
    format!("{}-{:032x}{PART}", name(offer.position), offer.id)
}

/// Of which position such a file is.
fn part_position(path: &Path) -> Option<Position> {
    let (checkpoint, _id) = path.file_name()?.to_str()?.strip_suffix(PART)?.rsplit_once('-')?;
    position(checkpoint)
}

/// The files that end so.
fn suffixed(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("list", dir))? {
        let path = entry.map_err(io("list", dir))?.path();
        found.extend(path.to_str().is_some_and(|path| path.ends_with(suffix)).then_some(path));
    }
    Ok(found)
}

/// Removes the files that end so, but for one.
pub(super) fn clear(dir: &Path, suffix: &str, but: Option<&Path>) -> Result<(), Error> {
    let files = suffixed(dir, suffix)?;
    files
        .iter()
        .filter(|path| Some(path.as_path()) != but)
        .try_for_each(|path| fs::remove_file(path).map_err(io("remove", path)))
}
