//! Why a lock was not acquired, and why one that was is held no more.

use std::time::Duration;

use conclave_client::{Fence, Outcome, Path};

use crate::view::Holder;

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no lock. After each of these the caller neither holds it nor waits for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's own session holds it: waiting would be waiting for itself.
    #[error("this client's session holds it already ({fence}): the lock is not re-entrant")]
    AlreadyHeld {
        /// Of the award that it has.
        fence: Fence,
    },
    /// It was to be had at once or not at all, and it is not free.
    #[error("{}", not_free(holder.as_deref(), *ahead))]
    NotFree {
        /// How many wait for it.
        ahead: usize,
        /// Who holds it; none when those who wait are about to get it.
        holder: Option<Box<Holder>>,
    },
    /// The time was over before its turn came. The place in line is given up.
    #[error("waited {} ms: {}", after.as_millis(), not_free(holder.as_deref(), *ahead))]
    TimedOut {
        /// The time that it had.
        after: Duration,
        /// How many were before it in line, when it last looked.
        ahead: usize,
        /// Who held it then.
        holder: Option<Box<Holder>>,
    },
    /// Somebody deleted the place in line.
    #[error("the place in line, {place}, was deleted")]
    PlaceGone {
        /// Which one.
        place: Path,
    },
    /// The client's session is over, for good, or the client was closed. Connect a new one.
    #[error("the session is over, and with it the place in line")]
    SessionOver,
    /// It was held, and is not any more. Of [`Mutex::run`](crate::Mutex::run): the work was dropped where it stood.
    #[error("the lock was lost: {0}")]
    Lost(#[from] Lost),
    /// A request failed.
    #[error(transparent)]
    Client(conclave_client::Error),
}

/// Why a guard holds nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The client's session is over: it was not renewed in time, or it was closed.
    #[error("the session is over")]
    SessionOver,
    /// The holder znode was deleted by somebody else.
    #[error("the holder znode was deleted")]
    HolderGone,
    /// The guard was released or dropped. Only clones of [`Held`](crate::Held) are told so.
    #[error("it was released")]
    Released,
}

impl Error {
    /// Did anything happen under the lock? `NotApplied`: it was never held. `Unknown`: it was, and the work may have
    /// been begun; or it is not known whether it is released by now.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::AlreadyHeld { .. }
            | Self::NotFree { .. }
            | Self::TimedOut { .. }
            | Self::PlaceGone { .. }
            | Self::SessionOver => Outcome::NotApplied,
            Self::Lost(_) => Outcome::Unknown,
            Self::Client(error) => error.outcome(),
        }
    }

    /// Is the session over, so that only a new client helps?
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        match self {
            Self::SessionOver | Self::Lost(Lost::SessionOver) => true,
            Self::Client(error) => error.is_session_over(),
            Self::AlreadyHeld { .. }
            | Self::NotFree { .. }
            | Self::TimedOut { .. }
            | Self::PlaceGone { .. }
            | Self::Lost(_) => false,
        }
    }
}

impl From<conclave_client::Error> for Error {
    fn from(error: conclave_client::Error) -> Self {
        // Who closes its client ends its session.
        let over = error.is_session_over() || matches!(error, conclave_client::Error::Closed { .. });
        if over { Self::SessionOver } else { Self::Client(error) }
    }
}

impl From<conclave_client::PathError> for Error {
    fn from(error: conclave_client::PathError) -> Self {
        Self::Client(error.into())
    }
}

fn not_free(holder: Option<&Holder>, ahead: usize) -> String {
    match (holder, ahead) {
        (Some(holder), 0) => format!("held by {holder}"),
        (Some(holder), ahead) => format!("held by {holder}, {ahead} ahead"),
        (None, ahead) => format!("{ahead} ahead"),
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::{Doubt, Refusal, SessionId};

    use super::*;

    #[test]
    fn each_error_says_whether_the_lock_was_ever_held_and_whether_the_session_is_over() {
        let fence: Fence = "/m/holder@7".parse().unwrap();
        let over = conclave_client::Error::Refused(Refusal::SessionOver { session: SessionId(1) });
        for (error, outcome, session_over) in [
            (Error::AlreadyHeld { fence }, Outcome::NotApplied, false),
            (Error::NotFree { ahead: 1, holder: None }, Outcome::NotApplied, false),
            (Error::TimedOut { after: Duration::ZERO, ahead: 0, holder: None }, Outcome::NotApplied, false),
            (Error::PlaceGone { place: Path::root() }, Outcome::NotApplied, false),
            (over.into(), Outcome::NotApplied, true),
            (conclave_client::Error::SessionOver { outcome: Outcome::Unknown }.into(), Outcome::NotApplied, true),
            (conclave_client::Error::Closed { outcome: Outcome::Unknown }.into(), Outcome::NotApplied, true),
            (Error::Lost(Lost::SessionOver), Outcome::Unknown, true),
            (Error::Lost(Lost::HolderGone), Outcome::Unknown, false),
            (conclave_client::Error::Unknown { why: Doubt::Deadline }.into(), Outcome::Unknown, false),
        ] {
            assert_eq!((error.outcome(), error.is_session_over()), (outcome, session_over), "{error}");
        }
    }
}
