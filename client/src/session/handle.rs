//! The way in: what a member's message means for the request that it answers.

use std::time::Duration;

use conclave_protocol::{
    Answer, NO_REQUEST, Op, Outcome as Stored, PushBack, Refusal, RequestId, ServerMessage, Value, Zxid, codec,
};

use super::lease::Lease;
use super::{Body, Done, Event, Flight, Machine, Presence, Ticket, What};
use crate::clock::Moment;
use crate::error::{Doubt, Error, Outcome};

/// So many times in a row a member may say that it is not ready before another is looked for.
const NOT_READY: u32 = 3;

impl Machine {
    /// A frame has come.
    pub(crate) fn handle_message(&mut self, now: Moment, message: ServerMessage) {
        self.expire_lease(now);
        match message {
            ServerMessage::Reply { id, zxid, outcome } => match codec::decode::<Stored>(&outcome) {
                Ok(outcome) => self.replied(id, zxid, outcome.map(Body::Value)),
                Err(error) => self.leave(format!("a reply cannot be read: {error}")),
            },
            ServerMessage::Completed { sequence, zxid, outcome } => match codec::decode::<Stored>(&outcome) {
                Ok(outcome) => self.completed(sequence, zxid, outcome),
                Err(error) => self.leave(format!("a completion cannot be read: {error}")),
            },
            ServerMessage::Answer { id, zxid, answer } => self.replied(id, zxid, answer.map(Body::Answer)),
            ServerMessage::PushBack { id: NO_REQUEST, why } => self.leave(format!("pushed back: {why:?}")),
            ServerMessage::PushBack { id, why } => self.pushed_back(now, id, why),
            ServerMessage::Event { watch, zxid, changes, present } => {
                // Whoever asked for the present data relies on it.
                let with_data = self.watches.get(&watch).is_some_and(|standing| standing.request.data);
                if with_data && present.len() != changes.len() {
                    self.watches.remove(&watch);
                    let error = Error::Mismatch { question: "a watch with data" };
                    return self.events.push_back(Event::Ended { watch, error });
                }
                if self.told(watch, zxid) {
                    let present = if with_data { present } else { Vec::new() };
                    self.events.push_back(Event::Changes { watch, zxid, changes, present });
                }
            }
            ServerMessage::Resync { watch, zxid } => {
                if self.told(watch, zxid) {
                    self.events.push_back(Event::Resync { watch, zxid });
                }
            }
            ServerMessage::Goodbye { refusal } => {
                if matches!(refusal, Refusal::SessionOver { .. }) {
                    self.lose();
                }
                self.leave(refusal.to_string());
            }
            ServerMessage::Welcome(_) => self.leave("a second welcome"),
        }
    }

    /// A watch is told of this zxid; false when it was told before, or is gone.
    fn told(&mut self, watch: conclave_protocol::WatchId, zxid: Zxid) -> bool {
        self.seen = self.seen.max(zxid);
        let Some(standing) = self.watches.get_mut(&watch) else { return false };
        if standing.ended || standing.since.is_some_and(|since| zxid <= since) {
            return false;
        }
        standing.since = Some(zxid);
        if standing.request.once {
            // Its beginning, when that is not answered yet, is answered all the same.
            standing.ended = true;
            if standing.begun {
                self.watches.remove(&watch);
            }
        }
        true
    }

    fn replied(&mut self, id: RequestId, zxid: Zxid, answer: Result<Body, Refusal>) {
        self.seen = self.seen.max(zxid);
        if let Presence::Open(lease) = &mut self.presence
            && lease.acknowledges(id)
        {
            match answer {
                Ok(Body::Answer(Answer::Alive)) => {
                    lease.acknowledge(id);
                    self.not_ready = 0;
                }
                Err(Refusal::SessionOver { .. }) => self.lose(),
                Ok(_) | Err(_) => self.leave("a heartbeat was answered with something else"),
            }
            return;
        }
        let Some(connected) = &mut self.connected else { return };
        // Answers to requests that are not known any more still tell the order.
        let flight = connected.in_flight.remove(&id);
        let ticket = match flight {
            None => return,
            Some(Flight::Watch(watch)) => return self.watching(watch, zxid, answer),
            Some(Flight::Ticket(ticket)) => ticket,
        };
        let Some(request) = self.requests.get(&ticket) else { return };
        if request.what.is_ordered() && zxid >= connected.covered.0 {
            connected.covered = (zxid, id);
        }
        self.streak = 0;
        self.not_ready = 0;
        // A request can be about another session.
        let over = matches!(
            (&answer, &self.presence),
            (Err(Refusal::SessionOver { session }), Presence::Open(lease)) if lease.session == *session
        );
        match (&request.what, &answer) {
            (What::Write { .. }, _) if over => return self.lose(),
            (What::Open { .. }, _) => return self.opened(ticket, zxid, answer),
            (What::Watch(watch), _) => {
                let watch = *watch;
                let refused = answer.as_ref().err().cloned();
                self.forget(ticket);
                self.watching(watch, zxid, answer);
                let result = refused.map_or(Ok(()), |refusal| Err(Error::Refused(refusal)));
                return self.done(ticket, result.map(|()| Done { zxid, body: Body::Answer(Answer::Watching) }));
            }
            (What::Write { .. } | What::Once { .. }, Ok(Body::Answer(_))) | (What::Read { .. }, Ok(Body::Value(_))) => {
                return self.leave("an answer of the wrong kind");
            }
            (What::Write { completed, op, .. }, _) => {
                self.calls.heard(completed.as_deref().unwrap_or_default());
                let outcome = |answer: Result<Body, Refusal>| answer.map(Body::into_value);
                match op {
                    Op::Call(_) => return self.call_answered(ticket, zxid, outcome(answer)),
                    Op::Cancel { .. } if !request.caller => return self.cancel_answered(ticket, &outcome(answer)),
                    _ => {}
                }
            }
            (What::Once { op: Op::Call(_), .. }, Err(Refusal::NoSession { .. })) if request.caller => {
                return self.in_session(ticket);
            }
            (What::Once { .. } | What::Read { .. } | What::Unwatch(_), _) => {}
        }
        if self.forget(ticket).is_some_and(|request| request.caller) {
            let closed = matches!(answer, Ok(Body::Value(Value::Closed)));
            self.done(ticket, answer.map(|body| Done { zxid, body }).map_err(Error::Refused));
            if closed {
                self.lose();
            }
        }
    }

    /// A one-shot call needs a session, and did nothing: it is asked again with one.
    fn in_session(&mut self, ticket: Ticket) {
        if matches!(self.presence, Presence::Over) {
            self.forget(ticket);
            return self.done(ticket, Err(Error::SessionOver { outcome: Outcome::NotApplied }));
        }
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        if let What::Once { fence, op, .. } = &mut request.what {
            let op = std::mem::replace(op, Op::Close);
            request.what = What::write(fence.take(), op);
        }
        (request.sent, request.doubts) = (None, 0);
        self.ordered.insert(ticket);
        self.open();
    }

    fn opened(&mut self, ticket: Ticket, zxid: Zxid, answer: Result<Body, Refusal>) {
        let Some(What::Open { first: Some(first), .. }) = self.forget(ticket).map(|request| request.what) else {
            return;
        };
        match answer {
            Ok(Body::Value(Value::Opened { session, timeout_ms })) => {
                let timeout = Duration::from_millis(timeout_ms);
                self.presence = Presence::Open(Lease::new(session, timeout, first));
                self.end_waiters(&|_| Ok(Done { zxid, body: Body::Session { session, timeout } }));
            }
            Ok(_) => {
                self.presence = Presence::None;
                self.open();
                self.leave("a session's opening was answered with something else");
            }
            Err(refusal) => {
                self.presence = Presence::None;
                self.end_waiters(&|_| Err(Error::Refused(refusal.clone())));
                let writes = self.requests.iter().filter(|(_, r)| matches!(r.what, What::Write { .. }));
                for ticket in writes.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                    self.forget(ticket);
                    self.done(ticket, Err(Error::Refused(refusal.clone())));
                }
            }
        }
    }

    /// A watch's beginning was answered.
    fn watching(&mut self, watch: conclave_protocol::WatchId, zxid: Zxid, answer: Result<Body, Refusal>) {
        let Some(standing) = self.watches.get_mut(&watch) else { return };
        match answer {
            Ok(_) if standing.ended => {
                self.watches.remove(&watch);
            }
            Ok(_) => {
                standing.begun = true;
                standing.since = standing.since.or(Some(zxid));
                // Replies to what is sent from now on come behind the events that this watch still has to be told.
                standing.from = self.connected.as_ref().map(|connected| connected.next);
            }
            Err(refusal) => {
                let begun = standing.begun;
                self.watches.remove(&watch);
                if begun {
                    self.events.push_back(Event::Ended { watch, error: Error::Refused(refusal) });
                }
            }
        }
    }

    fn pushed_back(&mut self, now: Moment, id: RequestId, why: PushBack) {
        if let Presence::Open(lease) = &mut self.presence
            && let Some(times) = lease.push_back(id)
        {
            let again = now.after(self.backoff(times));
            if let Presence::Open(lease) = &mut self.presence {
                lease.again(again);
            }
            return self.not_ready(why);
        }
        let Some(connected) = &mut self.connected else { return };
        let ticket = match connected.in_flight.remove(&id) {
            None => return,
            Some(Flight::Watch(watch)) => {
                connected.rewatch.push_back(watch);
                return self.leave("a watch was pushed back");
            }
            Some(Flight::Ticket(ticket)) => ticket,
        };
        let Some(request) = self.requests.get_mut(&ticket) else { return };
        request.sent = None;
        request.doubts = request.doubts.saturating_sub(1);
        request.pushed += 1;
        let times = request.pushed;
        if let PushBack::Until { now_ms } = why {
            self.cluster = Some((now, now_ms));
            if !self.renumber(ticket) {
                return;
            }
        }
        if self.is_ordered(ticket) {
            self.ordered.insert(ticket);
            self.recall(ticket);
            // What was sent together comes back together: one pause for all of it.
            if self.hold.is_none_or(|hold| hold <= now) {
                // The first `Expected` tells of a gap that others on their way will fill; it needs no pause.
                if !matches!(why, PushBack::Expected { .. }) || self.streak > 0 {
                    self.hold = Some(now.after(self.backoff(self.streak)));
                }
                self.streak += 1;
            }
        } else {
            let due = now.after(self.backoff(times));
            if let Some(request) = self.requests.get_mut(&ticket) {
                request.due = Some(due);
            }
            self.delayed.insert((due, ticket));
        }
        self.not_ready(why);
    }

    fn is_ordered(&self, ticket: Ticket) -> bool {
        self.requests.get(&ticket).is_some_and(|request| request.what.is_ordered())
    }

    /// `until` is past or too far ahead. If the request surely did not happen it gets a new one; else it is unknown.
    fn renumber(&mut self, ticket: Ticket) -> bool {
        let nonce = self.nonce();
        let Some(request) = self.requests.get_mut(&ticket) else { return false };
        match &mut request.what {
            // A session that was opened unheard owns nothing and runs out.
            What::Open { nonce: old, until_ms, first } => {
                (*old, *until_ms, *first) = (nonce, None, None);
                true
            }
            What::Once { mark, .. } if request.doubts == 0 => {
                *mark = None;
                true
            }
            What::Once { .. } => {
                self.forget(ticket);
                self.done(ticket, Err(Error::Unknown { why: Doubt::Forgotten }));
                false
            }
            What::Write { .. } | What::Read { .. } | What::Watch(_) | What::Unwatch(_) => true,
        }
    }

    /// A request was pushed back: reads behind it, already on their way, would not see it. They are sent again.
    fn recall(&mut self, ticket: Ticket) {
        let Some(connected) = &mut self.connected else { return };
        for (later, request) in self.requests.range_mut(ticket + 1..) {
            if matches!(request.what, What::Read { .. })
                && request.what.is_ordered()
                && let Some(id) = request.sent.take()
            {
                connected.in_flight.remove(&id);
                self.ordered.insert(*later);
            }
        }
    }

    /// Looks for another member when this one cannot help.
    fn not_ready(&mut self, why: PushBack) {
        match why {
            PushBack::Behind { .. } => self.leave("it is behind what this client has seen"),
            PushBack::NotReady => {
                self.not_ready += 1;
                if self.not_ready >= NOT_READY {
                    self.leave("it has no leader, or is not ready");
                }
            }
            PushBack::Busy | PushBack::Expected { .. } | PushBack::Until { .. } => {}
        }
    }
}
