//! Full, slow and failing disks: one member's is no reason for the others to stop.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conclave_client::{Client, Error, Refusal};
use conclave_log::MemDisk;
use conclave_server::{Config, Stopped, Surroundings};
use conclave_testing::{Cluster, Mortal, eventually, eventually_async};

const MIB: u64 = 1 << 20;

/// What stands still for half a second stalls.
fn small(config: &mut Config) {
    config.storage.reserve_bytes = MIB;
    config.storage.least_free_bytes = 100 * MIB;
    config.storage.stalled_sync_ms = 500;
    config.storage.log_segment_bytes = MIB;
}

/// The logs' disks and the free bytes of each member. Dropped before the cluster, it lets go what stands still: a member
/// can't end while its log waits for its disk.
struct Disks {
    logs: BTreeMap<u64, MemDisk>,
    free: BTreeMap<u64, Arc<AtomicU64>>,
}

impl Disks {
    async fn cluster(members: u64) -> (Cluster, Self) {
        let logs: BTreeMap<u64, MemDisk> = (1..=members).map(|id| (id, MemDisk::new())).collect();
        let free = (1..=members).map(|id| (id, Arc::new(AtomicU64::new(1_000 * MIB)))).collect();
        let disks = Self { logs, free };
        let around = |id| Surroundings {
            log_disk: Some(Arc::new(disks.logs[&id].clone())),
            free_bytes: Some(Arc::clone(&disks.free[&id])),
            ..Surroundings::default()
        };
        let cluster = Cluster::start_in(members, small, around).await.unwrap();
        (cluster, disks)
    }

    fn free(&self, id: u64, bytes: u64) {
        self.free[&id].store(bytes, Ordering::Relaxed);
    }

    /// The disk of this member's log has no room for more than is on it.
    fn fill(&self, id: u64) {
        let disk = &self.logs[&id];
        disk.limit(Some(disk.used()));
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in self.logs.values() {
            disk.release();
            disk.limit(None);
        }
    }
}

fn others(cluster: &Cluster, one: u64) -> Vec<u64> {
    cluster.running().into_iter().filter(|id| *id != one).collect()
}

/// A client that knows all members but one.
async fn client_without(cluster: &Cluster, one: u64) -> Client {
    Client::connect(cluster.options_to("others", &others(cluster, one)).unwrap()).await.unwrap()
}

async fn until_another_leads(cluster: &Cluster, one: u64) {
    let leads = |id: &u64| cluster.member(*id).is_some_and(conclave_server::Member::is_leader);
    let others = others(cluster, one);
    eventually("another member leads", || others.iter().any(leads)).await.unwrap();
}

/// Waits until all members are at one zxid, with one digest.
async fn until_equal(cluster: &Cluster, client: &Client) {
    let members = cluster.running().len();
    eventually_async("all members have the same state", async || {
        let Ok(status) = client.status().await else { return false };
        let of = status.members.iter().filter_map(|member| Some((member.zxid?, member.digest.clone()?)));
        let states: Vec<_> = of.collect();
        states.len() == members && states.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await
    .unwrap();
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Refused(Refusal::DiskFull { .. }))
}

/// Creates a znode, as soon as nothing but a full disk is against it.
async fn until_it_grows(client: &Client, path: &str, data: &str) {
    eventually_async("growth is allowed", async || match client.at(path).create(data.to_owned()).await {
        Ok(_) => true,
        Err(error) => {
            assert!(is_full(&error), "{path}: {error}");
            false
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stands_still_hands_over_and_writes_go_on() {
    let (cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let client = client_without(&cluster, leader).await;
    client.at("/a").create("before").await.unwrap();
    disks.logs[&leader].stall();
    // Under way while the disk stands still, so that there is something to stand still with.
    client.at("/a").set("meanwhile").await.unwrap();
    until_another_leads(&cluster, leader).await;
    for n in 0..20 {
        client.at(format!("/n{n}")).create("after").await.unwrap();
    }
    disks.logs[&leader].release();
    until_equal(&cluster, &client).await;
    assert!(!cluster.member(leader).unwrap().is_leader());
    assert!(cluster.member(leader).unwrap().is_ready(), "a slow disk is no reason to end");
    assert!(cluster.metric(leader, "handed_over_total").await.unwrap() > 0);
    assert_eq!(client.at("/a").get().linearizable().await.unwrap().data, "meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_hand_over_ends_and_says_why() {
    let (mut cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    // With every disk standing still nobody can be elected, and yet all answer.
    disks.logs.values().for_each(MemDisk::stall);
    let write = tokio::spawn(async move { client.at("/a").create("").await });
    let stopped = cluster.member(leader).unwrap().stopped();
    let Stopped::Fault(why) = tokio::time::timeout(conclave_testing::PATIENCE, stopped).await.unwrap() else {
        panic!("it was not asked to stop")
    };
    assert!(why.contains("the log's disk") && why.contains("could not be handed over"), "{why}");
    disks.logs.values().for_each(MemDisk::release);
    // As its process would end.
    cluster.kill(leader).await;
    until_another_leads(&cluster, leader).await;
    // Whether it happened before the end is not known to the client; that it does not wait for ever is.
    drop(write.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_member_with_the_reason_and_the_others_go_on() {
    let (cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let client = client_without(&cluster, leader).await;
    client.at("/a").create("before").await.unwrap();
    disks.logs[&leader].fail_sync_after(0);
    client.at("/a").set("after").await.unwrap();
    let stopped = cluster.member(leader).unwrap().stopped();
    let Stopped::Fault(why) = tokio::time::timeout(conclave_testing::PATIENCE, stopped).await.unwrap() else {
        panic!("it was not asked to stop")
    };
    assert!(why.contains("the log can't be written: cannot sync"), "{why}");
    until_another_leads(&cluster, leader).await;
    client.at("/a").set("and on").await.unwrap();
    for id in others(&cluster, leader) {
        assert!(cluster.member(id).unwrap().is_ready());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_leader_refuses_growth_only_and_goes_on_by_itself_when_there_is_room() {
    let (cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    for n in 0..3 {
        client.at(format!("/n{n}")).create("12345").await.unwrap();
    }
    let options = cluster.options("owner").unwrap().with_session_timeout(Duration::from_secs(2));
    let owner = Mortal::connect(options).await.unwrap();
    owner.client().at("/mine").create("x").ephemeral().await.unwrap();

    disks.free(leader, 100 * MIB - 1);
    eventually_async("growth is refused", async || client.at("/new-").create("").sequential().await.is_err())
        .await
        .unwrap();
    let refusal = client.at("/new").create("").await.unwrap_err();
    let expected = Refusal::DiskFull { free_bytes: 100 * MIB - 1, least_bytes: 110 * MIB };
    assert!(matches!(&refusal, Error::Refused(refused) if *refused == expected), "{refusal:?}");
    assert!(is_full(&client.at("/n0").set("123456").await.unwrap_err()));
    let opener = cluster.client("opener").await.unwrap();
    assert!(is_full(&opener.session().await.map(drop).unwrap_err()));
    assert_eq!(cluster.metric(leader, "refuses_growth").await.unwrap(), 1);

    // What does not grow goes on, on every member: the leader decides.
    for id in cluster.running() {
        let client = Client::connect(cluster.options_to("ann", &[id]).unwrap()).await.unwrap();
        client.at("/n0").set("54321").await.unwrap();
        assert_eq!(client.at("/n0").get().linearizable().await.unwrap().data, "54321");
        client.at(format!("/n{}", id - 1)).exists().await.unwrap();
    }
    client.at("/n1").delete().await.unwrap();
    owner.kill();
    eventually_async("the session's znode goes with it", async || {
        !client.at("/mine").exists().linearizable().await.unwrap()
    })
    .await
    .unwrap();

    disks.free(leader, 110 * MIB);
    until_it_grows(&client, "/new", "").await;
    until_equal(&cluster, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_full_refuses_nothing() {
    let (cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let follower = others(&cluster, leader)[0];
    disks.free(follower, 0);
    eventually_async("it has seen it", async || cluster.metric(follower, "refuses_growth").await.unwrap() == 1)
        .await
        .unwrap();
    let client = Client::connect(cluster.options_to("ann", &[follower]).unwrap()).await.unwrap();
    client.at("/a").create("12345").await.unwrap();
    cluster.client("bob").await.unwrap().session().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_log_finds_no_room_hands_over_to_one_that_has_some() {
    let (cluster, disks) = Disks::cluster(3).await;
    let leader = cluster.leader().await.unwrap();
    let client = client_without(&cluster, leader).await;
    client.at("/a").create("before").await.unwrap();
    disks.fill(leader);
    let big = "x".repeat(256 << 10);
    // More than the log has zeros for, so that it needs room.
    for n in 0..16 {
        until_it_grows(&client, &format!("/n{n}"), &big).await;
    }
    until_another_leads(&cluster, leader).await;
    assert!(cluster.member(leader).unwrap().is_ready(), "it waits for room, and is no worse for it");
    disks.logs[&leader].limit(None);
    until_equal(&cluster, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_waits_for_room_and_acknowledges_nothing_before() {
    let (mut cluster, disks) = Disks::cluster(1).await;
    let client = cluster.client("ann").await.unwrap();
    client.at("/a").create("before").await.unwrap();
    disks.fill(1);
    let big = "x".repeat(512 << 10);
    let here = client.clone();
    let write = tokio::spawn(async move {
        let mut done = 0;
        while done < 16 && here.at(format!("/n{done}")).create(big.clone()).await.is_ok() {
            done += 1;
        }
        done
    });
    eventually_async("the disk is found full", async || cluster.metric(1, "refuses_growth").await.unwrap() == 1)
        .await
        .unwrap();
    assert!(!write.is_finished());
    disks.logs[&1].limit(None);
    // What waited is done; what came while the reserve was not back yet may have been refused.
    let done = write.await.unwrap();
    assert!(done > 0, "what waited for room was acknowledged when there was some");
    until_it_grows(&client, "/after", "").await;
    cluster.kill(1).await;
    cluster.restart(1).await.unwrap();
    for n in 0..done {
        assert!(client.at(format!("/n{n}")).exists().await.unwrap(), "{n}");
    }
}
