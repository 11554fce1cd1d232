//! The naive model's operations on znodes. Texts in refusals are left empty: they are not compared.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use conclave_protocol::{
    AccessList, ChangeKind, Check, Condition, Create, Delete, Edit, Fence, Grant, Outcome, Path, Permission,
    Permissions, Prune, Refusal, SessionId, Set, SetAcl, Stat, Step, Update, Value, Who,
};

use super::tree::{Done, MemTree, Node, Told, above, allows, change};

impl MemTree {
    pub(crate) fn multi(
        &mut self,
        who: &str,
        steps: &[Step],
        session: Option<SessionId>,
        changes: &mut Vec<Told>,
    ) -> Outcome {
        within(self.limits.multi_steps, steps.len())?;
        let mut values = Vec::new();
        for (number, step) in (0..).zip(steps) {
            let value = match step {
                Step::Check(wanted) => self.check(who, wanted).map(|()| Value::Checked),
                Step::Create(create) => self.create(who, create, session, changes),
                Step::Set(set) => self.set(who, set, changes),
                Step::Delete(delete) => self.delete(who, delete, changes),
                Step::Update(update) => self.update(who, update, changes),
                Step::Acl(set) => self.set_acl(who, set, changes),
            };
            values.push(value.map_err(|cause| Refusal::Step { step: number, cause: Box::new(cause) })?);
        }
        Ok(Value::Multi(values))
    }

    /// The znode, once it is clear that the principal may do that to it.
    fn at(&self, who: &str, permission: Permission, path: &Path, version: Option<u64>) -> Done<&Node> {
        self.may(who, permission, &self.deepest(path.as_str()), path)?;
        self.version(path, version)
    }

    fn version(&self, path: &Path, expected: Option<u64>) -> Done<&Node> {
        let node = self.nodes.get(path.as_str()).ok_or(Refusal::NoZnode { path: path.clone() })?;
        match expected {
            Some(expected) if expected != node.stat.version => {
                Err(Refusal::BadVersion { path: path.clone(), actual: node.stat.version, expected })
            }
            _ => Ok(node),
        }
    }

    pub(crate) fn holds(&self, who: &str, fence: &Fence) -> Done<()> {
        let node = self.nodes.get(fence.path.as_str());
        if node.is_some_and(|node| node.stat.created == fence.zxid) {
            return Ok(());
        }
        let seen = node.filter(|node| allows(&node.acl, who, Permission::Read));
        Err(Refusal::Fenced { fence: fence.clone(), actual: seen.map(|node| node.stat.created) })
    }

    fn check(&self, who: &str, check: &Check) -> Done<()> {
        let Check { path, condition } = check;
        if let Condition::Created(zxid) = condition {
            return self.holds(who, &Fence { path: path.clone(), zxid: *zxid });
        }
        let version = if let Condition::Version(version) = condition { Some(*version) } else { None };
        let node = self.at(who, Permission::Read, path, version);
        if *condition == Condition::Absent {
            return match node {
                Err(Refusal::NoZnode { .. }) => Ok(()),
                Err(refusal) => Err(refusal),
                Ok(_) => Err(Refusal::ZnodeExists { path: path.clone() }),
            };
        }
        let node = node?;
        let is_so = match condition {
            Condition::Owner(session) => node.stat.owner == Some(*session),
            Condition::Children { least, most } => *least <= node.stat.children && node.stat.children <= *most,
            Condition::Data(data) => node.data == data,
            _ => true,
        };
        if is_so { Ok(()) } else { Err(failed(path)) }
    }

    pub(crate) fn create(
        &mut self,
        who: &str,
        create: &Create,
        session: Option<SessionId>,
        changes: &mut Vec<Told>,
    ) -> Outcome {
        let kind = create.kind;
        within(self.limits.data_bytes, create.data.len())?;
        if kind.ephemeral && kind.container || kind.sequential && create.or_set || kind.ttl_ms == Some(0) {
            return Err(Refusal::BadRequest { why: String::new() });
        }
        within(self.limits.ttl_max_ms, usize::try_from(kind.ttl_ms.unwrap_or(1)).unwrap())?;
        let owner = if kind.ephemeral { session } else { None };
        if kind.ephemeral && owner.is_none() {
            return Err(Refusal::NoSession { what: String::new() });
        }
        let text = create.path.as_str();
        let exists = self.nodes.contains_key(text) && (!kind.sequential || text == "/");
        if exists && create.or_set {
            return self.set_same_kind(who, create, owner, changes);
        }
        if text == "/" {
            return Err(Refusal::ZnodeExists { path: create.path.clone() });
        }
        let parent = above(text);
        let deepest = self.deepest(&parent);
        self.may(who, Permission::Create, &deepest, &Path::parse(&parent).unwrap())?;
        if deepest != parent && !create.parents {
            return Err(Refusal::NoZnode { path: Path::parse(&parent).unwrap() });
        }
        if exists {
            return Err(Refusal::ZnodeExists { path: create.path.clone() });
        }
        let ends_with = self.nodes[&deepest].stat.owner;
        if ends_with.is_some() && (ends_with != owner || deepest != parent) {
            return Err(Refusal::EphemeralParent { path: Path::parse(&deepest).unwrap() });
        }
        let mut made = text.to_owned();
        let mut number = self.nodes.get(&parent).map_or(0, |parent| parent.next);
        let mut looks = 0;
        while kind.sequential && (made == text || self.nodes.contains_key(&made)) {
            // 16 names made by hand are passed over one by one, then it goes by 2, 4, and so on to 1,024.
            number += if looks > 16 { (2 << (looks - 17).min(9)) - 1 } else { 0 };
            made = format!("{text}{number:010}");
            number += 1;
            looks += 1;
        }
        if let Some(owner) = owner {
            within_u64(self.limits.session_ephemerals, self.owned(owner) + 1)?;
        }
        let acl = match &create.acl {
            Some(list) => self.intern(who, &Path::parse(&made).unwrap(), list)?,
            None => self.nodes[&deepest].acl.clone(),
        };
        self.add(&made, owner, create, &acl, changes);
        if kind.sequential {
            self.nodes.get_mut(&parent).unwrap().next = number;
        }
        Ok(Value::Created { path: Path::parse(&made).unwrap(), stat: self.nodes[&made].stat })
    }

    /// Who may neither write nor create what is there is told of the latter.
    fn may_write(&self, who: &str, path: &Path) -> Done<()> {
        self.may(who, Permission::Write, path.as_str(), path).or_else(|refusal| {
            let parent = above(path.as_str());
            if !path.is_root() {
                self.may(who, Permission::Create, &parent, &Path::parse(&parent).unwrap())?;
            }
            Err(refusal)
        })
    }

    fn set_same_kind(
        &mut self,
        who: &str,
        create: &Create,
        owner: Option<SessionId>,
        changes: &mut Vec<Told>,
    ) -> Outcome {
        let path = create.path.clone();
        self.may_write(who, &path)?;
        let stat = self.nodes[path.as_str()].stat;
        if (stat.owner, stat.container, stat.ttl_ms) != (owner, create.kind.container, create.kind.ttl_ms) {
            return Err(Refusal::OtherKind { path, actual: String::new(), wanted: String::new() });
        }
        Ok(Value::Set { stat: self.write(&path, create.data.clone(), changes) })
    }

    /// Adds a znode and, before it, all that is missing above.
    fn add(&mut self, path: &str, owner: Option<SessionId>, new: &Create, acl: &AccessList, changes: &mut Vec<Told>) {
        let parent = above(path);
        if !self.nodes.contains_key(&parent) {
            self.add(&parent, None, &Create::default(), acl, changes);
        }
        let parent = self.nodes.get_mut(&parent).unwrap();
        parent.stat.children += 1;
        parent.stat.children_version += 1;
        parent.stat.children_modified = self.zxid;
        parent.stat.children_modified_ms = self.now_ms;
        changes.push((change(ChangeKind::Created, path, 0), acl.clone(), parent.acl.clone()));
        let stat = Stat {
            created: self.zxid,
            modified: self.zxid,
            children_modified: self.zxid,
            version: 0,
            children_version: 0,
            created_ms: self.now_ms,
            modified_ms: self.now_ms,
            children_modified_ms: self.now_ms,
            owner,
            data_bytes: new.data.len() as u64,
            children: 0,
            acl_version: 0,
            container: new.kind.container,
            ttl_ms: new.kind.ttl_ms,
        };
        let node = Node { data: new.data.clone(), stat, next: 0, acl: acl.clone(), id: self.next_id, look_ms: None };
        self.next_id += 1;
        self.nodes.insert(path.to_owned(), node);
        self.schedule(path);
    }

    pub(crate) fn set(&mut self, who: &str, set: &Set, changes: &mut Vec<Told>) -> Outcome {
        within(self.limits.data_bytes, set.data.len())?;
        self.at(who, Permission::Write, &set.path, set.if_version)?;
        Ok(Value::Set { stat: self.write(&set.path, set.data.clone(), changes) })
    }

    fn write(&mut self, path: &Path, data: Bytes, changes: &mut Vec<Told>) -> Stat {
        let node = self.nodes.get_mut(path.as_str()).unwrap();
        node.stat.version += 1;
        node.stat.modified = self.zxid;
        node.stat.modified_ms = self.now_ms;
        node.stat.data_bytes = data.len() as u64;
        node.data = data;
        let told = change(ChangeKind::Data, path.as_str(), node.stat.version);
        changes.push((told, node.acl.clone(), node.acl.clone()));
        node.stat
    }

    pub(crate) fn update(&mut self, who: &str, update: &Update, changes: &mut Vec<Told>) -> Outcome {
        let Update { path, edit, if_version, or_create } = update;
        let would_create = *or_create && if_version.is_none();
        if would_create && self.nodes.contains_key(path.as_str()) {
            self.may_write(who, path)?;
        } else if would_create {
            let parent = above(path.as_str());
            self.may(who, Permission::Create, &self.deepest(&parent), &Path::parse(&parent).unwrap())?;
            let (data, number) = edited(path, edit, b"")?;
            let made = self.create(who, &Create::new(path.clone(), data), None, changes)?;
            let Value::Created { stat, .. } = made else { panic!("{made:?}") };
            return Ok(number.map_or(Value::Set { stat }, |number| Value::Number { number, stat }));
        }
        let node = self.at(who, Permission::Write, path, *if_version)?;
        self.may(who, Permission::Read, path.as_str(), path)?;
        let (data, number) = edited(path, edit, &node.data)?;
        within(self.limits.data_bytes, data.len())?;
        let stat = self.write(path, data, changes);
        Ok(number.map_or(Value::Set { stat }, |number| Value::Number { number, stat }))
    }

    /// What must be so before anything of a znode is deleted.
    fn deletable(&self, who: &str, path: &Path, version: Option<u64>) -> Done<&Node> {
        if path.is_root() {
            return Err(Refusal::BadRequest { why: String::new() });
        }
        let parent = above(path.as_str());
        self.may(who, Permission::Delete, &self.deepest(&parent), &Path::parse(&parent).unwrap())?;
        self.version(path, version)
    }

    pub(crate) fn delete(&mut self, who: &str, delete: &Delete, changes: &mut Vec<Told>) -> Outcome {
        let children = self.deletable(who, &delete.path, delete.if_version)?.stat.children;
        if children > 0 && !delete.recursive {
            return Err(Refusal::NotEmpty { path: delete.path.clone(), children });
        }
        // Level by level: so it is told which limit or which list is met first.
        let mut gone = Vec::new();
        let mut next = VecDeque::from([delete.path.as_str().to_owned()]);
        while let Some(path) = next.pop_front() {
            let below = self.children_of(&path);
            if !below.is_empty() {
                self.may(who, Permission::Delete, &path, &Path::parse(&path).unwrap())?;
                within_u64(self.limits.subtree_znodes, (1 + gone.len() + next.len() + below.len()) as u64)?;
            }
            next.extend(below);
            gone.push(path);
        }
        let count = gone.len() as u64;
        self.remove(gone, changes);
        Ok(Value::Deleted { count })
    }

    pub(crate) fn prune(&mut self, who: &str, prune: &Prune, changes: &mut Vec<Told>) -> Outcome {
        if prune.limit == 0 {
            return Err(Refusal::BadRequest { why: String::new() });
        }
        self.deletable(who, &prune.path, None)?;
        let most = u64::from(prune.limit).min(self.limits.prune_znodes);
        let mut gone = Vec::new();
        let is_all = self.post_order(who, prune.path.as_str(), most, &mut gone)?;
        let count = gone.len() as u64;
        self.remove(gone, changes);
        Ok(Value::Pruned { count, more: !is_all })
    }

    fn post_order(&self, who: &str, path: &str, most: u64, gone: &mut Vec<String>) -> Done<bool> {
        let below = self.children_of(path);
        if !below.is_empty() {
            self.may(who, Permission::Delete, path, &Path::parse(path).unwrap())?;
        }
        for child in below {
            if !self.post_order(who, &child, most, gone)? {
                return Ok(false);
            }
        }
        let is_room = (gone.len() as u64) < most;
        if is_room {
            gone.push(path.to_owned());
        }
        Ok(is_room)
    }

    /// The paths of the children, in order of names.
    pub(crate) fn children_of(&self, path: &str) -> Vec<String> {
        self.nodes.keys().filter(|child| *child != "/" && above(child) == path).cloned().collect()
    }

    pub(crate) fn set_acl(&mut self, who: &str, set: &SetAcl, changes: &mut Vec<Told>) -> Outcome {
        let SetAcl { path, acl, if_acl_version } = set;
        let actual = self.at(who, Permission::Admin, path, None)?.stat.acl_version;
        if let Some(expected) = if_acl_version
            && *expected != actual
        {
            return Err(Refusal::BadAclVersion { path: path.clone(), actual, expected: *expected });
        }
        let acl = self.intern(who, path, acl)?;
        let node = self.nodes.get_mut(path.as_str()).unwrap();
        let before = std::mem::replace(&mut node.acl, acl.clone());
        node.stat.acl_version += 1;
        changes.push((change(ChangeKind::Acl, path.as_str(), node.stat.version), acl, before));
        Ok(Value::Acl { stat: node.stat })
    }

    /// The list as it is kept.
    fn intern(&mut self, who: &str, path: &Path, list: &AccessList) -> Done<AccessList> {
        within(self.limits.acl_grants, list.0.len())?;
        let mut letters: BTreeMap<Who, String> = BTreeMap::new();
        for grant in &list.0 {
            *letters.entry(grant.who.clone()).or_default() += &grant.may.to_string();
        }
        letters.retain(|_, letters| !letters.is_empty());
        if !letters.iter().any(|(who, letters)| letters.contains('a') && *who != Who::Principal(String::new())) {
            return Err(Refusal::LocksOut { path: path.clone() });
        }
        let permissions = |letters: &String| letters.parse::<Permissions>().unwrap();
        let list = letters.iter().map(|(who, letters)| Grant { who: who.clone(), may: permissions(letters) });
        let list = AccessList(list.collect());
        if list != AccessList::open() && !self.lists.contains(&list) {
            within(16, self.new_lists + 1)?;
            let all = self.limits.access_lists;
            let kept = if self.administers(who) { 0 } else { all / 10 };
            within_u64(all - kept, self.lists.len() as u64 + 1)?;
            self.lists.insert(list.clone());
            self.new_lists += 1;
        }
        Ok(list)
    }
}

/// What becomes of the data, and the number that it is.
fn edited(path: &Path, edit: &Edit, before: &[u8]) -> Done<(Bytes, Option<i64>)> {
    let bad = || Refusal::BadNumber { path: path.clone(), why: String::new() };
    let number = || {
        let text = std::str::from_utf8(before).map_err(|_| bad())?;
        text.trim().parse::<i64>().map_err(|_| bad())
    };
    let made = match edit {
        Edit::Append(more) => {
            let mut data = before.to_vec();
            data.extend_from_slice(more);
            return Ok((data.into(), None));
        }
        Edit::Swap { expected, data } if before == expected => return Ok((data.clone(), None)),
        Edit::Swap { .. } => return Err(failed(path)),
        Edit::Add(by) if before.is_empty() => *by,
        Edit::Add(by) => i64::try_from(i128::from(number()?) + i128::from(*by)).map_err(|_| bad())?,
        Edit::Min(other) | Edit::Max(other) if before.is_empty() => *other,
        Edit::Min(other) => number()?.min(*other),
        Edit::Max(other) => number()?.max(*other),
    };
    Ok((made.to_string().into(), Some(made)))
}

fn failed(path: &Path) -> Refusal {
    Refusal::CheckFailed { path: path.clone(), actual: String::new(), expected: String::new() }
}

fn within(limit: u64, actual: usize) -> Done<()> {
    within_u64(limit, actual as u64)
}

fn within_u64(limit: u64, actual: u64) -> Done<()> {
    if actual <= limit { Ok(()) } else { Err(Refusal::Limit { what: String::new(), limit, actual }) }
}
