//! Barriers: a gate, a double barrier and a countdown latch. See the README for what each promises.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod double;
mod gate;
mod latch;
#[cfg(test)]
mod tests;

use conclave_plugin::{Context, Path};
use serde::Deserialize;

use double::{enter, leave};
use gate::{close, open, wait};
use latch::{count_down, set_latch, wait_latch};

/// The plugin.
pub struct Barriers;

conclave_plugin::export!(
    Barriers: procedures(close, open, wait, enter, leave, set_latch, count_down, wait_latch)
);

/// What those that wait are called with.
#[derive(Deserialize)]
pub(crate) struct Wait {
    pub(crate) path: Path,
    #[serde(default)]
    pub(crate) wait: Option<u64>,
}

/// When a wait that begins now ends.
pub(crate) fn until_ms(context: &Context, wait: Option<u64>) -> Option<u64> {
    wait.map(|wait| context.now_ms().saturating_add(wait))
}
