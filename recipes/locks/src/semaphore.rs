//! The semaphore: permits in numbers, given out in the order of the line.

use std::future::Future;

use conclave_client::{Client, Path, ToPath};

use crate::acquire::Acquire;
use crate::error::{Error, Result};
use crate::guard::{Guard, Held};
use crate::layout::Settings;
use crate::lock::{Lock, PLUGIN};
use crate::mutex::at_once;
use crate::view::{self, Overview};
use crate::want::{Permits, Want};

/// So many permits at a path of the tree, for whoever takes some. Clones are the same semaphore. (Curator's
/// `InterProcessSemaphoreV2`.)
///
/// *Strictly in line*: one who wants few permits never passes one who wants many, so none starves. The capacity is kept in
/// the tree: those who mean another one are refused, instead of giving out more than there are.
///
/// Several tasks of a client may each hold some. A task that holds some and waits for more can wait for itself, or for
/// another that does the same: take all at once.
#[derive(Clone, Debug)]
pub struct Semaphore {
    lock: Lock,
}

/// Permits that are held.
pub type Permit = Guard<Permits>;

impl Semaphore {
    /// The semaphore at a path, with this capacity: it is made by the first who needs it. Nothing is asked of the cluster
    /// yet. Once it has another capacity, acquiring is refused with [`Error::OtherCapacity`].
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath, capacity: u64) -> Result<Self> {
        let lock = Lock::new(client, path)?;
        Ok(Self { lock: Lock { capacity: Some(capacity), ..lock } })
    }

    /// The semaphore at a path, with the capacity that it has: for where that is set by somebody else, or changes. While it
    /// is not made, acquiring is refused with [`Error::NoSemaphore`].
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn open(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { lock: Lock::new(client, path)? })
    }

    /// A text for people, shown to those who wait: what the permits are wanted for.
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

    /// Waits in line for a permit. See [`Acquire`].
    pub fn acquire(&self) -> Acquire<Permits> {
        self.acquire_many(1)
    }

    /// Waits in line for so many permits, all at once. See [`Acquire`].
    pub fn acquire_many(&self, permits: u64) -> Acquire<Permits> {
        Acquire::new(&self.lock, Want::Permits(permits))
    }

    /// Takes a permit, if there is one and nobody waits.
    ///
    /// # Errors
    /// As [`Semaphore::try_acquire_many`].
    pub async fn try_acquire(&self) -> Result<Permit> {
        self.try_acquire_many(1).await
    }

    /// Takes so many permits, if there are that many and nobody waits.
    ///
    /// # Errors
    /// [`Error::NotFree`]; otherwise as [`Acquire`].
    pub async fn try_acquire_many(&self, permits: u64) -> Result<Permit> {
        at_once(&self.lock, Want::Permits(permits)).await
    }

    /// Waits for a permit, does the work, and gives it back. See [`Acquire::run`].
    ///
    /// # Errors
    /// As [`Acquire::run`].
    pub async fn run<W: Future>(&self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        self.acquire().run(work).await
    }

    /// Gives it another capacity, or makes it with this one. Who holds permits keeps them; with less than they hold, nobody
    /// gets any until enough are given back. (Curator's `SharedCountReader` as the number of leases.)
    ///
    /// Those who said another capacity are refused from then on: let them [`Semaphore::open`] it.
    ///
    /// # Errors
    /// [`Error::BadPermits`] when it is 0; otherwise as every write.
    pub async fn set_capacity(&self, capacity: u64) -> Result<()> {
        let path = self.lock.layout.lock();
        if capacity == 0 {
            return Err(Error::BadPermits { path: path.clone(), permits: 0, capacity });
        }
        if self.lock.is_plain {
            let data = Settings { capacity }.encode();
            self.lock.client.at(path).create(data).parents().or_set().await?;
        } else {
            let call = self.lock.client.call(PLUGIN, "set-capacity");
            call.arg("path", path.as_str()).arg("capacity", capacity).await?;
        }
        Ok(())
    }

    /// Who holds how many permits, who waits for how many, and how many there are.
    ///
    /// # Errors
    /// As every read.
    pub async fn view(&self) -> Result<Overview> {
        view::overview(&self.lock).await
    }

    /// Asks all who hold permits to give them back. See [`Mutex::request_release`](crate::Mutex::request_release).
    ///
    /// # Errors
    /// As every write.
    pub async fn request_release(&self, note: impl Into<String>) -> Result<()> {
        self.lock.request_release(note.into()).await
    }
}

impl Guard<Permits> {
    /// How many permits it holds.
    #[must_use]
    pub const fn permits(&self) -> u64 {
        match self.want.permits() {
            Some(permits) => permits,
            None => 1,
        }
    }
}
