//! The client's clock: it runs while the machine sleeps, and never jumps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment, as the time since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(pub(crate) Duration);

impl Moment {
    /// `CLOCK_BOOTTIME`: unlike tokio's and the standard library's clocks it counts the time that a laptop was shut or
    /// a virtual machine suspended, in which the cluster's clock ran on and the session may have expired.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// This moment and so much later.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// The time from an earlier moment until this one; nothing if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
