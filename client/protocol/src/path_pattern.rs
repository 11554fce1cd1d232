//! Patterns of paths: what triggers and capabilities are bound to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Path, Pattern, limits};

/// A pattern that a path matches as a whole, or not: names between `/`, in which `*` stands for any text and `?` for one
/// character; a name `**` stands for any number of names, none included. `/app/**` is `/app` and all that is below it, `/app/*`
/// its children.
///
/// Matching takes time in proportion to names of the pattern times names of the path at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern(Box<str>);

/// One name of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternName<'a> {
    /// This name.
    Literal(&'a str),
    /// A name that matches.
    Like(&'a str),
    /// Any number of names.
    Any,
}

impl PathPattern {
    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        let (pattern, names): (Vec<_>, Vec<&str>) = (self.names().collect(), names(path.as_str()).collect());
        let (mut at, mut name) = (0, 0);
        // What follows the last `**`, and where it was held against the path.
        let mut star: Option<(usize, usize)> = None;
        loop {
            let fits = match (pattern.get(at), names.get(name)) {
                (Some(PatternName::Any), _) => {
                    star = Some((at + 1, name));
                    at += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(PatternName::Literal(wanted)), Some(actual)) => wanted == actual,
                (Some(PatternName::Like(wanted)), Some(actual)) => {
                    wanted.parse::<Pattern>().is_ok_and(|pattern| pattern.matches(actual))
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
            if fits {
                (at, name) = (at + 1, name + 1);
                continue;
            }
            let Some((after, under)) = &mut star else { return false };
            if *under >= names.len() {
                return false;
            }
            *under += 1;
            (at, name) = (*after, *under);
        }
    }

    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = PatternName<'_>> {
        names(&self.0).map(|name| match name {
            "**" => PatternName::Any,
            _ if name.contains(['*', '?']) => PatternName::Like(name),
            _ => PatternName::Literal(name),
        })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of an absolute path.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1).filter(|name| !name.is_empty())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("the pattern {text:?} {why}"));
        let Some(below) = text.strip_prefix('/') else { return wrong("does not begin with '/'") };
        if text.len() > limits::PATTERN_BYTES {
            return wrong(&format!("is longer than {} bytes", limits::PATTERN_BYTES));
        }
        if !below.is_empty() && below.split('/').any(str::is_empty) {
            return wrong("has an empty name in it");
        }
        if below.split('/').count() > limits::DEPTH {
            return wrong(&format!("has more than {} names", limits::DEPTH));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().unwrap().matches(&path.parse().unwrap())
    }

    #[test]
    fn a_name_that_is_two_stars_stands_for_any_number_of_names() {
        for (pattern, path) in [
            ("/", "/"),
            ("/**", "/"),
            ("/**", "/a/b/c"),
            ("/app/**", "/app"),
            ("/app/**", "/app/x/y"),
            ("/app/*", "/app/x"),
            ("/app/x-*", "/app/x-1"),
            ("/**/config", "/config"),
            ("/**/config", "/a/b/config"),
            ("/a/**/b/**/c", "/a/b/x/b/c"),
            ("/a/**/b/*", "/a/b/b/b"),
            ("/*/?", "/a/b"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/", "/a"),
            ("/app/**", "/apple"),
            ("/app/*", "/app"),
            ("/app/*", "/app/x/y"),
            ("/**/config", "/config/x"),
            ("/a/**/b/**/c", "/a/x/c"),
            ("/*/?", "/a/bc"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_backtracks_everywhere_ends() {
        let pattern = format!("{}/b", "/**/a".repeat(31));
        assert!(!matches(&pattern, &"/a".repeat(64)));
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        for (text, why) in [("", "begin"), ("a", "begin"), ("//", "empty"), ("/a/", "empty"), ("/a//b", "empty")] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(format!("/{}", "a".repeat(limits::PATTERN_BYTES)).parse::<PathPattern>().is_err());
        assert!("/a".repeat(65).parse::<PathPattern>().is_err());
    }
}
