//! The mutex: a path, a client, and what can be done with both.

use std::future::Future;

use conclave_client::{Client, Path, ToPath};

use crate::acquire::Acquire;
use crate::error::{Error, Result};
use crate::guard::{Guard, Held};
use crate::lock::Lock;
use crate::view::{self, View};
use crate::want::Want;

/// A fair lock at a path of the tree, that one holds at a time. Clones are the same mutex. The [crate's page](crate) says
/// what it promises. (Curator's `InterProcessSemaphoreMutex`, and its `InterProcessMutex` without re-entrance.)
#[derive(Clone, Debug)]
pub struct Mutex {
    pub(crate) lock: Lock,
}

impl Mutex {
    /// The mutex at a path. Nothing is asked of the cluster yet; its znodes are made when they are needed.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { lock: Lock::new(client, path)? })
    }

    /// A text for people, shown to those who wait: what the lock is wanted for.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.lock.note = Some(note.into());
        self
    }

    /// Without the plugin `lock`: on znodes alone, with more round trips. Both kinds stand in one line.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.lock.is_plain = true;
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        self.lock.layout.lock()
    }

    /// Waits in line until the lock is ours. Opens the client's session.
    ///
    /// See [`Acquire`] for what can be said about waiting, and for errors and cancellation.
    pub fn acquire(&self) -> Acquire {
        Acquire::new(&self.lock, Want::Mutex)
    }

    /// Takes the lock if it is free and nobody waits for it. It never stands in line. Opens the client's session.
    ///
    /// Dropping the future gives back what it may have taken.
    ///
    /// # Errors
    /// [`Error::NotFree`], [`Error::AlreadyHeld`]; [`Error::TimedOut`] after the client's request timeout,
    /// [`Error::SessionOver`], [`Error::Client`].
    pub async fn try_acquire(&self) -> Result<Guard> {
        at_once(&self.lock, Want::Mutex).await
    }

    /// Waits in line for the lock, does the work under it, and releases it. The work is dropped where it stands when
    /// the lock is lost. For a time limit and the like see [`Acquire::run`].
    ///
    /// # Errors
    /// As [`Acquire::run`].
    pub async fn run<W: Future>(&self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        self.acquire().run(work).await
    }

    /// Asks whoever holds the lock to release it, with a reason for people. It is told by
    /// [`Guard::release_requested`], if it listens, and decides. Who comes to hold it later is not told. (Curator's
    /// `Revoker`.) Needs no session.
    ///
    /// # Errors
    /// As every write.
    pub async fn request_release(&self, note: impl Into<String>) -> Result<()> {
        self.lock.request_release(note.into()).await
    }

    /// Who holds it, and who waits. Needs no session.
    ///
    /// # Errors
    /// As every read.
    pub async fn view(&self) -> Result<View> {
        view::view(&self.lock).await
    }
}

/// Takes a lock if it is free and nobody waits for it.
pub(crate) async fn at_once<K: crate::want::Kind>(lock: &Lock, want: Want) -> Result<Guard<K>> {
    let within = lock.client.options().request_timeout();
    match tokio::time::timeout(within, lock.try_take(want)).await {
        Ok(award) => Ok(Guard::new(award?, lock.clone(), want)),
        // Nobody was heard: there is nothing to say of the lock.
        Err(_) => Err(Error::TimedOut { after: within, ahead: 0, holder: None }),
    }
}
