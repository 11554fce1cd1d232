//! Registering an instance, and what it says of itself from then on.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use conclave_client::{Client, Error as ClientError, Fence, Path, PathError, Refusal};
use conclave_groups::{PersistentEphemeral, State};
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::instance::{Instance, Status, millis, reason};

/// The name of an instance's heartbeat.
pub(crate) const BEAT: &str = "beat";
/// What a check is before it has run.
const UNCHECKED: &str = "it was not checked yet";

type Run = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Registers an instance; made by [`Discovery::register`](crate::Discovery::register). Awaited it gives a
/// [`Registration`] once the instance is registered.
///
/// Without more it counts as healthy while its session lives.
///
/// # Errors
/// [`Error::Registration`]: the id is taken, the time is over, or the cluster refuses it.
///
/// # Cancellation
/// Dropping the future leaves nothing registered.
#[must_use = "nothing is registered until it is awaited"]
pub struct Register {
    client: Client,
    path: Result<Path, PathError>,
    instance: Instance,
    within: Option<Duration>,
    check: Option<(Duration, Run)>,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Register {
    pub(crate) fn new(client: &Client, path: Result<Path, PathError>, instance: Instance) -> Self {
        Self { client: client.clone(), path, instance, within: None, check: None }
    }

    /// It is healthy only as long as [`Registration::beat`] is called at least so often: a program that lives and does
    /// nothing any more is found out. The cluster counts the time. (Consul calls that a TTL check.)
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.instance.heartbeat_ms = Some(millis(every).max(1));
        self
    }

    /// It is healthy only while this check says so, which runs in this program, first at once and then always so long
    /// after it has ended. A check that takes longer than that has failed. While it fails the instance is marked `down`,
    /// and stays registered. Until it has run the first time it is `down` too.
    pub fn check<F, E>(mut self, every: Duration, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let run = move || -> BoxFuture<'static, Result<(), String>> {
            let check = check();
            Box::pin(async move { check.await.map_err(|error| error.to_string()) })
        };
        self.check = Some((every, Box::new(run)));
        self
    }

    /// The time until it must be registered; a minute without it.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl IntoFuture for Register {
    type Output = Result<Registration>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, path, instance, within, check } = self;
            let beats = instance.heartbeat_ms.map(Duration::from_millis);
            let failing = check.as_ref().map(|_| UNCHECKED.to_owned());
            let said = Said { instance, draining: false, failing };
            let path = path?;
            let mut create = PersistentEphemeral::create(&client, &path, said.encode());
            if said.instance.is_chosen {
                create = create.replace();
            }
            if let Some(within) = within {
                create = create.within(within);
            }
            let kept = Arc::new(create.await?);
            let said = Arc::new(Mutex::new(said));
            let checking = check
                .map(|(every, run)| tokio::spawn(keep_checking(every, run, Arc::downgrade(&kept), Arc::clone(&said))));
            let registration = Registration { kept: Some(kept), path, said, beats, checking };
            if beats.is_some() {
                registration.beat().await?;
            }
            Ok(registration)
        })
    }
}

/// What an instance says of itself.
#[derive(Debug)]
struct Said {
    instance: Instance,
    draining: bool,
    /// Why its check fails.
    failing: Option<String>,
}

impl Said {
    fn encode(&self) -> Bytes {
        let status = Status::of(self.draining, self.failing.is_some());
        Instance { status, reason: self.failing.clone(), ..self.instance.clone() }.encode()
    }
}

/// An instance that is registered (Curator's `registerService`). When its session is lost it is registered again with a new
/// one, exactly once. Dropping it deregisters it, without waiting and without a report; see [`Registration::deregister`].
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance at once"]
pub struct Registration {
    /// There until it is deregistered.
    kept: Option<Arc<PersistentEphemeral>>,
    path: Path,
    said: Arc<Mutex<Said>>,
    beats: Option<Duration>,
    checking: Option<JoinHandle<()>>,
}

impl Registration {
    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Is it registered?
    #[must_use]
    pub fn state(&self) -> State {
        self.kept.as_ref().map_or(State::Ended, |kept| kept.state())
    }

    /// See [`PersistentEphemeral::fence`].
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.kept.as_ref().and_then(|kept| kept.fence())
    }

    /// The client whose session the registration belongs to now; see [`PersistentEphemeral::client`].
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.kept.as_ref().and_then(|kept| kept.client())
    }

    /// What it says of itself, without its status.
    pub async fn instance(&self) -> Instance {
        self.said.lock().await.instance.clone()
    }

    /// Changes what it says of itself: its weight, its tags, its address. Service, id and heartbeat stay. Returns when the
    /// cluster has it.
    ///
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    /// As [`PersistentEphemeral::set_data`].
    pub async fn update(&self, change: impl FnOnce(&mut Instance) + Send) -> Result<()> {
        let mut said = self.said.lock().await;
        let before = said.instance.clone();
        change(&mut said.instance);
        let Instance { service, id, heartbeat_ms, .. } = before;
        said.instance = Instance { service, id, heartbeat_ms, ..said.instance.clone() };
        self.tell(&said).await
    }

    /// Marks it as draining: from then on no view picks it any more. Finish what is under way, then
    /// [`Registration::deregister`]. Returns when the cluster has it; views see it a moment later.
    ///
    /// # Errors
    /// As [`Registration::update`].
    pub async fn drain(&self) -> Result<()> {
        let mut said = self.said.lock().await;
        said.draining = true;
        self.tell(&said).await
    }

    /// Takes [`Registration::drain`] back.
    ///
    /// # Errors
    /// As [`Registration::update`].
    pub async fn undrain(&self) -> Result<()> {
        let mut said = self.said.lock().await;
        said.draining = false;
        self.tell(&said).await
    }

    /// Says that it is well, if it was registered with [`Register::heartbeat`]: good for the time that was said there.
    ///
    /// # Errors
    /// [`Error::NoHeartbeat`]; [`Error::NotThere`] while it is being registered again: the next one counts. Otherwise as
    /// every write.
    pub async fn beat(&self) -> Result<()> {
        let no_heartbeat = || Error::NoHeartbeat { path: self.path.clone() };
        let not_there = || Error::NotThere { path: self.path.clone() };
        let every = self.beats.ok_or_else(no_heartbeat)?;
        let (client, fence) = self.client().zip(self.fence()).ok_or_else(not_there)?;
        let beat = client.at(self.path.join(BEAT)?).create("").ephemeral().ttl(every).or_set();
        match beat.fenced(fence).in_session().await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(Refusal::Fenced { .. })) => Err(not_there()),
            Err(error) if error.is_session_over() => Err(not_there()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deregisters it, and waits until the cluster has done it. Dropped half-way it is deregistered all the same.
    ///
    /// # Errors
    /// As [`PersistentEphemeral::remove`].
    pub async fn deregister(mut self) -> Result<()> {
        if let Some(checking) = self.checking.take() {
            checking.abort();
            // That it was aborted is what was wanted.
            let _ = checking.await;
        }
        // The check had the only other one.
        match self.kept.take().and_then(Arc::into_inner) {
            Some(kept) => Ok(kept.remove().await?),
            None => Ok(()),
        }
    }

    async fn tell(&self, said: &Said) -> Result<()> {
        match &self.kept {
            Some(kept) => Ok(kept.set_data(said.encode()).await?),
            None => Err(Error::NotThere { path: self.path.clone() }),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(checking) = self.checking.take() {
            checking.abort();
        }
    }
}

/// Checks until the registration is gone.
async fn keep_checking(every: Duration, run: Run, kept: Weak<PersistentEphemeral>, said: Arc<Mutex<Said>>) {
    let mut told = Some(UNCHECKED.to_owned());
    loop {
        let failing = match tokio::time::timeout(every, run()).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(reason(&why)),
            Err(_) => Some(format!("its check took longer than {} ms", every.as_millis())),
        };
        if told != failing {
            let Some(kept) = kept.upgrade() else { return };
            let mut said = said.lock().await;
            said.failing.clone_from(&failing);
            match kept.set_data(said.encode()).await {
                Ok(()) => told = failing,
                // It is said all the same, as soon as it can be; and told again after the next check.
                Err(error) => tracing::warn!(path = %kept.path(), %error, "the outcome of a check is not told yet"),
            }
        }
        tokio::time::sleep(every).await;
    }
}
