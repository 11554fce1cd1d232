//! Elections on real clusters: by the procedure, on plain znodes, and both together.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod common;
mod loss;
mod order;
mod round_trips;
mod steps;
