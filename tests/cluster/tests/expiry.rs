//! What goes by itself: znodes whose time to live is over, containers that were left; not early, and whoever leads.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use conclave_client::{ChangeKind, Client, Error, Refusal, Watch, WatchEvent};
use conclave_testing::{Cluster, PATIENCE, eventually_async};

/// Waits until a watch tells of a deletion.
async fn deleted(watch: &mut Watch) -> String {
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        let WatchEvent::Changes { changes, .. } = event else { panic!("{event:?}") };
        if let Some(change) = changes.iter().find(|change| change.kind == ChangeKind::Deleted) {
            return change.path.to_string();
        }
    }
}

async fn is_there(client: &Client, path: &str) -> bool {
    client.at(path).exists().linearizable().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_goes_on_under_a_new_leader_and_is_never_cut_short() {
    const TTL: Duration = Duration::from_secs(4);
    // Cluster time follows the wall clock by a twentieth faster at most.
    const LEAST: Duration = Duration::from_millis(3_800);
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/ttl").create("").await.unwrap();
    let mut watch = client.watch("/ttl").children().await.unwrap();
    let begun = Instant::now();
    client.at("/ttl/plain").create("").ttl(TTL).await.unwrap();
    let stat = client.at("/ttl/kept").create("").ttl(TTL).await.unwrap().stat;
    assert_eq!(stat.ttl_ms, Some(4_000));
    client.at("/ttl/kept/child").create("").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.leader().await.unwrap();
    // A write moves its end, under the new leader as well.
    let moved = Instant::now();
    client.at("/ttl/moved").create("").or_set().ttl(TTL).await.unwrap();
    assert_eq!(deleted(&mut watch).await, "/ttl/plain");
    assert!(begun.elapsed() >= LEAST, "it went early");
    assert_eq!(deleted(&mut watch).await, "/ttl/moved");
    assert!(moved.elapsed() >= LEAST, "it went early");
    cluster.restart(leader).await.unwrap();
    assert!(is_there(&client, "/ttl/kept").await, "one with children stays");
    let left = Instant::now();
    client.at("/ttl/kept/child").delete().await.unwrap();
    assert_eq!(deleted(&mut watch).await, "/ttl/kept");
    assert!(left.elapsed() >= LEAST, "its time counts from its last child's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_after_its_last_child_and_never_before() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mut watch = client.watch("/").subtree().kinds(&[ChangeKind::Deleted]).await.unwrap();
    client.at("/queue").create("").container().await.unwrap();
    client.at("/unused").create("").container().await.unwrap();
    client.at("/queue/1").create("").ephemeral().await.unwrap();
    client.at("/queue/2").create("").await.unwrap();
    client.at("/queue/2").delete().await.unwrap();
    assert_eq!(deleted(&mut watch).await, "/queue/2");
    // The last child goes with its session, which a new leader ends too.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.leader().await.unwrap();
    assert!(is_there(&client, "/queue").await, "it has a child");
    client.at("/queue/1").delete().await.unwrap();
    assert_eq!(deleted(&mut watch).await, "/queue/1");
    assert_eq!(deleted(&mut watch).await, "/queue");
    assert!(is_there(&client, "/unused").await, "one that never had a child stays");
    let refused = client.at("/queue/3").create("").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::NoZnode { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_end_at_once_go_part_by_part_while_others_write() {
    const COUNT: usize = 3_000;
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/mass").create("").await.unwrap();
    let steps = |from: usize| {
        (from..from + 1_000).map(|n| {
            let path = conclave_client::Path::parse(&format!("/mass/{n}")).unwrap();
            let kind = conclave_client::Kind { ttl_ms: Some(5_000), ..Default::default() };
            conclave_client::Step::Create(conclave_client::CreateStep {
                kind,
                ..conclave_client::CreateStep::new(path, "x")
            })
        })
    };
    for from in (0..COUNT).step_by(1_000) {
        client.multi(steps(from)).await.unwrap();
    }
    let count = async || client.at("/mass").count().linearizable().await.unwrap();
    assert!(count().await > 0);
    let mut writes = 0;
    eventually_async("all of them are gone", async || {
        client.at("/").set("x").await.unwrap();
        writes += 1;
        count().await == 0
    })
    .await
    .unwrap();
    assert!(writes > 1, "others go on meanwhile");
    assert_eq!(client.at("/mass").stat().await.unwrap().unwrap().children_version, 2 * COUNT as u64);
}
