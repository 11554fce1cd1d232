//! Znodes that come back, and who is in a group, while members, sessions and programs die.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conclave_client::{Client, Present, Refusal, Zxid};
use conclave_groups::{Error, Group, PersistentEphemeral, State};
use conclave_testing::{Cluster, Mortal, eventually, eventually_async};

const PATH: &str = "/workers/a";

async fn data(client: &Client) -> Option<String> {
    client.at(PATH).get().linearizable().await.ok().map(|znode| String::from_utf8_lossy(&znode.data).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_is_replaced_in_one_transaction_and_nobody_ever_sees_none_or_two() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let options = cluster.options("ann").unwrap().with_session_timeout(Duration::from_secs(4));
    let ann = Client::connect(options).await.unwrap();
    let kept = PersistentEphemeral::create(&ann, PATH, "1").await.unwrap();
    let first = kept.fence().unwrap();
    let cache = observer.cache("/workers").await.unwrap();
    cache.reached(first.zxid).await.unwrap();
    let mut changes = cache.changes();
    // What became of it, step by step: the zxids of the znodes that were there before and after.
    let steps = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn({
        let steps = Arc::clone(&steps);
        async move {
            while let Some(Ok(set)) = changes.next().await {
                let created = |znode: Option<Present>| znode.map(|znode| znode.stat.created);
                let step = set.changes.into_iter().find(|change| change.path.as_str() == PATH);
                steps.lock().unwrap().extend(step.map(|step| (created(step.before), created(step.after))));
            }
        }
    });
    eventually("it is relied on", || kept.state() == State::Present).await.unwrap();

    // One member alone can renew nothing, and when the others are back they give every session its whole time again.
    cluster.kill(1).await;
    cluster.kill(2).await;
    eventually("its session is lost", || kept.state() == State::Absent).await.unwrap();
    // What is said meanwhile is in the znode that comes back.
    let said = tokio::spawn(async move {
        kept.set_data("2").await.unwrap();
        kept
    });
    cluster.restart(1).await.unwrap();
    cluster.restart(2).await.unwrap();
    let kept = said.await.unwrap();
    let second = kept.fence().unwrap();
    assert!(second.zxid > first.zxid);
    assert_eq!(data(&observer).await.as_deref(), Some("2"));

    // Its own session's end, without a ghost.
    let replaced = kept.client().unwrap();
    cluster.kill_session(&replaced).await.unwrap();
    eventually("it is there again", || kept.fence().is_some_and(|fence| fence.zxid > second.zxid)).await.unwrap();
    cache.reached(kept.fence().unwrap().zxid).await.unwrap();
    assert_eq!(cache.children("/workers").unwrap().len(), 1);
    let third = kept.fence().unwrap();
    let seen = || steps.lock().unwrap().clone();
    let is_seen = || seen().last().is_some_and(|(_, after)| *after == Some(third.zxid));
    eventually("the last one is seen", is_seen).await.unwrap();
    let seen = seen();
    assert_eq!(seen[0], (Some(first.zxid), Some(second.zxid)), "there was none, or another: {seen:?}");

    kept.remove().await.unwrap();
    assert_eq!(data(&observer).await, None);
    // The clients that it had made are gone, and their sessions with them.
    eventually_async("no session is left", async || {
        observer.sessions().await.unwrap().iter().all(|session| session.ephemerals == 0)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_waited_for_and_replaced_once_if_it_is_said() {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let anns = PersistentEphemeral::create(&ann, PATH, "ann").await.unwrap();
    let owner = Some(ann.session().await.unwrap().id());
    let taken = PersistentEphemeral::create(&bob, PATH, "bob").within(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&taken, Error::Taken { owner: found, .. } if *found == owner), "{taken}");
    // Two of one client do not quarrel either.
    let own = PersistentEphemeral::create(&ann, PATH, "too").within(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(own, Error::Taken { .. }), "{own}");
    assert_eq!(data(&bob).await.as_deref(), Some("ann"));

    let bobs = PersistentEphemeral::create(&bob, PATH, "bob").replace().await.unwrap();
    let owner = Some(bob.session().await.unwrap().id());
    eventually("ann knows that it is taken", || anns.state() == State::Taken { owner }).await.unwrap();
    let fence = bobs.fence().unwrap();
    // What ann says now is not written over bob's.
    let mut said = Box::pin(anns.set_data("ann again"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut said).await.is_err());
    assert_eq!((data(&bob).await.as_deref(), bobs.fence()), (Some("bob"), Some(fence)));
    bobs.remove().await.unwrap();
    said.await.unwrap();
    assert_eq!(data(&bob).await.as_deref(), Some("ann again"));

    // Deleted by hand it comes back in the same session.
    let before = anns.fence().unwrap();
    bob.at(PATH).delete().await.unwrap();
    eventually("it is there again", || anns.fence().is_some_and(|fence| fence != before)).await.unwrap();
    assert_eq!(anns.state(), State::Present);

    // What the cluster refuses changes nothing, and is not what it comes back with.
    let refused = anns.set_data(vec![0; 3 << 20]).await.unwrap_err();
    assert!(matches!(&refused, Error::Client(conclave_client::Error::Refused(Refusal::Limit { .. }))), "{refused}");
    let before = anns.fence().unwrap();
    cluster.kill_session(&ann).await.unwrap();
    eventually("it is there again", || anns.fence().is_some_and(|fence| fence.zxid > before.zxid)).await.unwrap();
    assert_eq!(data(&bob).await.as_deref(), Some("ann again"));

    // Closing the first client ends it, whosever session it is in by now.
    ann.close().await.unwrap();
    eventually("it is ended", || anns.state() == State::Ended).await.unwrap();
    let ended = anns.set_data("late").await.unwrap_err();
    assert!(matches!(ended, Error::Ended { .. }), "{ended}");
    eventually_async("it is gone", async || data(&bob).await.is_none()).await.unwrap();
    drop(anns);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_dropped_at_any_moment_leaves_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    drop(PersistentEphemeral::create(&ann, PATH, "").await.unwrap());
    let begun = Instant::now();
    drop(PersistentEphemeral::create(&ann, PATH, "").await.unwrap());
    let whole = begun.elapsed();
    let (mut had, mut dropped) = (0, 0);
    for round in 0..100 {
        let time = whole * (round * 37 % 100) / 50;
        let create = PersistentEphemeral::create(&ann, format!("{PATH}-{round}"), "").into_future();
        match tokio::time::timeout(time, create).await {
            Ok(kept) => {
                had += 1;
                drop(kept.unwrap());
            }
            Err(_) => dropped += 1,
        }
    }
    assert!(had > 0 && dropped > 0, "had {had}, dropped {dropped}");
    eventually_async("nothing is left", async || {
        observer.at("/workers").children().linearizable().await.unwrap().children.is_empty()
    })
    .await
    .unwrap();
    assert_eq!(observer.sessions().await.unwrap().len(), 1, "a drop must not cost the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_a_group_are_states_and_end_at_the_last_whoever_is_killed() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let group = Group::new(&observer, "/groups/w").unwrap();
    assert!(group.members().await.unwrap().members.is_empty());
    let mut members = group.watch().await.unwrap();
    assert!(members.next().await.unwrap().unwrap().members.is_empty(), "first what is there");

    let ann = cluster.client("ann").await.unwrap();
    let anns = Group::new(&ann, "/groups/w").unwrap().join("ann", "1").await.unwrap();
    let options = cluster.options("mortal").unwrap().with_session_timeout(Duration::from_secs(2));
    let mortal = Mortal::connect(options).await.unwrap();
    let seat = "/groups/w/members/mortal";
    mortal.client().at(seat).create("").ephemeral().await.unwrap();
    // Pairs that come and go together: a view with one of them is no state.
    let pairs = tokio::spawn({
        let bob = cluster.client("bob").await.unwrap();
        async move {
            let (left, right) = ("/groups/w/members/left", "/groups/w/members/right");
            for _ in 0..40 {
                bob.transaction().create(left, "").create(right, "").commit().await.unwrap();
                bob.transaction().delete(right).delete(left).commit().await.unwrap();
            }
        }
    });
    mortal.kill();
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    anns.set_data("2").await.unwrap();
    cluster.restart(leader).await.unwrap();
    pairs.await.unwrap();

    let (mut last, mut views) = (Zxid(0), 0);
    let end = tokio::time::timeout(conclave_testing::PATIENCE, async {
        loop {
            let view = members.next().await.unwrap().unwrap();
            assert!(view.zxid > last, "{} after {last}", view.zxid);
            (last, views) = (view.zxid, views + 1);
            let has = |name: &str| view.members.contains_key(name);
            assert_eq!(has("left"), has("right"), "half of a transaction at {last}");
            if view.members.len() == 1 && !has("mortal") && view.members["ann"].data == "2" && !has("left") {
                return view;
            }
        }
    });
    let end = end.await.unwrap();
    assert_eq!(end.members["ann"].session, Some(ann.session().await.unwrap().id()));
    assert_eq!(Some(end.members["ann"].since), anns.fence().map(|fence| fence.zxid));
    assert_eq!(group.members().await.unwrap().members, end.members);
    anns.leave().await.unwrap();
    assert!(group.members().await.unwrap().members.is_empty());
    assert!(group.join("no/name", "").await.is_err());
}
