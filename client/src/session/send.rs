//! The way out: what is sent next on a connection, when to look again, and what a new connection begins with.

use std::collections::HashMap;
use std::time::Duration;

use conclave_protocol::{
    Attach, ClientMessage, Hello, Nonce, Op, PROTOCOL_VERSION, RequestId, WatchRequest, Welcome, Zxid, limits,
};

use super::{Connected, Flight, Machine, Presence, Ticket, What};
use crate::clock::Moment;
use crate::error::{Doubt, Error, Outcome};

/// Requests on their way at a time; the rest of the member's own limit is left to heartbeats.
const IN_FLIGHT: usize = limits::IN_FLIGHT - 16;
/// How much longer than its deadline a one-shot write is remembered: for an answer that is under way.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(5);
/// How far ahead `until` may lie: less than the members' limit, as cluster time is only known to some seconds.
const AHEAD: Duration = Duration::from_millis(limits::ONCE_AHEAD_MS - 5_000);
/// How long a member may wait until it is as fresh as a read wants, when there is no session to say.
const FRESHEN: Duration = Duration::from_secs(3);

/// A member that leaves a request unanswered for so long is left, unless a session's heartbeats tell how it is.
const PATIENCE: Duration = Duration::from_secs(1);

impl Machine {
    /// The first frame of a new connection.
    pub(crate) fn hello(&self) -> Hello {
        let attach = match &self.presence {
            Presence::Open(lease) => Some(Attach { session: lease.session }),
            Presence::None | Presence::Opening | Presence::Over => None,
        };
        Hello { versions: vec![PROTOCOL_VERSION], attach, seen: self.seen, cluster: self.home.clone() }
    }

    /// The member has answered [`Machine::hello`]: everything unanswered is sent again on this connection.
    ///
    /// # Errors
    /// Says in words why this connection cannot be used.
    pub(crate) fn handle_welcome(&mut self, now: Moment, welcome: &Welcome) -> Result<(), String> {
        if welcome.version != PROTOCOL_VERSION {
            return Err(format!("it speaks version {} of the protocol, we speak {PROTOCOL_VERSION}", welcome.version));
        }
        if let Some(home) = self.home().filter(|home| *home != welcome.cluster) {
            return Err(format!("it is of cluster {}, not {home}", welcome.cluster));
        }
        self.expire_lease(now);
        if let Presence::Open(lease) = &mut self.presence {
            if welcome.attached.is_none() {
                return Err("it did not take the session over".to_owned());
            }
            lease.attach(now);
        }
        self.home.get_or_insert_with(|| welcome.cluster.clone());
        self.cluster = Some((now, welcome.now_ms));
        self.connected = Some(Connected {
            next: 1,
            in_flight: HashMap::new(),
            covered: (Zxid(0), 0),
            rewatch: self.watches.iter().filter(|(_, w)| w.begun).map(|(id, _)| *id).collect(),
            leaving: false,
        });
        self.not_ready = 0;
        Ok(())
    }

    /// The connection is gone.
    pub(crate) fn handle_disconnect(&mut self) {
        let Some(connected) = self.connected.take() else { return };
        let (covered, by) = connected.covered;
        for standing in self.watches.values_mut() {
            // Events leave before replies with their zxid: a reply in order has told that there were none until then.
            if standing.from.take().is_some_and(|from| from <= by) {
                standing.since = standing.since.max(Some(covered));
            }
        }
        if let Presence::Open(lease) = &mut self.presence {
            lease.detach();
        }
        let mut over = Vec::new();
        for (ticket, request) in &mut self.requests {
            if matches!(request.what, What::Unwatch(_)) {
                over.push(*ticket);
            } else if request.sent.take().is_some() {
                if request.what.is_ordered() {
                    self.ordered.insert(*ticket)
                } else {
                    self.free.insert(*ticket)
                };
            }
        }
        for ticket in over {
            self.forget(ticket);
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        while let Some((due, ticket)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, ticket));
            if let Some(request) = self.requests.get_mut(&ticket) {
                request.due = None;
                self.free.insert(ticket);
            }
        }
        while let Some((deadline, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(deadline, ticket));
            self.expire(now, ticket);
        }
        self.check_lease(now);
    }

    /// When [`Machine::handle_timeout`] or [`Machine::poll_send`] have something to do, if nothing else happens.
    pub(crate) fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let lease = match &self.presence {
            Presence::Open(lease) => Some(lease.wakes(self.connected.is_some())),
            Presence::None | Presence::Opening | Presence::Over => None,
        };
        let hold = self.hold.filter(|at| *at > now && !self.ordered.is_empty() && self.connected.is_some());
        [
            self.deadlines.first().map(|(at, _)| *at),
            self.delayed.first().map(|(at, _)| *at),
            hold,
            lease,
            self.state_changes(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next frame to send.
    pub(crate) fn poll_send(&mut self, now: Moment) -> Option<ClientMessage> {
        let connected = self.connected.as_mut().filter(|connected| !connected.leaving)?;
        let id = connected.next;
        if let Presence::Open(lease) = &mut self.presence
            && lease.beat(now, id)
        {
            connected.next += 1;
            return Some(ClientMessage::Heartbeat { id });
        }
        if connected.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        // Watches first, so that their events come before replies that are newer.
        while let Some(watch) = connected.rewatch.pop_front() {
            if let Some(standing) = self.watches.get(&watch) {
                connected.next += 1;
                connected.in_flight.insert(id, Flight::Watch(watch));
                return Some(ClientMessage::Watch { id, watch: standing.request() });
            }
        }
        let ticket = self.choose(now)?;
        self.transmit(now, ticket, id)
    }

    /// Which request is next: the oldest that may go.
    fn choose(&self, now: Moment) -> Option<Ticket> {
        let held = self.hold.is_some_and(|at| at > now);
        // The session's opening is about nothing else: what waits for it may have been issued before it.
        let opening = self.opening.filter(|ticket| self.ordered.contains(ticket));
        let ordered = opening.or(self.ordered.first().copied()).filter(|ticket| !held && self.may_go(*ticket));
        match (ordered, self.free.first().copied()) {
            (Some(ordered), Some(free)) => Some(ordered.min(free)),
            (ordered, free) => ordered.or(free),
        }
    }

    fn may_go(&self, ticket: Ticket) -> bool {
        let Some(What::Write { sequence, .. }) = self.requests.get(&ticket).map(|request| &request.what) else {
            return true;
        };
        // The member keeps the replies from the floor on, and only so many.
        let floor = self.floor();
        let room = sequence.unwrap_or(self.next_sequence) - floor < limits::SESSION_REPLIES as u64;
        matches!(self.presence, Presence::Open(_)) && room
    }

    /// The lowest sequence whose answer nobody has.
    pub(super) fn floor(&self) -> u64 {
        let unanswered = self.sequences.first_key_value().map(|(sequence, _)| *sequence);
        [unanswered, self.calls.floor()].into_iter().flatten().min().unwrap_or(self.next_sequence)
    }

    fn transmit(&mut self, now: Moment, ticket: Ticket, id: RequestId) -> Option<ClientMessage> {
        let nonce = self.nonce();
        let cluster_ms = self.cluster_ms(now);
        let freshen = match &self.presence {
            Presence::Open(lease) => lease.timeout / 3,
            Presence::None | Presence::Opening | Presence::Over => FRESHEN,
        };
        self.ordered.remove(&ticket);
        self.free.remove(&ticket);
        let request = self.requests.get_mut(&ticket)?;
        let left = request.deadline.map_or(AHEAD, |deadline| deadline.since(now));
        let until = |time: Duration| cluster_ms + millis(time.min(AHEAD));
        let message = match &mut request.what {
            What::Open { nonce, until_ms, first } => {
                let until_ms = *until_ms.get_or_insert_with(|| until(AHEAD));
                first.get_or_insert(now);
                let timeout_ms = millis(self.settings.session_timeout);
                ClientMessage::Open { id, nonce: *nonce, until_ms, timeout_ms }
            }
            What::Write { sequence, completed, fence, op } => {
                let sequence = *sequence.get_or_insert_with(|| {
                    self.next_sequence += 1;
                    self.next_sequence - 1
                });
                self.sequences.insert(sequence, ticket);
                self.calls.let_go(sequence);
                let unanswered = self.sequences.first_key_value().map_or(sequence, |(floor, _)| *floor);
                let floor = self.calls.floor().map_or(unanswered, |held| held.min(unanswered));
                // The same each time: only what it told when it was carried out has been heard.
                let completed = completed.get_or_insert_with(|| self.calls.acknowledged()).clone();
                let message =
                    ClientMessage::Write { id, sequence, floor, completed, fence: fence.clone(), op: op.clone() };
                if matches!(op, Op::Call(_)) {
                    self.calls.begin(ticket, sequence, request);
                }
                message
            }
            What::Once { mark, fence, op } => {
                let (nonce, until_ms): (Nonce, u64) =
                    *mark.get_or_insert_with(|| (nonce, until(left.saturating_add(REMEMBERED))));
                ClientMessage::Once { id, nonce, until_ms, fence: fence.clone(), op: op.clone() }
            }
            What::Read { consistency, query } => {
                let within_ms = millis(left.min(freshen));
                ClientMessage::Read { id, consistency: *consistency, within_ms, query: query.clone() }
            }
            What::Watch(watch) => ClientMessage::Watch { id, watch: self.watches.get(watch)?.request() },
            What::Unwatch(watch) => ClientMessage::Unwatch { id, watch: *watch },
        };
        request.sent = Some(id);
        request.doubts += 1;
        let connected = self.connected.as_mut()?;
        connected.next += 1;
        connected.in_flight.insert(id, Flight::Ticket(ticket));
        Some(message)
    }

    /// Cluster time now, as far as we know.
    fn cluster_ms(&self, now: Moment) -> u64 {
        self.cluster.map_or(0, |(at, ms)| ms + millis(now.since(at)))
    }

    /// A deadline has passed: its caller is told what is known.
    fn expire(&mut self, now: Moment, ticket: Ticket) {
        if self.is_call(ticket) {
            return self.call_expired(now, ticket);
        }
        if let Some(waiter) = self.waiters.remove(&ticket) {
            return self.done(ticket, Err(Error::TimedOut { after: waiter.within }));
        }
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        let error = match request.outcome() {
            Outcome::Unknown => Error::Unknown { why: Doubt::Deadline },
            Outcome::NotApplied => Error::TimedOut { after: request.within },
        };
        request.deadline = None;
        if request.sent.is_some() && request.within >= PATIENCE && !matches!(self.presence, Presence::Open(_)) {
            // A member that is cut off from the others answers nothing, and everything behind this waits as well. With
            // a session, its heartbeats tell.
            self.leave("a request was not answered in its time");
        }
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        if let What::Write { sequence: Some(_), .. } = request.what {
            // It has its place in the session's order: it must be answered, or all that comes behind it waits forever.
            request.caller = false;
            return self.done(ticket, Err(Error::Unknown { why: Doubt::Deadline }));
        }
        let request = self.forget(ticket);
        self.done(ticket, Err(error));
        if let Some(What::Watch(watch)) = request.map(|request| request.what) {
            self.handle_unwatch(watch);
        }
    }
}

impl super::Standing {
    fn request(&self) -> WatchRequest {
        WatchRequest { since: self.since, ..self.request.clone() }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
