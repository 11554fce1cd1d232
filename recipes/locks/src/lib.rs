//! Fair locks with fences: mutex, read-write lock, semaphore, whose holders the cluster itself can tell from those that were.
//!
//! ```
//! use std::time::Duration;
//!
//! use conclave_client::{Client, Options};
//! use conclave_locks::Mutex;
//!
//! # async fn deploy() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let mutex = Mutex::new(&client, "/locks/deploy")?;
//!
//! let guard = mutex.acquire().within(Duration::from_secs(30)).await?; // dropping this future withdraws the wait
//! let fenced = guard.fenced(&client)?; // what is written through it is refused once the lock is lost
//! fenced.at("/app/release").set("v9").await?;
//! tokio::select! {
//!     done = deploy() => done?,
//!     why = guard.lost() => return Err(why.into()),
//! }
//! guard.release().await?; // dropping it releases too, but can't report
//!
//! // The form that can't be misused: the work is dropped when the lock is lost, and the lock given back afterwards.
//! mutex.run(|held| async move { println!("token {}", held.token()) }).await?;
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
//! # let you = cluster.client("you").await?;
//! # you.at("/app/release").create("v8").parents().await?;
//! # example().await?;
//! # assert_eq!(you.at("/app/release").get().await?.data, "v9");
//! # assert_eq!(Mutex::new(&you, "/locks/deploy")?.view().await?.holder, None);
//! # Ok(()) }
//! ```
//!
//! # Which one
//! | | held by | Curator |
//! |---|---|---|
//! | [`Mutex`] | one | `InterProcessSemaphoreMutex`, `InterProcessMutex` |
//! | [`RwLock`] | many to read, or one to write; up and down without a gap | `InterProcessReadWriteLock` |
//! | [`Semaphore`] | so many permits in all, any number each | `InterProcessSemaphoreV2` |
//! | [`MultiLock`] | several mutexes, all or none | `InterProcessMultiLock` |
//! | [`Mutex::request_release`], [`Guard::release_requested`] | asking a holder to release | `Revoker`, `Revocable` |
//!
//! They run on the procedures of the plugin `lock`, which every cluster has: one round trip, and whoever waits is parked in
//! the cluster. With `.plain()` they do the same on znodes alone, for clusters without the plugin. Both ways use one layout:
//! callers and plain clients exclude each other, and stand in one line.
//!
//! # What it promises
//! - *One award at a time.* A mutex is somebody's while its `holder` znode exists, and creating that znode fails while
//!   it exists; no share and no permit is given beyond what fits. Each award has a [`Fence`](conclave_client::Fence): the
//!   path of its znode and the zxid that created it. Fences rise. The cluster refuses a fenced write whose award is over.
//! - *First come, first served*, in the order of the places in line, whatever each wants: who reads does not pass one who
//!   waits to write, nor one permit ten. Nobody passes a line that is not empty, not those who only try either. (A reader
//!   who is alone may become the writer: whoever waits would have to wait for it anyway.)
//! - *No herd.* Who waits is woken when the place before its own goes, or, if it is first, what keeps it out.
//! - *It always ends.* A holder that is gone is found out by its session's timeout, at most.
//!
//! # What a lock is not
//! **Holding a lock does not mean that nobody else acts.** A program may be stopped for a minute between looking at its
//! guard and writing; when it goes on, the lock is another's. Only who *receives* the write can tell: the cluster does
//! for writes that carry the fence ([`Held::fenced`], [`Held::fence`]), and other systems can if they are given
//! [`Held::token`] and refuse a lower one than they have seen. What can't be fenced can happen twice. Nor is a guard worth
//! more than the znodes are protected: whoever may delete `holder` may end the award.
//!
//! It is not re-entrant: while a client's session holds a lock, that client and its clones are refused it at once with
//! [`Error::AlreadyHeld`], instead of waiting for themselves. Several tasks of one client may *wait* for it, and get it
//! in turn; they may share a [`RwLock`] to read while nobody waits to write; and each may hold permits of a [`Semaphore`].
//! (The plugin gives a session nothing twice: another reading, or other permits, it takes by plain znodes.)
//!
//! # Layout
//! ```text
//! /locks/deploy                      persistent: the lock; of a semaphore its data is {"capacity": 5}. Made by the first
//!                                    who needs it, and kept
//! /locks/deploy/line                 persistent: its data's version counts the places ever taken
//! /locks/deploy/line/w-0000000007    ephemeral, sequential: a place in line; r-... of one who wants to read
//! /locks/deploy/holder               ephemeral: the award of one who holds it alone
//! /locks/deploy/shared/h-0000000003  ephemeral, sequential: the award of one who reads, or holds permits
//! /locks/deploy/requests             persistent: the latest request to release it
//! ```
//! The fence is the award's path and the zxid of its creation. All these contain JSON, for people and for
//! [`Mutex::view`]: `{"principal": ..., "note": ..., "permits": ...}`; since when is in their stat. Of permits the number
//! counts. A path is of one kind. Whoever keeps these rules may take part, by whichever means:
//! 1. A place is taken by one transaction that creates it *and* sets the line's data (so its version rises).
//! 2. An award is one transaction that creates its znode, and either deletes the first place in line, which is the
//!    taker's own (fenced by that place's path and zxid), or checks that the line has the version at which it was seen
//!    empty. One that is alone checks that nobody shares; one that is shared, that nobody holds it alone.
//! 3. Permits are only given from the first place in line, if there is a line: so they cannot become fewer between
//!    looking and taking. That transaction checks the semaphore's version.
//! 4. An award ends when its znode is deleted; its owner deletes it fenced by itself, so never another's.
//!
//! Once first in line, always first: numbers rise. A `holder` that an operator creates by hand keeps all out, until it
//! is deleted.
//!
//! # When the connection or the session fails
//! | | who waits | who holds |
//! |---|---|---|
//! | suspended | waits on, its place is kept | [`State::Uncertain`]: stop side effects |
//! | connected again | waits on | [`State::Held`] again |
//! | session lost, or client closed | [`Error::SessionOver`]; the place goes with the session | [`State::Lost`], before the cluster can give it to another; for good |
//! | znode deleted by hand | [`Error::PlaceGone`], when its turn would be next | [`State::Lost`] with [`Lost::HolderGone`] |
//! | plugin disabled | [`Error::Client`] with `plugin-disabled`; the place goes | holds on, and can release; so does who is plain |
//!
//! Calls and writes are sent in the client's session: they are carried out exactly once, or the session is over. So there is
//! no award of which its taker does not know. A guard that is lost gives back what may be left of its award: keeping it
//! keeps nobody out. Dropping any future of this crate, at any moment, withdraws the call or the place, and gives back an
//! award that was on its way.
//!
//! # What a crash leaves
//! | it crashed after | what is left until its session ends | who waits behind |
//! |---|---|---|
//! | nothing, or making the lock | an empty lock | nobody |
//! | taking a place, or parking | the place | waits for the session's timeout, if it was next |
//! | the award | the holder (the place went in the same transaction) | waits for the session's timeout |
//! | an upgrade or a downgrade | the one or the other, never both or none | as above |
//! | the release | nothing | is served |
//! | asking for a release | the request, which later holders do not hear | |
//!
//! The session's end takes place and holder away in one transaction, and wakes who is next. [`Client::close`] ends it
//! at once.
//!
//! # Round trips
//! The first use of a client opens its session: 1. Each guard begins a watch of its award, in the background: 1.
//!
//! | | by procedure | plain | Curator | etcd | Consul |
//! |---|---|---|---|---|---|
//! | acquire what is free | 1 | 2, the first time 3; of permits 4, the first time 6 | 2; of permits 5 for each | 1; read-write 2 | 1 |
//! | acquire after waiting | 1, and the answer comes by itself | 4, and 2 for each change of whom it waits for | 2, and 2 for each that it waits for | 3, and 2 for each that it waits for; read-write 2, and 2 | 3, and 15 s if the holder died |
//! | try | 1; when it is not free 2 | 2; of permits 4 | 2; when it is not free 4 | 1; when it is not free 2 | 1 |
//! | release, by either way | 1 | 1 | 1 | 1 | 1 |
//! | [`try_upgrade`](ReadGuard::try_upgrade), [`downgrade`](WriteGuard::downgrade) | 1 transaction | 1 | downgrade 3 | - | - |
//! | another reading, other permits, of a client that has some | as plain, and 1 | | - | - | - |
//! | [`Acquire::on_wait`] | 2 more for each time it tells, which nothing waits for | none | - | - | - |
//! | [`MultiLock`] | that of each mutex, one after the other; released at once | the same | that of each, released one after the other | - | - |
//! | asking for a release; hearing of it | 1; 1 to begin, then it comes by itself | the same | 1; 1 to begin, and 1 for each change | - | - |
//! | [`Mutex::view`] | 1 | 1: reads sent together count as one | 1, the names alone | - | - |
//!
//! Ours are counted in `tests/locks/round_trips.rs`.
//!
//! The others' are counted in their code (Curator 5, etcd 3.6) and Consul's guide, with a session, and the parents
//! there. Curator: create, children; who waits reads the one before it with a watch, and the children again when that
//! has gone; who only tries deletes what it created. Of permits it is that of a mutex, create, children, and the
//! mutex's release. A downgrade is another acquisition and a release. etcd: a transaction that tells the holder; who
//! waits gets and watches the youngest before it until a get finds none, and a mutex then gets its own key. Its
//! read-write lock is an experiment: put, get. Consul: a failed acquire, a blocking query, an acquire.
//!
//! [`Client::close`]: conclave_client::Client::close
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acquire;
mod decide;
mod error;
mod guard;
mod layout;
mod lock;
mod look;
mod multi;
mod mutex;
mod request;
mod rwlock;
mod semaphore;
mod view;
mod want;

pub use acquire::Acquire;
pub use conclave_awards::{Fenced, FencedAt};
pub use error::{Error, Lost, Result};
pub use guard::{Guard, Held, State};
pub use layout::{Layout, Who};
pub use multi::{MultiGuard, MultiLock};
pub use mutex::Mutex;
pub use request::ReleaseRequest;
pub use rwlock::{ReadGuard, RwLock, Upgrade, WriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use view::{Claim, Holder, Overview, Sharer, View, Waiter, Waiting};
pub use want::{Alone, Exclusive, Kind, Permits, Shared};
