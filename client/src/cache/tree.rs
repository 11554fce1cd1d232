//! The cache's state machine: a watch's snapshots and events in, consistent states and what changed between them out.
//!
//! What an event tells of a znode may be newer than the event: several transactions are told from one state. So events
//! are gathered in an overlay, which becomes visible only when nothing in it is newer than the last event that was told.
//! That moment comes by itself: what is newer happened within the subtree, and is told too.
//!
//! A parent's list of children changes with its children and has no event of its own: children that come and go are
//! counted here, unless a member's newer stat of the parent has counted them.
//!
//! Access lists make holes. What can't be read is not in the tree, nor anything below it. A znode that an event tells of
//! without data is gone by now or can't be read; which of the two, only [`Tree::reached`] tells. A znode that is told of
//! and was not there before has become readable, with unknown znodes below it: that takes a new snapshot.
//!
//! Pure: no clock, no tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_protocol::{Change, ChangeKind, Path, Present, Refusal, TreeEntry, Zxid};

use super::view::{Node, View};
use super::{CacheChange, ChangeSet};
use crate::watch::WatchEvent;

/// What a znode in the overlay takes besides its data.
const CHANGE_BYTES: usize = 400;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Tree {
    top: Path,
    /// Bytes that it may take.
    limit: usize,
    /// What is seen; shared with those who hold it.
    view: Arc<View>,
    /// The zxid of that; none before the first snapshot is complete.
    shown: Option<Zxid>,
    /// What is known beyond it: znodes as they are, or none where they are gone.
    overlay: BTreeMap<Path, Option<Node>>,
    /// Bytes of data in it.
    overlay_bytes: usize,
    /// The last transaction that is known to be told.
    told: Zxid,
    /// Znodes in the overlay that show transactions after that one, and which.
    ahead: BTreeMap<Path, Zxid>,
    /// Znodes that are gone or can't be read any more, and whether one was seen there again.
    unclear: BTreeMap<Path, bool>,
    /// A snapshot that is being received.
    fresh: Option<View>,
    /// Only a new snapshot helps.
    stale: bool,
}

impl Tree {
    pub(super) fn new(top: Path, limit: usize) -> Self {
        Self {
            top,
            limit,
            view: Arc::default(),
            shown: None,
            overlay: BTreeMap::new(),
            overlay_bytes: 0,
            told: Zxid(0),
            ahead: BTreeMap::new(),
            unclear: BTreeMap::new(),
            fresh: None,
            stale: false,
        }
    }

    pub(super) const fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(super) const fn top(&self) -> &Path {
        &self.top
    }

    /// The zxid of what is seen.
    pub(super) const fn shown(&self) -> Option<Zxid> {
        self.shown
    }

    /// Something was told that can't be shown yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.fresh.is_none() && (!self.ahead.is_empty() || !self.unclear.is_empty())
    }

    /// A new snapshot is needed; says so once.
    pub(super) const fn needs_snapshot(&mut self) -> bool {
        std::mem::replace(&mut self.stale, false)
    }

    /// Takes what the watch tells; gives what has become visible.
    ///
    /// # Errors
    /// When the tree has outgrown its limit.
    pub(super) fn take(&mut self, event: WatchEvent) -> Result<Option<Arc<ChangeSet>>, Refusal> {
        match event {
            WatchEvent::Snapshot { zxid, part, entries, more } => self.snapshot(zxid, part, entries, more),
            WatchEvent::Changes { zxid, changes, present } => {
                self.told = self.told.max(zxid);
                for (change, present) in changes.iter().zip(present) {
                    self.change(zxid, change, present);
                }
                self.show()
            }
            // A watch with snapshots tells none; if it did, this would be what to do.
            WatchEvent::Resync { .. } => {
                self.stale = true;
                Ok(None)
            }
        }
    }

    /// Everything up to this transaction has been told, by a read that began after the last event was received and saw
    /// all that was acknowledged to anybody until then: what is gone is told as gone by now.
    ///
    /// # Errors
    /// As [`Tree::take`].
    pub(super) fn reached(&mut self, zxid: Zxid) -> Result<Option<Arc<ChangeSet>>, Refusal> {
        if self.fresh.is_some() || self.shown.is_none() {
            return Ok(None);
        }
        self.told = self.told.max(zxid);
        if std::mem::take(&mut self.unclear).into_values().any(|seen_again| seen_again) {
            self.stale = true;
        }
        self.show()
    }

    fn snapshot(
        &mut self,
        zxid: Zxid,
        part: u64,
        entries: Vec<TreeEntry>,
        more: bool,
    ) -> Result<Option<Arc<ChangeSet>>, Refusal> {
        if part == 0 {
            self.fresh = Some(View::default());
            self.stale = false;
        }
        let Some(fresh) = &mut self.fresh else { return Ok(None) };
        for TreeEntry { path, stat, data } in entries {
            fresh.put(path, Node::new(Present { data: data.unwrap_or_default(), stat }));
        }
        within(&self.top, fresh.bytes(), self.limit)?;
        if more {
            return Ok(None);
        }
        let fresh = self.fresh.take().unwrap_or_default();
        self.clear();
        self.told = zxid;
        let changes = differences(&self.view, &fresh);
        self.view = Arc::new(fresh);
        Ok(self.visible(zxid, changes))
    }

    fn clear(&mut self) {
        self.overlay.clear();
        self.overlay_bytes = 0;
        self.ahead.clear();
        self.unclear.clear();
    }

    fn change(&mut self, zxid: Zxid, change: &Change, present: Option<Present>) {
        let path = &change.path;
        // Events of the old state may still come while a snapshot of a newer one is received.
        if self.fresh.is_some() || self.shown.is_none() || !path.is_within(&self.top) {
            return;
        }
        match (change.kind, present) {
            // If there is something now, its creation is told later.
            (ChangeKind::Deleted, _) => {
                self.count(path, zxid, -1);
                self.remove(path);
                self.unclear.remove(path);
            }
            (ChangeKind::Created, Some(present)) => {
                self.count(path, zxid, 1);
                self.unclear.remove(path);
                if !self.is_hidden(path) {
                    self.put(path, Node::new(present));
                }
            }
            (ChangeKind::Data | ChangeKind::Acl, Some(present)) => {
                if self.get(path).is_some() {
                    self.put(path, Node::new(present));
                } else if let Some(seen_again) = self.unclear.get_mut(path) {
                    *seen_again = true;
                } else if !self.is_hidden(path) {
                    self.stale = true;
                }
            }
            (kind, None) => {
                if kind == ChangeKind::Created {
                    self.count(path, zxid, 1);
                }
                self.remove(path);
                self.unclear.insert(path.clone(), false);
            }
        }
    }

    /// As far as it is known.
    fn get(&self, path: &Path) -> Option<&Node> {
        match self.overlay.get(path) {
            Some(node) => node.as_ref(),
            None => self.view.get(path),
        }
    }

    /// It lies below something that is not there, or can't be read.
    fn is_hidden(&self, path: &Path) -> bool {
        *path != self.top && path.parent().is_none_or(|parent| self.get(&parent).is_none())
    }

    fn put(&mut self, path: &Path, node: Node) {
        let newest = node.newest();
        if newest > self.told {
            self.ahead.insert(path.clone(), newest);
        } else {
            self.ahead.remove(path);
        }
        self.lay_over(path.clone(), Some(node));
    }

    fn lay_over(&mut self, path: Path, node: Option<Node>) {
        let bytes = |node: &Option<Node>| node.as_ref().map_or(0, |node| node.present.data.len());
        self.overlay_bytes += CHANGE_BYTES + bytes(&node);
        if let Some(before) = self.overlay.insert(path, node) {
            self.overlay_bytes -= CHANGE_BYTES + bytes(&before);
        }
    }

    /// Takes a znode away, with what is below it.
    fn remove(&mut self, path: &Path) {
        let known = self.view.below(path).map(|(path, _)| path.clone());
        let added = self.overlay.range(path..).take_while(|(other, _)| other.as_str().starts_with(path.as_str()));
        let added = added.filter(|(other, node)| node.is_some() && other.is_within(path));
        let gone: Vec<Path> = known.chain(added.map(|(path, _)| path.clone())).collect();
        for path in gone {
            self.ahead.remove(&path);
            self.lay_over(path, None);
        }
    }

    /// A child came or went.
    fn count(&mut self, child: &Path, zxid: Zxid, by: i64) {
        if *child == self.top {
            return;
        }
        let Some(parent) = child.parent() else { return };
        let Some(node) = self.get(&parent).filter(|node| zxid > node.exact) else { return };
        let mut node = node.clone();
        let stat = &mut node.present.stat;
        stat.children = stat.children.saturating_add_signed(by);
        stat.children_version += 1;
        stat.children_modified = zxid;
        self.put(&parent, node);
    }

    /// Makes the overlay visible, if it is a state that there was.
    fn show(&mut self) -> Result<Option<Arc<ChangeSet>>, Refusal> {
        within(&self.top, self.view.bytes() + self.overlay_bytes, self.limit)?;
        let told = self.told;
        self.ahead.retain(|_, newest| *newest > told);
        if self.fresh.is_some() || self.shown.is_none() || self.stale || self.is_waiting() {
            return Ok(None);
        }
        let overlay = std::mem::take(&mut self.overlay);
        self.overlay_bytes = 0;
        let mut changes = Vec::with_capacity(overlay.len());
        if overlay.is_empty() {
            return Ok(self.visible(told, changes));
        }
        // Copied only if somebody holds it.
        let view = Arc::make_mut(&mut self.view);
        for (path, node) in overlay {
            let after = node.as_ref().map(|node| node.present.clone());
            let before = match node {
                Some(node) => view.put(path.clone(), node),
                None => view.remove(&path),
            };
            let before = before.map(|node| node.present);
            if before != after {
                changes.push(CacheChange { path, before, after });
            }
        }
        Ok(self.visible(told, changes))
    }

    /// The view is that of this zxid now.
    fn visible(&mut self, zxid: Zxid, changes: Vec<CacheChange>) -> Option<Arc<ChangeSet>> {
        let from = self.shown.replace(zxid).unwrap_or_default();
        (!changes.is_empty()).then(|| Arc::new(ChangeSet { from, to: zxid, changes }))
    }
}

/// What differs, in order of paths.
fn differences(old: &View, new: &View) -> Vec<CacheChange> {
    let mut changes = BTreeMap::<&Path, (Option<&Node>, Option<&Node>)>::new();
    for (path, node) in old.nodes() {
        changes.entry(path).or_default().0 = Some(node);
    }
    for (path, node) in new.nodes() {
        changes.entry(path).or_default().1 = Some(node);
    }
    let present = |node: Option<&Node>| node.map(|node| node.present.clone());
    let change = |(path, (before, after)): (&Path, _)| CacheChange {
        path: path.clone(),
        before: present(before),
        after: present(after),
    };
    changes.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// Refuses what takes more memory than it may.
fn within(top: &Path, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Refusal::Limit { what: format!("bytes of the cache of {top}"), limit: limit as u64, actual: bytes as u64 })
}

#[cfg(test)]
mod tests;
