//! Why a lock was not acquired, and why one that was is held no more.

use std::time::Duration;

use conclave_client::{Fence, Outcome, Path};

pub use conclave_awards::Lost;

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
        /// Who holds it, if it is held; of several who share it, one.
        holder: Option<Box<Holder>>,
    },
    /// The time to wait was over.
    #[error("not acquired within {} ms: {}", after.as_millis(), not_free(holder.as_deref(), *ahead))]
    TimedOut {
        /// The time that there was.
        after: Duration,
        /// How many were ahead, as far as was seen last.
        ahead: usize,
        /// Who held it, as far as was seen last; of several who share it, one.
        holder: Option<Box<Holder>>,
    },
    /// Somebody deleted the place in line.
    #[error("the place in line, {place}, was deleted")]
    PlaceGone {
        /// Which one.
        place: Path,
    },
    /// There is no such semaphore.
    #[error("{path} is no semaphore: {why}. Set its capacity, or open it with one")]
    NoSemaphore {
        /// Where there is none.
        path: Path,
        /// What is there instead.
        why: String,
    },
    /// The semaphore has another capacity than was said: whoever uses it must mean the same.
    #[error(
        "{path} has a capacity of {actual}, you said {said}. Set it with `set_capacity`, or open it without saying one"
    )]
    OtherCapacity {
        /// Which semaphore.
        path: Path,
        /// What it has.
        actual: u64,
        /// What was said.
        said: u64,
    },
    /// No permits, or more than the semaphore has: there would never be enough.
    #[error("{permits} permits of {capacity} of {path}: there would never be enough")]
    BadPermits {
        /// Of which semaphore.
        path: Path,
        /// How many were wanted.
        permits: u64,
        /// How many it has.
        capacity: u64,
    },
    /// Several locks at once were to be taken, and none was named.
    #[error("no lock was named: there is nothing to take")]
    NoLocks,
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
            | Self::NoSemaphore { .. }
            | Self::OtherCapacity { .. }
            | Self::BadPermits { .. }
            | Self::NoLocks
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
            | Self::NoSemaphore { .. }
            | Self::OtherCapacity { .. }
            | Self::BadPermits { .. }
            | Self::NoLocks
            | Self::Lost(_) => false,
        }
    }
}

impl From<conclave_awards::Error> for Error {
    fn from(error: conclave_awards::Error) -> Self {
        match error {
            conclave_awards::Error::PlaceGone { place } => Self::PlaceGone { place },
            conclave_awards::Error::SessionOver => Self::SessionOver,
            conclave_awards::Error::Lost(why) => Self::Lost(why),
            conclave_awards::Error::Client(error) => Self::Client(error),
            // There are no others; a new one would be a failed request's.
            _ => Self::Client(conclave_client::Error::Mismatch { question: "an award" }),
        }
    }
}

impl From<conclave_client::Error> for Error {
    fn from(error: conclave_client::Error) -> Self {
        conclave_awards::Error::from(error).into()
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
        let another = conclave_client::Error::Refused(Refusal::SessionOver { session: SessionId(1) });
        let path = Path::root;
        for (error, outcome, session_over) in [
            (Error::AlreadyHeld { fence }, Outcome::NotApplied, false),
            (Error::NotFree { ahead: 1, holder: None }, Outcome::NotApplied, false),
            (Error::TimedOut { after: Duration::ZERO, ahead: 0, holder: None }, Outcome::NotApplied, false),
            (Error::PlaceGone { place: path() }, Outcome::NotApplied, false),
            (Error::NoSemaphore { path: path(), why: "it does not exist".into() }, Outcome::NotApplied, false),
            (Error::OtherCapacity { path: path(), actual: 1, said: 2 }, Outcome::NotApplied, false),
            (Error::BadPermits { path: path(), permits: 3, capacity: 2 }, Outcome::NotApplied, false),
            (Error::NoLocks, Outcome::NotApplied, false),
            (another.into(), Outcome::NotApplied, false),
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
