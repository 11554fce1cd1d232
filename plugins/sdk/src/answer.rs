//! What a procedure gives back: an answer, or what it waits for.

use serde::Serialize;

use crate::{Result, cbor};

/// A procedure's answer. One that returns it may wait; and it is run again when its caller withdraws the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is done: the caller gets this.
    Done(T),
    /// It waits: the caller gets the answer of a later run. What this run wrote stays.
    Park(Park),
}

/// What a call waits for. The conditions are looked at before any code of the plugin runs again.
///
/// ```
/// # use conclave_plugin::{Answer, Park, Result};
/// # fn waits(now_ms: u64) -> Result<Answer<()>> {
/// Ok(Park::absent("/locks/a/holder").wake_one().until_ms(Some(now_ms + 30_000)).state(&"my place").into())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a call parks when its procedure returns this"]
pub struct Park {
    pub(crate) any_of: Vec<Condition>,
    pub(crate) wake: Wake,
    pub(crate) until_ms: Option<u64>,
    /// An error is the procedure's own: so that builders chain.
    pub(crate) state: Result<Vec<u8>>,
}

/// A test of one znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Of which.
    pub path: String,
    /// What.
    pub test: Test,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// It exists, and its data has a greater version.
    VersionAbove(u64),
    /// It exists, and has at least so many children.
    ChildrenAtLeast(u64),
    /// It has at most so many children; one that does not exist has none.
    ChildrenAtMost(u64),
}

/// Who is run again by a change that makes conditions hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// By ticket, each only if one of its conditions holds then, until one's does not.
    #[default]
    One,
    /// All who parked before that change and for whom a condition held after it, even if it has passed meanwhile.
    All,
}

impl Park {
    /// Until the znode exists.
    pub fn exists(path: impl Into<String>) -> Self {
        Self::on(path, Test::Exists)
    }

    /// Until the znode does not exist.
    pub fn absent(path: impl Into<String>) -> Self {
        Self::on(path, Test::Absent)
    }

    /// Until the znode's data has a version above this.
    pub fn version_above(path: impl Into<String>, version: u64) -> Self {
        Self::on(path, Test::VersionAbove(version))
    }

    /// Until the znode has a child.
    pub fn children(path: impl Into<String>) -> Self {
        Self::children_at_least(path, 1)
    }

    /// Until the znode has so many children.
    pub fn children_at_least(path: impl Into<String>, count: u64) -> Self {
        Self::on(path, Test::ChildrenAtLeast(count))
    }

    /// Until the znode has no more children than this; one that does not exist has none.
    pub fn children_at_most(path: impl Into<String>, count: u64) -> Self {
        Self::on(path, Test::ChildrenAtMost(count))
    }

    fn on(path: impl Into<String>, test: Test) -> Self {
        let any_of = vec![Condition { path: path.into(), test }];
        Self { any_of, wake: Wake::One, until_ms: None, state: Ok(Vec::new()) }
    }

    /// Or until the other's conditions; at most 16 together. Nothing else is taken of the other.
    pub fn or(mut self, mut other: Self) -> Self {
        self.any_of.append(&mut other.any_of);
        self
    }

    /// Those who wait are woken one by one, in the order in which they called, as long as each one's condition holds. That is
    /// also so when nothing is said.
    pub fn wake_one(mut self) -> Self {
        self.wake = Wake::One;
        self
    }

    /// All who wait are woken, even if the condition has passed when it is their turn.
    pub fn wake_all(mut self) -> Self {
        self.wake = Wake::All;
        self
    }

    /// It is run again at this cluster time at the latest, with the reason [`Deadline`](crate::Reason::Deadline); none: never.
    pub fn until_ms(mut self, until_ms: impl Into<Option<u64>>) -> Self {
        self.until_ms = until_ms.into();
        self
    }

    /// What the next run gets; at most 4 KiB.
    pub fn state<S: Serialize + ?Sized>(mut self, state: &S) -> Self {
        self.state = cbor::encode(state);
        self
    }
}

impl<T> From<Park> for Answer<T> {
    fn from(park: Park) -> Self {
        Self::Park(park)
    }
}

/// What procedures may return: something to be serialized, or an [`Answer`] with it.
pub trait Reply {
    /// It may park, and is told of cancellations.
    #[doc(hidden)]
    const PARKS: bool;

    /// As the host wants it.
    ///
    /// # Errors
    /// What can't be serialized.
    #[doc(hidden)]
    fn answer(self) -> Result<Answer<Vec<u8>>>;
}

impl<T: Serialize> Reply for T {
    const PARKS: bool = false;

    fn answer(self) -> Result<Answer<Vec<u8>>> {
        cbor::encode(&self).map(Answer::Done)
    }
}

impl<T: Serialize> Reply for Answer<T> {
    const PARKS: bool = true;

    fn answer(self) -> Result<Answer<Vec<u8>>> {
        match self {
            Self::Done(value) => cbor::encode(&value).map(Answer::Done),
            Self::Park(park) => Ok(Answer::Park(park)),
        }
    }
}
