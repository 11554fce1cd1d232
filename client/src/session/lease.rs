//! The session's lease, as the client counts it: from when a heartbeat was *sent*, and to 7/8 of the timeout only.

use std::collections::VecDeque;
use std::time::Duration;

use conclave_protocol::{RequestId, SessionId};

use super::{Machine, Presence, State, What};
use crate::clock::Moment;
use crate::error::{Error, Outcome};

/// An open session's lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) session: SessionId,
    pub(super) timeout: Duration,
    /// When the last acknowledged heartbeat, or the session's opening, was first sent. The cluster's count began later.
    from: Moment,
    /// The leader has acknowledged something on this connection.
    confirmed: bool,
    /// When the next heartbeat is due.
    next: Moment,
    /// Heartbeats on their way on this connection.
    beats: VecDeque<(RequestId, Moment)>,
    /// Heartbeats pushed back since the last acknowledgement.
    pushed: u32,
}

impl Lease {
    /// A session whose opening was first sent at `from`.
    pub(super) fn new(session: SessionId, timeout: Duration, from: Moment) -> Self {
        let next = from.after(timeout / 3);
        Self { session, timeout, from, confirmed: true, next, beats: VecDeque::new(), pushed: 0 }
    }

    /// From here on the session is lost at the client; it is not yet at the cluster.
    pub(super) fn ends(&self) -> Moment {
        self.from.after(self.timeout / 8 * 7)
    }

    /// From here on something is wrong: a heartbeat, sent again since, was not acknowledged.
    fn doubtful(&self) -> Moment {
        self.from.after(self.timeout / 3 * 2)
    }

    /// From here on this member is not believed to reach the leader.
    fn stuck(&self) -> Option<Moment> {
        self.beats.front().map(|(_, sent)| sent.after(self.timeout / 2))
    }

    /// A new connection carries the session. That alone renews nothing: only the leader does.
    pub(super) fn attach(&mut self, now: Moment) {
        self.next = now;
    }

    pub(super) fn detach(&mut self) {
        self.confirmed = false;
        self.beats.clear();
    }

    /// If a heartbeat is due: then it is sent now, with this number.
    pub(super) fn beat(&mut self, now: Moment, id: RequestId) -> bool {
        let due = self.next <= now;
        if due {
            self.beats.push_back((id, now));
            self.next = now.after(self.timeout / 3);
        }
        due
    }

    /// Is this a heartbeat's number?
    pub(super) fn acknowledges(&self, id: RequestId) -> bool {
        self.beats.iter().any(|(beat, _)| *beat == id)
    }

    /// The leader renewed the session after this heartbeat.
    pub(super) fn acknowledge(&mut self, id: RequestId) {
        let Some(at) = self.beats.iter().position(|(beat, _)| *beat == id) else { return };
        // They are answered out of order at most by accident; an older one says nothing that this one does not.
        if let Some((_, sent)) = self.beats.drain(..=at).next_back() {
            self.from = self.from.max(sent);
        }
        self.confirmed = true;
        self.pushed = 0;
    }

    /// The heartbeat was not taken; says how often that happened. None if there was none.
    pub(super) fn push_back(&mut self, id: RequestId) -> Option<u32> {
        let at = self.beats.iter().position(|(beat, _)| *beat == id)?;
        self.beats.remove(at);
        self.pushed += 1;
        Some(self.pushed)
    }

    pub(super) fn again(&mut self, at: Moment) {
        self.next = self.next.min(at);
    }

    pub(super) fn wakes(&self, connected: bool) -> Moment {
        let mut soonest = self.ends();
        if connected {
            soonest = soonest.min(self.next).min(self.stuck().unwrap_or(soonest));
        }
        soonest
    }
}

impl Machine {
    /// What the client may rely on.
    pub(crate) fn state(&self, now: Moment) -> State {
        let connected = self.connected.as_ref().is_some_and(|connected| !connected.leaving);
        match &self.presence {
            Presence::Over => State::Lost,
            // From the moment that its end is asked for, whoever comes next may have what it owns.
            Presence::Opening | Presence::Open(_) if self.closing.is_some() => State::Lost,
            Presence::Open(lease) if lease.ends() <= now => State::Lost,
            Presence::Open(lease) if !connected || !lease.confirmed || lease.doubtful() <= now => State::Suspended,
            Presence::None | Presence::Opening if !connected => State::Suspended,
            Presence::None | Presence::Opening | Presence::Open(_) => State::Connected,
        }
    }

    /// When the session is lost, if nothing more is heard.
    pub(crate) fn lease_ends(&self) -> Option<Moment> {
        match &self.presence {
            Presence::Open(lease) => Some(lease.ends()),
            Presence::None | Presence::Opening | Presence::Over => None,
        }
    }

    /// When [`Machine::state`] changes by itself.
    pub(super) fn state_changes(&self, now: Moment) -> Option<Moment> {
        match &self.presence {
            Presence::Open(lease) => Some(lease.doubtful()).filter(|at| *at > now),
            Presence::None | Presence::Opening | Presence::Over => None,
        }
    }

    /// A lease that has ended is lost, whatever arrives now: an acknowledgement that comes late revives nothing.
    pub(super) fn expire_lease(&mut self, now: Moment) {
        if matches!(&self.presence, Presence::Open(lease) if lease.ends() <= now) {
            self.lose();
        }
    }

    pub(super) fn check_lease(&mut self, now: Moment) {
        self.expire_lease(now);
        let Presence::Open(lease) = &self.presence else { return };
        if self.connected.is_some() && lease.stuck().is_some_and(|at| at <= now) {
            self.leave("a heartbeat was not acknowledged");
        }
    }

    /// The session is over: so is everything that needs it, and nothing revives it.
    pub(super) fn lose(&mut self) {
        if matches!(self.presence, Presence::Over) {
            return;
        }
        self.presence = Presence::Over;
        self.end_waiters(&|_| Err(Error::SessionOver { outcome: Outcome::NotApplied }));
        self.end_calls(&|outcome| Error::SessionOver { outcome });
        let of_session = |what: &What| matches!(what, What::Write { .. } | What::Open { .. });
        let tickets: Vec<_> = self.requests.iter().filter(|(_, r)| of_session(&r.what)).map(|(t, _)| *t).collect();
        for ticket in tickets {
            if let Some(request) = self.forget(ticket).filter(|request| request.caller) {
                self.done(ticket, Err(Error::SessionOver { outcome: request.outcome() }));
            }
        }
        // The connection still carries the session: what is read from now on must not wait for it.
        self.leave("the session is over");
    }
}
