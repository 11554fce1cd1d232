//! The writer: replies leave in the order of the requests, whatever order they come in.
#![allow(clippy::unwrap_used)]

use conclave_protocol::{Answer, WatchId, Zxid};
use tokio::io::DuplexStream;

use super::*;

/// A writer whose other end is here.
struct Bench {
    out: mpsc::UnboundedSender<Out>,
    queued: Arc<AtomicUsize>,
    answered: watch::Receiver<RequestId>,
    room: Arc<Semaphore>,
    reader: FrameReader<DuplexStream>,
}

fn start() -> Bench {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (out, receiver) = mpsc::unbounded_channel();
    let answered = watch::Sender::new(NO_REQUEST);
    let queued = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(0));
    let bench = Bench {
        out,
        queued: Arc::clone(&queued),
        answered: answered.subscribe(),
        room: Arc::clone(&room),
        reader: FrameReader::new(far),
    };
    let writer = Writer {
        publisher: Arc::new(Publisher::new(Zxid(0))),
        id: ConnectionId(1),
        queued,
        slots: VecDeque::new(),
        answered,
        room,
    };
    tokio::spawn(writer.run(FrameWriter::new(near), receiver));
    bench
}

impl Bench {
    fn send(&self, out: Out) {
        self.out.send(out).unwrap();
    }

    fn fill(&self, id: RequestId) {
        self.send(Out::Fill(id, answer(id)));
    }

    fn event(&self, zxid: u64) {
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.send(Out::Event(event(zxid)));
    }

    async fn next(&mut self) -> ServerMessage {
        codec::decode(&self.reader.next(limits::FRAME_BYTES).await.unwrap().unwrap()).unwrap()
    }
}

fn answer(id: RequestId) -> ServerMessage {
    ServerMessage::Answer { id, zxid: Zxid(id), answer: Ok(Answer::Alive) }
}

fn event(zxid: u64) -> ServerMessage {
    ServerMessage::Event { watch: WatchId(1), zxid: Zxid(zxid), changes: Vec::new() }
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
    assert_eq!(bench.room.available_permits(), 5, "each answered request makes room for another");
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
    assert_eq!(bench.queued.load(Ordering::SeqCst), 0);
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
