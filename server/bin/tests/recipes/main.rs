//! The recipes' commands, run as programs on a cluster: what they say, how they end, and what a kill leaves.
#![allow(clippy::unwrap_used)]

mod barriers;
#[path = "../common/mod.rs"]
mod common;
mod counters;
mod elections;
mod locks;
mod queues;
mod semaphores;
mod services;
mod stage;
