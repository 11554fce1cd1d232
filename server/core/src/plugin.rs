//! The seam between the planner and what runs plugins: one trait, and what goes through it.

use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::plugin::{BudgetSettings, ComponentDigest, Manifest, Need};
use conclave_protocol::{Change, Path, Refusal, SessionId, Zxid};

use crate::view::Tx;

/// Runs components inside the transaction that is being planned, or over a state that is read.
pub trait Runner: Send + Sync {
    /// Looks a component over without compiling it: whether it has this digest, its size and shape, its manifest.
    ///
    /// # Errors
    /// Why it can't be a plugin.
    fn inspect(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String>;

    /// Makes a component ready to run and gives its manifest, or says why it can never run here. Takes long for one that
    /// was never seen: nobody's hot path.
    ///
    /// # Errors
    /// Why the component can't be run.
    fn prepare(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String>;

    /// Whether a component of this digest is ready.
    fn is_ready(&self, digest: ComponentDigest) -> bool;

    /// Runs it. The transaction is handed in and comes back, with what was written to it; after a refusal the caller
    /// undoes that.
    fn run(&self, tx: Tx, run: Run) -> Ran;

    /// A shadow ran beside a plugin: what it would have done otherwise, if anything.
    fn compared(&self, plugin: &str, difference: Option<String>);
}

/// One run of a plugin.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name that it is installed under.
    pub plugin: String,
    /// Its component.
    pub digest: ComponentDigest,
    /// Its settings.
    pub settings: Bytes,
    /// Its budgets, where they are not the defaults.
    pub budgets: BudgetSettings,
    /// Fuel that is left to the transaction: less than its budget, perhaps.
    pub fuel_left: u64,
    /// What it is allowed: every call of the tree is held against it.
    pub allowed: Arc<[Need]>,
    /// The znode that the run sees as the root: every path that it names is below it, every path that it is told has this
    /// taken off. Of triggers the root itself.
    pub root: Path,
    /// What runs.
    pub what: What,
}

/// What of a plugin runs.
#[derive(Clone, Debug)]
pub enum What {
    /// A procedure.
    Procedure {
        /// Its name.
        name: String,
        /// Its arguments, as the caller sent them; of one that is run again, as the first run got them.
        args: Bytes,
        /// The call's number.
        ticket: Zxid,
        /// Why it is run again, if it is.
        resumed: Option<Resumed>,
    },
    /// A query: read-only.
    Query {
        /// Its name.
        name: String,
        /// Its arguments, as the caller sent them.
        args: Bytes,
    },
    /// A `before` trigger: read-only.
    Before {
        /// The trigger's name.
        trigger: String,
        /// What is about to happen.
        change: Seen,
    },
    /// An `after` trigger.
    After {
        /// The trigger's name.
        trigger: String,
        /// What happened.
        changes: Vec<Seen>,
    },
    /// A `session-end` trigger.
    SessionEnd {
        /// Which session.
        session: SessionId,
        /// Whose.
        principal: String,
        /// It was not renewed in time.
        expired: bool,
    },
    /// A `timer` trigger.
    Timer {
        /// The trigger's name.
        trigger: String,
    },
}

/// A change as triggers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It.
    pub change: Change,
    /// The data afterwards.
    pub data: Option<Bytes>,
    /// The data before.
    pub previous: Option<Bytes>,
}

/// What a procedure is run again with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Why.
    pub reason: Reason,
    /// What it parked with last.
    pub state: Bytes,
    /// What it was answered, when that is being cancelled.
    pub done: Option<Bytes>,
}

/// Why a procedure is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A condition holds, or did.
    Change,
    /// Its time is over.
    Deadline,
    /// It is not wanted any more.
    Cancel,
    /// Its session ends.
    SessionEnd,
}

/// How a run ended.
pub struct Ran {
    /// The transaction.
    pub tx: Tx,
    /// What came of it.
    pub ended: Result<Ended, Refusal>,
    /// Units of fuel that it spent.
    pub fuel: u64,
    /// The arguments as the guest got them: checked, completed, in the manifest's order.
    pub args: Option<Bytes>,
}

/// How a run ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A procedure or a query returned this; a trigger that returns nothing, nothing.
    Done(Bytes),
    /// A procedure parks.
    Park(Park),
    /// A `before` trigger decided.
    Verdict(Verdict),
}

/// What a `before` trigger decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Go on with this data. A refusal is the run's refusal.
    Rewrite(Bytes),
}

/// What a procedure waits for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Park {
    /// Any of these; absolute paths.
    pub any_of: Vec<Wanted>,
    /// Who is woken by a change.
    pub wake: Wake,
    /// When it is run again anyway, cluster time in milliseconds.
    pub until_ms: Option<u64>,
    /// For the next run.
    pub state: Bytes,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// Of which znode.
    pub path: Path,
    /// What.
    pub test: Test,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Test {
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// It exists, and its version is greater.
    VersionAbove(u64),
    /// It exists, and has so many children.
    ChildrenAtLeast(u64),
    /// It has at most so many children; one that does not exist has none.
    ChildrenAtMost(u64),
}

impl Test {
    /// Whether it holds for a znode of this version and so many children, or for none.
    #[must_use]
    pub fn holds(self, found: Option<Found>) -> bool {
        match (self, found) {
            (Self::Exists, found) => found.is_some(),
            (Self::Absent, found) => found.is_none(),
            (Self::VersionAbove(version), Some(found)) => found.version > version,
            (Self::ChildrenAtLeast(children), Some(found)) => found.children >= children,
            (Self::ChildrenAtMost(children), found) => found.is_none_or(|found| found.children <= children),
            (Self::VersionAbove(_) | Self::ChildrenAtLeast(_), None) => false,
        }
    }
}

/// What is tested of a znode that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// The version of its data.
    pub version: u64,
    /// How many children it has.
    pub children: u64,
}

/// Who is woken by a change that makes conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Wake {
    /// By ticket, each while its condition holds.
    One,
    /// All that parked before it and whose condition held after it.
    All,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exists => f.write_str("exists"),
            Self::Absent => f.write_str("absent"),
            Self::VersionAbove(version) => write!(f, "version above {version}"),
            Self::ChildrenAtLeast(children) => write!(f, "{children} children or more"),
            Self::ChildrenAtMost(children) => write!(f, "{children} children or fewer"),
        }
    }
}
