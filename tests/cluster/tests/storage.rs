//! What one machine does to its disk loses nothing and serves nothing rotten: snapshots, quarantine, another boot.
#![allow(clippy::unwrap_used, missing_docs)]
// Figures, for whoever runs it to see them.
#![allow(clippy::print_stdout)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use conclave_client::{Client, WatchEvent};
use conclave_cluster_tests::agree;
use conclave_cluster_tests::numbered::{fill, metric, small, text};
use conclave_protocol::{ChangeKind, Role};
use conclave_server::{Config, StoreBoot, Surroundings};
use conclave_testing::{Cluster, eventually, eventually_async};
use futures::{StreamExt, stream};

/// Writes 700 bytes to each of so many znodes, which do not shrink in a checkpoint.
async fn fill_with_noise(client: &Client, znodes: u32) {
    let write = |number| {
        let at = client.at(format!("/noise/{number}"));
        let noise: Vec<u8> = (0..700).map(|_| rand::random()).collect();
        async move {
            at.create(noise).parents().await.unwrap();
        }
    };
    stream::iter(0..znodes).for_each_concurrent(16, write).await;
}

async fn holds(client: &Client, numbers: std::ops::Range<u32>) {
    let read = |number| async move {
        let znode = client.at(format!("/data/{number:06}")).get().await.unwrap();
        assert_eq!(znode.data, text(number), "number {number}");
    };
    stream::iter(numbers).for_each_concurrent(16, read).await;
}

/// Waits until the leader's log begins behind this entry.
async fn leader_has_purged(cluster: &Cluster, index: u64) {
    let leader = cluster.leader().await.unwrap();
    eventually_async("the leader's log begins behind what that member has", async || {
        metric(cluster, leader, "log_purged_index").await > index + 10
    })
    .await
    .unwrap();
}

/// A member that does not lead.
async fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await.unwrap();
    cluster.running().into_iter().find(|id| *id != leader).unwrap()
}

/// The file of the tables that a member uses.
fn tables(cluster: &Cluster, id: u64) -> PathBuf {
    let dirs = fs::read_dir(&cluster.config(id).data).unwrap().map(|entry| entry.unwrap().path());
    let mut environments: Vec<PathBuf> = dirs.filter(|path| path.join("data.mdb").exists()).collect();
    environments.sort();
    environments.pop().unwrap().join("data.mdb")
}

/// Flips a bit in every place of a file where these bytes lie, as a disk does that rots.
fn rot(file: &Path, bytes: &str) -> usize {
    let content = fs::read(file).unwrap();
    let open = OpenOptions::new().write(true).open(file).unwrap();
    let places = content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes.as_bytes());
    let mut flipped = 0;
    for (at, _) in places {
        open.write_all_at(&[content[at + 3] ^ 0x10], at as u64 + 3).unwrap();
        flipped += 1;
    }
    flipped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_log_has_been_purged_past_comes_back_by_a_snapshot() {
    let mut cluster = Cluster::start_with(3, small).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    fill(&client, 0..20).await;
    let away = follower(&cluster).await;
    let last = metric(&cluster, away, "log_last_index").await;
    let environment = metric(&cluster, away, "environment").await;
    cluster.stop(away).await.unwrap();
    fill(&client, 20..1_500).await;
    leader_has_purged(&cluster, last).await;

    cluster.restart(away).await.unwrap();
    agree(&cluster, &client).await.unwrap();
    assert_eq!(metric(&cluster, away, "snapshots_installed_total").await, 1);
    let bytes = metric(&cluster, away, "snapshot_received_bytes_total").await;
    assert!(bytes > 10_000, "{bytes} bytes were received");
    assert!(metric(&cluster, away, "environment").await > environment, "the old tables are still in use");
    let only = Client::connect(cluster.options_to("bea", &[away]).unwrap()).await.unwrap();
    holds(&only, 0..1_500).await;
    println!("snapshot: {bytes} bytes, environment {environment} before");

    // It goes on from there like any other, and after a restart too.
    fill(&client, 1_500..1_520).await;
    cluster.kill(away).await;
    cluster.restart(away).await.unwrap();
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_broken_off_goes_on_where_it_was() {
    let slow = |config: &mut Config| {
        small(config);
        config.storage.snapshot_bytes_per_s = 64 << 10;
        config.storage.checkpoint_log_bytes = 1 << 20;
    };
    let mut cluster = Cluster::start_with(3, slow).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let away = follower(&cluster).await;
    let last = metric(&cluster, away, "log_last_index").await;
    cluster.stop(away).await.unwrap();
    fill_with_noise(&client, 1_500).await;
    leader_has_purged(&cluster, last).await;

    cluster.launch(away).await.unwrap();
    eventually_async("a part of the snapshot has arrived", async || {
        metric(&cluster, away, "snapshot_received_bytes_total").await > 100_000
    })
    .await
    .unwrap();
    cluster.kill(away).await;
    for id in 1..=3 {
        cluster.configure(id, |config| config.storage.snapshot_bytes_per_s = 1 << 30);
    }
    cluster.restart(away).await.unwrap();
    agree(&cluster, &client).await.unwrap();
    let resumed = metric(&cluster, away, "snapshot_resumed_bytes_total").await;
    assert!(resumed > 0, "everything was sent again");
    assert_eq!(metric(&cluster, away, "snapshots_installed_total").await, 1);
}

/// A row rots on the disk of this member; whoever reads it there gets it right, later.
async fn rots_and_recovers(cluster: &Cluster, id: u64) {
    let client = cluster.client("ann").await.unwrap();
    let only = Client::connect(cluster.options_to("bea", &[id]).unwrap()).await.unwrap();
    let flipped = rot(&tables(cluster, id), &text(7));
    assert!(flipped > 0, "the row is not on the disk");
    let reading = tokio::spawn(async move { only.at("/data/000007").get().await });
    // The others go on meanwhile.
    let mut acknowledged = 0;
    let began = std::time::Instant::now();
    let mut longest = std::time::Duration::ZERO;
    while metric(cluster, id, "quarantines_total").await == 0 || !cluster.member(id).unwrap().is_ready() {
        let one = std::time::Instant::now();
        client.at(format!("/meanwhile/{acknowledged}")).create("x").parents().await.unwrap();
        longest = longest.max(one.elapsed());
        acknowledged += 1;
        assert!(began.elapsed() < conclave_testing::PATIENCE, "the member is not back");
    }
    assert_eq!(reading.await.unwrap().unwrap().data, text(7), "what is rotten was served");
    assert_eq!(metric(cluster, id, "quarantines_total").await, 1);
    agree(cluster, &client).await.unwrap();
    for number in 0..acknowledged {
        client.at(format!("/meanwhile/{number}")).get().await.unwrap();
    }
    println!(
        "member {id}: {flipped} places flipped, {acknowledged} writes acknowledged meanwhile, longest {longest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_a_follower_quarantines_it_until_its_state_is_made_again() {
    let cluster = Cluster::start_with(3, small).await.unwrap();
    fill(&cluster.client("ann").await.unwrap(), 0..600).await;
    let id = follower(&cluster).await;
    rots_and_recovers(&cluster, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_the_leader_quarantines_it_and_another_leads() {
    let cluster = Cluster::start_with(3, small).await.unwrap();
    fill(&cluster.client("ann").await.unwrap(), 0..600).await;
    let id = cluster.leader().await.unwrap();
    rots_and_recovers(&cluster, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_that_nobody_reads_is_found_by_the_scan_of_the_next_checkpoint() {
    let cluster = Cluster::start_with(3, small).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    fill(&client, 0..100).await;
    let id = follower(&cluster).await;
    assert!(rot(&tables(&cluster, id), &text(7)) > 0, "the row is not on the disk");
    let mut number = 100;
    while metric(&cluster, id, "quarantines_total").await == 0 {
        fill(&client, number..number + 50).await;
        number += 50;
        assert!(number < 10_000, "no checkpoint found it");
    }
    agree(&cluster, &client).await.unwrap();
    let only = Client::connect(cluster.options_to("bea", &[id]).unwrap()).await.unwrap();
    holds(&only, 0..100).await;
}

/// The files of all checkpoints of a member rot.
fn rot_checkpoints(cluster: &Cluster, id: u64) {
    let shelf = cluster.config(id).data.join("checkpoints");
    for file in fs::read_dir(&shelf).unwrap().map(|entry| entry.unwrap().path()) {
        let length = fs::metadata(&file).unwrap().len();
        let open = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let mut byte = [0];
        open.read_exact_at(&mut byte, length / 2).unwrap();
        open.write_all_at(&[byte[0] ^ 1], length / 2).unwrap();
    }
}

/// A cluster, and a follower in it that has a checkpoint and has let log go.
async fn with_a_checkpoint() -> (Cluster, u64) {
    let cluster = Cluster::start_with(3, small).await.unwrap();
    fill(&cluster.client("ann").await.unwrap(), 0..800).await;
    let id = follower(&cluster).await;
    eventually_async("it has a checkpoint, and has let log go", async || {
        metric(&cluster, id, "log_purged_index").await > 0
    })
    .await
    .unwrap();
    (cluster, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_own_checkpoint_rotten_too_a_member_fetches_another_ones() {
    let (cluster, id) = with_a_checkpoint().await;
    rot_checkpoints(&cluster, id);
    rots_and_recovers(&cluster, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_in_quarantine_says_so_and_waits_for_whoever_can_help() {
    let (mut cluster, id) = with_a_checkpoint().await;
    fill_with_noise(&cluster.client("ann").await.unwrap(), 1_500).await;
    rot_checkpoints(&cluster, id);
    let only = Client::connect(cluster.options_to("bea", &[id]).unwrap()).await.unwrap();
    assert!(rot(&tables(&cluster, id), &text(7)) > 0, "the row is not on the disk");
    let others: Vec<u64> = cluster.running().into_iter().filter(|other| *other != id).collect();
    for other in &others {
        cluster.kill(*other).await;
        // Slowly enough to be looked at.
        cluster.configure(*other, |config| config.storage.snapshot_bytes_per_s = 128 << 10);
    }
    let reading = tokio::spawn(async move { only.at("/data/000007").get().stale().await });
    eventually_async("it is in quarantine", async || metric(&cluster, id, "quarantined").await == 1).await.unwrap();
    assert!(cluster.member(id).unwrap().is_quarantined());
    cluster.launch(others[0]).await.unwrap();
    cluster.launch(others[1]).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let mut seen = false;
    eventually_async("it is well again", async || {
        if let Ok(status) = ann.status().await {
            let role = status.members.iter().find(|member| member.id.0 == id).map(|member| member.role);
            seen |= role == Some(Role::Quarantined);
        }
        cluster.member(id).unwrap().is_ready()
    })
    .await
    .unwrap();
    assert!(seen, "the status of another member did not show it");
    assert_eq!(metric(&cluster, id, "quarantined").await, 0);
    agree(&cluster, &ann).await.unwrap();
    // Whatever became of the read: what is rotten was not served.
    if let Ok(znode) = reading.await.unwrap() {
        assert_eq!(znode.data, text(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_log_is_gone_does_not_come_back_as_if_nothing_had_happened() {
    let (mut cluster, id) = with_a_checkpoint().await;
    cluster.kill(id).await;
    let data = cluster.config(id).data.clone();
    fs::remove_dir_all(data.join("log")).unwrap();
    // Not even when its tables are not believed either, as after a reboot.
    for _ in 0..2 {
        let why = cluster.launch(id).await.unwrap_err().to_string();
        assert!(why.contains("--replace"), "{why}");
        fs::remove_dir_all(data.join("log")).unwrap();
        if data.join("marker").exists() {
            fs::remove_file(data.join("marker")).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_checkpoint_is_gone_makes_another_of_its_tables() {
    let (mut cluster, id) = with_a_checkpoint().await;
    let shelf = cluster.config(id).data.join("checkpoints");
    cluster.stop(id).await.unwrap();
    fs::remove_dir_all(&shelf).unwrap();
    cluster.restart(id).await.unwrap();
    assert_eq!(metric(&cluster, id, "quarantines_total").await, 0);
    // Its header is where a checkpoint is known by.
    cluster.stop(id).await.unwrap();
    for file in fs::read_dir(&shelf).unwrap().map(|entry| entry.unwrap().path()) {
        OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&[0xff; 4], 30).unwrap();
    }
    cluster.restart(id).await.unwrap();
    assert_eq!(metric(&cluster, id, "quarantines_total").await, 0);
    let client = cluster.client("ann").await.unwrap();
    agree(&cluster, &client).await.unwrap();
    holds(&Client::connect(cluster.options_to("bea", &[id]).unwrap()).await.unwrap(), 0..800).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_that_a_start_meets_is_a_quarantine_too() {
    let (mut cluster, id) = with_a_checkpoint().await;
    let lasting = cluster.client("cat").await.unwrap();
    lasting.at("/held").create("x").ephemeral().await.unwrap();
    agree(&cluster, &lasting).await.unwrap();
    let principal = "spiffe://test.conclave/client/cat";
    cluster.stop(id).await.unwrap();
    // The row of a session, which every start reads.
    assert!(rot(&tables(&cluster, id), principal) > 0, "the session's row is not on the disk");
    cluster.restart(id).await.unwrap();
    assert_eq!(metric(&cluster, id, "quarantines_total").await, 1);
    agree(&cluster, &lasting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_of_the_machine_the_tables_are_made_again_from_checkpoint_and_log() {
    let boot = |name: &'static str| Surroundings { boot: Some(StoreBoot::named(name)), ..Surroundings::default() };
    let mut cluster = Cluster::start_in(3, small, |_| boot("before")).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    fill(&client, 0..700).await;
    for id in 1..=3 {
        eventually_async("its log begins behind a checkpoint", async || {
            metric(&cluster, id, "log_purged_index").await > 0
        })
        .await
        .unwrap();
    }
    fill(&client, 700..720).await;
    for id in 1..=3 {
        cluster.kill(id).await;
        cluster.surround(id, boot("after"));
    }
    for id in 1..=3 {
        cluster.launch(id).await.unwrap();
    }
    cluster.ready().await.unwrap();
    agree(&cluster, &client).await.unwrap();
    for id in 1..=3 {
        let only = Client::connect(cluster.options_to("bea", &[id]).unwrap()).await.unwrap();
        holds(&only, 0..720).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_member_that_installs_a_snapshot_misses_nothing() {
    let mut cluster = Cluster::start_with(3, small).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/data").create("").await.unwrap();
    let away = follower(&cluster).await;
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != away).collect();
    let watcher = Client::connect(cluster.options("bea").unwrap()).await.unwrap();
    let mut watch = watcher.watch("/data").subtree().await.unwrap();
    let last = metric(&cluster, away, "log_last_index").await;
    cluster.stop(away).await.unwrap();
    fill(&client, 0..900).await;
    leader_has_purged(&cluster, last).await;
    // The watcher's own members go: it can only turn to the one that has to install a snapshot.
    cluster.launch(away).await.unwrap();
    eventually("that member is ready", || cluster.member(away).unwrap().is_ready()).await.unwrap();
    cluster.kill(others[0]).await;
    fill(&client, 900..920).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 920 {
        let event = tokio::time::timeout(conclave_testing::PATIENCE, watch.next()).await.unwrap().unwrap();
        let Ok(WatchEvent::Changes { changes, .. }) = event else { panic!("the history is long enough: {event:?}") };
        for change in changes.iter().filter(|change| change.kind == ChangeKind::Created) {
            assert!(seen.insert(change.path.to_string()), "{} was told twice", change.path);
        }
    }
}
