//! What happened to a znode: one list for watches, history and triggers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Path;

/// The kind of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The znode was created.
    Created,
    /// Its data was set.
    Data,
    /// It was deleted.
    Deleted,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Data => "data",
            Self::Deleted => "deleted",
        })
    }
}

/// One change of one znode.
///
/// A watch on a znode's children is told of the children's `created` and `deleted`: the path names the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which znode.
    pub path: Path,
    /// Its data's version afterwards; the last one when it was deleted.
    pub version: u64,
}
