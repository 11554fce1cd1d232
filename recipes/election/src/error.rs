//! Why somebody does not lead, or not any more.

use std::time::Duration;

use conclave_client::{Fence, Outcome, Path};

pub use conclave_awards::Lost;

use crate::candidate::Leader;

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no leadership. After each of these but [`Error::NoCandidate`] the caller neither leads nor is a candidate.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's own session leads: it would be waiting for itself.
    #[error("this client's session leads already ({fence})")]
    AlreadyLeads {
        /// Of its term.
        fence: Fence,
    },
    /// The client's own session is a candidate: it is one once. Another candidate needs another client.
    #[error("this client's session is a candidate already, at {place}")]
    AlreadyCandidate {
        /// Its place.
        place: Path,
    },
    /// The time to wait was over.
    #[error("not elected within {} ms: {}", after.as_millis(), led_by(leader.as_deref()))]
    TimedOut {
        /// The time that there was.
        after: Duration,
        /// Who leads, as far as was seen last.
        leader: Option<Box<Leader>>,
    },
    /// Somebody deleted the candidate's place.
    #[error("the candidate's place, {place}, was deleted")]
    PlaceGone {
        /// Which one.
        place: Path,
    },
    /// It was to be handed over to somebody who is no candidate. Whoever wanted that leads on.
    #[error("{to} is no candidate; {}", match candidates.as_slice() {
        [] => "there are none".to_owned(),
        some => format!("these are: {}", some.join(", ")),
    })]
    NoCandidate {
        /// Who was named.
        to: String,
        /// Who could be, the next one first.
        candidates: Vec<String>,
    },
    /// The client's session is over, for good, or the client was closed. Connect a new one.
    #[error("the session is over, and with it the candidacy")]
    SessionOver,
    /// It led, and does not any more. Of [`Election::lead`](crate::Election::lead): the work was dropped where it stood.
    #[error("leadership was lost: {0}")]
    Lost(#[from] Lost),
    /// A request failed.
    #[error(transparent)]
    Client(conclave_client::Error),
}

impl Error {
    /// Did anything happen as a leader? `NotApplied`: it never led. `Unknown`: it did, and the work may have been begun; or
    /// it is not known whether it has resigned, or handed over, by now.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::AlreadyLeads { .. }
            | Self::AlreadyCandidate { .. }
            | Self::TimedOut { .. }
            | Self::PlaceGone { .. }
            | Self::NoCandidate { .. }
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
            Self::AlreadyLeads { .. }
            | Self::AlreadyCandidate { .. }
            | Self::TimedOut { .. }
            | Self::PlaceGone { .. }
            | Self::NoCandidate { .. }
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

fn led_by(leader: Option<&Leader>) -> String {
    leader.map_or_else(|| "nobody leads, or nobody was heard".to_owned(), |leader| format!("{leader} leads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_whether_it_ever_led_and_whether_the_session_is_over() {
        let fence: Fence = "/e/holder@7".parse().unwrap();
        for (error, outcome, session_over) in [
            (Error::AlreadyLeads { fence }, Outcome::NotApplied, false),
            (Error::AlreadyCandidate { place: Path::root() }, Outcome::NotApplied, false),
            (Error::TimedOut { after: Duration::ZERO, leader: None }, Outcome::NotApplied, false),
            (Error::PlaceGone { place: Path::root() }, Outcome::NotApplied, false),
            (Error::NoCandidate { to: "b".into(), candidates: Vec::new() }, Outcome::NotApplied, false),
            (conclave_client::Error::Closed { outcome: Outcome::Unknown }.into(), Outcome::NotApplied, true),
            (Error::Lost(Lost::SessionOver), Outcome::Unknown, true),
            (Error::Lost(Lost::HolderGone), Outcome::Unknown, false),
        ] {
            assert_eq!((error.outcome(), error.is_session_over()), (outcome, session_over), "{error}");
        }
    }

    #[test]
    fn who_could_be_chosen_is_named() {
        let names = |candidates: &[&str]| {
            let candidates = candidates.iter().map(ToString::to_string).collect();
            Error::NoCandidate { to: "x".into(), candidates }.to_string()
        };
        assert_eq!(names(&[]), "x is no candidate; there are none");
        assert_eq!(names(&["a", "b"]), "x is no candidate; these are: a, b");
    }
}
