//! Clusters for tests: real members on real sockets and disks, in the test's own process, and what can go wrong.
//!
//! What a program does when its leader is killed, its connection breaks or its session is lost should be tested on
//! the real thing. A cluster of three is ready in about two seconds, needs no privileges, no ports of its own choice and no
//! network but the loopback device (Linux: members of a cluster with proxies dial from addresses in 127.77.0.0/16), and
//! leaves nothing behind.
//!
//! # A user's test
//! A job that must not run twice takes a lock. Does it survive the death of the leader? Does it notice that its
//! session is lost, and is what it writes afterwards refused?
//!
//! ```
//! use std::time::Duration;
//!
//! use conclave_client::{Client, Refusal};
//! use conclave_locks::Mutex;
//! use conclave_testing::{Cluster, Error};
//!
//! /// The program under test: publishes a release under a lock.
//! async fn publish(client: &Client, release: &str) -> Result<(), Error> {
//!     let mutex = Mutex::new(client, "/locks/publish")?;
//!     let guard = mutex.acquire().within(Duration::from_secs(20)).await?;
//!     client.at("/release").set(release.to_owned()).fenced(guard.fence()).await?;
//!     guard.release().await?;
//!     Ok(())
//! }
//!
//! #[tokio::main] // in a test: #[tokio::test]
//! async fn main() -> Result<(), Error> {
//!     let mut cluster = Cluster::start(3).await?;
//!     let ann = cluster.client("ann").await?;
//!     ann.at("/release").create("none").await?;
//!
//!     // The leader dies; the job takes longer, and is done.
//!     let leader = cluster.leader().await?;
//!     cluster.kill(leader).await;
//!     publish(&ann, "v1").await?;
//!     cluster.restart(leader).await?;
//!
//!     // The session is lost while the lock is held: the guard tells, and the lock is free for others.
//!     let guard = Mutex::new(&ann, "/locks/publish")?.acquire().await?;
//!     cluster.kill_session(&ann).await?;
//!     let why = guard.lost().await;
//!     println!("stopped: {why}");
//!     let ben = cluster.client("ben").await?;
//!     publish(&ben, "v2").await?;
//!
//!     // What is still on its way under the old lock comes to nothing.
//!     let late = ben.at("/release").set("v1 again").fenced(guard.fence()).await;
//!     assert!(matches!(late, Err(conclave_client::Error::Refused(Refusal::Fenced { .. }))), "{late:?}");
//!     assert_eq!(ben.at("/release").get().await?.data, "v2");
//!     Ok(())
//! }
//! ```
//!
//! # What can be done to a cluster
//! | | |
//! |---|---|
//! | [`Cluster::kill`], [`Cluster::restart`] | a member dies as by `kill -9`, and comes back with what was on its disk |
//! | [`Cluster::stop`] | a member is stopped in good order |
//! | [`Cluster::step_down`] | the leader hands over |
//! | [`Cluster::kill_session`] | a client's session ends as by expiry, without waiting for it |
//! | [`Mortal::kill`] | a client vanishes without a word, with its process |
//! | [`Cluster::pause`], [`Cluster::resume`] | a member lives, and hears and says nothing |
//! | [`Cluster::cut`], [`Cluster::mend`] | a client is cut off |
//! | [`Cluster::drop_replies`] | a client's requests arrive, and the replies are lost |
//! | [`Cluster::weather`] | datagrams are lost, doubled and late |
//! | [`Cluster::fail_at`] | a member dies at a step of an entry: planned and not proposed, applied and nobody told, ... |
//! | [`Cluster::fail_everywhere`] | the leader dies at every step of a scenario |
//!
//! Those from `pause` on need [`Cluster::proxied`]:
//!
//! ```
//! use conclave_testing::{Cluster, Error, eventually_async};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! let cluster = Cluster::proxied(3).await?;
//! let ann = cluster.client("ann").await?;
//! ann.at("/counter").create("0").await?;
//!
//! // The leader falls silent. Another one is elected, and the client finds it.
//! let leader = cluster.leader().await?;
//! cluster.pause(leader)?;
//! ann.at("/counter").set("1").await?;
//! assert_ne!(cluster.leader().await?, leader);
//! cluster.resume(leader)?;
//!
//! // The reply is lost: the write is done, its caller waits, and gets the reply of the one time that it was done.
//! let ben = cluster.client("ben").await?;
//! cluster.drop_replies(&ann)?;
//! let counter = ann.at("/counter");
//! let write = tokio::spawn(counter.set("2").into_future());
//! eventually_async("it is done", async || ben.at("/counter").get().await.is_ok_and(|znode| znode.data == "2")).await?;
//! cluster.mend(&ann)?;
//! assert_eq!(write.await??.version, 2);
//! # Ok(()) }
//! ```
//!
//! # Waiting
//! Nothing in a test should sleep. [`eventually`] and [`eventually_async`] wait for a condition, and fail after
//! [`PATIENCE`] saying which it was.
//!
//! # Time
//! A session's timeout is at least two seconds, unless the limits are configured otherwise ([`Setup::configured`]). A client
//! that is cut off notices after two fifths of it. The leader of a paused member's cluster is elected within a second or
//! two.
//!
//! What is not on these pages is for this project's own tests, and may change at any time.

mod cluster;
mod failpoint;
mod mortal;
mod network;
mod pki;
mod ports;
mod proxy;
mod raw;
mod tally;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cluster::{Cluster, Setup, surroundings};
/// What a member can be configured with, and how far an entry can be on it.
pub use conclave_server::{Config, Step};
pub use failpoint::{Death, Failpoint};
#[doc(hidden)]
pub use mortal::End;
pub use mortal::Mortal;
#[doc(hidden)]
pub use pki::Pki;
#[doc(hidden)]
pub use ports::Ports;
pub use proxy::Weather;
#[doc(hidden)]
pub use proxy::{Direction, Done, Proxy, Rule};
#[doc(hidden)]
pub use raw::Raw;
#[doc(hidden)]
pub use tally::Tally;

/// What a test can't go on after.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a condition may take to come true, before the test fails: an election and a recovery on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Checkpoints after little log, files of it that are small, and none of it kept: what takes hours elsewhere happens within
/// a test. Nothing is kept free of the disk.
#[doc(hidden)]
#[must_use]
pub fn small_storage() -> conclave_server::StorageOptions {
    conclave_server::StorageOptions {
        checkpoint_log_bytes: 256 << 10,
        log_segment_bytes: 64 << 10,
        log_keep_bytes: 0,
        reserve_bytes: 0,
        least_free_bytes: 0,
        ..conclave_server::StorageOptions::default()
    }
}

/// Elections that take half the time, for tests in which one leader after the other dies. On a busy machine a leader may be
/// deposed for nothing.
#[doc(hidden)]
pub fn hasty(config: &mut Config) {
    config.raft = conclave_server::RaftTiming { heartbeat_ms: 50, election_min_ms: 125, election_max_ms: 250 };
}

/// Waits until a condition holds.
///
/// # Errors
/// Which condition did not come true within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    eventually_async(what, async || holds()).await
}

/// As [`eventually`], for a condition that has to be asked for.
///
/// # Errors
/// Which condition did not come true within [`PATIENCE`].
pub async fn eventually_async(what: &str, holds: impl AsyncFnMut() -> bool) -> Result<(), Error> {
    within(PATIENCE, what, holds).await
}

async fn within(patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), Error> {
    let look = async {
        while !holds().await {
            // tidy: allow sleep, this is how others wait for a condition
            tokio::time::sleep(LOOK).await;
        }
    };
    // As a whole: a look that does not come back did not come true either.
    let looked = tokio::time::timeout(patience, look).await;
    looked.map_err(|_| format!("not within {} s: {what}", patience.as_secs()).into())
}

/// Where a directory of the cluster's lies.
fn below(dir: &Path, parts: &[&str]) -> PathBuf {
    parts.iter().fold(dir.to_owned(), |dir, part| dir.join(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_look_that_does_not_come_back_is_a_condition_that_does_not_come_true() {
        let hung = within(Duration::ZERO, "an answer", async || std::future::pending().await).await;
        assert_eq!(hung.unwrap_err().to_string(), "not within 0 s: an answer");
        let never = within(Duration::ZERO, "the moon", async || false).await;
        assert_eq!(never.unwrap_err().to_string(), "not within 0 s: the moon");
        let mut looks = 0;
        let third = || {
            looks += 1;
            looks == 3
        };
        eventually("the third look", third).await.unwrap();
    }
}
