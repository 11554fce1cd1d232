//! From znodes in the order of a walk to a tree of them.

use conclave_client::TreeEntry;

/// A znode with what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// It.
    pub(crate) entry: TreeEntry,
    /// Its children, in the order in which they came.
    pub(crate) below: Vec<Self>,
}

/// A tree that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Nest {
    /// From the top to the znode that came last.
    open: Vec<Branch>,
}

impl Nest {
    /// Adds the next znode: below one that came before it; or the first, the top.
    pub(crate) fn add(&mut self, entry: TreeEntry) {
        while self.open.len() > 1 && self.open.last().is_some_and(|last| !entry.path.is_within(&last.entry.path)) {
            self.close();
        }
        self.open.push(Branch { entry, below: Vec::new() });
    }

    /// The top, with all below it; none when nothing came.
    pub(crate) fn end(mut self) -> Option<Branch> {
        while self.open.len() > 1 {
            self.close();
        }
        self.open.pop()
    }

    fn close(&mut self) {
        if let Some(done) = self.open.pop()
            && let Some(parent) = self.open.last_mut()
        {
            parent.below.push(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::Stat;

    use super::*;

    fn drawn(branch: &Branch) -> String {
        let below: Vec<String> = branch.below.iter().map(drawn).collect();
        format!("{}({})", branch.entry.path.name().unwrap_or("/"), below.join(" "))
    }

    #[test]
    fn a_walk_becomes_a_tree() {
        let mut nest = Nest::default();
        for path in ["/", "/a", "/a/b", "/a/b/c", "/a/bb", "/a.x", "/d"] {
            nest.add(TreeEntry { path: path.parse().unwrap(), stat: Stat::default(), data: None });
        }
        assert_eq!(drawn(&nest.end().unwrap()), "/(a(b(c()) bb()) a.x() d())");
        assert_eq!(Nest::default().end(), None);
    }
}
