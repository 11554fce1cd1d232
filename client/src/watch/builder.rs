//! What a watch is asked for, and its beginning.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::{
    ChangeKind, Kinds, Path, PathError, Pattern, PatternError, Refusal, Scope, WatchRequest, Zxid,
};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::snapshot::Snapshot;
use super::{Bookmark, Queue, Watch};
use crate::builder::ToPath;
use crate::client::Client;
use crate::driver::Command;
use crate::error::{Error, Outcome, Result};

/// Begins a watch; made by [`Client::watch`].
#[derive(Clone, Debug)]
#[must_use = "a watch does not begin until it is awaited"]
pub struct WatchBuilder {
    client: Client,
    path: Result<Path, PathError>,
    scope: Scope,
    kinds: Option<Kinds>,
    names: Option<Result<Pattern, PatternError>>,
    data: bool,
    once: bool,
    snapshot: bool,
    since: Option<Zxid>,
    cluster: Option<String>,
    within: Option<Duration>,
}

impl WatchBuilder {
    pub(crate) fn new(client: Client, path: impl ToPath) -> Self {
        Self {
            client,
            path: path.to_path(),
            scope: Scope::Data,
            kinds: None,
            names: None,
            data: false,
            once: false,
            snapshot: false,
            since: None,
            cluster: None,
            within: None,
        }
    }

    /// The znode itself: created, data set, access list set, deleted. The default.
    pub fn data(mut self) -> Self {
        self.scope = Scope::Data;
        self
    }

    /// Whether the znode is there: created, deleted.
    pub fn existence(mut self) -> Self {
        self.scope = Scope::Existence;
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

    /// Only changes of these kinds.
    pub fn kinds(mut self, kinds: &[ChangeKind]) -> Self {
        self.kinds = Some(Kinds::of(kinds));
        self
    }

    /// Only changes of znodes whose last name matches this pattern: `*` stands for any text, `?` for one character. A
    /// text that is no pattern is refused with `bad-request` when the watch is awaited.
    pub fn names(mut self, pattern: &str) -> Self {
        self.names = Some(pattern.parse());
        self
    }

    /// With the present data and stat of what was changed.
    pub fn with_data(mut self) -> Self {
        self.data = true;
        self
    }

    /// Ends with its first event; together with [`WatchBuilder::snapshot`], with the first changes after the snapshot.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// First the present state, as [`WatchEvent::Snapshot`](crate::WatchEvent::Snapshot)s, then every change after it, without a gap. Where a
    /// [`WatchEvent::Resync`](crate::WatchEvent::Resync) would be told, it takes a new snapshot by itself. With [`WatchBuilder::since`] or
    /// [`WatchBuilder::resume`] it begins without one.
    ///
    /// What belongs to it is what the watch is about: the znode, its children (without itself), or the znode and
    /// everything below; of those, the names that [`WatchBuilder::names`] says. [`WatchBuilder::kinds`] is about changes
    /// only. With [`WatchBuilder::children`], which children there are is that of one zxid, and their stats and data may
    /// be newer when they are more than a page.
    ///
    /// ```
    /// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
    /// use std::collections::BTreeMap;
    ///
    /// use conclave_client::WatchEvent;
    ///
    /// let mut versions = BTreeMap::new();
    /// let mut watch = client.watch("/app").subtree().snapshot().await?;
    /// while let Some(event) = watch.next().await {
    ///     match event? {
    ///         WatchEvent::Snapshot { part, entries, .. } => {
    ///             if part == 0 {
    ///                 versions.clear();
    ///             }
    ///             versions.extend(entries.into_iter().map(|znode| (znode.path, znode.stat.version)));
    ///         }
    ///         WatchEvent::Changes { changes, .. } => {
    ///             for change in changes {
    ///                 versions.insert(change.path, change.version);
    ///             }
    ///         }
    ///         _ => {}
    ///     }
    /// #     match versions.values().max() {
    /// #         Some(1) => return Ok(()),
    /// #         _ => client.at("/app/config").set("v2").await?,
    /// #     };
    /// }
    /// # Err("the watch ended".into()) }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app/config").create("v1").parents().await?;
    /// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
    /// # Ok(()) }
    /// ```
    pub fn snapshot(mut self) -> Self {
        self.snapshot = true;
        self
    }

    /// Every change after this zxid, those that happened already first. Without it: from the moment it stands. Refused
    /// with `future-zxid` when no transaction has that number yet.
    pub fn since(mut self, zxid: Zxid) -> Self {
        self.since = Some(zxid);
        self
    }

    /// Every change after the bookmark, wherever that was made: as [`WatchBuilder::since`], and refused with
    /// `other-cluster`, before anything is sent, when it is of another cluster.
    ///
    /// ```
    /// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
    /// use conclave_client::Bookmark;
    ///
    /// let kept = std::fs::read_to_string("bookmark").unwrap_or_default();
    /// let watch = client.watch("/app").subtree().snapshot();
    /// let mut watch = match kept.parse::<Bookmark>() {
    ///     Ok(bookmark) => watch.resume(bookmark).await?,
    ///     Err(_) => watch.await?,
    /// };
    /// while let Some(event) = watch.next().await {
    ///     println!("{:?}", event?);
    ///     if let Some(bookmark) = watch.bookmark() {
    ///         std::fs::write("bookmark", bookmark.to_string())?;
    /// #         return Ok(());
    ///     }
    /// }
    /// # Err("the watch ended".into()) }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # std::env::set_current_dir(cluster.dir())?; // each example has its own process
    /// # client.at("/app").create("v1").await?;
    /// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
    /// # let first: conclave_client::Bookmark = std::fs::read_to_string("bookmark")?.parse()?;
    /// # let stat = client.at("/app").set("v2").await?;
    /// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
    /// # let second: conclave_client::Bookmark = std::fs::read_to_string("bookmark")?.parse()?;
    /// # assert_eq!((second.zxid, first.zxid < second.zxid), (stat.modified, true));
    /// # Ok(()) }
    /// ```
    pub fn resume(mut self, bookmark: Bookmark) -> Self {
        self.since = Some(bookmark.zxid);
        self.cluster = Some(bookmark.cluster);
        self
    }

    /// The time that beginning may take, instead of the options' request timeout.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Refuses a bookmark of another cluster.
    fn check_cluster(&self) -> Result<()> {
        let actual = self.client.peer().map(|peer| peer.cluster);
        match (&self.cluster, actual) {
            (Some(expected), Some(actual)) if *expected != actual => {
                Err(Refusal::OtherCluster { expected: expected.clone(), actual }.into())
            }
            _ => Ok(()),
        }
    }
}

impl IntoFuture for WatchBuilder {
    type Output = Result<Watch>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.check_cluster()?;
            let Self { client, path, scope, kinds, names, data, once, snapshot, since, within, .. } = self;
            let (id, path) = (client.next_watch(), path?);
            let bad = |error: PatternError| Refusal::BadRequest { why: error.to_string() };
            let names = names.transpose().map_err(bad)?;
            // What is in the snapshot is not told, so that the first event that a member has may be none of ours: here it
            // is seen which is the first.
            let (once, ends) = if snapshot { (false, once) } else { (once, false) };
            let request =
                WatchRequest { watch: id, path: path.clone(), scope, kinds, names: names.clone(), data, once, since };
            let request = client.names().watch(request)?;
            let queue = Arc::new(Queue::new(once));
            let (reply, done) = oneshot::channel();
            let within = within.unwrap_or_else(|| client.request_timeout());
            let snapshot = snapshot.then(|| Snapshot { client: client.clone(), path, scope, names, data });
            // Made before it stands, so that a future that is dropped half-way takes it back.
            let mut watch = Watch {
                client,
                id,
                begun: Zxid(0),
                told: Zxid(0),
                queue: Arc::clone(&queue),
                snapshot,
                parts: None,
                once: ends,
                ended: false,
            };
            watch.client.command(Command::Watch { request, queue, within, reply })?;
            let done = done.await.unwrap_or(Err(Error::Closed { outcome: Outcome::NotApplied }));
            let done = done.map_err(|error| watch.client.names().error(error))?;
            watch.begun = since.unwrap_or(done.zxid);
            watch.told = watch.begun;
            if since.is_none() {
                watch.take_snapshot();
            }
            Ok(watch)
        })
    }
}
