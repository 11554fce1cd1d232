//! Receiving a checkpoint from another member, in pieces, across broken connections.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, statvfs};

use super::directory::{Claim, PART, clear, part_name};
use super::{Checkpoint, Checkpoints, Offer, OnProgress};
use crate::CheckpointError;
use crate::error::checkpoint_io;

/// One byte in so many is added to what a file needs: for what the file system keeps beside it.
const EXTRA: u64 = 20;

/// A checkpoint that is being received. When it is dropped, what came so far stays, to go on after it.
#[derive(Debug)]
pub struct Incoming {
    checkpoints: Checkpoints,
    offer: Offer,
    place: Place,
    offset: u64,
    _claim: Claim,
}

/// Where what is received is.
#[derive(Debug)]
enum Place {
    /// In a file of its own, as far as it came.
    Part(PathBuf, File),
    /// It is the newest one already.
    Newest(Checkpoint),
}

impl Checkpoints {
    /// Begins to receive what another member offers, or goes on where it broke off. Anything that came of another one is
    /// removed. When the newest one is what is offered, all of it has come.
    ///
    /// # Errors
    /// [`CheckpointError::Busy`] while another one is being received; [`CheckpointError::Full`], also when there is not
    /// room for all of it; [`CheckpointError::Io`].
    pub fn receive(&self, offer: &Offer) -> Result<Incoming, CheckpointError> {
        let claim = self.claim_receiving()?;
        let dir = &self.0.dir;
        let incoming =
            |place, offset| Incoming { checkpoints: self.clone(), offer: offer.clone(), place, offset, _claim: claim };
        if let Some(newest) = self.newest().filter(|newest| newest.offer() == *offer) {
            clear(dir, PART, None)?;
            return Ok(incoming(Place::Newest(newest), offer.bytes));
        }
        let path = dir.join(part_name(offer));
        clear(dir, PART, Some(&path))?;
        let mut offset = match fs::metadata(&path) {
            Ok(part) => part.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(CheckpointError::io("look at", &path, error)),
        };
        let is_other = offset > offer.bytes;
        if is_other {
            offset = 0;
        }
        refuse_without_room(dir, &path, offer.bytes - offset)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(is_other)
            .open(&path)
            .map_err(checkpoint_io("open", &path))?;
        Ok(incoming(Place::Part(path, file), offset))
    }
}

/// Refuses what would only fill the disk. When the file system does not tell how much room it has, trying will.
fn refuse_without_room(dir: &Path, path: &Path, to_come: u64) -> Result<(), CheckpointError> {
    let Some(free) = statvfs(dir).ok().and_then(|space| free_bytes(&space)) else { return Ok(()) };
    let needed = with_extra(to_come);
    if free >= needed {
        return Ok(());
    }
    let why = format!("{free} bytes are free, {needed} are needed");
    Err(CheckpointError::io("receive", path, io::Error::new(io::ErrorKind::StorageFull, why)))
}

/// What the file takes of the disk.
fn with_extra(bytes: u64) -> u64 {
    bytes.saturating_add(bytes.div_ceil(EXTRA))
}

/// None where a file system does not count.
fn free_bytes(space: &StatVfs) -> Option<u64> {
    (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize))
}

impl Incoming {
    /// How many bytes are there: the next one to be written.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes. After an error, [`Self::offset`] still says where to go on.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when there are more than were offered; [`CheckpointError::Full`],
    /// [`CheckpointError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let (path, file) = match &self.place {
            Place::Part(path, file) if self.offer.bytes - self.offset >= bytes.len() as u64 => (path, file),
            Place::Newest(_) if bytes.is_empty() => return Ok(()),
            place => return Err(CheckpointError::damaged(place.path(), "more bytes came than were offered")),
        };
        if let Err(source) = file.write_all_at(bytes, self.offset) {
            // What a later start would take for received.
            _ = file.set_len(self.offset);
            return Err(CheckpointError::io("write", path, source));
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file durable, reads it back from the disk, verifies all of it, and lets it count if it is newer than the
    /// newest one: it is the newest then, and the others are gone. A bad file is removed, and one that is not newer; when
    /// this was only cancelled, it stays. When it is the newest one already, that one is verified, and returned.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when it is not what was offered, or not complete (then it stays);
    /// [`CheckpointError::Older`], [`CheckpointError::OtherCluster`], [`CheckpointError::OtherFormat`],
    /// [`CheckpointError::Cancelled`], [`CheckpointError::Full`], [`CheckpointError::Io`].
    pub fn finish(self, progress: &mut OnProgress<'_>) -> Result<Checkpoint, CheckpointError> {
        self.finish_with(progress, Counts::IfNewer)
    }

    /// As [`Self::finish`], whatever the position of those that are here, since what this member made is not believed
    /// any more: it is the newest then, and the only one.
    ///
    /// # Errors
    /// As [`Self::finish`], without [`CheckpointError::Older`].
    pub fn finish_as_only(self, progress: &mut OnProgress<'_>) -> Result<Checkpoint, CheckpointError> {
        self.finish_with(progress, Counts::Always)
    }

    fn finish_with(self, progress: &mut OnProgress<'_>, counts: Counts) -> Result<Checkpoint, CheckpointError> {
        let (path, file) = match &self.place {
            Place::Newest(newest) => return self.again(newest, progress, counts),
            Place::Part(path, file) => (path, file),
        };
        if self.offset != self.offer.bytes {
            let why = format!("{} of {} bytes have come", self.offset, self.offer.bytes);
            return Err(CheckpointError::damaged(path, why));
        }
        let finished = self.take(path, file, progress, counts);
        if let Err(
            CheckpointError::Damaged { .. }
            | CheckpointError::Older { .. }
            | CheckpointError::OtherCluster { .. }
            | CheckpointError::OtherFormat { .. },
        ) = &finished
        {
            _ = fs::remove_file(path);
        }
        finished
    }

    fn take(
        &self,
        path: &Path,
        file: &File,
        progress: &mut OnProgress<'_>,
        counts: Counts,
    ) -> Result<Checkpoint, CheckpointError> {
        if counts == Counts::IfNewer {
            // Before all of it is read; and once more when nothing can come in between.
            self.checkpoints.refuse_older(path, &self.offer)?;
        }
        file.sync_all().map_err(checkpoint_io("sync", path))?;
        self.check(path, progress)?;
        match counts {
            Counts::IfNewer => self.checkpoints.adopt_newer(path, &self.offer),
            Counts::Always => self.checkpoints.adopt_only(path, self.offer.position),
        }
    }

    /// For one that is the newest already. A damaged one is forgotten, so that it is sent the next time.
    fn again(
        &self,
        newest: &Checkpoint,
        progress: &mut OnProgress<'_>,
        counts: Counts,
    ) -> Result<Checkpoint, CheckpointError> {
        newest.drop_cache();
        let verified = newest.verify(progress);
        if let Err(CheckpointError::Damaged { .. }) = &verified {
            self.checkpoints.forget(newest)?;
        }
        verified?;
        if counts == Counts::Always {
            self.checkpoints.keep_only(newest);
        }
        Ok(newest.clone())
    }

    fn check(&self, path: &Path, progress: &mut OnProgress<'_>) -> Result<(), CheckpointError> {
        let received = Checkpoint::open(path)?;
        let expected = &self.checkpoints.0.cluster;
        if received.cluster() != expected {
            let found = received.cluster().to_owned();
            return Err(CheckpointError::OtherCluster { found, expected: expected.clone() });
        }
        if received.offer() != self.offer {
            return Err(CheckpointError::damaged(path, "it is not the one that was offered"));
        }
        received.drop_cache();
        received.verify(progress)
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Part(path, _) => path,
            Self::Newest(newest) => newest.path(),
        }
    }
}

/// When what was received counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    IfNewer,
    Always,
}
