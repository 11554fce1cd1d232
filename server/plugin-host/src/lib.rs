//! Runs plugins: components, their budgets, and what they may call. The only user of wasmtime.
//!
//! A [`Host`] compiles components once and makes a fresh instance for each run: no state of a guest outlives its
//! transaction. A guest sees the transaction that is being planned and nothing else. Whatever a guest does, the host
//! goes on: a run that traps or exceeds a budget is refused with the budget's name, and the planner drops what it wrote.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bindings;
mod budgets;
mod cache;
mod cbor;
mod clock;
mod compile;
mod engine;
mod error;
mod guest;
mod host;
mod imports;
pub mod inspect;
mod json;
pub mod local;
pub mod manifest;
mod near;
mod record;
mod rooted;
mod run;
mod shape;
mod slots;
mod ticker;

pub use budgets::{Budgets, Exceeded};
pub use error::Error;
pub use host::Host;

/// The world that plugins are built for, as manifests name it.
pub const WORLD: &str = "conclave:plugin@0.1";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
