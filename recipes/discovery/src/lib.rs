//! Service discovery: instances that register themselves and come back, and views to pick them from without a round trip.
//!
//! ```
//! use std::time::Duration;
//!
//! use conclave_client::{Client, Options};
//! use conclave_discovery::{Discovery, Instance, Pick};
//!
//! # async fn call(_: &str) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn database_answers() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let services = Discovery::new(&client, "/services")?.locality("eu", "eu-1");
//!
//! // Who serves.
//! let api = Instance::new("api", "10.0.0.1:80").weight(10).version("1.2").region("eu").zone("eu-1");
//! let me = services.register(api).check(Duration::from_secs(5), database_answers).await?; // survives a new session
//!
//! // Who asks.
//! let view = services.view("api").await?;
//! # let mut seen = view.instances();
//! # while seen.healthy.is_empty() { seen = view.changed(&seen).await?; }
//! let api = view.pick(Pick::Locality)?; // local, no round trip
//! match call(&api.address).await {
//!     Ok(()) => api.succeeded(),
//!     Err(_) => api.failed(), // others are picked for a while
//! }
//!
//! me.drain().await?; // nobody picks it any more
//! me.deregister().await?; // when what was under way is done
//! client.close().await?;
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
//! # tokio::time::timeout(conclave_testing::PATIENCE, example()).await?
//! # }
//! ```
//!
//! | here | Curator | Consul |
//! |---|---|---|
//! | [`Discovery`], [`Instance`] | `ServiceDiscovery`, `ServiceInstance` | catalog |
//! | [`Registration`] | `registerService` | agent service registration |
//! | [`Register::heartbeat`], [`Register::check`] | none | TTL check, script check |
//! | [`View`] | `ServiceCache` | blocking queries |
//! | [`View::pick`], [`Picked::failed`] | `ServiceProvider`, `noteError` | none |
//! | [`View::resolve`]: for tower's balancers, and so for tonic's clients | none | none |
//!
//! # What it promises
//! - *Registered exactly once.* An instance is one znode. After the loss of its session it is registered again with a new
//!   one; what is left of the old one is replaced in one transaction. No view ever shows two, or a ghost besides.
//! - *Gone when it is gone.* An instance whose program dies disappears by its session's timeout, at most.
//! - *Views are states.* What a view shows is the tree at its zxid: never half of a transaction.
//! - *The last good view stays.* While no member is reachable a view shows what it showed, and says that it
//!   [is stale](View::is_stale). Then it goes on where it was.
//! - *Health is not presence.* Who is down, draining or without its heartbeat stays registered, is shown, and not picked.
//! - *Somebody is picked.* Who failed is avoided for a while; if all did, all are picked. Only if nobody is healthy nobody is.
//!
//! # What it is not for
//! A view is a while behind: an instance that is picked may be gone already. Calls have to bear that, and to say
//! [`Picked::failed`]. Who must be the only one needs a lock or an election, not a registration. There is no balancing by
//! load: weights are what instances say, and [`View::resolve`] gives services to a balancer that measures it. That is the
//! crate's feature `tower`, which is on; without it the crate does not know tower. For other frameworks [`View::pick`] and
//! [`View::changed`] are what a resolver is made of.
//!
//! # Layout
//! ```text
//! /services/api                      persistent: a service; made by the first who registers, and kept
//! /services/api/9f86d081884c7d65     ephemeral: an instance, as JSON; its name is its id
//! /services/api/9f86d081884c7d65/beat  ephemeral, with a time to live: its heartbeat, if it is to have one
//! ```
//! ```json
//! {"id": "9f86d081884c7d65", "address": "10.0.0.1:80", "status": "up", "weight": 10, "version": "1.2",
//!  "region": "eu", "zone": "eu-1", "tags": ["blue"], "ports": {"admin": 9000}, "metadata": {"team": "core"},
//!  "heartbeat_ms": 5000}
//! ```
//! Only `address` must be there. `status` is `up`, `down` (with a `reason`) or `draining`; whatever else it is, it is not
//! used. What is no such JSON is no instance, and counted in [`Instances::undecodable`]. The `discovery-query` plugin reads
//! the same znodes; it knows the status, and nothing of heartbeats.
//!
//! # When the connection or the session fails
//! | | who is registered | who looks |
//! |---|---|---|
//! | suspended | [`State::Uncertain`]; it is there for the others | the last view, marked as stale |
//! | connected again | [`State::Present`] | goes on, nothing is missed |
//! | session lost | [`State::Absent`], then registered again by a new client with the same options | goes on: reading needs no session |
//! | znode deleted by hand | registered again in the same session | sees it go and come |
//! | the client is closed | [`State::Ended`] | [`View::failed`]; shows what it showed last |
//!
//! # What a crash leaves
//! | it crashed after | what is left until its session ends |
//! |---|---|
//! | registering | the instance; its heartbeat goes earlier, and its `down` or `draining` stays what it was |
//! | deregistering | nothing |
//!
//! A program that is started again has another id, or with [`Instance::id`] the same: then it replaces its predecessor at
//! once.
//!
//! # Round trips
//! | | here | Curator | etcd | Consul |
//! |---|---|---|---|---|
//! | register | 2: a look, the transaction; 1 more for the session if there is none, 1 more for the first heartbeat; 1 for a watch in the background | 1; over a predecessor 3 | 1; 1 more for the lease if there is none | 1 |
//! | register again after a session was lost | a connection, a session, and 2 | a connection, a session, and 1 | - | 0: the agent does |
//! | [`Registration::update`], [`Registration::deregister`] | 1 | 1 | 1 | 1 |
//! | [`Registration::drain`] | 1 | 1 | - | 1 |
//! | [`Registration::beat`] | 1 | - | - | 1 |
//! | a check | 0; 1 when its outcome is another than before | - | - | 0 |
//! | [`Discovery::view`] | 2: the watch, and the snapshot on a stream of its own; 3 when the service is not there | 1, and 1 for each instance | 2 | 1 |
//! | [`View::instances`], [`View::healthy`], [`View::pick`], [`View::changed`], a [`Resolver`] | 0 | 0; a change 1, and 1 for each instance that has come | 0 | 1 for each change |
//! | [`Discovery::services`] | 1, up to 1,000 services | 1 | - | 1 |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code and documentation. Curator 5: create, or create, delete, create; a cache reads
//! the children and the data of each, and after a change the children and what is new. etcd 3.6's endpoints: a
//! transaction; a get and a watch; an instance whose lease is over is put again by nobody. Consul: requests to the agent
//! on the same machine, which registers again, runs the checks and asks the servers; a view is a blocking query, and so
//! is each change of it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod discovery;
mod error;
mod instance;
mod pick;
mod registration;
#[cfg(feature = "tower")]
mod resolve;
mod suspects;
mod view;

/// Is it registered?
pub use conclave_groups::State;
pub use discovery::{Discovery, Service};
pub use error::{Error, Result};
pub use instance::{Found, Instance, Status};
pub use pick::Pick;
pub use registration::{Register, Registration};
#[cfg(feature = "tower")]
pub use resolve::Resolver;
pub use view::{Instances, Picked, View};
