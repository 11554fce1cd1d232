//! Tests of whole clusters: in-process members and real processes, through the public client. See `tests/`.
//!
//! Here is what the tests with real processes stand on: [`binary`] finds or builds `conclave`, [`Processes`] runs members
//! that can be killed and stopped, with a [`Proxy`] before each that loses datagrams and cuts connections, and
//! [`increments`] is the load whose sum must come out right. [`load`] is what the examples measure with.

mod agree;
pub mod binary;
mod chaos;
pub mod increments;
pub mod load;
pub mod numbered;
mod patience;
pub mod power;
mod processes;
mod tally;

pub use agree::agree;
pub use conclave_testing::{Proxy, Weather};
pub use processes::{Metrics, Processes};
