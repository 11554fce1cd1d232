//! Sessions and what they own, across members, leaders and deaths.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use conclave_client::{Client, Error, Fence, Refusal, State};
use conclave_testing::{Cluster, Mortal, eventually, eventually_async};

/// Waits until a znode is there, or is not.
async fn until_exists(client: &Client, path: &str, expected: bool) {
    eventually_async(&format!("{path} exists: {expected}"), async || {
        client.at(path).exists().linearizable().await.unwrap() == expected
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_znodes_go_with_their_session() {
    let cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    observer.at("/e").create("").await.unwrap();

    // Closed: at once.
    let owner = cluster.client("owner").await.unwrap();
    let created = owner.at("/e/n-").create("x").ephemeral().sequential().await.unwrap();
    assert_eq!(created.path.as_str(), "/e/n-0000000000");
    assert_eq!(created.stat.owner, Some(owner.session().await.unwrap().id()));
    owner.close().await.unwrap();
    until_exists(&observer, "/e/n-0000000000", false).await;

    // The client vanishes: when its time is over, and not before the timeout.
    let options = cluster.options("owner").unwrap().with_session_timeout(Duration::from_secs(2));
    let owner = Mortal::connect(options).await.unwrap();
    let created = owner.client().at("/e/n-").create("x").ephemeral().sequential().await.unwrap();
    assert_eq!(created.path.as_str(), "/e/n-0000000001", "numbers are never used again");
    let vanished = std::time::Instant::now();
    owner.kill();
    until_exists(&observer, "/e/n-0000000001", false).await;
    assert!(vanished.elapsed() >= Duration::from_secs(1), "a session is not expired early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_member_and_the_leader() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let owner = Client::connect(cluster.options("owner").unwrap().with_session_timeout(Duration::from_secs(5)));
    let owner = owner.await.unwrap();
    let session = owner.session().await.unwrap();
    owner.at("/mine").create("x").ephemeral().await.unwrap();
    for _ in 0..3 {
        let carrier = owner.peer().unwrap().member.0;
        cluster.kill(carrier).await;
        owner.at("/mine").set("y").await.unwrap();
        cluster.restart(carrier).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        owner.at("/mine").set("z").await.unwrap();
        cluster.restart(leader).await.unwrap();
    }
    eventually("the session is relied on again", || session.state() == State::Connected).await.unwrap();
    let stat = observer.at("/mine").stat().await.unwrap().unwrap();
    assert_eq!(stat.owner, Some(session.id()));
    assert_eq!(stat.version, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_belongs_to_its_principal_and_its_end_is_told() {
    let cluster = Cluster::start(1).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let owner = cluster.client("owner").await.unwrap();
    owner.at("/holder").create("owner").ephemeral().await.unwrap();
    let stat = observer.at("/holder").stat().await.unwrap().unwrap();
    let fence = Fence { path: conclave_protocol::Path::parse("/holder").unwrap(), zxid: stat.created };

    // Fenced writes hold while the award does.
    observer.at("/release").create("v1").fenced(fence.clone()).await.unwrap();
    owner.close().await.unwrap();
    let refused = observer.at("/release").set("v2").fenced(fence.clone()).await.unwrap_err();
    let Error::Refused(Refusal::Fenced { actual: None, .. }) = refused else { panic!("{refused}") };

    // And not for the next holder's sake.
    let next = cluster.client("next").await.unwrap();
    next.at("/holder").create("next").ephemeral().await.unwrap();
    let refused = observer.at("/release").set("v2").fenced(fence).await.unwrap_err();
    let Error::Refused(Refusal::Fenced { actual: Some(zxid), .. }) = refused else { panic!("{refused}") };
    assert!(zxid > stat.created);
    assert_eq!(observer.at("/release").get().await.unwrap().data, "v1");

    // Children of an ephemeral znode are its session's, and go with it.
    next.at("/holder/child").create("").ephemeral().await.unwrap();
    let refused = observer.at("/holder/other").create("").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::EphemeralParent { .. })), "{refused}");
    next.close().await.unwrap();
    until_exists(&observer, "/holder", false).await;
}
