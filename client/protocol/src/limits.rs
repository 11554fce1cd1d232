//! Every limit of the protocol and the tree, in one place. Each is a typed refusal before any row is planned.

/// Bytes of one name of a path (LMDB's keys end at 511 bytes; a name shares its key with an 8-byte id).
pub const NAME_BYTES: usize = 255;
/// Names in a path.
pub const DEPTH: usize = 64;
/// Bytes of one znode's data.
pub const DATA_BYTES: usize = 1 << 20;
/// Children in one page of a listing.
pub const PAGE_CHILDREN: u32 = 1_000;
/// Bytes of data in one page of a listing; a page ends early, with a cursor, when it is reached.
pub const PAGE_BYTES: usize = 1 << 20;
/// Steps of one multi.
pub const MULTI_STEPS: usize = 1_000;
/// Znodes that one delete of a subtree may remove: they are one transaction, so they must fit an entry.
pub const SUBTREE_ZNODES: usize = 10_000;
/// Bytes of one procedure call's arguments.
pub const CALL_BYTES: usize = 1 << 20;
/// Bytes of one frame from a client. Above [`DATA_BYTES`], so that data over its limit gets a refusal, not a closed
/// connection.
pub const FRAME_BYTES: usize = 4 << 20;
/// Bytes of one transaction's rows: what a multi or a subtree delete may add up to.
pub const TRANSACTION_BYTES: usize = 8 << 20;
/// Bytes of one frame between members: an append of several entries.
pub const PEER_FRAME_BYTES: usize = 64 << 20;
/// Nested values in a message; [`crate::codec`] refuses deeper ones. The deepest message of ours has 9.
pub const NESTING: usize = 24;
/// Unacknowledged replies that a session may leave behind before it is pushed back.
pub const SESSION_REPLIES: usize = 1_024;
/// Bytes of unacknowledged replies that a session may leave behind before it is pushed back.
pub const SESSION_REPLY_BYTES: usize = 1 << 20;
/// Replies up to this size together lie in the session's own row; beyond, each has a row of its own.
pub const PACKED_REPLY_BYTES: usize = 512;
/// Ephemeral znodes that a session may own: ending it is one transaction, so they must fit an entry.
pub const SESSION_EPHEMERALS: usize = 10_000;
/// Least session timeout, milliseconds.
pub const SESSION_TIMEOUT_MIN_MS: u64 = 2_000;
/// Greatest session timeout, milliseconds.
pub const SESSION_TIMEOUT_MAX_MS: u64 = 300_000;
/// How far ahead a one-shot write's `until` may lie, milliseconds of cluster time.
pub const ONCE_AHEAD_MS: u64 = 60_000;
/// One-shot writes that a principal may have remembered at a time.
pub const ONCE_ROWS: usize = 1_000_000;
/// Watches on one connection.
pub const WATCHES: usize = 100_000;
/// Events that may wait for one connection before its watches are answered with `Resync`.
pub const QUEUED_EVENTS: usize = 10_000;
/// Transactions whose changes are kept for watches that resume.
pub const HISTORY_TRANSACTIONS: u64 = 100_000;
/// Requests of one connection that may wait for an answer; further ones wait in the stream's flow control.
pub const IN_FLIGHT: usize = 4_096;
