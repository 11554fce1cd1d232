//! Two thousand step-downs in mid-pipeline, by seeds: every request is carried out once, in its order, and answered.

use super::oracle;
use super::world::{Tally, World};

/// Worlds are short: tables in memory are copied when they are written to.
const SEEDS: u64 = 50;
const STEP_DOWNS: u64 = 40;

#[test]
fn two_thousand_step_downs_in_mid_pipeline_lose_nothing_and_do_nothing_twice() {
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEP_DOWNS {
            world.step_down();
        }
        world.settle();
        world.count_resets();
        oracle::check(&world);
        sum.add(&world.tally);
    }
    // A run in which little happened is no evidence.
    assert_eq!(sum.step_downs, 2_000);
    let happened = [
        sum.rejected,
        sum.void,
        sum.unknown,
        sum.unknown_committed,
        sum.resets,
        sum.resends,
        sum.looks,
        sum.duplicates,
        sum.pushed_back,
        sum.refusals,
    ];
    assert!(happened.into_iter().all(|count| count >= 100), "{sum:?}");
    assert!(sum.foreign_bases > 0, "{sum:?}");
    assert!(sum.answered >= 10_000, "{sum:?}");
}
