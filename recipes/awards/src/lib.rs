//! What recipes that award something share: locks and elections are made of these parts, and so may others be.
//!
//! An *award* is the moment at which something becomes a session's own: a lock, leadership, a claim. It is an ephemeral
//! `holder` znode. The zxid that created it is its [`Fence`](conclave_client::Fence): a write that carries it is refused
//! once that very znode is gone. So the cluster itself tells who holds from who did, however the award was made.
//!
//! ```
//! use conclave_awards::{Guard, Owned, State};
//! use conclave_client::Fence;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), conclave_testing::Error> {
//! # let cluster = conclave_testing::Cluster::start(1).await?;
//! # let client = cluster.client("me").await?;
//! # client.at("/app/release").create("v8").parents().await?;
//! // Whoever creates this has the claim, until its session ends.
//! let session = client.session().await?;
//! let created = client.at("/claims/tape-1").create("me").parents().ephemeral().await?;
//! let owned = Owned::new(&client, Fence { path: created.path, zxid: created.stat.created });
//! let guard = Guard::new(owned, session); // dropping it gives the claim back
//!
//! let fenced = guard.fenced(&client)?; // its writes come to nothing once the claim is lost
//! fenced.at("/app/release").set("v9").await?;
//! assert_eq!(guard.state(), State::Held);
//! guard.release().await?;
//! # assert_eq!(client.at("/app/release").get().await?.data, "v9");
//! # assert!(fenced.at("/app/release").set("late").await.is_err());
//! # assert!(!client.at("/claims/tape-1").exists().await?);
//! # Ok(()) }
//! ```
//!
//! # What it promises
//! - *A guard knows.* [`Held::state`] goes by the local clock, and is [`State::Lost`] before the cluster can give the award
//!   to another. [`Held::lost`] resolves when the session is lost, or the holder znode is deleted by anybody. A guard that
//!   is lost never comes back.
//! - *Dropping gives back.* A guard, an [`Owned`] znode, and every future of this crate, at whichever await it is dropped,
//!   leave nothing behind: the znode is deleted by a write that carries its own fence, so it is never another's that is
//!   deleted. No runtime has to run for that, only the client.
//! - *Nothing is given back twice, or forgotten.* Writes are sent in the client's session: carried out exactly once, or the
//!   session is over, and all that it owned is gone.
//!
//! # What it is not for
//! It decides nothing: who is next is the recipe's to say. For a mutex, a read-write lock, a semaphore see `conclave-locks`,
//! for a leader `conclave-election`. A guard is worth no more than its znode is protected: whoever may delete it may end
//! the award.
//!
//! # When the connection or the session fails
//! | | the guard |
//! |---|---|
//! | suspended | [`State::Uncertain`]: stop side effects |
//! | connected again | [`State::Held`] again |
//! | session lost, or client closed | [`Lost::SessionOver`], before the cluster can give it to another; for good |
//! | the holder znode deleted by hand | [`Lost::HolderGone`] |
//!
//! # The line
//! [`mod@line`] has the transactions of a line on plain znodes, for recipes whose waiters stand in one:
//! ```text
//! PATH/line                 persistent: its data's version counts the places ever taken
//! PATH/line/w-0000000007    ephemeral, sequential: a place in line
//! PATH/holder               ephemeral: the award
//! ```
//! 1. A place is taken by one transaction that creates it *and* sets the line's data, so that its version rises.
//! 2. An award is one transaction that creates `holder`, and either deletes a place, which is the taker's own (fenced by
//!    that place's path and zxid), or checks that the line has the version at which it was seen empty.
//! 3. An award ends when `holder` is deleted; its owner deletes it fenced by itself, so never another's.
//!
//! What a crash leaves goes with the session, at its timeout at most: a place, or a holder, never both.
//!
//! # Round trips
//! | | here | Curator's locks | etcd's locks |
//! |---|---|---|---|
//! | [`Guard::new`] | none; its keeper begins a watch in the background: 1 | none: nobody watches what is held | none, likewise |
//! | [`Guard::release`], dropping | 1 write, which a drop does not wait for | 1: delete | 1: delete |
//! | [`line::queue`] | 1 write | 1: create | 1: transaction |
//! | [`Guard::exchange`], [`line::take_free`], [`line::take_turn`] | 1 write each; whether it comes about or not | - | - |
//! | all questions of [`Held`] | none | - | - |
//! | a write through [`Fenced`] | that of the write: the fence travels in it | - | that of the write: a transaction that compares the key's revision |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in the code of Curator 5 and etcd 3.6. Neither has an award of its own: who is first in line
//! holds. Consul's locks are with those of `conclave-locks`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod fenced;
mod guard;
mod held;
pub mod line;
mod owned;
pub mod wait;

pub use error::{Error, Lost, Result, place_gone, refused_by};
pub use fenced::{Fenced, FencedAt};
pub use guard::{Exchanged, Guard};
pub use held::{Held, State};
pub use owned::{Owned, UNTIL_ANSWERED, UnderWay, WHILE_OPEN, give_back};
