//! Scenarios: who asks what, and what must be answered, as a text that people can read and several back ends can run.

use std::time::Duration;

/// A scenario's moments, in order.
///
/// ```text
/// # What a line begins with says what it is; an indented line continues the one before.
/// @alice                                      the client that asks from here on; there is one, `one`, to begin with
/// {"create": "/a", "data": "x"}               a request
/// = {"ok": {"path": "/a", "stat": {...}}}     what must answer it; without such a line it must be `ok`
/// < {"watch": 1, "zxid": $z, "changes": [_]}  the client's next event
/// > 5s                                        time passes
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What happens.
    pub moments: Vec<Moment>,
}

/// One of a scenario's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The number of its first line, from 1.
    pub line: usize,
    /// What happens.
    pub what: What,
}

/// What happens in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// From here on this client asks.
    Client(String),
    /// A request, and what must answer it.
    Request {
        /// The line.
        text: String,
        /// What answers it; none: anything that is `ok`.
        expected: Option<String>,
    },
    /// The client's next event.
    Event(String),
    /// Time passes.
    Advance(Duration),
}

/// A line of a scenario that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScenarioError {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The first line that means nothing.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut moments: Vec<Moment> = Vec::new();
        for (line, text) in joined(text) {
            let wrong = |message: String| ScenarioError { line, message };
            let rest = text.get(1..).unwrap_or_default().trim();
            let what = match text.as_bytes().first() {
                Some(b'@') if !rest.is_empty() && !rest.contains(char::is_whitespace) => What::Client(rest.to_owned()),
                Some(b'{') => What::Request { text, expected: None },
                Some(b'<') => What::Event(rest.to_owned()),
                Some(b'>') => What::Advance(duration(rest).ok_or_else(|| wrong(format!("{rest:?} is no time")))?),
                Some(b'=') => {
                    match moments.last_mut().map(|moment| &mut moment.what) {
                        Some(What::Request { expected: expected @ None, .. }) => *expected = Some(rest.to_owned()),
                        _ => return Err(wrong("there is no request that this could answer".to_owned())),
                    }
                    continue;
                }
                _ => return Err(wrong(format!("{text:?} is no line of a scenario"))),
            };
            moments.push(Moment { line, what });
        }
        Ok(Self { moments })
    }
}

/// The lines without comments, continued ones as one, each with its number.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, before)) if line.starts_with([' ', '\t']) => {
                before.push(' ');
                before.push_str(trimmed);
            }
            _ => lines.push((n + 1, trimmed.to_owned())),
        }
    }
    lines
}

/// `5s`, `200ms`, `3m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_line_by_line() {
        let text =
            "# a\n@alice\n{\"get\": \"/a\"}\n= {\"ok\":\n    _}\n\n{\"get\":\n  \"/b\"}\n< {\"watch\": 1}\n> 200ms\n";
        let moments = Scenario::parse(text).unwrap().moments;
        let request = |text: &str, expected: Option<&str>| What::Request {
            text: text.to_owned(),
            expected: expected.map(str::to_owned),
        };
        let seen: Vec<(usize, What)> = moments.into_iter().map(|moment| (moment.line, moment.what)).collect();
        assert_eq!(
            seen,
            [
                (2, What::Client("alice".into())),
                (3, request("{\"get\": \"/a\"}", Some("{\"ok\": _}"))),
                (7, request("{\"get\": \"/b\"}", None)),
                (9, What::Event("{\"watch\": 1}".into())),
                (10, What::Advance(Duration::from_millis(200))),
            ]
        );
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        for (text, line) in [
            ("= {}", 1),
            ("{}\n= {}\n= {}", 3),
            ("@alice\n= {}", 2),
            ("@a b", 1),
            ("@", 1),
            ("> 5", 1),
            ("> s", 1),
            ("\nhello", 2),
            ("é", 1),
        ] {
            assert_eq!(Scenario::parse(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
