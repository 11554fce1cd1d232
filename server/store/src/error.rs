//! What can keep a data directory or its tables from being opened. Once they are open, only faults are left.

use std::io;
use std::path::{Path, PathBuf};

use conclave_core::Fault;

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
    /// The tables in it are another cluster's.
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
}

/// For `map_err`: says what was being done to which path.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// LMDB's errors are this member's trouble, a full map and a failing disk included: never a reply.
pub(crate) fn storage(error: heed::Error) -> Fault {
    Fault::Storage(error.to_string())
}
