//! Room on the disk of the data directory: how much is free, whether the tree may grow, and a reserve for the worst.
//!
//! A reserve lies in the data directory as a file. When a write finds no room it is given up, which is what lets a member
//! finish a checkpoint, let log go and note deletes; growth is refused from then on until the reserve is back. Before
//! that, growth is refused below a mark of free bytes. A task looks five times a second, so that a member recovers by
//! itself once there is room.

mod reserve;
mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave_core::plan::Growth;

use crate::config::Storage;
use crate::member::Shared;
use crate::monotonic;
use reserve::{Made, Reserve};

/// How often free bytes are looked at: much less than a disk of any speed takes to write what is kept free.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long whoever found the disk full waits before it tries again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long after the reserve was given up, or could not be made, it is tried to make it again.
const REMAKE_AFTER: Duration = Duration::from_secs(2);
/// Of a small file system, no more than this part is kept free, and no more than this part is reserved.
const PART: u64 = 10;

/// See the module. Clones share it.
#[derive(Clone)]
pub(crate) struct Room {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    /// In place of the real number, for tests.
    told_free: Option<Arc<AtomicU64>>,
    /// Below so many free bytes growth is refused.
    least_bytes: u64,
    free_bytes: AtomicU64,
    refuses: AtomicBool,
    held: AtomicBool,
    /// What the reserve would take, were it made; 0 when it is there, or there is to be none.
    missing_bytes: AtomicU64,
    handed_over: AtomicU64,
    state: Mutex<State>,
    stopped: Condvar,
}

struct State {
    reserve: Reserve,
    /// Before that time the reserve is not made again.
    remake_at: Duration,
    /// What was last said about growth, so that it is said once.
    said_refused: bool,
    stopping: bool,
}

impl Room {
    /// Looks at the file system of the data directory, which exists, and makes the reserve if there is room for it and
    /// for what is to be kept free. On a small file system both are a tenth of it at most. `told_free` takes the place of
    /// the real number of free bytes.
    ///
    /// # Errors
    /// When the file system does not tell how much is free, or the reserve of an earlier run can't be looked at.
    pub(crate) fn open(data: &Path, storage: &Storage, told_free: Option<Arc<AtomicU64>>) -> io::Result<Self> {
        let space = rustix::fs::statvfs(data)?;
        // A file system without a size of its own (some are) is not a small one.
        let part = match space.f_frsize.saturating_mul(space.f_blocks) / PART {
            0 => u64::MAX,
            part => part,
        };
        let reserve = Reserve::find(data, storage.reserve_bytes.min(part))?;
        let inner = Inner {
            data: data.to_owned(),
            told_free,
            least_bytes: storage.least_free_bytes.min(part),
            free_bytes: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            held: AtomicBool::new(reserve.is_held()),
            missing_bytes: AtomicU64::new(reserve.missing_bytes()),
            handed_over: AtomicU64::new(0),
            state: Mutex::new(State { reserve, remake_at: Duration::ZERO, said_refused: false, stopping: false }),
            stopped: Condvar::new(),
        };
        let room = Self { inner: Arc::new(inner) };
        room.look_at(monotonic())?;
        Ok(room)
    }

    /// Looks how much is free, and draws the conclusions: refuses growth, allows it again, makes the reserve again.
    ///
    /// # Errors
    /// When the file system does not tell; all stays as it was.
    pub(crate) fn look(&self) -> io::Result<()> {
        self.look_at(monotonic())
    }

    fn look_at(&self, now: Duration) -> io::Result<()> {
        let inner = &*self.inner;
        // Not under the lock: on a file system that hangs this hangs, and others need the lock.
        let mut free = inner.ask_free()?;
        let mut state = self.lock();
        if state.reserve.is_lost() {
            tracing::warn!(data = %inner.data.display(), "the reserve is gone: it is made again when there is room");
        }
        let least = again(inner.least_bytes);
        let missing = state.reserve.missing_bytes();
        if missing > 0 && now >= state.remake_at && free >= least.saturating_add(missing) {
            state.remake_at = now + REMAKE_AFTER;
            match state.reserve.make() {
                Ok(Made::Yes) => tracing::info!(bytes = missing, "the reserve is made"),
                // Less room than was told: a quota, or others were quicker.
                Ok(Made::Full) => {}
                Err(error) => {
                    tracing::warn!(%error, data = %inner.data.display(), "no reserve can be made: it goes on without");
                }
            }
            free = inner.ask_free()?;
        }
        // What refused growth a moment ago allows it again a little later, or it would change with every write.
        let least = if inner.refuses.load(Ordering::Relaxed) { least } else { inner.least_bytes };
        let missing = state.reserve.missing_bytes();
        inner.free_bytes.store(free, Ordering::Relaxed);
        inner.held.store(state.reserve.is_held(), Ordering::Relaxed);
        inner.missing_bytes.store(missing, Ordering::Relaxed);
        inner.refuses.store(missing > 0 || free < least, Ordering::Relaxed);
        self.say(&mut state);
        Ok(())
    }

    /// Bytes that are free, as of the last look.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.inner.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether the tree may not grow.
    pub(crate) fn refuses_growth(&self) -> bool {
        self.inner.refuses.load(Ordering::Relaxed)
    }

    /// The same for the planner, which never waits for it.
    pub(crate) fn growth(&self) -> Growth {
        match self.refuses_growth() {
            false => Growth::Allowed,
            true => Growth::Refused { free_bytes: self.free_bytes(), least_bytes: self.needed_bytes() },
        }
    }

    /// Bytes that have to be free before growth is allowed again.
    fn needed_bytes(&self) -> u64 {
        again(self.inner.least_bytes).saturating_add(self.inner.missing_bytes.load(Ordering::Relaxed))
    }

    /// Whether the reserve is there.
    pub(crate) fn reserve_held(&self) -> bool {
        self.inner.held.load(Ordering::Relaxed)
    }

    /// How often a slow disk made this member hand over.
    pub(crate) fn handed_over(&self) -> u64 {
        self.inner.handed_over.load(Ordering::Relaxed)
    }

    /// For whoever found the disk full: gives the reserve up, and refuses growth. True when that made room: try again at
    /// once.
    pub(crate) fn release(&self) -> bool {
        let inner = &*self.inner;
        let mut state = self.lock();
        state.remake_at = monotonic() + REMAKE_AFTER;
        inner.refuses.store(true, Ordering::Relaxed);
        let released = match state.reserve.release() {
            Ok(released) => released,
            Err(error) => {
                tracing::warn!(%error, data = %inner.data.display(), "the reserve can't be given up");
                false
            }
        };
        if released {
            inner.held.store(false, Ordering::Relaxed);
            inner.missing_bytes.store(state.reserve.missing_bytes(), Ordering::Relaxed);
            tracing::warn!(
                data = %inner.data.display(),
                "the disk is full: the reserve is given up, and nothing may grow until it is made again"
            );
        }
        released
    }

    /// For a thread that found the disk full and can do nothing else: gives the reserve up, or waits a little. False when
    /// this member is stopping.
    pub(crate) fn wait(&self) -> bool {
        if self.release() {
            return true;
        }
        let state = self.lock();
        let waited = self.inner.stopped.wait_timeout_while(state, AGAIN, |state| !state.stopping);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }

    /// Nobody waits any more.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.inner.stopped.notify_all();
    }

    fn say(&self, state: &mut State) {
        let refused = self.refuses_growth();
        if std::mem::replace(&mut state.said_refused, refused) == refused {
            return;
        }
        let (data, free_bytes) = (self.inner.data.display(), self.free_bytes());
        if refused {
            let needed_bytes = self.needed_bytes();
            tracing::warn!(
                %data,
                free_bytes,
                needed_bytes,
                "the disk is nearly full: when this member leads, what makes the tree larger is refused. Make room there, \
                 or delete znodes; it goes on by itself"
            );
        } else {
            tracing::info!(%data, free_bytes, "there is room on the disk: the tree may grow");
        }
    }

    fn count_handed_over(&self) {
        self.inner.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn ask_free(&self) -> io::Result<u64> {
        if let Some(told) = &self.told_free {
            return Ok(told.load(Ordering::Relaxed));
        }
        let free = |dir: &Path| -> io::Result<u64> {
            let space = rustix::fs::statvfs(dir)?;
            Ok(space.f_frsize.saturating_mul(space.f_bavail))
        };
        // The log may lie on a disk of its own; before the first start it is not there.
        let log = self.data.join("log");
        Ok(if log.is_dir() { free(&self.data)?.min(free(&log)?) } else { free(&self.data)? })
    }
}

/// From so many free bytes on, what was refused is allowed again.
const fn again(least_bytes: u64) -> u64 {
    least_bytes.saturating_add(least_bytes / PART)
}

/// Starts what watches the disks: the one that looks for room, and the watchdog of the log's.
pub(crate) fn spawn(runtime: &tokio::runtime::Runtime, shared: &Arc<Shared>, storage: &Storage) {
    runtime.spawn(keep_looking(shared.room.clone()));
    runtime.spawn(watchdog::run(Arc::clone(shared), Duration::from_millis(storage.stalled_sync_ms)));
}

async fn keep_looking(room: Room) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        ticks.tick().await;
        let here = room.clone();
        let looked = match tokio::task::spawn_blocking(move || here.look()).await {
            Ok(looked) => looked,
            // The runtime is ending, or it panicked, and would again.
            Err(error) => return drop(error),
        };
        if let Err(error) = &looked
            && !failed
        {
            let data = room.inner.data.display();
            tracing::warn!(%data, %error, "how much is free is not told: growth stays as it was");
        }
        failed = looked.is_err();
    }
}

#[cfg(test)]
mod tests;
