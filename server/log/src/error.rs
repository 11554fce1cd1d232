//! What can go wrong in the log: a wrong call, or a fault that stops the member.

use std::{io, sync::Arc};

/// Why the log did not do what it was asked. All but [`Error::Full`], [`Error::Gap`], [`Error::TooLarge`] and
/// [`Error::Purged`] are faults: the member stops.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused. After a failed write or sync the log takes nothing more: an fsync is never retried,
    /// since the kernel may have marked the pages clean.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file's name within the log's directory.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk has no room for the log to grow. No frame is torn by it and nothing is lost: the same call can be
    /// made again, and succeeds when there is room. [`crate::Writer`] does so by itself.
    #[error("no room on the disk to {action} {file}: {source}")]
    Full {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file's name within the log's directory.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Something that was durable is damaged or gone. Not repaired: the member comes back under a new id.
    #[error(
        "{file} is damaged at byte {offset}: {what}. Entries or votes that this member promised to keep may be gone, so \
         it must not go on under its id: keep this directory for inspection, remove the member from the cluster, and \
         add it again, empty, under a new id"
    )]
    Corrupt {
        /// The file's name within the log's directory.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// An entry that does not follow the last one, or a truncation or purge that would leave a hole.
    #[error("index {got} does not fit: expected {expected}")]
    Gap {
        /// The index that would have fitted.
        expected: u64,
        /// The index that was given.
        got: u64,
    },
    /// A payload beyond [`crate::Options::payload_limit_bytes`].
    #[error("a payload of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// What was given.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The entry was purged: a checkpoint has it.
    #[error("index {0} is purged")]
    Purged(u64),
    /// The log's thread ended, because of an earlier fault (its reason) or because it was closed.
    #[error("the log takes nothing more: {0}")]
    Dead(Arc<str>),
}

impl Error {
    pub(crate) fn corrupt(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), offset, what: what.into() }
    }

    /// Whether all that is missing is room on the disk.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the disk's content, not the disk or the caller, is what is wrong.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } | Error::Full { source, .. } => source.kind(),
            Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::Gap { .. } | Error::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Error::Purged(_) => io::ErrorKind::NotFound,
            Error::Dead(_) => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// Names the failed act and file: an `io::Error` alone says neither.
pub(crate) trait Context<T> {
    fn during(self, action: &'static str, file: &str) -> Result<T, Error>;
    /// The same for an act that only grows the log, so that a full disk undoes nothing: it can be tried again.
    fn growing(self, action: &'static str, file: &str) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, action: &'static str, file: &str) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, file: file.to_owned(), source: Arc::new(source) })
    }

    fn growing(self, action: &'static str, file: &str) -> Result<T, Error> {
        self.map_err(|source| {
            let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let (file, source) = (file.to_owned(), Arc::new(source));
            if full { Error::Full { action, file, source } } else { Error::Io { action, file, source } }
        })
    }
}
