//! The leader's leases on sessions: who was renewed when, and whose time is up. Pure: time comes in.
//!
//! A session is never expired early: a full timeout must have passed, on the leader's own monotonic clock, since the
//! later of its leadership's start and the last renewal, without a gap in the leader's own loop.

use std::collections::HashMap;
use std::time::Duration;

use conclave_protocol::SessionId;

/// How often [`Leases::tick`] wants to be called.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A gap between ticks longer than this part of a session's timeout renews it: the process was stopped or starved, and
/// heartbeats may lie unread.
const GAP_PART: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Lease {
    timeout: Duration,
    renewed: Duration,
    /// Its end was proposed at this time: it is not renewed any more.
    ending: Option<Duration>,
}

/// Every session's lease, while this member leads.
#[derive(Debug)]
pub(crate) struct Leases {
    sessions: HashMap<SessionId, Lease>,
    last_tick: Duration,
}

impl Leases {
    /// At the start of a leadership: every session is renewed once.
    #[must_use]
    pub(crate) fn start(sessions: impl IntoIterator<Item = (SessionId, Duration)>, now: Duration) -> Self {
        let lease = |(id, timeout)| (id, Lease { timeout, renewed: now, ending: None });
        Self { sessions: sessions.into_iter().map(lease).collect(), last_tick: now }
    }

    /// A session was opened.
    pub(crate) fn opened(&mut self, session: SessionId, timeout: Duration, now: Duration) {
        self.sessions.entry(session).or_insert(Lease { timeout, renewed: now, ending: None });
    }

    /// A session is over.
    pub(crate) fn ended(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// A heartbeat arrived at `now`, and leadership was confirmed since. False when the session is over or ending: the
    /// heartbeat must not be acknowledged then.
    pub(crate) fn renew(&mut self, session: SessionId, now: Duration) -> bool {
        match self.sessions.get_mut(&session) {
            Some(lease) if lease.ending.is_none() => {
                lease.renewed = lease.renewed.max(now);
                true
            }
            _ => false,
        }
    }

    /// Sessions whose time is up. They are candidates: leadership is to be confirmed, then [`Leases::end`] asked again
    /// for each, because a renewal may have come meanwhile.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<SessionId> {
        let gap = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        let mut due = Vec::new();
        for (id, lease) in &mut self.sessions {
            if gap > lease.timeout / GAP_PART {
                lease.renewed = now;
            }
            if lease.is_due(now) {
                due.push(*id);
            }
        }
        due.sort_unstable();
        due
    }

    /// Leadership was confirmed since the tick: whether the session is to be expired now. From then on it is not
    /// renewed; should its end get lost, it is due again after another timeout.
    pub(crate) fn end(&mut self, session: SessionId, now: Duration) -> bool {
        match self.sessions.get_mut(&session) {
            Some(lease) if lease.is_due(now) => {
                lease.ending = Some(now);
                true
            }
            _ => false,
        }
    }
}

impl Lease {
    fn is_due(&self, now: Duration) -> bool {
        let since = self.ending.unwrap_or(self.renewed);
        now.saturating_sub(since) >= self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);

    fn s(seconds_tenths: u64) -> Duration {
        Duration::from_millis(seconds_tenths * 100)
    }

    /// Ticks through the time from `from` to `to` as the loop does, and gives who was due at its end.
    fn ticks(leases: &mut Leases, from: u64, to: u64) -> Vec<SessionId> {
        (from + 1..=to).map(|tenth| leases.tick(s(tenth))).last().unwrap_or_default()
    }

    #[test]
    fn a_session_is_due_after_its_full_timeout_and_not_before() {
        let mut leases = Leases::start([(ONE, s(20))], s(0));
        assert_eq!(ticks(&mut leases, 0, 19), []);
        assert_eq!(ticks(&mut leases, 19, 20), [ONE]);
        assert!(leases.end(ONE, s(20)));
        assert!(!leases.renew(ONE, s(20)), "a session that is ending is not renewed");
    }

    #[test]
    fn a_new_leader_gives_every_session_a_full_timeout() {
        let mut leases = Leases::start([(ONE, s(20))], s(1000));
        leases.tick(s(1001));
        assert_eq!(ticks(&mut leases, 1001, 1019), []);
    }

    #[test]
    fn a_renewal_between_tick_and_confirmation_saves_the_session() {
        let mut leases = Leases::start([(ONE, s(20))], s(0));
        assert_eq!(ticks(&mut leases, 0, 20), [ONE]);
        assert!(leases.renew(ONE, s(20)));
        assert!(!leases.end(ONE, s(21)));
        assert_eq!(ticks(&mut leases, 21, 39), []);
        assert_eq!(ticks(&mut leases, 39, 40), [ONE]);
    }

    #[test]
    fn a_gap_in_the_leaders_own_loop_renews_everybody() {
        let mut leases = Leases::start([(ONE, s(20))], s(0));
        ticks(&mut leases, 0, 10);
        assert_eq!(leases.tick(s(40)), [], "the loop stood still for three seconds");
        assert_eq!(ticks(&mut leases, 40, 59), []);
        assert_eq!(ticks(&mut leases, 59, 60), [ONE]);
    }

    #[test]
    fn an_end_that_got_lost_is_proposed_again() {
        let mut leases = Leases::start([(ONE, s(20))], s(0));
        assert_eq!(ticks(&mut leases, 0, 20), [ONE]);
        assert!(leases.end(ONE, s(20)));
        assert_eq!(ticks(&mut leases, 20, 39), []);
        assert_eq!(ticks(&mut leases, 39, 40), [ONE]);
        leases.ended(ONE);
        assert!(leases.sessions.is_empty());
    }
}
