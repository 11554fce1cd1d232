//! Random histories, planned, cut, applied and planned again, against the naive model.
#![allow(clippy::unwrap_used)]

#[path = "model/act.rs"]
mod act;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/pair.rs"]
mod pair;
#[path = "model/reads.rs"]
mod reads;
mod support;
#[path = "model/tree.rs"]
mod tree;

use std::collections::BTreeMap;

use conclave_core::memory::MemTables;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use pair::Pair;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_planner_tables_and_model_agree(acts in act::history(1..120)) {
        let mut pair = Pair::new(MemTables::new("test"), "test");
        acts.iter().for_each(|act| pair.act(act));
        pair.finish();
    }
}

/// What has to happen in them, or they prove little: each way to be done, and each to be refused.
const HAPPENS: [&str; 13] = [
    "sweep: changes nothing",
    "expire: changes",
    "end: done not-allowed session-over",
    "close: done no-session",
    "call: no-plugin",
    "acl: done bad-acl-version fenced limit locks-out no-znode not-allowed",
    "create: done bad-request ephemeral-parent limit locks-out no-session no-znode not-allowed other-kind znode-exists",
    "delete: done bad-request bad-version limit no-znode not-allowed not-empty",
    "prune: done bad-request no-znode not-allowed",
    "set: done bad-version limit no-znode not-allowed",
    "update: done bad-number bad-version check-failed limit no-znode not-allowed",
    "step: acl create delete set update",
    "check: absent children created data exists owner version",
];

#[test]
fn random_histories_come_to_everything_that_can_happen() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<String, u64>::new();
    for _ in 0..300 {
        let mut pair = Pair::new(MemTables::new("test"), "test");
        act::history(60..120).new_tree(&mut runner).unwrap().current().iter().for_each(|act| pair.act(act));
        for what in pair.finish() {
            *seen.entry(what).or_default() += 1;
        }
    }
    let mut missing = Vec::new();
    let mut must = |what: String| missing.extend((!seen.contains_key(&what)).then_some(what));
    for line in HAPPENS {
        match line.split_once(": ") {
            Some((kind @ ("step" | "check"), all)) => all.split(' ').for_each(|one| must(format!("{kind} {one} done"))),
            Some((what, codes)) => codes.split(' ').for_each(|code| must(format!("{what} {code}"))),
            None => panic!("{line}"),
        }
    }
    assert!(missing.is_empty(), "{missing:?} of {seen:#?}");
}
