//! The naive model: znodes in a map by path, sessions and one-shot writes in maps, everything else by hand.

use std::collections::BTreeMap;

use bytes::Bytes;
use conclave_core::entry::Origin;
use conclave_core::plan::{Asked, Request, Verdict, Work};
use conclave_protocol::{
    Change, ChangeKind, Create, Delete, Op, Outcome, Path, PushBack, Refusal, SessionId, Set, Stat, Step, Value, Zxid,
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) data: Bytes,
    pub(crate) stat: Stat,
    pub(crate) next: u64,
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

/// A transaction as the model expects it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) zxid: Zxid,
    pub(crate) origin: Origin,
    pub(crate) changes: Vec<Change>,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemTree {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) once: BTreeMap<(String, [u8; 16]), Once>,
    pub(crate) zxid: Zxid,
    pub(crate) now_ms: u64,
}

type Done<T> = Result<T, Refusal>;

impl MemTree {
    /// As genesis at time 0 leaves it.
    pub(crate) fn new() -> Self {
        let one = Zxid(1);
        let stat = Stat { created: one, modified: one, children_modified: one, ..Stat::default() };
        let root = Node { data: Bytes::new(), stat, next: 0 };
        Self {
            nodes: [("/".to_owned(), root)].into(),
            sessions: BTreeMap::new(),
            once: BTreeMap::new(),
            zxid: one,
            now_ms: 0,
        }
    }

    /// What a planner must say, and the transaction if there is one.
    pub(crate) fn plan(&mut self, request: &Request, now_ms: u64) -> (Verdict, Option<Expected>) {
        self.now_ms = self.now_ms.max(now_ms);
        match &request.asked {
            Asked::Session { session, sequence, floor } => self.in_session(request, *session, *sequence, *floor),
            Asked::Once { nonce, until_ms } => {
                let key = (request.principal.clone(), *nonce.as_bytes());
                if let Some(once) = self.once.get(&key) {
                    return (Verdict::Look(once.zxid), None);
                }
                if *until_ms <= self.now_ms || *until_ms > self.now_ms + 60_000 {
                    return (Verdict::PushBack(PushBack::Until { now_ms: self.now_ms }), None);
                }
                let (changes, outcome) = self.carry_out(request, None);
                let once = Once { until_ms: *until_ms, zxid: self.zxid, outcome: outcome.clone() };
                self.once.insert(key, once);
                let origin = Origin::Once { principal: request.principal.clone(), nonce: *nonce };
                self.planned(origin, changes, Some(outcome))
            }
            Asked::Leader => {
                let mut changes = Vec::new();
                match &request.work {
                    Work::Stamp => {}
                    Work::Forget => {
                        let before = self.once.len();
                        let now_ms = self.now_ms;
                        self.once.retain(|_, once| once.until_ms > now_ms);
                        if self.once.len() == before {
                            return (Verdict::Dropped, None);
                        }
                    }
                    Work::Expire { session } if self.sessions.contains_key(session) => {
                        self.zxid.0 += 1;
                        self.end(*session, &mut changes);
                        self.zxid.0 -= 1;
                    }
                    _ => return (Verdict::Dropped, None),
                }
                self.zxid.0 += 1;
                self.planned(Origin::Leader, changes, None)
            }
        }
    }

    fn planned(&self, origin: Origin, changes: Vec<Change>, outcome: Option<Outcome>) -> (Verdict, Option<Expected>) {
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
    fn carry_out(&mut self, request: &Request, session: Option<SessionId>) -> (Vec<Change>, Outcome) {
        self.zxid.0 += 1;
        let before = self.clone();
        let mut changes = Vec::new();
        let outcome = self.work(request, session, &mut changes);
        if outcome.is_err() {
            *self = before;
            changes.clear();
        }
        (changes, outcome)
    }

    fn work(&mut self, request: &Request, session: Option<SessionId>, changes: &mut Vec<Change>) -> Outcome {
        if let Some(fence) = &request.fence {
            let actual = self.nodes.get(fence.path.as_str()).map(|node| node.stat.created);
            if actual != Some(fence.zxid) {
                return Err(Refusal::Fenced { fence: fence.clone(), actual });
            }
        }
        match &request.work {
            Work::Open { timeout_ms } => {
                let timeout_ms = (*timeout_ms).clamp(2_000, 300_000);
                let principal = request.principal.clone();
                let id = SessionId(self.zxid.0);
                let new = Session { principal, timeout_ms, floor: 1, next: 1, replies: BTreeMap::new() };
                self.sessions.insert(id, new);
                Ok(Value::Opened { session: id, timeout_ms })
            }
            Work::Op(Op::Multi(steps)) => {
                let mut values = Vec::new();
                for (number, step) in steps.iter().enumerate() {
                    let value = self.step(step, session, changes).map_err(|cause| Refusal::Step {
                        step: u32::try_from(number).unwrap(),
                        cause: Box::new(cause),
                    })?;
                    values.push(value);
                }
                Ok(Value::Multi(values))
            }
            Work::Op(Op::Create(create)) => self.create(create, session, changes),
            Work::Op(Op::Set(set)) => self.set(set, changes),
            Work::Op(Op::Delete(delete)) => self.delete(delete, changes),
            Work::Op(Op::Call(call)) => Err(Refusal::NoPlugin { plugin: call.plugin.clone() }),
            Work::Op(Op::Close) => {
                let id = session.ok_or(Refusal::NoSession { what: "closing a session".to_owned() })?;
                self.end(id, changes);
                Ok(Value::Closed)
            }
            other => panic!("the model knows no {other:?}"),
        }
    }

    fn step(&mut self, step: &Step, session: Option<SessionId>, changes: &mut Vec<Change>) -> Outcome {
        match step {
            Step::Check(check) => self.at(&check.path, check.if_version).map(|_| Value::Checked),
            Step::Create(create) => self.create(create, session, changes),
            Step::Set(set) => self.set(set, changes),
            Step::Delete(delete) => self.delete(delete, changes),
        }
    }

    fn at(&self, path: &Path, expected: Option<u64>) -> Done<&Node> {
        let node = self.nodes.get(path.as_str()).ok_or(Refusal::NoZnode { path: path.clone() })?;
        match expected {
            Some(expected) if expected != node.stat.version => {
                Err(Refusal::BadVersion { path: path.clone(), actual: node.stat.version, expected })
            }
            _ => Ok(node),
        }
    }

    fn create(&mut self, create: &Create, session: Option<SessionId>, changes: &mut Vec<Change>) -> Outcome {
        let owner = if create.kind.ephemeral { session } else { None };
        if create.kind.ephemeral && owner.is_none() {
            return Err(Refusal::NoSession { what: "an ephemeral znode".to_owned() });
        }
        let text = create.path.as_str();
        if text == "/" {
            return Err(Refusal::ZnodeExists { path: create.path.clone() });
        }
        let (parent, _) = text.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { "/" } else { parent };
        if !self.nodes.contains_key(parent) && !create.parents {
            return Err(Refusal::NoZnode { path: Path::parse(parent).unwrap() });
        }
        // The deepest znode on the way that exists.
        let mut above = parent.to_owned();
        while !self.nodes.contains_key(&above) {
            above.truncate(above.rfind('/').unwrap().max(1));
        }
        let ends_with = self.nodes[&above].stat.owner;
        if ends_with.is_some() && (ends_with != owner || above != parent) {
            return Err(Refusal::EphemeralParent { path: Path::parse(&above).unwrap() });
        }
        let mut made = text.to_owned();
        if create.kind.sequential {
            let mut number = self.nodes.get(parent).map_or(0, |parent| parent.next);
            loop {
                made = format!("{text}{number:010}");
                number += 1;
                if !self.nodes.contains_key(&made) {
                    break;
                }
            }
            self.add(parent, None, Bytes::new(), changes);
            self.nodes.get_mut(parent).unwrap().next = number;
        } else if self.nodes.contains_key(&made) {
            return Err(Refusal::ZnodeExists { path: create.path.clone() });
        }
        self.add(&made, owner, create.data.clone(), changes);
        Ok(Value::Created { path: Path::parse(&made).unwrap(), stat: self.nodes[&made].stat })
    }

    /// Adds a znode and, before it, all that is missing above.
    fn add(&mut self, path: &str, owner: Option<SessionId>, data: Bytes, changes: &mut Vec<Change>) {
        if self.nodes.contains_key(path) {
            return;
        }
        let parent = above(path);
        self.add(&parent, None, Bytes::new(), changes);
        let parent = self.nodes.get_mut(&parent).unwrap();
        parent.stat.children += 1;
        parent.stat.children_version += 1;
        parent.stat.children_modified = self.zxid;
        let stat = Stat {
            created: self.zxid,
            modified: self.zxid,
            children_modified: self.zxid,
            version: 0,
            children_version: 0,
            created_ms: self.now_ms,
            modified_ms: self.now_ms,
            owner,
            data_bytes: data.len() as u64,
            children: 0,
        };
        self.nodes.insert(path.to_owned(), Node { data, stat, next: 0 });
        changes.push(Change { kind: ChangeKind::Created, path: Path::parse(path).unwrap(), version: 0 });
    }

    fn set(&mut self, set: &Set, changes: &mut Vec<Change>) -> Outcome {
        self.at(&set.path, set.if_version)?;
        let node = self.nodes.get_mut(set.path.as_str()).unwrap();
        node.stat.version += 1;
        node.stat.modified = self.zxid;
        node.stat.modified_ms = self.now_ms;
        node.stat.data_bytes = set.data.len() as u64;
        node.data = set.data.clone();
        changes.push(Change { kind: ChangeKind::Data, path: set.path.clone(), version: node.stat.version });
        Ok(Value::Set { stat: node.stat })
    }

    fn delete(&mut self, delete: &Delete, changes: &mut Vec<Change>) -> Outcome {
        if delete.path.is_root() {
            return Err(Refusal::BadRequest { why: "the root can't be deleted".to_owned() });
        }
        let children = self.at(&delete.path, delete.if_version)?.stat.children;
        if children > 0 && !delete.recursive {
            return Err(Refusal::NotEmpty { path: delete.path.clone(), children });
        }
        let gone = self.nodes.keys().filter(|path| Path::parse(path).unwrap().is_within(&delete.path));
        let gone: Vec<String> = gone.cloned().collect();
        let count = gone.len() as u64;
        self.remove(gone, changes);
        Ok(Value::Deleted { count })
    }

    fn remove(&mut self, gone: Vec<String>, changes: &mut Vec<Change>) {
        for path in gone.iter().rev() {
            let node = self.nodes.remove(path).unwrap();
            let parent = self.nodes.get_mut(&above(path)).unwrap();
            parent.stat.children -= 1;
            parent.stat.children_version += 1;
            parent.stat.children_modified = self.zxid;
            let version = node.stat.version;
            changes.push(Change { kind: ChangeKind::Deleted, path: Path::parse(path).unwrap(), version });
        }
    }

    fn end(&mut self, id: SessionId, changes: &mut Vec<Change>) {
        let gone = self.nodes.iter().filter(|(_, node)| node.stat.owner == Some(id));
        let gone = gone.map(|(path, _)| path.clone()).collect();
        self.remove(gone, changes);
        self.sessions.remove(&id);
    }
}

fn above(path: &str) -> String {
    match path.rfind('/').unwrap() {
        0 => "/".to_owned(),
        at => path[..at].to_owned(),
    }
}
