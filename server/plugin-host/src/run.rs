//! One run's data in its store: the transaction, and what has been spent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_core::view::{Stop, Tx};
use conclave_protocol::Refusal;
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::bindings::conclave::plugin::types;
use crate::engine::{MEMORIES, TABLES};
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
    /// Of the random bytes.
    pub(crate) seed: u64,
    budgets: Budgets,
    limit: Option<TimeLimit>,
    host_calls: u64,
    read_bytes: u64,
    log_lines: u32,
}

/// How much longer than its time a run may take by the wall clock, when the thread does not get the processor.
const STARVED: u32 = 50;

/// When a run has had its time. The thread's own processor time counts, so that a machine that is busy with something
/// else does not make good plugins fail; the wall clock ends the run that the machine forgot.
struct TimeLimit {
    worked: Duration,
    over: Instant,
}

impl TimeLimit {
    fn from_now(time: Duration) -> Self {
        Self { worked: processor_time() + time, over: Instant::now() + time * STARVED }
    }

    fn is_reached(&self) -> bool {
        processor_time() >= self.worked || Instant::now() >= self.over
    }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The member has a fault, or the planner's patience is at an end: the run ends, and the transaction knows why.
#[derive(Debug, thiserror::Error)]
#[error("the transaction has a fault")]
pub(crate) struct Faulted;

impl Run {
    pub(crate) fn new(tx: Tx, plugin: String, settings: Bytes, budgets: &Budgets) -> Self {
        let seed = tx.zxid().0;
        let limit = budgets.time.map(TimeLimit::from_now);
        let budgets = budgets.clone();
        Self { tx, plugin, settings, seed, budgets, limit, host_calls: 0, read_bytes: 0, log_lines: 0 }
    }

    /// Counts a host call.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        within(self.host_calls, self.budgets.host_calls, Exceeded::HostCalls)
    }

    /// Counts bytes that the guest reads.
    pub(crate) fn read(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.read_bytes += bytes as u64;
        within(self.read_bytes, self.budgets.read_bytes, Exceeded::Bytes)
    }

    /// Looks at what the transaction has written so far.
    pub(crate) fn written(&self) -> wasmtime::Result<()> {
        within(self.tx.rows_written() as u64, self.budgets.rows, Exceeded::Rows)?;
        within(self.tx.bytes_written() as u64, self.budgets.written_bytes, Exceeded::Bytes)
    }

    /// Whether another line may be logged.
    pub(crate) fn may_log(&mut self) -> bool {
        self.log_lines += 1;
        self.log_lines <= LOG_LINES
    }

    /// What the guest gets of an operation: a refusal is its to handle, a fault ends the run.
    pub(crate) fn answer<T>(&mut self, done: Result<T, Stop>) -> wasmtime::Result<Result<T, types::Refusal>> {
        match done {
            Ok(done) => Ok(Ok(done)),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal.into())),
            Err(Stop::Fault(fault)) => {
                self.tx.fail(fault);
                Err(Faulted.into())
            }
        }
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
        within(desired as u64, self.budgets.table_elements as u64, Exceeded::Memory)?;
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
