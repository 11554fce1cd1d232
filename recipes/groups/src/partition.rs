//! A set of items, divided among the members of a group.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use conclave_client::Error as ClientError;
use tokio::sync::{Notify, watch};

use crate::error::Result;
use crate::group::{Group, Member};
use crate::rebalance;
use crate::share::{Held, Share};

/// A set of items that is divided among the members of a group (kazoo's `SetPartitioner`): each item has at most one
/// owner, and when nothing changes exactly one; members own as many as each other, or one more.
///
/// All members must be given the same items, and everybody in the group must take part. The [crate's page](crate) says
/// how an item passes from one to the next.
#[derive(Clone, Debug)]
pub struct Partition {
    group: Group,
    items: BTreeSet<String>,
}

impl Partition {
    /// These items, divided among the members of this group. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When an item is no name of a znode.
    pub fn new(group: &Group, items: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let items: BTreeSet<String> = items.into_iter().map(Into::into).collect();
        for item in &items {
            group.layout().claims().join(item)?;
        }
        Ok(Self { group: group.clone(), items })
    }

    /// Joins the group, and begins to own items: [`Shares::next`] gives them.
    ///
    /// Dropping the future leaves the group.
    ///
    /// # Errors
    /// As [`Group::join`].
    pub async fn join(&self, name: &str, data: impl Into<Bytes>) -> Result<Shares> {
        let cache = self.group.client().cache(self.group.path()).await?;
        let member = self.group.join(name, data).await?;
        let seen = member.znode().seen();
        let desk = Arc::new(Desk { items: self.items.clone(), name: name.to_owned(), ..Desk::default() });
        tokio::spawn(rebalance::run(Arc::clone(&desk), self.group.layout().clone(), cache, seen));
        Ok(Shares { member: Some(member), desk })
    }
}

/// What the handle, the task and the shares share.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) name: String,
    pub(crate) items: BTreeSet<String>,
    /// A share is over, or the handle is gone.
    pub(crate) news: Arc<Notify>,
    state: Mutex<State>,
    /// Something can be taken by the reader.
    ready: Notify,
    /// How many items are owned.
    owned: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that nobody has taken yet.
    queue: VecDeque<Share>,
    /// All that are owned.
    held: Vec<Held>,
    stopped: bool,
    /// Told last.
    end: Option<Option<ClientError>>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody reads it any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// All that are owned, without those that are over.
    pub(crate) fn held(&self) -> Vec<Held> {
        let mut state = self.lock();
        state.held.retain(|held| held.why().is_none());
        let held = state.held.clone();
        drop(state);
        self.owned.send_if_modified(|owned| std::mem::replace(owned, held.len()) != held.len());
        held
    }

    /// For the reader; given back at once when there is none any more.
    pub(crate) fn put(&self, share: Share) {
        let mut state = self.lock();
        if state.stopped {
            drop(state);
            drop(share);
            return;
        }
        state.held.push(share.held());
        state.queue.push_back(share);
        drop(state);
        self.ready.notify_one();
    }

    /// It is wanted back. One that nobody has taken yet is not given to anybody.
    pub(crate) fn recall(&self, held: &Held) {
        held.recall();
        let mut state = self.lock();
        let at = state.queue.iter().position(|share| share.fence() == held.fence());
        let unread = at.and_then(|at| state.queue.remove(at));
        // Dropping it takes no lock of this desk, but need not be done under one.
        drop(state);
        drop(unread);
    }

    /// Nothing more will come, because of this.
    pub(crate) fn end(&self, error: Option<ClientError>) {
        self.lock().end.get_or_insert(error);
        self.ready.notify_one();
    }
}

/// The items that this member owns, as a stream of [`Share`]s, and its place in the group. Dropping it leaves the group;
/// shares that were taken stay owned until they are dropped, and are recalled.
#[derive(Debug)]
#[must_use = "dropping it leaves the group at once"]
pub struct Shares {
    member: Option<Member>,
    desk: Arc<Desk>,
}

impl Shares {
    /// The next item that this member has come to own; none when nothing more will come, because of the error that was
    /// told before. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Client`](crate::Error::Client) when the division can't be watched any more, such as after the client
    /// was closed. Nothing follows it; shares that are held stay so.
    pub async fn next(&mut self) -> Option<Result<Share>> {
        loop {
            {
                let mut state = self.desk.lock();
                if let Some(share) = state.queue.pop_front() {
                    return Some(Ok(share));
                }
                if let Some(end) = &mut state.end {
                    return end.take().map(|error| Err(error.into()));
                }
            }
            // A permit that was left while nobody waited is found here.
            self.desk.ready.notified().await;
        }
    }

    /// Its place in the group.
    #[must_use]
    pub const fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// How many items are owned, taken from [`Shares::next`] or not; tells of each change.
    #[must_use]
    pub fn owned(&self) -> watch::Receiver<usize> {
        self.desk.owned.subscribe()
    }

    /// Leaves the group, and waits until the cluster has done it. Shares that were taken are recalled, and owned until
    /// they are dropped.
    ///
    /// # Errors
    /// As [`Member::leave`].
    pub async fn leave(mut self) -> Result<()> {
        match self.member.take() {
            Some(member) => member.leave().await,
            None => Ok(()),
        }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.stopped = true;
        let unread = std::mem::take(&mut state.queue);
        drop(state);
        drop(unread);
        self.desk.news.notify_one();
    }
}
