//! What the recipes cost, on a running cluster (`conclave dev`).
//!
//! `cargo run --release -p conclave-cluster-tests --example recipes -- lock CLIENTS | queue WORKERS | barrier MEMBERS | leader |
//! service`; in the directory of the cluster's `.conclave`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use conclave_barriers::DoubleBarrier;
use conclave_client::{Client, Options};
use conclave_cluster_tests::load::{Times, clients, each, fresh};
use conclave_discovery::{Discovery, Instance};
use conclave_election::Election;
use conclave_locks::Mutex;
use conclave_queues::Queue;
use conclave_testing::{Error, Mortal};
use futures::future::try_join_all;

const TIME: Duration = Duration::from_secs(5);
/// Of those that are killed.
const SESSION: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize, Error> { Ok(args.get(at).ok_or("a number is missing")?.parse()?) };
    match args.first().map(String::as_str) {
        Some("lock") => lock(number(1)?).await,
        Some("queue") => queue(number(1)?).await,
        Some("barrier") => barrier(number(1)?).await,
        Some("leader") => leader().await,
        Some("service") => service().await,
        _ => Err("lock N, queue N, barrier N, leader, or service".into()),
    }
}

/// Lock and unlock of one mutex, both ways.
async fn lock(count: usize) -> Result<(), Error> {
    let clients = clients(count).await?;
    for (way, is_plain) in [("by procedure", false), ("on plain znodes", true)] {
        let path = &fresh("lock");
        let figures = each(&clients, TIME, |client, _| async move {
            let mutex = Mutex::new(&client, path)?;
            let mutex = if is_plain { mutex.plain() } else { mutex };
            Ok(mutex.acquire().await?.release().await?)
        });
        println!("lock and unlock {way}, {count} contenders: {}", figures.await?.words(TIME));
    }
    Ok(())
}

/// Each worker pushes an item, takes the next one and acknowledges it.
async fn queue(count: usize) -> Result<(), Error> {
    let clients = clients(count).await?;
    let path = &fresh("queue");
    let figures = each(&clients, TIME, |client, _| async move {
        let queue = Queue::<u64>::new(&client, path)?;
        queue.push(&7).await?;
        queue.take().await?.ack().await?;
        Ok(())
    });
    println!("push, take and acknowledge, {count} workers: {}", figures.await?.words(TIME));
    Ok(())
}

/// So many enter a double barrier at once, and leave it: from the first call until the last is through.
async fn barrier(count: usize) -> Result<(), Error> {
    let clients = clients(count).await?;
    let path = fresh("barrier");
    let (mut entered, mut left) = (Vec::new(), Vec::new());
    for _ in 0..11 {
        let begun = Instant::now();
        let enter = clients.iter().map(|client| async {
            let barrier = DoubleBarrier::new(client, &path, clients.len() as u64)?;
            Ok::<_, Error>(barrier.enter().await?)
        });
        let inside = try_join_all(enter).await?;
        entered.push(begun.elapsed());
        let begun = Instant::now();
        try_join_all(inside.into_iter().map(|one| async { Ok::<_, Error>(one.leave().await?) })).await?;
        left.push(begun.elapsed());
    }
    for (what, times) in [("enter", entered), ("leave", left)] {
        println!("{count} {what}: {}", Times::of(times).spread());
    }
    Ok(())
}

/// How long it is until another leads, after the leader has resigned, and after it has died without a word.
async fn leader() -> Result<(), Error> {
    let options = Options::load()?.with_session_timeout(SESSION);
    let path = fresh("election");
    let (mut resigned, mut died) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let mut first = Some(Mortal::connect(options.clone()).await?);
        let client = first.as_ref().ok_or("it is dead")?.client();
        let leadership = Election::new(client, &path)?.campaign().await?;
        let second = Client::connect(options.clone()).await?;
        let election = Election::new(&second, &path)?;
        let waits = tokio::spawn(async move { election.campaign().await.map(|leads| (leads, Instant::now())) });
        let watching = Election::new(&second, &path)?;
        while watching.candidates().await?.is_empty() {}
        let begun = Instant::now();
        let times = if round % 2 == 0 {
            leadership.resign().await?;
            &mut resigned
        } else {
            first.take().ok_or("it is dead")?.kill();
            &mut died
        };
        let (leads, at) = waits.await??;
        times.push(at.duration_since(begun));
        leads.resign().await?;
        second.close().await?;
        if let Some(first) = first {
            first.kill();
        }
    }
    for (what, times) in [("resigned", resigned), ("was killed (session of 2 s)", died)] {
        println!("another leads after one {what}: {}", Times::of(times).spread());
    }
    Ok(())
}

/// How long a dead instance stays in the views of others.
async fn service() -> Result<(), Error> {
    let watching = clients(16).await?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let at = fresh("services");
        let mortal = Mortal::connect(Options::load()?.with_session_timeout(SESSION)).await?;
        let _registration =
            Discovery::new(mortal.client(), &at)?.register(Instance::new("api", "10.0.0.7:8080")).await?;
        let views =
            watching.iter().map(|client| async { Ok::<_, Error>(Discovery::new(client, &at)?.view("api").await?) });
        let views = try_join_all(views).await?;
        for view in &views {
            while view.instances().all.is_empty() {
                view.changed(&view.instances()).await?;
            }
        }
        let begun = Instant::now();
        mortal.kill();
        for view in &views {
            while !view.instances().all.is_empty() {
                view.changed(&view.instances()).await?;
            }
        }
        times.push(begun.elapsed());
    }
    println!("a dead instance (session of 2 s) is out of 16 views: {}", Times::of(times).spread());
    Ok(())
}
