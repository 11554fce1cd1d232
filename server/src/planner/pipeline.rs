//! The planner's state machine: requests in, entries in planning order out; stops and plans again when one is rejected.
//!
//! Pure: no threads, no channels, no Raft. What it needs of the world is [`Ground`], and what it wants done comes back as
//! [`Effect`]s. Rules 1 to 3 of the design live here; what a request *means* is `conclave_core::plan`'s business.

mod own;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Local, Position};
use conclave_core::digest::Chain;
use conclave_core::plan::{Begin, Growth, Install, Planner, Request, Verdict, Work};
use conclave_core::plugin::Runner;
use conclave_core::view::Base;
use conclave_protocol::limits::Limits;
use conclave_protocol::{Op, PushBack, Zxid};

use super::share::Shares;
use super::timers::Timers;
use own::{is_sweep, is_tick, own};

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
    /// This member's monotonic clock.
    fn elapsed(&self) -> Duration;
    /// The processor time of the thread that plans, to measure what planning takes: on a busy machine it stands still for
    /// as long as others run.
    fn worked(&self) -> Duration;
    /// What runs plugins.
    fn runner(&self) -> Arc<dyn Runner>;
    /// Plugins of a new cluster.
    fn built_in(&self) -> Vec<Install>;
    /// The limits of what may be planned.
    fn limits(&self) -> Limits;
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
    /// An active plugin can't be run here: another voter is to lead. Where there is none, [`Pipeline::again`] is called
    /// after a while.
    Lacks {
        /// In which term.
        term: u64,
        /// Which plugin.
        plugin: String,
        /// Why not.
        why: String,
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
    /// Elected, and not able to run an active plugin: nothing is planned, as no trigger is ever skipped.
    Lacking,
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
    planner: Option<Box<Planner>>,
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
    /// The last sweep.
    sweep: Sweep,
    /// Whether the one whose entry is on its way found much.
    swept_much: bool,
    /// Parked calls may have been woken that this planner has not looked for: they come before anything new.
    drains: bool,
    /// The last entry had room for no woken call behind its requests: the next one begins with one.
    owes_wake: bool,
    /// The time that requests took and woken calls did not yet: those may take as much.
    credit: Duration,
    shares: Shares,
    /// Somebody has asked for something lately.
    is_asked: bool,
    timers: Timers,
}

/// Where the last sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// It waits to be planned, or its entry is on its way.
    UnderWay,
    /// It found as much as one takes, about: there may be more.
    Much,
    /// It found less, or nothing.
    Little,
}

impl<S: Clone> Pipeline<S> {
    /// On a member that has applied so much. Calls of one plugin may take so many hundredths of the planner's time.
    pub(crate) fn new(applied: Option<Position>, plugin_share: u32) -> Self {
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
            sweep: Sweep::Little,
            swept_much: false,
            drains: false,
            owes_wake: false,
            credit: Duration::ZERO,
            shares: Shares::new(plugin_share),
            is_asked: false,
            timers: Timers::default(),
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

    /// Whether there is something that it can plan at once.
    pub(crate) fn has_work(&self) -> bool {
        let has_requests = !self.waiting.is_empty() && self.flights.len() < IN_FLIGHT;
        self.is_running() && (has_requests || self.may_wake_alone())
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
        self.effects.retain(|effect| !matches!(effect, Effect::Started { .. } | Effect::Lacks { .. }));
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
                while let Some(flight) = self.flights.pop_front_if(|flight| flight.outcome.is_some()) {
                    flight.items.iter().for_each(|item| self.own_is_done(item));
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

    /// Plans what waits, as far as the pipeline takes it. Of woken calls alone not more than an entry: what has arrived
    /// meanwhile is to be looked at first.
    pub(crate) fn turn(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        self.is_asked = self.shares.is_asked(ground.elapsed());
        let mut had_requests = true;
        while self.has_work() && had_requests {
            had_requests = !self.waiting.is_empty();
            self.plan_entry(ground)?;
        }
        Ok(())
    }

    fn plan_entry(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        // Out of its place meanwhile; after a fault it is done for.
        let (Some(mut planner), Some(term)) = (self.planner.take(), self.leading) else {
            return Err(Fault::Invariant("a running pipeline has a planner and a term".to_owned()));
        };
        // Once an entry: what an entry adds is small beside what is kept free.
        planner.set_growth(ground.growth());
        let began_ms = ground.now_ms();
        let mut filling = Filling {
            began_ms,
            now_ms: began_ms,
            others_wait: None,
            has_woken: false,
            items: Vec::new(),
            told: Vec::new(),
        };
        let first = if std::mem::take(&mut self.drains) { own::DRAIN } else { usize::from(self.owes_wake) };
        self.wake_some(&mut planner, ground, &mut filling, first)?;
        while filling.has_room(&planner, BATCH_MS)
            && let Some(item) = self.waiting.pop_front()
        {
            self.plan_item(&mut planner, ground, item, &mut filling)?;
            self.wake_after_a_request(&mut planner, ground, &mut filling)?;
        }
        if self.waiting.is_empty() {
            self.wake_alone(&mut planner, ground, &mut filling)?;
        }
        let Filling { items, told, has_woken, .. } = filling;
        self.owes_wake = !has_woken && own::can_wake(&planner);
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
        // Before everything else that waits: what fails again and again takes their time.
        for (plugin, why) in planner.failing() {
            self.waiting.push_front(own(Work::Suspend { plugin, why }));
        }
        self.planner = Some(planner);
        Ok(())
    }

    /// Whether requests wait that are no calls of this plugin. While there are none, its calls take nothing from anybody.
    fn others_wait(&self, plugin: Option<&str>) -> bool {
        let mut asked = self.waiting.iter().filter(|item| item.source.is_some());
        asked.any(|item| plugin_of(&item.request.work) != plugin)
    }

    fn plan_item(
        &mut self,
        planner: &mut Planner,
        ground: &impl Ground,
        item: Item<S>,
        filling: &mut Filling<S>,
    ) -> Result<(), Fault> {
        let (before, began) = (planner.pending_bytes(), ground.worked());
        let plugin = plugin_of(&item.request.work);
        let now = ground.elapsed();
        if item.source.is_some() {
            self.shares.asked(plugin, now);
        }
        let is_over = plugin.is_some_and(|plugin| {
            self.shares.is_spent(plugin, now)
                && (self.shares.others_asked(plugin, now)
                    || *filling.others_wait.get_or_insert_with(|| self.others_wait(Some(plugin))))
        });
        planner.hold_calls(is_over);
        let verdict = match &item.request.work {
            Work::Tick { plugin, trigger } if is_over => {
                self.timers.put_off(plugin, trigger, filling.now_ms);
                return Ok(());
            }
            _ => planner.plan(&item.request, filling.now_ms)?,
        };
        let took = ground.worked().saturating_sub(began);
        self.credit = (self.credit + took).min(own::CREDIT);
        let has_run = matches!(verdict, Verdict::Planned(_)) || matches!(item.request.work, Work::Tick { .. });
        self.charge(planner, plugin.filter(|_| has_run), took, ground.elapsed());
        match verdict {
            Verdict::Planned(_) => {
                if is_sweep(&item) {
                    self.swept_much = planner.pending_bytes().saturating_sub(before) >= own::MUCH_SWEPT;
                }
                filling.items.push(item);
            }
            _ if item.source.is_none() => self.own_came_to_nothing(&item),
            Verdict::Look(zxid) => filling.told.push((item, Told::Look(zxid))),
            Verdict::Dropped => filling.told.push((item, Told::Dropped)),
            Verdict::PushBack(why) => filling.told.push((item, Told::PushBack(why))),
        }
        filling.now_ms = ground.now_ms();
        Ok(())
    }

    /// What was planned took so long, of a call or a timer of this plugin. Plugins that failed in it pay for that by
    /// themselves, whosever call it was.
    fn charge(&mut self, planner: &Planner, plugin: Option<&str>, took: Duration, now: Duration) {
        let failed = planner.failed();
        if let Some(plugin) = plugin.filter(|plugin| failed.iter().all(|failed| failed != plugin)) {
            self.shares.spent(plugin, took, false, now);
        }
        failed.iter().for_each(|plugin| self.shares.spent(plugin, took, true, now));
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
        // The time of the next one comes soon enough.
        self.waiting.retain(|item| !is_sweep(item) && !is_tick(item));
        self.sweep = Sweep::Little;
        self.timers.reset();
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
        let timers = Planner::timers(&*base)?;
        let mut planner = match Planner::begin_term(term, base, &local, ground.runner())? {
            Begin::Planner(planner) => planner,
            Begin::Missing { plugin, why } => {
                self.phase = Phase::Lacking;
                self.effects.push(Effect::Lacks { term, plugin, why });
                return Ok(());
            }
        };
        self.path = VecDeque::from([local.chain]);
        self.timers.set(timers, ground.now_ms());
        self.drains = true;
        planner.set_limits(ground.limits());
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

    /// Another voter could not take over from this member, which lacks a plugin: it is tried again.
    pub(crate) fn again(&mut self, ground: &impl Ground, term: u64) -> Result<(), Fault> {
        if self.phase == Phase::Lacking && self.leading == Some(term) {
            return self.start(ground);
        }
        Ok(())
    }

    fn tell(&mut self, item: Item<S>, told: Told) {
        if let Some(source) = item.source {
            self.effects.push(Effect::Tell(source, item.token, told));
        }
    }
}

/// An entry that is being filled.
struct Filling<S> {
    began_ms: u64,
    now_ms: u64,
    /// Whether others waited when the first call came whose plugin had taken its share, and nobody else had asked lately:
    /// looked for once an entry.
    others_wait: Option<bool>,
    /// A woken call is in it.
    has_woken: bool,
    items: Vec<Item<S>>,
    told: Vec<(Item<S>, Told)>,
}

impl<S> Filling<S> {
    /// Whether more may come into it, when planning it may take so long.
    fn has_room(&self, planner: &Planner, within_ms: u64) -> bool {
        planner.pending() < BATCH_TRANSACTIONS
            && planner.pending_bytes() < BATCH_BYTES
            && self.now_ms.saturating_sub(self.began_ms) < within_ms
    }
}

/// Whose time a work is, that runs a plugin by itself.
fn plugin_of(work: &Work) -> Option<&str> {
    match work {
        Work::Op(Op::Call(call)) => Some(&call.plugin),
        Work::Tick { plugin, .. } => Some(plugin),
        _ => None,
    }
}
