//! How much of the planner's time calls of one plugin may take: a bucket of time each. Pure: time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

/// The time over which a share is a share: a burst may take that of a whole window, and waits for as long then. Others wait
/// behind a burst, so it is short.
const WINDOW: Duration = Duration::from_millis(40);
/// Plugins whose buckets are looked through for full ones when another is added.
const TIDY: usize = 64;

/// What calls of plugins have taken of the planner's time.
#[derive(Debug)]
pub(super) struct Shares {
    /// Hundredths.
    percent: u32,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What is left of its time, microseconds; less than nothing when the last call took more.
    left_us: i64,
    /// When that was so.
    at: Duration,
}

impl Shares {
    /// Each plugin may take so many hundredths.
    pub(super) fn new(percent: u32) -> Self {
        Self { percent: percent.clamp(1, 100), buckets: BTreeMap::new() }
    }

    /// Whether a plugin has taken its share. How long a call takes is known when it is over: what the last one took too
    /// much is owed.
    pub(super) fn is_spent(&self, plugin: &str, now: Duration) -> bool {
        self.buckets.get(plugin).is_some_and(|bucket| self.left_us(*bucket, now) <= 0)
    }

    /// A call of a plugin took so long.
    pub(super) fn spent(&mut self, plugin: &str, took: Duration, now: Duration) {
        let left_us = self.buckets.get(plugin).map_or_else(|| self.most_us(), |bucket| self.left_us(*bucket, now));
        let bucket = Bucket { left_us: left_us.saturating_sub(us(took)), at: now };
        if self.buckets.insert(plugin.to_owned(), bucket).is_none() && self.buckets.len().is_multiple_of(TIDY) {
            let full: Vec<String> = self
                .buckets
                .iter()
                .filter(|(_, bucket)| self.left_us(**bucket, now) >= self.most_us())
                .map(|(plugin, _)| plugin.clone())
                .collect();
            for plugin in full {
                self.buckets.remove(&plugin);
            }
        }
    }

    fn left_us(&self, bucket: Bucket, now: Duration) -> i64 {
        let came_us = us(now.saturating_sub(bucket.at)).saturating_mul(i64::from(self.percent)) / 100;
        bucket.left_us.saturating_add(came_us).min(self.most_us())
    }

    fn most_us(&self) -> i64 {
        us(WINDOW * self.percent / 100)
    }
}

fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_plugin_that_took_its_share_has_none_left_until_time_has_passed() {
        let mut shares = Shares::new(50);
        assert!(!shares.is_spent("greedy", ms(0)));
        shares.spent("greedy", ms(19), ms(19));
        assert!(!shares.is_spent("greedy", ms(19)));
        shares.spent("greedy", ms(10), ms(29));
        assert!(shares.is_spent("greedy", ms(29)));
        assert!(!shares.is_spent("modest", ms(29)), "another's share is its own");
        assert!(shares.is_spent("greedy", ms(37)), "what it took too much is owed");
        assert!(!shares.is_spent("greedy", ms(38)));
        shares.spent("greedy", ms(2), ms(40));
        assert!(shares.is_spent("greedy", ms(40)), "a millisecond of two came back");
    }

    #[test]
    fn over_a_long_time_a_plugin_takes_its_share_and_no_more() {
        let mut shares = Shares::new(50);
        let (mut now, mut taken) = (ms(0), ms(0));
        while now < Duration::from_secs(60) {
            if shares.is_spent("greedy", now) {
                now += ms(1);
                continue;
            }
            now += ms(3);
            taken += ms(3);
            shares.spent("greedy", ms(3), now);
        }
        let most = Duration::from_secs(30) + WINDOW;
        assert!((Duration::from_secs(29)..most).contains(&taken), "it took {taken:?} of a minute");
    }

    #[test]
    fn what_is_full_again_is_forgotten() {
        let mut shares = Shares::new(50);
        for number in 0..10_000 {
            shares.spent(&format!("p{number}"), ms(1), ms(number * 100));
        }
        assert!(shares.buckets.len() <= TIDY, "{} buckets are kept", shares.buckets.len());
    }
}
