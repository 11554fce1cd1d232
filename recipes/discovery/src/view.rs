//! The instances of a service, in memory: always a state that there was, and picked from without a round trip.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conclave_client::{Cache, CacheView, Client, Path, State, Zxid};
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::instance::{Found, Instance};
use crate::pick::{Locality, Pick, choose};
use crate::registration::BEAT;
use crate::suspects::Suspects;

/// How often a client that has lost its session is asked whether it still hears a member.
const PROBE: Duration = Duration::from_secs(1);

/// The instances of a service, as of one zxid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// Of which state.
    pub zxid: Zxid,
    /// All that are registered, in order of their ids.
    pub all: Vec<Arc<Found>>,
    /// Those that may be used.
    pub healthy: Vec<Arc<Found>>,
    /// How many znodes there are besides that are no instances.
    pub undecodable: usize,
}

impl Instances {
    /// Out of a cache; instances that are as they were are taken from what was read before.
    fn read(read: &CacheView, path: &Path, service: &str, before: &Self) -> Result<Self> {
        let mut all = Vec::new();
        let mut undecodable = 0;
        for (child, znode) in read.children(path)? {
            let id = child.name().unwrap_or_default();
            let beats = znode.stat.children > 0 && read.get(child.join(BEAT)?)?.is_some();
            let same = before.get(id).filter(|found| {
                (found.since, found.modified, found.beats) == (znode.stat.created, znode.stat.modified, beats)
            });
            let decoded = || {
                let instance = Instance::decode(service, id, &znode.data)?;
                Some(Arc::new(Found::new(instance, znode.stat.created, znode.stat.modified, beats)))
            };
            match same.cloned().or_else(decoded) {
                Some(found) => all.push(found),
                None => undecodable += 1,
            }
        }
        let healthy = all.iter().filter(|found| found.is_healthy).cloned().collect();
        Ok(Self { zxid: read.zxid().unwrap_or_default(), all, healthy, undecodable })
    }

    /// The instance with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Found>> {
        let at = self.all.binary_search_by(|found| found.id.as_str().cmp(id)).ok()?;
        self.all.get(at)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.all == other.all && self.undecodable == other.undecodable
    }
}

/// The instances of a service (Curator's `ServiceCache` and `ServiceProvider`); made by
/// [`Discovery::view`](crate::Discovery::view). Clones share it.
///
/// Every question is answered at once, from memory. What it shows is always the tree as it was at one zxid, a while behind
/// the cluster. While no member is reachable it shows what it showed last, and [`View::is_stale`] says so.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    cache: Cache,
    path: Path,
    service: String,
    here: Locality,
    seen: Mutex<Arc<Instances>>,
    suspects: Mutex<Suspects>,
    turn: AtomicUsize,
    begun: Instant,
    /// Of a client that has lost its session: a member answered lately.
    is_heard: Arc<AtomicBool>,
    prober: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("service", &self.inner.service).finish_non_exhaustive()
    }
}

/// An instance that was picked. Dereferences to the [`Instance`]. Say how it went: who fails is avoided.
#[derive(Clone, Debug)]
pub struct Picked {
    found: Arc<Found>,
    view: View,
}

impl Deref for Picked {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.found.instance
    }
}

impl Picked {
    /// It failed: others are picked for a second, and for twice as long after each further time, up to a minute. When all
    /// have failed all are picked. (Curator's `noteError`.)
    pub fn failed(&self) {
        let now = self.view.inner.begun.elapsed();
        lock(&self.view.inner.suspects).failed(&self.found.id, self.found.since, now);
    }

    /// It served: what it failed before is forgotten.
    pub fn succeeded(&self) {
        lock(&self.view.inner.suspects).succeeded(&self.found.id);
    }

    /// Does something with it, and notes how it went.
    pub async fn call<T, E, F: Future<Output = Result<T, E>>>(self, call: impl FnOnce(Self) -> F) -> Result<T, E> {
        let done = call(self.clone()).await;
        if done.is_ok() {
            self.succeeded()
        } else {
            self.failed()
        }
        done
    }
}

impl View {
    pub(crate) async fn new(client: &Client, path: Path, service: &str, here: Locality) -> Result<Self> {
        let cache = client.cache(&path).await?;
        let is_heard = Arc::new(AtomicBool::new(false));
        let prober = tokio::spawn(probe(client.clone(), Arc::clone(&is_heard))).abort_handle();
        let inner = Inner {
            client: client.clone(),
            cache,
            path,
            service: service.to_owned(),
            here,
            seen: Mutex::default(),
            suspects: Mutex::default(),
            // Views begin at different places, or the first instance would get every program's first call.
            turn: AtomicUsize::new(rand::random::<u16>().into()),
            begun: Instant::now(),
            is_heard,
            prober,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.inner.service
    }

    /// All instances, as of one zxid.
    #[must_use]
    pub fn instances(&self) -> Arc<Instances> {
        let inner = &self.inner;
        let mut seen = lock(&inner.seen);
        // Not the zxid that the cache tells without reading: whoever is woken by a change may see the one before.
        let read = inner.cache.read();
        if read.zxid() == Some(seen.zxid) {
            return Arc::clone(&seen);
        }
        match Instances::read(&read, &inner.path, &inner.service, &seen) {
            Ok(now) => {
                lock(&inner.suspects).retain(|id| now.get(id).is_some());
                *seen = Arc::new(now);
            }
            // The path is one, or there would be no cache.
            Err(error) => tracing::warn!(%error, "the instances of a service can't be read"),
        }
        Arc::clone(&seen)
    }

    /// Those that may be used: registered, up, not draining, with their heartbeat if they are to have one.
    #[must_use]
    pub fn healthy(&self) -> Vec<Arc<Found>> {
        self.instances().healthy.clone()
    }

    /// Picks one that may be used, without a round trip.
    ///
    /// # Errors
    /// [`Error::NoInstance`] when there is none.
    pub fn pick(&self, pick: Pick<'_>) -> Result<Picked> {
        let inner = &self.inner;
        let now = self.instances();
        let turn = match pick {
            Pick::RoundRobin => inner.turn.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let from = {
            let suspects = lock(&inner.suspects);
            suspects.without(&now.healthy, inner.begun.elapsed(), |found| (found.id.as_str(), found.since))
        };
        let instances: Vec<&Instance> = from.iter().map(|found| &found.instance).collect();
        let at = choose(&instances, pick, turn, &inner.here, &mut rand::rng());
        match at.and_then(|at| from.get(at)) {
            Some(found) => Ok(Picked { found: Arc::clone(found), view: self.clone() }),
            None => Err(Error::NoInstance { service: inner.service.clone(), known: now.all.len() }),
        }
    }

    /// Waits until the instances are others than these, which this view has given before; gives what they are then.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why it is not kept up any more.
    pub async fn changed(&self, seen: &Instances) -> Result<Arc<Instances>> {
        // From before the first look on, so nothing is missed after it.
        let mut changes = self.inner.cache.changes();
        loop {
            let now = self.instances();
            if !now.is_like(seen) {
                return Ok(now);
            }
            match changes.next().await {
                Some(set) => drop(set?),
                None => return Err(self.failed().unwrap_or_else(closed)),
            }
        }
    }

    /// Tells from now on that something is another.
    #[cfg(feature = "tower")]
    pub(crate) fn changes(&self) -> conclave_client::CacheChanges {
        self.inner.cache.changes()
    }

    /// Waits until it shows this transaction and all before it.
    ///
    /// # Errors
    /// Why it is not kept up any more.
    pub async fn reached(&self, zxid: Zxid) -> Result<()> {
        Ok(self.inner.cache.reached(zxid).await?)
    }

    /// No member is reachable, or it is not kept up any more: what it shows may be old. What it shows is the best there
    /// is all the same.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let inner = &self.inner;
        inner.cache.failed().is_some()
            || match inner.client.state() {
                State::Connected => false,
                State::Suspended => true,
                // The session is lost for good; that says nothing of the connection.
                State::Lost => !inner.is_heard.load(Ordering::Relaxed),
            }
    }

    /// Why it is not kept up any more; none while it is.
    #[must_use]
    pub fn failed(&self) -> Option<Error> {
        self.inner.cache.failed().map(Error::Client)
    }
}

fn closed() -> Error {
    Error::Client(conclave_client::Error::Closed { outcome: conclave_client::Outcome::NotApplied })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a client that has lost its session whether it hears a member.
async fn probe(client: Client, is_heard: Arc<AtomicBool>) {
    let mut states = client.states();
    if states.wait_for(|state| *state == State::Lost).await.is_err() {
        return;
    }
    drop(states);
    loop {
        let heard = tokio::time::timeout(2 * PROBE, client.status()).await.is_ok_and(|status| status.is_ok());
        is_heard.store(heard, Ordering::Relaxed);
        tokio::time::sleep(PROBE).await;
    }
}
