//! Deletes a znode, or a whole subtree in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use conclave_protocol::{ChangeKind, Delete, Path, Refusal, SessionId, limits};

use crate::authority::{Action, authorize};
use crate::row::{self, Session, Znode};
use crate::tree;
use crate::tx::within;
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
    authorize(tx.principal(), Action::Delete, &delete.path)?;
    if delete.path.is_root() {
        return Err(Refusal::BadRequest { why: "the root can't be deleted".to_owned() }.into());
    }
    let (id, znode) = super::set::at_version(tx, &delete.path, delete.if_version)?;
    let children = znode.stat.children;
    if children > 0 && !delete.recursive {
        return Err(Refusal::NotEmpty { path: delete.path.clone(), children }.into());
    }
    let victims = subtree(tx, Victim { id, znode, path: delete.path.clone() })?;
    remove(tx, &victims, None)?;
    Ok(victims.len() as u64)
}

/// A znode and all below it, children before parents, if they fit one transaction.
fn subtree(tx: &Tx, top: Victim) -> Result<Vec<Victim>, Stop> {
    let mut bytes = 0;
    let mut victims = vec![top];
    let mut next = 0;
    while let Some(Victim { id, znode, path }) = victims.get(next) {
        let (id, children, path) = (*id, znode.stat.children, path.clone());
        next += 1;
        bytes += usize::try_from(super::session::cost(&path)).unwrap_or(usize::MAX);
        tx.room(bytes)?;
        let prefix = key::child(id, "");
        let mut after: Option<Vec<u8>> = None;
        let mut left = children;
        while left > 0 {
            let rows = tx.scan(Table::Child, &prefix, after.as_deref(), SCAN)?;
            if rows.is_empty() {
                return Err(Fault::Invariant(format!("{path} has {left} children less than its stat says")).into());
            }
            left = left.saturating_sub(rows.len() as u64);
            within("znodes of the subtree", limits::SUBTREE_ZNODES, victims.len() + rows.len())?;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, value) in rows {
                let path = path.join(&tree::child_name(&key)?)?;
                authorize(tx.principal(), Action::Delete, &path)?;
                let id = row::decode(Table::Child, &value)?;
                victims.push(Victim { id, znode: tree::znode(tx, id)?, path });
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
    let gone: BTreeSet<ZnodeId> = victims.iter().map(|victim| victim.id).collect();
    let mut parents: BTreeMap<ZnodeId, u64> = BTreeMap::new();
    let mut owners: BTreeMap<SessionId, (u64, u64)> = BTreeMap::new();
    for Victim { id, znode, path } in victims {
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
        if !gone.contains(&znode.parent) {
            *parents.entry(znode.parent).or_default() += 1;
        }
        tx.change(ChangeKind::Deleted, path.clone(), znode.stat.version);
    }
    tx.state.znodes = less(tx.state.znodes, victims.len() as u64, "znodes")?;
    for (id, count) in parents {
        let mut parent = tree::znode(tx, id)?;
        parent.stat.children = less(parent.stat.children, count, "children")?;
        parent.stat.children_version += count;
        parent.stat.children_modified = tx.zxid();
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
