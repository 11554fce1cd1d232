//! Typed configuration: validated before it is published, with a history to roll back to, and never seen half changed.
//!
//! ```
//! use conclave_client::{Client, Options};
//! use conclave_config::{Config, ConfigSet, Error, Event};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, Default, Serialize, Deserialize)]
//! struct App {
//!     workers: u32,
//!     motto: String,
//! }
//!
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let config = Config::<App>::new(&client, "/app/config")?
//!     .validate(|app: &App| if app.workers > 0 { Ok(()) } else { Err("there must be workers") });
//!
//! config.publish(&App { workers: 4, motto: "slowly".into() }).note("the first").await?;
//! let read = config.get().await?;
//! match config.publish(&App { workers: 5, ..read.value }).if_version(read.version).await {
//!     Ok((version, _)) => println!("version {version}"),
//!     Err(Error::Conflict { actual, .. }) => println!("somebody was faster: {actual}"),
//!     Err(error) => return Err(error.into()),
//! }
//! config.update(|app| app.workers += 1).await?; // reads, changes, publishes; again if somebody was faster
//!
//! let mut watch = config.watch().await?;
//! while let Some(event) = watch.next().await {
//!     match event? {
//!         Event::Value(app) => println!("{} workers since version {}", app.workers, app.version),
//!         Event::Undecodable { why, .. } => println!("{why}; going on with {:?}", watch.last_good()),
//!         _ => println!("there is none"),
//!     }
//! #   break;
//! }
//!
//! for past in config.history().await? {
//!     println!("{} by {}: {:?}", past.version, past.by, past.note);
//! }
//! config.roll_back(0).await?;
//! # assert_eq!(config.get().await?.workers, 4);
//!
//! // Several znodes, one for each field: published in one transaction, and seen as of one.
//! let set = ConfigSet::<App>::new(&client, "/app/set")?.keep(5); // without it a set has no history
//! let (first, _) = set.publish(&App { workers: 1, motto: "together".into() }).note("the first").await?;
//! assert_eq!(client.at("/app/set/workers").get().await?.data, "1");
//! set.update(|app| app.motto = "faster".into()).await?;
//! set.roll_back(first).await?; // all parts, in one transaction
//! # assert_eq!(set.get().await?.motto, "together");
//! # assert_eq!(set.history().await?.len(), 3);
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
//! Curator has `SharedValue` and `NodeCache` for this, Consul its KV store with `consul-template`.
//!
//! # What it promises
//! - *All or nothing.* A publication is one transaction: value, history and what is dropped of it; of a set all parts, and
//!   with [`ConfigSet::keep`] all of them once more in its history. So is rolling back.
//! - *Nobody is written over by mistake.* [`Config::update`] and [`Publish::if_version`] publish only over what was read,
//!   and so do those of a [`ConfigSet`]; [`ConfigSet::update`] also notices a part that was changed by hand, which the
//!   set's version does not tell. Publishing without a version is the one thing that does not ask.
//! - *Whole states.* What a [`ConfigSet`] gives, read or watched, is the tree at one zxid: never parts of two publications.
//! - *The last good value stays.* What can't be decoded is an event and not an end; [`Watch::last_good`] is what a program
//!   goes on with. The last value that is published is always told in the end.
//! - *What was published can be had again*, byte by byte, as long as it is kept: the last ten of a [`Config`], and none of
//!   a set, unless [`Config::keep`] and [`ConfigSet::keep`] say so many others. Rolling back publishes: it loses nothing.
//!   A version of a set is all parts that there were, also those that the publisher's type has not, and going back to it
//!   brings back those and no others. Who may not read all of them keeps no version: that is refused ([`Error::Hidden`]).
//!
//! # What it is not for
//! Secrets: whoever may read the znode reads them, and the history keeps them. Keeping versions of a set whose parts
//! have access lists of their own: the copies have the list that `.history` has then, the set's own unless it was given
//! another one: so a part which only some may read is read by all who may read the set. Keep none, or give `.history` a
//! list first. Large values: a znode has at most 1 MiB, and each version takes its place. A publication of a set
//! carries what it changes and, for the history, all parts: what fits one request, 4 MiB; reading and watching a set
//! carry its versions too, so keep few of a large one ([`ConfigSet::keep`]). Values that change many times a second: a
//! watch tells the last one, but each costs a transaction. Validation here guards against this program's mistakes; who
//! must not be able to publish nonsense at all needs the `schema` plugin, or an access list. The name of who published
//! is what that client says of itself.
//!
//! # Layout
//! ```text
//! /app/config                      persistent: the value, as JSON
//! /app/config/history              persistent: made with the first publication
//! /app/config/history/0000000007   persistent: version 7: {"by": ..., "note": ...}, a line end, the value as it was
//!
//! /app/set                               persistent: a set; {"by": ...}; its data's version is the set's version
//! /app/set/workers                       persistent: a part, as JSON
//! /app/set/.history                      persistent: only of a set that keeps versions; no part can have its name
//! /app/set/.history/0000000007           persistent: version 7: {"by": ..., "note": ...}
//! /app/set/.history/0000000007/workers   persistent: the part as it was then, byte by byte
//! ```
//! A version is the version of the znode's data: it rises with each publication, also with one by hand (`conclave set
//! /app/config ...`), which leaves no entry in the history, nor does that of a set without [`ConfigSet::keep`]. What is
//! made below `.history` has the access list that `.history` has then, whatever list a part has: that of the set's
//! znode, unless it was given another one. A set's rises with each publication, [`ConfigSet::remove`] and roll-back; a
//! part that is changed by hand is in the next version that is published.
//!
//! # When the connection or the session fails
//! No session is needed. While no member is reachable, requests wait until their time is over, and watches tell nothing;
//! afterwards they go on where they were, or begin with the present state where that is not known any more. A client whose
//! session is lost reads and watches on, and is refused writes: connect a new one.
//!
//! # What a crash leaves
//! Before the transaction nothing, after it everything. A dropped future may have published or not; see [`Error::outcome`].
//!
//! # Round trips
//! | | here | Curator | etcd | Consul |
//! |---|---|---|---|---|
//! | [`Config::get`] | 1 | 0, from its cache | 1 | 1 |
//! | [`ConfigSet::get`] | 1, on a stream of its own | - | 1 | 1 |
//! | [`Config::history`]; [`ConfigSet::history`] | 1; 1, on a stream of its own, or 0 of a set that keeps none | - | - | - |
//! | [`Config::publish`], [`Config::update`] | 2: a look at value and history at the same time, the transaction; again for each time that somebody was faster | 1, and 2 for each that was faster | 2, and 1 for each that was faster | 2, and 2 for each that was faster |
//! | [`Config::roll_back`] | 3 | - | - | - |
//! | [`ConfigSet::publish`], [`ConfigSet::update`], [`ConfigSet::remove`] | 2, likewise | - | 2, and 1 for each that was faster | - |
//! | [`ConfigSet::roll_back`] | 2, likewise | - | - | - |
//! | an event of a watch | 0: it is told; 2 to begin | 1 | 0: it is told | 1 |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code and documentation. Curator 5's `SharedValue` sets with the version that it
//! knows, reads again when that was too old, and is told that something has changed, not what. etcd 3.6: a get, of
//! several keys by their prefix, and a transaction, as its `STM` does when it is told which keys to fetch first.
//! Consul: a read, of several keys by their prefix, and a write with the index; a blocking query for each event. None
//! of them keeps versions to go back to (etcd its revisions, until they are compacted).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod error;
mod history;
mod parts;
mod publish;
mod set;
mod watch;

pub use config::{Config, Versioned};
pub use error::{Error, Found, Result};
pub use history::Past;
pub use publish::Publish;
pub use set::{ConfigSet, PublishSet, SetWatch};
pub use watch::{Event, Watch};
