//! What refusals do not tell: whether there is a znode that somebody may not know of, and who other principals are.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::query;
use conclave_protocol::{Check, Condition, Create, Edit, Op, Outcome, Query, Refusal, Step, Update, Zxid};

use support::{ALICE, BOB, Member, acl, by, code, create, fenced, once, path, set_acl};

fn run(member: &mut Member, who: &str, op: Op) -> Outcome {
    let (number, until_ms) = (100_000 + member.planner.last().0, member.now_ms + 1_000);
    member.run(&by(who, once(number, until_ms, op)))
}

/// With `/s` and `/s/there`, both alice's alone but for what bob may do to them.
fn member(parent: &str, child: &str) -> Member {
    let mut member = Member::new();
    for (text, bobs) in [("/s", parent), ("/s/there", child)] {
        let list = Some(acl(&format!("alice:crwda bob:{bobs}")));
        run(&mut member, ALICE, Op::Create(Create { acl: list, ..Create::new(path(text), Bytes::new()) })).unwrap();
    }
    member
}

/// Bob hears the same of what is there and of what is not, but for its name.
fn same(op: impl Fn(&str) -> Op) {
    let mut member = member("", "");
    let mut ask = |text: &str| run(&mut member, BOB, op(text)).unwrap_err().to_string();
    assert_eq!(ask("/s/there"), ask("/s/missing").replace("missing", "there"));
}

fn or_set(text: &str) -> Op {
    Op::Create(Create { or_set: true, ..Create::new(path(text), Bytes::new()) })
}

fn or_create(text: &str) -> Op {
    Op::Update(Update { path: path(text), edit: Edit::Add(1), if_version: None, or_create: true })
}

#[test]
fn whether_it_is_there_is_not_told_by_writes_that_create_or_set() {
    same(or_set);
    same(or_create);
}

#[test]
fn whether_the_parent_is_there_is_not_told_by_creates_below_it() {
    same(|text| create(&format!("{text}/x")));
    same(|text| Op::Create(Create { parents: true, ..Create::new(path(&format!("{text}/x/y")), Bytes::new()) }));
    same(|text| or_create(&format!("{text}/x")));
    same(|text| or_set(&format!("{text}/x")));
}

#[test]
fn who_may_create_and_not_write_is_told_that_he_may_not_write_what_is_there() {
    for op in [or_set, or_create] {
        let refused = run(&mut member("c", ""), BOB, op("/s/there")).unwrap_err();
        assert_eq!(refused.to_string(), format!("{BOB} may not write /s/there"));
        assert_eq!(code(&run(&mut member("", "rw"), BOB, op("/s/there"))), "done", "nor need he create to write");
    }
    let mut member = Member::new();
    run(&mut member, ALICE, set_acl("/", "alice:crwda")).unwrap();
    let refused = run(&mut member, BOB, or_set("/")).unwrap_err();
    assert_eq!(refused.to_string(), format!("{BOB} may not write /"), "the root is always there");
}

#[test]
fn the_holder_is_told_to_whoever_may_read_it() {
    for (bobs, is_told) in [("", false), ("r", true)] {
        let mut member = member("", bobs);
        let condition = Condition::Created(Zxid(1));
        let check = Op::Multi(vec![Step::Check(Check { path: path("/s/there"), condition })]);
        let Err(Refusal::Step { cause, .. }) = run(&mut member, BOB, check) else { panic!() };
        let Refusal::Fenced { actual, .. } = *cause else { panic!("{cause:?}") };
        assert_eq!(actual.is_some(), is_told);
        let write = fenced(by(BOB, once(1, 2_000, create("/b"))), "/s/there", Zxid(1));
        let Err(Refusal::Fenced { actual, .. }) = member.run(&write) else { panic!() };
        assert_eq!(actual.is_some(), is_told);
    }
}

#[test]
fn whose_a_session_is_is_not_told() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    run(&mut member, ALICE, set_acl("/", "alice:crwda")).unwrap();
    let ended = run(&mut member, BOB, Op::End(session)).unwrap_err();
    let query = Query::Owned { session, after: None, limit: 1 };
    let seen = query::answer(&member.tables, BOB, &query).unwrap().unwrap_err();
    for refusal in [ended, seen] {
        assert_eq!(refusal.code(), "not-allowed");
        assert!(!refusal.to_string().contains("alice"), "{refusal}");
    }
}
