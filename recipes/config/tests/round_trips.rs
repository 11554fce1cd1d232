//! The round trips of configurations, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::Client;
use conclave_client::Sent::{self, Read, Stream, Watch, Write};
use conclave_config::{Config, ConfigSet};
use conclave_testing::Tally;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct App {
    workers: u32,
}

fn config(client: &Client) -> Config<App> {
    Config::new(client, "/app").unwrap()
}

fn set(client: &Client) -> ConfigSet<App> {
    ConfigSet::new(client, "/apps").unwrap().keep(10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_takes_the_stated_round_trips() {
    /// A look at value and history, sent together, and the transaction.
    const PUBLISH: [Sent; 3] = [Read, Read, Write];
    let cluster = Tally::cluster(None).await.unwrap();
    let (client, other) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let mut tally = Tally::new(&client);
    let config = config(&client);
    for workers in 0..2 {
        config.publish(&App { workers }).await.unwrap();
        tally.row("Config::publish: 2", &PUBLISH).await;
    }
    assert_eq!(config.get().await.unwrap().workers, 1);
    tally.row("Config::get: 1", &[Read]).await;
    assert_eq!(config.history().await.unwrap().len(), 2);
    tally.row("Config::history: 1", &[Read]).await;
    config.update(|app| app.workers += 1).await.unwrap();
    tally.row("Config::update: 2", &PUBLISH).await;
    let others = self::config(&other);
    let mut faster = 2;
    let change = |app: &mut App| {
        if faster > 0 {
            faster -= 1;
            let write = others.publish(&App { workers: 10 + faster }).into_future();
            block_in_place(|| Handle::current().block_on(write)).unwrap();
        }
        app.workers += 1;
    };
    assert_eq!(config.update(change).await.unwrap().workers, 11);
    tally.row("Config::update when somebody was faster twice: 3 times 2", &[PUBLISH; 3].concat()).await;
    assert_eq!(config.roll_back(0).await.unwrap().workers, 0);
    tally.row("Config::roll_back: 3", &[&[Read][..], &PUBLISH].concat()).await;

    let mut watch = config.watch().await.unwrap();
    watch.next().await.unwrap().unwrap();
    tally.row("Config::watch: 2 to begin", &[Watch, Read]).await;
    others.publish(&App { workers: 7 }).await.unwrap();
    watch.next().await.unwrap().unwrap();
    tally.row("an event: 0", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_takes_the_stated_round_trips() {
    /// A look on a stream of its own, and the transaction.
    const PUBLISH: [Sent; 2] = [Stream, Write];
    let cluster = Tally::cluster(None).await.unwrap();
    let (client, other) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let mut tally = Tally::new(&client);
    let set = set(&client);
    for workers in 0..2 {
        set.publish(&App { workers }).await.unwrap();
        tally.row("ConfigSet::publish: 2", &PUBLISH).await;
    }
    assert_eq!(set.get().await.unwrap().workers, 1);
    tally.row("ConfigSet::get: 1", &[Stream]).await;
    assert_eq!(set.history().await.unwrap().len(), 2);
    tally.row("ConfigSet::history: 1", &[Stream]).await;
    set.update(|app| app.workers += 1).await.unwrap();
    tally.row("ConfigSet::update: 2", &PUBLISH).await;
    let others = self::set(&other);
    let mut faster = true;
    let change = |app: &mut App| {
        if std::mem::take(&mut faster) {
            let write = others.publish(&App { workers: 10 }).into_future();
            block_in_place(|| Handle::current().block_on(write)).unwrap();
        }
        app.workers += 1;
    };
    assert_eq!(set.update(change).await.unwrap().workers, 11);
    tally.row("ConfigSet::update when somebody was faster: 2 times 2", &[PUBLISH; 2].concat()).await;
    let version = set.history().await.unwrap().last().unwrap().version;
    tally.row("ConfigSet::history: 1", &[Stream]).await;
    assert_eq!(set.roll_back(version).await.unwrap().workers, 0);
    tally.row("ConfigSet::roll_back: 2", &PUBLISH).await;

    let mut watch = set.watch().await.unwrap();
    watch.next().await.unwrap().unwrap();
    tally.row("ConfigSet::watch: 2 to begin", &[Watch, Stream]).await;
    others.publish(&App { workers: 7 }).await.unwrap();
    watch.next().await.unwrap().unwrap();
    tally.row("an event: 0", &[]).await;
    set.remove("workers").await.unwrap();
    tally.row("ConfigSet::remove: 2", &PUBLISH).await;
    let forgetful = set.keep(0);
    forgetful.publish(&App { workers: 8 }).await.unwrap();
    tally.row("ConfigSet::publish without a history: 2", &PUBLISH).await;
    assert!(forgetful.history().await.unwrap().is_empty() && forgetful.roll_back(version).await.is_err());
    tally.row("ConfigSet::history of a set that keeps none: 0", &[]).await;
}
