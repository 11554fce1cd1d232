//! Whether the members of a cluster have come to the same state.

use conclave_client::Client;
use conclave_testing::{Cluster, Error, eventually_async};

/// Waits until all members that run say the same digest at the same zxid.
///
/// # Errors
/// When they do not in time.
pub async fn agree(cluster: &Cluster, client: &Client) -> Result<(), Error> {
    let all = cluster.running().len();
    eventually_async("all members have the same digest", async || {
        let Ok(status) = client.status().await else { return false };
        let known: Vec<_> = status.members.iter().filter_map(|m| Some((m.zxid?, m.digest.clone()?))).collect();
        known.len() == all && known.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await
}
