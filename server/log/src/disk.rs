//! The few things that the log asks of a disk, and the real one.

use std::{
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// One flat directory of files. Nothing here is durable by itself: contents are after [`File::sync`], names
/// (created, renamed, removed) after [`Disk::sync_dir`]. Names have no separators.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, or empties the one of that name, open for reading and writing.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Renames atomically, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Open handles go on working.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All file names, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes all creations, renames and removals so far durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Reads up to `into.len()` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data` at `offset`, growing the file as needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes all that was written, and the length, durable (fdatasync). A failure is final for the file.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A directory of the machine's file system, locked against a second opener as long as this value lives.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Kept open: it is what `sync_dir` syncs, and what holds the lock.
    directory: fs::File,
}

impl RealDisk {
    /// Opens `root`, creating it (its parent must exist) and making its own name durable.
    ///
    /// # Errors
    /// `WouldBlock` if another process, or another value in this one, has it open.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref().to_path_buf();
        if !root.is_dir() {
            fs::create_dir(&root)?;
            // Without this a power cut can take the whole directory back.
            match root.parent().filter(|p| !p.as_os_str().is_empty()) {
                Some(parent) => fs::File::open(parent)?.sync_all()?,
                None => fs::File::open(".")?.sync_all()?,
            }
        }
        let directory = fs::File::open(&root)?;
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { root, directory })
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.root.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.root.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_opened_once() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("log");
        let first = RealDisk::open(&root).unwrap();
        assert_eq!(RealDisk::open(&root).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(RealDisk::open(&root).is_ok());
    }

    #[test]
    fn a_short_read_happens_only_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(parent.path().join("log")).unwrap();
        let file = disk.create("x").unwrap();
        file.write_at(3, b"abc").unwrap();
        file.sync().unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(2, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"\0abc");
        assert_eq!(file.length().unwrap(), 6);
        disk.rename("x", "y").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["y"]);
        assert_eq!(disk.open("x").err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }
}
