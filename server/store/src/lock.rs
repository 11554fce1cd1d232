//! The lock on a data directory: one process, and one opener in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::Error;
use crate::error::io;

/// Its name in the data directory. It is never removed: whoever removed it could lock a file that nobody else sees.
const FILE: &str = "lock";

/// The exclusive right to a data directory, from before the log and the tables are opened until the last clone is
/// dropped (the tables keep one). The kernel gives it back when the process ends, however it ends.
#[derive(Clone, Debug)]
pub struct DirLock(Arc<Held>);

#[derive(Debug)]
struct Held {
    dir: PathBuf,
    _file: File,
}

impl DirLock {
    /// Takes the directory, which is made when it is missing, and leaves this process's id in it.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is taken, by this process too; [`Error::Io`].
    pub fn acquire(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io("create the directory", dir))?;
        let dir = dir.canonicalize().map_err(io("find", dir))?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open", &path))?;
        // `flock` belongs to the open file, not to the process: a second opener in this process is refused as well.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                let mut text = String::new();
                // The holder may be about to write it: then we do not know who it is.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::Locked { dir, pid });
            }
            Err(error) => return Err(io("lock", &path)(error.into())),
        }
        write_pid(&mut file).map_err(io("write", &path))?;
        Ok(Self(Arc::new(Held { dir, _file: file })))
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_directory_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::acquire(dir.path()).unwrap();
        match DirLock::acquire(dir.path()).unwrap_err() {
            Error::Locked { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other}"),
        }
        let clone = held.clone();
        drop(held);
        assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })), "a clone still holds it");
        drop(clone);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_long_pid_leaves_nothing_behind_a_short_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "99999999999999999999\n").unwrap();
        let _held = DirLock::acquire(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }
}
