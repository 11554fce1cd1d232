//! The words that a client and a member both speak: paths, stats, requests, replies, events, and their bytes.
//!
//! Pure data: no IO, no clock, no async, no randomness. A frame on the wire is a 4-byte little-endian length and
//! that many bytes of CBOR ([`codec`]); lengths are checked against [`limits`] before anything is allocated.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod answer;
mod change;
pub mod codec;
mod id;
pub mod limits;
mod message;
mod page;
mod path;
mod path_pattern;
mod pattern;
pub mod plugin;
mod refusal;
mod request;
mod side;
mod stat;
#[cfg(test)]
mod tests;

pub use access::{AccessList, Grant, Permission, Permissions, Who};
pub use answer::{Answer, MemberStatus, Outcome, Present, PushBack, Role, SessionInfo, Status, Value};
pub use change::{Change, ChangeKind, Kinds};
pub use id::{Fence, MemberId, Nonce, ParseFenceError, SessionId, WatchId, Zxid};
pub use message::{
    Attach, Attached, ClientMessage, Endpoint, Hello, NO_REQUEST, PROTOCOL_VERSION, RequestId, ServerMessage, Welcome,
};
pub use page::{Entry, Page};
pub use path::{Path, PathError};
pub use path_pattern::{PathPattern, PatternName};
pub use pattern::{Pattern, PatternError};
pub use refusal::Refusal;
pub use request::{
    Call, Check, Condition, Consistency, Create, Delete, Detail, Edit, Kind, Op, Prune, Query, Scope, Set, SetAcl,
    Step, Update, WatchRequest,
};
pub use side::{
    Backup, CHUNK_BYTES, ClusterRefusal, ClusterRequest, Health, MemberHealth, MemberReport, SIDE_FRAME_BYTES,
    SideMessage, SideRequest, TreeEntry, sum,
};
pub use stat::Stat;
