//! Counters that never lose a count, and unique numbers; a change is one round trip, however many want it at once.
//!
//! [`Counter`] is Curator's DistributedAtomicLong and SharedCount, [`Sequence`] its CachedAtomicLong.
//!
//! ```
//! use conclave_client::{Client, Options};
//! use conclave_counters::{Counter, Sequence};
//!
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//!
//! let visits = Counter::new(&client, "/counters/visits")?;
//! visits.increment().await?;
//! println!("{} visits", visits.add(41).await?);
//! assert_eq!(visits.compare_and_set(42, 0).await?, Ok(()));
//! # visits.add(7).await?;
//! let mut values = visits.watch().await?;
//! while let Some(value) = values.next().await {
//!     println!("{} visits now", value?);
//! #   break;
//! }
//!
//! let orders = Sequence::new(&client, "/counters/orders")?.block(1_000); // a round trip for a thousand numbers
//! let order = orders.next().await?;
//! assert!(orders.next().await? > order);
//! # Ok(()) }
//! # #[tokio::main]
//! # async fn main() -> Result<(), conclave_testing::Error> {
//! # for name in ["DIR", "ENDPOINTS", "CERTIFICATE", "KEY", "CA"].map(|name| format!("CONCLAVE_{name}")) {
//! #     assert!(std::env::var_os(&name).is_none(), "{name} comes before what this test says: unset it");
//! # }
//! # let cluster = conclave_testing::Cluster::start(1).await?;
//! # let options = cluster.options("me")?;
//! # let dir = options.certificate().parent().ok_or("it lies nowhere")?;
//! # let files = r#"certificate = "tls.crt"; key = "tls.key"; ca = "peer-ca.crt""#.replace("; ", "\n");
//! # std::fs::write(dir.join("client.toml"), format!("endpoints = {:?}\n{files}\n", options.endpoints()))?;
//! # std::os::unix::fs::symlink(dir, cluster.dir().join(".conclave"))?;
//! # std::env::set_current_dir(cluster.dir())?; // each example has its own process
//! # example().await
//! # }
//! ```
//!
//! # What they promise
//! - *No count is lost, and none counts twice*: a change is one transaction, carried out once, also when connections break
//!   and leaders are killed. When no answer comes in time its outcome is unknown, and the error says so; nothing is ever
//!   half done, and there is no `succeeded()` to forget.
//! - *No contention*: nobody reads, calculates and tries again. [`Counter::compare_and_set`] alone can be told that others
//!   were faster.
//! - *Never a number twice* from a [`Sequence`].
//!
//! # What they are not for
//! Every change of a counter is a transaction of the whole cluster: it is no place for metrics of a busy program. A counter
//! that many fetch numbers from is a [`Sequence`] with blocks. Who may change the znode may set it to anything.
//!
//! # Layout
//! ```text
//! /counters/visits    decimal text, -2^63 to 2^63 - 1; no znode or no data is 0
//! /counters/orders    the same: the highest number that any handle has fetched
//! ```
//! The znode belongs to no session and stays until somebody deletes it. Deleting a sequence's begins it anew: handles that
//! have had higher numbers notice, and say [`Error::WentBack`]; new ones can't know.
//!
//! # When the connection or the session fails
//! A counter needs no session, and uses the client's if it has one. While the cluster is away, requests wait for it until
//! their time is over. A [`Values`] goes on where it stood. Numbers that a [`Sequence`] has fetched are given without the
//! cluster, and stay good for ever.
//!
//! # What a crash leaves
//! Of a change, all or nothing. Of a sequence, a gap: what was fetched and not given.
//!
//! # Round trips
//! | | here | Curator | etcd | Consul |
//! |---|---|---|---|---|
//! | [`Counter::add`], [`Counter::increment`], [`Counter::raise_to`] | 1; 2 more the first time, if the parent is not there | 2, and 2 for each that was faster | 2, and 1 for each that was faster | 2, and 2 for each that was faster |
//! | [`Counter::compare_and_set`] | 1 | 2 | 1 | 2 |
//! | [`Counter::get`] | 1, a read | 1 | 1 | 1 |
//! | [`Sequence::next`] | 1 for each block; 2 more the first time, likewise; 0 for the numbers within it | 2 for each block, likewise | - | - |
//! | [`Sequence::take`] | 1; 2 more the first time, likewise | 2 | - | - |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code and documentation: Curator 5's `DistributedAtomicLong` and `CachedAtomicLong`
//! read, and set with the version; etcd 3.6's `STM` gets, and commits a transaction that gives the values again when it
//! was too late (to compare and set is one such transaction by itself); Consul reads, and sets with the index.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod counter;
mod error;
mod sequence;

pub use counter::{Counter, Values};
pub use error::{Error, Result};
pub use sequence::Sequence;
