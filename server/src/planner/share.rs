//! How much of the planner's time calls of one plugin may take beside what others ask: a bucket of time each. Pure: time comes
//! in.

use std::collections::BTreeMap;
use std::time::Duration;

/// The time over which a share is a share: a burst may take that of a whole window, and waits for as long then. Others wait
/// behind a burst, so it is short.
const WINDOW: Duration = Duration::from_millis(40);
/// A run that failed counts as so many: whoever has something that loops or swells called again and again takes a
/// hundredth of the others' time or so, until it is suspended.
const FAILED: u32 = 20;
/// Plugins whose buckets are looked through for full ones when another is added.
const TIDY: usize = 64;

/// What calls of plugins have taken of the planner's time.
#[derive(Debug)]
pub(super) struct Shares {
    /// Hundredths.
    percent: u32,
    buckets: BTreeMap<String, Bucket>,
    /// Who asked last, and who before that asked for something else.
    asked: [Option<Asked>; 2],
}

/// Something was asked for: a call of a plugin, or what is none.
#[derive(Clone, Debug)]
struct Asked {
    plugin: Option<String>,
    at: Duration,
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
        Self { percent: percent.clamp(1, 100), buckets: BTreeMap::new(), asked: [None, None] }
    }

    /// A client asks for a call of this plugin, or for something that is none.
    pub(super) fn asked(&mut self, plugin: Option<&str>, now: Duration) {
        match &mut self.asked[0] {
            Some(last) if last.plugin.as_deref() == plugin => last.at = now,
            _ => {
                let last = Asked { plugin: plugin.map(str::to_owned), at: now };
                self.asked.rotate_right(1);
                self.asked[0] = Some(last);
            }
        }
    }

    /// Whether somebody has asked lately for anything but this plugin: who asks for one thing after the other never waits
    /// at the moment at which a call is looked at, and waits behind it for all that.
    pub(super) fn others_asked(&self, plugin: &str, now: Duration) -> bool {
        let others = self.asked.iter().flatten().find(|asked| asked.plugin.as_deref() != Some(plugin));
        others.is_some_and(|asked| now.saturating_sub(asked.at) < WINDOW)
    }

    /// Whether somebody has asked lately for anything.
    pub(super) fn is_asked(&self, now: Duration) -> bool {
        self.asked[0].as_ref().is_some_and(|asked| now.saturating_sub(asked.at) < WINDOW)
    }

    /// Whether a plugin has taken its share. How long a call takes is known when it is over: what the last one took too
    /// much is owed.
    pub(super) fn is_spent(&self, plugin: &str, now: Duration) -> bool {
        self.buckets.get(plugin).is_some_and(|bucket| self.left_us(*bucket, now) <= 0)
    }

    /// A call of a plugin took so long, or failed after so long.
    pub(super) fn spent(&mut self, plugin: &str, took: Duration, failed: bool, now: Duration) {
        let took = if failed { took * FAILED } else { took };
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
        shares.spent("greedy", ms(19), false, ms(19));
        assert!(!shares.is_spent("greedy", ms(19)));
        shares.spent("greedy", ms(10), false, ms(29));
        assert!(shares.is_spent("greedy", ms(29)));
        assert!(!shares.is_spent("modest", ms(29)), "another's share is its own");
        assert!(shares.is_spent("greedy", ms(37)), "what it took too much is owed");
        assert!(!shares.is_spent("greedy", ms(38)));
        shares.spent("greedy", ms(2), false, ms(40));
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
            shares.spent("greedy", ms(3), false, now);
        }
        let most = Duration::from_secs(30) + WINDOW;
        assert!((Duration::from_secs(29)..most).contains(&taken), "it took {taken:?} of a minute");
    }

    #[test]
    fn a_run_that_failed_counts_as_many() {
        let mut shares = Shares::new(50);
        shares.spent("hostile", ms(5), true, ms(5));
        assert!(shares.is_spent("hostile", ms(5)));
        assert!(shares.is_spent("hostile", ms(164)), "80 ms are owed, of which half a millisecond comes back in each");
        assert!(!shares.is_spent("hostile", ms(166)));
        shares.spent("unlucky", Duration::from_micros(50), true, ms(5));
        assert!(!shares.is_spent("unlucky", ms(5)), "a short run may fail now and then");
    }

    #[test]
    fn others_are_those_who_asked_for_something_else_lately() {
        let mut shares = Shares::new(50);
        assert!(!shares.is_asked(ms(0)));
        assert!(!shares.others_asked("p", ms(0)));
        shares.asked(Some("p"), ms(1));
        assert!(shares.is_asked(ms(1)));
        assert!(!shares.others_asked("p", ms(1)), "its own calls are no others");
        assert!(shares.others_asked("q", ms(1)));
        shares.asked(None, ms(2));
        shares.asked(Some("p"), ms(3));
        shares.asked(Some("p"), ms(30));
        assert!(shares.others_asked("p", ms(41)), "a write came at 2 ms");
        assert!(!shares.others_asked("p", ms(42)), "that is too long ago");
        assert!(shares.is_asked(ms(69)) && !shares.is_asked(ms(70)));
        shares.asked(None, ms(80));
        shares.asked(None, ms(90));
        assert!(shares.others_asked("p", ms(91)));
        assert!(!shares.is_asked(ms(200)));
    }

    #[test]
    fn what_is_full_again_is_forgotten() {
        let mut shares = Shares::new(50);
        for number in 0..10_000 {
            shares.spent(&format!("p{number}"), ms(1), false, ms(number * 100));
        }
        assert!(shares.buckets.len() <= TIDY, "{} buckets are kept", shares.buckets.len());
    }
}
