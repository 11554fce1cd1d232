//! The tables that the tree is kept in, and the keys of their rows.

use conclave_protocol::{SessionId, Zxid};

/// One table. The number is part of every row's hash and of the log's bytes: never change one, never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Znode id → [`row::Znode`](crate::row::Znode).
    Znode = 1,
    /// Znode id → its data, as it is; no row when it is empty.
    Data = 2,
    /// (parent's id, name) → the child's [`ZnodeId`]: children in order of their names' bytes.
    Child = 3,
    /// Session id → [`row::Session`](crate::row::Session).
    Session = 4,
    /// (session, sequence) → [`row::Reply`](crate::row::Reply): replies too large for the session's own row.
    Reply = 5,
    /// (principal, nonce) → [`row::Once`](crate::row::Once).
    Once = 6,
    /// (deadline, key of `Once`) → (): which one-shot writes can be forgotten.
    Expiry = 7,
    /// (session, znode id) → [`row::Owned`](crate::row::Owned): the ephemeral znodes of a session.
    Owned = 8,
    /// Zxid → its changes; bounded, trimmed when applied, not in the digest.
    Change = 9,
    /// Name → [`row::Plugin`](crate::row::Plugin).
    Plugin = 10,
    /// (SHA-256 of a component, chunk number) → bytes.
    Blob = 11,
    /// One row, [`row::State`](crate::row::State).
    State = 12,
}

impl Table {
    /// All tables, by number.
    pub const ALL: [Self; 12] = [
        Self::Znode,
        Self::Data,
        Self::Child,
        Self::Session,
        Self::Reply,
        Self::Once,
        Self::Expiry,
        Self::Owned,
        Self::Change,
        Self::Plugin,
        Self::Blob,
        Self::State,
    ];

    /// Its number in hashes and in the log.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The table of this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// Its name, for the store and for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Znode => "znode",
            Self::Data => "data",
            Self::Child => "child",
            Self::Session => "session",
            Self::Reply => "reply",
            Self::Once => "once",
            Self::Expiry => "expiry",
            Self::Owned => "owned",
            Self::Change => "change",
            Self::Plugin => "plugin",
            Self::Blob => "blob",
            Self::State => "state",
        }
    }

    /// Whether the digest covers its rows: all but the history, which each member trims for itself.
    #[must_use]
    pub fn is_digested(self) -> bool {
        self != Self::Change
    }
}

/// A znode's number, like an inode's: never reused. The root is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ZnodeId(pub u64);

impl ZnodeId {
    /// The root's.
    pub const ROOT: Self = Self(1);
}

/// Keys of rows: big-endian numbers, so that their order is the bytes' order.
pub mod key {
    use super::{SessionId, ZnodeId, Zxid};
    use conclave_protocol::Nonce;

    /// The only key of [`Table::State`](super::Table::State).
    pub const STATE: &[u8] = b"state";

    /// Of `Znode` and `Data`.
    #[must_use]
    pub fn znode(id: ZnodeId) -> [u8; 8] {
        id.0.to_be_bytes()
    }

    /// Of `Child`; with an empty name, the prefix of all children of a parent.
    #[must_use]
    pub fn child(parent: ZnodeId, name: &str) -> Vec<u8> {
        [&parent.0.to_be_bytes(), name.as_bytes()].concat()
    }

    /// Of `Session`; also the prefix of its rows in `Reply` and `Owned`.
    #[must_use]
    pub fn session(id: SessionId) -> [u8; 8] {
        id.0.to_be_bytes()
    }

    /// Of `Reply`.
    #[must_use]
    pub fn reply(id: SessionId, sequence: u64) -> [u8; 16] {
        pair(id.0, sequence)
    }

    /// Of `Owned`.
    #[must_use]
    pub fn owned(id: SessionId, znode: ZnodeId) -> [u8; 16] {
        pair(id.0, znode.0)
    }

    /// Of `Once`: the hash of the principal keeps it short, the nonce makes it unique.
    #[must_use]
    pub fn once(principal: &str, nonce: &Nonce) -> [u8; 32] {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_128(principal.as_bytes()).to_be_bytes());
        key[16..].copy_from_slice(nonce.as_bytes());
        key
    }

    /// Of `Expiry`.
    #[must_use]
    pub fn expiry(deadline_ms: u64, once: &[u8]) -> Vec<u8> {
        [&deadline_ms.to_be_bytes(), once].concat()
    }

    /// Of `Change`.
    #[must_use]
    pub fn change(zxid: Zxid) -> [u8; 8] {
        zxid.0.to_be_bytes()
    }

    /// Of `Blob`.
    #[must_use]
    pub fn blob(digest: &[u8; 32], chunk: u32) -> Vec<u8> {
        [&digest[..], &chunk.to_be_bytes()].concat()
    }

    fn pair(first: u64, second: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&first.to_be_bytes());
        key[8..].copy_from_slice(&second.to_be_bytes());
        key
    }
}
