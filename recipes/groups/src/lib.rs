//! Groups: ephemeral znodes that outlive their session, membership, and a set of items divided among the members.
//!
//! ```
//! use conclave_client::{Client, Options};
//! use conclave_groups::{Group, Partition};
//!
//! # async fn work_on(_: &str) {}
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let group = Group::new(&client, "/groups/workers")?;
//!
//! // Membership. It comes back with a new session when this one is lost.
//! let me = group.join("worker-1", "10.0.0.1:80").await?;
//! for (name, member) in group.members().await?.members {
//!     println!("{name} says {:?}", member.data);
//! }
//! let mut views = group.watch().await?;
//! if let Some(view) = views.next().await {
//!     println!("{} members", view?.members.len());
//! }
//! me.leave().await?; // dropping it leaves too, but can't report
//!
//! // Items that are divided among all who take part.
//! let mut shares = Partition::new(&group, ["a", "b", "c"])?.join("worker-1", "").await?;
//! while let Some(share) = shares.next().await {
//!     let done = tokio::spawn(share?.run(|held| async move {
//!         tokio::select! {
//!             () = work_on(held.item()) => {}
//!             () = held.recalled() => {} // another member is to have it: come to an end
//!         }
//!     }));
//! #   done.await??;
//! #   break;
//! }
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
//! | | here | elsewhere |
//! |---|---|---|
//! | a znode that comes back | [`PersistentEphemeral`] | Curator `PersistentNode` |
//! | who is there | [`Group`], [`Member`], [`Members`] | Curator `GroupMember`, kazoo `Party` |
//! | who does what | [`Partition`], [`Shares`], [`Share`] | kazoo `SetPartitioner` |
//!
//! # What it promises
//! - *One znode, one owner.* A [`PersistentEphemeral`] is created only where nothing is. What one's own session of before
//!   has left there is replaced in one transaction: whoever watches sees one znode become another, and never two. (It sees
//!   none for a while if the old session ended before there was a new one.) What another session has there is waited for.
//! - *Views are states.* Each [`View`] is the tree at its zxid: who is in it was in the group at that moment, together.
//! - *One item, one owner.* An item is somebody's while its claim znode exists, and creating that fails while it exists.
//!   Each award has a [fence](conclave_awards::Held::fence); fences of an item rise; the cluster refuses a fenced write
//!   whose award is over.
//! - *Let go first.* An item passes on in this order: its owner is told ([`Held::recalled`]), finishes, releases it; then
//!   the next one claims it. Nobody is overtaken, and an owner that does not let go keeps the item.
//! - *Balance.* When nothing changes any more, every item has an owner and the members own as many as each other, or one
//!   more. What comes and goes moves as few items as that takes.
//!
//! # What it is not
//! A place in a group says that a session lives, not that its program is well. Owning an item does not mean that nobody
//! else acts on it: as with every lock, a program may be stopped for a minute and go on when the item is another's. Only
//! who *receives* a write can tell, by its [fence](conclave_awards::Held::fence) or its
//! [token](conclave_awards::Held::token). Items are a set that all members know: a list
//! of jobs that grows is a queue. All members must be given the same items, and everybody in the group must take part;
//! one group has one division.
//!
//! # Layout
//! ```text
//! /groups/workers                    persistent: the group; made by the first who needs it, and kept
//! /groups/workers/members/worker-1   ephemeral: a member, with what it says of itself
//! /groups/workers/claims/a           ephemeral: an award of the item `a`, with its owner's name; fence = path@created
//! ```
//! A claim counts as a member's when it belongs to the session that the member's znode belongs to. It is created with
//! that znode's fence: only who is a member claims. Whose an item is to be is computed by each from members and claims of
//! one zxid: who owns it keeps it, up to as many as are due to it; the rest goes, by rendezvous hashing, to those who
//! have less.
//!
//! # When the connection or the session fails
//! | | znode, member | share |
//! |---|---|---|
//! | suspended | [`State::Uncertain`]; it is there | [`Hold::Uncertain`]: stop side effects |
//! | connected again | [`State::Present`] | [`Hold::Held`] again |
//! | session lost | [`State::Absent`] until a new client has a session; then there again, as another znode | [`Hold::Lost`], before the cluster can give it to another; for good |
//! | znode deleted by hand | created again in the same session | [`Hold::Lost`] with [`Lost::HolderGone`] |
//! | the client it was made with is closed | [`State::Ended`] | [`Hold::Lost`] |
//!
//! A new client is made from the first one's options; it is closed when nobody needs it any more. Views, watches and the
//! division go on through the first client, which reads without a session.
//!
//! # What a crash leaves
//! | it crashed after | what is left until its session ends | the others |
//! |---|---|---|
//! | joining | the member | see it until then |
//! | claiming | the member and its claims | wait for the session's end, and claim |
//! | being recalled, before the release | the same | the same |
//! | the release, the leaving | nothing | claim at once |
//!
//! A process that is started again under the same name waits for its predecessor's session to end, or takes its place at
//! once with [`Join::replace`].
//!
//! # Round trips
//! | | here | Curator | etcd |
//! |---|---|---|---|
//! | create a [`PersistentEphemeral`], join | 2: a look, the transaction; 1 more for the session if there is none; 1 for a watch in the background | 1, and 1 for a watch in the background; to join also 1, and 1 for each member | 1; 1 more for the lease if there is none |
//! | the same after a session was lost | a connection, a session, and 2 | a connection, a session, and 1; 1 for the watch | - |
//! | [`PersistentEphemeral::set_data`] | 1 | 1 | 1 |
//! | [`PersistentEphemeral::remove`], [`Member::leave`], [`Share::release`] | 1 | 1; of shares - | 1; of shares - |
//! | [`Group::members`] | 1, up to 1,000 members | 0, from its cache | 1 |
//! | a view of [`Group::watch`] | 0: it is told; 2 to begin: the watch, and the snapshot on a stream of its own | 1, and 1 for each that has come | 0: it is told |
//! | [`Partition::join`] | 4: to begin a watch, to join | - | - |
//! | an item that is free | 1 to claim it; many are claimed at the same time | - | - |
//! | an item that passes on | 1 to release, an event, 1 to claim | - | - |
//!
//! Ours are counted in `tests/round_trips.rs`.
//!
//! The others' are counted in their code, the parents there: Curator 5's `PersistentNode` (create; exists with a watch)
//! and `GroupMember`, which besides reads the children and the data of each; etcd 3.6's endpoints, which are put under
//! a lease that a program keeps alive, and are not put again when it is lost. Consul's catalogue is about services: see
//! `conclave-discovery`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod assign;
mod decide;
mod ephemeral;
mod error;
mod group;
mod keeper;
mod owned;
mod partition;
mod rebalance;
mod share;

pub use ephemeral::{Create, PersistentEphemeral, State};
pub use error::{Error, Lost, Result};
pub use group::{Group, Info, Join, Layout, Member, Members, View};
pub use partition::{Partition, Shares};
pub use share::{Held, Hold, Share};
