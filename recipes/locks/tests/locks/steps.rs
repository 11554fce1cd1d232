//! A lock whose cluster's leader dies at every step of a transaction, and whose clients die after every step of theirs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conclave_client::Client;
use conclave_locks::{Error, Guard, Mutex, State};
use conclave_testing::{Cluster, End, Mortal, Step, hasty};

use crate::common::{self, LONG, Way, assert_fenced_out, client_with, until_free, waiter};

/// Entries of the scenario: two takings, three writes, two releases; by plain znodes more. Of the last one a member may hear
/// when the scenario is over.
const ENTRIES: u32 = 7 - 1;
/// More than there are: every one of them is tried.
const MOST: u32 = 20;

fn mutex(way: Way, client: &Client, path: &str) -> Mutex {
    let mutex = Mutex::new(client, path).unwrap();
    if way == Way::Plain { mutex.plain() } else { mutex }
}

/// Does something under the lock, and sees that nobody else does.
async fn work(client: &Client, guard: &Guard, inside: &AtomicUsize) {
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
    client.at("/release").set("").fenced(guard.fence()).await.unwrap();
    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two hold it");
}

async fn a_leader_that_dies_at_any_step_gives_the_lock_to_one_after_the_other(way: Way) {
    // Two clusters at a time: most of it is waiting for elections.
    let (before, after) = Step::ALL.split_at(4);
    tokio::join!(leaders_die(way, before), leaders_die(way, after));
}

async fn leaders_die(way: Way, steps: &[Step]) {
    let mut cluster = Cluster::setup(3).proxied().configured(hasty).start().await.unwrap();
    let [ann, bob, observer] = clients(&cluster).await;
    observer.at("/release").create("").await.unwrap();
    let scenario = async |round| {
        let path = format!("/locks/{round}");
        let [anns, bobs, observed] = [&ann, &bob, &observer].map(|client| mutex(way, client, &path));
        let inside = AtomicUsize::new(0);
        let first = anns.acquire().within(LONG).await.unwrap();
        let waiting = waiter(&observed, &bobs, 0).await;
        work(&ann, &first, &inside).await;
        assert!(!waiting.is_finished(), "two hold it");
        let (token, fence) = (first.token(), first.fence());
        first.release().await.unwrap();
        let second = waiting.await.unwrap().unwrap();
        assert!(second.token() > token);
        assert_fenced_out(&observer, fence).await;
        work(&bob, &second, &inside).await;
        assert_eq!(observed.view().await.unwrap().holder.map(|holder| holder.fence), Some(second.fence()));
        assert_ne!(second.state(), State::Lost);
        second.release().await.unwrap();
        until_free(&observed).await;
    };
    let deaths = cluster.fail_everywhere(steps, MOST, scenario).await.unwrap();
    assert!(deaths.values().all(|deaths| *deaths >= ENTRIES), "{deaths:?}");
}

async fn clients(cluster: &Cluster) -> [Client; 3] {
    let client = async |name| {
        let client = cluster.client(name).await.unwrap();
        client.session().await.unwrap();
        client
    };
    [client("ann").await, client("bob").await, client("observer").await]
}

/// How far a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    Holds,
    Writes,
    Releases,
    Drops,
}

async fn a_client_that_ends_after_any_step_keeps_the_lock_from_nobody(way: Way) {
    let cluster = Cluster::proxied(3).await.unwrap();
    cluster.client("hand").await.unwrap().at("/release").create("").await.unwrap();
    let mut ends = Vec::new();
    for stage in [Stage::Waits, Stage::Holds, Stage::Writes, Stage::Releases, Stage::Drops] {
        for end in End::ALL {
            ends.push(one_ends(&cluster, way, stage, end));
        }
    }
    // Each at a lock of its own.
    futures::future::join_all(ends).await;
}

async fn one_ends(cluster: &Cluster, way: Way, stage: Stage, end: End) {
    let name = format!("{stage:?}-{end:?}");
    let path = format!("/locks/{name}");
    let other = client_with(cluster, &format!("other-{name}"), LONG).await;
    let next = client_with(cluster, &format!("next-{name}"), LONG).await;
    let options = cluster.options(&format!("victim-{name}")).unwrap();
    let victim = Mortal::connect(options.with_session_timeout(Duration::from_secs(2))).await.unwrap();
    let client = victim.client().clone();
    let [others, nexts, victims] = [&other, &next, &client].map(|client| mutex(way, client, &path));

    let first = others.acquire().await.unwrap();
    let mine = waiter(&others, &victims, 0).await;
    let waiting = waiter(&others, &nexts, 1).await;
    let (mut first, mut mine, mut held, mut fence) = (Some(first), Some(mine), None, None);
    if stage != Stage::Waits {
        first.take().unwrap().release().await.unwrap();
        let guard = mine.take().unwrap().await.unwrap().unwrap();
        fence = Some(guard.fence());
        if stage == Stage::Writes {
            client.at("/release").set(name.clone()).fenced(guard.fence()).await.unwrap();
        }
        match stage {
            Stage::Releases => guard.release().await.unwrap(),
            Stage::Drops => drop(guard),
            _ => held = Some(guard),
        }
    }
    let mut victim = Some(victim);
    end.befall(cluster, &client, &mut victim).await.unwrap();
    // What it says while nobody hears it, and what arrives of it when it is heard again.
    let late = format!("/late-{name}");
    let writes = fence.clone().filter(|_| end == End::IsPaused);
    let writes = writes.map(|fence| tokio::spawn(client.at(&late).create("").fenced(fence).into_future()));
    if let Some(first) = first {
        // Whose turn it is meanwhile, it may have been given to.
        first.release().await.unwrap();
    }
    let next = waiting.await.unwrap().unwrap();
    if let Some(guard) = held {
        // Who was not told goes by the clock, and knows before anybody else holds it.
        if end == End::SessionIsKilled {
            guard.lost().await;
        }
        assert_eq!(guard.state(), State::Lost, "{stage:?}, {end:?}: two hold it");
    }
    if end == End::IsPaused {
        cluster.mend(&client).unwrap();
    }
    match mine {
        // Nobody is left to hear it.
        Some(mine) if end == End::Vanishes => mine.abort(),
        Some(mine) => assert!(matches!(mine.await.unwrap(), Err(Error::SessionOver)), "{stage:?}, {end:?}"),
        None => {}
    }
    if let Some(fence) = fence {
        assert!(next.token() > fence.zxid.0);
        assert_fenced_out(&other, fence).await;
    }
    if let Some(writes) = writes {
        assert!(writes.await.unwrap().is_err(), "{name}: it wrote when its time was over");
        assert!(!other.at(&late).exists().linearizable().await.unwrap());
    }
    other.at("/release").set("").fenced(next.fence()).await.unwrap();
    next.release().await.unwrap();
    until_free(&others).await;
}

common::both_ways!(
    a_leader_that_dies_at_any_step_gives_the_lock_to_one_after_the_other,
    a_client_that_ends_after_any_step_keeps_the_lock_from_nobody,
);
