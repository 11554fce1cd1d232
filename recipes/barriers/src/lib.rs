//! Barriers: one that is opened and closed, one that members enter and leave together, and a latch that counts down.
//!
//! [`Barrier`] is Curator's DistributedBarrier, [`DoubleBarrier`] its DistributedDoubleBarrier (and kazoo's and etcd's),
//! [`Latch`] what Java calls a CountDownLatch.
//!
//! ```
//! use std::time::Duration;
//!
//! use conclave_barriers::{Barrier, DoubleBarrier, Latch};
//! use conclave_client::{Client, Options};
//!
//! # async fn compute(cycle: u64) {}
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//!
//! // Nobody starts before the import is done.
//! let imported = Barrier::new(&client, "/barriers/import")?;
//! imported.close().await?;
//! # imported.open().await?;
//! imported.wait().within(Duration::from_secs(30)).await?; // dropping this future withdraws the wait
//!
//! // Three workers compute step after step, each step together. They may die at any time.
//! # let clients = [client.clone(), Client::connect(Options::load()?).await?, Client::connect(Options::load()?).await?];
//! # let steps = clients.map(|client| async move {
//! let step = DoubleBarrier::new(&client, "/barriers/step", 3)?;
//! let inside = step.enter().within(Duration::from_secs(30)).await?; // all of them, or none
//! compute(inside.cycle()).await;
//! inside.leave().await?; // when all are done; dropping the guard leaves without waiting
//! step.run(|cycle| async move { compute(cycle).await }).await?; // the same, and dropped when the session is lost
//! # Ok::<_, conclave_barriers::Error>(()) });
//! # futures::future::try_join_all(steps).await?;
//!
//! // The release is out when ten machines have it.
//! let out = Latch::new(&client, "/latches/release-17")?;
//! out.set(10).await?;
//! out.count_down_by(10).await?;
//! out.wait().await?;
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
//! - *No lost wake-up.* Who waits is woken by the change itself, on the cluster's side, in the transaction after it: an
//!   opening lets all pass who waited before it, however soon it is closed again; nobody passes a spurious wake-up.
//! - *All or none.* A double barrier begins a cycle when as many members as it takes are there at the same moment, and then
//!   for all of them. Whoever dies before that does not count; whoever dies inside keeps nobody.
//! - *Cycles do not mix.* Who is faster than the others and comes again waits for the next cycle.
//! - *Exactly once.* A count of a latch counts once, also when connections break and leaders are killed.
//! - *No herd.* A member is one parked call: nobody lists children or watches znodes.
//!
//! # What they are not for
//! A barrier is no lock: that a member is inside says nothing of what others do, and a program that was stopped for a minute
//! may not be inside any more when it goes on. What must not happen then is written `.fenced(..)` by [`Inside::fence`]. A
//! barrier and a latch belong to no session: whoever closed it may be gone. A count-down of a program that crashed and
//! counts again is two counts: where that can be, let members enter a double barrier, or create a znode each.
//!
//! # Layout
//! ```text
//! /barriers/import                     {"closed": true}; no znode is open. Each opening and closing raises its version
//! /barriers/step                       {"cycle", "members", "inside"}
//! /barriers/step/cycle-N               a container: the members of cycle N
//! /barriers/step/cycle-N/s-SESSION     ephemeral: a member; JSON with its principal and note
//! /latches/release-17                  what is left to count, in decimal
//! /latches/release-17/open             exists once that was 0
//! ```
//! All of it is kept by the built-in plugin `barrier`, for clients of any language.
//!
//! # When the connection or the session fails
//! | | who waits | who is inside a double barrier |
//! |---|---|---|
//! | suspended | waits on, its place is kept | [`State::Uncertain`] |
//! | connected again | waits on | [`State::Inside`] again |
//! | session lost, client closed | [`Error::SessionOver`]; its member goes | [`State::Lost`], before the others stop counting on it; for good |
//! | leader killed | waits on | nothing changes |
//!
//! # What a crash leaves
//! | it crashed | what is left until its session ends | after that |
//! |---|---|---|
//! | waiting | the parked call | nothing |
//! | entering, before the cycle begins | its member, which still counts | nothing: the others wait for another member |
//! | inside | its member: the others don't get out | nothing: they do |
//! | leaving | nothing, or the same | nothing |
//! | closing, opening, counting down | what it did stays | the same |
//!
//! # Round trips
//! | | here | Curator | etcd |
//! |---|---|---|---|
//! | [`Barrier::close`], [`Barrier::open`] | 1 | 1 | 1 |
//! | [`Latch::set`], [`Latch::count_down`], [`Latch::delete`] | 1 | - | - |
//! | [`Barrier::wait`] | 1, parked | 1 when it is open, else 2 | 1 when it is open, else 2 |
//! | [`Latch::wait`] | 1, parked | - | - |
//! | [`DoubleBarrier::enter`] | 1, parked | 3; the last one 4 | 4 |
//! | [`Inside::leave`] | 1, parked | 5, and 2 for each further change | 4; the oldest 3, and 2 for each that it waits for |
//! | [`Barrier::is_closed`], [`Latch::left`], [`Inside::fence`] | 1, a read | - | - |
//! | once for each client | 1, its session | 1 | 1, of a double barrier |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code (Curator 5; etcd 3.6's recipes, which are experiments), the parents there. A
//! barrier: exists with a watch, twice; etcd gets and watches. Curator's double barrier: exists with a watch, create,
//! children, and the last one creates `ready`; each moves the names of all. To leave: children, exists with a watch,
//! delete, children, delete of `ready`. etcd's: get, transaction, get, and watch or put; to leave get, delete, watch,
//! get, while the oldest gets and watches the youngest until it is alone, and then deletes both keys. Consul has no
//! barrier.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod barrier;
mod double;
mod error;
mod latch;
mod wait;

pub use barrier::Barrier;
pub use double::{DoubleBarrier, Enter, Inside, Leave, State};
pub use error::{Error, Result};
pub use latch::Latch;
pub use wait::Wait;
