//! The transaction that is being planned: the view, and what the transaction has written over it so far.

use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::limits::{self, Limits};
use conclave_protocol::{
    Change, ChangeKind, Create, Delete, Detail, Page, Path, Refusal, SessionId, Set, Stat, Update, Zxid,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::layer::Layer;
use crate::op::create::Made;
use crate::plugins::Plugins;
use crate::row::{self, Recorded, State};
use crate::view::{Base, Row, View, merge};
use crate::{Fault, Table, key, op, tree};

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
    changes: Vec<Recorded>,
    /// As of this transaction: the zxid is its own.
    pub(crate) state: State,
    /// How many access lists there were before it.
    lists_before: u32,
    /// Bytes of data that it has read and made by checks and updates.
    edited: usize,
    principal: String,
    /// As whom the tree is asked, while a plugin runs as somebody else than the principal.
    pub(crate) acting: Option<String>,
    session: Option<SessionId>,
    /// The request's sequence in the session.
    pub(crate) sequence: Option<u64>,
    fault: Option<Fault>,
    pub(crate) limits: Limits,
    /// What triggers there are, and what runs them.
    pub(crate) plugins: Arc<Plugins>,
    /// Fuel that runs of plugins may still spend.
    pub(crate) fuel_left: u64,
    /// What `after` triggers want to know of changes.
    pub(crate) noted: Vec<Noted>,
    /// Plugins that ran, and whether they failed: the planner's to count, and not undone with the rest.
    pub(crate) runs: Vec<(String, bool)>,
}

/// A change that an `after` trigger is for.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    /// Its place among the changes.
    pub(crate) at: usize,
    pub(crate) data: Option<Bytes>,
    pub(crate) previous: Option<Bytes>,
}

/// What a transaction had written at some moment.
pub(crate) struct Savepoint {
    rows: Layer<Option<Bytes>>,
    rows_written: usize,
    bytes: usize,
    changes: usize,
    noted: usize,
    state: State,
    edited: usize,
}

/// What a transaction wrote.
pub(crate) struct Written {
    pub(crate) rows: Layer<Option<Bytes>>,
    pub(crate) changes: Vec<Recorded>,
}

impl Tx {
    /// A transaction of this principal over a view, as the one after the view's last; what it writes is for the
    /// caller to look at. The planner makes its own.
    ///
    /// # Errors
    /// A fault of this member: the view's state can't be read.
    pub fn over(view: View, now_ms: u64, principal: &str, session: Option<SessionId>) -> Result<Self, Fault> {
        let state = crate::query::state(&view)?;
        let mut tx = Self::new(view, Arc::new(Plugins::empty(Arc::new(crate::memory::NoPlugins))));
        tx.begin(state, now_ms, principal, session);
        Ok(tx)
    }

    /// A run over a state that is only read: its zxid is that of the state.
    pub(crate) fn reading(
        view: View,
        plugins: Arc<Plugins>,
        now_ms: u64,
        principal: &str,
        session: Option<SessionId>,
    ) -> Result<Self, Fault> {
        let state = crate::query::state(&view)?;
        let mut tx = Self::new(view, plugins);
        tx.begin(state, now_ms, principal, session);
        tx.state.zxid = state.zxid;
        Ok(tx)
    }

    pub(crate) fn new(view: View, plugins: Arc<Plugins>) -> Self {
        Self {
            view,
            rows: Layer::default(),
            rows_written: 0,
            bytes: 0,
            changes: Vec::new(),
            state: State::default(),
            lists_before: 0,
            edited: 0,
            principal: String::new(),
            acting: None,
            session: None,
            sequence: None,
            fault: None,
            limits: Limits::default(),
            plugins,
            fuel_left: limits::TRANSACTION_FUEL,
            noted: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Nothing at all: stands where a transaction is that a plugin's store owns for a while.
    pub(crate) fn hollow(plugins: Arc<Plugins>) -> Self {
        Self::new(View::new(Box::new(Nothing)), plugins)
    }

    /// Starts the transaction after `last`.
    pub(crate) fn begin(&mut self, last: State, now_ms: u64, principal: &str, session: Option<SessionId>) {
        self.undo();
        self.state = State { zxid: last.zxid.next(), time_ms: now_ms.max(last.time_ms), ..last };
        self.lists_before = last.acls;
        self.edited = 0;
        principal.clone_into(&mut self.principal);
        self.acting = None;
        self.session = session;
        self.sequence = None;
        self.fault = None;
        self.fuel_left = limits::TRANSACTION_FUEL;
    }

    /// What was written so far.
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint {
            rows: self.rows.clone(),
            rows_written: self.rows_written,
            bytes: self.bytes,
            changes: self.changes.len(),
            noted: self.noted.len(),
            state: self.state,
            edited: self.edited,
        }
    }

    /// Drops what was written since.
    pub(crate) fn restore(&mut self, savepoint: Savepoint) {
        let Savepoint { rows, rows_written, bytes, changes, noted, state, edited } = savepoint;
        (self.rows, self.rows_written, self.bytes) = (rows, rows_written, bytes);
        self.changes.truncate(changes);
        self.noted.truncate(noted);
        (self.state, self.edited) = (state, edited);
    }

    /// Rows that were written, to be compared.
    pub(crate) fn rows(&self) -> &Layer<Option<Bytes>> {
        &self.rows
    }

    /// Drops what was written. The caller resets [`Tx::state`] with [`Tx::begin`] when it goes on.
    pub(crate) fn undo(&mut self) {
        if self.rows_written > 0 {
            self.rows = Layer::default();
        }
        self.rows_written = 0;
        self.bytes = 0;
        self.changes.clear();
        self.noted.clear();
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
        tree::get(self, self.actor(), path)
    }

    /// The stat of a znode; none when there is no such znode.
    ///
    /// # Errors
    /// When the principal may not read it, or a fault.
    pub fn stat(&mut self, path: &Path) -> Result<Option<Stat>, Stop> {
        tree::stat(self, self.actor(), path)
    }

    /// A page of children, in order of their names' bytes, those that begin with `prefix` and come after `after`, at most `limit` of them (and at most
    /// [`limits::PAGE_CHILDREN`]), with as much of each as `detail` says.
    ///
    /// # Errors
    /// [`Refusal::NoZnode`]; when the principal may not read it; or a fault.
    pub fn children(
        &mut self,
        path: &Path,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
        detail: Detail,
    ) -> Result<Page, Stop> {
        tree::children(self, self.actor(), path, tree::Listing { prefix, after, limit, detail })
    }

    /// Creates a znode: its path (a sequential one's has its number) and stat.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn create(&mut self, create: &Create) -> Result<(Path, Stat), Stop> {
        op::create::create(self, create).map(|made| match made {
            Made::Created(path, stat) | Made::Set(path, stat) => (path, stat),
        })
    }

    /// Replaces a znode's data: its stat afterwards.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn set(&mut self, set: &Set) -> Result<Stat, Stop> {
        op::set::set(self, set)
    }

    /// Changes a znode's data by what it is: its stat afterwards, and the number when it is one.
    ///
    /// # Errors
    /// A refusal says why not, and nothing was written; or a fault.
    pub fn update(&mut self, update: &Update) -> Result<(Stat, Option<i64>), Stop> {
        op::update::update(self, update)
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

    /// As whom the tree is asked: the principal, unless a plugin runs as itself.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.acting.as_deref().unwrap_or(&self.principal)
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
    pub fn changes(&self) -> &[Recorded] {
        &self.changes
    }

    pub(crate) fn lists_before(&self) -> u64 {
        u64::from(self.lists_before)
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

    /// Refuses data to compare or edit once there was too much of it: a short step may need a long one, and a transaction
    /// has many steps.
    pub(crate) fn edit(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.edited = self.edited.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        within("bytes of data that the transaction compares and edits", limits::EDITED_BYTES, self.edited)
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

    /// Notes the data of a change that is about to be recorded, if an `after` trigger is for it.
    pub(crate) fn note(&mut self, data: Option<Bytes>, previous: Option<Bytes>) {
        self.noted.push(Noted { at: self.changes.len(), data, previous });
    }

    /// Writes down that those are to be woken who wait for znodes that were changed. Last of all that is written.
    pub(crate) fn wake(&mut self) -> Result<(), Fault> {
        if self.state.parked == 0 || self.changes.is_empty() {
            return Ok(());
        }
        let mut touched = std::collections::BTreeMap::new();
        for Recorded { change, .. } in &self.changes {
            touched.insert(key::awaited(&change.path), change.path.clone());
            if matches!(change.kind, ChangeKind::Created | ChangeKind::Deleted)
                && let Some(parent) = change.path.parent()
            {
                touched.insert(key::awaited(&parent), parent);
            }
        }
        for (awaited, path) in touched {
            if self.scan(Table::Waiting, &awaited, None, 1)?.is_empty() {
                continue;
            }
            let found = op::call::find(self, &path)?;
            if op::park::anybody_is_due(self, &awaited, found)? {
                let woken = row::Woken::Znode { after: None, found };
                self.put_row(Table::Wake, &key::wake(self.zxid(), &awaited), &woken);
            }
        }
        Ok(())
    }

    /// Records a change of a znode with this access list; see [`Recorded::beside`].
    pub(crate) fn change(&mut self, kind: ChangeKind, path: Path, version: u64, acl: u32, beside: u32) {
        self.bytes += path.as_str().len() + CHANGE_BYTES;
        self.changes.push(Recorded { change: Change { kind, path, version }, acl, beside });
    }
}

/// What a change takes besides its path.
pub(crate) const CHANGE_BYTES: usize = 32;

/// Refuses what is over a limit.
pub(crate) fn within(what: &str, limit: usize, actual: usize) -> Result<(), Refusal> {
    within_u64(what, limit as u64, actual as u64)
}

/// The same.
pub(crate) fn within_u64(what: &str, limit: u64, actual: u64) -> Result<(), Refusal> {
    if actual <= limit { Ok(()) } else { Err(Refusal::Limit { what: what.to_owned(), limit, actual }) }
}

/// A state without any rows.
struct Nothing;

impl Base for Nothing {
    fn row(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(None)
    }

    fn scan(&self, _: Table, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Row>, Fault> {
        Ok(Vec::new())
    }
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
