//! A fence holds while the very znode exists that it names.

use conclave_protocol::{Fence, Permission, Refusal};

use crate::authority::is_allowed;
use crate::tree;
use crate::view::{Stop, Tx};

/// Refuses unless the znode exists and was created by that zxid. The principal's right to read it does not matter: the
/// fence is the client's own award. Of another's only the zxid is told, and only to whoever may read it.
pub(crate) fn holds(tx: &Tx, fence: &Fence) -> Result<(), Stop> {
    let actual = match tree::resolve(tx, &fence.path)? {
        Some((_, znode)) if znode.stat.created == fence.zxid => return Ok(()),
        Some((_, znode)) if is_allowed(tx, tx.actor(), Permission::Read, znode.acl)? => Some(znode.stat.created),
        _ => None,
    };
    Err(Refusal::Fenced { fence: fence.clone(), actual }.into())
}
