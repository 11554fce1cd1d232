//! The offline check of a log and its votes, for `conclave doctor`: reads everything, changes nothing.

use crate::{
    disk::Disk,
    error::{Context, Error},
    log::Position,
    recover::{Torn, belong},
    scan::Scan,
    segment,
    vote::{self, Vote, VoteCopy, Votes},
};

/// What [`check`] found. Where the log is damaged, counts are those of what lies before the damage.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// The segments that could be read, in order. None if there is no log here.
    pub segments: Vec<SegmentReport>,
    /// Entries that are there.
    pub entries: u64,
    /// Index of the first of them.
    pub first: Option<u64>,
    /// The last entry, or the last purged one if there is none.
    pub last: Option<Position>,
    /// The last purged entry.
    pub purged: Option<Position>,
    /// The greatest committed index that is noted, at most the last entry's.
    pub committed: Option<u64>,
    /// A crash cut the last write short; nobody was told that it was durable. The next start clears it away: nothing
    /// is to be done.
    pub torn: Option<Torn>,
    /// `vote-a` and `vote-b`. One that is missing or damaged is mended by the next start from the other.
    pub votes: [VoteCopy; 2],
    /// The vote that counts; `None` if none was saved, or the record is damaged.
    pub vote: Option<Vote>,
    /// Half-made files of an interrupted start or growth; the next start removes or reuses them.
    pub unfinished: Vec<String>,
    /// All that is damaged beyond what the next start can mend, each with its file and offset, and what to do: then
    /// the member does not start.
    pub damage: Vec<Error>,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// File name.
    pub name: String,
    /// Length of the file.
    pub length_bytes: u64,
    /// So much of it is frames; zeros follow, or a seal, or what is torn or damaged.
    pub used_bytes: u64,
}

impl CheckReport {
    /// Whether a member could start from this.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads log and votes as [`crate::open`] would, every checksum of every entry included, and tells what it found.
/// Writes nothing.
///
/// # Errors
/// [`Error::Io`] if the disk can't be read. Damage is no error here, but in [`CheckReport::damage`].
pub fn check(disk: &dyn Disk) -> Result<CheckReport, Error> {
    let names = disk.list().during("list", "the directory")?;
    let mut damage = Vec::new();
    let mut scan = Scan::default();
    note(scan.run(disk, u32::MAX as usize), &mut damage)?;
    let votes = vote::inspect(disk, &names)?;
    let vote = note(vote::newest(&votes), &mut damage)?.and_then(|(_, vote)| vote);
    let (mut first, mut last, mut purged, mut entries, mut committed) = (None, None, None, 0, None);
    if let Some(replay) = &scan.replay {
        let index = replay.reader.shared();
        (last, purged, entries) = (index.last(), index.purged, index.slots.len() as u64);
        first = (entries > 0).then_some(index.first);
        committed = replay.committed.checked_sub(1).and_then(|c| last.map(|l| c.min(l.index)));
    }
    note(belong(!scan.numbers.is_empty(), last.is_some(), Votes::exist(&names)), &mut damage)?;
    let segments = scan.segments.iter().map(|(number, length_bytes, used_bytes)| SegmentReport {
        name: segment::name(*number),
        length_bytes: *length_bytes,
        used_bytes: *used_bytes,
    });
    Ok(CheckReport {
        segments: segments.collect(),
        entries,
        first,
        last,
        purged,
        committed,
        torn: scan.end.and_then(|end| end.torn),
        votes,
        vote,
        unfinished: names.into_iter().filter(|n| [segment::UNFINISHED, vote::UNFINISHED].contains(&&**n)).collect(),
        damage,
    })
}

/// Puts damage on the list; anything else ends the check.
fn note<T>(result: Result<T, Error>, damage: &mut Vec<Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_corrupt() => {
            damage.push(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
