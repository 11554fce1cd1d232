//! Increments through step-downs and deaths: none lost, none twice.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use conclave_client::Client;
use conclave_testing::{Cluster, eventually};

/// What the incrementing tasks and the test share.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

async fn increment(client: Client) -> u64 {
    client.call("counter", "increment").positional("/hits").within(Duration::from_secs(60)).typed().await.unwrap()
}

/// Several at a time, in a session, or one after the other without one.
async fn increments(client: Client, at_a_time: usize, progress: Arc<Progress>) {
    let mut last = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        let values = futures::future::join_all((0..at_a_time).map(|_| increment(client.clone()))).await;
        for value in values {
            assert!(value > last, "a client's requests are carried out in order: {value} after {last}");
            last = value;
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_are_neither_lost_nor_done_twice() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let progress = Arc::new(Progress::default());
    let mut tasks = Vec::new();
    for n in 0..4 {
        let client = cluster.client(&format!("c{n}")).await.unwrap();
        let (client, at_a_time) = if n % 2 == 0 { (client.pipelined(), 8) } else { (client, 1) };
        tasks.push(tokio::spawn(increments(client, at_a_time, Arc::clone(&progress))));
    }
    for round in 0..10 {
        let before = progress.acknowledged.load(Ordering::Relaxed);
        eventually("work goes on", || progress.acknowledged.load(Ordering::Relaxed) > before + 100).await.unwrap();
        if round % 2 == 0 {
            cluster.step_down().await.unwrap();
        } else {
            let leader = cluster.leader().await.unwrap();
            cluster.kill(leader).await;
            let before = progress.acknowledged.load(Ordering::Relaxed);
            eventually("it goes on without the dead leader", || {
                progress.acknowledged.load(Ordering::Relaxed) > before + 100
            })
            .await
            .unwrap();
            cluster.restart(leader).await.unwrap();
        }
    }
    progress.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let client = cluster.client("reader").await.unwrap();
    let znode = client.at("/hits").get().linearizable().await.unwrap();
    let counted: u64 = std::str::from_utf8(&znode.data).unwrap().parse().unwrap();
    assert_eq!(counted, progress.acknowledged.load(Ordering::Relaxed));
}
