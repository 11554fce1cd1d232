//! Watches: a bounded queue of events between the driver and whoever reads them.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use conclave_protocol::{Change, Path, PathError, Scope, WatchId, WatchRequest, Zxid};
use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::builder::ToPath;
use crate::client::Client;
use crate::driver::Command;
use crate::error::{Error, Outcome, Result};

/// Changes that may wait for a slow reader; beyond, it gets [`WatchEvent::Resync`] instead of them.
const WAITING: usize = 10_000;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// One transaction's changes that the watch matches, in order. Transactions come in the order of their zxids.
    Changes {
        /// The transaction's.
        zxid: Zxid,
        /// At least one.
        changes: Vec<Change>,
    },
    /// Changes up to this zxid are not told: the cluster does not keep them any more, or they came faster than they
    /// were read. Read the present state; later changes are told.
    Resync {
        /// Up to where.
        zxid: Zxid,
    },
}

/// Begins a watch; made by [`Client::watch`].
#[derive(Clone, Debug)]
#[must_use = "a watch does not begin until it is awaited"]
pub struct WatchBuilder {
    client: Client,
    path: Result<Path, PathError>,
    scope: Scope,
    once: bool,
    since: Option<Zxid>,
    within: Option<Duration>,
}

impl WatchBuilder {
    pub(crate) fn new(client: Client, path: impl ToPath) -> Self {
        Self { client, path: path.to_path(), scope: Scope::Data, once: false, since: None, within: None }
    }

    /// The znode itself: created, data set, deleted. The default.
    pub fn data(mut self) -> Self {
        self.scope = Scope::Data;
        self
    }

    /// Which children are created and deleted, and its own deletion.
    pub fn children(mut self) -> Self {
        self.scope = Scope::Children;
        self
    }

    /// The znode and everything below it.
    pub fn subtree(mut self) -> Self {
        self.scope = Scope::Subtree;
        self
    }

    /// Ends with its first event.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Every change after this zxid, those that happened already first. Without it: from the moment it stands.
    pub fn since(mut self, zxid: Zxid) -> Self {
        self.since = Some(zxid);
        self
    }

    /// The time that beginning may take, instead of the options' request timeout.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl IntoFuture for WatchBuilder {
    type Output = Result<Watch>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, path, scope, once, since, within } = self;
            let id = client.next_watch();
            let request = WatchRequest { watch: id, path: path?, scope, once, since };
            let queue = Arc::new(Queue::new(once));
            let (reply, done) = oneshot::channel();
            let within = within.unwrap_or_else(|| client.request_timeout());
            // Made before it stands, so that a future that is dropped half-way takes it back.
            let mut watch = Watch { client, id, zxid: Zxid(0), queue: Arc::clone(&queue) };
            watch.client.command(Command::Watch { request, queue, within, reply })?;
            let done = done.await.unwrap_or(Err(Error::Closed { outcome: Outcome::NotApplied }))?;
            watch.zxid = since.unwrap_or(done.zxid);
            Ok(watch)
        })
    }
}

/// A standing watch: a stream of [`WatchEvent`]s, without gap or repetition, in order.
///
/// It outlives connections and members: after a break it goes on from the last zxid that it told. An event is in this
/// stream before any later reply reaches its caller. A reader that falls behind gets [`WatchEvent::Resync`]. Dropping it
/// ends the watch.
///
/// ```no_run
/// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
/// use conclave_client::WatchEvent;
///
/// let listing = client.at("/app").children().await?;
/// let mut watch = client.watch("/app").children().since(listing.zxid).await?;
/// while let Some(event) = watch.next().await {
///     match event? {
///         WatchEvent::Changes { zxid, changes } => println!("{zxid}: {changes:?}"),
///         WatchEvent::Resync { .. } => println!("read /app again"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Watch {
    client: Client,
    id: WatchId,
    zxid: Zxid,
    queue: Arc<Queue>,
}

impl Watch {
    /// Every matching change after this zxid is told.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next event; none when the watch has ended: one that was [`WatchBuilder::once`] after its event, any after an
    /// error or when the client is closed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the watch may not go on after a reconnect. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<WatchEvent>> {
        std::future::poll_fn(|cx| self.queue.poll(cx)).await
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.unwatch(self.id);
    }
}

/// What the driver puts in and the reader takes out. Never blocks the driver: what does not fit becomes a `Resync`.
#[derive(Debug)]
pub(crate) struct Queue {
    once: bool,
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<(Zxid, Vec<Change>)>,
    /// How many changes `events` holds.
    changes: usize,
    /// Told after `events`: what did not fit, up to where.
    resync: Option<Zxid>,
    /// Told last.
    end: Option<Option<Error>>,
    reader: Option<Waker>,
}

impl Queue {
    pub(crate) fn new(once: bool) -> Self {
        Self { once, state: Mutex::default() }
    }

    /// Adds a transaction's changes.
    pub(crate) fn push(&self, zxid: Zxid, changes: Vec<Change>) {
        let mut state = self.lock();
        if let Some(resync) = &mut state.resync {
            *resync = zxid;
        } else if state.changes > 0 && state.changes + changes.len() > WAITING {
            // What waits is still true and in order; only what comes now is left out.
            state.resync = Some(zxid);
        } else {
            state.changes += changes.len();
            state.events.push_back((zxid, changes));
        }
        self.told(state);
    }

    /// Says that changes up to this zxid are not told.
    pub(crate) fn resync(&self, zxid: Zxid) {
        let mut state = self.lock();
        state.resync = Some(zxid);
        self.told(state);
    }

    /// Nothing more will come, because of this.
    pub(crate) fn end(&self, error: Option<Error>) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(error);
        }
        wake(state);
    }

    fn told(&self, mut state: MutexGuard<'_, Waiting>) {
        if self.once && state.end.is_none() {
            state.end = Some(None);
        }
        wake(state);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<WatchEvent>>> {
        let mut state = self.lock();
        if let Some((zxid, changes)) = state.events.pop_front() {
            state.changes -= changes.len();
            return Poll::Ready(Some(Ok(WatchEvent::Changes { zxid, changes })));
        }
        if let Some(zxid) = state.resync.take() {
            return Poll::Ready(Some(Ok(WatchEvent::Resync { zxid })));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(end.take().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, Waiting>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_protocol::ChangeKind;

    use super::*;

    fn change() -> Change {
        Change { kind: ChangeKind::Data, path: Path::root(), version: 1 }
    }

    async fn next(queue: &Queue) -> Option<Result<WatchEvent>> {
        std::future::poll_fn(|cx| queue.poll(cx)).await
    }

    #[tokio::test]
    async fn a_slow_reader_gets_what_waits_then_resync_then_what_comes_later() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change(); WAITING - 1]);
        queue.push(Zxid(2), vec![change()]);
        queue.push(Zxid(3), vec![change()]);
        queue.push(Zxid(4), vec![change()]);
        let zxid = |event| match event {
            Some(Ok(WatchEvent::Changes { zxid, .. })) => zxid,
            other => panic!("{other:?}"),
        };
        assert_eq!(zxid(next(&queue).await), Zxid(1));
        queue.push(Zxid(5), vec![change()]);
        assert_eq!(zxid(next(&queue).await), Zxid(2));
        assert_eq!(next(&queue).await.unwrap().unwrap(), WatchEvent::Resync { zxid: Zxid(5) });
        queue.push(Zxid(6), vec![change()]);
        assert_eq!(zxid(next(&queue).await), Zxid(6));
    }

    #[tokio::test]
    async fn a_transaction_larger_than_the_queue_is_told_to_a_reader_that_keeps_up() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change(); 2 * WAITING]);
        assert!(matches!(next(&queue).await, Some(Ok(WatchEvent::Changes { .. }))));
    }

    #[tokio::test]
    async fn a_watch_for_one_event_ends_after_it() {
        let queue = Queue::new(true);
        queue.push(Zxid(1), vec![change()]);
        assert!(next(&queue).await.is_some());
        assert!(next(&queue).await.is_none());
        assert!(next(&queue).await.is_none());
    }

    #[tokio::test]
    async fn an_error_is_told_once_and_after_the_events() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change()]);
        queue.end(Some(Error::Closed { outcome: Outcome::NotApplied }));
        queue.end(None);
        assert!(next(&queue).await.unwrap().is_ok());
        assert!(next(&queue).await.unwrap().is_err());
        assert!(next(&queue).await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let queue = Arc::new(Queue::new(false));
        let reader = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { next(&queue).await }
        });
        tokio::task::yield_now().await;
        queue.push(Zxid(1), vec![change()]);
        assert!(reader.await.unwrap().is_some());
    }
}
