//! One run's data in its store: the transaction, what it may do there, and what has been spent.

use std::sync::Arc;

use bytes::Bytes;
use conclave_core::plugin::What;
use conclave_core::view::{Stop, Tx};
use conclave_protocol::plugin::{Access, Need};
use conclave_protocol::{Path, Refusal};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::bindings::conclave::plugin::types;
use crate::clock::TimeLimit;
use crate::engine::{MEMORIES, TABLES};
use crate::record::Record;
use crate::rooted::Root;
use crate::{Budgets, Exceeded};

/// Lines that one run may log.
const LOG_LINES: u32 = 100;

/// What a store holds.
pub(crate) struct Run {
    /// The transaction; it comes back to the planner, also after a trap.
    pub(crate) tx: Tx,
    /// The name that the plugin is installed under.
    pub(crate) plugin: String,
    pub(crate) settings: Bytes,
    /// The call's number, of a procedure.
    pub(crate) ticket: Option<u64>,
    /// Of the random bytes.
    pub(crate) seed: u64,
    pub(crate) root: Root,
    pub(crate) record: Arc<Record>,
    pub(crate) budgets: Budgets,
    pub(crate) limit: Option<TimeLimit>,
    allowed: Arc<[Need]>,
    /// What it is, where that may only read.
    read_only: Option<&'static str>,
    host_calls: u64,
    read_bytes: u64,
    /// What the transaction had written when the run began.
    rows_before: usize,
    bytes_before: usize,
    log_lines: u32,
}

/// The member has a fault: the run ends, and the transaction knows why.
#[derive(Debug, thiserror::Error)]
#[error("the transaction has a fault")]
pub(crate) struct Faulted;

impl Run {
    pub(crate) fn new(tx: Tx, run: &conclave_core::plugin::Run, budgets: Budgets, record: Arc<Record>) -> Self {
        let read_only = match &run.what {
            What::Query { .. } => Some("a query"),
            What::Before { .. } => Some("a before trigger"),
            _ => None,
        };
        let ticket = match &run.what {
            What::Procedure { ticket, .. } => Some(ticket.0),
            _ => None,
        };
        Self {
            // Runs of one transaction get bytes of their own: each of them has written something since, or is of another plugin.
            seed: tx.zxid().0 ^ spread(&run.plugin) ^ (tx.bytes_written() as u64).rotate_left(32),
            ticket,
            plugin: run.plugin.clone(),
            settings: run.settings.clone(),
            root: Root(run.root.clone()),
            record,
            limit: budgets.time.map(TimeLimit::from_now),
            budgets,
            allowed: Arc::clone(&run.allowed),
            read_only,
            host_calls: 0,
            read_bytes: 0,
            rows_before: tx.rows_written(),
            bytes_before: tx.bytes_written(),
            log_lines: 0,
            tx,
        }
    }

    /// Counts a host call.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        within(self.host_calls, self.budgets.host_calls, Exceeded::HostCalls)
    }

    /// Counts bytes that the guest reads.
    pub(crate) fn read(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.read_bytes = self.read_bytes.saturating_add(bytes as u64);
        within(self.read_bytes, self.budgets.read_bytes, Exceeded::Read)
    }

    /// Looks at what the run has written so far.
    pub(crate) fn written(&self) -> wasmtime::Result<()> {
        let rows = self.tx.rows_written().saturating_sub(self.rows_before);
        within(rows as u64, self.budgets.rows, Exceeded::Rows)?;
        let bytes = self.tx.bytes_written().saturating_sub(self.bytes_before);
        within(bytes as u64, self.budgets.written_bytes, Exceeded::Written)
    }

    /// Whether another line may be logged.
    pub(crate) fn may_log(&mut self) -> bool {
        self.log_lines = self.log_lines.saturating_add(1);
        self.log_lines <= LOG_LINES
    }

    /// The path that the guest names, if the plugin was allowed this there. Before the tree is asked: whoever may not look
    /// learns nothing of what is there.
    pub(crate) fn path(&self, access: Access, named: &str) -> Result<Path, Stop> {
        let path = self.root.absolute(named)?;
        self.may(access, &path)?;
        Ok(path)
    }

    /// Refuses what the plugin was not allowed, and all but reading to what only reads.
    pub(crate) fn may(&self, access: Access, path: &Path) -> Result<(), Stop> {
        if let Some(what) = self.read_only.filter(|_| access != Access::Read) {
            return Err(Refusal::ReadOnly { what: what.to_owned() }.into());
        }
        if self.is_allowed(access, path) { Ok(()) } else { Err(self.not_allowed(access, path).into()) }
    }

    pub(crate) fn is_allowed(&self, access: Access, path: &Path) -> bool {
        self.allowed.iter().any(|need| need.covers(access, path))
    }

    pub(crate) fn not_allowed(&self, access: Access, path: &Path) -> Refusal {
        Refusal::PluginNotAllowed { plugin: self.plugin.clone(), action: access.to_string(), path: path.clone() }
    }

    /// What the guest gets of an operation: a refusal is its to handle, a fault ends the run.
    pub(crate) fn answer<T>(&mut self, done: Result<T, Stop>) -> wasmtime::Result<Result<T, types::Refusal>> {
        match done {
            Ok(done) => Ok(Ok(done)),
            Err(Stop::Refused(refusal)) => {
                let refusal: types::Refusal = self.root.refusal(refusal).into();
                self.read(refusal.message.len())?;
                Ok(Err(refusal))
            }
            Err(Stop::Fault(fault)) => {
                self.tx.fail(fault);
                Err(Faulted.into())
            }
        }
    }

    /// Keeps a line of the plugin's log.
    pub(crate) fn keep(&self, level: &str, line: String) {
        self.record.log(self.tx.now_ms(), self.tx.zxid(), level, line);
    }

    /// What to do at a tick of the epoch.
    pub(crate) fn at_tick(&self) -> wasmtime::Result<UpdateDeadline> {
        match &self.limit {
            Some(limit) if limit.is_reached() => Err(Exceeded::Time.into()),
            _ => Ok(UpdateDeadline::Continue(1)),
        }
    }
}

impl ResourceLimiter for Run {
    // An error, not `false`: the guest's allocator would turn that into a trap without a name.
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        within(desired as u64, self.budgets.memory_bytes as u64, Exceeded::Memory)?;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        within(desired as u64, self.budgets.table_elements as u64, Exceeded::Table)?;
        Ok(true)
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

impl From<Refusal> for types::Refusal {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code().to_owned(), message: refusal.to_string() }
    }
}

fn within(actual: u64, limit: u64, budget: Exceeded) -> wasmtime::Result<()> {
    if actual > limit { Err(budget.into()) } else { Ok(()) }
}

/// A number that differs from text to text (FNV-1a).
fn spread(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
