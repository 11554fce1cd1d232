//! Instances that failed somebody: avoided for a while, longer each time. Pure: time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use conclave_client::Zxid;

/// How long one is avoided after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that one is avoided.
const LONGEST: Duration = Duration::from_secs(60);

/// Since the view began.
type Moment = Duration;

#[derive(Debug)]
struct Suspicion {
    /// Of which registration: one that comes back is a new one.
    since: Zxid,
    failures: u32,
    until: Moment,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Suspects(HashMap<String, Suspicion>);

impl Suspects {
    /// It failed somebody.
    pub(crate) fn failed(&mut self, id: &str, since: Zxid, now: Moment) {
        let suspicion = self.0.entry(id.to_owned()).or_insert(Suspicion { since, failures: 0, until: Duration::ZERO });
        if suspicion.since != since {
            *suspicion = Suspicion { since, failures: 0, until: Duration::ZERO };
        }
        // Many calls that are under way fail at the same moment: that is one failure.
        if suspicion.failures > 0 && now < suspicion.until {
            return;
        }
        let avoided = FIRST.saturating_mul(1 << suspicion.failures.min(16)).min(LONGEST);
        suspicion.failures = suspicion.failures.saturating_add(1);
        suspicion.until = now + avoided;
    }

    /// It served somebody: all is forgotten.
    pub(crate) fn succeeded(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Is it to be avoided?
    pub(crate) fn is_suspect(&self, id: &str, since: Zxid, now: Moment) -> bool {
        self.0.get(id).is_some_and(|suspicion| suspicion.since == since && now < suspicion.until)
    }

    /// Forgets those that are not there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|id, _| is_there(id));
    }

    /// Those that are not to be avoided; all, if all are.
    pub(crate) fn without<'a, T>(&self, all: &'a [T], now: Moment, name: impl Fn(&T) -> (&str, Zxid)) -> Vec<&'a T> {
        let trusted: Vec<&T> = all
            .iter()
            .filter(|one| {
                let (id, since) = name(one);
                !self.is_suspect(id, since, now)
            })
            .collect();
        if trusted.is_empty() { all.iter().collect() } else { trusted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_fails_is_avoided_longer_each_time_until_it_serves_again() {
        let mut suspects = Suspects::default();
        let since = Zxid(5);
        let mut now = ms(0);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            suspects.failed("a", since, now);
            // Those that were under way.
            suspects.failed("a", since, now + ms(3));
            let end = now + Duration::from_secs(seconds);
            assert!(suspects.is_suspect("a", since, end - ms(1)), "{seconds}");
            assert!(!suspects.is_suspect("a", since, end), "{seconds}");
            now = end;
        }
        assert!(!suspects.is_suspect("b", since, ms(0)));
        suspects.succeeded("a");
        assert!(suspects.0.is_empty());
        suspects.failed("a", since, now);
        assert!(!suspects.is_suspect("a", since, now + ms(1_000)), "it began anew");
        // Registered again it is another.
        assert!(!suspects.is_suspect("a", Zxid(6), now));
        suspects.failed("a", Zxid(6), now);
        assert!(suspects.is_suspect("a", Zxid(6), now + ms(999)));
        suspects.retain(|id| id != "a");
        assert!(suspects.0.is_empty());
    }

    #[test]
    fn never_all_are_avoided() {
        let mut suspects = Suspects::default();
        let all = [("a", Zxid(1)), ("b", Zxid(1))];
        let left = |suspects: &Suspects| suspects.without(&all, ms(0), |one| (one.0, one.1)).len();
        assert_eq!(left(&suspects), 2);
        suspects.failed("a", Zxid(1), ms(0));
        assert_eq!(suspects.without(&all, ms(0), |one| (one.0, one.1)), [&("b", Zxid(1))]);
        suspects.failed("b", Zxid(1), ms(0));
        assert_eq!(left(&suspects), 2);
    }
}
