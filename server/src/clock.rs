//! Cluster time: what the leader stamps entries with, and what it counts `until` and TTLs by. Pure: clocks come in.

use std::time::Duration;

/// How far cluster time may run faster or slower than this machine's monotonic clock, to come nearer to its wall
/// clock: one part in twenty. A wall clock that jumps is followed no faster than that.
const SLEW: u32 = 20;

/// Cluster time as this member knows it: the last stamp that it applied, and how long ago that was.
///
/// A leader's own stamps are no news to it. Each of them is as old, when it is applied, as an entry takes to be
/// replicated: counting from there again with every entry, time would stand still under load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Cluster time at `at`: since 1970.
    time: Duration,
    /// This machine's monotonic clock then; none before the clock runs.
    at: Option<Duration>,
    /// The last time given: time never runs back.
    given_ms: u64,
    /// The last time that was given to be a stamp.
    made_ms: u64,
}

impl Clock {
    /// A clock of which only the stamp is known that earlier runs have left behind.
    #[must_use]
    pub(crate) fn restored(stamp_ms: u64) -> Self {
        Self { time: Duration::from_millis(stamp_ms), given_ms: stamp_ms, ..Self::default() }
    }

    /// An entry with this stamp was applied at this monotonic time. `live`: it was proposed since this process
    /// started, not replayed from the log.
    pub(crate) fn stamped(&mut self, stamp_ms: u64, monotonic: Duration, live: bool) {
        let stamp = Duration::from_millis(stamp_ms);
        let is_news = live && stamp_ms > self.made_ms;
        match self.at {
            Some(_) if !is_news => {}
            None if !live => self.time = self.time.max(stamp),
            _ => {
                self.time = stamp;
                self.at = Some(monotonic);
            }
        }
    }

    /// Whether time can be told without asking the other members for theirs.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.at.is_some()
    }

    /// Starts it from the wall clocks of a majority of voters (milliseconds): their median, never less than the stamp.
    /// Of two in the middle the earlier one counts: what is too early, slewing mends, and what is too late stays.
    pub(crate) fn start(&mut self, walls_ms: &[u64], monotonic: Duration) {
        let mut walls = walls_ms.to_vec();
        walls.sort_unstable();
        let median = walls.get(walls.len().saturating_sub(1) / 2).copied().unwrap_or(0);
        self.time = self.time.max(Duration::from_millis(median.max(self.given_ms)));
        self.at = Some(monotonic);
    }

    /// Cluster time, milliseconds; before it runs, the last stamp.
    pub(crate) fn now_ms(&mut self, monotonic: Duration, wall_ms: u64) -> u64 {
        if let Some(at) = self.at {
            let elapsed = monotonic.saturating_sub(at);
            let even = self.time.saturating_add(elapsed);
            let slew = elapsed / SLEW;
            self.time = Duration::from_millis(wall_ms).clamp(even.saturating_sub(slew), even.saturating_add(slew));
            self.at = Some(at.max(monotonic));
        }
        self.given_ms = self.given_ms.max(u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX));
        self.given_ms
    }

    /// The same for a leader that stamps an entry with it.
    pub(crate) fn stamp_ms(&mut self, monotonic: Duration, wall_ms: u64) -> u64 {
        self.made_ms = self.now_ms(monotonic, wall_ms);
        self.made_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_goes_on_from_the_last_applied_stamp() {
        let mut clock = Clock::restored(0);
        clock.stamped(1_000_000, at(500), true);
        assert_eq!(clock.now_ms(at(700), 1_000_200), 1_000_200);
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_followed_by_a_twentieth_at_most() {
        let mut clock = Clock::restored(0);
        clock.stamped(10 * HOUR_MS, at(0), true);
        assert_eq!(clock.now_ms(at(20_000), 20 * HOUR_MS), 10 * HOUR_MS + 21_000);
        let mut clock = Clock::restored(0);
        clock.stamped(10 * HOUR_MS, at(0), true);
        assert_eq!(clock.now_ms(at(20_000), HOUR_MS), 10 * HOUR_MS + 19_000);
    }

    #[test]
    fn a_leaders_time_goes_on_while_it_stamps_entry_after_entry() {
        let mut clock = Clock::restored(0);
        clock.stamped(1_000_000, at(0), true);
        // An entry each 2 ms, applied 10 ms after it was planned: its stamp is 10 ms old when it is applied.
        let mut under_way = std::collections::VecDeque::new();
        for ms in (0..20_000).step_by(2) {
            if under_way.len() == 5 {
                clock.stamped(under_way.pop_front().unwrap(), at(ms), true);
            }
            under_way.push_back(clock.stamp_ms(at(ms), 1_000_000 + ms));
        }
        let now_ms = clock.now_ms(at(20_000), 1_020_000);
        assert_eq!(now_ms, 1_020_000, "20 s were {} ms of cluster time", now_ms - 1_000_000);
        // Another member's stamp counts again.
        clock.stamped(1_030_000, at(20_001), true);
        assert_eq!(clock.now_ms(at(20_001), 1_020_001), 1_030_000);
    }

    #[test]
    fn a_wall_clock_that_jumps_late_is_followed_no_faster() {
        let mut clock = Clock::restored(0);
        clock.stamped(10 * HOUR_MS, at(0), true);
        for ms in (0..=HOUR_MS).step_by(1_000) {
            assert_eq!(clock.stamp_ms(at(ms), 10 * HOUR_MS + ms), 10 * HOUR_MS + ms);
        }
        let jumped = clock.stamp_ms(at(HOUR_MS + 1_000), 20 * HOUR_MS);
        assert_eq!(jumped, 11 * HOUR_MS + 1_050, "an hour's worth of slewing was saved up");
    }

    #[test]
    fn time_never_runs_back() {
        let mut clock = Clock::restored(0);
        clock.stamped(1_000_000, at(0), true);
        let before = clock.now_ms(at(10_000), 1_010_000);
        clock.stamped(1_000_100, at(10_001), true);
        assert!(clock.now_ms(at(10_002), 0) >= before);
        clock.stamped(5, at(10_003), true);
        assert!(clock.now_ms(at(10_004), 0) >= before);
    }

    #[test]
    fn after_a_restart_the_median_of_the_voters_counts_and_never_less_than_the_stamp() {
        let mut clock = Clock::restored(5_000);
        clock.stamped(6_000, at(1), false);
        assert!(!clock.is_running(), "a stamp out of the log says nothing of how long ago it was made");
        clock.start(&[9_000, 1, 8_000], at(10));
        assert_eq!(clock.now_ms(at(10), 8_000), 8_000);
        let mut clock = Clock::restored(50_000);
        clock.start(&[9_000, 1, 8_000], at(10));
        assert_eq!(clock.now_ms(at(10), 8_000), 50_000);
        let mut clock = Clock::restored(5_000);
        clock.start(&[HOUR_MS, 8_000], at(10));
        assert_eq!(clock.now_ms(at(10), 8_000), 8_000, "one of two walls must not carry time away");
    }
}
