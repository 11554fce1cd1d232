//! Reads from one applied state: clients' queries, and what a member itself must know.

use bytes::Bytes;
use conclave_protocol::{Answer, Change, Query, Refusal, SessionId, Zxid, limits};

use crate::entry::Origin;
use crate::row::{self, Changes, Once, Plugin, Reply, Session, State};
use crate::tree::{self, typed};
use crate::view::{Base, Stop};
use crate::{Fault, Table, key};

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
        transactions: Vec<(Zxid, Vec<Change>)>,
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
    match query {
        Query::Get { path } => match tree::get(base, principal, path)? {
            Some((data, stat)) => Ok(Answer::Znode { data, stat }),
            None => Err(Refusal::NoZnode { path: path.clone() }.into()),
        },
        Query::Exists { path } => Ok(Answer::Exists(tree::stat(base, principal, path)?)),
        Query::Children { path, after, limit, data } => {
            Ok(Answer::Page(tree::children(base, principal, path, after.as_deref(), *limit, *data)?))
        }
        Query::Status => {
            Err(Refusal::BadRequest { why: "the tree does not know the cluster's status".to_owned() }.into())
        }
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
        Origin::Leader => None,
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
        .map(|(key, value)| {
            let id = key.try_into().map(u64::from_be_bytes);
            let id = id.map_err(|_| Fault::Row { table: Table::Session, why: "its key is no number".to_owned() })?;
            Ok((SessionId(id), row::decode::<Session>(Table::Session, &value)?.timeout_ms))
        })
        .collect()
}

/// Changes after a zxid, of at most `limit` transactions that changed something.
///
/// # Errors
/// A fault of this member.
pub fn history(base: &dyn Base, after: Zxid, limit: usize) -> Result<History, Fault> {
    let last = state(base)?.zxid;
    if after.0 < last.0.saturating_sub(limits::HISTORY_TRANSACTIONS) {
        return Ok(History::TooShort { last });
    }
    let rows = base.scan(Table::Change, &[], Some(&key::change(after)), limit)?;
    let full = rows.len() == limit;
    let mut transactions = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let zxid = key.try_into().map(u64::from_be_bytes).map(Zxid);
        let zxid = zxid.map_err(|_| Fault::Row { table: Table::Change, why: "its key is no zxid".to_owned() })?;
        let Changes(changes) = row::decode(Table::Change, &value)?;
        transactions.push((zxid, changes));
    }
    let upto = match transactions.last() {
        Some((zxid, _)) if full => *zxid,
        None if full => after,
        _ => last.max(after),
    };
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

/// A component's bytes, out of its chunks.
///
/// # Errors
/// A fault of this member, also when a chunk is missing.
pub fn component(base: &dyn Base, digest: &[u8; 32], chunks: u32) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    for chunk in 0..chunks {
        let part = base.row(Table::Blob, &key::blob(digest, chunk))?;
        let missing = || Fault::Invariant(format!("chunk {chunk} of {chunks} of a component is missing"));
        bytes.extend_from_slice(&part.ok_or_else(missing)?);
    }
    Ok(bytes.into())
}
