//! Sets access lists, and keeps each different one once.

use conclave_protocol::{AccessList, ChangeKind, Path, Permission, Refusal, SetAcl, Stat, Who, limits};

use super::trigger::{self, About};
use crate::authority::{self, OPEN, administers, authorize};
use crate::row;
use crate::tree;
use crate::tx::within_u64;
use crate::view::{Stop, Tx};
use crate::{Table, key};

/// What setting a list writes besides the path and a new list, at most.
const SET_BYTES: usize = 300;

pub(crate) fn set(tx: &mut Tx, set: &SetAcl) -> Result<Stat, Stop> {
    let SetAcl { path, acl, if_acl_version } = set;
    let found = tree::find(tx, path)?;
    if let Some((_, deepest)) = &found.deepest {
        authorize(tx, tx.actor(), Permission::Admin, deepest.acl, path)?;
    }
    let Some((id, mut znode)) = found.whole() else {
        return Err(Refusal::NoZnode { path: path.clone() }.into());
    };
    let present = znode.clone();
    let about = About { kind: ChangeKind::Acl, path, present: Some((id, &present)), data: None };
    let actual = znode.stat.acl_version;
    if let Some(expected) = if_acl_version.filter(|expected| *expected != actual) {
        return Err(Refusal::BadAclVersion { path: path.clone(), actual, expected }.into());
    }
    tx.room(path.as_str().len() + SET_BYTES)?;
    trigger::before(tx, &about)?;
    let before = znode.acl;
    znode.acl = intern(tx, path, acl)?;
    znode.stat.acl_version += 1;
    trigger::note(tx, &about)?;
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    tx.change(ChangeKind::Acl, path.clone(), znode.stat.version, znode.acl, before);
    Ok(znode.stat)
}

/// The number of this list, which is for the znode at `path`: a new one if it was never used before. Everything is
/// checked before anything is written.
pub(crate) fn intern(tx: &mut Tx, path: &Path, list: &AccessList) -> Result<u32, Stop> {
    within_u64("grants of the access list", tx.limits.acl_grants, list.0.len() as u64)?;
    for grant in &list.0 {
        if let Who::Principal(principal) = &grant.who {
            within_u64(
                "bytes of a principal in the access list",
                limits::PRINCIPAL_BYTES as u64,
                principal.len() as u64,
            )?;
        }
    }
    let list = list.normal();
    // Nobody's principal is empty.
    let is_somebody = |who: &Who| *who != Who::Principal(String::new());
    if !list.0.iter().any(|grant| grant.may.has(Permission::Admin) && is_somebody(&grant.who)) {
        return Err(Refusal::LocksOut { path: path.clone() }.into());
    }
    if list == AccessList::open() {
        return Ok(OPEN);
    }
    let row = row::encode(&list);
    let index = xxhash_rust::xxh3::xxh3_128(&row).to_be_bytes();
    let known: Option<u32> = tx.typed(Table::AclIndex, &index)?;
    // The hash is fast and not one that nobody can find a second list for: the lists themselves are compared.
    if let Some(number) = known
        && authority::list(tx, number)? == list
    {
        return Ok(number);
    }
    let more = u64::from(tx.state.acls) + 1;
    within_u64("new access lists of the transaction", limits::TRANSACTION_LISTS as u64, more - tx.lists_before())?;
    // They are never deleted: who uses up all that there may be takes them from everybody, and for good.
    let all = tx.limits.access_lists;
    let most = if administers(tx, tx.actor())? { all } else { all - all / 10 };
    within_u64("different access lists", most, more)?;
    tx.room(row.len() + SET_BYTES)?;
    tx.state.acls += 1;
    let number = tx.state.acls;
    tx.put(Table::Acl, &key::acl(number), row.into());
    if known.is_none() {
        tx.put_row(Table::AclIndex, &index, &number);
    }
    Ok(number)
}
