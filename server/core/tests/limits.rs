//! Limits and pages: each a typed refusal, or an end with a cursor.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::entry::Entry;
use conclave_core::plan::Work;
use conclave_core::query::{self, History};
use conclave_core::{Fault, Table};
use conclave_protocol::{
    Answer, Call, Condition, Create, Detail, Kind, Op, Outcome, Page, Query, Refusal, Set, Step, Zxid, limits,
};
use proptest::prelude::*;

use support::{ALICE, Member, code, create, delete, once, own, path};

fn limit(outcome: &Outcome) -> (u64, u64) {
    match outcome {
        Err(Refusal::Limit { limit, actual, .. }) => (*limit, *actual),
        Err(Refusal::Step { cause, .. }) => limit_of(cause),
        other => panic!("{other:?}"),
    }
}

fn limit_of(refusal: &Refusal) -> (u64, u64) {
    limit(&Err(refusal.clone()))
}

fn with_data(text: &str, bytes: usize) -> Create {
    Create { parents: true, ..Create::new(path(text), vec![1; bytes]) }
}

#[test]
fn data_may_have_so_many_bytes_and_not_one_more() {
    let mut member = Member::new();
    let most = limits::DATA_BYTES;
    assert_eq!(code(&member.run(&once(1, 2_000, Op::Create(with_data("/a", most))))), "done");
    let over = (most as u64, most as u64 + 1);
    assert_eq!(limit(&member.run(&once(2, 2_000, Op::Create(with_data("/b", most + 1))))), over);
    let set = Set { path: path("/a"), data: vec![1; most + 1].into(), if_version: None };
    assert_eq!(limit(&member.run(&once(3, 2_000, Op::Set(set)))), over);
}

#[test]
fn a_multi_has_so_many_steps_and_writes_so_many_bytes() {
    let mut member = Member::new();
    let check = Step::Check(conclave_protocol::Check { path: path("/"), condition: Condition::Exists });
    let most = limits::MULTI_STEPS;
    assert_eq!(code(&member.run(&once(1, 2_000, Op::Multi(vec![check.clone(); most])))), "done");
    let over = limit(&member.run(&once(2, 2_000, Op::Multi(vec![check; most + 1]))));
    assert_eq!(over, (most as u64, most as u64 + 1));
    let large = (0..9).map(|number| Step::Create(with_data(&format!("/{number}"), limits::DATA_BYTES))).collect();
    let refused = member.run(&once(3, 2_000, Op::Multi(large)));
    assert!(matches!(&refused, Err(Refusal::Step { step: 7, .. })), "{refused:?}");
    assert_eq!(limit(&refused).0, limits::TRANSACTION_BYTES as u64);
    // The same znode again and again is one row: only what is written counts.
    let hot =
        (0..9).map(|_| Step::Set(Set { path: path("/"), data: vec![1; limits::DATA_BYTES].into(), if_version: None }));
    assert_eq!(code(&member.run(&once(4, 2_000, Op::Multi(hot.collect())))), "done");
}

#[test]
fn a_subtree_of_so_many_znodes_is_deleted_as_one_transaction_and_no_larger_one() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/top")));
    let kind = Kind { sequential: true, ..Kind::default() };
    let child = Create { kind, ..Create::new(path("/top/c"), Bytes::from_static(b"x")) };
    for number in 0..10 {
        member.done(&once(10 + number, 2_000, Op::Multi(vec![Step::Create(child.clone()); 1_000])));
    }
    let most = limits::SUBTREE_ZNODES as u64;
    assert_eq!(limit(&member.run(&once(2, 2_000, delete("/top", true)))), (most, most + 1));
    assert_eq!(member.tables.count(Table::Data), 10_000);
    member.done(&once(3, 2_000, delete("/top/c0000000500", false)));
    assert_eq!(code(&member.run(&once(4, 2_000, delete("/top", true)))), "done");
    assert_eq!((member.tables.count(Table::Znode), member.tables.count(Table::Data)), (1, 0));
    assert_eq!(member.tables.kept().digest, member.tables.digest().0);
}

#[test]
fn a_subtree_goes_from_its_last_path_to_its_first() {
    let mut member = Member::new();
    for (number, text) in (1..).zip(["/a", "/a/a", "/a/a/a", "/a/b", "/a/b/a"]) {
        member.done(&once(number, 2_000, create(text)));
    }
    member.planned(&once(9, 2_000, delete("/a", true)));
    member.cut();
    let entry = member.apply_one().unwrap();
    let gone: Vec<&str> = entry.transactions[0].changes.iter().map(|recorded| recorded.change.path.as_str()).collect();
    assert_eq!(gone, ["/a/b/a", "/a/b", "/a/a/a", "/a/a", "/a"]);
}

#[test]
fn a_name_that_a_number_makes_too_long_is_refused_and_one_made_by_hand_is_passed_over() {
    let mut member = Member::new();
    let kind = Kind { sequential: true, ..Kind::default() };
    let of = |text: &str| Op::Create(Create { kind, parents: true, ..Create::new(path(text), Bytes::new()) });
    assert_eq!(code(&member.run(&once(1, 2_000, of(&format!("/q/{}", "n".repeat(246)))))), "bad-path");
    assert_eq!(member.tables.count(Table::Znode), 1, "its parent is not left behind");
    member.done(&once(2, 2_000, of("/q/n")));
    member.done(&once(3, 2_000, create("/q/n0000000001")));
    let made = member.run(&once(4, 2_000, of("/q/n")));
    assert!(matches!(&made, Ok(conclave_protocol::Value::Created { path, .. }) if path.as_str() == "/q/n0000000002"));
    member.done(&once(5, 2_000, delete("/q/n0000000002", false)));
    let made = member.run(&once(6, 2_000, of("/q/n")));
    assert!(matches!(&made, Ok(conclave_protocol::Value::Created { path, .. }) if path.as_str() == "/q/n0000000003"));
}

#[test]
fn texts_that_make_no_key_are_answered_not_looked_up() {
    let mut member = Member::new();
    for plugin in [String::new(), "p".repeat(5_000)] {
        let call = Call { plugin, procedure: String::new(), args: Bytes::new(), root: path("/") };
        let number = member.planner.last().0;
        assert_eq!(code(&member.run(&once(number, 2_000, Op::Call(call)))), "no-plugin");
    }
    let after = Some("n".repeat(5_000));
    let query = Query::Children { path: path("/"), prefix: String::new(), after, limit: 1, detail: Detail::Names };
    assert_eq!(query::answer(&member.tables, ALICE, &query).unwrap().unwrap_err().code(), "limit");
    let refused = query::answer(&member.tables, ALICE, &Query::Status).unwrap();
    assert_eq!(refused.unwrap_err().code(), "bad-request");
}

fn page(member: &Member, after: Option<&str>, limit: u32, data: bool) -> Page {
    let detail = if data { Detail::Data } else { Detail::Names };
    let after = after.map(str::to_owned);
    let query = Query::Children { path: path("/"), prefix: String::new(), after, limit, detail };
    match query::answer(&member.tables, ALICE, &query).unwrap().unwrap() {
        Answer::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_ends_at_its_limit_or_at_its_bytes_and_says_whether_there_is_more() {
    let mut member = Member::new();
    for (number, bytes) in [600_000, 600_000, 10, limits::DATA_BYTES, 0].into_iter().enumerate() {
        member.done(&once(number as u64, 2_000, Op::Create(with_data(&format!("/c{number}"), bytes))));
    }
    let names = |page: &Page| page.children.iter().map(|child| child.name.clone()).collect::<Vec<_>>();
    let whole = page(&member, None, u32::MAX, false);
    assert_eq!((names(&whole).len(), whole.more), (5, false));
    let one = page(&member, None, 0, false);
    assert_eq!((names(&one), one.more), (vec!["c0".to_owned()], true), "it must be possible to go on after it");
    assert!(!page(&member, Some("c4"), 0, false).more);
    let two = page(&member, Some("c0"), 2, false);
    assert_eq!((names(&two), two.more), (vec!["c1".to_owned(), "c2".to_owned()], true));
    let mut after: Option<String> = None;
    let mut pages = Vec::new();
    loop {
        let page = page(&member, after.as_deref(), 100, true);
        let bytes: usize = page.children.iter().map(|child| child.data.as_ref().unwrap().len()).sum();
        assert!(bytes <= limits::PAGE_BYTES);
        pages.push(names(&page).len());
        after = names(&page).pop();
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [1, 2, 2]);
}

#[test]
fn changes_are_kept_for_so_many_transactions() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    member.done(&once(2, 2_000, create("/b")));
    let kept = |member: &Member, after: u64, limit| query::history(&member.tables, Zxid(after), limit).unwrap();
    let zxids = |history: History| match history {
        History::Kept { transactions, upto, .. } => {
            (transactions.iter().map(|(zxid, _)| zxid.0).collect::<Vec<_>>(), upto.0)
        }
        History::TooShort { .. } => panic!("too short"),
    };
    assert_eq!(zxids(kept(&member, 0, 10)), (vec![1, 2, 3], 3));
    assert_eq!(zxids(kept(&member, 1, 1)), (vec![2], 2));
    assert_eq!(zxids(kept(&member, 3, 10)), (vec![], 3));
    let last = limits::HISTORY_TRANSACTIONS + 2;
    while member.planner.last().0 < last {
        member.planned(&own(Work::Stamp));
    }
    member.settle();
    assert_eq!(zxids(kept(&member, 2, 10)), (vec![3], last));
    assert_eq!(kept(&member, 1, 10), History::TooShort { last: Zxid(last) });
    assert_eq!(member.tables.count(Table::Change), 2, "what is too old is deleted, and one row says so");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_no_entry_are_a_fault_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(format) = bytes.first_mut() {
            *format = 2;
        }
        if let Err(fault) = Entry::decode(&bytes) {
            prop_assert!(matches!(fault, Fault::Entry(_)));
        }
    }

    #[test]
    fn a_changed_entry_is_another_or_a_fault_and_never_a_panic(at in 0..400_usize, bit in 0..8_u32) {
        let mut member = Member::new();
        member.planned(&once(1, 2_000, create("/a")));
        member.cut();
        let mut bytes = member.cuts[0].payload.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert!(entry.numbered().count() <= entry.transactions.len());
            let good = Entry::decode(&member.cuts[0].payload).unwrap();
            prop_assert_ne!(entry, good);
        }
    }
}
