//! The frames of the client plane: what a client sends, and what a member sends.
//!
//! A connection has one ordered stream. The client says [`Hello`] first and the member [`Welcome`]. After that replies
//! leave in the order of the requests ([`Stale`](Consistency::Stale) and [`Within`](Consistency::Within) reads and heartbeats excepted), and
//! every event of a zxid leaves before any reply with that zxid or a later one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Change, Consistency, Fence, MemberId, Nonce, Op, Present, PushBack, Query, Refusal, SessionId, WatchId,
    WatchRequest, Zxid,
};

/// The version of this protocol; a member that does not speak it says which it speaks.
pub const PROTOCOL_VERSION: u32 = 3;

/// Numbers a request on its connection: rises, starts at 1.
pub type RequestId = u64;

/// In place of a request's number, where a message belongs to none.
pub const NO_REQUEST: RequestId = 0;

/// The session that a connection carries on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Its number.
    pub session: SessionId,
}

/// A client's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions that the client speaks.
    pub versions: Vec<u32>,
    /// The session to carry on, if there is one.
    pub attach: Option<Attach>,
    /// The highest zxid that the client has seen: the member must not show it anything older.
    pub seen: Zxid,
    /// The cluster that it has seen it in: zxids of another one mean nothing here.
    pub cluster: Option<String>,
}

/// Where clients reach a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which member.
    pub member: MemberId,
    /// `host:port`.
    pub address: String,
}

/// What the member knows of the session that the client wants to carry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The session's timeout, milliseconds.
    pub timeout_ms: u64,
}

/// A member's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that is spoken from now on.
    pub version: u32,
    /// Who speaks.
    pub member: MemberId,
    /// The cluster's id.
    pub cluster: String,
    /// Who the client is to this member.
    pub principal: String,
    /// Cluster time, milliseconds: what `until` counts from.
    pub now_ms: u64,
    /// What the member has applied.
    pub zxid: Zxid,
    /// All members' addresses for clients.
    pub endpoints: Vec<Endpoint>,
    /// The session, when one was named.
    pub attached: Option<Attached>,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientMessage {
    /// First, and only first.
    Hello(Hello),
    /// Opens a session, once: sent again with the same nonce it is the same session. The connection carries it from
    /// the reply on. Answered by a reply with [`Value::Opened`](crate::Value::Opened).
    Open {
        /// Its number.
        id: RequestId,
        /// Makes it recognisable.
        nonce: Nonce,
        /// Cluster time up to which it is remembered, milliseconds.
        until_ms: u64,
        /// The timeout that is wanted, milliseconds; the reply says which one it is.
        timeout_ms: u64,
    },
    /// A write of the connection's session.
    Write {
        /// Its number.
        id: RequestId,
        /// Its sequence in the session: starts at 1, dense.
        sequence: u64,
        /// The lowest sequence whose reply the client has not got: replies below it are forgotten.
        floor: u64,
        /// Sequences of parked calls whose completion the client has got: these are forgotten too.
        completed: Vec<u64>,
        /// Only while this holds.
        fence: Option<Fence>,
        /// What to do.
        op: Op,
    },
    /// A one-shot write, without a session.
    Once {
        /// Its number.
        id: RequestId,
        /// Makes it recognisable.
        nonce: Nonce,
        /// Cluster time up to which it is remembered, and after which it is not carried out, milliseconds.
        until_ms: u64,
        /// Only while this holds.
        fence: Option<Fence>,
        /// What to do.
        op: Op,
    },
    /// A read.
    Read {
        /// Its number.
        id: RequestId,
        /// How fresh.
        consistency: Consistency,
        /// How long it may wait to become so, milliseconds.
        within_ms: u64,
        /// What.
        query: Query,
    },
    /// Starts a watch.
    Watch {
        /// Its number.
        id: RequestId,
        /// Which.
        watch: WatchRequest,
    },
    /// Ends a watch.
    Unwatch {
        /// Its number.
        id: RequestId,
        /// Which.
        watch: WatchId,
    },
    /// Asks the leader to renew the connection's session.
    Heartbeat {
        /// Its number.
        id: RequestId,
    },
}

/// What a member sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerMessage {
    /// First.
    Welcome(Box<Welcome>),
    /// Instead of a welcome, or at any time: the session is over, or the connection refused.
    Goodbye {
        /// Why.
        refusal: Refusal,
    },
    /// A write's outcome.
    Reply {
        /// Of which request.
        id: RequestId,
        /// The write's zxid.
        zxid: Zxid,
        /// CBOR of an [`Outcome`](crate::Outcome): the stored bytes, never encoded twice.
        outcome: Bytes,
    },
    /// The outcome of a parked call of the connection's session. It comes behind the reply that says that it parked, and
    /// again on each new connection until the client has named its sequence in a write.
    Completed {
        /// The call's sequence in the session.
        sequence: u64,
        /// The zxid of the run that ended it.
        zxid: Zxid,
        /// CBOR of an [`Outcome`](crate::Outcome): the stored bytes, never encoded twice.
        outcome: Bytes,
    },
    /// A read's, watch's or heartbeat's answer.
    Answer {
        /// Of which request.
        id: RequestId,
        /// The zxid of the state that it was read from.
        zxid: Zxid,
        /// What it gave.
        answer: Result<Answer, Refusal>,
    },
    /// Not answered: send it again.
    PushBack {
        /// Which request; [`NO_REQUEST`] for the hello.
        id: RequestId,
        /// How.
        why: PushBack,
    },
    /// Changes that a watch was asked for.
    Event {
        /// Which watch.
        watch: WatchId,
        /// Of which transaction.
        zxid: Zxid,
        /// Those that match, in order.
        changes: Vec<Change>,
        /// For a watch with data: of each of these changes what the znode holds at the time of telling, which is that
        /// transaction or a later one; none when it is gone then, or may not be read. Otherwise empty.
        present: Vec<Option<Present>>,
    },
    /// Changes up to this zxid are not told, because they are no longer kept or were too many: read the present state.
    /// Later ones are told (a one-shot watch has ended).
    Resync {
        /// Which watch.
        watch: WatchId,
        /// Up to where.
        zxid: Zxid,
    },
}
