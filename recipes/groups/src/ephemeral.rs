//! An ephemeral znode that outlives its session: it comes back with a new one.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use conclave_awards::Owned;
use conclave_client::{Client, Error as ClientError, Fence, Path, PathError, Refusal, Session, SessionId, ToPath};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::keeper;

/// How long the first creation may take: a process that was started again finds the znode of its predecessor until that
/// one's session is over, which is by default ten seconds, an election at most on top.
const WITHIN: Duration = Duration::from_secs(60);

/// Is it there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It is, and its session was renewed lately.
    Present,
    /// It was when a member was heard last; whether its session can be saved is not known.
    Uncertain,
    /// It is not there, or not there for long; it is being created.
    Absent,
    /// Another session has a znode there: it waits until that one goes.
    Taken {
        /// Whose; none when it is not ephemeral.
        owner: Option<SessionId>,
    },
    /// It is kept no more.
    Ended,
}

/// Begins to keep an ephemeral znode; made by [`PersistentEphemeral::create`]. Awaited it gives the
/// [`PersistentEphemeral`] once the znode is there.
///
/// # Errors
/// [`Error::Taken`] or [`Error::TimedOut`] after the time that it had, [`Error::Client`] when the cluster refuses it.
///
/// # Cancellation
/// Dropping the future leaves nothing behind.
#[derive(Clone, Debug)]
#[must_use = "nothing is created until it is awaited"]
pub struct Create {
    client: Client,
    path: Result<Path, PathError>,
    data: Bytes,
    replaces: bool,
    within: Duration,
}

impl Create {
    /// Takes the place of an ephemeral znode that another session has there, at once: of a predecessor that is gone, when
    /// the name can only be one's own. It does that once, before it was ever there: two that replace each other for ever
    /// there are not. The one that was replaced waits until the path is free again.
    pub fn replace(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// The time until it must be there; a minute without it.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Begins without waiting until it is there.
    ///
    /// # Errors
    /// When the path is none.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<PersistentEphemeral> {
        let wanted = Wanted { data: self.data, revision: 1, stopped: false };
        let inner = Arc::new(Inner {
            path: self.path?,
            replaces: self.replaces,
            wanted: watch::Sender::new(wanted),
            seen: watch::Sender::new(Seen { now: Now::Absent, settled: 0, failed: None }),
            slot: Slot::default(),
            within: self.client.options().request_timeout(),
        });
        tokio::spawn(keeper::keep(Arc::clone(&inner), self.client));
        Ok(PersistentEphemeral { inner })
    }
}

impl IntoFuture for Create {
    type Output = Result<PersistentEphemeral>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let within = self.within;
            let kept = self.start()?;
            match tokio::time::timeout(within, kept.present()).await {
                Ok(done) => done.map(|_| kept),
                Err(_) => Err(match kept.state() {
                    State::Taken { owner } => Error::Taken { path: kept.path().clone(), owner },
                    _ => Error::TimedOut { path: kept.path().clone(), after: within },
                }),
            }
        })
    }
}

/// An ephemeral znode that is there as long as this is kept (Curator's `PersistentNode`): with the client's session, and
/// when that is lost with a session of a new client, made with the same options. Dropping it removes the znode, without
/// waiting and without a report; see [`PersistentEphemeral::remove`].
///
/// What somebody else deletes is created again. The znode's data is what [`PersistentEphemeral::set_data`] said last.
#[derive(Debug)]
#[must_use = "dropping it removes the znode at once"]
pub struct PersistentEphemeral {
    inner: Arc<Inner>,
}

/// What the handle and the task that keeps the znode share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) path: Path,
    pub(crate) replaces: bool,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) slot: Slot,
    within: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) data: Bytes,
    /// How often it was said.
    pub(crate) revision: u64,
    pub(crate) stopped: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) now: Now,
    /// Up to this revision the data was written, or refused.
    pub(crate) settled: u64,
    /// The last one that was refused, and why.
    pub(crate) failed: Option<(u64, ClientError)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Now {
    Absent,
    Here(Award),
    Taken(Option<SessionId>),
    Ended(Option<ClientError>),
}

/// A znode that is there, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Award {
    pub(crate) client: Client,
    pub(crate) session: Session,
    pub(crate) fence: Fence,
}

/// Where the znode's owner lies, so that the handle gives it back when it is dropped, without waiting for the task.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Place>);

#[derive(Debug, Default)]
enum Place {
    #[default]
    Empty,
    Full(Owned),
    Stopped,
}

impl Slot {
    /// Puts it there; when all is over already it is given back instead.
    pub(crate) fn put(&self, owned: Owned) -> bool {
        let mut place = self.lock();
        if matches!(*place, Place::Stopped) {
            drop(place);
            drop(owned);
            return false;
        }
        *place = Place::Full(owned);
        true
    }

    pub(crate) fn take(&self) -> Option<Owned> {
        let mut place = self.lock();
        if matches!(*place, Place::Stopped) {
            return None;
        }
        match std::mem::take(&mut *place) {
            Place::Full(owned) => Some(owned),
            Place::Empty | Place::Stopped => None,
        }
    }

    fn stop(&self) -> Option<Owned> {
        match std::mem::replace(&mut *self.lock(), Place::Stopped) {
            Place::Full(owned) => Some(owned),
            Place::Empty | Place::Stopped => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PersistentEphemeral {
    /// Keeps an ephemeral znode at this path, with its missing parents (which are persistent and stay).
    pub fn create(client: &Client, path: impl ToPath, data: impl Into<Bytes>) -> Create {
        Self::create_at(client, path.to_path(), data.into())
    }

    pub(crate) fn create_at(client: &Client, path: Result<Path, PathError>, data: Bytes) -> Create {
        Create { client: client.clone(), path, data, replaces: false, within: WITHIN }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Is it there? By what was heard, without asking anybody.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.inner.seen.borrow().now {
            Now::Absent => State::Absent,
            Now::Here(award) => match award.client.state() {
                conclave_client::State::Connected => State::Present,
                conclave_client::State::Suspended => State::Uncertain,
                conclave_client::State::Lost => State::Absent,
            },
            Now::Taken(owner) => State::Taken { owner: *owner },
            Now::Ended(_) => State::Ended,
        }
    }

    /// Names the znode as it is now: another with each session, and none while it is not there. Writes that are
    /// `.fenced(..)` by it are refused once that one is gone.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match &self.inner.seen.borrow().now {
            Now::Here(award) => Some(award.fence.clone()),
            _ => None,
        }
    }

    /// The client whose session the znode belongs to now: at first the one that it was made with, after the loss of its
    /// session a new one. None while the znode is not there. What goes with the znode, such as znodes below it, is made
    /// by this client.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        match &self.inner.seen.borrow().now {
            Now::Here(award) => Some(award.client.clone()),
            _ => None,
        }
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// [`Error::Ended`] when it is kept no more, [`Error::Client`] when it could not be created the first time.
    pub async fn present(&self) -> Result<Fence> {
        let mut seen = self.inner.seen.subscribe();
        loop {
            match &seen.borrow_and_update().now {
                Now::Here(award) => return Ok(award.fence.clone()),
                Now::Ended(Some(error)) => return Err(error.clone().into()),
                Now::Ended(None) => return Err(self.ended()),
                Now::Absent | Now::Taken(_) => {}
            }
            seen.changed().await.map_err(|_| self.ended())?;
        }
    }

    /// Replaces its data, now and whenever it is created again. Returns when the cluster has it.
    ///
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after the client's request timeout: it is written when it can be. [`Error::Client`] when the
    /// cluster refused it: then the data is what it was. [`Error::Ended`].
    pub async fn set_data(&self, data: impl Into<Bytes>) -> Result<()> {
        let mut revision = 0;
        let data = data.into();
        self.inner.wanted.send_modify(|wanted| {
            wanted.data = data;
            wanted.revision += 1;
            revision = wanted.revision;
        });
        let mut seen = self.inner.seen.subscribe();
        let settled = seen.wait_for(|seen| seen.settled >= revision || matches!(seen.now, Now::Ended(_)));
        match tokio::time::timeout(self.inner.within, settled).await {
            Ok(Ok(seen)) => match (&seen.now, &seen.failed) {
                (_, Some((failed, error))) if *failed >= revision => Err(error.clone().into()),
                _ if seen.settled >= revision => Ok(()),
                _ => Err(self.ended()),
            },
            Ok(Err(_)) => Err(self.ended()),
            Err(_) => Err(self.late()),
        }
    }

    /// Removes it, and waits until the cluster has done it. Dropped half-way it is removed all the same.
    ///
    /// # Errors
    /// [`Error::TimedOut`] or [`Error::Client`] when there was no answer in the client's request timeout: it goes on being
    /// removed, and is gone with its session at the latest.
    pub async fn remove(self) -> Result<()> {
        self.inner.wanted.send_modify(|wanted| wanted.stopped = true);
        let mut seen = self.inner.seen.subscribe();
        let ended = seen.wait_for(|seen| matches!(seen.now, Now::Ended(_)));
        // Only then there is nothing on its way any more that would create it.
        if tokio::time::timeout(self.inner.within, ended).await.is_err() {
            return Err(self.late());
        }
        let Some(owned) = self.inner.slot.stop() else { return Ok(()) };
        match owned.delete().await {
            Ok(()) | Err(ClientError::Refused(Refusal::Fenced { .. })) => Ok(()),
            // It went with its session.
            Err(error) if error.is_session_over() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.inner.seen.subscribe()
    }

    fn ended(&self) -> Error {
        Error::Ended { path: self.inner.path.clone() }
    }

    fn late(&self) -> Error {
        Error::TimedOut { path: self.inner.path.clone(), after: self.inner.within }
    }
}

impl Drop for PersistentEphemeral {
    fn drop(&mut self) {
        self.inner.wanted.send_modify(|wanted| wanted.stopped = true);
        drop(self.inner.slot.stop());
    }
}
