//! A fence holds while the very znode exists that it names.

use conclave_protocol::{Fence, Refusal};

use crate::tree;
use crate::view::{Stop, Tx};

/// Refuses unless the znode exists and was created by that zxid. The principal's right to read it does not matter: the
/// fence is the client's own award, and what is told of another's is only its zxid.
pub(crate) fn holds(tx: &Tx, fence: &Fence) -> Result<(), Stop> {
    let actual = tree::resolve(tx, &fence.path)?.map(|(_, znode)| znode.stat.created);
    if actual == Some(fence.zxid) {
        return Ok(());
    }
    Err(Refusal::Fenced { fence: fence.clone(), actual }.into())
}
