//! Replication: openraft, its log, its network and its state machine, behind one handle.
//!
//! Nobody outside this module sees openraft's types.
//!
//! ```text
//! planner ─Proposal─▶ propose ─▶ openraft ─▶ log_store ─▶ conclave-log
//!    ▲                              │ ▲
//!    └───────── Outcome ────────────┘ ├─ network (to others)  ─▶ peer
//!                                     ├─ serve (from others) ◀─ peer
//! apply thread ◀─ApplyBatch─ machine ◀┘
//! ```

mod codec;
mod config;
mod log_store;
mod machine;
mod network;
mod propose;
mod reads;
mod serve;
mod translate;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::apply::{Local, Position};
use conclave_log::Handle;
use conclave_store::Checkpoints;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::peer::transfer::Carried;
use crate::peer::wire::NoRead;
use crate::peer::{Peers, RaftInlets};
use crate::steps::Steps;
pub use config::Timing;
use log_store::LogStore;
use machine::Machine;
pub use propose::{Outcome, Proposal};
pub use reads::Reads;
pub use types::{Applied, ApplyBatch, ApplyCommand, Install, Item, Kind, Node, Payload};
use types::{LogId, StoredMembership, Types};

type Raft = openraft::Raft<Types, Machine>;

/// Why Raft did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Heartbeats and elections do not fit each other.
    #[error("timing: {0}")]
    Timing(String),
    /// The log or the state cannot be used.
    #[error("{0}")]
    Storage(String),
    /// The log holds something already: only a member without any can found a cluster.
    #[error("the log is not empty: this member belongs to a cluster already")]
    NotPristine,
    /// The founder is not among its own members.
    #[error("member {0} is not among the members that it was to begin with")]
    NotAmongMembers(u64),
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Nobody can take over: there is no other voter, or not that one.
    #[error("no other voter to hand over to")]
    NoSuccessor,
    /// The membership can't be changed so.
    #[error("{0}")]
    Refused(String),
    /// It did not happen in time.
    #[error("not within {} ms", .0.as_millis())]
    NotInTime(Duration),
    /// Raft ended, and why.
    #[error("Raft has ended: {0}")]
    Ended(String),
}

/// What a replica starts with.
pub struct StartOptions {
    /// The cluster's id.
    pub cluster: String,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// The log; its thread runs.
    pub log: Handle,
    /// What the state has applied.
    pub local: Local,
    /// To the apply thread.
    pub apply: mpsc::UnboundedSender<ApplyCommand>,
    /// Raft's snapshots.
    pub checkpoints: Checkpoints,
    /// Bytes a second of a snapshot that is sent.
    pub snapshot_bytes_per_s: u64,
    /// Counts what snapshots carried.
    pub(crate) carried: Arc<Carried>,
    /// Told how far entries are.
    pub(crate) steps: Steps,
    /// To the other members. Its id is this member's.
    pub peers: Peers,
    /// From the other members.
    pub inlets: RaftInlets,
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Who leads it, if it is known.
    pub leader: Option<u64>,
    /// Whether that is this member. Its planner starts when the blank entry of the term is applied, not before.
    pub is_leader: bool,
    /// What this member is in the term.
    pub role: Role,
}

/// What a member is in a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It has no vote.
    #[default]
    Learner,
    /// Its Raft instance has ended.
    Stopped,
}

impl Role {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// Whether Raft runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Running {
    /// It does.
    #[default]
    Yes,
    /// It was asked to end.
    Stopped,
    /// A fault of the log, the state or Raft itself ended it.
    Failed(String),
}

/// How far the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The last entry of this member's log.
    pub last: Option<Position>,
    /// The last entry that this member knows to be on a quorum.
    pub committed: Option<Position>,
    /// The last entry that it applied.
    pub applied: Option<Position>,
}

/// Voters and learners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// One set of voters, or two while one changes into the other.
    pub voters: Vec<BTreeSet<u64>>,
    /// Everybody, learners included.
    pub nodes: BTreeMap<u64, Node>,
}

/// One member's Raft instance. Cheap to clone.
#[derive(Clone)]
pub struct Replica {
    raft: Raft,
    reads: Reads,
    proposals: mpsc::Sender<Proposal>,
    leadership: watch::Receiver<Leadership>,
    running: watch::Receiver<Running>,
    timing: Timing,
    _serving: Arc<Serving>,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("id", self.raft.node_id()).finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts Raft on the runtime of this call, a current-thread one: batches stay small on others.
    ///
    /// # Errors
    /// [`Error::Timing`] and [`Error::Storage`].
    pub async fn start(options: StartOptions) -> Result<Self, Error> {
        let StartOptions { cluster, timing, log, local, apply, checkpoints, steps, peers, inlets, .. } = options;
        let carried = options.carried;
        let config = config::config(&cluster, &timing)?;
        check(&log, &local, &checkpoints)?;
        let machine =
            Machine::new(&local, checkpoints.clone(), apply).map_err(|error| Error::Storage(error.to_string()))?;
        let snapshots = network::Snapshots { bytes_per_s: options.snapshot_bytes_per_s, carried: Arc::clone(&carried) };
        let factory = network::Factory { peers: peers.clone(), stall: timing.patience(), snapshots };
        let raft = Raft::new(peers.id(), config, factory, LogStore::new(log, steps), machine).await;
        let raft = raft.map_err(|error| Error::Storage(error.to_string()))?;

        let reads = Reads::start(raft.clone(), peers.clone(), timing.patience());
        let (proposals, proposed) = mpsc::channel(propose::QUEUE);
        tokio::spawn(propose::run(raft.clone(), proposed));
        let (tell_leadership, leadership) = watch::channel(Leadership::default());
        let (tell_running, running) = watch::channel(Running::default());
        tokio::spawn(follow(raft.clone(), peers, tell_leadership, tell_running));
        let serving =
            Arc::new(Serving(tokio::spawn(serve::run(raft.clone(), reads.clone(), inlets, checkpoints, carried))));
        Ok(Self { raft, reads, proposals, leadership, running, timing, _serving: serving })
    }

    /// This member's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        *self.raft.node_id()
    }

    /// Founds a cluster with these voters. One member does this, once.
    ///
    /// # Errors
    /// [`Error::NotPristine`], [`Error::NotAmongMembers`] or [`Error::Ended`].
    pub async fn initialize(&self, members: BTreeMap<u64, Node>) -> Result<(), Error> {
        self.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => Error::NotPristine,
            RaftError::APIError(InitializeError::NotInMembers(_)) => Error::NotAmongMembers(self.id()),
            RaftError::Fatal(fatal) => Error::Ended(fatal.to_string()),
        })
    }

    /// Whether the log and the vote hold nothing yet, so that [`Replica::initialize`] may be called.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn is_pristine(&self) -> Result<bool, Error> {
        let initialized = self.raft.is_initialized().await.map_err(|fatal| Error::Ended(fatal.to_string()))?;
        Ok(!initialized)
    }

    /// Waits until what was committed before the last stop is applied again, as far as this log knows.
    ///
    /// # Errors
    /// [`Error::NotInTime`].
    pub async fn recovered(&self, within: Duration) -> Result<(), Error> {
        match self.raft.wait_for_recovery(Some(within)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::NotInTime(within)),
        }
    }

    /// Who leads, whenever that changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Whether Raft runs: changes once, when it ends.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<Running> {
        self.running.clone()
    }

    /// Where proposals go in. They reach the log in the order in which they are sent here, each in its own term or not
    /// at all; outcomes come in the same order. The sender bounds what is under way. Proposals of a leader that lost
    /// its quorum may stay without an outcome until it hears of another one.
    #[must_use]
    pub fn proposer(&self) -> mpsc::Sender<Proposal> {
        self.proposals.clone()
    }

    /// The index that must be applied before a linearizable read, confirmed by a quorum in a round that began after
    /// this call. One round serves all who wait for it. A follower asks the leader. Dropping the future is harmless;
    /// a retry is a new call.
    ///
    /// # Errors
    /// [`NoRead`].
    pub async fn read_index(&self) -> Result<u64, NoRead> {
        self.reads.anywhere().await
    }

    /// For those who need read indices and nothing else.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads.clone()
    }

    /// The membership at the end of this member's log, committed or not.
    #[must_use]
    pub fn membership(&self) -> Members {
        let metrics = self.raft.server_metrics();
        let stored = Arc::clone(&metrics.borrow_watched().membership_config);
        members(&stored)
    }

    /// How far the log is, as Raft last published it: a little behind the outcomes.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let metrics = self.raft.data_metrics();
        let data = metrics.borrow_watched();
        let position = |id: Option<LogId>| id.map(|id| Position { term: id.leader_id.term, index: id.index });
        Numbers {
            last: position(data.last_log),
            committed: position(data.cluster_committed.max(data.local_committed)),
            applied: position(data.last_applied),
        }
    }

    /// Hands leadership to the voter whose log is furthest, and waits until this member does not lead any more.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::NoSuccessor`], [`Error::NotInTime`] or [`Error::Ended`].
    pub async fn step_down(&self) -> Result<(), Error> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader {
            return Err(Error::NotLeader);
        }
        let matched = metrics.replication.unwrap_or_default();
        let others = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id);
        let successor = others.max_by_key(|id| matched.get(id).copied().flatten()).ok_or(Error::NoSuccessor)?;
        self.transfer_leader(successor).await
    }

    /// Hands leadership to that voter, and waits until this member does not lead any more.
    ///
    /// # Errors
    /// As [`Replica::step_down`].
    pub async fn transfer_leader(&self, to: u64) -> Result<(), Error> {
        if !self.leadership.borrow().is_leader {
            return Err(Error::NotLeader);
        }
        if to == self.id() || !self.raft.voter_ids().any(|id| id == to) {
            return Err(Error::NoSuccessor);
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|fatal| Error::Ended(fatal.to_string()))?;
        let within = self.timing.election_max * 4;
        let mut leadership = self.leadership();
        match timeout_at(Instant::now() + within, leadership.wait_for(|now| !now.is_leader)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Ended("stopped".to_owned())),
            Err(_) => Err(Error::NotInTime(within)),
        }
    }

    /// Tells Raft of the newest checkpoint, and lets it purge the log up to this index, which the checkpoint holds.
    /// Raft may put that off for as long as a member is being sent what is to go.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::NotInTime`].
    pub async fn checkpointed(&self, upto: u64, within: Duration) -> Result<(), Error> {
        let ended = |fatal: openraft::errors::Fatal<Types>| Error::Ended(fatal.to_string());
        self.raft.trigger().snapshot().await.map_err(ended)?;
        let is_known = |data: &openraft::metrics::RaftDataMetrics<Types>| {
            data.snapshot.is_some_and(|snapshot| snapshot.index >= upto)
        };
        let mut metrics = self.raft.data_metrics();
        let until = Instant::now() + within;
        while !is_known(&metrics.borrow_watched().clone()) {
            match timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Ended("stopped".to_owned())),
                Err(_) => return Err(Error::NotInTime(within)),
            }
        }
        self.raft.trigger().purge_log(upto).await.map_err(ended)
    }

    /// Makes a member a learner, and waits until it is one: it is sent everything, and has no vote. Harmless when it is
    /// one already.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Refused`], [`Error::Ended`].
    pub async fn add_learner(&self, id: u64, node: Node) -> Result<(), Error> {
        self.raft.add_learner(id, node, false).await.map(|_| ()).map_err(changing)
    }

    /// Makes these members the voters, and waits until they are: the others stay as learners.
    ///
    /// # Errors
    /// As [`Replica::add_learner`].
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), Error> {
        self.raft.change_membership(voters, true).await.map(|_| ()).map_err(changing)
    }

    /// Removes a member, voter or learner, and waits until it is gone.
    ///
    /// # Errors
    /// As [`Replica::add_learner`].
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let voters: BTreeSet<u64> = self.raft.voter_ids().filter(|voter| *voter != id).collect();
        if self.raft.voter_ids().any(|voter| voter == id) {
            self.change_voters(voters).await?;
        }
        let gone = openraft::ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.raft.change_membership(gone, true).await.map(|_| ()).map_err(changing)
    }

    /// What members have of the log, as far as the leader knows: the index that each has acknowledged. Empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<u64, Option<u64>> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let replication = metrics.replication.unwrap_or_default();
        replication.into_iter().map(|(id, matched)| (id, matched.map(|matched| matched.index))).collect()
    }

    /// Ends Raft. What is under way has an unknown outcome.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "Raft did not end well");
        }
    }
}

type Changing = RaftError<Types, openraft::errors::ClientWriteError<Types>>;

fn changing(error: Changing) -> Error {
    use openraft::errors::ClientWriteError;
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Error::NotLeader,
        RaftError::APIError(error) => Error::Refused(error.to_string()),
        RaftError::Fatal(fatal) => Error::Ended(fatal.to_string()),
    }
}

/// Tells of leadership, of the membership and of the end, until the end.
async fn follow(raft: Raft, peers: Peers, leadership: watch::Sender<Leadership>, running: watch::Sender<Running>) {
    let mut metrics = raft.server_metrics();
    let mut membership = Arc::default();
    loop {
        // Cloned at once: while the reference lives, Raft cannot publish.
        let now = metrics.borrow_and_update().clone();
        let role = match now.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        let news = Leadership {
            term: now.vote.leader_id().term,
            leader: now.current_leader,
            is_leader: role == Role::Leader,
            role,
        };
        leadership.send_if_modified(|known| std::mem::replace(known, news) != news);
        if membership != now.membership_config {
            peers.set_members(members(&now.membership_config).nodes);
            membership = now.membership_config;
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    leadership
        .send_modify(|known| *known = Leadership { leader: None, is_leader: false, role: Role::Stopped, ..*known });
    let ended = raft.metrics().borrow_watched().running_state.clone();
    running.send_replace(match ended {
        // It says so when it ends; only a panic says nothing.
        Ok(()) => Running::Failed("Raft ended without a word: it panicked".to_owned()),
        Err(openraft::errors::Fatal::Stopped) => Running::Stopped,
        Err(fatal) => Running::Failed(fatal.to_string()),
    });
}

/// Whether log and state fit each other. Where they do not, openraft would purge the log by itself to bridge the gap: it
/// may, when there is a checkpoint that holds as much.
fn check(log: &Handle, local: &Local, checkpoints: &Checkpoints) -> Result<(), Error> {
    let (last, applied) = (log.last().map(|at| at.index), local.applied.map(|at| at.index));
    let checkpoint = checkpoints.newest().map(|newest| newest.position().index);
    if applied > last.max(checkpoint) {
        let last = last.map_or_else(|| "nothing".to_owned(), |index| format!("no more than entry {index}"));
        let applied = applied.unwrap_or_default();
        return Err(Error::Storage(format!("the state has applied entry {applied}, and the log holds {last}")));
    }
    let missing = log.purged().map(|at| at.index).filter(|purged| applied.max(checkpoint) < Some(*purged));
    match missing {
        Some(purged) => Err(Error::Storage(format!("entry {purged} is purged, and the state has not applied it"))),
        None => Ok(()),
    }
}

/// The membership that a state was left with.
pub(crate) fn stored_members(local: &Local) -> Members {
    codec::decode_stored(&local.membership).map(|stored| members(&stored)).unwrap_or_default()
}

/// A membership of one voter, as [`Local::membership`] holds it, said by entry `index` of term 0: what a restored cluster
/// begins with.
pub(crate) fn single_member(id: u64, peer: &str, client: &str, index: u64) -> bytes::Bytes {
    let node = Node { peer: peer.to_owned(), client: client.to_owned() };
    let membership = types::Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)]));
    let membership = membership.expect("the only voter is among the nodes");
    codec::encode_stored(&StoredMembership::new(Some(LogId::new_term_index(0, index)), membership))
}

fn members(stored: &StoredMembership) -> Members {
    let membership = stored.membership();
    Members {
        voters: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    }
}

#[cfg(test)]
mod tests;
