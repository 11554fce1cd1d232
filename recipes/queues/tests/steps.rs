//! A queue whose cluster's leader dies at every step of a transaction, and whose workers die after every step of theirs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Error as ClientError, Fence, Refusal};
use conclave_queues::{Job, Queue, State, Stats};
use conclave_testing::{Cluster, Mortal, PATIENCE, Step, eventually_async, hasty};
use tokio::task::JoinHandle;

/// A wait that ends the test, not one that is waited out.
const LONG: Duration = Duration::from_secs(60);
/// Longer than a dead worker's session.
const VISIBILITY: Duration = Duration::from_secs(3);
/// Entries of the scenario: two pushes, two takes, two writes, one that is given back, an acknowledgement. Of the last one a
/// member may hear when the scenario is over.
const ENTRIES: u32 = 8 - 1;
/// More than there are: every one of them is tried.
const MOST: u32 = 20;

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start() -> Cluster {
    let cluster = Cluster::setup(3).proxied().configured(hasty).start().await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    client(&cluster).await.plugins().budgets("queue", unhurried).await.unwrap();
    cluster
}

/// All clients of a test are of one principal, so that each sees the calls of all.
async fn client(cluster: &Cluster) -> Client {
    let client = cluster.client("ann").await.unwrap();
    client.session().await.unwrap();
    client
}

fn queue(client: &Client, path: &str, visibility: Duration) -> Queue<String> {
    Queue::new(client, path).unwrap().visibility(visibility)
}

fn take(queue: &Queue<String>) -> JoinHandle<conclave_queues::Result<Job<String>>> {
    tokio::spawn(queue.take().within(LONG).into_future())
}

async fn until_parked(client: &Client, count: usize) {
    let what = format!("{count} calls are parked");
    eventually_async(&what, async || client.plugins().calls("queue").await.is_ok_and(|calls| calls.len() == count))
        .await
        .unwrap();
}

/// Waits until there is no item: what others did is seen a moment later.
async fn until_empty(queue: &Queue<String>) {
    let is_empty = async || queue.stats().await.unwrap() == Stats::default();
    eventually_async(&format!("{} is empty", queue.path()), is_empty).await.unwrap();
}

async fn assert_fenced_out(client: &Client, fence: Fence) {
    let refused = client.at("/late").create("").fenced(fence).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(Refusal::Fenced { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_at_any_step_loses_no_item_and_gives_none_to_two() {
    // Two clusters at a time: most of it is waiting for elections.
    let (before, after) = Step::ALL.split_at(4);
    tokio::join!(leaders_die(before), leaders_die(after));
}

async fn leaders_die(steps: &[Step]) {
    let mut cluster = start().await;
    let [ann, bob, observer] = [client(&cluster).await, client(&cluster).await, client(&cluster).await];
    observer.at("/sum").create("0").await.unwrap();
    let mut sum = 0;
    let scenario = async |round| {
        let path = format!("/queues/{round}");
        let [anns, bobs, observed] = [&ann, &bob, &observer].map(|client| queue(client, &path, LONG));
        let item = format!("item {round}");
        let pushed = observed.push(&item).dedup("key").await.unwrap();
        assert!(!pushed.duplicate, "a push was carried out twice");
        let job = anns.take().within(LONG).await.unwrap();
        assert_eq!((job.id(), job.as_str(), job.deliveries()), (&*pushed.id, &*item, 1));
        let waiting = take(&bobs);
        until_parked(&observer, 1).await;
        ann.at("/sum").add(1).fenced(job.fence()).await.unwrap();
        let fence = job.fence();
        assert!(!waiting.is_finished(), "two have it");
        assert_ne!(job.state(), State::Lost);
        job.nack().await.unwrap();

        let again = waiting.await.unwrap().unwrap();
        assert_eq!((again.id(), again.as_str(), again.deliveries()), (&*pushed.id, &*item, 2));
        assert!(again.fence().zxid > fence.zxid);
        assert_fenced_out(&ann, fence).await;
        assert_eq!(bobs.stats().await.unwrap(), Stats { claimed: 1, ..Stats::default() });
        let steps = bob.transaction().create(format!("/done-{round}"), "").add("/sum", 1);
        again.ack_with(steps).await.unwrap();
        assert!(observed.push(&item).dedup("key").await.unwrap().duplicate, "an item that is done comes again");
        assert_eq!(observed.stats().await.unwrap(), Stats::default());
        sum += 2;
        assert_eq!(observer.at("/sum").get().await.unwrap().data, sum.to_string());
    };
    let deaths = cluster.fail_everywhere(steps, MOST, scenario).await.unwrap();
    assert!(deaths.values().all(|deaths| *deaths >= ENTRIES), "{deaths:?}");
}

/// How far a worker comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    Takes,
    Writes,
    Drops,
    GivesBack,
    Acknowledges,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Without a word.
    Vanishes,
    SessionIsKilled,
    /// It lives, and is heard again when its time is over.
    IsPaused,
    /// It lives, and is heard; it takes longer than its claim lasts.
    IsSlow,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_after_any_step_leaves_the_item_to_the_next_unless_it_was_done() {
    let cluster = start().await;
    let mut ends = Vec::new();
    for stage in [Stage::Waits, Stage::Takes, Stage::Writes, Stage::Drops, Stage::GivesBack, Stage::Acknowledges] {
        for end in [End::Vanishes, End::SessionIsKilled, End::IsPaused, End::IsSlow] {
            ends.push(one_ends(&cluster, stage, end));
        }
    }
    // Each at a queue of its own.
    futures::future::join_all(ends).await;
}

async fn one_ends(cluster: &Cluster, stage: Stage, end: End) {
    let case = format!("{stage:?}-{end:?}");
    let path = format!("/queues/{case}");
    let session = if end == End::IsSlow { LONG } else { Duration::from_secs(2) };
    let options = cluster.options("ann").unwrap().with_session_timeout(session);
    let victim = Mortal::connect(options).await.unwrap();
    let (mine, other) = (victim.client().clone(), client(cluster).await);
    let [mines, others] = [&mine, &other].map(|client| queue(client, &path, VISIBILITY));
    // It can't be withdrawn by a runtime that is gone: what is dropped by a process that is killed says nothing.
    let (mut waits, mut job, mut fence) = (None, None, None);
    if stage == Stage::Waits {
        waits = Some(take(&mines));
        let parked = async || {
            let calls = other.plugins().calls("queue").await.unwrap();
            calls.iter().any(|call| format!("{call:?}").contains(&case))
        };
        eventually_async("it waits", parked).await.unwrap();
    } else {
        others.push(&case).await.unwrap();
        let taken = mines.take().within(LONG).await.unwrap();
        fence = Some(taken.fence());
        match stage {
            Stage::Writes => {
                mine.at(format!("/by-{case}")).create("").fenced(taken.fence()).await.unwrap();
                job = Some(taken);
            }
            Stage::Drops => drop(taken),
            Stage::GivesBack => taken.nack().await.unwrap(),
            Stage::Acknowledges => taken.ack().await.unwrap(),
            Stage::Waits | Stage::Takes => job = Some(taken),
        }
    }
    let mut victim = Some(victim);
    match end {
        End::Vanishes => drop(victim.take()),
        End::SessionIsKilled => cluster.kill_session(&mine).await.unwrap(),
        End::IsPaused => cluster.cut(&mine).unwrap(),
        End::IsSlow => {}
    }
    // What it says while nobody hears it, and what arrives of it when it is heard again.
    let late = format!("/late-{case}");
    let writes = fence.clone().filter(|_| end == End::IsPaused);
    let writes = writes.map(|fence| tokio::spawn(mine.at(&late).create("").fenced(fence).into_future()));
    if stage == Stage::Waits {
        // It may be given to the one that is gone, until that is known.
        others.push(&case).await.unwrap();
    }
    if stage == Stage::Acknowledges {
        until_empty(&others).await;
    } else {
        let next = tokio::time::timeout(PATIENCE, take(&others)).await.expect("it is lost").unwrap().unwrap();
        assert_eq!(*next, case);
        if let Some(job) = &job {
            assert_eq!(job.state(), State::Lost, "{case}: two have it");
        }
        if let Some(fence) = &fence {
            assert!(next.fence().zxid > fence.zxid);
            assert!(next.deliveries() > 1);
        }
        other.at(format!("/by-{case}")).create("").or_set().fenced(next.fence()).await.unwrap();
        next.ack().await.unwrap();
    }
    if end == End::IsPaused {
        cluster.mend(&mine).unwrap();
    }
    match waits {
        // Nobody is left to hear it.
        Some(waits) if end == End::Vanishes => waits.abort(),
        Some(waits) if end == End::IsSlow => assert_eq!(waits.await.unwrap().unwrap().state(), State::Lost, "{case}"),
        Some(waits) => assert!(waits.await.unwrap().unwrap_err().is_session_over(), "{case}"),
        None => {}
    }
    if let Some(fence) = fence {
        assert_fenced_out(&other, fence).await;
    }
    if let Some(writes) = writes {
        assert!(writes.await.unwrap().is_err(), "{case}: it wrote when its time was over");
        assert!(!other.at(&late).exists().linearizable().await.unwrap());
    }
    if let Some(job) = job.filter(|_| end != End::Vanishes) {
        assert_eq!(job.state(), State::Lost);
        assert!(job.ack().await.is_err(), "{case}: it is done twice");
    }
    until_empty(&others).await;
}
