//! What the complete tree costs: watches, fan-out, pages, subtrees, on a running cluster (`conclave dev`).
//!
//! `cargo run --release -p conclave-cluster-tests --example tree -- fill 1000000 | watches 100000 | fanout 10000 64 |
//! pages 1000 | subtree 100000`; in the directory of the cluster's `.conclave`.
#![allow(clippy::print_stdout)]

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, CreateStep, Options, Path, Step};
use conclave_testing::Error;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};

/// Steps of a multi that creates.
const AT_A_TIME: usize = 500;
/// Requests on their way at a time.
const DEPTH: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize, Error> { Ok(args.get(at).ok_or("a number is missing")?.parse()?) };
    match args.first().map(String::as_str) {
        Some("fill") => fill(number(1)?).await,
        Some("watches") => watches(number(1)?).await,
        Some("fanout") => fanout(number(1)?, number(2)?).await,
        Some("pages") => pages(number(1)?).await,
        Some("subtree") => subtree(number(1)?).await,
        _ => Err("fill N, watches N, fanout WATCHES CONNECTIONS, pages CHILDREN, or subtree N".into()),
    }
}

async fn connect() -> Result<Client, Error> {
    // In a session: what was answered is acknowledged, and not remembered for as long as a one-shot write is.
    Ok(Client::connect(Options::load()?.with_request_timeout(Duration::from_secs(60))).await?.pipelined())
}

/// Creates so many znodes of 100 B below a path, in folders of a thousand.
async fn create(client: &Client, below: &str, count: usize) -> Result<(), Error> {
    let mut steps = Vec::new();
    let mut multis = FuturesUnordered::new();
    client.at(below).create("").or_set().parents().await?;
    for folder in 0..count.div_ceil(1_000) {
        client.at(format!("{below}/{folder:06}")).create("").or_set().await?;
    }
    for n in 0..count {
        let path = Path::parse(&format!("{below}/{:06}/{n:09}", n / 1_000))?;
        steps.push(Step::Create(CreateStep::new(path, vec![b'x'; 100])));
        if steps.len() == AT_A_TIME || n + 1 == count {
            multis.push(client.multi(std::mem::take(&mut steps)).into_future());
            if multis.len() == DEPTH {
                multis.try_next().await?;
            }
        }
    }
    while multis.try_next().await?.is_some() {}
    Ok(())
}

async fn fill(count: usize) -> Result<(), Error> {
    let client = connect().await?;
    let begun = Instant::now();
    create(&client, "/fill", count).await?;
    println!("{count} znodes of 100 B created in {:.1} s", begun.elapsed().as_secs_f64());
    memory("with them")
}

/// What each member of `.conclave` has of memory, KiB: its own, and pages of files.
fn memory(when: &str) -> Result<(), Error> {
    for member in 1..=3 {
        let pid = std::fs::read_to_string(format!(".conclave/members/{member}/pid"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).unwrap_or("0").to_owned()
        };
        println!("member {member} {when}: anonymous {} KiB, file pages {} KiB", of("RssAnon"), of("RssFile"));
    }
    Ok(())
}

/// Sets a znode one after the other for a while: how often, and the longest, milliseconds.
async fn sets(client: &Client, path: &str, time: Duration) -> Result<(usize, f64), Error> {
    let begun = Instant::now();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while begun.elapsed() < time {
        let one = Instant::now();
        client.at(path).set("x").await?;
        longest = longest.max(one.elapsed());
        count += 1;
    }
    Ok((count, longest.as_secs_f64() * 1e3))
}

/// So many watches, each on a path of its own, four deep; what they cost members and writes elsewhere.
async fn watches(count: usize) -> Result<(), Error> {
    const SETS: Duration = Duration::from_secs(5);
    let writer = connect().await?;
    writer.at("/elsewhere").create("").or_set().await?;
    memory("before")?;
    let (before, longest) = sets(&writer, "/elsewhere", SETS).await?;
    println!("writes one after the other before: {} /s, longest {longest:.1} ms", before / 5);
    let watcher = connect().await?;
    let begun = Instant::now();
    let paths = (0..count).map(|n| format!("/w/{}/{n}/config", n / 100));
    let standing: Vec<_> =
        futures::stream::iter(paths).map(|path| watcher.watch(path).into_future()).buffered(256).try_collect().await?;
    println!("{} watches began in {:.1} s", standing.len(), begun.elapsed().as_secs_f64());
    memory("with the watches (one of them has all)")?;
    let (after, longest) = sets(&writer, "/elsewhere", SETS).await?;
    println!("writes one after the other with them: {} /s, longest {longest:.1} ms", after / 5);
    Ok(())
}

/// One change told to so many watches of one znode, on so many connections: until the last has it.
async fn fanout(count: usize, connections: usize) -> Result<(), Error> {
    let writer = connect().await?;
    writer.at("/hot").create("").or_set().await?;
    let mut watches = Vec::new();
    for n in 0..connections {
        let client = connect().await?;
        let own = count / connections + usize::from(n < count % connections);
        let all = (0..own).map(|_| client.watch("/hot").into_future());
        watches.extend(futures::stream::iter(all).buffer_unordered(64).try_collect::<Vec<_>>().await?);
    }
    let mut times = Vec::new();
    for n in 0..21 {
        let begun = Instant::now();
        writer.at("/hot").set(n.to_string()).await?;
        for watch in &mut watches {
            watch.next().await.ok_or("a watch ended")??;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "one change to {count} watches on {connections} connections, last told after: least {:.0} ms, median {:.0}, most {:.0}",
        times[0], times[10], times[20]
    );
    Ok(())
}

/// Pages of so many children with data, a number of them at a time on two connections.
async fn pages(children: usize) -> Result<(), Error> {
    const TIME: Duration = Duration::from_secs(5);
    let client = connect().await?;
    create(&client, "/pages", children).await?;
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let client = connect().await?;
        tasks.push(tokio::spawn(async move {
            let one = || {
                let client = client.clone();
                async move { client.at("/pages/000000").children().with_data().session().page().await }
            };
            let mut pending: FuturesUnordered<_> = (0..DEPTH).map(|_| one()).collect();
            let mut count = 0;
            while let Some(page) = pending.next().await {
                let (_, page) = page?;
                assert_eq!(page.children.len(), children.min(1_000), "a page is whole");
                count += 1;
                if begun.elapsed() < TIME {
                    pending.push(one());
                }
            }
            Ok::<usize, conclave_client::Error>(count)
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    println!("pages of {children} children with data and stat: {:.0} /s", count as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// A subtree of so many znodes: counted, streamed, deleted, while another client writes one after the other.
async fn subtree(count: usize) -> Result<(), Error> {
    let (client, writer) = (connect().await?, connect().await?);
    writer.at("/elsewhere").create("").or_set().await?;
    create(&client, "/subtree", count).await?;
    let begun = Instant::now();
    let counted = client.at("/subtree").count().await?;
    println!("counted {counted} in {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    let mut tree = client.at("/subtree").subtree().with_data().await?;
    let (mut znodes, zxid) = (0, tree.zxid());
    while let Some(entry) = tree.next().await {
        entry?;
        znodes += 1;
    }
    println!("streamed {znodes} as of {zxid} in {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let (_, quiet) = sets(&writer, "/elsewhere", Duration::from_secs(3)).await?;
    let done = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let one = Instant::now();
                writer.at("/elsewhere").set("x").await?;
                times.push(one.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, conclave_client::Error>(times)
        }
    });
    let begun = Instant::now();
    let deleted = client.at("/subtree").delete_all().await?;
    let took = begun.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let mut times = other.await??;
    times.sort_by(f64::total_cmp);
    println!(
        "deleted {deleted} in {took:.1} s; another client's writes meanwhile: median {:.1} ms, p99 {:.1}, longest {:.1} \
         (without: longest {quiet:.1})",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1]
    );
    Ok(())
}
