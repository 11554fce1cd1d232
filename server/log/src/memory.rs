//! A disk in memory that crashes, tears, rots, fails and stalls as told; for tests and the simulator.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

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
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Change>,
    journal: Option<Vec<Op>>,
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

#[derive(Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Clone)]
enum Edit {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

/// Recorded, so that the disk can be had as it was after any number of operations.
#[derive(Clone)]
enum Op {
    Create(String),
    Change(Change),
    Edit(usize, Edit),
    Sync(usize),
    SyncDir,
}

/// What disks write whole.
const SECTOR: usize = 512;

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk that records what is done to it, for [`MemDisk::after`].
    pub fn recording() -> Self {
        let disk = Self::default();
        disk.lock().journal = Some(Vec::new());
        disk
    }

    /// How many operations were recorded.
    pub fn operations(&self) -> usize {
        self.lock().journal.as_ref().map_or(0, Vec::len)
    }

    /// A new disk as this one was after its first `operations`.
    pub fn after(&self, operations: usize) -> Self {
        let journal: Vec<Op> =
            self.lock().journal.as_ref().map_or_else(Vec::new, |j| j.iter().take(operations).cloned().collect());
        let disk = Self::default();
        for op in journal {
            // Recorded operations had succeeded.
            let _ = disk.lock().act(op);
        }
        disk
    }

    /// The disk as a power cut leaves it: a new one, with nothing pending and no faults.
    pub fn crash(&self, loss: Loss) -> Self {
        let mut inner = self.lock();
        let mut random = Random(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        let keep = match loss {
            Loss::All => 0,
            Loss::Nothing => inner.pending_names.len(),
            Loss::Some(_) => random.below(inner.pending_names.len() + 1),
        };
        let mut names = inner.durable_names.clone();
        for change in inner.pending_names.iter().take(keep) {
            change.apply(&mut names);
        }
        let files: Vec<Content> = inner.files.iter_mut().map(|file| file.crashed(loss, &mut random)).collect();
        let survivor = Self::default();
        *survivor.lock() = Inner { files, durable_names: names.clone(), names, ..Inner::default() };
        survivor
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
        inner.names.get(name).map(|id| inner.files[*id].now.clone())
    }

    /// Replaces a file's bytes behind everyone's back, durably: rot, a cut, a stray write. Creates it if needed.
    pub fn overwrite(&self, name: &str, content: Vec<u8>) {
        let mut inner = self.lock();
        let id = match inner.names.get(name) {
            Some(id) => *id,
            None => {
                inner.files.push(Content::default());
                let id = inner.files.len() - 1;
                inner.names.insert(name.to_owned(), id);
                inner.durable_names.insert(name.to_owned(), id);
                id
            }
        };
        inner.files[id] = Content { durable: content.clone(), now: content, pending: Vec::new() };
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
        inner.names.remove(name);
        inner.durable_names.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: usize) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.clone(), id })
    }
}

impl Inner {
    fn act(&mut self, op: Op) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.push(op.clone());
        }
        match op {
            Op::Create(name) => {
                self.files.push(Content::default());
                let id = self.files.len() - 1;
                self.change(Change::Link(name, id));
            }
            Op::Change(change) => self.change(change),
            Op::Edit(id, edit) => {
                edit.apply(&mut self.files[id].now);
                self.files[id].pending.push(edit);
            }
            Op::Sync(id) => {
                let file = &mut self.files[id];
                // Edits one by one, not a copy of `now`: what a failed sync lost stays lost.
                for edit in file.pending.drain(..) {
                    edit.apply(&mut file.durable);
                }
                self.syncs += 1;
            }
            Op::SyncDir => {
                for change in std::mem::take(&mut self.pending_names) {
                    change.apply(&mut self.durable_names);
                }
            }
        }
        Ok(())
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
        self.names.values().map(|id| self.files[*id].now.len() as u64).sum()
    }

    fn write(&mut self, id: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass(Act::Write)?;
        match &mut self.faults.writes_left {
            Some(0) => return Err(Fault::Full.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        let length = self.files[id].now.len() as u64;
        let left = self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let most = length.saturating_add(left).saturating_sub(offset).min(data.len() as u64) as usize;
        if most > 0 {
            self.act(Op::Edit(id, Edit::Write(offset, data[..most].to_vec())))?;
        }
        if most < data.len() { Err(Fault::Full.into()) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = *offset as usize;
                let end = start + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(data);
            }
            Self::Truncate(length) => content.resize(*length as usize, 0),
        }
    }
}

impl Content {
    fn crashed(&self, loss: Loss, random: &mut Random) -> Self {
        let mut left = self.durable.clone();
        for edit in &self.pending {
            match (loss, edit) {
                (Loss::All, _) => {}
                (Loss::Nothing, edit) => edit.apply(&mut left),
                (Loss::Some(_), Edit::Truncate(_)) => {
                    if random.below(2) == 0 {
                        edit.apply(&mut left);
                    }
                }
                (Loss::Some(_), Edit::Write(offset, data)) => tear(*offset as usize, data, &mut left, random),
            }
        }
        if loss == Loss::Nothing {
            left.clone_from(&self.now);
        }
        Self { now: left.clone(), durable: left, pending: Vec::new() }
    }
}

/// Keeps some sectors of a write. The length, which is metadata, may have been kept although the bytes were not.
fn tear(offset: usize, data: &[u8], left: &mut Vec<u8>, random: &mut Random) {
    let mode = random.below(3);
    let mut at = 0;
    while at < data.len() {
        let end = (((offset + at) / SECTOR + 1) * SECTOR - offset).min(data.len());
        let keep = match mode {
            0 => 0,
            1 => end - at,
            _ => (end - at) * random.below(2),
        };
        if keep > 0 {
            Edit::Write((offset + at) as u64, data[at..at + keep].to_vec()).apply(left);
        }
        at = end;
    }
    if random.below(2) == 0 && left.len() < offset + data.len() {
        left.resize(offset + data.len(), 0);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to pick sectors.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

impl Disk for MemDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.pass(Act::Create)?;
        inner.act(Op::Create(name.to_owned()))?;
        let id = inner.files.len() - 1;
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
        inner.find(from)?;
        inner.act(Op::Change(Change::Rename(from.to_owned(), to.to_owned())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass(Act::Remove)?;
        inner.find(name)?;
        inner.act(Op::Change(Change::Unlink(name.to_owned())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.pass(Act::SyncDir)?;
        inner.act(Op::SyncDir)
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
        let content = &inner.files[self.id].now;
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
            inner.files[self.id].pending.clear();
            return Err(error);
        }
        inner.act(Op::Sync(self.id))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.lock().act(Op::Edit(self.id, Edit::Truncate(length)))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.id].now.len() as u64)
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
