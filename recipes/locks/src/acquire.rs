//! Waiting in line: from the first look to the award.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::time::Duration;

use conclave_client::{Error as ClientError, Listing, Path, Refusal, Session, Zxid};
use futures::future::BoxFuture;

use crate::decide::{Decision, decide};
use crate::error::{Error, Result};
use crate::guard::{Guard, Held, State};
use crate::mutex::Mutex;
use crate::place::{self, Turn};
use crate::view::{self, Holder, Waiting};

/// Waits for a lock; made by [`Mutex::acquire`]. Awaited it gives a [`Guard`].
///
/// # Errors
/// [`Error::AlreadyHeld`] at once when the client's own session holds the lock, [`Error::TimedOut`] when it was given
/// a time, [`Error::SessionOver`] when the session was lost meanwhile, [`Error::PlaceGone`] when somebody deleted the
/// place in line, [`Error::Client`] when a request failed. After each of them the place in line is given up.
///
/// # Cancellation
/// Dropping the future withdraws the wait: the place in line is deleted, and an award that was just being made is
/// given back, without anybody waiting for it. Requests that the same client makes afterwards come after that.
#[must_use = "it waits for nothing until it is awaited"]
pub struct Acquire {
    mutex: Mutex,
    within: Option<Duration>,
    on_wait: Option<OnWait>,
}

type OnWait = Box<dyn FnMut(&Waiting) + Send>;

impl Acquire {
    pub(crate) fn new(mutex: Mutex) -> Self {
        Self { mutex, within: None, on_wait: None }
    }

    /// Waits so long at most. Without it: as long as the session lives.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Is told when it begins to wait, and whenever whom it waits for has changed: the place before its own is gone,
    /// or it is first in line and somebody else holds the lock. That others further ahead leave is not told at once:
    /// nobody watches the whole line.
    ///
    /// ```no_run
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
    /// is lost; while its state is [`State::Uncertain`] it goes on, and it is the work's to look.
    ///
    /// A value means that the lease had not run out when the work ended. A release that fails after that is only
    /// logged: the lock is free with the session's end at the latest.
    ///
    /// # Errors
    /// [`Error::Lost`] when the work was dropped, or ended too late. All others: it was never begun. See
    /// [`Error::outcome`].
    pub async fn run<W: Future>(self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        let guard = self.await?;
        let value = tokio::select! {
            biased;
            why = guard.lost() => return Err(why.into()),
            value = work(guard.held()) => value,
        };
        if guard.state() == State::Lost {
            return Err(guard.lost().await.into());
        }
        let fence = guard.fence();
        if let Err(error) = guard.release().await {
            tracing::warn!(%fence, %error, "the lock was not released in good order");
        }
        Ok(value)
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("mutex", &self.mutex).field("within", &self.within).finish_non_exhaustive()
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Guard>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { mutex, within, mut on_wait } = self;
            let mut latest = Waiting::default();
            let tell = |waiting: Waiting| {
                if let Some(on_wait) = &mut on_wait {
                    on_wait(&waiting);
                }
                latest = waiting;
            };
            let wait = mutex.wait(tell);
            let Some(after) = within else { return wait.await };
            match tokio::time::timeout(after, wait).await {
                Ok(done) => done,
                Err(_) => {
                    let Waiting { ahead, holder } = latest;
                    Err(Error::TimedOut { after, ahead, holder: holder.map(Box::new) })
                }
            }
        })
    }
}

impl Mutex {
    /// Waits for the lock. Everything that it takes on the way gives itself back when it is dropped.
    async fn wait(&self, mut tell: impl FnMut(Waiting)) -> Result<Guard> {
        let session = self.client.session().await?;
        let look = self.look(&session).await?;
        if let Some(guard) = self.take_free(&session, &look).await? {
            return Ok(guard);
        }
        let mut place = place::queue(&self.client, &self.layout, self.who()).await?;
        let path = place.fence().path.clone();
        loop {
            let (line, holder) = self.while_open(&session, || self.line()).await?;
            let names = line.children.iter().map(|entry| entry.name.as_str());
            match decide(&self.layout, names, path.name().unwrap_or_default(), holder.is_some()) {
                Decision::Gone => return Err(Error::PlaceGone { place: path }),
                Decision::Mine => match place::take_turn(&self.layout, self.who(), place, &self.awards).await? {
                    Turn::Award(award) => return Ok(Guard::new(award, session)),
                    Turn::NotNow(again) => place = again,
                },
                Decision::Watch { path, ahead } => {
                    // After the older of the two states: what changed since is told, and nothing can be missed.
                    let since = holder.as_ref().map_or(line.zxid, |(_, zxid)| line.zxid.min(*zxid));
                    tell(Waiting { ahead, holder: holder.map(|(holder, _)| holder) });
                    self.while_open(&session, || self.change(&path, since)).await?;
                }
            }
        }
    }

    /// Reads the line and the holder.
    async fn line(&self) -> Result<(Listing, Option<(Holder, Zxid)>)> {
        let line = async {
            match self.client.at(self.layout.line()).children().await {
                // The place has gone with it.
                Err(ClientError::Refused(Refusal::NoZnode { .. })) => {
                    Ok(Listing { children: Vec::new(), zxid: Zxid(0), whole: true })
                }
                line => Ok(line?),
            }
        };
        futures::try_join!(line, view::holder(&self.client, &self.layout))
    }

    /// Waits until a znode has changed since that state.
    async fn change(&self, path: &Path, since: Zxid) -> Result<()> {
        let mut watch = self.client.watch(path).data().once().since(since).await?;
        match watch.next().await {
            // Whatever it was, and if it is not told what: look again.
            Some(event) => event.map(drop).map_err(Error::from),
            // The client is closed.
            None => Err(Error::SessionOver),
        }
    }

    /// Asks, and asks again what could only not be answered in its time: a line is left when the session is lost, and
    /// not before.
    async fn while_open<T, A>(&self, session: &Session, ask: impl Fn() -> A) -> Result<T>
    where
        A: Future<Output = Result<T>>,
    {
        loop {
            let done = tokio::select! {
                biased;
                () = session.lost() => return Err(Error::SessionOver),
                done = ask() => done,
            };
            match done {
                Err(Error::Client(error)) if error.is_retryable() => tracing::debug!(%error, "asked again"),
                done => return done,
            }
        }
    }
}
