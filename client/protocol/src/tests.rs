//! The bytes of every message: golden, round trips, and strangers' bytes.

mod golden;
mod samples;
mod strange;
