//! The clock of claims: it runs while the machine sleeps, as the cluster's does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment, as the time since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Duration);

impl Moment {
    /// Later than all.
    pub(crate) const NEVER: Self = Self(Duration::MAX);

    /// `CLOCK_BOOTTIME`: the clocks of tokio and the standard library stand still while a machine sleeps, and a claim does
    /// not.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// The time from an earlier moment until this one; nothing if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Until when a claim surely holds that was asked for at this moment, for so long. The cluster begins to count when it
    /// carries the request out, which is not before it was sent. It may count up to 5 % faster than this machine while it
    /// follows the time of day: a sixteenth is left off.
    pub(crate) fn surely(self, visibility: Duration) -> Self {
        Self(self.0.saturating_add(visibility - visibility / 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_counted_from_when_it_was_asked_for_and_a_little_less() {
        let at = |ms: u64| Moment(Duration::from_millis(ms));
        for (sent, visibility, until) in [(0, 0, 0), (0, 16_000, 15_000), (1_000, 16_000, 16_000), (5, 1, 5)] {
            let surely = at(sent).surely(Duration::from_millis(visibility));
            assert_eq!(surely.0.as_millis(), at(until).0.as_millis(), "{sent} {visibility}");
            // Even for a cluster whose clock runs 5 % fast.
            assert!(surely.since(at(sent)).mul_f64(1.05) <= Duration::from_millis(visibility));
        }
        assert_eq!(at(0).surely(Duration::MAX).since(at(0)), Duration::MAX - Duration::MAX / 16);
        assert_eq!(at(1).since(at(2)), Duration::ZERO);
        assert!(Moment::now() >= Moment::now().min(at(1)));
    }
}
