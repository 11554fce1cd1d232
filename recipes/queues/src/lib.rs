//! Queues: items with priorities, delays and keys, given to one taker at a time, at least once; in one round trip each.
//!
//! Where you come from they are called DistributedQueue, DistributedPriorityQueue, DistributedDelayQueue,
//! DistributedIdQueue and BlockingQueueConsumer (Curator), Queue and LockingQueue (kazoo), the recipes Queue and
//! PriorityQueue (etcd): one [`Queue`] is all of them.
//!
//! ```
//! use std::time::Duration;
//!
//! use conclave_client::{Client, Options};
//! use conclave_queues::Queue;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Email {
//!     id: u64,
//!     to: String,
//! }
//!
//! # async fn send(mail: &Email) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let queue = Queue::<Email>::new(&client, "/queues/mail")?.visibility(Duration::from_secs(30)).max_deliveries(5);
//!
//! let mail = Email { id: 7, to: "ann".into() };
//! queue.push(&mail).dedup(mail.id).await?;
//!
//! let job = queue.take().within(Duration::from_secs(60)).await?; // parked on the cluster's side
//! send(&job).await?;
//! job.ack().await?; // dropped unacknowledged it would be given back
//!
//! // The form in which nothing can be forgotten: acknowledged on Ok, given back on Err, extended meanwhile.
//! # let stop = async { while queue.stats().await.is_ok_and(|stats| stats.ready + stats.delayed + stats.claimed > 0) {} };
//! queue.push(&mail).priority(9).delay(Duration::from_millis(1)).await?;
//! let done = queue.workers(4).run_until(stop, |mail| async move { send(&mail).await }).await?;
//! println!("{} sent", done.acked);
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
//! Whole programs are in `examples/`: `work.rs` is a worker; `pool.rs` starts several as processes, kills one with an item in
//! its hands, and shows that each item counts once.
//!
//! # What it promises
//! - *Nothing is lost.* A push that was answered is on the disks of a majority. An item leaves the queue when it is
//!   acknowledged, and not before; what nobody can work on ends as a dead letter, to be looked at and put back.
//! - *One taker at a time.* What is taken is the taker's until the claim's deadline. From then on its claim settles
//!   nothing, and the item goes to the next.
//! - *At least once*, and for what is written into the tree exactly once: [`Job::ack_with`] makes the result and the
//!   acknowledgement one transaction; a write that is `.fenced(job.fence())` is refused once another may have the item.
//! - *In order*: the greatest priority first, then the oldest. What is given back comes again at its old place. Who waits
//!   is served in the order of the calls, by whichever client they are.
//! - *A key once*: within the time of [`Queue::dedup_for`] a key is pushed once, whatever becomes of its item.
//! - *Bounded*: a full queue refuses ([`Error::Full`]), or a push waits for room ([`Push::wait_for_room`]).
//!
//! # What it is not for
//! It is no message broker. Every push, take and acknowledgement is a transaction of the whole cluster, as durable as a
//! lock, and about as fast: hundreds or thousands a second in all, and not millions. Items are small ([`ITEM_BYTES`]):
//! keep large things elsewhere. Order among *several* workers is that of taking, and not of being done. A claim is no
//! lock: between looking at its deadline and acting, a program may be stopped for a minute. What can't be fenced can
//! happen twice.
//!
//! # Layout
//! ```text
//! /queues/mail                      JSON: visibility_ms, max_deliveries, bound, dedup_ms
//! /queues/mail/items/R-ZXID         what can be taken; R is 9 - priority
//! /queues/mail/delayed/DUE-ITEM     what is not due yet
//! /queues/mail/claimed/UNTIL-ZXID   what somebody works on; fence = this path@ZXID
//! /queues/mail/dead/ITEM            what was delivered too often
//! /queues/mail/keys/KEY             keys that were pushed lately, with a time to live
//! ```
//! All of it is kept by the built-in plugin `queue`, for clients of any language: a line of JSON and then the item's bytes.
//! They are CBOR, JSON ([`Queue::json`]) or as you like ([`Queue::raw`]). Due items and run-out claims are found by the
//! next take, and every second for those who wait: in queues directly below `/queues`, or what the plugin's settings name.
//!
//! # When the connection or the session fails
//! | | who waits in a take | who has a job |
//! |---|---|---|
//! | suspended | waits on, its place is kept | [`State::Uncertain`]: it holds until its deadline, but can't be extended |
//! | connected again | waits on | [`State::Held`] again, if the deadline has not passed |
//! | session lost, client closed | [`Error::SessionOver`]; what was on its way comes back when its time is over | [`State::Lost`]; the item comes back when its time is over |
//! | leader killed | waits on | nothing changes |
//!
//! # What a crash leaves
//! | it crashed | what is left |
//! |---|---|
//! | in a push | the item or nothing |
//! | waiting in a take | nothing |
//! | with the answer of a take on its way, or working | the claim; the item comes back when its time is over, as delivered once more |
//! | in an acknowledgement | the same, or nothing |
//!
//! # Cancellation
//! A dropped [`Take`] is withdrawn: what was on its way goes back as if nobody had had it. A dropped [`Job`] is given back
//! by a task of its own, as far as the runtime lives; that counts as a delivery.
//!
//! # Round trips
//! | | here | Curator | etcd |
//! |---|---|---|---|
//! | [`Queue::push`] | 1 | 1 | 1; with priorities 2 |
//! | [`Job::ack`], [`Job::ack_with`], [`Job::nack`], [`Job::extend`] | 1 | acknowledgement 2, with a lock path | - |
//! | [`Queue::take`] | 1, parked until there is an item; 1 more when it waited for longer than half its visibility | 3, and up to 2 for each item that another took; with waiting 1 more for each change | 2, and 1 for each item that another took; with waiting 3 |
//! | a [`Workers`] item | take and acknowledgement; an extension for each half of the visibility | 2; with a lock path 4; children again for each change | - |
//! | [`Queue::peek`], [`Queue::stats`], [`Queue::settings`] | 1, a read; a page of 16 [`Queue::dead_letters`] too | peek 2 | - |
//! | [`Queue::configure`], [`Queue::redrive`] | 1 | - | - |
//! | once for each handle that says settings | 1 read; 1 write if it is the first of all | - | - |
//! | once for each client | 1, its session | 1 | - |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code: Curator 5 (`SimpleDistributedQueue`; for a worker's item `DistributedQueue`),
//! and etcd 3.6's recipes, which are experiments. Curator: children, data, delete; the item is gone before anybody has
//! worked on it. A lock path mends that: create a lock, data, delete the item, delete the lock. etcd: get, a
//! transaction that deletes; with waiting get, watch, transaction. Consul has no queue.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod claim;
mod clock;
mod coding;
mod error;
mod holding;
mod job;
mod push;
mod queue;
mod settings;
mod take;
mod view;
mod workers;

pub use claim::{Lost, State};
pub use error::{Error, Result, Undecodable};
pub use job::{Job, Nack, Work};
pub use push::{ITEM_BYTES, Push, Pushed};
pub use queue::Queue;
pub use settings::Settings;
pub use take::Take;
pub use view::{Seen, Stats};
pub use workers::{Done, Workers};
