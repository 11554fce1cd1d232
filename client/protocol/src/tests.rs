//! The bytes of every message: golden, round trips, strangers' bytes; and the page that describes them.

mod coverage;
mod golden;
mod names;
mod page;
mod plugins;
mod random;
mod samples;
mod side;
mod strange;
