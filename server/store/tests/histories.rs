//! The core's random histories, planned and applied on a real disk: tables, naive model and a follower in memory agree.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../core/tests/model/act.rs"]
mod act;
#[path = "../../core/tests/model/compare.rs"]
mod compare;
mod disk;
#[path = "../../core/tests/model/ops.rs"]
mod ops;
#[path = "../../core/tests/model/pair.rs"]
mod pair;
#[path = "../../core/tests/model/reads.rs"]
mod reads;
#[path = "../../core/tests/support/mod.rs"]
mod support;
#[path = "../../core/tests/model/tree.rs"]
mod tree;

use proptest::prelude::*;

use disk::{CLUSTER, Disk};
use pair::Pair;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_disk_a_follower_in_memory_and_the_model_agree(acts in act::history(1..120)) {
        let mut pair = Pair::new(Disk::new(), CLUSTER);
        acts.iter().for_each(|act| pair.act(act));
        pair.finish();
    }
}
