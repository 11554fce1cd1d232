//! What a user does first, on one member and on three.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_testing::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn one_member_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let created = client.at("/a/b").create("one").parents().await.unwrap();
    assert_eq!(created.path.as_str(), "/a/b");
    let stat = client.at("/a/b").set("two").if_version(0).await.unwrap();
    assert_eq!(stat.version, 1);
    let znode = client.at("/a/b").get().await.unwrap();
    assert_eq!(&znode.data[..], b"two");
    cluster.stop(1).await.unwrap();
    cluster.restart(1).await.unwrap();
    let znode = client.at("/a/b").get().await.unwrap();
    assert_eq!(&znode.data[..], b"two");
    cluster.kill(1).await;
    cluster.restart(1).await.unwrap();
    let znode = client.at("/a/b").get().await.unwrap();
    assert_eq!(&znode.data[..], b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_go_on_without_their_leader() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/a").create("0").await.unwrap();
    for round in 1..=3u32 {
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        client.at("/a").set(round.to_string()).await.unwrap();
        cluster.restart(leader).await.unwrap();
        let znode = client.at("/a").get().await.unwrap();
        assert_eq!(znode.data, round.to_string());
    }
    let status = client.status().await.unwrap();
    assert_eq!(status.members.len(), 3);
}
