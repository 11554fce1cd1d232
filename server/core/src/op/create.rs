//! Creates a znode, and missing parents if wanted.

use bytes::Bytes;
use conclave_protocol::{ChangeKind, Create, Path, Refusal, SessionId, Stat, limits};

use crate::authority::{Action, authorize};
use crate::row::{Owned, Session, Znode};
use crate::tree;
use crate::tx::within;
use crate::view::{Stop, Tx};
use crate::{Fault, Table, ZnodeId, key};

/// Digits of a sequential name, at least.
const DIGITS: usize = 10;

/// What a new znode and its parent's row take besides path, name and data, at most: keys, ids, two stats of 64-bit
/// numbers (10 bytes each at most), lengths.
const ZNODE_BYTES: usize = 400;

/// What a session's row takes besides the principal, at most: packed replies are bounded by their bytes, and none has
/// fewer than 7.
const SESSION_BYTES: usize = 2_048;

/// Creates it, or refuses and writes nothing: everything is checked first.
pub(crate) fn create(tx: &mut Tx, create: &Create) -> Result<(Path, Stat), Stop> {
    within("bytes of data", limits::DATA_BYTES, create.data.len())?;
    let owner = if create.kind.ephemeral {
        let what = || "an ephemeral znode".to_owned();
        Some(tx.session().ok_or_else(|| Refusal::NoSession { what: what() })?)
    } else {
        None
    };
    let Some(parent_path) = create.path.parent() else {
        return Err(Refusal::ZnodeExists { path: Path::root() }.into());
    };
    let place = find(tx, &parent_path)?;
    if place.missing > 0 && !create.parents {
        return Err(Refusal::NoZnode { path: parent_path }.into());
    }
    // What hangs below an ephemeral znode must go with it: missing parents, being persistent, cannot.
    if place.znode.owner().is_some() && (place.missing > 0 || place.znode.owner() != owner) {
        return Err(Refusal::EphemeralParent { path: place.path }.into());
    }
    let (path, next_sequence) = if create.kind.sequential {
        let (path, next) = number(tx, &place, &parent_path, &create.path)?;
        (path, Some(next))
    } else {
        (create.path.clone(), None)
    };
    let name = path.name().unwrap_or_default();
    if next_sequence.is_none() && place.missing == 0 && tree::child(tx, place.id, name)?.is_some() {
        return Err(Refusal::ZnodeExists { path }.into());
    }
    let made: Vec<Path> = missing(&parent_path, place.missing);
    for path in made.iter().chain([&path]) {
        authorize(tx.principal(), Action::Create, path)?;
    }
    let session = owner.map(|owner| owned(tx, owner, &path)).transpose()?;
    let session_bytes = if owner.is_some() { path.as_str().len() + SESSION_BYTES + tx.principal().len() } else { 0 };
    tx.room(create.data.len() + (made.len() + 1) * (2 * path.as_str().len() + ZNODE_BYTES) + session_bytes)?;

    let (mut parent, mut above) = (place.id, place.znode);
    for path in &made {
        (parent, above) = insert(tx, parent, above, path, Bytes::new(), None);
    }
    if let Some(next) = next_sequence {
        above.next_sequence = next;
    }
    let (id, znode) = insert(tx, parent, above, &path, create.data.clone(), owner);
    if let Some((owner, row)) = session {
        tx.put_row(Table::Session, &key::session(owner), &row);
        tx.put_row(Table::Owned, &key::owned(owner, id), &Owned { path: path.clone() });
    }
    Ok((path, znode.stat))
}

/// Where a new znode's parent is, or would be.
struct Place {
    /// The deepest znode that exists on the way.
    id: ZnodeId,
    znode: Znode,
    path: Path,
    /// How many names below it are missing up to the parent.
    missing: usize,
}

fn find(tx: &Tx, parent: &Path) -> Result<Place, Fault> {
    let mut id = ZnodeId::ROOT;
    let mut found = 0;
    for name in parent.names() {
        match tree::child(tx, id, name)? {
            Some(child) => id = child,
            None => break,
        }
        found += 1;
    }
    let missing = parent.depth() - found;
    let mut path = parent.clone();
    for _ in 0..missing {
        path = path.parent().unwrap_or_else(Path::root);
    }
    Ok(Place { id, znode: tree::znode(tx, id)?, path, missing })
}

/// The paths of the missing parents, from above.
fn missing(parent: &Path, count: usize) -> Vec<Path> {
    let above = std::iter::successors(Some(parent.clone()), Path::parent);
    let mut paths: Vec<Path> = above.take(count).collect();
    paths.reverse();
    paths
}

/// The next sequential name that is free, and the number after it. Somebody may have created such a name by hand: it is
/// passed over, once, or its parent could never make a sequential child again.
fn number(tx: &Tx, place: &Place, parent: &Path, prefix: &Path) -> Result<(Path, u64), Stop> {
    let mut sequence = if place.missing == 0 { place.znode.next_sequence } else { 0 };
    let prefix = prefix.name().unwrap_or_default();
    loop {
        let path = parent.join(&format!("{prefix}{sequence:0DIGITS$}"))?;
        sequence += 1;
        if place.missing > 0 || tree::child(tx, place.id, path.name().unwrap_or_default())?.is_none() {
            return Ok((path, sequence));
        }
    }
}

/// The session's row with one more ephemeral znode, within its limits.
fn owned(tx: &Tx, owner: SessionId, path: &Path) -> Result<(SessionId, Session), Stop> {
    let row: Option<Session> = tx.typed(Table::Session, &key::session(owner))?;
    let mut row = row.ok_or(Refusal::SessionOver { session: owner })?;
    row.owned += 1;
    row.owned_bytes += super::session::cost(path);
    let count = usize::try_from(row.owned).unwrap_or(usize::MAX);
    let bytes = usize::try_from(row.owned_bytes).unwrap_or(usize::MAX);
    within("ephemeral znodes of the session", limits::SESSION_EPHEMERALS, count)?;
    within("bytes to end the session", limits::TRANSACTION_BYTES, bytes)?;
    Ok((owner, row))
}

/// Writes a new znode, and its parent's new stat.
fn insert(
    tx: &mut Tx,
    parent: ZnodeId,
    mut above: Znode,
    path: &Path,
    data: Bytes,
    owner: Option<SessionId>,
) -> (ZnodeId, Znode) {
    let id = ZnodeId(tx.state.next_id);
    tx.state.next_id += 1;
    tx.state.znodes += 1;
    let stat = Stat {
        created: tx.zxid(),
        modified: tx.zxid(),
        children_modified: tx.zxid(),
        created_ms: tx.now_ms(),
        modified_ms: tx.now_ms(),
        owner,
        data_bytes: data.len() as u64,
        ..Stat::default()
    };
    let znode = Znode { stat, next_sequence: 0, acl: 0, parent };
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    if !data.is_empty() {
        tx.put(Table::Data, &key::znode(id), data);
    }
    tx.put_row(Table::Child, &key::child(parent, path.name().unwrap_or_default()), &id);
    above.stat.children += 1;
    above.stat.children_version += 1;
    above.stat.children_modified = tx.zxid();
    tx.put_row(Table::Znode, &key::znode(parent), &above);
    tx.change(ChangeKind::Created, path.clone(), 0);
    (id, znode)
}
