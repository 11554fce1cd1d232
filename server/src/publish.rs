//! The publisher: what was applied goes to watches first, then to those who wait for replies, in zxid order.
//!
//! One lock covers the watches, the waiting requests and the last published zxid, so that a watch or a request that is
//! registered under it misses nothing and is told nothing twice. Nothing is awaited under it.

mod telling;
mod waiting;

use std::collections::{HashMap, hash_map};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use conclave_core::entry::{Entry, Origin};
use conclave_core::plan::{Asked, Request, Work};
use conclave_core::query::{self, History, Stored};
use conclave_core::row::Recorded;
use conclave_core::view::Base;
use conclave_core::{Fault, Table};
use conclave_protocol::limits::Limits;
use conclave_protocol::{
    Outcome, PushBack, Refusal, RequestId, ServerMessage, SessionId, Value, WatchId, WatchRequest, Zxid, codec,
};
use tokio::sync::watch;

use crate::outbox::{Out, Outbox};
use crate::watches::{ConnectionId, Watches};

pub(crate) use telling::Telling;
use waiting::{Waiting, WaitingList};

/// Transactions of the history read at a time.
pub(crate) const HISTORY_PAGE: usize = 1_000;

/// The end of a parked call: its sequence, the zxid of the run that ended it, the outcome.
pub(crate) type Completion = (u64, Zxid, Bytes);

/// A connection, and what is to be done for it.
struct Connected {
    outbox: Outbox,
    /// Its session; of several that it opened the last.
    session: Option<SessionId>,
    /// Ends of its session's parked calls that wait for the reply that says that they parked: the request was sent again,
    /// and is looked up still.
    held: HashMap<u64, (Zxid, Bytes)>,
    /// Its watches that are owed a `Resync`, because it is slow, with the number of the debt: a marker for it is queued.
    lagging: HashMap<WatchId, u64>,
}

#[derive(Default)]
struct Inner {
    published: Zxid,
    limits: Limits,
    watches: Watches,
    connections: HashMap<ConnectionId, Connected>,
    sessions: HashMap<SessionId, ConnectionId>,
    waiting: WaitingList,
    /// Numbers the debts to watches.
    last_debt: u64,
    counts: Counts,
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Connections.
    pub(crate) connections: usize,
    /// Watches.
    pub(crate) watches: usize,
    /// Requests that wait for their transaction.
    pub(crate) waiting: usize,
    /// Events sent.
    pub(crate) events: u64,
    /// Watches that were told to read the present state instead.
    pub(crate) resyncs: u64,
    /// Transactions published.
    pub(crate) transactions: u64,
}

/// See the module.
pub(crate) struct Publisher {
    inner: Mutex<Inner>,
    published: watch::Sender<Zxid>,
}

impl Publisher {
    /// With the default limits.
    #[cfg(test)]
    pub(crate) fn new(published: Zxid) -> Self {
        Self::with(published, Limits::default())
    }

    /// Of a member that has applied (and so, published) this much.
    pub(crate) fn with(published: Zxid, limits: Limits) -> Self {
        let inner = Inner { published, limits, ..Inner::default() };
        Self { inner: Mutex::new(inner), published: watch::Sender::new(published) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock ends the process's usefulness anyway; the data are whole between statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last published zxid.
    pub(crate) fn published(&self) -> Zxid {
        *self.published.borrow()
    }

    /// Changes with the last published zxid.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Zxid> {
        self.published.subscribe()
    }

    /// Waits until this zxid is published: false when the member stops first.
    pub(crate) async fn reached(&self, zxid: Zxid) -> bool {
        if self.published() >= zxid {
            return true;
        }
        self.subscribe().wait_for(|published| *published >= zxid).await.is_ok()
    }

    /// As [`Publisher::connect_and`], for one whose session, if any, has no parked calls.
    #[cfg(test)]
    pub(crate) fn connect(&self, connection: ConnectionId, outbox: Outbox) {
        self.connect_and(connection, outbox, |_| Ok(Vec::new())).expect("nothing is read");
    }

    /// A client has connected. It is told of its session's calls that had parked and have ended, as `completions` reads them
    /// from the applied state: of those that are published already; the others are told when they are. Whether the session that it carries is still there, the caller looks after this: its end
    /// before now is told to nobody.
    ///
    /// # Errors
    /// What `completions` fails with; the client is connected all the same.
    pub(crate) fn connect_and(
        &self,
        connection: ConnectionId,
        outbox: Outbox,
        completions: impl FnOnce(SessionId) -> Result<Vec<Completion>, Fault>,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        let session = outbox.session();
        let connected = Connected { outbox, session, held: HashMap::new(), lagging: HashMap::new() };
        inner.connections.insert(connection, connected);
        if let Some(session) = session {
            inner.sessions.insert(session, connection);
            let published = inner.published;
            // Read under the lock: it holds all that is published, and nothing is published meanwhile.
            inner.complete_again(session, completions(session)?, Zxid(0), published);
        }
        Ok(())
    }

    /// A client has gone: nothing waits for it any more.
    pub(crate) fn disconnect(&self, connection: ConnectionId) {
        let mut inner = self.lock();
        inner.watches.remove_all(connection);
        inner.waiting.remove_all(connection);
        let Some(gone) = inner.connections.remove(&connection) else { return };
        if let Some(session) = gone.session {
            inner.detach(connection, session);
        }
    }

    /// Registers a request, and gives its number. The one that waited under the same origin, if any, is pushed back: this
    /// is its repetition.
    pub(crate) fn submit(&self, connection: ConnectionId, id: RequestId, origin: Origin, request: Request) -> u64 {
        let mut inner = self.lock();
        if let Some(before) = inner.waiting.take(&origin)
            && let Some(connected) = inner.connections.get(&before.connection)
        {
            let message = ServerMessage::PushBack { id: before.id, why: PushBack::Busy };
            connected.outbox.send(Out::Fill(before.id, message));
        }
        inner.waiting.add(connection, id, origin, request)
    }

    /// The request with this number, if it still waits, and its origin.
    pub(crate) fn waiting(&self, token: u64) -> Option<(Origin, Request)> {
        let inner = self.lock();
        let (origin, waiting) = inner.waiting.get(token)?;
        Some((origin.clone(), waiting.request.clone()))
    }

    /// Everything that waits, in order of arrival.
    pub(crate) fn all_waiting(&self) -> Vec<(u64, Request)> {
        let inner = self.lock();
        inner.waiting.iter().map(|(token, _, waiting)| (token, waiting.request.clone())).collect()
    }

    /// Answers a request that was found in the applied state.
    pub(crate) fn deliver_stored(&self, token: u64, zxid: Zxid, outcome: Bytes) {
        self.lock().answer(token, |id| ServerMessage::Reply { id, zxid, outcome });
    }

    /// Pushes a request back.
    pub(crate) fn push_back(&self, token: u64, why: PushBack) {
        self.lock().answer(token, |id| ServerMessage::PushBack { id, why });
    }

    /// Refuses a request that the planner did not plan.
    pub(crate) fn refuse(&self, token: u64, zxid: Zxid, refusal: Refusal) {
        let outcome = codec::encode(&Outcome::Err(refusal)).into();
        self.lock().answer(token, |id| ServerMessage::Reply { id, zxid, outcome });
    }

    /// Ends the connections of a session that is over.
    pub(crate) fn over(&self, session: SessionId) {
        self.lock().end_session(session);
    }

    /// Starts a watch, told of everything after the zxid that comes back.
    pub(crate) fn watch(&self, connection: ConnectionId, request: &WatchRequest) -> Zxid {
        let mut inner = self.lock();
        let published = inner.published;
        if let Some(connected) = inner.connections.get_mut(&connection) {
            // What was owed to an earlier one of this number is not this one's.
            connected.lagging.remove(&request.watch);
            inner.watches.add(connection, request, published);
        }
        published
    }

    /// Starts watches of a connection that were told of the past: `last` is called with the last published zxid, tells
    /// the rest up to there, and gives the watches; or none, to be called again without the lock. Gives that zxid when
    /// they have started.
    ///
    /// # Errors
    /// What `last` fails with.
    pub(crate) fn adopt<E>(
        &self,
        connection: ConnectionId,
        last: impl FnOnce(Zxid) -> Result<Option<Watches>, E>,
    ) -> Result<Option<Zxid>, E> {
        let mut inner = self.lock();
        let published = inner.published;
        if !inner.connections.contains_key(&connection) {
            return Ok(Some(published));
        }
        let Some(watches) = last(published)? else { return Ok(None) };
        inner.watches.absorb(watches, published);
        Ok(Some(published))
    }

    /// Ends a watch; false when there was none.
    pub(crate) fn unwatch(&self, connection: ConnectionId, watch: WatchId) -> bool {
        let mut inner = self.lock();
        if let Some(connected) = inner.connections.get_mut(&connection) {
            connected.lagging.remove(&watch);
        }
        inner.watches.remove((connection, watch))
    }

    /// How many watches a connection has.
    pub(crate) fn watches(&self, connection: ConnectionId) -> usize {
        self.lock().watches.count(connection)
    }

    /// How many of them have a pattern.
    pub(crate) fn patterns(&self, connection: ConnectionId) -> usize {
        self.lock().watches.patterns(connection)
    }

    /// A slow connection has caught up as far as this debt to one of its watches: that is to read the present state, by
    /// this message. None when the watch is over meanwhile.
    pub(crate) fn caught_up(&self, connection: ConnectionId, watch: WatchId, debt: u64) -> Option<ServerMessage> {
        let mut inner = self.lock();
        let zxid = inner.published;
        let lagging = &mut inner.connections.get_mut(&connection)?.lagging;
        if lagging.get(&watch) != Some(&debt) {
            return None;
        }
        lagging.remove(&watch);
        inner.counts.resyncs += 1;
        Some(ServerMessage::Resync { watch, zxid })
    }

    /// Entries were applied and committed, in this order; this state holds them, and is the one that watches with data
    /// are told of.
    ///
    /// # Errors
    /// A fault of this member.
    pub(crate) fn publish(&self, entries: &[Entry], base: &dyn Base) -> Result<(), Fault> {
        let Some(last) = entries.last().map(Entry::last) else { return Ok(()) };
        let mut inner = self.lock();
        let mut telling = Telling::new(base);
        for entry in entries {
            inner.publish(entry, &mut telling)?;
        }
        inner.published = inner.published.max(last);
        // Under the lock, so that it never runs behind what a registration saw.
        self.published.send_replace(inner.published);
        Ok(())
    }

    /// The state was replaced by a later one: tells watches what its history keeps of the changes in between, or to read
    /// the present state; answers the requests whose replies are in it, and ends the sessions that are not.
    ///
    /// # Errors
    /// A fault of this member.
    pub(crate) fn installed(&self, base: &dyn Base) -> Result<(), Fault> {
        let last = query::state(base)?.zxid;
        let mut inner = self.lock();
        if last <= inner.published {
            return Ok(());
        }
        inner.tell_history(base, last)?;
        let origins: Vec<(u64, Origin)> =
            inner.waiting.iter().map(|(token, origin, _)| (token, origin.clone())).collect();
        for (token, origin) in origins {
            match query::stored(base, &origin)? {
                Stored::Reply { zxid, outcome } => inner.answer(token, |id| ServerMessage::Reply { id, zxid, outcome }),
                // Its session's goodbye follows below.
                Stored::SessionOver | Stored::NotYet => {}
            }
        }
        let sessions: Vec<SessionId> = inner.sessions.keys().copied().collect();
        for session in sessions {
            if query::session(base, session)?.is_none() {
                inner.end_session(session);
                continue;
            }
            let published = inner.published;
            inner.complete_again(session, query::completions(base, session)?, published, last);
        }
        inner.published = last;
        self.published.send_replace(last);
        Ok(())
    }

    /// Numbers for the metrics.
    pub(crate) fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts {
            connections: inner.connections.len(),
            watches: inner.watches.len(),
            waiting: inner.waiting.len(),
            ..inner.counts
        }
    }
}

impl Inner {
    fn publish(&mut self, entry: &Entry, telling: &mut Telling<'_>) -> Result<(), Fault> {
        for (zxid, transaction) in entry.numbered() {
            self.counts.transactions += 1;
            self.tell_watches(zxid, &transaction.changes, telling)?;
            if let Some(waiting) = self.waiting.take(&transaction.origin) {
                self.reply(&waiting, zxid, transaction.outcome.clone());
            }
            if let Origin::Completion { session, sequence } = transaction.origin {
                self.complete(session, sequence, zxid, transaction.outcome.clone());
            }
        }
        for row in &entry.rows {
            if row.table == Table::Session.number()
                && row.value.is_none()
                && let Some(session) = session_of(&row.key)
            {
                self.end_session(session);
            }
        }
        Ok(())
    }

    fn tell_watches(&mut self, zxid: Zxid, changes: &[Recorded], telling: &mut Telling<'_>) -> Result<(), Fault> {
        let Self { watches, connections, counts, limits, .. } = self;
        let mut left_out = Vec::new();
        let owner = |connection| connections.get(&connection).map(|it| Arc::clone(&it.outbox.principal));
        telling.tell(watches, zxid, changes, owner, |(connection, watch), body| {
            let Some(Connected { outbox, lagging, .. }) = connections.get(&connection) else { return };
            match body {
                Some(body) if !outbox.queued.is_full(limits) && !lagging.contains_key(&watch) => {
                    counts.events += 1;
                    outbox.event(watch, Some(body), zxid);
                }
                // Too many wait, or one alone would be too much.
                _ => left_out.push((connection, watch)),
            }
        })?;
        for (connection, watch) in left_out {
            self.owe(connection, watch);
        }
        Ok(())
    }

    /// Tells watches what happened up to `last`, out of the history, or to read the present state.
    fn tell_history(&mut self, base: &dyn Base, last: Zxid) -> Result<(), Fault> {
        // Without watches there is nobody to tell, and the history is long.
        let mut after = if self.watches.len() == 0 { last } else { self.published };
        while after < last {
            let mut telling = Telling::new(base);
            match query::history(base, after, HISTORY_PAGE)? {
                History::Kept { transactions, upto, .. } => {
                    for (zxid, changes) in transactions {
                        self.tell_watches(zxid, &changes, &mut telling)?;
                    }
                    after = upto;
                }
                History::TooShort { .. } => {
                    for (connection, watch) in self.watches.behind(last) {
                        self.owe(connection, watch);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// This watch is to read the present state instead of changes: the connection's writer says so in turn. Each has a
    /// marker of its own, behind its last event: it must not be told of the present before what is older.
    fn owe(&mut self, connection: ConnectionId, watch: WatchId) {
        let Some(Connected { outbox, lagging, .. }) = self.connections.get_mut(&connection) else { return };
        if let hash_map::Entry::Vacant(none) = lagging.entry(watch) {
            self.last_debt += 1;
            none.insert(self.last_debt);
            outbox.send(Out::Lagging(watch, self.last_debt));
        }
    }

    fn reply(&mut self, waiting: &Waiting, zxid: Zxid, outcome: Bytes) {
        if matches!(waiting.request.work, Work::Open { .. })
            && let Ok(Ok(Value::Opened { session, .. })) = codec::decode::<Outcome>(&outcome)
        {
            self.attach(waiting.connection, session);
        }
        if let Some(connected) = self.connections.get_mut(&waiting.connection) {
            connected.outbox.reply(waiting.id, ServerMessage::Reply { id: waiting.id, zxid, outcome });
            // It may have said that the call parked.
            if let Asked::Session { sequence, .. } = waiting.request.asked
                && let Some((zxid, outcome)) = connected.held.remove(&sequence)
            {
                connected.outbox.completed(sequence, zxid, outcome);
            }
        }
    }

    /// A parked call has ended: tells whoever carries its session.
    fn complete(&mut self, session: SessionId, sequence: u64, zxid: Zxid, outcome: Bytes) {
        let Some(connection) = self.sessions.get(&session) else { return };
        let Some(connected) = self.connections.get_mut(connection) else { return };
        if self.waiting.has(&Origin::Session { session, sequence }) {
            connected.held.insert(sequence, (zxid, outcome));
        } else {
            connected.outbox.completed(sequence, zxid, outcome);
        }
    }

    /// Tells of the ends of a session's calls that a state holds, of transactions after one and up to another.
    fn complete_again(&mut self, session: SessionId, mut completions: Vec<Completion>, after: Zxid, upto: Zxid) {
        completions.sort_by_key(|(_, zxid, _)| *zxid);
        for (sequence, zxid, outcome) in completions {
            if zxid > after && zxid <= upto {
                self.complete(session, sequence, zxid, outcome);
            }
        }
    }

    fn answer(&mut self, token: u64, message: impl FnOnce(RequestId) -> ServerMessage) {
        let Some(origin) = self.waiting.get(token).map(|(origin, _)| origin.clone()) else { return };
        let Some(waiting) = self.waiting.take(&origin) else { return };
        match message(waiting.id) {
            ServerMessage::Reply { zxid, outcome, .. } => self.reply(&waiting, zxid, outcome),
            message => {
                if let Some(connected) = self.connections.get(&waiting.connection) {
                    connected.outbox.send(Out::Fill(waiting.id, message));
                }
            }
        }
    }

    /// A connection carries a session from now on, and the one before no more: that ends without it.
    fn attach(&mut self, connection: ConnectionId, session: SessionId) {
        if let Some(connected) = self.connections.get_mut(&connection) {
            connected.outbox.session.store(session.0, Ordering::Release);
            // Of the session before.
            connected.held.clear();
            if let Some(before) = connected.session.replace(session) {
                self.detach(connection, before);
            }
            self.sessions.insert(session, connection);
        }
    }

    fn detach(&mut self, connection: ConnectionId, session: SessionId) {
        // Another connection may carry it by now.
        if self.sessions.get(&session) == Some(&connection) {
            self.sessions.remove(&session);
        }
    }

    fn end_session(&mut self, session: SessionId) {
        if let Some(connection) = self.sessions.remove(&session)
            && let Some(connected) = self.connections.get(&connection)
        {
            connected.outbox.send(Out::Last(ServerMessage::Goodbye { refusal: Refusal::SessionOver { session } }));
        }
    }
}

/// The session whose row a key names.
pub(crate) fn session_of(row_key: &[u8]) -> Option<SessionId> {
    <[u8; 8]>::try_from(row_key).ok().map(|id| SessionId(u64::from_be_bytes(id)))
}

#[cfg(test)]
mod tests;
