//! Members in one process, each with its own runtime, port, certificate, log thread and apply thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::{Local, Position};
use conclave_link::pki::{Authority, Spec, write_credentials};
use conclave_link::{Credentials, Dialer, Listener, Plane, Principal, TrustDomain};
use conclave_log::{Handle, MemDisk, Options, Writer, open};
use conclave_store::{Checkpoints, DirLock};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval};

use crate::peer::wire::Response;
use crate::peer::{self, Inlets, Peers};
use crate::raft::{Applied, ApplyBatch, ApplyCommand, Kind, Node, Outcome, Proposal, Replica, StartOptions, Timing};
use crate::steps::Steps;

pub(super) const CLUSTER: &str = "one";
/// For what takes milliseconds on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// Payloads that begin so are void.
pub(super) const VOID: &[u8] = b"void";

/// Waits until the condition holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    let mut ticks = interval(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        ticks.tick().await;
    }
}

/// What a member has applied.
#[derive(Default)]
pub(super) struct State {
    pub(super) local: Local,
    pub(super) payloads: Vec<(Position, Bytes)>,
    pub(super) blanks: Vec<Position>,
}

/// Where certificates come from.
pub(super) struct Pki {
    dir: TempDir,
    domain: TrustDomain,
    peer: Authority,
    client: Authority,
}

impl Pki {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("test").unwrap();
        let peer = Authority::create(&dir.path().join("ca"), Plane::Peer, &domain).unwrap();
        let client = Authority::create(&dir.path().join("ca"), Plane::Client, &domain).unwrap();
        Self { dir, domain, peer, client }
    }

    pub(super) fn member(&self, id: u64) -> Credentials {
        let dir = self.dir.path().join(id.to_string());
        if !dir.exists() {
            let issued = self.peer.issue(&Spec::new(Principal::member(&self.domain, id).unwrap(), 1)).unwrap();
            write_credentials(&dir, &issued, &self.peer, &self.client).unwrap();
        }
        Credentials::load_dir(&dir).unwrap()
    }
}

/// A running member.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) replica: Replica,
    pub(super) peers: Peers,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) disk: MemDisk,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Member {
    /// A member on a free port, with nothing.
    pub(super) fn start(pki: &Pki, cluster: &str, id: u64) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_with(pki.member(id), cluster, free, MemDisk::new(), Arc::default())
    }

    /// A member on this disk, with this state.
    pub(super) fn start_with(
        credentials: Credentials,
        cluster: &str,
        bind: SocketAddr,
        disk: MemDisk,
        state: Arc<Mutex<State>>,
    ) -> Self {
        let id = credentials.principal().member_id().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = sync_channel(1);
        let (cluster, kept) = (cluster.to_owned(), (Arc::clone(&state), disk.clone()));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let started = run(credentials, &cluster, bind, disk, state).await;
                tell.send(started).unwrap();
                stopped.await.unwrap_err();
            });
            // As after a kill: nobody says goodbye.
            drop(runtime);
        });
        let (address, replica, peers) = told.recv().unwrap();
        let (state, disk) = kept;
        Self { id, address, replica, peers, state, disk, stop, thread }
    }

    /// Ends its threads without a word to anybody.
    pub(super) fn kill(self) -> (u64, SocketAddr, MemDisk, Arc<Mutex<State>>) {
        drop(self.stop);
        self.thread.join().unwrap();
        // What the process wrote is there, synced or not; what it does not write any more is not.
        (self.id, self.address, self.disk.copy(), self.state)
    }

    pub(super) fn leads(&self) -> bool {
        self.replica.leadership().borrow().is_leader
    }

    pub(super) fn term(&self) -> u64 {
        self.replica.leadership().borrow().term
    }

    pub(super) fn payloads(&self) -> Vec<Bytes> {
        self.state.lock().unwrap().payloads.iter().map(|(_, payload)| payload.clone()).collect()
    }

    pub(super) fn node(&self) -> Node {
        Node { peer: self.address.to_string(), client: String::new() }
    }

    /// Proposes these, in order, without waiting; outcomes come out of the receiver with the payloads' numbers.
    pub(super) async fn propose(
        &self,
        term: u64,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> mpsc::UnboundedReceiver<(usize, Outcome)> {
        let (tell, told) = mpsc::unbounded_channel();
        for (number, payload) in payloads.into_iter().enumerate() {
            let tell = tell.clone();
            let outcome = Box::new(move |outcome| tell.send((number, outcome)).unwrap());
            self.replica.proposer().send(Proposal { term, payload, outcome }).await.unwrap();
        }
        told
    }
}

async fn run(
    credentials: Credentials,
    cluster: &str,
    bind: SocketAddr,
    disk: MemDisk,
    state: Arc<Mutex<State>>,
) -> (SocketAddr, Replica, Peers) {
    let id = credentials.principal().member_id().unwrap();
    let listener = Listener::bind_with(bind, Plane::Peer, &credentials, peer::tuning()).unwrap();
    let address = listener.local_address().unwrap();
    let dialer = Dialer::with(&credentials, Plane::Peer, peer::tuning()).unwrap();
    let (peers, inlets) = Peers::start(id, cluster, listener, dialer);
    let Inlets { raft, mut forward, mut services, .. } = inlets;
    // Stands for the forwarder: says everything back.
    tokio::spawn(async move {
        while let Some(mut stream) = forward.recv().await {
            tokio::spawn(async move {
                while let Ok(Some(frame)) = stream.reader.next(peer::wire::FRAME_BYTES).await {
                    stream.writer.push_bytes(frame).unwrap();
                    stream.writer.flush().await.unwrap();
                }
            });
        }
    });
    tokio::spawn(async move {
        while let Some(request) = services.recv().await {
            drop(request.reply.send(Response::Clock { wall_ms: id }));
        }
    });

    let options = Options::default();
    let (log, votes, recovered) = open(Arc::new(disk), options.clone()).unwrap();
    let (log, _thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
    let (apply, batches) = mpsc::unbounded_channel();
    let local = state.lock().unwrap().local.clone();
    let written = log.clone();
    std::thread::spawn(move || apply_all(batches, &state, &written));
    // None is ever made: what these members apply is no tree.
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(&DirLock::acquire(dir.path()).unwrap(), cluster).unwrap();
    let replica = Replica::start(StartOptions {
        cluster: cluster.to_owned(),
        timing: Timing::default(),
        log,
        local,
        apply,
        checkpoints,
        snapshot_bytes_per_s: 1 << 30,
        carried: Arc::default(),
        steps: Steps::default(),
        peers: peers.clone(),
        inlets: raft,
    });
    (address, replica.await.unwrap(), peers)
}

fn apply_all(mut commands: mpsc::UnboundedReceiver<ApplyCommand>, state: &Mutex<State>, log: &Handle) {
    while let Some(ApplyCommand::Batch(ApplyBatch { items, done })) = commands.blocking_recv() {
        // Log before state: a leader's entries may be committed by others before they are written here.
        let last = items.last().unwrap().position.index;
        assert!(log.wait_written(last, SOON).unwrap());
        let mut state = state.lock().unwrap();
        let mut applied = Vec::new();
        for item in items {
            state.local.applied = Some(item.position);
            applied.push(match item.kind {
                Kind::Blank => {
                    state.blanks.push(item.position);
                    Applied::Skipped
                }
                Kind::Membership(bytes) => {
                    state.local.membership = bytes;
                    Applied::Skipped
                }
                Kind::Payload(payload) if payload.starts_with(VOID) => Applied::Void,
                Kind::Payload(payload) => {
                    state.payloads.push((item.position, payload));
                    Applied::Done
                }
            });
        }
        drop(done.send(Ok(applied)));
    }
}

/// Members that belong together.
pub(super) struct Cluster {
    pub(super) pki: Pki,
    pub(super) members: BTreeMap<u64, Member>,
}

impl Cluster {
    /// So many members, and one of them leads.
    pub(super) async fn start(size: u64) -> Self {
        let pki = Pki::new();
        let members: BTreeMap<u64, Member> = (1..=size).map(|id| (id, Member::start(&pki, CLUSTER, id))).collect();
        let nodes = members.iter().map(|(id, member)| (*id, member.node())).collect();
        members[&1].replica.initialize(nodes).await.unwrap();
        let this = Self { pki, members };
        this.leader().await;
        this
    }

    /// Waits until one leads, has applied its blank entry, as a planner must have, and all others know.
    pub(super) async fn leader(&self) -> &Member {
        let agreed = || {
            let leader = self.members.values().filter(|member| member.leads()).max_by_key(|member| member.term())?;
            let knows = |member: &Member| {
                let known = *member.replica.leadership().borrow();
                (known.term, known.leader) == (leader.term(), Some(leader.id))
            };
            let began = leader.state.lock().unwrap().blanks.iter().any(|at| at.term == leader.term());
            (began && self.members.values().all(knows)).then_some(leader.id)
        };
        until("a leader that all know", || agreed().is_some()).await;
        &self.members[&agreed().unwrap_or_else(|| panic!("leadership moved on at once"))]
    }

    pub(super) fn kill(&mut self, id: u64) -> (u64, SocketAddr, MemDisk, Arc<Mutex<State>>) {
        self.members.remove(&id).unwrap().kill()
    }

    pub(super) fn restart(&mut self, (id, address, disk, state): (u64, SocketAddr, MemDisk, Arc<Mutex<State>>)) {
        let member = Member::start_with(self.pki.member(id), CLUSTER, address, disk, state);
        self.members.insert(id, member);
    }
}
