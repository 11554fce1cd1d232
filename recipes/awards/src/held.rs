//! What can be asked of an award by whoever works under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, Fence, Session};
use tokio::sync::watch;

use crate::error::{Lost, Result};
use crate::fenced::Fenced;

/// May one rely on holding it?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is held: the session was renewed lately.
    Held,
    /// No member was heard lately. It may still be saved; until it is, do nothing that only the holder may do.
    Uncertain,
    /// It is held no more. It never comes back.
    Lost,
}

/// What can be asked of an award that is held. Clones of it hold nothing: the guard does.
#[derive(Clone, Debug)]
pub struct Held {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) session: Session,
    pub(crate) fence: Fence,
    /// Why it is lost, once it is; the same for all that ask.
    lost: watch::Sender<Option<Lost>>,
    /// Its owner has asked for its end, by other means than deleting the znode.
    pub(crate) leaving: AtomicBool,
}

impl Held {
    /// Of an award whose end whoever made it finds out, and tells with [`Held::end`]. A [`Guard`](crate::Guard) does so by
    /// itself.
    #[must_use]
    pub fn new(client: Client, session: Session, fence: Fence) -> Self {
        let lost = watch::Sender::new(None);
        Self { inner: Arc::new(Inner { client, session, fence, lost, leaving: AtomicBool::new(false) }) }
    }

    /// Names this award. Writes that are `.fenced(..)` by it are refused once it is over.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.inner.fence.clone()
    }

    /// The fence's number, for systems outside the cluster: later awards of the same znode have higher ones.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.inner.fence.zxid.0
    }

    /// May one rely on it? By the local clock, without asking anybody: as good as the moment it was called in.
    #[must_use]
    pub fn state(&self) -> State {
        if self.why().is_some() {
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

    /// A client all of whose writes carry this award's fence. See [`Fenced`].
    ///
    /// # Errors
    /// When the award lies outside of that client's [namespace](conclave_client::Client::namespace): it cannot name the
    /// fence.
    pub fn fenced(&self, client: &Client) -> Result<Fenced> {
        Fenced::new(client, &self.inner.client.root(), &self.inner.fence)
    }

    /// Why it is lost, if it is known to be.
    #[must_use]
    pub fn why(&self) -> Option<Lost> {
        *self.inner.lost.borrow()
    }

    /// Says that it is lost. The first reason stays.
    pub fn end(&self, why: Lost) {
        self.inner.end(why);
    }

    /// Whose it is.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.inner.session
    }
}

impl Inner {
    /// The first reason stays.
    pub(crate) fn end(&self, why: Lost) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(why);
            first
        });
    }

    /// What it means that the holder znode is gone.
    pub(crate) fn gone(&self) -> Lost {
        if self.leaving.load(Ordering::SeqCst) { Lost::Released } else { Lost::HolderGone }
    }
}
