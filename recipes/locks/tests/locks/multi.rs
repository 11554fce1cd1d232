//! Several mutexes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conclave_client::{Client, Error as ClientError, Refusal};
use conclave_locks::{Error, Lost, MultiLock, Mutex, State, View};
use conclave_testing::{Cluster, PATIENCE, eventually_async};
use futures::FutureExt;

use crate::common::{self, LONG, Way};

const A: &str = "/locks/a";
const B: &str = "/locks/b";
const C: &str = "/locks/c";

fn lock(client: &Client, way: Way, paths: &[&str]) -> MultiLock {
    let lock = MultiLock::new(client, paths).unwrap();
    if way == Way::Plain { lock.plain() } else { lock }
}

async fn until_all_free(client: &Client) {
    for path in [A, B, C] {
        let mutex = Mutex::new(client, path).unwrap();
        let free = async || mutex.view().await.unwrap() == View::default();
        eventually_async(&format!("{path} is free"), free).await.unwrap();
    }
}

async fn whoever_takes_several_never_waits_in_a_circle(way: Way) {
    const ROUNDS: usize = 10;
    let cluster = Cluster::start(1).await.unwrap();
    let hand = cluster.client("hand").await.unwrap();
    let inside = Arc::new([A, B, C].map(|_| AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for (n, paths) in [[0, 1], [1, 0], [2, 1], [0, 2]].into_iter().enumerate() {
        let client = cluster.client(&format!("client-{n}")).await.unwrap();
        let inside = Arc::clone(&inside);
        tasks.push(tokio::spawn(async move {
            let several = lock(&client, way, &paths.map(|n: usize| [A, B, C][n]));
            for _ in 0..ROUNDS {
                let guard = several.acquire_within(LONG).await.unwrap();
                for n in paths {
                    assert_eq!(inside[n].fetch_add(1, Ordering::SeqCst), 0, "two hold one lock");
                }
                assert_eq!(guard.state(), State::Held);
                for n in paths {
                    inside[n].fetch_sub(1, Ordering::SeqCst);
                }
                guard.release().await.unwrap();
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(2 * PATIENCE, task).await.expect("they wait for each other").unwrap();
    }
    until_all_free(&hand).await;
}

async fn all_are_held_or_none_and_one_that_is_lost_is_all_lost(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    assert!(matches!(MultiLock::new(&ann, [] as [&str; 0]), Err(Error::NoLocks)));
    let several = lock(&ann, way, &[C, A, B, A]);
    assert_eq!(several.paths().map(|path| path.as_str().to_owned()).collect::<Vec<_>>(), [A, B, C]);

    // The last one is not to be had: those before are given back.
    let last = Mutex::new(&bob, C).unwrap().acquire().await.unwrap();
    assert!(matches!(several.try_acquire().await, Err(Error::NotFree { holder: Some(_), .. })));
    let error = several.acquire_within(Duration::from_millis(200)).await.unwrap_err();
    let Error::TimedOut { after, holder: Some(holder), .. } = error else { panic!("{error}") };
    assert_eq!((after, holder.fence), (Duration::from_millis(200), last.fence()));
    let mut waiting = Box::pin(several.acquire());
    let waits = async || {
        assert!(waiting.as_mut().now_or_never().is_none(), "the last one is held");
        Mutex::new(&bob, C).unwrap().view().await.unwrap().waiters.len() == 1
    };
    eventually_async("it holds two and waits for the third", waits).await.unwrap();
    drop(waiting);
    last.release().await.unwrap();
    until_all_free(&bob).await;

    bob.at("/sum").create("0").await.unwrap();
    let guard = several.try_acquire().await.unwrap();
    guard.transaction(&ann).unwrap().add("/sum", 1).commit().await.unwrap();
    bob.at(format!("{B}/holder")).delete().await.unwrap();
    assert_eq!((guard.lost().await, guard.state()), (Lost::HolderGone, State::Lost));
    let late = guard.transaction(&ann).unwrap().add("/sum", 1).commit().await.unwrap_err();
    let ClientError::Refused(Refusal::Step { cause, .. }) = &late else { panic!("{late}") };
    assert!(matches!(**cause, Refusal::Fenced { .. } | Refusal::NoZnode { .. }), "{cause}");
    assert_eq!(bob.at("/sum").get().await.unwrap().data, "1");
    assert!(matches!(guard.release().await, Err(Error::Lost(Lost::HolderGone))));
    until_all_free(&bob).await;

    let ran =
        several.run(|held| async move { held.iter().map(|held| held.state()).collect::<Vec<_>>() }).await.unwrap();
    assert_eq!(ran, [State::Held; 3]);
    until_all_free(&bob).await;
}

common::both_ways!(
    whoever_takes_several_never_waits_in_a_circle,
    all_are_held_or_none_and_one_that_is_lost_is_all_lost,
);
