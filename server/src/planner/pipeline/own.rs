//! The leader's own work: sweeps, timers, and running parked calls again in bounded slices between requests.

use std::time::Duration;

use conclave_core::Fault;
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_protocol::Zxid;

use super::{BATCH_MS, Filling, Ground, Item, Phase, Pipeline, Sweep};

/// Bytes of rows from which on a sweep found much: a few hundred rows are gone with it.
pub(super) const MUCH_SWEPT: usize = 8 << 10;
/// Woken calls that a new planner runs before anything new: so many are fair to those who waited for it, and no more
/// than a few milliseconds.
pub(super) const DRAIN: usize = 32;
/// Woken calls behind one request, at most.
const SLICE: usize = 32;
/// Milliseconds of an entry that woken calls may fill alone: a request that arrives meanwhile waits for so long.
const ALONE_MS: u64 = 2;
/// Entries on their way beyond which none is made of woken calls alone: a request that arrives finds room.
const ALONE_IN_FLIGHT: usize = 3;
/// The same while somebody asks: what is on its way when a request comes is written, applied and told before it.
const BESIDE_IN_FLIGHT: usize = 1;
/// Woken calls alone in an entry while somebody asks.
const BESIDE: usize = 8;
/// The most of requests' time that woken calls may be owed.
pub(super) const CREDIT: Duration = Duration::from_millis(BATCH_MS);

impl<S: Clone> Pipeline<S> {
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

    /// Looks for what is due, before the requests that wait: they may be many. One at a time; nothing is proposed when
    /// nothing is due.
    pub(crate) fn sweep(&mut self) {
        // Before the first transaction there is nothing to be swept.
        if self.planner.as_ref().is_some_and(|planner| planner.last() > Zxid(0)) && self.sweep != Sweep::UnderWay {
            self.sweep = Sweep::UnderWay;
            self.waiting.push_front(own(Work::Sweep));
        }
    }

    /// Whether the last sweep has ended and found much to do: there may be more.
    pub(crate) fn has_swept_much(&self) -> bool {
        self.sweep == Sweep::Much
    }

    /// Plugins were installed, or something was done to them: their timers may be others.
    pub(crate) fn plugins_changed(&mut self, ground: &impl Ground) -> Result<(), Fault> {
        if self.is_running() {
            let (base, _) = ground.snapshot()?;
            self.timers.set(Planner::timers(&*base)?, ground.now_ms());
        }
        Ok(())
    }

    /// Timers that are due wait with the rest.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        if self.is_running() {
            for (plugin, trigger) in self.timers.due(now_ms) {
                self.waiting.push_back(own(Work::Tick { plugin, trigger }));
            }
        }
    }

    /// When [`Pipeline::tick`] has something to do next, milliseconds of cluster time.
    pub(crate) fn next_tick_ms(&self) -> Option<u64> {
        self.timers.next_ms().filter(|_| self.is_running())
    }

    /// The entry of an item was applied.
    pub(super) fn own_is_done(&mut self, item: &Item<S>) {
        match &item.request.work {
            Work::Sweep => self.sweep = if self.swept_much { Sweep::Much } else { Sweep::Little },
            Work::Tick { plugin, trigger } => self.timers.done(plugin, trigger),
            _ => {}
        }
    }

    /// Nothing was planned for work of the leader's own.
    pub(super) fn own_came_to_nothing(&mut self, item: &Item<S>) {
        match &item.request.work {
            Work::Sweep => self.sweep = Sweep::Little,
            Work::Tick { plugin, trigger } => self.timers.done(plugin, trigger),
            _ => {}
        }
    }

    /// Whether an entry may be made of parked calls alone that are to be run again.
    pub(super) fn may_wake_alone(&self) -> bool {
        let most = if self.is_asked { BESIDE_IN_FLIGHT } else { ALONE_IN_FLIGHT };
        self.flights.len() < most && self.planner.as_ref().is_some_and(|planner| can_wake(planner))
    }

    /// Runs some of the parked calls that were woken.
    pub(super) fn wake_some(
        &mut self,
        planner: &mut Planner,
        ground: &impl Ground,
        filling: &mut Filling<S>,
        most: usize,
    ) -> Result<(), Fault> {
        for _ in 0..most {
            if !can_wake(planner) || !filling.has_room(planner, BATCH_MS) {
                break;
            }
            self.wake(planner, ground, filling)?;
        }
        Ok(())
    }

    /// Behind a request: one, so that requests never starve them; and more of them for as long as they have not taken as
    /// much time as requests, so that they never stall those.
    pub(super) fn wake_after_a_request(
        &mut self,
        planner: &mut Planner,
        ground: &impl Ground,
        filling: &mut Filling<S>,
    ) -> Result<(), Fault> {
        for count in 0..SLICE {
            let is_owed = count == 0 || !self.credit.is_zero();
            if !is_owed || !can_wake(planner) || !filling.has_room(planner, BATCH_MS) {
                break;
            }
            self.wake(planner, ground, filling)?;
        }
        Ok(())
    }

    /// While nothing else waits.
    pub(super) fn wake_alone(
        &mut self,
        planner: &mut Planner,
        ground: &impl Ground,
        filling: &mut Filling<S>,
    ) -> Result<(), Fault> {
        let most = if self.is_asked { BESIDE } else { usize::MAX };
        for _ in 0..most {
            if !can_wake(planner) || !filling.has_room(planner, ALONE_MS) {
                break;
            }
            self.wake(planner, ground, filling)?;
        }
        Ok(())
    }

    /// Runs the next of them, if there is one. Nobody has to remember it: the rows say who is left.
    fn wake(&mut self, planner: &mut Planner, ground: &impl Ground, filling: &mut Filling<S>) -> Result<(), Fault> {
        let began = ground.worked();
        planner.plan(&request(Work::Wake), filling.now_ms)?;
        let took = ground.worked().saturating_sub(began);
        self.credit = self.credit.saturating_sub(took);
        self.charge(planner, planner.woken(), took, ground.elapsed());
        filling.has_woken = true;
        filling.now_ms = ground.now_ms();
        Ok(())
    }
}

/// Before the first transaction nobody has parked.
pub(super) fn can_wake(planner: &Planner) -> bool {
    planner.may_wake() && planner.last() > Zxid(0)
}

pub(super) fn is_sweep<S>(item: &Item<S>) -> bool {
    item.source.is_none() && item.request.work == Work::Sweep
}

pub(super) fn is_tick<S>(item: &Item<S>) -> bool {
    item.source.is_none() && matches!(item.request.work, Work::Tick { .. })
}

pub(super) fn own<S>(work: Work) -> Item<S> {
    Item { source: None, token: 0, request: request(work) }
}

fn request(work: Work) -> Request {
    Request { principal: String::new(), asked: Asked::Leader, fence: None, work }
}
