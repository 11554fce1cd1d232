//! A disk in memory that crashes, tears, rots, fails and stalls as told; for tests and the simulator.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

mod crash;

use self::crash::{Change, Edit, Image, Op};
use crate::disk::{Disk, File};

/// What a power cut does to what was not synced. (A crash of the process alone does nothing: just open again.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    All,
    /// None of it is.
    Nothing,
    /// By this seed: a file keeps some sectors of some writes, in no order, each of them whole; the directory
    /// keeps a number of its first changes.
    Some(u64),
}

/// A disk in memory. Clones share it. It keeps apart what is synced, which a crash leaves, and what is only
/// written.
#[derive(Clone, Default)]
pub struct MemDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    released: Condvar,
}

#[derive(Default)]
struct Inner {
    image: Image,
    journal: Option<Journal>,
    faults: Faults,
    syncs: u64,
}

/// What [`MemDisk::fail`] can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// [`Disk::create`].
    Create,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync`].
    Sync,
}

#[derive(Default)]
struct Faults {
    /// So many of these succeed before one fails, in this way.
    next: BTreeMap<Act, (u64, Fault)>,
    /// This many writes succeed before all fail as if the disk was full.
    writes_left: Option<u64>,
    /// What all files together may take.
    capacity: Option<u64>,
    stalled: bool,
}

/// How an act fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Broken,
    /// ENOSPC.
    Full,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::from_raw_os_error(match fault {
            Fault::Broken => 5,
            Fault::Full => 28,
        })
    }
}

/// How the disk was when recording began, and what was done to it since: so it can be had as it was after any number
/// of operations.
struct Journal {
    begun: Image,
    done: Vec<Op>,
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk that records what is done to it, for [`MemDisk::after`].
    pub fn recording() -> Self {
        let disk = Self::default();
        disk.record();
        disk
    }

    /// Records what is done from now on.
    pub fn record(&self) {
        let mut inner = self.lock();
        inner.journal = Some(Journal { begun: inner.image.clone(), done: Vec::new() });
    }

    /// How many operations were recorded.
    pub fn operations(&self) -> usize {
        self.lock().journal.as_ref().map_or(0, |journal| journal.done.len())
    }

    /// A new disk as this one was after its first `operations`.
    pub fn after(&self, operations: usize) -> Self {
        let mut image = Image::default();
        if let Some(Journal { begun, done }) = &self.lock().journal {
            image = begun.clone();
            done.iter().take(operations).for_each(|op| image.apply(op.clone()));
        }
        Self::holding(image)
    }

    /// The disk as a power cut leaves it if `choose` decides, for each unsynced change in turn, between loss (0) and
    /// keeping (1); it is given the number of choices. First the changes of names, in any combination, then for each
    /// file its growth and its sectors. So all that a power cut may do can be gone through.
    pub fn crash_by(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self::holding(self.lock().image.chosen(choose))
    }

    /// The disk as a power cut leaves it: a new one, with nothing pending and no faults.
    pub fn crash(&self, loss: Loss) -> Self {
        Self::holding(self.lock().image.crashed(loss))
    }

    /// An independent copy: the same files, all synced, no faults.
    pub fn copy(&self) -> Self {
        self.crash(Loss::Nothing)
    }

    /// The next `successes` syncs succeed, then one fails with EIO. As on Linux, what that one should have made
    /// durable is lost at the next crash, whatever later syncs say.
    pub fn fail_sync_after(&self, successes: u64) {
        self.fail(Act::Sync, successes, Fault::Broken);
    }

    /// The next `successes` of these acts succeed, then one fails, without having done anything.
    pub fn fail(&self, act: Act, successes: u64, fault: Fault) {
        self.lock().faults.next.insert(act, (successes, fault));
    }

    /// Whether a fault set by [`MemDisk::fail`] has not happened yet.
    pub fn armed(&self) -> bool {
        !self.lock().faults.next.is_empty()
    }

    /// From now on all files together take at most so many bytes: a write beyond that does what fits, and fails as on
    /// a full disk. `None` takes the limit away.
    pub fn limit(&self, bytes: Option<u64>) {
        self.lock().faults.capacity = bytes;
    }

    /// Bytes that all files together take.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// The next `successes` writes succeed, then all fail: the disk is full. `None` makes room again.
    pub fn fill_after(&self, successes: Option<u64>) {
        self.lock().faults.writes_left = successes;
    }

    /// From now on syncs block, until [`MemDisk::release`].
    pub fn stall(&self) {
        self.lock().faults.stalled = true;
    }

    /// Ends a stall.
    pub fn release(&self) {
        self.lock().faults.stalled = false;
        self.shared.released.notify_all();
    }

    /// File syncs so far, failed ones not counted.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// A file's bytes; `None` if there is none of that name.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.lock();
        inner.image.names.get(name).map(|id| inner.image.files[*id].now.clone())
    }

    /// Replaces a file's bytes behind everyone's back, durably: rot, a cut, a stray write. Creates it if needed.
    pub fn overwrite(&self, name: &str, content: Vec<u8>) {
        self.lock().image.put(name, content);
    }

    /// Flips one bit of a file, durably.
    pub fn flip(&self, name: &str, bit: usize) {
        if let Some(mut content) = self.content(name) {
            if let Some(byte) = content.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            self.overwrite(name, content);
        }
    }

    /// Removes a file behind everyone's back, durably.
    pub fn lose(&self, name: &str) {
        let mut inner = self.lock();
        inner.image.names.remove(name);
        inner.image.durable_names.remove(name);
    }

    fn holding(image: Image) -> Self {
        let disk = Self::default();
        disk.lock().image = image;
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: usize) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.clone(), id })
    }
}

impl Inner {
    fn act(&mut self, op: Op) {
        if let Some(journal) = &mut self.journal {
            journal.done.push(op.clone());
        }
        self.image.apply(op);
    }

    /// Whether it is this act's turn to fail.
    fn pass(&mut self, act: Act) -> io::Result<()> {
        match self.faults.next.get_mut(&act) {
            Some((0, fault)) => {
                let error = (*fault).into();
                self.faults.next.remove(&act);
                Err(error)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.image.names.values().map(|id| self.image.files[*id].now.len() as u64).sum()
    }

    fn write(&mut self, id: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass(Act::Write)?;
        match &mut self.faults.writes_left {
            Some(0) => return Err(Fault::Full.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        let length = self.image.files[id].now.len() as u64;
        let left = self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let most = length.saturating_add(left).saturating_sub(offset).min(data.len() as u64) as usize;
        if most > 0 {
            self.act(Op::Edit(id, Edit::Write(offset, data[..most].to_vec())));
        }
        if most < data.len() { Err(Fault::Full.into()) } else { Ok(()) }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.image.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.pass(Act::Create)?;
        inner.act(Op::Create(name.to_owned()));
        let id = inner.image.files.len() - 1;
        drop(inner);
        Ok(self.handle(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let id = self.lock().find(name)?;
        Ok(self.handle(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass(Act::Rename)?;
        let id = inner.find(from)?;
        inner.act(Op::Change(Change::Rename(from.to_owned(), to.to_owned(), id)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass(Act::Remove)?;
        inner.find(name)?;
        inner.act(Op::Change(Change::Unlink(name.to_owned())));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().image.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass(Act::SyncDir)?;
        inner.act(Op::SyncDir);
        Ok(())
    }
}

struct MemFile {
    disk: MemDisk,
    id: usize,
}

impl File for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.disk.lock();
        inner.pass(Act::Read)?;
        let content = &inner.image.files[self.id].now;
        let start = content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let read = into.len().min(content.len() - start);
        into[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.lock().write(self.id, offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        while inner.faults.stalled {
            inner = self.disk.shared.released.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if let Err(error) = inner.pass(Act::Sync) {
            inner.image.files[self.id].pending.clear();
            return Err(error);
        }
        inner.syncs += 1;
        inner.act(Op::Sync(self.id));
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.lock().act(Op::Edit(self.id, Edit::Truncate(length)));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().image.files[self.id].now.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_synced_is_lost_and_what_is_stays() {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"one").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.crash(Loss::All).content("a"), None, "its name was not synced");
        disk.sync_dir().unwrap();
        file.write_at(3, b"two").unwrap();
        assert_eq!(disk.crash(Loss::All).content("a").unwrap(), b"one");
        assert_eq!(disk.crash(Loss::Nothing).content("a").unwrap(), b"onetwo");
        for seed in 0..50 {
            assert!(disk.crash(Loss::Some(seed)).content("a").unwrap().starts_with(b"one"));
        }
    }

    #[test]
    fn what_a_failed_sync_lost_stays_lost() {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, b"one").unwrap();
        disk.fail_sync_after(0);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
        assert_eq!(disk.crash(Loss::All).content("a").unwrap(), b"");
    }

    #[test]
    fn a_chosen_loss_is_exactly_that() {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        file.sync().unwrap();
        disk.rename("a", "b").unwrap();
        file.write_at(500, &[2; 1000]).unwrap();
        // The name; the length; the sectors 500..512, 512..1024, 1024..1500.
        for (choices, name, length) in
            [([0, 0, 1, 0, 0], "a", 1024), ([1, 1, 0, 1, 0], "b", 1500), ([1, 0, 0, 0, 1], "b", 1500)]
        {
            let mut next = choices.iter();
            let left = disk.crash_by(&mut |_| *next.next().unwrap()).content(name).unwrap();
            assert!(next.next().is_none() && left.len() == length);
            let kept = |from: usize| left.get(from).is_some_and(|byte| *byte == 2);
            assert_eq!([500, 512, 1024].map(kept), [choices[2], choices[3], choices[4]].map(|kept| kept == 1));
        }
    }

    #[test]
    fn the_past_can_be_had_again() {
        let disk = MemDisk::recording();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"one").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.operations(), 3);
        assert_eq!(disk.after(2).content("a").unwrap(), b"one");
        assert_eq!(disk.after(3).content("b").unwrap(), b"one");
    }
}
