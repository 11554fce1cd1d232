//! Patterns of names: `*` stands for any text, `?` for one character, all else for itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A pattern that a name matches as a whole, or not.
///
/// Matching takes time in proportion to pattern times name at most, whatever the pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Box<str>);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No name would match it.
    #[error("a pattern of names can't be empty")]
    Empty,
    /// It is longer than a name can be.
    #[error("the pattern is {bytes} bytes long, {} are allowed", limits::NAME_BYTES)]
    Long {
        /// Its bytes.
        bytes: usize,
    },
    /// Names have none.
    #[error("{pattern:?} has a '/' in it: a pattern is held against a znode's last name only")]
    Slash {
        /// The text.
        pattern: String,
    },
}

impl Pattern {
    /// Whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.0.chars(), name.chars());
        // What follows the last star, and the text that it was held against: if that does not fit, the star takes one
        // character more. Earlier stars need not be tried again.
        let mut star = None;
        loop {
            let left = name.clone();
            let fits = match (pattern.next(), name.next()) {
                (Some('*'), _) => {
                    star = Some((pattern.clone(), left.clone()));
                    name = left;
                    true
                }
                (None, None) => return true,
                (Some(wanted), Some(actual)) => wanted == '?' || wanted == actual,
                (None, Some(_)) | (Some(_), None) => false,
            };
            if !fits {
                let Some((after, under)) = &mut star else { return false };
                if under.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), under.clone());
            }
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > limits::NAME_BYTES {
            return Err(PatternError::Long { bytes: text.len() });
        }
        if text.contains('/') {
            return Err(PatternError::Slash { pattern: text.to_owned() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    #[test]
    fn stars_stand_for_any_text_and_question_marks_for_one_character() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "a"),
            ("a*", "a"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("a*c", "abcbc"),
            ("?", "é"),
            ("a?c", "abc"),
            ("**", "x"),
            ("*a*b*", "xxaxxbxx"),
            ("a*a*a", "aaa"),
            ("*.json", "a.json"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a", ""),
            ("a", "b"),
            ("a", "aa"),
            ("aa", "a"),
            ("a*c", "abcb"),
            ("?", ""),
            ("?", "ab"),
            ("a*a*a", "aa"),
            ("*a*b*", "ba"),
            ("*.json", "a.jso"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_backtracks_everywhere_ends() {
        let pattern = "a*".repeat(120) + "b";
        assert!(!matches(&pattern, &"a".repeat(255)));
    }

    #[test]
    fn what_no_name_could_match_is_no_pattern() {
        assert_eq!("".parse::<Pattern>(), Err(PatternError::Empty));
        assert_eq!("x".repeat(256).parse::<Pattern>(), Err(PatternError::Long { bytes: 256 }));
        assert!("/a/*".parse::<Pattern>().unwrap_err().to_string().contains("last name"));
    }
}
