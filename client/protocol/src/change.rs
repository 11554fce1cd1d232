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
    /// Its access list was set.
    Acl,
}

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Created, Self::Data, Self::Deleted, Self::Acl];
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Data => "data",
            Self::Deleted => "deleted",
            Self::Acl => "acl",
        })
    }
}

/// Some kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kinds(u8);

impl Kinds {
    /// These.
    #[must_use]
    pub fn of(kinds: &[ChangeKind]) -> Self {
        Self(kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8))
    }

    /// Whether this kind is among them.
    #[must_use]
    pub fn has(self, kind: ChangeKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Those that are among them.
    pub fn iter(self) -> impl Iterator<Item = ChangeKind> {
        ChangeKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// On the wire: a list of kinds.
impl Serialize for Kinds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.iter().collect::<Vec<_>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(&Vec::<ChangeKind>::deserialize(deserializer)?))
    }
}

/// One change of one znode.
///
/// A watch on a znode's children is told of the children's `created` and `deleted`: the path names the child. (A parent's
/// change of its list of children is the same transaction, and no change of its own.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which znode.
    pub path: Path,
    /// Its data's version afterwards; the last one when it was deleted.
    pub version: u64,
}
