//! Tests of whole clusters: in-process members and real processes, through the public client. See `tests/`.
//!
//! Here is what the tests with real processes stand on: [`binary`] finds or builds `conclave`, [`Processes`] runs members
//! that can be killed and stopped, with a [`Proxy`] before each that loses datagrams and cuts connections, and
//! [`increments`] is the load whose sum must come out right.

pub mod binary;
mod chaos;
pub mod increments;
mod patience;
pub mod power;
mod processes;
mod proxy;
mod tally;

pub use processes::{Metrics, Processes};
pub use proxy::{Proxy, Weather};
