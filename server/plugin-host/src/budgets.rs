//! What one run may spend, and how large a component may be. On by default, each with its reason.

use std::time::Duration;

use conclave_protocol::limits;

/// The budgets of a host. Who exceeds one of a run's is refused with its name (see [`Exceeded`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Units of fuel, about one a wasm instruction. The same on every machine: the simulator has only this one.
    pub fuel: u64,
    /// Time of one run on the processor, looked at once a millisecond, and a fiftieth of the wall clock that it may take; none: fuel alone
    /// ends a run.
    pub time: Option<Duration>,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Calls of the tree and the context.
    pub host_calls: u64,
    /// Bytes that one host call may bring from the guest.
    pub host_call_bytes: usize,
    /// Rows that a run may write.
    pub rows: u64,
    /// Bytes that a run may write to rows.
    pub written_bytes: u64,
    /// Bytes of data and names that a run may read.
    pub read_bytes: u64,
    /// Bytes of an answer: it is stored with the session until it is acknowledged.
    pub answer_bytes: usize,
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Components and modules inside each other, the outermost included.
    pub nesting: usize,
    /// Core modules in a component.
    pub modules: usize,
    /// Functions in a component, in all its modules.
    pub functions: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            // What a machine does in about the ten milliseconds below.
            fuel: 20_000_000,
            time: Some(Duration::from_millis(10)),
            memory_bytes: 16 << 20,
            table_elements: 10_000,
            host_calls: 10_000,
            // The greatest data, a path, and room for a refusal to say that it is too long.
            host_call_bytes: limits::DATA_BYTES + (64 << 10),
            rows: 10_000,
            written_bytes: limits::TRANSACTION_BYTES as u64,
            read_bytes: 16 << 20,
            answer_bytes: limits::DATA_BYTES,
            component_bytes: 4 << 20,
            // What wit-component makes has 2; composed ones a few more.
            nesting: 8,
            modules: 32,
            functions: 20_000,
        }
    }
}

/// The budget of a run that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget exceeded: {}", self.name())]
pub enum Exceeded {
    /// [`Budgets::fuel`].
    Fuel,
    /// [`Budgets::time`].
    Time,
    /// [`Budgets::memory_bytes`] or [`Budgets::table_elements`].
    Memory,
    /// [`Budgets::host_calls`].
    HostCalls,
    /// [`Budgets::rows`].
    Rows,
    /// [`Budgets::written_bytes`], [`Budgets::read_bytes`] or [`Budgets::answer_bytes`].
    Bytes,
}

impl Exceeded {
    /// Its name in refusals: stable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::HostCalls => "host-calls",
            Self::Rows => "rows",
            Self::Bytes => "bytes",
        }
    }
}
