//! The checkpoint thread: decides when a checkpoint is due, makes it, and lets the log go that it makes superfluous.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conclave_protocol::Zxid;
use conclave_store::{Checkpoint, CheckpointError, Checkpoints, Progress};
use tokio::sync::oneshot;

use crate::config::Storage;
use crate::member::Shared;

/// How often the thread looks whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long to wait after one that failed, and for Raft to take note of one.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// On a disk that is short of room a checkpoint is made of anything that was logged since the last one, stamps alone
/// excepted: deletes make room only with the checkpoint after them.
const SHORT_LOG_BYTES: u64 = 1 << 10;
/// How long to wait between such checkpoints, at least; and at least so many times what the last one took.
const SHORT_EVERY: Duration = Duration::from_secs(5);
const SHORT_TIMES: u64 = 20;
/// How often progress is logged.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// The thread's niceness: those who write and read come first.
const NICE: i32 = 5;

/// What the thread is asked for.
enum Asked {
    /// One that holds this.
    AtLeast(Zxid, oneshot::Sender<Result<Checkpoint, String>>),
    /// One in the place of this one, which is damaged.
    InPlaceOf(Checkpoint),
}

/// Asks the checkpoint thread, and shows what it did.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    asked: Sender<Asked>,
    counts: Arc<Counts>,
    checkpoints: Checkpoints,
}

/// What the thread did since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Checkpoints made.
    pub(crate) made: AtomicU64,
    /// Those that came to nothing.
    pub(crate) failed: AtomicU64,
    /// How long the last one took, milliseconds.
    pub(crate) last_ms: AtomicU64,
    /// Rows that are in the one that is being made; 0 when none is.
    pub(crate) rows: AtomicU64,
    stopping: AtomicBool,
}

/// The thread, before it runs.
pub(crate) struct Prepared {
    asked: Receiver<Asked>,
    counts: Arc<Counts>,
    checkpoints: Checkpoints,
}

impl Checkpointer {
    /// The thread's handle is needed before the thread can be started.
    pub(crate) fn prepare(checkpoints: Checkpoints) -> (Self, Prepared) {
        let (asked, here) = channel();
        let counts = Arc::<Counts>::default();
        let prepared = Prepared { asked: here, counts: Arc::clone(&counts), checkpoints: checkpoints.clone() };
        (Self { asked, counts, checkpoints }, prepared)
    }

    /// A checkpoint that holds at least this transaction: the newest one, or one that is made for it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn fresh(&self, at_least: Zxid) -> Result<Checkpoint, String> {
        if let Some(newest) = self.checkpoints.newest().filter(|newest| newest.zxid() >= at_least) {
            return Ok(newest);
        }
        let (reply, answer) = oneshot::channel();
        let stopping = || "this member is stopping".to_owned();
        self.asked.send(Asked::AtLeast(at_least, reply)).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Has another one made, if this damaged one is still the newest. Until there is one it stays: Raft needs one.
    pub(crate) fn replace(&self, damaged: Checkpoint) {
        // A thread that has ended makes none.
        drop(self.asked.send(Asked::InPlaceOf(damaged)));
    }

    /// The newest one.
    pub(crate) fn newest(&self) -> Option<Checkpoint> {
        self.checkpoints.newest()
    }

    /// Bytes on disk, of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.checkpoints.bytes()
    }

    /// What was done.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Breaks off what is being made, and ends the thread.
    pub(crate) fn stop(&self) {
        self.counts.stopping.store(true, Ordering::Release);
    }
}

impl Prepared {
    /// Starts the thread; it ends with the member.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn spawn(
        self,
        shared: &Arc<Shared>,
        storage: Storage,
        raft: tokio::runtime::Handle,
    ) -> std::io::Result<JoinHandle<()>> {
        let thread = Thread {
            shared: Arc::downgrade(shared),
            storage,
            raft,
            counts: self.counts,
            checkpoints: self.checkpoints,
            rest_until: Instant::now(),
            made: Instant::now(),
        };
        std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || thread.run(&self.asked))
    }
}

struct Thread {
    shared: Weak<Shared>,
    storage: Storage,
    raft: tokio::runtime::Handle,
    counts: Arc<Counts>,
    checkpoints: Checkpoints,
    rest_until: Instant,
    /// When the last one was made, or came to nothing.
    made: Instant,
}

impl Thread {
    fn run(mut self, asked: &Receiver<Asked>) {
        // Where the system does not allow it, it goes on as it is.
        let _ = rustix::process::nice(NICE);
        loop {
            let asked = match asked.recv_timeout(LOOK_EVERY) {
                Ok(asked) => Some(asked),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.counts.stopping.load(Ordering::Acquire) {
                return;
            }
            let Some(shared) = self.shared.upgrade() else { return };
            match asked {
                Some(Asked::InPlaceOf(damaged)) => {
                    let is_newest = self.checkpoints.newest().is_some_and(|newest| newest.is_same_file(&damaged));
                    if is_newest {
                        tracing::error!("the newest checkpoint has rotted: another one is made");
                        drop(self.make(&shared));
                    }
                }
                Some(Asked::AtLeast(at_least, reply)) => {
                    let newest = self.checkpoints.newest().filter(|newest| newest.zxid() >= at_least);
                    let made = newest.map_or_else(|| self.make(&shared), Ok);
                    // Whoever asked may be gone.
                    drop(reply.send(made));
                }
                None if Instant::now() >= self.rest_until && self.is_due(&shared) => {
                    if self.make(&shared).is_err() {
                        self.rest_until = Instant::now() + AFTER_FAILURE;
                    }
                    self.made = Instant::now();
                }
                None => {}
            }
        }
    }

    /// Whether the log has grown enough since the last one.
    fn is_due(&self, shared: &Shared) -> bool {
        let newest = self.checkpoints.newest();
        let index = newest.as_ref().map_or(0, |newest| newest.position().index);
        let log_bytes = shared.log.bytes_after(index);
        let tree_bytes = newest.map_or(0, |newest| newest.raw_bytes());
        let due = self.storage.checkpoint_log_bytes.max(tree_bytes / 2);
        // Members that have the same log must not all begin at the same moment.
        let due = due + due / 8 * (shared.id.0 % 4);
        // Room is short: whatever a checkpoint frees helps.
        let between = SHORT_EVERY.max(Duration::from_millis(self.counts.last_ms.load(Ordering::Relaxed) * SHORT_TIMES));
        let is_time = log_bytes > SHORT_LOG_BYTES && self.made.elapsed() >= between;
        let is_short = shared.room.refuses_growth() && (log_bytes > self.storage.log_segment_bytes || is_time);
        log_bytes >= due || is_short
    }

    fn make(&self, shared: &Arc<Shared>) -> Result<Checkpoint, String> {
        let began = Instant::now();
        let mut made = self.checkpoints.make(&shared.store, &mut self.progress(began));
        if let Err(error) = &made
            && error.is_full()
            && shared.room.release()
        {
            tracing::warn!("the disk is full: the reserve is given up for a checkpoint, which lets log go");
            made = self.checkpoints.make(&shared.store, &mut self.progress(began));
        }
        self.counts.rows.store(0, Ordering::Relaxed);
        match made {
            Ok(checkpoint) => {
                let took = began.elapsed();
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                self.counts.last_ms.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                let (index, rows, bytes) = (checkpoint.position().index, checkpoint.rows(), checkpoint.bytes());
                tracing::info!(index, zxid = %checkpoint.zxid(), rows, bytes, took_ms = took.as_millis(), "checkpoint");
                self.purge(shared, &checkpoint);
                Ok(checkpoint)
            }
            Err(CheckpointError::Cancelled) => Err("this member is stopping".to_owned()),
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "no checkpoint was made; the log goes on growing until one is");
                if let CheckpointError::Tables(fault) | CheckpointError::Fault(fault) = &error {
                    shared.fault_of(fault);
                }
                Err(error.to_string())
            }
        }
    }

    fn progress(&self, began: Instant) -> impl FnMut(Progress) -> ControlFlow<()> {
        let mut said = began;
        move |progress| {
            self.counts.rows.store(progress.rows, Ordering::Relaxed);
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!(rows = progress.rows, bytes = progress.bytes, "a checkpoint is being made");
            }
            match self.counts.stopping.load(Ordering::Acquire) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }

    /// Lets Raft know, and purge what lies behind the checkpoint, except what is kept for members that are a little
    /// behind.
    fn purge(&self, shared: &Shared, checkpoint: &Checkpoint) {
        let index = checkpoint.position().index;
        if shared.position.borrow().is_none_or(|applied| applied < checkpoint.position()) {
            // It came from the leader, and is about to be installed: Raft must not take it for one of ours.
            return;
        }
        let keep = if shared.room.refuses_growth() { 0 } else { self.storage.log_keep_bytes };
        let Some(upto) = shared.log.index_keeping(keep, index) else { return };
        let replica = shared.replica.clone();
        if let Err(error) = self.raft.block_on(replica.checkpointed(upto, AFTER_FAILURE)) {
            tracing::warn!(%error, "Raft did not take note of the checkpoint");
        }
    }
}
