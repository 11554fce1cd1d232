//! A lock whose holders, waiters and members die.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, PATH, assert_fenced_out, mutex, short_lived, until_free, until_waiting, waiter};
use conclave_locks::{Error, Lost, Mutex, State};
use conclave_testing::{Cluster, Mortal, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_followed_by_the_next_with_a_higher_fence() {
    let cluster = Cluster::start(3).await.unwrap();
    let observer = mutex(&cluster, "observer").await;
    let options = || cluster.options("mortal").unwrap().with_session_timeout(Duration::from_secs(2));
    let holder = Mortal::connect(options()).await.unwrap();
    let queued = Mortal::connect(options()).await.unwrap();
    let guard = Mutex::new(holder.client(), PATH).unwrap().acquire().await.unwrap();
    let never = waiter(&observer, &Mutex::new(queued.client(), PATH).unwrap(), 0).await;
    let survivor = mutex(&cluster, "survivor").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_cut_off_knows_it_before_the_next_holds_and_never_revives() {
    let mut cluster = Cluster::start(3).await.unwrap();
    // It knows only this member.
    let only = if cluster.leader().await.unwrap() == 1 { 2 } else { 1 };
    let client = short_lived(&cluster, "cut-off", &[only]).await;
    let mutex_cut = Mutex::new(&client, PATH).unwrap();
    let guard = mutex_cut.acquire().await.unwrap();
    let rest: Vec<u64> = cluster.running().into_iter().filter(|id| *id != only).collect();
    let other = conclave_client::Client::connect(cluster.options_to("other", &rest).unwrap()).await.unwrap();
    let other_mutex = Mutex::new(&other, PATH).unwrap();
    let waiting = tokio::spawn(async move {
        let guard = other_mutex.acquire().within(LONG).await.unwrap();
        (Instant::now(), guard)
    });
    until_waiting(&mutex(&cluster, "observer").await, 1).await;
    assert_eq!(guard.state(), State::Held);
    assert!(guard.time_left() <= Duration::from_millis(1_750), "{:?}", guard.time_left());

    cluster.kill(only).await;
    eventually("the guard is uncertain", || guard.state() == State::Uncertain).await.unwrap();
    let deadline = guard.deadline();
    assert_eq!(guard.lost().await, Lost::SessionOver);
    let lost = Instant::now();
    assert_eq!(guard.state(), State::Lost);
    assert!(lost + Duration::from_millis(50) >= deadline, "not before its deadline");
    let (held, next) = waiting.await.unwrap();
    assert!(lost < held, "two believed that they hold it");
    assert!(next.token() > guard.token());
    assert_fenced_out(&other, guard.fence()).await;

    cluster.restart(only).await.unwrap();
    client.at("/").stat().await.unwrap();
    assert_eq!(guard.state(), State::Lost);
    let error = guard.release().await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::SessionOver)), "{error}");
    assert_eq!(next.state(), State::Held);
    assert!(matches!(mutex_cut.acquire().await, Err(Error::SessionOver)));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leaders_take_the_lock_from_nobody_and_give_it_to_nobody() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (mutex(&cluster, "ann").await, mutex(&cluster, "bob").await);
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

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_that_its_session_is_over() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let ann = mutex(&cluster, "ann").await;
    let guard = ann.acquire().await.unwrap();
    let only = if cluster.leader().await.unwrap() == 1 { 2 } else { 1 };
    let cut_off = Mutex::new(&short_lived(&cluster, "cut-off", &[only]).await, PATH).unwrap();
    let lost = waiter(&ann, &cut_off, 0).await;
    let client = cluster.client("closed").await.unwrap();
    let closed = waiter(&ann, &Mutex::new(&client, PATH).unwrap(), 1).await;
    client.close().await.unwrap();
    let error = closed.await.unwrap().unwrap_err();
    assert!(error.is_session_over(), "{error:?}");
    cluster.kill(only).await;
    let error = lost.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::SessionOver), "{error:?}");
    until_waiting(&ann, 0).await;
    // A holder whose client is closed has lost it.
    let held = guard.held();
    let other = mutex(&cluster, "other").await;
    let waiting = waiter(&other, &other, 0).await;
    drop(guard);
    let next = waiting.await.unwrap().unwrap();
    assert!(next.token() > held.token());
}
