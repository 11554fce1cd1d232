//! A subtree in memory, as it was at one zxid.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use conclave_protocol::{Path, Present, Zxid};

use crate::builder::ToPath;
use crate::error::Result;

/// What a znode takes besides its data and twice its path: its stat, and its places in two tables.
const NODE_BYTES: usize = 400;

/// One state of a cache; made by [`Cache::read`](crate::Cache::read).
pub struct CacheView {
    view: Arc<View>,
    top: Path,
    zxid: Option<Zxid>,
}

impl fmt::Debug for CacheView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheView").field("zxid", &self.zxid()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl CacheView {
    pub(super) const fn new(view: Arc<View>, top: Path, zxid: Option<Zxid>) -> Self {
        Self { view, top, zxid }
    }

    /// The zxid of this state; none before the cache is ready.
    #[must_use]
    pub const fn zxid(&self) -> Option<Zxid> {
        self.zxid
    }

    /// How many znodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.view.bytes()
    }

    /// A znode's data and stat; none if it is not there.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with `bad-path` when it is no path.
    pub fn get(&self, path: impl ToPath) -> Result<Option<&Present>> {
        Ok(self.view.get(&path.to_path()?).map(|node| &node.present))
    }

    /// A znode's children, in order of their names' bytes; none if it is not there.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with `bad-path` when it is no path.
    pub fn children(&self, path: impl ToPath) -> Result<impl Iterator<Item = (&Path, &Present)>> {
        let path = path.to_path()?;
        // What is above is not here, and of its children the only one that is known says nothing.
        let is_within = path.is_within(&self.top);
        let children = self.view.children(&path).filter(move |_| is_within);
        Ok(children.filter_map(|path| Some((path, &self.view.get(path)?.present))))
    }

    /// All znodes: parents before children, siblings in order of their names' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Present)> {
        self.view.below(&self.top).map(|(path, node)| (path, &node.present))
    }
}

/// A znode in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) present: Present,
    /// The stat is a member's, and counts all children that came and went up to this zxid.
    pub(super) exact: Zxid,
}

impl Node {
    pub(super) fn new(present: Present) -> Self {
        let exact = present.stat.children_modified;
        Self { present, exact }
    }

    /// The highest transaction that it shows something of.
    pub(super) fn newest(&self) -> Zxid {
        let stat = &self.present.stat;
        stat.created.max(stat.modified).max(stat.children_modified)
    }
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    nodes: HashMap<Path, Node>,
    /// Of each znode with children: their paths, in order of their names' bytes.
    children: HashMap<Path, BTreeSet<Path>>,
    bytes: usize,
}

impl View {
    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// About how much memory it takes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn children<'a>(&'a self, path: &Path) -> impl DoubleEndedIterator<Item = &'a Path> + use<'a> {
        self.children.get(path).into_iter().flatten()
    }

    /// The znode and all below it that are here: parents before children, siblings in order of their names' bytes.
    pub(super) fn below<'a>(&'a self, top: &Path) -> impl Iterator<Item = (&'a Path, &'a Node)> + use<'a> {
        let mut waiting: Vec<&Path> = self.nodes.get_key_value(top).map(|(path, _)| path).into_iter().collect();
        std::iter::from_fn(move || {
            let path = waiting.pop()?;
            waiting.extend(self.children(path).rev());
            Some(path)
        })
        .filter_map(|path| Some((path, self.nodes.get(path)?)))
    }

    /// Puts a znode in its place; gives the one that was there.
    pub(super) fn put(&mut self, path: Path, node: Node) -> Option<Node> {
        self.bytes += cost(&path, &node);
        if let Some(parent) = path.parent() {
            self.children.entry(parent).or_default().insert(path.clone());
        }
        let before = self.nodes.insert(path.clone(), node);
        if let Some(before) = &before {
            self.bytes -= cost(&path, before);
        }
        before
    }

    /// Takes a znode away; gives it.
    pub(super) fn remove(&mut self, path: &Path) -> Option<Node> {
        let node = self.nodes.remove(path)?;
        self.bytes -= cost(path, &node);
        if let Some(parent) = path.parent()
            && let Some(children) = self.children.get_mut(&parent)
        {
            children.remove(path);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
        Some(node)
    }
}

fn cost(path: &Path, node: &Node) -> usize {
    NODE_BYTES + 2 * path.as_str().len() + node.present.data.len()
}
