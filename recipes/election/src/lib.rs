//! Leader election with terms that the cluster itself enforces: one leader at a time, and none that writes too late.
//!
//! ```
//! use conclave_client::{Client, Options};
//! use conclave_election::Election;
//!
//! # async fn bill() {}
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let client = Client::connect(Options::load()?).await?;
//! let election = Election::new(&client, "/election/billing")?.name("billing-7").data("10.0.0.7:8080");
//!
//! // The form that can't be misused: the work is dropped when leadership is lost, and leadership given up afterwards.
//! election
//!     .lead(|term| {
//!         let state = client.at("/billing/state").create("running").parents().fenced(term.fence());
//!         async move {
//!             state.await?; // refused once somebody else leads
//!             bill().await;
//!             Ok::<_, conclave_client::Error>(())
//!         }
//!     })
//!     .await??;
//!
//! // Or by hand.
//! let leadership = election.campaign().await?; // dropping this future withdraws the candidacy
//! tokio::select! {
//!     () = bill() => {}
//!     why = leadership.lost() => return Err(why.into()),
//! }
//! leadership.resign().await?; // dropping it resigns too, but can't report
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
//! # example().await?;
//! # let you = cluster.client("you").await?;
//! # assert_eq!(you.at("/billing/state").get().await?.data, "running");
//! # assert_eq!(Election::new(&you, "/election/billing")?.leader().await?, None);
//! # Ok(()) }
//! ```
//!
//! | | Curator |
//! |---|---|
//! | [`Election::lead`], [`Election::keep_leading`] | `LeaderSelector`, with `autoRequeue` |
//! | [`Election::campaign`] and [`Leadership`] | `LeaderLatch` |
//! | [`Election::observe`], [`Election::leader`], [`Election::candidates`] | `LeaderLatch.getLeader`, `getParticipants` |
//! | [`Leadership::hand_over`] | none |
//!
//! It runs on the procedures of the plugin `election`, which every cluster has: one round trip, and candidates are parked in
//! the cluster. With [`Election::plain`] it does the same on znodes alone; both ways use one layout and one order.
//!
//! # What it promises
//! - *One leader at a time.* Somebody leads while the `holder` znode exists, and creating that fails while it exists. Its
//!   creation is the *term*; terms rise, and each has one leader. The term is the fence: the cluster refuses a fenced write
//!   of a term that is over.
//! - *The next one is known*: whom the leader handed over to; else the greatest priority; else the oldest. A leader is not
//!   replaced because a greater priority comes.
//! - *Somebody leads*, if there are candidates: when the leader resigns, or its session ends, the next one leads in the same
//!   moment. One that is gone without a word is found out by its session's timeout, at most.
//! - *No herd.* A candidate is woken when the one before it goes, or the leader if it is next, or when it is chosen.
//!
//! # What leading is not
//! **Leading does not mean that nobody else acts.** A program may be stopped for a minute between looking at its term and
//! writing; when it goes on, somebody else leads. Only who *receives* the write can tell: the cluster does for writes that
//! carry the fence ([`Held::fenced`], [`Held::fence`]), and other systems can if they are given [`Term::number`] and refuse a
//! lower one than they have seen. What can't be fenced can happen twice. Nor is leadership worth more than the znodes are
//! protected: whoever may delete `holder` may end the term.
//!
//! It is not for spreading work (each election has one leader), and not for exclusion within a client: a session is a
//! candidate once, and a second campaign of it is refused with [`Error::AlreadyCandidate`] or [`Error::AlreadyLeads`].
//!
//! # Layout
//! ```text
//! /election/billing                      persistent: the election; made by the first who needs it, and kept
//! /election/billing/line                 persistent: its data's version counts the places ever taken
//! /election/billing/line/w-0000000007    ephemeral, sequential: a candidate
//! /election/billing/holder               ephemeral: the leader; fence = .../holder@(zxid of its creation), the term
//! ```
//! Candidates and leader contain `{"principal", "name"?, "priority", "data"?, "chosen"?}`. It is the layout of
//! `conclave-locks`, and the same rules make places and awards (see `conclave-awards`); a client that knows only of locks is
//! a candidate of priority 0. A leader hands over in one transaction that marks a place as chosen and deletes `holder`.
//!
//! # When the connection or the session fails
//! | | a candidate | the leader |
//! |---|---|---|
//! | suspended | waits on, its place is kept | [`State::Uncertain`]: stop side effects |
//! | connected again | waits on | [`State::Held`] again |
//! | session lost, or client closed | [`Error::SessionOver`]; the place goes with the session | [`State::Lost`], before anybody else can lead; for good |
//! | znode deleted by hand | [`Error::PlaceGone`], when its turn would be next | [`State::Lost`] with [`Lost::HolderGone`] |
//! | plugin disabled | [`Error::Client`] with `plugin-disabled`; the place goes | leads on, and can resign; so does who is plain |
//!
//! Calls and writes are sent in the client's session: they are carried out exactly once, or the session is over. So there is
//! no term of which its leader does not know. Dropping any future of this crate, at any moment, withdraws the candidacy, and
//! gives back leadership that was on its way; only of [`Leadership::hand_over`] it leaves open whether it happens.
//!
//! # What a crash leaves
//! | it crashed after | what is left until its session ends | the others |
//! |---|---|---|
//! | nothing, or making the election | an empty election | |
//! | becoming a candidate | the place | wait for the session's timeout, if it was next and nobody leads |
//! | being elected | the leader's znode (the place went in the same transaction) | wait for the session's timeout |
//! | resigning, or handing over | nothing | the next one leads, or the chosen one |
//!
//! # Round trips
//! The first use of a client opens its session: 1. A leader begins a watch of its znode, in the background: 1.
//!
//! | | by procedure | plain | Curator | etcd | Consul |
//! |---|---|---|---|---|---|
//! | campaign, when nobody leads | 1 | 3; the first time 4 | 2 | 2 | 1 |
//! | campaign, with waiting | 1, and the answer comes by itself | 6, and 3 for each change of whom it waits for | 2, and 2 for each that it waits for | 2, and 2 for each that it waits for | 3 |
//! | resign, by either way | 1 | 1 | 1 | 1 | 1 |
//! | hand over | 1 | 2 | - | - | - |
//! | leader, candidates | 1 | 1 | leader 2; candidates 1, and 1 for each | leader 1 | leader 1 |
//! | observe | 2 to begin, 3 when nobody leads; then changes come by themselves | the same | - | 2 to begin, and 2 for each new leader | 1 for each change |
//!
//! Ours are counted in `tests/election/round_trips.rs`.
//!
//! The others' are counted in their code (Curator 5's `LeaderLatch`, etcd 3.6) and Consul's guide, with a session, and
//! the parents there. Curator: create, children; who waits reads the one before it with a watch, and the children again
//! when that has gone; children and data tell the leader. etcd: a transaction, and a get that finds nobody before; else
//! get and watch that one. Consul: a failed acquire, a blocking query, an acquire.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod campaign;
mod candidate;
mod election;
mod error;
mod layout;
mod leadership;
mod observe;

pub use campaign::Campaign;
pub use candidate::{Candidate, Leader};
pub use conclave_awards::{Fenced, FencedAt};
pub use election::Election;
pub use error::{Error, Lost, Result};
pub use layout::{Layout, Who};
pub use leadership::{Held, Leadership, State, Term};
pub use observe::Observe;
