//! Checkpoints: the whole tree as of one entry of the log, in one file of our own format; they are the Raft snapshots.

mod directory;
pub(crate) mod format;
mod make;
mod receive;

pub use directory::Checkpoints;
pub(crate) use directory::{files, read};
pub use receive::Incoming;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conclave_core::Table;
use conclave_core::apply::{Local, Position};
use conclave_core::digest::RowHash;
use conclave_protocol::Zxid;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::CheckpointError;
use crate::error::checkpoint_io;
use format::{Decoder, Header, TRAILER_BYTES, Trailer, Wrong};

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;

/// A checkpoint's file, held open: it can be read even after a newer one replaced it.
#[derive(Clone, Debug)]
pub struct Checkpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    bytes: u64,
    header: Header,
    trailer: Trailer,
}

/// Which checkpoint a member has to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The last entry that it holds.
    pub position: Position,
    /// The hash over the whole file.
    pub id: u128,
    /// Of the file.
    pub bytes: u64,
}

/// How far long work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Rows done in this step.
    pub rows: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Of how many rows, when that is known.
    pub total_rows: Option<u64>,
}

/// The steps of long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The tables are read, and written to a file.
    Write,
    /// A file is read and verified.
    Verify,
    /// Tables are built from a file.
    Load,
}

/// Told about every 256 KiB; work stops where it breaks.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

impl Checkpoint {
    /// Opens a file, wherever it lies; reads header and trailer. The rows between are not read: [`Self::verify`] does.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], [`CheckpointError::OtherFormat`], [`CheckpointError::Io`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(checkpoint_io("open", path))?;
        let metadata = file.metadata().map_err(checkpoint_io("look at", path))?;
        if !metadata.is_file() {
            return Err(CheckpointError::damaged(path, "it is no file"));
        }
        let bytes = metadata.len();
        let read = || -> Result<(Header, Trailer), Wrong> {
            let header = Decoder::begin(At { file: &file, offset: 0 }, bytes)?.header().clone();
            let mut trailer = [0; TRAILER_BYTES];
            // The header was read: the file is longer than a trailer.
            file.read_exact_at(&mut trailer, bytes - TRAILER_BYTES as u64)?;
            Ok((header, Trailer::decode(&trailer)?))
        };
        let (header, trailer) = read().map_err(refused(path))?;
        if trailer.digest.0 != header.local.digest {
            return Err(CheckpointError::damaged(path, "header and trailer tell different digests"));
        }
        Ok(Self(Arc::new(Inner { path: path.to_owned(), file, bytes, header, trailer })))
    }

    /// The last entry that it holds; zeroes when it was made before any was applied.
    #[must_use]
    pub fn position(&self) -> Position {
        self.local().applied.unwrap_or(Position { term: 0, index: 0 })
    }

    /// What is kept beside the tables.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.0.header.local
    }

    /// The last transaction that it holds.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.0.header.zxid
    }

    /// The cluster's time then: that of the last stamp, milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.0.header.time_ms
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.0.header.cluster
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// How many rows it holds, the history's included.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.trailer.rows
    }

    /// Bytes of its rows, uncompressed.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.0.trailer.raw_bytes
    }

    /// The hash over the whole file: those of the same id are the same byte for byte.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.0.trailer.id
    }

    /// Where its file was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether both are clones of one: two files of the same id hold the same, and one of them may rot.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// To tell another member which one this is.
    #[must_use]
    pub fn offer(&self) -> Offer {
        Offer { position: self.position(), id: self.id(), bytes: self.bytes() }
    }

    /// Reads bytes of the file, as `pread` does; nothing at its end.
    ///
    /// # Errors
    /// The file system's.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.file.read_at(into, offset)
    }

    /// Reads the whole file, and recomputes every hash and sum in it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], [`CheckpointError::Cancelled`], [`CheckpointError::Io`].
    pub fn verify(&self, progress: &mut OnProgress<'_>) -> Result<(), CheckpointError> {
        self.each_row(Step::Verify, progress, |_, _, _, _| Ok(()))
    }

    /// Forgets what the kernel has of the file, where it does that, so that the next read comes from the disk.
    fn drop_cache(&self) {
        // Advice: a file system may not take it, and nothing depends on it but how much a read proves.
        _ = fadvise(&self.0.file, 0, None, Advice::DontNeed);
    }

    /// Verifies it while handing on its rows, in order. When this fails, some have been handed on all the same.
    pub(crate) fn each_row(
        &self,
        step: Step,
        progress: &mut OnProgress<'_>,
        mut each: impl FnMut(Table, &[u8], &[u8], RowHash) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let inner = &*self.0;
        let refuse = refused(&inner.path);
        let input = BufReader::with_capacity(READ_BYTES, At { file: &inner.file, offset: 0 });
        let mut decoder = Decoder::begin(input, inner.bytes).map_err(&refuse)?;
        if *decoder.header() != inner.header {
            return Err(CheckpointError::damaged(&inner.path, "its header changed while it was open"));
        }
        loop {
            let block = decoder.block(|table, key, value, hash| each(table, key, value, hash).map_err(Stop::Caller));
            let more = block.map_err(|stop| match stop {
                Stop::Wrong(wrong) => refuse(wrong),
                Stop::Caller(error) => error,
            })?;
            if more.is_none() {
                break;
            }
            let Trailer { rows, raw_bytes, .. } = *decoder.so_far();
            let now = Progress { step, rows, bytes: raw_bytes, total_rows: Some(inner.trailer.rows) };
            if progress(now).is_break() {
                return Err(CheckpointError::Cancelled);
            }
        }
        if decoder.end() != inner.trailer {
            return Err(CheckpointError::damaged(&inner.path, "its trailer changed while it was open"));
        }
        Ok(())
    }
}

/// Why handing on a block's rows ended.
enum Stop {
    Wrong(Wrong),
    Caller(CheckpointError),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Says of which file it was found.
fn refused(path: &Path) -> impl Fn(Wrong) -> CheckpointError {
    move |wrong| match wrong {
        Wrong::Io(source) => CheckpointError::io("read", path, source),
        Wrong::Damaged(why) => CheckpointError::damaged(path, why),
        Wrong::OtherFormat(found) => CheckpointError::OtherFormat { found, expected: format::FORMAT },
    }
}

/// Reads a file from an offset of its own, since the file is shared.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
