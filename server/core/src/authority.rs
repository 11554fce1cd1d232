//! The one check that stands before every operation, read or write, a client's or a plugin's, and every watch event.

use conclave_protocol::{AccessList, Path, Permission, Refusal};

use crate::row::Recorded;
use crate::tree::{self, typed};
use crate::view::{Base, Stop};
use crate::{Fault, Table, ZnodeId, key};

/// The access list that allows everybody everything: it has no row.
pub(crate) const OPEN: u32 = 0;

/// Whether the principal may do that to a znode (`path`) with this access list. The leader's own work (no principal) may
/// do everything.
///
/// # Errors
/// [`Refusal::NotAllowed`], or a fault.
pub fn authorize(base: &dyn Base, principal: &str, permission: Permission, acl: u32, path: &Path) -> Result<(), Stop> {
    if is_allowed(base, principal, permission, acl)? {
        return Ok(());
    }
    let action = match permission {
        Permission::Create => "create children of",
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Delete => "delete children of",
        Permission::Admin => "administer",
    };
    Err(Refusal::NotAllowed { principal: principal.to_owned(), action: action.to_owned(), path: path.clone() }.into())
}

/// Whether the principal administers the cluster: may administer the root.
///
/// # Errors
/// A fault of this member.
pub fn administers(base: &dyn Base, principal: &str) -> Result<bool, Fault> {
    match tree::resolve(base, &Path::root())? {
        Some((_, root)) => is_allowed(base, principal, Permission::Admin, root.acl),
        None => Ok(principal.is_empty()),
    }
}

/// Whether the principal may be told of a change: if it may read by the one access list or the other.
///
/// # Errors
/// A fault of this member.
pub fn may_see(base: &dyn Base, principal: &str, recorded: &Recorded) -> Result<bool, Fault> {
    let may_read = |acl| is_allowed(base, principal, Permission::Read, acl);
    Ok(may_read(recorded.acl)? || may_read(recorded.beside)?)
}

pub(crate) fn is_allowed(base: &dyn Base, principal: &str, permission: Permission, acl: u32) -> Result<bool, Fault> {
    if acl == OPEN || principal.is_empty() {
        return Ok(true);
    }
    Ok(list(base, acl)?.allows(principal, permission))
}

/// The access list of this number.
pub(crate) fn list(base: &dyn Base, acl: u32) -> Result<AccessList, Fault> {
    if acl == OPEN {
        return Ok(AccessList::open());
    }
    let list = typed(base, Table::Acl, &key::acl(acl))?;
    list.ok_or_else(|| Fault::Invariant(format!("access list {acl} is named and has no row")))
}

/// Refuses unless the principal may read at a path: by the znode's own access list, or that of the deepest znode above it
/// when it is not there.
pub(crate) fn may_look(
    base: &dyn Base,
    principal: &str,
    path: &Path,
) -> Result<Option<(ZnodeId, crate::row::Znode)>, Stop> {
    let found = tree::find(base, path)?;
    if let Some((_, deepest)) = &found.deepest {
        authorize(base, principal, Permission::Read, deepest.acl, path)?;
    }
    Ok(found.whole())
}
