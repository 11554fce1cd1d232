//! What can keep a data directory, its tables or a checkpoint from being opened, made or installed.

use std::io;
use std::path::{Path, PathBuf};

use conclave_core::Fault;
use conclave_core::apply::Position;
use heed::MdbError;

/// Why a data directory or its tables can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the directory, or this one has it already.
    #[error("{} is in use{}", dir.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Who has it, when that could be read.
        pid: Option<u32>,
    },
    /// The tables in it, or its checkpoint, are another cluster's.
    #[error("the data directory belongs to cluster {found}, this is a member of cluster {expected}")]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The tables are of a format that this version does not read.
    #[error("the tables have format {found}, this version reads format {expected}")]
    OtherFormat {
        /// Theirs.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The tables are to be built again, and the checkpoint to build them from is damaged. Without it the log alone has
    /// to do, or another member's checkpoint.
    #[error("checkpoint {} is damaged, and the tables are to be built again from it: {why}", path.display())]
    DamagedCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A directory that has to be empty is not.
    #[error("{} is not empty: it holds {found}", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One thing that it holds.
        found: String,
    },
    /// A restore into this directory was interrupted: restore again, nothing else can be done with it.
    #[error("a restore into {} was interrupted: run it again", dir.display())]
    HalfRestored {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused something.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The tables are there, and something is wrong with them.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Something else about a checkpoint.
    #[error(transparent)]
    Checkpoint(CheckpointError),
}

/// Why a checkpoint can't be made, received, read or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The live tables are damaged: this member's state can't be believed any more.
    #[error("the tables are damaged: {0}")]
    Tables(#[source] Fault),
    /// The checkpoint's file is damaged, or no checkpoint at all.
    #[error("checkpoint {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No room on the disk. Nothing changed; it can be tried again.
    #[error("no room on the disk to {what} {}: {source}", path.display())]
    Full {
        /// What was to be done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file system refused something else.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The progress callback asked to stop. Nothing changed.
    #[error("cancelled")]
    Cancelled,
    /// One is being made, or received, already.
    #[error("a checkpoint is being {0} already")]
    Busy(&'static str),
    /// One that was received is no newer than the one that is here. It was removed, and that one stays.
    #[error("checkpoint {} ends at entry {}, and the one that is here at {}", path.display(), position.index, newest.index)]
    Older {
        /// The file that was refused.
        path: PathBuf,
        /// The last entry that it holds.
        position: Position,
        /// The last entry that the newest one here holds.
        newest: Position,
    },
    /// It is another cluster's.
    #[error("the checkpoint is of cluster {found}, this is a member of cluster {expected}")]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It is of a format that this version does not read.
    #[error("the checkpoint has format {found}, this version reads format {expected}")]
    OtherFormat {
        /// Its own.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The database that is read or written, not its content.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// Whether it is only that the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => no_room(source),
            Self::Fault(fault) => matches!(fault, Fault::Full(_)),
            Self::Checkpoint(error) => error.is_full(),
            _ => false,
        }
    }
}

impl CheckpointError {
    /// Whether it is only that the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Fault(Fault::Full(_)))
    }

    /// A failure of the file system.
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if no_room(&source) { Self::Full { what, path, source } } else { Self::Io { what, path, source } }
    }

    /// A file that is no good checkpoint.
    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }
}

impl From<Error> for CheckpointError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { what, path, source } => Self::io(what, &path, source),
            Error::Fault(fault) => Self::Fault(fault),
            Error::Checkpoint(error) => error,
            Error::OtherCluster { found, expected } => Self::OtherCluster { found, expected },
            Error::DamagedCheckpoint { path, why } => Self::Damaged { path, why },
            other => Self::Fault(Fault::Storage(other.to_string())),
        }
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Damaged { path, why } => Self::DamagedCheckpoint { path, why },
            CheckpointError::OtherCluster { found, expected } => Self::OtherCluster { found, expected },
            CheckpointError::Full { what, path, source } | CheckpointError::Io { what, path, source } => {
                Self::Io { what, path, source }
            }
            CheckpointError::Tables(fault) | CheckpointError::Fault(fault) => Self::Fault(fault),
            other => Self::Checkpoint(other),
        }
    }
}

/// For `map_err`: says what was being done to which path.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// As [`io`], for checkpoints.
pub(crate) fn checkpoint_io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    move |source| CheckpointError::io(what, path, source)
}

/// As [`storage`], for reads in a transaction of their own, where nothing but damage that an earlier read found can be
/// why LMDB gives no more of it. Whoever found it may not have been heard yet.
pub(crate) fn reading(error: heed::Error) -> Fault {
    match error {
        heed::Error::Mdb(error @ MdbError::BadTxn) => Fault::Corrupt(error.to_string()),
        error => storage(error),
    }
}

/// Whether this error of LMDB's says that pages are not what they should be. Those that also follow from another failure
/// (a transaction that has to be given up, a page with the roots that could not be written) are not among them.
fn is_structure(error: MdbError) -> bool {
    match error {
        // A page of a wrong type, one beyond the end, a tree that is deeper than any can be (a loop), a page with less
        // room in it than it says.
        MdbError::Corrupted | MdbError::PageNotFound | MdbError::CursorFull | MdbError::PageFull => true,
        // No page with the roots is one. The version is LMDB's own: the marker, which is read before, tells which
        // version of ours wrote the file.
        MdbError::Invalid | MdbError::VersionMismatch => true,
        // A table is always opened in the same way: its record in the root is none.
        MdbError::Incompatible => true,
        _ => false,
    }
}

/// Whether the system says that there is no room: on the disk, in a quota, or for a file of that size.
pub(crate) fn no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// LMDB's errors are this member's trouble, a full map and a failing disk included: never a reply.
pub(crate) fn storage(error: heed::Error) -> Fault {
    match error {
        heed::Error::Io(error) if no_room(&error) => Fault::Full(error.to_string()),
        heed::Error::Mdb(error) if is_structure(error) => Fault::Corrupt(error.to_string()),
        error => Fault::Storage(error.to_string()),
    }
}
