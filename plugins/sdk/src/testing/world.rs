//! The state of a tree in memory: znodes, sessions, calls; and the journal that undoes a transaction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use conclave_protocol::plugin::Manifest;
use conclave_protocol::{ChangeKind, limits};

use crate::context::Level;
use crate::tree::{Create, Stat};
use crate::{Condition, Error, Exports, Park, Path, Result, Test, Wake};

/// How long a container is left alone after its last child went.
const GRACE_MS: u64 = limits::CONTAINER_GRACE_MS;

/// All of it.
pub(super) struct World {
    pub(super) manifest: Manifest,
    pub(super) exports: Exports,
    pub(super) settings: Vec<u8>,
    pub(super) znodes: BTreeMap<String, Node>,
    pub(super) zxid: u64,
    pub(super) now_ms: u64,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) next_session: u64,
    /// By ticket.
    pub(super) calls: BTreeMap<u64, Call>,
    /// Changes that may wake somebody, the oldest first.
    pub(super) wakes: VecDeque<Woken>,
    /// When each `timer` trigger runs next, in the manifest's order.
    pub(super) timers: Vec<u64>,
    pub(super) log: Vec<(Level, String)>,
    pub(super) tx: Tx,
}

/// A znode.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) data: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) next_sequence: u64,
}

/// Who may be calling.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) principal: String,
}

/// A call, from its first run until it is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) procedure: String,
    pub(super) args: Vec<u8>,
    pub(super) principal: String,
    pub(super) session: Option<u64>,
    pub(super) state: CallState,
    /// What it parked with last.
    pub(super) kept: Vec<u8>,
    /// Its answer was acknowledged.
    pub(super) acknowledged: bool,
}

/// Where a call is.
#[derive(Clone, Debug)]
pub(super) enum CallState {
    Running,
    Parked(Park),
    Done(Vec<u8>),
    Refused(Error),
}

/// A change that may wake somebody.
pub(super) struct Woken {
    pub(super) path: String,
    /// Of those who wake all together: who waited for this when it happened.
    pub(super) latched: BTreeSet<u64>,
}

/// The transaction at hand.
#[derive(Default)]
pub(super) struct Tx {
    pub(super) principal: Option<String>,
    pub(super) session: Option<u64>,
    pub(super) ticket: Option<u64>,
    pub(super) undo: Vec<(String, Option<Node>)>,
    pub(super) changes: Vec<crate::Change>,
}

/// A place in a transaction that it can be undone to.
#[derive(Clone, Copy)]
pub(super) struct Savepoint {
    undo: usize,
    changes: usize,
}

impl World {
    pub(super) fn node(&self, path: &str) -> Option<&Node> {
        self.znodes.get(path)
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        let before = match node {
            Some(node) => self.znodes.insert(path.to_owned(), node),
            None => self.znodes.remove(path),
        };
        self.tx.undo.push((path.to_owned(), before));
    }

    pub(super) fn savepoint(&self) -> Savepoint {
        Savepoint { undo: self.tx.undo.len(), changes: self.tx.changes.len() }
    }

    pub(super) fn roll_back(&mut self, to: Savepoint) {
        while self.tx.undo.len() > to.undo {
            let Some((path, before)) = self.tx.undo.pop() else { return };
            match before {
                Some(node) => drop(self.znodes.insert(path, node)),
                None => drop(self.znodes.remove(&path)),
            }
        }
        self.tx.changes.truncate(to.changes);
    }

    /// Ends the transaction: what it changed may wake somebody.
    pub(super) fn commit(&mut self) {
        let tx = std::mem::take(&mut self.tx);
        let paths: BTreeSet<String> = tx.undo.into_iter().map(|(path, _)| path).collect();
        for path in paths {
            let waits = |call: &Call| match &call.state {
                CallState::Parked(park) => park.wake == Wake::All && self.holds_on(park, Some(&path)),
                _ => false,
            };
            let latched = self.calls.iter().filter(|(_, call)| waits(call)).map(|(ticket, _)| *ticket).collect();
            self.wakes.push_back(Woken { path, latched });
        }
    }

    /// Whether one of its conditions holds, of those on this path.
    pub(super) fn holds_on(&self, park: &Park, path: Option<&str>) -> bool {
        let mut any_of = park.any_of.iter().filter(|condition| path.is_none_or(|path| condition.path == path));
        any_of.any(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &Condition) -> bool {
        match (self.node(&condition.path), condition.test) {
            (node, Test::Exists) => node.is_some(),
            (node, Test::Absent) => node.is_none(),
            (Some(node), Test::VersionAbove(version)) => node.stat.version > version,
            (Some(node), Test::ChildrenAtLeast(count)) => node.stat.children >= count,
            (node, Test::ChildrenAtMost(count)) => node.is_none_or(|node| node.stat.children <= count),
            (None, Test::VersionAbove(_) | Test::ChildrenAtLeast(_)) => false,
        }
    }

    /// What creating this would do, parents first; every refusal of the tree.
    pub(super) fn plan_create(&self, path: &str, data: &[u8], how: Create) -> Result<Vec<(Path, bool)>> {
        let path = Path::parse(path)?;
        if how.ephemeral && how.container {
            return Err(Error::refused("bad-request", "an ephemeral znode can't be a container"));
        }
        if how.sequential && how.or_set {
            return Err(Error::refused("bad-request", "a sequential znode is always a new one"));
        }
        if how.ttl_ms == Some(0) {
            return Err(Error::refused("bad-request", "a time to live of 0 ms leaves nothing to create"));
        }
        fits(data)?;
        let owner = self.owner(how)?;
        let Some(above) = path.parent() else { return Err(exists(&path)) };
        let mut missing = Vec::new();
        let mut deepest = Some(above.clone());
        while let Some(at) = deepest.clone().filter(|at| self.node(at).is_none()) {
            deepest = at.parent();
            missing.push((at, true));
        }
        missing.reverse();
        if !missing.is_empty() && !how.parents {
            return Err(no_znode(&above));
        }
        if let Some(node) = deepest.as_ref().and_then(|deepest| self.node(deepest))
            && node.stat.owner.is_some()
            && (!missing.is_empty() || node.stat.owner != owner)
        {
            let deepest = deepest.unwrap_or(above);
            let why =
                format!("{deepest} is ephemeral: only ephemeral znodes of its own session can be created below it");
            return Err(Error::refused("ephemeral-parent", why));
        }
        let whole = if how.sequential { self.numbered(&path, &above)? } else { path };
        if let Some(node) = self.node(&whole) {
            let wanted = (owner, how.container, how.ttl_ms);
            return match how.or_set {
                false => Err(exists(&whole)),
                true if (node.stat.owner, node.stat.container, node.stat.ttl_ms) != wanted => {
                    Err(Error::refused("other-kind", format!("{whole} exists and is of another kind")))
                }
                true => Ok(Vec::new()),
            };
        }
        missing.push((whole, false));
        Ok(missing)
    }

    fn owner(&self, how: Create) -> Result<Option<u64>> {
        match self.tx.session {
            None if how.ephemeral => Err(Error::refused("no-session", "an ephemeral znode needs a session")),
            session => Ok(session.filter(|_| how.ephemeral)),
        }
    }

    fn numbered(&self, path: &Path, above: &Path) -> Result<Path> {
        let mut next = self.node(above).map_or(0, |above| above.next_sequence);
        loop {
            let numbered = above.join(&format!("{}{next:010}", path.name()))?;
            if self.node(&numbered).is_none() {
                return Ok(numbered);
            }
            next += 1;
        }
    }

    /// Creates what [`World::plan_create`] said.
    pub(super) fn create(&mut self, path: &Path, data: Vec<u8>, how: Create) -> Stat {
        let (zxid, now_ms) = (self.zxid, self.now_ms);
        let stat = Stat {
            created: zxid,
            modified: zxid,
            children_modified: zxid,
            created_ms: now_ms,
            modified_ms: now_ms,
            children_modified_ms: now_ms,
            owner: self.tx.session.filter(|_| how.ephemeral),
            data_bytes: data.len() as u64,
            container: how.container,
            ttl_ms: how.ttl_ms,
            ..Stat::default()
        };
        if let Some(above) = path.parent() {
            let number = path.name().rsplit_once(|c: char| !c.is_ascii_digit()).map_or(path.name(), |(_, n)| n);
            let next = number.parse::<u64>().ok().filter(|_| how.sequential).map(|number| number + 1);
            self.children_changed(&above, 1, next);
        }
        self.tx.changes.push(crate::Change {
            kind: crate::ChangeKind::Created,
            path: path.clone(),
            version: 0,
            data: Some(data.clone()),
            previous: None,
        });
        self.put(path, Some(Node { data, stat, next_sequence: 0 }));
        stat
    }

    fn children_changed(&mut self, above: &Path, by: i64, next: Option<u64>) {
        let (zxid, now_ms) = (self.zxid, self.now_ms);
        let Some(mut node) = self.node(above).cloned() else { return };
        node.stat.children = node.stat.children.saturating_add_signed(by);
        node.stat.children_version += 1;
        node.stat.children_modified = zxid;
        node.stat.children_modified_ms = now_ms;
        node.next_sequence = next.unwrap_or(node.next_sequence);
        self.put(above, Some(node));
    }

    /// The znode that is to be set or deleted.
    pub(super) fn at_version(&self, path: &str, if_version: Option<u64>) -> Result<(Path, Node)> {
        let path = Path::parse(path)?;
        let node = self.node(&path).ok_or_else(|| no_znode(&path))?;
        match if_version.filter(|expected| *expected != node.stat.version) {
            None => Ok((path.clone(), node.clone())),
            Some(expected) => {
                let actual = node.stat.version;
                Err(Error::refused("bad-version", format!("{path} is at version {actual}, you said {expected}")))
            }
        }
    }

    pub(super) fn set(&mut self, path: &Path, data: Vec<u8>) -> Stat {
        let mut node = self.node(path).cloned().unwrap_or_default();
        let previous = std::mem::replace(&mut node.data, data.clone());
        node.stat.version += 1;
        node.stat.modified = self.zxid;
        node.stat.modified_ms = self.now_ms;
        node.stat.data_bytes = data.len() as u64;
        let stat = node.stat;
        self.tx.changes.push(crate::Change {
            kind: crate::ChangeKind::Data,
            path: path.clone(),
            version: stat.version,
            data: Some(data),
            previous: Some(previous),
        });
        self.put(path, Some(node));
        stat
    }

    pub(super) fn delete(&mut self, path: &Path) {
        let Some(node) = self.node(path).cloned() else { return };
        self.tx.changes.push(crate::Change {
            kind: crate::ChangeKind::Deleted,
            path: path.clone(),
            version: node.stat.version,
            data: None,
            previous: Some(node.data),
        });
        self.put(path, None);
        if let Some(above) = path.parent() {
            self.children_changed(&above, -1, None);
        }
    }

    /// A znode and all below it, children before parents.
    pub(super) fn below(&self, path: &Path) -> Vec<Path> {
        let prefix = prefix(path);
        let all = self.znodes.range(prefix.clone()..).take_while(|(at, _)| at.starts_with(&prefix));
        let mut all: Vec<Path> = all.filter_map(|(at, _)| Path::parse(at).ok()).collect();
        all.insert(0, path.clone());
        all.reverse();
        all
    }

    /// When something goes by itself, or runs by itself, next.
    pub(super) fn next_event_ms(&self) -> Option<u64> {
        let deadlines = self.calls.values().filter_map(|call| match &call.state {
            CallState::Parked(park) => park.until_ms,
            _ => None,
        });
        let expiries = self.znodes.values().filter_map(|node| expiry_ms(&node.stat));
        deadlines.chain(expiries).chain(self.timers.iter().copied()).min()
    }

    /// Znodes whose time to live is over, and empty containers.
    pub(super) fn expired(&self) -> Vec<Path> {
        let due = |node: &Node| expiry_ms(&node.stat).is_some_and(|due| due <= self.now_ms);
        let due = self.znodes.iter().filter(|(_, node)| due(node));
        due.filter_map(|(path, _)| Path::parse(path).ok()).collect()
    }
}

fn expiry_ms(stat: &Stat) -> Option<u64> {
    if stat.children > 0 {
        return None;
    }
    let ttl = stat.ttl_ms.map(|ttl| stat.modified_ms.max(stat.children_modified_ms) + ttl);
    let empty = (stat.container && stat.children_version > 0).then(|| stat.children_modified_ms + GRACE_MS);
    ttl.into_iter().chain(empty).min()
}

pub(super) fn kind_of(kind: crate::ChangeKind) -> ChangeKind {
    match kind {
        crate::ChangeKind::Created => ChangeKind::Created,
        crate::ChangeKind::Data => ChangeKind::Data,
        crate::ChangeKind::Deleted => ChangeKind::Deleted,
        crate::ChangeKind::Acl => ChangeKind::Acl,
    }
}

pub(super) fn prefix(path: &str) -> String {
    if path == "/" { path.to_owned() } else { format!("{path}/") }
}

pub(super) fn fits(data: &[u8]) -> Result<()> {
    if data.len() <= limits::DATA_BYTES {
        return Ok(());
    }
    let why = format!("bytes of data is {}, {} is the limit", data.len(), limits::DATA_BYTES);
    Err(Error::refused("limit", why))
}

pub(super) fn no_znode(path: &str) -> Error {
    Error::refused("no-znode", format!("{path} does not exist"))
}

fn exists(path: &str) -> Error {
    Error::refused("znode-exists", format!("{path} exists already"))
}
