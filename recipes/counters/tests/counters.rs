//! Counters and sequences that many clients use while leaders die.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use conclave_client::Client;
use conclave_client::plugin::BudgetSettings;
use conclave_counters::{Counter, Error, Sequence};
use conclave_testing::Cluster;
use tokio::task::JoinSet;

/// A wait that ends the test, not one that is waited out.
const LONG: Duration = Duration::from_secs(60);

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start(members: u64) -> Cluster {
    let cluster = Cluster::start(members).await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    cluster.client("ann").await.unwrap().plugins().budgets("counter", unhurried).await.unwrap();
    cluster
}

/// A client that waits for an answer for as long as a test may take: no outcome is unknown.
async fn client(cluster: &Cluster, name: &str) -> Client {
    Client::connect(cluster.options(name).unwrap().with_request_timeout(LONG)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_addition_counts_once_while_leaders_die_and_whoever_watches_sees_the_sum() {
    const CLIENTS: i64 = 5;
    const ROUNDS: i64 = 30;
    let mut cluster = start(3).await;
    let observer = Counter::new(&client(&cluster, "observer").await, "/counters/of/visits").unwrap();
    let mut values = observer.watch().await.unwrap();
    assert_eq!(values.next().await.unwrap().unwrap(), 0, "there is no znode yet");
    let mut tasks = JoinSet::new();
    for n in 0..CLIENTS {
        let client = client(&cluster, &format!("client-{n}")).await;
        // By any way that there is: with a session and without.
        let client = if n % 2 == 0 { client } else { client.pipelined() };
        let counter = Counter::new(&client, "/counters/of/visits").unwrap();
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for round in 0..ROUNDS {
                seen.push(if round % 2 == 0 {
                    counter.increment().await.unwrap()
                } else {
                    counter.add(2).await.unwrap()
                });
                if round % 10 == 9 {
                    // Taken away and put back: each once, whatever else is going on.
                    let mut now = counter.get().await.unwrap();
                    while let Err(actual) = counter.compare_and_set(now, now - 5).await.unwrap() {
                        now = actual;
                    }
                    counter.add(5).await.unwrap();
                }
            }
            seen
        });
    }
    for _ in 0..2 {
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        assert!(observer.get().await.unwrap() >= 0);
        cluster.restart(leader).await.unwrap();
    }
    let mut counted = 0;
    while let Some(seen) = tasks.join_next().await {
        counted += seen.unwrap().len();
    }
    let sum = CLIENTS * ROUNDS * 3 / 2;
    assert_eq!(counted as i64, CLIENTS * ROUNDS);
    assert_eq!(observer.get().await.unwrap(), sum);
    let until = async { while values.next().await.unwrap().unwrap() != sum {} };
    tokio::time::timeout(LONG, until).await.unwrap();

    assert_eq!(observer.raise_to(sum + 10).await.unwrap(), sum + 10);
    assert_eq!(observer.raise_to(7).await.unwrap(), sum + 10);
    assert_eq!(observer.compare_and_set(1, 2).await.unwrap(), Err(sum + 10));
    assert_eq!(observer.compare_and_set(sum + 10, i64::MAX).await.unwrap(), Ok(()));
    assert!(matches!(observer.add(1).await, Err(Error::BadNumber { .. })));
    let hand = client(&cluster, "hand").await;
    hand.at("/counters/of/visits").set("many").await.unwrap();
    for error in [
        observer.get().await.unwrap_err(),
        observer.add(1).await.unwrap_err(),
        observer.compare_and_set(0, 1).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::BadNumber { .. }), "{error}");
    }
    let told = async {
        loop {
            if let Err(error) = values.next().await.unwrap() {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(LONG, told).await.unwrap();
    assert!(matches!(error, Error::BadNumber { .. }), "{error}");
    hand.at("/counters/of/visits").set("").await.unwrap();
    assert_eq!(values.next().await.unwrap().unwrap(), 0, "the watch goes on");
    assert_eq!(observer.increment().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_number_is_given_twice_while_leaders_die_and_futures_are_dropped() {
    let mut cluster = start(3).await;
    let mut tasks = JoinSet::new();
    for n in 0..5_u64 {
        let client = client(&cluster, &format!("client-{n}")).await;
        let sequence = Sequence::new(&client, "/sequences/orders").unwrap().block([1, 3, 10][n as usize % 3]);
        // Two tasks of each client share its block.
        for _ in 0..2 {
            let sequence = sequence.clone();
            tasks.spawn(async move {
                let (mut had, mut last) = (Vec::new(), 0);
                for round in 0..60_u64 {
                    let patience = if round % 4 == 0 { Duration::from_micros(round * 97 % 3_000) } else { LONG };
                    if let Ok(number) = tokio::time::timeout(patience, sequence.next()).await {
                        let number = number.unwrap();
                        assert!(number > last, "{number} after {last}");
                        had.push(number);
                        last = number;
                    }
                    if round == 30 {
                        had.extend(sequence.take(7).await.unwrap());
                    }
                }
                had
            });
        }
    }
    for _ in 0..2 {
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await;
        cluster.restart(leader).await.unwrap();
    }
    let (mut all, mut count) = (BTreeSet::new(), 0);
    while let Some(had) = tasks.join_next().await {
        let had = had.unwrap();
        count += had.len();
        all.extend(had);
    }
    assert!(count > 200, "{count} numbers are no test");
    assert_eq!(all.len(), count, "a number was given twice");
    assert!(all.first().is_some_and(|first| *first >= 1));

    // A handle that has had higher numbers notices when they would come again.
    let client = client(&cluster, "late").await;
    let sequence = Sequence::new(&client, "/sequences/orders").unwrap().block(5);
    let number = sequence.next().await.unwrap();
    assert!(all.last().is_some_and(|last| number > *last));
    client.at("/sequences/orders").delete().await.unwrap();
    assert_eq!(sequence.next().await.unwrap(), number + 1, "what was fetched stays good");
    let error = sequence.take(5).await.unwrap_err();
    assert!(matches!(error, Error::WentBack { was, .. } if was == number + 4), "{error}");
    assert!(matches!(sequence.take(0).await, Err(Error::BadCount { count: 0 })));
    assert!(matches!(sequence.clone().block(0).next().await, Err(Error::BadCount { count: 0 })));
    client.at("/sequences/orders").set("-9").await.unwrap();
    assert!(matches!(sequence.take(1).await, Err(Error::BadNumber { .. })));
    assert_eq!(Sequence::new(&client, "/sequences/other").unwrap().take(3).await.unwrap(), 1..4);
}
