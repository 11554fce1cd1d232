//! The tables in LMDB: opened once, read through snapshots, written by one writer in one transaction a batch.
//!
//! Commits are not synced, since the log makes writes durable: that survives a crash of the process, and the *marker*
//! tells when it was more than that, so that the tables are thrown away and rebuilt from the log. The only user of
//! heed; it knows no Raft.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod lock;
mod marker;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use error::Error;
pub use lock::DirLock;
pub use marker::{Boot, Discarded};
pub use snapshot::Snapshot;
pub use store::{FORMAT, Opened, Options, Readers, Store};
pub use writer::Writer;
