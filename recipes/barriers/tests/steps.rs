//! A double barrier whose cluster's leader dies at every step of a transaction, and whose members die after every step of
//! theirs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conclave_barriers::{Barrier, DoubleBarrier, Inside, State};
use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Error as ClientError, Fence, Refusal};
use conclave_testing::{Cluster, End, Mortal, PATIENCE, Step, eventually_async, hasty};
use tokio::task::JoinHandle;

/// A wait that ends the test, not one that is waited out.
const LONG: Duration = Duration::from_secs(60);
/// Entries of the scenario: three enterings, three leavings, two writes. Of the last one a member may hear when the scenario is
/// over.
const ENTRIES: u32 = 8 - 1;
/// More than there are: every one of them is tried.
const MOST: u32 = 20;

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start() -> Cluster {
    let cluster = Cluster::setup(3).proxied().configured(hasty).start().await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    client(&cluster).await.plugins().budgets("barrier", unhurried).await.unwrap();
    cluster
}

/// All clients of a test are of one principal, so that each sees the calls of all.
async fn client(cluster: &Cluster) -> Client {
    let client = Client::connect(cluster.options("ann").unwrap().with_session_timeout(LONG)).await.unwrap();
    client.session().await.unwrap();
    client
}

async fn until_parked(client: &Client, count: usize) {
    let what = format!("{count} calls are parked");
    eventually_async(&what, async || client.plugins().calls("barrier").await.is_ok_and(|calls| calls.len() == count))
        .await
        .unwrap();
}

/// Waits until so many are members of the barrier's cycle.
async fn until_members(client: &Client, path: &str, cycle: u64, count: usize) {
    let members = client.at(format!("{path}/cycle-{cycle}"));
    eventually_async(&format!("{count} members are at {path}"), async || {
        members.children().names_only().await.is_ok_and(|there| there.children.len() == count)
    })
    .await
    .unwrap();
}

async fn assert_fenced_out(client: &Client, fence: Fence) {
    let refused = client.at("/late").create("").fenced(fence).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(Refusal::Fenced { .. })), "{refused}");
}

fn enter(client: &Client, path: &str) -> JoinHandle<conclave_barriers::Result<Inside>> {
    tokio::spawn(DoubleBarrier::new(client, path, 3).unwrap().enter().within(LONG).into_future())
}

async fn all_enter(entering: impl IntoIterator<Item = JoinHandle<conclave_barriers::Result<Inside>>>) -> Vec<Inside> {
    let all = tokio::time::timeout(PATIENCE, futures::future::join_all(entering)).await;
    let inside: Vec<Inside> = all.expect("all may enter").into_iter().map(|one| one.unwrap().unwrap()).collect();
    assert!(inside.iter().all(|one| one.cycle() == inside[0].cycle()), "{inside:?}");
    inside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_at_any_step_lets_all_in_and_out_or_none() {
    // Two clusters at a time: most of it is waiting for elections.
    let (before, after) = Step::ALL.split_at(4);
    tokio::join!(leaders_die(before), leaders_die(after));
}

async fn leaders_die(steps: &[Step]) {
    let mut cluster = start().await;
    let [ann, bob, eve] = [client(&cluster).await, client(&cluster).await, client(&cluster).await];
    ann.at("/sum").create("0").await.unwrap();
    let mut sum = 0;
    let scenario = async |round| {
        let path = format!("/barriers/{round}");
        let mut entering = Vec::new();
        for (before, client) in [&ann, &bob].into_iter().enumerate() {
            entering.push(enter(client, &path));
            until_parked(&ann, before + 1).await;
        }
        assert!(entering.iter().all(|entering| !entering.is_finished()), "not all were there");
        entering.push(enter(&eve, &path));
        let inside = all_enter(entering).await;
        let fence = inside[0].fence().await.unwrap();
        ann.at("/sum").add(1).fenced(fence.clone()).await.unwrap();

        let mut leaving = Vec::new();
        for (before, one) in inside.into_iter().enumerate() {
            assert_ne!(one.state(), State::Lost);
            assert!(leaving.iter().all(|leaving: &JoinHandle<_>| !leaving.is_finished()), "one is inside still");
            leaving.push(tokio::spawn(one.leave().into_future()));
            if before < 2 {
                until_parked(&ann, before + 1).await;
            }
        }
        let all = tokio::time::timeout(PATIENCE, futures::future::join_all(leaving)).await.expect("all may leave");
        all.into_iter().for_each(|left| left.unwrap().unwrap());
        assert_fenced_out(&ann, fence).await;
        sum += 1;
        assert_eq!(ann.at("/sum").get().await.unwrap().data, sum.to_string());
    };
    let deaths = cluster.fail_everywhere(steps, MOST, scenario).await.unwrap();
    assert!(deaths.values().all(|deaths| *deaths >= ENTRIES), "{deaths:?}");
}

/// How far a member comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Enters,
    IsInside,
    Writes,
    Leaves,
    Drops,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_ends_after_any_step_keeps_nobody_out_and_nobody_in() {
    let cluster = start().await;
    let mut ends = Vec::new();
    for stage in [Stage::Enters, Stage::IsInside, Stage::Writes, Stage::Leaves, Stage::Drops] {
        for end in End::ALL {
            ends.push(one_ends(&cluster, stage, end));
        }
    }
    // Each at a barrier of its own.
    futures::future::join_all(ends).await;
}

async fn one_ends(cluster: &Cluster, stage: Stage, end: End) {
    let case = format!("{stage:?}-{end:?}");
    let path = format!("/barriers/{case}");
    let options = cluster.options("ann").unwrap();
    let victim = Mortal::connect(options.with_session_timeout(Duration::from_secs(2))).await.unwrap();
    let mine = victim.client().clone();
    let [ann, bob, eve] = [client(cluster).await, client(cluster).await, client(cluster).await];
    let (mut waits, mut leaves, mut held, mut fence, mut others) = (None, None, None, None, Vec::new());
    let first = enter(&mine, &path);
    until_members(&ann, &path, 0, 1).await;
    let second = enter(&ann, &path);
    until_members(&ann, &path, 0, 2).await;
    if stage == Stage::Enters {
        waits = Some((first, second));
    } else {
        others = all_enter([first, second, enter(&bob, &path)]).await;
        let inside = others.remove(0);
        fence = Some(inside.fence().await.unwrap());
        match stage {
            Stage::Writes => {
                mine.at(format!("/by-{case}")).create("").fenced(fence.clone().unwrap()).await.unwrap();
                held = Some(inside);
            }
            Stage::Leaves => {
                leaves = Some(tokio::spawn(inside.leave().into_future()));
                until_members(&ann, &path, 0, 2).await;
            }
            Stage::Drops => drop(inside),
            Stage::Enters | Stage::IsInside => held = Some(inside),
        }
    }
    let mut victim = Some(victim);
    end.befall(cluster, &mine, &mut victim).await.unwrap();
    // What it says while nobody hears it, and what arrives of it when it is heard again.
    let late = format!("/late-{case}");
    let writes = fence.clone().filter(|_| end == End::IsPaused);
    let writes = writes.map(|fence| tokio::spawn(mine.at(&late).create("").fenced(fence).into_future()));
    if let Some((first, second)) = waits {
        // As long as that is not known, it counts.
        until_members(&ann, &path, 0, 1).await;
        others = all_enter([second, enter(&bob, &path), enter(&eve, &path)]).await;
        match end {
            // Nobody is left to hear it.
            End::Vanishes => first.abort(),
            End::SessionIsKilled | End::IsPaused => {
                assert!(first.await.unwrap().unwrap_err().is_session_over(), "{case}")
            }
        }
    }
    let left = futures::future::join_all(others.into_iter().map(|other| other.leave().into_future()));
    let left = tokio::time::timeout(PATIENCE, left).await.expect("the others may leave");
    left.into_iter().for_each(|left| left.unwrap());
    if let Some(inside) = held {
        // Who was not told goes by the clock, and knows before the others go on without it.
        if end == End::SessionIsKilled {
            inside.lost().await;
        }
        assert_eq!(inside.state(), State::Lost, "{case}");
        if end != End::Vanishes {
            assert!(inside.leave().await.unwrap_err().is_session_over());
        }
    }
    if end == End::IsPaused {
        cluster.mend(&mine).unwrap();
    }
    if let Some(leaves) = leaves {
        // It may have been told before its session was over.
        match end {
            End::Vanishes => leaves.abort(),
            _ => assert!(leaves.await.unwrap().err().is_none_or(|error| error.is_session_over()), "{case}"),
        }
    }
    if let Some(fence) = fence {
        assert_fenced_out(&ann, fence).await;
    }
    if let Some(writes) = writes {
        assert!(writes.await.unwrap().is_err(), "{case}: it wrote when its time was over");
        assert!(!ann.at(&late).exists().linearizable().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_at_which_the_leader_dies_lets_all_pass_who_waited() {
    let mut cluster = start().await;
    let [ann, bob] = [client(&cluster).await, client(&cluster).await];
    let scenario = async |round| {
        let path = format!("/barriers/{round}");
        let [anns, bobs] = [&ann, &bob].map(|client| Barrier::new(client, &*path).unwrap());
        anns.close().await.unwrap();
        let waiting = [&anns, &bobs].map(|barrier| tokio::spawn(barrier.wait().within(LONG).into_future()));
        until_parked(&ann, 2).await;
        let passed = AtomicUsize::new(0);
        let pass = futures::future::join_all(waiting.into_iter().map(async |waiting| {
            waiting.await.unwrap().unwrap();
            passed.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(anns.is_closed().await.unwrap());
        anns.open().await.unwrap();
        anns.close().await.unwrap();
        tokio::time::timeout(PATIENCE, pass).await.expect("all may pass");
        assert_eq!(passed.load(Ordering::SeqCst), 2);
        assert!(anns.is_closed().await.unwrap());
    };
    // What is new beside the other scenario is what happens to the opening: fewer steps tell enough.
    let steps = [Step::Planned, Step::Durable, Step::Applied];
    let deaths = cluster.fail_everywhere(&steps, MOST, scenario).await.unwrap();
    assert!(deaths.values().all(|deaths| *deaths >= 4), "{deaths:?}");
}
