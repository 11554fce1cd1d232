//! Locks on real clusters: by the procedure, on plain znodes, and both together.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod common;
mod loss;
mod mixed;
mod multi;
mod mutex;
mod requests;
mod round_trips;
mod shared;
mod steps;
