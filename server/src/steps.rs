//! The steps of an entry on its way through a member, told to tests that end the member there.

use std::sync::Arc;

use conclave_protocol::Zxid;

/// How far a request, or the entry that it is in, has come on a member. The first two are the leader's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A request has come to the planner, and is not planned.
    Received,
    /// An entry is planned, and Raft has not got it.
    Planned,
    /// Raft has given the entry its place, and the log has not got it. On the leader: nor has anybody else.
    Proposed,
    /// The entry is on this member's disk. Whether others have it is not known.
    Durable,
    /// The entry is known to be committed, and is not applied here.
    Committed,
    /// The entry is in this member's tables, and nobody was told.
    Applied,
    /// Its events and replies lie with this member's connections, and may have left.
    Published,
}

impl Step {
    /// All of them, in the order in which the leader comes to them.
    pub const ALL: [Self; 7] =
        [Self::Received, Self::Planned, Self::Proposed, Self::Durable, Self::Committed, Self::Applied, Self::Published];
}

/// What is told of steps. It is called on the thread that comes to the step, without locks of the member's; when it does
/// not return (it may unwind), that thread goes no further.
pub type OnStep = Arc<dyn Fn(Step, Option<Zxid>) + Send + Sync>;

/// Tells of steps, if anybody wants to know.
#[derive(Clone, Default)]
pub(crate) struct Steps(pub(crate) Option<OnStep>);

impl Steps {
    /// One request, or one entry, has come to this step; with its last zxid, where that is known.
    pub(crate) fn reached(&self, step: Step, zxid: Option<Zxid>) {
        if let Some(tell) = &self.0 {
            tell(step, zxid);
        }
    }
}
