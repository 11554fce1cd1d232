//! The design's rules that are the core's to keep; each test fails without its rule.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::apply::{Applied, Position, Tables, apply, skip};
use conclave_core::entry::{Entry, Origin};
use conclave_core::memory::MemTables;
use conclave_core::plan::{Install, Planner, Verdict, Work};
use conclave_core::query::{self, Stored};
use conclave_core::row::Recorded;
use conclave_core::{Fault, Table, ZnodeId, key};
use conclave_protocol::plugin::ComponentDigest;
use conclave_protocol::{Create, Kind, Op, PushBack, Refusal, SessionId, Step, Value, Zxid, limits};

use support::{
    ALICE, BOB, Member, code, create, delete, ephemeral, fenced, once, open, own, path, planner, set, write,
};

fn get(member: &Member, text: &str) -> Option<Bytes> {
    let query = conclave_protocol::Query::Get { path: path(text) };
    match query::answer(&member.tables, ALICE, &query).unwrap() {
        Ok(conclave_protocol::Answer::Znode { data, .. }) => Some(data),
        _ => None,
    }
}

// Rule 1: the chain.

#[test]
fn an_entry_planned_on_other_rows_is_void_although_its_zxids_fit() {
    let mut member = Member::new();
    // A leader plans zxid 2, restarts in the same term before that is applied, and plans another zxid 2 and a 3.
    let mut restarted = planner(&member.tables, member.term);
    member.planned(&once(1, 2_000, create("/a")));
    member.cut();
    restarted.plan(&once(2, 2_000, create("/b")), 1_000).unwrap();
    restarted.cut().unwrap();
    restarted.plan(&once(3, 2_000, create("/c")), 1_000).unwrap();
    let third = restarted.cut().unwrap();
    member.apply_one().unwrap();
    let before = member.tables.kept().clone();
    assert_eq!(Entry::decode(&third.payload).unwrap().base, query::state(&member.tables).unwrap().zxid);
    assert_eq!(member.apply(&third.payload).unwrap(), Applied::Void);
    assert_eq!(get(&member, "/c"), None);
    // Only the place in the log has moved.
    let after = member.tables.kept().clone();
    assert_eq!(after.applied, Some(Position { term: 2, index: 3 }));
    assert_eq!((after.chain, after.digest), (before.chain, before.digest));
    assert_eq!(code(&member.run(&once(4, 2_000, create("/d")))), "done", "the chain goes on as if it had not been");
}

#[test]
fn an_entry_planned_in_another_term_than_its_place_in_the_log_is_void() {
    let mut member = Member::new();
    member.planned(&once(1, 2_000, create("/a")));
    member.cut();
    member.term = 3;
    assert_eq!(member.apply(&member.cuts[0].payload.clone()).unwrap(), Applied::Void);
    assert_eq!(get(&member, "/a"), None);
    member.term = 2;
    assert!(member.apply_one().is_some(), "it is the term, and nothing else");
}

#[test]
fn an_entry_of_another_cluster_is_void() {
    let own = Work::Genesis { plugins: Vec::new() };
    let one = MemTables::new("one");
    let mut planner = planner(&one, 1);
    planner.plan(&support::own(own), 0).unwrap();
    let cut = planner.cut().unwrap();
    let at = Position { term: 1, index: 1 };
    assert_eq!(apply(&mut MemTables::new("two"), at, &cut.payload).unwrap(), Applied::Void);
    assert!(matches!(apply(&mut one.clone(), at, &cut.payload).unwrap(), Applied::Done(_)));
}

#[test]
fn blank_and_membership_entries_move_the_place_in_the_log_only() {
    let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
    let before = tables.kept().clone();
    skip(&mut tables, Position { term: 2, index: 2 }, None);
    skip(&mut tables, Position { term: 2, index: 3 }, Some(Bytes::from_static(b"members")));
    skip(&mut tables, Position { term: 2, index: 4 }, None);
    let after = tables.kept();
    assert_eq!((after.chain, after.digest), (before.chain, before.digest));
    assert_eq!(after.applied, Some(Position { term: 2, index: 4 }));
    assert_eq!(after.membership, Bytes::from_static(b"members"));
}

#[test]
fn a_hot_row_is_one_row_of_the_entry_and_a_row_that_came_and_went_is_none() {
    let mut member = Member::new();
    for number in 0..20 {
        member.planned(&once(number, 2_000, if number == 0 { create("/hot") } else { set("/hot", &[number as u8]) }));
    }
    member.planned(&once(20, 2_000, create("/gone")));
    member.planned(&once(21, 2_000, delete("/gone", false)));
    member.cut();
    let entry = member.apply_one().unwrap();
    assert_eq!(entry.transactions.len(), 22);
    let count = |table: Table| entry.rows.iter().filter(|row| row.table == table.number()).count();
    assert_eq!(count(Table::Data), 1);
    assert_eq!(count(Table::State), 1);
    assert_eq!(count(Table::Znode), 2, "the root and the hot one: {:?}", entry.rows);
    assert_eq!(count(Table::Child), 1);
}

// Rule 4: the view.

#[test]
fn an_older_base_than_the_last_applied_entry_drops_nothing_that_it_lacks() {
    let mut member = Member::new();
    let old = member.tables.snapshot();
    member.planned(&once(1, 2_000, create("/a")));
    member.cut();
    member.apply_one().unwrap();
    member.planner.rebase(old).unwrap();
    assert!(member.planner.overlay_rows() > 0);
    assert_eq!(code(&member.run(&once(2, 2_000, create("/a")))), "znode-exists");
    assert_eq!(member.planner.overlay_rows(), 0);
}

#[test]
fn what_is_planned_and_not_applied_is_seen_by_the_next_plan() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    member.planned(&once(2, 2_000, delete("/a", false)));
    member.cut();
    member.planned(&once(3, 2_000, create("/b")));
    assert_eq!(code(&member.run(&once(4, 2_000, set("/a", b"x")))), "no-znode");
    assert_eq!(code(&member.run(&once(5, 2_000, delete("/b", false)))), "done");
}

// Rule 5: exactly once, in order.

#[test]
fn a_sequence_below_the_floor_is_dropped_and_one_below_next_is_looked_up() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let first = member.planned(&write(session, 1, 1, create("/a")));
    let second = member.planned(&write(session, 2, 1, create("/b")));
    assert_eq!(member.plan(&write(session, 1, 1, create("/a"))), Verdict::Look(first));
    // What comes again is known by its number, whatever it says now.
    assert_eq!(member.plan(&write(session, 2, 1, create("/other"))), Verdict::Look(second));
    let third = member.planned(&write(session, 3, 2, create("/c")));
    assert_eq!(member.plan(&write(session, 1, 1, create("/a"))), Verdict::Dropped);
    assert_eq!(member.plan(&write(session, 2, 2, create("/b"))), Verdict::Look(second));
    assert_eq!(member.plan(&write(session, 5, 2, create("/d"))), Verdict::PushBack(PushBack::Expected { next: 4 }));
    member.settle();
    let origin = |sequence| Origin::Session { session, sequence };
    let stored = |sequence| query::stored(&member.tables, &origin(sequence)).unwrap();
    assert_eq!(stored(1), Stored::NotYet);
    assert!(matches!(stored(2), Stored::Reply { zxid, .. } if zxid == second));
    assert!(matches!(stored(3), Stored::Reply { zxid, .. } if zxid == third));
    assert_eq!(stored(4), Stored::NotYet);
}

#[test]
fn a_duplicate_survives_a_change_of_leader() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let first = member.planned(&write(session, 1, 1, create("/a")));
    member.settle();
    member.reset();
    assert_eq!(member.plan(&write(session, 1, 1, create("/a"))), Verdict::Look(first));
}

#[test]
fn a_floor_moves_forward_only_and_never_beyond_next() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let row = |member: &Member| query::session(&member.tables, session).unwrap().unwrap();
    member.done(&write(session, 1, u64::MAX, create("/a")));
    assert_eq!((row(&member).floor, row(&member).next), (1, 2));
    member.done(&write(session, 2, 2, create("/b")));
    assert_eq!((row(&member).floor, row(&member).next), (2, 3));
    member.done(&write(session, 3, 0, create("/c")));
    assert_eq!((row(&member).floor, row(&member).next), (2, 4));
}

#[test]
fn a_session_that_is_gone_or_anothers_is_to_be_looked_up_at_the_last_zxid() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    member.planned(&once(1, 2_000, create("/a")));
    let last = member.planner.last();
    assert_eq!(member.plan(&write(SessionId(999), 1, 1, create("/x"))), Verdict::Look(last));
    let stranger = conclave_core::plan::Request { principal: BOB.to_owned(), ..write(session, 1, 1, create("/x")) };
    assert_eq!(member.plan(&stranger), Verdict::Look(last));
    member.planned(&write(session, 1, 1, Op::Close));
    assert_eq!(member.plan(&write(session, 1, 1, Op::Close)), Verdict::Look(member.planner.last()));
    assert_eq!(member.settle().unwrap(), Ok(Value::Closed));
    let stored = query::stored(&member.tables, &Origin::Session { session, sequence: 1 }).unwrap();
    assert_eq!(stored, Stored::SessionOver);
}

#[test]
fn a_session_with_too_many_unacknowledged_replies_is_pushed_back_until_it_acknowledges() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let replies = limits::SESSION_REPLIES as u64;
    for sequence in 1..=replies {
        member.planned(&write(session, sequence, 1, create("/a")));
    }
    member.settle();
    let next = replies + 1;
    assert_eq!(member.plan(&write(session, next, 1, create("/b"))), Verdict::PushBack(PushBack::Busy));
    assert_eq!(member.planner.pending(), 0, "a push-back consumes nothing");
    assert!(member.tables.count(Table::Reply) > 0, "beyond some bytes replies have rows of their own");
    member.done(&write(session, next, next, create("/b")));
    assert_eq!(member.tables.count(Table::Reply), 0);
    let row = query::session(&member.tables, session).unwrap().unwrap();
    assert_eq!((row.floor, row.next, row.packed.len()), (next, next + 1, 1));
}

#[test]
fn a_session_with_too_many_bytes_of_replies_is_pushed_back_until_it_acknowledges() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    // A long path makes a long reply: a multi of many steps a longer one.
    let long = format!("/{}", "n".repeat(255)).repeat(40);
    let parents = Create { parents: true, ..Create::new(path(&long), Bytes::new()) };
    let kind = Kind { sequential: true, ..Kind::default() };
    let step = Create { kind, ..Create::new(path(&format!("{long}/s")), Bytes::new()) };
    let steps = Op::Multi(vec![Step::Create(step); 70]);
    member.done(&write(session, 1, 1, Op::Create(parents)));
    member.done(&write(session, 2, 2, steps.clone()));
    member.planned(&write(session, 3, 2, steps.clone()));
    assert_eq!(member.plan(&write(session, 4, 2, steps.clone())), Verdict::PushBack(PushBack::Busy));
    assert_eq!(code(&member.run(&write(session, 4, 3, steps))), "done");
}

#[test]
fn a_one_shot_write_is_done_once_until_its_time_and_not_after() {
    let mut member = Member::new();
    let zxid = member.planned(&once(1, 2_000, create("/a")));
    assert_eq!(member.plan(&once(1, 2_000, create("/a"))), Verdict::Look(zxid));
    member.settle();
    assert_eq!(member.plan(&once(1, 2_000, create("/a"))), Verdict::Look(zxid));
    let push_back = |now_ms| Verdict::PushBack(PushBack::Until { now_ms });
    assert_eq!(member.plan(&once(2, 1_000, create("/b"))), push_back(1_000));
    assert_eq!(member.plan(&once(2, 61_001, create("/b"))), push_back(1_000));
    assert_eq!(code(&member.run(&once(2, 61_000, create("/b")))), "done");
    assert_eq!(member.plan(&own(Work::Sweep)), Verdict::Dropped, "nothing is due");
    member.now_ms = 2_000;
    member.planned(&own(Work::Sweep));
    member.settle();
    assert_eq!((member.tables.count(Table::Once), member.tables.count(Table::Expiry)), (2, 1), "one, and the count");
    assert_eq!(member.plan(&once(1, 2_000, create("/a"))), push_back(2_000));
}

#[test]
fn forgetting_goes_in_bounded_slices() {
    let mut member = Member::new();
    for number in 0..1_500 {
        member.planned(&once(number, 2_000, create("/a")));
    }
    member.now_ms = 2_000;
    // One more row says how many there are.
    for left in [1_001, 501, 0] {
        member.planned(&own(Work::Sweep));
        member.settle();
        assert_eq!(member.tables.count(Table::Once), left);
    }
    assert_eq!(member.plan(&own(Work::Sweep)), Verdict::Dropped);
}

#[test]
fn anothers_nonce_is_another() {
    let mut member = Member::new();
    member.planned(&once(1, 2_000, create("/a")));
    let request = conclave_core::plan::Request { principal: BOB.to_owned(), ..once(1, 2_000, create("/b")) };
    assert_eq!(code(&member.run(&request)), "done");
}

#[test]
fn a_session_is_opened_once_with_a_timeout_within_limits() {
    let mut member = Member::new();
    let mut request = open(ALICE, 1, 2_000);
    for (number, (wanted, agreed)) in (10..).zip([(0, 2_000), (u64::MAX, 300_000), (9_999, 9_999)]) {
        request =
            conclave_core::plan::Request { work: Work::Open { timeout_ms: wanted }, ..open(ALICE, number, 2_000) };
        let zxid = member.planned(&request);
        let opened = Value::Opened { session: SessionId(zxid.0), timeout_ms: agreed };
        assert_eq!(member.settle().unwrap(), Ok(opened));
    }
    assert_eq!(member.plan(&request), Verdict::Look(member.planner.last()));
    assert_eq!(Planner::sessions(&member.tables).unwrap().len(), 3);
    let mut inside = write(SessionId(2), 1, 1, Op::Close);
    inside.work = Work::Stamp;
    assert_eq!(code(&member.run(&inside)), "bad-request", "what is not a client's is refused");
}

// Rule 6: a refusal is a transaction.

#[test]
fn a_refusal_consumes_its_sequence_and_leaves_nothing_but_its_reply() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let before = member.tables.count(Table::Znode);
    let steps = vec![Step::Create(as_create(create("/a"))), Step::Create(as_create(create("/x/y")))];
    let zxid = member.planned(&write(session, 1, 1, Op::Multi(steps)));
    member.cut();
    let entry = member.apply_one().unwrap();
    assert_eq!(entry.last(), zxid);
    assert_eq!(entry.transactions[0].changes, []);
    let tables: Vec<u8> = entry.rows.iter().map(|row| row.table).collect();
    assert_eq!(tables, [Table::Session.number(), Table::State.number()]);
    assert_eq!(member.tables.count(Table::Znode), before);
    let state = query::state(&member.tables).unwrap();
    assert_eq!((state.zxid, state.znodes, state.next_id), (zxid, 1, 2), "no id is used up");
    assert_eq!(member.plan(&write(session, 1, 1, create("/a"))), Verdict::Look(zxid));
}

fn as_create(op: Op) -> Create {
    match op {
        Op::Create(create) => create,
        other => panic!("{other:?}"),
    }
}

// Rule 8: the digest.

#[test]
fn a_digest_that_differs_is_a_fault_and_so_is_a_row_that_differs() {
    let mut member = Member::new();
    member.planned(&once(1, 2_000, create("/a")));
    member.cut();
    let good = Entry::decode(&member.cuts[0].payload).unwrap();
    let wrong = Entry { digest: good.digest ^ 1, ..good.clone() };
    let mut flipped = good.clone();
    let mut value = flipped.rows[0].value.take().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    flipped.rows[0].value = Some(value.into());
    for bad in [wrong, flipped] {
        // What a fault leaves is dropped by the store: here by the copy.
        let fault = apply(&mut member.tables.clone(), Position { term: 2, index: 2 }, &bad.encode());
        assert!(matches!(fault, Err(Fault::Digest { zxid: Zxid(2), .. })), "{fault:?}");
    }
    assert!(member.apply_one().is_some());
}

#[test]
fn a_state_that_differs_is_found_by_the_next_entry_that_writes_there() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    let mut other = member.tables.clone();
    other.write(Table::Data, &key::znode(ZnodeId(2)), Some(b"never planned")).unwrap();
    member.planned(&once(2, 2_000, set("/a", b"x")));
    member.cut();
    let fault = apply(&mut other, Position { term: 2, index: 3 }, &member.cuts[0].payload);
    assert!(matches!(fault, Err(Fault::Digest { .. })), "{fault:?}");
}

#[test]
fn a_damaged_row_is_a_fault_before_anything_is_planned_on_it() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, set("/", b"root")));
    member.tables.damage(Table::Data, &key::znode(ZnodeId::ROOT), Bytes::from_static(b"r00t"));
    let query = conclave_protocol::Query::Get { path: path("/") };
    assert!(matches!(query::answer(&member.tables, ALICE, &query), Err(Fault::Damaged { table: Table::Data, .. })));
    member.planner.rebase(member.tables.snapshot()).unwrap();
    let fault = member.planner.plan(&once(2, 2_000, set("/", b"again")), 1_000);
    assert!(matches!(fault, Err(Fault::Damaged { table: Table::Data, .. })), "{fault:?}");
    assert!(member.planner.plan(&once(3, 2_000, create("/b")), 1_000).is_err(), "it does not go on after a fault");
}

// Rule 11: time.

#[test]
fn time_never_runs_back_not_even_from_leader_to_leader() {
    let mut member = Member::new();
    member.now_ms = 50_000;
    member.planned(&own(Work::Stamp));
    member.settle();
    assert_eq!(query::state(&member.tables).unwrap().time_ms, 50_000);
    member.now_ms = 10;
    member.done(&once(1, 60_000, create("/a")));
    assert_eq!(query::state(&member.tables).unwrap().time_ms, 50_000);
    member.reset();
    assert_eq!(member.planner.time_ms(), 50_000);
    let expected = Verdict::PushBack(PushBack::Until { now_ms: 50_000 });
    assert_eq!(member.plan(&once(2, 50_000, create("/b"))), expected);
    member.planned(&once(2, 50_001, create("/b")));
    member.cut();
    assert_eq!(member.apply_one().unwrap().time_ms, 50_000);
}

// Rule 12: a session can always end.

fn fill(member: &mut Member, session: SessionId, below: &str) -> (u64, Refusal) {
    let kind = Kind { ephemeral: true, sequential: true, ..Kind::default() };
    let mut sequence = 0;
    let mut step = 1_000;
    loop {
        let create = Create { kind, ..Create::new(path(&format!("{below}/e")), Bytes::new()) };
        sequence += 1;
        match member.run(&write(session, sequence, sequence, Op::Multi(vec![Step::Create(create); step]))) {
            Ok(_) => {}
            Err(_) if step > 1 => step /= 10,
            Err(refusal) => return (query::session(&member.tables, session).unwrap().unwrap().owned, refusal),
        }
    }
}

#[test]
fn a_session_with_all_the_ephemeral_znodes_that_it_may_own_can_end() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let (owned, refusal) = fill(&mut member, session, "");
    assert_eq!(owned, limits::SESSION_EPHEMERALS as u64);
    assert_eq!(refusal.code(), "limit");
    ends_within_a_transaction(&mut member, session, owned);
}

#[test]
fn a_session_with_ephemeral_znodes_on_the_longest_paths_can_end() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let below = format!("/{}", "n".repeat(255)).repeat(limits::DEPTH - 1);
    let create = Create { parents: true, ..as_create(create(&below)) };
    member.done(&once(9, 2_000, Op::Create(create)));
    let (owned, refusal) = fill(&mut member, session, &below);
    assert!((100..limits::SESSION_EPHEMERALS as u64).contains(&owned), "{owned}");
    assert_eq!(refusal.code(), "limit");
    ends_within_a_transaction(&mut member, session, owned);
}

#[test]
fn a_session_whose_end_leaves_containers_on_the_longest_paths_can_end() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let below = format!("/{}", "n".repeat(255)).repeat(limits::DEPTH - 2);
    let container = Kind { container: true, ..Kind::default() };
    for sequence in 1.. {
        let parent = format!("{below}/{sequence:0255}");
        let new = Create { kind: container, parents: true, ..Create::new(path(&parent), Bytes::new()) };
        member.planned(&once(sequence, 2_000, Op::Create(new)));
        let refused = member.run(&write(session, sequence, sequence, ephemeral(&format!("{parent}/{sequence:0255}"))));
        if let Err(refusal) = refused {
            assert_eq!(refusal.code(), "limit");
            assert!(sequence > 100, "{sequence}");
            ends_within_a_transaction(&mut member, session, sequence - 1);
            break;
        }
    }
    // Each of them is looked at in time.
    member.now_ms += 1_000;
    let sweeps = (0..99).take_while(|_| member.plan(&own(Work::Sweep)) != Verdict::Dropped).count();
    assert!(sweeps < 99, "sweeps come to an end");
    member.settle();
    assert_eq!(query::state(&member.tables).unwrap().znodes, limits::DEPTH as u64 - 1 + 1, "the last one had no child");
}

fn ends_within_a_transaction(member: &mut Member, session: SessionId, owned: u64) {
    let znodes = query::state(&member.tables).unwrap().znodes;
    member.planned(&own(Work::Expire { session }));
    member.cut();
    let bytes = member.cuts[0].payload.len();
    assert!(bytes <= limits::TRANSACTION_BYTES, "{bytes} bytes");
    member.apply_one().unwrap();
    assert_eq!(query::state(&member.tables).unwrap().znodes, znodes - owned);
    for table in [Table::Owned, Table::Session, Table::Reply] {
        assert_eq!(member.tables.count(table), 0);
    }
    assert_eq!(member.plan(&own(Work::Expire { session })), Verdict::Dropped, "it ends once");
}

// Rule 13: genesis.

#[test]
fn genesis_is_the_first_transaction_and_only_that() {
    let component = Bytes::from(vec![7; 600_000]);
    let install =
        Install { name: "counter".to_owned(), digest: ComponentDigest([3; 32]), component: component.clone() };
    let genesis = own(Work::Genesis { plugins: vec![install] });
    let mut tables = MemTables::new("test");
    let mut planner = planner(&tables, 1);
    assert_eq!(planner.plan(&once(1, 10, create("/a")), 0).unwrap(), Verdict::PushBack(PushBack::NotReady));
    assert_eq!(planner.plan(&own(Work::Stamp), 0).unwrap(), Verdict::PushBack(PushBack::NotReady));
    assert_eq!(planner.plan(&genesis, 5).unwrap(), Verdict::Planned(Zxid(1)));
    assert_eq!(planner.plan(&genesis, 5).unwrap(), Verdict::Dropped);
    let cut = planner.cut().unwrap();
    apply(&mut tables, Position { term: 1, index: 1 }, &cut.payload).unwrap();
    assert_eq!(support::planner(&tables, 2).plan(&genesis, 5).unwrap(), Verdict::Dropped);
    let plugins = query::plugins(&tables).unwrap();
    assert_eq!(plugins.len(), 1);
    let version = &plugins[0].1.info.version;
    assert_eq!((plugins[0].0.as_str(), version.digest), ("counter", ComponentDigest([3; 32])));
    let kept = query::component(&tables, &version.digest, version.component_bytes).unwrap();
    assert_eq!(kept, Some(component));
    assert_eq!(tables.kept().digest, tables.digest().0);
}

// Fences and ephemerals.

#[test]
fn a_fence_holds_for_the_very_znode_that_it_names_and_no_later_one() {
    let mut member = Member::new();
    let first = member.planned(&once(1, 2_000, create("/holder")));
    member.settle();
    assert_eq!(code(&member.run(&fenced(once(2, 2_000, set("/", b"1")), "/holder", first))), "done");
    member.done(&once(3, 2_000, delete("/holder", false)));
    assert_eq!(code(&member.run(&fenced(once(4, 2_000, set("/", b"2")), "/holder", first))), "fenced");
    let second = member.planned(&once(5, 2_000, create("/holder")));
    member.settle();
    let refused = member.run(&fenced(once(6, 2_000, set("/", b"3")), "/holder", first));
    assert!(matches!(refused, Err(Refusal::Fenced { actual: Some(actual), .. }) if actual == second));
    assert_eq!(get(&member, "/").unwrap(), Bytes::from_static(b"1"));
}

#[test]
fn an_ephemeral_znode_goes_with_its_session_and_counts_for_it_until_anyone_deletes_it() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    member.done(&write(session, 1, 1, ephemeral("/e")));
    member.done(&write(session, 2, 2, ephemeral("/e/child")));
    member.done(&write(session, 3, 3, ephemeral("/f")));
    assert_eq!(code(&member.run(&write(session, 4, 4, create("/e/stays")))), "ephemeral-parent");
    assert_eq!(code(&member.run(&once(1, 2_000, ephemeral("/g")))), "no-session");
    assert_eq!(code(&member.run(&once(2, 2_000, delete("/e", true)))), "done");
    let row = query::session(&member.tables, session).unwrap().unwrap();
    assert_eq!((row.owned, member.tables.count(Table::Owned)), (1, 1));
    member.planned(&own(Work::Expire { session }));
    member.cut();
    let changes: Vec<Recorded> = member.apply_one().unwrap().transactions.remove(0).changes;
    assert_eq!(changes.len(), 1);
    assert_eq!(get(&member, "/f"), None);
}
