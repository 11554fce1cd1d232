//! What a power cut leaves of the disk in memory: which unsynced changes are kept, in whole or by sectors.

use std::collections::BTreeMap;

use crate::memory::Loss;

/// A file.
#[derive(Default, Clone)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
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

impl Change {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
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
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
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
    pub(super) fn crashed(&self, loss: Loss, random: &mut Random) -> Self {
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

impl Content {
    /// What is left if `choose` decides, for each part in turn, between loss (0) and keeping (1): the length of a
    /// write that grows the file, then each of its sectors that is not as it would be anyway.
    pub(super) fn chosen(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
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
        Self { now: left.clone(), durable: left, pending: Vec::new() }
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
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
