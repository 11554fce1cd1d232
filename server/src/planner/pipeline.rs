//! The planner's state machine: requests in, entries in planning order out; stops and plans again when one is rejected.
//!
//! Pure: no threads, no channels, no Raft. What it needs of the world is [`Ground`], and what it wants done comes back as
//! [`Effect`]s. Rules 1 to 3 of the design live here; what a request *means* is `conclave_core::plan`'s business.

use std::collections::VecDeque;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Local, Position};
use conclave_core::digest::Chain;
use conclave_core::plan::{Asked, Growth, Install, Planner, Procedures, Request, Verdict, Work};
use conclave_core::view::Base;
use conclave_protocol::{PushBack, Zxid};

/// Entries that may be on their way at a time. Enough to hide a flush and a round trip behind each other; each further
/// one only makes batches smaller.
const IN_FLIGHT: usize = 6;
/// Transactions in one entry, at most.
const BATCH_TRANSACTIONS: usize = 512;
/// Bytes of rows in one entry after which it is closed.
const BATCH_BYTES: usize = 1 << 20;
/// Milliseconds of planning after which an entry is closed: slow procedures must not hold up what is planned already.
const BATCH_MS: u64 = 5;
/// Requests that may wait to be planned; further ones are to be sent again.
const WAITING: usize = 65_536;

/// What the pipeline stands on.
pub(crate) trait Ground {
    /// The applied state, and what is kept beside it, from one read transaction.
    fn snapshot(&self) -> Result<(Box<dyn Base>, Local), Fault>;
    /// Cluster time to stamp what is planned with, milliseconds.
    fn now_ms(&self) -> u64;
    /// What runs procedures.
    fn procedures(&self) -> Box<dyn Procedures>;
    /// Plugins of a new cluster.
    fn built_in(&self) -> Vec<Install>;
    /// Whether this member's disk has room for a larger tree.
    fn growth(&self) -> Growth;
}

/// A request, and whom to tell.
#[derive(Debug, Clone)]
pub(crate) struct Item<S> {
    /// The member that it came from; none: the leader itself.
    pub(crate) source: Option<S>,
    /// That member's number for it.
    pub(crate) token: u64,
    /// It.
    pub(crate) request: Request,
}

/// What a member is told of a request that it sent. Nothing, when it was planned: the member learns that by applying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Told {
    /// When it has applied this zxid, its own state tells.
    Look(Zxid),
    /// Its reply was acknowledged before.
    Dropped,
    /// Nothing was planned.
    PushBack(PushBack),
    /// Whether it was planned is not known, or there is no planner here: send it again.
    Resend,
}

/// What became of a proposed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was applied.
    Done,
    /// It was committed, and changed nothing.
    Void,
    /// It never came into the log.
    Rejected,
    /// It may or may not be committed.
    Unknown,
}

/// What the pipeline wants done.
#[derive(Debug)]
pub(crate) enum Effect<S> {
    /// Propose this entry, after all those before it.
    Propose {
        /// Its number, for [`Pipeline::outcome`].
        serial: u64,
        /// Only in this term.
        term: u64,
        /// It.
        payload: Bytes,
    },
    /// Tell a member about a request.
    Tell(S, u64, Told),
    /// Confirm that this member leads in this term, by a read-index round, then call [`Pipeline::confirmed`].
    Confirm {
        /// Which term.
        term: u64,
    },
    /// A planner runs in this term: leases begin.
    Started {
        /// Which term.
        term: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Another member leads.
    Following,
    /// Elected; what is older than this term is not all applied yet (rule 2).
    Starting,
    /// Planning.
    Running,
    /// Something was rejected, or leadership lost: waits until everything submitted is resolved (rule 3).
    Draining,
    /// Drained; waits for the confirmation that this member leads.
    Confirming,
}

struct Flight<S> {
    serial: u64,
    items: Vec<Item<S>>,
    outcome: Option<Outcome>,
}

/// See the module.
pub(crate) struct Pipeline<S> {
    phase: Phase,
    /// The term that this member leads in.
    leading: Option<u64>,
    /// The last position that this member has applied.
    applied: Option<Position>,
    planner: Option<Planner>,
    /// The chains that the planner's states have: that of its base, then one for each entry. A base with another chain
    /// is not of its making.
    path: VecDeque<Chain>,
    /// The term that the leases began in.
    started: Option<u64>,
    waiting: VecDeque<Item<S>>,
    flights: VecDeque<Flight<S>>,
    next_serial: u64,
    effects: Vec<Effect<S>>,
    /// How often it had to stop and plan again.
    resets: u64,
}

impl<S: Clone> Pipeline<S> {
    /// On a member that has applied so much.
    pub(crate) fn new(applied: Option<Position>) -> Self {
        Self {
            phase: Phase::Following,
            leading: None,
            applied,
            planner: None,
            path: VecDeque::new(),
            started: None,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            next_serial: 1,
            effects: Vec::new(),
            resets: 0,
        }
    }

    /// What it wants done, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect<S>> {
        std::mem::take(&mut self.effects)
    }

    /// How often it had to stop and plan again.
    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// Whether it plans.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether nothing waits and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    /// This member leads in this term, or none.
    pub(crate) fn leadership(&mut self, ground: &impl Ground, leading: Option<u64>) -> Result<(), Fault> {
        if leading == self.leading {
            return Ok(());
        }
        self.leading = leading;
        self.planner = None;
        self.started = None;
        // What the leader decided by itself holds in its term only: in a later one another leader may have renewed a
        // session whose end was decided here.
        let is_asked = |item: &Item<S>| item.source.is_some();
        self.waiting.retain(is_asked);
        self.flights.iter_mut().for_each(|flight| flight.items.retain(is_asked));
        // Leases that begin after their term would count while another leader renews.
        self.effects.retain(|effect| !matches!(effect, Effect::Started { .. }));
        self.settle(ground)
    }

    /// This member has applied the log up to here.
    pub(crate) fn applied(&mut self, ground: &impl Ground, position: Position) -> Result<(), Fault> {
        self.applied = Some(position);
        if self.phase == Phase::Starting {
            return self.start(ground);
        }
        let Some(planner) = &mut self.planner else { return Ok(()) };
        let (base, local) = ground.snapshot()?;
        let Some(at) = self.path.iter().position(|chain| *chain == local.chain) else {
            // Another leader wrote there, or an entry of ours that was given up: the overlay does not fit any more.
            self.planner = None;
            return self.settle(ground);
        };
        self.path.drain(..at);
        planner.rebase(base)
    }

    /// Requests arrived.
    pub(crate) fn requests(&mut self, items: impl IntoIterator<Item = Item<S>>) {
        for item in items {
            // A full queue is no push-back either: this may be the repetition of a request that was planned already.
            let is_refused = self.phase == Phase::Following || self.waiting.len() >= WAITING;
            if is_refused && item.source.is_some() {
                self.tell(item, Told::Resend);
            } else {
                self.waiting.push_back(item);
            }
        }
    }

    /// A proposed entry is resolved.
    pub(crate) fn outcome(&mut self, ground: &impl Ground, serial: u64, outcome: Outcome) -> Result<(), Fault> {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.serial == serial) {
            flight.outcome = Some(outcome);
        }
        if outcome != Outcome::Done && self.phase == Phase::Running {
            self.planner = None;
            self.phase = Phase::Draining;
        }
        match self.phase {
            Phase::Running => {
                while self.flights.front().is_some_and(|flight| flight.outcome.is_some()) {
                    self.flights.pop_front();
                }
                Ok(())
            }
            _ => self.settle(ground),
        }
    }

    /// A read-index round that began after [`Effect::Confirm`] succeeded (or, with false, failed) in this term.
    pub(crate) fn confirmed(&mut self, ground: &impl Ground, term: u64, leads: bool) -> Result<(), Fault> {
        if self.phase != Phase::Confirming || self.leading != Some(term) {
            return Ok(());
        }
        if leads {
            return self.start(ground);
        }
        self.effects.push(Effect::Confirm { term });
        Ok(())
    }

    /// Plans what waits, as far as the pipeline takes it.
    pub(crate) fn turn(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        while self.phase == Phase::Running && !self.waiting.is_empty() && self.flights.len() < IN_FLIGHT {
            self.plan_entry(ground)?;
        }
        Ok(())
    }

    fn plan_entry(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        let (Some(planner), Some(term)) = (&mut self.planner, self.leading) else {
            return Err(Fault::Invariant("a running pipeline has a planner and a term".to_owned()));
        };
        // Once an entry: what an entry adds is small beside what is kept free.
        planner.set_growth(ground.growth());
        let began_ms = ground.now_ms();
        let mut now_ms = began_ms;
        let mut items = Vec::new();
        let mut told = Vec::new();
        while planner.pending() < BATCH_TRANSACTIONS
            && planner.pending_bytes() < BATCH_BYTES
            && now_ms.saturating_sub(began_ms) < BATCH_MS
            && let Some(item) = self.waiting.pop_front()
        {
            match planner.plan(&item.request, now_ms)? {
                Verdict::Planned(_) => items.push(item),
                Verdict::Look(zxid) => told.push((item, Told::Look(zxid))),
                Verdict::Dropped => told.push((item, Told::Dropped)),
                Verdict::PushBack(why) => told.push((item, Told::PushBack(why))),
            }
            now_ms = ground.now_ms();
        }
        if let Some(cut) = planner.cut() {
            let serial = self.next_serial;
            self.next_serial += 1;
            self.path.push_back(Chain::after(&cut.payload));
            self.flights.push_back(Flight { serial, items, outcome: None });
            self.effects.push(Effect::Propose { serial, term, payload: cut.payload });
        }
        for (item, told) in told {
            self.tell(item, told);
        }
        Ok(())
    }

    /// Without a planner: once everything submitted is resolved, sorts out what is to be planned again, and goes on to
    /// whatever this member is now.
    fn settle(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        self.phase = Phase::Draining;
        if self.flights.iter().any(|flight| flight.outcome.is_none()) {
            return Ok(());
        }
        let mut again = VecDeque::new();
        let had_flights = !self.flights.is_empty();
        for flight in std::mem::take(&mut self.flights) {
            match flight.outcome {
                Some(Outcome::Rejected | Outcome::Void) => again.extend(flight.items),
                Some(Outcome::Unknown) => flight.items.into_iter().for_each(|item| self.tell(item, Told::Resend)),
                Some(Outcome::Done) | None => {}
            }
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        match self.leading {
            None => {
                self.phase = Phase::Following;
                for item in std::mem::take(&mut self.waiting) {
                    self.tell(item, Told::Resend);
                }
                Ok(())
            }
            Some(term) if had_flights => {
                self.resets += 1;
                self.phase = Phase::Confirming;
                self.effects.push(Effect::Confirm { term });
                Ok(())
            }
            Some(_) => {
                self.phase = Phase::Starting;
                self.start(ground)
            }
        }
    }

    /// Starts a planner, if this member has applied the first entry of its own term.
    fn start(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        let Some(term) = self.leading else { return self.settle(ground) };
        if self.applied.is_none_or(|position| position.term != term) {
            self.phase = Phase::Starting;
            return Ok(());
        }
        let (base, local) = ground.snapshot()?;
        match local.applied {
            Some(position) if position.term == term => {}
            // A later leader has written already; that this member's time is over, it hears in a moment.
            Some(position) if position.term > term => {
                self.phase = Phase::Starting;
                return Ok(());
            }
            _ => return Err(Fault::Invariant(format!("the view is older than the blank entry of term {term}"))),
        }
        self.path = VecDeque::from([local.chain]);
        let planner = Planner::new(term, base, &local, ground.procedures())?;
        if planner.last() == Zxid(0) {
            let work = Work::Genesis { plugins: ground.built_in() };
            self.waiting.push_front(own(work));
        }
        self.planner = Some(planner);
        self.phase = Phase::Running;
        // Once a term: a planner that plans again must not give every session a new lease, least of all those whose end
        // is under way.
        if self.started.replace(term) != Some(term) {
            self.effects.push(Effect::Started { term });
        }
        Ok(())
    }

    /// Work of the leader's own waits with the rest; it is dropped when this member does not lead.
    pub(crate) fn own_in(&mut self, term: u64, work: Work) {
        if self.leading == Some(term) {
            self.own(work);
        }
    }

    /// As [`Pipeline::own_in`], decided just now.
    pub(crate) fn own(&mut self, work: Work) {
        if self.phase == Phase::Running {
            self.waiting.push_back(own(work));
        }
    }

    fn tell(&mut self, item: Item<S>, told: Told) {
        if let Some(source) = item.source {
            self.effects.push(Effect::Tell(source, item.token, told));
        }
    }
}

fn own<S>(work: Work) -> Item<S> {
    Item {
        source: None,
        token: 0,
        request: Request { principal: String::new(), asked: Asked::Leader, fence: None, work },
    }
}
