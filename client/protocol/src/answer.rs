//! What comes back: values of writes, answers of reads, push-backs.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::plugin::{ParkedCall, PluginInfo};
use crate::{AccessList, MemberId, Page, Path, Refusal, SessionId, Stat, Zxid};

/// What a write gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// The znode was created, at this path (a sequential one's has its number).
    Created {
        /// Its path.
        path: Path,
        /// Its stat.
        stat: Stat,
    },
    /// The data was set.
    Set {
        /// The stat afterwards.
        stat: Stat,
    },
    /// The data is this number now.
    Number {
        /// It.
        number: i64,
        /// The stat afterwards.
        stat: Stat,
    },
    /// So many znodes were deleted.
    Deleted {
        /// How many.
        count: u64,
    },
    /// A part of a subtree was deleted.
    Pruned {
        /// How many znodes.
        count: u64,
        /// There are more: ask again.
        more: bool,
    },
    /// The access list was set.
    Acl {
        /// The stat afterwards.
        stat: Stat,
    },
    /// The check held.
    Checked,
    /// All steps were done; one value for each.
    Multi(Vec<Self>),
    /// What the procedure returned: CBOR, as long as the plugin keeps to its world.
    Called(Bytes),
    /// The procedure parked: what it returns in the end comes as a completion of this write's sequence.
    Parked,
    /// The call was cancelled: whatever it returned, or was to return, is given back.
    Cancelled,
    /// The chunk is there.
    Uploaded,
    /// The component is to become active, or a shadow: once enough members are ready. Or, what was to be done to the plugin is
    /// done.
    Managed(Box<PluginInfo>),
    /// The plugin is gone.
    Removed,
    /// A session was opened.
    Opened {
        /// Its number.
        session: SessionId,
        /// The timeout that was agreed, milliseconds.
        timeout_ms: u64,
    },
    /// The session was closed.
    Closed,
    /// The other session has ended.
    Ended,
}

/// A write's answer: stored with the session and told once it is durable and applied.
pub type Outcome = Result<Value, Refusal>;

/// A znode's data and stat at some zxid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// Its data.
    pub data: Bytes,
    /// Its stat.
    pub stat: Stat,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number: the zxid that opened it.
    pub session: SessionId,
    /// Whose it is.
    pub principal: String,
    /// Its timeout, milliseconds.
    pub timeout_ms: u64,
    /// How many ephemeral znodes it owns.
    pub ephemerals: u64,
    /// Writes that it has sent so far.
    pub writes: u64,
    /// Replies to them that it has not acknowledged.
    pub unacknowledged: u64,
}

/// What part a member has in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It plans and replicates.
    Leader,
    /// It votes and follows.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It wants to become the leader.
    Candidate,
    /// Its state is not believed, by itself: it answers nobody, and is being made anew.
    Quarantined,
    /// Nobody reached it.
    Unreachable,
}

/// One member in a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: MemberId,
    /// Its part.
    pub role: Role,
    /// Where clients reach it.
    pub address: String,
    /// The last zxid that it has applied; none when it was not reached.
    pub zxid: Option<Zxid>,
    /// The digest of its tree at that zxid, 32 hexadecimal digits; equal zxids have equal digests.
    pub digest: Option<String>,
}

/// The cluster, as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's id.
    pub cluster: String,
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// The last zxid that this member has applied.
    pub zxid: Zxid,
    /// The member that answered.
    pub member: MemberId,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Of `get`.
    Znode {
        /// The data.
        data: Bytes,
        /// The stat.
        stat: Stat,
    },
    /// Of `exists`.
    Exists(Option<Stat>),
    /// Of `children`.
    Page(Page),
    /// Of `many`: in the order of the paths.
    Many(Vec<Option<Present>>),
    /// Of `count`.
    Count(u64),
    /// Of `acl`.
    Acl {
        /// The list.
        acl: AccessList,
        /// The stat.
        stat: Stat,
    },
    /// Of `owned`.
    Owned {
        /// The znodes, in order of creation.
        paths: Vec<Path>,
        /// There are more after this cursor.
        next: Option<u64>,
    },
    /// Of `sessions`.
    Sessions {
        /// By number.
        sessions: Vec<SessionInfo>,
        /// There are more after the last of these.
        more: bool,
    },
    /// Of `call`: what the query returned.
    Called(Bytes),
    /// Of `plugins`: by name.
    Plugins(Vec<PluginInfo>),
    /// Of `calls`.
    Calls {
        /// By ticket.
        calls: Vec<ParkedCall>,
        /// There are more after the last of these.
        more: bool,
    },
    /// Of `status`.
    Status(Box<Status>),
    /// The watch stands: every matching change after `since` (asked for, or the answer's zxid) will be told.
    Watching,
    /// The watch is gone; no event of it follows.
    Unwatched,
    /// The leader has renewed the session's lease after this heartbeat was received.
    Alive,
}

/// Not an answer: nothing was planned, send it again, as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushBack {
    /// Too much is waiting; after a moment.
    Busy,
    /// This member has not applied what the client has seen; at another member, or after a moment.
    Behind {
        /// What it has applied.
        zxid: Zxid,
    },
    /// There is no leader, or this member is still recovering.
    NotReady,
    /// The session's next sequence number is another: those from it on, in order.
    Expected {
        /// The sequence that the leader waits for.
        next: u64,
    },
    /// A one-shot write's `until` is past, or further ahead than is allowed: with a new one, if it surely did not happen.
    Until {
        /// Cluster time at the leader, milliseconds.
        now_ms: u64,
    },
}
