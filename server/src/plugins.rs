//! The components of plugins on this member: made ready off the hot path, asked about by the leader, and activated.

mod activate;
mod compile;
mod engine;
mod readiness;
mod told;

use conclave_core::plan::Install;
use conclave_protocol::plugin::ComponentDigest;
use sha2::{Digest as _, Sha256};

pub(crate) use activate::{hand_over, lead};
pub(crate) use compile::spawn;
pub(crate) use engine::{Engine, host};
pub(crate) use readiness::{Readiness, State};
pub(crate) use told::{log, own_log, own_stats, stats};

/// Plugins of every new cluster: those that recipes use, and the counter.
const BUILT_IN: [(&str, &[u8]); 5] = [
    ("barrier", include_bytes!("../../plugins/prebuilt/barrier.wasm")),
    ("counter", include_bytes!("../../plugins/prebuilt/counter.wasm")),
    ("election", include_bytes!("../../plugins/prebuilt/election.wasm")),
    ("lock", include_bytes!("../../plugins/prebuilt/lock.wasm")),
    ("queue", include_bytes!("../../plugins/prebuilt/queue.wasm")),
];

/// The plugins that come with this version.
pub(crate) fn built_in() -> Vec<Install> {
    let install = |(name, component): (&str, &'static [u8])| Install {
        name: name.to_owned(),
        digest: ComponentDigest(Sha256::digest(component).into()),
        component: bytes::Bytes::from_static(component),
    };
    BUILT_IN.into_iter().map(install).collect()
}

#[cfg(test)]
mod tests;
