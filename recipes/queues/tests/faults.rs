//! A queue whose workers, sessions and leaders die: nothing is lost, nothing is two's at a time, nothing is done twice.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Error as ClientError, Options, Outcome, Refusal};
use conclave_queues::{Error, Job, Lost, Queue, State, Stats};
use conclave_testing::{Cluster, Mortal, eventually_async};
use tokio::task::JoinSet;

const PATH: &str = "/queues/q";
const ITEMS: u64 = 60;
const VISIBILITY: Duration = Duration::from_secs(3);

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start(members: u64) -> Cluster {
    let cluster = Cluster::start(members).await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    cluster.client("ann").await.unwrap().plugins().budgets("queue", unhurried).await.unwrap();
    cluster
}

fn queue(client: &Client) -> Queue<u64> {
    Queue::new(client, PATH).unwrap().visibility(VISIBILITY).max_deliveries(1_000)
}

/// What the workers saw.
#[derive(Default)]
struct Seen {
    /// Of each item its deliveries, by the zxid of their claim, with the zxids of the writes that were accepted under it.
    deliveries: BTreeMap<u64, BTreeMap<u64, Vec<u64>>>,
    /// Items that were acknowledged, and how often that was answered with yes.
    acked: BTreeMap<u64, u64>,
    /// Items whose acknowledgement was not answered.
    unknown: BTreeSet<u64>,
    dropped: u64,
    withdrawn: u64,
}

/// Works until it is stopped. When its session is over it goes on with a new client.
async fn work(mut client: Client, mut spare: Vec<Options>, seed: u64, seen: Arc<Mutex<Seen>>) {
    let mut q = queue(&client);
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        // Now and then it does not wait for what may be on its way.
        let patience = Duration::from_millis(if chance.is_multiple_of(3) { chance / 3 % 20 } else { 60_000 });
        let done = match tokio::time::timeout(patience, async { q.take().await }).await {
            Ok(Ok(job)) => deliver(&client, job, chance, &seen).await,
            Ok(Err(error)) => Err(error),
            Err(_) => {
                seen.lock().unwrap().withdrawn += 1;
                Ok(())
            }
        };
        match done {
            Err(error) if error.is_session_over() => {
                client = Client::connect(spare.pop().expect("a session more than was killed is over")).await.unwrap();
                q = queue(&client);
            }
            Err(error) => panic!("{error:?}"),
            Ok(()) => {}
        }
    }
}

/// Writes under the claim, and acknowledges in one of two ways, or gives back, or just drops it.
async fn deliver(client: &Client, job: Job<u64>, chance: u64, seen: &Mutex<Seen>) -> Result<(), Error> {
    let (item, fence) = (*job, job.fence());
    seen.lock().unwrap().deliveries.entry(item).or_default().entry(fence.zxid.0).or_default();
    match client.at(format!("/log/{item}")).create("").or_set().fenced(fence.clone()).in_session().await {
        Ok(created) => {
            let zxid = created.stat.modified.0;
            seen.lock().unwrap().deliveries.get_mut(&item).unwrap().get_mut(&fence.zxid.0).unwrap().push(zxid);
        }
        Err(ClientError::Refused(Refusal::Fenced { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    // Whoever is stopped before the answer comes does not know either.
    let settles = chance % 8 > 1;
    if settles {
        seen.lock().unwrap().unknown.insert(item);
    }
    let done = match chance % 8 {
        0 => {
            drop(job);
            seen.lock().unwrap().dropped += 1;
            return Ok(());
        }
        1 => return ignore_lost(job.nack().await),
        _ if item % 2 == 0 => {
            let steps = client.transaction().create(format!("/done/{item}"), "").add("/sum", 1);
            job.ack_with(steps).await.map(drop)
        }
        _ => job.ack().await,
    };
    let mut seen = seen.lock().unwrap();
    match &done {
        Ok(()) => {
            *seen.acked.entry(item).or_default() += 1;
            seen.unknown.remove(&item);
        }
        Err(error) if error.outcome() == Outcome::Unknown => {}
        Err(_) => drop(seen.unknown.remove(&item)),
    }
    ignore_lost(done)
}

fn ignore_lost(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::ClaimOver { .. }) => Ok(()),
        done => done,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_death_loses_an_item_or_gives_it_to_two_or_lets_it_be_done_twice() {
    let mut cluster = start(3).await;
    let observer = cluster.client("observer").await.unwrap();
    for path in ["/log", "/done", "/sum"] {
        observer.at(path).create("").await.unwrap();
    }
    let q = queue(&observer);
    let seen = Arc::<Mutex<Seen>>::default();
    let mut workers = JoinSet::new();
    let mut clients = Vec::new();
    for n in 0..4 {
        let client = cluster.client(&format!("worker-{n}")).await.unwrap();
        let spare = vec![cluster.options(&format!("spare-{n}")).unwrap()];
        workers.spawn(work(client.clone(), spare, n + 1, Arc::clone(&seen)));
        clients.push(client);
    }
    // One whose sessions are killed.
    let victim = cluster.client("victim").await.unwrap();
    let mortal = Mortal::connect(cluster.options("mortal").unwrap().with_session_timeout(Duration::from_secs(2)));
    let mortal = mortal.await.unwrap();
    let mut producers = JoinSet::new();
    for n in 0..2 {
        let client = cluster.client(&format!("producer-{n}")).await.unwrap();
        producers.spawn(async move {
            // Both push all of them: the key keeps the doubles away.
            let q = queue(&client);
            for item in 0..ITEMS {
                q.push(&item).priority(u8::try_from(item % 10).unwrap()).dedup(item).await.unwrap();
            }
        });
    }
    // Both have something when they die. The pushes are on their way meanwhile.
    let held = (queue(&victim).take().await.unwrap(), queue(mortal.client()).take().await.unwrap());
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.kill_session(&victim).await.unwrap();
    mortal.kill();
    cluster.restart(leader).await.unwrap();
    cluster.kill_session(&clients[0]).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.kill_session(&clients[1]).await.unwrap();
    while let Some(pushed) = producers.join_next().await {
        pushed.unwrap();
    }
    cluster.restart(leader).await.unwrap();
    assert!(matches!(held.0.lost().await, Lost::SessionOver | Lost::RanOut));
    assert_eq!(held.0.state(), State::Lost);

    eventually_async("everything is done", async || {
        while let Some(ended) = workers.try_join_next() {
            ended.unwrap();
        }
        q.stats().await.is_ok_and(|stats| stats == Stats::default())
    })
    .await
    .unwrap();
    workers.shutdown().await;
    assert!(held.0.ack().await.is_err());

    // What was written together with the acknowledgement was written once; the rest was acknowledged once, or nobody knows.
    let done = observer.at("/done").children().await.unwrap().children.len();
    assert_eq!(done as u64, ITEMS / 2);
    assert_eq!(observer.at("/sum").get().await.unwrap().data, (ITEMS / 2).to_string());
    let seen = seen.lock().unwrap();
    for item in 0..ITEMS {
        let acked = seen.acked.get(&item).copied().unwrap_or_default();
        assert!(acked == 1 || acked == 0 && seen.unknown.contains(&item), "item {item} was acknowledged {acked} times");
    }
    // No write of a delivery was accepted after the next delivery began.
    let mut writes = 0;
    for (item, deliveries) in &seen.deliveries {
        let begun: Vec<u64> = deliveries.keys().copied().collect();
        for (n, (claim, accepted)) in deliveries.iter().enumerate() {
            let next = begun.get(n + 1).copied().unwrap_or(u64::MAX);
            assert!(accepted.iter().all(|zxid| claim < zxid && *zxid < next), "item {item}: {deliveries:?}");
            writes += accepted.len();
        }
    }
    // It did what it is about.
    let deliveries: usize = seen.deliveries.values().map(BTreeMap::len).sum();
    assert!(deliveries > ITEMS as usize && writes >= ITEMS as usize - 2, "{deliveries} deliveries, {writes} writes");
    assert!(seen.dropped > 0 && seen.withdrawn > 0, "{} dropped, {} withdrawn", seen.dropped, seen.withdrawn);
}
