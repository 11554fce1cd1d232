//! Why there is no award, and why one that was is over.

use conclave_client::{Outcome, Path, Refusal};

/// What comes back from the functions of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no award. Each recipe has an error of its own, into which it turns this one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody deleted the place in line.
    #[error("the place in line, {place}, was deleted")]
    PlaceGone {
        /// Which one.
        place: Path,
    },
    /// The client's session is over, for good, or the client was closed. Connect a new one.
    #[error("the session is over, and with it the place in line")]
    SessionOver,
    /// It was held, and is not any more.
    #[error("it was lost: {0}")]
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
    /// The holder znode was deleted by somebody else. Perhaps with the session, if somebody ended that: the one can be heard
    /// of before the other.
    #[error("the holder znode was deleted")]
    HolderGone,
    /// The guard was released or dropped, or gave its award to another. Only clones of [`Held`](crate::Held) are told so.
    #[error("it was released")]
    Released,
}

impl Error {
    /// Did anything happen under the award? `NotApplied`: there was none. `Unknown`: there was, and the work may have been
    /// begun; or it is not known whether it is given back by now.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::PlaceGone { .. } | Self::SessionOver => Outcome::NotApplied,
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
            Self::PlaceGone { .. } | Self::Lost(_) => false,
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

/// What this plugin said, if that is why there is no answer: a recipe then looks at the tree by itself, and finds the
/// reason in a form that a program can act on.
#[must_use]
pub fn refused_by<'a>(plugin: &str, error: &'a conclave_client::Error) -> Option<&'a str> {
    match error.refusal()? {
        Refusal::PluginRefused { plugin: who, message } if who == plugin => Some(message),
        _ => None,
    }
}

/// The place that is gone, if that is what a plugin said: the one reason that cannot be seen in the tree afterwards. These
/// are its words; where they are others, its refusal is passed on as it is.
#[must_use]
pub fn place_gone(message: &str) -> Option<Path> {
    let (place, _) = message.strip_prefix("the place ")?.split_once(" is not there any more")?;
    Path::parse(place).ok()
}

#[cfg(test)]
mod tests {
    use conclave_client::{Doubt, SessionId};

    use super::*;

    #[test]
    fn each_error_says_whether_there_was_an_award_and_whether_the_session_is_over() {
        let another = conclave_client::Error::Refused(Refusal::SessionOver { session: SessionId(1) });
        for (error, outcome, session_over) in [
            (Error::PlaceGone { place: Path::root() }, Outcome::NotApplied, false),
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

    #[test]
    fn a_place_that_is_gone_is_told_from_all_else_that_a_plugin_says() {
        let gone = place_gone("the place /m/line/w-0000000003 is not there any more: somebody deleted it");
        assert_eq!(gone, Some(Path::parse("/m/line/w-0000000003").unwrap()));
        for other in
            ["", "this session waits for /m already, at /m/line/w-0000000003", "the place x is not there any more"]
        {
            assert_eq!(place_gone(other), None, "{other}");
        }
        let said = |plugin: &str| {
            conclave_client::Error::Refused(Refusal::PluginRefused { plugin: plugin.into(), message: "no".into() })
        };
        assert_eq!(refused_by("lock", &said("lock")), Some("no"));
        // A trigger of somebody else's, on the way.
        assert_eq!(refused_by("lock", &said("schema")), None);
        assert_eq!(refused_by("lock", &conclave_client::Error::Unknown { why: Doubt::Deadline }), None);
    }
}
