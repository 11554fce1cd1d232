//! How much a client has sent, by kinds: tests count round trips with it.

use std::sync::atomic::{AtomicU64, Ordering};

use conclave_protocol::{ClientMessage, Op};

/// What a client sends, as far as round trips are concerned. All but the last three are requests, whose answers somebody
/// waits for.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// The opening of a session.
    Session,
    /// A write, also a call of a procedure.
    Write,
    /// A read, also a query of a plugin.
    Read,
    /// The beginning of a watch.
    Watch,
    /// A request on a stream of its own.
    Stream,
    /// What is told and not waited for: the end of a watch, the cancelling of a call.
    Notice,
    /// A renewal of the session.
    Heartbeat,
    /// The beginning of a connection.
    Hello,
}

/// So many kinds there are.
const KINDS: usize = Sent::Hello as usize + 1;

impl Sent {
    /// Of which kind this is.
    pub(super) const fn of(message: &ClientMessage) -> Self {
        match message {
            ClientMessage::Hello(_) => Self::Hello,
            ClientMessage::Open { .. } => Self::Session,
            ClientMessage::Write { op: Op::Cancel { .. }, .. } | ClientMessage::Unwatch { .. } => Self::Notice,
            ClientMessage::Write { .. } | ClientMessage::Once { .. } => Self::Write,
            ClientMessage::Read { .. } => Self::Read,
            ClientMessage::Watch { .. } => Self::Watch,
            ClientMessage::Heartbeat { .. } => Self::Heartbeat,
        }
    }
}

/// How many of each kind.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; KINDS]);

impl Counts {
    /// One more is sent: said before it is, so that who has its answer finds it counted.
    pub(super) fn add(&self, kind: Sent) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, kind: Sent) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}
