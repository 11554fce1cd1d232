//! The log as everyone else sees it: queue what is to be written, read, wait for the watermarks.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    index::Reader,
    log::{Position, Record, check},
    stats::Stats,
    vote::Vote,
};

/// Called once, on the log's thread, in the order of queueing: when what was queued is durable, or has failed. (On a
/// full disk a purge, which may make room, overtakes what waits for it.)
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Queues writes to the log's thread, and reads. Cheap to clone; when the last clone goes, the thread finishes
/// what is queued and ends.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Open>,
}

/// Something queued.
pub(crate) enum Op {
    Append(Vec<Record>),
    Truncate(Option<u64>),
    Purge(Position),
    Vote(Vote),
    /// Nothing; its `done` tells that all before it is durable.
    Barrier,
}

pub(crate) struct Queued {
    pub(crate) op: Op,
    pub(crate) ticket: u64,
    pub(crate) done: Option<Done>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Something is queued, or the last handle is gone.
    work: Condvar,
    /// A watermark moved, or the thread died.
    progress: Condvar,
    pub(crate) reader: Reader,
    pub(crate) stats: Stats,
    limit: Limits,
    on_full: Mutex<Option<Box<dyn Fn() + Send>>>,
}

struct Limits {
    cache_bytes: usize,
    payload_bytes: usize,
}

/// The log as it will be when the queue is done. The cache holds the newest entries, always all that are not yet
/// durable; so what is not cached is on disk, in its latest version, whatever is still queued.
struct State {
    queue: VecDeque<Queued>,
    tickets: u64,
    written: u64,
    durable: u64,
    /// Contiguous, up to `last`.
    cache: VecDeque<Cached>,
    cached_bytes: usize,
    /// First entry that is not purged; means nothing while there is none.
    first: u64,
    last: Option<Position>,
    purged: Option<Position>,
    vote: Option<Vote>,
    committed: Option<u64>,
    closed: bool,
    dead: Option<Arc<str>>,
}

struct Cached {
    record: Record,
    ticket: u64,
}

/// What the log's thread gets to do next.
pub(crate) struct Batch {
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) committed: Option<u64>,
}

/// What [`Shared::drain`] waits for.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    No,
    /// Something queued, or the end.
    Work,
    /// The end, or so much time: the disk is full.
    Room(Duration),
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { inner: Arc::new(Open(shared)) }
    }

    /// Queues `records`; they can be read when this returns. `done` is called in every case.
    ///
    /// # Errors
    /// [`Error::Gap`], [`Error::TooLarge`]: nothing was queued. [`Error::Dead`].
    pub fn append(&self, records: Vec<Record>, done: Done) -> Result<(), Error> {
        let shared = self.shared();
        let state = shared.lock();
        let mut next = state.last.map(|last| last.index + 1);
        for record in &records {
            if let Err(refusal) = check(record, next, shared.limit.payload_bytes) {
                drop(state);
                done(Err(refusal.clone().into()));
                return Err(refusal);
            }
            next = Some(record.index + 1);
        }
        shared.push(state, Op::Append(records.clone()), Some(done), |state, ticket| {
            for record in records {
                if !state.has_entries() {
                    state.first = record.index;
                }
                state.last = Some(Position { index: record.index, term: record.term });
                state.cached_bytes += record.payload.len();
                state.cache.push_back(Cached { record, ticket });
            }
        })
    }

    /// Queues taking back the entries after `last` (all, if `None`). Both watermarks go back at once.
    ///
    /// # Errors
    /// [`Error::Purged`]: nothing was queued. [`Error::Dead`].
    pub fn truncate_after(&self, last: Option<u64>, done: Done) -> Result<(), Error> {
        let shared = self.shared();
        let state = shared.lock();
        let from = last.map_or(0, |l| l.saturating_add(1));
        if let Some(purged) = state.purged.filter(|p| from <= p.index) {
            drop(state);
            let refusal = Error::Purged(purged.index);
            done(Err(refusal.clone().into()));
            return Err(refusal);
        }
        let end = state.last.map_or(0, |l| l.index + 1);
        let new_last = if !state.has_entries() || from >= end {
            state.last
        } else if from <= state.first {
            state.purged
        } else {
            let index = from - 1;
            let term = state.cached(index).map(|r| r.term).or_else(|| shared.reader.term_at(index));
            // Not there only if the index has lost an entry, which the thread would have reported.
            term.map(|term| Position { index, term })
        };
        shared.push(state, Op::Truncate(last), Some(done), |state, _| {
            while state.cache.back().is_some_and(|c| c.record.index >= from) {
                state.uncache_back();
            }
            state.last = new_last;
        })
    }

    /// Queues forgetting the entries up to `upto`, which a durable checkpoint has.
    ///
    /// # Errors
    /// [`Error::Dead`].
    pub fn purge_upto(&self, upto: Position, done: Done) -> Result<(), Error> {
        let shared = self.shared();
        let state = shared.lock();
        shared.push(state, Op::Purge(upto), Some(done), |state, _| {
            if state.purged.is_some_and(|p| p.index >= upto.index) {
                return;
            }
            while state.cache.front().is_some_and(|c| c.record.index <= upto.index) {
                state.uncache_front();
            }
            if state.last.is_none_or(|last| last.index <= upto.index) {
                state.last = Some(upto);
            }
            state.first = state.first.max(upto.index + 1);
            state.purged = Some(upto);
        })
    }

    /// Queues a vote. It is durable before anything queued later is written.
    ///
    /// # Errors
    /// [`Error::Dead`].
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), Error> {
        let shared = self.shared();
        shared.push(shared.lock(), Op::Vote(vote), Some(done), |_, _| {})
    }

    /// Calls `done` when all that was queued before is durable.
    ///
    /// # Errors
    /// [`Error::Dead`].
    pub fn barrier(&self, done: Done) -> Result<(), Error> {
        let shared = self.shared();
        shared.push(shared.lock(), Op::Barrier, Some(done), |_, _| {})
    }

    /// Notes the committed index; it is carried by the frames written from now on, without a sync of its own.
    pub fn set_committed(&self, index: u64) {
        let mut state = self.shared().lock();
        state.committed = state.committed.max(Some(index));
    }

    /// The greatest committed index noted, or found at opening.
    pub fn committed(&self) -> Option<u64> {
        self.shared().lock().committed
    }

    /// The newest durable vote.
    pub fn vote(&self) -> Option<Vote> {
        self.shared().lock().vote
    }

    /// The last entry, queued ones counted; or the last purged one if there is none.
    pub fn last(&self) -> Option<Position> {
        self.shared().lock().last
    }

    /// Index of the first entry that is there, if any.
    pub fn first(&self) -> Option<u64> {
        let state = self.shared().lock();
        state.has_entries().then_some(state.first)
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<Position> {
        self.shared().lock().purged
    }

    /// The term of an entry, or of the last purged one; `None` if it is neither.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let shared = self.shared();
        let state = shared.lock();
        if let Some(purged) = state.purged.filter(|p| p.index == index) {
            return Some(purged.term);
        }
        if !state.has_entries() || index < state.first || state.last.is_none_or(|last| index > last.index) {
            return None;
        }
        state.cached(index).map(|r| r.term).or_else(|| shared.reader.term_at(index))
    }

    /// The entries of `range` that are there, in order; at least one if there is one, and after that no more than
    /// `limit_bytes` of payload. Never with a hole.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`]: a fault, never a shorter answer. A dead log can still be read.
    pub fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<Record>, Error> {
        let shared = self.shared();
        let state = shared.lock();
        if !state.has_entries() {
            return Ok(Vec::new());
        }
        let start = range.start.max(state.first);
        let end = range.end.min(state.last.map_or(0, |last| last.index + 1));
        if start >= end {
            return Ok(Vec::new());
        }
        let cached_from = state.cache.front().map_or(end, |c| c.record.index).min(end);
        if start < cached_from {
            // The places are taken under the lock: then they are of the same log as the cache.
            let places = shared.reader.places(start..cached_from, limit_bytes);
            let whole = places.end() == Some(cached_from);
            let left = limit_bytes.saturating_sub(places.bytes());
            let mut cached = Vec::new();
            if whole && left > 0 {
                state.collect(cached_from..end, left, false, &mut cached);
            }
            drop(state);
            if places.start() != Some(start) {
                return Err(Error::corrupt("the index", 0, format!("entry {start} is not where it was written")));
            }
            let mut records = shared.reader.fetch(places)?;
            records.append(&mut cached);
            return Ok(records);
        }
        let mut records = Vec::new();
        state.collect(start..end, limit_bytes, true, &mut records);
        Ok(records)
    }

    /// All entries up to here are written: the kernel has them.
    pub fn written(&self) -> Option<u64> {
        let state = self.shared().lock();
        state.watermark(state.written)
    }

    /// All entries up to here are durable.
    pub fn durable(&self) -> Option<u64> {
        let state = self.shared().lock();
        state.watermark(state.durable)
    }

    /// Blocks until entry `index` is written (purged counts), at most `patience`; returns whether it is.
    ///
    /// # Errors
    /// [`Error::Dead`] if it will never be.
    pub fn wait_written(&self, index: u64, patience: Duration) -> Result<bool, Error> {
        self.wait(patience, |state| state.watermark(state.written).is_some_and(|w| w >= index))
    }

    /// Blocks until entry `index` is durable (purged counts), at most `patience`; returns whether it is.
    ///
    /// # Errors
    /// [`Error::Dead`] if it will never be.
    pub fn wait_durable(&self, index: u64, patience: Duration) -> Result<bool, Error> {
        self.wait(patience, |state| state.watermark(state.durable).is_some_and(|w| w >= index))
    }

    /// Bytes that the written, unpurged entries above `index` take in the log, headers included. For deciding
    /// when a checkpoint is worth its while; costs no IO.
    pub fn bytes_after(&self, index: u64) -> u64 {
        self.shared().reader.shared().bytes_after(index)
    }

    /// The greatest index of an entry that is here and at most `upto`, such that at least `bytes` (headers
    /// included) of written entries lie above it: how far a purge may go that keeps a tail for members that are a
    /// little behind. `None` if nothing may be purged.
    pub fn index_keeping(&self, bytes: u64, upto: u64) -> Option<u64> {
        self.shared().reader.shared().index_keeping(bytes, upto)
    }

    /// Length of all segment files, the zeros ahead included. One system call a segment.
    pub fn disk_bytes(&self) -> u64 {
        let files: Vec<_> = self.shared().reader.shared().files.values().cloned().collect();
        files.iter().map(|file| file.length().unwrap_or(0)).sum()
    }

    /// Sets what the log's thread calls when it begins to wait for room on a full disk, once each time, before it
    /// tries again: it can give up a reserve. It must not hold a handle (the log would never close) nor set another
    /// one. While the log waits, nothing queued is lost or told; it looks every 100 ms, and goes on by itself.
    pub fn on_full(&self, call: Box<dyn Fn() + Send>) {
        *self.shared().on_full.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    /// Counters for metrics.
    pub fn stats(&self) -> &Stats {
        &self.shared().stats
    }

    fn wait(&self, patience: Duration, there: impl Fn(&State) -> bool) -> Result<bool, Error> {
        let until = Instant::now() + patience;
        let shared = self.shared();
        let mut state = shared.lock();
        loop {
            if there(&state) {
                return Ok(true);
            }
            if let Some(reason) = &state.dead {
                return Err(Error::Dead(reason.clone()));
            }
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) else {
                return Ok(false);
            };
            state = shared.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn shared(&self) -> &Shared {
        &self.inner.0
    }
}

/// What all clones of a handle share; its end closes the log.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

impl State {
    fn has_entries(&self) -> bool {
        self.last.is_some() && self.last != self.purged
    }

    fn cached(&self, index: u64) -> Option<&Record> {
        let first = self.cache.front()?.record.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.cache.get(at).map(|c| &c.record)
    }

    fn collect(&self, range: Range<u64>, limit_bytes: usize, at_least_one: bool, into: &mut Vec<Record>) {
        let mut bytes = 0_usize;
        for record in range.map_while(|index| self.cached(index)) {
            bytes = bytes.saturating_add(record.payload.len());
            if bytes > limit_bytes && !(at_least_one && into.is_empty()) {
                break;
            }
            into.push(record.clone());
        }
    }

    /// The last index whose operation has a ticket of at most `ticket`. Tickets rise along the cache, and what is
    /// not cached is durable.
    fn watermark(&self, ticket: u64) -> Option<u64> {
        let done = self.cache.partition_point(|c| c.ticket <= ticket);
        match self.cache.get(done) {
            Some(waiting) => waiting.record.index.checked_sub(1),
            None => self.last.map(|last| last.index),
        }
    }

    fn uncache_front(&mut self) {
        if let Some(gone) = self.cache.pop_front() {
            self.cached_bytes -= gone.record.payload.len();
        }
    }

    fn uncache_back(&mut self) {
        if let Some(gone) = self.cache.pop_back() {
            self.cached_bytes -= gone.record.payload.len();
        }
    }
}

impl Shared {
    pub(crate) fn new(
        reader: Reader,
        last: Option<Position>,
        committed: Option<u64>,
        vote: Option<Vote>,
        options: &crate::Options,
    ) -> Self {
        let (first, purged) = {
            let index = reader.shared();
            (index.first, index.purged)
        };
        let state = State {
            queue: VecDeque::new(),
            tickets: 0,
            written: 0,
            durable: 0,
            cache: VecDeque::new(),
            cached_bytes: 0,
            first,
            last,
            purged,
            vote,
            committed,
            closed: false,
            dead: None,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            reader,
            stats: Stats::default(),
            on_full: Mutex::new(None),
            limit: Limits { cache_bytes: options.cache_bytes, payload_bytes: options.payload_limit_bytes },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock calls out, so a panic inside is a broken invariant elsewhere; the state
        // itself is still what the last full step made it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(
        &self,
        mut state: MutexGuard<'_, State>,
        op: Op,
        done: Option<Done>,
        then: impl FnOnce(&mut State, u64),
    ) -> Result<(), Error> {
        if let Some(reason) = state.dead.clone() {
            drop(state);
            let fault = Error::Dead(reason);
            if let Some(done) = done {
                done(Err(fault.clone().into()));
            }
            return Err(fault);
        }
        state.tickets += 1;
        let ticket = state.tickets;
        then(&mut state, ticket);
        state.queue.push_back(Queued { op, ticket, done });
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Takes all that is queued, waiting for it as told. `None`: closed, and nothing queued.
    pub(crate) fn drain(&self, wait: Wait) -> Option<Batch> {
        let mut state = self.lock();
        match wait {
            Wait::No => {}
            Wait::Work => {
                let idle = |state: &mut State| state.queue.is_empty() && !state.closed;
                state = self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            }
            Wait::Room(time) => {
                let open = |state: &mut State| !state.closed;
                let waited = self.work.wait_timeout_while(state, time, open);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        if state.closed && state.queue.is_empty() {
            return None;
        }
        Some(Batch { queue: std::mem::take(&mut state.queue), committed: state.committed })
    }

    /// Calls who asked to know that the disk is full.
    pub(crate) fn tell_full(&self) {
        if let Some(call) = &*self.on_full.lock().unwrap_or_else(PoisonError::into_inner) {
            call();
        }
    }

    /// Whether nothing is queued, and the newest committed index.
    pub(crate) fn idle(&self) -> (bool, Option<u64>) {
        let state = self.lock();
        (state.queue.is_empty(), state.committed)
    }

    pub(crate) fn wrote(&self, ticket: u64) {
        self.lock().written = ticket;
        self.progress.notify_all();
    }

    pub(crate) fn made_durable(&self, ticket: u64) {
        let mut state = self.lock();
        state.written = ticket;
        state.durable = ticket;
        while state.cached_bytes > self.limit.cache_bytes
            && state.cache.front().is_some_and(|c| c.ticket <= state.durable)
        {
            state.uncache_front();
        }
        drop(state);
        self.progress.notify_all();
    }

    pub(crate) fn voted(&self, vote: Vote) {
        self.lock().vote = Some(vote);
    }

    /// From now on nothing is taken. Returns what was queued.
    pub(crate) fn kill(&self, reason: &Arc<str>) -> VecDeque<Queued> {
        let mut state = self.lock();
        state.dead.get_or_insert_with(|| reason.clone());
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.progress.notify_all();
        queue
    }
}
