//! A path in the tree, parsed once: what holds a [`Path`] need not check it again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// An absolute path: `/`, or names each preceded by `/`.
///
/// Names are 1 to 255 bytes of UTF-8 without `/`, NUL or other control characters, and are not `.` or `..`.
/// At most 64 names. Ordered by bytes. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("path {0:?} does not begin with /")]
    Relative(String),
    /// Two slashes in a row, or one at the end.
    #[error("path {0:?} has an empty name in it (// or a / at the end)")]
    EmptyName(String),
    /// A name is `.` or `..`.
    #[error("path {0:?} has a name . or .. in it: paths are absolute and never resolved")]
    Dots(String),
    /// A name has a NUL or another control character.
    #[error("path {0:?} has a control character in it")]
    Control(String),
    /// A name is too long.
    #[error("a name in the path is {bytes} bytes long, {} are allowed: {name:?}...", limits::NAME_BYTES)]
    LongName {
        /// The name's first characters.
        name: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Too many names.
    #[error("the path has {names} names, {} are allowed", limits::DEPTH)]
    Deep {
        /// How many it has.
        names: usize,
    },
}

/// The root.
impl Default for Path {
    fn default() -> Self {
        Self::root()
    }
}

impl Path {
    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Parses an absolute path.
    ///
    /// # Errors
    /// [`PathError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError::Relative(excerpt(text)));
        };
        if rest.is_empty() {
            return Ok(Self::root());
        }
        let mut names = 0;
        for name in rest.split('/') {
            check_name(name, text)?;
            names += 1;
        }
        if names > limits::DEPTH {
            return Err(PathError::Deep { names });
        }
        Ok(Self(text.into()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Its names, from the root down; none for the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        // "/".split('/') gives two empty parts and "/a".split('/') one: names are never empty.
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// How many names it has; 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.bytes().filter(|b| *b == b'/').count() }
    }

    /// The path above, or none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(at) => Some(Self(self.0[..at].into())),
        }
    }

    /// Its last name, or none for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.names().next_back()
    }

    /// The path of a child.
    ///
    /// # Errors
    /// When `name` is no name, or the path would become too deep.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        let text = if self.is_root() { format!("/{name}") } else { format!("{}/{name}", self.0) };
        if name.contains('/') {
            return Err(PathError::EmptyName(excerpt(&text)));
        }
        check_name(name, &text)?;
        let names = self.depth() + 1;
        if names > limits::DEPTH {
            return Err(PathError::Deep { names });
        }
        Ok(Self(text.into()))
    }

    /// True when `self` is `above` or lies below it.
    #[must_use]
    pub fn is_within(&self, above: &Self) -> bool {
        if above.is_root() {
            return true;
        }
        match self.0.strip_prefix(&*above.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

fn check_name(name: &str, whole: &str) -> Result<(), PathError> {
    if name.is_empty() {
        Err(PathError::EmptyName(excerpt(whole)))
    } else if name == "." || name == ".." {
        Err(PathError::Dots(excerpt(whole)))
    } else if name.len() > limits::NAME_BYTES {
        Err(PathError::LongName { name: name.chars().take(20).collect(), bytes: name.len() })
    } else if name.chars().any(char::is_control) {
        Err(PathError::Control(excerpt(whole)))
    } else {
        Ok(())
    }
}

/// What an error shows of a text: it comes from a stranger and may be long.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 120;
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain("...".chars()).collect()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_are_refused_with_their_reason() {
        assert!(matches!(Path::parse(""), Err(PathError::Relative(_))));
        assert!(matches!(Path::parse("a/b"), Err(PathError::Relative(_))));
        assert!(matches!(Path::parse("//"), Err(PathError::EmptyName(_))));
        assert!(matches!(Path::parse("/a//b"), Err(PathError::EmptyName(_))));
        assert!(matches!(Path::parse("/a/"), Err(PathError::EmptyName(_))));
        assert!(matches!(Path::parse("/a/../b"), Err(PathError::Dots(_))));
        assert!(matches!(Path::parse("/."), Err(PathError::Dots(_))));
        assert!(matches!(Path::parse("/a\0b"), Err(PathError::Control(_))));
        let long = "x".repeat(256);
        assert!(matches!(Path::parse(&format!("/{long}")), Err(PathError::LongName { bytes: 256, .. })));
        assert!(matches!(Path::parse(&"/a".repeat(65)), Err(PathError::Deep { names: 65 })));
    }

    #[test]
    fn the_greatest_allowed_path_parses() {
        let name = "x".repeat(255);
        let path = Path::parse(&format!("/{name}").repeat(64)).unwrap();
        assert_eq!(path.depth(), 64);
        assert!(path.join("y").is_err());
    }

    #[test]
    fn parent_and_name_take_a_path_apart_and_join_puts_it_together() {
        let path = Path::parse("/a/b").unwrap();
        let parent = path.parent().unwrap();
        assert_eq!(parent.as_str(), "/a");
        assert_eq!(parent.parent().unwrap(), Path::root());
        assert_eq!(Path::root().parent(), None);
        assert_eq!(Path::root().name(), None);
        assert_eq!(parent.join(path.name().unwrap()).unwrap(), path);
        assert_eq!(Path::root().join("a").unwrap(), parent);
        assert!(parent.join("b/c").is_err());
        assert_eq!((Path::root().depth(), parent.depth(), path.depth()), (0, 1, 2));
    }

    #[test]
    fn a_path_lies_within_itself_and_what_is_above_it() {
        let path = Path::parse("/app/x").unwrap();
        assert!(path.is_within(&Path::root()));
        assert!(path.is_within(&path));
        assert!(path.is_within(&Path::parse("/app").unwrap()));
        assert!(!path.is_within(&Path::parse("/ap").unwrap()));
        assert!(!Path::parse("/app").unwrap().is_within(&path));
    }
}
