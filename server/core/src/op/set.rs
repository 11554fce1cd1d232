//! Replaces a znode's data.

use conclave_protocol::{ChangeKind, Path, Refusal, Set, Stat, limits};

use crate::authority::{Action, authorize};
use crate::row::Znode;
use crate::tree;
use crate::tx::within;
use crate::view::{Stop, Tx};
use crate::{Table, ZnodeId, key};

/// What a set writes besides data and path, at most.
const SET_BYTES: usize = 200;

pub(crate) fn set(tx: &mut Tx, set: &Set) -> Result<Stat, Stop> {
    within("bytes of data", limits::DATA_BYTES, set.data.len())?;
    authorize(tx.principal(), Action::Set, &set.path)?;
    let (id, mut znode) = at_version(tx, &set.path, set.if_version)?;
    tx.room(set.data.len() + set.path.as_str().len() + SET_BYTES)?;
    znode.stat.version += 1;
    znode.stat.modified = tx.zxid();
    znode.stat.modified_ms = tx.now_ms();
    znode.stat.data_bytes = set.data.len() as u64;
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    if set.data.is_empty() {
        tx.remove(Table::Data, &key::znode(id));
    } else {
        tx.put(Table::Data, &key::znode(id), set.data.clone());
    }
    tx.change(ChangeKind::Data, set.path.clone(), znode.stat.version);
    Ok(znode.stat)
}

/// The znode at a path, if its data has that version.
pub(crate) fn at_version(tx: &Tx, path: &Path, expected: Option<u64>) -> Result<(ZnodeId, Znode), Stop> {
    let Some((id, znode)) = tree::resolve(tx, path)? else {
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
