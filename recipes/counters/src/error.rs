//! Why a counter was not read or changed.

use conclave_client::{Error as ClientError, Outcome, Path, Refusal};

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The znode's data is no number of 64 bits in decimal, or the sum would be none. Nothing was changed.
    #[error("{path} can't be counted with: {why}. Nothing was changed")]
    BadNumber {
        /// Which znode.
        path: Path,
        /// Why not.
        why: String,
    },
    /// A sequence's znode has a lower number than it had: it was deleted or set back, and numbers that were given before
    /// would be given again. Set it to at least `was`, or leave off using it: this handle gives no numbers from it any more.
    #[error(
        "{path} went back: numbers up to {was} were given, it says {is}. Set it to {was} or more, or what it gives is not \
         unique any more"
    )]
    WentBack {
        /// Which znode.
        path: Path,
        /// The highest number that this handle knows to be given.
        was: u64,
        /// What the znode said.
        is: u64,
    },
    /// More numbers were asked for at once than a sequence gives: none, or more than 2^32.
    #[error("{count} numbers can't be had at once: ask for 1 to {}", crate::sequence::MOST)]
    BadCount {
        /// How many.
        count: u64,
    },
    /// A request failed.
    #[error(transparent)]
    Client(ClientError),
}

impl Error {
    /// Did it happen? After `Unknown` an addition may have been made; of a sequence, at most numbers are lost.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::BadNumber { .. } | Self::WentBack { .. } | Self::BadCount { .. } => Outcome::NotApplied,
            Self::Client(error) => error.outcome(),
        }
    }

    /// Is the session over, so that only a new client helps?
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        match self {
            Self::BadNumber { .. } | Self::WentBack { .. } | Self::BadCount { .. } => false,
            Self::Client(error) => error.is_session_over(),
        }
    }

    /// May the same be asked again, with the same client: did it surely not happen, and can it succeed later?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BadNumber { .. } | Self::WentBack { .. } | Self::BadCount { .. } => false,
            Self::Client(error) => error.is_retryable(),
        }
    }

    /// What a request about this counter came to.
    pub(crate) fn of(path: &Path, error: ClientError) -> Self {
        let why = match &error {
            ClientError::Refused(refusal @ Refusal::BadNumber { .. }) => refusal.to_string(),
            // Its words have no codes; all that it says by itself is about numbers.
            ClientError::Refused(Refusal::PluginRefused { message, .. })
                if message.contains("is not a number") || message.contains("can hold") =>
            {
                message.clone()
            }
            ClientError::Undecodable(undecodable) => undecodable.why.clone(),
            _ => return Self::Client(error),
        };
        Self::BadNumber { path: path.clone(), why }
    }
}

impl From<conclave_client::PathError> for Error {
    fn from(error: conclave_client::PathError) -> Self {
        Self::Client(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_error_says_whether_it_happened_and_whether_to_ask_again() {
        let path = Path::root();
        let said = |message: &str| {
            let refusal = Refusal::PluginRefused { plugin: "counter".into(), message: message.into() };
            Error::of(&path, refusal.into())
        };
        assert!(matches!(said("/a: its data is not a number between -1 and 1"), Error::BadNumber { .. }));
        assert!(matches!(said("not-allowed: no"), Error::Client(_)));
        for (error, outcome, retry) in [
            (Error::BadCount { count: 0 }, Outcome::NotApplied, false),
            (Error::WentBack { path: path.clone(), was: 2, is: 1 }, Outcome::NotApplied, false),
            (Error::of(&path, ClientError::TimedOut { after: Duration::ZERO }), Outcome::NotApplied, true),
            (Error::of(&path, ClientError::Unknown { why: conclave_client::Doubt::Deadline }), Outcome::Unknown, false),
        ] {
            assert_eq!((error.outcome(), error.is_retryable()), (outcome, retry), "{error}");
            assert!(!error.is_session_over());
        }
    }
}
