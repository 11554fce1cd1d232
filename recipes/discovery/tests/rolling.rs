//! The example of a rolling restart, on a cluster of its own: no request is lost.
#![allow(clippy::unwrap_used, missing_docs)]

// Its `main` is not called here.
#[allow(dead_code)]
#[path = "../examples/rolling.rs"]
mod rolling;

use conclave_discovery::Discovery;
use conclave_testing::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_no_request() {
    const WORKERS: usize = 3;
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("roller").await.unwrap();
    let services = Discovery::new(&client, "/services").unwrap();
    let report = tokio::time::timeout(2 * PATIENCE, rolling::roll(&services, WORKERS)).await.unwrap().unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
    // A caller that was held up for longer than a worker idles was refused, and has asked another one: no call is lost.
    assert_eq!(report.least, WORKERS - 1, "{report:?}");
    assert_eq!(report.answered.keys().collect::<Vec<_>>(), ["1", "2"], "{report:?}");
    assert!(services.view("rolling").await.unwrap().instances().all.is_empty(), "all are gone in good order");
}
