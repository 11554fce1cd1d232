//! What a client on the bare protocol sees: replies in its own order, reads behind its writes, each duplicate once.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_link::{Connection, Credentials, Dialer, FrameReader, FrameWriter, Plane, RecvStream, SendStream, Tuning};
use conclave_protocol::{
    Answer, Attach, Call, ClientMessage, Consistency, Create, Hello, Nonce, Op, Outcome, PROTOCOL_VERSION, Path, Query,
    RequestId, Scope, ServerMessage, SessionId, Set, Value, WatchId, WatchRequest, Zxid, codec, limits,
};
use conclave_testing::{Cluster, PATIENCE};

const WITHIN_MS: u64 = 10_000;

/// A connection, by hand.
struct Wire {
    _connection: Connection,
    reader: FrameReader<RecvStream>,
    writer: FrameWriter<SendStream>,
    now_ms: u64,
    next: RequestId,
}

impl Wire {
    async fn connect(cluster: &Cluster, member: u64, attach: Option<SessionId>, seen: Zxid) -> Self {
        let credentials = Credentials::load_dir(&cluster.pki().client("ann").unwrap()).unwrap();
        let dialer = Dialer::with(&credentials, Plane::Client, Tuning::default()).unwrap();
        let address = cluster.config(member).listen.client;
        let connection = dialer.connect(address, Some(member)).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let (reader, writer) = (FrameReader::new(receive), FrameWriter::new(send));
        let mut wire = Self { _connection: connection, reader, writer, now_ms: 0, next: 1 };
        let attach = attach.map(|session| Attach { session });
        wire.push(&ClientMessage::Hello(Hello { versions: vec![PROTOCOL_VERSION], attach, seen, cluster: None }));
        wire.flush().await;
        match wire.next().await {
            ServerMessage::Welcome(welcome) => wire.now_ms = welcome.now_ms,
            other => panic!("{other:?}"),
        }
        wire
    }

    fn push(&mut self, message: &ClientMessage) {
        self.writer.push(&codec::encode(message)).unwrap();
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        self.next - 1
    }

    fn once(&mut self, nonce: u8, op: Op) -> RequestId {
        let (id, until_ms) = (self.id(), self.now_ms + 30_000);
        self.push(&ClientMessage::Once { id, nonce: Nonce::new([nonce; 16]), until_ms, fence: None, op });
        id
    }

    fn write(&mut self, sequence: u64, floor: u64, op: Op) -> RequestId {
        let id = self.id();
        self.push(&ClientMessage::Write { id, sequence, floor, completed: Vec::new(), fence: None, op });
        id
    }

    fn get(&mut self, at: &str, consistency: Consistency) -> RequestId {
        let id = self.id();
        let query = Query::Get { path: path(at) };
        self.push(&ClientMessage::Read { id, consistency, within_ms: WITHIN_MS, query });
        id
    }

    async fn flush(&mut self) {
        self.writer.flush().await.unwrap();
    }

    async fn next(&mut self) -> ServerMessage {
        let frame = tokio::time::timeout(PATIENCE, self.reader.next(limits::FRAME_BYTES)).await;
        codec::decode(&frame.expect("an answer").unwrap().expect("the stream goes on")).unwrap()
    }

    async fn outcome(&mut self) -> (RequestId, Zxid, Outcome) {
        self.flush().await;
        match self.next().await {
            ServerMessage::Reply { id, zxid, outcome } => (id, zxid, codec::decode(&outcome).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    async fn open(&mut self) -> SessionId {
        let (id, until_ms) = (self.id(), self.now_ms + 30_000);
        let nonce = Nonce::new([200; 16]);
        self.push(&ClientMessage::Open { id, nonce, until_ms, timeout_ms: 30_000 });
        match self.outcome().await {
            (_, _, Ok(Value::Opened { session, .. })) => session,
            other => panic!("{other:?}"),
        }
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn create(at: &str) -> Op {
    Op::Create(Create::new(path(at), "0"))
}

fn set(at: &str, data: u64) -> Op {
    Op::Set(Set { path: path(at), data: data.to_string().into(), if_version: None })
}

fn increment() -> Op {
    // CBOR: an array of one text of five bytes.
    let args = [&[0x81, 0x65], "/hits".as_bytes()].concat().into();
    Op::Call(Call { plugin: "counter".into(), procedure: "increment".into(), args, root: Path::root() })
}

async fn a_follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await.unwrap();
    cluster.running().into_iter().find(|id| *id != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_the_writes_that_were_sent_before_it_and_replies_keep_their_order() {
    let cluster = Cluster::start(3).await.unwrap();
    let member = a_follower(&cluster).await;
    let mut wire = Wire::connect(&cluster, member, None, Zxid(0)).await;
    wire.once(0, create("/a"));
    wire.outcome().await.2.unwrap();
    let session = wire.open().await;
    assert!(session.0 > 0);
    for consistency in [Consistency::Session, Consistency::Linearizable] {
        let mut expected = Vec::new();
        for round in 1..=50_u64 {
            let sequence = if consistency == Consistency::Session { round } else { 50 + round };
            expected.push((wire.write(sequence, sequence, set("/a", sequence)), None));
            expected.push((wire.get("/a", consistency), Some(sequence.to_string())));
        }
        wire.flush().await;
        for (expected, data) in expected {
            match (wire.next().await, data) {
                (ServerMessage::Reply { id, .. }, None) => assert_eq!(id, expected),
                (ServerMessage::Answer { id, answer: Ok(Answer::Znode { data, .. }), .. }, Some(written)) => {
                    assert_eq!(id, expected);
                    let (read, written): (u64, u64) =
                        (String::from_utf8_lossy(&data).parse().unwrap(), written.parse().unwrap());
                    assert!(read >= written, "read {read} behind the write of {written}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_may_be_somewhat_stale_does_not_wait_for_the_writes_before_it() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let member = a_follower(&cluster).await;
    let mut wire = Wire::connect(&cluster, member, None, Zxid(0)).await;
    wire.once(0, create("/a"));
    wire.outcome().await.2.unwrap();
    // This member knows how fresh it is.
    wire.get("/a", Consistency::Linearizable);
    wire.flush().await;
    assert!(matches!(wire.next().await, ServerMessage::Answer { answer: Ok(_), .. }));
    for other in cluster.running().into_iter().filter(|id| *id != member).collect::<Vec<_>>() {
        cluster.kill(other).await;
    }
    // Nobody answers this, without a majority.
    wire.once(1, set("/a", 1));
    for consistency in [Consistency::Within(3_600_000), Consistency::Stale] {
        let expected = wire.get("/a", consistency);
        wire.flush().await;
        match wire.next().await {
            ServerMessage::Answer { id, answer: Ok(Answer::Znode { .. }), .. } => assert_eq!(id, expected),
            other => panic!("{consistency:?}: {other:?}"),
        }
    }
    // As fresh as this nobody can be any more.
    let expected = wire.get("/a", Consistency::Within(0));
    wire.flush().await;
    match wire.next().await {
        ServerMessage::PushBack { id, .. } => assert_eq!(id, expected),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_before_any_reply_of_its_zxid_or_a_later_one() {
    let cluster = Cluster::start(3).await.unwrap();
    let member = a_follower(&cluster).await;
    let mut wire = Wire::connect(&cluster, member, None, Zxid(0)).await;
    wire.once(0, create("/a"));
    wire.outcome().await.2.unwrap();
    let id = wire.id();
    let request = WatchRequest::new(WatchId(1), path("/"), Scope::Subtree);
    wire.push(&ClientMessage::Watch { id, watch: request });
    wire.flush().await;
    let ServerMessage::Answer { zxid: since, answer: Ok(Answer::Watching), .. } = wire.next().await else {
        panic!("no watch")
    };
    // Another client writes too; each of this one's replies must find all events up to its zxid told.
    let mut other = Wire::connect(&cluster, cluster.leader().await.unwrap(), None, Zxid(0)).await;
    let (mut answered, mut event, mut events) = (0, since, 0);
    for round in 0..60_u8 {
        other.once(100 + round, set("/a", u64::from(round)));
        other.flush().await;
        if round % 2 == 0 {
            wire.once(1 + round, set("/a", u64::from(round)));
        } else {
            wire.get("/a", Consistency::Stale);
        }
        wire.flush().await;
    }
    while answered < 60 || events < 90 {
        match wire.next().await {
            ServerMessage::Event { zxid, .. } => {
                assert!(zxid > event, "an event came twice, or late");
                (event, events) = (zxid, events + 1);
            }
            // Here every transaction is an event.
            ServerMessage::Reply { zxid, .. } => {
                assert!(event >= zxid, "the reply of zxid {zxid} came before its event");
                answered += 1;
            }
            ServerMessage::Answer { answer: Ok(Answer::Znode { stat, .. }), .. } => {
                assert!(event >= stat.modified, "what was read at {} came before its event", stat.modified);
                answered += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_duplicate_of_an_acknowledged_request_gets_the_stored_reply_or_none_and_is_not_carried_out() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let member = a_follower(&cluster).await;
    let mut wire = Wire::connect(&cluster, member, None, Zxid(0)).await;
    let session = wire.open().await;
    wire.write(1, 1, increment());
    let (_, first, outcome) = wire.outcome().await;
    outcome.as_ref().unwrap();
    wire.once(5, increment());
    let (_, second, counted) = wire.outcome().await;
    assert_ne!(outcome, counted);
    // The leader dies; the client comes back by another member, and its old requests with it.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let other = cluster.running().into_iter().find(|id| *id != member).unwrap();
    let mut again = Wire::connect(&cluster, other, Some(session), second).await;
    again.write(1, 1, increment());
    assert_eq!(again.outcome().await, (1, first, outcome));
    again.now_ms = wire.now_ms;
    again.once(5, increment());
    assert_eq!(again.outcome().await, (2, second, counted));
    // Acknowledged by the floor of a later one: a duplicate after that is told nothing of value.
    again.write(2, 2, create("/b"));
    again.outcome().await.2.unwrap();
    again.write(1, 1, increment());
    assert_eq!(again.outcome().await.2.unwrap_err().code(), "bad-request");
    again.write(3, 3, increment());
    let Ok(Value::Called(third)) = again.outcome().await.2 else { panic!("not called") };
    assert_eq!(&third[..], b"\x03", "a duplicate was carried out");
}
