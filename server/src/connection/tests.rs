//! The writer: replies leave in the order of the requests, whatever order they come in.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use conclave_link::{FrameReader, FrameWriter};
use conclave_protocol::{Answer, Change, ChangeKind, Path, RequestId, WatchId, Zxid};
use tokio::io::DuplexStream;

use super::*;
use crate::outbox::Body;
use crate::publish::Publisher;

/// A writer whose other end is here.
struct Bench {
    outbox: Outbox,
    answered: watch::Receiver<RequestId>,
    reader: FrameReader<DuplexStream>,
}

fn start() -> Bench {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (outbox, receiver) = Outbox::new("alice", None);
    let answered = watch::Sender::new(NO_REQUEST);
    let bench = Bench { outbox: outbox.clone(), answered: answered.subscribe(), reader: FrameReader::new(far) };
    let publisher = Arc::new(Publisher::new(Zxid(0)));
    let writer = Writer::new(publisher, ConnectionId(1), &outbox, answered);
    tokio::spawn(writer.run(FrameWriter::new(near), receiver));
    bench
}

impl Bench {
    fn send(&self, out: Out) {
        self.outbox.send(out);
    }

    fn fill(&self, id: RequestId) {
        self.send(Out::Fill(id, answer(id)));
    }

    fn event(&self, zxid: u64) {
        self.outbox.event(WatchId(1), Some(Arc::new(body(zxid))), Zxid(zxid));
    }

    /// How much room there is beyond what there is at the start.
    fn freed(&self) -> usize {
        self.outbox.room.available_permits() - limits::IN_FLIGHT * LEAST_ROOM as usize
    }

    async fn next(&mut self) -> ServerMessage {
        codec::decode(&self.reader.next(limits::FRAME_BYTES).await.unwrap().unwrap()).unwrap()
    }
}

fn answer(id: RequestId) -> ServerMessage {
    ServerMessage::Answer { id, zxid: Zxid(id), answer: Ok(Answer::Alive) }
}

fn body(zxid: u64) -> Body {
    let change = Change { kind: ChangeKind::Data, path: Path::root(), version: zxid };
    Body::new(Zxid(zxid), vec![change], Vec::new()).unwrap()
}

fn event(zxid: u64) -> ServerMessage {
    body(zxid).message(WatchId(1))
}

#[tokio::test]
async fn replies_leave_in_the_order_of_the_requests() {
    let mut bench = start();
    for id in 1..=4 {
        bench.send(Out::Expect(id, 1));
    }
    for id in [3, 2, 4] {
        bench.fill(id);
    }
    // Out of turn: what was said to be so. It tells that the others were looked at.
    bench.send(Out::Now(answer(9), 1));
    assert_eq!(bench.next().await, answer(9), "a reply overtook that of an earlier request");
    assert_eq!(*bench.answered.borrow(), NO_REQUEST, "a read would not wait for the first request");
    bench.fill(1);
    for id in 1..=4 {
        assert_eq!(bench.next().await, answer(id));
    }
    assert_eq!(*bench.answered.borrow(), 4);
    assert_eq!(bench.freed(), 5, "each answered request makes room for another");
}

#[tokio::test]
async fn events_and_replies_leave_in_the_order_in_which_they_were_queued() {
    let mut bench = start();
    bench.send(Out::Expect(6, 1));
    bench.event(5);
    bench.event(6);
    bench.fill(6);
    bench.event(7);
    for expected in [event(5), event(6), answer(6), event(7)] {
        assert_eq!(bench.next().await, expected);
    }
    assert_eq!(bench.outbox.queued.events(), 0);
}

#[tokio::test]
async fn nothing_leaves_after_the_last_message() {
    let mut bench = start();
    let goodbye = ServerMessage::Goodbye { refusal: Refusal::BadRequest { why: "x".to_owned() } };
    bench.send(Out::Last(goodbye.clone()));
    bench.event(5);
    assert_eq!(bench.next().await, goodbye);
    assert!(matches!(bench.reader.next(limits::FRAME_BYTES).await, Ok(None)));
}

#[tokio::test]
async fn the_end_of_a_parked_call_is_written_behind_the_replies_that_were_given_before_it() {
    let mut bench = start();
    let end = |kib: usize| Bytes::from(vec![0; kib * 1024]);
    for id in 1..=3 {
        bench.send(Out::Expect(id, LEAST_ROOM));
    }
    // The second says that a call parked, and waits for the first.
    bench.fill(2);
    bench.outbox.completed(2, Zxid(7), end(2));
    bench.fill(1);
    bench.fill(3);
    bench.outbox.completed(1, Zxid(8), end(1));
    assert_eq!(bench.next().await, answer(1));
    assert_eq!(bench.next().await, answer(2));
    assert_eq!(bench.next().await, ServerMessage::Completed { sequence: 2, zxid: Zxid(7), outcome: end(2) });
    assert_eq!(bench.next().await, answer(3));
    assert_eq!(bench.next().await, ServerMessage::Completed { sequence: 1, zxid: Zxid(8), outcome: end(1) });
    // What they took is free again: beyond it the room of the three requests, which had none here.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while bench.outbox.room.available_permits() != limits::IN_FLIGHT * LEAST_ROOM as usize + 3 * LEAST_ROOM as usize {
        assert!(tokio::time::Instant::now() < deadline, "what ends of calls took is not given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_writer_that_was_ended_with_its_member_is_not_asked_again() {
    let mut writing = tokio::spawn(std::future::pending::<()>());
    writing.abort();
    let written = (&mut writing).await;
    assert!(written.is_err());
    assert!(last_of(writing, Some(written)).await.is_none());
    let writing = tokio::spawn(async { 7 });
    assert_eq!(last_of(writing, None).await, Some(7));
    assert_eq!(last_of(tokio::spawn(std::future::pending::<()>()), Some(Ok(()))).await, Some(()));
}
