//! Receiving a checkpoint from another member, in pieces, across broken connections.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::directory::{Claim, PART, clear, name};
use super::{Checkpoint, Checkpoints, Offer, OnProgress};
use crate::CheckpointError;
use crate::error::checkpoint_io;

/// A checkpoint that is being received. When it is dropped, what came so far stays, to go on after it.
#[derive(Debug)]
pub struct Incoming {
    checkpoints: Checkpoints,
    offer: Offer,
    path: PathBuf,
    file: File,
    offset: u64,
    _claim: Claim,
}

impl Checkpoints {
    /// Begins to receive what another member offers, or goes on where it broke off. Anything that came of another one is
    /// removed.
    ///
    /// # Errors
    /// [`CheckpointError::Busy`] while another one is being received; [`CheckpointError::Full`], [`CheckpointError::Io`].
    pub fn receive(&self, offer: &Offer) -> Result<Incoming, CheckpointError> {
        let claim = self.claim_receiving()?;
        let dir = &self.0.dir;
        let path = dir.join(format!("{}-{:032x}{PART}", name(offer.position), offer.id));
        if !path.exists() {
            clear(dir, PART)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(checkpoint_io("open", &path))?;
        let mut offset = file.metadata().map_err(checkpoint_io("look at", &path))?.len();
        if offset > offer.bytes {
            file.set_len(0).map_err(checkpoint_io("cut", &path))?;
            offset = 0;
        }
        Ok(Incoming { checkpoints: self.clone(), offer: offer.clone(), path, file, offset, _claim: claim })
    }
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
        if self.offer.bytes - self.offset < bytes.len() as u64 {
            return Err(CheckpointError::damaged(&self.path, "more bytes came than were offered"));
        }
        if let Err(source) = self.file.write_all_at(bytes, self.offset) {
            // What a later start would take for received.
            _ = self.file.set_len(self.offset);
            return Err(CheckpointError::io("write", &self.path, source));
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file durable, reads it back from the disk, verifies all of it, and lets it count: it is the newest one
    /// then, and the others are gone. A bad file is removed; when this was only cancelled, it stays.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when it is not what was offered, or not complete (then it stays);
    /// [`CheckpointError::OtherCluster`], [`CheckpointError::OtherFormat`], [`CheckpointError::Cancelled`],
    /// [`CheckpointError::Full`], [`CheckpointError::Io`].
    pub fn finish(self, progress: &mut OnProgress<'_>) -> Result<Checkpoint, CheckpointError> {
        if self.offset != self.offer.bytes {
            let why = format!("{} of {} bytes have come", self.offset, self.offer.bytes);
            return Err(CheckpointError::damaged(&self.path, why));
        }
        self.file.sync_all().map_err(checkpoint_io("sync", &self.path))?;
        let finished =
            self.check(progress).and_then(|()| self.checkpoints.adopt_received(&self.path, self.offer.position));
        if let Err(
            CheckpointError::Damaged { .. }
            | CheckpointError::OtherCluster { .. }
            | CheckpointError::OtherFormat { .. },
        ) = &finished
        {
            _ = fs::remove_file(&self.path);
        }
        finished
    }

    fn check(&self, progress: &mut OnProgress<'_>) -> Result<(), CheckpointError> {
        let received = Checkpoint::open(&self.path)?;
        let expected = &self.checkpoints.0.cluster;
        if received.cluster() != expected {
            let found = received.cluster().to_owned();
            return Err(CheckpointError::OtherCluster { found, expected: expected.clone() });
        }
        if received.offer() != self.offer {
            return Err(CheckpointError::damaged(&self.path, "it is not the one that was offered"));
        }
        received.drop_cache();
        received.verify(progress)
    }
}
