//! The vote record: two checksummed copies in files of their own, so that damage never takes a vote back.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::word,
};

/// Raft's vote: whom this member voted for in which term, and whether that one was elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// Raft's term.
    pub term: u64,
    /// The candidate, if any.
    pub node: Option<u64>,
    /// A quorum granted it: that one leads the term.
    pub committed: bool,
}

/// What was found of one copy of the vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteCopy {
    /// As it was written; no vote if none was ever saved.
    Whole {
        /// Number of the vote: one more each.
        sequence: u64,
        /// What it says.
        vote: Option<Vote>,
    },
    /// There is no such file.
    Missing,
    /// Its length or its checksum is wrong.
    Damaged,
}

/// The open vote record.
///
/// A vote is written to copy A, synced, then to copy B, synced, and only then acknowledged. So an acknowledged
/// vote is in both, and one damaged copy, whichever it is and whenever it was damaged, leaves the newest
/// acknowledged vote (or a newer one, which is no step back) in the other. If both are damaged nothing is known,
/// and the record is refused.
pub struct Votes {
    copies: [(&'static str, Arc<dyn File>); 2],
    sequence: u64,
    current: Option<Vote>,
    broken: Option<Error>,
}

pub(crate) const NAMES: [&str; 2] = ["vote-a", "vote-b"];
pub(crate) const UNFINISHED: &str = "vote.tmp";
const MAGIC: [u8; 4] = *b"CVt1";
const BYTES: usize = 40;

impl Votes {
    /// Whether there is a record, going by the names in the directory.
    pub(crate) fn exist(names: &[String]) -> bool {
        names.iter().any(|name| NAMES.contains(&name.as_str()))
    }

    /// Opens the record, creating it if there is none. Mends a damaged, missing or older copy before anything
    /// rests on the other.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if neither copy is good, or they can't both have been written by this code.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, Error> {
        let names = disk.list().during("list", "the directory")?;
        let found = inspect(&*disk, &names)?;
        let (sequence, current) = newest(&found)?;
        let record = encode(sequence, current);
        for (name, found) in NAMES.iter().zip(found) {
            if !matches!(found, VoteCopy::Whole { sequence: found, .. } if found == sequence) {
                let file = disk.create(UNFINISHED).during("create", UNFINISHED)?;
                file.write_at(0, &record).during("write", UNFINISHED)?;
                file.sync().during("sync", UNFINISHED)?;
                disk.rename(UNFINISHED, name).during("name", name)?;
            }
        }
        disk.sync_dir().during("sync the directory of", NAMES[0])?;
        let open = |name: &'static str| Ok((name, disk.open(name).during("open", name)?));
        let copies = [open(NAMES[0])?, open(NAMES[1])?];
        for (name, file) in &copies {
            // What was read may have been in the page cache only.
            file.sync().during("sync", name)?;
        }
        Ok(Self { copies, sequence, current, broken: None })
    }

    /// The newest durable vote; `None` if none was ever saved.
    pub fn current(&self) -> Option<Vote> {
        self.current
    }

    /// Saves a vote; durable, in both copies, when this returns.
    ///
    /// # Errors
    /// After the first failure nothing is taken any more.
    pub fn save(&mut self, vote: Vote) -> Result<(), Error> {
        if let Some(fault) = &self.broken {
            return Err(fault.clone());
        }
        let record = encode(self.sequence + 1, Some(vote));
        for (name, file) in &self.copies {
            let written =
                file.write_at(0, &record).during("write", name).and_then(|()| file.sync().during("sync", name));
            if let Err(fault) = written {
                self.broken = Some(fault.clone());
                return Err(fault);
            }
        }
        self.sequence += 1;
        self.current = Some(vote);
        Ok(())
    }
}

/// Reads both copies.
pub(crate) fn inspect(disk: &dyn Disk, names: &[String]) -> Result<[VoteCopy; 2], Error> {
    let mut copies = [VoteCopy::Missing; 2];
    for (name, copy) in NAMES.iter().zip(&mut copies) {
        if names.iter().any(|n| n == name) {
            let mut bytes = [0; BYTES];
            let file = disk.open(name).during("open", name)?;
            let read = file.read_at(0, &mut bytes).during("read", name)?;
            *copy = match decode(&bytes[..read]) {
                Some((sequence, vote)) => VoteCopy::Whole { sequence, vote },
                None => VoteCopy::Damaged,
            };
        }
    }
    Ok(copies)
}

/// The newest vote that the copies hold, with its number: none, number 0, if there are no copies at all.
pub(crate) fn newest(copies: &[VoteCopy; 2]) -> Result<(u64, Option<Vote>), Error> {
    use VoteCopy::{Damaged, Missing, Whole};
    match *copies {
        [Missing, Missing] => Ok((0, None)),
        [Whole { sequence, vote }, Damaged | Missing] | [Damaged | Missing, Whole { sequence, vote }] => {
            Ok((sequence, vote))
        }
        [Damaged | Missing, Damaged | Missing] => Err(Error::corrupt(NAMES[0], 0, "neither copy of the vote is whole")),
        [Whole { sequence: a, vote: one }, Whole { sequence: b, vote: two }] => {
            if a == b && one != two {
                return Err(Error::corrupt(NAMES[0], 0, "the copies of the vote contradict each other"));
            }
            // A vote is begun when the one before is in both.
            if a.abs_diff(b) > 1 {
                let older = if a < b { NAMES[0] } else { NAMES[1] };
                return Err(Error::corrupt(older, 0, "this copy of the vote is older than it can be"));
            }
            Ok(if a >= b { (a, one) } else { (b, two) })
        }
    }
}

/// magic, version, flags (1 a vote, 2 a node, 4 committed), two zeros; sequence, term, node; sum.
fn encode(sequence: u64, vote: Option<Vote>) -> [u8; BYTES] {
    let flags =
        u8::from(vote.is_some()) | vote.map_or(0, |v| u8::from(v.node.is_some()) << 1 | u8::from(v.committed) << 2);
    let vote = vote.unwrap_or_default();
    let mut out = [0; BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[4] = 1;
    out[5] = flags;
    for (at, value) in [(8, sequence), (16, vote.term), (24, vote.node.unwrap_or(0))] {
        out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = xxh3_64(&out[..32]);
    out[32..].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Option<Vote>)> {
    if bytes.len() != BYTES || bytes[..5] != *b"CVt1\x01" || word(bytes, 32) != xxh3_64(&bytes[..32]) {
        return None;
    }
    let flags = bytes[5];
    let vote = (flags & 1 != 0).then(|| Vote {
        term: word(bytes, 16),
        node: (flags & 2 != 0).then(|| word(bytes, 24)),
        committed: flags & 4 != 0,
    });
    Some((word(bytes, 8), vote))
}
