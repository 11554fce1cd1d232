//! The typed client of Conclave: znodes, sessions, watches and procedures over one connection that mends itself.
//!
//! ```
//! use conclave_client::{Client, Error, Options, Outcome, Refusal};
//!
//! # async fn example() -> conclave_client::Result<()> {
//! let client = Client::connect(Options::load()?).await?;
//! client.at("/app/config").create("v1").parents().await?;
//! match client.at("/app/config").set("v2").if_version(0).await {
//!     Ok(stat) => println!("version {}", stat.version),
//!     Err(Error::Refused(Refusal::BadVersion { actual, .. })) => println!("it is at version {actual} already"),
//!     Err(error) if error.outcome() == Outcome::Unknown => println!("read it again before you repeat it"),
//!     Err(error) => return Err(error),
//! }
//! client.close().await
//! # }
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
//! # example().await?;
//! # assert_eq!(cluster.client("you").await?.at("/app/config").get().await?.data, "v2");
//! # Ok(()) }
//! ```
//!
//! # Where the cluster is
//! [`Options::load`] looks, like the command line: `CONCLAVE_DIR`, else a `.conclave` directory here or above. The
//! variables `CONCLAVE_ENDPOINTS`, `CONCLAVE_CERTIFICATE`, `CONCLAVE_KEY` and `CONCLAVE_CA` come before what the
//! directory's `client.toml` says. [`Options::new`] needs none of that.
//!
//! # Errors
//! A *refusal* ([`Error::Refused`]) is the cluster's answer: nothing was changed, and [`Refusal::code`] is stable. All
//! else has no answer; [`Error::outcome`] says whether the request surely did not happen or may have, and
//! [`Error::is_retryable`] whether simply sending it again can help.
//!
//! # Time
//! Each request has a deadline (`.within(..)`, or [`Options::with_request_timeout`]). Until then the client connects
//! again as often as it must, and repeats what was not answered in a way that cannot carry it out twice.
//!
//! # Order
//! Requests are sent in the order in which their futures are first polled. Without a session, writes that are on their
//! way at the same time can be carried out in any order; await one before the next where it matters. With a session
//! ([`Client::session`], [`Client::pipelined`], `.in_session()`) they are carried out in the order in which they were
//! issued, each exactly once, and a read sees the writes issued before it. An event of a watch is in its stream before
//! any newer reply reaches its caller. Reads are linearizable without a session and [`Consistency::Session`] with one,
//! unless they say otherwise.
//!
//! # Cancellation
//! Dropping a request's future does not take the request back: a write may or may not be carried out. A session write
//! still keeps its place in the order. Dropping a [`Watch`] ends it.
//!
//! # Sessions
//! A session is opened by what needs one (ephemeral znodes, pipelined writes), and then carries all writes of the
//! client. [`Client::state`] is `Connected`, `Suspended` (no member heard: stop side effects) or `Lost` (for good), by a
//! clock that runs while the machine sleeps and that ends before the cluster's. [`Client::sessions`] lists those of the
//! cluster, [`Client::owned`] what one owns, [`Client::end_session`] ends it.
//!
//! # Znodes
//! [`Client::at`] names a place; what can be done there are the methods of [`At`]: reading, listing and counting; creating
//! znodes of every kind (ephemeral, sequential, container, with a time to live); setting and deleting, by version if
//! wanted; changing data where it is ([`At::add`], [`At::append`], [`At::swap`]); access lists; whole subtrees, read as of
//! one zxid ([`At::subtree`]) or deleted part by part ([`At::delete_all`]). [`Client::many`] reads several at one zxid,
//! [`Client::transaction`] does several things or none:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), conclave_testing::Error> {
//! # let cluster = conclave_testing::Cluster::start(1).await?;
//! # let client = cluster.client("me").await?;
//! # client.at("/app/mode").create("").parents().await?;
//! # for data in ["a", "b", "c"] {
//! #     client.at("/app/mode").set(data).await?;
//! # }
//! # client.at("/app/config").create("v1").await?;
//! # client.at("/app/draft").create("").await?;
//! client.transaction().check_version("/app/mode", 3).set("/app/config", "v2").delete("/app/draft").commit().await?;
//! let visits = client.at("/app/visits").add(1).or_create().await?;
//! println!("{} visits", visits.number);
//! # assert_eq!(visits.number, 1);
//! # Ok(()) }
//! ```
//!
//! # Watches
//! [`Client::watch`] tells of changes, each once, in order, without a gap, over broken connections and other members:
//! of a znode, its existence, its children or its subtree; of some kinds and names; with data or without. With
//! [`WatchBuilder::snapshot`] it begins with the present state, and takes a new one where changes are not to be had any
//! more. [`Watch::bookmark`] is what a program keeps to go on from there on another day.
//!
//! ```
//! # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
//! use conclave_client::{ChangeKind, WatchEvent};
//!
//! let kinds = [ChangeKind::Created, ChangeKind::Data];
//! let mut watch = client.watch("/app").subtree().kinds(&kinds).names("*.json").with_data().await?;
//! # client.at("/app/notes.txt").create("").await?;
//! # client.at("/app/a.json").create("{}").await?;
//! while let Some(event) = watch.next().await {
//!     if let WatchEvent::Changes { zxid, changes, present } = event? {
//!         for (change, now) in changes.iter().zip(&present) {
//! #           assert_eq!(change.path.as_str(), "/app/a.json");
//! #           assert_eq!(now.as_ref().map(|znode| &znode.data[..]), Some(&b"{}"[..]));
//!             println!("{zxid}: {} {}, now {:?}", change.kind, change.path, now.as_ref().map(|znode| &znode.data));
//!         }
//! #       return Ok(());
//!     }
//! }
//! # Err("the watch ended".into()) }
//! # #[tokio::main]
//! # async fn main() -> Result<(), conclave_testing::Error> {
//! # let cluster = conclave_testing::Cluster::start(1).await?;
//! # let client = cluster.client("me").await?;
//! # client.at("/app").create("").await?;
//! # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
//! # Ok(()) }
//! ```
//!
//! # A subtree in memory
//! [`Client::cache`] keeps a subtree at hand: read without a round trip, always exactly the state after one transaction,
//! kept up by a watch, and it tells what changed. See [`Cache`].
//!
//! # Values instead of bytes
//! [`At::typed`] reads and writes values of a type (CBOR, or JSON), updates them by a closure that is run again when
//! somebody was faster, and watches them. See [`Typed`].
//!
//! # Plugins
//! [`Client::call`] calls a plugin's procedure, a transaction of its own that may wait on the cluster's side; dropping its
//! future gives back what it took. [`Client::ask`] asks a query, on any member. [`Client::plugins`] installs, lists and
//! manages them, and tells who waits in them for what.
//!
//! ```no_run
//! # // Not run, for it needs the plugin.
//! # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
//! let count: i64 = client.call("counter", "increment").positional("/hits").positional(5).typed().await?;
//! println!("{count}");
//! # Ok(()) }
//! ```
//!
//! # Namespaces
//! [`Client::namespace`] gives a client for which one znode is the root: every path that it takes, gives or is refused
//! with is relative to it.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), conclave_testing::Error> {
//! # let cluster = conclave_testing::Cluster::start(1).await?;
//! # let client = cluster.client("me").await?;
//! let tenant = client.namespace("/tenants/a")?;
//! tenant.at("/config").create("v1").parents().await?; // creates /tenants/a/config
//! # assert!(client.at("/tenants/a/config").exists().await?);
//! # Ok(()) }
//! ```
//!
//! # Limits
//! They are the cluster's, and can be configured there; a request that exceeds one is refused with `limit`. This client
//! refuses by itself only what does not fit a frame ([`limits::FRAME_BYTES`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod builder;
mod cache;
mod call;
mod client;
mod clock;
mod driver;
mod error;
#[cfg(test)]
mod fake;
mod namespace;
mod options;
mod plugins;
mod raw;
mod session;
mod sessions;
mod side;
mod typed;
mod watch;
mod wire;
mod znode;

pub use batch::Multi;
pub use builder::ToPath;
pub use cache::{Cache, CacheBuilder, CacheChange, CacheChanges, CacheView, ChangeSet};
pub use call::{Call, Inquiry, TypedCall, TypedInquiry};
pub use client::{Client, Peer};
/// What is said of plugins.
pub use conclave_protocol::plugin;
/// What the words of the protocol mean is said there.
pub use conclave_protocol::{
    AccessList, Backup, Change, ChangeKind, Check, ClusterRefusal, Condition, Consistency, Edit, Entry, Fence, Grant,
    Health, Kind, Kinds, MemberHealth, MemberId, MemberReport, MemberStatus, Page, Path, PathError, Pattern,
    PatternError, Permission, Permissions, Present, Refusal, Role, Scope, SessionId, SessionInfo, Stat, Status, Step,
    TreeEntry, Value, Who, Zxid, limits,
};
/// What [`Client::submit`] and [`Client::query`] take and give.
pub use conclave_protocol::{Answer, Op, Query};
/// Steps of a [`Client::multi`].
pub use conclave_protocol::{
    Create as CreateStep, Delete as DeleteStep, Set as SetStep, SetAcl as SetAclStep, Update as UpdateStep,
};
#[doc(hidden)]
pub use driver::Sent;
pub use error::{Attempt, Doubt, Error, NoConnection, Outcome, Result, Undecodable};
pub use options::{ConfigError, Options, Source};
pub use plugins::{Actions, Install, InstallStep, ParkedCalls, PluginLog, Plugins, manifest};
pub use raw::{Question, Submit};
pub use session::State;
pub use sessions::{EndSession, Owned, Session, Sessions};
pub use side::BackupStream;
pub use typed::{Decoded, GetTyped, Typed, TypedEvent, TypedWatch, Verdict};
pub use watch::{Bookmark, ParseBookmarkError, Watch, WatchBuilder, WatchEvent};
pub use znode::{
    Access, At, Children, Count, Create, Created, Delete, EditData, EditNumber, Edited, Exists, Get, GetAcl, GetStat,
    Listing, Many, Prune, Pruned, Set, SetAcl, Subtree, SubtreeStream, Znode,
};
