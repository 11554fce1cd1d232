//! Cluster time: what the leader stamps entries with, and what it counts `until` and TTLs by. Pure: clocks come in.

use std::time::Duration;

/// How far cluster time may run faster or slower than this machine's monotonic clock, to come nearer to its wall
/// clock: one part in twenty. A wall clock that jumps is followed no faster than that.
const SLEW: u64 = 20;

/// Cluster time as this member knows it: the last stamp that it applied, and how long ago that was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// The last stamp, milliseconds since 1970.
    stamp_ms: u64,
    /// This machine's monotonic clock when the stamp was applied; none when that was before this process started.
    applied_at: Option<Duration>,
    /// The last time given: time never runs back.
    given_ms: u64,
}

impl Clock {
    /// A clock of which only the stamp is known that earlier runs have left behind.
    #[must_use]
    pub(crate) fn restored(stamp_ms: u64) -> Self {
        Self { stamp_ms, applied_at: None, given_ms: stamp_ms }
    }

    /// An entry with this stamp was applied at this monotonic time. `live`: it was proposed since this process
    /// started, not replayed from the log.
    pub(crate) fn stamped(&mut self, stamp_ms: u64, monotonic: Duration, live: bool) {
        if stamp_ms < self.stamp_ms {
            return;
        }
        self.stamp_ms = stamp_ms;
        if live {
            self.applied_at = Some(monotonic);
        }
    }

    /// Whether time can be told without asking the other members for theirs.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.applied_at.is_some()
    }

    /// Starts it from the wall clocks of a majority of voters (milliseconds): their median, never less than the stamp.
    pub(crate) fn start(&mut self, walls_ms: &[u64], monotonic: Duration) {
        let mut walls = walls_ms.to_vec();
        walls.sort_unstable();
        let median = walls.get(walls.len() / 2).copied().unwrap_or(0);
        self.stamp_ms = self.stamp_ms.max(median).max(self.given_ms);
        self.applied_at = Some(monotonic);
    }

    /// Cluster time, milliseconds; before it runs, the last stamp.
    pub(crate) fn now_ms(&mut self, monotonic: Duration, wall_ms: u64) -> u64 {
        let Some(applied_at) = self.applied_at else {
            return self.given_ms.max(self.stamp_ms);
        };
        let elapsed = u64::try_from(monotonic.saturating_sub(applied_at).as_millis()).unwrap_or(u64::MAX);
        let even = self.stamp_ms.saturating_add(elapsed);
        let slew = elapsed / SLEW;
        let slewed = wall_ms.clamp(even - slew.min(even), even.saturating_add(slew));
        self.given_ms = self.given_ms.max(slewed);
        self.given_ms
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
    }
}
