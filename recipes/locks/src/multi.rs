//! Several mutexes at once: all of them, or none.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::time::{Duration, Instant};

use conclave_client::{Client, Fence, Multi, Path, ToPath};
use futures::future::{join_all, select_all};

use crate::error::{Error, Lost, Result};
use crate::guard::{Guard, Held, State};
use crate::mutex::Mutex;

/// Several mutexes that are held together or not at all. (Curator's `InterProcessMultiLock`.)
///
/// They are taken one after the other in the order of their paths, whatever order they were named in. So programs that take
/// them by a `MultiLock` never wait for each other in a circle. Those that come first are held while the later ones are
/// waited for; when it is given up, they are released.
///
/// ```no_run
/// # // Not run: the tests do.
/// # async fn example(client: conclave_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use conclave_locks::MultiLock;
///
/// let both = MultiLock::new(&client, ["/locks/b", "/locks/a"])?;
/// let guard = both.acquire_within(Duration::from_secs(30)).await?;
/// guard.transaction(&client)?.add("/accounts/a", -1).add("/accounts/b", 1).commit().await?; // only while both are held
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MultiLock {
    /// In the order of their paths, each once.
    locks: Vec<Mutex>,
}

/// Several mutexes that are held. Dropping it releases them all. It is lost when any of them is.
#[derive(Debug)]
#[must_use = "dropping it releases the locks at once"]
pub struct MultiGuard {
    guards: Vec<Guard>,
}

impl MultiLock {
    /// The mutexes at these paths. A path that is named twice counts once.
    ///
    /// # Errors
    /// When a text is no path, or too long a one; [`Error::NoLocks`] when there are none.
    pub fn new(client: &Client, paths: impl IntoIterator<Item = impl ToPath>) -> Result<Self> {
        let mut locks = BTreeMap::new();
        for path in paths {
            let mutex = Mutex::new(client, path)?;
            locks.insert(mutex.path().clone(), mutex);
        }
        if locks.is_empty() { Err(Error::NoLocks) } else { Ok(Self { locks: locks.into_values().collect() }) }
    }

    /// See [`Mutex::note`].
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        let note = note.into();
        self.locks = self.locks.into_iter().map(|mutex| mutex.note(note.clone())).collect();
        self
    }

    /// See [`Mutex::plain`].
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.locks = self.locks.into_iter().map(Mutex::plain).collect();
        self
    }

    /// Their paths, in the order in which they are taken.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.locks.iter().map(Mutex::path)
    }

    /// Waits until all of them are ours. Dropping the future gives back those that it has, and withdraws the wait.
    ///
    /// # Errors
    /// As [`Acquire`](crate::Acquire), of the first that fails; [`Error::Lost`] when one was lost while others were waited
    /// for. Then none is held.
    pub async fn acquire(&self) -> Result<MultiGuard> {
        self.take(None).await
    }

    /// As [`MultiLock::acquire`], with so much time for all of them together.
    ///
    /// # Errors
    /// As [`MultiLock::acquire`]; [`Error::TimedOut`], which says whom it waited for.
    pub async fn acquire_within(&self, time: Duration) -> Result<MultiGuard> {
        self.take(Some(time)).await
    }

    /// Takes all of them, if all are free and nobody waits for any.
    ///
    /// # Errors
    /// As [`Mutex::try_acquire`]. Then none is held.
    pub async fn try_acquire(&self) -> Result<MultiGuard> {
        let mut taken = MultiGuard { guards: Vec::with_capacity(self.locks.len()) };
        for mutex in &self.locks {
            taken.guards.push(mutex.try_acquire().await?);
        }
        Ok(taken)
    }

    /// Waits for all of them, does the work under them, and releases them. The work is dropped where it stands when one is
    /// lost. See [`Acquire::run`](crate::Acquire::run).
    ///
    /// # Errors
    /// As [`Acquire::run`](crate::Acquire::run).
    pub async fn run<W: Future>(&self, work: impl FnOnce(Vec<Held>) -> W) -> Result<W::Output> {
        let guard = self.acquire().await?;
        let value = tokio::select! {
            biased;
            why = guard.lost() => return Err(why.into()),
            value = work(guard.held()) => value,
        };
        if guard.state() == State::Lost {
            return Err(guard.lost().await.into());
        }
        if let Err(error) = guard.release().await {
            tracing::warn!(%error, "locks were not released in good order");
        }
        Ok(value)
    }

    async fn take(&self, within: Option<Duration>) -> Result<MultiGuard> {
        let begun = Instant::now();
        let mut taken = MultiGuard { guards: Vec::with_capacity(self.locks.len()) };
        for mutex in &self.locks {
            let wait = mutex.acquire();
            let wait = match within {
                Some(time) => wait.within(time.saturating_sub(begun.elapsed())),
                None => wait,
            };
            let next = tokio::select! {
                biased;
                next = wait.into_future() => next,
                // What it has is no use any more: it need not wait for the rest.
                why = taken.lost() => Err(why.into()),
            };
            let next = next.map_err(|error| match (error, within) {
                // Of all the time, not of the rest that there was for this one.
                (Error::TimedOut { ahead, holder, .. }, Some(after)) => Error::TimedOut { after, ahead, holder },
                (error, _) => error,
            });
            taken.guards.push(next?);
        }
        Ok(taken)
    }
}

impl MultiGuard {
    /// What can be asked of each, in the order of their paths.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        self.guards.iter().map(Guard::held).collect()
    }

    /// Their fences, in the order of their paths.
    #[must_use]
    pub fn fences(&self) -> Vec<Fence> {
        self.guards.iter().map(|guard| guard.fence()).collect()
    }

    /// May one rely on all of them? See [`Held::state`].
    #[must_use]
    pub fn state(&self) -> State {
        worst(self.guards.iter().map(|guard| guard.state()))
    }

    /// Waits until one of them is lost, and says why.
    pub async fn lost(&self) -> Lost {
        if self.guards.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.guards.iter().map(|guard| Box::pin(guard.lost()))).await.0
    }

    /// When the first of them is lost if no member is heard any more. See [`Held::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.guards.iter().map(|guard| guard.deadline()).min().unwrap_or_else(Instant::now)
    }

    /// A transaction that is carried out only while all of them are held.
    ///
    /// # Errors
    /// When one of them lies outside of that client's namespace.
    pub fn transaction(&self, client: &Client) -> Result<Multi> {
        let mut transaction = client.transaction();
        for guard in &self.guards {
            transaction = transaction.check_fence(guard.fenced(client)?.fence().clone());
        }
        Ok(transaction)
    }

    /// Gives all of them back, and waits until the cluster has done it.
    ///
    /// # Errors
    /// As [`Guard::release`], of the first that could not be given back in good order; the others are, all the same.
    pub async fn release(self) -> Result<()> {
        let released = join_all(self.guards.into_iter().map(Guard::release)).await;
        released.into_iter().collect()
    }
}

/// What can be said of all, from what can be said of each.
fn worst(states: impl Iterator<Item = State>) -> State {
    states.fold(State::Held, |worst, state| match (worst, state) {
        (State::Lost, _) | (_, State::Lost) => State::Lost,
        (State::Uncertain, _) | (_, State::Uncertain) => State::Uncertain,
        (State::Held, State::Held) => State::Held,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_as_good_as_the_worst_of_them() {
        use State::{Held, Lost, Uncertain};
        for (states, expected) in [
            (&[Held, Held][..], Held),
            (&[Held, Uncertain, Held], Uncertain),
            (&[Uncertain, Lost, Held], Lost),
            (&[Lost, Uncertain], Lost),
        ] {
            assert_eq!(worst(states.iter().copied()), expected, "{states:?}");
        }
    }
}
