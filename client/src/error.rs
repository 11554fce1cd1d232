//! What can go wrong for a caller, and the two questions it must be able to answer: is the session over, and did it happen?

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::{ClusterRefusal, Path, Refusal, Stat, Zxid};

use crate::options::ConfigError;

/// What comes back from every method of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Did the request happen?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It surely did not, and will not.
    NotApplied,
    /// It may have happened, or may still happen: read before you repeat it.
    Unknown,
}

/// Why a request has no result. Cheap to clone.
///
/// Match on the variant for what to do, on [`Refusal`] for what the cluster said, and ask [`Error::outcome`] before
/// repeating a write.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster answered no. Nothing was changed.
    #[error("refused: {}: {_0}", _0.code())]
    Refused(Refusal),
    /// The write was sent and its answer did not come: it may have happened.
    #[error("outcome unknown: {why}")]
    Unknown {
        /// What kept the answer away.
        why: Doubt,
    },
    /// The deadline passed; nothing was changed. The write was never sent, or it was a read; or it was a call, and is
    /// cancelled: whatever it had taken is given back.
    #[error("timed out after {} ms; nothing was changed", after.as_millis())]
    TimedOut {
        /// The time that the request had.
        after: Duration,
    },
    /// The client's session is over, for good: its ephemeral znodes are gone or going. Connect a new client.
    #[error("the session is over{}", match outcome {
        Outcome::NotApplied => "; the request was not sent",
        Outcome::Unknown => "; whether the request was carried out is unknown",
    })]
    SessionOver {
        /// What is known of this request.
        outcome: Outcome,
    },
    /// No member could be reached in time. Nothing was changed.
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    /// The options are incomplete or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client was closed.
    #[error("the client is closed{}", match outcome {
        Outcome::NotApplied => "; the request was not sent",
        Outcome::Unknown => "; whether the request was carried out is unknown",
    })]
    Closed {
        /// What is known of this request.
        outcome: Outcome,
    },
    /// The cluster does not change its membership so. Nothing was changed.
    #[error("refused: {}: {_0}", _0.code())]
    Declined(ClusterRefusal),
    /// A backup, or another request on a stream of its own, ended early: the connection broke, or the member failed.
    #[error("interrupted: {why}")]
    Interrupted {
        /// What happened.
        why: String,
        /// What is known of the request. A backup changes nothing.
        outcome: Outcome,
    },
    /// A member's answer does not fit the question: the versions of client and cluster do not fit each other.
    #[error("an answer of the wrong kind to {question}")]
    Mismatch {
        /// What was asked.
        question: &'static str,
    },
    /// The znode's data is no value of the type that it was read as. It was read all the same, and nothing was changed.
    #[error(transparent)]
    Undecodable(Box<Undecodable>),
    /// The value could not be made into data. Nothing was sent.
    #[error("the value cannot be encoded: {why}")]
    Unencodable {
        /// Why.
        why: String,
    },
    /// What a plugin returned is no value of the type that it was read as. The call was carried out.
    #[error("the reply of {what} cannot be decoded: {why}")]
    UndecodableReply {
        /// Of which plugin's procedure or query.
        what: String,
        /// The reply as it is.
        reply: Bytes,
        /// What is wrong with it.
        why: String,
    },
    /// The members do not run the plugin. What was active before is so still.
    #[error("plugin {plugin} was not activated: {why}")]
    Rejected {
        /// Its name.
        plugin: String,
        /// Which member, and why.
        why: String,
    },
    /// The closure of an update said no. Nothing was changed.
    #[error("not updated: {why}")]
    Abandoned {
        /// What it said.
        why: String,
    },
}

/// Data that is no value of the type that it was read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} at version {} cannot be decoded: {why}", stat.version)]
pub struct Undecodable {
    /// Of which znode.
    pub path: Path,
    /// Its stat.
    pub stat: Stat,
    /// The data as it is.
    pub data: Bytes,
    /// The zxid of the state that it was read from.
    pub zxid: Zxid,
    /// What is wrong with it.
    pub why: String,
}

/// What kept a write's answer away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doubt {
    /// The deadline passed while the answer was awaited.
    Deadline,
    /// The time for which the cluster remembers a one-shot write passed before its answer came.
    Forgotten,
    /// The plugin is installed, and was not active when the deadline passed.
    Activation,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the write was sent, and no answer came before the deadline",
            Self::Forgotten => "the write was sent, and no answer came while the cluster remembered it",
            Self::Activation => "the plugin is installed, and too few members had it ready before the deadline",
        })
    }
}

impl Error {
    /// Is the session over, so that only a new client helps?
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        match self {
            Self::SessionOver { .. } => true,
            // A refusal that names a session is about another one.
            Self::Refused(_)
            | Self::Unknown { .. }
            | Self::TimedOut { .. }
            | Self::NoConnection(_)
            | Self::Config(_)
            | Self::Closed { .. }
            | Self::Declined(_)
            | Self::Interrupted { .. }
            | Self::Mismatch { .. }
            | Self::Undecodable(_)
            | Self::Unencodable { .. }
            | Self::UndecodableReply { .. }
            | Self::Rejected { .. }
            | Self::Abandoned { .. } => false,
        }
    }

    /// Did it happen?
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_)
            | Self::Declined(_)
            | Self::TimedOut { .. }
            | Self::NoConnection(_)
            | Self::Config(_)
            | Self::Undecodable(_)
            | Self::Unencodable { .. }
            | Self::Rejected { .. }
            | Self::Abandoned { .. } => Outcome::NotApplied,
            Self::SessionOver { outcome } | Self::Closed { outcome } | Self::Interrupted { outcome, .. } => *outcome,
            // That of a reply happened: repeated, it may happen twice.
            Self::Unknown { .. } | Self::Mismatch { .. } | Self::UndecodableReply { .. } => Outcome::Unknown,
        }
    }

    /// May the same request simply be sent again, with the same client: did it surely not happen, and can it succeed
    /// later without anything else being changed?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Interrupted { outcome, .. } => *outcome == Outcome::NotApplied,
            Self::NoConnection(none) => !none.is_certificate_problem(),
            Self::Refused(_)
            | Self::Unknown { .. }
            | Self::SessionOver { .. }
            | Self::Config(_)
            | Self::Closed { .. }
            | Self::Declined(_)
            | Self::Mismatch { .. }
            | Self::Undecodable(_)
            | Self::Unencodable { .. }
            | Self::UndecodableReply { .. }
            | Self::Rejected { .. }
            | Self::Abandoned { .. } => false,
        }
    }

    /// What the cluster said, if it answered no.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<conclave_protocol::PathError> for Error {
    fn from(error: conclave_protocol::PathError) -> Self {
        Self::Refused(error.into())
    }
}

/// Nobody could be reached: what the last attempt at each endpoint gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoConnection {
    /// One for each endpoint that was tried.
    pub attempts: Vec<Attempt>,
}

/// The last attempt at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub endpoint: String,
    /// Why it failed, in words.
    pub why: String,
    /// A certificate is at fault: trying again with the same one is pointless.
    pub certificate: bool,
}

impl NoConnection {
    /// Is a certificate at fault at every endpoint?
    #[must_use]
    pub fn is_certificate_problem(&self) -> bool {
        !self.attempts.is_empty() && self.attempts.iter().all(|attempt| attempt.certificate)
    }
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")?;
        for (n, attempt) in self.attempts.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { "; " })?;
            write!(f, "{}: {}", attempt.endpoint, attempt.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoConnection {}

#[cfg(test)]
mod tests {
    use conclave_protocol::SessionId;

    use super::*;

    #[test]
    fn each_error_says_whether_it_happened_and_whether_to_try_again() {
        let attempt = |certificate| Attempt { endpoint: "h:1".into(), why: "w".into(), certificate };
        let none = |certificates: &[bool]| {
            Error::NoConnection(NoConnection { attempts: certificates.iter().copied().map(attempt).collect() })
        };
        for (error, over, outcome, retry) in [
            (Error::Refused(Refusal::NoPlugin { plugin: "p".into() }), false, Outcome::NotApplied, false),
            (Error::Refused(Refusal::SessionOver { session: SessionId(1) }), false, Outcome::NotApplied, false),
            (Error::Unknown { why: Doubt::Deadline }, false, Outcome::Unknown, false),
            (Error::TimedOut { after: Duration::ZERO }, false, Outcome::NotApplied, true),
            (Error::SessionOver { outcome: Outcome::Unknown }, true, Outcome::Unknown, false),
            (Error::SessionOver { outcome: Outcome::NotApplied }, true, Outcome::NotApplied, false),
            (Error::Closed { outcome: Outcome::NotApplied }, false, Outcome::NotApplied, false),
            (none(&[true, false]), false, Outcome::NotApplied, true),
            (none(&[true, true]), false, Outcome::NotApplied, false),
        ] {
            assert_eq!(
                (error.is_session_over(), error.outcome(), error.is_retryable()),
                (over, outcome, retry),
                "{error}"
            );
        }
    }

    #[test]
    fn no_connection_names_every_endpoint_and_its_reason() {
        let attempt =
            |endpoint: &str, why: &str| Attempt { endpoint: endpoint.into(), why: why.into(), certificate: false };
        let error = NoConnection { attempts: vec![attempt("a:1", "asleep"), attempt("b:2", "revoked")] };
        assert_eq!(error.to_string(), "no connection: a:1: asleep; b:2: revoked");
    }
}
