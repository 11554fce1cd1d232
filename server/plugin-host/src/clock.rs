//! How long a run may take, with what runs inside of it left out.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How much longer than its time a run may take by the wall clock, when the thread does not get the processor.
const STARVED: u32 = 50;

/// On the processor, and by the wall clock.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    processor: Duration,
    wall: Duration,
}

thread_local! {
    /// What the runs that this thread has ended took. A run may begin and end inside of another's host call, in a store of
    /// its own, and nothing else is common to the two.
    static ENDED: Cell<Times> = const { Cell::new(Times { processor: Duration::ZERO, wall: Duration::ZERO }) };
}

/// When a run has had its time. The thread's own processor time counts, so that a machine that is busy with something
/// else does not make good plugins fail; the wall clock ends the run that the machine forgot.
#[derive(Debug)]
pub(crate) struct TimeLimit {
    time: Duration,
    began: Duration,
    began_at: Instant,
    ended_before: Times,
}

impl TimeLimit {
    pub(crate) fn from_now(time: Duration) -> Self {
        Self { time, began: processor_time(), began_at: Instant::now(), ended_before: ENDED.get() }
    }

    pub(crate) fn is_reached(&self) -> bool {
        let (taken, inside) = (self.taken(), ENDED.get());
        let own =
            |taken: Duration, inside: Duration, before: Duration| taken.saturating_sub(inside.saturating_sub(before));
        own(taken.processor, inside.processor, self.ended_before.processor) >= self.time
            || own(taken.wall, inside.wall, self.ended_before.wall) >= self.time.saturating_mul(STARVED)
    }

    /// The run is over: what it took is not taken from the one around it.
    pub(crate) fn end(&self) {
        let Times { processor, wall } = self.taken();
        let before = self.ended_before;
        ENDED.set(Times { processor: before.processor + processor, wall: before.wall + wall });
    }

    fn taken(&self) -> Times {
        Times { processor: processor_time().saturating_sub(self.began), wall: self.began_at.elapsed() }
    }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(time: Duration) {
        let until = processor_time() + time;
        while processor_time() < until {}
    }

    #[test]
    fn a_run_inside_of_another_has_a_time_of_its_own() {
        let time = Duration::from_millis(30);
        let outer = TimeLimit::from_now(time);
        let first = TimeLimit::from_now(time);
        work(time);
        assert!(first.is_reached());
        first.end();
        assert!(!outer.is_reached());
        let second = TimeLimit::from_now(time);
        assert!(!second.is_reached());
        second.end();
        work(time);
        assert!(outer.is_reached());
        outer.end();
        assert!(!TimeLimit::from_now(time).is_reached());
    }
}
