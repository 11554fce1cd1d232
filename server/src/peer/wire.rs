//! What members say to each other: frames of a version byte and postcard, read back whole or not at all.

use bytes::Bytes;
use conclave_protocol::limits;
use conclave_protocol::plugin::{ComponentDigest, LogLine, PluginStats};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First byte of every frame; a change to any message below raises it.
const VERSION: u8 = 5;

/// The greatest frame between members.
pub const FRAME_BYTES: usize = limits::PEER_FRAME_BYTES;

/// Bytes that are no frame of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version of this protocol.
    #[error("a frame of version {got}, where {VERSION} is spoken")]
    Version {
        /// The frame's.
        got: u8,
    },
    /// Not a message.
    #[error("a frame that can't be read: {0}")]
    Message(String),
}

/// One message's frame.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("a Vec takes every byte, and messages have only known lengths")
}

/// The message in a frame. Nothing may follow it. Bytes in it are copies: they do not hold the read buffer.
///
/// # Errors
/// [`Malformed`].
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, Malformed> {
    let rest = match frame.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((&got, _)) => return Err(Malformed::Version { got }),
        None => return Err(Malformed::Message("it is empty".to_owned())),
    };
    match postcard::take_from_bytes(rest) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Malformed::Message(format!("{} bytes follow the message", rest.len()))),
        Err(error) => Err(Malformed::Message(error.to_string())),
    }
}

/// First frame of the first stream of a connection, by who dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Who it is; its certificate must say the same.
    pub from: u64,
    /// Whom it wants.
    pub to: u64,
    /// Drawn when its process started: connections to an earlier process are dead.
    pub boot: u64,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Go on.
    Yes {
        /// As [`Hello::boot`].
        boot: u64,
    },
    /// Go away.
    No(Refused),
}

/// Why a member does not talk to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// It belongs to another cluster.
    #[error("it belongs to another cluster than {0:?}")]
    OtherCluster(String),
    /// It names another id than its certificate.
    #[error("it calls itself member {said}, its certificate says {certificate}")]
    OtherId {
        /// What it said.
        said: u64,
        /// What its certificate says.
        certificate: u64,
    },
    /// It took this member for another one.
    #[error("this is member {0}")]
    OtherTarget(u64),
    /// It is not in the membership, and asks for more than Raft's own messages.
    #[error("it is not a member of this cluster")]
    NotAMember,
    /// It speaks for another member.
    #[error("it speaks for member {0}")]
    NotYours(u64),
    /// This member is stopping, or not ready for it.
    #[error("not available")]
    NotAvailable,
    /// It sent something that cannot be read.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// First frame of every other stream: what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// [`Append`]s one way, [`Appended`]s the other, in the same order.
    Append,
    /// Frames of requests to the leader, and of answers; their content is the forwarder's.
    Forward,
    /// One request; one [`Response`].
    Ask(Request),
    /// A leader sends a checkpoint to be installed: [`Transfer`]s both ways.
    Snapshot(Ballot),
    /// A member whose state is not believed asks for a checkpoint that holds at least this index of the log:
    /// [`Transfer`]s both ways.
    Fetch {
        /// The least index.
        at_least: u64,
    },
}

/// What is said while a checkpoint is carried over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transfer {
    /// The sender: which checkpoint.
    Offer {
        /// The last entry in it.
        at: At,
        /// Files of one id are the same, byte for byte.
        id: u128,
        /// Bytes of the file.
        bytes: u64,
    },
    /// The receiver: from this byte on; what is before, it has of an earlier attempt.
    From(u64),
    /// The sender: the next bytes of the file.
    Chunk {
        /// XXH3 of them.
        sum: u64,
        /// They.
        bytes: Bytes,
    },
    /// Either: it is at work, and has nothing to say yet.
    Working,
    /// The receiver: it is verified and installed (or, fetched, verified), and this is the ballot that it holds. In place
    /// of [`Transfer::From`]: it has all of that already, or holds a higher ballot.
    Done(Option<Ballot>),
    /// Either: it ends here, and why.
    Failed(String),
    /// The receiver: all has come, and it is no sound checkpoint. The sender should look at its own file.
    Damaged(String),
}

/// (term, index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

/// Who leads a term, or wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// The member.
    pub member: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// A candidate asks for a vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidacy {
    /// The candidate's.
    pub ballot: Ballot,
    /// The end of its log.
    pub last: Option<At>,
    /// The leader itself asked for this election.
    pub transfer: bool,
}

/// The answer to a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// The ballot that the voter holds afterwards.
    pub ballot: Ballot,
    /// Whether it is the candidate's.
    pub granted: bool,
    /// The end of the voter's log.
    pub last: Option<At>,
}

/// A leader hands over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The leader's.
    pub ballot: Ballot,
    /// Who is to lead.
    pub to: u64,
    /// What its log must have.
    pub last: Option<At>,
}

/// Why a hand-over was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandoverRefused {
    /// The vote moved on meanwhile.
    VoteChanged(Ballot),
    /// The log is not that far.
    NotFlushed(Option<At>),
}

/// Something that one member asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Raft: elect me.
    Vote(Candidacy),
    /// Raft: would you elect me?
    PreVote(Candidacy),
    /// Raft: take over.
    Handover(Handover),
    /// What must be applied before a linearizable read. Asked of the leader.
    ReadIndex,
    /// The wall clock.
    Clock,
    /// How the member is doing.
    Status,
    /// What the member computed after this transaction. The asker's own entry of the log says something else there.
    Digest {
        /// The transaction.
        zxid: u64,
        /// What the asker computed.
        computed: u128,
    },
    /// An administrator's request, forwarded to the leader.
    Admin(crate::cluster::AdminRequest),
    /// How these components are there.
    Ready(Vec<ComponentDigest>),
    /// What the member knows of the runs of a plugin, or of all.
    PluginStats(Option<String>),
    /// Lines of a plugin's log there.
    PluginLog {
        /// Whose.
        plugin: String,
        /// Only those after this number.
        after: u64,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Poll(Poll),
    /// To [`Request::Handover`].
    Handover(Result<(), HandoverRefused>),
    /// To [`Request::ReadIndex`]: a log index, or why not.
    ReadIndex(Result<u64, NoRead>),
    /// To [`Request::Clock`].
    Clock {
        /// Milliseconds since 1970, UTC.
        wall_ms: u64,
    },
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Digest`].
    Digest(Computed),
    /// To [`Request::Admin`].
    Admin(crate::cluster::AdminAnswer),
    /// To [`Request::Ready`]: in that order.
    Ready(Vec<crate::plugins::State>),
    /// To [`Request::PluginStats`].
    PluginStats(Vec<PluginStats>),
    /// To [`Request::PluginLog`].
    PluginLog(Vec<LogLine>),
    /// The request is not answered.
    Refused(Refused),
}

/// What a member computed after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Computed {
    /// It has not applied that far: asked again, it will know.
    NotYet,
    /// It has applied it, and keeps the digest no more. Had it computed another one than the entry says, it would not
    /// have gone on: it stands for the entry's.
    Forgotten,
    /// This.
    Is(u128),
}

/// Why there is no read index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoRead {
    /// That member does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<u64>,
    },
    /// Nobody could be asked, or no quorum answered in time.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// The member is stopping.
    #[error("this member is stopping")]
    Stopping,
}

/// How a member is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `leader`, `follower`, `candidate`, `learner`, `starting`, `quarantined` or `stopped`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The last transaction that it applied.
    pub zxid: u64,
    /// Its digest after that.
    pub digest: u128,
    /// Its program's version.
    pub version: String,
    /// Its wall clock, milliseconds since 1970, UTC.
    pub wall_ms: u64,
    /// Microseconds that the log's last sync took.
    pub log_last_sync_us: u64,
    /// The longest one since the start.
    pub log_longest_sync_us: u64,
    /// Bytes that are free on the disk of its data directory.
    pub free_bytes: u64,
    /// The last transaction in its newest checkpoint.
    pub checkpoint_zxid: Option<u64>,
    /// When its certificate ends, seconds since 1970.
    pub certificate_end_s: Option<u64>,
    /// What else there is to know: why it is quarantined, that its disk is full.
    pub note: Option<String>,
}

impl Status {
    /// Of a member that has nothing to tell of a run: it starts, or makes its state again.
    #[must_use]
    pub fn without_a_run(role: &str, note: String) -> Self {
        Self {
            role: role.to_owned(),
            term: 0,
            zxid: 0,
            digest: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wall_ms: crate::wall_ms(),
            log_last_sync_us: 0,
            log_longest_sync_us: 0,
            free_bytes: 0,
            checkpoint_zxid: None,
            certificate_end_s: None,
            note: Some(note),
        }
    }
}

/// One step of replication; without entries, a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The leader's.
    pub ballot: Ballot,
    /// What the follower's log must end with before the entries.
    pub prev: Option<At>,
    /// What a quorum has.
    pub commit: Option<At>,
    /// The entries, dense.
    pub entries: Vec<Record>,
}

/// An entry on its way: as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place.
    pub at: At,
    /// Its kind, as the log has it.
    pub kind: u8,
    /// Its payload, as the log has it.
    pub payload: Bytes,
}

/// The answer to an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// It is durable.
    Done,
    /// The log does not have what came before it.
    Conflict,
    /// The follower holds a higher ballot.
    Higher(Ballot),
    /// The follower's Raft instance ended, or the append was not the sender's to make: the stream ends here.
    Refused(Refused),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn append() -> Append {
        let entry = |index, kind, payload: &'static [u8]| Record {
            at: At { term: 2, index },
            kind,
            payload: Bytes::from_static(payload),
        };
        Append {
            ballot: Ballot { term: 2, member: 1, committed: true },
            prev: Some(At { term: 1, index: 4 }),
            commit: None,
            entries: vec![entry(5, 0, b""), entry(6, 1, b"payload")],
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        assert_eq!(decode::<Append>(&encode(&append())).unwrap(), append());
        let hello = Hello { cluster: "c".to_owned(), from: 1, to: 2, boot: u64::MAX };
        assert_eq!(decode::<Hello>(&encode(&hello)).unwrap(), hello);
        let answer = Response::Digest(Computed::Is(u128::MAX));
        assert_eq!(decode::<Response>(&encode(&answer)).unwrap(), answer);
    }

    #[test]
    fn cut_longer_and_foreign_frames_are_refused() {
        let whole = encode(&append());
        for length in 0..whole.len() {
            assert!(decode::<Append>(&whole[..length]).is_err(), "{length} bytes of {} were taken", whole.len());
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(matches!(decode::<Append>(&longer), Err(Malformed::Message(_))));
        let mut other = whole;
        other[0] = 9;
        assert_eq!(decode::<Append>(&other).unwrap_err(), Malformed::Version { got: 9 });
    }

    #[test]
    fn a_lying_length_is_refused_without_its_bytes() {
        // An append whose list of entries claims 2^40 of them.
        let mut frame = encode(&Append { entries: Vec::new(), ..append() });
        assert_eq!(frame.pop(), Some(0));
        frame.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
        assert!(decode::<Append>(&frame).is_err());
    }
}
