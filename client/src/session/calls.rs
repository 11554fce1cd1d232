//! Calls of procedures through the session: parked and completed, withdrawn and given back, and who knows of their end.
//!
//! The member keeps the end of a call until it is acknowledged: of one that parked by naming it in a write, of another by
//! the floor. Until then it can be cancelled. So its end is acknowledged when the caller has *taken* it, not when it has
//! come: a future that is dropped in between gives back what the call took, whichever was first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conclave_protocol::{Op, Outcome as Stored, Refusal, Value, Zxid, limits};

use super::{Body, Done, Machine, Ticket, What};
use crate::clock::Moment;
use crate::error::{Doubt, Error, Outcome};

/// How much longer a caller waits, whose time is over, to hear whether its call was cancelled: a fail-over takes less.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// An answer that nobody has taken holds the floor for so many writes; then it counts as taken, or the writes would stand
/// still for a future that somebody forgot to poll.
const HELD: u64 = limits::SESSION_REPLIES as u64 / 2;

/// A call that has its sequence, until its end is taken or given back.
#[derive(Debug)]
struct Call {
    sequence: u64,
    /// Somebody waits for it.
    caller: bool,
    within: Duration,
    /// The time holds while it is parked, too.
    bounded: bool,
    deadline: Option<Moment>,
    /// What became of it, and whether that came as a completion.
    ended: Option<(Zxid, Stored, bool)>,
    /// A request to cancel it has its place: right behind it.
    cancelling: bool,
    /// It was asked to be cancelled, and was not.
    stands: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<Ticket, Call>,
    by_sequence: BTreeMap<u64, Ticket>,
    /// Answered, and not taken.
    held: BTreeSet<u64>,
    /// Completions that are taken: told with each write until one that tells of them is answered.
    taken: BTreeSet<u64>,
}

impl Calls {
    /// A call is sent; the first time it gets its sequence.
    pub(super) fn begin(&mut self, ticket: Ticket, sequence: u64, request: &super::Request) {
        let (within, bounded, caller) = (request.within, request.bounded, request.caller);
        self.by_sequence.entry(sequence).or_insert(ticket);
        self.calls.entry(ticket).or_insert(Call {
            sequence,
            caller,
            within,
            bounded,
            deadline: None,
            ended: None,
            cancelling: false,
            stands: false,
        });
    }

    /// The lowest sequence whose answer was not taken.
    pub(super) fn floor(&self) -> Option<u64> {
        self.held.first().copied()
    }

    /// What the next write tells of.
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        // The member looks at no more.
        self.taken.iter().copied().take(limits::SESSION_PARKED).collect()
    }

    /// A write that told of these was answered.
    pub(super) fn heard(&mut self, completed: &[u64]) {
        for sequence in completed {
            self.taken.remove(sequence);
        }
    }

    /// A write gets this sequence: answers that were held for too long are let go.
    pub(super) fn let_go(&mut self, sequence: u64) {
        while let Some(oldest) = self.held.first().copied().filter(|oldest| oldest + HELD <= sequence) {
            let ticket = self.by_sequence.get(&oldest).copied();
            if ticket.and_then(|ticket| self.calls.get(&ticket)).is_some_and(|call| call.cancelling) {
                return;
            }
            self.held.remove(&oldest);
            self.by_sequence.remove(&oldest);
            ticket.and_then(|ticket| self.calls.remove(&ticket));
        }
    }
}

impl Machine {
    /// The caller has what became of its call.
    pub(crate) fn handle_taken(&mut self, ticket: Ticket) {
        if self.calls.calls.get(&ticket).is_some_and(|call| call.ended.is_some() && !call.cancelling) {
            self.settle(ticket);
        }
    }

    /// The caller does not wait any more, and has not taken what became of its call: it is given back.
    pub(crate) fn handle_withdrawn(&mut self, ticket: Ticket) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.caller = false;
            if request.doubts == 0 && !matches!(request.what, What::Write { sequence: Some(_), .. }) {
                // Nobody has heard of it.
                self.forget(ticket);
                return;
            }
        }
        self.drop_deadline(ticket);
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        call.caller = false;
        match &call.ended {
            Some((_, Err(_), _)) => self.settle(ticket),
            Some((_, Ok(_), _)) | None => self.cancel(ticket),
        }
    }

    pub(super) fn is_call(&self, ticket: Ticket) -> bool {
        self.calls.calls.contains_key(&ticket)
    }

    /// A call's answer: it parked, or that is its end.
    pub(super) fn call_answered(&mut self, ticket: Ticket, zxid: Zxid, outcome: Stored) {
        let deadline = self.forget(ticket).and_then(|request| request.deadline);
        if outcome != Ok(Value::Parked) {
            return self.ended(ticket, zxid, outcome, false);
        }
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        if let Some(deadline) = deadline.filter(|_| call.bounded && call.caller && !call.cancelling) {
            call.deadline = Some(deadline);
            self.deadlines.insert((deadline, ticket));
        }
    }

    /// A parked call has ended.
    pub(super) fn completed(&mut self, sequence: u64, zxid: Zxid, outcome: Stored) {
        self.seen = self.seen.max(zxid);
        let Some(ticket) = self.calls.by_sequence.get(&sequence).copied() else {
            if sequence < self.next_sequence {
                // It is settled, and the member has not heard that yet.
                self.calls.taken.insert(sequence);
            }
            return;
        };
        if self.calls.calls.get(&ticket).is_some_and(|call| call.ended.is_none()) {
            // Its answer was lost with another connection: this says more.
            self.forget(ticket);
            self.ended(ticket, zxid, outcome, true);
        }
    }

    fn ended(&mut self, ticket: Ticket, zxid: Zxid, outcome: Stored, completion: bool) {
        let is_sent = |request: &super::Request| matches!(request.what, What::Write { sequence: Some(_), .. });
        let cancel_sent = self.requests.get(&(ticket + 1)).is_some_and(is_sent);
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        let refused = outcome.is_err();
        if !completion && !refused {
            self.calls.held.insert(call.sequence);
        }
        call.ended = Some((zxid, outcome, completion));
        if call.cancelling && !cancel_sent && (call.caller || refused) {
            // In time after all.
            call.cancelling = false;
            self.forget(ticket + 1);
        }
        let Some(call) = self.calls.calls.get(&ticket) else { return };
        // What it returned is given back by the cancelling, if that comes about.
        if !call.cancelling || refused {
            self.tell(ticket);
        }
    }

    /// Tells the caller what became of the call; without a caller it is given back.
    fn tell(&mut self, ticket: Ticket) {
        self.drop_deadline(ticket);
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        let Some((zxid, outcome, _)) = call.ended.clone() else { return };
        let (refused, withdrawn) = (outcome.is_err(), !std::mem::replace(&mut call.caller, false));
        if !withdrawn {
            let result = match outcome {
                Ok(value) => Ok(Done { zxid, body: Body::Value(value) }),
                Err(Refusal::Cancelled) if call.cancelling => Err(Error::TimedOut { after: call.within }),
                Err(refusal) => Err(Error::Refused(refusal)),
            };
            self.done(ticket, result);
        }
        match (refused, withdrawn) {
            (true, _) => self.settle(ticket),
            (false, true) => self.cancel(ticket),
            (false, false) => {}
        }
    }

    /// Asks for the call to be cancelled, once. The place of that is right behind the call, before what is not yet sent.
    fn cancel(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        if call.stands {
            tracing::warn!(
                sequence = call.sequence,
                "a call could not be cancelled, nor its result be given to anybody"
            );
            return self.settle(ticket);
        }
        if !std::mem::replace(&mut call.cancelling, true) {
            let op = Op::Cancel { sequence: call.sequence };
            let what = What::Write { sequence: None, completed: None, fence: None, op };
            self.insert(ticket + 1, what, None, Duration::ZERO);
        }
    }

    /// The request to cancel a call was answered.
    pub(super) fn cancel_answered(&mut self, cancel: Ticket, outcome: &Stored) {
        let ticket = cancel - 1;
        self.forget(cancel);
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        call.cancelling = false;
        call.stands = true;
        match outcome {
            Ok(Value::Cancelled) => {
                let (told, after) = (call.caller, call.within);
                self.settle(ticket);
                if told {
                    self.done(ticket, Err(Error::TimedOut { after }));
                }
            }
            // It stands as it is; if it has not ended, its end will come.
            Ok(_) | Err(_) => self.tell(ticket),
        }
    }

    /// Its time is over: first it is cancelled; when that has no end either, nothing is known.
    pub(super) fn call_expired(&mut self, now: Moment, ticket: Ticket) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.deadline = None;
        }
        let Some(call) = self.calls.calls.get_mut(&ticket) else { return };
        call.deadline = None;
        if call.cancelling || call.stands {
            call.caller = false;
            return self.done(ticket, Err(Error::Unknown { why: Doubt::Deadline }));
        }
        let deadline = now.after(GRACE);
        call.deadline = Some(deadline);
        self.deadlines.insert((deadline, ticket));
        self.cancel(ticket);
    }

    /// The session is over, or the client closed: there is nothing to be had, and nothing to be given back.
    pub(super) fn end_calls(&mut self, error: &dyn Fn(Outcome) -> Error) {
        for ticket in self.calls.calls.keys().copied().collect::<Vec<_>>() {
            let outcome = self.requests.get(&ticket).map_or(Outcome::Unknown, super::Request::outcome);
            self.forget(ticket);
            self.forget(ticket + 1);
            self.drop_deadline(ticket);
            if self.calls.calls.remove(&ticket).is_some_and(|call| call.caller) {
                self.done(ticket, Err(error(outcome)));
            }
        }
        self.calls = Calls::default();
    }

    /// Nothing is left to do about it.
    fn settle(&mut self, ticket: Ticket) {
        self.drop_deadline(ticket);
        let Some(call) = self.calls.calls.remove(&ticket) else { return };
        self.calls.by_sequence.remove(&call.sequence);
        self.calls.held.remove(&call.sequence);
        if call.ended.is_some_and(|(_, _, completion)| completion) {
            self.calls.taken.insert(call.sequence);
        }
    }

    fn drop_deadline(&mut self, ticket: Ticket) {
        let of_call = self.calls.calls.get_mut(&ticket).and_then(|call| call.deadline.take());
        let of_request = self.requests.get_mut(&ticket).and_then(|request| request.deadline.take());
        for deadline in of_call.into_iter().chain(of_request) {
            self.deadlines.remove(&(deadline, ticket));
        }
    }
}
