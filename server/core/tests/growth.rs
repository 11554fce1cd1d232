//! A full disk: what makes the tree larger is refused as a transaction, and all else goes on.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::Table;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Growth, Work};
use conclave_core::view::Base;
use conclave_protocol::{Check, Condition, Create, Delete, Kind, Op, Outcome, Refusal, Set, Step, Zxid};
use proptest::collection::vec;
use proptest::prelude::*;

use support::{Member, code, create, delete, ephemeral, fenced, once, open, own, path, planner, set, write};

const FULL: Growth = Growth::Refused { free_bytes: 7, least_bytes: 9 };

fn filled(text: &str, bytes: usize) -> Create {
    Create { parents: true, ..Create::new(path(text), vec![1; bytes]) }
}

/// With `/a` (5 bytes of data) and `/a/b` (none), on a full disk.
fn full() -> Member {
    let mut member = Member::new();
    member.done(&once(1, 2_000, Op::Create(filled("/a", 5))));
    member.done(&once(2, 2_000, create("/a/b")));
    member.planner.set_growth(FULL);
    member
}

#[test]
fn what_grows_is_refused_and_what_does_not_goes_on() {
    let step = |bytes| Step::Create(filled("/new", bytes));
    let smaller = Step::Delete(Delete { path: path("/a"), if_version: None, recursive: true });
    let check = Step::Check(Check { path: path("/a"), condition: Condition::Version(0) });
    for (op, expected) in [
        (create("/new"), "disk-full"),
        (Op::Create(filled("/x/y/z", 0)), "disk-full"),
        (set("/a", b"123456"), "disk-full"),
        (set("/a/b", b"1"), "disk-full"),
        (set("/a", b"54321"), "done"),
        (set("/a", b""), "done"),
        (delete("/a", true), "done"),
        (delete("/a/b", false), "done"),
        (Op::Multi(vec![check.clone()]), "done"),
        (Op::Multi(vec![check, step(0)]), "disk-full"),
        // As a whole: one znode instead of two, then two instead of two.
        (Op::Multi(vec![step(0), smaller.clone()]), "done"),
        (Op::Multi(vec![smaller, Step::Create(filled("/new/er", 6))]), "disk-full"),
        // What else there is to say is said first.
        (create("/a"), "znode-exists"),
        (create("/none/new"), "no-znode"),
        (set("/none", b"1"), "no-znode"),
        (ephemeral("/e"), "no-session"),
    ] {
        let mut member = full();
        let kept = member.tables.clone();
        let outcome = member.run(&once(3, 2_000, op.clone()));
        assert_eq!(code(&outcome), expected, "{op:?}");
        if expected == "disk-full" {
            assert_eq!(outcome, Err(Refusal::DiskFull { free_bytes: 7, least_bytes: 9 }), "{op:?}");
            for table in [Table::Znode, Table::Data, Table::Child, Table::Owned] {
                assert_eq!(rows(&member.tables, table), rows(&kept, table), "{op:?}: nothing of it is left");
            }
        }
        assert_eq!(member.tables.kept().digest, member.tables.digest().0);
    }
}

#[test]
fn no_session_is_opened_on_a_full_disk_and_every_session_goes_on_and_ends() {
    let mut member = Member::new();
    let (closed, expired) = (member.open(support::ALICE), member.open(support::ALICE));
    for session in [closed, expired] {
        member.done(&write(session, 1, 1, ephemeral(&format!("/{session}"))));
    }
    member.planner.set_growth(FULL);
    assert_eq!(code(&member.run(&open(support::ALICE, 9, 2_000))), "disk-full");
    assert_eq!(code(&member.run(&write(closed, 2, 2, ephemeral("/more")))), "disk-full");
    assert_eq!(code(&member.run(&write(closed, 3, 2, set(&format!("/{closed}"), b"f")))), "done");
    assert_eq!(code(&member.run(&write(closed, 4, 2, Op::Close))), "done");
    member.planned(&own(Work::Expire { session: expired }));
    member.planned(&own(Work::Stamp));
    member.settle();
    assert_eq!(["session", "owned", "znode"].map(|table| count(&member.tables, table)), [0, 0, 1]);
}

#[test]
fn a_refusal_for_a_full_disk_consumes_its_sequence_and_is_the_answer_for_good() {
    let mut member = Member::new();
    let session = member.open(support::ALICE);
    member.planner.set_growth(FULL);
    let request = write(session, 1, 1, create("/a"));
    assert_eq!(code(&member.run(&request)), "disk-full");
    let zxid = member.planner.last();
    member.planner.set_growth(Growth::Allowed);
    assert_eq!(member.plan(&request), conclave_core::plan::Verdict::Look(zxid), "it comes again: its reply is kept");
    assert_eq!(code(&member.run(&write(session, 2, 2, create("/a")))), "done", "there is room again");
    // Without a session too.
    member.planner.set_growth(FULL);
    let request = once(5, 2_000, create("/b"));
    assert_eq!(code(&member.run(&request)), "disk-full");
    let zxid = member.planner.last();
    member.planner.set_growth(Growth::Allowed);
    assert_eq!(member.plan(&request), conclave_core::plan::Verdict::Look(zxid));
}

#[test]
fn a_fence_that_does_not_hold_is_told_of_on_a_full_disk_too() {
    let mut member = full();
    let request = fenced(once(3, 2_000, create("/new")), "/a", Zxid(77));
    assert_eq!(code(&member.run(&request)), "fenced");
}

fn count(tables: &MemTables, name: &str) -> usize {
    let table = Table::ALL.into_iter().find(|table| table.name() == name).unwrap();
    tables.count(table)
}

fn rows(tables: &MemTables, table: Table) -> Vec<(Vec<u8>, Bytes)> {
    tables.scan(table, &[], None, usize::MAX).unwrap()
}

/// What the tree takes, from its tables: znodes first, then bytes of names and data.
fn weight(tables: &MemTables) -> u64 {
    let bytes = |table, key| -> usize {
        rows(tables, table).iter().map(|(name, value)| if key { name.len() - 8 } else { value.len() }).sum()
    };
    let all = tables.count(Table::Znode) * 256 + bytes(Table::Child, true) + bytes(Table::Data, false);
    all as u64 + tables.count(Table::Session) as u64 * 1_000_000
}

fn some_path() -> impl Strategy<Value = String> {
    prop_oneof!["/[ab]", "/[ab]/[cde]", "/[ab]/[cde]/[fg]{1,9}"]
}

fn some_step() -> impl Strategy<Value = Step> {
    let create =
        (some_path(), 0..20_usize, any::<bool>(), any::<bool>()).prop_map(|(at, bytes, sequential, parents)| {
            let kind = Kind { sequential, ..Kind::default() };
            Step::Create(Create { kind, parents, ..filled(&at, bytes) })
        });
    let set = (some_path(), 0..20_usize)
        .prop_map(|(at, bytes)| Step::Set(Set { path: path(&at), data: vec![2; bytes].into(), if_version: None }));
    let delete = (some_path(), any::<bool>())
        .prop_map(|(at, recursive)| Step::Delete(Delete { path: path(&at), if_version: None, recursive }));
    prop_oneof![5 => create, 3 => set, 3 => delete]
}

fn some_op() -> impl Strategy<Value = Op> {
    let one = some_step().prop_map(|step| match step {
        Step::Create(create) => Op::Create(create),
        Step::Set(set) => Op::Set(set),
        Step::Delete(delete) => Op::Delete(delete),
        other => Op::Multi(vec![other]),
    });
    prop_oneof![2 => one, 1 => vec(some_step(), 1..6).prop_map(Op::Multi)]
}

/// What an operation comes to on these tables, and the tables after it.
fn after(tables: &MemTables, growth: Growth, number: u64, op: &Op) -> (Outcome, MemTables) {
    let mut member = Member::new();
    member.tables = tables.clone();
    member.index = tables.kept().applied.unwrap().index;
    member.planner = planner(tables, member.term);
    member.planner.set_growth(growth);
    let outcome = member.run(&once(number, 2_000, op.clone()));
    (outcome, member.tables)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_a_full_disk_all_is_as_it_would_be_except_that_what_grows_is_refused(
        script in vec((some_op(), any::<bool>()), 1..40),
    ) {
        let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
        for ((op, is_full), number) in script.into_iter().zip(1..) {
            let (outcome, with_room) = after(&tables, Growth::Allowed, number, &op);
            let (on_full, without) = after(&tables, FULL, number, &op);
            if weight(&with_room) > weight(&tables) {
                prop_assert_eq!(on_full, Err(Refusal::DiskFull { free_bytes: 7, least_bytes: 9 }));
                prop_assert_eq!(weight(&without), weight(&tables));
            } else {
                prop_assert_eq!(on_full, outcome);
                prop_assert_eq!(without.digest(), with_room.digest());
            }
            tables = if is_full { without } else { with_room };
        }
    }
}

#[test]
fn the_refusal_is_small_enough_for_the_sessions_own_row() {
    let refusal: Outcome = Err(Refusal::DiskFull { free_bytes: u64::MAX, least_bytes: u64::MAX });
    let bytes = conclave_protocol::codec::encode(&refusal).len();
    assert!(bytes * 4 < conclave_protocol::limits::PACKED_REPLY_BYTES, "{bytes}");
    assert!(matches!(
        conclave_protocol::codec::decode(&conclave_protocol::codec::encode(&refusal)),
        Ok(Outcome::Err(_))
    ));
}
