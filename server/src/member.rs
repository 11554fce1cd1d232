//! One run of a member: opens what it keeps, starts its threads, recovers, serves, stops. What comes between two runs is
//! the supervisor's business.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use conclave_core::apply::Position;
use conclave_core::plan::Install;
use conclave_core::view::Base;
use conclave_core::{Fault, query};
use conclave_link::{Dialer, Listener, Plane, Tuning};
use conclave_protocol::limits::Limits;
use conclave_protocol::{Endpoint, MemberId};
use conclave_store::{Store, Writer};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::applier::Applier;
use crate::checkpointer::Checkpointer;
use crate::clock::Clock;
use crate::config::Config;
use crate::digests::{Computed, Court};
use crate::forward::{self, Forwarder};
use crate::ground::Real;
use crate::open::{self, StartError};
use crate::peer::transfer::Carried;
use crate::peer::{self, Peers, wire};
use crate::plugins::Readiness;
use crate::publish::Publisher;
use crate::raft::{self, Leadership, Replica, StartOptions, Timing};
use crate::read::Freshness;
use crate::room::Room;
use crate::steps::{OnStep, Steps};
use crate::watches::ConnectionId;
use crate::{monotonic, planner, plugins, sessions, tasks, wall_ms};

/// Threads for clients. Raft, the log, apply and the planner have threads of their own.
const CLIENT_THREADS: usize = 2;
/// How many threads read much at a time, for queries and for watches that resume each.
const HEAVY_READS: usize = 2;
/// How many queries of plugins run at a time: each on a thread of its own, and within the budgets of a run.
const QUERIES: usize = 6;
/// How long Raft may take to end.
const RAFT_STOPS_WITHIN: Duration = Duration::from_secs(5);
/// How a member ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Clean,
    /// Its state is not believed, and why: it is to be made again.
    Quarantine(String),
    /// It can't go on, and why.
    Fault(String),
}

/// What a member's rooms share.
pub(crate) struct Shared {
    pub(crate) id: MemberId,
    pub(crate) cluster: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) store: Store,
    pub(crate) log: conclave_log::Handle,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) clock: Arc<Mutex<Clock>>,
    pub(crate) peers: Peers,
    pub(crate) replica: Replica,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) position: watch::Receiver<Option<Position>>,
    pub(crate) resets: Arc<AtomicU64>,
    pub(crate) expired: Arc<AtomicU64>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) carried: Arc<Carried>,
    pub(crate) computed: Computed,
    pub(crate) room: Room,
    pub(crate) limits: Limits,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Reads of much, such as a whole subtree's size; and, so that they do not wait for those, of the history.
    pub(crate) heavy: Arc<Semaphore>,
    pub(crate) replays: Arc<Semaphore>,
    /// Queries of plugins.
    pub(crate) queries: Arc<Semaphore>,
    /// Components of plugins, and what runs them.
    pub(crate) plugins: Arc<Readiness>,
    pub(crate) freshness: Freshness,
    /// Held while the membership is changed: a second change would begin from voters that are about to be others.
    pub(crate) administration: tokio::sync::Mutex<()>,
    /// How often the state of this member was not believed, since the process started.
    pub(crate) quarantines: u64,
    /// When its certificate ends, seconds since 1970.
    pub(crate) certificate_end_s: Option<u64>,
    forwarder: mpsc::UnboundedSender<forward::Command>,
    pub(crate) ready: AtomicBool,
    connections: AtomicU64,
    stopped: watch::Sender<Option<Stopped>>,
}

impl Shared {
    /// Cluster time, milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).now_ms(monotonic(), wall_ms())
    }

    /// Whether clients are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether this member has met a fault.
    pub(crate) fn is_faulty(&self) -> bool {
        matches!(*self.stopped.borrow(), Some(Stopped::Fault(_) | Stopped::Quarantine(_)))
    }

    /// This member can't go on: it stops, and whoever started it is told why.
    pub(crate) fn fault(&self, fault: impl std::fmt::Display) {
        tracing::error!(%fault, "this member can't go on");
        self.ready.store(false, Ordering::Release);
        end(&self.stopped, Stopped::Fault(fault.to_string()));
    }

    /// As [`Self::fault`], for what the state's own code says: one that is not believed is made again.
    pub(crate) fn fault_of(&self, fault: &Fault) {
        self.ready.store(false, Ordering::Release);
        end_by(&self.stopped, fault);
    }

    /// A number for a connection.
    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands something to the forwarder; after its end nobody waits for an answer.
    pub(crate) fn forward(&self, command: forward::Command) {
        drop(self.forwarder.send(command));
    }

    /// How this member is doing.
    pub(crate) fn status(&self) -> Result<wire::Status, Fault> {
        let snapshot = self.store.snapshot()?;
        let leadership = *self.leadership.borrow();
        Ok(wire::Status {
            role: leadership.role.name().to_owned(),
            term: leadership.term,
            zxid: query::state(&snapshot)?.zxid.0,
            digest: snapshot.local()?.digest,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wall_ms: wall_ms(),
            log_last_sync_us: self.log.stats().last_sync_us.load(Ordering::Relaxed),
            log_longest_sync_us: self.log.stats().longest_sync_us.load(Ordering::Relaxed),
            free_bytes: self.room.free_bytes(),
            checkpoint_zxid: self.checkpointer.newest().map(|newest| newest.zxid().0),
            certificate_end_s: self.certificate_end_s,
            note: notes([
                self.plugins.note(),
                self.room.refuses_growth().then(|| "its disk is nearly full: it refuses growth".to_owned()),
            ]),
        })
    }
}

/// Everything that there is to know, in one line.
fn notes(notes: [Option<String>; 2]) -> Option<String> {
    let all: Vec<String> = notes.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// How a run ends, unless that is decided already.
pub(crate) fn end(stopped: &watch::Sender<Option<Stopped>>, how: Stopped) {
    stopped.send_if_modified(|stopped| {
        let is_first = stopped.is_none();
        stopped.get_or_insert(how);
        is_first
    });
}

/// Ends a run by a fault: a state that is not believed can be made again from what is, anything else can't.
pub(crate) fn end_by(stopped: &watch::Sender<Option<Stopped>>, fault: &Fault) {
    tracing::error!(%fault, "this member can't go on");
    let why = fault.to_string();
    end(stopped, if is_disbelief(fault) { Stopped::Quarantine(why) } else { Stopped::Fault(why) });
}

/// Whether a fault means that this member's state is not to be believed.
fn is_disbelief(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Damaged { .. } | Fault::Row { .. } | Fault::Digest { .. } | Fault::Invariant(_) | Fault::Corrupt(_)
    )
}

/// What a run has of the world outside its directory; tests put in others.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The disk of the log, in place of the directory `log`.
    pub log_disk: Option<Arc<dyn conclave_log::Disk>>,
    /// The boot that the machine is in, in place of the real one.
    pub boot: Option<conclave_store::Boot>,
    /// Bytes that are free on the disk of the data directory, in place of the real ones.
    pub free_bytes: Option<Arc<AtomicU64>>,
    /// The address that other members are dialled from, so that they can be told apart on the way.
    pub dial_from: Option<std::net::IpAddr>,
    /// Where compiled components are kept, in place of the data directory; members share it, and remove nothing.
    pub compiled: Option<PathBuf>,
    /// Told of each step of requests and entries on this member; nobody, in earnest.
    pub on_step: Option<OnStep>,
}

impl Surroundings {
    /// How this member dials others.
    pub(crate) fn dialling(&self) -> Tuning {
        let mut tuning = peer::tuning();
        tuning.dial_from = self.dial_from;
        tuning
    }

    fn steps(&self) -> Steps {
        Steps(self.on_step.clone())
    }
}

/// A run of a member. Dropped without [`Running::stop`], it ends like a process that was killed.
pub(crate) struct Running {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    admin: Option<std::net::SocketAddr>,
    planner: planner::Handle,
    threads: Vec<JoinHandle<()>>,
    applier: JoinHandle<Writer>,
    /// Tells the apply thread not to wait for its disk any more.
    stopping: Arc<AtomicBool>,
    court: Court,
    checkpointing: JoinHandle<()>,
    raft_runtime: Runtime,
    client_runtime: Runtime,
}

impl Running {
    /// Starts a run. It blocks while the log is read, and returns before the member is ready: a quorum has to be
    /// there for that.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs then.
    pub(crate) fn start(config: &Config, around: &Surroundings, quarantines: u64) -> Result<Self, StartError> {
        let stopped = watch::Sender::new(None);
        Self::launch(config, around, quarantines, stopped.clone()).map_err(|error| {
            // What is wrong with the state is known to whoever met it first; others only hear that something ended.
            let why = match (&*stopped.borrow(), &error) {
                (Some(Stopped::Quarantine(why)), _) => why.clone(),
                (_, StartError::Fault(fault)) if is_disbelief(fault) => fault.to_string(),
                (_, StartError::Data { source: conclave_store::Error::Fault(fault), .. }) if is_disbelief(fault) => {
                    fault.to_string()
                }
                _ => return error,
            };
            StartError::NotBelieved { dir: config.data.clone(), why }
        })
    }

    fn launch(
        config: &Config,
        around: &Surroundings,
        quarantines: u64,
        stopped: watch::Sender<Option<Stopped>>,
    ) -> Result<Self, StartError> {
        let credentials = open::credentials(config)?;
        let kept = open::open(config, around, stopped)?;
        let raft_runtime = runtime("raft", 1)?;
        let client_runtime = runtime("client", CLIENT_THREADS)?;
        let built_in = plugins::built_in();
        let engine = plugins::host(&config.plugins, &config.data, around.compiled.as_deref())?;
        let readiness = Arc::new(Readiness::new(engine, &kept.store.snapshot()?)?);

        let (listener, peer_listener, dialer) = {
            let _inside = client_runtime.enter();
            let listener = Arc::new(Listener::bind(config.listen.client, Plane::Client, &credentials)?);
            let _inside = raft_runtime.enter();
            let peer_listener = Listener::bind_with(config.listen.peer, Plane::Peer, &credentials, peer::tuning())?;
            (listener, peer_listener, Dialer::with(&credentials, Plane::Peer, around.dialling())?)
        };
        let admin = config.listen.admin.map(open::bind_admin).transpose()?;
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());

        let state = query::state(&kept.store.snapshot()?)?;
        let local = kept.writer.local().clone();
        let (apply, commands_to_apply) = mpsc::unbounded_channel();
        let carried = Arc::<Carried>::default();
        let computed = Computed::after(state.zxid);
        let (checkpointer, checkpoint_thread) = Checkpointer::prepare(kept.checkpoints.clone());
        carried.replace_by({
            let checkpointer = checkpointer.clone();
            move |damaged| checkpointer.replace(damaged)
        });
        let (peers, inlets, replica) = raft_runtime.block_on(async {
            let (peers, inlets) = Peers::start(config.member, &config.cluster, peer_listener, dialer);
            let options = StartOptions {
                cluster: config.cluster.clone(),
                timing: Timing {
                    heartbeat: Duration::from_millis(config.raft.heartbeat_ms),
                    election_min: Duration::from_millis(config.raft.election_min_ms),
                    election_max: Duration::from_millis(config.raft.election_max_ms),
                },
                log: kept.log.clone(),
                local: local.clone(),
                apply,
                checkpoints: kept.checkpoints,
                snapshot_bytes_per_s: config.storage.snapshot_bytes_per_s,
                carried: Arc::clone(&carried),
                steps: around.steps(),
                peers: peers.clone(),
                inlets: inlets.raft,
            };
            // The apply thread must run while Raft starts: it may have committed entries to apply.
            Ok::<_, StartError>((peers, (inlets.forward, inlets.services, inlets.fetch), options))
        })?;
        let (forward_in, services_in, fetch_in) = inlets;

        let limits = config.effective_limits();
        let publisher = Arc::new(Publisher::with(state.zxid, limits));
        let clock = Arc::new(Mutex::new(Clock::restored(state.time_ms)));
        let (planner, commands) = planner::prepare();
        let (lifecycle, lifecycle_here) = mpsc::unbounded_channel();
        let (position, position_here) = watch::channel(local.applied);
        let known = query::sessions(&kept.store.snapshot()?)?;
        let before = raft::stored_members(&local);
        peers.set_members(before.nodes.clone());
        // Before Raft starts: it may have entries to apply, and others to ask about them, which may wait for this member.
        let (begun, begins) = oneshot::channel();
        client_runtime.spawn(tasks::serve_peers(computed.clone(), begins, services_in));
        let court = Court::new(before);
        let stopping = Arc::<AtomicBool>::default();
        let applier = Applier {
            stopping: Arc::clone(&stopping),
            tables: kept.writer,
            store: kept.store.clone(),
            log: kept.log.clone(),
            clock: Arc::clone(&clock),
            live_after: kept.log.last().map_or(0, |position| position.index),
            publisher: Arc::clone(&publisher),
            lifecycle,
            sessions: known.into_iter().map(|(session, _)| session).collect(),
            planner: planner.clone(),
            position,
            computed: computed.clone(),
            steps: around.steps(),
            judge: court.judge(peers.clone(), client_runtime.handle().clone()),
            plugins: Box::new({
                let (readiness, planner) = (Arc::clone(&readiness), planner.clone());
                move || {
                    readiness.look();
                    planner.send(planner::Command::Plugins);
                }
            }),
            faults: Box::new({
                let stopped = kept.stopped.clone();
                move |fault| end_by(&stopped, fault)
            }),
            full: Box::new({
                let room = kept.room.clone();
                move || room.wait()
            }),
        }
        .spawn(commands_to_apply)?;
        let replica = raft_runtime.block_on(Replica::start(replica))?;
        court.opens(replica.clone());

        let (forwarder, forwarder_commands) = mpsc::unbounded_channel();
        let (leases, leases_here) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            id: MemberId(config.member),
            cluster: config.cluster.clone(),
            endpoints: open::endpoints(config),
            store: kept.store,
            log: kept.log,
            publisher,
            clock,
            peers,
            leadership: replica.leadership(),
            replica: replica.clone(),
            position: position_here,
            resets: Arc::default(),
            expired: Arc::default(),
            checkpointer,
            carried,
            computed,
            room: kept.room,
            limits,
            data: config.data.clone(),
            heavy: Arc::new(Semaphore::new(HEAVY_READS)),
            replays: Arc::new(Semaphore::new(HEAVY_READS)),
            queries: Arc::new(Semaphore::new(QUERIES)),
            plugins: Arc::clone(&readiness),
            freshness: Freshness::default(),
            administration: tokio::sync::Mutex::default(),
            quarantines,
            certificate_end_s: u64::try_from(credentials.summary().not_after.unix_timestamp()).ok(),
            forwarder,
            ready: AtomicBool::new(false),
            connections: AtomicU64::new(1),
            stopped: kept.stopped,
        });
        let ground = Real {
            shared: Arc::clone(&shared),
            built_in: built_in.clone(),
            proposer: replica.proposer(),
            replica: replica.clone(),
            planner: planner.clone(),
            leases: leases.clone(),
            runtime: client_runtime.handle().clone(),
            resets: Arc::clone(&shared.resets),
            steps: around.steps(),
        };
        let share = config.plugins.planner_share_percent;
        let mut threads = vec![kept.log_thread, planner::spawn(commands, ground, local.applied, share)?];
        threads.push(compile_ahead(&shared, built_in)?);

        let forwarder = Forwarder {
            publisher: Arc::clone(&shared.publisher),
            store: shared.store.clone(),
            planner: planner.clone(),
            leases: leases.clone(),
            peers: shared.peers.clone(),
            leadership: shared.leadership.clone(),
            id: config.member,
            commands: forwarder_commands,
            faults: {
                let shared = Arc::clone(&shared);
                Arc::new(move |fault| shared.fault_of(fault))
            },
        };
        client_runtime.spawn(forwarder.run());
        client_runtime.spawn(sessions::run(
            leases_here,
            lifecycle_here,
            replica.clone(),
            planner.clone(),
            Arc::clone(&shared.expired),
        ));
        client_runtime.spawn(tasks::serve_forwards(forward_in, planner.clone(), leases.clone()));
        // It serves for as long as the runtime runs.
        let _ = begun.send(Arc::clone(&shared));
        client_runtime.spawn(tasks::lead(Arc::clone(&shared), planner.clone(), leases));
        client_runtime.spawn(plugins::lead(Arc::clone(&shared), planner.clone()));
        client_runtime.spawn(tasks::sync(Arc::clone(&shared)));
        client_runtime.spawn(tasks::watch_raft(Arc::clone(&shared), replica.running()));
        if let Some(admin) = admin {
            client_runtime.spawn(tasks::admin_port(Arc::clone(&shared), admin));
        }
        client_runtime.spawn(tasks::serve_fetches(Arc::clone(&shared), fetch_in, config.storage));
        client_runtime.spawn(tasks::forgive(Arc::clone(&shared), config.data.clone()));
        crate::room::spawn(&client_runtime, &shared, &config.storage);
        let checkpointing = checkpoint_thread.spawn(&shared, config.storage, raft_runtime.handle().clone())?;
        let (tls, door) = (config.tls.clone(), Arc::clone(&listener));
        client_runtime.spawn(tasks::reload(Arc::clone(&shared), door, tls));
        client_runtime.spawn(tasks::begin(Arc::clone(&shared), Arc::clone(&listener), open::initial(config)));
        Ok(Self {
            shared,
            listener,
            admin: admin_address,
            planner,
            threads,
            applier,
            stopping,
            court,
            checkpointing,
            raft_runtime,
            client_runtime,
        })
    }

    /// What its rooms share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where clients reach it.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Where metrics and health are, when configured.
    pub(crate) fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin
    }

    /// Changes when the run has ended by itself.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Stopped>> {
        self.shared.stopped.subscribe()
    }

    /// Ends it as kill -9 would: nothing is said to anybody, nothing is synced or closed. Blocks until its threads are
    /// gone, so that its directory and ports are free; must not be called from within an async task.
    pub(crate) fn kill(self) {
        self.court.stop();
        let Self { shared, threads, applier, raft_runtime, client_runtime, planner, checkpointing, stopping, .. } =
            self;
        shared.checkpointer.stop();
        let _ = checkpointing.join();
        stopping.store(true, Ordering::Release);
        shared.room.stop();
        shared.plugins.stop();
        planner.send(planner::Command::Stop);
        client_runtime.shutdown_timeout(Duration::from_secs(2));
        raft_runtime.shutdown_timeout(Duration::from_secs(2));
        drop((shared, planner));
        let _ = applier.join();
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Stops it: no request is taken any more, what was applied is synced, the next start is a clean one. Blocks, and
    /// must not be called from within an async task.
    ///
    /// # Errors
    /// When the tables could not be closed: the next start counts as one after a crash.
    pub(crate) fn stop(self) -> Result<(), Fault> {
        self.shared.ready.store(false, Ordering::Release);
        self.court.stop();
        self.shared.checkpointer.stop();
        self.shared.room.stop();
        self.shared.plugins.stop();
        self.client_runtime.block_on(self.listener.close(0, "this member is stopping"));
        let replica = &self.shared.replica;
        let shutdown = async { tokio::time::timeout(RAFT_STOPS_WITHIN, replica.shutdown()).await };
        if self.raft_runtime.block_on(shutdown).is_err() {
            // It may be waiting for its log, which waits for room on its disk.
            tracing::warn!("Raft did not end in time: it is ended as it is");
        }
        self.planner.send(planner::Command::Stop);
        end(&self.shared.stopped, Stopped::Clean);
        let fault = match &*self.shared.stopped.borrow() {
            Some(Stopped::Fault(why) | Stopped::Quarantine(why)) => Some(why.clone()),
            Some(Stopped::Clean) | None => None,
        };
        let Self { shared, mut threads, applier, raft_runtime, client_runtime, checkpointing, stopping, .. } = self;
        threads.push(checkpointing);
        client_runtime.shutdown_timeout(Duration::from_secs(2));
        raft_runtime.shutdown_timeout(Duration::from_secs(2));
        stopping.store(true, Ordering::Release);
        drop(shared);
        // With Raft gone nobody sends batches any more, and the thread gives the tables back.
        let closed = match applier.join() {
            Ok(writer) => writer.close(),
            Err(_) => Err(Fault::Invariant("the apply thread panicked".to_owned())),
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of this member panicked");
            }
        }
        match fault {
            // It was there before anybody asked it to stop.
            Some(why) => Err(Fault::Storage(why)),
            None => closed,
        }
    }
}

fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().thread_name(name).build()
}

/// Starts the thread that has components ready before anybody waits for them.
fn compile_ahead(shared: &Arc<Shared>, built_in: Vec<Install>) -> io::Result<JoinHandle<()>> {
    let store = shared.store.clone();
    let open = Box::new(move || store.snapshot().map(|snapshot| Box::new(snapshot) as Box<dyn Base>));
    let fault = {
        let shared = Arc::clone(shared);
        Box::new(move |fault: &Fault| shared.fault_of(fault))
    };
    plugins::spawn(Arc::clone(&shared.plugins), built_in, open, fault)
}
