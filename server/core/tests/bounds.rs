//! What one principal can take from the others is bounded: lists, replies, time of the leader, the size of an entry.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use conclave_core::memory::NoPlugins;
use conclave_core::plan::{Planner, Request, Verdict, Work};
use conclave_core::view::{Base, Row};
use conclave_core::{Fault, Table};
use conclave_protocol::limits::{self, Limits};
use conclave_protocol::{
    AccessList, Call, Check, Condition, Create, Edit, Grant, Kind, Op, Outcome, Permissions, Prune, PushBack, Refusal,
    SetAcl, Step, Update, Value, Who,
};

use support::{ALICE, BOB, Member, by, code, create, delete, ephemeral, once, own, path, set, set_acl, write};

fn run(member: &mut Member, who: &str, op: Op) -> Outcome {
    let (number, until_ms) = (100_000 + member.planner.last().0, member.now_ms + 1_000);
    member.run(&by(who, once(number, until_ms, op)))
}

fn limit(outcome: &Outcome) -> (u64, u64) {
    match outcome {
        Err(Refusal::Limit { limit, actual, .. }) => (*limit, *actual),
        Err(Refusal::Step { cause, .. }) => limit(&Err(Refusal::clone(cause))),
        other => panic!("{other:?}"),
    }
}

/// Sets these lists at `/`, each with everybody and somebody else.
fn lists(numbers: std::ops::Range<usize>) -> Op {
    let grant = |who| Grant { who, may: Permissions::ALL };
    let list = |number| AccessList(vec![grant(Who::Anyone), grant(Who::Principal(format!("p{number}")))]);
    let step = |number| Step::Acl(SetAcl { path: path("/bobs"), acl: list(number), if_acl_version: None });
    Op::Multi(numbers.map(step).collect())
}

#[test]
fn a_transaction_brings_so_many_new_access_lists_and_uses_known_ones_as_it_likes() {
    let mut member = Member::new();
    run(&mut member, BOB, create("/bobs")).unwrap();
    assert_eq!(limit(&run(&mut member, BOB, lists(0..17))), (16, 17));
    assert_eq!(member.tables.count(Table::Acl), 0);
    run(&mut member, BOB, lists(0..16)).unwrap();
    run(&mut member, BOB, lists(0..32)).unwrap();
    run(&mut member, BOB, lists(0..32)).unwrap();
    assert_eq!(member.tables.count(Table::Acl), 32);
}

#[test]
fn the_last_tenth_of_all_access_lists_is_kept_for_administrators() {
    let mut member = Member::new();
    member.planner.set_limits(Limits { access_lists: 20, ..Limits::default() });
    run(&mut member, BOB, create("/bobs")).unwrap();
    run(&mut member, ALICE, set_acl("/", "alice:crwda anyone:r")).unwrap();
    run(&mut member, BOB, lists(0..16)).unwrap();
    run(&mut member, BOB, lists(16..17)).unwrap();
    assert_eq!(limit(&run(&mut member, BOB, lists(17..18))), (18, 19));
    run(&mut member, ALICE, lists(17..19)).unwrap();
    assert_eq!(limit(&run(&mut member, ALICE, lists(19..20))), (20, 21));
}

#[test]
fn a_sequence_goes_on_behind_many_names_made_by_hand_in_longer_and_longer_steps() {
    let mut member = Member::new();
    run(&mut member, ALICE, create("/q")).unwrap();
    let by_hand = |n: u64| Step::Create(Create::new(path(&format!("/q/p{n:010}")), Bytes::new()));
    let kind = Kind { sequential: true, ..Kind::default() };
    let next = Op::Create(Create { kind, ..Create::new(path("/q/p"), Bytes::new()) });
    let mut made = |hands: std::ops::Range<u64>| {
        run(&mut member, ALICE, Op::Multi(hands.map(by_hand).collect())).unwrap();
        match run(&mut member, ALICE, next.clone()).unwrap() {
            Value::Created { path, .. } => path.as_str().trim_start_matches("/q/p").parse::<u64>().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(made(0..16), 16, "one by one at first");
    assert_eq!(made(17..37), 17 + 16 + 2 + 4, "then by 2, by 4");
    // To 1,024 in ten steps, and by so much from there on.
    let from = 40 + 16;
    assert_eq!(made(40..5_000), from + 2_046 + 3 * 1_024);
}

#[test]
fn deletes_count_the_sessions_that_lose_ephemeral_znodes() {
    let mut member = Member::new();
    run(&mut member, ALICE, create("/top")).unwrap();
    for number in 0..100 {
        let who = format!("{}{number}", "p".repeat(100_000));
        let session = member.open(&who);
        member.done(&by(&who, write(session, 1, 1, ephemeral(&format!("/top/{number}")))));
    }
    let refused = run(&mut member, ALICE, delete("/top", true));
    assert_eq!(limit(&refused).0, limits::TRANSACTION_BYTES as u64);
    let mut left = 101;
    while left > 0 {
        let number = 500_000 + member.planner.last().0;
        member.planned(&once(number, 2_000, Op::Prune(Prune { path: path("/top"), limit: 1_000 })));
        assert!(member.planner.pending_bytes() <= limits::TRANSACTION_BYTES, "{left} left");
        let Some(Ok(Value::Pruned { count, .. })) = member.settle() else { panic!() };
        assert!(count > 0);
        left -= count;
    }
}

#[test]
fn what_a_transaction_compares_and_edits_is_bounded_however_short_its_steps() {
    let mut member = Member::new();
    let data = Bytes::from(vec![b'x'; limits::DATA_BYTES - 10_000]);
    run(&mut member, ALICE, set("/", &data)).unwrap();
    let update = |edit| Step::Update(Update { path: path("/"), edit, if_version: None, or_create: false });
    let is = |data| Step::Check(Check { path: path("/"), condition: Condition::Data(data) });
    let append = update(Edit::Append(Bytes::from_static(b"y")));
    for step in [append.clone(), is(data.clone())] {
        let refused = run(&mut member, ALICE, Op::Multi(vec![step.clone(); limits::MULTI_STEPS]));
        assert_eq!(limit(&refused).0, limits::EDITED_BYTES as u64, "{step:?}");
        run(&mut member, ALICE, Op::Multi(vec![step; 20])).unwrap();
        run(&mut member, ALICE, set("/", &data)).unwrap();
    }
    // Short data is not bounded by more than the number of steps.
    run(&mut member, ALICE, create("/n")).unwrap();
    let add = Step::Update(Update { path: path("/n"), edit: Edit::Add(1), if_version: None, or_create: false });
    run(&mut member, ALICE, Op::Multi(vec![add; limits::MULTI_STEPS])).unwrap();
    // Data of another length is another, and is not read to say so.
    let other = Bytes::from_static(b"guess");
    for step in [is(other.clone()), update(Edit::Swap { expected: other, data: Bytes::new() })] {
        let refused = run(&mut member, ALICE, Op::Multi(vec![step])).unwrap_err();
        assert_eq!(refused.code(), "check-failed");
        assert!(refused.to_string().contains("has 1038576 bytes of data, you said the data \"guess\""), "{refused}");
    }
}

#[test]
fn one_shot_writes_are_pushed_back_while_replies_of_too_many_bytes_are_remembered() {
    let mut member = Member::new();
    let call = |number| {
        // The refusal names the plugin.
        let call = Call { plugin: "p".repeat(1 << 20), procedure: String::new(), args: Bytes::new(), root: path("/") };
        by(BOB, once(number, 2_000, Op::Call(call)))
    };
    for number in 0..64 {
        assert_eq!(code(&member.run(&call(number))), "no-plugin");
    }
    assert_eq!(member.plan(&call(64)), Verdict::PushBack(PushBack::Busy));
    let small: Request = once(65, 2_000, create("/bobs"));
    assert_eq!(member.plan(&by(BOB, small.clone())), Verdict::PushBack(PushBack::Busy));
    assert!(matches!(member.plan(&small), Verdict::Planned(_)), "others go on");
    assert!(matches!(member.plan(&call(3)), Verdict::Look(_)), "and what was answered is");
    member.now_ms = 2_000;
    while !matches!(member.plan(&own(Work::Sweep)), Verdict::Dropped) {
        member.settle();
    }
    assert_eq!(member.tables.count(Table::Once), 0);
    assert_eq!(code(&member.run(&by(BOB, once(66, 3_000, create("/bob"))))), "done");
}

/// A base that remembers the most rows of `Expiry` that it was asked for at once.
struct Watched(Box<dyn Base>, Arc<AtomicUsize>);

impl Base for Watched {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.row(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        if table == Table::Expiry {
            self.1.fetch_max(limit, Ordering::Relaxed);
        }
        self.0.scan(table, prefix, after, limit)
    }
}

#[test]
fn a_sweep_looks_at_one_row_when_nothing_is_due() {
    let mut member = Member::new();
    for number in 0..10 {
        member.done(&once(number, 5_000, create(&format!("/{number}"))));
    }
    let most = Arc::new(AtomicUsize::new(0));
    let base = Box::new(Watched(member.tables.snapshot(), most.clone()));
    let mut planner = Planner::new(3, base, member.tables.kept(), Arc::new(NoPlugins)).unwrap();
    assert_eq!(planner.plan(&own(Work::Sweep), 4_999).unwrap(), Verdict::Dropped);
    assert_eq!(most.load(Ordering::Relaxed), 1);
    assert!(matches!(planner.plan(&own(Work::Sweep), 5_000).unwrap(), Verdict::Planned(_)));
    assert!(most.load(Ordering::Relaxed) >= 10);
}
