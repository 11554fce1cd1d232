//! What the server's commands say, and how they end.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An answer: what was asked for cannot be, as things are. Exit code 1.
    #[error("refused: {code}: {text}")]
    Refused {
        /// Stable, for scripts.
        code: Cow<'static, str>,
        /// What, where, and what to do.
        text: String,
    },
    /// What was asked, or a configuration file, makes no sense. Exit code 2.
    #[error("error: {0}")]
    Usage(String),
    /// Something went wrong. Exit code 1.
    #[error("error: {0}")]
    Broken(String),
}

/// How a command ends.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A refusal.
    pub(crate) fn refused(code: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), text: text.into() }
    }

    /// Something that went wrong, with what was being done.
    pub(crate) fn broken(what: impl Display, why: impl Display) -> Self {
        Self::Broken(format!("{what}: {why}"))
    }

    const fn exit(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Broken(_) => 1,
            Self::Usage(_) => 2,
        }
    }

    /// What programs read: the fields that the client's commands have too.
    fn json(&self) -> serde_json::Value {
        let (code, outcome) = match self {
            Self::Refused { code, .. } => (&**code, "not-applied"),
            Self::Usage(_) => ("usage", "not-applied"),
            // It may have been half done.
            Self::Broken(_) => ("error", "unknown"),
        };
        let (message, exit) = (self.to_string(), self.exit());
        serde_json::json!({ "error": { "code": code, "message": message, "outcome": outcome, "exit": exit } })
    }
}

/// The exit code of an outcome; a failure is said on stderr first, in words or as JSON.
pub(crate) fn end(outcome: &Outcome, json: bool) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if json {
        complain(failure.json());
    } else {
        complain(failure);
    }
    ExitCode::from(failure.exit())
}

/// A line on stdout. A reader that went away is no reason to die: `dev | head -1` must not take the cluster down, as
/// `println!` would.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on stderr.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `s` for every number but one.
pub(crate) const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
