//! Opening: clears a torn tail away, and makes sure of what the scan found.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::{Header, Type},
    index::{Index, Reader},
    log::{Log, Options, Position, Tail},
    scan::{Replay, Scan},
    segment::{self, Head},
    vote::Votes,
};

/// What was found at opening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// There was no log here: it is new.
    pub created: bool,
    /// Entries in the log.
    pub entries: u64,
    /// Segment files.
    pub segments: u64,
    /// The last entry, or the last purged one.
    pub last: Option<Position>,
    /// The last purged entry.
    pub purged: Option<Position>,
    /// The greatest committed index that a frame carries, at most the last entry's.
    pub committed: Option<u64>,
    /// The end of the log was cut short by a crash and has been cleared away. Nobody was told that it was
    /// durable.
    pub torn: Option<Torn>,
}

/// A torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// File name.
    pub segment: String,
    /// Where the log ends now.
    pub offset_bytes: u64,
    /// How many bytes behind that were not zero.
    pub length_bytes: u64,
}

/// Opens log and votes on one disk, creating both if neither is there.
///
/// # Errors
/// [`Error::Corrupt`] if only one of them is there (the other was lost), or either is damaged.
pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Log, Votes, Recovered), Error> {
    let names = disk.list().during("list", "the directory")?;
    let has_log = names.iter().any(|name| segment::number(name).is_some());
    belong(has_log, false, Votes::exist(&names))?;
    let (log, recovered) = Log::open(disk.clone(), options)?;
    belong(true, recovered.last.is_some(), Votes::exist(&names))?;
    let votes = Votes::open(disk)?;
    Ok((log, votes, recovered))
}

/// Whether log and votes can be of one member. Creation makes the log first, then the votes, and only then anything
/// is appended: so votes without a log, or entries without votes, are a loss.
pub(crate) fn belong(log: bool, entries: bool, votes: bool) -> Result<(), Error> {
    if votes && !log {
        return Err(Error::corrupt(segment::name(1), 0, "there is a vote record, and no log"));
    }
    if entries && !votes {
        return Err(Error::corrupt("vote-a", 0, "there is a log, and no vote record"));
    }
    Ok(())
}

impl Log {
    /// Opens the log on `disk`, creating it if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if anything that was durable is damaged or gone; then nothing on the disk was changed.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), Error> {
        let mut scan = Scan::default();
        scan.run(&*disk, options.payload_limit_bytes)?;
        if disk.list().during("list", "the directory")?.iter().any(|name| name == segment::UNFINISHED) {
            disk.remove(segment::UNFINISHED).during("remove", segment::UNFINISHED)?;
            disk.sync_dir().during("sync the directory of", segment::UNFINISHED)?;
        }
        let (Some(replay), Some(end)) = (scan.replay, scan.end) else { return Self::create(disk, options) };
        let name = segment::name(end.number);
        if end.torn.is_some() {
            clear(&*end.file, &end.bytes, end.end, &name)?;
        }
        // Entries may have been found in the page cache of a machine that has not crashed, only the process:
        // they count as durable from here on, so they must be.
        end.file.sync().during("sync", &name)?;
        disk.sync_dir().during("sync the directory of", &name)?;
        let filled = end.bytes.len() as u64;
        let tail = Tail { number: end.number, file: end.file, end: end.end as u64, filled, filled_durable: filled };
        let mut log = replay.into_log(disk, options, tail);
        log.remove_purged()?;
        log.prepare()?;
        let recovered = log.describe(end.torn);
        Ok((log, recovered))
    }

    fn create(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), Error> {
        let salt = match options.salt {
            // The standard library's per-process random keys; it only has to differ between logs.
            0 => RandomState::new().hash_one(std::process::id()) | 1,
            fixed => fixed,
        };
        let head = Head { number: 1, salt, last: None, purged: None };
        let header = Header {
            of: Type::Head,
            kind: 0,
            length: 0,
            sequence: 1,
            durable: 0,
            index: 0,
            term: 0,
            committed: 0,
            chain: 0,
        };
        let (file, end, sum) = segment::create(&*disk, &head, header, options.step_bytes)?;
        let filled = file.length().during("measure", &segment::name(1))?;
        let reader = Reader { index: Arc::new(RwLock::new(Index::default())), salt };
        reader.shared_mut().files.insert(1, file.clone());
        let replay = Replay { reader, sequence: 1, chain: sum, committed: 0, told: (0, 0), missing: None };
        let mut log = replay.into_log(disk, options, Tail { number: 1, file, end, filled, filled_durable: filled });
        log.prepare()?;
        let recovered = Recovered { created: true, ..log.describe(None) };
        Ok((log, recovered))
    }

    fn describe(&self, torn: Option<Torn>) -> Recovered {
        let index = self.reader.shared();
        let last = index.last();
        Recovered {
            created: false,
            entries: index.slots.len() as u64,
            segments: index.files.len() as u64,
            last,
            purged: index.purged,
            committed: self.committed.checked_sub(1).and_then(|c| last.map(|l| c.min(l.index))),
            torn,
        }
    }
}

impl Replay {
    fn into_log(self, disk: Arc<dyn Disk>, options: Options, tail: Tail) -> Log {
        Log {
            disk,
            options,
            reader: self.reader,
            tail,
            sequence: self.sequence,
            chain: self.chain,
            durable: self.sequence,
            committed: self.committed,
            staged: Vec::new(),
            staged_slots: Vec::new(),
            dirty: false,
            told: self.told,
            broken: None,
        }
    }
}

/// Overwrites what is left of a torn tail with zeros. In place: a file that was made shorter could, after another
/// crash, not be told from one that was cut.
fn clear(file: &dyn File, bytes: &[u8], end: usize, name: &str) -> Result<(), Error> {
    const BLOCK: usize = 64 << 10;
    for from in (end..bytes.len()).step_by(BLOCK) {
        let block = &bytes[from..(from + BLOCK).min(bytes.len())];
        if block.iter().any(|b| *b != 0) {
            file.write_at(from as u64, &vec![0; block.len()]).during("clear", name)?;
        }
    }
    file.sync().during("sync", name)
}
