//! A member over all its runs: when its state is not believed, the run ends, the state is made again, and the next run
//! begins, all in the same process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conclave_core::Fault;
use tokio::sync::watch;

use crate::config::Config;
use crate::member::{Running, Stopped, Surroundings};
use crate::open::StartError;
use crate::quarantine::{ATTEMPTS, Record};
use crate::reseed;

/// How long what follows a run may fail because of what is left of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(500);

/// A running member. Dropped without [`Member::stop`], it ends like a process that was killed.
pub struct Member {
    inner: Arc<Inner>,
    supervisor: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("id", &self.inner.config.member).finish_non_exhaustive()
    }
}

struct Inner {
    /// With the ports that it really has.
    config: Config,
    around: Surroundings,
    /// None between two runs.
    running: Mutex<Option<Running>>,
    /// How the member ended.
    stopped: watch::Sender<Option<Stopped>>,
    /// Somebody ends it.
    ending: AtomicBool,
    client: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Member {
    /// Starts a member. It blocks while the log is read, and returns before the member is ready: a quorum has to be
    /// there for that.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_in(config, Surroundings::default())
    }

    /// As [`Member::start`], with other surroundings than the machine's.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub fn start_in(config: &Config, around: Surroundings) -> Result<Self, StartError> {
        let mut config = config.clone();
        let is_pending = Record::read(&config.data)?.is_some_and(|record| record.is_pending);
        let mut running = None;
        if !is_pending {
            match Running::start(&config, &around, 0) {
                Ok(started) => running = Some(started),
                Err(StartError::NotBelieved { why, .. }) => drop(Record::next(&config.data, &why)?),
                Err(error) => return Err(error),
            }
        }
        if let Some(running) = &running {
            config.listen.client = running.listener().local_address()?;
            config.listen.admin = running.admin_address();
        }
        let (client, admin) = (config.listen.client, config.listen.admin);
        let inner = Arc::new(Inner {
            config,
            around,
            running: Mutex::new(running),
            stopped: watch::Sender::new(None),
            ending: AtomicBool::new(false),
            client,
            admin,
        });
        let here = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || here.supervise())?;
        Ok(Self { inner, supervisor: Some(thread) })
    }

    /// Whether clients are served: this member has applied what was committed when it started.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|running| running.shared().is_ready())
    }

    /// Whether its state is being made again, because it is not believed.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.inner.lock().is_none()
    }

    /// Where clients reach it; the port is the real one, when the configuration said 0.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.inner.client
    }

    /// Where metrics and health are, when configured.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        let running = self.inner.lock().as_ref().and_then(Running::admin_address);
        running.or(self.inner.admin)
    }

    /// Resolves when the member has stopped by itself (a fault) or was stopped.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + use<> {
        let mut stopped = self.inner.stopped.subscribe();
        async move {
            match stopped.wait_for(Option::is_some).await {
                Ok(how) => how.clone().unwrap_or(Stopped::Clean),
                Err(_) => Stopped::Clean,
            }
        }
    }

    /// Gives leadership away, if this member leads and somebody can take it.
    ///
    /// # Errors
    /// Why it still leads.
    pub async fn step_down(&self) -> Result<(), crate::raft::Error> {
        let replica = self.inner.lock().as_ref().map(|running| running.shared().replica.clone());
        match replica {
            Some(replica) => replica.step_down().await,
            None => Err(crate::raft::Error::NotLeader),
        }
    }

    /// Whether this member leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|running| running.shared().leadership.borrow().is_leader)
    }

    /// Ends it as kill -9 would: nothing is said to anybody, nothing is synced or closed. Blocks until its threads are
    /// gone, so that its directory and ports are free; must not be called from within an async task.
    pub fn kill(mut self) {
        let running = self.inner.end();
        if let Some(running) = running {
            running.kill();
        }
        self.join();
    }

    /// Stops it: no request is taken any more, what was applied is synced, the next start is a clean one. Blocks, and
    /// must not be called from within an async task.
    ///
    /// # Errors
    /// When the tables could not be closed: the next start counts as one after a crash.
    pub fn stop(mut self) -> Result<(), Fault> {
        let running = self.inner.end();
        let result = running.map_or(Ok(()), Running::stop);
        self.join();
        result
    }

    fn join(&mut self) {
        if let Some(thread) = self.supervisor.take()
            && thread.join().is_err()
        {
            tracing::error!("the supervisor of this member panicked");
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        // A run is put in or taken out in one step.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is begun any more; gives the run that there is.
    fn end(&self) -> Option<Running> {
        self.ending.store(true, Ordering::Release);
        let running = self.lock().take();
        crate::member::end(&self.stopped, Stopped::Clean);
        running
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Follows runs until the member is over.
    fn supervise(&self) {
        let mut quarantines = 0;
        loop {
            let run = self.lock().as_ref().map(Running::stopped);
            if let Some(mut run) = run {
                let how = futures::executor::block_on(async {
                    let mut over = self.stopped.subscribe();
                    tokio::select! {
                        how = run.wait_for(Option::is_some) => how.ok().and_then(|how| how.clone()),
                        // Somebody has ended it.
                        _ = over.wait_for(Option::is_some) => None,
                    }
                });
                match how {
                    Some(Stopped::Quarantine(why)) => {
                        let Some(running) = self.lock().take() else { return };
                        tracing::error!(why, "the state of this member is not believed: it is made again");
                        running.kill();
                        if let Err(error) = Record::next(&self.config.data, &why) {
                            return self.fault(&format!("{why}; and the quarantine can't be written down: {error}"));
                        }
                    }
                    Some(how) => return crate::member::end(&self.stopped, how),
                    None => return,
                }
            }
            quarantines += 1;
            if self.is_ending() {
                return;
            }
            if let Err(why) = self.again(quarantines) {
                return self.fault(&why);
            }
            if self.is_ending() {
                return;
            }
        }
    }

    /// Makes the state again, and begins the next run.
    fn again(&self, quarantines: u64) -> Result<(), String> {
        let dir: &Path = &self.config.data;
        loop {
            let record = Record::read(dir).map_err(|error| error.to_string())?;
            if let Some(record) = record.filter(|record| record.is_pending) {
                if record.attempt > ATTEMPTS {
                    return Err(format!(
                        "the state was made again {ATTEMPTS} times and is not believed still: {}. Look at this machine's \
                         memory and disk, and at `conclave doctor --dir {}`. To bring the member back under a new id: \
                         `conclave server --replace`",
                        record.why,
                        dir.display()
                    ));
                }
                self.patiently(|| reseed::run(&self.config, &self.around, &record, &self.ending))?;
                if self.is_ending() {
                    return Ok(());
                }
                record.done(dir).map_err(|error| error.to_string())?;
            }
            let started = self.patiently(|| match Running::start(&self.config, &self.around, quarantines) {
                Err(StartError::NotBelieved { why, .. }) => Ok(Err(why)),
                Ok(running) => Ok(Ok(running)),
                Err(error) => Err(error.to_string()),
            });
            match started? {
                Ok(running) => {
                    let mut place = self.lock();
                    if self.is_ending() {
                        drop(place);
                        running.kill();
                    } else {
                        *place = Some(running);
                    }
                    return Ok(());
                }
                Err(why) => drop(Record::next(dir, &why).map_err(|error| error.to_string())?),
            }
        }
    }

    /// Does something that the run before may still be in the way of: it lets its ports and files go a little after it
    /// has ended.
    fn patiently<T>(&self, what: impl Fn() -> Result<T, String>) -> Result<T, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match what() {
                Err(error) if Instant::now() < until && !self.is_ending() => {
                    tracing::warn!(error, "it is tried again");
                    std::thread::sleep(AGAIN);
                }
                done => return done,
            }
        }
    }

    fn fault(&self, why: &str) {
        tracing::error!(why, "this member can't go on");
        crate::member::end(&self.stopped, Stopped::Fault(why.to_owned()));
    }
}
