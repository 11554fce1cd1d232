//! What plugins cost and bring, on a running cluster (`conclave dev`).
//!
//! `cargo run --release -p conclave-cluster-tests --example plugins -- counter CLIENTS | queue CLIENTS |
//! activate | many PLUGINS | parked CALLS | hostile GUEST`; in the directory of the cluster's `.conclave`.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, Error as Failed, Options, Refusal};
use conclave_cluster_tests::load::{Times, clients, connect, each, fresh};
use conclave_guests::{PROCEDURE, guest, text};
use conclave_protocol::plugin::PluginState;
use conclave_testing::Error;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use rand::Rng;
use serde::Deserialize;

const TIME: Duration = Duration::from_secs(5);
/// Callers that one session has parked, in `parked`.
const EACH: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize, Error> { Ok(args.get(at).ok_or("a number is missing")?.parse()?) };
    match args.first().map(String::as_str) {
        Some("counter") => counter(number(1)?).await,
        Some("queue") => queue(number(1)?).await,
        Some("activate") => activate().await,
        Some("many") => many(number(1)?).await,
        Some("parked") => parked(number(1)?).await,
        Some("hostile") => hostile(args.get(1).ok_or("which guest?")?).await,
        _ => Err("counter N, queue N, activate, many N, parked N, or hostile GUEST".into()),
    }
}

/// One counter, by the plugin and by reading and setting until nobody was in between.
async fn counter(count: usize) -> Result<(), Error> {
    let clients = clients(count).await?;
    let name = fresh("counter");
    let one = &clients[0];
    one.at(&name).create("0").await?;
    let path = &name;
    let plugin = each(&clients, TIME, |client, _| async move {
        client.call("counter", "increment").arg("path", path).await?;
        Ok(())
    })
    .await?;
    println!("counter by the plugin, {count} clients: {}", plugin.words(TIME));
    let before: u64 = String::from_utf8_lossy(&one.at(path).get().await?.data).parse()?;
    let plain = each(&clients, TIME, |client, _| async move {
        let at = client.at(path);
        loop {
            let znode = at.get().await?;
            let next = String::from_utf8_lossy(&znode.data).parse::<u64>()? + 1;
            match at.set(next.to_string()).if_version(znode.stat.version).await {
                Ok(_) => return Ok(()),
                Err(Failed::Refused(Refusal::BadVersion { .. })) => {}
                Err(other) => return Err(other.into()),
            }
        }
    })
    .await?;
    println!("counter by get and set,  {count} clients: {}", plain.words(TIME));
    println!("ratio {:.1}", plugin.rate(TIME) / plain.rate(TIME));
    let after: u64 = String::from_utf8_lossy(&one.at(path).get().await?.data).parse()?;
    if (before, after) != (plugin.count() as u64, (plugin.count() + plain.count()) as u64) {
        return Err(format!("the count is wrong: {before}, {after}").into());
    }
    fuel(one, "counter").await
}

async fn fuel(client: &Client, plugin: &str) -> Result<(), Error> {
    for one in client.plugins().stats(Some(plugin)).await?.iter().filter(|one| one.runs > 0) {
        let [p50, p99, most] = one.fuel;
        let [time, slow, slowest] = one.time_us;
        println!(
            "{plugin}: {} runs on member {:?}, fuel p50 {p50}, p99 {p99}, most {most}; µs p50 {time}, p99 {slow}, most {slowest}",
            one.runs, one.member
        );
    }
    Ok(())
}

#[derive(Deserialize)]
struct Claim {
    claim: String,
}

/// Items of a queue that is full: claimed and settled by the plugin; and on plain znodes as ZooKeeper's recipe does it: list the
/// children, and delete the first that nobody else was faster with.
async fn queue(count: usize) -> Result<(), Error> {
    const ITEMS: usize = 20_000;
    let clients = clients(count).await?;
    let path = fresh("queue");
    let path = &path;
    let pipelined = Client::connect(Options::load()?).await?.pipelined();
    let begun = Instant::now();
    let pushes = (0..ITEMS)
        .map(|_| pipelined.call("queue", "push").arg("queue", path).arg("data", bytes::Bytes::from_static(b"x")));
    futures::stream::iter(pushes.map(IntoFuture::into_future)).buffer_unordered(256).try_collect::<Vec<_>>().await?;
    println!("{ITEMS} pushed in {:.1} s", begun.elapsed().as_secs_f64());
    let plugin = each(&clients, TIME, |client, _| async move {
        let taken = client.call("queue", "take").arg("queue", path).in_session().typed::<Option<Claim>>().await?;
        let claim = taken.ok_or("nothing was there")?.claim;
        client.call("queue", "ack").arg("queue", path).arg("claim", claim).in_session().await?;
        Ok(())
    })
    .await?;
    println!("take and acknowledge by the plugin, {count} clients: {}", plugin.words(TIME));
    let plain = &format!("{path}-plain");
    pipelined.at(plain).create("").await?;
    // As few as are needed: the recipe lists them all.
    let fill = (0..5_000).map(|_| pipelined.at(format!("{plain}/i-")).create("x").sequential().into_future());
    futures::stream::iter(fill).buffer_unordered(256).try_collect::<Vec<_>>().await?;
    let taken = each(&clients, TIME, |client, _| async move {
        loop {
            for child in client.at(plain).children().await?.children {
                match client.at(format!("{plain}/{}", child.name)).delete().await {
                    Ok(_) => return Ok(()),
                    Err(Failed::Refused(Refusal::NoZnode { .. })) => {}
                    Err(other) => return Err(other.into()),
                }
            }
        }
    })
    .await?;
    println!("the first child by listing and deleting, {count} clients: {}", taken.words(TIME));
    println!("ratio {:.1}", plugin.rate(TIME) / taken.rate(TIME));
    fuel(&clients[0], "queue").await
}

fn prebuilt(name: &str) -> Result<Vec<u8>, Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt");
    Ok(std::fs::read(folder.join(format!("{name}.wasm")))?)
}

/// A component that no member has seen before: another one by a custom section of sixteen random bytes.
fn another(mut component: Vec<u8>) -> Vec<u8> {
    component.extend([0, 17, 0]);
    component.extend(rand::rng().random::<[u8; 16]>());
    component
}

/// How long it is until components are active on all members that none of them has compiled before.
async fn activate() -> Result<(), Error> {
    let client = connect().await?;
    for name in ["audit-trail", "discovery-query", "lock"] {
        let component = prebuilt(name)?;
        let mut times = Vec::new();
        for n in 0..7 {
            let another = another(component.clone());
            let begun = Instant::now();
            client.plugins().install(another).name(format!("try-{n}")).allow(Vec::new()).await?;
            times.push(begun.elapsed());
            client.plugins().remove(format!("try-{n}")).await?;
        }
        println!("{name}, {} KiB: active after {}", component.len() >> 10, Times::of(times).spread());
    }
    Ok(())
}

/// Writes that no plugin is for, without and with so many plugins, in turn.
async fn many(plugins: usize) -> Result<(), Error> {
    const ROUNDS: usize = 6;
    let clients = clients(64).await?;
    let one = &clients[0];
    for n in 0..64 {
        one.at(format!("/many/z{n}")).create("").or_set().parents().await?;
    }
    let trigger =
        "(func (export \"call\") (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 256))";
    let measured = || {
        each(&clients, TIME, |client, n| async move {
            client.at(format!("/many/z{n}")).set("x").await?;
            Ok(())
        })
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    measured().await?;
    for _ in 0..ROUNDS {
        without.push(measured().await?.rate(TIME));
        for n in 0..plugins {
            let manifest = format!("[[trigger]]\non = \"before\"\npaths = [\"/app-{n}/**\", \"/many/{n}/*/config\"]\n");
            let component = guest(trigger, &["before"], &manifest);
            one.plugins().install(component).name(format!("many-{n}")).allow_asked().await?;
        }
        with.push(measured().await?.rate(TIME));
        for n in 0..plugins {
            one.plugins().remove(format!("many-{n}")).await?;
        }
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    println!("without: {without:.0?}; with {plugins}: {with:.0?}");
    println!("means {:.0} and {:.0}, ratio {:.4}", mean(&without), mean(&with), mean(&with) / mean(&without));
    Ok(())
}

/// Writes of a client beside, one after the other, until told to stop: how long each took.
fn beside(client: Client, path: String) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Result<Times, Failed>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut times = Vec::new();
        while !until.load(Ordering::Relaxed) {
            let begun = Instant::now();
            client.at(&path).set("x").await?;
            times.push(begun.elapsed());
        }
        Ok(Times::of(times))
    });
    (stop, task)
}

/// The same for a while.
async fn beside_for(client: &Client, time: Duration) -> Result<Times, Error> {
    let (stop, task) = beside(client.clone(), "/beside".to_owned());
    // tidy: allow sleep, it is a benchmark
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    Ok(task.await??)
}

/// KiB of memory of each member of `.conclave` that are no pages of files.
fn memory() -> Result<Vec<u64>, Error> {
    let of = |member: u64| -> Result<u64, Error> {
        let pid = std::fs::read_to_string(format!(".conclave/members/{member}/pid"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap_or_default();
        Ok(line.split_whitespace().nth(1).unwrap_or("0").parse()?)
    };
    (1..=3).map(of).collect()
}

/// So many callers at one gate, and what another client has of it.
async fn parked(count: usize) -> Result<(), Error> {
    let client = connect().await?;
    client.at("/beside").create("").or_set().await?;
    let gate = &fresh("gate");
    client.call("barrier", "close").arg("path", gate).await?;
    let sessions = clients(count.div_ceil(EACH)).await?;
    let alone = beside_for(&client, TIME).await?;
    println!("another client's sets, alone: {}", alone.words(TIME));
    let before = memory()?;
    let begun = Instant::now();
    let mut waits = Vec::new();
    for n in 0..count {
        let waiter = sessions[n / EACH].clone();
        let gate = gate.clone();
        waits.push(tokio::spawn(async move {
            let passed = waiter.call("barrier", "wait").arg("path", &gate).typed::<bool>().await?;
            Ok::<_, Failed>((passed, Instant::now()))
        }));
    }
    while client.plugins().get("barrier").await?.parked < count as u64 {
        // tidy: allow sleep, it is a benchmark
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{count} parked in {:.1} s", begun.elapsed().as_secs_f64());
    let with = beside_for(&client, TIME).await?;
    println!("another client's sets, with them parked: {}", with.words(TIME));
    let bytes = |(after, before): (&u64, &u64)| after.saturating_sub(*before) * 1024 / count as u64;
    let each: Vec<u64> = memory()?.iter().zip(&before).map(bytes).collect();
    println!("memory of a parked call on each member: {each:?} bytes");
    let (stop, task) = beside(client.clone(), "/beside".to_owned());
    let opened = Instant::now();
    client.call("barrier", "open").arg("path", gate).await?;
    let mut last = opened;
    for wait in waits {
        let (passed, at) = wait.await??;
        if !passed {
            return Err("one was not let through".into());
        }
        last = last.max(at);
    }
    let took = last.duration_since(opened);
    stop.store(true, Ordering::Relaxed);
    let during = task.await??;
    println!("all {count} passed within {:.2} s of the opening", took.as_secs_f64());
    println!("another client's sets meanwhile: {}", during.words(took));
    println!("p99 {:.1} times that alone", during.ms(0.99) / alone.ms(0.99));
    fuel(&client, "barrier").await
}

/// What another client has of four that call a misbehaving guest without end; whoever suspends it, it is enabled again.
async fn hostile(name: &str) -> Result<(), Error> {
    let client = connect().await?;
    client.at("/beside").create("").or_set().await?;
    client.at("/victim").create("").or_set().await?;
    let needs = "[[needs]]\npaths = [\"/**\"]\nops = [\"read\", \"create\", \"write\", \"delete\"]\n";
    let component = guest(text(name), &["procedures"], &format!("{PROCEDURE}{needs}"));
    client.plugins().install(component).name("hostile").allow_asked().await?;
    let callers = clients(4).await?;
    let alone = beside_for(&client, TIME).await?;
    println!("another client's sets, alone: {}", alone.words(TIME));
    let stop = Arc::new(AtomicBool::new(false));
    let calls: Vec<BoxFuture<'static, [u64; 3]>> = callers.iter().map(|caller| calls(caller.clone(), &stop)).collect();
    let calls = calls.into_iter().map(tokio::spawn).collect::<Vec<_>>();
    let guard = tokio::spawn({
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                if matches!(client.plugins().get("hostile").await?.state, PluginState::Suspended { .. }) {
                    client.plugins().enable("hostile").await?;
                }
                // tidy: allow sleep, it is a benchmark
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, Failed>(())
        }
    });
    let with = beside_for(&client, TIME).await?;
    stop.store(true, Ordering::Relaxed);
    guard.await??;
    let mut sums = [0; 3];
    for call in calls {
        let counts = call.await?;
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("another client's sets, with the guest {name}: {}", with.words(TIME));
    println!("calls: {} failed, {} put off or suspended, {} well", sums[0], sums[1], sums[2]);
    println!(
        "p99 {:.1} times that alone, p50 {:.1} times",
        with.ms(0.99) / alone.ms(0.99),
        with.ms(0.5) / alone.ms(0.5)
    );
    fuel(&client, "hostile").await?;
    client.plugins().remove("hostile").await?;
    Ok(())
}

/// Calls without end: how many failed, were put off, went well.
fn calls(caller: Client, stop: &Arc<AtomicBool>) -> BoxFuture<'static, [u64; 3]> {
    let stop = Arc::clone(stop);
    Box::pin(async move {
        let mut counts = [0; 3];
        while !stop.load(Ordering::Relaxed) {
            match caller.call("hostile", "run").await {
                Ok(_) => counts[2] += 1,
                Err(Failed::Refused(Refusal::PluginFailed { .. })) => counts[0] += 1,
                Err(_) => counts[1] += 1,
            }
        }
        counts
    })
}
