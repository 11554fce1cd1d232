//! What goes by itself: one-shot writes that need not be remembered any more, znodes whose time to live is over, empty
//! containers.
//!
//! A znode has at most one row in `Expiry`, at a time that is never later than the one at which it has to go. When that
//! time comes the znode is looked at: if it was changed since, the row moves. So a change of a znode costs nothing here.

use conclave_protocol::{Path, limits};

use super::{install, park};
use crate::op::delete::{self, Victim};
use crate::row::{self, Owned, Remembered, Znode};
use crate::tree::{self, typed};
use crate::tx::Tx;
use crate::view::Base;
use crate::{Fault, Table, ZnodeId, key};

/// How many rows one transaction looks at: few enough that nobody waits for it.
const BATCH: usize = 500;

/// Bytes after which one transaction looks at no further row: those on the longest paths write 32 KiB each.
const BATCH_BYTES: usize = limits::TRANSACTION_BYTES / 2;

/// Bytes of what a row of `Expiry` has of a call's deadline, and of an uploaded component.
const CALL: usize = 17;
const UPLOAD: usize = 33;

/// Does what is due, up to a batch of it, the oldest first: how many rows of `Expiry` it took care of.
pub(crate) fn sweep(tx: &mut Tx) -> Result<usize, Fault> {
    // Most often nothing is due, and one look is enough.
    match tx.scan(Table::Expiry, &[], None, 1)?.first() {
        Some((row, _)) if split(row)?.0 <= tx.now_ms() => {}
        _ => return Ok(0),
    }
    let mut done = 0;
    for (row, value) in tx.scan(Table::Expiry, &[], None, BATCH)? {
        let (deadline_ms, of) = split(&row)?;
        // As in the plan: with `until` reached, a one-shot write is not planned any more.
        if deadline_ms > tx.now_ms() || tx.bytes_written() > BATCH_BYTES {
            break;
        }
        if let Ok(id) = <[u8; 8]>::try_from(of) {
            let Owned { path } = row::decode(Table::Expiry, &value)?;
            // A znode of this sweep may have had the row moved or removed already.
            if tx.row(Table::Expiry, &row)?.is_some() {
                look(tx, ZnodeId(u64::from_be_bytes(id)), path)?;
            }
        } else if of.len() == CALL {
            park::time_is_over(tx, &row, of)?;
        } else if of.len() == UPLOAD {
            install::upload_is_over(tx, &row, of)?;
        } else {
            forget(tx, &row, of, row::decode(Table::Expiry, &value)?)?;
        }
        done += 1;
    }
    Ok(done)
}

/// When the row of this key comes up, and what for.
fn split(key: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let parts = key.split_first_chunk().map(|(deadline, of)| (u64::from_be_bytes(*deadline), of));
    let why = || Fault::Row { table: Table::Expiry, why: "its key begins with no deadline".to_owned() };
    parts.ok_or_else(why)
}

/// Forgets a one-shot write, whose outcome has so many bytes.
fn forget(tx: &mut Tx, row: &[u8], once: &[u8], bytes: u64) -> Result<(), Fault> {
    tx.remove(Table::Once, once);
    tx.remove(Table::Expiry, row);
    let Some(of) = once.get(..16) else {
        return Err(Fault::Row {
            table: Table::Expiry,
            why: "it is for neither a znode nor a one-shot write".to_owned(),
        });
    };
    let all: Remembered = typed(tx, Table::Once, of)?.unwrap_or_default();
    match all.count.saturating_sub(1) {
        0 => tx.remove(Table::Once, of),
        count => tx.put_row(Table::Once, of, &Remembered { count, bytes: all.bytes.saturating_sub(bytes) }),
    }
    Ok(())
}

/// A znode's row has come up: it goes, or its row moves.
fn look(tx: &mut Tx, id: ZnodeId, path: Path) -> Result<(), Fault> {
    let mut znode = tree::znode(tx, id)?;
    let grace_ms = tx.limits.container_grace_ms;
    if due(&znode, grace_ms).is_some_and(|due| due <= tx.now_ms()) {
        return delete::remove(tx, &[Victim { id, znode, path }], None);
    }
    unschedule(tx, id, &znode);
    znode.expiry_ms = 0;
    // With children it has no row: it gets one again when the last of them goes.
    if let Some(at) = due(&znode, grace_ms) {
        put(tx, id, &mut znode, at, &path);
    }
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    Ok(())
}

/// When a znode has to go, if nothing happens to it; none when it has children, or never has to.
fn due(znode: &Znode, grace_ms: u64) -> Option<u64> {
    let stat = &znode.stat;
    if stat.children > 0 {
        return None;
    }
    let ttl = stat.ttl_ms.map(|ttl_ms| stat.modified_ms.max(stat.children_modified_ms).saturating_add(ttl_ms));
    let is_left = stat.container && stat.children_version > 0;
    let left = is_left.then(|| stat.children_modified_ms.saturating_add(grace_ms));
    ttl.into_iter().chain(left).min()
}

/// Sees to it that a znode that was created, or has lost children, is looked at in time. The caller writes its row.
pub(crate) fn schedule(tx: &mut Tx, id: ZnodeId, znode: &mut Znode, path: &Path) {
    let Some(due) = due(znode, tx.limits.container_grace_ms) else { return };
    if znode.expiry_ms != 0 {
        // It is looked at early enough, or the row moves up.
        if znode.expiry_ms <= due {
            return;
        }
        unschedule(tx, id, znode);
    }
    put(tx, id, znode, due, path);
}

/// A znode that goes, or whose row moves, leaves no row behind.
pub(crate) fn unschedule(tx: &mut Tx, id: ZnodeId, znode: &Znode) {
    if znode.expiry_ms != 0 {
        tx.remove(Table::Expiry, &key::expiry(znode.expiry_ms, &key::znode(id)));
    }
}

fn put(tx: &mut Tx, id: ZnodeId, znode: &mut Znode, at_ms: u64, path: &Path) {
    // 0 stands for none.
    znode.expiry_ms = at_ms.max(1);
    let row = Owned { path: path.clone() };
    tx.put_row(Table::Expiry, &key::expiry(znode.expiry_ms, &key::znode(id)), &row);
}
