//! What is known of a znode besides its data.

use serde::{Deserialize, Serialize};

use crate::{SessionId, Zxid};

/// A znode's stat. Times are cluster time in milliseconds since 1970; versions start at 0 and never wrap.
///
/// On the wire it is an array of its fields in this order, as a page holds a thousand of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
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
    /// When its list of children last changed.
    pub children_modified_ms: u64,
    /// The session that it belongs to, when it is ephemeral.
    pub owner: Option<SessionId>,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// How many children it has.
    pub children: u64,
    /// How often its access list was set.
    pub acl_version: u64,
    /// It goes some time after its last child went.
    pub container: bool,
    /// It goes when it has not changed for so many milliseconds.
    pub ttl_ms: Option<u64>,
}

type Fields = (Zxid, Zxid, Zxid, u64, u64, u64, u64, u64, Option<SessionId>, u64, u64, u64, bool, Option<u64>);

impl From<Stat> for Fields {
    fn from(stat: Stat) -> Self {
        (
            stat.created,
            stat.modified,
            stat.children_modified,
            stat.version,
            stat.children_version,
            stat.created_ms,
            stat.modified_ms,
            stat.children_modified_ms,
            stat.owner,
            stat.data_bytes,
            stat.children,
            stat.acl_version,
            stat.container,
            stat.ttl_ms,
        )
    }
}

impl From<Fields> for Stat {
    fn from(fields: Fields) -> Self {
        let (created, modified, children_modified, version, children_version, created_ms, modified_ms, ..) = fields;
        let (.., children_modified_ms, owner, data_bytes, children, acl_version, container, ttl_ms) = fields;
        Self {
            created,
            modified,
            children_modified,
            version,
            children_version,
            created_ms,
            modified_ms,
            children_modified_ms,
            owner,
            data_bytes,
            children,
            acl_version,
            container,
            ttl_ms,
        }
    }
}
