//! The log's thread: drains the queue, writes, syncs once, tells.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    handle::{Batch, Done, Handle, Op, Queued, Shared, Wait},
    log::{Log, Options, Record},
    recover::Recovered,
    vote::{Vote, Votes},
};

/// Called once, with the reason, when the log takes nothing more: the server ends the process.
pub type Fatal = Box<dyn FnOnce(&Error) + Send>;

/// How often a full disk is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Owns the log and the votes, and does what handles queue. Either [`Writer::spawn`] a thread for it, or call
/// [`Writer::step`] from a simulator.
pub struct Writer {
    log: Log,
    votes: Votes,
    shared: Arc<Shared>,
    fatal: Option<Fatal>,
    /// Taken from the queue, and not written. Empty between rounds, but for a full disk.
    pending: VecDeque<Queued>,
    /// Written, and told when the next sync is done.
    waiting: VecDeque<Done>,
    /// Of the last operation that was written.
    ticket: u64,
}

impl Writer {
    /// A writer that the caller drives, and its handle. `recovered` is what [`crate::open`] said.
    pub fn new(log: Log, votes: Votes, recovered: &Recovered, options: &Options, fatal: Fatal) -> (Handle, Self) {
        let shared = Arc::new(Shared::new(log.reader(), log.last(), recovered.committed, votes.current(), options));
        let writer = Self {
            log,
            votes,
            shared: shared.clone(),
            fatal: Some(fatal),
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            ticket: 0,
        };
        (Handle::new(shared), writer)
    }

    /// A writer on a thread of its own, which ends when the last handle is gone, or by a fault.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(
        log: Log,
        votes: Votes,
        recovered: &Recovered,
        options: &Options,
        fatal: Fatal,
    ) -> io::Result<(Handle, JoinHandle<()>)> {
        let (handle, writer) = Self::new(log, votes, recovered, options, fatal);
        let thread = Builder::new().name("log".into()).spawn(move || writer.run())?;
        Ok((handle, thread))
    }

    /// Does all that is queued, without waiting for more, nor for room on a full disk: what finds none is kept for the
    /// next step. Returns whether there will be more.
    pub fn step(&mut self) -> bool {
        match self.shared.drain(Wait::No) {
            None => {
                self.close();
                false
            }
            Some(batch) if batch.queue.is_empty() && self.pending.is_empty() => self.fatal.is_some(),
            Some(batch) => self.guarded(batch),
        }
    }

    fn run(mut self) {
        loop {
            let wait = if self.pending.is_empty() { Wait::Work } else { Wait::Room(LOOK) };
            let Some(batch) = self.shared.drain(wait) else { break };
            if !self.guarded(batch) {
                return;
            }
        }
        self.close();
    }

    /// Whatever still waits for room is not done.
    fn close(&mut self) {
        let why: Arc<str> = "it was closed".into();
        let queued = self.shared.kill(&why);
        self.fail(queued, &Error::Dead(why));
    }

    /// A callback that panics must not leave waiters hanging.
    fn guarded(&mut self, batch: Batch) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.batch(batch))) {
            Ok(Ok(())) => true,
            Ok(Err(fault)) => {
                self.die(&fault);
                false
            }
            Err(_) => {
                self.die(&Error::Dead("its thread panicked".into()));
                false
            }
        }
    }

    /// One round of the loop: drain, write, sync, tell; then what can be done off the critical path.
    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.pending.extend(batch.queue);
        // An entry that is about to be taken back would be called committed by the frames in front of the truncation, if a
        // crash leaves only those: then not before everything is written that was queued before it was told.
        let is_safe = !self.pending.iter().any(|queued| matches!(queued.op, Op::Truncate(_)));
        if let Some(committed) = batch.committed.filter(|_| is_safe) {
            self.log.set_committed(committed);
        }
        while !self.pending.is_empty() {
            match self.next() {
                Err(full) if full.is_full() => {
                    if !self.make_room(&full)? {
                        return Ok(());
                    }
                }
                other => other?,
            }
        }
        if let Some(committed) = batch.committed {
            self.log.set_committed(committed);
        }
        if self.shared.stats.full.swap(false, Relaxed) {
            tracing::info!("there is room on the disk again: the log goes on");
        }
        self.shared.wrote(self.ticket);
        self.tell()?;
        let busy = self.shared.stats.busy();
        self.log.prepare()?;
        drop(busy);
        let (idle, committed) = self.shared.idle();
        if idle {
            if let Some(committed) = committed {
                self.log.set_committed(committed);
            }
            self.log.mark()?;
        }
        Ok(())
    }

    /// Does the first pending operation, or all appends at the front in one write. What was not done, for whatever
    /// reason, is pending still.
    fn next(&mut self) -> Result<(), Error> {
        let appends = self.pending.iter().take_while(|queued| matches!(queued.op, Op::Append(_))).count();
        if appends > 0 {
            return self.append(appends);
        }
        let Some(queued) = self.pending.front() else { return Ok(()) };
        match queued.op {
            Op::Append(_) | Op::Barrier => {}
            Op::Truncate(last) => self.log.truncate_after(last)?,
            Op::Purge(upto) => self.log.purge_upto(upto)?,
            Op::Vote(vote) => {
                // What was queued before it is durable first.
                self.tell()?;
                self.vote(vote)?;
                self.done();
                return self.tell();
            }
        }
        self.done();
        Ok(())
    }

    /// The first pending operation is written.
    fn done(&mut self) {
        if let Some(Queued { ticket, done, .. }) = self.pending.pop_front() {
            self.ticket = ticket;
            self.waiting.extend(done);
        }
    }

    /// Writes the first `count` pending operations, appends all.
    fn append(&mut self, count: usize) -> Result<(), Error> {
        let busy = self.shared.stats.busy();
        let records = self.pending.iter().take(count).flat_map(|queued| match &queued.op {
            Op::Append(records) => &records[..],
            _ => &[],
        });
        let written = self.log.append(records);
        drop(busy);
        if let Err(error) = &written
            && !error.is_full()
        {
            return written;
        }
        let end = self.log.last().map_or(0, |last| last.index + 1);
        for _ in 0..count {
            let Some(Queued { op: Op::Append(records), .. }) = self.pending.front_mut() else { break };
            let before = records.len();
            let left = if written.is_ok() { Vec::new() } else { split_at_index(records, end) };
            let bytes = records.iter().map(|r| r.payload.len() as u64).sum();
            self.shared.stats.wrote((before - left.len()) as u64, bytes);
            if !left.is_empty() {
                *records = left;
                break;
            }
            self.done();
        }
        written
    }

    /// The disk is full: tells what is done, and looks for room. Returns whether trying again at once is worth it.
    fn make_room(&mut self, full: &Error) -> Result<bool, Error> {
        self.shared.wrote(self.ticket);
        self.tell()?;
        if self.purge_first()? {
            return Ok(true);
        }
        let first = !self.shared.stats.full.swap(true, Relaxed);
        if first {
            tracing::warn!(%full, "the log waits until there is room");
            self.shared.tell_full();
        }
        Ok(first)
    }

    /// Does pending purges before their turn: they need no room, and make some. Entries that a purge takes are in the
    /// log already, and, with no truncation in between, are those that it means.
    fn purge_first(&mut self) -> Result<bool, Error> {
        let end = self.log.last().map_or(0, |last| last.index + 1);
        let mut at = 0;
        while let Some(queued) = self.pending.get(at) {
            match queued.op {
                Op::Truncate(_) => break,
                Op::Purge(upto) if upto.index < end => {
                    match self.log.purge_upto(upto) {
                        Err(full) if full.is_full() => return Ok(false),
                        other => other?,
                    }
                    self.waiting.extend(self.pending.remove(at).and_then(|queued| queued.done));
                    self.tell()?;
                    return Ok(true);
                }
                _ => at += 1,
            }
        }
        Ok(false)
    }

    fn vote(&mut self, vote: Vote) -> Result<(), Error> {
        let start = Instant::now();
        let busy = self.shared.stats.busy();
        self.votes.save(vote)?;
        drop(busy);
        self.shared.stats.synced(2, start.elapsed());
        self.shared.voted(vote);
        Ok(())
    }

    /// Syncs, moves the watermark, and calls back in order.
    fn tell(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let busy = self.shared.stats.busy();
        let synced = self.log.sync()?;
        drop(busy);
        if synced {
            self.shared.stats.synced(1, start.elapsed());
        }
        self.shared.made_durable(self.ticket);
        // One by one: if one panics, the others are still told.
        while let Some(done) = self.waiting.pop_front() {
            done(Ok(()));
        }
        Ok(())
    }

    fn die(&mut self, fault: &Error) {
        let queued = self.shared.kill(&fault.to_string().into());
        self.fail(queued, fault);
        if let Some(fatal) = self.fatal.take() {
            fatal(fault);
        }
    }

    /// Tells all who still wait that it failed.
    fn fail(&mut self, queued: VecDeque<Queued>, fault: &Error) {
        let untold = self.pending.drain(..).chain(queued).filter_map(|q| q.done);
        for done in self.waiting.drain(..).chain(untold) {
            // A second panic would hide the first, and leave the rest untold.
            let _ = catch_unwind(AssertUnwindSafe(|| done(Err(fault.clone().into()))));
        }
    }
}

/// Takes the records from index `end` on out of `records`. They are contiguous.
fn split_at_index(records: &mut Vec<Record>, end: u64) -> Vec<Record> {
    let written = records.iter().take_while(|record| record.index < end).count();
    records.split_off(written)
}
