//! When a child must be told to end, and when it is ended: pure.

use std::time::Duration;

use rustix::time::Timespec;

use super::Standing;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// All is well, or it was told already.
    Nothing,
    /// Tell it to end.
    Terminate,
    /// End it.
    Kill,
}

/// Watches over one child.
#[derive(Debug)]
pub(super) struct Judge {
    grace: Duration,
    /// When it was told to end.
    told: Option<Duration>,
}

impl Judge {
    pub(super) const fn new(grace: Duration) -> Self {
        Self { grace, told: None }
    }

    /// Looks at the award. `now` is time since the machine was started, sleep included.
    ///
    /// The award's time ends before the cluster gives it to another: a child that is killed at that end is dead in
    /// time. Once it was told to end it is ended, also when the award is saved meanwhile: half of its work is undone.
    pub(super) fn look(&mut self, standing: Standing, left: Duration, now: Timespec) -> Act {
        let now = since_start(now);
        if standing == Standing::Lost || left.is_zero() {
            return Act::Kill;
        }
        match self.told {
            Some(told) if now.saturating_sub(told) >= self.grace => Act::Kill,
            Some(_) => Act::Nothing,
            None if standing == Standing::Uncertain && left <= self.grace => {
                self.told = Some(now);
                Act::Terminate
            }
            None => Act::Nothing,
        }
    }

    /// In how long the next decision may be due, when the award has so long left.
    pub(super) fn next(&self, left: Duration) -> Duration {
        match self.told {
            Some(_) => left,
            None => left.saturating_sub(self.grace),
        }
        // Never busy: a decision that is due is made a millisecond later at the latest.
        .max(Duration::from_millis(1))
    }

    /// Was it told to end?
    pub(super) const fn has_told(&self) -> bool {
        self.told.is_some()
    }
}

fn since_start(now: Timespec) -> Duration {
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    fn at(ms: i64) -> Timespec {
        Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_uncertain_award_is_told_at_the_grace_and_killed_at_its_end() {
        let mut judge = Judge::new(GRACE);
        assert_eq!(judge.look(Standing::Held, ms(8_000), at(0)), Act::Nothing);
        assert_eq!(judge.look(Standing::Uncertain, ms(2_001), at(6_000)), Act::Nothing);
        assert_eq!(judge.look(Standing::Uncertain, ms(2_000), at(6_001)), Act::Terminate);
        assert_eq!(judge.look(Standing::Uncertain, ms(1_000), at(7_001)), Act::Nothing);
        assert_eq!(judge.look(Standing::Uncertain, ms(0), at(8_000)), Act::Kill);
    }

    #[test]
    fn who_wakes_up_after_the_end_kills_at_once() {
        let mut judge = Judge::new(GRACE);
        assert_eq!(judge.look(Standing::Held, ms(8_000), at(0)), Act::Nothing);
        assert_eq!(judge.look(Standing::Lost, ms(0), at(60_000)), Act::Kill);
        let mut judge = Judge::new(GRACE);
        assert_eq!(judge.look(Standing::Uncertain, ms(0), at(60_000)), Act::Kill);
    }

    #[test]
    fn what_was_told_to_end_is_ended_also_when_the_award_is_saved() {
        let mut judge = Judge::new(GRACE);
        assert_eq!(judge.look(Standing::Uncertain, ms(1_500), at(0)), Act::Terminate);
        assert_eq!(judge.look(Standing::Held, ms(8_000), at(1_999)), Act::Nothing);
        assert_eq!(judge.look(Standing::Held, ms(8_000), at(2_000)), Act::Kill);
    }

    #[test]
    fn a_long_grace_does_not_end_what_is_surely_held() {
        let mut judge = Judge::new(ms(60_000));
        assert_eq!(judge.look(Standing::Held, ms(5_000), at(0)), Act::Nothing);
    }

    #[test]
    fn the_next_look_comes_when_a_decision_is_due() {
        let mut judge = Judge::new(GRACE);
        assert_eq!(judge.next(ms(8_000)), ms(6_000));
        assert_eq!(judge.next(ms(500)), ms(1));
        judge.look(Standing::Uncertain, ms(1_500), at(0));
        assert_eq!(judge.next(ms(700)), ms(700));
    }
}
