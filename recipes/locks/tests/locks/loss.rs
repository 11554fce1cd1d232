//! A lock whose holders, waiters and members die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_locks::{Error, Lost, State};
use conclave_testing::{Cluster, Mortal, eventually};

use crate::common::{self, LONG, Way, assert_fenced_out, client_with, mutex, until_free, until_waiting, waiter};

async fn a_killed_holder_is_followed_by_the_next_with_a_higher_fence(way: Way) {
    let cluster = Cluster::start(3).await.unwrap();
    let observer = mutex(&cluster, way, "observer").await;
    let options = || cluster.options("mortal").unwrap().with_session_timeout(Duration::from_secs(2));
    let holder = Mortal::connect(options()).await.unwrap();
    let queued = Mortal::connect(options()).await.unwrap();
    let guard = way.mutex(holder.client()).acquire().await.unwrap();
    let never = waiter(&observer, &way.mutex(queued.client()), 0).await;
    let survivor = mutex(&cluster, way, "survivor").await;
    let waiting = waiter(&observer, &survivor, 1).await;
    // The one that holds it and the one that is next, both without a word.
    holder.kill();
    queued.kill();
    let next = waiting.await.unwrap().unwrap();
    assert!(next.token() > guard.token());
    // Its guard, which is all that lives on, goes by the clock.
    assert_eq!(guard.state(), State::Lost);
    assert_eq!(guard.lost().await, Lost::SessionOver);
    assert_fenced_out(&cluster.client("late").await.unwrap(), guard.fence()).await;
    never.abort();
    next.release().await.unwrap();
    until_free(&observer).await;
}

async fn a_holder_that_hears_nobody_knows_it_before_the_next_holds_and_never_revives(way: Way) {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = client_with(&cluster, "short", Duration::from_secs(2)).await;
    let mutex = way.mutex(&client);
    let guard = mutex.acquire().await.unwrap();
    let other = client_with(&cluster, "long", Duration::from_secs(120)).await;
    let others = way.mutex(&other);
    let waiting = tokio::spawn({
        let others = others.clone();
        async move { (others.acquire().within(LONG).await.unwrap(), Instant::now()) }
    });
    until_waiting(&others, 1).await;
    eventually("the guard is relied on", || guard.state() == State::Held).await.unwrap();
    assert!(guard.time_left() <= Duration::from_millis(1_750), "{:?}", guard.time_left());

    // One member alone can renew nothing.
    cluster.kill(1).await;
    cluster.kill(2).await;
    let mut uncertain = false;
    eventually("the guard is lost", || {
        uncertain |= guard.state() == State::Uncertain;
        guard.state() == State::Lost
    })
    .await
    .unwrap();
    let lost = Instant::now();
    assert!(uncertain, "it was not doubted before it was lost");
    assert_eq!((guard.lost().await, guard.time_left()), (Lost::SessionOver, Duration::ZERO));

    cluster.restart(1).await.unwrap();
    cluster.restart(2).await.unwrap();
    let (next, held) = waiting.await.unwrap();
    assert!(lost < held, "two believed that they hold it");
    assert!(next.token() > guard.token());
    assert_fenced_out(&other, guard.fence()).await;
    client.at("/").stat().await.unwrap();
    assert_eq!((guard.state(), next.state()), (State::Lost, State::Held));
    let error = guard.release().await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::SessionOver)), "{error}");
    assert!(matches!(mutex.acquire().await, Err(Error::SessionOver)));
    assert_eq!(others.view().await.unwrap().holder.map(|holder| holder.fence), Some(next.fence()));
}

async fn killed_leaders_take_the_lock_from_nobody_and_give_it_to_nobody(way: Way) {
    let mut cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (mutex(&cluster, way, "ann").await, mutex(&cluster, way, "bob").await);
    let guard = ann.acquire().await.unwrap();
    let had = Arc::new(AtomicBool::new(false));
    let waiting = tokio::spawn({
        let (bob, had) = (bob.clone(), Arc::clone(&had));
        async move {
            let guard = bob.acquire().await.unwrap();
            had.store(true, Ordering::SeqCst);
            guard
        }
    });
    until_waiting(&ann, 1).await;
    let release = cluster.client("ann").await.unwrap();
    release.at("/release").create("0").await.unwrap();
    for round in 1..=3 {
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        release.at("/release").set(round.to_string()).fenced(guard.fence()).await.unwrap();
        cluster.restart(leader).await.unwrap();
        let view = ann.view().await.unwrap();
        assert_eq!(view.holder.map(|holder| holder.fence), Some(guard.fence()));
        assert_eq!(view.waiters.len(), 1);
        assert!(!had.load(Ordering::SeqCst), "two hold it");
    }
    eventually("the guard is relied on again", || guard.state() == State::Held).await.unwrap();
    let token = guard.token();
    // Released while there is no leader.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    guard.release().await.unwrap();
    let next = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert!(next.token() > token);
    assert_eq!(bob.view().await.unwrap().waiters.len(), 0);
}

async fn who_waits_is_told_that_its_session_is_over(way: Way) {
    let mut cluster = Cluster::start(3).await.unwrap();
    let holder = way.mutex(&client_with(&cluster, "holder", Duration::from_secs(120)).await);
    let guard = holder.acquire().await.unwrap();
    let client = cluster.client("closed").await.unwrap();
    let closed = waiter(&holder, &way.mutex(&client), 0).await;
    client.close().await.unwrap();
    let error = closed.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::SessionOver), "{error:?}");
    until_waiting(&holder, 0).await;

    let short = client_with(&cluster, "short", Duration::from_secs(2)).await;
    let lost = waiter(&holder, &way.mutex(&short), 0).await;
    cluster.kill(1).await;
    cluster.kill(2).await;
    let error = lost.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::SessionOver), "{error:?}");
    cluster.restart(1).await.unwrap();
    cluster.restart(2).await.unwrap();
    until_waiting(&holder, 0).await;
    // The holder's session is longer than that: it holds it still.
    assert_eq!(holder.view().await.unwrap().holder.map(|holder| holder.fence), Some(guard.fence()));
    guard.release().await.unwrap();

    // A holder whose client is closed has lost it.
    let client = cluster.client("closed-too").await.unwrap();
    let guard = way.mutex(&client).acquire().await.unwrap();
    client.close().await.unwrap();
    assert_eq!(guard.lost().await, Lost::SessionOver);
    let next = holder.acquire().within(LONG).await.unwrap();
    assert!(next.token() > guard.token());
}

common::both_ways!(
    a_killed_holder_is_followed_by_the_next_with_a_higher_fence,
    a_holder_that_hears_nobody_knows_it_before_the_next_holds_and_never_revives,
    killed_leaders_take_the_lock_from_nobody_and_give_it_to_nobody,
    who_waits_is_told_that_its_session_is_over,
);
