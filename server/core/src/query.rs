//! Reads from one applied state: clients' queries, and what a member itself must know.

use bytes::Bytes;
use conclave_protocol::plugin::ComponentDigest;
use conclave_protocol::{Answer, Path, Permission, Present, Query, Refusal, SessionId, SessionInfo, Zxid, limits};

use crate::authority::{self, administers, authorize, is_allowed, may_look};
use crate::entry::Origin;
use crate::row::{self, Changes, Once, Owned, Plugin, Recorded, Reply, Session, State};
use crate::tree::{self, Listing, typed};
use crate::tx::within;
use crate::view::{Base, Stop};
use crate::{Fault, Table, ZnodeId, history, key};

mod plugin;
mod walk;

pub use plugin::call;
pub use walk::Walk;

/// What became of a request, as far as a member's own state tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is answered.
    Reply {
        /// By which transaction.
        zxid: Zxid,
        /// CBOR of its [`Outcome`](conclave_protocol::Outcome).
        outcome: Bytes,
    },
    /// Its session does not exist: it ended, or this state is from before it was opened.
    SessionOver,
    /// Nothing: it is not planned yet, or not applied here yet, or its reply was acknowledged and is forgotten.
    NotYet,
}

/// Changes after a zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Some of them are no longer kept: only the present state can be told.
    TooShort {
        /// The last transaction of this state.
        last: Zxid,
    },
    /// They are kept.
    Kept {
        /// Those that changed something, in order.
        transactions: Vec<(Zxid, Vec<Recorded>)>,
        /// All changes up to here are in it: the next page begins after this.
        upto: Zxid,
        /// The last transaction of this state; there is more when it is above `upto`.
        last: Zxid,
    },
}

/// Answers a client's query.
///
/// # Errors
/// A fault of this member. A refusal is an answer. [`Query::Status`] is not answered from a state.
pub fn answer(base: &dyn Base, principal: &str, query: &Query) -> Result<Result<Answer, Refusal>, Fault> {
    match read(base, principal, query) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn read(base: &dyn Base, principal: &str, query: &Query) -> Result<Answer, Stop> {
    let absent = |path: &Path| Refusal::NoZnode { path: path.clone() };
    match query {
        Query::Get { path } => match tree::get(base, principal, path)? {
            Some((data, stat)) => Ok(Answer::Znode { data, stat }),
            None => Err(absent(path).into()),
        },
        Query::Exists { path } => Ok(Answer::Exists(tree::stat(base, principal, path)?)),
        Query::Children { path, prefix, after, limit, detail } => {
            let listing = Listing { prefix, after: after.as_deref(), limit: *limit, detail: *detail };
            Ok(Answer::Page(tree::children(base, principal, path, listing)?))
        }
        Query::Many { paths } => many(base, principal, paths),
        Query::Count { path } => {
            let (id, znode) = may_look(base, principal, path)?.ok_or_else(|| absent(path))?;
            Ok(Answer::Count(walk::count(base, principal, id, &znode)?))
        }
        Query::Acl { path } => acl(base, principal, path),
        Query::Owned { session, after, limit } => owned(base, principal, *session, *after, *limit),
        Query::Sessions { after, limit } => open_sessions(base, principal, *after, *limit),
        Query::Plugins { name } => plugin::all(base, principal, name.as_deref()),
        Query::Calls { plugin, after, limit } => plugin::calls(base, principal, plugin, *after, *limit),
        // With what runs plugins at hand: see [`call`].
        Query::Call(_) => Err(Refusal::BadRequest { why: "the tree runs no plugins".to_owned() }.into()),
        Query::Status => {
            Err(Refusal::BadRequest { why: "the tree does not know the cluster's status".to_owned() }.into())
        }
    }
}

fn many(base: &dyn Base, principal: &str, paths: &[Path]) -> Result<Answer, Stop> {
    within("paths of one read", limits::READ_PATHS, paths.len())?;
    let mut bytes = 0;
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let one = tree::get(base, principal, path)?.map(|(data, stat)| Present { data, stat });
        bytes += one.as_ref().map_or(0, |one| one.data.len());
        within("bytes of one read", limits::READ_BYTES, bytes)?;
        found.push(one);
    }
    Ok(Answer::Many(found))
}

fn acl(base: &dyn Base, principal: &str, path: &Path) -> Result<Answer, Stop> {
    let found = tree::find(base, path)?;
    if let Some((_, deepest)) = &found.deepest
        && !is_allowed(base, principal, Permission::Admin, deepest.acl)?
    {
        authorize(base, principal, Permission::Read, deepest.acl, path)?;
    }
    match found.whole() {
        Some((_, znode)) => Ok(Answer::Acl { acl: authority::list(base, znode.acl)?, stat: znode.stat }),
        None => Err(Refusal::NoZnode { path: path.clone() }.into()),
    }
}

/// A session's ephemeral znodes, for its own principal and for administrators.
fn owned(base: &dyn Base, principal: &str, id: SessionId, after: Option<u64>, limit: u32) -> Result<Answer, Stop> {
    let row = session(base, id)?.ok_or(Refusal::SessionOver { session: id })?;
    if row.principal != principal && !administers(base, principal)? {
        // Whose it is, is not told.
        let action = format!("see what session {id} of another principal owns without administering");
        return Err(Refusal::NotAllowed { principal: principal.to_owned(), action, path: Path::root() }.into());
    }
    let limit = limit.clamp(1, limits::PAGE_CHILDREN) as usize;
    let after = after.map(|after| key::owned(id, ZnodeId(after)));
    let rows = base.scan(Table::Owned, &key::session(id), after.as_ref().map(|key| &key[..]), limit + 1)?;
    let more = rows.len() > limit;
    let mut last = None;
    let mut paths = Vec::with_capacity(limit.min(rows.len()));
    for (key, value) in rows.into_iter().take(limit) {
        let Owned { path } = row::decode(Table::Owned, &value)?;
        last = key.get(8..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
        paths.push(path);
    }
    Ok(Answer::Owned { paths, next: last.filter(|_| more) })
}

/// A page of sessions: of all for administrators, of the principal's own for others.
fn open_sessions(base: &dyn Base, principal: &str, after: Option<SessionId>, limit: u32) -> Result<Answer, Stop> {
    const SCAN: usize = 1_000;
    let all = administers(base, principal)?;
    let limit = limit.clamp(1, limits::PAGE_CHILDREN) as usize;
    let mut after = after.map(key::session);
    let mut sessions = Vec::new();
    loop {
        let rows = base.scan(Table::Session, &[], after.as_ref().map(|key| &key[..]), SCAN)?;
        let full = rows.len() == SCAN;
        for (key, value) in rows {
            let session = session_number(&key)?;
            after = Some(key::session(session));
            let row: Session = row::decode(Table::Session, &value)?;
            if !all && row.principal != principal {
                continue;
            }
            if sessions.len() == limit {
                return Ok(Answer::Sessions { sessions, more: true });
            }
            sessions.push(SessionInfo {
                session,
                timeout_ms: row.timeout_ms,
                ephemerals: row.owned,
                writes: row.next - 1,
                unacknowledged: row.next - row.floor,
                principal: row.principal,
            });
        }
        if !full {
            return Ok(Answer::Sessions { sessions, more: false });
        }
    }
}

/// What a znode holds, for a principal; none when it is gone, or may not be read.
///
/// # Errors
/// A fault of this member.
pub fn present(base: &dyn Base, principal: &str, path: &Path) -> Result<Option<Present>, Fault> {
    match tree::get(base, principal, path) {
        Ok(found) => Ok(found.map(|(data, stat)| Present { data, stat })),
        Err(Stop::Refused(_)) => Ok(None),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// What the next transaction builds on; zxid 0 in an empty tree.
///
/// # Errors
/// A fault of this member.
pub fn state(base: &dyn Base) -> Result<State, Fault> {
    Ok(typed(base, Table::State, key::STATE)?.unwrap_or_default())
}

/// What became of a request: asked when this state holds the zxid that the leader named.
///
/// Whether the session is the asker's own is the caller's to check, with [`session`].
///
/// # Errors
/// A fault of this member.
pub fn stored(base: &dyn Base, origin: &Origin) -> Result<Stored, Fault> {
    let reply = match origin {
        Origin::Session { session: id, sequence } => match session(base, *id)? {
            None => return Ok(Stored::SessionOver),
            Some(row) => reply(base, *id, &row, *sequence)?,
        },
        Origin::Once { principal, nonce } => {
            typed::<Once>(base, Table::Once, &key::once(principal, nonce))?.map(|once| once.reply)
        }
        Origin::Completion { .. } | Origin::Leader => None,
    };
    Ok(reply.map_or(Stored::NotYet, |Reply { zxid, outcome }| Stored::Reply { zxid, outcome }))
}

/// A session's stored reply: from its row, or from one of its own.
pub(crate) fn reply(base: &dyn Base, id: SessionId, session: &Session, sequence: u64) -> Result<Option<Reply>, Fault> {
    if !(session.floor..session.next).contains(&sequence) {
        return Ok(None);
    }
    match session.packed.iter().find(|packed| packed.sequence == sequence) {
        Some(packed) => Ok(Some(packed.reply.clone())),
        None => typed(base, Table::Reply, &key::reply(id, sequence)),
    }
}

/// A session's row; none when there is no such session (any more).
///
/// # Errors
/// A fault of this member.
pub fn session(base: &dyn Base, id: SessionId) -> Result<Option<Session>, Fault> {
    typed(base, Table::Session, &key::session(id))
}

/// All sessions with their timeouts in milliseconds, by number.
///
/// # Errors
/// A fault of this member.
pub fn sessions(base: &dyn Base) -> Result<Vec<(SessionId, u64)>, Fault> {
    let rows = tree::rows(base, Table::Session, &[])?;
    rows.into_iter()
        .map(|(key, value)| Ok((session_number(&key)?, row::decode::<Session>(Table::Session, &value)?.timeout_ms)))
        .collect()
}

/// The session whose row this is the key of.
fn session_number(key: &[u8]) -> Result<SessionId, Fault> {
    let id = key.try_into().map(u64::from_be_bytes).map(SessionId);
    id.map_err(|_| Fault::Row { table: Table::Session, why: "its key is no number".to_owned() })
}

/// Changes after a zxid: a page of at most `limit` transactions that changed something, which also ends after some MiB.
///
/// # Errors
/// A fault of this member.
pub fn history(base: &dyn Base, after: Zxid, limit: usize) -> Result<History, Fault> {
    /// Rows that are read at a time: each may be as large as a transaction.
    const ROWS: usize = 8;
    /// Bytes of rows after which a page ends.
    const PAGE_BYTES: usize = 4 << 20;
    let last = state(base)?.zxid;
    if after < history::lost(base, last)? {
        return Ok(History::TooShort { last });
    }
    let mut transactions = Vec::new();
    let (mut upto, mut bytes) = (after, 0);
    while transactions.len() < limit {
        let most = ROWS.min(limit - transactions.len());
        let rows = base.scan(Table::Change, &[], Some(&key::change(upto)), most)?;
        let is_end = rows.len() < most;
        for (key, value) in rows {
            let Changes(changes) = row::decode(Table::Change, &value)?;
            upto = history::zxid(&key)?;
            bytes += value.len();
            transactions.push((upto, changes));
            if bytes >= PAGE_BYTES {
                return Ok(History::Kept { transactions, upto, last });
            }
        }
        if is_end {
            upto = last.max(after);
            break;
        }
    }
    Ok(History::Kept { transactions, upto, last })
}

/// All installed plugins, by name.
///
/// # Errors
/// A fault of this member.
pub fn plugins(base: &dyn Base) -> Result<Vec<(String, Plugin)>, Fault> {
    let rows = tree::rows(base, Table::Plugin, &[])?;
    rows.into_iter()
        .map(|(key, value)| {
            let name = String::from_utf8(key);
            let name = name.map_err(|_| Fault::Row { table: Table::Plugin, why: "its key is no name".to_owned() })?;
            Ok((name, row::decode(Table::Plugin, &value)?))
        })
        .collect()
}

/// An installed plugin.
///
/// # Errors
/// A fault of this member.
pub fn plugin(base: &dyn Base, name: &str) -> Result<Option<Plugin>, Fault> {
    // A stranger's text: longer or shorter ones make no key.
    if name.is_empty() || name.len() > limits::NAME_BYTES {
        return Ok(None);
    }
    typed(base, Table::Plugin, name.as_bytes())
}

/// A component's bytes, out of its chunks; none when some of them are not there.
///
/// # Errors
/// A fault of this member.
pub fn component(base: &dyn Base, digest: &ComponentDigest, bytes: u64) -> Result<Option<Bytes>, Fault> {
    let mut component = Vec::new();
    for chunk in 0..u32::try_from(bytes.div_ceil(limits::COMPONENT_CHUNK as u64)).unwrap_or(u32::MAX) {
        let Some(part) = base.row(Table::Blob, &key::blob(digest, chunk))? else { return Ok(None) };
        component.extend_from_slice(&part);
    }
    Ok((component.len() as u64 == bytes).then(|| component.into()))
}

/// Completions of a session's calls that its client has not acknowledged: sequence, zxid, outcome.
///
/// # Errors
/// A fault of this member.
pub fn completions(base: &dyn Base, session: SessionId) -> Result<Vec<(u64, Zxid, Bytes)>, Fault> {
    let mut found = Vec::new();
    for (key, value) in tree::rows(base, Table::Parked, &key::session(session))? {
        let row: row::Parked = row::decode(Table::Parked, &value)?;
        let sequence = key.get(8..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        if let (row::Phase::Completed(Reply { zxid, outcome }), Some(sequence)) = (row.phase, sequence) {
            found.push((sequence, zxid, outcome));
        }
    }
    Ok(found)
}
