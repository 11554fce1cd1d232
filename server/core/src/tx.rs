//! The transaction that is being planned: the view, and what the transaction has written over it so far.

use bytes::Bytes;
use conclave_protocol::{Change, ChangeKind, Create, Delete, Page, Path, Refusal, SessionId, Set, Stat, Zxid, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::layer::Layer;
use crate::row::{self, State};
use crate::view::{Base, Row, View, merge};
use crate::{Fault, Table, op, tree};

/// Why an operation did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is answered with no; it has written nothing.
    Refused(Refusal),
    /// This member must stop.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<conclave_protocol::PathError> for Stop {
    fn from(error: conclave_protocol::PathError) -> Self {
        Self::Refused(error.into())
    }
}

/// The transaction at hand: the view, and the rows that it has written so far. Dropped, nothing of it happened.
///
/// It owns the view, so that it can be moved into a plugin's store and back. Each operation is all or nothing: one that
/// is refused has written nothing, and a plugin may go on after it.
pub struct Tx {
    view: View,
    rows: Layer<Option<Bytes>>,
    rows_written: usize,
    bytes: usize,
    changes: Vec<Change>,
    /// As of this transaction: the zxid is its own.
    pub(crate) state: State,
    principal: String,
    session: Option<SessionId>,
    fault: Option<Fault>,
}

/// What a transaction wrote.
pub(crate) struct Written {
    pub(crate) rows: Layer<Option<Bytes>>,
    pub(crate) changes: Vec<Change>,
}

impl Tx {
    /// A transaction of this principal over a view, as the one after the view's last; what it writes is for the
    /// caller to look at. The planner makes its own.
    ///
    /// # Errors
    /// A fault of this member: the view's state can't be read.
    pub fn over(view: View, now_ms: u64, principal: &str, session: Option<SessionId>) -> Result<Self, Fault> {
        let state = crate::query::state(&view)?;
        let mut tx = Self::new(view);
        tx.begin(state, now_ms, principal, session);
        Ok(tx)
    }

    pub(crate) fn new(view: View) -> Self {
        Self {
            view,
            rows: Layer::default(),
            rows_written: 0,
            bytes: 0,
            changes: Vec::new(),
            state: State::default(),
            principal: String::new(),
            session: None,
            fault: None,
        }
    }

    /// Starts the transaction after `last`.
    pub(crate) fn begin(&mut self, last: State, now_ms: u64, principal: &str, session: Option<SessionId>) {
        self.undo();
        self.state = State { zxid: last.zxid.next(), time_ms: now_ms.max(last.time_ms), ..last };
        principal.clone_into(&mut self.principal);
        self.session = session;
        self.fault = None;
    }

    /// Drops what was written. The caller resets [`Tx::state`] with [`Tx::begin`] when it goes on.
    pub(crate) fn undo(&mut self) {
        if self.rows_written > 0 {
            self.rows = Layer::default();
        }
        self.rows_written = 0;
        self.bytes = 0;
        self.changes.clear();
    }

    /// Hands over what was written.
    pub(crate) fn take(&mut self) -> Written {
        let written = Written { rows: std::mem::take(&mut self.rows), changes: std::mem::take(&mut self.changes) };
        self.undo();
        written
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// Data and stat of a znode; none when there is no such znode.
    ///
    /// # Errors
    /// When the principal may not read it, or a fault.
    pub fn get(&mut self, path: &Path) -> Result<Option<(Bytes, Stat)>, Stop> {
        tree::get(self, &self.principal, path)
    }

    /// The stat of a znode; none when there is no such znode.
    ///
    /// # Errors
    /// When the principal may not read it, or a fault.
    pub fn stat(&mut self, path: &Path) -> Result<Option<Stat>, Stop> {
        tree::stat(self, &self.principal, path)
    }

    /// A page of children, in order of their names' bytes, those after `after`, at most `limit` of them (and at most
    /// [`limits::PAGE_CHILDREN`]), with their data when `data` is set.
    ///
    /// # Errors
    /// [`Refusal::NoZnode`]; when the principal may not read it; or a fault.
    pub fn children(&mut self, path: &Path, after: Option<&str>, limit: u32, data: bool) -> Result<Page, Stop> {
        tree::children(self, &self.principal, path, after, limit, data)
    }

    /// Creates a znode: its path (a sequential one's has its number) and stat.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn create(&mut self, create: &Create) -> Result<(Path, Stat), Stop> {
        op::create::create(self, create)
    }

    /// Replaces a znode's data: its stat afterwards.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn set(&mut self, set: &Set) -> Result<Stat, Stop> {
        op::set::set(self, set)
    }

    /// Deletes a znode, or a subtree: how many znodes went.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn delete(&mut self, delete: &Delete) -> Result<u64, Stop> {
        op::delete::delete(self, delete)
    }

    /// Cluster time, milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.state.time_ms
    }

    /// The transaction's number.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.state.zxid
    }

    /// Whose transaction it is; empty for the leader's own.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The session that it belongs to, when it has one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Rows that it has written so far, deletions included; a row written twice counts once.
    #[must_use]
    pub fn rows_written(&self) -> usize {
        self.rows_written
    }

    /// Bytes of these rows and of the changes.
    #[must_use]
    pub fn bytes_written(&self) -> usize {
        self.bytes
    }

    /// What happened to znodes so far, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Remembers a fault that could not be handed up, for instance through a plugin. The first one stays.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// The fault that was remembered.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Refuses what would make the transaction too large; `bytes` is what is about to be written, at most.
    pub(crate) fn room(&self, bytes: usize) -> Result<(), Refusal> {
        within("bytes of the transaction", limits::TRANSACTION_BYTES, self.bytes.saturating_add(bytes))
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.write(table, key, Some(value));
    }

    pub(crate) fn put_row<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) {
        self.write(table, key, Some(row::encode(value).into()));
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.write(table, key, None);
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += bytes(&value);
        match self.rows.insert(table, key.to_vec(), value) {
            Some(before) => self.bytes -= bytes(&before),
            None => {
                self.bytes += key.len();
                self.rows_written += 1;
            }
        }
    }

    pub(crate) fn typed<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, Fault> {
        tree::typed(self, table, key)
    }

    pub(crate) fn change(&mut self, kind: ChangeKind, path: Path, version: u64) {
        self.bytes += path.as_str().len() + CHANGE_BYTES;
        self.changes.push(Change { kind, path, version });
    }
}

/// What a change takes besides its path.
pub(crate) const CHANGE_BYTES: usize = 16;

/// Refuses what is over a limit.
pub(crate) fn within(what: &str, limit: usize, actual: usize) -> Result<(), Refusal> {
    if actual <= limit {
        return Ok(());
    }
    Err(Refusal::Limit { what: what.to_owned(), limit: limit as u64, actual: actual as u64 })
}

impl Base for Tx {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.rows.get(table, key) {
            Some(value) => Ok(value.clone()),
            None => self.view.row(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        let written = self.rows.range(table, prefix, after).map(|(key, value)| (key, value.as_ref()));
        merge(written, limit, |from, count| self.view.scan(table, prefix, from.or(after), count))
    }
}
