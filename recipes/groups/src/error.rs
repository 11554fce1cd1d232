//! Why a znode is not kept, a group not joined, a share not held any more.

use std::time::Duration;

pub use conclave_awards::Lost;
use conclave_client::{Outcome, Path, SessionId};

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another session has a znode at that path, and kept it for as long as was waited. Either that name is used twice, or
    /// a process that is gone has it until its session ends.
    #[error(
        "{path} is taken by {}: use another name, wait until that session is over, or replace it",
        match owner { Some(session) => format!("session {session}"), None => "a znode that is not ephemeral".to_owned() }
    )]
    Taken {
        /// Where.
        path: Path,
        /// Whose it is; none when it is not ephemeral, and so stays until somebody deletes it.
        owner: Option<SessionId>,
    },
    /// The time was over. What was asked for is still wanted, and is done as soon as it can be; see each method.
    #[error("{path} is not as wanted after {} ms: is a member reachable?", after.as_millis())]
    TimedOut {
        /// Which znode.
        path: Path,
        /// The time that it had.
        after: Duration,
    },
    /// It is kept no more: it was removed, or the client that it was made with was closed.
    #[error("{path} is kept no more: it was removed, or its client was closed")]
    Ended {
        /// Which znode.
        path: Path,
    },
    /// A share was held, and is not any more.
    #[error("the share was lost: {0}")]
    Lost(#[from] Lost),
    /// A request failed.
    #[error(transparent)]
    Client(#[from] conclave_client::Error),
}

impl Error {
    /// Did it happen? `Unknown`: it may have, or is still going to.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Taken { .. } => Outcome::NotApplied,
            Self::TimedOut { .. } | Self::Ended { .. } | Self::Lost(_) => Outcome::Unknown,
            Self::Client(error) => error.outcome(),
        }
    }
}

impl From<conclave_awards::Error> for Error {
    fn from(error: conclave_awards::Error) -> Self {
        match error {
            conclave_awards::Error::Lost(why) => Self::Lost(why),
            conclave_awards::Error::Client(error) => Self::Client(error),
            // Of places in line, which there are none of here.
            _ => Self::Lost(Lost::SessionOver),
        }
    }
}

impl From<conclave_client::PathError> for Error {
    fn from(error: conclave_client::PathError) -> Self {
        Self::Client(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_to_do_and_whether_it_happened() {
        let path = Path::parse("/groups/w/members/a").unwrap();
        let taken = Error::Taken { path: path.clone(), owner: Some(SessionId(7)) };
        assert_eq!(taken.outcome(), Outcome::NotApplied);
        assert!(taken.to_string().contains("/groups/w/members/a is taken by session"), "{taken}");
        let late = Error::TimedOut { path: path.clone(), after: Duration::from_secs(2) };
        assert_eq!((late.outcome(), late.to_string().contains("2000 ms")), (Outcome::Unknown, true));
        assert_eq!(Error::Ended { path }.outcome(), Outcome::Unknown);
        assert_eq!(Error::from(Lost::HolderGone).outcome(), Outcome::Unknown);
        let client = Error::from(conclave_client::Error::TimedOut { after: Duration::ZERO });
        assert_eq!(client.outcome(), Outcome::NotApplied);
    }
}
