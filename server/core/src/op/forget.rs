//! Forgets one-shot writes whose `until` has passed.

use crate::view::{Base, Tx};
use crate::{Fault, Table};

/// How many one call forgets.
const BATCH: usize = 1_000;

/// Deletes up to a batch of them, the oldest first; how many.
pub(crate) fn forget(tx: &mut Tx) -> Result<usize, Fault> {
    let mut forgotten = 0;
    for (key, _) in tx.scan(Table::Expiry, &[], None, BATCH)? {
        let Some((deadline, once)) = key.split_first_chunk::<8>() else {
            return Err(Fault::Row { table: Table::Expiry, why: "its key begins with no deadline".to_owned() });
        };
        // As in the plan: with `until` reached, a one-shot write is not planned any more.
        if u64::from_be_bytes(*deadline) > tx.now_ms() {
            break;
        }
        tx.remove(Table::Once, once);
        tx.remove(Table::Expiry, &key);
        forgotten += 1;
    }
    Ok(forgotten)
}
