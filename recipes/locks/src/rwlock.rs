//! The read-write lock: held by many who read, or by one who writes.

use std::future::Future;

use conclave_awards::Exchanged;
use conclave_client::{Check, Client, Condition, Path, Step, ToPath};

use crate::acquire::Acquire;
use crate::error::Result;
use crate::guard::{Guard, Held};
use crate::lock::Lock;
use crate::mutex::at_once;
use crate::view::{self, Overview};
use crate::want::{Exclusive, Shared, Want};

/// A fair lock at a path of the tree, that many hold to read, or one to write. Clones are the same lock. (Curator's
/// `InterProcessReadWriteLock`.)
///
/// *Strictly in line*: nobody who reads passes one who waits to write, and whoever waits to write waits only for those that
/// were there before it. So neither starves; a read that comes after a waiting write waits for it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # let other = cluster.client("you").await?;
/// use conclave_locks::{RwLock, Upgrade};
///
/// let catalogue = RwLock::new(&client, "/locks/catalogue")?;
/// let reading = catalogue.read().await?;
/// # assert!(RwLock::new(&other, "/locks/catalogue")?.try_write().await.is_err());
/// let writing = match reading.try_upgrade().await? {
///     Upgrade::Exclusive(writing) => writing,
///     Upgrade::Shared(reading) => {
///         reading.release().await?; // others read too: stand in line as all do
///         catalogue.write().await?
///     }
/// };
/// client.at("/catalogue").create("v2").fenced(writing.fence()).await?;
/// let reading = writing.downgrade().await?; // nobody writes in between
/// reading.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RwLock {
    lock: Lock,
}

/// A [`RwLock`] that is held to read, with others.
pub type ReadGuard = Guard<Shared>;

/// A [`RwLock`] that is held to write, alone.
pub type WriteGuard = Guard<Exclusive>;

/// What came of [`ReadGuard::try_upgrade`](Guard::try_upgrade).
#[derive(Debug)]
pub enum Upgrade {
    /// It is held to write now.
    Exclusive(WriteGuard),
    /// Others read too: it is held to read, as before, and was all the time.
    Shared(ReadGuard),
}

impl RwLock {
    /// The lock at a path. Nothing is asked of the cluster yet; its znodes are made when they are needed.
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

    /// Waits in line until it may read. A client that reads already gets another guard at once, or
    /// [`Error::AlreadyHeld`](crate::Error::AlreadyHeld) when it would have to wait: that could be for itself.
    ///
    /// See [`Acquire`] for what can be said about waiting, and for errors and cancellation.
    pub fn read(&self) -> Acquire<Shared> {
        Acquire::new(&self.lock, Want::Read)
    }

    /// Waits in line until it may write, alone. See [`Acquire`].
    pub fn write(&self) -> Acquire<Exclusive> {
        Acquire::new(&self.lock, Want::Write)
    }

    /// Takes it to read, if nobody writes or waits.
    ///
    /// # Errors
    /// As [`Mutex::try_acquire`](crate::Mutex::try_acquire).
    pub async fn try_read(&self) -> Result<ReadGuard> {
        at_once(&self.lock, Want::Read).await
    }

    /// Takes it to write, if nobody holds it or waits.
    ///
    /// # Errors
    /// As [`Mutex::try_acquire`](crate::Mutex::try_acquire).
    pub async fn try_write(&self) -> Result<WriteGuard> {
        at_once(&self.lock, Want::Write).await
    }

    /// Waits until it may read, does the work, and releases it. See [`Acquire::run`].
    ///
    /// # Errors
    /// As [`Acquire::run`].
    pub async fn run_read<W: Future>(&self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        self.read().run(work).await
    }

    /// Waits until it may write, does the work, and releases it. See [`Acquire::run`].
    ///
    /// # Errors
    /// As [`Acquire::run`].
    pub async fn run_write<W: Future>(&self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        self.write().run(work).await
    }

    /// Asks all who hold it to release it. See [`Mutex::request_release`](crate::Mutex::request_release).
    ///
    /// # Errors
    /// As every write.
    pub async fn request_release(&self, note: impl Into<String>) -> Result<()> {
        self.lock.request_release(note.into()).await
    }

    /// Who writes, who reads, and who waits for what.
    ///
    /// # Errors
    /// As every read.
    pub async fn view(&self) -> Result<Overview> {
        view::overview(&self.lock).await
    }
}

impl Guard<Shared> {
    /// Holds it to write, if nobody else reads. It passes those who wait, as they wait for it anyway; so of two who would
    /// upgrade neither can, and neither waits for the other: release it, and stand in line.
    ///
    /// Its fence is a new one; clones of [`Held`] of before are told that it was released. Dropping the future releases it.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) when it was lost before; otherwise as every write, and the lock is released.
    pub async fn try_upgrade(self) -> Result<Upgrade> {
        let Self { award, lock, .. } = self;
        // One, and that is its own: the write carries its fence.
        let alone = Condition::Children { least: 1, most: 1 };
        let check = Check { path: lock.layout.shared().clone(), condition: alone };
        let wanted = lock.award(Want::Write, vec![Step::Check(check)]);
        Ok(match award.exchange(wanted, &lock.under_way).await? {
            Exchanged::For(award) => Upgrade::Exclusive(Guard::new(award, lock, Want::Write)),
            Exchanged::Not(award) => Upgrade::Shared(Self::new(award, lock, Want::Read)),
        })
    }
}

impl Guard<Exclusive> {
    /// Holds it to read from now on; nobody writes in between. Those who wait to read, and are next, read too.
    ///
    /// Its fence is a new one; clones of [`Held`] of before are told that it was released. Dropping the future releases it.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) when it was lost before; otherwise as every write, and the lock is released.
    pub async fn downgrade(self) -> Result<ReadGuard> {
        let Self { award, lock, .. } = self;
        match award.exchange(lock.award(Want::Read, Vec::new()), &lock.under_way).await? {
            Exchanged::For(award) => Ok(Guard::new(award, lock, Want::Read)),
            // A number that is new is not refused.
            Exchanged::Not(award) => {
                drop(award);
                Err(conclave_client::Error::Mismatch { question: "downgrade" }.into())
            }
        }
    }
}
