//! Misbehaving plugins on a whole cluster: what they did is undone, others go on, and the members agree.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use conclave_client::{Client, Error, Refusal};
use conclave_cluster_tests::agree;
use conclave_guests::{CASCADE, Ends, GUESTS, PROCEDURE, guest, text};
use conclave_protocol::plugin::PluginState;
use conclave_testing::{Cluster, eventually_async};
use futures::future::join_all;

/// They may do everything, everywhere.
const NEEDS: &str = "[[needs]]\npaths = [\"/**\"]\nops = [\"read\", \"create\", \"write\", \"delete\"]\n";

async fn install(client: &Client, name: &str, component: Vec<u8>) {
    let installed = client.plugins().install(component).name(name).allow_asked().await;
    assert_eq!(installed.map(|info| info.state).map_err(|error| error.to_string()), Ok(PluginState::Active), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_guest_does_is_undone_and_others_go_on() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let victim = ann.at("/victim");
    victim.create("whole").await.unwrap();
    ann.at("/beside").create("0").await.unwrap();
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let beside = tokio::spawn({
        let (stop, writes) = (Arc::clone(&stop), Arc::clone(&writes));
        async move {
            while !stop.load(Ordering::Relaxed) {
                bob.at("/beside").add(1).await.unwrap();
                writes.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for (name, text, ends) in GUESTS {
        if ends == Ends::Well {
            continue;
        }
        install(&ann, name, guest(text, &["procedures"], &format!("{PROCEDURE}{NEEDS}"))).await;
        let before = writes.load(Ordering::Relaxed);
        for _ in 0..3 {
            let refused = ann.call(name, "run").await.unwrap_err();
            match (ends, &refused) {
                (Ends::Failed(why), Error::Refused(Refusal::PluginFailed { plugin, why: actual })) => {
                    // Where nothing is optimised, time may be over first.
                    let is_budget = actual.starts_with(why) || actual.starts_with("time: more than");
                    assert!(plugin == name && is_budget, "{name}: {actual}");
                }
                (Ends::Refused, Error::Refused(Refusal::PluginRefused { plugin, .. })) => assert_eq!(plugin, name),
                _ => panic!("{name}: {refused}"),
            }
        }
        assert_eq!(victim.get().await.unwrap().data, "whole", "{name}");
        let goes_on = async || writes.load(Ordering::Relaxed) > before;
        eventually_async("the other client's writes go on", goes_on).await.unwrap();
        ann.plugins().remove(name).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    beside.await.unwrap();
    let count: u64 = String::from_utf8_lossy(&ann.at("/beside").get().await.unwrap().data).parse().unwrap();
    assert_eq!(count, writes.load(Ordering::Relaxed));
    agree(&cluster, &ann).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_its_own_reason_refuses_the_write_that_it_is_for() {
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let victim = client.at("/victim");
    victim.create("whole").await.unwrap();
    let manifest = format!("[[trigger]]\non = \"after\"\npaths = [\"/victim\"]\n{NEEDS}");
    install(&client, "cascade", guest(CASCADE, &["after"], &manifest)).await;
    let refused = victim.set("x").await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(Refusal::PluginLoop { plugin, .. }) if plugin == "cascade"), "{refused}");
    assert_eq!(victim.get().await.unwrap().data, "whole");
    client.plugins().disable("cascade").await.unwrap();
    victim.set("x").await.unwrap();
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_again_and_again_is_suspended_until_somebody_enables_it() {
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    install(&client, "trap", guest(text("trap"), &["procedures"], &format!("{PROCEDURE}{NEEDS}"))).await;
    let info = async || client.plugins().get("trap").await.unwrap();
    let suspended = async || {
        drop(client.call("trap", "run").await.unwrap_err());
        matches!(info().await.state, PluginState::Suspended { .. })
    };
    eventually_async("it is suspended", suspended).await.unwrap();
    let refused = client.call("trap", "run").await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused(Refusal::PluginDisabled { plugin, .. }) if plugin == "trap"),
        "{refused}"
    );
    client.plugins().enable("trap").await.unwrap();
    let refused = client.call("trap", "run").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::PluginFailed { .. })), "{refused}");
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_that_wait_at_a_gate_all_pass_when_it_is_opened() {
    const CLIENTS: usize = 5;
    const EACH: usize = 100;
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.call("barrier", "close").arg("path", "/gate").await.unwrap();
    let mut waits = Vec::new();
    for n in 0..CLIENTS {
        let waiter = cluster.client(&format!("w{n}")).await.unwrap();
        for _ in 0..EACH {
            let waiter = waiter.clone();
            waits.push(tokio::spawn(async move {
                waiter.call("barrier", "wait").arg("path", "/gate").typed::<bool>().await
            }));
        }
    }
    let parked =
        async || client.plugins().get("barrier").await.is_ok_and(|info| info.parked == (CLIENTS * EACH) as u64);
    eventually_async("all wait", parked).await.unwrap();
    assert_eq!(client.plugins().calls("barrier").await.unwrap().len(), CLIENTS * EACH);
    client.call("barrier", "open").arg("path", "/gate").await.unwrap();
    for passed in join_all(waits).await {
        assert!(passed.unwrap().unwrap());
    }
    agree(&cluster, &client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_can_not_run_is_rejected_and_says_which_member_and_why() {
    let only_second = |config: &mut conclave_server::Config| {
        if config.member == 2 {
            config.plugins.component_bytes = 400_000;
        }
    };
    let cluster = Cluster::setup(3).configured(only_second).start().await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let manifest = format!("{PROCEDURE}{NEEDS}");
    let mut component = guest(text("well"), &["procedures"], &manifest);
    // A custom section of no meaning, half a megabyte long.
    component.extend([0, 0xa1, 0xc2, 0x1e, 0]);
    component.extend(vec![0; 500_000]);
    let rejected = client.plugins().install(component).name("large").allow_asked().await.unwrap_err();
    let Error::Rejected { .. } = &rejected else { panic!("{rejected}") };
    let said = rejected.to_string();
    assert!(said.contains("member 2") && said.contains("400000 are allowed"), "{said}");
    let gone = client.call("large", "run").await.unwrap_err();
    assert!(matches!(gone, Error::Refused(Refusal::NoPlugin { .. } | Refusal::PluginDisabled { .. })), "{gone}");
    install(&client, "well", guest(text("well"), &["procedures"], &manifest)).await;
    agree(&cluster, &client).await.unwrap();
}
