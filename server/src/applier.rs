//! The apply thread: committed entries become state, in one transaction a batch, then they are published.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use conclave_core::apply::{Applied as Effect, Position, apply, skip};
use conclave_core::entry::Entry;
use conclave_core::{Fault, Table, row};
use conclave_protocol::SessionId;
use conclave_store::Writer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::monotonic;
use crate::planner;
use crate::publish::{Publisher, session_of};
use crate::raft::{Applied, ApplyBatch, Kind};

/// How long the log may take to write what a quorum has accepted already; a disk that is slower is no disk.
const LOG_PATIENCE: Duration = Duration::from_secs(60);

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
    /// The tables.
    pub(crate) tables: Writer,
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
    pub(crate) sessions: std::collections::HashSet<SessionId>,
    /// The planner of this member.
    pub(crate) planner: planner::Handle,
    /// The last applied position, for reads that wait for one.
    pub(crate) position: watch::Sender<Option<Position>>,
}

/// Waits until the log has written this entry (rule 10).
fn wait_written(log: &conclave_log::Handle, index: u64) -> Result<(), Fault> {
    match log.wait_written(index, LOG_PATIENCE) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(Fault::Storage(format!("the log did not write entry {index} in {} s", LOG_PATIENCE.as_secs())))
        }
        Err(error) => Err(Fault::Storage(error.to_string())),
    }
}

impl Applier {
    /// Starts the thread; it ends when nobody sends batches any more, or with the first fault, and gives the tables back.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn spawn(mut self, mut batches: UnboundedReceiver<ApplyBatch>) -> std::io::Result<JoinHandle<Writer>> {
        std::thread::Builder::new().name("apply".to_owned()).spawn(move || {
            while let Some(batch) = batches.blocking_recv() {
                let result = self.batch(&batch);
                let failed = result.is_err();
                // Raft may have been shut down meanwhile: then nobody needs the answer.
                drop(batch.done.send(result));
                if failed {
                    break;
                }
            }
            self.tables
        })
    }

    fn batch(&mut self, batch: &ApplyBatch) -> Result<Vec<Applied>, Fault> {
        let Some(last) = batch.items.last() else { return Ok(Vec::new()) };
        let log = &self.log;
        let (effects, entries) = self.tables.write(
            |tables| {
                let mut effects = Vec::with_capacity(batch.items.len());
                let mut entries: Vec<(u64, Entry)> = Vec::new();
                for item in &batch.items {
                    effects.push(match &item.kind {
                        Kind::Blank => {
                            skip(tables, item.position, None);
                            Applied::Skipped
                        }
                        Kind::Membership(membership) => {
                            skip(tables, item.position, Some(membership.clone()));
                            Applied::Skipped
                        }
                        Kind::Payload(payload) => match apply(tables, item.position, payload)? {
                            Effect::Done(entry) => {
                                entries.push((item.position.index, entry));
                                Applied::Done
                            }
                            Effect::Void => Applied::Void,
                        },
                    });
                }
                Ok((effects, entries))
            },
            |_| wait_written(log, last.position.index),
        )?;
        self.tell(entries)?;
        self.planner.send(planner::Command::Applied(last.position));
        self.position.send_replace(Some(last.position));
        Ok(effects)
    }

    fn tell(&mut self, entries: Vec<(u64, Entry)>) -> Result<(), Fault> {
        let mut applied = Vec::with_capacity(entries.len());
        for (index, entry) in entries {
            let live = index > self.live_after;
            self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stamped(
                entry.time_ms,
                monotonic(),
                live,
            );
            self.tell_leases(&entry)?;
            applied.push(entry);
        }
        self.publisher.publish(&applied);
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

#[cfg(test)]
mod tests;
