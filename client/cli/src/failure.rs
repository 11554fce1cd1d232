//! How a command fails: the message, its JSON and the exit code.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use conclave_client::{ConfigError, Error, NoConnection, Outcome, Refusal};
use serde_json::{Map, Value, json};

/// Done.
pub(crate) const DONE: u8 = 0;
/// Refused: an answer, and nothing was changed.
pub(crate) const REFUSED: u8 = 1;
/// What was asked makes no sense, or the configuration does not.
pub(crate) const USAGE: u8 = 2;
/// No member could be reached, or none wanted the certificate.
pub(crate) const NO_CONNECTION: u8 = 3;
/// It may have happened.
pub(crate) const UNKNOWN: u8 = 4;
/// It did not happen in time, and will not.
pub(crate) const TIMED_OUT: u8 = 5;

/// Does the command write? Decides whether "nothing was changed" is worth saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// It only reads.
    Read,
    /// It writes.
    Write,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client's error.
    Client { error: Error, does: Does },
    /// Refused on this side: a file, an import. `text` says what, what happened, and what to do.
    Refused { code: &'static str, text: String },
    /// With an exit code and an outcome of its own; `text` is the whole message.
    Exact { code: &'static str, exit: u8, outcome: Outcome, text: String },
    /// What was asked makes no sense.
    Usage(String),
    /// Stdout cannot be written.
    Output(io::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Error::from(error).reading()
    }
}

/// Turns a client's error into a failure, with what the command does.
pub(crate) trait While {
    /// What it becomes.
    type Then;

    /// Of a command that reads.
    fn reading(self) -> Self::Then;

    /// Of a command that writes.
    fn writing(self) -> Self::Then;
}

impl While for Error {
    type Then = Failure;

    fn reading(self) -> Failure {
        Failure::Client { error: self, does: Does::Read }
    }

    fn writing(self) -> Failure {
        Failure::Client { error: self, does: Does::Write }
    }
}

impl<T> While for conclave_client::Result<T> {
    type Then = Result<T, Failure>;

    fn reading(self) -> Result<T, Failure> {
        self.map_err(While::reading)
    }

    fn writing(self) -> Result<T, Failure> {
        self.map_err(While::writing)
    }
}

impl Failure {
    /// A file that cannot be read or written.
    pub(crate) fn file(path: &std::path::Path, why: impl std::fmt::Display) -> Self {
        Self::Refused { code: "file", text: format!("{}: {why}. Nothing was changed.", path.display()) }
    }

    /// A reader that went away, as in `conclave watch / | head`: no failure to speak of.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Client { error, .. } => match error {
                Error::Refused(_) | Error::SessionOver { outcome: Outcome::NotApplied } => REFUSED,
                Error::TimedOut { .. } => TIMED_OUT,
                Error::NoConnection(_) | Error::Closed { outcome: Outcome::NotApplied } => NO_CONNECTION,
                // A certificate or key that cannot be read says so itself; all of it is configuration.
                Error::Config(_) => USAGE,
                // The outcome decides, for errors that are yet to come too.
                other => match other.outcome() {
                    Outcome::NotApplied => REFUSED,
                    Outcome::Unknown => UNKNOWN,
                },
            },
            Self::Refused { .. } | Self::Output(_) => REFUSED,
            Self::Exact { exit, .. } => *exit,
            Self::Usage(_) => USAGE,
        }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Client { error, .. } => match error {
                Error::Refused(refusal) => refusal.code(),
                Error::TimedOut { .. } => "timed-out",
                Error::NoConnection(none) if none.is_certificate_problem() => "certificate",
                Error::NoConnection(_) | Error::Closed { outcome: Outcome::NotApplied } => "no-connection",
                Error::SessionOver { outcome: Outcome::NotApplied } => "session-over",
                Error::Config(_) => "config",
                Error::Rejected { .. } => "rejected",
                other => match other.outcome() {
                    Outcome::NotApplied => "failed",
                    Outcome::Unknown => "outcome-unknown",
                },
            },
            Self::Refused { code, .. } | Self::Exact { code, .. } => code,
            Self::Usage(_) => "usage",
            Self::Output(_) => "output",
        }
    }

    /// What is known of what was asked.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Client { does: Does::Read, .. } | Self::Refused { .. } | Self::Usage(_) => Outcome::NotApplied,
            Self::Client { error, .. } => error.outcome(),
            Self::Exact { outcome, .. } => *outcome,
            // The result could not be told, which comes after it happened.
            Self::Output(_) => Outcome::Unknown,
        }
    }

    /// What people read: what, where, actual against expected; what happened; what to do.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Client { error, does } => client_message(error, *does),
            Self::Refused { code, text } => format!("refused: {code}: {text}"),
            Self::Exact { text, .. } => text.clone(),
            Self::Usage(text) => format!("error: {text}"),
            Self::Output(error) => format!("error: stdout: {error}. What was asked for may have been done."),
        }
    }

    /// What programs read.
    pub(crate) fn json(&self) -> Value {
        let outcome = match self.outcome() {
            Outcome::NotApplied => "not-applied",
            Outcome::Unknown => "unknown",
        };
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(self.code()));
        error.insert("message".to_owned(), json!(self.message()));
        error.insert("outcome".to_owned(), json!(outcome));
        error.insert("exit".to_owned(), json!(self.exit()));
        match self {
            Self::Client { error: Error::Refused(refusal), .. } => {
                error.insert("detail".to_owned(), detail(refusal));
            }
            Self::Client { error: Error::NoConnection(none), .. } => {
                let attempt = |one: &conclave_client::Attempt| json!({ "endpoint": one.endpoint, "why": one.why, "certificate": one.certificate });
                error.insert("attempts".to_owned(), none.attempts.iter().map(attempt).collect());
            }
            _ => {}
        }
        json!({ "error": error })
    }
}

/// A refusal's fields, without its name: that is the code.
fn detail(refusal: &Refusal) -> Value {
    match serde_json::to_value(refusal) {
        Ok(Value::Object(named)) => named.into_iter().next().map_or(Value::Null, |(_, fields)| fields),
        _ => Value::Null,
    }
}

fn client_message(error: &Error, does: Does) -> String {
    let unchanged = if does == Does::Write { " Nothing was changed." } else { "" };
    match error {
        Error::Refused(refusal) => {
            let hint = hint(refusal);
            let space = if hint.is_empty() { "" } else { " " };
            format!("refused: {}: {}.{unchanged}{space}{hint}", refusal.code(), sentence(&refusal.to_string()))
        }
        Error::NoConnection(none) => no_connection(none),
        Error::TimedOut { after } => {
            format!("timed out: no answer within {}.{unchanged} Try again, or with a longer --timeout.", span(*after))
        }
        Error::Config(error) => format!("error: {}.", sentence(&error.to_string())),
        Error::SessionOver { outcome: Outcome::NotApplied } => {
            format!("refused: session-over: the session is over.{unchanged} Run it again: a new session begins.")
        }
        Error::Closed { outcome: Outcome::NotApplied } => {
            format!("no connection: the connection was closed.{unchanged} Try again.")
        }
        other if does == Does::Read => format!("error: {}.", sentence(&other.to_string())),
        other if other.outcome() == Outcome::Unknown => {
            let text = other.to_string();
            let why = text.strip_prefix("outcome unknown: ").unwrap_or(&text);
            format!("outcome unknown: {}. It may have happened. Read before you repeat it.", sentence(why))
        }
        other => format!("error: {}.{unchanged}", sentence(&other.to_string())),
    }
}

fn no_connection(none: &NoConnection) -> String {
    let what = if none.is_certificate_problem() {
        "The certificate is at fault: make another with `conclave pki`, or name the right one in client.toml."
    } else {
        "Is the cluster running? `conclave dev` starts one; --endpoints or CONCLAVE_ENDPOINTS names another."
    };
    format!("no connection{}. Nothing was sent. {what}", sentence(&attempts(none)))
}

/// Who was tried and why it failed; those that failed alike together.
fn attempts(none: &NoConnection) -> String {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for attempt in &none.attempts {
        reasons.entry(attempt.why.replace(&attempt.endpoint, "it")).or_default().push(&attempt.endpoint);
    }
    let mut text = String::new();
    for (why, mut endpoints) in reasons {
        endpoints.sort_unstable();
        text.push_str(if text.is_empty() { ": " } else { "; " });
        text.push_str(&format!("{}: {}", endpoints.join(", "), sentence(&why)));
    }
    text
}

/// What to do about a refusal; nothing where the refusal says it all.
fn hint(refusal: &Refusal) -> &'static str {
    match refusal.code() {
        // Whatever was asked: to read, to delete, or to create something below it.
        "no-znode" => "`conclave ls` shows what there is; `create --parents` creates what is missing above.",
        "znode-exists" => "Use `conclave set`, or another path.",
        "bad-version" => "Read it again, or leave out --if-version.",
        "not-empty" => "Delete its children first, or use --recursive.",
        "ephemeral-parent" => "Choose a parent that is not ephemeral.",
        "no-session" | "session-over" => "Run it again: a new session begins.",
        "fenced" => "The lock was lost or given back: take it again, then write.",
        "not-allowed" => "Ask an administrator, or show another certificate.",
        "limit" => match refusal {
            Refusal::Limit { what, .. } if what.contains("subtree") => {
                "`conclave delete --in-parts` deletes it piece by piece."
            }
            _ => "Make it smaller, or split it.",
        },
        "other-kind" => "Delete it first, or choose another path.",
        "check-failed" => "Read it again.",
        "bad-number" => "Set it to a number first, or use another znode.",
        "locks-out" => "Let somebody administer it: add a grant such as me:a.",
        "bad-acl-version" => "Read it again with `conclave acl get`, or leave out --if-acl-version.",
        "future-zxid" => "Use a zxid that this cluster has told, or leave it out.",
        "other-cluster" => {
            "Zxids of one cluster mean nothing in another: begin without --since, or connect to the other one."
        }
        "disk-full" => "Delete what is not needed, or make room on the leader's disk; it goes on by itself then.",
        "bad-path" => "A path is / or names with a / before each, like /app/config.",
        "no-plugin" => "`conclave plugin list` names those that are installed.",
        "no-procedure" | "no-query" => "`conclave plugin show` names its procedures and queries.",
        "plugin-exists" => "Use `conclave plugin upgrade`, or another --name.",
        "bad-arguments" => "`conclave plugin show` says which arguments it takes.",
        "plugin-disabled" => "`conclave plugin show` says why; `conclave plugin enable` runs it again.",
        "plugin-loop" => "That is a mistake in the plugin: `conclave plugin logs` may tell more.",
        "plugin-unfit" => "`conclave plugin check` looks at the whole component, without a cluster.",
        "plugin-not-allowed" => {
            "`conclave plugin show` says what it is allowed; `conclave plugin upgrade --allow` allows more of what it asks for."
        }
        "read-only" => "Write from a procedure or an `after` trigger instead.",
        "cancelled" => "Call it again.",
        "already-done" => "Give back what it returned, such as a lock, in the plugin's own way.",
        "plugin-failed" => {
            "What it had written is undone; the same call will probably fail again. `conclave plugin logs` may tell more; \
             budgets are raised by `conclave plugin set --budget`."
        }
        _ => "",
    }
}

/// Without the full stop at its end, which the caller writes.
fn sentence(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

/// A time as people write it.
pub(crate) fn span(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1000 => format!("{ms} ms"),
        _ if ms.is_multiple_of(1000) || ms >= 10_000 => format!("{} s", ms / 1000),
        _ => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

#[cfg(test)]
mod tests;
