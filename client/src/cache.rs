//! A local cache of a subtree: read without a round trip, always a state that there was, and kept up by a watch.

mod changes;
mod keeper;
mod tree;
mod view;

use std::fmt;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use conclave_protocol::{Path, PathError, Present, Zxid};
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::builder::ToPath;
use crate::client::Client;
use crate::error::{Error, Result};
use changes::Inbox;
use tree::Tree;

pub use changes::CacheChanges;
pub use view::CacheView;

/// Bytes that a cache may take, unless it is said.
const LIMIT_BYTES: usize = 256 << 20;
/// How long to wait before the cluster is asked again whether a zxid is reached.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Begins a [`Cache`]; made by [`Client::cache`]. Awaited it gives one that is ready.
#[derive(Clone, Debug)]
#[must_use = "a cache does not begin until it is awaited"]
pub struct CacheBuilder {
    client: Client,
    path: Result<Path, PathError>,
    limit: usize,
}

impl CacheBuilder {
    pub(crate) fn new(client: Client, path: impl ToPath) -> Self {
        Self { client, path: path.to_path(), limit: LIMIT_BYTES }
    }

    /// So many bytes of memory at most, about: a subtree that takes more ends the cache with a refusal, `limit`. The
    /// default is 256 MiB. While a new snapshot is received (after a long break), or a [`CacheView`] is held, it can take
    /// that twice.
    pub fn limit_bytes(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Begins it without waiting until it is [ready](Cache::ready): until then it shows nothing.
    ///
    /// # Errors
    /// As every watch.
    pub async fn start(self) -> Result<Cache> {
        let Self { client, path, limit } = self;
        let path = path?;
        let watch = client.watch(&path).subtree().with_data().snapshot().await?;
        let shared = Arc::new(Shared::new(Tree::new(path.clone(), limit)));
        let keeper =
            tokio::spawn(keeper::keep(client, watch, path, Arc::downgrade(&shared), Arc::clone(&shared.asked)));
        let handle = Arc::new(Handle { shared, keeper: keeper.abort_handle() });
        Ok(Cache { handle })
    }
}

impl IntoFuture for CacheBuilder {
    type Output = Result<Cache>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cache = self.start().await?;
            cache.ready().await?;
            Ok(cache)
        })
    }
}

/// What changed in a cache between two states of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// Since when.
    pub from: Zxid,
    /// Until when.
    pub to: Zxid,
    /// At least one, in order of paths.
    pub changes: Vec<CacheChange>,
}

/// What changed of one znode. One of both is there, and they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheChange {
    /// Which znode.
    pub path: Path,
    /// What it was; none if it is new.
    pub before: Option<Present>,
    /// What it is; none if it is gone.
    pub after: Option<Present>,
}

/// A znode and everything below it, in memory; made by [`Client::cache`]. Clones share it; the last one that is dropped
/// ends it.
///
/// # What is seen
/// At every moment exactly the state after one transaction, [`Cache::zxid`]: never half of a multi, never one change
/// without those before it. It is a while behind the cluster; [`Cache::reached`] waits for it. Several questions to
/// one state are asked of a [`Cache::read`].
///
/// It outlives connections and members: it goes on where it stood, or takes a new snapshot when the cluster does not
/// remember that any more, and tells the difference as one [`ChangeSet`]. Until then it shows what it showed.
///
/// What the client may not read is not in it, nor anything below. Two things of a stat are not kept to the zxid:
/// `acl_version` may be newer, and `children_modified_ms` is that of the last change of the list of children that came
/// with other news of the znode.
///
/// # Memory
/// It takes what the subtree takes, plus about 400 bytes and two paths for each znode; see
/// [`CacheBuilder::limit_bytes`].
///
/// # Its end
/// Only an error that waiting does not mend ends it: the client is closed, the limit exceeded, the znode may not be read.
/// It then shows what it showed last, and [`Cache::failed`] says why.
///
/// ```
/// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
/// let services = client.cache("/services").await?;
/// for (path, znode) in services.read().children("/services/api")? {
///     println!("{path}: {:?}", znode.data);
/// }
/// let mut changes = services.changes();
/// let stat = client.at("/services/api/1").set("drained").await?;
/// services.reached(stat.modified).await?;
/// assert_eq!(services.get("/services/api/1")?.map(|znode| znode.data), Some("drained".into()));
/// while let Some(set) = changes.next().await {
///     for change in set?.changes {
///         println!("{}: {}", change.path, if change.after.is_some() { "there" } else { "gone" });
///     }
/// #   return Ok(());
/// }
/// # Err("the changes ended".into()) }
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # client.at("/services/api/1").create("ready").parents().await?;
/// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    handle: Arc<Handle>,
}

/// The task ends with the last handle.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.abort();
        self.shared.end(None);
    }
}

/// How far it is.
#[derive(Clone, Debug, Default)]
struct Progress {
    shown: Option<Zxid>,
    failed: Option<Error>,
}

/// Between the task that keeps it and those who read it.
struct Shared {
    tree: RwLock<Tree>,
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    progress: watch::Sender<Progress>,
    /// Somebody wants it to be as new as the cluster.
    asked: Arc<Notify>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("progress", &*self.progress.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(tree: Tree) -> Self {
        Self {
            tree: RwLock::new(tree),
            inboxes: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            asked: Arc::default(),
        }
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the tree take something, and tells everybody what has become visible.
    fn change<E: Into<Error>>(&self, take: impl FnOnce(&mut Tree) -> Result<Option<Arc<ChangeSet>>, E>) -> Result<()> {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let set = take(&mut tree).map_err(Into::into)?;
        if let Some(set) = set {
            // Before anybody can see it: whoever begins to listen meanwhile is told what comes after it.
            self.inboxes(|inbox| inbox.push(&set));
        }
        let shown = tree.shown();
        drop(tree);
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.shown, shown) != shown);
        Ok(())
    }

    /// It goes no further.
    fn end(&self, error: Option<Error>) {
        if let Some(error) = &error {
            tracing::warn!(%error, "a cache has ended");
        }
        let failed = error.clone();
        self.progress.send_modify(|progress| progress.failed = progress.failed.take().or(failed));
        self.inboxes(|inbox| inbox.end(error.clone()));
    }

    fn inboxes(&self, tell: impl Fn(&Inbox)) {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|inbox| {
            inbox.upgrade().is_some_and(|inbox| {
                tell(&inbox);
                true
            })
        });
    }
}

impl Cache {
    /// A znode's data and stat; none if it is not there.
    ///
    /// # Errors
    /// [`Error::Refused`] with `bad-path` when it is no path.
    pub fn get(&self, path: impl ToPath) -> Result<Option<Present>> {
        // Without a view, so that a change that comes meanwhile waits for this shortly, and copies nothing.
        let path = path.to_path()?;
        Ok(self.handle.shared.tree().view().get(&path).map(|node| node.present.clone()))
    }

    /// The paths of a znode's children, in order of their names' bytes; none if it is not there.
    ///
    /// # Errors
    /// [`Error::Refused`] with `bad-path` when it is no path.
    pub fn children(&self, path: impl ToPath) -> Result<Vec<Path>> {
        let path = path.to_path()?;
        let tree = self.handle.shared.tree();
        let children = tree.view().children(&path);
        Ok(children.filter(|_| path.is_within(tree.top())).cloned().collect())
    }

    /// The state as it is now, for several questions: it stays the same while this is held. The cache goes on meanwhile,
    /// but at the next change it copies its tables (not the data), once for as long as this is held: hold it shortly.
    #[must_use]
    pub fn read(&self) -> CacheView {
        let tree = self.handle.shared.tree();
        CacheView::new(Arc::clone(tree.view()), tree.top().clone(), tree.shown())
    }

    /// The zxid of the state that is seen; none before it is ready.
    #[must_use]
    pub fn zxid(&self) -> Option<Zxid> {
        self.handle.shared.progress.borrow().shown
    }

    /// What changes from now on. A slow reader gets several changes as one.
    #[must_use]
    pub fn changes(&self) -> CacheChanges {
        let shared = &self.handle.shared;
        let inbox = Arc::new(Inbox::default());
        // While it is held nothing becomes visible.
        let tree = shared.tree();
        shared.inboxes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&inbox));
        let zxid = tree.shown().unwrap_or_default();
        drop(tree);
        if let Some(error) = self.failed() {
            inbox.end(Some(error));
        }
        CacheChanges { inbox, zxid }
    }

    /// Waits until it shows something.
    ///
    /// # Errors
    /// Why it has ended.
    pub async fn ready(&self) -> Result<()> {
        let mut progress = self.handle.shared.progress.subscribe();
        loop {
            {
                let now = progress.borrow_and_update();
                match (&now.failed, now.shown) {
                    (_, Some(_)) => return Ok(()),
                    (Some(error), None) => return Err(error.clone()),
                    (None, None) => {}
                }
            }
            progress.changed().await.map_err(|_| closed())?;
        }
    }

    /// Waits until it shows this transaction and all before it, wherever in the tree they were. There is no deadline: a
    /// transaction that never comes is waited for as long as the future is kept.
    ///
    /// # Errors
    /// Why it has ended.
    pub async fn reached(&self, zxid: Zxid) -> Result<()> {
        let shared = &self.handle.shared;
        let mut progress = shared.progress.subscribe();
        loop {
            {
                let now = progress.borrow_and_update();
                match &now.failed {
                    _ if now.shown.is_some_and(|shown| shown >= zxid) => return Ok(()),
                    Some(error) => return Err(error.clone()),
                    None => {}
                }
            }
            // What happens elsewhere is not told: it takes a question to know that nothing happened here.
            shared.asked.notify_one();
            if let Ok(changed) = tokio::time::timeout(ASK_AGAIN, progress.changed()).await {
                changed.map_err(|_| closed())?;
            }
        }
    }

    /// Why it is not kept up any more; none while it is.
    #[must_use]
    pub fn failed(&self) -> Option<Error> {
        self.handle.shared.progress.borrow().failed.clone()
    }
}

fn closed() -> Error {
    Error::Closed { outcome: crate::error::Outcome::NotApplied }
}

#[cfg(test)]
mod tests;
