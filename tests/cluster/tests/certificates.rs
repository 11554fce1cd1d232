//! Certificates that change while the members run.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::{Client, Error};
use conclave_testing::{Cluster, eventually_async};

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_sent_away_and_others_stay() {
    let cluster = Cluster::start(1).await.unwrap();
    let good = cluster.client("good").await.unwrap();
    let bad = cluster.client("bad").await.unwrap();
    bad.at("/a").create("1").await.unwrap();

    cluster.pki().revoke_client("bad", &[1]).unwrap();
    let options = cluster.options("bad").unwrap();
    eventually_async("the revoked client is refused", async || {
        matches!(Client::connect(options.clone()).await, Err(Error::NoConnection(none)) if none.is_certificate_problem())
    })
    .await
    .unwrap();
    // Its old connection has ended too: it does nothing any more.
    let within = std::time::Duration::from_secs(2);
    assert!(bad.at("/a").set("2").within(within).await.is_err());
    assert_eq!(good.at("/a").get().await.unwrap().data, "1");
}
