//! Plugins on a whole cluster: installed by a client, run in every member's transactions, parked while leaders die.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::IntoFuture;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conclave_client::{Client, Error, Fence, Refusal};
use conclave_cluster_tests::agree;
use conclave_locks::Mutex;
use conclave_protocol::plugin::PluginState;
use conclave_testing::{Cluster, PATIENCE, eventually, eventually_async};
use futures::future::try_join_all;
use serde::Deserialize;

/// A component that is checked in.
fn component(name: &str) -> Bytes {
    let prebuilt = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt");
    std::fs::read(prebuilt.join(format!("{name}.wasm"))).unwrap().into()
}

/// What a lock's procedure returns.
#[derive(Debug, Deserialize)]
struct Award {
    path: String,
    zxid: u64,
}

impl Award {
    fn fence(&self) -> Fence {
        format!("{}@{}", self.path, self.zxid).parse().unwrap()
    }
}

async fn lock(client: &Client, path: &str) -> conclave_client::Result<Award> {
    client.call("lock", "lock").arg("path", path).typed::<Award>().await
}

async fn unlock(client: &Client, path: &str) {
    client.call("lock", "unlock").arg("path", path).in_session().await.unwrap();
}

/// How many stand in line for a lock.
async fn waiting(client: &Client, path: &str) -> usize {
    match client.at(format!("{path}/line")).children().await {
        Ok(line) => line.children.len(),
        Err(_) => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_installed_judges_every_writer_until_it_is_removed() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let limit = client.at("/rate-limits/mail");
    limit.create("whatever").parents().await.unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/examples/c-rate-limit/rate-limit.wasm");
    let installed = client.plugins().install(std::fs::read(example).unwrap()).allow_asked().await.unwrap();
    assert_eq!(installed.state, PluginState::Active);
    let refused = limit.set("x").await.unwrap_err();
    let is_its = |error: &Error| matches!(error, Error::Refused(Refusal::PluginRefused { plugin, .. }) if plugin == "rate-limit");
    assert!(is_its(&refused) && refused.to_string().contains("it does not begin with a number"), "{refused}");
    limit.set("2/s burst 3").await.unwrap();
    // Another leader judges the same.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let refused = limit.set("x").await.unwrap_err();
    assert!(is_its(&refused), "{refused}");
    cluster.restart(leader).await.unwrap();
    client.plugins().disable("rate-limit").await.unwrap();
    limit.set("x").await.unwrap();
    client.plugins().enable("rate-limit").await.unwrap();
    assert!(limit.set("y").await.is_err_and(|refused| is_its(&refused)));
    client.plugins().remove("rate-limit").await.unwrap();
    limit.set("y").await.unwrap();
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_by_procedure_are_handed_on_whoever_leads_and_nobody_is_forgotten() {
    const CLIENTS: usize = 6;
    const EACH: usize = 12;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    observer.at("/sum").create("0").await.unwrap();
    let holders = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(cluster.client(&format!("worker-{number}")).await.unwrap());
    }
    let work = clients.iter().cloned().map(|client| {
        let (holders, last, done) = (Arc::clone(&holders), Arc::clone(&last), Arc::clone(&done));
        async move {
            for _ in 0..EACH {
                let award = lock(&client, "/locks/job").await?;
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                assert!(last.swap(award.zxid, Ordering::SeqCst) < award.zxid, "fences rise");
                client.at("/sum").add(1).fenced(award.fence()).await?;
                holders.fetch_sub(1, Ordering::SeqCst);
                unlock(&client, "/locks/job").await;
                let late = client.at("/sum").add(1).fenced(award.fence()).await.unwrap_err();
                assert!(matches!(late, Error::Refused(Refusal::Fenced { .. })), "{late}");
                done.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, Error>(())
        }
    });
    let working = tokio::spawn(try_join_all(work));
    for round in 1..=3 {
        let reached = round * CLIENTS * EACH / 4;
        eventually("the lock is handed on", || done.load(Ordering::SeqCst) >= reached).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        cluster.restart(leader).await.unwrap();
    }
    tokio::time::timeout(2 * PATIENCE, working).await.expect("somebody was forgotten").unwrap().unwrap();
    let sum = observer.at("/sum").get().await.unwrap();
    assert_eq!(sum.data, (CLIENTS * EACH).to_string());
    assert_eq!(waiting(&observer, "/locks/job").await, 0);
    let info = observer.plugins().get("lock").await.unwrap();
    assert_eq!(info.parked, 0);
    agree(&cluster, &observer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_want_a_lock_any_more_leaves_the_line_and_gives_back_what_comes() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let carol = cluster.client("carol").await.unwrap();
    lock(&ann, "/locks/a").await.unwrap();
    let waits = tokio::spawn({
        let bob = bob.clone();
        async move { lock(&bob, "/locks/a").await }
    });
    eventually_async("bob stands in line", async || waiting(&ann, "/locks/a").await == 1).await.unwrap();
    waits.abort();
    eventually_async("he has left it", async || waiting(&ann, "/locks/a").await == 0).await.unwrap();
    let late = bob.call("lock", "lock").arg("path", "/locks/a").within(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(late, Error::TimedOut { .. }), "{late}");
    eventually_async("he has left it again", async || waiting(&ann, "/locks/a").await == 0).await.unwrap();
    // An award and the loss of interest in it cross.
    for round in 0..20 {
        let waits = tokio::spawn({
            let bob = bob.clone();
            async move { lock(&bob, "/locks/a").await }
        });
        eventually_async("bob stands in line", async || waiting(&ann, "/locks/a").await == 1).await.unwrap();
        let (_, ()) = tokio::join!(unlock(&ann, "/locks/a"), async {
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            waits.abort();
        });
        // Whatever came of it, the lock comes to whoever asks next.
        tokio::time::timeout(PATIENCE, lock(&carol, "/locks/a")).await.expect("a lost lock").unwrap();
        unlock(&carol, "/locks/a").await;
        tokio::time::timeout(PATIENCE, lock(&ann, "/locks/a")).await.expect("a lost lock").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn procedures_and_plain_znodes_share_one_line() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let carol = cluster.client("carol").await.unwrap();
    let plain = Mutex::new(&bob, "/locks/mixed").unwrap().plain();
    let award = lock(&ann, "/locks/mixed").await.unwrap();
    let second = tokio::spawn(async move { plain.acquire().within(2 * PATIENCE).await });
    eventually_async("bob stands in line", async || waiting(&ann, "/locks/mixed").await == 1).await.unwrap();
    let third = tokio::spawn({
        let carol = carol.clone();
        async move { lock(&carol, "/locks/mixed").await }
    });
    eventually_async("so does carol", async || waiting(&ann, "/locks/mixed").await == 2).await.unwrap();
    unlock(&ann, "/locks/mixed").await;
    let guard = second.await.unwrap().unwrap();
    assert!(guard.token() > award.zxid);
    assert!(!third.is_finished());
    let token = guard.token();
    guard.release().await.unwrap();
    let last = tokio::time::timeout(PATIENCE, third).await.unwrap().unwrap().unwrap();
    assert!(last.zxid > token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_call_outlives_its_leader_its_connection_and_an_upgrade() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let opener = cluster.client("bob").await.unwrap();
    opener.call("barrier", "close").arg("path", "/gate").await.unwrap();
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.call("barrier", "wait").arg("path", "/gate").await }
    });
    let parked = async || opener.plugins().get("barrier").await.is_ok_and(|info| info.parked == 1);
    eventually_async("it waits", parked).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.restart(leader).await.unwrap();
    let peer = client.peer().unwrap().member.0;
    cluster.kill(peer).await;
    cluster.restart(peer).await.unwrap();
    opener.plugins().upgrade("barrier", component("barrier")).allow_asked().await.unwrap();
    assert!(!waits.is_finished());
    opener.call("barrier", "open").arg("path", "/gate").await.unwrap();
    tokio::time::timeout(PATIENCE, waits).await.expect("it was forgotten").unwrap().unwrap();
    eventually_async("nothing of it is left", async || {
        opener.plugins().get("barrier").await.is_ok_and(|info| info.parked == 0)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_leaves_the_line_and_its_lock() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let carol = cluster.client("carol").await.unwrap();
    lock(&ann, "/locks/a").await.unwrap();
    let waits = tokio::spawn(async move { lock(&bob, "/locks/a").await.map(|award| (award, bob)) });
    eventually_async("bob stands in line", async || waiting(&carol, "/locks/a").await == 1).await.unwrap();
    let session = ann.session().await.unwrap().id();
    carol.end_session(session).await.unwrap();
    let (_, bob) = tokio::time::timeout(PATIENCE, waits).await.expect("nobody woke bob").unwrap().unwrap();
    bob.close().await.unwrap();
    tokio::time::timeout(PATIENCE, lock(&carol, "/locks/a")).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_after_trigger_writes_can_never_disagree_with_the_data() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/users").create("").await.unwrap();
    let settings = r#"{"indexes": [{"of": "/users/*", "field": "mail", "at": "/by-mail"}]}"#;
    client.plugins().install(component("index")).allow_asked().settings(settings).await.unwrap();
    let write = |number: u32, mail: u32| {
        let client = client.clone();
        async move {
            let data = format!(r#"{{"mail": "m{mail}"}}"#);
            let at = client.at(format!("/users/u{number}"));
            match number % 3 {
                0 => at.create(data).or_set().await.map(drop),
                _ => at.create(data.clone()).await.map(drop).or(at.set(data).await.map(drop)),
            }
        }
    };
    for round in 0..4 {
        try_join_all((0..12).map(|number| write(number, number * 7 + round))).await.unwrap();
        if round == 1 {
            let leader = cluster.leader().await.unwrap();
            cluster.kill(leader).await;
            cluster.restart(leader).await.unwrap();
        }
    }
    client.at("/users/u3").delete().await.unwrap();
    for number in 0..12_u32 {
        for round in 0..4 {
            let mail = format!("m{}", number * 7 + round);
            let found = client.ask("index", "find").arg("at", "/by-mail").arg("value", format!("\"{mail}\""));
            let found: Vec<String> = found.typed().await.unwrap();
            let expected = (round == 3 && number != 3).then(|| format!("/users/u{number}"));
            // Other znodes have other values: seven apart, and four of each.
            assert_eq!(found, Vec::from_iter(expected), "{mail}");
        }
    }
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_after_a_call_was_dropped_finds_it_withdrawn() {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let campaign = |client: &Client| client.call("election", "campaign").arg("path", "/election").into_future();
    campaign(&ann).await.unwrap();
    for round in 0..20 {
        let mut first = campaign(&bob);
        let parked = async || {
            assert!(futures::poll!(&mut first).is_pending(), "ann leads");
            ann.plugins().get("election").await.is_ok_and(|info| info.parked == 1)
        };
        eventually_async("bob is a candidate", parked).await.unwrap();
        drop(first);
        // A session is a candidate once: it would be refused if it still were one.
        let late = bob.call("election", "campaign").arg("path", "/election").arg("wait", "0ms").await;
        assert!(late.is_ok(), "round {round}: {late:?}");
    }
}
