//! Paths, checked once: what holds a [`Path`] need not check it again.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Bytes of one name.
const NAME_BYTES: usize = 255;
/// Names of a path.
const DEPTH: usize = 64;

/// An absolute path: `/`, or names each preceded by `/`. Names are 1 to 255 bytes of UTF-8 without `/` and control characters,
/// and not `.` or `..`; at most 64 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

impl Path {
    /// The path that this text is.
    ///
    /// # Errors
    /// `bad-path`, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned())
    }

    /// The path of the child of this name.
    ///
    /// # Errors
    /// `bad-path`: it is no name, or the path would be too deep.
    pub fn join(&self, name: &str) -> Result<Self> {
        if name.contains('/') {
            return Err(bad(name, "is no name: it has a / in it"));
        }
        let above = if self.0 == "/" { "" } else { &self.0 };
        Self::try_from([above, "/", name].concat())
    }

    /// The path above; none of the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            _ if self.0 == "/" => None,
            Some(0) | None => Some(Self("/".to_owned())),
            Some(at) => Some(Self(self.0[..at].to_owned())),
        }
    }

    /// The last name; empty of the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether a pattern, as in manifests, is of this path: names between `/`, in which `*` stands for any text and `?` for one
    /// character; a name `**` stands for any number of names, none included.
    #[must_use]
    pub fn matches(&self, pattern: &str) -> bool {
        fn names(text: &str) -> Vec<&str> {
            text.split('/').filter(|name| !name.is_empty()).collect()
        }
        glob(
            &names(pattern),
            &names(&self.0),
            |name| *name == "**",
            |pattern, name| {
                let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
                glob(&pattern, &name, |c| *c == '*', |pattern, c| *pattern == '?' || pattern == c)
            },
        )
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a sequence fits a pattern in which some elements stand for any number of others. Going back to the last of these is
/// enough, so it takes time in proportion to one length times the other.
fn glob<T>(pattern: &[T], of: &[T], is_any: impl Fn(&T) -> bool, fits: impl Fn(&T, &T) -> bool) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while seen < of.len() {
        match pattern.get(at) {
            Some(any) if is_any(any) => {
                back = Some((at + 1, seen));
                at += 1;
            }
            Some(one) if fits(one, &of[seen]) => (at, seen) = (at + 1, seen + 1),
            _ => {
                let Some((after, under)) = back else { return false };
                back = Some((after, under + 1));
                (at, seen) = (after, under + 1);
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

fn bad(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::refused("bad-path", ["path \"", &shown, "\" ", why].concat())
}

impl TryFrom<String> for Path {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let Some(below) = text.strip_prefix('/') else { return Err(bad(&text, "does not begin with /")) };
        if below.is_empty() {
            return Ok(Self(text));
        }
        for (at, name) in below.split('/').enumerate() {
            let why = match name {
                "" => "has an empty name in it (// or a / at the end)",
                "." | ".." => "has a name . or .. in it: paths are absolute and never resolved",
                _ if name.len() > NAME_BYTES => "has a name of more than 255 bytes",
                _ if name.chars().any(char::is_control) => "has a control character in it",
                _ if at >= DEPTH => "has more than 64 names",
                _ => continue,
            };
            return Err(bad(&text, why));
        }
        Ok(Self(text))
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl From<&Path> for String {
    fn from(path: &Path) -> Self {
        path.0.clone()
    }
}

impl Deref for Path {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialEq<&str> for Path {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path_here_is_one_in_the_cluster() {
        let long = format!("/{}", "n".repeat(256));
        let deep = "/a".repeat(65);
        for text in ["/", "/a", "/a/b c", "/ä", "", "a", "//", "/a/", "/a//b", "/.", "/a/../b", "/a\n", &long, &deep] {
            assert_eq!(Path::parse(text).is_ok(), conclave_protocol::Path::parse(text).is_ok(), "{text}");
        }
        assert!(Path::parse(&"/a".repeat(64)).is_ok());
    }

    #[test]
    fn a_pattern_matches_here_what_it_matches_in_the_cluster() {
        let patterns = ["/", "/**", "/a/**", "/a/*", "/*/b", "/**/b", "/a/**/c/*", "/a?/x-*", "/**/a*b*/**"];
        let paths =
            ["/", "/a", "/a/b", "/b", "/a/x/c/d", "/a/c/c", "/ab/x-1", "/ab/x", "/q/aXbY/z", "/a/b/c/d/e", "/\u{e4}b"];
        for (pattern, path) in patterns.iter().flat_map(|pattern| paths.iter().map(move |path| (pattern, path))) {
            let parsed: conclave_protocol::PathPattern = pattern.parse().unwrap();
            let expected = parsed.matches(&path.parse().unwrap());
            assert_eq!(Path::parse(path).unwrap().matches(pattern), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_goes_up_and_down() {
        let path = Path::parse("/a/b").unwrap();
        assert_eq!(path.join("c").unwrap(), "/a/b/c");
        assert_eq!(path.parent().unwrap(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), "/");
        assert_eq!(Path::parse("/").unwrap().parent(), None);
        assert_eq!(Path::parse("/").unwrap().join("x").unwrap(), "/x");
        assert_eq!((path.name(), Path::parse("/").unwrap().name()), ("b", ""));
        assert!(path.join("c/d").unwrap_err().is("bad-path"));
        assert!(path.join("").is_err());
    }
}
