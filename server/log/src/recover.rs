//! Opening: replays the segments, tells a torn tail from damage, and makes sure of what it found.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::{self, Found, HEADER, Header, Type},
    index::{Index, Reader, Slot},
    log::{Log, Options, Position, Tail},
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
    // Creation makes the log first, then the votes, and only then anything is appended: so votes without a
    // log, or entries without votes, are a loss.
    let names = disk.list().during("list", "the directory")?;
    let has_log = names.iter().any(|name| segment::number(name).is_some());
    if !has_log && Votes::exist(&names) {
        return Err(Error::corrupt(segment::name(1), 0, "there is a vote record, and no log"));
    }
    let (log, recovered) = Log::open(disk.clone(), options)?;
    if !Votes::exist(&names) && recovered.last.is_some() {
        return Err(Error::corrupt("vote-a", 0, "there is a log, and no vote record"));
    }
    let votes = Votes::open(disk)?;
    Ok((log, votes, recovered))
}

/// State of the replay.
struct Replay {
    reader: Reader,
    sequence: u64,
    chain: u64,
    committed: u64,
    told: (u64, u64),
    /// Entries up to here lie in segments that are gone: they must be purged ones.
    missing: Option<u64>,
}

impl Log {
    /// Opens the log on `disk`, creating it if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if anything that was durable is damaged or gone.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), Error> {
        let mut numbers = Vec::new();
        for name in disk.list().during("list", "the directory")? {
            if name == segment::UNFINISHED {
                disk.remove(&name).during("remove", &name)?;
                disk.sync_dir().during("sync the directory of", &name)?;
            }
            numbers.extend(segment::number(&name));
        }
        numbers.sort_unstable();
        let Some(first) = numbers.first().copied() else { return Self::create(disk, options) };
        for (number, expected) in numbers.iter().zip(first..) {
            if *number != expected {
                return Err(Error::corrupt(segment::name(expected), 0, "the segment is missing"));
            }
        }
        let mut replay: Option<Replay> = None;
        let mut last = None;
        for number in &numbers {
            let name = segment::name(*number);
            let file = disk.open(&name).during("open", &name)?;
            let bytes = segment::load(&*file, &name)?;
            let (head, found) = head(&bytes, *number, &name)?;
            let replay = match &mut replay {
                None => replay.insert(Replay::start(&head, &found)),
                Some(replay) => {
                    replay.follow(&head, &found, *number)?;
                    replay
                }
            };
            replay.reader.shared_mut().files.insert(*number, file.clone());
            let (end, sealed) = replay.segment(&bytes, *number, options.payload_limit_bytes, &name)?;
            if sealed && *number == numbers[numbers.len() - 1] {
                return Err(Error::corrupt(segment::name(number + 1), 0, "the segment is missing"));
            }
            last = Some((*number, file, bytes, end));
        }
        let (Some(replay), Some((number, file, bytes, end))) = (replay, last) else {
            return Self::create(disk, options); // not reached: there is a first number
        };
        let name = segment::name(number);
        let torn = segment::judge_end(&bytes, end, replay.sequence + 1, replay.reader.salt, &name)?;
        replay.check_missing(first)?;
        if torn.is_some() {
            clear(&*file, &bytes, end, &name)?;
        }
        // Entries may have been found in the page cache of a machine that has not crashed, only the process:
        // they count as durable from here on, so they must be.
        file.sync().during("sync", &name)?;
        disk.sync_dir().during("sync the directory of", &name)?;
        let mut log = replay.into_log(
            disk,
            options,
            Tail { number, file, end: end as u64, filled: bytes.len() as u64, filled_durable: bytes.len() as u64 },
        );
        log.remove_purged()?;
        log.prepare()?;
        let recovered = log.describe(torn);
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
    /// Starts at the first segment there is: all that was before is what its head says.
    fn start(head: &Head, found: &Found) -> Self {
        let mut index = Index { purged: head.purged, ..Index::default() };
        if let Some(last) = head.last {
            index.first = last.index + 1;
        }
        Self {
            reader: Reader { index: Arc::new(RwLock::new(index)), salt: head.salt },
            sequence: found.header.sequence,
            chain: found.sum,
            committed: found.header.committed,
            told: (found.header.durable, found.header.committed),
            missing: head.last.map(|last| last.index),
        }
    }

    /// Goes on with a segment: it follows the one before, or the end of that one is lost.
    fn follow(&mut self, head: &Head, found: &Found, number: u64) -> Result<(), Error> {
        let follows = found.header.sequence == self.sequence + 1
            && found.header.chain == self.chain
            && head.salt == self.reader.salt;
        if !follows {
            let before = segment::name(number - 1);
            return Err(Error::corrupt(before, 0, "its end is damaged: the next segment does not follow"));
        }
        self.pass(found);
        Ok(())
    }

    fn pass(&mut self, found: &Found) {
        self.sequence = found.header.sequence;
        self.chain = found.sum;
        self.committed = self.committed.max(found.header.committed);
        self.told = (found.header.durable, found.header.committed);
    }

    /// Replays the frames of one segment. Returns where they end, and whether a seal stands there.
    fn segment(&mut self, bytes: &[u8], number: u64, limit: usize, name: &str) -> Result<(usize, bool), Error> {
        let mut at = segment::HEAD_END;
        loop {
            let Ok((found, _)) = frame::whole(&bytes[at..], self.reader.salt) else { return Ok((at, false)) };
            let header = found.header;
            if header.sequence != self.sequence + 1 || header.chain != self.chain || header.of == Type::Head {
                return Ok((at, false));
            }
            if header.of == Type::Seal {
                return Ok((at, true));
            }
            if header.length as usize > limit {
                return Err(Error::corrupt(name, at as u64, "a payload above the limit"));
            }
            self.apply(&header, number, at as u64).map_err(|what| Error::corrupt(name, at as u64, what))?;
            self.pass(&found);
            at += HEADER + header.length as usize;
        }
    }

    fn apply(&mut self, header: &Header, segment: u64, offset: u64) -> Result<(), &'static str> {
        let mut index = self.reader.shared_mut();
        match header.of {
            Type::Entry => {
                let expected = match (self.missing, index.slots.is_empty(), index.purged) {
                    // Whether any of the missing ones is left, only their segments could tell.
                    (Some(_), true, None) => None,
                    (Some(missing), true, Some(purged)) => Some(missing.max(purged.index) + 1),
                    _ => index.next(),
                };
                if expected.is_some_and(|e| e != header.index) {
                    return Err("an entry that does not follow the one before");
                }
                index.push(header.index, Slot { term: header.term, segment, offset, length: header.length, sum: 0 });
            }
            Type::Truncate => {
                index.truncate(header.index);
                // It may reach back into segments that are gone.
                if index.slots.is_empty() {
                    self.missing = self.missing.map(|m| m.min(header.index.saturating_sub(1)));
                }
            }
            Type::Purge => {
                index.purge(Position { index: header.index, term: header.term });
                if let Some(missing) = &mut self.missing {
                    *missing = (*missing).max(header.index);
                }
            }
            Type::Mark | Type::Head | Type::Seal => {}
        }
        Ok(())
    }

    /// What lies in segments that are gone must have been purged.
    fn check_missing(&self, first: u64) -> Result<(), Error> {
        let purged = self.reader.shared().purged;
        let complete = match (purged, self.missing) {
            (None, _) => first == 1,
            (Some(purged), Some(missing)) => first == 1 || purged.index >= missing,
            (Some(_), None) => true,
        };
        if complete { Ok(()) } else { Err(Error::corrupt(segment::name(first - 1), 0, "the segment is missing")) }
    }

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

/// The head of a segment; its name has been durable only with a whole one, so anything else is damage.
fn head(bytes: &[u8], number: u64, name: &str) -> Result<(Head, Found), Error> {
    let damaged = |what| Error::corrupt(name, 0, what);
    let (found, payload) = frame::whole(bytes, 0).map_err(|_| damaged("its head is damaged"))?;
    if found.header.of != Type::Head {
        return Err(damaged("it does not begin with a head"));
    }
    let head = Head::decode(payload).ok_or_else(|| damaged("its head is of another format"))?;
    if head.number != number {
        return Err(damaged("it is another segment"));
    }
    Ok((head, found))
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
