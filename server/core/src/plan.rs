//! The only door to a transaction: a request, seen against the view at a given time, becomes rows, changes, a reply.

mod pending;
mod planner;
mod plugins;
mod replies;

use bytes::Bytes;
use conclave_protocol::plugin::ComponentDigest;
use conclave_protocol::{Fence, Nonce, Op, PushBack, SessionId, Zxid};

pub use planner::{Begin, Cut, Planner};

/// A request as it reaches the leader.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Who asks: the URI of its certificate. Empty for the leader itself.
    pub principal: String,
    /// By which right it is done once.
    pub asked: Asked,
    /// Only while this holds.
    pub fence: Option<Fence>,
    /// What is to be done.
    pub work: Work,
}

/// How a request is recognised when it comes again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Asked {
    /// In a session, by its sequence.
    Session {
        /// Which session.
        session: SessionId,
        /// Its sequence there.
        sequence: u64,
        /// The lowest sequence that the client has no reply to.
        floor: u64,
        /// Sequences of parked calls whose end the client knows of.
        completed: Vec<u64>,
    },
    /// By a nonce that is remembered until a time.
    Once {
        /// The nonce.
        nonce: Nonce,
        /// Until when, milliseconds of cluster time.
        until_ms: u64,
    },
    /// The leader's own: it is never sent, so it never comes again.
    Leader,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Work {
    /// A client's operation.
    Op(Op),
    /// Opens a session (asked once).
    Open {
        /// The timeout that is wanted, milliseconds.
        timeout_ms: u64,
    },
    /// Ends a session that was not renewed (the leader's own).
    Expire {
        /// Which one.
        session: SessionId,
    },
    /// Writes the time down (the leader's own, when idle).
    Stamp,
    /// Forgets one-shot writes whose `until` has passed, deletes znodes whose time to live is over and containers that
    /// were left; at most a batch of them (the leader's own). Dropped when nothing is due.
    Sweep,
    /// Enough members are ready for a plugin's component (the leader's own).
    Activate {
        /// Which plugin.
        plugin: String,
        /// Which component.
        digest: ComponentDigest,
    },
    /// A member can't run a plugin's component (the leader's own).
    Reject {
        /// Which plugin.
        plugin: String,
        /// Which component.
        digest: ComponentDigest,
        /// Who, and why.
        why: String,
    },
    /// A plugin failed too often (the leader's own).
    Suspend {
        /// Which plugin.
        plugin: String,
        /// How.
        why: String,
    },
    /// A plugin's timer is due (the leader's own).
    Tick {
        /// Which plugin.
        plugin: String,
        /// Which of its triggers.
        trigger: String,
    },
    /// Runs the next parked call that was woken (the leader's own). Dropped when there is none.
    Wake,
    /// Makes the first transaction (the leader's own, iff the last zxid is 0).
    Genesis {
        /// Plugins that every new cluster has.
        plugins: Vec<Install>,
    },
}

/// A plugin to install.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Install {
    /// The name that it is called by.
    pub name: String,
    /// SHA-256 of the component.
    pub digest: ComponentDigest,
    /// The component.
    pub component: Bytes,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this transaction, done or refused: the member that asked learns it when it has applied it.
    Planned(Zxid),
    /// It was answered before, or its session is gone: when the member that asked has applied this zxid, its own state
    /// tells.
    Look(Zxid),
    /// Its reply was acknowledged: nobody waits for it.
    Dropped,
    /// Nothing was planned.
    PushBack(PushBack),
}

/// Whether the tree may grow, as the leader's disk has it.
///
/// Where growth is refused, a client's request whose transaction would leave the tree larger than it was is answered
/// with [`Refusal::DiskFull`](conclave_protocol::Refusal::DiskFull), which is a transaction like any refusal. Counted is what znodes take, the whole
/// transaction together: a multi or a procedure may create as much as it deletes. All else goes on: deletes, ends of
/// sessions, checks, data that gets no longer, the leader's own work. Rows of exactly-once (replies, one-shot writes)
/// are not counted: they are bounded, and they go by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// It may.
    #[default]
    Allowed,
    /// It may not.
    Refused {
        /// Bytes that the disk has free.
        free_bytes: u64,
        /// Bytes that have to be free before it may again.
        least_bytes: u64,
    },
}
