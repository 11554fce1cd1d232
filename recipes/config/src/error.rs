//! Why a configuration was not read or not published.

use std::time::Duration;

use conclave_client::{Outcome, Path};

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was ever published there.
    #[error("nothing is published at {path}")]
    Absent {
        /// Where.
        path: Path,
    },
    /// What lies there is no value of the type that it was read as. It is not touched.
    #[error("{path} at version {version} is no such configuration: {why}. Publish a good one, or roll back")]
    Undecodable {
        /// Which znode.
        path: Path,
        /// At which version of its data.
        version: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The value can't be made into data. Nothing was sent.
    #[error("the value cannot be encoded: {why}")]
    Unencodable {
        /// Why.
        why: String,
    },
    /// The validation said no. Nothing was sent.
    #[error("not published: {why}")]
    Invalid {
        /// What it said.
        why: String,
    },
    /// Somebody else has published meanwhile. Nothing was changed: read it again.
    #[error("{path} is at version {actual}, you said {expected}. Nothing was published; read it again")]
    Conflict {
        /// Which configuration.
        path: Path,
        /// The version that was named.
        expected: u64,
        /// The version that it has; none when there is nothing.
        actual: Found,
    },
    /// That version is not kept.
    #[error("version {version} of {path} is not kept; there are {}", kept(kept_versions))]
    NoSuchVersion {
        /// Which configuration.
        path: Path,
        /// The version that was named.
        version: u64,
        /// Those that are, the oldest first.
        kept_versions: Vec<u64>,
    },
    /// A set that keeps versions has a part that its client may not read, or a version has that it is to go back to: what
    /// is kept would lack it, and nobody would know. Nothing was changed. A `.history` that may not be read counts as one.
    #[error(
        "{path} has {children} children, and only {shown} may be read: a version would lack the others. Nothing was \
         published; have somebody publish who may read all, or keep no versions"
    )]
    Hidden {
        /// The set's znode, or that of the version.
        path: Path,
        /// So many of its children were read.
        shown: u64,
        /// So many it has.
        children: u64,
    },
    /// Others were faster all the time. Nothing was changed.
    #[error("{path} was not published within {} ms: others publish all the time", after.as_millis())]
    TimedOut {
        /// Which configuration.
        path: Path,
        /// The time that it had.
        after: Duration,
    },
    /// A request failed.
    #[error(transparent)]
    Client(#[from] conclave_client::Error),
}

/// A version that was found, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found(pub Option<u64>);

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(version) => write!(f, "{version}"),
            None => f.write_str("none"),
        }
    }
}

fn kept(versions: &[u64]) -> String {
    match versions {
        [] => "none. A set keeps versions once its `keep` says how many".to_owned(),
        versions => versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl Error {
    /// Was it published? `Unknown`: it may have been; read before you repeat it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Absent { .. }
            | Self::Undecodable { .. }
            | Self::Unencodable { .. }
            | Self::Invalid { .. }
            | Self::Conflict { .. }
            | Self::NoSuchVersion { .. }
            | Self::Hidden { .. }
            | Self::TimedOut { .. } => Outcome::NotApplied,
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
    use conclave_client::Doubt;

    use super::*;

    #[test]
    fn each_error_says_what_is_where_and_whether_it_was_published() {
        let path = Path::parse("/app/config").unwrap();
        let conflict = Error::Conflict { path: path.clone(), expected: 3, actual: Found(Some(4)) };
        let gone = Error::Conflict { path: path.clone(), expected: 3, actual: Found(None) };
        let kept = Error::NoSuchVersion { path: path.clone(), version: 1, kept_versions: vec![2, 4] };
        for (error, says) in [
            (conflict, "/app/config is at version 4, you said 3"),
            (gone, "at version none"),
            (kept, "version 1 of /app/config is not kept; there are 2, 4"),
            (Error::NoSuchVersion { path: path.clone(), version: 1, kept_versions: Vec::new() }, "there are none"),
            (
                Error::NoSuchVersion { path: path.clone(), version: 1, kept_versions: Vec::new() },
                "A set keeps versions once its `keep` says how many",
            ),
            (
                Error::Hidden { path: path.clone(), shown: 1, children: 2 },
                "/app/config has 2 children, and only 1 may be read",
            ),
            (Error::Absent { path }, "nothing is published at /app/config"),
            (Error::Invalid { why: "workers is 0".into() }, "not published: workers is 0"),
        ] {
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        }
        let doubt = Error::from(conclave_client::Error::Unknown { why: Doubt::Deadline });
        assert_eq!(doubt.outcome(), Outcome::Unknown);
    }
}
