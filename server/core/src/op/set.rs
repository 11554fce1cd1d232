//! Replaces a znode's data.

use bytes::Bytes;
use conclave_protocol::{ChangeKind, Path, Permission, Refusal, Set, Stat};

use super::trigger::{self, About};
use crate::authority::authorize;
use crate::row::Znode;
use crate::tree;
use crate::tx::within_u64;
use crate::view::{Stop, Tx};
use crate::{Table, ZnodeId, key};

/// What a set writes besides data and path, at most.
const SET_BYTES: usize = 300;

pub(crate) fn set(tx: &mut Tx, set: &Set) -> Result<Stat, Stop> {
    within_u64("bytes of data", tx.limits.data_bytes, set.data.len() as u64)?;
    let (id, znode) = writable(tx, &set.path, set.if_version)?;
    write(tx, id, znode, &set.path, set.data.clone())
}

/// The znode at a path, if the principal may write it and its data has that version.
pub(crate) fn writable(tx: &Tx, path: &Path, if_version: Option<u64>) -> Result<(ZnodeId, Znode), Stop> {
    let found = tree::find(tx, path)?;
    // Whether it is there is told to whoever may write above it.
    if let Some((_, deepest)) = &found.deepest {
        authorize(tx, tx.actor(), Permission::Write, deepest.acl, path)?;
    }
    at_version(found.whole(), path, if_version)
}

/// Writes a znode's new data.
pub(crate) fn write(tx: &mut Tx, id: ZnodeId, mut znode: Znode, path: &Path, data: Bytes) -> Result<Stat, Stop> {
    let present = Some((id, &znode));
    let rewritten = trigger::before(tx, &About { kind: ChangeKind::Data, path, present, data: Some(&data) })?;
    let data = rewritten.unwrap_or(data);
    tx.room(data.len() + path.as_str().len() + SET_BYTES)?;
    trigger::note(tx, &About { kind: ChangeKind::Data, path, present, data: Some(&data) })?;
    znode.stat.version += 1;
    znode.stat.modified = tx.zxid();
    znode.stat.modified_ms = tx.now_ms();
    znode.stat.data_bytes = data.len() as u64;
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    if data.is_empty() {
        tx.remove(Table::Data, &key::znode(id));
    } else {
        tx.put(Table::Data, &key::znode(id), data);
    }
    tx.change(ChangeKind::Data, path.clone(), znode.stat.version, znode.acl, znode.acl);
    Ok(znode.stat)
}

/// What was found at a path, if it is there and its data has that version.
pub(crate) fn at_version(
    found: Option<(ZnodeId, Znode)>,
    path: &Path,
    expected: Option<u64>,
) -> Result<(ZnodeId, Znode), Stop> {
    let Some((id, znode)) = found else {
        return Err(Refusal::NoZnode { path: path.clone() }.into());
    };
    let actual = znode.stat.version;
    match expected {
        Some(expected) if expected != actual => {
            Err(Refusal::BadVersion { path: path.clone(), actual, expected }.into())
        }
        _ => Ok((id, znode)),
    }
}
