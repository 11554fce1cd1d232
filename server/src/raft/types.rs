//! The types that openraft is told to work with, and the words in which the rest of the server talks to it.

use std::fmt;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::Position;
use conclave_store::Checkpoint;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

openraft::declare_raft_types!(
    /// What openraft is made of here: (term, index) names an entry, as one leader has a term.
    pub(crate) Types:
        D = Payload,
        R = Applied,
        NodeId = u64,
        Node = Node,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// (term, index).
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
/// Who leads a term, or wants to.
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
/// An entry of the log.
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
/// What an entry holds.
pub(crate) type EntryPayload = openraft::alias::PayloadOf<Types>;
/// Voters and learners.
pub(crate) type Membership = openraft::Membership<u64, Node>;
/// Voters and learners, and where in the log that was said.
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
/// What a checkpoint is to openraft.
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, Checkpoint>;

/// An entry's bytes, as [`conclave_core::entry::Entry::encode`] made them. They are never encoded again: the chain
/// hashes them as they lie in the log and travel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Its transactions are part of the state.
    Done,
    /// It was planned on another state, or by a planner of another term: it changed nothing, on every member alike.
    Void,
    /// It holds no transactions: a blank or a membership entry.
    Skipped,
}

/// Where a member is found, as the membership says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `host:port` of its peer plane.
    pub peer: String,
    /// `host:port` of its client plane.
    pub client: String,
}

/// What the apply thread is told.
#[derive(Debug)]
pub enum ApplyCommand {
    /// Entries to write.
    Batch(ApplyBatch),
    /// A checkpoint that replaces the whole state.
    Install(Install),
}

/// A checkpoint that the apply thread is to put in the place of the tables.
#[derive(Debug)]
pub struct Install {
    /// Verified, durable.
    pub checkpoint: Checkpoint,
    /// Takes the answer when the new tables are durable and read from; or the fault that ends this member's Raft
    /// instance.
    pub done: oneshot::Sender<Result<(), Fault>>,
}

/// Committed entries that the apply thread is to write in one transaction, in order.
#[derive(Debug)]
pub struct ApplyBatch {
    /// The entries; never empty.
    pub items: Vec<Item>,
    /// Takes one answer for each entry, in order, when all of them are applied; or the fault that ends this member's
    /// Raft instance.
    pub done: oneshot::Sender<Result<Vec<Applied>, Fault>>,
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place in the log: the applied position when it is applied.
    pub position: Position,
    /// What it holds.
    pub kind: Kind,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: a leader's first entry. It moves the applied position only.
    Blank,
    /// A membership. The bytes are what [`Local::membership`](conclave_core::apply::Local::membership) is to hold from
    /// then on, as they are; it moves the applied position as well.
    Membership(Bytes),
    /// Transactions, as [`conclave_core::entry::Entry::decode`] reads them.
    Payload(Bytes),
}
