//! A session's sequence: what was asked before, what is next, and the replies that it has not acknowledged.

use conclave_protocol::{PushBack, SessionId, limits};

use crate::op::{self, park};
use crate::plan::Verdict;
use crate::row::{Packed, Parked, Phase, Reply, Session};
use crate::view::{Base, Tx};
use crate::{Fault, Table, key, query};

/// What is to be done with a request of this sequence, when it is not to be planned (design rule 5).
pub(crate) fn known(
    base: &dyn Base,
    id: SessionId,
    session: &Session,
    sequence: u64,
    floor: u64,
) -> Result<Option<Verdict>, Fault> {
    if sequence < session.floor {
        return Ok(Some(Verdict::Dropped));
    }
    if sequence > session.next {
        return Ok(Some(Verdict::PushBack(PushBack::Expected { next: session.next })));
    }
    if sequence < session.next {
        let lost = || Fault::Invariant(format!("session {id} has no reply to its sequence {sequence}"));
        let reply = query::reply(base, id, session, sequence)?.ok_or_else(lost)?;
        return Ok(Some(Verdict::Look(reply.zxid)));
    }
    if !has_room(base, id, session, floor)? {
        return Ok(Some(Verdict::PushBack(PushBack::Busy)));
    }
    Ok(None)
}

/// Whether one more reply may be kept, once those below the request's floor are forgotten.
fn has_room(base: &dyn Base, id: SessionId, session: &Session, floor: u64) -> Result<bool, Fault> {
    let floor = floor.clamp(session.floor, session.next);
    if session.next - floor >= limits::SESSION_REPLIES as u64 {
        return Ok(false);
    }
    let limit = limits::SESSION_REPLY_BYTES as u64;
    let mut bytes = session.reply_bytes;
    // Most often there is room anyway, and no reply need be read to know how large it is.
    for sequence in session.floor..floor {
        if bytes < limit {
            break;
        }
        bytes = bytes.saturating_sub(size(base, id, session, sequence)?);
    }
    Ok(bytes < limit)
}

fn size(base: &dyn Base, id: SessionId, session: &Session, sequence: u64) -> Result<u64, Fault> {
    Ok(query::reply(base, id, session, sequence)?.map_or(0, |reply| reply.outcome.len() as u64))
}

/// What a client says that it knows of.
#[derive(Clone, Copy)]
pub(crate) struct Acknowledged<'a> {
    /// The lowest sequence that it has no reply to.
    pub(crate) floor: u64,
    /// Parked calls whose end it knows of.
    pub(crate) completed: &'a [u64],
}

/// Forgets calls whose end is acknowledged.
fn forget_calls(tx: &mut Tx, id: SessionId, floor: u64, completed: &[u64]) -> Result<(), Fault> {
    let Some(session) = query::session(tx, id)?.filter(|session| session.calls > 0) else {
        return Ok(());
    };
    let answered = session.floor..floor.clamp(session.floor, session.next);
    for sequence in completed.iter().copied().take(limits::SESSION_PARKED).chain(answered.clone()) {
        let row: Option<Parked> = tx.typed(Table::Parked, &key::parked(id, sequence))?;
        match row {
            Some(row) if matches!(row.phase, Phase::Completed(_)) && completed.contains(&sequence) => {
                park::forget(tx, id, sequence, &row)?;
            }
            Some(row) if row.phase == Phase::Answered && answered.contains(&sequence) => {
                park::forget(tx, id, sequence, &row)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Stores the reply to the next sequence, and forgets those below the floor. The session's row is read here, after the
/// operation: it may have changed it. A session that the operation ended keeps nothing.
pub(crate) fn keep(
    tx: &mut Tx,
    id: SessionId,
    Acknowledged { floor, completed }: Acknowledged<'_>,
    reply: Reply,
) -> Result<(), Fault> {
    forget_calls(tx, id, floor, completed)?;
    let Some(mut session) = query::session(tx, id)? else {
        return Ok(());
    };
    forget(tx, id, &mut session, floor)?;
    let sequence = session.next;
    session.next += 1;
    session.reply_bytes += reply.outcome.len() as u64;
    let packed: usize = session.packed.iter().map(|packed| packed.reply.outcome.len()).sum();
    if packed + reply.outcome.len() <= limits::PACKED_REPLY_BYTES {
        session.packed.push(Packed { sequence, reply });
    } else {
        tx.put_row(Table::Reply, &key::reply(id, sequence), &reply);
    }
    tx.put_row(Table::Session, &key::session(id), &session);
    Ok(())
}

/// Moves the floor forward, and drops the replies below it.
fn forget(tx: &mut Tx, id: SessionId, session: &mut Session, floor: u64) -> Result<(), Fault> {
    let floor = floor.clamp(session.floor, session.next);
    for sequence in session.floor..floor {
        let bytes = size(tx, id, session, sequence)?;
        session.reply_bytes = session.reply_bytes.saturating_sub(bytes);
        if !session.packed.iter().any(|packed| packed.sequence == sequence) {
            tx.remove(Table::Reply, &key::reply(id, sequence));
        }
    }
    session.packed.retain(|packed| packed.sequence >= floor);
    session.floor = floor;
    Ok(())
}

/// Ends a session for the leader; false when it has ended already.
pub(crate) fn expire(tx: &mut Tx, id: SessionId) -> Result<bool, Fault> {
    if query::session(tx, id)?.is_none() {
        return Ok(false);
    }
    op::session::end(tx, id, true)?;
    Ok(true)
}
