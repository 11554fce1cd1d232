//! Reading a log without changing anything: replays the segments, and tells a torn tail from damage.

use std::sync::{Arc, RwLock};

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::{self, Found, HEADER, Header, Type},
    index::{Index, Reader, Slot},
    log::Position,
    recover::Torn,
    segment::{self, Head},
};

/// What was read so far; if an error ended the scan, what there is before the damage.
#[derive(Default)]
pub(crate) struct Scan {
    /// Numbers of all segment files, ascending.
    pub(crate) numbers: Vec<u64>,
    /// Of the segments read: number, length, and where the frames end, in bytes.
    pub(crate) segments: Vec<(u64, u64, u64)>,
    pub(crate) replay: Option<Replay>,
    pub(crate) end: Option<End>,
}

/// The last segment.
pub(crate) struct End {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) bytes: Vec<u8>,
    /// Where its frames end.
    pub(crate) end: usize,
    pub(crate) torn: Option<Torn>,
}

/// State of the replay.
pub(crate) struct Replay {
    pub(crate) reader: Reader,
    pub(crate) sequence: u64,
    pub(crate) chain: u64,
    pub(crate) committed: u64,
    pub(crate) told: (u64, u64),
    /// Entries up to here lie in segments that are gone: they must be purged ones.
    pub(crate) missing: Option<u64>,
}

impl Scan {
    /// Reads the log on `disk`; there is none if `numbers` is empty then. `limit` is the greatest payload believed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if anything that was durable is damaged or gone.
    pub(crate) fn run(&mut self, disk: &dyn Disk, limit: usize) -> Result<(), Error> {
        let names = disk.list().during("list", "the directory")?;
        self.numbers = names.iter().filter_map(|name| segment::number(name)).collect();
        self.numbers.sort_unstable();
        let (Some(first), Some(last)) = (self.numbers.first().copied(), self.numbers.last().copied()) else {
            return Ok(());
        };
        for (number, expected) in self.numbers.iter().zip(first..) {
            if *number != expected {
                return Err(Error::corrupt(segment::name(expected), 0, "the segment is missing"));
            }
        }
        for number in first..=last {
            let name = segment::name(number);
            let file = disk.open(&name).during("open", &name)?;
            let bytes = segment::load(&*file, &name)?;
            let (head, found) = head(&bytes, number, &name)?;
            let replay = match &mut self.replay {
                None => self.replay.insert(Replay::start(&head, &found)),
                Some(replay) => {
                    replay.follow(&head, &found, number)?;
                    replay
                }
            };
            replay.reader.shared_mut().files.insert(number, file.clone());
            let (end, sealed) = replay.segment(&bytes, number, limit, &name)?;
            self.segments.push((number, bytes.len() as u64, end as u64));
            if number == last {
                if sealed {
                    return Err(Error::corrupt(segment::name(number + 1), 0, "the segment is missing"));
                }
                let torn = segment::judge_end(&bytes, end, replay.sequence + 1, replay.reader.salt, &name)?;
                self.end = Some(End { number, file, bytes, end, torn });
            }
        }
        self.replay.as_ref().map_or(Ok(()), |replay| replay.check_missing(first))
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
