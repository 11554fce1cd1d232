//! The registry of watches: a trie on the path, so that an event costs its depth, not the number of watches.

use std::collections::{BTreeMap, HashMap};

use conclave_protocol::{Change, ChangeKind, Path, Scope, WatchId, Zxid};

/// A connection of this member; never reused while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub u64);

/// A watch of a connection.
pub(crate) type Watcher = (ConnectionId, WatchId);

#[derive(Debug)]
struct Registered {
    path: Path,
    once: bool,
    /// Told of everything up to here already.
    after: Zxid,
}

#[derive(Debug, Default)]
struct Node {
    here: Vec<(Watcher, Scope)>,
    below: BTreeMap<Box<str>, Self>,
}

/// Who watches what.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    root: Node,
    all: HashMap<Watcher, Registered>,
}

impl Watches {
    /// Starts a watch, told of what comes after `after`. A watch of the same number on the same connection is replaced.
    pub(crate) fn add(&mut self, watcher: Watcher, path: &Path, scope: Scope, once: bool, after: Zxid) {
        self.remove(watcher);
        let mut node = &mut self.root;
        for name in path.names() {
            node = node.below.entry(name.into()).or_default();
        }
        node.here.push((watcher, scope));
        self.all.insert(watcher, Registered { path: path.clone(), once, after });
    }

    /// Ends a watch; false when there is none.
    pub(crate) fn remove(&mut self, watcher: Watcher) -> bool {
        let Some(registered) = self.all.remove(&watcher) else { return false };
        let names: Vec<&str> = registered.path.names().collect();
        self.root.forget(watcher, &names);
        true
    }

    /// How many watches there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether this watch has not ended.
    #[must_use]
    pub(crate) fn contains(&self, watcher: Watcher) -> bool {
        self.all.contains_key(&watcher)
    }

    /// Whether this watch is a one-shot watch.
    #[must_use]
    pub(crate) fn is_once(&self, watcher: Watcher) -> bool {
        self.all.get(&watcher).is_some_and(|registered| registered.once)
    }

    /// Everybody who has not been told of everything up to here. One-shot watches among them are removed.
    pub(crate) fn behind(&mut self, zxid: Zxid) -> Vec<Watcher> {
        let is_behind = |(watcher, registered): (&Watcher, &Registered)| (registered.after < zxid).then_some(*watcher);
        let mut behind: Vec<Watcher> = self.all.iter().filter_map(is_behind).collect();
        behind.sort_unstable();
        for watcher in &behind {
            if self.is_once(*watcher) {
                self.remove(*watcher);
            }
        }
        behind
    }

    /// What a transaction's changes mean to whom: for each watcher the indices of the changes that it is to be told,
    /// in order. One-shot watches among them are removed, and get their first change only.
    pub(crate) fn matching(&mut self, zxid: Zxid, changes: &[Change]) -> BTreeMap<Watcher, Vec<usize>> {
        let mut told: BTreeMap<Watcher, Vec<usize>> = BTreeMap::new();
        if self.all.is_empty() {
            return told;
        }
        for (index, change) in changes.iter().enumerate() {
            self.root.visit(change, &mut |watcher| {
                let indices = told.entry(watcher).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            });
        }
        told.retain(|watcher, _| self.all.get(watcher).is_some_and(|registered| registered.after < zxid));
        let once: Vec<Watcher> = told.keys().copied().filter(|watcher| self.is_once(*watcher)).collect();
        for watcher in once {
            self.remove(watcher);
            if let Some(indices) = told.get_mut(&watcher) {
                indices.truncate(1);
            }
        }
        told
    }
}

/// Whether a change is one that a watch of this scope on this path is told of.
#[must_use]
pub(crate) fn is_told(path: &Path, scope: Scope, change: &Change) -> bool {
    match scope {
        Scope::Data => change.path == *path,
        Scope::Subtree => change.path.is_within(path),
        Scope::Children => {
            let is_child = change.path.depth() == path.depth() + 1 && change.path.is_within(path);
            (is_child && change.kind != ChangeKind::Data)
                || (change.path == *path && change.kind == ChangeKind::Deleted)
        }
    }
}

impl Node {
    fn visit(&self, change: &Change, tell: &mut impl FnMut(Watcher)) {
        let depth = change.path.depth();
        let mut node = self;
        node.tell(change, depth, 0, tell);
        for (at, name) in change.path.names().enumerate() {
            let Some(below) = node.below.get(name) else { return };
            node = below;
            node.tell(change, depth, at + 1, tell);
        }
    }

    /// Tells the watchers of this node, which lies `at` deep on the way to the change's znode, `depth` deep.
    fn tell(&self, change: &Change, depth: usize, at: usize, tell: &mut impl FnMut(Watcher)) {
        for (watcher, scope) in &self.here {
            let matches = match scope {
                Scope::Subtree => true,
                Scope::Data => at == depth,
                Scope::Children if at == depth => change.kind == ChangeKind::Deleted,
                Scope::Children => at + 1 == depth && change.kind != ChangeKind::Data,
            };
            if matches {
                tell(*watcher);
            }
        }
    }

    /// Takes a watcher out, and the nodes that nobody needs any more.
    fn forget(&mut self, watcher: Watcher, names: &[&str]) {
        match names.split_first() {
            None => self.here.retain(|(w, _)| *w != watcher),
            Some((name, rest)) => {
                if let Some(below) = self.below.get_mut(*name) {
                    below.forget(watcher, rest);
                    if below.here.is_empty() && below.below.is_empty() {
                        self.below.remove(*name);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn change(kind: ChangeKind, at: &str) -> Change {
        Change { kind, path: path(at), version: 0 }
    }

    const ALL: [(WatchId, &str, Scope); 6] = [
        (WatchId(1), "/a", Scope::Data),
        (WatchId(2), "/a", Scope::Children),
        (WatchId(3), "/a", Scope::Subtree),
        (WatchId(4), "/", Scope::Subtree),
        (WatchId(5), "/", Scope::Children),
        (WatchId(6), "/a/b", Scope::Data),
    ];

    fn told(kind: ChangeKind, at: &str) -> Vec<u64> {
        let mut watches = Watches::default();
        for (id, p, scope) in ALL {
            watches.add((ConnectionId(1), id), &path(p), scope, false, Zxid(0));
        }
        let change = change(kind, at);
        let by_trie: Vec<u64> =
            watches.matching(Zxid(1), std::slice::from_ref(&change)).keys().map(|w| w.1.0).collect();
        let by_rule: Vec<u64> =
            ALL.iter().filter(|(_, p, scope)| is_told(&path(p), *scope, &change)).map(|(id, ..)| id.0).collect();
        assert_eq!(by_trie, by_rule, "the trie and the rule agree");
        by_trie
    }

    #[test]
    fn each_scope_is_told_of_what_it_covers() {
        assert_eq!(told(ChangeKind::Created, "/a"), [1, 3, 4, 5]);
        assert_eq!(told(ChangeKind::Data, "/a"), [1, 3, 4]);
        assert_eq!(told(ChangeKind::Deleted, "/a"), [1, 2, 3, 4, 5]);
        assert_eq!(told(ChangeKind::Created, "/a/b"), [2, 3, 4, 6]);
        assert_eq!(told(ChangeKind::Data, "/a/b"), [3, 4, 6]);
        assert_eq!(told(ChangeKind::Created, "/a/b/c"), [3, 4]);
        assert_eq!(told(ChangeKind::Created, "/ab"), [4, 5]);
        assert_eq!(told(ChangeKind::Data, "/"), [4]);
    }

    #[test]
    fn a_one_shot_watch_is_told_once() {
        let mut watches = Watches::default();
        let watcher = (ConnectionId(1), WatchId(1));
        watches.add(watcher, &path("/a"), Scope::Subtree, true, Zxid(0));
        let changes = [change(ChangeKind::Created, "/a"), change(ChangeKind::Data, "/a")];
        assert_eq!(watches.matching(Zxid(1), &changes), BTreeMap::from([(watcher, vec![0])]));
        assert_eq!(watches.matching(Zxid(2), &changes), BTreeMap::new());
        assert_eq!(watches.len(), 0);
    }

    #[test]
    fn a_watch_is_not_told_of_what_it_was_told_of_already() {
        let mut watches = Watches::default();
        let watcher = (ConnectionId(1), WatchId(1));
        watches.add(watcher, &path("/a"), Scope::Data, false, Zxid(5));
        let changes = [change(ChangeKind::Data, "/a")];
        assert!(watches.matching(Zxid(5), &changes).is_empty());
        assert_eq!(watches.matching(Zxid(6), &changes).len(), 1);
    }

    #[test]
    fn those_behind_are_those_not_told_of_everything_and_one_shot_ones_end() {
        let mut watches = Watches::default();
        let [old, new, once] = [1, 2, 3].map(|n| (ConnectionId(n), WatchId(1)));
        watches.add(old, &path("/a"), Scope::Data, false, Zxid(4));
        watches.add(new, &path("/a"), Scope::Data, false, Zxid(9));
        watches.add(once, &path("/b"), Scope::Data, true, Zxid(4));
        assert_eq!(watches.behind(Zxid(9)), [old, once]);
        assert!(watches.contains(old) && watches.contains(new) && !watches.contains(once));
    }

    #[test]
    fn removed_watches_leave_nothing_behind() {
        let mut watches = Watches::default();
        for n in 0..100 {
            watches.add((ConnectionId(n), WatchId(1)), &path(&format!("/a/b{n}/c")), Scope::Data, false, Zxid(0));
        }
        for n in 0..100 {
            assert!(watches.remove((ConnectionId(n), WatchId(1))));
        }
        assert!(!watches.remove((ConnectionId(0), WatchId(1))));
        assert!(watches.root.below.is_empty());
    }
}
