//! Both ways together: callers of the procedure and plain clients exclude each other, and stand in one line.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use conclave_locks::{Error, State};
use conclave_testing::{Cluster, PATIENCE, eventually};

use crate::common::{LONG, PATH, Way, mutex, until_free, until_waiting, waiter};

#[tokio::test(flavor = "multi_thread")]
async fn the_line_is_one_whoever_stands_in_it_and_by_whichever_way() {
    let cluster = Cluster::start(1).await.unwrap();
    let observer = mutex(&cluster, Way::Plain, "observer").await;
    let guard = mutex(&cluster, Way::Plain, "first").await.acquire().await.unwrap();
    let served = Arc::new(StdMutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..6 {
        let mutex = mutex(&cluster, Way::of(n), &format!("w{n}")).await;
        let served = Arc::clone(&served);
        tasks.push(tokio::spawn(async move {
            let guard = mutex.acquire().within(LONG).await.unwrap();
            served.lock().unwrap().push(n);
            guard.release().await.unwrap();
        }));
        until_waiting(&observer, n + 1).await;
    }
    // Those who only try pass nobody.
    for way in [Way::Procedure, Way::Plain] {
        let hasty = mutex(&cluster, way, "hasty").await;
        assert!(matches!(hasty.try_acquire().await, Err(Error::NotFree { ahead: 6, holder: Some(_) })));
    }
    // Both ways see the same.
    let view = mutex(&cluster, Way::Procedure, "other").await.view().await.unwrap();
    assert_eq!(view, observer.view().await.unwrap());
    drop(guard);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    until_free(&observer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_inside_whatever_dies_and_whoever_gives_up() {
    const CLIENTS: usize = 6;
    const EACH: usize = 12;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = mutex(&cluster, Way::Procedure, "observer").await;
    let (inside, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tokens = Arc::new(StdMutex::new(Vec::new()));
    let count = cluster.client("count").await.unwrap();
    count.at("/sum").create("0").await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..CLIENTS {
        let client = cluster.client(&format!("client-{n}")).await.unwrap();
        let (inside, done, tokens) = (Arc::clone(&inside), Arc::clone(&done), Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            for round in 0..EACH {
                let mutex = Way::of(n + round).mutex(&client);
                if round % 3 == 1 {
                    // One that gives up, wherever it stands by then.
                    let given_up = futures::future::select(mutex.acquire().into_future(), Box::pin(client.status()));
                    drop(given_up.await);
                }
                let guard = mutex.acquire().within(LONG).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                tokens.lock().unwrap().push(guard.token());
                guard.fenced(&client).unwrap().at("/sum").add(1).await.unwrap();
                inside.fetch_sub(1, Ordering::SeqCst);
                if round % 2 == 0 {
                    guard.release().await.unwrap()
                } else {
                    drop(guard)
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for round in 1..=2 {
        let reached = || done.load(Ordering::SeqCst) >= round * CLIENTS * EACH / 3;
        eventually("it is handed on", reached).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        cluster.restart(leader).await.unwrap();
    }
    for task in tasks {
        tokio::time::timeout(2 * PATIENCE, task).await.expect("somebody was forgotten").unwrap();
    }
    let tokens = tokens.lock().unwrap().clone();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert_eq!(count.at("/sum").get().await.unwrap().data, (CLIENTS * EACH).to_string());
    until_free(&observer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_one_client_wait_in_turn_and_a_namespace_changes_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let whole = cluster.client("ann").await.unwrap();
    let tenant = whole.namespace("/tenants/a").unwrap();
    let outside = cluster.client("operator").await.unwrap();
    let other = mutex(&cluster, Way::Procedure, "other").await;
    let mutex = Way::Procedure.mutex(&tenant);
    let guard = mutex.acquire().await.unwrap();
    assert_eq!(guard.state(), State::Held);
    assert!(outside.at(format!("/tenants/a{PATH}/holder")).exists().await.unwrap());
    assert!(matches!(mutex.acquire().await, Err(Error::AlreadyHeld { fence }) if fence == guard.fence()));
    // The same path elsewhere is another lock.
    other.try_acquire().await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();

    // Three tasks, one session: each waits by a call of its own.
    let guard = other.acquire().await.unwrap();
    let here = Way::Procedure.mutex(&whole);
    let mut tasks = Vec::new();
    for n in 0..3 {
        tasks.push(waiter(&other, &here, n).await);
    }
    guard.release().await.unwrap();
    let mut last = 0;
    for task in tasks {
        let guard = tokio::time::timeout(LONG, task).await.unwrap().unwrap().unwrap();
        assert!(guard.token() > last);
        last = guard.token();
        guard.release().await.unwrap();
    }
    until_free(&other).await;
}
