//! Why a barrier was not passed.

use std::time::Duration;

use conclave_client::{Error as ClientError, Outcome, Path, Refusal};

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The time was over. Of a wait, or an entering: nothing is left of it. Of a leaving: this member has left all the same.
    #[error("waited {} ms at {path}: {what}", after.as_millis())]
    TimedOut {
        /// Which barrier.
        path: Path,
        /// The time that it had.
        after: Duration,
        /// What did not happen.
        what: &'static str,
    },
    /// This client's session is in the double barrier already, or is just entering it. One client is one member.
    #[error("this client's session is a member of {path} already: one client is one member at a time")]
    AlreadyIn {
        /// Which barrier.
        path: Path,
    },
    /// Others who gather there say another number of members. They go on; this one has not entered.
    #[error("the number of members is disputed: {said}. Have all of them say the same")]
    Disputed {
        /// Which barrier.
        path: Path,
        /// What was said, in words.
        said: String,
    },
    /// This member's znode is gone: its session ended, or somebody deleted it.
    #[error("this client's session is no member of {path} any more")]
    NotIn {
        /// Which barrier.
        path: Path,
    },
    /// There is no latch, or it was deleted while it was waited for. Make one with `Latch::set`.
    #[error("{path} is no latch: set one first")]
    NoLatch {
        /// The path.
        path: Path,
    },
    /// There is a latch already, with what is left of its count. It is used once: delete it first, or take another path.
    #[error("{path} is there already, with {left} left to count. Nothing was changed")]
    LatchExists {
        /// Its path.
        path: Path,
        /// What is left.
        left: u64,
    },
    /// The znode at this path is something else.
    #[error("{path} is something else: {said}")]
    Misplaced {
        /// The path.
        path: Path,
        /// What was said, in words.
        said: String,
    },
    /// The work of a `run` was dropped: the session is over, and the others do not count on this member any more.
    #[error("the session is over: the work inside {path} was dropped")]
    Lost {
        /// Which barrier.
        path: Path,
    },
    /// The client's session is over, for good, or the client was closed. Connect a new one.
    #[error("the session is over: connect a new client")]
    SessionOver {
        /// What is known of this request.
        outcome: Outcome,
    },
    /// A request failed.
    #[error(transparent)]
    Client(ClientError),
}

impl Error {
    /// Did it happen? Of [`Error::Lost`]: the work may have been begun.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut { .. }
            | Self::AlreadyIn { .. }
            | Self::Disputed { .. }
            | Self::NotIn { .. }
            | Self::NoLatch { .. }
            | Self::LatchExists { .. }
            | Self::Misplaced { .. } => Outcome::NotApplied,
            Self::Lost { .. } => Outcome::Unknown,
            Self::SessionOver { outcome } => *outcome,
            Self::Client(error) => error.outcome(),
        }
    }

    /// Is the session over, so that only a new client helps?
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        matches!(self, Self::SessionOver { .. } | Self::Lost { .. })
    }

    /// What the plugin said no to, told apart by its words, which have no codes.
    pub(crate) fn of(path: &Path, error: ClientError) -> Self {
        let ClientError::Refused(Refusal::PluginRefused { message, .. }) = &error else { return error.into() };
        let (path, said) = (path.clone(), message.clone());
        if said.contains("already") && said.contains("this session") {
            Self::AlreadyIn { path }
        } else if said.contains("members, you said") {
            Self::Disputed { path, said }
        } else if said.contains("this session is not inside") || said.contains("is not there any more") {
            Self::NotIn { path }
        } else if said.contains("is no latch: set one") {
            Self::NoLatch { path }
        } else if said.contains(" is no ") {
            Self::Misplaced { path, said }
        } else {
            error.into()
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::SessionOver { outcome } | ClientError::Closed { outcome } => Self::SessionOver { outcome },
            error => Self::Client(error),
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
    fn what_the_plugin_says_is_told_apart() {
        let said = |message: &str| {
            let refusal = Refusal::PluginRefused { plugin: "barrier".into(), message: message.into() };
            Error::of(&Path::root(), refusal.into())
        };
        assert!(matches!(said("this session is inside /b already: leave first"), Error::AlreadyIn { .. }));
        assert!(matches!(said("this session waits at /b already"), Error::AlreadyIn { .. }));
        assert!(matches!(said("/b is for 3 members, you said 2"), Error::Disputed { .. }));
        assert!(matches!(said("this session is not inside /b"), Error::NotIn { .. }));
        let gone = "the member /b/cycle-0/s-1 is not there any more: somebody deleted it";
        assert!(matches!(said(gone), Error::NotIn { .. }));
        assert!(matches!(said("/l is no latch: set one with set-latch"), Error::NoLatch { .. }));
        assert!(matches!(said("/l is no latch: its data is no number"), Error::Misplaced { .. }));
        assert!(matches!(said("/b is no gate: expected value"), Error::Misplaced { .. }));
        assert!(matches!(said("limit: too much"), Error::Client(_)));
    }

    #[test]
    fn each_error_says_whether_it_happened() {
        let path = Path::root;
        for (error, outcome, over) in [
            (Error::TimedOut { path: path(), after: Duration::ZERO, what: "w" }, Outcome::NotApplied, false),
            (Error::Lost { path: path() }, Outcome::Unknown, true),
            (ClientError::Closed { outcome: Outcome::Unknown }.into(), Outcome::Unknown, true),
            (ClientError::TimedOut { after: Duration::ZERO }.into(), Outcome::NotApplied, false),
        ] {
            assert_eq!((error.outcome(), error.is_session_over()), (outcome, over), "{error}");
        }
    }
}
