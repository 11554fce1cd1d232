//! One member: it listens for clients, forwards to the leader, plans when it leads, applies, publishes.
//!
//! The walk of one write: `listen` → `connection` → `dispatch` → `forward` → `planner` → `raft` → `applier` → `publish`
//! → `connection`. Reads leave at `dispatch`: `read`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod applier;
mod bulk;
mod checkpointer;
mod clock;
mod cluster;
mod config;
mod connection;
mod digests;
mod dispatch;
mod forward;
mod ground;
mod leases;
mod listen;
mod member;
pub mod offline;
mod open;
mod outbox;
pub mod peer;
mod planner;
mod plugins;
mod publish;
mod quarantine;
pub mod raft;
mod read;
mod replay;
mod reseed;
mod room;
mod sessions;
mod steps;
mod subtree;
mod supervisor;
mod tasks;
mod watches;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use conclave_protocol::limits::Limits;
pub use conclave_store::Boot as StoreBoot;
pub use config::{
    Config, ConfigError, Listen, MemberAddress, Plugins as PluginOptions, Raft as RaftTiming, Storage as StorageOptions,
};
pub use member::{Stopped, Surroundings};
pub use open::StartError;
pub use steps::{OnStep, Step};
pub use supervisor::Member;

/// This machine's monotonic clock: it does not run back, and it means nothing elsewhere.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// This machine's wall clock, milliseconds since 1970.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
