//! What is on the disk in memory, and what a power cut leaves of it: which unsynced changes are kept, by sectors.

use std::collections::BTreeMap;

use crate::memory::Loss;

/// The whole disk: files by number, and their names.
#[derive(Default, Clone)]
pub(super) struct Image {
    pub(super) files: Vec<Content>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Change>,
}

/// What is done to it.
#[derive(Clone)]
pub(super) enum Op {
    Create(String),
    Change(Change),
    Edit(usize, Edit),
    Sync(usize),
    SyncDir,
}

/// A file.
#[derive(Default, Clone)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    durable: Vec<u8>,
    pub(super) pending: Vec<Edit>,
}

/// A change of a file's content.
#[derive(Clone)]
pub(super) enum Edit {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// A change of the directory.
#[derive(Clone)]
pub(super) enum Change {
    Link(String, usize),
    Unlink(String),
    /// With the file that is renamed: the change may be kept although the file's making was not.
    Rename(String, String, usize),
}

/// What disks write whole.
const SECTOR: usize = 512;

impl Image {
    /// Where all is synced.
    fn synced(files: Vec<Content>, names: BTreeMap<String, usize>) -> Self {
        Self { files, durable_names: names.clone(), names, pending_names: Vec::new() }
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Create(name) => {
                self.files.push(Content::default());
                self.change(Change::Link(name, self.files.len() - 1));
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
            }
            Op::SyncDir => {
                for change in self.pending_names.drain(..) {
                    change.apply(&mut self.durable_names);
                }
            }
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    /// See [`MemDisk::overwrite`](super::MemDisk::overwrite).
    pub(super) fn put(&mut self, name: &str, content: Vec<u8>) {
        let content = Content::synced(content);
        if let Some(id) = self.names.get(name) {
            self.files[*id] = content;
            return;
        }
        let id = self.files.len();
        self.files.push(content);
        self.names.insert(name.to_owned(), id);
        self.durable_names.insert(name.to_owned(), id);
    }

    /// See [`MemDisk::crash_by`](super::MemDisk::crash_by).
    pub(super) fn chosen(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            if choose(2) == 1 {
                change.apply(&mut names);
            }
        }
        let mut files = Vec::new();
        for id in names.values_mut() {
            files.push(self.files[*id].chosen(choose));
            *id = files.len() - 1;
        }
        Self::synced(files, names)
    }

    /// See [`MemDisk::crash`](super::MemDisk::crash).
    pub(super) fn crashed(&self, loss: Loss) -> Self {
        let mut random = Random(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        let keep = match loss {
            Loss::All => 0,
            Loss::Nothing => self.pending_names.len(),
            Loss::Some(_) => random.below(self.pending_names.len() + 1),
        };
        let mut names = self.durable_names.clone();
        for change in self.pending_names.iter().take(keep) {
            change.apply(&mut names);
        }
        Self::synced(self.files.iter().map(|file| file.crashed(loss, &mut random)).collect(), names)
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
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
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
    fn synced(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    fn crashed(&self, loss: Loss, random: &mut Random) -> Self {
        if loss == Loss::Nothing {
            return Self::synced(self.now.clone());
        }
        let mut left = self.durable.clone();
        if loss != Loss::All {
            for edit in &self.pending {
                match edit {
                    Edit::Truncate(_) => {
                        if random.below(2) == 0 {
                            edit.apply(&mut left);
                        }
                    }
                    Edit::Write(offset, data) => tear(*offset as usize, data, &mut left, random),
                }
            }
        }
        Self::synced(left)
    }

    /// What is left if `choose` decides, for each part in turn, between loss (0) and keeping (1): the length of a
    /// write that grows the file, then each of its sectors that is not as it would be anyway.
    fn chosen(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut left = self.durable.clone();
        for edit in &self.pending {
            match edit {
                Edit::Truncate(_) => {
                    if choose(2) == 1 {
                        edit.apply(&mut left);
                    }
                }
                Edit::Write(offset, data) => {
                    let start = *offset as usize;
                    if start + data.len() > left.len() && choose(2) == 1 {
                        left.resize(start + data.len(), 0);
                    }
                    for (from, to) in sectors(start, data.len()) {
                        let there = left.get(start + from..start + to) == Some(&data[from..to]);
                        if !there && choose(2) == 1 {
                            Edit::Write((start + from) as u64, data[from..to].to_vec()).apply(&mut left);
                        }
                    }
                }
            }
        }
        Self::synced(left)
    }
}

/// The parts of `[0, length)` that fall into one sector each, if it begins at `offset`.
fn sectors(offset: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
    let end = move |at: usize| (((offset + at) / SECTOR + 1) * SECTOR - offset).min(length);
    std::iter::successors((length > 0).then(|| (0, end(0))), move |(_, to)| (*to < length).then(|| (*to, end(*to))))
}

/// Keeps some sectors of a write. The length, which is metadata, may have been kept although the bytes were not.
fn tear(offset: usize, data: &[u8], left: &mut Vec<u8>, random: &mut Random) {
    let mode = random.below(3);
    for (from, to) in sectors(offset, data.len()) {
        let keep = match mode {
            0 => false,
            1 => true,
            _ => random.below(2) == 1,
        };
        if keep {
            Edit::Write((offset + from) as u64, data[from..to].to_vec()).apply(left);
        }
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
