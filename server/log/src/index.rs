//! Where each live entry lies, shared between the log's thread and its readers.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use crate::{
    disk::File,
    error::{Context, Error},
    frame::{self, HEADER, Type},
    log::{Position, Record},
    segment,
};

/// The place of one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    pub(crate) segment: u64,
    /// Of the frame, in bytes.
    pub(crate) offset: u64,
    /// Of the payload, in bytes.
    pub(crate) length: u32,
    /// Bytes of the frames of all entries in the index up to this one, it included; [`Index::push`] sets it.
    /// Only differences mean something: the count begins anew when the index is empty.
    pub(crate) sum: u64,
}

impl Slot {
    /// Bytes of the whole frame.
    fn size(&self) -> u64 {
        (HEADER + self.length as usize) as u64
    }
}

/// What is in the log, as far as it is written.
#[derive(Default)]
pub(crate) struct Index {
    /// Index of `slots[0]`; means nothing while there are none.
    pub(crate) first: u64,
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) files: BTreeMap<u64, Arc<dyn File>>,
    pub(crate) purged: Option<Position>,
}

impl Index {
    pub(crate) fn last(&self) -> Option<Position> {
        match self.slots.back() {
            Some(slot) => Some(Position { index: self.first + self.slots.len() as u64 - 1, term: slot.term }),
            None => self.purged,
        }
    }

    /// The index that the next entry must have; `None` if any will do (nothing was ever kept or purged).
    pub(crate) fn next(&self) -> Option<u64> {
        self.last().map(|last| last.index + 1)
    }

    pub(crate) fn push(&mut self, index: u64, slot: Slot) {
        if self.slots.is_empty() {
            self.first = index;
        }
        let before = self.slots.back().map_or(0, |last| last.sum);
        let sum = before + slot.size();
        self.slots.push_back(Slot { sum, ..slot });
    }

    /// Takes back all entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.truncate(keep);
    }

    pub(crate) fn purge(&mut self, upto: Position) {
        while !self.slots.is_empty() && self.first <= upto.index {
            self.slots.pop_front();
            self.first += 1;
        }
        self.purged = Some(upto);
    }

    /// Bytes of the frames of the entries above `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else { return 0 };
        match self.get(index) {
            Some(slot) => back.sum - slot.sum,
            None if index < self.first => back.sum - front.sum + front.size(),
            None => 0,
        }
    }

    /// The greatest index that is here and at most `upto`, with at least `bytes` of entries above it.
    pub(crate) fn index_keeping(&self, bytes: u64, upto: u64) -> Option<u64> {
        let total = self.slots.back()?.sum;
        let enough = self.slots.partition_point(|slot| total - slot.sum >= bytes) as u64;
        let upto = upto.min((self.first + enough).checked_sub(1)?);
        (upto >= self.first && enough > 0).then_some(upto)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }
}

/// Reads entries that are written, on any thread. Each read checks the frame's checksums.
///
/// Entries never move and are never overwritten, so a read that runs beside a truncation or a purge sees what
/// was there when it started.
#[derive(Clone)]
pub struct Reader {
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) salt: u64,
}

/// The places of a range of entries at one moment.
pub(crate) struct Places(Vec<(u64, Slot, Arc<dyn File>)>);

impl Places {
    pub(crate) fn start(&self) -> Option<u64> {
        self.0.first().map(|(index, ..)| *index)
    }

    /// One past the last.
    pub(crate) fn end(&self) -> Option<u64> {
        self.0.last().map(|(index, ..)| index + 1)
    }

    /// Payload bytes in all.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, slot, _)| slot.length as usize).sum()
    }
}

impl Reader {
    /// The entries of `range` that are written and not purged, in order; at least one if there is one, and
    /// after that no more than `limit_bytes` of payload.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if an entry is not what was written: a fault, never a shorter answer.
    pub fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<Record>, Error> {
        self.fetch(self.places(range, limit_bytes))
    }

    pub(crate) fn places(&self, range: Range<u64>, limit_bytes: usize) -> Places {
        let index = self.shared();
        let start = range.start.max(index.first);
        let end = range.end.min(index.first + index.slots.len() as u64);
        let mut places = Vec::new();
        let mut bytes = 0_usize;
        for at in start..end {
            let Some((slot, file)) = index.get(at).and_then(|s| Some((*s, index.files.get(&s.segment)?))) else {
                break;
            };
            bytes = bytes.saturating_add(slot.length as usize);
            if bytes > limit_bytes && !places.is_empty() {
                break;
            }
            places.push((at, slot, file.clone()));
        }
        Places(places)
    }

    /// The second half of a read, without any lock.
    pub(crate) fn fetch(&self, places: Places) -> Result<Vec<Record>, Error> {
        places.0.into_iter().map(|(index, slot, file)| self.one(index, slot, &*file)).collect()
    }

    /// The term of a written entry, or of the last purged one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let shared = self.shared();
        match shared.get(index) {
            Some(slot) => Some(slot.term),
            None => shared.purged.filter(|p| p.index == index).map(|p| p.term),
        }
    }

    pub(crate) fn shared(&self) -> RwLockReadGuard<'_, Index> {
        // Index changes do not panic half-way.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shared_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self, index: u64, slot: Slot, file: &dyn File) -> Result<Record, Error> {
        let name = segment::name(slot.segment);
        let mut bytes = vec![0; HEADER + slot.length as usize];
        let read = file.read_at(slot.offset, &mut bytes).during("read", &name)?;
        bytes.truncate(read);
        let damaged = |what| Error::corrupt(name.as_str(), slot.offset, what);
        let (found, _) = frame::whole(&bytes, self.salt).map_err(|_| damaged("an entry is not what was written"))?;
        let header = found.header;
        if (header.of, header.index, header.term, header.length) != (Type::Entry, index, slot.term, slot.length) {
            return Err(damaged("another entry stands in this one's place"));
        }
        Ok(Record { index, term: header.term, kind: header.kind, payload: Bytes::from(bytes).slice(HEADER..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_above_an_index_are_those_of_its_entries_through_truncations_and_purges() {
        let frame = |length: u32| HEADER as u64 + u64::from(length);
        let slot = |length| Slot { term: 1, segment: 1, offset: 0, length, sum: 0 };
        let mut index = Index::default();
        assert_eq!((index.bytes_after(0), index.index_keeping(0, 9)), (0, None));
        (5..15).for_each(|at| index.push(at, slot(at as u32)));
        index.truncate(13);
        index.push(13, slot(100));
        index.purge(Position { index: 6, term: 1 });
        let lengths: Vec<(u64, u32)> = (7..13).map(|at| (at, at as u32)).chain([(13, 100)]).collect();
        let above = |index: u64| lengths.iter().filter(|(at, _)| *at > index).map(|(_, l)| frame(*l)).sum::<u64>();
        for at in 0..20 {
            assert_eq!(index.bytes_after(at), above(at), "above {at}");
        }
        for (bytes, upto) in (0..900).flat_map(|bytes| (5..16).map(move |upto| (bytes, upto))) {
            let expected = (7..=13).rev().find(|at| *at <= upto && above(*at) >= bytes);
            assert_eq!(index.index_keeping(bytes, upto), expected, "{bytes} bytes above, at most {upto}");
        }
        index.purge(Position { index: 40, term: 1 });
        assert_eq!((index.bytes_after(0), index.index_keeping(0, 50)), (0, None));
        index.push(41, slot(3));
        assert_eq!((index.bytes_after(40), index.bytes_after(41)), (frame(3), 0));
        assert_eq!(index.index_keeping(1, 50), None);
    }
}
