//! Asking for a lock: who holds it hears, and decides.

use conclave_client::Client;
use conclave_locks::{Guard, Kind, RwLock};
use conclave_testing::{Cluster, PATIENCE};
use futures::FutureExt;

use crate::common::{self, PATH, Way, mutex, until_free};

async fn heard<K: Kind>(guard: &Guard<K>) -> conclave_locks::ReleaseRequest {
    tokio::time::timeout(PATIENCE, guard.release_requested()).await.expect("it is asked, and does not hear")
}

async fn requests(client: &Client) -> u64 {
    client.at(format!("{PATH}/requests")).stat().await.unwrap().unwrap().version
}

async fn who_holds_it_hears_who_asks_and_why_and_who_holds_it_next_does_not(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (mutex(&cluster, way, "ann").await, mutex(&cluster, way, "bob").await);
    // Asked while nobody holds it: nobody hears.
    bob.request_release("too early").await.unwrap();
    let guard = ann.acquire().await.unwrap();
    assert!(guard.release_requested().now_or_never().is_none());
    let listening = tokio::spawn(async move {
        let request = guard.release_requested().await;
        (guard, request)
    });
    bob.request_release("deploy").await.unwrap();
    let (guard, request) = tokio::time::timeout(PATIENCE, listening).await.unwrap().unwrap();
    assert_eq!(request.note.as_deref(), Some("deploy"));
    assert!(request.principal.ends_with("bob") && request.to_string().ends_with("bob (deploy)"), "{request}");
    // Whoever listens later hears it, too; of several the latest.
    bob.request_release("now, please").await.unwrap();
    assert_eq!(heard(&guard).await.note.as_deref(), Some("now, please"));
    assert_eq!(requests(&cluster.client("hand").await.unwrap()).await, 2);
    // It decides: it is asked, not forced.
    assert_eq!(guard.state(), conclave_locks::State::Held);
    guard.release().await.unwrap();
    let next = bob.acquire().await.unwrap();
    assert!(next.release_requested().now_or_never().is_none());
    // What it would hear is what comes now, and not what the one before was asked.
    ann.request_release("back again").await.unwrap();
    assert_eq!(heard(&next).await.note.as_deref(), Some("back again"));
    next.release().await.unwrap();
    until_free(&ann).await;
}

async fn all_who_share_it_hear(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let (one, two) = (way.rwlock(&ann).read().await.unwrap(), way.rwlock(&bob).read().await.unwrap());
    let operator = RwLock::new(&cluster.client("operator").await.unwrap(), PATH).unwrap();
    operator.request_release("maintenance").await.unwrap();
    for guard in [&one, &two] {
        assert_eq!(heard(guard).await.note.as_deref(), Some("maintenance"));
    }
    one.release().await.unwrap();
    two.release().await.unwrap();
    operator.try_write().await.unwrap().release().await.unwrap();
}

common::both_ways!(who_holds_it_hears_who_asks_and_why_and_who_holds_it_next_does_not, all_who_share_it_hear,);
