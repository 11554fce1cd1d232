//! What one run may spend, and how large a component may be. On by default, each with its reason.

use std::time::Duration;

use conclave_protocol::limits;
use conclave_protocol::plugin::BudgetSettings;

use crate::engine::{MEMORY_MAX, TABLE_MAX};

/// The budgets of a host. Who exceeds one of a run's is refused with its name (see [`Exceeded`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Units of fuel, about one a wasm instruction. The same on every machine: the simulator has only this one.
    pub fuel: u64,
    /// Time of one run on the processor, looked at once a millisecond, and a fiftieth of the wall clock that it may take; none: fuel alone
    /// ends a run. What runs inside of it (`before` triggers of its writes) has a time of its own.
    pub time: Option<Duration>,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Calls of the tree and the context.
    pub host_calls: u64,
    /// Bytes that one host call may bring from the guest, and its answer.
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
    pub functions: usize,
    /// Bytes of one function's code: a compiler takes more than twice as long for one that is twice as long.
    pub function_bytes: usize,
    /// Local variables of one function, parameters not counted.
    pub locals: usize,
    /// How long compiling may take by the wall clock.
    pub compile: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            // What a machine does in about the time below; and that is what others wait behind a plugin that spends all of it.
            fuel: 10_000_000,
            time: Some(Duration::from_millis(5)),
            memory_bytes: 16 << 20,
            table_elements: TABLE_MAX,
            host_calls: 10_000,
            // The greatest data that can be configured, a path, and room for a refusal to say that it is too long.
            host_call_bytes: (3 << 19) + (64 << 10),
            rows: 10_000,
            written_bytes: limits::TRANSACTION_BYTES as u64,
            read_bytes: 16 << 20,
            answer_bytes: limits::CALL_BYTES,
            component_bytes: limits::COMPONENT_BYTES,
            // What wit-component makes has 2; composed ones a few more.
            nesting: 8,
            modules: 32,
            // A JavaScript engine has about 25,000, the longest of them some 100 KiB; one that was made to take long to
            // compile gains nothing from more functions than its bytes have room for.
            functions: 100_000,
            function_bytes: 512 << 10,
            locals: 10_000,
            compile: Duration::from_secs(120),
        }
    }
}

impl Budgets {
    /// The budgets of one run: these, where the plugin has none of its own, and no more fuel than is left.
    pub(crate) fn with(&self, own: &BudgetSettings, fuel_left: u64) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            fuel: own.fuel.unwrap_or(self.fuel).min(fuel_left),
            // Where the host has no clock, no plugin has one.
            time: self.time.map(|time| own.time_ms.map_or(time, Duration::from_millis)),
            memory_bytes: own.memory_bytes.map_or(self.memory_bytes, bytes).min(MEMORY_MAX),
            host_calls: own.host_calls.unwrap_or(self.host_calls),
            rows: own.rows.unwrap_or(self.rows),
            written_bytes: own.written_bytes.unwrap_or(self.written_bytes),
            read_bytes: own.read_bytes.unwrap_or(self.read_bytes),
            ..self.clone()
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
    /// [`Budgets::memory_bytes`].
    Memory,
    /// [`Budgets::table_elements`].
    Table,
    /// [`Budgets::host_calls`].
    HostCalls,
    /// [`Budgets::host_call_bytes`], or what `random` gives at once.
    CallBytes,
    /// [`Budgets::rows`].
    Rows,
    /// [`Budgets::written_bytes`].
    Written,
    /// [`Budgets::read_bytes`].
    Read,
    /// [`Budgets::answer_bytes`].
    Answer,
}

impl Exceeded {
    /// Its name in refusals: stable, and that of the setting where it can be set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::HostCalls => "host-calls",
            Self::CallBytes => "call-bytes",
            Self::Rows => "rows",
            Self::Written => "written-bytes",
            Self::Read => "read-bytes",
            Self::Answer => "answer-bytes",
        }
    }

    /// What a refusal says: the name, a colon, and how much the budget is.
    pub(crate) fn words(self, budgets: &Budgets) -> String {
        let name = self.name();
        let bytes = |bytes: u64| format!("{name}: more than the {bytes} bytes of its budget");
        match self {
            Self::Fuel => format!("{name}: more than the {} units of its budget", budgets.fuel),
            Self::Time => {
                format!("{name}: more than the {} ms of its budget", budgets.time.unwrap_or_default().as_millis())
            }
            Self::Memory => bytes(budgets.memory_bytes as u64),
            Self::Table => format!("{name}: more than the {} elements of its budget", budgets.table_elements),
            Self::HostCalls => format!("{name}: more than the {} calls of its budget", budgets.host_calls),
            Self::CallBytes => format!("{name}: more than {} bytes in one call of the host", budgets.host_call_bytes),
            Self::Rows => format!("{name}: more than the {} rows of its budget", budgets.rows),
            Self::Written => bytes(budgets.written_bytes),
            Self::Read => bytes(budgets.read_bytes),
            Self::Answer => format!("{name}: more than the {} bytes that an answer may have", budgets.answer_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_own_budgets_go_before_the_hosts_and_what_is_left_of_fuel_before_both() {
        let host = Budgets::default();
        assert_eq!(host.with(&BudgetSettings::default(), u64::MAX), host);
        let own = BudgetSettings {
            fuel: Some(5_000),
            time_ms: Some(70),
            memory_bytes: Some(u64::MAX),
            host_calls: Some(1),
            rows: Some(2),
            written_bytes: Some(3),
            read_bytes: Some(4),
        };
        let with = host.with(&own, 400);
        assert_eq!((with.fuel, with.time), (400, Some(Duration::from_millis(70))));
        assert_eq!(with.memory_bytes, MEMORY_MAX);
        assert_eq!((with.host_calls, with.rows, with.written_bytes, with.read_bytes), (1, 2, 3, 4));
        let unhurried = Budgets { time: None, ..host };
        assert_eq!(unhurried.with(&own, u64::MAX).time, None);
        assert_eq!(unhurried.with(&own, u64::MAX).fuel, 5_000);
    }
}
