//! What the tests of locks share.

use std::time::Duration;

use conclave_client::{Client, Error, Refusal};
use conclave_locks::{Guard, Mutex, Overview, RwLock, Semaphore, View};
use conclave_testing::{Cluster, eventually_async};
use tokio::task::JoinHandle;

/// A wait that ends the test, not one that is waited out.
pub const LONG: Duration = Duration::from_secs(60);

/// The path of every test's mutex.
pub const PATH: &str = "/locks/deploy";

/// By which of the two ways a lock works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Procedure,
    Plain,
}

impl Way {
    /// One way, then the other.
    pub const fn of(n: usize) -> Self {
        if n.is_multiple_of(2) { Self::Procedure } else { Self::Plain }
    }

    /// A client's mutex.
    pub fn mutex(self, client: &Client) -> Mutex {
        let mutex = Mutex::new(client, PATH).unwrap();
        if self == Self::Plain { mutex.plain() } else { mutex }
    }

    pub fn rwlock(self, client: &Client) -> RwLock {
        let lock = RwLock::new(client, PATH).unwrap();
        if self == Self::Plain { lock.plain() } else { lock }
    }

    pub fn semaphore(self, client: &Client, capacity: u64) -> Semaphore {
        let semaphore = Semaphore::new(client, PATH, capacity).unwrap();
        if self == Self::Plain { semaphore.plain() } else { semaphore }
    }
}

/// The same tests by both ways.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod by_procedure {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::common::Way::Procedure).await;
            })*
        }

        mod plain {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::common::Way::Plain).await;
            })*
        }
    };
}
pub(crate) use both_ways;

/// A mutex of a client of its own.
pub async fn mutex(cluster: &Cluster, way: Way, name: &str) -> Mutex {
    way.mutex(&cluster.client(name).await.unwrap()).note(name)
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

/// Waits until so many stand in line for a read-write lock or a semaphore; gives what is seen then.
pub async fn until_in_line(view: impl AsyncFn() -> conclave_locks::Result<Overview>, waiters: usize) -> Overview {
    let mut seen = Overview::default();
    eventually_async(&format!("{waiters} stand in line"), async || {
        seen = view().await.unwrap();
        seen.line.len() == waiters
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
