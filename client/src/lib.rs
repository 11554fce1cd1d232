//! The typed client of Conclave: znodes, sessions, watches and procedures over one connection that mends itself.
//!
//! ```no_run
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
//! clock that runs while the machine sleeps and that ends before the cluster's.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod builder;
mod client;
mod clock;
mod driver;
mod error;
mod options;
mod session;
mod side;
mod watch;
mod wire;
mod znode;

pub use batch::{Call, Multi};
pub use builder::ToPath;
pub use client::{Client, Peer, Session};
/// What the words of the protocol mean is said there.
pub use conclave_protocol::{
    Backup, Change, ChangeKind, Check, ClusterRefusal, Consistency, Entry, Fence, Health, Kind, MemberHealth, MemberId,
    MemberReport, MemberStatus, Page, Path, PathError, Refusal, Role, Scope, SessionId, Stat, Status, Step, Value,
    Zxid, limits,
};
/// Steps of a [`Client::multi`].
pub use conclave_protocol::{Create as CreateStep, Delete as DeleteStep, Set as SetStep};
pub use error::{Attempt, Doubt, Error, NoConnection, Outcome, Result};
pub use options::{ConfigError, Options, Source};
pub use session::State;
pub use side::BackupStream;
pub use watch::{Watch, WatchBuilder, WatchEvent};
pub use znode::{At, Children, Create, Created, Delete, Exists, Get, GetStat, Listing, Set, Znode};
