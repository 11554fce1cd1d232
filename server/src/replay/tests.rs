//! Watches that resume: no gap, no repeat, whatever is published meanwhile; at the client's pace; cancelled; refused.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use conclave_core::apply::{Position, apply};
use conclave_core::entry::Entry;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_protocol::{ChangeKind, Create, Nonce, Op, Path, Scope, Set};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::outbox::Amount;

const ALICE: &str = "alice";
const ONE: ConnectionId = ConnectionId(1);
const SOON: Duration = Duration::from_secs(20);

/// A member's tables and publisher, a connection, and its watches that resume.
struct Bench {
    tables: Arc<Mutex<MemTables>>,
    publisher: Arc<Publisher>,
    planner: Planner,
    index: u64,
    outbox: Outbox,
    here: UnboundedReceiver<Out>,
    replays: Replays,
    /// Whether a leader can be asked.
    reachable: Arc<AtomicBool>,
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn request(number: u64, op: Op) -> Request {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let asked = Asked::Once { nonce: Nonce::new(nonce), until_ms: 10_000 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

impl Bench {
    /// With `/a` and `/b`; zxid 3.
    fn start(limits: Limits) -> Self {
        let tables = MemTables::with_root("test", Vec::new()).unwrap();
        let planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
        let tables = Arc::new(Mutex::new(tables));
        let publisher = Arc::new(Publisher::with(Zxid(1), limits));
        let (outbox, here) = Outbox::new(ALICE, None);
        publisher.connect(ONE, outbox.clone());
        let reachable = Arc::new(AtomicBool::new(true));
        let past = Past {
            publisher: Arc::clone(&publisher),
            limits,
            snapshot: {
                let tables = Arc::clone(&tables);
                Arc::new(move || Ok(tables.lock().unwrap().snapshot()))
            },
            catch_up: {
                let reachable = Arc::clone(&reachable);
                Arc::new(move || {
                    let reachable = Arc::clone(&reachable);
                    Box::pin(async move { reachable.load(Ordering::SeqCst) })
                })
            },
            readers: Arc::new(Semaphore::new(1)),
            fault: Arc::new(|fault| panic!("{fault}")),
        };
        let replays = Replays::new(past, ONE, outbox.clone());
        let mut bench = Self { tables, publisher, planner, index: 1, outbox, here, replays, reachable };
        bench.write([Op::Create(Create::new(path("/a"), "")), Op::Create(Create::new(path("/b"), ""))]);
        bench
    }

    /// Plans, applies and publishes these as one entry.
    fn write(&mut self, ops: impl IntoIterator<Item = Op>) {
        for (number, op) in (0..).zip(ops) {
            self.planner.plan(&request(self.index << 32 | number, op), 1).unwrap();
        }
        self.index += 1;
        let payload = self.planner.cut().unwrap().payload;
        let mut tables = self.tables.lock().unwrap();
        apply(&mut *tables, Position { term: 1, index: self.index }, &payload).unwrap();
        let base = tables.snapshot();
        drop(tables);
        self.publisher.publish(&[Entry::decode(&payload).unwrap()], &*base).unwrap();
    }

    /// Sets `/a` so often.
    fn set(&mut self, times: usize) {
        let set = Op::Set(Set { path: path("/a"), data: "v".into(), if_version: None });
        self.write(std::iter::repeat_n(set, times));
    }

    fn resume(&self, id: RequestId, watch: u64, at: &str, since: u64) {
        let request = WatchRequest { since: Some(Zxid(since)), ..watch_of(watch, at) };
        self.replays.start(id, request);
    }

    /// What comes until this request is answered, events that are written counted as written.
    async fn until(&mut self, id: RequestId) -> (Vec<(u64, u64)>, ServerMessage) {
        self.take_until(id, true).await
    }

    /// The same of a client that takes nothing.
    async fn until_unwritten(&mut self, id: RequestId) -> (Vec<(u64, u64)>, ServerMessage) {
        self.take_until(id, false).await
    }

    async fn take_until(&mut self, id: RequestId, is_written: bool) -> (Vec<(u64, u64)>, ServerMessage) {
        let mut events = Vec::new();
        loop {
            let out = timeout(SOON, self.here.recv()).await.unwrap().unwrap();
            if is_written {
                let mut written = Amount::default();
                written.add(&out);
                self.outbox.queued.sub(written);
            }
            match out {
                Out::Event(watch, body) => events.push((watch.0, body.zxid().0)),
                Out::Resync(watch, zxid) => events.push((watch.0, 1_000_000 + zxid.0)),
                Out::Fill(of, message) if of == id => return (events, message),
                Out::Fill(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn watch_of(watch: u64, at: &str) -> WatchRequest {
    WatchRequest::new(WatchId(watch), path(at), Scope::Subtree)
}

fn stands(message: &ServerMessage) -> Zxid {
    let ServerMessage::Answer { zxid, answer: Ok(Answer::Watching), .. } = message else { panic!("{message:?}") };
    *zxid
}

#[tokio::test]
async fn watches_that_resume_are_told_everything_once_while_writes_go_on() {
    let mut bench = Bench::start(Limits::default());
    bench.set(3_000);
    bench.resume(1, 1, "/a", 3);
    bench.resume(2, 2, "/", 1_000);
    bench.resume(3, 3, "/b", 0);
    let mut events = Vec::new();
    // While it is under way there is always more to be told.
    for _ in 0..20 {
        bench.set(50);
        tokio::task::yield_now().await;
        while let Ok(out) = bench.here.try_recv() {
            match out {
                Out::Event(watch, body) => events.push((watch.0, body.zxid().0)),
                Out::Fill(id, message) => events.push((100 + id, stands(&message).0)),
                other => panic!("{other:?}"),
            }
        }
    }
    if !events.iter().any(|(watch, _)| *watch == 103) {
        events.extend(bench.until(3).await.0);
    }
    bench.set(1);
    while let Ok(Out::Event(watch, body)) = bench.here.try_recv() {
        events.push((watch.0, body.zxid().0));
    }
    let of = |watch| events.iter().filter(|(of, _)| *of == watch).map(|(_, zxid)| *zxid).collect::<Vec<_>>();
    let last = bench.publisher.published().0;
    assert_eq!(of(1), (4..=last).collect::<Vec<_>>());
    assert_eq!(of(2), (1_001..=last).collect::<Vec<_>>());
    assert_eq!(of(3), [3], "the creation of /b, and nothing of /a");
}

#[tokio::test]
async fn filters_and_one_shot_watches_hold_for_the_past_too() {
    let mut bench = Bench::start(Limits::default());
    bench.set(300);
    let kinds = Some(conclave_protocol::Kinds::of(&[ChangeKind::Created]));
    bench.replays.start(1, WatchRequest { kinds, since: Some(Zxid(0)), ..watch_of(1, "/") });
    let (events, message) = bench.until(1).await;
    assert_eq!((events, stands(&message)), (vec![(1, 1), (1, 2), (1, 3)], Zxid(303)));
    let data = [ChangeKind::Data];
    let once = WatchRequest { kinds: Some(conclave_protocol::Kinds::of(&data)), once: true, ..watch_of(2, "/") };
    bench.replays.start(2, WatchRequest { since: Some(Zxid(1)), ..once });
    assert_eq!(bench.until(2).await.0, [(2, 4)]);
    assert_eq!(bench.publisher.watches(ONE), 1, "the one-shot watch has had its event");
}

#[tokio::test]
async fn what_no_member_has_seen_is_refused_and_what_nobody_can_tell_is_pushed_back() {
    let mut bench = Bench::start(Limits::default());
    bench.resume(1, 1, "/", 4);
    bench.resume(2, 2, "/", 3);
    let (_, message) = bench.until(1).await;
    let refused = Err(Refusal::FutureZxid { zxid: Zxid(4), last: Zxid(3) });
    assert_eq!(message, ServerMessage::Answer { id: 1, zxid: Zxid(3), answer: refused });
    stands(&bench.until(2).await.1);
    bench.reachable.store(false, Ordering::SeqCst);
    bench.resume(3, 3, "/", 4);
    assert!(matches!(bench.until(3).await.1, ServerMessage::PushBack { why: PushBack::NotReady, .. }));
    assert_eq!((bench.publisher.watches(ONE), bench.replays.count()), (1, 0));
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_resync_for_those_who_would_have_been_told() {
    let mut bench = Bench::start(Limits::default());
    for _ in 0..21 {
        bench.set(5_000);
    }
    // 105,003 transactions, of which 100,000 are kept.
    bench.resume(1, 1, "/", 10);
    bench.resume(2, 2, "/", 105_000);
    bench.replays.start(3, WatchRequest { once: true, since: Some(Zxid(11)), ..watch_of(3, "/") });
    let (events, message) = bench.until(3).await;
    let of = |watch| events.iter().filter(|(of, _)| *of == watch).map(|(_, zxid)| *zxid).collect::<Vec<_>>();
    assert_eq!(of(1), [1_105_003]);
    assert_eq!(of(2), [105_001, 105_002, 105_003]);
    assert_eq!(of(3), [1_105_003]);
    assert_eq!(stands(&message), Zxid(105_003));
    assert_eq!(bench.publisher.watches(ONE), 2);
}

#[tokio::test]
async fn the_past_is_told_no_faster_than_the_client_takes_it_and_not_at_all_once_it_is_not_wanted() {
    let limits = Limits { queued_events: 100, ..Limits::default() };
    let mut bench = Bench::start(limits);
    bench.set(5_000);
    bench.resume(1, 1, "/a", 3);
    // Nobody writes anything: it stops.
    let full = tokio::time::Instant::now() + SOON;
    while bench.outbox.queued.events() < 100 {
        assert!(tokio::time::Instant::now() < full, "only {} events", bench.outbox.queued.events());
        tokio::task::yield_now().await;
    }
    assert!(bench.replays.cancel(WatchId(1)));
    let (events, message) = bench.until(1).await;
    stands(&message);
    assert_eq!(events, (4..104).map(|zxid| (1, zxid)).collect::<Vec<_>>());
    assert_eq!((bench.publisher.watches(ONE), bench.replays.count()), (0, 0));
    bench.set(1);
    assert!(bench.here.try_recv().is_err(), "a watch that was ended was told of something");
}

#[tokio::test]
async fn a_watch_that_is_started_anew_meanwhile_takes_the_place_of_the_one_before() {
    let mut bench = Bench::start(Limits::default());
    bench.set(500);
    bench.resume(1, 1, "/a", 3);
    bench.resume(2, 1, "/b", 2);
    let (mut events, message) = bench.until(2).await;
    stands(&message);
    events.retain(|(_, zxid)| *zxid == 3);
    assert_eq!(events, [(1, 3)], "the creation of /b");
    assert_eq!(bench.publisher.watches(ONE), 1);
    bench.set(1);
    assert!(bench.here.try_recv().is_err(), "the first one stands still");
}

#[tokio::test]
async fn watches_that_are_all_behind_the_history_cost_one_pass() {
    use std::sync::atomic::AtomicUsize;

    use conclave_core::{Table, key, row};
    const COUNT: u64 = 2_000;
    let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
    let state = row::State { zxid: Zxid(200_000), next_id: 2, znodes: 1, ..row::State::default() };
    let kept = row::Kept { lost: Zxid(100_000), bytes: 0 };
    for (table, key, row) in
        [(Table::State, key::STATE, row::encode(&state)), (Table::Change, &key::KEPT[..], row::encode(&kept))]
    {
        conclave_core::apply::Tables::write(&mut tables, table, key, Some(&row)).unwrap();
    }
    let mut bench = Bench::start(Limits::default());
    let publisher = Arc::new(Publisher::with(Zxid(200_000), Limits::default()));
    publisher.connect(ONE, bench.outbox.clone());
    let reads = Arc::new(AtomicUsize::new(0));
    let past = Past {
        publisher: Arc::clone(&publisher),
        limits: Limits::default(),
        snapshot: {
            let reads = Arc::clone(&reads);
            Arc::new(move || {
                reads.fetch_add(1, Ordering::SeqCst);
                Ok(tables.snapshot())
            })
        },
        catch_up: Arc::new(|| Box::pin(async { true })),
        readers: Arc::new(Semaphore::new(1)),
        fault: Arc::new(|fault| panic!("{fault}")),
    };
    bench.replays = Replays::new(past, ONE, bench.outbox.clone());
    (1..=COUNT).for_each(|n| bench.resume(n, n, "/a", n));
    let (events, _) = bench.until(COUNT).await;
    assert_eq!(events, (1..=COUNT).map(|n| (n, 1_200_000)).collect::<Vec<_>>());
    let reads = reads.load(Ordering::SeqCst);
    assert!(reads < 10, "{reads} reads of the history");
    assert_eq!(publisher.watches(ONE) as u64, COUNT);
}

#[tokio::test]
async fn the_last_transactions_are_no_way_around_the_bound_on_events() {
    const COUNT: u64 = 2_000;
    let limits = Limits { queued_events: 100, ..Limits::default() };
    let mut bench = Bench::start(limits);
    bench.set(40);
    (1..=COUNT).for_each(|n| bench.resume(n, n, "/", 3));
    let (events, message) = bench.until_unwritten(COUNT).await;
    assert_eq!(stands(&message), Zxid(43));
    assert!(events.len() as u64 <= 100 + COUNT, "{} events wait, 100 may", events.len());
    // Whatever a watch was told, it ends with the last one, or with the word to read the state there.
    for watch in 1..=COUNT {
        let last = events.iter().rfind(|(of, _)| *of == watch).map(|(_, zxid)| *zxid);
        assert!(matches!(last, Some(43 | 1_000_043)), "watch {watch} ends with {last:?}");
    }
    assert_eq!(bench.publisher.watches(ONE) as u64, COUNT);
}

#[tokio::test]
async fn watches_that_are_being_resumed_are_counted_with_their_patterns() {
    let mut bench = Bench::start(Limits::default());
    let names = Some("a*".parse().unwrap());
    bench.replays.start(1, WatchRequest { names, since: Some(Zxid(0)), ..watch_of(1, "/") });
    bench.resume(2, 2, "/", 0);
    assert_eq!((bench.replays.count(), bench.replays.patterns()), (2, 1));
    bench.until(2).await;
    assert_eq!((bench.replays.count(), bench.replays.patterns()), (0, 0));
    assert_eq!((bench.publisher.watches(ONE), bench.publisher.patterns(ONE)), (2, 1));
}
