//! Plan and apply: what a request means, and how what was planned becomes state. Pure and synchronous.
//!
//! No IO, no clock, no async, no randomness: the view, the request and the time come in, a transaction goes out. The
//! same inputs give the same bytes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
mod authority;
pub mod digest;
pub mod entry;
mod fault;
pub mod history;
mod layer;
pub mod memory;
mod op;
pub mod plan;
pub mod plugin;
mod plugins;
pub mod query;
pub mod row;
mod table;
mod tree;
mod tx;
pub mod view;

pub use authority::{administers, authorize, may_see};
pub use fault::Fault;
pub use table::{Table, ZnodeId, key};
