//! A member that dies at a step has done what comes before it, and nothing of what comes after.
#![allow(clippy::unwrap_used, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use conclave_testing::{Cluster, Mortal, Step};

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_repeats_has_happened_if_the_leader_died_late_enough() {
    let mut cluster = Cluster::proxied(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    for (number, step) in Step::ALL.into_iter().enumerate() {
        let leader = cluster.leader().await.unwrap();
        let znode = ann.at(format!("/{number}"));
        let mortal = Mortal::connect(cluster.options_to("mortal", &[leader]).unwrap()).await.unwrap();
        let failpoint = cluster.fail_at(leader, step, 1).unwrap();
        let write = tokio::spawn(mortal.client().at(format!("/{number}")).create("").into_future());
        let death = failpoint.reached().await.unwrap();
        assert!(step == Step::Published || !write.is_finished(), "{step:?}: a dead leader answered");
        // Before it can ask somebody else.
        mortal.kill();
        write.abort();
        cluster.kill(leader).await;
        assert_eq!((death.member, death.step), (leader, step));

        let there = znode.stat().await.unwrap();
        match step {
            Step::Received | Step::Planned | Step::Proposed => assert!(there.is_none(), "{step:?}: it happened"),
            // Others may have it, or not.
            Step::Durable => {}
            Step::Committed | Step::Applied | Step::Published => {
                assert!(there.is_some(), "{step:?}: it did not happen")
            }
        }
        if let (Some(stat), Some(zxid)) = (&there, death.zxid) {
            assert_eq!(stat.created, zxid);
        }
        assert_eq!(death.zxid.is_some(), step >= Step::Applied);
        cluster.restart(leader).await.unwrap();
        // What comes back with the dead changes nothing, whoever leads then.
        cluster.step_down().await.unwrap();
        assert_eq!(znode.stat().await.unwrap(), there, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_repeated_happens_once_wherever_the_leader_died() {
    let mut cluster = Cluster::proxied(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let counter = ann.at("/counter");
    let mut sum = 0;
    let three = async |_| {
        for _ in 0..3 {
            sum += 1;
            assert_eq!(counter.add(1).or_create().await.unwrap().number, sum);
        }
    };
    let deaths = cluster.fail_everywhere(&Step::ALL, 5, three).await.unwrap();
    // Three writes are three requests and three entries. Of the last one the leader may be told when the scenario is over.
    assert!(deaths.len() == Step::ALL.len() && deaths.values().all(|deaths| *deaths >= 2), "{deaths:?}");
    assert_eq!(counter.get().await.unwrap().data, sum.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_a_member_never_comes_to_is_told() {
    let mut cluster = Cluster::proxied(2).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let follower = 3 - leader;
    // Whoever follows plans nothing.
    let failpoint = cluster.fail_at(follower, Step::Planned, 1).unwrap();
    let again = cluster.fail_at(follower, Step::Planned, 1).unwrap_err();
    assert_eq!(again.to_string(), format!("member {follower} is to die already"));
    ann.at("/a").create("").await.unwrap();
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(failpoint))).unwrap_err();
    let said = dropped.downcast_ref::<String>().unwrap();
    assert_eq!(*said, format!("it never happened: member {follower} comes to step Planned, time 1"));
    // Taken back it says so, and the member lives.
    let failpoint = cluster.fail_at(leader, Step::Planned, 2).unwrap();
    ann.at("/b").create("").await.unwrap();
    assert_eq!(failpoint.disarm(), None);
    for path in ["/c", "/d"] {
        ann.at(path).create("").await.unwrap();
    }
    let ((), death) = cluster.fail_during(follower, Step::Received, 1, async {}).await.unwrap();
    assert_eq!(death, None);
    let deaths = cluster.fail_everywhere(&[Step::Planned], 3, async |_| {}).await.unwrap();
    assert_eq!(deaths[&Step::Planned], 0);

    assert!(cluster.fail_at(leader, Step::Planned, 0).unwrap_err().to_string().contains("counted from 1"));
    assert!(cluster.fail_at(7, Step::Planned, 1).unwrap_err().to_string().contains("member 7 does not run"));
    let other = Cluster::start(1).await.unwrap();
    assert!(other.fail_at(1, Step::Planned, 1).unwrap_err().to_string().contains("Cluster::proxied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_dies_at_its_steps_too() {
    let mut cluster = Cluster::proxied(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    for (number, step) in Step::ALL.into_iter().skip(2).enumerate() {
        let leader = cluster.leader().await.unwrap();
        let follower = if leader == 1 { 2 } else { 1 };
        let failpoint = cluster.fail_at(follower, step, 1).unwrap();
        ann.at(format!("/{number}")).create("").await.unwrap();
        assert_eq!(failpoint.reached().await.unwrap().member, follower);
        cluster.kill(follower).await;
        cluster.restart(follower).await.unwrap();
    }
}
