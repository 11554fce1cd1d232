//! What connections are told, in which order: rule 7, and what becomes of those that are slow.
#![allow(clippy::unwrap_used)]

use conclave_core::digest::Chain;
use conclave_core::entry::Transaction;
use conclave_core::plan::{Asked, Work};
use conclave_protocol::{Change, ChangeKind, Nonce, Path};

use super::*;

const ALICE: &str = "spiffe://test/client/alice";
const ONE: ConnectionId = ConnectionId(1);

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
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
        changes: vec![Change { kind: ChangeKind::Data, path: path("/a"), version: 0 }],
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

fn watch_all(publisher: &Publisher, connection: ConnectionId) {
    let told = publisher
        .watch::<()>(connection, WatchId(1), (&path("/"), Scope::Subtree, false), |published, _| Ok(Some(published)));
    told.unwrap().unwrap();
}

/// What was told, in words.
fn told(here: &mut mpsc::UnboundedReceiver<Out>) -> Vec<String> {
    let word = |out| match out {
        Out::Event(ServerMessage::Event { zxid, .. }) => format!("event {zxid}"),
        Out::Event(ServerMessage::Resync { zxid, .. }) => format!("resync {zxid}"),
        Out::Fill(id, ServerMessage::Reply { zxid, .. }) => format!("reply {id} at {zxid}"),
        Out::Fill(id, ServerMessage::PushBack { why, .. }) => format!("push-back {id} {why:?}"),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(|| here.try_recv().ok()).map(word).collect()
}

#[test]
fn events_come_before_replies_of_their_zxid_or_a_later_one() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    publisher.submit(ONE, 1, origin(1), request(1));
    publisher.submit(ONE, 2, origin(3), request(3));
    publisher.publish(&[entry(4, &[1, 2]), entry(6, &[3])]);
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
    publisher.publish(&[entry(4, &[1; 5_000])]);
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
    publisher.publish(&[entry(4, &[1])]);
    publisher.publish(&[entry(5, &[1])]);
    assert_eq!((told(&mut here), told(&mut there)), (vec![], vec!["reply 5 at 5".to_owned()]));
}

#[test]
fn a_slow_connection_is_told_to_read_again_and_misses_nothing_after_that() {
    let publisher = Publisher::new(Zxid(4));
    let (outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    outbox.queued.store(limits::QUEUED_EVENTS, Ordering::SeqCst);
    publisher.publish(&[entry(4, &[1, 2])]);
    publisher.submit(ONE, 9, origin(1), request(1));
    publisher.publish(&[entry(6, &[1])]);
    // What the writer does: the marker stands before the reply that knows of what was left out.
    assert!(matches!(here.try_recv(), Ok(Out::Lagging)));
    assert_eq!(told(&mut here), ["reply 9 at 7"]);
    outbox.queued.store(0, Ordering::SeqCst);
    let resyncs = publisher.caught_up(ONE);
    assert!(matches!(resyncs[..], [ServerMessage::Resync { zxid: Zxid(7), .. }]), "{resyncs:?}");
    publisher.publish(&[entry(7, &[1])]);
    assert_eq!(told(&mut here), ["event 8"]);
    assert_eq!(publisher.counts().resyncs, 1);
}

#[test]
fn a_one_shot_watch_that_had_its_event_is_over_and_counts_no_more() {
    let publisher = Publisher::new(Zxid(4));
    let (_outbox, mut here) = connect(&publisher, ONE);
    watch_all(&publisher, ONE);
    let once = |published, _: &mut dyn FnMut(Out)| Ok::<_, ()>(Some(published));
    publisher.watch(ONE, WatchId(2), (&path("/a"), Scope::Data, true), once).unwrap();
    let mut watches = vec![WatchId(1), WatchId(2)];
    publisher.forget_over(ONE, &mut watches);
    assert_eq!(watches.len(), 2);
    publisher.publish(&[entry(4, &[1])]);
    publisher.publish(&[entry(5, &[1])]);
    assert_eq!(told(&mut here), ["event 5", "event 5", "event 6"]);
    publisher.forget_over(ONE, &mut watches);
    assert_eq!(watches, [WatchId(1)]);
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
    publisher.publish(&[Entry { rows: vec![row], ..entry(4, &[1]) }]);
    let told = told(&mut here);
    assert_eq!(told[0], "reply 1 at 5");
    assert!(told[1].contains("SessionOver"), "{told:?}");
}
