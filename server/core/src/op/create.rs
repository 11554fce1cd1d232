//! Creates a znode, and missing parents if wanted.

use bytes::Bytes;
use conclave_protocol::{ChangeKind, Create, Kind, Path, Permission, Refusal, SessionId, Stat, limits};

use super::trigger::{self, About};
use super::{acl, sweep};
use crate::authority::authorize;
use crate::row::{Owned, Session, Znode};
use crate::tree::{self, Found};
use crate::tx::{within, within_u64};
use crate::view::{Stop, Tx};
use crate::{Fault, Table, ZnodeId, key};

/// Digits of a sequential name, at least.
const DIGITS: usize = 10;

/// What a new znode and its parent's row take besides path, name and data, at most: keys, ids, two stats of 64-bit
/// numbers (10 bytes each at most), lengths.
const ZNODE_BYTES: usize = 600;

/// What a session's row takes besides the principal, at most: packed replies are bounded by their bytes, and none has
/// fewer than 7.
const SESSION_BYTES: usize = 2_048;

/// What a create did.
pub(crate) enum Made {
    /// It is new.
    Created(Path, Stat),
    /// It was there, and its data was set.
    Set(Path, Stat),
}

/// Creates it, or refuses and writes nothing: everything is checked first.
pub(crate) fn create(tx: &mut Tx, create: &Create) -> Result<Made, Stop> {
    let owner = check(tx, create)?;
    let Some(parent_path) = create.path.parent() else {
        return existing(tx, create, owner, ZnodeId::ROOT);
    };
    let place = find(tx, &parent_path)?;
    let existing_id = match create.path.name() {
        Some(name) if !create.kind.sequential && place.missing == 0 => tree::child(tx, place.id, name)?,
        _ => None,
    };
    if let Some(id) = existing_id.filter(|_| create.or_set) {
        return existing(tx, create, owner, id);
    }
    // First of all, and of the parent that was asked for: what is there and what is not is no business of others.
    authorize(tx, tx.actor(), Permission::Create, place.znode.acl, &parent_path)?;
    if place.missing > 0 && !create.parents {
        return Err(Refusal::NoZnode { path: parent_path }.into());
    }
    if existing_id.is_some() {
        return Err(Refusal::ZnodeExists { path: create.path.clone() }.into());
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
    let made: Vec<Path> = missing(&parent_path, place.missing);
    for path in &made {
        if ask(tx, path, &Bytes::new())?.is_some_and(|data| !data.is_empty()) {
            let why = format!("a plugin wants data in {path}, which is only created as a parent: create it first");
            return Err(Refusal::BadRequest { why }.into());
        }
    }
    let data = ask(tx, &path, &create.data)?.unwrap_or_else(|| create.data.clone());
    let session = owner.map(|owner| owned(tx, owner, &path)).transpose()?;
    let session_bytes = if owner.is_some() { path.as_str().len() + SESSION_BYTES + tx.principal().len() } else { 0 };
    tx.room(data.len() + (made.len() + 1) * (3 * path.as_str().len() + ZNODE_BYTES) + session_bytes)?;
    let acl = match &create.acl {
        Some(list) => acl::intern(tx, &path, list)?,
        None => place.znode.acl,
    };

    let (mut parent, mut above) = (place.id, place.znode);
    for path in &made {
        let new = New { path, data: Bytes::new(), owner: None, kind: Kind::default(), acl };
        (parent, above) = insert(tx, parent, above, new)?;
    }
    if let Some(next) = next_sequence {
        above.next_sequence = next;
    }
    let new = New { path: &path, data, owner, kind: create.kind, acl };
    let (id, znode) = insert(tx, parent, above, new)?;
    if let Some((owner, row)) = session {
        tx.put_row(Table::Session, &key::session(owner), &row);
        tx.put_row(Table::Owned, &key::owned(owner, id), &Owned { path: path.clone() });
    }
    Ok(Made::Created(path, znode.stat))
}

/// Asks the `before` triggers of a znode that is to be created.
fn ask(tx: &mut Tx, path: &Path, data: &Bytes) -> Result<Option<Bytes>, Stop> {
    trigger::before(tx, &About { kind: ChangeKind::Created, path, present: None, data: Some(data) })
}

/// Refuses unless the principal may create a znode at this path, or parents for it.
pub(crate) fn may_create(tx: &Tx, path: &Path) -> Result<(), Stop> {
    let parent = path.parent().unwrap_or_default();
    let place = find(tx, &parent)?;
    authorize(tx, tx.actor(), Permission::Create, place.znode.acl, &parent)
}

/// Refuses unless the principal may write a znode that is there, and would have been created otherwise. Who may do
/// neither hears the same as if it were not there.
pub(crate) fn may_write(tx: &Tx, path: &Path, znode: &Znode) -> Result<(), Stop> {
    match authorize(tx, tx.actor(), Permission::Write, znode.acl, path) {
        Err(Stop::Refused(refusal)) => {
            if !path.is_root() {
                may_create(tx, path)?;
            }
            Err(refusal.into())
        }
        done => done,
    }
}

/// What can be said against it without looking at the tree; gives the session that will own the znode.
fn check(tx: &Tx, create: &Create) -> Result<Option<SessionId>, Refusal> {
    let Kind { ephemeral, sequential, container, ttl_ms } = create.kind;
    let bad = |why: &str| Err(Refusal::BadRequest { why: why.to_owned() });
    within_u64("bytes of data", tx.limits.data_bytes, create.data.len() as u64)?;
    if ephemeral && container {
        return bad("an ephemeral znode can't be a container: it goes with its session");
    }
    if sequential && create.or_set {
        return bad("a sequential znode is always a new one: it can't be set if it is there");
    }
    match ttl_ms {
        Some(0) => return bad("a time to live of 0 ms leaves nothing to create; the least is 1 ms"),
        Some(ttl_ms) => within_u64("milliseconds to live", tx.limits.ttl_max_ms, ttl_ms)?,
        None => {}
    }
    match tx.session() {
        None if ephemeral => Err(Refusal::NoSession { what: "an ephemeral znode".to_owned() }),
        session => Ok(session.filter(|_| ephemeral)),
    }
}

/// Sets the znode that is there already, if that is wanted and it is of the kind that is wanted.
fn existing(tx: &mut Tx, create: &Create, owner: Option<SessionId>, id: ZnodeId) -> Result<Made, Stop> {
    let path = create.path.clone();
    if !create.or_set {
        return Err(Refusal::ZnodeExists { path }.into());
    }
    let znode = tree::znode(tx, id)?;
    may_write(tx, &path, &znode)?;
    let Stat { container, ttl_ms, .. } = znode.stat;
    let wanted = Stat { owner, container: create.kind.container, ttl_ms: create.kind.ttl_ms, ..znode.stat };
    if (znode.owner(), container, ttl_ms) != (wanted.owner, wanted.container, wanted.ttl_ms) {
        return Err(Refusal::OtherKind { path, actual: words(&znode.stat), wanted: words(&wanted) }.into());
    }
    let stat = super::set::write(tx, id, znode, &path, create.data.clone())?;
    Ok(Made::Set(path, stat))
}

/// A kind of znode, in words.
fn words(stat: &Stat) -> String {
    let mut words = match stat.owner {
        Some(session) => format!("an ephemeral znode of session {session}"),
        None if stat.container => "a container".to_owned(),
        None => "a persistent znode".to_owned(),
    };
    if let Some(ttl_ms) = stat.ttl_ms {
        words += &format!(" with {ttl_ms} ms to live");
    }
    words
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
    let Found { deepest, missing } = tree::find(tx, parent)?;
    let (id, znode) = deepest.ok_or_else(|| Fault::Invariant("there is no root".to_owned()))?;
    let mut path = parent.clone();
    for _ in 0..missing {
        path = path.parent().unwrap_or_else(Path::root);
    }
    Ok(Place { id, znode, path, missing })
}

/// The paths of the missing parents, from above.
fn missing(parent: &Path, count: usize) -> Vec<Path> {
    let above = std::iter::successors(Some(parent.clone()), Path::parent);
    let mut paths: Vec<Path> = above.take(count).collect();
    paths.reverse();
    paths
}

/// Names made by hand that are passed over one by one. Behind them a sequence goes on in steps that double, up to
/// [`LONGEST_STEP`]: a refused create takes no number, and would walk over all of them each time. By so little that
/// ten digits are never used up.
const SINGLE_STEPS: u32 = 16;

/// See [`SINGLE_STEPS`].
const LONGEST_STEP: u64 = 1_024;

/// The next sequential name that is free, and the number after it. Somebody may have created such a name by hand: it is
/// passed over, once, or its parent could never make a sequential child again.
fn number(tx: &Tx, place: &Place, parent: &Path, prefix: &Path) -> Result<(Path, u64), Stop> {
    let mut sequence = if place.missing == 0 { place.znode.next_sequence } else { 0 };
    let prefix = prefix.name().unwrap_or_default();
    let mut single_steps = SINGLE_STEPS;
    let mut step = 1;
    loop {
        let path = parent.join(&format!("{prefix}{sequence:0DIGITS$}"))?;
        if place.missing > 0 || tree::child(tx, place.id, path.name().unwrap_or_default())?.is_none() {
            return Ok((path, sequence + 1));
        }
        if single_steps > 0 {
            single_steps -= 1;
        } else {
            step = LONGEST_STEP.min(step * 2);
        }
        sequence += step;
    }
}

/// The session's row with one more ephemeral znode, within its limits.
fn owned(tx: &Tx, owner: SessionId, path: &Path) -> Result<(SessionId, Session), Stop> {
    let row: Option<Session> = tx.typed(Table::Session, &key::session(owner))?;
    let mut row = row.ok_or(Refusal::SessionOver { session: owner })?;
    row.owned += 1;
    row.owned_bytes += super::session::cost(path);
    let bytes = usize::try_from(row.owned_bytes).unwrap_or(usize::MAX);
    within_u64("ephemeral znodes of the session", tx.limits.session_ephemerals, row.owned)?;
    within("bytes to end the session", limits::TRANSACTION_BYTES, bytes)?;
    Ok((owner, row))
}

/// A znode that is to be written.
struct New<'a> {
    path: &'a Path,
    data: Bytes,
    owner: Option<SessionId>,
    kind: Kind,
    acl: u32,
}

/// Writes a new znode, and its parent's new stat.
fn insert(tx: &mut Tx, parent: ZnodeId, mut above: Znode, new: New<'_>) -> Result<(ZnodeId, Znode), Fault> {
    let New { path, data, owner, kind, acl } = new;
    trigger::note(tx, &About { kind: ChangeKind::Created, path, present: None, data: Some(&data) })?;
    let id = ZnodeId(tx.state.next_id);
    tx.state.next_id += 1;
    tx.state.znodes += 1;
    let stat = Stat {
        created: tx.zxid(),
        modified: tx.zxid(),
        children_modified: tx.zxid(),
        created_ms: tx.now_ms(),
        modified_ms: tx.now_ms(),
        children_modified_ms: tx.now_ms(),
        owner,
        data_bytes: data.len() as u64,
        container: kind.container,
        ttl_ms: kind.ttl_ms,
        ..Stat::default()
    };
    let mut znode = Znode { stat, next_sequence: 0, acl, parent, expiry_ms: 0 };
    sweep::schedule(tx, id, &mut znode, path);
    tx.put_row(Table::Znode, &key::znode(id), &znode);
    if !data.is_empty() {
        tx.put(Table::Data, &key::znode(id), data);
    }
    tx.put_row(Table::Child, &key::child(parent, path.name().unwrap_or_default()), &id);
    above.stat.children += 1;
    above.stat.children_version += 1;
    above.stat.children_modified = tx.zxid();
    above.stat.children_modified_ms = tx.now_ms();
    tx.put_row(Table::Znode, &key::znode(parent), &above);
    tx.change(ChangeKind::Created, path.clone(), 0, acl, above.acl);
    Ok((id, znode))
}
