//! Why a plugin says no: the tree's refusals, and the plugin's own words.

use std::fmt;

/// What a procedure returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not done. Returned from a procedure it undoes the transaction, and the caller is told its text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The tree refused an operation. The plugin may handle it and go on.
    Refused {
        /// The stable code, `no-znode` for example.
        code: String,
        /// What, where, and the actual against the expected value.
        message: String,
    },
    /// The plugin's own words.
    Said(String),
}

impl Error {
    /// The tree's code, when the tree refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Said(_) => None,
        }
    }

    /// It in words, without the code.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            Self::Said(words) => words,
        }
    }

    /// The tree refused with this code.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code() == Some(code)
    }

    pub(crate) fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => {
                f.write_str(code)?;
                f.write_str(": ")?;
                f.write_str(message)
            }
            Self::Said(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(words: String) -> Self {
        Self::Said(words)
    }
}

impl From<&str> for Error {
    fn from(words: &str) -> Self {
        Self::Said(words.to_owned())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Said(error.to_string())
    }
}
