//! The naive model: znodes in a map by path, sessions and one-shot writes in maps, everything else by hand.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conclave_core::entry::Origin;
use conclave_core::plan::{Asked, Request, Verdict, Work};
use conclave_protocol::limits::Limits;
use conclave_protocol::{
    AccessList, Change, ChangeKind, Op, Outcome, Path, Permission, PushBack, Refusal, SessionId, Stat, Value, Who, Zxid,
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) data: Bytes,
    pub(crate) stat: Stat,
    pub(crate) next: u64,
    pub(crate) acl: AccessList,
    /// In the order of creation.
    pub(crate) id: u64,
    /// When it is looked at whether it has to go.
    pub(crate) look_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) principal: String,
    pub(crate) timeout_ms: u64,
    pub(crate) floor: u64,
    pub(crate) next: u64,
    pub(crate) replies: BTreeMap<u64, (Zxid, Outcome)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Once {
    pub(crate) until_ms: u64,
    pub(crate) zxid: Zxid,
    pub(crate) outcome: Outcome,
}

/// A change, and the two access lists by which it may be told.
pub(crate) type Told = (Change, AccessList, AccessList);

/// A transaction as the model expects it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) zxid: Zxid,
    pub(crate) origin: Origin,
    pub(crate) changes: Vec<Told>,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemTree {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) once: BTreeMap<(String, [u8; 16]), Once>,
    /// Every list but the open one that was ever used.
    pub(crate) lists: BTreeSet<AccessList>,
    /// How many of them are of the last transaction.
    pub(crate) new_lists: usize,
    pub(crate) zxid: Zxid,
    pub(crate) now_ms: u64,
    pub(crate) next_id: u64,
    pub(crate) limits: Limits,
}

pub(crate) type Done<T> = Result<T, Refusal>;

impl MemTree {
    /// As genesis at time 0 leaves it.
    pub(crate) fn new() -> Self {
        let one = Zxid(1);
        let stat = Stat { created: one, modified: one, children_modified: one, ..Stat::default() };
        let acl = AccessList::open();
        let root = Node { data: Bytes::new(), stat, next: 0, acl, id: 1, look_ms: None };
        Self {
            nodes: [("/".to_owned(), root)].into(),
            sessions: BTreeMap::new(),
            once: BTreeMap::new(),
            lists: BTreeSet::new(),
            new_lists: 0,
            zxid: one,
            now_ms: 0,
            next_id: 2,
            limits: Limits::default(),
        }
    }

    /// What a planner must say, and the transaction if there is one.
    pub(crate) fn plan(&mut self, request: &Request, now_ms: u64) -> (Verdict, Option<Expected>) {
        self.now_ms = self.now_ms.max(now_ms);
        match &request.asked {
            Asked::Session { session, sequence, floor, .. } => self.in_session(request, *session, *sequence, *floor),
            Asked::Once { nonce, until_ms } => {
                let key = (request.principal.clone(), *nonce.as_bytes());
                if let Some(once) = self.once.get(&key) {
                    return (Verdict::Look(once.zxid), None);
                }
                if *until_ms <= self.now_ms || *until_ms > self.now_ms + 60_000 {
                    return (Verdict::PushBack(PushBack::Until { now_ms: self.now_ms }), None);
                }
                let remembered = self.once.keys().filter(|(principal, _)| *principal == request.principal).count();
                if remembered as u64 >= self.limits.once_rows {
                    return (Verdict::PushBack(PushBack::Busy), None);
                }
                let (changes, outcome) = self.carry_out(request, None);
                let once = Once { until_ms: *until_ms, zxid: self.zxid, outcome: outcome.clone() };
                self.once.insert(key, once);
                let origin = Origin::Once { principal: request.principal.clone(), nonce: *nonce };
                self.planned(origin, changes, Some(outcome))
            }
            Asked::Leader => {
                let mut changes = Vec::new();
                self.zxid.0 += 1;
                let something = match &request.work {
                    Work::Stamp => true,
                    Work::Sweep => self.sweep(&mut changes),
                    Work::Expire { session } if self.sessions.contains_key(session) => {
                        self.end(*session, &mut changes);
                        true
                    }
                    _ => false,
                };
                if !something {
                    self.zxid.0 -= 1;
                    return (Verdict::Dropped, None);
                }
                self.planned(Origin::Leader, changes, None)
            }
        }
    }

    fn planned(&self, origin: Origin, changes: Vec<Told>, outcome: Option<Outcome>) -> (Verdict, Option<Expected>) {
        (Verdict::Planned(self.zxid), Some(Expected { zxid: self.zxid, origin, changes, outcome }))
    }

    fn in_session(
        &mut self,
        request: &Request,
        id: SessionId,
        sequence: u64,
        floor: u64,
    ) -> (Verdict, Option<Expected>) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.principal == request.principal) else {
            return (Verdict::Look(self.zxid), None);
        };
        if sequence < session.floor {
            return (Verdict::Dropped, None);
        }
        if sequence < session.next {
            return (Verdict::Look(session.replies[&sequence].0), None);
        }
        if sequence > session.next {
            return (Verdict::PushBack(PushBack::Expected { next: session.next }), None);
        }
        let (changes, outcome) = self.carry_out(request, Some(id));
        let zxid = self.zxid;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.floor = floor.max(session.floor).min(session.next);
            session.replies.insert(sequence, (zxid, outcome.clone()));
            session.replies.retain(|sequence, _| *sequence >= session.floor);
            session.next += 1;
        }
        self.planned(Origin::Session { session: id, sequence }, changes, Some(outcome))
    }

    /// Takes the next zxid; a refusal leaves everything else as it was.
    fn carry_out(&mut self, request: &Request, session: Option<SessionId>) -> (Vec<Told>, Outcome) {
        self.zxid.0 += 1;
        self.new_lists = 0;
        let before = self.clone();
        let mut changes = Vec::new();
        let outcome = self.work(request, session, &mut changes);
        if outcome.is_err() {
            *self = before;
            changes.clear();
        }
        (changes, outcome)
    }

    fn work(&mut self, request: &Request, session: Option<SessionId>, changes: &mut Vec<Told>) -> Outcome {
        if let Some(fence) = &request.fence {
            self.holds(&request.principal, fence)?;
        }
        match &request.work {
            Work::Open { timeout_ms } => {
                let (least, most) = (self.limits.session_timeout_min_ms, self.limits.session_timeout_max_ms);
                let timeout_ms = (*timeout_ms).max(least).min(most);
                let principal = request.principal.clone();
                let id = SessionId(self.zxid.0);
                let new = Session { principal, timeout_ms, floor: 1, next: 1, replies: BTreeMap::new() };
                self.sessions.insert(id, new);
                Ok(Value::Opened { session: id, timeout_ms })
            }
            Work::Op(op) => self.op(&request.principal, op, session, changes),
            other => panic!("the model knows no {other:?}"),
        }
    }

    /// Does what is due; false when there was nothing to look at.
    fn sweep(&mut self, changes: &mut Vec<Told>) -> bool {
        let now_ms = self.now_ms;
        let before = self.once.len();
        self.once.retain(|_, once| once.until_ms > now_ms);
        let due: Vec<String> =
            self.nodes.iter().filter(|(_, node)| self.due(node)).map(|(path, _)| path.clone()).collect();
        let mut looks: Vec<(u64, u64, String)> = Vec::new();
        for (path, node) in &self.nodes {
            looks.extend(node.look_ms.filter(|at| *at <= now_ms).map(|at| (at, node.id, path.clone())));
        }
        looks.sort();
        for (_, _, path) in &looks {
            let node = &self.nodes[path];
            if self.due(node) {
                self.remove(vec![path.clone()], changes);
                continue;
            }
            let next = if node.stat.children == 0 { deadline(node, &self.limits) } else { None };
            self.nodes.get_mut(path).unwrap().look_ms = next;
        }
        for path in due {
            assert!(!self.nodes.contains_key(&path), "{path} had to go, and nobody looked at it");
        }
        self.once.len() < before || !looks.is_empty()
    }

    /// Whether a znode has to go by now.
    fn due(&self, node: &Node) -> bool {
        node.stat.children == 0 && deadline(node, &self.limits).is_some_and(|at| at <= self.now_ms)
    }

    /// Sees to it that it is looked at in time.
    pub(crate) fn schedule(&mut self, path: &str) {
        let limits = self.limits;
        let node = self.nodes.get_mut(path).unwrap();
        if node.stat.children == 0
            && let Some(at) = deadline(node, &limits)
        {
            node.look_ms = Some(node.look_ms.map_or(at, |look_ms| look_ms.min(at)));
        }
    }

    /// Removes znodes, the last path first.
    pub(crate) fn remove(&mut self, gone: Vec<String>, changes: &mut Vec<Told>) {
        let mut gone = gone;
        gone.sort();
        for path in gone.iter().rev() {
            let node = self.nodes.remove(path).unwrap();
            let parent = self.nodes.get_mut(&above(path)).unwrap();
            parent.stat.children -= 1;
            parent.stat.children_version += 1;
            parent.stat.children_modified = self.zxid;
            parent.stat.children_modified_ms = self.now_ms;
            let told = change(ChangeKind::Deleted, path, node.stat.version);
            changes.push((told, node.acl, parent.acl.clone()));
            self.schedule(&above(path));
        }
    }

    pub(crate) fn end(&mut self, id: SessionId, changes: &mut Vec<Told>) {
        let gone = self.nodes.iter().filter(|(_, node)| node.stat.owner == Some(id));
        let gone = gone.map(|(path, _)| path.clone()).collect();
        self.remove(gone, changes);
        self.sessions.remove(&id);
    }

    /// The deepest znode on the way to a path.
    pub(crate) fn deepest(&self, path: &str) -> String {
        let mut path = path.to_owned();
        while !self.nodes.contains_key(&path) {
            path = above(&path);
        }
        path
    }

    /// Refuses unless the znode at `at` allows that; `path` is what is told.
    pub(crate) fn may(&self, who: &str, permission: Permission, at: &str, path: &Path) -> Done<()> {
        if allows(&self.nodes[at].acl, who, permission) {
            return Ok(());
        }
        Err(Refusal::NotAllowed { principal: who.to_owned(), action: String::new(), path: path.clone() })
    }

    /// Whether somebody administers the cluster.
    pub(crate) fn administers(&self, who: &str) -> bool {
        allows(&self.nodes["/"].acl, who, Permission::Admin)
    }

    /// How many ephemeral znodes a session owns.
    pub(crate) fn owned(&self, id: SessionId) -> u64 {
        self.nodes.values().filter(|node| node.stat.owner == Some(id)).count() as u64
    }

    /// An operation; its steps are in the other file.
    fn op(&mut self, who: &str, op: &Op, session: Option<SessionId>, changes: &mut Vec<Told>) -> Outcome {
        match op {
            Op::Create(create) => self.create(who, create, session, changes),
            Op::Set(set) => self.set(who, set, changes),
            Op::Delete(delete) => self.delete(who, delete, changes),
            Op::Multi(steps) => self.multi(who, steps, session, changes),
            Op::Update(update) => self.update(who, update, changes),
            Op::Prune(prune) => self.prune(who, prune, changes),
            Op::Acl(set) => self.set_acl(who, set, changes),
            Op::Call(call) => Err(Refusal::NoPlugin { plugin: call.plugin.clone() }),
            Op::Cancel { .. } | Op::Upload(_) | Op::Install(_) | Op::Manage(_) => {
                panic!("the model has no plugins: {op:?}")
            }
            Op::End(other) => {
                let principal = &self.sessions.get(other).ok_or(Refusal::SessionOver { session: *other })?.principal;
                if principal != who && !self.administers(who) {
                    let (principal, path) = (who.to_owned(), Path::root());
                    return Err(Refusal::NotAllowed { principal, action: String::new(), path });
                }
                self.end(*other, changes);
                Ok(Value::Ended)
            }
            Op::Close => {
                let id = session.ok_or(Refusal::NoSession { what: String::new() })?;
                self.end(id, changes);
                Ok(Value::Closed)
            }
        }
    }
}

/// When a znode without children has to go.
fn deadline(node: &Node, limits: &Limits) -> Option<u64> {
    let changed_ms = node.stat.modified_ms.max(node.stat.children_modified_ms);
    let ttl = node.stat.ttl_ms.map(|ttl_ms| changed_ms + ttl_ms);
    let had_children = node.stat.children_version > 0;
    let left =
        (node.stat.container && had_children).then(|| node.stat.children_modified_ms + limits.container_grace_ms);
    match (ttl, left) {
        (Some(ttl), Some(left)) => Some(ttl.min(left)),
        (one, other) => one.or(other),
    }
}

pub(crate) fn allows(acl: &AccessList, who: &str, permission: Permission) -> bool {
    who.is_empty()
        || acl.0.iter().any(|grant| {
            let meant = match &grant.who {
                Who::Anyone => true,
                Who::Principal(one) => one == who,
            };
            meant && grant.may.to_string().contains(permission.letter())
        })
}

pub(crate) fn change(kind: ChangeKind, path: &str, version: u64) -> Change {
    Change { kind, path: Path::parse(path).unwrap(), version }
}

pub(crate) fn above(path: &str) -> String {
    match path.rfind('/').unwrap() {
        0 => "/".to_owned(),
        at => path[..at].to_owned(),
    }
}
