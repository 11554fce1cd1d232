//! Numbered znodes of a KiB each, and the configuration under which they soon fill checkpoints.

use std::ops::Range;

use conclave_client::Client;
use conclave_server::Config;
use conclave_testing::{Cluster, small_storage};
use futures::{StreamExt, stream};

/// Checkpoints are made and log is let go within a test.
pub fn small(config: &mut Config) {
    config.storage = small_storage();
}

/// Writes a KiB to each of these znodes.
///
/// # Panics
/// When one of them can't be created.
pub async fn fill(client: &Client, numbers: Range<u32>) {
    let write = |number| async move {
        let created = client.at(format!("/data/{number:06}")).create(text(number)).parents().await;
        created.unwrap_or_else(|error| panic!("number {number}: {error}"));
    };
    stream::iter(numbers).for_each_concurrent(16, write).await;
}

/// What lies in a znode: found again on the disk.
#[must_use]
pub fn text(number: u32) -> String {
    format!("this is the znode of number {number:06}.").repeat(25)
}

/// One of a member's metrics; 0 while it tells none.
pub async fn metric(cluster: &Cluster, id: u64, name: &str) -> u64 {
    cluster.metric(id, name).await.unwrap_or(0)
}
