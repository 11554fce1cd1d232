//! Refuses what leaves the tree larger than it was, while the leader's disk is too full for that.

use std::collections::BTreeSet;

use conclave_protocol::{Path, Refusal, Value};

use crate::plan::Growth;
use crate::tree;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, key};

/// What a znode takes besides its name and its data, in bytes, about: its row, its keys, what refers to it. That it is
/// more than nothing is what matters: each further znode is growth.
const ZNODE_BYTES: u64 = 256;

/// Refuses a transaction that was carried out and makes the tree larger, when growth is refused.
///
/// It is judged at its end and as a whole, which is the same rule for steps of a multi, for all that a procedure does,
/// and for a single write. Nothing is counted while growth is allowed.
pub(crate) fn within(tx: &Tx, value: &Value, growth: Growth) -> Result<(), Stop> {
    let Growth::Refused { free_bytes, least_bytes } = growth else { return Ok(()) };
    // A session is a row of its own, and stays as long as it is renewed. A new access list stays for good.
    let is_new_list =
        tx.row(Table::Acl, &key::acl(tx.state.acls))? != tx.view().row(Table::Acl, &key::acl(tx.state.acls))?;
    let grows = matches!(value, Value::Opened { .. }) || is_new_list || tree_grows(tx)?;
    if grows { Err(Refusal::DiskFull { free_bytes, least_bytes }.into()) } else { Ok(()) }
}

/// Whether the znodes that were changed take more than before.
fn tree_grows(tx: &Tx) -> Result<bool, Fault> {
    let changed: BTreeSet<&Path> = tx.changes().iter().map(|recorded| &recorded.change.path).collect();
    let (mut before, mut after) = (0, 0);
    for path in changed {
        before += size(tx.view(), path)?;
        after += size(tx, path)?;
    }
    Ok(after > before)
}

/// The bytes that a znode takes, about; none when there is no such znode.
fn size(base: &dyn Base, path: &Path) -> Result<u64, Fault> {
    let name = path.name().map_or(0, str::len) as u64;
    Ok(tree::resolve(base, path)?.map_or(0, |(_, znode)| ZNODE_BYTES + name + znode.stat.data_bytes))
}
