//! The znode that a run sees as the root: taken off every path that it is told, put before every path that it names.

use conclave_protocol::{Path, Refusal, limits};

/// A run's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root(pub(crate) Path);

impl Root {
    /// The path in the tree of one that the guest names.
    pub(crate) fn absolute(&self, named: &str) -> Result<Path, Refusal> {
        let path = Path::parse(named)?;
        if self.0.is_root() {
            return Ok(path);
        }
        if path.is_root() {
            return Ok(self.0.clone());
        }
        let (names, limit) = (path.depth(), limits::DEPTH.saturating_sub(self.0.depth()));
        if names > limit {
            return Err(Refusal::BadPath { why: format!("the path has {names} names, {limit} are allowed here") });
        }
        Ok(Path::parse(&format!("{}{path}", self.0))?)
    }

    /// The path that the guest is told of one in the tree. One that is not below the root, which only a refusal about what
    /// is above can have, is the root: what is outside has no name here.
    pub(crate) fn told(&self, path: &Path) -> Path {
        if self.0.is_root() {
            return path.clone();
        }
        let below = path.is_within(&self.0).then(|| &path.as_str()[self.0.as_str().len()..]);
        below.and_then(|below| Path::parse(below).ok()).unwrap_or_default()
    }

    /// A refusal as the guest is told it.
    pub(crate) fn refusal(&self, refusal: Refusal) -> Refusal {
        if self.0.is_root() { refusal } else { refusal.map_paths(&|path| self.told(path)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &str) -> Root {
        Root(path.parse().unwrap())
    }

    #[test]
    fn a_path_goes_in_and_comes_out_as_it_was() {
        for (at, named, absolute) in [
            ("/", "/", "/"),
            ("/", "/a/b", "/a/b"),
            ("/team", "/", "/team"),
            ("/team/x", "/a/b", "/team/x/a/b"),
            ("/team", "/team", "/team/team"),
        ] {
            let root = root(at);
            let path = root.absolute(named).unwrap();
            assert_eq!(path.as_str(), absolute);
            assert_eq!(root.told(&path).as_str(), named);
        }
    }

    #[test]
    fn nothing_outside_can_be_named_or_is_told() {
        let root = root("/team");
        for named in ["", "a", "/..", "/../other", "//", "/a/"] {
            assert!(matches!(root.absolute(named), Err(Refusal::BadPath { .. })), "{named}");
        }
        for outside in ["/", "/other", "/teammate", "/tea"] {
            assert_eq!(root.told(&outside.parse().unwrap()), Path::root(), "{outside}");
        }
        let refusal = Refusal::NoZnode { path: "/team/a".parse().unwrap() };
        assert_eq!(root.refusal(refusal), Refusal::NoZnode { path: "/a".parse().unwrap() });
    }

    #[test]
    fn a_path_that_would_be_too_deep_is_refused_with_what_is_left() {
        let root = root("/team/x");
        assert!(root.absolute(&"/a".repeat(62)).is_ok());
        let why = root.absolute(&"/a".repeat(63)).unwrap_err().to_string();
        assert_eq!(why, "the path has 63 names, 62 are allowed here");
    }
}
