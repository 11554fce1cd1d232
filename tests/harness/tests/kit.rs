//! What the kit says that it does to clusters, it does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use conclave_client::{Client, Error, State};
use conclave_testing::{Cluster, Mortal, Weather, eventually, eventually_async};

/// Short, so that it is over within a test.
const SESSION: Duration = Duration::from_secs(2);

async fn short(cluster: &Cluster, name: &str) -> Client {
    Client::connect(cluster.options(name).unwrap().with_session_timeout(SESSION)).await.unwrap()
}

#[tokio::test]
async fn a_paused_leader_is_deposed_and_comes_back_with_what_it_missed() {
    let cluster = Cluster::proxied(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    ann.at("/a").create("0").await.unwrap();
    let paused = cluster.leader().await.unwrap();
    let term = cluster.metric(paused, "term").await.unwrap();
    cluster.pause(paused).unwrap();

    // It is not heard by others, who elect one of themselves; and a client that knew it turns to another.
    ann.at("/a").set("1").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    assert_ne!(leader, paused);
    assert!(cluster.metric(leader, "term").await.unwrap() > term);
    // And it hears nothing: it stays where it is.
    assert_eq!(cluster.metric(paused, "term").await.unwrap(), term);

    cluster.resume(paused).unwrap();
    let zxid = ann.zxid().0;
    eventually_async("it has what it missed", async || cluster.metric(paused, "zxid").await.is_ok_and(|at| at >= zxid))
        .await
        .unwrap();
    eventually("it follows", || !cluster.member(paused).unwrap().is_leader()).await.unwrap();
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_done_once_and_its_caller_gets_the_reply_in_the_end() {
    let cluster = Cluster::proxied(3).await.unwrap();
    let (ann, ben) = (short(&cluster, "ann").await, cluster.client("ben").await.unwrap());
    ann.at("/a").create("0").await.unwrap();
    for with_session in [false, true] {
        if with_session {
            ann.session().await.unwrap();
        }
        let before = ben.at("/a").stat().await.unwrap().unwrap().version;
        cluster.drop_replies(&ann).unwrap();
        let write = tokio::spawn(ann.at("/a").set("1").into_future());
        let is_done = async || ben.at("/a").stat().await.unwrap().unwrap().version > before;
        eventually_async("it is done", is_done).await.unwrap();
        assert!(!write.is_finished(), "its caller knows");
        cluster.mend(&ann).unwrap();
        assert_eq!(write.await.unwrap().unwrap().version, before + 1);
    }
}

#[tokio::test]
async fn a_client_that_is_cut_off_loses_its_session_and_others_do_not() {
    let cluster = Cluster::proxied(3).await.unwrap();
    let (ann, ben) = (short(&cluster, "ann").await, short(&cluster, "ben").await);
    ann.at("/ann").create("").ephemeral().await.unwrap();
    ben.at("/ben").create("").ephemeral().await.unwrap();
    cluster.cut(&ann).unwrap();
    eventually("it knows", || ann.state() == State::Lost).await.unwrap();
    eventually_async("the cluster knows", async || !ben.at("/ann").exists().await.unwrap()).await.unwrap();
    assert_eq!(ben.state(), State::Connected);
    assert!(ben.at("/ben").exists().await.unwrap());
    cluster.mend(&ann).unwrap();
    let again = Client::connect(ann.options().clone()).await.unwrap();
    assert!(again.at("/ben").exists().await.unwrap());
}

#[tokio::test]
async fn a_killed_session_is_over_for_the_cluster_and_for_its_client() {
    for cluster in [Cluster::start(1).await.unwrap(), Cluster::proxied(1).await.unwrap()] {
        let (ann, ben) = (cluster.client("ann").await.unwrap(), cluster.client("ben").await.unwrap());
        ann.at("/mine").create("").ephemeral().await.unwrap();
        let session = ann.session().await.unwrap();
        cluster.kill_session(&ann).await.unwrap();
        assert!(!ben.at("/mine").exists().await.unwrap());
        tokio::time::timeout(conclave_testing::PATIENCE, session.lost()).await.unwrap();
        let refused = ann.at("/mine").create("").ephemeral().await.unwrap_err();
        assert!(refused.is_session_over(), "{refused}");
        assert!(cluster.kill_session(&ann).await.is_err(), "it is over already");
    }
}

#[tokio::test]
async fn a_killed_member_is_left_at_once_and_comes_back_behind_its_proxies() {
    let mut cluster = Cluster::proxied(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    ann.at("/a").create("0").await.unwrap();
    for version in 1..=3_u64 {
        let carrier = ann.peer().unwrap().member.0;
        cluster.kill(carrier).await;
        assert_eq!(ann.at("/a").set(version.to_string()).await.unwrap().version, version);
        cluster.launch(carrier).await.unwrap();
        assert!(cluster.launch(carrier).await.unwrap_err().to_string().contains("runs already"));
        cluster.ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_vanishes_loses_its_session_only_when_its_time_is_over() {
    let cluster = Cluster::start(1).await.unwrap();
    let ben = cluster.client("ben").await.unwrap();
    let ann = Mortal::connect(cluster.options("ann").unwrap().with_session_timeout(SESSION)).await.unwrap();
    ann.client().at("/mine").create("").ephemeral().await.unwrap();
    ann.kill();
    assert!(ben.at("/mine").exists().await.unwrap());
    eventually_async("it is gone", async || !ben.at("/mine").exists().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn bad_weather_costs_time_and_nothing_else() {
    let cluster = Cluster::setup(3).proxied().start().await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    ann.at("/a").create("").await.unwrap();
    let weather = Weather { lost: 20, twice: 50, late: 50, delay: Duration::from_millis(10) };
    cluster.weather(weather).unwrap();
    for version in 1..=50 {
        assert_eq!(ann.at("/a").set("x").await.unwrap().version, version);
    }
    assert_eq!(ann.at("/a").stat().await.unwrap().unwrap().version, 50);
}

#[tokio::test]
async fn what_needs_proxies_says_so_where_there_are_none() {
    let cluster = Cluster::setup(1).configured(|config| config.limits.data_bytes = 1 << 10).start().await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    for refused in [cluster.pause(1), cluster.resume(1), cluster.cut(&ann), cluster.weather(Weather::default())] {
        assert!(refused.unwrap_err().to_string().contains("Cluster::proxied"));
    }
    let refused = ann.at("/a").create(vec![0; 2 << 10]).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(refusal) if refusal.code() == "limit"));
    // A client of another cluster.
    let other = Cluster::proxied(1).await.unwrap();
    assert!(other.cut(&ann).unwrap_err().to_string().contains("options of this cluster"));
    assert!(other.pause(2).unwrap_err().to_string().contains("member 2 does not run"));
}
