//! What one transaction does to the small tree.

use std::collections::BTreeMap;

use bytes::Bytes;
use conclave_protocol::{Change, ChangeKind, Condition, Edit, Path, Present, Refusal, Stat, Step, Value, Zxid};

/// What a transaction did so far.
pub(super) struct Transaction {
    pub(super) zxid: Zxid,
    pub(super) znodes: BTreeMap<Path, Present>,
    pub(super) changes: Vec<Change>,
}

impl Transaction {
    pub(super) fn step(&mut self, step: Step) -> Result<Value, Refusal> {
        match step {
            Step::Check(check) => self.check(check.path, &check.condition),
            Step::Create(create) => {
                let mut path = create.path;
                if create.kind.sequential {
                    let count = self.znodes[&path.parent().unwrap()].stat.children_version;
                    path = Path::parse(&format!("{path}{count:010}")).unwrap();
                }
                if create.or_set && self.znodes.contains_key(&path) {
                    return self.set(&path, None, create.data).map(|stat| Value::Set { stat });
                }
                self.create(&path, create.data, create.parents).map(|stat| Value::Created { path, stat })
            }
            Step::Set(set) => self.set(&set.path, set.if_version, set.data).map(|stat| Value::Set { stat }),
            Step::Delete(delete) => {
                self.find(&delete.path)?;
                self.prune(&delete.path, usize::MAX).map(|value| match value {
                    Value::Pruned { count, .. } => Value::Deleted { count },
                    other => other,
                })
            }
            Step::Update(update) => self.update(update),
            Step::Acl(set) => {
                let znode = self.find(&set.path)?;
                znode.stat.acl_version += 1;
                let (stat, version) = (znode.stat, znode.stat.version);
                self.changed(ChangeKind::Acl, &set.path, version);
                Ok(Value::Acl { stat })
            }
        }
    }

    fn changed(&mut self, kind: ChangeKind, path: &Path, version: u64) {
        self.changes.push(Change { kind, path: path.clone(), version });
    }

    fn find(&mut self, path: &Path) -> Result<&mut Present, Refusal> {
        self.znodes.get_mut(path).ok_or_else(|| Refusal::NoZnode { path: path.clone() })
    }

    fn check(&mut self, path: Path, condition: &Condition) -> Result<Value, Refusal> {
        let stat = self.znodes.get(&path).map(|znode| znode.stat);
        match (condition, stat) {
            (Condition::Absent, Some(_)) => Err(Refusal::ZnodeExists { path }),
            (Condition::Absent, None) | (Condition::Exists, Some(_)) => Ok(Value::Checked),
            (Condition::Created(zxid), stat) if stat.is_none_or(|stat| stat.created != *zxid) => {
                let fence = conclave_protocol::Fence { path, zxid: *zxid };
                Err(Refusal::Fenced { fence, actual: stat.map(|stat| stat.created) })
            }
            (Condition::Version(expected), Some(stat)) if stat.version != *expected => {
                Err(Refusal::BadVersion { path, actual: stat.version, expected: *expected })
            }
            (_, None) => Err(Refusal::NoZnode { path }),
            (_, Some(_)) => Ok(Value::Checked),
        }
    }

    fn create(&mut self, path: &Path, data: Bytes, parents: bool) -> Result<Stat, Refusal> {
        if self.znodes.contains_key(path) {
            return Err(Refusal::ZnodeExists { path: path.clone() });
        }
        let parent = path.parent().unwrap();
        if !self.znodes.contains_key(&parent) {
            if !parents {
                return Err(Refusal::NoZnode { path: parent });
            }
            self.create(&parent, Bytes::new(), true)?;
        }
        let (zxid, ms) = (self.zxid, self.zxid.0 * 10);
        self.count(&parent, 1);
        let stat = Stat {
            created: zxid,
            modified: zxid,
            children_modified: zxid,
            created_ms: ms,
            modified_ms: ms,
            children_modified_ms: ms,
            data_bytes: data.len() as u64,
            ..Stat::default()
        };
        self.znodes.insert(path.clone(), Present { data, stat });
        self.changed(ChangeKind::Created, path, 0);
        Ok(stat)
    }

    fn count(&mut self, parent: &Path, by: i64) {
        let zxid = self.zxid;
        if let Some(Present { stat, .. }) = self.znodes.get_mut(parent) {
            stat.children = stat.children.checked_add_signed(by).unwrap();
            stat.children_version += 1;
            (stat.children_modified, stat.children_modified_ms) = (zxid, zxid.0 * 10);
        }
    }

    fn set(&mut self, path: &Path, if_version: Option<u64>, data: Bytes) -> Result<Stat, Refusal> {
        let zxid = self.zxid;
        let znode = self.find(path)?;
        if let Some(expected) = if_version.filter(|expected| *expected != znode.stat.version) {
            return Err(Refusal::BadVersion { path: path.clone(), actual: znode.stat.version, expected });
        }
        znode.stat.version += 1;
        (znode.stat.modified, znode.stat.modified_ms) = (zxid, zxid.0 * 10);
        znode.stat.data_bytes = data.len() as u64;
        znode.data = data;
        let stat = znode.stat;
        self.changed(ChangeKind::Data, path, stat.version);
        Ok(stat)
    }

    fn update(&mut self, update: conclave_protocol::Update) -> Result<Value, Refusal> {
        let is_new = update.or_create && !self.znodes.contains_key(&update.path);
        let old = if is_new { Bytes::new() } else { self.find(&update.path)?.data.clone() };
        let number = std::str::from_utf8(&old).ok().and_then(|text| text.parse::<i64>().ok());
        let (data, number) = match update.edit {
            Edit::Add(by) => (None, number.unwrap_or(0) + by),
            Edit::Min(other) => (None, number.map_or(other, |number| number.min(other))),
            Edit::Max(other) => (None, number.map_or(other, |number| number.max(other))),
            Edit::Append(more) => (Some([old, more].concat().into()), 0),
            Edit::Swap { data, .. } => (Some(data), 0),
        };
        let made = data.clone().unwrap_or_else(|| number.to_string().into());
        let stat = if is_new {
            self.create(&update.path, made, false)?
        } else {
            self.set(&update.path, update.if_version, made)?
        };
        Ok(if data.is_some() { Value::Set { stat } } else { Value::Number { number, stat } })
    }

    /// Deletes so many znodes at most, children before parents.
    pub(super) fn prune(&mut self, path: &Path, most: usize) -> Result<Value, Refusal> {
        self.find(path)?;
        let all: Vec<Path> = self.znodes.keys().filter(|other| other.is_within(path)).cloned().collect();
        for gone in all.iter().rev().take(most) {
            let version = self.znodes.remove(gone).unwrap().stat.version;
            self.count(&gone.parent().unwrap(), -1);
            self.changed(ChangeKind::Deleted, gone, version);
        }
        Ok(Value::Pruned { count: most.min(all.len()) as u64, more: all.len() > most })
    }
}
