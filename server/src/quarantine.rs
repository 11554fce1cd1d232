//! The record of a quarantine: a small durable file that says that this member's state is not believed, and what has been
//! tried. It outlives the process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Its name in the data directory.
const FILE: &str = "quarantine";
/// What stands above it, for whoever opens it.
const HEAD: &str =
    "# This member's state was not believed. The member removes this file when it has been well for a while.\n";
/// After so many attempts that did not help, the member stops.
pub(crate) const ATTEMPTS: u32 = 4;

/// What is known of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which attempt to make the state again is due, or was made: the first from this member's own checkpoint and log,
    /// later ones from another member's checkpoint.
    pub(crate) attempt: u32,
    /// Whether it is still to be made.
    pub(crate) is_pending: bool,
    /// Why the state was not believed, at last.
    pub(crate) why: String,
}

impl Record {
    /// The one in a data directory. One that can't be read is a quarantine whose reason is lost.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(FILE)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let unreadable =
            || Self { attempt: 1, is_pending: true, why: "the record of a quarantine can't be read".to_owned() };
        Ok(Some(toml::from_str(&text).unwrap_or_else(|_| unreadable())))
    }

    /// The next attempt, after what was tried before; written down.
    pub(crate) fn next(dir: &Path, why: &str) -> io::Result<Self> {
        let attempt = Self::read(dir)?.map_or(1, |before| before.attempt + 1);
        let record = Self { attempt, is_pending: true, why: why.to_owned() };
        record.write(dir)?;
        Ok(record)
    }

    /// The state was made again; whether it holds, time tells.
    pub(crate) fn done(&self, dir: &Path) -> io::Result<()> {
        Self { is_pending: false, ..self.clone() }.write(dir)
    }

    /// The member is well.
    pub(crate) fn forget(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(dir)?.sync_all(),
        }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, next) = (dir.join(FILE), dir.join("quarantine.new"));
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = File::create(&next)?;
        file.write_all(HEAD.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn attempts_are_counted_over_restarts_until_the_member_is_well() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let first = Record::next(dir.path(), "a row is \"damaged\"").unwrap();
        assert_eq!((first.attempt, first.is_pending), (1, true));
        assert_eq!(Record::read(dir.path()).unwrap(), Some(first.clone()));
        first.done(dir.path()).unwrap();
        assert!(!Record::read(dir.path()).unwrap().unwrap().is_pending);
        assert_eq!(Record::next(dir.path(), "again").unwrap().attempt, 2);
        Record::forget(dir.path()).unwrap();
        Record::forget(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_record_that_can_not_be_read_is_a_quarantine_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [0xff, 0, 1]).unwrap();
        assert!(Record::read(dir.path()).unwrap().unwrap().is_pending);
    }
}
