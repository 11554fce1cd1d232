//! Rules 6 and 10 at the apply thread: nothing is committed or told before the log has it, and void entries tell nothing.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use conclave_core::entry::Origin;
use conclave_core::memory::{MemTables, NoProcedures};
use conclave_core::plan::{Asked, Planner, Request, Verdict, Work};
use conclave_core::query;
use conclave_log::{MemDisk, Record};
use conclave_protocol::{
    Create, Kind as ZnodeKind, Nonce, Op, Outcome, Path, RequestId, Scope, ServerMessage, WatchId, Zxid, codec,
};
use conclave_store::{Boot, DirLock, Options, Store};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::publish::{Out, Outbox};
use crate::raft::Item;
use crate::watches::ConnectionId;

const CLUSTER: &str = "test";
const ALICE: &str = "spiffe://test/client/alice";
const ONE: ConnectionId = ConnectionId(1);
const LONG: Duration = Duration::from_secs(20);

type Answer = oneshot::Receiver<Result<Vec<Applied>, Fault>>;

/// A member's apply thread on a real store, with a log whose disk can be held up.
struct Bench {
    disk: MemDisk,
    log: conclave_log::Handle,
    store: Store,
    publisher: Arc<Publisher>,
    batches: UnboundedSender<ApplyBatch>,
    out: UnboundedReceiver<Out>,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
        let opened = Store::open(&DirLock::acquire(dir.path()).unwrap(), CLUSTER, &options).unwrap();
        let disk = MemDisk::new();
        let options = conclave_log::Options { segment_bytes: 1 << 20, ahead_bytes: 0, ..Default::default() };
        let (log, votes, recovered) = conclave_log::open(Arc::new(disk.clone()), options.clone()).unwrap();
        let (log, _) = conclave_log::Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
        let publisher = Arc::new(Publisher::new(Zxid(0)));
        let (outbox, here) = Outbox::new(ALICE, None);
        publisher.connect(ONE, outbox);
        let (batches, batches_here) = mpsc::unbounded_channel();
        let applier = Applier {
            tables: opened.writer,
            log: log.clone(),
            clock: Arc::default(),
            live_after: 0,
            publisher: Arc::clone(&publisher),
            lifecycle: mpsc::unbounded_channel().0,
            sessions: std::collections::HashSet::new(),
            planner: planner::prepare().0,
            position: watch::channel(None).0,
        };
        applier.spawn(batches_here).unwrap();
        Self { disk, log, store: opened.store, publisher, batches, out: here, next: 1, _dir: dir }
    }

    /// Puts an entry into the log's queue.
    fn append(&mut self, payload: &Bytes) -> Item {
        let record = Record { index: self.next, term: 1, kind: 0, payload: payload.clone() };
        self.log.append(vec![record], Box::new(|_| {})).unwrap();
        let item = Item { position: Position { term: 1, index: self.next }, kind: Kind::Payload(payload.clone()) };
        self.next += 1;
        item
    }

    fn apply(&self, items: Vec<Item>) -> Answer {
        let (done, answer) = oneshot::channel();
        self.batches.send(ApplyBatch { items, done }).unwrap();
        answer
    }

    fn apply_now(&mut self, payload: &Bytes) -> Vec<Applied> {
        let item = self.append(payload);
        self.apply(vec![item]).blocking_recv().unwrap().unwrap()
    }

    /// A client waits for this request.
    fn wait_for(&self, id: RequestId, request: &Request) {
        let Asked::Once { nonce, .. } = request.asked else { panic!("{request:?}") };
        let origin = Origin::Once { principal: ALICE.to_owned(), nonce };
        self.publisher.submit(ONE, id, origin, request.clone());
    }

    fn zxid(&self) -> Zxid {
        query::state(&self.store.snapshot().unwrap()).unwrap().zxid
    }

    fn told(&mut self) -> Vec<Out> {
        std::iter::from_fn(|| self.out.try_recv().ok()).collect()
    }
}

fn planner() -> (Planner, Bytes) {
    let tables = MemTables::new(CLUSTER);
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Box::new(NoProcedures)).unwrap();
    let work = Work::Genesis { plugins: Vec::new() };
    let genesis = Request { principal: String::new(), asked: Asked::Leader, fence: None, work };
    let first = plan(&mut planner, &genesis);
    (planner, first)
}

fn plan(planner: &mut Planner, request: &Request) -> Bytes {
    assert!(matches!(planner.plan(request, 1_000).unwrap(), Verdict::Planned(_)));
    planner.cut().unwrap().payload
}

fn create(nonce: u8, at: &str) -> Request {
    let path = Path::parse(at).unwrap();
    let op = Op::Create(Create { path, data: Bytes::new(), kind: ZnodeKind::default(), parents: false });
    let asked = Asked::Once { nonce: Nonce::new([nonce; 16]), until_ms: 2_000 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

#[test]
fn nothing_is_committed_or_told_before_the_log_has_written_it() {
    let mut bench = Bench::start();
    let (mut planner, genesis) = planner();
    let request = create(1, "/a");
    let second = plan(&mut planner, &request);
    bench.wait_for(1, &request);

    bench.disk.stall();
    let item = bench.append(&genesis);
    assert!(bench.log.wait_written(1, LONG).unwrap());
    // The log's thread hangs in a sync: the kernel has the first entry, and not the second. A quorum has both.
    assert_eq!(bench.apply(vec![item]).blocking_recv().unwrap().unwrap(), [Applied::Done]);
    let item = bench.append(&second);
    let mut answer = bench.apply(vec![item]);
    assert!(!bench.log.wait_written(2, Duration::from_millis(100)).unwrap());
    assert_eq!(bench.zxid(), Zxid(1), "the tables hold what the log may lose");
    assert_eq!(bench.publisher.published(), Zxid(1));
    assert!(answer.try_recv().is_err(), "it is called applied");
    assert!(bench.told().is_empty(), "a client was told of it");

    bench.disk.release();
    assert_eq!(answer.blocking_recv().unwrap().unwrap(), [Applied::Done]);
    assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(2), Zxid(2)));
    assert!(matches!(bench.told()[..], [Out::Fill(1, ServerMessage::Reply { zxid: Zxid(2), .. })]));
}

#[test]
fn what_is_told_is_in_the_tables_already() {
    let mut bench = Bench::start();
    let (mut planner, genesis) = planner();
    bench.apply_now(&genesis);
    let mut published = bench.publisher.subscribe();
    for number in 0..50 {
        let item = bench.append(&plan(&mut planner, &create(number, &format!("/{number}"))));
        let answer = bench.apply(vec![item]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(published.changed()).unwrap();
        assert!(bench.zxid() >= *published.borrow_and_update());
        answer.blocking_recv().unwrap().unwrap();
    }
}

#[test]
fn a_refusal_planned_over_what_came_to_nothing_is_never_told() {
    let mut bench = Bench::start();
    let (mut leader, genesis) = planner();
    bench.apply_now(&genesis);
    // One request creates the znode, another is refused because of that: planned over what is not committed.
    plan(&mut leader, &create(1, "/a"));
    let late = create(2, "/a");
    let refusal = plan(&mut leader, &late);
    bench.wait_for(7, &late);
    let root = Path::parse("/").unwrap();
    bench.publisher.watch::<Fault>(ONE, WatchId(1), (&root, Scope::Subtree, false), |z, _| Ok(Some(z))).unwrap();
    // The first entry never came into the log; the second did, and is void.
    assert_eq!(bench.apply_now(&refusal), [Applied::Void]);
    assert!(bench.told().is_empty(), "told of a znode that never was");
    assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(1), Zxid(1)));

    let mut again = Planner::new(
        1,
        Box::new(bench.store.snapshot().unwrap()),
        &bench.store.snapshot().unwrap().local().unwrap(),
        Box::new(NoProcedures),
    )
    .unwrap();
    let done = plan(&mut again, &late);
    assert_eq!(bench.apply_now(&done), [Applied::Done]);
    let told = bench.told();
    let [Out::Event(ServerMessage::Event { zxid: Zxid(2), .. }), Out::Fill(7, ServerMessage::Reply { outcome, .. })] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert!(codec::decode::<Outcome>(outcome).unwrap().is_ok());
}
