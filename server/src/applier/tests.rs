//! Rules 6 and 10 at the apply thread: nothing is committed or told before the log has it, and void entries tell nothing.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use conclave_core::entry::Origin;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Verdict, Work};
use conclave_core::query;
use conclave_log::{MemDisk, Record};
use conclave_protocol::{
    Create, Nonce, Op, Outcome, Path, RequestId, Scope, ServerMessage, WatchId, WatchRequest, Zxid, codec,
};
use conclave_store::{Boot, Checkpoints, DirLock, Options, Store};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::digests::Verdict as Ruling;
use crate::outbox::{Out, Outbox};
use crate::raft::{ApplyBatch, Install, Item};
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
    checkpoints: Checkpoints,
    publisher: Arc<Publisher>,
    batches: UnboundedSender<ApplyCommand>,
    /// What the other members will say.
    verdict: Arc<Mutex<Ruling>>,
    out: UnboundedReceiver<Out>,
    /// How often it was told that rows of plugins were written.
    plugins: Arc<AtomicUsize>,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
        let lock = DirLock::acquire(dir.path()).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        let opened = Store::open(&lock, CLUSTER, &checkpoints, &options).unwrap();
        let disk = MemDisk::new();
        let options = conclave_log::Options { segment_bytes: 1 << 20, ahead_bytes: 0, ..Default::default() };
        let (log, votes, recovered) = conclave_log::open(Arc::new(disk.clone()), options.clone()).unwrap();
        let (log, _) = conclave_log::Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
        let verdict = Arc::new(Mutex::new(Ruling::Nobody));
        let publisher = Arc::new(Publisher::new(Zxid(0)));
        let (outbox, here) = Outbox::new(ALICE, None);
        publisher.connect(ONE, outbox);
        let (batches, batches_here) = mpsc::unbounded_channel();
        let plugins = Arc::<AtomicUsize>::default();
        let applier = Applier {
            stopping: Arc::default(),
            tables: opened.writer,
            store: opened.store.clone(),
            log: log.clone(),
            clock: Arc::default(),
            live_after: 0,
            publisher: Arc::clone(&publisher),
            lifecycle: mpsc::unbounded_channel().0,
            sessions: HashSet::new(),
            planner: planner::prepare().0,
            position: watch::channel(None).0,
            computed: Computed::default(),
            steps: Steps::default(),
            judge: {
                let verdict = Arc::clone(&verdict);
                Box::new(move |_, _, _| *verdict.lock().unwrap())
            },
            plugins: {
                let plugins = Arc::clone(&plugins);
                Box::new(move || {
                    plugins.fetch_add(1, Ordering::SeqCst);
                })
            },
            faults: Box::new(|_| {}),
            full: Box::new(|| false),
        };
        applier.spawn(batches_here).unwrap();
        Self {
            disk,
            log,
            store: opened.store,
            checkpoints,
            publisher,
            batches,
            verdict,
            out: here,
            plugins,
            next: 1,
            _dir: dir,
        }
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
        self.batches.send(ApplyCommand::Batch(ApplyBatch { items, done })).unwrap();
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
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
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
    let op = Op::Create(Create::new(path, Bytes::new()));
    let asked = Asked::Once { nonce: Nonce::new([nonce; 16]), until_ms: 2_000 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

#[test]
fn who_has_components_ready_is_told_of_rows_of_plugins_and_of_nothing_else() {
    let mut bench = Bench::start();
    let tables = MemTables::new(CLUSTER);
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
    let plugin = conclave_core::plan::Install {
        name: "p".to_owned(),
        digest: conclave_protocol::plugin::ComponentDigest::default(),
        component: Bytes::from_static(b"p"),
    };
    let work = Work::Genesis { plugins: vec![plugin] };
    let genesis = plan(&mut planner, &Request { principal: String::new(), asked: Asked::Leader, fence: None, work });
    let second = plan(&mut planner, &create(1, "/a"));
    bench.apply_now(&genesis);
    assert_eq!(bench.plugins.load(Ordering::SeqCst), 1);
    bench.apply_now(&second);
    assert_eq!(bench.plugins.load(Ordering::SeqCst), 1, "each write would wake the compile thread");
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
    bench.publisher.watch(ONE, &WatchRequest::new(WatchId(1), Path::root(), Scope::Subtree));
    // The first entry never came into the log; the second did, and is void.
    assert_eq!(bench.apply_now(&refusal), [Applied::Void]);
    assert!(bench.told().is_empty(), "told of a znode that never was");
    assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(1), Zxid(1)));

    let mut again = Planner::new(
        1,
        Box::new(bench.store.snapshot().unwrap()),
        &bench.store.snapshot().unwrap().local().unwrap(),
        Arc::new(NoPlugins),
    )
    .unwrap();
    let done = plan(&mut again, &late);
    assert_eq!(bench.apply_now(&done), [Applied::Done]);
    let told = bench.told();
    let [Out::Event(WatchId(1), event), Out::Fill(7, ServerMessage::Reply { outcome, .. })] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(event.zxid(), Zxid(2));
    assert!(codec::decode::<Outcome>(outcome).unwrap().is_ok());
}

/// The same entry, by a planner that computes another digest.
fn lying(payload: &Bytes) -> Bytes {
    let mut entry = Entry::decode(payload).unwrap();
    entry.digest ^= 1;
    entry.encode()
}

#[test]
fn a_majority_that_computed_the_same_keeps_its_own_digest_and_applies_the_rows() {
    let mut bench = Bench::start();
    let (mut planner, genesis) = planner();
    *bench.verdict.lock().unwrap() = Ruling::Mine;
    let first = plan(&mut planner, &create(1, "/a"));
    let (genesis, lied) = (bench.append(&genesis), bench.append(&lying(&first)));
    let applied = bench.apply(vec![genesis, lied]).blocking_recv().unwrap().unwrap();
    assert_eq!(applied, [Applied::Done, Applied::Done]);
    let snapshot = bench.store.snapshot().unwrap();
    assert_eq!(snapshot.zxid().unwrap(), Zxid(2));
    let digest = snapshot.local().unwrap().digest;
    assert_eq!(digest, Entry::decode(&first).unwrap().digest, "not what the rows come to");
    assert_eq!(snapshot.scrub().unwrap().0, digest);
}

#[test]
fn a_majority_that_agrees_on_another_digest_ends_this_member_with_what_came_before_committed() {
    for ruling in [Ruling::Theirs, Ruling::Nobody] {
        let mut bench = Bench::start();
        let (mut planner, genesis) = planner();
        *bench.verdict.lock().unwrap() = ruling;
        let first = lying(&plan(&mut planner, &create(1, "/a")));
        let (genesis, lied) = (bench.append(&genesis), bench.append(&first));
        let fault = bench.apply(vec![genesis, lied]).blocking_recv().unwrap().unwrap_err();
        assert_eq!(matches!(fault, Fault::Digest { zxid: Zxid(2), .. }), ruling == Ruling::Theirs, "{fault}");
        assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(1), Zxid(1)));
    }
}

#[test]
fn a_planner_that_computed_another_digest_than_the_majority_stops_with_its_entry_applied() {
    let mut bench = Bench::start();
    let (mut planner, genesis) = planner();
    *bench.verdict.lock().unwrap() = Ruling::MineAndPlanned;
    let first = lying(&plan(&mut planner, &create(1, "/a")));
    let (genesis, lied) = (bench.append(&genesis), bench.append(&first));
    let fault = bench.apply(vec![genesis, lied]).blocking_recv().unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Invariant(_)), "{fault}");
    assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(2), Zxid(2)));
}

#[test]
fn an_installed_checkpoint_answers_who_waits_and_tells_watches_what_they_missed() {
    let mut ahead = Bench::start();
    let mut bench = Bench::start();
    let (mut planner, genesis) = planner();
    ahead.apply_now(&genesis);
    bench.apply_now(&genesis);
    bench.publisher.watch(ONE, &WatchRequest::new(WatchId(1), Path::root(), Scope::Subtree));
    let (done, lost) = (create(1, "/a"), create(3, "/c"));
    bench.wait_for(7, &done);
    bench.wait_for(8, &lost);
    ahead.apply_now(&plan(&mut planner, &done));
    ahead.apply_now(&plan(&mut planner, &create(2, "/b")));
    let old = bench.store.snapshot().unwrap();

    let checkpoint = ahead.checkpoints.make(&ahead.store, &mut |_| ControlFlow::Continue(())).unwrap();
    let (told, answer) = oneshot::channel();
    bench.batches.send(ApplyCommand::Install(Install { checkpoint, done: told })).unwrap();
    answer.blocking_recv().unwrap().unwrap();

    assert_eq!((bench.zxid(), bench.publisher.published()), (Zxid(3), Zxid(3)));
    assert_eq!(old.zxid().unwrap(), Zxid(1), "a snapshot changed while it was held");
    let told = bench.told();
    let [Out::Event(_, first), Out::Event(_, second), Out::Fill(7, ServerMessage::Reply { zxid: Zxid(2), .. })] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((first.zxid(), second.zxid()), (Zxid(2), Zxid(3)));
    assert_eq!(bench.publisher.counts().waiting, 1, "what is not in the checkpoint goes on waiting");
    // The tables are those of the checkpoint, and the log goes on from there.
    let next = plan(&mut planner, &lost);
    bench.next = ahead.next;
    bench.log.purge_upto(conclave_log::Position { index: bench.next - 1, term: 1 }, Box::new(|_| {})).unwrap();
    assert_eq!(bench.apply_now(&next), [Applied::Done]);
    assert_eq!(bench.publisher.counts().waiting, 0);
}
