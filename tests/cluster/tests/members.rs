//! Members come and go while the cluster serves.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::{Client, Error, MemberId, Role};
use conclave_server::{Config, Listen, Member, MemberAddress};
use conclave_testing::{Cluster, eventually_async, surroundings};

/// A member that knows the cluster's id, its own addresses and nothing else.
async fn newcomer(cluster: &Cluster, id: u64) -> (Member, Config) {
    let (client, peer) = (cluster.ports().udp().unwrap(), cluster.ports().udp().unwrap());
    let config = Config {
        member: id,
        data: cluster.dir().join(format!("member-{id}")),
        tls: cluster.pki().member(id).unwrap(),
        initialize: false,
        listen: Listen { client, peer, admin: None },
        members: vec![MemberAddress { id, client: client.to_string(), peer: peer.to_string() }],
        ..cluster.config(1).clone()
    };
    let starting = config.clone();
    let member =
        tokio::task::spawn_blocking(move || Member::start_in(&starting, surroundings())).await.unwrap().unwrap();
    (member, config)
}

async fn join(client: &Client, config: &Config) {
    let id = MemberId(config.member);
    let at = &config.members[0];
    client.add_learner(id, &at.client, &at.peer).await.unwrap();
    eventually_async("it has its vote", async || client.promote(id).await.is_ok()).await.unwrap();
}

fn declined(result: Result<(), Error>) -> &'static str {
    match result {
        Err(Error::Declined(refusal)) => refusal.code(),
        other => panic!("{other:?}"),
    }
}

async fn kill(member: Member) {
    tokio::task::spawn_blocking(move || member.kill()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_added_votes_and_takes_the_place_of_one_that_is_removed() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    ann.at("/a").create("before").await.unwrap();
    let (fourth, config) = newcomer(&cluster, 4).await;
    join(&ann, &config).await;
    // Asked again, all of it is so already.
    join(&ann, &config).await;
    let health = ann.health().await.unwrap();
    assert_eq!(health.members.iter().filter(|member| member.voter).count(), 4);
    assert!(health.members.iter().all(|member| member.report.is_some()), "{health:?}");

    // A dead one goes; its number does not come back.
    cluster.kill(3).await;
    ann.remove(MemberId(3)).await.unwrap();
    let at = &config.members[0];
    assert_eq!(declined(ann.add_learner(MemberId(3), "h:1", "h:2").await), "number-used");
    assert_eq!(declined(ann.add_learner(MemberId(4), "h:1", "h:2").await), "member-exists");
    assert_eq!(declined(ann.add_learner(MemberId(5), &at.client, "h:2").await), "address-taken");
    assert_eq!(declined(ann.remove(MemberId(3)).await), "no-member");
    assert_eq!(declined(ann.promote(MemberId(3)).await), "no-member");

    // Clients are told of those who are there: this one has the addresses of two that are gone in a moment.
    ann.at("/a").set("between").await.unwrap();
    cluster.kill(2).await;
    ann.at("/a").set("after").await.unwrap();
    let status = ann.status().await.unwrap();
    let told: Vec<(u64, &str)> = status.members.iter().map(|one| (one.id.0, one.address.as_str())).collect();
    assert!(told.contains(&(4, at.client.as_str())) && !told.iter().any(|(id, _)| *id == 3), "{told:?}");
    let options = cluster.options_to("ben", &[1]).unwrap();
    let ben = Client::connect(options).await.unwrap();
    cluster.kill(1).await;
    eventually_async("whoever was told only of member 1 finds member 4", async || {
        let peer = ben.peer().map(|peer| peer.member);
        let read = ben.at("/a").get().stale().await;
        peer == Some(MemberId(4)) && read.is_ok_and(|znode| znode.data == "after")
    })
    .await
    .unwrap();
    kill(fourth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_removed_whom_a_majority_needs_and_a_leader_goes_after_handing_over() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let followers: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    // Through a follower: the request is carried to the leader.
    let ann = Client::connect(cluster.options_to("ann", &[followers[0]]).unwrap()).await.unwrap();
    ann.at("/a").create("0").await.unwrap();
    cluster.kill(followers[1]).await;
    assert_eq!(declined(ann.remove(MemberId(followers[0])).await), "no-majority");
    ann.at("/a").set("still").await.unwrap();
    cluster.restart(followers[1]).await.unwrap();

    ann.step_down().await.unwrap();
    eventually_async("another one leads", async || {
        let now = ann.health().await.unwrap().leader;
        now.is_some_and(|now| now != MemberId(leader))
    })
    .await
    .unwrap();
    let leads = ann.health().await.unwrap().leader.unwrap();
    ann.remove(leads).await.unwrap();
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| MemberId(*id) != leads).collect();
    let ben = Client::connect(cluster.options_to("ben", &others).unwrap()).await.unwrap();
    ben.at("/a").set("goes on").await.unwrap();
    let left = ben.health().await.unwrap();
    assert!(left.members.iter().all(|member| member.id != leads), "{left:?}");
    assert_eq!(left.members.iter().filter(|member| member.voter).count(), 2);
    // The one that was taken out is not heard any more, and says so.
    let eve = Client::connect(cluster.options_to("eve", &[leads.0]).unwrap()).await.unwrap();
    assert_eq!(declined(eve.remove(MemberId(others[0])).await), "not-a-member");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_stays_and_a_member_that_does_not_answer_gets_no_vote() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    assert_eq!(declined(ann.remove(MemberId(1)).await), "last-voter");
    assert_eq!(declined(ann.step_down().await), "no-successor");
    let nobody = (cluster.ports().udp().unwrap().to_string(), cluster.ports().udp().unwrap().to_string());
    ann.add_learner(MemberId(2), &nobody.0, &nobody.1).await.unwrap();
    assert_eq!(declined(ann.promote(MemberId(2)).await), "unreachable");
    let health = ann.health().await.unwrap();
    assert_eq!(health.members[1].role, Role::Unreachable);
    assert!(!health.members[1].voter && health.members[0].voter);
    ann.at("/a").create("a vote given too early would stop this").await.unwrap();
    ann.remove(MemberId(2)).await.unwrap();
    assert_eq!(ann.health().await.unwrap().members.len(), 1);
}
