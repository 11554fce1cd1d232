//! The log as its one writer sees it: append, truncate, purge, sync.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::{HEADER, Header, Type},
    index::{Reader, Slot},
    segment::{self, Head},
};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Dense; the first one may be any.
    pub index: u64,
    /// Raft's term.
    pub term: u64,
    /// The caller's business.
    pub kind: u8,
    /// Kept byte for byte.
    pub payload: Bytes,
}

/// Which entry: (term, index) names it across the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Place in the log.
    pub index: u64,
    /// Raft's term.
    pub term: u64,
}

/// Sizes. The defaults are for servers; tests take less.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment ends when the next frame would pass this. 64 MiB: a purge frees space in such steps.
    pub segment_bytes: u64,
    /// How much zero-filled space there should be ahead of the log (4 MiB): a sync then writes no new blocks
    /// and no new length, which is worth 15 % alone and 80 % in batches of 128.
    pub ahead_bytes: u64,
    /// It is filled in steps of this, between commits: the zeros ride along with the next sync.
    pub step_bytes: usize,
    /// Greatest payload accepted, and believed when read.
    pub payload_limit_bytes: usize,
    /// How much of the newest entries is kept in memory. What is not durable is kept in any case.
    pub cache_bytes: usize,
    /// Seeds a new log's checksums; 0 takes a random one. A fixed one makes the files reproducible.
    pub salt: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            ahead_bytes: 4 << 20,
            step_bytes: 512 << 10,
            payload_limit_bytes: 32 << 20,
            cache_bytes: 32 << 20,
            salt: 0,
        }
    }
}

/// Kept free behind entries, so that a purge can be noted on a full disk: it is what makes room.
const SPARE: u64 = 4 * HEADER as u64;

/// Frames are written out when this much is staged, so that a long batch doesn't pile up in memory.
const STAGE_BYTES: usize = 1 << 20;

/// The open log. Not shared: [`crate::Writer`] owns it, others read by [`Reader`]. Made by [`crate::open`].
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) reader: Reader,
    pub(crate) tail: Tail,
    /// Last frame written or staged, and its header sum.
    pub(crate) sequence: u64,
    pub(crate) chain: u64,
    /// Last frame that is known to be durable.
    pub(crate) durable: u64,
    /// Committed index + 1, as frames carry it.
    pub(crate) committed: u64,
    /// Frames not yet written, and the slots of the entries among them.
    pub(crate) staged: Vec<u8>,
    pub(crate) staged_slots: Vec<(u64, Slot)>,
    /// Whether something that somebody waits for is written and not synced.
    pub(crate) dirty: bool,
    /// What the newest frame says: (durable, committed).
    pub(crate) told: (u64, u64),
    /// Set by the first failed write or sync; all calls then return it.
    pub(crate) broken: Option<Error>,
}

/// The segment that is written to.
pub(crate) struct Tail {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    /// Where the next frame goes, staged ones counted.
    pub(crate) end: u64,
    /// The file is zero from `end` to here, and this is its length.
    pub(crate) filled: u64,
    /// So much of that is durable. Frames stay [`HEADER`] bytes below it: a file that ends sooner was cut.
    pub(crate) filled_durable: u64,
}

impl Log {
    /// A reader, for other threads.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The last entry, or the last purged one if there is none.
    pub fn last(&self) -> Option<Position> {
        self.reader.shared().last()
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<Position> {
        self.reader.shared().purged
    }

    /// From now on frames carry this committed index.
    pub fn set_committed(&mut self, index: u64) {
        self.committed = self.committed.max(index.saturating_add(1));
    }

    /// Writes `records` behind the last one. When this returns they are *written* (the kernel has them).
    ///
    /// # Errors
    /// [`Error::Gap`], [`Error::TooLarge`] and [`Error::Full`] before the first record that does not fit, with those
    /// before it written; else a fault.
    pub fn append<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) -> Result<(), Error> {
        self.usable()?;
        let mut next = self.reader.shared().next();
        for record in records {
            let fits = check(record, next, self.options.payload_limit_bytes);
            if let Err(refusal) = fits {
                self.guarded(Self::write_out)?;
                return Err(refusal);
            }
            next = Some(record.index + 1);
            self.guarded(|log| log.stage_record(record))?;
        }
        self.guarded(Self::write_out)
    }

    /// Takes back the entries after `last` (all, if `None`). Durable with the next [`Log::sync`], in order with
    /// what is appended next.
    ///
    /// # Errors
    /// [`Error::Purged`] if that would take back purged ones; [`Error::Full`], with nothing done; else a fault.
    pub fn truncate_after(&mut self, last: Option<u64>) -> Result<(), Error> {
        self.usable()?;
        let from = last.map_or(0, |l| l.saturating_add(1));
        let (end, purged) = {
            let index = self.reader.shared();
            (index.next().unwrap_or(0), index.purged)
        };
        if let Some(purged) = purged.filter(|p| from <= p.index) {
            return Err(Error::Purged(purged.index));
        }
        if from >= end {
            return Ok(());
        }
        self.guarded(|log| {
            log.stage(Type::Truncate, 0, from, 0, &[])?;
            log.write_out()?;
            log.reader.shared_mut().truncate(from);
            Ok(())
        })
    }

    /// Forgets the entries up to `upto`, which a durable checkpoint has; `upto` may lie beyond the last entry.
    /// Segments are removed by the next [`Log::sync`], when the purge itself is durable.
    ///
    /// # Errors
    /// [`Error::Full`], with nothing done (rarely: there is room kept for a few purges); else a fault.
    pub fn purge_upto(&mut self, upto: Position) -> Result<(), Error> {
        self.usable()?;
        if self.purged().is_some_and(|p| p.index >= upto.index) {
            return Ok(());
        }
        self.guarded(|log| {
            log.stage(Type::Purge, 0, upto.index, upto.term, &[])?;
            log.write_out()?;
            log.reader.shared_mut().purge(upto);
            Ok(())
        })
    }

    /// Makes all that was written *durable*: one fdatasync if there is anything. Returns whether it took one.
    pub fn sync(&mut self) -> Result<bool, Error> {
        self.usable()?;
        if !self.dirty {
            return Ok(false);
        }
        self.guarded(|log| {
            log.sync_tail()?;
            log.remove_purged()
        })?;
        Ok(true)
    }

    /// Work that is better done between commits than in one: fills zeros ahead. A full disk is not an error
    /// here: the space may come back before it is needed.
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.usable()?;
        let most = self.options.segment_bytes + HEADER as u64 + SPARE;
        let wanted = (self.tail.end + self.options.ahead_bytes).min(most);
        while self.tail.filled < wanted {
            match self.fill(self.options.step_bytes as u64) {
                Err(Error::Full { .. }) => break,
                Err(fault) => return self.guarded(|_| Err(fault)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Notes the watermarks behind the last frame, if they moved; not synced. For when nothing else will be
    /// written soon: then even the last entries are known to have been durable, and the committed index is kept.
    pub fn mark(&mut self) -> Result<(), Error> {
        self.usable()?;
        let room = self.tail.end + 2 * HEADER as u64 + SPARE <= self.tail.filled_durable
            && self.tail.end + HEADER as u64 <= self.options.segment_bytes;
        if self.told == (self.durable, self.committed) || self.dirty || !room {
            return Ok(());
        }
        self.guarded(|log| {
            log.stage(Type::Mark, 0, 0, 0, &[])?;
            log.write_out()?;
            // Nobody waits for a mark.
            log.dirty = false;
            Ok(())
        })
    }

    fn usable(&self) -> Result<(), Error> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Runs a step that must not fail half-way: if it does, the log is broken for good. A full disk is met before
    /// anything is done.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let result = step(self);
        if let Err(fault) = &result
            && !fault.is_full()
        {
            self.broken = Some(fault.clone());
        }
        result
    }

    fn stage_record(&mut self, record: &Record) -> Result<(), Error> {
        let at = self.stage(Type::Entry, record.kind, record.index, record.term, &record.payload)?;
        let slot = Slot {
            term: record.term,
            segment: self.tail.number,
            offset: at,
            length: record.payload.len() as u32, // below the payload limit
            sum: 0,
        };
        self.staged_slots.push((record.index, slot));
        if self.staged.len() >= STAGE_BYTES { self.write_out() } else { Ok(()) }
    }

    /// Adds a frame behind the last one, in a new segment if this one is full. Returns its offset.
    fn stage(&mut self, of: Type, kind: u8, index: u64, term: u64, payload: &[u8]) -> Result<u64, Error> {
        let size = (HEADER + payload.len()) as u64;
        let spare = if of == Type::Purge { 0 } else { SPARE };
        let fits = self.tail.end + size + HEADER as u64 <= self.tail.filled_durable;
        let ended = self.tail.end + size > self.options.segment_bytes;
        // A purge goes over the end rather than into a new segment, which may not be had on a full disk.
        if ended && self.tail.end > self.options.segment_bytes / 2 && !(of == Type::Purge && fits) {
            self.roll()?;
        }
        let needed = self.tail.end + size + HEADER as u64 + spare;
        if needed > self.tail.filled_durable {
            self.make_room(needed)?;
        }
        let at = self.tail.end;
        let header = Header { of, kind, index, term, ..self.next_header() };
        self.chain = header.encode(self.reader.salt, payload, &mut self.staged);
        self.sequence = header.sequence;
        self.told = (header.durable, header.committed);
        self.tail.end += size;
        Ok(at)
    }

    fn next_header(&self) -> Header {
        Header {
            of: Type::Mark,
            kind: 0,
            length: 0,
            sequence: self.sequence + 1,
            durable: self.durable,
            index: 0,
            term: 0,
            committed: self.committed,
            chain: self.chain,
        }
    }

    /// Writes what is staged and lets readers see it.
    fn write_out(&mut self) -> Result<(), Error> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let at = self.tail.end - self.staged.len() as u64;
        self.tail.file.write_at(at, &self.staged).during("write", &segment::name(self.tail.number))?;
        self.staged.clear();
        self.staged.shrink_to(STAGE_BYTES * 2);
        self.dirty = true;
        let mut index = self.reader.shared_mut();
        for (at, slot) in self.staged_slots.drain(..) {
            index.push(at, slot);
        }
        Ok(())
    }

    fn sync_tail(&mut self) -> Result<(), Error> {
        self.tail.file.sync().during("sync", &segment::name(self.tail.number))?;
        self.tail.filled_durable = self.tail.filled;
        self.durable = self.sequence;
        self.dirty = false;
        Ok(())
    }

    /// Writes zeros behind the filled part. The file's length must be durable before frames go there, else a
    /// crash could leave a file that looks cut.
    fn fill(&mut self, bytes: u64) -> Result<(), Error> {
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(self.options.step_bytes)];
        let name = segment::name(self.tail.number);
        self.tail.file.write_at(self.tail.filled, &zeros).growing("fill", &name)?;
        self.tail.filled += zeros.len() as u64;
        Ok(())
    }

    /// The log is faster than the filling, or a frame is larger than a segment: fills and syncs now.
    fn make_room(&mut self, needed: u64) -> Result<(), Error> {
        self.write_out()?;
        let least = needed.saturating_sub(self.tail.filled);
        if least > 0 {
            match self.fill(least.max(self.options.step_bytes as u64)) {
                Err(full) if full.is_full() => self.fill(least)?,
                other => other?,
            }
        }
        self.sync_tail()
    }

    /// Ends this segment and begins the next. Its successor exists, durable, before it is sealed; and it is
    /// whole and durable before the successor exists.
    fn roll(&mut self) -> Result<(), Error> {
        self.write_out()?;
        self.sync_tail()?;
        let (last, purged) = {
            let index = self.reader.shared();
            (index.last(), index.purged)
        };
        let head = Head { number: self.tail.number + 1, salt: self.reader.salt, last, purged };
        let header = Header { of: Type::Head, ..self.next_header() };
        let (file, end, sum) = segment::create(&*self.disk, &head, header, self.options.step_bytes)?;
        let filled = file.length().during("measure", &segment::name(head.number))?;

        let old = segment::name(self.tail.number);
        let seal = Header { of: Type::Seal, index: head.number, ..header };
        let mut bytes = Vec::with_capacity(HEADER);
        seal.encode(self.reader.salt, &[], &mut bytes);
        self.tail.file.write_at(self.tail.end, &bytes).during("seal", &old)?;
        self.tail.file.sync().during("sync", &old)?;

        self.reader.shared_mut().files.insert(head.number, file.clone());
        self.tail = Tail { number: head.number, file, end, filled, filled_durable: filled };
        self.sequence = header.sequence;
        self.chain = sum;
        self.durable = header.sequence;
        Ok(())
    }

    /// Removes the segments at the front that hold no live entry. One by one, each removal durable before the
    /// next, so that a crash never leaves a hole.
    pub(crate) fn remove_purged(&mut self) -> Result<(), Error> {
        loop {
            let number = {
                let index = self.reader.shared();
                let live = index.slots.front().map_or(self.tail.number, |slot| slot.segment);
                match index.files.first_key_value() {
                    Some((number, _)) if *number < live.min(self.tail.number) && index.purged.is_some() => *number,
                    _ => return Ok(()),
                }
            };
            let name = segment::name(number);
            self.reader.shared_mut().files.remove(&number);
            self.disk.remove(&name).during("remove", &name)?;
            self.disk.sync_dir().during("sync the directory of", &name)?;
        }
    }
}

/// Whether `record` may follow.
pub(crate) fn check(record: &Record, next: Option<u64>, limit: usize) -> Result<(), Error> {
    // The last number is kept free: committed is stored plus one.
    let expected = next.unwrap_or(record.index.min(u64::MAX - 1));
    if record.index != expected || expected == u64::MAX {
        return Err(Error::Gap { expected, got: record.index });
    }
    let bytes = record.payload.len();
    if bytes > limit.min(u32::MAX as usize / 2) {
        return Err(Error::TooLarge { bytes, limit });
    }
    Ok(())
}
