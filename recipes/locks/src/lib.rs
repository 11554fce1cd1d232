//! Fair locks with fences: a mutex on plain znodes whose holders the cluster itself can tell from those that were.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use conclave_client::{Client, Options};
//! use conclave_locks::Mutex;
//!
//! # async fn deploy() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::load()?).await?;
//! let mutex = Mutex::new(&client, "/locks/deploy")?;
//!
//! let guard = mutex.acquire().within(Duration::from_secs(30)).await?; // dropping this future withdraws the wait
//! client.at("/app/release").set("v9").fenced(guard.fence()).await?;
//! tokio::select! {
//!     done = deploy() => done?,
//!     why = guard.lost() => return Err(why.into()),
//! }
//! guard.release().await?; // dropping it releases too, but can't report
//!
//! // The form that can't be misused: the work is dropped when the lock is lost, and the lock given back afterwards.
//! mutex.run(|held| async move { println!("token {}", held.token()) }).await?;
//! # Ok(()) }
//! ```
//!
//! # What it promises
//! - *One award at a time.* A lock is somebody's while its `holder` znode exists, and creating that znode fails while
//!   it exists. Each award has a [`Fence`](conclave_client::Fence): the holder's path and the zxid that created it.
//!   Fences rise. The cluster refuses a fenced write whose award is over.
//! - *First come, first served*, in the order of the places in line. Nobody passes a line that is not empty, not
//!   [`Mutex::try_acquire`] either.
//! - *No herd.* Who waits watches the place before its own, or the holder when it is first.
//! - *It always ends.* A holder that is gone is found out by its session's timeout, at most.
//!
//! # What a lock is not
//! **Holding a lock does not mean that nobody else acts.** A program may be stopped for a minute between looking at its
//! guard and writing; when it goes on, the lock is another's. Only who *receives* the write can tell: the cluster does
//! for writes that carry [`Guard::fence`] (`.fenced(..)`), and other systems can if they are given [`Guard::token`] and
//! refuse a lower one than they have seen. What can't be fenced can happen twice. Nor is a guard worth more than the
//! znodes are protected: whoever may delete `holder` may end the award.
//!
//! It is not re-entrant: while a client's session holds a lock, that client and its clones are refused it at once with
//! [`Error::AlreadyHeld`], instead of waiting for themselves. Several tasks of one client may *wait* for it, and get it
//! in turn.
//!
//! # Layout
//! ```text
//! /locks/deploy                      persistent: the mutex; made by the first who needs it, and kept
//! /locks/deploy/line                 persistent: its data's version counts the places ever taken
//! /locks/deploy/line/w-0000000007    ephemeral, sequential: a place in line
//! /locks/deploy/holder               ephemeral: the award; fence = /locks/deploy/holder@(zxid of its creation)
//! ```
//! Places and holder contain JSON, for people and for [`Mutex::view`]: `{"principal": ..., "note": ...}`; since when is
//! in their stat. Whoever keeps these rules may take part, by whichever means:
//! 1. A place is taken by one transaction that creates it *and* sets the line's data (so its version rises).
//! 2. An award is one transaction that creates `holder`, and either deletes the first place in line, which is the
//!    taker's own (fenced by that place's path and zxid), or checks that the line has the version at which it was seen
//!    empty.
//! 3. An award ends when `holder` is deleted; its owner deletes it fenced by itself, so never another's.
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
//!
//! Writes are sent in the client's session: they are carried out exactly once, or the session is over. So there is no
//! award of which its taker does not know. A guard that is lost gives back what may be left of its award: keeping it
//! keeps nobody out.
//!
//! # What a crash leaves
//! | it crashed after | what is left until its session ends | who waits behind |
//! |---|---|---|
//! | nothing, or making the mutex | an empty mutex | nobody |
//! | taking a place | the place | waits for the session's timeout, if it was next |
//! | the award | the holder (the place went in the same transaction) | waits for the session's timeout |
//! | the release | nothing | is served |
//!
//! The session's end takes place and holder away in one transaction, and wakes who is next. [`Client::close`] ends it
//! at once.
//!
//! [`Client::close`]: conclave_client::Client::close
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acquire;
mod decide;
mod error;
mod guard;
mod layout;
mod mutex;
mod place;
mod view;

pub use acquire::Acquire;
pub use error::{Error, Lost, Result};
pub use guard::{Guard, Held, State};
pub use layout::{Layout, Who};
pub use mutex::Mutex;
pub use view::{Holder, View, Waiter, Waiting};
