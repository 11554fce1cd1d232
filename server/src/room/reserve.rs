//! The reserve: a file that takes room while there is some, to be given up when there is none.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Its name in the data directory.
const NAME: &str = "reserve";
/// While it is made.
const NEW: &str = "reserve.new";
/// Zeros written at a time, where the file system can't allocate without.
const CHUNK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    data: PathBuf,
    bytes: u64,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It is there, durable.
    Held,
    /// It was given up, or there was no room for it.
    Missing,
    /// There is to be none: it was not asked for, or it can't be made.
    Without,
}

/// What came of making it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It is there.
    Yes,
    /// There was no room for it.
    Full,
}

impl Reserve {
    /// The one of an earlier run if it has this size, or none.
    pub(super) fn find(data: &Path, bytes: u64) -> io::Result<Self> {
        let path = data.join(NAME);
        let kept = match std::fs::metadata(&path) {
            // It has its name only when all of it was durable.
            Ok(found) if found.len() == bytes && bytes > 0 => Kept::Held,
            Ok(_) => {
                std::fs::remove_file(&path)?;
                Kept::Missing
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::Missing,
            Err(error) => return Err(error),
        };
        remove(&data.join(NEW))?;
        Ok(Self { data: data.to_owned(), bytes, kept: if bytes == 0 { Kept::Without } else { kept } })
    }

    /// Whether it is there.
    pub(super) fn is_held(&self) -> bool {
        self.kept == Kept::Held
    }

    /// The bytes that it takes when it is made; 0 when it is there, or there is to be none.
    pub(super) fn missing_bytes(&self) -> u64 {
        if self.kept == Kept::Missing { self.bytes } else { 0 }
    }

    /// Whether somebody has removed it; from then on it is missing.
    pub(super) fn is_lost(&mut self) -> bool {
        let lost = self.is_held() && matches!(self.data.join(NAME).try_exists(), Ok(false));
        if lost {
            self.kept = Kept::Missing;
        }
        lost
    }

    /// Makes it, durable.
    ///
    /// # Errors
    /// When it can't be made for another reason than a full disk: then there is to be none.
    pub(super) fn make(&mut self) -> io::Result<Made> {
        let new = self.data.join(NEW);
        let made = fill(&new, self.bytes).and_then(|()| {
            std::fs::rename(&new, self.data.join(NAME))?;
            self.sync_dir()
        });
        let Err(error) = made else {
            self.kept = Kept::Held;
            return Ok(Made::Yes);
        };
        // What is left of it would take the room that somebody needs.
        let removed = remove(&new);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) && removed.is_ok() {
            return Ok(Made::Full);
        }
        self.kept = Kept::Without;
        Err(error)
    }

    /// Gives it up; false when it was not there. The room is there when this returns.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(super) fn release(&mut self) -> io::Result<bool> {
        if !self.is_held() {
            return Ok(false);
        }
        remove(&self.data.join(NAME))?;
        self.kept = Kept::Missing;
        // Many file systems use the blocks again only when that is durable.
        self.sync_dir()?;
        Ok(true)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.data)?.sync_all()
    }
}

/// Makes a file of so many zeros, all of whose blocks are its own.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0; CHUNK];
            let mut left = bytes;
            while left > 0 {
                let chunk = left.min(CHUNK as u64);
                file.write_all(&zeros[..usize::try_from(chunk).unwrap_or(CHUNK)])?;
                left -= chunk;
            }
        }
        Err(errno) => return Err(errno.into()),
    }
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
