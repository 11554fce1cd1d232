//! One match over what clients ask: writes go to the forwarder, reads are answered here, watches are registered.

use std::sync::Arc;
use std::time::Duration;

use conclave_core::entry::Origin;
use conclave_core::plan::{Asked, Request, Work};
use conclave_protocol::{
    Answer, ClientMessage, Consistency, Op, PushBack, Query, Refusal, RequestId, ServerMessage, WatchId, Zxid, limits,
};
use tokio::sync::watch;

use crate::forward;
use crate::member::Shared;
use crate::planner::Envelope;
use crate::publish::{Out, Outbox, Publisher};
use crate::read;
use crate::watches::ConnectionId;

/// A connection's requests, one after the other.
pub(crate) struct Dispatch {
    shared: Arc<Shared>,
    connection: ConnectionId,
    outbox: Outbox,
    /// The last request that was answered in turn.
    answered: watch::Receiver<RequestId>,
    /// The last request, and the last write, that arrived.
    last: RequestId,
    last_write: RequestId,
    watches: Vec<WatchId>,
}

impl Dispatch {
    /// Of this connection.
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: ConnectionId,
        outbox: Outbox,
        answered: watch::Receiver<RequestId>,
    ) -> Self {
        Self { shared, connection, outbox, answered, last: 0, last_write: 0, watches: Vec::new() }
    }

    /// The watches that were started on it.
    pub(crate) fn watches(&self) -> &[WatchId] {
        &self.watches
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
            ClientMessage::Write { id, sequence, floor, fence, op } => {
                self.expect(id, room)?;
                let session = self.outbox.session().ok_or_else(|| bad("a session's write without a session"))?;
                self.submit(id, Asked::Session { session, sequence, floor }, fence, Work::Op(op));
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
            ClientMessage::Read { id, consistency: Consistency::Stale, query, .. } => {
                self.order(id)?;
                let (shared, outbox) = (Arc::clone(&self.shared), self.outbox.clone());
                if matches!(query, Query::Status) {
                    tokio::spawn(async move { outbox.send(Out::Now(read::status(&shared, id).await, room)) });
                } else {
                    let (message, zxid) = read::answer(&shared, &outbox.principal, id, &query);
                    when_published(&self.shared.publisher, &self.outbox, zxid, Out::Now(message, room));
                }
                Ok(())
            }
            ClientMessage::Read { id, consistency, within_ms, query } => {
                self.expect(id, room)?;
                self.read(id, consistency, Duration::from_millis(within_ms), query);
                Ok(())
            }
            ClientMessage::Watch { id, watch } => {
                self.expect(id, room)?;
                if self.watches.len() >= limits::WATCHES {
                    // One-shot watches that had their event are over.
                    self.shared.publisher.forget_over(self.connection, &mut self.watches);
                }
                if self.watches.len() >= limits::WATCHES {
                    let refusal = Refusal::Limit {
                        what: "watches on one connection".to_owned(),
                        limit: limits::WATCHES as u64,
                        actual: self.watches.len() as u64 + 1,
                    };
                    let zxid = self.shared.publisher.published();
                    self.outbox.send(Out::Fill(id, ServerMessage::Answer { id, zxid, answer: Err(refusal) }));
                    return Ok(());
                }
                self.watches.push(watch.watch);
                let message = read::watch(&self.shared, self.connection, &self.outbox, id, &watch);
                self.outbox.send(Out::Fill(id, message));
                Ok(())
            }
            ClientMessage::Unwatch { id, watch } => {
                self.expect(id, room)?;
                self.watches.retain(|w| *w != watch);
                self.shared.publisher.unwatch(self.connection, watch);
                let zxid = self.shared.publisher.published();
                self.outbox.send(Out::Fill(id, ServerMessage::Answer { id, zxid, answer: Ok(Answer::Unwatched) }));
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
        self.outbox.send(Out::Expect(id, room));
        Ok(())
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
        self.shared.forward(forward::Command::Submit(Envelope { token: submitted, request }));
    }

    fn read(&mut self, id: RequestId, consistency: Consistency, within: Duration, query: Query) {
        let is_immediate = consistency == Consistency::Session
            && *self.answered.borrow() >= self.last_write
            && !matches!(query, Query::Status);
        if is_immediate {
            let (message, zxid) = read::answer(&self.shared, &self.outbox.principal, id, &query);
            when_published(&self.shared.publisher, &self.outbox, zxid, Out::Fill(id, message));
            return;
        }
        let (shared, outbox) = (Arc::clone(&self.shared), self.outbox.clone());
        let (mut answered, after) = (self.answered.clone(), self.last_write);
        tokio::spawn(async move {
            let work = async {
                // The end of the channel is the end of the connection: nobody waits for the answer then.
                answered.wait_for(|answered| *answered >= after).await.ok()?;
                if consistency == Consistency::Linearizable && !read::catch_up(&shared).await {
                    return Some((
                        ServerMessage::PushBack { id, why: PushBack::NotReady },
                        shared.publisher.published(),
                    ));
                }
                if matches!(query, Query::Status) {
                    return Some((read::status(&shared, id).await, shared.publisher.published()));
                }
                let (message, zxid) = read::answer(&shared, &outbox.principal, id, &query);
                shared.publisher.reached(zxid).await;
                Some((message, zxid))
            };
            let message = match tokio::time::timeout(within, work).await {
                Ok(Some((message, _))) => message,
                Ok(None) => return,
                Err(_) => {
                    let zxid = shared.publisher.published();
                    ServerMessage::PushBack { id, why: PushBack::Behind { zxid } }
                }
            };
            outbox.send(Out::Fill(id, message));
        });
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
    use conclave_protocol::{Change, ChangeKind, Path, Scope};

    use super::*;

    #[tokio::test]
    async fn an_answer_read_before_its_zxid_is_published_waits_for_the_events() {
        let publisher = Arc::new(Publisher::new(Zxid(4)));
        let (outbox, mut here) = Outbox::new("spiffe://test/client/alice", None);
        publisher.connect(ConnectionId(1), outbox.clone());
        let root = Path::parse("/").unwrap();
        let watch =
            publisher.watch::<()>(ConnectionId(1), WatchId(1), (&root, Scope::Subtree, false), |z, _| Ok(Some(z)));
        assert_eq!(watch, Ok(Some(Zxid(4))));
        let answer = |id| ServerMessage::Answer { id, zxid: Zxid(5), answer: Ok(Answer::Alive) };
        // The tables hold zxid 5 a moment before it is published.
        when_published(&publisher, &outbox, Zxid(5), Out::Fill(1, answer(1)));
        when_published(&publisher, &outbox, Zxid(4), Out::Fill(2, answer(2)));
        let change = Change { kind: ChangeKind::Data, path: root, version: 1 };
        let transaction = Transaction { origin: Origin::Leader, changes: vec![change], outcome: bytes::Bytes::new() };
        publisher.publish(&[Entry {
            term: 1,
            prev: Chain(0),
            base: Zxid(4),
            time_ms: 0,
            transactions: vec![transaction],
            rows: Vec::new(),
            digest: 0,
        }]);
        assert!(matches!(here.recv().await, Some(Out::Fill(2, _))), "an answer came before the event of its zxid");
        assert!(matches!(here.recv().await, Some(Out::Event(_))));
        assert!(matches!(here.recv().await, Some(Out::Fill(1, _))));
    }
}
