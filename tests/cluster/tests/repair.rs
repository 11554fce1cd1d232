//! A member that sends what has rotted on its own disk notices, and mends it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use conclave_client::Client;
use conclave_cluster_tests::numbered::{fill, metric, small, text};
use conclave_testing::{Cluster, eventually_async};

/// The file of the newest checkpoint of a member.
fn checkpoint(cluster: &Cluster, id: u64) -> PathBuf {
    let files = fs::read_dir(cluster.config(id).data.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let finished = files.filter(|path| path.extension().is_none());
    finished.max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_checkpoint_rots_makes_another_for_a_member_that_needs_one() {
    let mut cluster = Cluster::start_with(3, small).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    fill(&client, 0..20).await;
    let leader = cluster.leader().await.unwrap();
    let away = cluster.running().into_iter().find(|id| *id != leader).unwrap();
    let last = metric(&cluster, away, "log_last_index").await;
    cluster.stop(away).await.unwrap();
    fill(&client, 20..1_500).await;
    let leader = cluster.leader().await.unwrap();
    eventually_async("the leader's log begins behind what that member has", async || {
        metric(&cluster, leader, "log_purged_index").await > last + 10
    })
    .await
    .unwrap();

    // In a row, where neither header nor trailer tells. Nothing is written from now on that would lead to another one.
    let rotten = checkpoint(&cluster, leader);
    let middle = fs::metadata(&rotten).unwrap().len() / 2;
    let file = OpenOptions::new().read(true).write(true).open(&rotten).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();

    cluster.restart(away).await.unwrap();
    let only = Client::connect(cluster.options_to("bea", &[away]).unwrap()).await.unwrap();
    for number in 0..1_500 {
        assert_eq!(only.at(format!("/data/{number:06}")).get().await.unwrap().data, text(number), "number {number}");
    }
    assert!(metric(&cluster, away, "snapshots_installed_total").await > 0, "it came back without a snapshot");
    // It may be the same leader still, and serves from a sound state.
    assert_eq!(metric(&cluster, leader, "quarantines_total").await, 0);
}
