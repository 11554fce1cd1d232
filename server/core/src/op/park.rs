//! Parked calls: the rows of those that wait, who is woken next, and how a call ends.

use bytes::Bytes;
use conclave_protocol::{Outcome, Refusal, SessionId, Zxid, codec, limits};

use super::call::{Begun, holds};
use crate::plugin::{Found, Park, Reason, Resumed, Wake, Wanted};
use crate::row::{self, Parked, Phase, Reply, Session, Waiter, Woken};
use crate::tree::{self, typed};
use crate::tx::within_u64;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, key, query};

/// Rows of `Wake` that one look goes through, so that nobody waits for it.
const LOOK: usize = 256;

/// Those who wait for a znode that are looked at together: most often the first is the one.
const WAITERS: usize = 8;

/// Writes down a call that waits, or may be cancelled until its reply is acknowledged.
pub(crate) fn begin(tx: &mut Tx, session: SessionId, sequence: u64, row: &Parked) -> Result<(), Stop> {
    let mut owner = owner(tx, session)?;
    if let Phase::Waiting { park, since } = &row.phase {
        within_u64("parked calls of the session", limits::SESSION_PARKED as u64, owner.parked + 1)?;
        within_u64("parked calls", limits::PARKED as u64, tx.state.parked + 1)?;
        tx.room(row.args.len() + park.state.len() + 1_024 * (park.any_of.len() + 2))?;
        owner.parked += 1;
        tx.state.parked += 1;
        tx.put_row(Table::Calls, &key::call(&row.plugin, row.ticket), &(session, sequence));
        count(tx, &row.plugin, 1)?;
        wait(tx, session, sequence, row.ticket, park, *since);
    }
    owner.calls += 1;
    tx.put_row(Table::Session, &key::session(session), &owner);
    tx.put_row(Table::Parked, &key::parked(session, sequence), row);
    Ok(())
}

/// Writes the rows by which it is found when something changes, or its time is over.
fn wait(tx: &mut Tx, session: SessionId, sequence: u64, ticket: Zxid, park: &Park, since: Zxid) {
    for (wanted, condition) in park.any_of.iter().zip(0..) {
        let waiter = Waiter { session, sequence, since, condition };
        let key = key::waiting(&key::awaited(&wanted.path), park.wake, wanted.test, ticket, condition);
        tx.put_row(Table::Waiting, &key, &waiter);
    }
    if let Some(until_ms) = park.until_ms {
        tx.put_row(Table::Expiry, &key::expiry(until_ms, &key::deadline(session, sequence)), &0_u64);
    }
}

/// Removes those rows.
fn wait_no_more(tx: &mut Tx, session: SessionId, sequence: u64, ticket: Zxid, park: &Park) {
    for (wanted, condition) in park.any_of.iter().zip(0..) {
        tx.remove(
            Table::Waiting,
            &key::waiting(&key::awaited(&wanted.path), park.wake, wanted.test, ticket, condition),
        );
    }
    if let Some(until_ms) = park.until_ms {
        tx.remove(Table::Expiry, &key::expiry(until_ms, &key::deadline(session, sequence)));
    }
}

/// It does not wait any more: removes everything but its row, and its place in its session's.
fn unpark(tx: &mut Tx, session: SessionId, sequence: u64, row: &Parked) -> Result<(), Fault> {
    let Phase::Waiting { park, .. } = &row.phase else { return Ok(()) };
    wait_no_more(tx, session, sequence, row.ticket, park);
    tx.remove(Table::Calls, &key::call(&row.plugin, row.ticket));
    count(tx, &row.plugin, -1)?;
    tx.state.parked = tx.state.parked.saturating_sub(1);
    Ok(())
}

/// Forgets a call altogether.
pub(crate) fn forget(tx: &mut Tx, session: SessionId, sequence: u64, row: &Parked) -> Result<(), Fault> {
    unpark(tx, session, sequence, row)?;
    let mut owner = owner(tx, session)?;
    owner.calls = owner.calls.saturating_sub(1);
    match &row.phase {
        Phase::Waiting { .. } => owner.parked = owner.parked.saturating_sub(1),
        Phase::Completed(reply) => owner.reply_bytes = owner.reply_bytes.saturating_sub(reply.outcome.len() as u64),
        Phase::Answered => {}
    }
    tx.put_row(Table::Session, &key::session(session), &owner);
    tx.remove(Table::Parked, &key::parked(session, sequence));
    Ok(())
}

/// Ends a call that waits with what its client is to be told.
pub(crate) fn complete(
    tx: &mut Tx,
    session: SessionId,
    sequence: u64,
    mut row: Parked,
    outcome: &Outcome,
) -> Result<Reply, Fault> {
    unpark(tx, session, sequence, &row)?;
    let reply = Reply { zxid: tx.zxid(), outcome: codec::encode(outcome).into() };
    let mut owner = owner(tx, session)?;
    owner.parked = owner.parked.saturating_sub(1);
    owner.reply_bytes += reply.outcome.len() as u64;
    tx.put_row(Table::Session, &key::session(session), &owner);
    row.phase = Phase::Completed(reply.clone());
    tx.put_row(Table::Parked, &key::parked(session, sequence), &row);
    Ok(reply)
}

/// It parked again: it waits for something else, in its old place.
pub(crate) fn repark(tx: &mut Tx, session: SessionId, sequence: u64, row: &mut Parked, next: Park) {
    if let Phase::Waiting { park, .. } = &row.phase {
        wait_no_more(tx, session, sequence, row.ticket, park);
    }
    let since = tx.zxid();
    wait(tx, session, sequence, row.ticket, &next, since);
    row.phase = Phase::Waiting { park: next, since };
    tx.put_row(Table::Parked, &key::parked(session, sequence), row);
}

/// Before a session goes: its calls that wait are run a last time, and all of them are forgotten. Nothing prevents it: a
/// run that fails is undone alone.
pub(crate) fn end_session(tx: &mut Tx, session: SessionId) -> Result<(), Fault> {
    for (key, value) in tree::rows(tx, Table::Parked, &key::session(session))? {
        let sequence = sequence_of(&key)?;
        let row: Parked = row::decode(Table::Parked, &value)?;
        if let Phase::Waiting { park, .. } = &row.phase {
            let before = tx.savepoint();
            let resumed = Resumed { reason: Reason::SessionEnd, state: park.state.clone(), done: None };
            match Begun::again(tx, &row).map_err(Stop::from).and_then(|mut begun| begun.proceed(tx, Some(resumed))) {
                Ok(_) => {}
                Err(Stop::Refused(_)) => tx.restore(before),
                Err(Stop::Fault(fault)) => return Err(fault),
            }
        }
        forget(tx, session, sequence, &row)?;
    }
    Ok(())
}

/// Something that parked calls are to be run again for, and what is to be done about it.
pub(crate) struct Next {
    /// Rows of `Wake` that nobody is left for.
    pub(crate) over: Vec<Vec<u8>>,
    /// Who is run next.
    pub(crate) call: Option<Due>,
}

/// A call that is to be run again.
pub(crate) struct Due {
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    pub(crate) row: Parked,
    /// Why; none: its plugin runs no more.
    pub(crate) reason: Result<Reason, Refusal>,
    /// The row of `Wake`, and what it is afterwards: none if nobody else can be left.
    pub(crate) wake: (Vec<u8>, Option<Woken>),
}

/// Looks for the next call that is to be run again, the oldest reason first.
pub(crate) fn next(tx: &Tx) -> Result<Next, Fault> {
    let mut over = Vec::new();
    for (key, value) in tx.scan(Table::Wake, &[], None, LOOK)? {
        let due = match row::decode(Table::Wake, &value)? {
            Woken::Znode { after, found } => at_znode(tx, &key, after, found)?,
            Woken::Deadline { session, sequence } => at_deadline(tx, &key, session, sequence)?,
            Woken::Plugin { plugin, state } => of_plugin(tx, &key, plugin, state)?,
        };
        if due.is_some() {
            return Ok(Next { over, call: due });
        }
        over.push(key);
    }
    Ok(Next { over, call: None })
}

/// The transaction that a row of `Wake` is of, and the hash of what it is about.
fn split(key: &[u8]) -> Result<(Zxid, [u8; 16]), Fault> {
    let parts =
        key.split_first_chunk().and_then(|(zxid, what)| Some((Zxid(u64::from_be_bytes(*zxid)), what.try_into().ok()?)));
    parts.ok_or_else(|| Fault::Row { table: Table::Wake, why: "its key is no zxid and a hash".to_owned() })
}

/// Whether anybody waits for what holds of a znode that is like this: of each kind of test the first to hold tells.
pub(crate) fn anybody_is_due(tx: &Tx, awaited: &[u8; 16], found: Option<Found>) -> Result<bool, Fault> {
    for kind in key::kinds_of_waiting(awaited) {
        for (_, value) in tx.scan(Table::Waiting, &kind, None, 1)? {
            let waiter: Waiter = row::decode(Table::Waiting, &value)?;
            let row = parked(tx, waiter.session, waiter.sequence)?;
            if waits_for(&waiter, &row)?.1.test.holds(found) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// How a call waits, and for what of a znode.
fn waits_for<'a>(waiter: &Waiter, row: &'a Parked) -> Result<(&'a Park, &'a Wanted), Fault> {
    let Waiter { session, sequence, condition, .. } = waiter;
    let Phase::Waiting { park, .. } = &row.phase else {
        return Err(Fault::Invariant(format!("call {sequence} of session {session} is woken and does not wait")));
    };
    let wanted = park.any_of.get(usize::from(*condition));
    let missing = || Fault::Invariant(format!("call {sequence} of session {session} waits for {condition}"));
    wanted.map(|wanted| (park, wanted)).ok_or_else(missing)
}

/// Those who wait for a znode: first all who are woken together, parked before the change and have waited for what it brought,
/// then the others, of each test by ticket, until it does not hold: it holds for none of those behind then either.
fn at_znode(tx: &Tx, wake: &[u8], after: Option<Bytes>, found: Option<Found>) -> Result<Option<Due>, Fault> {
    let (zxid, awaited) = split(wake)?;
    let mut cursor = after.map(|after| after.to_vec());
    loop {
        let rows = tx.scan(Table::Waiting, &awaited, cursor.as_deref(), WAITERS)?;
        if rows.is_empty() {
            return Ok(None);
        }
        for (key, value) in rows {
            let waiter: Waiter = row::decode(Table::Waiting, &value)?;
            let Waiter { session, sequence, since, .. } = waiter;
            let row = parked(tx, session, sequence)?;
            let (park, wanted) = waits_for(&waiter, &row)?;
            let holds = match park.wake {
                Wake::All => wanted.test.holds(found),
                Wake::One => holds(tx, wanted)?,
            };
            if !holds {
                cursor = Some(key::behind_kind_of_waiting(&key));
                break;
            }
            let is_due = park.wake == Wake::One || since < zxid;
            if is_due {
                let woken = Woken::Znode { after: Some(key.into()), found };
                let wake = (wake.to_vec(), Some(woken));
                return Ok(Some(Due { session, sequence, row, reason: Ok(Reason::Change), wake }));
            }
            cursor = Some(key);
        }
    }
}

fn at_deadline(tx: &Tx, wake: &[u8], session: SessionId, sequence: u64) -> Result<Option<Due>, Fault> {
    let row: Option<Parked> = typed(tx, Table::Parked, &key::parked(session, sequence))?;
    let Some(row) = row else { return Ok(None) };
    let Phase::Waiting { park, .. } = &row.phase else { return Ok(None) };
    // It may have parked again meanwhile, for longer.
    if park.until_ms.is_none_or(|until_ms| until_ms > tx.now_ms()) {
        return Ok(None);
    }
    Ok(Some(Due { session, sequence, row, reason: Ok(Reason::Deadline), wake: (wake.to_vec(), None) }))
}

fn of_plugin(tx: &Tx, wake: &[u8], plugin: String, state: String) -> Result<Option<Due>, Fault> {
    let (zxid, _) = split(wake)?;
    let prefix = key::calls_of(&plugin);
    for (_, value) in tx.scan(Table::Calls, &prefix, Some(&prefix), 1)? {
        let (session, sequence): (SessionId, u64) = row::decode(Table::Calls, &value)?;
        let row = parked(tx, session, sequence)?;
        // Later ones are of a plugin that runs again.
        if row.ticket < zxid {
            let reason = Err(Refusal::PluginDisabled { plugin: plugin.clone(), state: state.clone() });
            let wake = (wake.to_vec(), Some(Woken::Plugin { plugin, state }));
            return Ok(Some(Due { session, sequence, row, reason, wake }));
        }
    }
    Ok(None)
}

/// A plugin runs no more: its calls that wait are to end.
pub(crate) fn end_all(tx: &mut Tx, plugin: &str, state: &str) {
    let woken = Woken::Plugin { plugin: plugin.to_owned(), state: state.to_owned() };
    let what = xxhash_rust::xxh3::xxh3_128(&key::calls_of(plugin)).to_be_bytes();
    tx.put_row(Table::Wake, &key::wake(tx.zxid(), &what), &woken);
}

/// The time of a call has come.
pub(crate) fn time_is_over(tx: &mut Tx, expiry: &[u8], of: &[u8]) -> Result<(), Fault> {
    tx.remove(Table::Expiry, expiry);
    let broken = || Fault::Row { table: Table::Expiry, why: "it is for no call".to_owned() };
    let (call, _) = of.split_first_chunk::<16>().ok_or_else(broken)?;
    let session = call.first_chunk().map(|bytes| SessionId(u64::from_be_bytes(*bytes))).ok_or_else(broken)?;
    let woken = Woken::Deadline { session, sequence: sequence_of(call)? };
    tx.put_row(Table::Wake, &key::wake(tx.zxid(), call), &woken);
    Ok(())
}

fn sequence_of(key: &[u8]) -> Result<u64, Fault> {
    let number = key.get(8..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    number.ok_or_else(|| Fault::Row { table: Table::Parked, why: "its key is not a pair of numbers".to_owned() })
}

fn parked(base: &dyn Base, session: SessionId, sequence: u64) -> Result<Parked, Fault> {
    let row = typed(base, Table::Parked, &key::parked(session, sequence))?;
    row.ok_or_else(|| Fault::Invariant(format!("call {sequence} of session {session} waits and has no row")))
}

fn owner(base: &dyn Base, session: SessionId) -> Result<Session, Fault> {
    let row = query::session(base, session)?;
    row.ok_or_else(|| Fault::Invariant(format!("session {session} has a call, and no row")))
}

fn count(tx: &mut Tx, plugin: &str, by: i64) -> Result<(), Fault> {
    let key = key::calls_of(plugin);
    let count: u64 = tx.typed(Table::Calls, &key)?.unwrap_or_default();
    match count.saturating_add_signed(by) {
        0 => tx.remove(Table::Calls, &key),
        count => tx.put_row(Table::Calls, &key, &count),
    }
    Ok(())
}
