//! The session machine: numbers requests, repeats them, keeps the lease. Pure: time is passed in, messages come out.
//!
//! [`Machine`] is driven like quinn-proto's connection: `handle_*` take what happened, `poll_*` give what is to be done.
//! It knows no sockets and no tasks, so every loss, repetition and delay can be played to it in a test.

mod calls;
mod handle;
mod lease;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use conclave_protocol::{
    Answer, Call, Change, Consistency, Fence, Nonce, Op, Present, Query, RequestId, SessionId, Value, WatchId,
    WatchRequest, Zxid,
};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::clock::Moment;
use crate::error::{Error, Outcome};
use calls::Calls;
use lease::Lease;
pub(crate) use send::REMEMBERED;

/// Is a client connected, and may its session be relied on?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Connected; the session, if there is one, was renewed lately.
    Connected,
    /// Not connected, or the session was not renewed for a while. It may still be saved. Until it is, do nothing that
    /// only its owner may do.
    Suspended,
    /// The session is over. It never comes back; reads and watches of the client go on.
    Lost,
}

/// Names a request between its caller and the machine; rises in the order in which they were issued, by two: behind each
/// is the place of what cancels it.
pub(crate) type Ticket = u64;

/// What a caller asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A write; through the session if it must, or if there is one.
    Write { op: Op, fence: Option<Fence>, in_session: bool },
    /// A call of a procedure: as a write, but it may park, and then has no end in time unless it is `bounded`.
    Call { call: Call, fence: Option<Fence>, in_session: bool, bounded: bool },
    /// A read; without a consistency, the one that suits the client.
    Read { consistency: Option<Consistency>, query: Query },
    /// To have the session open.
    Session,
    /// To close the session; nothing can be asked afterwards.
    Close,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) zxid: Zxid,
    pub(crate) body: Body,
}

/// See [`Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Value(Value),
    Answer(Answer),
    Session { session: SessionId, timeout: Duration },
}

impl Body {
    /// The value that a write gave; what is none is none that anybody asked for.
    fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Answer(_) | Self::Session { .. } => Value::Checked,
        }
    }
}

/// What the driver must do or tell.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A request has come to its end.
    Done { ticket: Ticket, result: Result<Done, Error> },
    /// For a watch's reader.
    Changes { watch: WatchId, zxid: Zxid, changes: Vec<Change>, present: Vec<Option<Present>> },
    /// For a watch's reader.
    Resync { watch: WatchId, zxid: Zxid },
    /// The watch may not go on.
    Ended { watch: WatchId, error: Error },
    /// Leave this connection and look for another member.
    Leave { why: String },
    /// The session is closed, or cannot be: stop.
    Finished,
}

/// A request that has not come to its end.
#[derive(Debug)]
struct Request {
    what: What,
    /// Somebody waits for it.
    caller: bool,
    within: Duration,
    deadline: Option<Moment>,
    /// Its number on this connection, while it is on its way.
    sent: Option<RequestId>,
    /// Its time holds while it is parked too.
    bounded: bool,
    /// How often it was sent without being pushed back: while it is 0 it surely did not happen.
    doubts: u32,
    /// How often it was pushed back.
    pushed: u32,
    /// It lies in [`Machine::delayed`] until then.
    due: Option<Moment>,
}

#[derive(Debug)]
enum What {
    Open { nonce: Nonce, until_ms: Option<u64>, first: Option<Moment> },
    Write { sequence: Option<u64>, completed: Option<Vec<u64>>, fence: Option<Fence>, op: Op },
    Once { mark: Option<(Nonce, u64)>, fence: Option<Fence>, op: Op },
    Read { consistency: Consistency, query: Query },
    Watch(WatchId),
    Unwatch(WatchId),
}

impl What {
    const fn write(fence: Option<Fence>, op: Op) -> Self {
        Self::Write { sequence: None, completed: None, fence, op }
    }

    /// Keeps its place among the others when it is sent again.
    const fn is_ordered(&self) -> bool {
        !matches!(self, Self::Once { .. } | Self::Read { consistency: Consistency::Stale | Consistency::Within(_), .. })
    }
}

/// What an id on this connection stands for.
#[derive(Clone, Copy, Debug)]
enum Flight {
    Ticket(Ticket),
    /// A watch that stood on an earlier connection.
    Watch(WatchId),
}

/// A watch that somebody reads.
#[derive(Debug)]
struct Standing {
    request: WatchRequest,
    /// The last zxid that is told, when that is known.
    since: Option<Zxid>,
    /// Replies to requests from this number on come after the events up to their zxid. None: not standing.
    from: Option<RequestId>,
    /// It stood once.
    begun: bool,
    /// It was for one event, and had it.
    ended: bool,
}

#[derive(Debug)]
enum Presence {
    None,
    Opening,
    Open(Lease),
    Over,
}

/// Somebody who waits for the session.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    deadline: Moment,
    within: Duration,
}

/// What the machine is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The session timeout to ask for.
    pub(crate) session_timeout: Duration,
}

/// The part of a connection's life that the machine knows.
#[derive(Debug)]
struct Connected {
    next: RequestId,
    in_flight: HashMap<RequestId, Flight>,
    /// The highest zxid that a reply in order has told, and that reply's number.
    covered: (Zxid, RequestId),
    /// Watches of earlier connections, to be begun again before anything else.
    rewatch: VecDeque<WatchId>,
    /// [`Event::Leave`] was given: nothing more is sent.
    leaving: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    random: StdRng,
    connected: Option<Connected>,
    presence: Presence,
    closing: Option<Ticket>,
    next_ticket: Ticket,
    requests: BTreeMap<Ticket, Request>,
    /// To be sent, in order.
    ordered: BTreeSet<Ticket>,
    /// Not before this.
    hold: Option<Moment>,
    /// To be sent, in whatever order.
    free: BTreeSet<Ticket>,
    /// To be sent, but not before.
    delayed: BTreeSet<(Moment, Ticket)>,
    deadlines: BTreeSet<(Moment, Ticket)>,
    /// Wait for the session.
    waiters: BTreeMap<Ticket, Waiter>,
    next_sequence: u64,
    /// Session writes that were sent and not answered.
    sequences: BTreeMap<u64, Ticket>,
    calls: Calls,
    /// The request that opens the session: it waits for nothing before it.
    opening: Option<Ticket>,
    watches: HashMap<WatchId, Standing>,
    seen: Zxid,
    /// The cluster that it was seen in.
    home: Option<String>,
    /// Cluster time, milliseconds, at a moment of ours.
    cluster: Option<(Moment, u64)>,
    /// Push-backs of ordered requests since the last answer.
    streak: u32,
    /// `NotReady` since the last answer.
    not_ready: u32,
    events: VecDeque<Event>,
}

impl Machine {
    pub(crate) fn new(settings: Settings, seed: [u8; 32]) -> Self {
        Self {
            settings,
            random: StdRng::from_seed(seed),
            connected: None,
            presence: Presence::None,
            closing: None,
            next_ticket: 2,
            requests: BTreeMap::new(),
            ordered: BTreeSet::new(),
            hold: None,
            free: BTreeSet::new(),
            delayed: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            waiters: BTreeMap::new(),
            next_sequence: 1,
            sequences: BTreeMap::new(),
            calls: Calls::default(),
            opening: None,
            watches: HashMap::new(),
            seen: Zxid(0),
            home: None,
            cluster: None,
            streak: 0,
            not_ready: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes a request; what becomes of it is an [`Event::Done`] with this ticket.
    pub(crate) fn handle_request(&mut self, now: Moment, ask: Ask, within: Duration) -> Ticket {
        let ticket = self.ticket();
        if self.closing.is_some() {
            self.done(ticket, Err(Error::Closed { outcome: Outcome::NotApplied }));
            return ticket;
        }
        match ask {
            Ask::Read { consistency, query } => {
                let own = match self.presence {
                    Presence::Open(_) | Presence::Opening => Consistency::Session,
                    Presence::None | Presence::Over => Consistency::Linearizable,
                };
                self.admit(now, ticket, What::Read { consistency: consistency.unwrap_or(own), query }, within);
            }
            Ask::Write { op, fence, in_session } => match self.presence {
                Presence::None if !in_session => {
                    self.admit(now, ticket, What::Once { mark: None, fence, op }, within);
                }
                Presence::Over => self.done(ticket, Err(Error::SessionOver { outcome: Outcome::NotApplied })),
                Presence::None | Presence::Opening | Presence::Open(_) => {
                    self.open();
                    // Its place is behind the session's opening.
                    let ticket = self.moved(ticket);
                    self.admit(now, ticket, What::write(fence, op), within);
                    return ticket;
                }
            },
            Ask::Call { call, fence, in_session, bounded } => {
                let write = Ask::Write { op: Op::Call(call), fence, in_session };
                let ticket = self.handle_request(now, write, within);
                if let Some(request) = self.requests.get_mut(&ticket) {
                    request.bounded = bounded;
                }
                return ticket;
            }
            Ask::Session => match &self.presence {
                Presence::Open(lease) => {
                    let body = Body::Session { session: lease.session, timeout: lease.timeout };
                    self.done(ticket, Ok(Done { zxid: self.seen, body }));
                }
                Presence::Over => self.done(ticket, Err(Error::SessionOver { outcome: Outcome::NotApplied })),
                Presence::None | Presence::Opening => {
                    self.open();
                    let deadline = now.after(within);
                    self.waiters.insert(ticket, Waiter { deadline, within });
                    self.deadlines.insert((deadline, ticket));
                }
            },
            Ask::Close => {
                self.closing = Some(ticket);
                match self.presence {
                    Presence::Open(_) | Presence::Opening => {
                        self.admit(now, ticket, What::write(None, Op::Close), within);
                    }
                    Presence::None | Presence::Over => {
                        self.done(ticket, Ok(Done { zxid: self.seen, body: Body::Value(Value::Closed) }));
                    }
                }
            }
        }
        ticket
    }

    /// Begins a watch: [`Event::Done`] says that it stands, and from which zxid.
    pub(crate) fn handle_watch(&mut self, now: Moment, request: WatchRequest, within: Duration) -> Ticket {
        let ticket = self.ticket();
        if self.closing.is_some() {
            self.done(ticket, Err(Error::Closed { outcome: Outcome::NotApplied }));
            return ticket;
        }
        let watch = request.watch;
        self.watches.insert(watch, Standing { since: request.since, request, from: None, begun: false, ended: false });
        self.admit(now, ticket, What::Watch(watch), within);
        ticket
    }

    /// Ends a watch, if it is there.
    pub(crate) fn handle_unwatch(&mut self, watch: WatchId) {
        let Some(standing) = self.watches.remove(&watch) else { return };
        let begins = |request: &Request| matches!(request.what, What::Watch(w) if w == watch);
        let beginning = || self.requests.iter().find(|(_, request)| begins(request)).map(|(ticket, _)| *ticket);
        if let Some(ticket) = (!standing.begun).then(beginning).flatten() {
            self.forget(ticket);
            self.done(ticket, Err(Error::Closed { outcome: Outcome::NotApplied }));
        }
        if self.connected.is_some() {
            let ticket = self.ticket();
            self.insert(ticket, What::Unwatch(watch), None, Duration::ZERO);
        }
    }

    /// Gives every request its end: the client is closed.
    pub(crate) fn handle_finish(&mut self) {
        self.end_waiters(&|_| Err(Error::Closed { outcome: Outcome::NotApplied }));
        self.end_calls(&|outcome| Error::Closed { outcome });
        for ticket in self.requests.keys().copied().collect::<Vec<_>>() {
            if let Some(request) = self.forget(ticket).filter(|request| request.caller) {
                self.done(ticket, Err(Error::Closed { outcome: request.outcome() }));
            }
        }
        self.presence = Presence::Over;
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Has an open session, or is about to have one.
    pub(crate) const fn has_session(&self) -> bool {
        matches!(self.presence, Presence::Opening | Presence::Open(_))
    }

    pub(crate) const fn seen(&self) -> Zxid {
        self.seen
    }

    /// The cluster that it belongs to, once it has met it: zxids, sessions and watches mean nothing in another one.
    pub(crate) fn home(&self) -> Option<&str> {
        self.home.as_deref()
    }

    /// Requests that have not come to their end.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 2;
        ticket
    }

    /// A ticket behind all others, unless this one is already.
    fn moved(&mut self, ticket: Ticket) -> Ticket {
        if ticket + 2 == self.next_ticket { ticket } else { self.ticket() }
    }

    /// Opens the session if that has not begun.
    fn open(&mut self) {
        if matches!(self.presence, Presence::None) {
            self.presence = Presence::Opening;
            let (ticket, nonce) = (self.ticket(), self.nonce());
            self.opening = Some(ticket);
            self.insert(ticket, What::Open { nonce, until_ms: None, first: None }, None, Duration::ZERO);
        }
    }

    /// A request that a caller waits for.
    fn admit(&mut self, now: Moment, ticket: Ticket, what: What, within: Duration) {
        self.insert(ticket, what, Some(now.after(within)), within);
    }

    fn insert(&mut self, ticket: Ticket, what: What, deadline: Option<Moment>, within: Duration) {
        if what.is_ordered() {
            self.ordered.insert(ticket)
        } else {
            self.free.insert(ticket)
        };
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ticket));
        }
        let caller = deadline.is_some();
        let request =
            Request { what, caller, within, deadline, sent: None, bounded: true, doubts: 0, pushed: 0, due: None };
        self.requests.insert(ticket, request);
    }

    /// Takes a request out of all tables.
    fn forget(&mut self, ticket: Ticket) -> Option<Request> {
        let request = self.requests.remove(&ticket)?;
        self.ordered.remove(&ticket);
        self.free.remove(&ticket);
        if let Some(due) = request.due {
            self.delayed.remove(&(due, ticket));
        }
        if let Some(deadline) = request.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if let (Some(id), Some(connected)) = (request.sent, &mut self.connected) {
            connected.in_flight.remove(&id);
        }
        if let What::Write { sequence: Some(sequence), .. } = request.what {
            self.sequences.remove(&sequence);
        }
        Some(request)
    }

    fn done(&mut self, ticket: Ticket, result: Result<Done, Error>) {
        self.events.push_back(Event::Done { ticket, result });
        if self.closing == Some(ticket) {
            self.events.push_back(Event::Finished);
        }
    }

    /// Tells those who wait for the session.
    fn end_waiters(&mut self, result: &dyn Fn(&Self) -> Result<Done, Error>) {
        for (ticket, waiter) in std::mem::take(&mut self.waiters) {
            self.deadlines.remove(&(waiter.deadline, ticket));
            let result = result(self);
            self.done(ticket, result);
        }
    }

    fn leave(&mut self, why: impl Into<String>) {
        if let Some(connected) = &mut self.connected
            && !connected.leaving
        {
            connected.leaving = true;
            self.events.push_back(Event::Leave { why: why.into() });
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        Nonce::new(bytes)
    }

    /// A random time that doubles with `n`: 10 to 20 ms at first, 0.5 to 1 s at last.
    fn backoff(&mut self, n: u32) -> Duration {
        let most = (20_u64 << n.min(6)).min(1_000);
        Duration::from_millis(self.random.random_range(most / 2..=most))
    }
}

impl Request {
    /// What is known of it when its answer is no longer awaited.
    const fn outcome(&self) -> Outcome {
        match self.what {
            What::Write { .. } | What::Once { .. } if self.doubts > 0 => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }
}
