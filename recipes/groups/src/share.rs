//! The handle on an item that is owned: it knows whether it still is, and whether it is wanted back.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use conclave_awards::Owned;
pub use conclave_awards::State as Hold;
use conclave_client::{Session, SessionId};
use tokio::sync::{Notify, watch};

use crate::error::{Lost, Result};

/// What can be asked of an item that is owned. Clones of it own nothing: the [`Share`] does. It dereferences to an award's
/// [`Held`](conclave_awards::Held).
#[derive(Clone, Debug)]
pub struct Held {
    award: conclave_awards::Held,
    item: Arc<str>,
    /// It is wanted back.
    recalled: Arc<watch::Sender<bool>>,
}

/// An item of a [`Partition`](crate::Partition) that is owned: nobody else owns it at the same time. Dropping it releases
/// the item, without waiting and without a report; see [`Share::release`]. It dereferences to [`Held`], for whatever can be asked.
#[derive(Debug)]
#[must_use = "dropping it releases the item at once"]
pub struct Share {
    held: Held,
    claim: Option<Owned>,
    /// Is told when it is over.
    news: Arc<Notify>,
}

impl Held {
    /// Which item.
    #[must_use]
    pub fn item(&self) -> &str {
        &self.item
    }

    /// Waits until the item is wanted back, for another member that is to own it: finish what must be finished, and
    /// release it. Until then nobody else owns it.
    pub async fn recalled(&self) {
        let mut recalled = self.recalled.subscribe();
        // The sender is in `self`.
        let _ = recalled.wait_for(|recalled| *recalled).await;
    }

    /// Is it wanted back?
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        *self.recalled.borrow()
    }

    pub(crate) fn recall(&self) {
        self.recalled.send_if_modified(|recalled| !std::mem::replace(recalled, true));
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.award.session().id()
    }
}

impl Deref for Held {
    type Target = conclave_awards::Held;

    fn deref(&self) -> &conclave_awards::Held {
        &self.award
    }
}

impl Share {
    pub(crate) fn new(item: &str, claim: Owned, session: Session, news: &Arc<Notify>) -> Self {
        let award = conclave_awards::Held::new(claim.client().clone(), session, claim.fence().clone());
        let held = Held { award, item: item.into(), recalled: Arc::new(watch::Sender::new(false)) };
        Self { held, claim: Some(claim), news: Arc::clone(news) }
    }

    /// What can be asked of it, for tasks that work on the item.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Does the work on the item, and releases it. The work is dropped where it stands when the share is lost. When the
    /// item is wanted back, the work is told by [`Held::recalled`], and it is the work's to come to an end.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) when the work was dropped, or ended too late.
    pub async fn run<W: Future>(self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        let value = tokio::select! {
            biased;
            why = self.lost() => return Err(why.into()),
            value = work(self.held()) => value,
        };
        if self.state() == Hold::Lost {
            return Err(self.lost().await.into());
        }
        let fence = self.fence();
        if let Err(error) = self.release().await {
            tracing::warn!(%fence, %error, "a share was not released in good order");
        }
        Ok(value)
    }

    /// Gives the item back, and waits until the cluster has done it. Dropped half-way it is given back all the same.
    ///
    /// While the division still says that it is this member's, it comes again as another share.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) when it was lost already. [`Error::Client`](crate::Error::Client) when there was no answer in the client's request
    /// timeout: it goes on being released, and is with the session's end at the latest.
    pub async fn release(mut self) -> Result<()> {
        // The clock may know it first.
        let lost = (self.state() == Hold::Lost).then(|| self.why()).flatten();
        let released = match self.claim.take() {
            Some(claim) => claim.release(lost).await,
            None => Ok(()),
        };
        self.end(Lost::Released);
        Ok(released?)
    }
}

impl Deref for Share {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Sent before anybody is told: who claims it anew in this session does that afterwards.
        drop(self.claim.take());
        self.end(Lost::Released);
        self.news.notify_one();
    }
}
