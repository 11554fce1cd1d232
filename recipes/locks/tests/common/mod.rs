//! What the tests of locks share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use conclave_client::{Client, Error, Refusal};
use conclave_locks::{Guard, Mutex, View};
use conclave_testing::{Cluster, eventually_async};
use tokio::task::JoinHandle;

/// A wait that ends the test, not one that is waited out.
pub const LONG: Duration = Duration::from_secs(60);

/// The path of every test's mutex.
pub const PATH: &str = "/locks/deploy";

/// A mutex of a client of its own.
pub async fn mutex(cluster: &Cluster, name: &str) -> Mutex {
    Mutex::new(&cluster.client(name).await.unwrap(), PATH).unwrap().note(name)
}

/// A client with a session timeout of its own.
pub async fn client_with(cluster: &Cluster, name: &str, session_timeout: Duration) -> Client {
    Client::connect(cluster.options(name).unwrap().with_session_timeout(session_timeout)).await.unwrap()
}

/// Waits until so many stand in line; gives what is seen then.
pub async fn until_waiting(observer: &Mutex, waiters: usize) -> View {
    let mut seen = View::default();
    eventually_async(&format!("{waiters} stand in line"), async || {
        seen = observer.view().await.unwrap();
        seen.waiters.len() == waiters
    })
    .await
    .unwrap();
    seen
}

/// Waits until nobody holds it or waits for it.
pub async fn until_free(observer: &Mutex) {
    eventually_async("nobody holds the lock or waits for it", async || {
        observer.view().await.unwrap() == View::default()
    })
    .await
    .unwrap();
}

/// Begins to wait in a task, and returns when it stands in line behind so many others.
pub async fn waiter(observer: &Mutex, mutex: &Mutex, ahead: usize) -> JoinHandle<conclave_locks::Result<Guard>> {
    let task = tokio::spawn(mutex.acquire().within(LONG).into_future());
    until_waiting(observer, ahead + 1).await;
    task
}

/// Asserts that a write with this guard's fence is refused.
pub async fn assert_fenced_out(client: &Client, fence: conclave_client::Fence) {
    let refused = client.at("/release").create("late").fenced(fence).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Fenced { .. })), "{refused}");
}
