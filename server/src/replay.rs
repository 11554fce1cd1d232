//! Watches that resume: told of the past first, out of the history, without a gap or a repeat, at the client's pace.
//!
//! All that a connection resumes at a time is read in one pass over the history, page by page on a thread that may
//! block; only the last few transactions are told under the publisher's lock, and from there on the watches stand. The
//! connection's other requests go on meanwhile; their replies leave after those of the watches, as always.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave_core::query::{self, History};
use conclave_core::view::Base;
use conclave_core::{Fault, history};
use conclave_protocol::limits::Limits;
use conclave_protocol::{Answer, PushBack, Refusal, RequestId, ServerMessage, WatchId, WatchRequest, Zxid};
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::member::Shared;
use crate::outbox::{Out, Outbox};
use crate::publish::{HISTORY_PAGE, Publisher, Telling};
use crate::read;
use crate::watches::{ConnectionId, Watches};

/// Transactions that are left when the rest is told while the publisher's lock is held, at most.
const LOCKED: u64 = 64;
/// The same for transactions times watches; a single transaction is told there whatever there are of those.
const LOCKED_LOOKS: u64 = 100_000;
/// How long this member may take to have everything that is committed, before a watch that goes on from there is pushed
/// back.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);
/// Watches of one pass: enough for any client, and the next pass takes the rest.
const PASS: usize = 100_000;

/// What a replay needs of its member.
#[derive(Clone)]
pub(crate) struct Past {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) limits: Limits,
    /// The applied state.
    pub(crate) snapshot: Arc<dyn Fn() -> Result<Box<dyn Base>, Fault> + Send + Sync>,
    /// Waits until this member has applied and published everything that was committed; false when no leader could be
    /// asked.
    pub(crate) catch_up: Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    /// How many may read it at a time.
    pub(crate) readers: Arc<Semaphore>,
    /// Told of faults: this member stops.
    pub(crate) fault: Arc<dyn Fn(&Fault) + Send + Sync>,
}

impl Past {
    /// That of a member.
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        let (here, asked, faulty) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
        Self {
            publisher: Arc::clone(&shared.publisher),
            limits: shared.limits,
            snapshot: Arc::new(move || Ok(Box::new(here.store.snapshot()?))),
            catch_up: Arc::new(move || {
                let asked = Arc::clone(&asked);
                Box::pin(async move { timeout(CAUGHT_UP_WITHIN, read::catch_up(&asked)).await.unwrap_or(false) })
            }),
            readers: Arc::clone(&shared.replays),
            fault: Arc::new(move |fault| faulty.fault_of(fault)),
        }
    }
}

/// A request that resumes a watch.
struct Start {
    id: RequestId,
    request: WatchRequest,
}

/// Watches that are being resumed, by the requests that asked for it. One that is missing is not wanted any more.
#[derive(Debug, Default)]
struct Wanted(Mutex<HashMap<WatchId, Resumed>>);

#[derive(Clone, Copy, Debug)]
struct Resumed {
    by: RequestId,
    has_pattern: bool,
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, HashMap<WatchId, Resumed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's watches that are being resumed. Dropped, it ends that.
pub(crate) struct Replays {
    wanted: Arc<Wanted>,
    starts: mpsc::UnboundedSender<Start>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Replays {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replays {
    /// Of this connection.
    pub(crate) fn new(past: Past, connection: ConnectionId, outbox: Outbox) -> Self {
        let (starts, here) = mpsc::unbounded_channel();
        let wanted = Arc::<Wanted>::default();
        let replayer = Replayer { past, connection, outbox, wanted: Arc::clone(&wanted) };
        Self { wanted, starts, task: tokio::spawn(replayer.run(here)) }
    }

    /// Resumes a watch; the request is answered when it stands.
    pub(crate) fn start(&self, id: RequestId, request: WatchRequest) {
        self.wanted.lock().insert(request.watch, Resumed { by: id, has_pattern: request.names.is_some() });
        // Its end is that of the connection.
        drop(self.starts.send(Start { id, request }));
    }

    /// This watch is not wanted any more; false when it is not being resumed. One that stands already is ended by the
    /// publisher, which has to be told after this.
    pub(crate) fn cancel(&self, watch: WatchId) -> bool {
        self.wanted.lock().remove(&watch).is_some()
    }

    /// How many are being resumed.
    pub(crate) fn count(&self) -> usize {
        self.wanted.lock().len()
    }

    /// How many of them have a pattern.
    pub(crate) fn patterns(&self) -> usize {
        self.wanted.lock().values().filter(|resumed| resumed.has_pattern).count()
    }
}

struct Replayer {
    past: Past,
    connection: ConnectionId,
    outbox: Outbox,
    wanted: Arc<Wanted>,
}

impl Replayer {
    async fn run(self, mut starts: mpsc::UnboundedReceiver<Start>) {
        let mut pass = Vec::new();
        // A watch that is started anew meanwhile takes the place of the one before.
        while starts.recv_many(&mut pass, PASS).await > 0 {
            self.pass(std::mem::take(&mut pass)).await;
        }
    }

    /// Starts these watches, and answers them.
    async fn pass(&self, mut starts: Vec<Start>) {
        self.refuse_beyond(&mut starts).await;
        let mut replay = Replay {
            past: self.past.clone(),
            connection: self.connection,
            outbox: self.outbox.clone(),
            wanted: Arc::clone(&self.wanted),
            ids: starts.iter().map(|start| (start.request.watch, start.id)).collect(),
            watches: Watches::default(),
            told: Zxid(0),
        };
        for start in &starts {
            let after = start.request.since.unwrap_or_else(|| self.past.publisher.published());
            replay.watches.add(self.connection, &start.request, after);
        }
        replay.told = replay.watches.least_after().unwrap_or_default();
        loop {
            self.outbox.queued.room(&self.past.limits).await;
            let permit = Arc::clone(&self.past.readers).acquire_owned().await;
            let page = spawn_blocking(move || {
                let _permit = permit;
                replay.go_on()
            });
            match page.await {
                Ok(Ok(Progress::Further(further))) => replay = *further,
                Ok(Ok(Progress::Done(zxid))) => return self.answer(&starts, zxid),
                Ok(Err(fault)) => {
                    (self.past.fault)(&fault);
                    starts.iter().for_each(|start| self.push_back(start));
                    return;
                }
                // It panicked, or the runtime is ending.
                Err(error) => {
                    tracing::error!(%error, "watches can't be resumed");
                    starts.iter().for_each(|start| self.push_back(start));
                    return;
                }
            }
        }
    }

    /// Takes those out that go on from what this member has not published: if it has not been, once everything is here
    /// that was committed when they were asked for, nobody has ever seen it.
    async fn refuse_beyond(&self, starts: &mut Vec<Start>) {
        let is_beyond = |start: &Start, published| start.request.since.is_some_and(|since| since > published);
        let published = self.past.publisher.published();
        if !starts.iter().any(|start| is_beyond(start, published)) {
            return;
        }
        let caught_up = (self.past.catch_up)().await;
        let published = self.past.publisher.published();
        starts.retain(|start| {
            let Some(zxid) = start.request.since.filter(|since| *since > published) else { return true };
            if caught_up {
                let answer = Err(Refusal::FutureZxid { zxid, last: published });
                self.outbox.send(Out::Fill(start.id, ServerMessage::Answer { id: start.id, zxid: published, answer }));
            } else {
                self.push_back(start);
            }
            self.forget(start);
            false
        });
    }

    fn answer(&self, starts: &[Start], zxid: Zxid) {
        for Start { id, .. } in starts {
            let message = ServerMessage::Answer { id: *id, zxid, answer: Ok(Answer::Watching) };
            self.outbox.send(Out::Fill(*id, message));
        }
    }

    fn push_back(&self, start: &Start) {
        self.forget(start);
        let message = ServerMessage::PushBack { id: start.id, why: PushBack::NotReady };
        self.outbox.send(Out::Fill(start.id, message));
    }

    fn forget(&self, start: &Start) {
        let mut wanted = self.wanted.lock();
        if wanted.get(&start.request.watch).is_some_and(|resumed| resumed.by == start.id) {
            wanted.remove(&start.request.watch);
        }
    }
}

/// A pass over the history.
struct Replay {
    past: Past,
    connection: ConnectionId,
    outbox: Outbox,
    wanted: Arc<Wanted>,
    /// Which requests its watches are of.
    ids: HashMap<WatchId, RequestId>,
    /// Those that are to be told of the past.
    watches: Watches,
    /// Everything up to here is told.
    told: Zxid,
}

enum Progress {
    /// There is more to tell.
    Further(Box<Replay>),
    /// They stand, from this zxid on.
    Done(Zxid),
}

impl Replay {
    /// Tells a page; or the last transactions, and lets the watches stand.
    fn go_on(mut self) -> Result<Progress, Fault> {
        let publisher = Arc::clone(&self.past.publisher);
        self.drop_unwanted();
        let end = publisher.published();
        if !self.is_near(end, 1) {
            self.page(end, true)?;
            return Ok(Progress::Further(Box::new(self)));
        }
        let adopted = publisher.adopt(self.connection, |published| {
            // What came since the look above is small, or it is told without the lock too.
            if !self.is_near(published, 2) {
                return Ok(None);
            }
            while self.told < published {
                self.page(published, false)?;
            }
            // Under the lock: from now on the publisher ends what is not wanted.
            self.drop_unwanted();
            let mut wanted = self.wanted.lock();
            self.ids.iter().for_each(|(watch, id)| {
                if wanted.get(watch).is_some_and(|resumed| resumed.by == *id) {
                    wanted.remove(watch);
                }
            });
            Ok::<_, Fault>(Some(std::mem::take(&mut self.watches)))
        })?;
        Ok(adopted.map_or_else(|| Progress::Further(Box::new(self)), Progress::Done))
    }

    /// Whether what is left up to here is little enough, so many times over, to be told under the publisher's lock.
    fn is_near(&self, end: Zxid, times: u64) -> bool {
        let left = end.0.saturating_sub(self.told.0);
        let looks = left.saturating_mul(self.watches.len() as u64);
        left <= times || left <= times * LOCKED && looks <= times * LOCKED_LOOKS
    }

    fn drop_unwanted(&mut self) {
        let (wanted, ids) = (self.wanted.lock(), &self.ids);
        self.watches.retain(|(_, watch)| wanted.get(&watch).map(|resumed| &resumed.by) == ids.get(&watch));
    }

    /// Tells what happened after `told`: at most a page, and nothing after `end`. With `paced` it stops when enough
    /// events wait; without, whoever would be told more is to read the state at `end`.
    fn page(&mut self, end: Zxid, paced: bool) -> Result<(), Fault> {
        if self.watches.len() == 0 {
            self.told = self.told.max(end);
            return Ok(());
        }
        let base = (self.past.snapshot)()?;
        let (transactions, upto) = match query::history(&*base, self.told, HISTORY_PAGE)? {
            History::TooShort { last } => {
                let kept_after = history::lost(&*base, last)?;
                self.resync(kept_after, end);
                return Ok(());
            }
            History::Kept { transactions, upto, .. } => (transactions, upto),
        };
        let mut telling = Telling::new(&*base);
        let Self { past, outbox, watches, .. } = self;
        for (zxid, changes) in transactions.into_iter().take_while(|(zxid, _)| *zxid <= end) {
            let principal = &outbox.principal;
            let mut left_out = Vec::new();
            telling.tell(
                watches,
                zxid,
                &changes,
                |_| Some(Arc::clone(principal)),
                |watcher, body| {
                    if !paced && outbox.queued.is_full(&past.limits) {
                        left_out.push(watcher);
                    } else {
                        outbox.event(watcher.1, body, zxid);
                    }
                },
            )?;
            for watcher in left_out {
                outbox.event(watcher.1, None, end);
                watches.told(watcher, end);
            }
            self.told = zxid;
            if paced && outbox.queued.is_full(&past.limits) {
                return Ok(());
            }
        }
        self.told = upto.min(end).max(self.told);
        Ok(())
    }

    /// What is not after this zxid is not kept: all who would have been told of any of it are to read the state at `end`.
    fn resync(&mut self, kept_after: Zxid, end: Zxid) {
        for watcher in self.watches.behind(kept_after) {
            self.outbox.event(watcher.1, None, end);
            self.watches.told(watcher, end);
        }
        self.told = self.watches.least_after().unwrap_or(end).min(end);
    }
}

#[cfg(test)]
mod tests;
