//! The log's thread: drains the queue, writes, syncs once, tells.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Instant,
};

use crate::{
    error::Error,
    handle::{Batch, Done, Handle, Op, Queued, Shared},
    log::{Log, Options, Record},
    recover::Recovered,
    vote::{Vote, Votes},
};

/// Called once, with the reason, when the log takes nothing more: the server ends the process.
pub type Fatal = Box<dyn FnOnce(&Error) + Send>;

/// Owns the log and the votes, and does what handles queue. Either [`Writer::spawn`] a thread for it, or call
/// [`Writer::step`] from a simulator.
pub struct Writer {
    log: Log,
    votes: Votes,
    shared: Arc<Shared>,
    fatal: Option<Fatal>,
    /// Written, and told when the next sync is done.
    waiting: VecDeque<Done>,
    /// Of the last operation that was written.
    ticket: u64,
}

impl Writer {
    /// A writer that the caller drives, and its handle. `recovered` is what [`crate::open`] said.
    pub fn new(log: Log, votes: Votes, recovered: &Recovered, options: &Options, fatal: Fatal) -> (Handle, Self) {
        let shared = Arc::new(Shared::new(log.reader(), log.last(), recovered.committed, votes.current(), options));
        let writer =
            Self { log, votes, shared: shared.clone(), fatal: Some(fatal), waiting: VecDeque::new(), ticket: 0 };
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

    /// Does all that is queued, without waiting for more. Returns whether there will be more.
    pub fn step(&mut self) -> bool {
        match self.shared.drain(false) {
            None => {
                self.close();
                false
            }
            Some(batch) if batch.queue.is_empty() => self.fatal.is_some(),
            Some(batch) => self.guarded(batch),
        }
    }

    fn run(mut self) {
        while let Some(batch) = self.shared.drain(true) {
            if !self.guarded(batch) {
                return;
            }
        }
        self.close();
    }

    fn close(&mut self) {
        drop(self.shared.kill(&"it was closed".into()));
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
        if let Some(committed) = batch.committed {
            self.log.set_committed(committed);
        }
        let mut queue = batch.queue;
        while !queue.is_empty() {
            if let Err(fault) = self.next(&mut queue) {
                self.waiting.extend(queue.into_iter().filter_map(|q| q.done));
                return Err(fault);
            }
        }
        self.shared.wrote(self.ticket);
        self.tell()?;
        self.log.prepare()?;
        let (idle, committed) = self.shared.idle();
        if idle {
            if let Some(committed) = committed {
                self.log.set_committed(committed);
            }
            self.log.mark()?;
        }
        Ok(())
    }

    /// Does the first operation of the queue, or all appends at its front in one write.
    fn next(&mut self, queue: &mut VecDeque<Queued>) -> Result<(), Error> {
        let mut appends: Vec<Vec<Record>> = Vec::new();
        while let Some(Queued { op, ticket, done }) = queue.pop_front() {
            let records = match op {
                Op::Append(records) => records,
                other => {
                    self.append(&std::mem::take(&mut appends))?;
                    self.waiting.extend(done);
                    return self.other(other, ticket);
                }
            };
            appends.push(records);
            self.ticket = ticket;
            self.waiting.extend(done);
        }
        self.append(&appends)
    }

    fn append(&mut self, appends: &[Vec<Record>]) -> Result<(), Error> {
        if appends.is_empty() {
            return Ok(());
        }
        let busy = self.shared.stats.busy();
        self.log.append(appends.iter().flatten())?;
        drop(busy);
        let bytes = appends.iter().flatten().map(|r| r.payload.len() as u64).sum();
        self.shared.stats.wrote(appends.iter().map(|a| a.len() as u64).sum(), bytes);
        Ok(())
    }

    fn other(&mut self, op: Op, ticket: u64) -> Result<(), Error> {
        match op {
            Op::Append(records) => self.append(&[records])?,
            Op::Truncate(last) => self.log.truncate_after(last)?,
            Op::Purge(upto) => self.log.purge_upto(upto)?,
            Op::Barrier => {}
            Op::Vote(vote) => {
                // Its `done` is the newest waiting one; those before it are told first.
                let done = self.waiting.pop_back();
                self.tell()?;
                self.waiting.extend(done);
                self.vote(vote)?;
                self.ticket = ticket;
                return self.tell();
            }
        }
        self.ticket = ticket;
        Ok(())
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
        let all = self.waiting.drain(..).chain(queued.into_iter().filter_map(|q| q.done));
        for done in all {
            // A second panic would hide the first, and leave the rest untold.
            let _ = catch_unwind(AssertUnwindSafe(|| done(Err(fault.clone().into()))));
        }
        if let Some(fatal) = self.fatal.take() {
            fatal(fault);
        }
    }
}
