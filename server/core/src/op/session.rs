//! Opens and ends sessions.

use std::cmp::Reverse;

use conclave_protocol::{Path, SessionId, Value};

use super::{park, trigger};
use crate::op::delete::{self, Victim};
use crate::query;
use crate::row::{self, Owned, Session};
use crate::tree;
use crate::tx::CHANGE_BYTES;
use crate::view::Tx;
use crate::{Fault, Table, ZnodeId, key};

/// What deleting a znode writes, in bytes at most: four keys (the child's with its name), the change, and its parent's
/// row and, if that may have to go now, the row of its expiry, should no other share it (a stat of 64-bit numbers of up to
/// 10 bytes each).
pub(crate) fn cost(path: &Path) -> u64 {
    let name = path.name().unwrap_or_default().len();
    (2 * path.as_str().len() + name + CHANGE_BYTES + 300) as u64
}

/// Opens a session; its number is the transaction's zxid, so that it is never used twice.
pub(crate) fn open(tx: &mut Tx, wanted_ms: u64) -> Value {
    let session = SessionId(tx.zxid().0);
    let timeout_ms = wanted_ms.clamp(tx.limits.session_timeout_min_ms, tx.limits.session_timeout_max_ms);
    let row = Session {
        principal: tx.principal().to_owned(),
        timeout_ms,
        floor: 1,
        next: 1,
        owned: 0,
        owned_bytes: 0,
        reply_bytes: 0,
        calls: 0,
        parked: 0,
        packed: Vec::new(),
    };
    tx.put_row(Table::Session, &key::session(session), &row);
    Value::Opened { session, timeout_ms }
}

/// Ends a session that exists: its ephemeral znodes, its replies, its row. Never refused: the limits on what it owns
/// make sure that this fits a transaction. Plugins have a say first: its calls that wait, then `session-end` triggers.
pub(crate) fn end(tx: &mut Tx, session: SessionId, expired: bool) -> Result<(), Fault> {
    let prefix = key::session(session);
    if let Some(row) = query::session(tx, session)? {
        let acting = tx.acting.replace(row.principal.clone());
        if row.calls > 0 {
            park::end_session(tx, session)?;
        }
        trigger::session_end(tx, session, &row.principal, expired)?;
        tx.acting = acting;
    }
    let mut victims = Vec::new();
    for (key, value) in tree::rows(tx, Table::Owned, &prefix)? {
        let id = ZnodeId(last_number(&key, Table::Owned)?);
        let Owned { path } = row::decode(Table::Owned, &value)?;
        victims.push(Victim { id, znode: tree::znode(tx, id)?, path });
    }
    // Only ephemeral znodes of the same session lie below them. A child's path is behind its parent's.
    victims.sort_unstable_by(|a, b| Reverse(&a.path).cmp(&Reverse(&b.path)));
    delete::remove(tx, &victims, Some(session))?;
    for (key, _) in tree::rows(tx, Table::Reply, &prefix)? {
        tx.remove(Table::Reply, &key);
    }
    tx.remove(Table::Session, &prefix);
    Ok(())
}

/// The second number of a key that is a pair of them.
fn last_number(key: &[u8], table: Table) -> Result<u64, Fault> {
    let number = key.get(8..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    number.ok_or_else(|| Fault::Row { table, why: "its key is not a pair of numbers".to_owned() })
}
