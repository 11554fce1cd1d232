//! What connections are told, in which order: rule 7, and what becomes of those that are slow.
#![allow(clippy::unwrap_used)]

use conclave_core::digest::Chain;
use conclave_core::entry::Transaction;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Work};
use conclave_protocol::{Change, ChangeKind, Nonce, Path, Scope, limits};
use tokio::sync::mpsc;

use super::*;

const ALICE: &str = "spiffe://test/client/alice";
const ONE: ConnectionId = ConnectionId(1);

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn changed(at: &str) -> Recorded {
    Recorded { change: Change { kind: ChangeKind::Data, path: path(at), version: 0 }, acl: 0, beside: 0 }
}

fn origin(number: u8) -> Origin {
    Origin::Once { principal: ALICE.to_owned(), nonce: Nonce::new([number; 16]) }
}

fn request(number: u8) -> Request {
    let asked = Asked::Once { nonce: Nonce::new([number; 16]), until_ms: 0 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Stamp }
}

/// An entry whose transactions each change `/a` and come from these requests.
fn entry(base: u64, origins: &[u8]) -> Entry {
    let transaction = |number: &u8| Transaction {
        origin: origin(*number),
        changes: vec![changed("/a")],
        outcome: Bytes::from_static(b"outcome"),
    };
    Entry {
        term: 1,
        prev: Chain(0),
        base: Zxid(base),
        time_ms: 0,
        transactions: origins.iter().map(transaction).collect(),
        rows: Vec::new(),
        digest: 0,
    }
}

fn connect(publisher: &Publisher, connection: ConnectionId) -> (Outbox, mpsc::UnboundedReceiver<Out>) {
    let (outbox, here) = Outbox::new(ALICE, None);
    publisher.connect(connection, outbox.clone());
    (outbox, here)
}

fn watch(id: u64, at: &str, scope: Scope) -> WatchRequest {
    WatchRequest::new(WatchId(id), path(at), scope)
}

fn watch_all(publisher: &Publisher, connection: ConnectionId) {
    publisher.watch(connection, &watch(1, "/", Scope::Subtree));
}

fn publish(publisher: &Publisher, entries: &[Entry]) {
    publisher.publish(entries, &MemTables::default()).unwrap();
}

/// What was told, in words.
fn told(here: &mut mpsc::UnboundedReceiver<Out>) -> Vec<String> {
    let word = |out| match out {
        Out::Event(_, body) => format!("event {}", body.zxid()),
        Out::Resync(_, zxid) => format!("resync {zxid}"),
        Out::Fill(id, ServerMessage::Reply { zxid, .. }) => format!("reply {id} at {zxid}"),
        Out::Fill(id, ServerMessage::PushBack { why, .. }) => format!("push-back {id} {why:?}"),
        Out::Completed(ServerMessage::Completed { sequence, zxid, .. }, _) => format!("completed {sequence} at {zxid}"),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(|| here.try_recv().ok()).map(word).collect()
}

/// What the writer makes of a marker: which watch is to read the state at which zxid.
fn resync(publisher: &Publisher, marker: &Out) -> Option<(u64, u64)> {
    let Out::Lagging(watch, debt) = marker else { panic!("{marker:?}") };
    match publisher.caught_up(ONE, *watch, *debt)? {
        ServerMessage::Resync { watch, zxid } => Some((watch.0, zxid.0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_come_before_replies_of_their_zxid_or_a_later_one() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    publisher.submit(ONE, 1, origin(1), request(1));
    publisher.submit(ONE, 2, origin(3), request(3));
    publish(&publisher, &[entry(4, &[1, 2]), entry(6, &[3])]);
    assert_eq!(told(&mut here), ["event 5", "reply 1 at 5", "event 6", "event 7", "reply 2 at 7"]);
    assert_eq!(publisher.published(), Zxid(7));
}

#[test]
fn whoever_waits_for_a_zxid_finds_its_events_queued() {
    // A read that waits with `reached`, and then fills its slot, comes after them.
    let publisher = Arc::new(Publisher::new(Zxid(4)));
    let (outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    let reader = {
        let publisher = Arc::clone(&publisher);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(runtime.block_on(publisher.reached(Zxid(5_004))));
            outbox.send(Out::Last(ServerMessage::PushBack { id: 9, why: PushBack::Busy }));
        })
    };
    // All in one, which takes a while: long enough for the reader to be woken too early.
    publish(&publisher, &[entry(4, &[1; 5_000])]);
    reader.join().unwrap();
    let told = told(&mut here);
    let read = told.iter().position(|word| word.contains("id: 9")).unwrap();
    let event = told.iter().position(|word| word == "event 5004").unwrap();
    assert!(event < read, "an answer of zxid 5004 came before its event");
}

#[test]
fn a_request_that_comes_again_takes_the_place_of_the_first() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    let (_other, mut there) = connect(&publisher, ConnectionId(2));
    let first = publisher.submit(ONE, 1, origin(1), request(1));
    let second = publisher.submit(ConnectionId(2), 5, origin(1), request(1));
    assert_eq!(told(&mut here), ["push-back 1 Busy"]);
    assert!(publisher.waiting(first).is_none());
    assert_eq!(publisher.waiting(second).unwrap().0, origin(1));
    publish(&publisher, &[entry(4, &[1])]);
    publish(&publisher, &[entry(5, &[1])]);
    assert_eq!((told(&mut here), told(&mut there)), (vec![], vec!["reply 5 at 5".to_owned()]));
}

#[test]
fn a_slow_connection_is_told_to_read_again_and_misses_nothing_after_that() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    outbox.queued.pretend(limits::QUEUED_EVENTS);
    publish(&publisher, &[entry(4, &[1, 2])]);
    publisher.submit(ONE, 9, origin(1), request(1));
    publish(&publisher, &[entry(6, &[1])]);
    // What the writer does: the marker stands before the reply that knows of what was left out.
    let Ok(marker @ Out::Lagging(..)) = here.try_recv() else { panic!("no marker") };
    assert_eq!(told(&mut here), ["reply 9 at 7"]);
    outbox.queued.pretend(0);
    assert_eq!(resync(&publisher, &marker), Some((1, 7)));
    assert_eq!(resync(&publisher, &marker), None, "it is said once");
    publish(&publisher, &[entry(7, &[1])]);
    assert_eq!(told(&mut here), ["event 8"]);
    assert_eq!(publisher.counts().resyncs, 1);
}

#[test]
fn what_a_watch_is_told_after_a_resync_is_newer() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    publisher.watch(ONE, &watch(1, "/a", Scope::Data));
    publisher.watch(ONE, &watch(2, "/b", Scope::Data));
    // As many as may wait; the change of /a is left out.
    outbox.queued.pretend(limits::QUEUED_EVENTS);
    publish(&publisher, &[transaction(4, vec![changed("/a")])]);
    // One of those is written: /b is told once more, then there is no room again.
    outbox.queued.pretend(limits::QUEUED_EVENTS - 1);
    publish(&publisher, &[transaction(5, vec![changed("/b")]), transaction(6, vec![changed("/b")])]);
    let mut told = Vec::new();
    while let Ok(out) = here.try_recv() {
        match out {
            Out::Event(watch, body) => told.push((watch.0, body.zxid().0)),
            marker => told.extend(resync(&publisher, &marker)),
        }
    }
    assert_eq!(told, [(1, 7), (2, 6), (2, 7)]);
}

#[test]
fn what_was_owed_to_a_watch_is_not_owed_to_the_next_one_of_its_number() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    outbox.queued.pretend(limits::QUEUED_EVENTS);
    publish(&publisher, &[entry(4, &[1])]);
    let before = here.try_recv().unwrap();
    outbox.queued.pretend(0);
    watch_all(&publisher, ONE);
    publish(&publisher, &[entry(5, &[1])]);
    assert_eq!(told(&mut here), ["event 6"]);
    // Behind again, before the writer comes to the first marker.
    outbox.queued.pretend(limits::QUEUED_EVENTS);
    publish(&publisher, &[entry(6, &[1])]);
    let now = here.try_recv().unwrap();
    assert_eq!((resync(&publisher, &before), resync(&publisher, &now)), (None, Some((1, 7))));
}

#[test]
fn a_one_shot_watch_that_had_its_event_is_over_and_counts_no_more() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    publisher.watch(ONE, &WatchRequest { once: true, ..watch(2, "/a", Scope::Data) });
    assert_eq!(publisher.watches(ONE), 2);
    publish(&publisher, &[entry(4, &[1])]);
    publish(&publisher, &[entry(5, &[1])]);
    assert_eq!(told(&mut here), ["event 5", "event 5", "event 6"]);
    assert_eq!(publisher.watches(ONE), 1);
}

#[test]
fn the_end_of_a_session_ends_its_connection_after_its_own_reply() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    outbox.session.store(9, Ordering::SeqCst);
    publisher.connect(ONE, outbox);
    publisher.submit(ONE, 1, origin(1), request(1));
    let key = 9_u64.to_be_bytes().to_vec();
    let row = conclave_core::entry::RowWrite { table: Table::Session.number(), key, value: None };
    publish(&publisher, &[Entry { rows: vec![row], ..entry(4, &[1]) }]);
    let told = told(&mut here);
    assert_eq!(told[0], "reply 1 at 5");
    assert!(told[1].contains("SessionOver"), "{told:?}");
}

#[test]
fn of_the_sessions_that_a_connection_opens_it_carries_the_last() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    for (number, session) in [(1, 8), (2, 9)] {
        let open = Request { work: Work::Open { timeout_ms: 1 }, ..request(number) };
        let token = publisher.submit(ONE, u64::from(number), origin(number), open);
        let value = Value::Opened { session: SessionId(session), timeout_ms: 1 };
        publisher.deliver_stored(token, Zxid(4), codec::encode(&Outcome::Ok(value)).into());
    }
    assert_eq!(told(&mut here), ["reply 1 at 4", "reply 2 at 4"]);
    assert_eq!(outbox.session(), Some(SessionId(9)));
    publisher.over(SessionId(8));
    assert!(here.try_recv().is_err(), "it was sent away for a session that it does not carry any more");
    publisher.over(SessionId(9));
    assert!(told(&mut here)[0].contains("SessionOver"));
}

#[test]
fn who_has_gone_leaves_nothing_behind_and_others_keep_what_is_theirs() {
    let publisher = Publisher::new(Zxid(4));
    let (gone, _) = Outbox::new(ALICE, Some(SessionId(3)));
    publisher.connect(ONE, gone);
    watch_all(&publisher, ONE);
    publisher.submit(ONE, 1, origin(1), request(1));
    // The session's next connection comes before the end of the first is noticed.
    let (outbox, mut here) = Outbox::new(ALICE, Some(SessionId(3)));
    publisher.connect(ConnectionId(2), outbox);
    publisher.submit(ConnectionId(2), 1, origin(2), request(2));
    publisher.disconnect(ONE);
    let counts = publisher.counts();
    assert_eq!((counts.connections, counts.watches, counts.waiting), (1, 0, 1));
    publisher.over(SessionId(3));
    assert!(told(&mut here)[0].contains("SessionOver"));
}

// What is told to whom: access lists, filters, data.

/// Tables where everybody may read `/a`, and only Bob what lies below it.
fn guarded() -> (MemTables, u32) {
    use conclave_core::apply::{Position, apply};
    use conclave_core::memory::NoPlugins;
    use conclave_core::plan::Planner;
    use conclave_protocol::{AccessList, Create, Grant, Op, Permissions, Who};

    let bob = AccessList(vec![Grant { who: Who::Principal("bob".to_owned()), may: Permissions::ALL }]);
    let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
    let creates = [Create::new(path("/a"), "v"), Create { acl: Some(bob), ..Create::new(path("/a/b"), "secret") }];
    for (nonce, create) in (1..).zip(creates) {
        let asked = Asked::Once { nonce: Nonce::new([nonce; 16]), until_ms: 1_000 };
        let work = Work::Op(Op::Create(create));
        planner.plan(&Request { principal: "bob".to_owned(), asked, fence: None, work }, 1).unwrap();
    }
    let payload = planner.cut().unwrap().payload;
    let changes = Entry::decode(&payload).unwrap().transactions[1].changes.clone();
    apply(&mut tables, Position { term: 1, index: 2 }, &payload).unwrap();
    (tables, changes[0].acl)
}

/// One transaction with these changes.
fn transaction(base: u64, changes: Vec<Recorded>) -> Entry {
    let transaction = Transaction { origin: Origin::Leader, changes, outcome: Bytes::new() };
    Entry { transactions: vec![transaction], ..entry(base, &[]) }
}

/// The events that a connection was told of: watch, paths, data.
fn events(here: &mut mpsc::UnboundedReceiver<Out>) -> Vec<(u64, Vec<String>, Vec<Option<Bytes>>)> {
    let outs = std::iter::from_fn(|| here.try_recv().ok());
    let mut events: Vec<_> = outs
        .map(|out| match out {
            Out::Event(watch, body) => {
                let ServerMessage::Event { changes, present, .. } = body.message(watch) else { panic!("no event") };
                let paths = changes.iter().map(|change| change.path.to_string()).collect();
                (watch.0, paths, present.into_iter().map(|one| one.map(|one| one.data)).collect())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    events.sort();
    events
}

fn principals(publisher: &Publisher, names: [&str; 2]) -> [mpsc::UnboundedReceiver<Out>; 2] {
    let mut connection = 0;
    names.map(|name| {
        let (outbox, here) = Outbox::new(name, None);
        connection += 1;
        publisher.connect(ConnectionId(connection), outbox);
        here
    })
}

#[test]
fn a_watch_is_told_only_of_what_its_owner_may_read_and_a_one_shot_watch_waits_for_that() {
    let (tables, bobs) = guarded();
    let publisher = Publisher::new(Zxid(4));
    let [mut alice, mut bob] = principals(&publisher, ["alice", "bob"]);
    for connection in [ConnectionId(1), ConnectionId(2)] {
        publisher.watch(connection, &watch(1, "/", Scope::Subtree));
        publisher.watch(connection, &WatchRequest { once: true, ..watch(2, "/a", Scope::Subtree) });
    }
    let secret = Recorded { acl: bobs, beside: bobs, ..changed("/a/b") };
    let told_beside = Recorded { acl: bobs, beside: 0, ..changed("/a/c") };
    let changes = vec![secret.clone(), changed("/a"), told_beside];
    publisher.publish(&[transaction(4, vec![secret]), transaction(5, changes)], &tables).unwrap();
    let words = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let all = events(&mut alice);
    assert_eq!(all, [(1, words(&["/a", "/a/c"]), vec![]), (2, words(&["/a"]), vec![])]);
    let all = events(&mut bob);
    assert_eq!(
        all,
        [(1, words(&["/a/b"]), vec![]), (1, words(&["/a/b", "/a", "/a/c"]), vec![]), (2, words(&["/a/b"]), vec![])]
    );
    assert_eq!((publisher.watches(ConnectionId(1)), publisher.watches(ConnectionId(2))), (1, 1));
}

#[test]
fn a_watch_with_data_gets_what_its_owner_may_read_and_all_get_the_same_bytes() {
    let (tables, _) = guarded();
    let publisher = Publisher::new(Zxid(4));
    let [mut alice, mut bob] = principals(&publisher, ["alice", "bob"]);
    for connection in [ConnectionId(1), ConnectionId(2)] {
        for id in 1..=50 {
            publisher.watch(connection, &WatchRequest { data: true, ..watch(id, "/", Scope::Subtree) });
        }
    }
    // Whoever sees that it changed may not be allowed to read it by now.
    let changes = vec![changed("/a"), changed("/a/b"), changed("/gone")];
    publisher.publish(&[transaction(4, changes)], &tables).unwrap();
    let (alice, bob) = (events(&mut alice), events(&mut bob));
    assert_eq!((alice.len(), bob.len()), (50, 50));
    let v = Some(Bytes::from_static(b"v"));
    assert!(alice.iter().all(|(.., data)| *data == [v.clone(), None, None]), "{:?}", alice[0]);
    assert!(bob.iter().all(|(.., data)| *data == [v.clone(), Some(Bytes::from_static(b"secret")), None]));
    let at = |data: &[Option<Bytes>]| data[0].as_ref().unwrap().as_ptr();
    let shared = at(&alice[0].2);
    assert!(alice.iter().chain(&bob).all(|(.., data)| at(data) == shared), "the data were copied");
}

#[test]
fn a_client_that_never_reads_is_owed_a_resync_for_each_watch_and_no_more_events_are_kept() {
    let limits = Limits { queued_event_bytes: 1 << 20, ..Limits::default() };
    let publisher = Publisher::with(Zxid(4), limits);
    let (_outbox, mut here) = connect(&publisher, ONE);
    for id in 1..=10 {
        publisher.watch(ONE, &watch(id, "/", Scope::Subtree));
    }
    let long: Vec<Recorded> = (0..1_000).map(|n| changed(&format!("/{n}/{}", "x".repeat(200)))).collect();
    for base in 4..104 {
        publish(&publisher, &[transaction(base, long.clone())]);
    }
    let (markers, events): (Vec<_>, Vec<_>) =
        std::iter::from_fn(|| here.try_recv().ok()).partition(|out| matches!(out, Out::Lagging(..)));
    assert!((3..=10).contains(&events.len()), "{} events of a quarter of a MiB wait", events.len());
    let mut resyncs: Vec<_> = markers.iter().map(|marker| resync(&publisher, marker)).collect();
    resyncs.sort_unstable();
    assert_eq!(resyncs, (1..=10).map(|watch| Some((watch, 104))).collect::<Vec<_>>());
}

#[test]
fn an_event_that_is_too_large_is_a_resync() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    let name = format!("/{}", "x".repeat(250)).repeat(40);
    let huge = (0..1_000).map(|n| changed(&format!("{name}/{n}"))).collect();
    publish(&publisher, &[transaction(4, huge)]);
    let marker = here.try_recv().unwrap();
    assert_eq!(resync(&publisher, &marker), Some((1, 5)));
    publish(&publisher, &[entry(5, &[1])]);
    assert_eq!(told(&mut here), ["event 6"]);
}

// Ends of parked calls.

const NINE: SessionId = SessionId(9);

/// An entry of one transaction of this origin.
fn of(base: u64, origin: Origin) -> Entry {
    let transaction = Transaction { origin, changes: vec![changed("/a")], outcome: Bytes::from_static(b"outcome") };
    Entry { transactions: vec![transaction], ..entry(base, &[]) }
}

fn completion(base: u64, sequence: u64) -> Entry {
    of(base, Origin::Completion { session: NINE, sequence })
}

/// A write of the session.
fn write(sequence: u64) -> (Origin, Request) {
    let asked = Asked::Session { session: NINE, sequence, floor: 1, completed: Vec::new() };
    (Origin::Session { session: NINE, sequence }, Request { asked, ..request(1) })
}

fn attach(publisher: &Publisher, completions: Vec<Completion>) -> mpsc::UnboundedReceiver<Out> {
    let (outbox, here) = Outbox::new(ALICE, Some(NINE));
    publisher.connect_and(ONE, outbox, |_| Ok(completions)).unwrap();
    here
}

#[test]
fn the_end_of_a_parked_call_comes_behind_its_events_and_the_reply_that_it_parked() {
    let publisher = Publisher::new(Zxid(4));
    let mut here = attach(&publisher, Vec::new());
    watch_all(&publisher, ONE);
    let (origin, request) = write(1);
    publisher.submit(ONE, 1, origin.clone(), request);
    publish(&publisher, &[of(4, origin), completion(5, 1)]);
    let told = told(&mut here);
    assert_eq!(told[..3], ["event 5", "reply 1 at 5", "event 6"]);
    assert_eq!(told[3..], ["completed 1 at 6"]);
}

#[test]
fn the_end_of_a_call_whose_request_was_sent_again_waits_for_its_reply() {
    let publisher = Publisher::new(Zxid(4));
    let mut here = attach(&publisher, Vec::new());
    // It parked before this connection came; the client does not know that yet, and asks again.
    let (origin, request) = write(1);
    let token = publisher.submit(ONE, 1, origin, request);
    publish(&publisher, &[completion(4, 1)]);
    assert_eq!(told(&mut here), [""; 0], "an end before the beginning");
    publisher.deliver_stored(token, Zxid(3), Bytes::from_static(b"parked"));
    assert_eq!(told(&mut here), ["reply 1 at 3", "completed 1 at 5"]);
}

#[test]
fn a_client_that_attaches_is_told_of_the_ends_that_are_published_and_of_each_once() {
    let publisher = Publisher::new(Zxid(4));
    let end = |sequence, zxid| (sequence, Zxid(zxid), Bytes::from_static(b"outcome"));
    // The tables hold zxid 5 a moment before it is published.
    let mut here = attach(&publisher, vec![end(1, 4), end(2, 5), end(3, 2)]);
    assert_eq!(told(&mut here), ["completed 3 at 2", "completed 1 at 4"]);
    publish(&publisher, &[completion(4, 2)]);
    assert_eq!(told(&mut here), ["completed 2 at 5"]);
}

#[test]
fn the_end_of_a_call_is_told_to_nobody_but_who_carries_its_session() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    publish(&publisher, &[completion(4, 1)]);
    assert_eq!(told(&mut here), [""; 0]);
}

#[test]
fn an_installed_state_tells_of_the_ends_that_came_with_it_and_of_no_older_ones() {
    use conclave_core::apply::Tables;
    use conclave_core::{key, row};
    use conclave_protocol::plugin::ComponentDigest;

    let session = row::Session {
        principal: ALICE.to_owned(),
        timeout_ms: 5_000,
        floor: 1,
        next: 4,
        owned: 0,
        owned_bytes: 0,
        reply_bytes: 0,
        calls: 3,
        parked: 0,
        packed: Vec::new(),
    };
    let ended = |zxid| row::Parked {
        plugin: "lock".to_owned(),
        digest: ComponentDigest::default(),
        allowed: Vec::new(),
        procedure: "lock".to_owned(),
        args: Bytes::new(),
        root: Path::root(),
        ticket: Zxid(2),
        since_ms: 0,
        phase: row::Phase::Completed(row::Reply { zxid: Zxid(zxid), outcome: Bytes::from_static(b"outcome") }),
    };
    let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
    let state = row::State { zxid: Zxid(9), next_id: 2, znodes: 1, ..row::State::default() };
    let mut rows = vec![
        (Table::State, key::STATE.to_vec(), row::encode(&state)),
        (Table::Session, key::session(NINE).to_vec(), row::encode(&session)),
    ];
    for (sequence, zxid) in [(1, 4), (2, 9), (3, 6)] {
        rows.push((Table::Parked, key::parked(NINE, sequence).to_vec(), row::encode(&ended(zxid))));
    }
    for (table, key, row) in rows {
        tables.write(table, &key, Some(&row)).unwrap();
    }
    let publisher = Publisher::new(Zxid(4));
    let mut here = attach(&publisher, Vec::new());
    publisher.installed(&tables).unwrap();
    assert_eq!(told(&mut here), ["completed 3 at 6", "completed 2 at 9"]);
}
