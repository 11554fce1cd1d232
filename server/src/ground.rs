//! What the planner stands on in a real member: the store, the clock, the plugin host, and Raft.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::Local;
use conclave_core::plan::{Growth, Install, Planner};
use conclave_core::plugin::Runner;
use conclave_core::view::Base;
use conclave_protocol::limits::Limits;
use tokio::sync::mpsc;

use crate::member::Shared;
use crate::planner::{Command, Ground, Handle, Outcome, Surroundings};
use crate::raft::{self, Proposal, Replica};
use crate::steps::{Step, Steps};
use crate::{monotonic, plugins, sessions, wall_ms};

/// How long to wait before leadership is to be confirmed again, after that failed.
const CONFIRM_AGAIN: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Real {
    pub(crate) shared: Arc<Shared>,
    pub(crate) built_in: Vec<Install>,
    pub(crate) replica: Replica,
    pub(crate) proposer: mpsc::Sender<Proposal>,
    pub(crate) planner: Handle,
    pub(crate) leases: mpsc::UnboundedSender<sessions::Command>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) resets: Arc<AtomicU64>,
    pub(crate) steps: Steps,
}

impl Ground for Real {
    fn snapshot(&self) -> Result<(Box<dyn Base>, Local), Fault> {
        let snapshot = self.shared.store.snapshot()?;
        let local = snapshot.local()?;
        Ok((Box::new(snapshot), local))
    }

    fn now_ms(&self) -> u64 {
        let mut clock = self.shared.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.stamp_ms(monotonic(), wall_ms())
    }

    fn elapsed(&self) -> Duration {
        monotonic()
    }

    fn worked(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
    }

    fn runner(&self) -> Arc<dyn Runner> {
        Arc::clone(self.shared.plugins.engine()) as Arc<dyn Runner>
    }

    fn built_in(&self) -> Vec<Install> {
        self.built_in.clone()
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn growth(&self) -> Growth {
        self.shared.room.growth()
    }
}

impl Surroundings for Real {
    fn propose(&self, serial: u64, term: u64, payload: Bytes) {
        let planner = self.planner.clone();
        let outcome = Box::new(move |outcome| {
            let outcome = match outcome {
                raft::Outcome::Done { .. } => Outcome::Done,
                raft::Outcome::Void { .. } => Outcome::Void,
                raft::Outcome::Rejected => Outcome::Rejected,
                raft::Outcome::Unknown => Outcome::Unknown,
            };
            planner.send(Command::Outcome(serial, outcome));
        });
        if let Err(refused) = self.proposer.blocking_send(Proposal { term, payload, outcome }) {
            // Raft has ended, and took nothing.
            (refused.0.outcome)(raft::Outcome::Rejected);
        }
    }

    fn confirm(&self, term: u64) {
        let (replica, planner) = (self.replica.clone(), self.planner.clone());
        self.runtime.spawn(async move {
            let leads = replica.reads().confirm().await && replica.leadership().borrow().term == term;
            if !leads {
                tokio::time::sleep(CONFIRM_AGAIN).await;
            }
            planner.send(Command::Confirmed(term, leads));
        });
    }

    fn lacks(&self, term: u64, plugin: String, why: String) {
        self.runtime.spawn(plugins::hand_over(Arc::clone(&self.shared), self.planner.clone(), term, plugin, why));
    }

    fn started(&self, term: u64) {
        self.shared.plugins.lacks(None);
        let sessions = self.shared.store.snapshot().and_then(|snapshot| Planner::sessions(&snapshot));
        match sessions {
            Ok(sessions) => {
                tracing::info!(term, sessions = sessions.len(), "this member leads");
                drop(self.leases.send(sessions::Command::Start(term, sessions)));
            }
            Err(fault) => self.fault(fault),
        }
    }

    fn fault(&self, fault: Fault) {
        self.shared.fault_of(&fault);
    }

    fn resets(&self, count: u64) {
        self.resets.store(count, Ordering::Relaxed);
    }

    fn reached(&self, step: Step) {
        self.steps.reached(step, None);
    }
}
