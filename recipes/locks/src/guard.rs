//! The handle on a lock that is held.

use std::marker::PhantomData;
use std::ops::Deref;

pub use conclave_awards::{Held, State};

use crate::error::Result;
use crate::lock::Lock;
use crate::request::{ReleaseRequest, requested};
use crate::want::{Alone, Kind, Want};

/// A lock that is held; what kind of one, its parameter says. Dropping it releases it, without waiting and without a
/// report; see [`Guard::release`].
///
/// It dereferences to [`Held`]: [`Held::fence`], [`Held::token`], [`Held::state`], [`Held::lost`], [`Held::deadline`] and
/// [`Held::fenced`] are asked of the guard itself.
#[derive(Debug)]
#[must_use = "dropping it releases the lock at once"]
pub struct Guard<K = Alone> {
    pub(crate) award: conclave_awards::Guard,
    pub(crate) lock: Lock,
    pub(crate) want: Want,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Guard<K> {
    pub(crate) const fn new(award: conclave_awards::Guard, lock: Lock, want: Want) -> Self {
        Self { award, lock, want, kind: PhantomData }
    }

    /// What can be asked of it, for tasks that work under the lock.
    #[must_use]
    pub fn held(&self) -> Held {
        self.award.held()
    }

    /// Gives the lock back, and waits until the cluster has done it. What was issued in the session before is carried
    /// out before. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) when it was lost already. [`Error::Client`](crate::Error::Client) when there was
    /// no answer in the client's request timeout: it goes on being released, and is with the session's end at the latest.
    pub async fn release(self) -> Result<()> {
        Ok(self.award.release().await?)
    }

    /// Waits until somebody asks for it to be released, and says who and why; whoever holds it decides. It is the latest of
    /// the requests made since the lock was awarded, also if that was before this was called. When the lock is lost it waits
    /// on: wait for [`Held::lost`] too. (Curator's `Revocable`.) To ask, see
    /// [`Mutex::request_release`](crate::Mutex::request_release).
    ///
    /// ```no_run
    /// # // Not run: the tests do, with two clients.
    /// # async fn work() {}
    /// # async fn example(guard: conclave_locks::Guard) -> conclave_locks::Result<()> {
    /// tokio::select! {
    ///     () = work() => {}
    ///     why = guard.lost() => return Err(why.into()),
    ///     request = guard.release_requested() => println!("stopping for {request}"),
    /// }
    /// guard.release().await
    /// # }
    /// ```
    pub async fn release_requested(&self) -> ReleaseRequest {
        requested(&self.lock.client, self.lock.layout.requests(), self.award.fence().zxid).await
    }
}

impl<K> Deref for Guard<K> {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.award
    }
}
