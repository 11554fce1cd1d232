//! The registry of watches: by the path that they watch, so that a change costs its depth, not the number of watches.
//!
//! A watch is a slot in one list; the places where somebody watches, and each connection's watches, are small numbers
//! into it. So a watch takes a few hundred bytes and its path, and one that ends costs nothing for the others.

use std::borrow::Borrow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use conclave_core::row::Recorded;
use conclave_protocol::{Change, ChangeKind, Kinds, Path, Pattern, Scope, WatchId, WatchRequest, Zxid};

/// A connection of this member; never reused while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub u64);

/// A watch of a connection.
pub(crate) type Watcher = (ConnectionId, WatchId);

/// Which changes a watch is told of, apart from where.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Interest {
    scope: Scope,
    kinds: Option<Kinds>,
    names: Option<Box<Pattern>>,
}

#[derive(Debug)]
struct Slot {
    watcher: Watcher,
    path: Path,
    /// Where it stands in its place's list.
    at: u32,
    interest: Interest,
    once: bool,
    data: bool,
    /// Told of everything up to here already.
    after: Zxid,
}

/// A path as a key that a part of another path's text finds.
#[derive(Debug, PartialEq, Eq)]
struct Place(Path);

impl Borrow<str> for Place {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// What a transaction means to one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Whose it is.
    pub(crate) watcher: Watcher,
    /// Which of the changes, in order. Watches that are told the same share the list.
    pub(crate) indices: Arc<[u32]>,
    /// It ends with the first that its owner may see.
    pub(crate) once: bool,
    /// With what the znodes hold.
    pub(crate) data: bool,
}

/// Who watches what.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    places: HashMap<Place, Vec<u32>>,
    connections: HashMap<ConnectionId, Own>,
}

/// A connection's watches.
#[derive(Debug, Default)]
struct Own {
    slots: HashMap<WatchId, u32>,
    /// How many of them have a pattern.
    patterns: usize,
}

impl Watches {
    /// Starts a watch, told of what comes after `after`. A watch of the same number on the same connection is replaced.
    pub(crate) fn add(&mut self, connection: ConnectionId, request: &WatchRequest, after: Zxid) {
        self.insert(Slot {
            watcher: (connection, request.watch),
            path: request.path.clone(),
            at: 0,
            interest: Interest {
                scope: request.scope,
                kinds: request.kinds,
                names: request.names.clone().map(Box::new),
            },
            once: request.once,
            data: request.data,
            after,
        });
    }

    fn insert(&mut self, mut slot: Slot) {
        let watcher = slot.watcher;
        self.remove(watcher);
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("four thousand million watches do not fit the memory")
        });
        let place = self.places.entry(Place(slot.path.clone())).or_default();
        slot.at = u32::try_from(place.len()).expect("there are no more of them than slots");
        place.push(number);
        let own = self.connections.entry(watcher.0).or_default();
        own.patterns += usize::from(slot.interest.names.is_some());
        own.slots.insert(watcher.1, number);
        self.slots[number as usize] = Some(slot);
    }

    /// Takes over all watches of another registry, told of everything up to `after`.
    pub(crate) fn absorb(&mut self, other: Self, after: Zxid) {
        for slot in other.slots.into_iter().flatten() {
            self.insert(Slot { after, ..slot });
        }
    }

    /// Ends a watch; false when there is none.
    pub(crate) fn remove(&mut self, (connection, watch): Watcher) -> bool {
        let Some(own) = self.connections.get_mut(&connection) else { return false };
        let Some(number) = own.slots.remove(&watch) else { return false };
        let slot = self.slots[number as usize].as_ref();
        own.patterns -= usize::from(slot.is_some_and(|slot| slot.interest.names.is_some()));
        if own.slots.is_empty() {
            self.connections.remove(&connection);
        }
        self.vacate(number);
        true
    }

    /// Ends all watches of a connection.
    pub(crate) fn remove_all(&mut self, connection: ConnectionId) {
        for number in self.connections.remove(&connection).unwrap_or_default().slots.into_values() {
            self.vacate(number);
        }
    }

    fn vacate(&mut self, number: u32) {
        let Some(slot) = self.slots[number as usize].take() else { return };
        self.free.push(number);
        let Some(place) = self.places.get_mut(slot.path.as_str()) else { return };
        place.swap_remove(slot.at as usize);
        let moved = place.get(slot.at as usize).copied();
        if place.is_empty() {
            self.places.remove(slot.path.as_str());
        }
        if let Some(moved) = moved.and_then(|moved| self.slots[moved as usize].as_mut()) {
            moved.at = slot.at;
        }
    }

    /// How many watches there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many watches a connection has.
    #[must_use]
    pub(crate) fn count(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).map_or(0, |own| own.slots.len())
    }

    /// How many of them have a pattern.
    #[must_use]
    pub(crate) fn patterns(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).map_or(0, |own| own.patterns)
    }

    fn slot(&self, (connection, watch): Watcher) -> Option<u32> {
        self.connections.get(&connection)?.slots.get(&watch).copied()
    }

    /// Whether this watch stands.
    #[cfg(test)]
    pub(crate) fn contains(&self, watcher: Watcher) -> bool {
        self.slot(watcher).is_some()
    }

    /// The earliest zxid up to which one of the watches has been told everything.
    pub(crate) fn least_after(&self) -> Option<Zxid> {
        self.slots.iter().flatten().map(|slot| slot.after).min()
    }

    /// This watch has been told of everything up to here.
    pub(crate) fn told(&mut self, watcher: Watcher, after: Zxid) {
        if let Some(number) = self.slot(watcher)
            && let Some(slot) = self.slots[number as usize].as_mut()
        {
            slot.after = after;
        }
    }

    /// The watches of which `keep` says no end.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Watcher) -> bool) {
        let watchers: Vec<Watcher> = self.slots.iter().flatten().map(|slot| slot.watcher).collect();
        for watcher in watchers.into_iter().filter(|watcher| !keep(*watcher)) {
            self.remove(watcher);
        }
    }

    /// Everybody who has not been told of everything up to here, in order. One-shot watches among them are removed.
    pub(crate) fn behind(&mut self, zxid: Zxid) -> Vec<Watcher> {
        let behind = self.slots.iter().flatten().filter(|slot| slot.after < zxid);
        let mut behind: Vec<(Watcher, bool)> = behind.map(|slot| (slot.watcher, slot.once)).collect();
        behind.sort_unstable();
        for (watcher, _) in behind.iter().filter(|(_, once)| *once) {
            self.remove(*watcher);
        }
        behind.into_iter().map(|(watcher, _)| watcher).collect()
    }

    /// What a transaction's changes mean to whom. Nothing is removed: whether the owner of a one-shot watch may see any
    /// of them is not known here.
    pub(crate) fn matching(&self, zxid: Zxid, changes: &[Recorded]) -> Vec<Match> {
        let mut told = Vec::new();
        if self.places.is_empty() {
            return told;
        }
        for (place, reached) in self.reached(changes) {
            // Those that want the same there get the same list.
            let mut lists: HashMap<&Interest, Arc<[u32]>> = HashMap::new();
            let mut before: Option<(&Interest, Arc<[u32]>)> = None;
            for slot in place.iter().filter_map(|number| self.slots[*number as usize].as_ref()) {
                if slot.after >= zxid {
                    continue;
                }
                // Most often all want the same.
                let indices = match &before {
                    Some((same, indices)) if **same == slot.interest => Arc::clone(indices),
                    _ => {
                        let list = lists.entry(&slot.interest);
                        Arc::clone(list.or_insert_with(|| slot.interest.of(&reached, changes)))
                    }
                };
                before = Some((&slot.interest, Arc::clone(&indices)));
                if !indices.is_empty() {
                    told.push(Match { watcher: slot.watcher, indices, once: slot.once, data: slot.data });
                }
            }
        }
        told
    }

    /// The watched places on the way to what was changed; with each the changes there and below, and how far below.
    fn reached(&self, changes: &[Recorded]) -> impl Iterator<Item = (&[u32], Vec<Reached>)> {
        let mut reached: BTreeMap<&str, (&[u32], Vec<Reached>)> = BTreeMap::new();
        for (index, Recorded { change, .. }) in (0..).zip(changes) {
            let path = change.path.as_str();
            let mut below = change.path.depth();
            let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
            // The root is the first of its own ends, and no part of another.
            let ends = ends.filter(|_| path.len() > 1);
            for end in [1].into_iter().chain(ends) {
                if let Some((place, watching)) = self.places.get_key_value(&path[..end]) {
                    let there = match reached.entry(place.0.as_str()) {
                        Entry::Vacant(vacant) => &mut vacant.insert((watching, Vec::new())).1,
                        Entry::Occupied(occupied) => &mut occupied.into_mut().1,
                    };
                    there.push(Reached { index, below });
                }
                below = below.saturating_sub(1);
            }
        }
        reached.into_values()
    }
}

/// A change, as one of the places above it sees it.
#[derive(Clone, Copy)]
struct Reached {
    index: u32,
    /// How many names below that place it happened; 0: there.
    below: usize,
}

impl Interest {
    /// Which of the changes that reach its place it is about.
    fn of(&self, reached: &[Reached], changes: &[Recorded]) -> Arc<[u32]> {
        let is_told = |reached: &&Reached| self.covers(&changes[reached.index as usize].change, reached.below);
        reached.iter().filter(is_told).map(|reached| reached.index).collect()
    }

    /// Whether it is about this change, so many names below its place.
    fn covers(&self, change: &Change, below: usize) -> bool {
        let comes_or_goes = matches!(change.kind, ChangeKind::Created | ChangeKind::Deleted);
        let is_in_scope = match self.scope {
            Scope::Data => below == 0,
            Scope::Existence => below == 0 && comes_or_goes,
            Scope::Children => below == 1 && comes_or_goes || below == 0 && change.kind == ChangeKind::Deleted,
            Scope::Subtree => true,
        };
        is_in_scope
            && self.kinds.is_none_or(|kinds| kinds.has(change.kind))
            // The root has no name; what stands for any text stands for none too.
            && self.names.as_ref().is_none_or(|names| names.matches(change.path.name().unwrap_or("")))
    }
}

// Named, because this file is also measured by an example.
#[cfg(test)]
#[path = "watches/tests.rs"]
mod tests;
