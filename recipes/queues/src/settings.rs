//! What a queue does with its items, and the pure decision of what becomes of the settings that a program brings along.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What holds for a queue, whoever uses it: JSON in its znode. Given by [`Queue::settings`](crate::Queue::settings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a claim holds that is made without saying so. This crate always says so.
    pub visibility: Duration,
    /// How often an item is given to somebody before it is a dead letter.
    pub max_deliveries: u64,
    /// How many items it may have: ready, delayed and claimed ones together.
    pub bound: u64,
    /// How long a key is remembered.
    pub dedup: Duration,
}

impl Default for Settings {
    /// What holds where nobody has said anything else.
    fn default() -> Self {
        Stored::default().into()
    }
}

/// As they lie in the znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stored {
    visibility_ms: u64,
    max_deliveries: u64,
    bound: u64,
    dedup_ms: u64,
}

impl Default for Stored {
    fn default() -> Self {
        Self { visibility_ms: 30_000, max_deliveries: 5, bound: 100_000, dedup_ms: 300_000 }
    }
}

impl From<Stored> for Settings {
    fn from(stored: Stored) -> Self {
        let Stored { visibility_ms, max_deliveries, bound, dedup_ms } = stored;
        let (visibility, dedup) = (Duration::from_millis(visibility_ms), Duration::from_millis(dedup_ms));
        Self { visibility, max_deliveries, bound, dedup }
    }
}

/// What a program says of a queue; what it does not say is as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) visibility_ms: Option<u64>,
    pub(crate) max_deliveries: Option<u64>,
    pub(crate) bound: Option<u64>,
    pub(crate) dedup_ms: Option<u64>,
}

impl Wanted {
    /// Whether there is anything that all who use the queue have to agree on. How long claims hold is not: each says that
    /// for its own.
    pub(crate) const fn is_any(&self) -> bool {
        self.max_deliveries.is_some() || self.bound.is_some() || self.dedup_ms.is_some()
    }

    /// These, and where nothing is said what is usual.
    pub(crate) fn stored(&self) -> Stored {
        let usual = Stored::default();
        Stored {
            visibility_ms: self.visibility_ms.unwrap_or(usual.visibility_ms),
            max_deliveries: self.max_deliveries.unwrap_or(usual.max_deliveries),
            bound: self.bound.unwrap_or(usual.bound),
            dedup_ms: self.dedup_ms.unwrap_or(usual.dedup_ms),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [("max_deliveries", self.max_deliveries), ("bound", self.bound), ("dedup_ms", self.dedup_ms)];
        let said: Vec<String> = said.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?))).collect();
        f.write_str(&said.join(", "))
    }
}

/// What is to be done about the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// They are what is wanted.
    Fits,
    /// Nobody has said anything yet: write these.
    Write(Stored),
    /// They are others, of which these differ. Nobody is overruled without being asked: that would never end between two
    /// programs of two minds.
    Differ(Wanted),
    /// The znode is something else.
    NoQueue(String),
}

/// Out of a znode's data.
pub(crate) fn read(data: &[u8]) -> Result<Stored, String> {
    if data.is_empty() {
        return Ok(Stored::default());
    }
    serde_json::from_slice(data).map_err(|error| error.to_string())
}

/// Decides from what is wanted and what lies in the queue's znode, if there is one.
pub(crate) fn decide(wanted: &Wanted, there: Option<&[u8]>) -> Decision {
    let Some(data) = there.filter(|data| !data.is_empty()) else { return Decision::Write(wanted.stored()) };
    let stored = match read(data) {
        Ok(stored) => stored,
        Err(why) => return Decision::NoQueue(why),
    };
    let other = |there: u64, wanted: Option<u64>| wanted.filter(|wanted| *wanted != there).map(|_| there);
    let differ = Wanted {
        visibility_ms: None,
        max_deliveries: other(stored.max_deliveries, wanted.max_deliveries),
        bound: other(stored.bound, wanted.bound),
        dedup_ms: other(stored.dedup_ms, wanted.dedup_ms),
    };
    if differ.is_any() { Decision::Differ(differ) } else { Decision::Fits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_once_and_others_are_told_and_not_overruled() {
        let wanted = Wanted { max_deliveries: Some(3), visibility_ms: Some(9), ..Wanted::default() };
        let whole = Stored { visibility_ms: 9, max_deliveries: 3, ..Stored::default() };
        let differ = |max_deliveries, bound| Decision::Differ(Wanted { max_deliveries, bound, ..Wanted::default() });
        for (wanted, there, expected) in [
            (wanted, None, Decision::Write(whole)),
            // It was made as the parent of something.
            (wanted, Some(""), Decision::Write(whole)),
            (wanted, Some(r#"{"max_deliveries":3}"#), Decision::Fits),
            (wanted, Some(r#"{"max_deliveries":3,"visibility_ms":1,"bound":7}"#), Decision::Fits),
            (wanted, Some(r#"{"max_deliveries":4}"#), differ(Some(4), None)),
            // What is not said there is what is usual.
            (wanted, Some("{}"), differ(Some(5), None)),
            (Wanted { max_deliveries: Some(5), ..wanted }, Some("{}"), Decision::Fits),
            (Wanted { bound: Some(1), ..wanted }, Some(r#"{"bound":2}"#), differ(Some(5), Some(2))),
            (wanted, Some("hello"), Decision::NoQueue("expected value at line 1 column 1".into())),
        ] {
            assert_eq!(decide(&wanted, there.map(str::as_bytes)), expected, "{wanted:?} {there:?}");
        }
        assert!(!Wanted { visibility_ms: Some(1), ..Wanted::default() }.is_any());
        let said = Wanted { max_deliveries: Some(3), dedup_ms: Some(4), ..Wanted::default() };
        assert_eq!(said.to_string(), "max_deliveries 3, dedup_ms 4");
    }

    #[test]
    fn what_is_written_is_what_the_plugin_reads() {
        let text = serde_json::to_string(&Stored::default()).unwrap();
        assert_eq!(text, r#"{"visibility_ms":30000,"max_deliveries":5,"bound":100000,"dedup_ms":300000}"#);
        assert_eq!(Settings::from(read(text.as_bytes()).unwrap()), Settings::default());
    }
}
