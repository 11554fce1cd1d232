//! The tables in LMDB: opened once, read through snapshots, written by one writer in one transaction a batch; and
//! checkpoints of them, in a format of our own.
//!
//! Commits are not synced, since the log makes writes durable: that survives a crash of the process, and the *marker*
//! tells when it was more than that, so that the tables are thrown away and rebuilt from checkpoint and log. The only
//! user of heed; it knows no Raft.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod checkpoint;
mod environment;
mod error;
mod install;
mod lock;
mod marker;
mod opening;
mod restore;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Finding, Report, Severity, check};
pub use checkpoint::{Checkpoint, Checkpoints, Incoming, Offer, OnProgress, Progress, Step};
pub use environment::FORMAT;
pub use error::{CheckpointError, Error};
pub use lock::DirLock;
pub use marker::{Boot, Discarded};
pub use restore::{Restored, Restoring, restore};
pub use snapshot::Snapshot;
pub use store::{Opened, Options, Readers, Store};
pub use writer::Writer;
