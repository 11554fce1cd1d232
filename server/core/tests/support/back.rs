//! Where a member's rows lie: in memory, or on a disk.

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Applied, Local, Position, apply};
use conclave_core::memory::MemTables;
use conclave_core::view::Base;

/// Where a member's rows lie.
pub(crate) trait Back {
    /// What is applied now.
    fn snapshot(&self) -> Box<dyn Base>;
    /// What is kept beside the rows.
    fn kept(&self) -> Local;
    fn apply(&mut self, at: Position, payload: &Bytes) -> Result<Applied, Fault>;
}

impl Back for MemTables {
    fn snapshot(&self) -> Box<dyn Base> {
        Self::snapshot(self)
    }

    fn kept(&self) -> Local {
        Self::kept(self).clone()
    }

    fn apply(&mut self, at: Position, payload: &Bytes) -> Result<Applied, Fault> {
        apply(self, at, payload)
    }
}
