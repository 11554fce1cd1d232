//! Watches: streams of changes, resumable, with the present state first if that is wanted.

mod bookmark;
mod builder;
mod queue;
mod snapshot;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use conclave_protocol::{Change, Present, TreeEntry, WatchId, Zxid};
use futures::stream::{BoxStream, Stream, StreamExt};

use crate::client::Client;
use crate::error::Result;
use snapshot::Snapshot;

pub use bookmark::{Bookmark, ParseBookmarkError};
pub use builder::WatchBuilder;
pub(crate) use queue::Queue;

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
        /// With [`WatchBuilder::with_data`]: of each of these changes what the znode holds at the time of telling, which
        /// is that transaction or a later one; none when it is gone then, or may not be read. Otherwise empty.
        present: Vec<Option<Present>>,
    },
    /// Changes up to this zxid are not told: the cluster does not keep them any more, or they came faster than they
    /// were read. Read the present state; later changes are told. (Not with [`WatchBuilder::snapshot`], which reads it
    /// by itself.)
    Resync {
        /// Up to where.
        zxid: Zxid,
    },
    /// A part of the present state of what is watched; all parts are of one zxid, and every change after it follows.
    Snapshot {
        /// Of which state.
        zxid: Zxid,
        /// Its number. 0 begins a snapshot: forget what was told before, also the parts of an unfinished one.
        part: u64,
        /// The next znodes, parents before children; perhaps none. With [`WatchBuilder::with_data`] they have their data.
        entries: Vec<TreeEntry>,
        /// More parts follow. If not, what was told since part 0 is the whole.
        more: bool,
    },
}

/// A standing watch: a stream of [`WatchEvent`]s, without gap or repetition, in order.
///
/// It outlives connections and members: after a break it goes on from the last zxid that it told. An event is in this
/// stream before any later reply reaches its caller. A reader that falls behind gets [`WatchEvent::Resync`], or a new
/// snapshot: what waits for it is bounded, by 10,000 changes and 16 MiB. Dropping it ends the watch.
///
/// ```
/// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
/// use conclave_client::WatchEvent;
///
/// let listing = client.at("/app").children().await?;
/// # let stat = client.at("/app/a").create("").await?.stat;
/// let mut watch = client.watch("/app").children().since(listing.zxid).await?;
/// while let Some(event) = watch.next().await {
///     match event? {
///         WatchEvent::Changes { zxid, changes, .. } => {
///             println!("{zxid}: {changes:?}");
/// #           assert_eq!((zxid, changes.len()), (stat.created, 1));
/// #           return Ok(());
///         }
///         WatchEvent::Resync { .. } => println!("read /app again"),
///         _ => {}
///     }
/// }
/// # Err("the watch ended".into()) }
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # client.at("/app").create("").await?;
/// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
/// # Ok(()) }
/// ```
pub struct Watch {
    client: Client,
    id: WatchId,
    begun: Zxid,
    /// The last zxid that was told, or is in the snapshot that was told or is being told.
    told: Zxid,
    queue: Arc<Queue>,
    snapshot: Option<Snapshot>,
    /// The snapshot that is being told.
    parts: Option<BoxStream<'static, Result<WatchEvent>>>,
    /// It ends with the first changes that it tells.
    once: bool,
    ended: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("id", &self.id).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Watch {
    /// Every matching change after this zxid is told, or is in the first snapshot.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.begun
    }

    /// Where it stands: a watch that [resumes](WatchBuilder::resume) from it goes on after what this one has told. None
    /// while a snapshot is being told, of which the rest would be missing.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        let cluster = self.client.peer()?.cluster;
        self.is_told().then_some(Bookmark { zxid: self.told, cluster })
    }

    /// The next event; none when the watch has ended: one that was [`WatchBuilder::once`] after its event, any after an
    /// error or when the client is closed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) when the watch may not go on after a reconnect. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<WatchEvent>> {
        StreamExt::next(self).await
    }

    /// Begins a new snapshot, if this watch takes any: what waits is told after it as far as it is newer.
    pub(crate) fn take_snapshot(&mut self) {
        self.parts = self.snapshot.as_ref().map(|snapshot| snapshot.parts(self.told));
    }

    /// No snapshot is being told: what was told is a whole state.
    pub(crate) const fn is_told(&self) -> bool {
        self.parts.is_none()
    }

    /// The next event that is there already, without waiting.
    pub(crate) fn ready(&mut self) -> Option<Option<Result<WatchEvent>>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(self).poll_next(&mut cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    /// What an event of the queue means; none when it is told already.
    fn told(&mut self, event: WatchEvent) -> Option<WatchEvent> {
        match event {
            WatchEvent::Changes { zxid, .. } | WatchEvent::Resync { zxid } if zxid <= self.told => None,
            WatchEvent::Changes { zxid, changes, present } => {
                self.told = zxid;
                let (changes, present) = self.client.names().changes(changes, present);
                (!changes.is_empty()).then_some(WatchEvent::Changes { zxid, changes, present })
            }
            WatchEvent::Resync { zxid } => {
                self.told = zxid;
                self.take_snapshot();
                self.parts.is_none().then_some(WatchEvent::Resync { zxid })
            }
            WatchEvent::Snapshot { .. } => None,
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.ended {
            if let Some(parts) = &mut this.parts {
                let part = ready!(parts.poll_next_unpin(cx));
                if let Some(Ok(WatchEvent::Snapshot { zxid, more, .. })) = &part {
                    this.told = *zxid;
                    if !more {
                        this.parts = None;
                    }
                }
                this.ended = !matches!(part, Some(Ok(_)));
                return Poll::Ready(part);
            }
            match ready!(this.queue.poll(cx)) {
                Some(Ok(event)) => {
                    if let Some(event) = this.told(event) {
                        if this.once && matches!(event, WatchEvent::Changes { .. }) {
                            this.ended = true;
                            this.client.unwatch(this.id);
                        }
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(this.client.names().error(error))));
                }
                None => this.ended = true,
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.unwatch(self.id);
    }
}

#[cfg(test)]
mod tests;
