//! Side streams of a client's connection: backups, subtrees, the members' health, changes of membership.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use conclave_core::{Fault, administers};
use conclave_link::{Connection, FrameError, FrameReader, FrameWriter, RecvStream, SendStream};
use conclave_protocol::{
    Backup, CHUNK_BYTES, Consistency, Path, Refusal, SIDE_FRAME_BYTES, SideMessage, SideRequest, Zxid, codec, sum,
};
use conclave_store::Checkpoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, interval, timeout};

use crate::cluster::{self, AdminAnswer, AdminRequest};
use crate::member::Shared;
use crate::plugins;
use crate::publish::Publisher;
use crate::read;
use crate::subtree::{self, Asked, Spool, Stopped, Wanted};

/// Backups that a member sends at a time: each reads a whole file from the disk that writes wait for.
const BACKUPS: usize = 1;
/// Subtrees that a member reads or sends at a time: each may take a file as large as the tree.
const SUBTREES: usize = 4;
/// Those of them that one principal may have; its further ones wait. Two, so that it can hold one tree against another.
const SUBTREES_EACH: usize = 2;
/// How long a client may take over its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How often a client is told that its request is worked on.
const WORKING_EVERY: Duration = Duration::from_secs(1);
/// How long this member may take to have everything that is committed, before the client is told that it has not: a
/// backup waits for its turn meanwhile.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// Bytes a second that a client takes at least, on the average, beyond that time: it holds a place that others wait for.
const LEAST_BYTES_PER_S: u64 = 64 << 10;

/// What a client is told when this member may be behind.
const NOT_CAUGHT_UP: &str = "no leader could be asked what is the latest";

/// What a member's side streams share.
#[derive(Debug)]
pub(crate) struct Desk {
    backups: Places,
    subtrees: Places,
}

impl Default for Desk {
    fn default() -> Self {
        Self { backups: Places::new(BACKUPS, BACKUPS), subtrees: Places::new(SUBTREES, SUBTREES_EACH) }
    }
}

/// How many side streams of a kind are served at a time: of all clients, and of each principal.
#[derive(Debug)]
struct Places {
    each: usize,
    all: Semaphore,
    own: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// One of them.
#[derive(Debug)]
struct Place<'a> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
}

impl Places {
    fn new(limit: usize, each: usize) -> Self {
        Self { each, all: Semaphore::new(limit), own: Mutex::default() }
    }

    /// A place for this principal, once it has less than its share and there is one: in the order that they were asked
    /// for. Others that have all are no reason to refuse: no watch would begin again after it.
    async fn admit(&self, principal: &Arc<str>) -> Place<'_> {
        let own = {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            // Of those who have no place and wait for none, nothing is kept.
            own.retain(|_, places| Arc::strong_count(places) > 1);
            Arc::clone(own.entry(Arc::clone(principal)).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let own = own.acquire_owned().await.expect("it is never closed");
        let all = self.all.acquire().await.expect("it is never closed");
        Place { _all: all, _own: own }
    }
}

/// How a client takes what it is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    bytes: u64,
    /// How long the stream was waited for.
    waited: Duration,
}

impl Pace {
    /// How long the client may take over what is sent next.
    fn patience(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / LEAST_BYTES_PER_S);
        (STALLED + earned).saturating_sub(self.waited).min(STALLED)
    }

    /// It took so many bytes, in this time.
    fn took(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }
}

/// Serves the side streams of a connection that was welcomed, until it ends. Dropped, it ends what is under way.
pub(crate) async fn accept(shared: Arc<Shared>, desk: Arc<Desk>, connection: Connection) {
    let principal: Arc<str> = connection.principal().uri().into();
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (shared, desk, principal) = (Arc::clone(&shared), Arc::clone(&desk), Arc::clone(&principal));
                    streams.spawn(async move {
                        let mut talk = Talk { writer: FrameWriter::new(send), pace: Pace::default() };
                        let served = talk.serve(&shared, &desk, &principal, FrameReader::new(receive)).await;
                        if let Err(error) = served {
                            tracing::debug!(%principal, %error, "a side stream ended early");
                        }
                    });
                }
                Err(_) => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Whether the principal may ask this: what shows the whole tree whoever may read what, and what changes the cluster, is
/// for those who administer the root. What a subtree shows is held against the access lists in it, znode by znode.
fn may(shared: &Shared, principal: &str, request: &SideRequest) -> Result<Result<(), Refusal>, Fault> {
    let action = match request {
        SideRequest::Health | SideRequest::Subtree { .. } | SideRequest::PluginStats { .. } => return Ok(Ok(())),
        // It may hold what others wrote.
        SideRequest::PluginLog { .. } => "read a plugin's log: that needs the right to administer",
        SideRequest::Backup { .. } => "back up the tree: that needs the right to administer",
        SideRequest::Cluster(_) => "change the cluster: that needs the right to administer",
    };
    if administers(&shared.store.snapshot()?, principal)? {
        return Ok(Ok(()));
    }
    let (principal, action) = (principal.to_owned(), action.to_owned());
    Ok(Err(Refusal::NotAllowed { principal, action, path: Path::root() }))
}

/// One side stream.
struct Talk {
    writer: FrameWriter<SendStream>,
    pace: Pace,
}

impl Talk {
    async fn serve(
        &mut self,
        shared: &Arc<Shared>,
        desk: &Desk,
        principal: &Arc<str>,
        mut reader: FrameReader<RecvStream>,
    ) -> Result<(), FrameError> {
        let Ok(frame) = timeout(REQUEST_WITHIN, reader.next(SIDE_FRAME_BYTES)).await else { return Ok(()) };
        let Some(frame) = frame? else { return Ok(()) };
        let request = match codec::decode::<SideRequest>(&frame) {
            Ok(request) => match may(shared, principal, &request) {
                Ok(may) => may.map(|()| request),
                Err(fault) => return self.faulty(shared, &fault).await,
            },
            Err(error) => Err(Refusal::BadRequest { why: error.to_string() }),
        };
        match request {
            Err(refusal) => self.say(&SideMessage::Refused { refusal }).await?,
            Ok(SideRequest::Backup { at_least }) => self.backup(shared, desk, principal, at_least).await?,
            Ok(SideRequest::Subtree { path, data, consistency, seen }) => {
                let asked = Asked { principal: Arc::clone(principal), path, data };
                self.subtree(shared, desk, asked, consistency, seen).await?;
            }
            Ok(SideRequest::Health) => {
                let health = cluster::health(shared).await;
                self.say(&SideMessage::Health(Box::new(health))).await?;
            }
            Ok(SideRequest::PluginStats { plugin }) => {
                let stats = plugins::stats(shared, plugin).await;
                self.say(&SideMessage::PluginStats(stats)).await?;
            }
            Ok(SideRequest::PluginLog { plugin, after }) => match plugins::log(shared, plugin, after).await {
                Ok((member, lines)) => self.say(&SideMessage::PluginLog { member, lines }).await?,
                Err(why) => self.failed(why).await?,
            },
            Ok(SideRequest::Cluster(what)) => {
                let request = AdminRequest { principal: principal.to_string(), what };
                let asked = Arc::clone(shared);
                // On a task of its own: what was begun is not broken off because the client went.
                let asked = tokio::spawn(async move { cluster::ask_leader(&asked, request).await });
                let answer = self.working(asked).await?;
                self.say(&message(answer.unwrap_or_else(|error| AdminAnswer::Failed(error.to_string())))).await?;
            }
        }
        // Fails only where the client has gone.
        drop(self.writer.stream_mut().finish());
        Ok(())
    }

    async fn say(&mut self, message: &SideMessage) -> Result<(), FrameError> {
        self.writer.push_bytes(codec::encode(message).into())?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), FrameError> {
        let stalled = |_| FrameError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client takes nothing"));
        let (bytes, began) = (self.writer.pending(), Instant::now());
        timeout(self.pace.patience(), self.writer.flush()).await.map_err(stalled)??;
        self.pace.took(bytes, began.elapsed());
        Ok(())
    }

    /// Waits for something that may take long, and tells the client so; fails when the client has gone.
    async fn working<T>(&mut self, work: impl Future<Output = T>) -> Result<T, FrameError> {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(WORKING_EVERY);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                _ = ticks.tick() => self.say(&SideMessage::Working).await?,
            }
        }
    }

    async fn backup(
        &mut self,
        shared: &Arc<Shared>,
        desk: &Desk,
        principal: &Arc<str>,
        at_least: Zxid,
    ) -> Result<(), FrameError> {
        let _one = self.working(desk.backups.admit(principal)).await?;
        // What this member has not applied can't be in its checkpoint.
        if let Err(stopped) = self.reached(shared, at_least).await? {
            return self.stopped(shared, stopped).await;
        }
        match self.working(shared.checkpointer.fresh(at_least)).await? {
            Ok(checkpoint) => self.send(checkpoint).await,
            Err(why) => self.say(&SideMessage::Failed { why, unknown: false }).await,
        }
    }

    async fn send(&mut self, checkpoint: Checkpoint) -> Result<(), FrameError> {
        let backup = Backup {
            cluster: checkpoint.cluster().to_owned(),
            zxid: checkpoint.zxid(),
            digest: format!("{:032x}", checkpoint.local().digest),
            bytes: checkpoint.bytes(),
            rows: checkpoint.rows(),
        };
        let bytes = backup.bytes;
        tracing::info!(zxid = %backup.zxid, bytes, "a backup is being sent");
        self.say(&SideMessage::Backup(backup)).await?;
        let mut at = 0;
        // One chunk is read while the one before it is sent: nothing else is held.
        let mut next = read(&checkpoint, at);
        while at < bytes {
            let chunk = match next.await {
                Ok(Ok(chunk)) if !chunk.is_empty() => chunk,
                Ok(Ok(_)) => return self.failed(format!("the checkpoint ends at byte {at} of {bytes}")).await,
                Ok(Err(error)) => return self.failed(format!("the checkpoint can't be read: {error}")).await,
                Err(error) => return self.failed(error.to_string()).await,
            };
            at += chunk.len() as u64;
            next = read(&checkpoint, at);
            self.say(&SideMessage::Chunk { sum: sum(&chunk), bytes: chunk }).await?;
        }
        self.say(&SideMessage::End { bytes }).await
    }

    async fn subtree(
        &mut self,
        shared: &Arc<Shared>,
        desk: &Desk,
        asked: Asked,
        consistency: Consistency,
        seen: Zxid,
    ) -> Result<(), FrameError> {
        let _one = self.working(desk.subtrees.admit(&asked.principal)).await?;
        if let Err(stopped) = self.reached(shared, seen).await? {
            return self.stopped(shared, stopped).await;
        }
        if !read::is_fresh(shared, consistency) && !self.working(catch_up(shared)).await? {
            return self.failed(NOT_CAUGHT_UP.to_owned()).await;
        }
        // Dropped with this when the client goes: then the reading ends too.
        let wanted = Wanted::default();
        let (here, over) = (Arc::clone(shared), wanted.over());
        let read = spawn_blocking(move || subtree::read(&here, &asked, &over));
        match self.working(read).await? {
            Ok(Ok(spool)) => self.send_subtree(spool).await,
            Ok(Err(stopped)) => self.stopped(shared, stopped).await,
            Err(error) => self.failed(error.to_string()).await,
        }
    }

    async fn send_subtree(&mut self, mut spool: Spool) -> Result<(), FrameError> {
        let znodes = spool.znodes;
        tracing::debug!(zxid = %spool.zxid, znodes, "a subtree is being sent");
        self.say(&SideMessage::Subtree { zxid: spool.zxid }).await?;
        loop {
            let taken = spawn_blocking(move || spool.take().map(|messages| (spool, messages))).await;
            let messages = match taken {
                Ok(Ok((rest, messages))) => {
                    spool = rest;
                    messages
                }
                Ok(Err(error)) => return self.failed(format!("what was read can't be read again: {error}")).await,
                Err(error) => return self.failed(error.to_string()).await,
            };
            if messages.is_empty() {
                return self.say(&SideMessage::End { bytes: znodes }).await;
            }
            for message in messages {
                self.writer.push_bytes(message)?;
            }
            self.flush().await?;
        }
    }

    /// Waits until this member has what the client names.
    async fn reached(&mut self, shared: &Shared, at_least: Zxid) -> Result<Result<(), Stopped>, FrameError> {
        self.working(reached(&shared.publisher, at_least, catch_up(shared))).await
    }

    async fn stopped(&mut self, shared: &Shared, stopped: Stopped) -> Result<(), FrameError> {
        match stopped {
            Stopped::Refused(refusal) => self.say(&SideMessage::Refused { refusal }).await,
            Stopped::Failed(why) => self.failed(why).await,
            Stopped::Fault(fault) => self.faulty(shared, &fault).await,
            Stopped::Unwanted => Ok(()),
        }
    }

    async fn failed(&mut self, why: String) -> Result<(), FrameError> {
        tracing::warn!(why, "a side stream came to nothing");
        self.say(&SideMessage::Failed { why, unknown: false }).await
    }

    /// A fault is no answer: this member stops.
    async fn faulty(&mut self, shared: &Shared, fault: &Fault) -> Result<(), FrameError> {
        shared.fault_of(fault);
        self.say(&SideMessage::Failed { why: "this member stops".to_owned(), unknown: false }).await
    }
}

/// Has everything here that is committed now; false when that takes too long, or no leader can be asked.
async fn catch_up(shared: &Shared) -> bool {
    timeout(REACHED_WITHIN, read::catch_up(shared)).await.unwrap_or(false)
}

/// Waits until this member has applied a transaction. Only once everything is here that was committed when it was asked
/// for, a later one is one that nobody has seen.
async fn reached(publisher: &Publisher, at_least: Zxid, catch_up: impl Future<Output = bool>) -> Result<(), Stopped> {
    if publisher.published() >= at_least {
        return Ok(());
    }
    if !catch_up.await {
        return Err(Stopped::Failed(NOT_CAUGHT_UP.to_owned()));
    }
    match publisher.published() {
        last if last < at_least => Err(Stopped::Refused(Refusal::FutureZxid { zxid: at_least, last })),
        _ => Ok(()),
    }
}

/// Reads a chunk; nothing at the end of the file.
fn read(checkpoint: &Checkpoint, at: u64) -> tokio::task::JoinHandle<std::io::Result<Bytes>> {
    let checkpoint = checkpoint.clone();
    spawn_blocking(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut filled = 0;
        while filled < chunk.len() {
            match checkpoint.read_at(at + filled as u64, &mut chunk[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        chunk.truncate(filled);
        Ok(chunk.into())
    })
}

fn message(answer: AdminAnswer) -> SideMessage {
    match answer {
        AdminAnswer::Done => SideMessage::Done,
        AdminAnswer::Declined(refusal) => SideMessage::Declined(refusal),
        AdminAnswer::NotLeader { .. } => SideMessage::Declined(conclave_protocol::ClusterRefusal::NoLeader),
        AdminAnswer::Failed(why) => SideMessage::Failed { why, unknown: true },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_core::memory::MemTables;

    use super::*;

    #[tokio::test]
    async fn what_a_member_does_not_have_is_refused_only_when_nobody_has_it() {
        let publisher = Publisher::new(Zxid(0));
        reached(&publisher, Zxid(0), std::future::pending()).await.unwrap();
        // Cut off from the others, this member can't tell: the transaction may have been committed there.
        let failed = reached(&publisher, Zxid(1), async { false }).await;
        assert!(matches!(failed, Err(Stopped::Failed(_))), "{failed:?}");
        let brought = async {
            publisher.installed(&MemTables::with_root("test", Vec::new()).unwrap()).unwrap();
            true
        };
        reached(&publisher, Zxid(1), brought).await.unwrap();
        let refused = reached(&publisher, Zxid(u64::MAX), async { true }).await;
        let future = Refusal::FutureZxid { zxid: Zxid(u64::MAX), last: Zxid(1) };
        assert!(matches!(&refused, Err(Stopped::Refused(refusal)) if *refusal == future), "{refused:?}");
    }

    #[tokio::test]
    async fn one_principal_has_its_share_of_the_places_and_what_has_none_waits() {
        let places = Places::new(4, 2);
        let [alice, bob, carol]: [Arc<str>; 3] = ["alice", "bob", "carol"].map(Into::into);
        let first = places.admit(&alice).await;
        let second = places.admit(&alice).await;
        let mut third = std::pin::pin!(places.admit(&alice));
        assert!(futures::poll!(&mut third).is_pending(), "alice has three of four places");
        let bobs = [places.admit(&bob).await, places.admit(&bob).await];
        let mut carols = std::pin::pin!(places.admit(&carol));
        assert!(futures::poll!(&mut carols).is_pending(), "there are five of four places");
        drop(first);
        assert!(futures::poll!(&mut third).is_pending(), "alice took the place that carol waits for");
        let carols = carols.await;
        drop(second);
        let third = third.await;
        drop((third, bobs, carols));
        let _one = places.admit(&carol).await;
        assert_eq!(places.own.lock().unwrap().len(), 1, "something is kept of who has no place");
    }

    #[test]
    fn a_client_that_trickles_is_given_up_and_one_that_takes_enough_is_not() {
        let second = Duration::from_secs(1);
        let mut trickles = Pace::default();
        let mut seconds = 0;
        while trickles.patience() > Duration::ZERO {
            trickles.took(1_024, second);
            seconds += 1;
        }
        assert_eq!(seconds, 31, "it was given a second for each 64 KiB, beside the first 30");
        let mut enough = Pace::default();
        for _ in 0..100_000 {
            enough.took(64 << 10, second);
        }
        assert_eq!(enough.patience(), STALLED);
        let mut fast = Pace::default();
        fast.took(4 << 30, second);
        assert_eq!(fast.patience(), STALLED, "what was taken fast is no leave to take nothing");
    }
}
