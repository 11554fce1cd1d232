//! Why an instance is not registered, or none was found.

use conclave_client::{Outcome, Path};

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No instance can be picked.
    #[error("no instance of {service} can be used: {}", match known {
        0 => "none is registered".to_owned(),
        known => format!("{known} are registered, and all of them are down, draining or without a heartbeat"),
    })]
    NoInstance {
        /// The service.
        service: String,
        /// How many are registered, healthy or not.
        known: usize,
    },
    /// The instance is not registered at this moment: its session was lost, and the new one is not there yet.
    #[error("{path} is not registered at this moment; it is being registered again")]
    NotThere {
        /// Where.
        path: Path,
    },
    /// There is no heartbeat to give: it was not asked for at the registration.
    #[error("{path} was registered without a heartbeat")]
    NoHeartbeat {
        /// Where.
        path: Path,
    },
    /// The registration failed.
    #[error(transparent)]
    Registration(#[from] conclave_groups::Error),
    /// A request failed.
    #[error(transparent)]
    Client(#[from] conclave_client::Error),
}

impl Error {
    /// Did it happen? `Unknown`: it may have, or is still going to.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::NoInstance { .. } | Self::NotThere { .. } | Self::NoHeartbeat { .. } => Outcome::NotApplied,
            Self::Registration(error) => error.outcome(),
            Self::Client(error) => error.outcome(),
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
    fn each_error_says_what_is_missing() {
        let none = Error::NoInstance { service: "api".into(), known: 0 };
        assert_eq!(none.to_string(), "no instance of api can be used: none is registered");
        let ill = Error::NoInstance { service: "api".into(), known: 2 };
        assert!(ill.to_string().contains("2 are registered, and all of them are down"), "{ill}");
        assert_eq!(ill.outcome(), Outcome::NotApplied);
    }
}
