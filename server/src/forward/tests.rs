//! The forwarder: what waits goes to every new leader, verdicts are looked up here, heartbeats are not given up.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use bytes::Bytes;
use conclave_core::apply::{Applied, Position, apply};
use conclave_core::entry::Entry;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_link::pki::{Authority, Spec, write_credentials};
use conclave_link::{Credentials, Dialer, Listener, Plane, Principal, TrustDomain};
use conclave_protocol::{Answer, Create, Nonce, Op, Path, PushBack};
use conclave_store::{Boot, Checkpoints, DirLock, Options, Writer};

use super::*;
use crate::peer;
use crate::raft::{Node, Role};
use crate::watches::ConnectionId;

const CLUSTER: &str = "test";
const ALICE: &str = "spiffe://test/client/alice";
const ONE: ConnectionId = ConnectionId(1);
const SOON: Duration = Duration::from_secs(20);

/// Member 1, which leads when it is told so, with a planner and leases that the test plays.
struct Bench {
    publisher: Arc<Publisher>,
    tables: Writer,
    leader: MemTables,
    planner: std::sync::mpsc::Receiver<planner::Command>,
    leases: mpsc::UnboundedReceiver<sessions::Command>,
    leadership: watch::Sender<Leadership>,
    /// The way to other members, and member 2's end of it.
    peers: Peers,
    other: (Peers, peer::Inlets),
    commands: mpsc::UnboundedSender<Command>,
    outbox: Outbox,
    out: mpsc::UnboundedReceiver<Out>,
    _dir: tempfile::TempDir,
}

fn credentials(dir: &std::path::Path) -> [Credentials; 2] {
    let domain = TrustDomain::new("test").unwrap();
    let peer = Authority::create(&dir.join("ca"), Plane::Peer, &domain).unwrap();
    let client = Authority::create(&dir.join("ca"), Plane::Client, &domain).unwrap();
    [1, 2].map(|id| {
        let issued = peer.issue(&Spec::new(Principal::member(&domain, id).unwrap(), 1)).unwrap();
        let dir = dir.join(id.to_string());
        write_credentials(&dir, &issued, &peer, &client).unwrap();
        Credentials::load_dir(&dir).unwrap()
    })
}

/// The peer planes of members 1 and 2, which know each other.
fn planes(dir: &std::path::Path) -> [(Peers, peer::Inlets); 2] {
    let mut nodes = std::collections::BTreeMap::new();
    let mut id = 0;
    let planes = credentials(dir).map(|credentials| {
        id += 1;
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind_with(free, Plane::Peer, &credentials, peer::tuning()).unwrap();
        let peer = listener.local_address().unwrap().to_string();
        nodes.insert(id, Node { peer, client: String::new() });
        let dialer = Dialer::with(&credentials, Plane::Peer, peer::tuning()).unwrap();
        Peers::start(id, CLUSTER, listener, dialer)
    });
    planes.iter().for_each(|(peers, _)| peers.set_members(nodes.clone()));
    planes
}

fn start() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let [(peers, _), other] = planes(dir.path());
    let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
    let lock = DirLock::acquire(dir.path()).unwrap();
    let opened = Store::open(&lock, CLUSTER, &Checkpoints::open(&lock, CLUSTER).unwrap(), &options).unwrap();
    let publisher = Arc::new(Publisher::new(Zxid(0)));
    let (outbox, here) = Outbox::new(ALICE, None);
    publisher.connect(ONE, outbox.clone());
    let (planner, planner_here) = planner::prepare();
    let (leases, leases_here) = mpsc::unbounded_channel();
    let (leadership, leadership_here) = watch::channel(Leadership::default());
    let (commands, commands_here) = mpsc::unbounded_channel();
    let forwarder = Forwarder {
        publisher: Arc::clone(&publisher),
        store: opened.store,
        planner,
        leases,
        peers: peers.clone(),
        leadership: leadership_here,
        id: 1,
        commands: commands_here,
        faults: Arc::new(|fault| panic!("{fault}")),
    };
    tokio::spawn(forwarder.run());
    let leader = MemTables::new(CLUSTER);
    Bench {
        publisher,
        tables: opened.writer,
        leader,
        planner: planner_here,
        leases: leases_here,
        leadership,
        peers,
        other,
        commands,
        outbox,
        out: here,
        _dir: dir,
    }
}

impl Bench {
    /// Member 1 leads, and its forwarder, on this one thread, has turned to it.
    async fn lead(&self, term: u64) {
        self.leadership.send_replace(Leadership { term, leader: Some(1), is_leader: true, role: Role::Leader });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// Member 2 leads, and can be reached.
    async fn follow(&self) {
        let ready = tokio::time::Instant::now() + SOON;
        while self.peers.open_forward(2).await.is_err() {
            assert!(tokio::time::Instant::now() < ready, "member 2 can't be reached");
            tokio::task::yield_now().await;
        }
        self.leadership.send_replace(Leadership { term: 2, leader: Some(2), is_leader: false, role: Role::Follower });
    }

    fn ask(&self, id: RequestId, request: Request) -> u64 {
        let Asked::Once { nonce, .. } = request.asked else { panic!("{request:?}") };
        let origin = Origin::Once { principal: ALICE.to_owned(), nonce };
        let token = self.publisher.submit(ONE, id, origin, request.clone());
        drop(self.commands.send(Command::Submit(Box::new(Envelope { token, request }))));
        token
    }

    /// What the planner gets next: whom to tell, and which tokens.
    async fn requests(&self) -> (planner::Source, Vec<u64>) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            match self.planner.try_recv() {
                Ok(planner::Command::Requests(source, envelopes)) => {
                    return (source, envelopes.iter().map(|envelope| envelope.token).collect());
                }
                Ok(_) => {}
                Err(_) => {
                    assert!(tokio::time::Instant::now() < deadline, "the planner gets nothing");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Plans, applies and publishes, as if it had come through Raft.
    fn carry_out(&mut self, request: &Request) {
        let entry = self.apply(request);
        self.publisher.publish(&[entry], &self.leader).unwrap();
    }

    /// The same as far as the tables; it is not published.
    fn apply(&mut self, request: &Request) -> Entry {
        let mut planner = Planner::new(1, self.leader.snapshot(), self.leader.kept(), Arc::new(NoPlugins)).unwrap();
        planner.plan(request, 1_000).unwrap();
        let payload = planner.cut().unwrap().payload;
        let at = Position { term: 1, index: planner.last().0 };
        apply(&mut self.leader, at, &payload).unwrap();
        let applied = self.tables.write(|tables| apply(tables, at, &payload), |_| Ok(())).unwrap();
        let Applied::Done(entry) = applied else { panic!("void") };
        entry
    }

    async fn told(&mut self) -> Out {
        tokio::time::timeout(SOON, self.out.recv()).await.unwrap().unwrap()
    }
}

fn genesis() -> Request {
    let work = Work::Genesis { plugins: Vec::new() };
    Request { principal: String::new(), asked: Asked::Leader, fence: None, work }
}

fn create(nonce: u8, at: &str) -> Request {
    let path = Path::parse(at).unwrap();
    let op = Op::Create(Create::new(path, Bytes::new()));
    let asked = Asked::Once { nonce: Nonce::new([nonce; 16]), until_ms: 2_000 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

#[tokio::test]
async fn what_waits_goes_to_every_new_leader_in_the_order_of_its_arrival() {
    let bench = start();
    let tokens: Vec<u64> = (1..=5).map(|number| bench.ask(u64::from(number), create(number, "/a"))).collect();
    bench.lead(2).await;
    assert_eq!(bench.requests().await.1, tokens);
    bench.lead(4).await;
    assert_eq!(bench.requests().await.1, tokens);
}

#[tokio::test]
async fn a_duplicate_is_answered_from_what_this_member_applied_and_not_before() {
    let mut bench = start();
    bench.lead(2).await;
    bench.carry_out(&genesis());
    // It was carried out before, at zxid 2. The tables have it, its events are not told yet.
    let entry = bench.apply(&create(1, "/a"));
    let token = bench.ask(1, create(1, "/a"));
    let (source, _) = bench.requests().await;
    source.send(vec![(token, Told::Look(Zxid(2)))]).unwrap();
    // The next word comes after it, and is passed on at once.
    let other = bench.ask(2, create(2, "/b"));
    let (source, _) = bench.requests().await;
    source.send(vec![(other, Told::PushBack(PushBack::Busy))]).unwrap();
    let told = bench.told().await;
    assert!(matches!(told, Out::Fill(2, ServerMessage::PushBack { .. })), "told before it was published: {told:?}");
    bench.publisher.publish(&[entry], &bench.leader).unwrap();
    assert!(matches!(bench.told().await, Out::Fill(1, ServerMessage::Reply { zxid: Zxid(2), .. })));

    // Zxid 3 is something else here than with the leader that named it: the request is sent again.
    let token = bench.ask(3, create(3, "/c"));
    let (source, _) = bench.requests().await;
    source.send(vec![(token, Told::Look(Zxid(3)))]).unwrap();
    bench.carry_out(&create(4, "/d"));
    assert_eq!(bench.requests().await.1, [token]);
    bench.carry_out(&create(3, "/c"));
    assert!(matches!(bench.told().await, Out::Fill(3, ServerMessage::Reply { zxid: Zxid(4), .. })));

    // And a late duplicate of what is answered gets the stored reply.
    let token = bench.ask(4, create(1, "/a"));
    let (source, _) = bench.requests().await;
    source.send(vec![(token, Told::Look(Zxid(4)))]).unwrap();
    assert!(matches!(bench.told().await, Out::Fill(4, ServerMessage::Reply { zxid: Zxid(2), .. })));
}

#[tokio::test]
async fn what_an_earlier_leader_said_is_void() {
    let mut bench = start();
    bench.lead(2).await;
    let token = bench.ask(1, create(1, "/a"));
    let (before, _) = bench.requests().await;
    bench.lead(4).await;
    let (now, tokens) = bench.requests().await;
    assert_eq!(tokens, [token]);
    // Nobody listens to it any more: a client that hears `Until` would ask under another nonce, while the new leader
    // carries this one out.
    assert!(before.send(vec![(token, Told::PushBack(PushBack::Until { now_ms: 9 }))]).is_err());
    now.send(vec![(token, Told::PushBack(PushBack::Busy))]).unwrap();
    let told = bench.told().await;
    assert!(matches!(told, Out::Fill(1, ServerMessage::PushBack { why: PushBack::Busy, .. })), "{told:?}");
}

#[tokio::test]
async fn heartbeats_that_nobody_confirms_are_sent_again() {
    let mut bench = start();
    bench.lead(2).await;
    let session = SessionId(7);
    drop(bench.commands.send(Command::Heartbeat(session, bench.outbox.clone(), 1)));
    let next = async |bench: &mut Bench| match tokio::time::timeout(SOON, bench.leases.recv()).await {
        Ok(Some(sessions::Command::Renew { sessions, reply, .. })) => (sessions, reply),
        Ok(_) => panic!("the forwarder has ended"),
        Err(_) => panic!("the heartbeat was given up"),
    };
    // The leader has only just begun, or finds no quorum: it says nothing.
    let (sessions, unanswered) = next(&mut bench).await;
    assert_eq!(sessions, [session]);
    drop(unanswered);
    drop(bench.commands.send(Command::Heartbeat(session, bench.outbox.clone(), 2)));
    let (sessions, reply) = next(&mut bench).await;
    assert_eq!(sessions, [session]);
    reply(sessions);
    for expected in [1, 2] {
        let told = bench.told().await;
        let Out::Now(ServerMessage::Answer { id, answer: Ok(Answer::Alive), .. }, _) = told else { panic!("{told:?}") };
        assert_eq!(id, expected);
    }
}

#[tokio::test]
async fn a_confirmation_that_comes_after_its_batch_was_sent_again_holds_for_what_was_in_it() {
    let mut bench = start();
    bench.lead(2).await;
    let session = SessionId(7);
    drop(bench.commands.send(Command::Heartbeat(session, bench.outbox.clone(), 1)));
    let next = async |bench: &mut Bench| match tokio::time::timeout(SOON, bench.leases.recv()).await {
        Ok(Some(sessions::Command::Renew { sessions, reply, .. })) => (sessions, reply),
        _ => panic!("no heartbeat came"),
    };
    let (sessions, first) = next(&mut bench).await;
    // Each confirmation takes longer than the forwarder's patience.
    drop(bench.commands.send(Command::Heartbeat(session, bench.outbox.clone(), 2)));
    let (_, second) = next(&mut bench).await;
    first(sessions.clone());
    let told = bench.told().await;
    assert!(matches!(told, Out::Now(ServerMessage::Answer { id: 1, .. }, _)), "{told:?}");
    // The other heartbeat arrived after the first batch: only the second confirms it.
    drop(next(&mut bench).await);
    assert!(bench.out.try_recv().is_err());
    second(sessions);
    let told = bench.told().await;
    assert!(matches!(told, Out::Now(ServerMessage::Answer { id: 2, .. }, _)), "{told:?}");
}

#[tokio::test]
async fn a_route_that_breaks_is_opened_again_once() {
    let mut bench = start();
    bench.follow().await;
    let next = async |bench: &mut Bench| tokio::time::timeout(SOON, bench.other.1.forward.recv()).await;
    // The stream that was opened above ends by itself: it has no reader.
    let mut first = next(&mut bench).await.unwrap().unwrap();
    if let Ok(None) | Err(_) = first.reader.next(limits::PEER_FRAME_BYTES).await {
        first = next(&mut bench).await.unwrap().unwrap();
    }
    // The leader's end goes; the forwarder finds that out twice, by reading and by writing.
    let token = bench.ask(1, create(1, "/a"));
    drop(first);
    let mut second = next(&mut bench).await.unwrap().unwrap();
    let frame = second.reader.next(limits::PEER_FRAME_BYTES).await.unwrap().unwrap();
    let Ok(Up::Requests(envelopes)) = wire::decode(&frame) else { panic!("no requests") };
    assert_eq!(envelopes[0].token, token, "what waits goes to the new route");
    // It stays: a hundred requests more go through it, and no other is opened.
    for number in 2..=100 {
        bench.ask(u64::from(number), create(number, "/a"));
        assert!(matches!(second.reader.next(limits::PEER_FRAME_BYTES).await, Ok(Some(_))), "the route was given up");
    }
    assert!(bench.other.1.forward.try_recv().is_err(), "a second route was opened");
}

#[tokio::test]
async fn a_leader_that_closes_every_stream_is_not_hammered() {
    const STREAMS: u32 = 40;
    let mut bench = start();
    bench.follow().await;
    let began = tokio::time::Instant::now();
    for _ in 0..STREAMS {
        drop(tokio::time::timeout(SOON, bench.other.1.forward.recv()).await.unwrap().unwrap());
    }
    assert!(began.elapsed() > RETRY * STREAMS / 2, "{STREAMS} streams in {:?}", began.elapsed());
}

fn once(op: Op) -> Envelope {
    let asked = Asked::Once { nonce: Nonce::new([1; 16]), until_ms: 1 };
    Envelope { token: 1, request: Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) } }
}

#[test]
fn a_frame_of_requests_is_one_that_the_leader_takes() {
    use conclave_protocol::{ClientMessage, Delete, Step, codec};
    let long = Path::parse(&format!("/{}", "n".repeat(255)).repeat(64)).unwrap();
    let op = Op::Multi(vec![Step::Delete(Delete { path: long, ..Delete::default() }); 250]);
    let message = ClientMessage::Once { id: 1, nonce: Nonce::new([1; 16]), until_ms: 1, fence: None, op: op.clone() };
    assert!(codec::encode(&message).len() <= limits::FRAME_BYTES, "a client may send it");
    let mut envelopes = vec![once(op); 33];
    envelopes.extend(vec![create(1, "/a"); 3].into_iter().map(|request| Envelope { token: 1, request }));
    (1..).zip(&mut envelopes).for_each(|(token, envelope)| envelope.token = token);
    let (frames, too_large) = frames(envelopes);
    assert!(too_large.is_empty());
    for frame in &frames {
        assert!(wire::encode(&Up::Requests(frame.clone())).len() <= limits::PEER_FRAME_BYTES);
    }
    assert_eq!(frames.len(), 34, "the small ones share a frame");
    assert!(frames.iter().flatten().map(|envelope| envelope.token).eq(1..=36));
}

#[tokio::test]
async fn a_request_that_no_frame_holds_is_refused_and_the_others_go_on() {
    let mut bench = start();
    bench.follow().await;
    let path = Path::parse("/a").unwrap();
    let huge = once(Op::Create(Create::new(path, vec![0; limits::PEER_FRAME_BYTES]))).request;
    bench.ask(1, huge);
    bench.ask(2, create(2, "/a"));
    let told = bench.told().await;
    let Out::Fill(1, ServerMessage::Reply { outcome, .. }) = told else { panic!("{told:?}") };
    let outcome: conclave_protocol::Outcome = conclave_protocol::codec::decode(&outcome).unwrap();
    assert!(matches!(outcome, Err(Refusal::Limit { .. })), "{outcome:?}");
    // The first stream may be the one that was opened to see whether the member can be reached.
    loop {
        let mut route = tokio::time::timeout(SOON, bench.other.1.forward.recv()).await.unwrap().unwrap();
        let Ok(Some(frame)) = route.reader.next(limits::PEER_FRAME_BYTES).await else { continue };
        let Ok(Up::Requests(envelopes)) = wire::decode(&frame) else { panic!("no requests") };
        assert_eq!(envelopes.iter().map(|envelope| envelope.token).collect::<Vec<_>>(), [2]);
        return;
    }
}
