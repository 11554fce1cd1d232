//! The handle on an award: it knows whether it still holds, and gives back what it holds.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conclave_client::{ChangeKind, Client, Error as ClientError, Fence, Session, WatchEvent};
use tokio::task::AbortHandle;

use crate::error::{Error, Lost, Result};
use crate::held::{Held, Inner, State};
use crate::line::{Turn, Wanted, take_turn};
use crate::owned::{Owned, UnderWay, give_back};

/// Before a holder znode that could not be watched is watched again.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the lease, at least.
const LEAST: Duration = Duration::from_millis(20);

/// What came of a [`Guard::exchange`].
#[derive(Debug)]
pub enum Exchanged {
    /// The other award.
    For(Guard),
    /// The other one is not to be had now: here is this one, which was held all the time.
    Not(Guard),
}

/// An award that is held: what all guards of recipes are made of. It dereferences to [`Held`], for whatever can be asked.
/// Dropping it gives the award back, without waiting and without a report; see [`Guard::release`].
#[derive(Debug)]
#[must_use = "dropping it gives the award back at once"]
pub struct Guard {
    held: Held,
    award: Option<Owned>,
    keeper: AbortHandle,
}

impl Guard {
    /// The guard of a holder znode of this session.
    ///
    /// # Panics
    /// Outside a tokio runtime: it begins a task, which finds out when the award is lost.
    pub fn new(award: Owned, session: Session) -> Self {
        let held = Held::new(award.client().clone(), session, award.fence().clone());
        let keeper = tokio::spawn(keep(Arc::clone(&held.inner))).abort_handle();
        Self { held, award: Some(award), keeper }
    }

    /// What can be asked of it, for tasks that work under the award.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Gives the award back, and waits until the cluster has done it. What was issued in the session before is carried
    /// out before. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`Error::Lost`] when it was lost already. [`Error::Client`] when there was no answer in the client's request
    /// timeout: it goes on being given back, and is with the session's end at the latest.
    pub async fn release(mut self) -> Result<()> {
        let lost = self.held.why();
        self.held.inner.end(Lost::Released);
        match (self.award.take(), lost) {
            (Some(award), lost) => award.release(lost).await,
            (None, Some(why)) => Err(why.into()),
            (None, None) => Ok(()),
        }
    }

    /// Does the work, and gives the award back. The work is dropped where it stands when the award is lost; while its
    /// state is [`State::Uncertain`] it goes on, and it is the work's to look.
    ///
    /// A value means that the lease had not run out when the work ended. A release that fails after that is only logged:
    /// the award is over with the session's end at the latest.
    ///
    /// # Errors
    /// [`Error::Lost`] when the work was dropped, or ended too late.
    pub async fn run<W: Future>(self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        let value = tokio::select! {
            biased;
            why = self.lost() => return Err(why.into()),
            value = work(self.held()) => value,
        };
        if self.state() == State::Lost {
            return Err(self.lost().await.into());
        }
        let fence = self.fence();
        if let Err(error) = self.release().await {
            tracing::warn!(%fence, %error, "an award was not given back in good order");
        }
        Ok(value)
    }

    /// Makes another award out of this one, in one transaction: nobody gets in between. Dropping the future gives back
    /// both, whichever there is.
    ///
    /// # Errors
    /// [`Error::Lost`] when there was nothing to go on from any more; otherwise as every write in the session. What was
    /// held is given back then.
    pub async fn exchange(mut self, wanted: Wanted, under_way: &UnderWay) -> Result<Exchanged> {
        if let Some(why) = self.held.why() {
            return Err(why.into());
        }
        let Some(award) = self.award.take() else { return Err(Lost::Released.into()) };
        self.set_leaving(true);
        match take_turn(award, wanted, under_way).await {
            Ok(Turn::Award(award)) => Ok(Exchanged::For(Self::new(award, self.held.inner.session.clone()))),
            Ok(Turn::NotNow(award)) => {
                self.set_leaving(false);
                self.award = Some(award);
                Ok(Exchanged::Not(self))
            }
            Err(Error::PlaceGone { .. }) => Err(Lost::HolderGone.into()),
            Err(Error::SessionOver) => Err(Lost::SessionOver.into()),
            Err(error) => Err(error),
        }
    }

    /// Says that its owner has asked for the award's end by other means, or, with false, that it does not come about:
    /// that the holder znode goes is no loss then, but a release.
    pub fn set_leaving(&self, is_leaving: bool) {
        self.held.inner.leaving.store(is_leaving, Ordering::SeqCst);
    }

    /// Says that the award is over, by whatever its owner did: there is nothing to give back any more.
    pub fn over(&mut self) {
        self.held.inner.end(Lost::Released);
        if let Some(award) = self.award.take() {
            award.forget();
        }
    }
}

impl Deref for Guard {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
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
        // A session that ends takes the holder znode with it: that the session is over is the reason, whichever is seen.
        biased;
        // Somebody looked at the clock first.
        why = held.lost() => why,
        () = inner.session.lost() => Lost::SessionOver,
        () = lapsed(&inner) => Lost::SessionOver,
        () = gone(&inner.client, &inner.fence) => inner.gone(),
    };
    inner.end(why);
    if why == Lost::Released {
        // Its owner deletes the znode, and wants to be told that it was there.
        return;
    }
    // The session may live on at the cluster though the clock said otherwise here. Whoever keeps a lost guard must not
    // keep the award from others.
    give_back(&inner.client, &inner.fence);
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
