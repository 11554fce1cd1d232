//! What is known of a znode besides its data.

use serde::{Deserialize, Serialize};

use crate::{SessionId, Zxid};

/// A znode's stat. Times are cluster time in milliseconds since 1970; versions start at 0 and never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Zxid of its creation.
    pub created: Zxid,
    /// Zxid of the last change of its data.
    pub modified: Zxid,
    /// Zxid of the last change of its list of children.
    pub children_modified: Zxid,
    /// How often its data changed.
    pub version: u64,
    /// How often its list of children changed.
    pub children_version: u64,
    /// When it was created.
    pub created_ms: u64,
    /// When its data last changed.
    pub modified_ms: u64,
    /// The session that it belongs to, when it is ephemeral.
    pub owner: Option<SessionId>,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// How many children it has.
    pub children: u64,
}
