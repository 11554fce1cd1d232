//! The round trips of discovery, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use conclave_client::Client;
use conclave_client::Sent::{Hello, Read, Session, Stream, Watch, Write};
use conclave_discovery::{Discovery, Instance, Pick};
use conclave_testing::{PATIENCE, Tally, eventually};

/// Longer than anything takes here.
const BEAT: Duration = Duration::from_secs(120);

fn discovery(client: &Client) -> Discovery {
    Discovery::new(client, "/services").unwrap()
}

fn instance(id: &str) -> Instance {
    Instance::new("api", "h:1").id(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_take_the_stated_round_trips() {
    let cluster = Tally::cluster(None).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mut tally = Tally::new(&client);
    let services = discovery(&client);
    let first = services.register(instance("a")).await.unwrap();
    let row = "register: 2, and 1 for the session; its watch: 1 in the background";
    tally.row(row, &[Session, Read, Write, Watch]).await;
    let beats = services.register(instance("b")).heartbeat(BEAT).await.unwrap();
    tally.row("register with a heartbeat: 3", &[Read, Write, Watch, Write]).await;
    beats.beat().await.unwrap();
    tally.row("beat: 1", &[Write]).await;
    first.update(|instance| instance.weight = 7).await.unwrap();
    tally.row("update: 1", &[Write]).await;
    first.drain().await.unwrap();
    tally.row("drain: 1", &[Write]).await;
    first.undrain().await.unwrap();
    tally.row("undrain: 1", &[Write]).await;
    beats.deregister().await.unwrap();
    tally.row("deregister: 1", &[Write]).await;

    let (works, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let check = {
        let (works, checks) = (Arc::clone(&works), Arc::clone(&checks));
        move || {
            checks.fetch_add(1, Ordering::SeqCst);
            std::future::ready(if works.load(Ordering::SeqCst) { Ok(()) } else { Err("it does not") })
        }
    };
    let checked = services.register(instance("c")).check(Duration::from_millis(5), check).await.unwrap();
    tally.row("register with a check: 2; its first outcome: 1", &[Read, Write, Watch, Write]).await;
    let many = async || {
        let before = checks.load(Ordering::SeqCst);
        eventually("it is checked", || checks.load(Ordering::SeqCst) > before + 5).await.unwrap();
    };
    many().await;
    tally.row("a check with the same outcome: 0", &[]).await;
    works.store(false, Ordering::SeqCst);
    tally.row("a check with another outcome: 1", &[Write]).await;
    many().await;
    tally.row("a check with the same outcome: 0", &[]).await;
    checked.deregister().await.unwrap();
    tally.row("deregister: 1", &[Write]).await;

    let fence = first.fence();
    cluster.kill_session(&client).await.unwrap();
    eventually("it is registered again", || first.fence().is_some_and(|again| Some(again) != fence)).await.unwrap();
    // With a client of its own. What the one before still asks, when it hears of the znode's end before it hears of its
    // session's, nobody waits for.
    let again = first.client().unwrap();
    let sent = [Hello, Session, Read, Write, Watch, Stream].map(|kind| (kind, again.sent(kind)));
    let expected = [(Hello, 1), (Session, 1), (Read, 1), (Write, 1), (Watch, 0), (Stream, 0)];
    assert_eq!(sent, expected, "after a session was lost: a connection, a session, and 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_take_the_stated_round_trips() {
    let cluster = Tally::cluster(None).await.unwrap();
    let (client, other) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let mut tally = Tally::new(&client);
    let services = discovery(&client);
    drop(services.view("none").await.unwrap());
    tally.row("a view of what is not there: 3", &[Watch, Stream, Read]).await;
    let registered = discovery(&other).register(instance("a")).await.unwrap();
    let view = services.view("api").await.unwrap();
    tally.row("Discovery::view: 2", &[Watch, Stream]).await;

    let seen = view.instances();
    assert_eq!((seen.all.len(), view.healthy().len()), (1, 1));
    assert_eq!(view.pick(Pick::RoundRobin).unwrap().id, "a");
    registered.drain().await.unwrap();
    let changed = tokio::time::timeout(PATIENCE, view.changed(&seen)).await.unwrap().unwrap();
    assert!(changed.healthy.is_empty());
    #[cfg(feature = "tower")]
    {
        let mut resolver = view.resolve(|instance| instance.address.clone());
        registered.undrain().await.unwrap();
        let inserted = futures::StreamExt::next(&mut resolver);
        assert!(tokio::time::timeout(PATIENCE, inserted).await.unwrap().is_some());
    }
    tally.row("what is asked of a view: 0", &[]).await;

    // As many as a page has, and one.
    for (names, expected) in [(1..1_000, &[Read][..]), (1_000..1_001, &[Read, Read])] {
        let paths = names.clone().map(|n| format!("/services/s{n}"));
        paths.fold(other.transaction(), |multi, path| multi.create(path, "")).await.unwrap();
        assert_eq!(services.services().await.unwrap().len(), names.end);
        tally.row("Discovery::services: 1 for 1,000", expected).await;
    }
}
