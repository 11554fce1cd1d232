//! The handle on an award: it knows whether it still holds, and gives the lock back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_client::{ChangeKind, Client, Error as ClientError, Fence, Refusal, Session, WatchEvent};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Lost, Result};
use crate::place::{self, Owned};

/// Before a holder znode that could not be watched is watched again.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the lease, at least.
const LEAST: Duration = Duration::from_millis(20);

/// May one rely on holding the lock?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is held: the session was renewed lately.
    Held,
    /// No member was heard lately. It may still be saved; until it is, do nothing that only the holder may do.
    Uncertain,
    /// It is held no more. It never comes back.
    Lost,
}

/// What can be asked of a lock that is held. Clones of it hold nothing: the [`Guard`] does.
#[derive(Clone, Debug)]
pub struct Held {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    session: Session,
    fence: Fence,
    /// Why it is over; set once.
    lost: watch::Sender<Option<Lost>>,
}

/// A lock that is held. Dropping it releases it, without waiting and without a report; see [`Guard::release`].
#[derive(Debug)]
#[must_use = "dropping it releases the lock at once"]
pub struct Guard {
    held: Held,
    award: Option<Owned>,
    keeper: AbortHandle,
}

impl Held {
    /// Names this award. Writes that are `.fenced(..)` by it are refused once it is over.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.inner.fence.clone()
    }

    /// The fence's number, for systems outside the cluster: later awards of the same lock have higher ones.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.inner.fence.zxid.0
    }

    /// May one rely on it? By the local clock, without asking anybody: as good as the moment it was called in.
    #[must_use]
    pub fn state(&self) -> State {
        if self.inner.lost.borrow().is_some() {
            return State::Lost;
        }
        match self.inner.client.state() {
            conclave_client::State::Connected => State::Held,
            conclave_client::State::Suspended => State::Uncertain,
            conclave_client::State::Lost => {
                // Told to all from now on, whatever the clock says next.
                self.inner.end(Lost::SessionOver);
                State::Lost
            }
        }
    }

    /// Waits until it is lost, and says why.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.inner.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await.map(|why| *why);
        // The sender is in `self`.
        why.ok().flatten().unwrap_or(Lost::Released)
    }

    /// When it is lost if no member is heard any more; now, if it is lost. Moves on with each renewal. It is counted
    /// anew at each call, on a clock that runs while the machine sleeps.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.time_left()).unwrap_or(now)
    }

    /// The time until [`Held::deadline`].
    #[must_use]
    pub fn time_left(&self) -> Duration {
        match self.state() {
            State::Lost => Duration::ZERO,
            State::Held | State::Uncertain => self.inner.session.time_left(),
        }
    }
}

impl Inner {
    /// The first reason stays.
    fn end(&self, why: Lost) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(why);
            first
        });
    }
}

impl Guard {
    pub(crate) fn new(award: Owned, session: Session) -> Self {
        let (client, fence) = (award.client().clone(), award.fence().clone());
        let inner = Arc::new(Inner { client, session, fence, lost: watch::Sender::new(None) });
        let keeper = tokio::spawn(keep(Arc::clone(&inner))).abort_handle();
        Self { held: Held { inner }, award: Some(award), keeper }
    }

    /// What can be asked of it, for tasks that work under the lock.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// See [`Held::fence`].
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.held.fence()
    }

    /// See [`Held::token`].
    #[must_use]
    pub fn token(&self) -> u64 {
        self.held.token()
    }

    /// See [`Held::state`].
    #[must_use]
    pub fn state(&self) -> State {
        self.held.state()
    }

    /// See [`Held::lost`].
    pub async fn lost(&self) -> Lost {
        self.held.lost().await
    }

    /// See [`Held::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.held.deadline()
    }

    /// See [`Held::time_left`].
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.held.time_left()
    }

    /// Gives the lock back, and waits until the cluster has done it. What was issued in the session before is carried
    /// out before. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`Error::Lost`] when it was lost already. [`Error::Client`] when there was no answer in the client's request
    /// timeout: it goes on being released, and is with the session's end at the latest.
    pub async fn release(mut self) -> Result<()> {
        let lost = *self.held.inner.lost.borrow();
        self.held.inner.end(Lost::Released);
        let deleted = match self.award.take() {
            Some(award) => award.delete().await,
            None => Ok(()),
        };
        match (lost, deleted) {
            (Some(why), _) => Err(why.into()),
            (None, Ok(())) => Ok(()),
            (None, Err(ClientError::Refused(Refusal::Fenced { .. }))) => Err(Lost::HolderGone.into()),
            (None, Err(error)) => match error.into() {
                Error::SessionOver => Err(Lost::SessionOver.into()),
                error => Err(error),
            },
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.keeper.abort();
        // The award, when it is still there, is deleted by its own drop.
        self.held.inner.end(Lost::Released);
    }
}

/// Finds out when it is lost.
async fn keep(inner: Arc<Inner>) {
    let held = Held { inner: Arc::clone(&inner) };
    let why = tokio::select! {
        // Somebody looked at the clock first.
        why = held.lost() => why,
        () = inner.session.lost() => Lost::SessionOver,
        () = lapsed(&inner) => Lost::SessionOver,
        () = gone(&inner.client, &inner.fence) => Lost::HolderGone,
    };
    inner.end(why);
    if why == Lost::Released {
        // Its owner deletes the znode, and wants to be told that it was there.
        return;
    }
    // The session may live on at the cluster though the clock said otherwise here. Whoever keeps a lost guard must not
    // keep the lock from others.
    place::give_back(&inner.client, &inner.fence);
}

/// Waits until the lease has run out by the clock, also when the client's own task is stuck or gone with its runtime.
async fn lapsed(inner: &Inner) {
    while inner.client.state() != conclave_client::State::Lost {
        tokio::time::sleep(inner.session.time_left().max(LEAST)).await;
    }
}

/// Waits until the holder znode is gone.
async fn gone(client: &Client, fence: &Fence) {
    loop {
        match watch_holder(client, fence).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%fence, %error, "the holder can't be watched"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// See [`gone`].
async fn watch_holder(client: &Client, fence: &Fence) -> Result<(), ClientError> {
    // From the award on, so nothing is missed between it and the watch.
    let mut watch = client.watch(&fence.path).data().since(fence.zxid).await?;
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Changes { changes, .. } => {
                if changes.iter().any(|change| change.kind == ChangeKind::Deleted) {
                    return Ok(());
                }
            }
            // Deletions may be untold.
            _ => {
                let stat = client.at(&fence.path).stat().await?;
                if stat.is_none_or(|stat| stat.created != fence.zxid) {
                    return Ok(());
                }
            }
        }
    }
    // The client is closed: the session ends, which is seen elsewhere.
    std::future::pending().await
}
