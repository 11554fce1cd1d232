//! One match over what clients ask: writes go to the forwarder, reads are answered here, watches are registered.

use std::sync::Arc;
use std::time::Duration;

use conclave_core::entry::Origin;
use conclave_core::plan::{Asked, Request, Work};
use conclave_protocol::{
    Answer, ClientMessage, Consistency, Op, PushBack, Query, Refusal, RequestId, ServerMessage, WatchRequest, Zxid,
    limits,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::forward;
use crate::member::Shared;
use crate::outbox::{Charge, Out, Outbox, Reserved};
use crate::planner::Envelope;
use crate::publish::Publisher;
use crate::read;
use crate::replay::{Past, Replays};
use crate::watches::ConnectionId;

/// A connection's requests, one after the other.
pub(crate) struct Dispatch {
    shared: Arc<Shared>,
    connection: ConnectionId,
    outbox: Outbox,
    /// The last request that was answered in turn.
    answered: watch::Receiver<RequestId>,
    /// The last request, the last that is answered in turn, and the last write, that arrived.
    last: RequestId,
    last_in_turn: RequestId,
    last_write: RequestId,
    /// Watches that resume, once there was one.
    replays: Option<Replays>,
}

impl Dispatch {
    /// Of this connection.
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: ConnectionId,
        outbox: Outbox,
        answered: watch::Receiver<RequestId>,
    ) -> Self {
        Self { shared, connection, outbox, answered, last: 0, last_in_turn: 0, last_write: 0, replays: None }
    }

    /// Takes a message, which takes so much of the connection's room.
    ///
    /// # Errors
    /// When it breaks the protocol: the connection ends with this refusal.
    pub(crate) fn message(&mut self, message: ClientMessage, room: u32) -> Result<(), Refusal> {
        match message {
            ClientMessage::Hello(_) => Err(bad("a second hello")),
            ClientMessage::Open { id, nonce, until_ms, timeout_ms } => {
                self.expect(id, room)?;
                self.submit(id, Asked::Once { nonce, until_ms }, None, Work::Open { timeout_ms });
                Ok(())
            }
            ClientMessage::Write { id, sequence, floor, completed, fence, op } => {
                self.expect(id, room)?;
                let session = self.outbox.session().ok_or_else(|| bad("a session's write without a session"))?;
                self.submit(id, Asked::Session { session, sequence, floor, completed }, fence, Work::Op(op));
                Ok(())
            }
            ClientMessage::Once { id, nonce, until_ms, fence, op } => {
                self.expect(id, room)?;
                if matches!(op, Op::Close) {
                    return Err(bad("a session is closed by a write of its own"));
                }
                self.submit(id, Asked::Once { nonce, until_ms }, fence, Work::Op(op));
                Ok(())
            }
            ClientMessage::Read { id, consistency, within_ms, query } => {
                let within = Duration::from_millis(within_ms);
                match consistency {
                    Consistency::Stale | Consistency::Within(_) => {
                        self.order(id)?;
                        self.read_out_of_turn(id, consistency, within, query, room);
                    }
                    Consistency::Session | Consistency::Linearizable => {
                        let before = self.last_in_turn;
                        self.expect(id, room)?;
                        self.read(id, before, consistency, within, query);
                    }
                }
                Ok(())
            }
            ClientMessage::Watch { id, watch } => {
                self.expect(id, room)?;
                self.watch(id, watch);
                Ok(())
            }
            ClientMessage::Unwatch { id, watch } => {
                self.expect(id, room)?;
                if let Some(replays) = &self.replays {
                    replays.cancel(watch);
                }
                self.shared.publisher.unwatch(self.connection, watch);
                self.answer(id, Ok(Answer::Unwatched));
                Ok(())
            }
            ClientMessage::Heartbeat { id } => {
                self.order(id)?;
                let session = self.outbox.session().ok_or_else(|| bad("a heartbeat without a session"))?;
                self.shared.forward(forward::Command::Heartbeat(session, self.outbox.clone(), id));
                Ok(())
            }
        }
    }

    /// Request numbers rise.
    fn order(&mut self, id: RequestId) -> Result<(), Refusal> {
        if id <= self.last {
            return Err(bad("request numbers must rise"));
        }
        self.last = id;
        Ok(())
    }

    /// A request that is answered in turn.
    fn expect(&mut self, id: RequestId, room: u32) -> Result<(), Refusal> {
        self.order(id)?;
        self.last_in_turn = id;
        self.outbox.send(Out::Expect(id, room));
        Ok(())
    }

    /// Answers what needs no state to be read.
    fn answer(&self, id: RequestId, answer: Result<Answer, Refusal>) {
        let zxid = self.shared.publisher.published();
        self.outbox.send(Out::Fill(id, ServerMessage::Answer { id, zxid, answer }));
    }

    fn watch(&mut self, id: RequestId, request: WatchRequest) {
        let limit = self.shared.limits.watches;
        let resuming = self.replays.as_ref().map_or(0, Replays::count);
        let actual = (self.shared.publisher.watches(self.connection) + resuming) as u64;
        if actual >= limit {
            let what = "watches on one connection".to_owned();
            return self.answer(id, Err(Refusal::Limit { what, limit, actual: actual + 1 }));
        }
        if request.names.is_some() {
            // Of different patterns each is held against each change.
            let resuming = self.replays.as_ref().map_or(0, Replays::patterns);
            let actual = self.shared.publisher.patterns(self.connection) + resuming;
            if actual >= limits::PATTERN_WATCHES {
                let what = "watches with patterns on one connection".to_owned();
                let (limit, actual) = (limits::PATTERN_WATCHES as u64, actual as u64 + 1);
                return self.answer(id, Err(Refusal::Limit { what, limit, actual }));
            }
        }
        // One of the same number that is being resumed is replaced behind it, in its turn.
        let replaces = self.replays.as_ref().is_some_and(|replays| replays.cancel(request.watch));
        if request.since.is_none() && !replaces {
            let zxid = self.shared.publisher.watch(self.connection, &request);
            return self.outbox.send(Out::Fill(id, ServerMessage::Answer { id, zxid, answer: Ok(Answer::Watching) }));
        }
        self.shared.publisher.unwatch(self.connection, request.watch);
        let replays = self
            .replays
            .get_or_insert_with(|| Replays::new(Past::of(&self.shared), self.connection, self.outbox.clone()));
        replays.start(id, request);
    }

    fn submit(&mut self, id: RequestId, asked: Asked, fence: Option<conclave_protocol::Fence>, work: Work) {
        self.last_write = id;
        let principal = self.outbox.principal.to_string();
        let origin = match &asked {
            Asked::Session { session, sequence, .. } => Origin::Session { session: *session, sequence: *sequence },
            Asked::Once { nonce, .. } => Origin::Once { principal: principal.clone(), nonce: *nonce },
            Asked::Leader => Origin::Leader,
        };
        let request = Request { principal, asked, fence, work };
        let submitted = self.shared.publisher.submit(self.connection, id, origin, request.clone());
        self.shared.forward(forward::Command::Submit(Box::new(Envelope { token: submitted, request })));
    }

    /// A read that does not wait for what was asked before it, nor does anything wait for it.
    fn read_out_of_turn(&self, id: RequestId, consistency: Consistency, within: Duration, query: Query, room: u32) {
        let (shared, outbox) = (Arc::clone(&self.shared), self.outbox.clone());
        let out = move |message: ServerMessage, charge: Option<Charge>| match charge {
            Some(charge) => Out::NowCharged(message, room, charge),
            None => Out::Now(message, room),
        };
        if read::is_at_once(&shared, consistency, &query)
            && let Some(reserved) = outbox.try_reserve()
        {
            let (message, zxid) = read::answer(&shared, &outbox.principal, id, &query);
            let charge = reserved.charge(read::weight(&message));
            return when_published(&shared.publisher, &outbox, zxid, out(message, charge));
        }
        let until = Instant::now() + within;
        tokio::spawn(async move {
            let fresh = async { read::is_fresh(&shared, consistency) || read::catch_up(&shared).await };
            if !matches!(tokio::time::timeout(within, fresh).await, Ok(true)) {
                return outbox.send(Out::Now(ServerMessage::PushBack { id, why: PushBack::NotReady }, room));
            }
            if matches!(query, Query::Status) {
                return outbox.send(Out::Now(read::status(&shared, id).await, room));
            }
            let reserved = outbox.reserve().await;
            let asker = read::Asker::of(&outbox);
            let (message, zxid) = read::answer_elsewhere(&shared, asker, id, query, until).await;
            let charge = reserved.charge(read::weight(&message));
            when_published(&shared.publisher, &outbox, zxid, out(message, charge));
        });
    }

    /// A read that is answered in turn, right after the request `before`.
    fn read(&mut self, id: RequestId, before: RequestId, consistency: Consistency, within: Duration, query: Query) {
        let after = self.last_write;
        let is_immediate = *self.answered.borrow() >= after && read::is_at_once(&self.shared, consistency, &query);
        if is_immediate && let Some(reserved) = self.outbox.try_reserve() {
            let (message, zxid) = read::answer(&self.shared, &self.outbox.principal, id, &query);
            let charge = reserved.charge(read::weight(&message));
            when_published(&self.shared.publisher, &self.outbox, zxid, fill(id, message, charge));
            return;
        }
        let (shared, outbox) = (Arc::clone(&self.shared), self.outbox.clone());
        let mut answered = self.answered.clone();
        let until = Instant::now() + within;
        tokio::spawn(async move {
            let work = async {
                // The end of the channel is the end of the connection: nobody waits for the answer then.
                answered.wait_for(|answered| *answered >= after).await.ok()?;
                if !read::is_fresh(&shared, consistency) && !read::catch_up(&shared).await {
                    return Some((ServerMessage::PushBack { id, why: PushBack::NotReady }, None));
                }
                if matches!(query, Query::Status) {
                    return Some((read::status(&shared, id).await, None));
                }
                // Whoever is next to be written needs no room: what has it may wait for him.
                let reserved = tokio::select! {
                    biased;
                    reserved = outbox.reserve() => reserved,
                    next = answered.wait_for(|answered| *answered >= before) => next.ok().map(|_| Reserved::none())?,
                };
                let (message, zxid) = if read::is_heavy(&query) {
                    read::answer_elsewhere(&shared, read::Asker::of(&outbox), id, query, until).await
                } else {
                    read::answer(&shared, &outbox.principal, id, &query)
                };
                let charge = reserved.charge(read::weight(&message));
                shared.publisher.reached(zxid).await;
                Some((message, charge))
            };
            let (message, charge) = match tokio::time::timeout(within, work).await {
                Ok(Some(answered)) => answered,
                Ok(None) => return,
                Err(_) => {
                    let zxid = shared.publisher.published();
                    (ServerMessage::PushBack { id, why: PushBack::Behind { zxid } }, None)
                }
            };
            outbox.send(fill(id, message, charge));
        });
    }
}

fn fill(id: RequestId, message: ServerMessage, charge: Option<Charge>) -> Out {
    match charge {
        Some(charge) => Out::Charged(id, message, charge),
        None => Out::Fill(id, message),
    }
}

/// Sends a read's answer once the events of the state that it was read from are queued.
fn when_published(publisher: &Arc<Publisher>, outbox: &Outbox, zxid: Zxid, out: Out) {
    if publisher.published() >= zxid {
        outbox.send(out);
        return;
    }
    let (publisher, outbox) = (Arc::clone(publisher), outbox.clone());
    tokio::spawn(async move {
        if publisher.reached(zxid).await {
            outbox.send(out);
        }
    });
}

fn bad(why: &str) -> Refusal {
    Refusal::BadRequest { why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_core::digest::Chain;
    use conclave_core::entry::{Entry, Transaction};
    use conclave_core::memory::MemTables;
    use conclave_core::row::Recorded;
    use conclave_protocol::{Change, ChangeKind, Path, Scope, WatchId};

    use super::*;

    #[tokio::test]
    async fn an_answer_read_before_its_zxid_is_published_waits_for_the_events() {
        let publisher = Arc::new(Publisher::new(Zxid(4)));
        let (outbox, mut here) = Outbox::new("spiffe://test/client/alice", None);
        publisher.connect(ConnectionId(1), outbox.clone());
        let root = Path::parse("/").unwrap();
        let watch = WatchRequest::new(WatchId(1), root.clone(), Scope::Subtree);
        assert_eq!(publisher.watch(ConnectionId(1), &watch), Zxid(4));
        let answer = |id| ServerMessage::Answer { id, zxid: Zxid(5), answer: Ok(Answer::Alive) };
        // The tables hold zxid 5 a moment before it is published.
        when_published(&publisher, &outbox, Zxid(5), Out::Fill(1, answer(1)));
        when_published(&publisher, &outbox, Zxid(4), Out::Fill(2, answer(2)));
        let change = Change { kind: ChangeKind::Data, path: root, version: 1 };
        let changes = vec![Recorded { change, acl: 0, beside: 0 }];
        let transaction = Transaction { origin: Origin::Leader, changes, outcome: bytes::Bytes::new() };
        let entry = Entry {
            term: 1,
            prev: Chain(0),
            base: Zxid(4),
            time_ms: 0,
            transactions: vec![transaction],
            rows: Vec::new(),
            digest: 0,
        };
        publisher.publish(&[entry], &MemTables::default()).unwrap();
        assert!(matches!(here.recv().await, Some(Out::Fill(2, _))), "an answer came before the event of its zxid");
        assert!(matches!(here.recv().await, Some(Out::Event(..))));
        assert!(matches!(here.recv().await, Some(Out::Fill(1, _))));
    }
}
