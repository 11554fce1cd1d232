//! What runs a plugin by itself: a trait for each kind of trigger, and the changes that triggers see.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::{Context, Path, Result, Tree};

/// Has a say before znodes change, whoever writes.
pub trait Before {
    /// The change has not happened yet. The tree may be read, and not written.
    fn check(&self, tree: &Tree, context: &Context, change: &Change) -> Verdict;
}

/// Writes more in the same transaction.
pub trait After {
    /// The changes of the transaction that match the trigger, in order, since its last run.
    ///
    /// # Errors
    /// Refuse the transaction, unless the manifest says otherwise or it can't be refused.
    fn react(&self, tree: &Tree, context: &Context, changes: &[Change]) -> Result<()>;
}

/// Tidies up behind sessions.
pub trait SessionEnd {
    /// In the transaction that ends the session, before its ephemeral znodes go.
    ///
    /// # Errors
    /// Undo this run alone: a session can always end.
    fn ended(&self, tree: &Tree, context: &Context, session: &Ended) -> Result<()>;
}

/// Runs from time to time.
pub trait Timer {
    /// A transaction of its own.
    ///
    /// # Errors
    /// Undo it.
    fn tick(&self, tree: &Tree, context: &Context) -> Result<()>;
}

/// What a `before` trigger decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may happen.
    Allow,
    /// Nothing of the transaction happens; the client is told this.
    Refuse(String),
    /// It happens with this data instead.
    Rewrite(Vec<u8>),
}

impl Verdict {
    /// Nothing of the transaction happens; the client is told why.
    #[must_use]
    pub fn refuse(why: impl Display) -> Self {
        Self::Refuse(why.to_string())
    }

    /// It happens with this data instead.
    #[must_use]
    pub fn rewrite(data: impl Into<Vec<u8>>) -> Self {
        Self::Rewrite(data.into())
    }
}

/// An error refuses.
impl From<Result<Self>> for Verdict {
    fn from(verdict: Result<Self>) -> Self {
        verdict.unwrap_or_else(Self::refuse)
    }
}

/// What happens to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what the manifest calls them")]
pub enum ChangeKind {
    Created,
    Data,
    Deleted,
    Acl,
}

/// One change of one znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub kind: ChangeKind,
    /// To which znode.
    pub path: Path,
    /// The version of its data afterwards; of a deletion the last one.
    pub version: u64,
    /// Its data afterwards; none after a deletion and a change of its access list.
    pub data: Option<Vec<u8>>,
    /// Its data before; none before its creation.
    pub previous: Option<Vec<u8>>,
}

impl Change {
    /// Its data afterwards, as JSON.
    ///
    /// # Errors
    /// It is no JSON, or another.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.data.as_deref().unwrap_or_default()).map_err(Into::into)
    }

    /// Its data afterwards, as text; empty when there is none.
    ///
    /// # Errors
    /// It is no UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.data.as_deref().unwrap_or_default()).map_err(|_| "the data is not text".into())
    }
}

/// A session that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub session: u64,
    /// Whose it was.
    pub principal: String,
    /// It was not renewed in time; otherwise it was closed.
    pub expired: bool,
}
