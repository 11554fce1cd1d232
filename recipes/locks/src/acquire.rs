//! Waiting for a lock: for how long, and who is told meanwhile.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::guard::{Guard, Held};
use crate::lock::Lock;
use crate::view::Waiting;
use crate::want::{Alone, Kind, Want};

/// How much longer one waits whose time is over, to be told who holds the lock.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Waits for a lock; made by [`Mutex::acquire`](crate::Mutex::acquire) and its like. Awaited it gives a [`Guard`].
///
/// # Errors
/// [`Error::AlreadyHeld`] at once when the client's own session holds the lock, [`Error::TimedOut`] when it was given
/// a time, [`Error::SessionOver`] when the session was lost meanwhile, [`Error::PlaceGone`] when somebody deleted the
/// place in line, [`Error::Client`] when a request failed. Of a semaphore also [`Error::NoSemaphore`],
/// [`Error::OtherCapacity`] and [`Error::BadPermits`]. After each of them the place in line is given up.
///
/// # Cancellation
/// Dropping the future withdraws the wait: the place in line is deleted, and an award that was just being made is
/// given back, without anybody waiting for it. Whoever acquires it with the same client right afterwards is not refused for
/// that.
#[must_use = "it waits for nothing until it is awaited"]
pub struct Acquire<K = Alone> {
    lock: Lock,
    want: Want,
    within: Option<Duration>,
    on_wait: Option<OnWait>,
    kind: PhantomData<fn() -> K>,
}

type OnWait = Box<dyn FnMut(&Waiting) + Send>;

impl<K: Kind> Acquire<K> {
    pub(crate) fn new(lock: &Lock, want: Want) -> Self {
        Self { lock: lock.clone(), want, within: None, on_wait: None, kind: PhantomData }
    }

    /// Waits so long at most. Without it: as long as the session lives. Half a second more may pass until it is known who
    /// holds the lock, for the error to say.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Is told when it begins to wait, and whenever whom it waits for has changed: the place before its own is gone,
    /// or it is first in line and somebody else holds the lock. That others further ahead leave is not told at once:
    /// nobody watches the whole line. It costs a few reads each time, which the lock does not wait for.
    ///
    /// ```no_run
    /// # // Not run: the tests do, with others that wait.
    /// # async fn example(mutex: conclave_locks::Mutex) -> conclave_locks::Result<()> {
    /// let guard = mutex
    ///     .acquire()
    ///     .on_wait(|waiting| match &waiting.holder {
    ///         Some(holder) => println!("waiting: held by {holder}, {} ahead of you", waiting.ahead),
    ///         None => println!("waiting: {} ahead of you", waiting.ahead),
    ///     })
    ///     .await?;
    /// # guard.release().await }
    /// ```
    pub fn on_wait(mut self, tell: impl FnMut(&Waiting) + Send + 'static) -> Self {
        self.on_wait = Some(Box::new(tell));
        self
    }

    /// Waits for the lock, does the work under it, and releases it. The work is dropped where it stands when the lock
    /// is lost; while its state is [`State::Uncertain`](crate::State::Uncertain) it goes on, and it is the work's to look.
    ///
    /// A value means that the lease had not run out when the work ended. A release that fails after that is only
    /// logged: the lock is free with the session's end at the latest.
    ///
    /// # Errors
    /// [`Error::Lost`] when the work was dropped, or ended too late. All others: it was never begun. See
    /// [`Error::outcome`].
    pub async fn run<W: Future>(self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        Ok(self.award().await?.run(work).await?)
    }

    async fn award(self) -> Result<conclave_awards::Guard> {
        let Self { lock, want, within, mut on_wait, .. } = self;
        let mut latest = None;
        // Without anybody to tell, nothing is asked.
        let done = match &mut on_wait {
            Some(on_wait) => {
                let mut tell = |waiting: Waiting| {
                    on_wait(&waiting);
                    latest = Some(waiting);
                };
                in_time(within, lock.take(want, Some(&mut tell))).await
            }
            None => in_time(within, lock.take(want, None)).await,
        };
        match done {
            Ok(done) => done,
            Err(after) => {
                if latest.is_none() {
                    latest = lock.last_look(want, LAST_LOOK).await;
                }
                let Waiting { ahead, holder } = latest.unwrap_or_default();
                Err(Error::TimedOut { after, ahead, holder: holder.map(Box::new) })
            }
        }
    }
}

/// What came of it in this time, or that it was too long.
async fn in_time<T>(within: Option<Duration>, wait: impl Future<Output = T>) -> Result<T, Duration> {
    match within {
        None => Ok(wait.await),
        Some(after) => tokio::time::timeout(after, wait).await.map_err(|_| after),
    }
}

impl<K> fmt::Debug for Acquire<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, want, within, .. } = self;
        let mut f = f.debug_struct("Acquire");
        f.field("lock", lock).field("want", want).field("within", within).finish_non_exhaustive()
    }
}

impl<K: Kind> IntoFuture for Acquire<K> {
    type Output = Result<Guard<K>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (lock, want) = (self.lock.clone(), self.want);
            Ok(Guard::new(self.award().await?, lock, want))
        })
    }
}
