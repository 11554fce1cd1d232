//! The publisher: what was applied goes to watches first, then to those who wait for replies, in zxid order.
//!
//! One lock covers the watches, the waiting requests and the last published zxid, so that a watch or a request that is
//! registered under it misses nothing and is told nothing twice. Nothing is awaited under it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use conclave_core::entry::{Entry, Origin};
use conclave_core::plan::Request;
use conclave_core::query::{self, History, Stored};
use conclave_core::view::Base;
use conclave_core::{Action, Fault, Table, authorize};
use conclave_protocol::{
    Outcome, PushBack, Refusal, RequestId, Scope, ServerMessage, SessionId, Value, WatchId, Zxid, codec, limits,
};
use tokio::sync::{mpsc, watch};

use crate::watches::{ConnectionId, Watches};

/// Transactions of the history read at a time.
const HISTORY_PAGE: usize = 1_000;

/// What a connection's writer is told.
#[derive(Debug)]
pub(crate) enum Out {
    /// A request has arrived, and takes so much of its connection's room: replies after its own wait for it.
    Expect(RequestId, u32),
    /// Its reply.
    Fill(RequestId, ServerMessage),
    /// At once, out of turn; so much of the room is free again.
    Now(ServerMessage, u32),
    /// An event: counted until it is written.
    Event(ServerMessage),
    /// Here an event was left out, because too many wait: in its place the writer says what [`Publisher::caught_up`]
    /// gives, before any reply that is newer than the event.
    Lagging,
    /// The last message.
    Last(ServerMessage),
}

/// A connection, as the publisher sees it.
#[derive(Clone)]
pub(crate) struct Outbox {
    /// Where its messages go.
    pub(crate) out: mpsc::UnboundedSender<Out>,
    /// Events that are not written yet.
    pub(crate) queued: Arc<AtomicUsize>,
    /// The session that it carries; 0: none.
    pub(crate) session: Arc<AtomicU64>,
    /// Who is at its other end: the URI of its certificate.
    pub(crate) principal: Arc<str>,
}

impl Outbox {
    /// Of a connection of this principal, which carries this session if any; and the end that its writer reads.
    pub(crate) fn new(
        principal: impl Into<Arc<str>>,
        session: Option<SessionId>,
    ) -> (Self, mpsc::UnboundedReceiver<Out>) {
        let (out, written) = mpsc::unbounded_channel();
        let session = Arc::new(AtomicU64::new(session.map_or(0, |session| session.0)));
        (Self { out, queued: Arc::default(), session, principal: principal.into() }, written)
    }

    /// The connection may be gone: then nobody waits for what is sent.
    pub(crate) fn send(&self, out: Out) {
        drop(self.out.send(out));
    }

    /// The session that it carries.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.session.load(Ordering::Acquire) {
            0 => None,
            session => Some(SessionId(session)),
        }
    }
}

/// A request that waits for its transaction.
pub(crate) struct Waiting {
    /// Its number at this member: rises in the order of arrival.
    pub(crate) token: u64,
    /// It, to be sent again when the leader changes.
    pub(crate) request: Request,
    connection: ConnectionId,
    id: RequestId,
}

#[derive(Default)]
struct Inner {
    published: Zxid,
    watches: Watches,
    connections: HashMap<ConnectionId, Outbox>,
    sessions: HashMap<SessionId, ConnectionId>,
    waiting: HashMap<Origin, Waiting>,
    tokens: BTreeMap<u64, Origin>,
    next_token: u64,
    /// Watches of slow connections that are owed a `Resync`.
    lagging: HashMap<ConnectionId, Vec<WatchId>>,
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
    /// Of a member that has applied (and so, published) this much.
    pub(crate) fn new(published: Zxid) -> Self {
        let inner = Inner { published, next_token: 1, ..Inner::default() };
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

    /// A client has connected.
    pub(crate) fn connect(&self, connection: ConnectionId, outbox: Outbox) {
        let mut inner = self.lock();
        if let Some(session) = outbox.session() {
            inner.sessions.insert(session, connection);
        }
        inner.connections.insert(connection, outbox);
    }

    /// A client has gone: nothing waits for it any more.
    pub(crate) fn disconnect(&self, connection: ConnectionId, watches: &[WatchId]) {
        let mut inner = self.lock();
        for watch in watches {
            inner.watches.remove((connection, *watch));
        }
        inner.lagging.remove(&connection);
        inner.sessions.retain(|_, carrier| *carrier != connection);
        inner.connections.remove(&connection);
        let gone: Vec<Origin> = inner
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.connection == connection)
            .map(|(origin, _)| origin.clone())
            .collect();
        for origin in gone {
            inner.take(&origin);
        }
    }

    /// Registers a request, and gives its number. The one that waited under the same origin, if any, is pushed back: this is its repetition.
    pub(crate) fn submit(&self, connection: ConnectionId, id: RequestId, origin: Origin, request: Request) -> u64 {
        let mut inner = self.lock();
        if let Some(before) = inner.take(&origin)
            && let Some(outbox) = inner.connections.get(&before.connection)
        {
            let message = ServerMessage::PushBack { id: before.id, why: PushBack::Busy };
            outbox.send(Out::Fill(before.id, message));
        }
        let token = inner.next_token;
        inner.next_token += 1;
        inner.tokens.insert(token, origin.clone());
        inner.waiting.insert(origin, Waiting { token, request, connection, id });
        token
    }

    /// The request with this number, if it still waits, and its origin.
    pub(crate) fn waiting(&self, token: u64) -> Option<(Origin, Request)> {
        let inner = self.lock();
        let origin = inner.tokens.get(&token)?;
        Some((origin.clone(), inner.waiting.get(origin)?.request.clone()))
    }

    /// Everything that waits, in order of arrival.
    pub(crate) fn all_waiting(&self) -> Vec<(u64, Request)> {
        let inner = self.lock();
        let waiting = inner.tokens.iter().filter_map(|(token, origin)| Some((*token, inner.waiting.get(origin)?)));
        waiting.map(|(token, waiting)| (token, waiting.request.clone())).collect()
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

    /// Starts a watch under the lock. `replay` is called with the last published zxid and reads what the watch is told
    /// of before that; it gives the zxid up to which it has told, or none to be called again without the lock.
    pub(crate) fn watch<E>(
        &self,
        connection: ConnectionId,
        watch: WatchId,
        registration: (&conclave_protocol::Path, Scope, bool),
        replay: impl FnOnce(Zxid, &mut dyn FnMut(Out)) -> Result<Option<Zxid>, E>,
    ) -> Result<Option<Zxid>, E> {
        let mut inner = self.lock();
        let published = inner.published;
        let Some(outbox) = inner.connections.get(&connection).cloned() else { return Ok(Some(published)) };
        let told = replay(published, &mut |out| outbox.send(out))?;
        if let Some(told) = told {
            let (path, scope, once) = registration;
            inner.watches.add((connection, watch), path, scope, once, told.max(published));
        }
        Ok(told.map(|told| told.max(published)))
    }

    /// Ends a watch; false when there was none.
    pub(crate) fn unwatch(&self, connection: ConnectionId, watch: WatchId) -> bool {
        let mut inner = self.lock();
        if let Some(lagging) = inner.lagging.get_mut(&connection) {
            lagging.retain(|w| *w != watch);
        }
        inner.watches.remove((connection, watch))
    }

    /// Drops those of a connection's watches that have ended.
    pub(crate) fn forget_over(&self, connection: ConnectionId, watches: &mut Vec<WatchId>) {
        let inner = self.lock();
        let lagging = inner.lagging.get(&connection);
        watches.retain(|watch| {
            inner.watches.contains((connection, *watch)) || lagging.is_some_and(|lagging| lagging.contains(watch))
        });
    }

    /// A slow connection has caught up: its watches that were left out are to read the present state, by these messages.
    pub(crate) fn caught_up(&self, connection: ConnectionId) -> Vec<ServerMessage> {
        let mut inner = self.lock();
        let zxid = inner.published;
        let lagging = inner.lagging.remove(&connection).unwrap_or_default();
        inner.counts.resyncs += lagging.len() as u64;
        lagging.into_iter().map(|watch| ServerMessage::Resync { watch, zxid }).collect()
    }

    /// Entries were applied and committed, in this order.
    pub(crate) fn publish(&self, entries: &[Entry]) {
        let Some(last) = entries.last().map(Entry::last) else { return };
        let mut inner = self.lock();
        for entry in entries {
            inner.publish(entry);
        }
        inner.published = inner.published.max(last);
        // Under the lock, so that it never runs behind what a registration saw.
        self.published.send_replace(inner.published);
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
        let origins: Vec<(u64, Origin)> = inner.tokens.iter().map(|(token, origin)| (*token, origin.clone())).collect();
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
            }
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
    fn publish(&mut self, entry: &Entry) {
        for (zxid, transaction) in entry.numbered() {
            self.counts.transactions += 1;
            self.tell_watches(zxid, &transaction.changes);
            if let Some(waiting) = self.take(&transaction.origin) {
                self.reply(&waiting, zxid, transaction.outcome.clone());
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
    }

    fn tell_watches(&mut self, zxid: Zxid, changes: &[conclave_protocol::Change]) {
        for ((connection, watch), indices) in self.watches.matching(zxid, changes) {
            let Some(outbox) = self.connections.get(&connection) else { continue };
            let allowed =
                |change: &conclave_protocol::Change| authorize(&outbox.principal, Action::Read, &change.path).is_ok();
            let changes: Vec<_> = indices.into_iter().map(|at| changes[at].clone()).filter(allowed).collect();
            if changes.is_empty() {
                continue;
            }
            let is_owed = self.lagging.get(&connection).is_some_and(|lagging| lagging.contains(&watch));
            if is_owed || outbox.queued.load(Ordering::Acquire) >= limits::QUEUED_EVENTS {
                self.owe(connection, watch);
                continue;
            }
            outbox.queued.fetch_add(1, Ordering::AcqRel);
            self.counts.events += 1;
            outbox.send(Out::Event(ServerMessage::Event { watch, zxid, changes }));
        }
    }

    /// Tells watches what happened up to `last`, out of the history, or to read the present state.
    fn tell_history(&mut self, base: &dyn Base, last: Zxid) -> Result<(), Fault> {
        // Without watches there is nobody to tell, and the history is long.
        let mut after = if self.watches.len() == 0 { last } else { self.published };
        while after < last {
            match query::history(base, after, HISTORY_PAGE)? {
                History::Kept { transactions, upto, .. } => {
                    for (zxid, changes) in transactions {
                        self.tell_watches(zxid, &changes);
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

    /// This watch is to read the present state instead of changes: the connection's writer says so in turn.
    fn owe(&mut self, connection: ConnectionId, watch: WatchId) {
        let Some(outbox) = self.connections.get(&connection) else { return };
        let lagging = self.lagging.entry(connection).or_default();
        if lagging.is_empty() {
            outbox.send(Out::Lagging);
        }
        if !lagging.contains(&watch) {
            lagging.push(watch);
        }
    }

    fn reply(&mut self, waiting: &Waiting, zxid: Zxid, outcome: Bytes) {
        if matches!(waiting.request.work, conclave_core::plan::Work::Open { .. })
            && let Ok(Ok(Value::Opened { session, .. })) = codec::decode::<Outcome>(&outcome)
        {
            self.attach(waiting.connection, session);
        }
        if let Some(outbox) = self.connections.get(&waiting.connection) {
            outbox.send(Out::Fill(waiting.id, ServerMessage::Reply { id: waiting.id, zxid, outcome }));
        }
    }

    fn answer(&mut self, token: u64, message: impl FnOnce(RequestId) -> ServerMessage) {
        let Some(origin) = self.tokens.get(&token).cloned() else { return };
        let Some(waiting) = self.take(&origin) else { return };
        match message(waiting.id) {
            ServerMessage::Reply { zxid, outcome, .. } => self.reply(&waiting, zxid, outcome),
            message => {
                if let Some(outbox) = self.connections.get(&waiting.connection) {
                    outbox.send(Out::Fill(waiting.id, message));
                }
            }
        }
    }

    fn take(&mut self, origin: &Origin) -> Option<Waiting> {
        let waiting = self.waiting.remove(origin)?;
        self.tokens.remove(&waiting.token);
        Some(waiting)
    }

    fn attach(&mut self, connection: ConnectionId, session: SessionId) {
        if let Some(outbox) = self.connections.get(&connection) {
            outbox.session.store(session.0, Ordering::Release);
            self.sessions.insert(session, connection);
        }
    }

    fn end_session(&mut self, session: SessionId) {
        if let Some(connection) = self.sessions.remove(&session)
            && let Some(outbox) = self.connections.get(&connection)
        {
            outbox.send(Out::Last(ServerMessage::Goodbye { refusal: Refusal::SessionOver { session } }));
        }
    }
}

/// The session whose row a key names.
pub(crate) fn session_of(row_key: &[u8]) -> Option<SessionId> {
    <[u8; 8]>::try_from(row_key).ok().map(|id| SessionId(u64::from_be_bytes(id)))
}

#[cfg(test)]
mod tests;
