//! Deletes a znode, a whole subtree in one transaction, or a subtree part by part.

use std::collections::{BTreeMap, BTreeSet};

use conclave_protocol::{ChangeKind, Delete, Path, Permission, Prune, Refusal, SessionId, limits};

use super::trigger::{self, About};
use crate::authority::authorize;
use crate::row::{self, Session, Znode};
use crate::tree;
use crate::tx::within_u64;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, ZnodeId, key};

/// Children that are read at a time.
const SCAN: usize = 1_000;

/// A znode that is to go.
pub(crate) struct Victim {
    pub(crate) id: ZnodeId,
    pub(crate) znode: Znode,
    pub(crate) path: Path,
}

pub(crate) fn delete(tx: &mut Tx, delete: &Delete) -> Result<u64, Stop> {
    let top = top(tx, &delete.path, delete.if_version)?;
    let children = top.znode.stat.children;
    if children > 0 && !delete.recursive {
        return Err(Refusal::NotEmpty { path: delete.path.clone(), children }.into());
    }
    let victims = subtree(tx, top)?;
    ask(tx, &victims)?;
    remove(tx, &victims, None)?;
    Ok(victims.len() as u64)
}

/// Deletes at most so many znodes of a subtree, from below: how many, and whether there are more.
pub(crate) fn prune(tx: &mut Tx, prune: &Prune) -> Result<(u64, bool), Stop> {
    if prune.limit == 0 {
        return Err(Refusal::BadRequest { why: "a prune of at most 0 znodes never ends".to_owned() }.into());
    }
    let top = top(tx, &prune.path, None)?;
    let mut part = Part {
        victims: Vec::new(),
        most: u64::from(prune.limit).min(tx.limits.prune_znodes),
        bytes: limits::TRANSACTION_BYTES as u64 / 2,
        owners: Owners::default(),
    };
    let is_all = part.take(tx, top)?;
    let Part { mut victims, .. } = part;
    victims.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    ask(tx, &victims)?;
    remove(tx, &victims, None)?;
    Ok((victims.len() as u64, !is_all))
}

/// Asks the `before` triggers of what somebody deletes.
fn ask(tx: &mut Tx, victims: &[Victim]) -> Result<(), Stop> {
    for Victim { id, znode, path } in victims {
        trigger::before(tx, &About { kind: ChangeKind::Deleted, path, present: Some((*id, znode)), data: None })?;
    }
    Ok(())
}

/// The znode that is to be deleted, if the principal may do that: who may delete children of its parent.
fn top(tx: &Tx, path: &Path, if_version: Option<u64>) -> Result<Victim, Stop> {
    let Some(parent) = path.parent() else {
        return Err(Refusal::BadRequest { why: "the root can't be deleted".to_owned() }.into());
    };
    let above = tree::find(tx, &parent)?;
    // Where there is no parent, whoever may delete below the znode above it is told so.
    if let Some((_, deepest)) = &above.deepest {
        authorize(tx, tx.actor(), Permission::Delete, deepest.acl, &parent)?;
    }
    let id = match above.whole() {
        Some((parent, _)) => tree::child(tx, parent, path.name().unwrap_or_default())?,
        None => None,
    };
    let found = id.map(|id| tree::znode(tx, id).map(|znode| (id, znode))).transpose()?;
    let (id, znode) = super::set::at_version(found, path, if_version)?;
    Ok(Victim { id, znode, path: path.clone() })
}

/// A part of a subtree that is to go.
struct Part {
    victims: Vec<Victim>,
    /// How many there may be.
    most: u64,
    /// How many bytes deleting them may still write.
    bytes: u64,
    owners: Owners,
}

/// Sessions that lose ephemeral znodes: their rows are written too, once each.
#[derive(Default)]
struct Owners(BTreeSet<SessionId>);

impl Owners {
    /// What deleting one more znode writes, in bytes at most.
    fn cost(&mut self, tx: &Tx, path: &Path, znode: &Znode) -> Result<u64, Fault> {
        let row = match znode.owner() {
            Some(owner) if self.0.insert(owner) => tx.row(Table::Session, &key::session(owner))?,
            _ => None,
        };
        Ok(super::session::cost(path) + row.map_or(0, |row| (size_of::<SessionId>() + row.len()) as u64))
    }
}

impl Part {
    /// Takes what lies below a znode, then the znode; false when there is no more room. Paths are not deep.
    fn take(&mut self, tx: &Tx, victim: Victim) -> Result<bool, Stop> {
        let Victim { id, znode, path } = &victim;
        if znode.stat.children > 0 {
            authorize(tx, tx.actor(), Permission::Delete, znode.acl, path)?;
            let prefix = key::child(*id, "");
            let mut after: Option<Vec<u8>> = None;
            loop {
                let room = usize::try_from(self.most - self.victims.len() as u64).unwrap_or(SCAN).min(SCAN);
                let rows = tx.scan(Table::Child, &prefix, after.as_deref(), room.max(1))?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                for (key, value) in rows {
                    if !self.take(tx, child(tx, path, &key, &value)?)? {
                        return Ok(false);
                    }
                }
            }
        }
        let cost = self.owners.cost(tx, path, znode)?;
        if self.victims.len() as u64 >= self.most || self.bytes < cost {
            return Ok(false);
        }
        self.bytes -= cost;
        self.victims.push(victim);
        Ok(true)
    }
}

/// The child that a row of `Child` names.
fn child(tx: &Tx, parent: &Path, key: &[u8], value: &[u8]) -> Result<Victim, Stop> {
    let path = parent.join(&tree::child_name(key)?)?;
    let id = row::decode(Table::Child, value)?;
    Ok(Victim { id, znode: tree::znode(tx, id)?, path })
}

/// A znode and all below it, children before parents, if they fit one transaction.
fn subtree(tx: &Tx, top: Victim) -> Result<Vec<Victim>, Stop> {
    let mut bytes = 0;
    let mut owners = Owners::default();
    let mut victims = vec![top];
    let mut next = 0;
    while let Some(Victim { id, znode, path }) = victims.get(next) {
        let (id, children, path) = (*id, znode.stat.children, path.clone());
        next += 1;
        bytes += usize::try_from(owners.cost(tx, &path, znode)?).unwrap_or(usize::MAX);
        tx.room(bytes)?;
        if children > 0 {
            authorize(tx, tx.actor(), Permission::Delete, znode.acl, &path)?;
        }
        let prefix = key::child(id, "");
        let mut after: Option<Vec<u8>> = None;
        let mut left = children;
        while left > 0 {
            let rows = tx.scan(Table::Child, &prefix, after.as_deref(), SCAN)?;
            if rows.is_empty() {
                return Err(Fault::Invariant(format!("{path} has {left} children less than its stat says")).into());
            }
            left = left.saturating_sub(rows.len() as u64);
            within_u64("znodes of the subtree", tx.limits.subtree_znodes, (victims.len() + rows.len()) as u64)?;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, value) in rows {
                victims.push(child(tx, &path, &key, &value)?);
            }
        }
    }
    // The order in which the end of a session deletes: a child's path is behind its parent's.
    victims.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    Ok(victims)
}

/// Removes znodes, children before parents; all that lies below any of them is among them. The parents that stay, and
/// the sessions that lose an ephemeral znode, are written once each, except the one that is `ending`.
pub(crate) fn remove(tx: &mut Tx, victims: &[Victim], ending: Option<SessionId>) -> Result<(), Fault> {
    let gone: BTreeMap<ZnodeId, u32> = victims.iter().map(|victim| (victim.id, victim.znode.acl)).collect();
    let mut parents: BTreeMap<ZnodeId, (Znode, Path, u64)> = BTreeMap::new();
    let mut owners: BTreeMap<SessionId, (u64, u64)> = BTreeMap::new();
    for Victim { id, znode, path } in victims {
        trigger::note(tx, &About { kind: ChangeKind::Deleted, path, present: Some((*id, znode)), data: None })?;
        tx.remove(Table::Znode, &key::znode(*id));
        if znode.stat.data_bytes > 0 {
            tx.remove(Table::Data, &key::znode(*id));
        }
        tx.remove(Table::Child, &key::child(znode.parent, path.name().unwrap_or_default()));
        if let Some(owner) = znode.owner() {
            tx.remove(Table::Owned, &key::owned(owner, *id));
            let (count, bytes) = owners.entry(owner).or_default();
            *count += 1;
            *bytes += super::session::cost(path);
        }
        super::sweep::unschedule(tx, *id, znode);
        let beside = match (gone.get(&znode.parent), parents.get_mut(&znode.parent)) {
            (Some(acl), _) => *acl,
            (None, Some((parent, _, count))) => {
                *count += 1;
                parent.acl
            }
            (None, None) => {
                let parent = tree::znode(tx, znode.parent)?;
                let acl = parent.acl;
                parents.insert(znode.parent, (parent, path.parent().unwrap_or_default(), 1));
                acl
            }
        };
        tx.change(ChangeKind::Deleted, path.clone(), znode.stat.version, znode.acl, beside);
    }
    tx.state.znodes = less(tx.state.znodes, victims.len() as u64, "znodes")?;
    for (id, (mut parent, path, count)) in parents {
        parent.stat.children = less(parent.stat.children, count, "children")?;
        parent.stat.children_version += count;
        parent.stat.children_modified = tx.zxid();
        parent.stat.children_modified_ms = tx.now_ms();
        super::sweep::schedule(tx, id, &mut parent, &path);
        tx.put_row(Table::Znode, &key::znode(id), &parent);
    }
    for (owner, (count, bytes)) in owners.into_iter().filter(|(owner, _)| Some(*owner) != ending) {
        let row: Option<Session> = tx.typed(Table::Session, &key::session(owner))?;
        let gone = || Fault::Invariant(format!("session {owner} is gone and owned an ephemeral znode"));
        let mut row = row.ok_or_else(gone)?;
        row.owned = less(row.owned, count, "ephemeral znodes")?;
        row.owned_bytes = less(row.owned_bytes, bytes, "bytes of ephemeral znodes")?;
        tx.put_row(Table::Session, &key::session(owner), &row);
    }
    Ok(())
}

fn less(count: u64, by: u64, what: &str) -> Result<u64, Fault> {
    count.checked_sub(by).ok_or_else(|| Fault::Invariant(format!("{by} {what} of {count} are deleted")))
}
