//! The round trips of barriers and latches, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::IntoFuture;

use conclave_barriers::{Barrier, DoubleBarrier, Latch};
use conclave_client::Client;
use conclave_client::Sent::{Read, Session, Write};
use conclave_testing::{Tally, eventually_async};

async fn until_parked(client: &Client, count: usize) {
    let parked = async || client.plugins().calls("barrier").await.unwrap().len() == count;
    eventually_async(&format!("{count} calls are parked"), parked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_and_latches_take_the_stated_round_trips() {
    let cluster = Tally::cluster(Some("barrier")).await.unwrap();
    // Of one principal, so that each sees the calls of the other.
    let (client, other) = (cluster.client("ann").await.unwrap(), cluster.client("ann").await.unwrap());
    let mut tally = Tally::new(&client);

    let barrier = Barrier::new(&client, "/barriers/b").unwrap();
    barrier.close().await.unwrap();
    tally.row("Barrier::close: 1", &[Write]).await;
    assert!(barrier.is_closed().await.unwrap());
    tally.row("Barrier::is_closed: 1", &[Read]).await;
    let waits = tokio::spawn(barrier.wait().into_future());
    tally.row("Barrier::wait of what is closed: 1, and 1 for the client's session", &[Session, Write]).await;
    until_parked(&other, 1).await;
    barrier.open().await.unwrap();
    waits.await.unwrap().unwrap();
    tally.row("Barrier::open: 1; it lets pass by itself", &[Write]).await;
    barrier.wait().await.unwrap();
    tally.row("Barrier::wait of what is open: 1", &[Write]).await;

    let latch = Latch::new(&client, "/barriers/l").unwrap();
    latch.set(2).await.unwrap();
    tally.row("Latch::set: 1", &[Write]).await;
    assert_eq!(latch.count_down().await.unwrap(), 1);
    tally.row("Latch::count_down: 1", &[Write]).await;
    assert_eq!(latch.left().await.unwrap(), 1);
    tally.row("Latch::left: 1", &[Read]).await;
    let waits = tokio::spawn(latch.wait().into_future());
    tally.row("Latch::wait: 1", &[Write]).await;
    until_parked(&other, 1).await;
    latch.count_down().await.unwrap();
    waits.await.unwrap().unwrap();
    tally.row("the last count_down: 1; it lets pass by itself", &[Write]).await;
    latch.wait().await.unwrap();
    tally.row("Latch::wait when it has come to 0: 1", &[Write]).await;
    latch.delete().await.unwrap();
    tally.row("Latch::delete: 1", &[Write]).await;

    let [mine, others] = [&client, &other].map(|client| DoubleBarrier::new(client, "/barriers/d", 2).unwrap());
    let enters = tokio::spawn(mine.enter().into_future());
    tally.row("DoubleBarrier::enter, and wait: 1", &[Write]).await;
    until_parked(&other, 1).await;
    let theirs = others.enter().await.unwrap();
    let inside = enters.await.unwrap().unwrap();
    inside.fence().await.unwrap();
    tally.row("Inside::fence: 1", &[Read]).await;
    let leaves = tokio::spawn(inside.leave().into_future());
    tally.row("Inside::leave, and wait: 1", &[Write]).await;
    until_parked(&other, 1).await;
    theirs.leave().await.unwrap();
    leaves.await.unwrap().unwrap();
    tally.row("it leaves by itself", &[]).await;

    // Who comes and goes last waits for nobody.
    let enters = tokio::spawn(others.enter().into_future());
    until_parked(&other, 1).await;
    let inside = mine.enter().await.unwrap();
    tally.row("DoubleBarrier::enter: 1", &[Write]).await;
    let leaves = tokio::spawn(enters.await.unwrap().unwrap().leave().into_future());
    until_parked(&other, 1).await;
    inside.leave().await.unwrap();
    tally.row("Inside::leave: 1", &[Write]).await;
    leaves.await.unwrap().unwrap();
}
