//! The keys of one object of a line, taken one by one: each has a type, and none may be left over.

use bytes::Bytes;
use conclave_protocol::Path;
use serde_json::{Map, Value};

use crate::base64;
use crate::nearest::nearest;
use crate::request::Wrong;

/// An object that is being read.
pub(crate) struct Fields {
    /// Where the object stands, such as `step 3`; empty at the top.
    at: String,
    map: Map<String, Value>,
    /// The keys that were asked for: the known ones.
    known: Vec<String>,
}

impl Fields {
    /// The fields of an object that stands there.
    pub(crate) fn new(at: impl Into<String>, map: Map<String, Value>) -> Self {
        Self { at: at.into(), map, known: Vec::new() }
    }

    /// The object that this value is.
    pub(crate) fn of(at: impl Into<String>, value: Value) -> Result<Self, Wrong> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Self::new(at, map)),
            other => Err(Wrong::line(format!("{}: {}", at, expected("an object", &other)))),
        }
    }

    /// Whether there is such a key, with a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// Its keys that have a value.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// A value; `null` is the same as none.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// `true` or `false`; false when it is left out.
    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, Wrong> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    /// A number from 0 up.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>, Wrong> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| self.wrong(key, "a whole number from 0 up", &value))
    }

    /// How many at most, from 1 up: with none, who goes on after the last one would never come to an end.
    pub(crate) fn limit(&mut self, most: u32) -> Result<u32, Wrong> {
        let Some(number) = self.number("limit")? else { return Ok(most) };
        if number == 0 {
            return Err(self.wrong("limit", "a whole number from 1 up", &Value::from(0)));
        }
        // Larger ones are cut by the member to what it gives; what no u32 holds is surely larger.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// A 64-bit integer.
    pub(crate) fn integer(&mut self, key: &str) -> Result<Option<i64>, Wrong> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.wrong(key, "a whole number of 64 bits", &value))
    }

    /// A string.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Wrong> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a string", &other)),
        }
    }

    /// A list.
    pub(crate) fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>, Wrong> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, "a list", &other)),
        }
    }

    /// A path, which must be there.
    pub(crate) fn path(&mut self, key: &str) -> Result<Path, Wrong> {
        match self.take(key) {
            Some(Value::String(text)) => self.parsed_path(key, &text),
            Some(other) => Err(self.wrong(key, "a path, as a string,", &other)),
            None => Err(self.missing(key, "a path")),
        }
    }

    /// A text as a path.
    pub(crate) fn parsed_path(&self, key: &str, text: &str) -> Result<Path, Wrong> {
        Path::parse(text).map_err(|error| Wrong::path(self.here(key, &error.to_string())))
    }

    /// Bytes: a string under the key, or base64 under the key with `_base64` behind it.
    pub(crate) fn data(&mut self, key: &str) -> Result<Option<Bytes>, Wrong> {
        let coded = format!("{key}_base64");
        let text = self.text(key)?;
        match (text, self.text(&coded)?) {
            (Some(_), Some(_)) => Err(self.bad(key, &format!("there is {coded:?} too; one of them"))),
            (Some(text), None) => Ok(Some(text.into_bytes().into())),
            (None, None) => Ok(None),
            (None, Some(text)) => match base64::decode(&text) {
                Some(bytes) => Ok(Some(bytes.into())),
                None => Err(self.bad(&coded, "it is not base64 (standard alphabet, padded)")),
            },
        }
    }

    /// Bytes that must be there.
    pub(crate) fn needed_data(&mut self, key: &str) -> Result<Bytes, Wrong> {
        self.data(key)?.ok_or_else(|| self.missing(key, &format!("a string (or \"{key}_base64\")")))
    }

    /// One of these words.
    pub(crate) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Wrong> {
        let Some(value) = self.take(key) else { return Ok(None) };
        self.one_of(key, &value, words).map(Some)
    }

    /// The word that this value is.
    pub(crate) fn one_of<T: Copy>(&self, key: &str, value: &Value, words: &[(&str, T)]) -> Result<T, Wrong> {
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(key, &format!("one of {}", all.join(", ")), value)
        })
    }

    /// Nothing may be left that nobody asked for.
    pub(crate) fn end(self, what: &str) -> Result<(), Wrong> {
        let Some(key) = self.map.iter().find(|(_, value)| !value.is_null()).map(|(key, _)| key.clone()) else {
            return Ok(());
        };
        let meant = nearest(&key, self.known.iter().map(String::as_str).filter(|known| *known != key));
        let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        Err(Wrong::line(self.here(&key, &format!("{what} has no such key{hint}"))))
    }

    /// A key that has to be there is not.
    pub(crate) fn missing(&self, key: &str, what: &str) -> Wrong {
        Wrong::line(self.here(key, &format!("it is missing; {what} is expected")))
    }

    /// A value is of another type.
    pub(crate) fn wrong(&self, key: &str, what: &str, actual: &Value) -> Wrong {
        Wrong::line(self.here(key, &expected(what, actual)))
    }

    /// A value does not do, and why.
    pub(crate) fn bad(&self, key: &str, why: &str) -> Wrong {
        Wrong::line(self.here(key, why))
    }

    /// Where the object stands.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    fn here(&self, key: &str, what: &str) -> String {
        if self.at.is_empty() { format!("{key:?}: {what}") } else { format!("{}: {key:?}: {what}", self.at) }
    }
}

/// What was expected, and what came.
pub(crate) fn expected(what: &str, actual: &Value) -> String {
    const SHOWN: usize = 60;
    let text = actual.to_string();
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{what} is expected, and it is {shown}{more}")
}
