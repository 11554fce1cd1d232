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
    /// (principal, nonce) → [`row::Once`](crate::row::Once); principal → how many of these there are.
    Once = 6,
    /// (deadline, key of `Once`) → (): which one-shot writes can be forgotten. (Deadline, znode id) →
    /// [`row::Owned`](crate::row::Owned): which znodes may have to go.
    Expiry = 7,
    /// (session, znode id) → [`row::Owned`](crate::row::Owned): the ephemeral znodes of a session.
    Owned = 8,
    /// Zxid → its changes; bounded, trimmed when applied, not in the digest.
    Change = 9,
    /// Name → [`row::Plugin`](crate::row::Plugin), every installed plugin.
    Plugin = 10,
    /// (SHA-256 of a component, chunk number) → bytes.
    Blob = 11,
    /// One row, [`row::State`](crate::row::State).
    State = 12,
    /// Number of an access list → [`AccessList`](conclave_protocol::AccessList).
    Acl = 13,
    /// Hash of an access list → its number.
    AclIndex = 14,
    /// (session, sequence) → [`row::Parked`](crate::row::Parked): calls of procedures that may park.
    Parked = 15,
    /// (hash of a path, who is woken, test, ticket, condition) → [`row::Waiter`](crate::row::Waiter): who waits for a znode, in
    /// order.
    Waiting = 16,
    /// (zxid, hash of what) → [`row::Woken`](crate::row::Woken): what parked calls are to be run again for, the oldest first.
    Wake = 17,
    /// (plugin, ticket) → (session, sequence): its calls that wait. Plugin → how many those are.
    Calls = 18,
    /// SHA-256 of a component → [`row::Uploaded`](crate::row::Uploaded): not installed yet.
    Upload = 19,
}

impl Table {
    /// All tables, by number.
    pub const ALL: [Self; 19] = [
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
        Self::Acl,
        Self::AclIndex,
        Self::Parked,
        Self::Waiting,
        Self::Wake,
        Self::Calls,
        Self::Upload,
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
            Self::Acl => "acl",
            Self::AclIndex => "acl-index",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Wake => "wake",
            Self::Calls => "calls",
            Self::Upload => "upload",
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
    use conclave_protocol::plugin::ComponentDigest;
    use conclave_protocol::{Nonce, Path};

    use crate::plugin::{Test, Wake};

    /// The only key of [`Table::State`](super::Table::State).
    pub const STATE: &[u8] = b"state";

    /// Of [`Kept`](crate::row::Kept) in [`Table::Change`](super::Table::Change), before the rows of all transactions.
    pub const KEPT: [u8; 8] = [0; 8];

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
        key[..16].copy_from_slice(&once_of(principal));
        key[16..].copy_from_slice(nonce.as_bytes());
        key
    }

    /// Of the number of a principal's rows in `Once`; also what their keys begin with.
    #[must_use]
    pub fn once_of(principal: &str) -> [u8; 16] {
        xxhash_rust::xxh3::xxh3_128(principal.as_bytes()).to_be_bytes()
    }

    /// Of `Expiry`: a deadline, and the key of what it is for.
    #[must_use]
    pub fn expiry(deadline_ms: u64, of: &[u8]) -> Vec<u8> {
        [&deadline_ms.to_be_bytes(), of].concat()
    }

    /// Of `Acl`.
    #[must_use]
    pub fn acl(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    /// Of `Change`.
    #[must_use]
    pub fn change(zxid: Zxid) -> [u8; 8] {
        zxid.0.to_be_bytes()
    }

    /// Of `Blob`.
    #[must_use]
    pub fn blob(digest: &ComponentDigest, chunk: u32) -> Vec<u8> {
        [&digest.0[..], &chunk.to_be_bytes()].concat()
    }

    /// Of `Parked`; the session's key is the prefix of its calls.
    #[must_use]
    pub fn parked(id: SessionId, sequence: u64) -> [u8; 16] {
        pair(id.0, sequence)
    }

    /// What `Expiry` has of a call's deadline: one byte more than a call's key, so that it is like no other.
    #[must_use]
    pub fn deadline(id: SessionId, sequence: u64) -> Vec<u8> {
        [&pair(id.0, sequence)[..], b"p"].concat()
    }

    /// What `Expiry` has of an uploaded component: one byte more than a digest.
    #[must_use]
    pub fn upload(digest: &ComponentDigest) -> Vec<u8> {
        [&digest.0[..], b"u"].concat()
    }

    /// Of the znode at a path in `Waiting` and `Wake`.
    #[must_use]
    pub fn awaited(path: &Path) -> [u8; 16] {
        xxhash_rust::xxh3::xxh3_128(path.as_str().as_bytes()).to_be_bytes()
    }

    /// Of `Waiting`: those with the same test stand together, by ticket; of a test's numbers the one that holds first
    /// comes first.
    #[must_use]
    pub fn waiting(awaited: &[u8; 16], wake: Wake, test: Test, ticket: Zxid, condition: u8) -> Vec<u8> {
        let wake = match wake {
            Wake::All => 0,
            Wake::One => 1,
        };
        let (test, number) = match test {
            Test::Exists => (0, 0),
            Test::Absent => (1, 0),
            Test::VersionAbove(version) => (2, version),
            Test::ChildrenAtLeast(children) => (3, children),
            Test::ChildrenAtMost(children) => (4, !children),
        };
        [&awaited[..], &[wake, test], &number.to_be_bytes(), &ticket.0.to_be_bytes(), &[condition]].concat()
    }

    /// The prefixes of all that wait for a znode, one for each kind of test and of waking; see [`waiting`].
    pub fn kinds_of_waiting(awaited: &[u8; 16]) -> impl Iterator<Item = Vec<u8>> {
        (0..2).flat_map(move |wake| (0..5).map(move |test| [&awaited[..], &[wake, test]].concat()))
    }

    /// Behind all keys of `Waiting` of the same znode, kind of test and of waking as this one.
    #[must_use]
    pub fn behind_kind_of_waiting(key: &[u8]) -> Vec<u8> {
        [key.get(..18).unwrap_or(key), &[u8::MAX; 18]].concat()
    }

    /// Of `Wake`.
    #[must_use]
    pub fn wake(zxid: Zxid, what: &[u8; 16]) -> [u8; 24] {
        let mut key = [0; 24];
        key[..8].copy_from_slice(&zxid.0.to_be_bytes());
        key[8..].copy_from_slice(what);
        key
    }

    /// The prefix of a plugin's rows in `Calls`, and the key of their number: names have no such byte.
    #[must_use]
    pub fn calls_of(plugin: &str) -> Vec<u8> {
        [plugin.as_bytes(), &[0]].concat()
    }

    /// Of `Calls`.
    #[must_use]
    pub fn call(plugin: &str, ticket: Zxid) -> Vec<u8> {
        [plugin.as_bytes(), &[0], &ticket.0.to_be_bytes()].concat()
    }

    fn pair(first: u64, second: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&first.to_be_bytes());
        key[8..].copy_from_slice(&second.to_be_bytes());
        key
    }
}
