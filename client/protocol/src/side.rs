//! Side streams: one request each, beside the ordered stream, for what is large or takes long.
//!
//! A client whose hello was answered with a welcome may open further streams on its connection. The first frame on one
//! is a [`SideRequest`], what comes back are [`SideMessage`]s. They know no session and keep no order with the rest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::plugin::{LogLine, PluginStats};
use crate::{Consistency, MemberId, Path, Refusal, Role, Stat, Zxid, limits};

/// What a side stream is for: its first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SideRequest {
    /// A checkpoint of this member. Answered by [`SideMessage::Backup`], then [`SideMessage::Chunk`]s, then
    /// [`SideMessage::End`].
    Backup {
        /// It must hold this transaction and all before it.
        at_least: Zxid,
    },
    /// A znode and all below it, as of one zxid. Answered by [`SideMessage::Subtree`], then [`SideMessage::Znodes`], then
    /// [`SideMessage::End`].
    Subtree {
        /// The top.
        path: Path,
        /// With data.
        data: bool,
        /// How fresh it must be.
        consistency: Consistency,
        /// It must hold this transaction: what the client has seen.
        seen: Zxid,
    },
    /// How every member is doing. Answered by [`SideMessage::Health`], without a leader too.
    Health,
    /// What the members know of the runs of plugins. Answered by [`SideMessage::PluginStats`].
    PluginStats {
        /// Only of this one.
        plugin: Option<String>,
    },
    /// Lines of a plugin's log, of the member that leads. Answered by [`SideMessage::PluginLog`].
    PluginLog {
        /// Whose.
        plugin: String,
        /// Only those after this number.
        after: u64,
    },
    /// A change of who belongs to the cluster. Answered by [`SideMessage::Done`].
    Cluster(ClusterRequest),
}

/// What an administrator asks of the cluster. Asking again for what is so already is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterRequest {
    /// Adds a member without a vote. It is sent what it lacks; nobody waits for it.
    AddLearner {
        /// Its number: above that of every member.
        member: MemberId,
        /// `host:port` for clients.
        client: String,
        /// `host:port` for members.
        peer: String,
    },
    /// Gives a learner that has caught up its vote.
    Promote {
        /// Which.
        member: MemberId,
    },
    /// Takes a member out, for good: its number is not used again.
    Remove {
        /// Which.
        member: MemberId,
    },
    /// The leader hands over to the voter whose log is furthest.
    StepDown,
}

/// What comes back on a side stream. The last three end it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SideMessage {
    /// It is being worked on.
    Working,
    /// A backup begins.
    Backup(Backup),
    /// A subtree begins.
    Subtree {
        /// The state that it is read from.
        zxid: Zxid,
    },
    /// Its next znodes: parents before children, in order of the names' bytes among siblings. What the principal may not
    /// read is left out, with all below it.
    Znodes(Vec<TreeEntry>),
    /// The next bytes of its file.
    Chunk {
        /// [`sum`] of them.
        sum: u64,
        /// At most [`CHUNK_BYTES`], and never none.
        bytes: Bytes,
    },
    /// The file is complete.
    End {
        /// Bytes of it; of a subtree, how many znodes.
        bytes: u64,
    },
    /// How everybody is.
    Health(Box<Health>),
    /// By plugin and member; members that do not answer are missing.
    PluginStats(Vec<PluginStats>),
    /// In order; at most some hundred, so ask on.
    PluginLog {
        /// Whose numbers they have: another member's begin anew.
        member: MemberId,
        /// They.
        lines: Vec<LogLine>,
    },
    /// It is done, or was so already.
    Done,
    /// The change of membership is not made, and why.
    Declined(ClusterRefusal),
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// It went wrong.
    Failed {
        /// How.
        why: String,
        /// It may have happened all the same, or may still happen.
        unknown: bool,
    },
}

/// Bytes of a backup's file in one frame, at most.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a frame on a side stream, at most: a chunk, a znode with its data, the health of many members.
pub const SIDE_FRAME_BYTES: usize = limits::FRAME_BYTES;

/// One znode of a subtree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Where it is.
    pub path: Path,
    /// Its stat.
    pub stat: Stat,
    /// Its data, when asked for.
    pub data: Option<Bytes>,
}

/// The checksum of a chunk: XXH3. TLS guards the way; this finds a member's or a client's broken memory.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Of which cluster.
    pub cluster: String,
    /// Its last transaction.
    pub zxid: Zxid,
    /// The digest of the tree after that, 32 hexadecimal digits.
    pub digest: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
}

/// How the cluster's members are, as one of them found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The cluster's id.
    pub cluster: String,
    /// The member that asked the others.
    pub member: MemberId,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// Its wall clock, milliseconds since 1970, UTC.
    pub wall_ms: u64,
    /// Every member, by number.
    pub members: Vec<MemberHealth>,
}

/// One member in a [`Health`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHealth {
    /// Its number.
    pub id: MemberId,
    /// Whether it has a vote.
    pub voter: bool,
    /// Where clients reach it.
    pub client: String,
    /// Where members reach it.
    pub peer: String,
    /// Its part.
    pub role: Role,
    /// What it said; none when it was not reached.
    pub report: Option<MemberReport>,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Raft's term.
    pub term: u64,
    /// The last zxid that it has applied.
    pub zxid: Zxid,
    /// The digest of its tree at that zxid, 32 hexadecimal digits.
    pub digest: String,
    /// Its program's version.
    pub version: String,
    /// Its wall clock less that of the member that asked, milliseconds; right to half of the round trip.
    pub clock_offset_ms: i64,
    /// How long it took to answer, milliseconds.
    pub round_trip_ms: u64,
    /// The last flush of its log, microseconds.
    pub log_last_sync_us: u64,
    /// The longest one since its start, microseconds.
    pub log_longest_sync_us: u64,
    /// Bytes that are free on its disk.
    pub free_bytes: u64,
    /// The last zxid in its newest checkpoint.
    pub checkpoint_zxid: Option<Zxid>,
    /// When its certificate ends, seconds since 1970.
    pub certificate_end_s: Option<u64>,
    /// What else there is to know: why it is quarantined, that its disk is full.
    pub note: Option<String>,
}

/// Why a change of membership is not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClusterRefusal {
    /// It is a member, at other addresses.
    #[error("member {member} is there already, at {client} for clients and {peer} for members")]
    MemberExists {
        /// Which.
        member: MemberId,
        /// Where clients reach it.
        client: String,
        /// Where members reach it.
        peer: String,
    },
    /// Numbers rise, so that none is used again.
    #[error("{member} may have been a member's number before: the next that surely was not is {next}")]
    NumberUsed {
        /// Which.
        member: MemberId,
        /// The next.
        next: MemberId,
    },
    /// Another member is there.
    #[error("{address} is the address of member {member}")]
    AddressTaken {
        /// Where.
        address: String,
        /// Whose.
        member: MemberId,
    },
    /// It is no address.
    #[error("{address:?} is not host:port")]
    BadAddress {
        /// What came instead.
        address: String,
    },
    /// There is no such member.
    #[error("there is no member {member}")]
    NoMember {
        /// Which.
        member: MemberId,
    },
    /// The client's member was taken out of the cluster, and the others do not hear it.
    #[error("member {member}, which was asked, does not belong to the cluster any more")]
    NotAMember {
        /// Which.
        member: MemberId,
    },
    /// A learner that has not caught up would hold writes up with its vote.
    #[error("member {member} lacks {entries} entries of the leader's log")]
    Behind {
        /// Which.
        member: MemberId,
        /// How many of the leader's log it has not acknowledged.
        entries: u64,
    },
    /// It does not answer the leader.
    #[error("member {member} does not answer")]
    Unreachable {
        /// Which.
        member: MemberId,
    },
    /// Nobody would be left who votes.
    #[error("member {member} is the only voter")]
    LastVoter {
        /// Which.
        member: MemberId,
    },
    /// What would be left could not commit anything.
    #[error("without member {member} there are {voters} voters, and only {reachable} of them answer")]
    NoMajority {
        /// Which.
        member: MemberId,
        /// How many voters would be left.
        voters: u64,
        /// How many of those answer.
        reachable: u64,
    },
    /// Nobody can take over.
    #[error("there is no other voter to hand over to")]
    NoSuccessor,
    /// One change at a time.
    #[error("another change of the membership is on its way")]
    Changing,
    /// Nobody leads.
    #[error("no member leads at present")]
    NoLeader,
}

impl ClusterRefusal {
    /// The stable code: lower case, words joined by `-`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MemberExists { .. } => "member-exists",
            Self::NumberUsed { .. } => "number-used",
            Self::AddressTaken { .. } => "address-taken",
            Self::BadAddress { .. } => "bad-address",
            Self::NoMember { .. } => "no-member",
            Self::NotAMember { .. } => "not-a-member",
            Self::Behind { .. } => "behind",
            Self::Unreachable { .. } => "unreachable",
            Self::LastVoter { .. } => "last-voter",
            Self::NoMajority { .. } => "no-majority",
            Self::NoSuccessor => "no-successor",
            Self::Changing => "changing",
            Self::NoLeader => "no-leader",
        }
    }
}
