//! The apply thread: committed entries become state, in one transaction a batch, then they are published.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::{Applied as Effect, Position, Trust, apply_trusting, skip};
use conclave_core::entry::Entry;
use conclave_core::view::{Base, Row};
use conclave_core::{Fault, Table, query, row};
use conclave_protocol::{SessionId, Zxid};
use conclave_store::{Checkpoint, CheckpointError, Snapshot, Store, Writer};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::digests::{Computed, Verdict, no_majority};
use crate::monotonic;
use crate::planner;
use crate::publish::{Publisher, session_of};
use crate::raft::{Applied, ApplyCommand, Item, Kind};
use crate::steps::{Step, Steps};

/// How long the log may take to write what a quorum has accepted already; a disk that is slower is no disk.
const LOG_PATIENCE: Duration = Duration::from_secs(60);
/// How often the apply thread looks, while it waits for the log, whether there is a reason to wait.
const LOG_LOOK: Duration = Duration::from_millis(500);

/// How often room is looked for between two attempts to build the tables of a checkpoint.
const LOOKS_FOR_ROOM: u32 = 20;

/// What every member tells its leases of: they count only while it leads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifecycle {
    /// A session's row was written for the first time since this member started.
    Opened(SessionId, u64),
    /// Its row was deleted.
    Ended(SessionId),
}

/// What the apply thread works with.
pub(crate) struct Applier {
    /// The member is stopping: nothing is waited for any more.
    pub(crate) stopping: Arc<AtomicBool>,
    /// The tables.
    pub(crate) tables: Writer,
    /// To read them.
    pub(crate) store: Store,
    /// The log, of which nothing may be committed to the tables before it is written (rule 10).
    pub(crate) log: conclave_log::Handle,
    /// Cluster time.
    pub(crate) clock: Arc<Mutex<Clock>>,
    /// Entries above this index were proposed since this process started.
    pub(crate) live_after: u64,
    /// Whom to tell.
    pub(crate) publisher: Arc<Publisher>,
    /// Whom to tell of sessions.
    pub(crate) lifecycle: UnboundedSender<Lifecycle>,
    /// Sessions that are known to be open.
    pub(crate) sessions: HashSet<SessionId>,
    /// The planner of this member.
    pub(crate) planner: planner::Handle,
    /// The last applied position, for reads that wait for one.
    pub(crate) position: watch::Sender<Option<Position>>,
    /// What was computed after the last entries.
    pub(crate) computed: Computed,
    /// Told how far entries are.
    pub(crate) steps: Steps,
    /// Decides whose digest holds, after a zxid, when this member computed another than the entry says. Takes as long as
    /// it takes other voters to tell.
    pub(crate) judge: Box<dyn Fn(Zxid, u128, u128) -> Verdict + Send>,
    /// Told when rows of plugins were written.
    pub(crate) plugins: Box<dyn Fn() + Send>,
    /// Told of faults before Raft is: what comes of them is more than its end.
    pub(crate) faults: Box<dyn Fn(&Fault) + Send>,
    /// Called when the disk is full: waits a little for room; false when the member is stopping.
    pub(crate) full: Box<dyn Fn() -> bool + Send>,
}

/// Waits until the log has written this entry (rule 10). A log that waits for room is not slow: it goes on when there is
/// some.
fn wait_written(log: &conclave_log::Handle, index: u64, stopping: &AtomicBool) -> Result<(), Fault> {
    let mut left = LOG_PATIENCE;
    while !left.is_zero() {
        match log.wait_written(index, LOG_LOOK) {
            Ok(true) => return Ok(()),
            Ok(false) if stopping.load(Ordering::Acquire) => {
                return Err(Fault::Storage(format!("the member stopped before the log had written entry {index}")));
            }
            Ok(false) if log.stats().full.load(Ordering::Relaxed) => {}
            Ok(false) => left = left.saturating_sub(LOG_LOOK),
            Err(error) => return Err(Fault::Storage(error.to_string())),
        }
    }
    Err(Fault::Storage(format!("the log did not write entry {index} in {} s", LOG_PATIENCE.as_secs())))
}

impl Applier {
    /// Starts the thread; it ends when nobody sends commands any more, or with the first fault, and gives the tables back.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn spawn(
        mut self,
        mut commands: UnboundedReceiver<ApplyCommand>,
    ) -> std::io::Result<JoinHandle<Writer>> {
        std::thread::Builder::new().name("apply".to_owned()).spawn(move || {
            while let Some(command) = commands.blocking_recv() {
                let goes_on = match command {
                    ApplyCommand::Batch(batch) => {
                        let result = self.batch(&batch.items);
                        self.answer(batch.done, result)
                    }
                    ApplyCommand::Install(install) => {
                        let result = self.install(&install.checkpoint);
                        self.answer(install.done, result)
                    }
                };
                if !goes_on {
                    break;
                }
            }
            self.tables
        })
    }

    /// Tells Raft what came of a command; true when the thread can go on.
    fn answer<T>(&self, done: oneshot::Sender<Result<T, Fault>>, result: Result<T, Fault>) -> bool {
        let goes_on = result.as_ref().map_err(&self.faults).is_ok();
        // Raft may have been shut down meanwhile: then nobody needs the answer.
        drop(done.send(result));
        goes_on
    }

    fn batch(&mut self, items: &[Item]) -> Result<Vec<Applied>, Fault> {
        for _ in items.iter().filter(|item| matches!(item.kind, Kind::Payload(_))) {
            self.steps.reached(Step::Committed, None);
        }
        let mut effects = Vec::with_capacity(items.len());
        while let rest = &items[effects.len()..]
            && !rest.is_empty()
        {
            match self.write_patiently(rest, Trust::Entry) {
                Ok(applied) => {
                    effects.extend(applied);
                    break;
                }
                Err((at, Fault::Digest { zxid, computed, expected })) => {
                    // What came before it is believed, and others wait for it.
                    effects.extend(self.write_patiently(&rest[..at], Trust::Entry).map_err(|(_, fault)| fault)?);
                    tracing::error!(%zxid, "this member computes {computed:032x}, the entry says {expected:032x}");
                    self.computed.keep(zxid, computed);
                    let verdict = (self.judge)(zxid, computed, expected);
                    match verdict {
                        Verdict::Mine | Verdict::MineAndPlanned => {}
                        Verdict::Theirs => return Err(Fault::Digest { zxid, computed, expected }),
                        Verdict::Nobody => return Err(Fault::Entry(no_majority(zxid))),
                        Verdict::Stopping => return Err(Fault::Storage("the member is stopping".to_owned())),
                    }
                    // The rows are history of the log. Only this entry has been judged.
                    let judged = &items[effects.len()..=effects.len()];
                    effects.extend(self.write_patiently(judged, Trust::Own).map_err(|(_, fault)| fault)?);
                    if verdict == Verdict::MineAndPlanned {
                        return Err(Fault::Invariant(format!("the planner computed another digest after {zxid}")));
                    }
                }
                Err((_, fault)) => return Err(fault),
            }
        }
        Ok(effects)
    }

    /// As [`Self::write`]; waits while the disk is full.
    fn write_patiently(&mut self, items: &[Item], trust: Trust) -> Result<Vec<Applied>, (usize, Fault)> {
        loop {
            match self.write(items, trust) {
                Err((at, Fault::Full(why))) => {
                    tracing::warn!(why, "the disk of the tables is full: this member waits for room");
                    if !(self.full)() {
                        return Err((at, Fault::Full(why)));
                    }
                }
                written => return written,
            }
        }
    }

    /// Writes entries in one transaction, and tells of them. With a fault comes which of them it was met at.
    fn write(&mut self, items: &[Item], trust: Trust) -> Result<Vec<Applied>, (usize, Fault)> {
        let Some(last) = items.last() else { return Ok(Vec::new()) };
        let (log, stopping) = (&self.log, &*self.stopping);
        let mut at = 0;
        let written = self.tables.write(
            |tables| {
                let mut effects = Vec::with_capacity(items.len());
                let mut entries: Vec<(u64, Entry, u128)> = Vec::new();
                for (n, item) in items.iter().enumerate() {
                    at = n;
                    effects.push(match &item.kind {
                        Kind::Blank => {
                            skip(tables, item.position, None);
                            Applied::Skipped
                        }
                        Kind::Membership(membership) => {
                            skip(tables, item.position, Some(membership.clone()));
                            Applied::Skipped
                        }
                        Kind::Payload(payload) => match apply_trusting(tables, item.position, payload, trust)? {
                            Effect::Done(entry) => {
                                entries.push((item.position.index, entry, tables.local().digest));
                                Applied::Done
                            }
                            Effect::Void => Applied::Void,
                        },
                    });
                }
                Ok((effects, entries))
            },
            |_| wait_written(log, last.position.index, stopping),
        );
        let (effects, entries) = written.map_err(|fault| (at, fault))?;
        entries.iter().for_each(|(_, entry, _)| self.steps.reached(Step::Applied, Some(entry.last())));
        let has_plugins = entries.iter().any(|(_, entry, _)| writes_plugins(entry));
        self.tell(entries).map_err(|fault| (at, fault))?;
        self.planner.send(planner::Command::Applied(last.position));
        self.position.send_replace(Some(last.position));
        if has_plugins {
            (self.plugins)();
        }
        Ok(effects)
    }

    /// Puts a checkpoint in the place of the tables, and tells of everything that is new in it.
    fn install(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let position = checkpoint.position();
        tracing::info!(index = position.index, zxid = %checkpoint.zxid(), "installing a checkpoint");
        while let Err(error) = self.tables.install(checkpoint, &mut |_| ControlFlow::Continue(())) {
            if !error.is_full() {
                return Err(match error {
                    CheckpointError::Tables(fault) | CheckpointError::Fault(fault) => fault,
                    // A member's own: it began with it, and another one has to be fetched.
                    error @ CheckpointError::Damaged { .. } => Fault::Corrupt(error.to_string()),
                    error => Fault::Storage(error.to_string()),
                });
            }
            tracing::warn!(%error, "no room for the tables of a checkpoint: this member waits for some");
            // Each attempt fills the disk that others wait for.
            for _ in 0..LOOKS_FOR_ROOM {
                if !(self.full)() {
                    return Err(Fault::Full(error.to_string()));
                }
            }
        }
        let snapshot = self.store.snapshot()?;
        let state = query::state(&snapshot)?;
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).stamped(state.time_ms, monotonic(), false);
        self.install_sessions(query::sessions(&snapshot)?);
        self.computed.keep(state.zxid, checkpoint.local().digest);
        self.publisher.installed(&snapshot)?;
        drop(snapshot);
        self.planner.send(planner::Command::Applied(position));
        self.position.send_replace(Some(position));
        (self.plugins)();
        tracing::info!(index = position.index, zxid = %state.zxid, "installed");
        Ok(())
    }

    fn install_sessions(&mut self, sessions: Vec<(SessionId, u64)>) {
        let open: HashSet<SessionId> = sessions.iter().map(|(session, _)| *session).collect();
        for ended in self.sessions.difference(&open) {
            let _ = self.lifecycle.send(Lifecycle::Ended(*ended));
        }
        for (session, timeout_ms) in sessions {
            if !self.sessions.contains(&session) {
                let _ = self.lifecycle.send(Lifecycle::Opened(session, timeout_ms));
            }
        }
        self.sessions = open;
    }

    fn tell(&mut self, entries: Vec<(u64, Entry, u128)>) -> Result<(), Fault> {
        let mut applied = Vec::with_capacity(entries.len());
        for (index, entry, digest) in entries {
            let live = index > self.live_after;
            self.computed.keep(entry.last(), digest);
            self.clock.lock().unwrap_or_else(PoisonError::into_inner).stamped(entry.time_ms, monotonic(), live);
            self.tell_leases(&entry)?;
            applied.push(entry);
        }
        self.publisher.publish(&applied, &Lazy::new(&self.store))?;
        applied.iter().for_each(|entry| self.steps.reached(Step::Published, Some(entry.last())));
        Ok(())
    }

    fn tell_leases(&mut self, entry: &Entry) -> Result<(), Fault> {
        for row in entry.rows.iter().filter(|row| row.table == Table::Session.number()) {
            let Some(session) = session_of(&row.key) else { continue };
            match &row.value {
                None => {
                    self.sessions.remove(&session);
                    let _ = self.lifecycle.send(Lifecycle::Ended(session));
                }
                Some(value) if self.sessions.insert(session) => {
                    let row: row::Session = row::decode(Table::Session, value)?;
                    let _ = self.lifecycle.send(Lifecycle::Opened(session, row.timeout_ms));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn writes_plugins(entry: &Entry) -> bool {
    // Rows are sorted, but few: a table's number is a byte.
    entry.rows.iter().any(|row| row.table == Table::Plugin.number())
}

/// The applied state, opened when it is first asked: few transactions mean anything to watches that need it.
struct Lazy<'a> {
    store: &'a Store,
    snapshot: OnceCell<Snapshot>,
}

impl<'a> Lazy<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, snapshot: OnceCell::new() }
    }

    fn snapshot(&self) -> Result<&Snapshot, Fault> {
        match self.snapshot.get() {
            Some(snapshot) => Ok(snapshot),
            None => {
                let snapshot = self.store.snapshot()?;
                Ok(self.snapshot.get_or_init(|| snapshot))
            }
        }
    }
}

impl Base for Lazy<'_> {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.snapshot()?.row(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        self.snapshot()?.scan(table, prefix, after, limit)
    }
}

#[cfg(test)]
mod tests;
