//! A queue that nothing happens to: order, delay, keys, bounds, claims, letters, workers; and futures dropped at any moment.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Error as ClientError, Outcome, Refusal};
use conclave_queues::{Error, ITEM_BYTES, Lost, Queue, Settings, State, Stats};
use conclave_testing::{Cluster, eventually, eventually_async};
use futures::TryStreamExt;

/// A wait that ends the test, not one that is waited out.
const LONG: Duration = Duration::from_secs(60);

const PATH: &str = "/queues/q";

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start(members: u64) -> Cluster {
    let cluster = Cluster::start(members).await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    cluster.client("ann").await.unwrap().plugins().budgets("queue", unhurried).await.unwrap();
    cluster
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Claims hold for longer than anything is waited for: what comes back was given back.
const CLAIMED: Duration = Duration::from_secs(120);

fn queue(client: &Client) -> Queue<String> {
    Queue::new(client, PATH).unwrap().visibility(CLAIMED)
}

async fn push(queue: &Queue<String>, item: &str) -> String {
    queue.push(&item.to_owned()).await.unwrap().id
}

async fn take(queue: &Queue<String>) -> conclave_queues::Job<String> {
    queue.take().within(LONG).await.unwrap()
}

/// Waits until so many takes and the like are parked.
async fn until_parked(client: &Client, count: usize) {
    eventually_async("calls are parked", async || client.plugins().calls("queue").await.unwrap().len() == count)
        .await
        .unwrap();
}

async fn until_stats(queue: &Queue<String>, stats: Stats) {
    let mut seen = Stats::default();
    let came = eventually_async("the queue has what it should", async || {
        seen = queue.stats().await.unwrap();
        seen == stats
    });
    came.await.unwrap_or_else(|error| panic!("{error}: {seen:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_come_in_order_and_keys_once_and_a_full_queue_refuses() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let q = queue(&client).bound(5);
    for (item, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 9), ("e", 5)] {
        assert!(!q.push(&item.to_owned()).priority(priority).await.unwrap().duplicate);
    }
    // Full: what is worked on counts.
    let job = q.take().now().await.unwrap().unwrap();
    let Error::Full { said, .. } = q.push(&"x".to_owned()).dedup("x").await.unwrap_err() else { panic!() };
    assert!(said.contains("it has 5 items, 5 are allowed"), "{said}");
    let error = q.push(&"x".to_owned()).wait_for_room(ms(50)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }) && error.is_retryable(), "{error}");
    let waits = tokio::spawn(q.push(&"x".to_owned()).dedup("x").wait_for_room(LONG).into_future());
    let mut order = job.to_string();
    job.ack().await.unwrap();
    // The refused push left no key behind.
    assert!(!waits.await.unwrap().unwrap().duplicate);
    for _ in 0..5 {
        let job = take(&q).await;
        order += job.as_str();
        job.ack().await.unwrap();
    }
    assert_eq!(order, "dbeacx");
    assert!(q.take().now().await.unwrap().is_none());

    let first = q.push(&"k".to_owned()).dedup(7).await.unwrap();
    assert!(q.push(&"other".to_owned()).dedup("7").await.unwrap().duplicate);
    let job = take(&q).await;
    assert_eq!((job.id(), job.key(), job.deliveries(), job.as_str()), (first.id.as_str(), Some("7"), 1, "k"));
    job.ack().await.unwrap();
    assert_eq!(q.push(&"k".to_owned()).dedup(7).await.unwrap().id, first.id, "whatever became of it");

    // What is not due is not there, and is given to who waits when it is; the later one that is due comes before it.
    q.push(&"late".to_owned()).priority(9).delay(ms(700)).await.unwrap();
    push(&q, "now").await;
    assert_eq!(q.stats().await.unwrap(), Stats { ready: 1, delayed: 1, ..Stats::default() });
    assert_eq!(q.peek(9).await.unwrap().iter().map(|seen| seen.item.clone().unwrap()).collect::<Vec<_>>(), ["now"]);
    for expected in ["now", "late"] {
        let job = take(&q).await;
        assert_eq!(job.as_str(), expected);
        job.ack().await.unwrap();
    }

    // What can't be is said before anything is sent.
    let raw = Queue::raw(&client, "/queues/raw").unwrap();
    let largest = Bytes::from(vec![7; ITEM_BYTES]);
    let error = raw.push(&[&largest[..], b"1"].concat().into()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    for key in ["", "a/b", &"k".repeat(256)] {
        let error = raw.push(&Bytes::new()).dedup(key).await.unwrap_err();
        assert!(matches!(error, Error::BadKey { .. }), "{error}");
    }
    let error = raw.push(&Bytes::new()).priority(10).await.unwrap_err();
    assert!(matches!(error, Error::BadPriority { priority: 10 }), "{error}");
    assert_eq!(raw.stats().await.unwrap(), Stats::default());
    // The largest comes back whole, also by a call that parked.
    raw.push(&largest).dedup("k".repeat(255)).await.unwrap();
    raw.take().now().await.unwrap().unwrap().nack().await.unwrap();
    let job = raw.take().within(LONG).await.unwrap();
    assert_eq!(*job, largest);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_of_two_minds_are_told_and_do_not_overrule_each_other() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let (three, four) = (queue(&client).max_deliveries(3).visibility(ms(5_000)), queue(&client).max_deliveries(4));
    push(&three, "1").await;
    let whole = Settings { max_deliveries: 3, visibility: ms(5_000), ..Settings::default() };
    assert_eq!(four.settings().await.unwrap(), whole);
    for error in [four.push(&"2".to_owned()).await.unwrap_err(), four.take().now().await.unwrap_err()] {
        assert!(matches!(error, Error::OtherSettings { .. }), "{error}");
        assert!(error.to_string().contains("configured with max_deliveries 3, this program says max_deliveries 4"));
    }
    // Who says nothing takes it as it is; who agrees with a part says the rest.
    push(&queue(&client), "3").await;
    push(&queue(&client).max_deliveries(3).bound(100_000), "4").await;
    four.configure().await.unwrap();
    push(&four, "5").await;
    push(&three, "6").await;
    assert_eq!(three.settings().await.unwrap(), Settings { max_deliveries: 4, visibility: CLAIMED, ..whole });
    assert!(matches!(push_error(&queue(&client).max_deliveries(3)).await, Error::OtherSettings { .. }));
    client.at("/queues/other").create("hello").await.unwrap();
    let other = Queue::<String>::new(&client, "/queues/other").unwrap();
    assert!(matches!(push_error(&other).await, Error::NoQueue { .. }));
    assert!(matches!(push_error(&other.bound(2)).await, Error::NoQueue { .. }));
}

async fn push_error(queue: &Queue<String>) -> Error {
    queue.push(&"x".to_owned()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_ours_until_its_deadline_and_settles_nothing_after_it() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let other = cluster.client("bob").await.unwrap();
    let q = queue(&client).max_deliveries(100);
    client.at("/total").create("0").await.unwrap();
    push(&q, "1").await;
    push(&q, "2").await;

    // Given back: at its old place. Later: after the others.
    let job = take(&q).await;
    let work = job.work();
    assert_eq!((job.state(), work.state(), job.as_str()), (State::Held, State::Held, "1"));
    assert!(job.time_left() > LONG && job.time_left() < CLAIMED && job.deadline() > Instant::now());
    job.nack().await.unwrap();
    assert_eq!((work.state(), work.lost().await, work.time_left()), (State::Lost, Lost::Settled, Duration::ZERO));
    take(&q).await.nack().delay(ms(100_000)).await.unwrap();
    assert_eq!(q.stats().await.unwrap(), Stats { ready: 1, delayed: 1, ..Stats::default() });
    let job = take(&q).await;
    assert_eq!(job.as_str(), "2");
    drop(job);
    until_stats(&q, Stats { ready: 1, delayed: 1, ..Stats::default() }).await;

    // It runs out, and everything that it does from then on is refused.
    let first = q.take().visibility(ms(400)).await.unwrap();
    assert_eq!((first.as_str(), first.deliveries()), ("2", 2));
    let fence = first.fence();
    client.at("/total").set("0").fenced(fence.clone()).await.unwrap();
    assert_eq!(first.lost().await, Lost::RanOut);
    let second = queue(&other).take().within(LONG).await.unwrap();
    assert_eq!((second.id(), second.deliveries()), (first.id(), 3));
    assert!(second.fence().zxid > fence.zxid);
    let late = client.at("/total").set("9").fenced(fence).await.unwrap_err();
    assert!(matches!(late, ClientError::Refused(Refusal::Fenced { .. })), "{late}");
    assert!(matches!(first.extend(LONG).await, Err(Error::ClaimOver { .. })));
    let error = first.ack_with(client.transaction().set("/total", "9")).await.unwrap_err();
    assert!(matches!(error, Error::ClaimOver { .. }) && error.outcome() == Outcome::NotApplied, "{error}");
    assert_eq!(second.state(), State::Held);

    // Done, and written, or nothing.
    let error = second.ack_with(other.transaction().set("/none", "9")).await.unwrap_err();
    assert!(matches!(&error, Error::Client(ClientError::Refused(Refusal::Step { step: 0, .. }))), "{error}");
    let third = take(&q).await;
    assert_eq!((third.deliveries(), other.at("/total").get().await.unwrap().data), (4, "0".into()));
    third.extend(CLAIMED * 2).await.unwrap();
    assert!(third.time_left() > CLAIMED);
    let work = third.work();
    let values = third.ack_with(client.transaction().add("/total", 2)).await.unwrap();
    assert_eq!((values.len(), work.lost().await), (1, Lost::Settled));
    assert_eq!(other.at("/total").get().await.unwrap().data, "2");
    assert_eq!(q.stats().await.unwrap(), Stats { delayed: 1, ..Stats::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_lives_while_it_is_kept_alive_and_is_sure_after_a_long_wait() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let q = queue(&client);
    let waits = tokio::spawn(q.take().visibility(ms(3_000)).into_future());
    until_parked(&client, 1).await;
    // Found by the timer when the take has waited for longer than its claim will hold.
    q.push(&"1".to_owned()).delay(ms(3_000)).await.unwrap();
    let mut job = waits.await.unwrap().unwrap();
    assert_eq!((job.state(), job.deliveries()), (State::Held, 1));
    assert!(job.time_left() > ms(1_000), "{:?}", job.time_left());
    job.keep_alive();
    let error = q.take().within(ms(4_500)).await.unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    assert_eq!(job.state(), State::Held);
    job.ack().await.unwrap();
    until_parked(&client, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_dropped_at_any_moment_loses_nothing_and_delivers_nothing() {
    const ITEMS: usize = 40;
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let q = queue(&client);
    for n in 0..ITEMS {
        push(&q, &n.to_string()).await;
    }
    drop(take(&q).await);
    let begun = Instant::now();
    take(&q).await.nack().await.unwrap();
    let whole = begun.elapsed();
    let (mut acked, mut dropped) = (BTreeMap::new(), 0);
    for round in 0_u32.. {
        // Up to the time that taking and giving back take: it is dropped between any two steps.
        let time = if acked.len() + 5 < ITEMS { whole * (round * 37 % 100) / 100 } else { LONG };
        match tokio::time::timeout(time, q.take().into_future()).await {
            Ok(job) => {
                let job = job.unwrap();
                *acked.entry(job.to_string()).or_insert(0) += 1;
                assert!(job.deliveries() <= 3, "a dropped take was a delivery: {job:?}");
                job.ack().await.unwrap();
            }
            Err(_) => dropped += 1,
        }
        if acked.len() == ITEMS {
            break;
        }
    }
    assert!(dropped > 0, "none was dropped");
    assert!(acked.values().all(|count| *count == 1), "{acked:?}");
    until_stats(&q, Stats::default()).await;
    until_parked(&client, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_keeps_nobody_and_can_be_put_back() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let raw = Queue::raw(&client, PATH).unwrap().max_deliveries(2);
    let numbers = Queue::<u64>::new(&client, PATH).unwrap().json();
    let bad = raw.push(&Bytes::from_static(b"seven")).await.unwrap().id;
    numbers.push(&8).await.unwrap();
    let Error::Undecodable(undecodable) = numbers.take().await.unwrap_err() else { panic!() };
    assert_eq!((&undecodable.id, undecodable.deliveries, &undecodable.data[..]), (&bad, 1, &b"seven"[..]));
    // The one behind it is not kept by it.
    let job = numbers.take().within(LONG).await.unwrap();
    assert_eq!(*job, 8);
    job.ack().await.unwrap();
    let error = numbers.take().within(LONG).await.unwrap_err();
    assert!(matches!(&error, Error::Undecodable(again) if again.deliveries == 2), "{error}");
    eventually_async("it is dead", async || numbers.stats().await.unwrap().dead == 1).await.unwrap();
    assert!(numbers.take().now().await.unwrap().is_none());
    let letters: Vec<_> = numbers.dead_letters().try_collect().await.unwrap();
    assert_eq!((letters.len(), &letters[0].id, &letters[0].data[..]), (1, &bad, &b"seven"[..]));
    assert!(letters[0].item.is_err() && letters[0].deliveries == 2);

    // Many letters are more than one page.
    for n in 0..20 {
        numbers.push(&n).await.unwrap();
        for _ in 0..2 {
            numbers.take().await.unwrap().nack().await.unwrap();
        }
    }
    let letters: Vec<_> = numbers.dead_letters().try_collect().await.unwrap();
    assert_eq!(
        letters.iter().filter_map(|letter| letter.item.clone().ok()).collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
    raw.redrive(&bad).await.unwrap();
    assert!(matches!(raw.redrive(&bad).await, Err(Error::NoLetter { .. })));
    let job = raw.take().await.unwrap();
    assert_eq!((&job[..], job.deliveries()), (&b"seven"[..], 1));
    job.ack().await.unwrap();
    assert_eq!(numbers.redrive_all().await.unwrap(), 20);
    assert_eq!(numbers.stats().await.unwrap(), Stats { ready: 20, ..Stats::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_settle_all_that_they_take_and_stop_when_they_are_told() {
    let cluster = start(1).await;
    let client = cluster.client("ann").await.unwrap();
    let q = queue(&client).visibility(ms(5_000));
    for n in 0..20 {
        push(&q, &n.to_string()).await;
    }
    let (seen, inside, most) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0), AtomicU64::new(0));
    let stop = eventually_async("all are done", async || q.stats().await.unwrap() == Stats::default());
    let done = q.workers(3).retry_after(ms(1)).run_until(stop, |work| {
        let (seen, inside, most) = (&seen, &inside, &most);
        async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            *seen.lock().unwrap().entry(work.to_string()).or_insert(0) += 1;
            inside.fetch_sub(1, Ordering::SeqCst);
            if work.deliveries() == 1 && work.ends_with('7') { Err("the first time it fails") } else { Ok(()) }
        }
    });
    let done = done.await.unwrap();
    assert_eq!((done.acked, done.failed, done.lost, done.undecodable), (20, 2, 0, 0));
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() == 20 && seen["7"] == 2 && seen["17"] == 2 && seen["1"] == 1, "{seen:?}");
    assert!((2..=3).contains(&most.into_inner()));

    // What they work on when they are stopped is finished; what they wait for is given up.
    push(&q, "last").await;
    let (begun, finish) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let stop = Arc::clone(&begun);
    let stopped = async move { stop.notified().await };
    let running = tokio::spawn({
        let (q, begun, finish) = (q.clone(), Arc::clone(&begun), Arc::clone(&finish));
        async move {
            let work = |_| async {
                begun.notify_one();
                finish.notified().await;
                Ok::<_, Error>(())
            };
            q.workers(2).run_until(stopped, work).await
        }
    });
    eventually_async("one is worked on", async || q.stats().await.unwrap().claimed == 1).await.unwrap();
    until_parked(&client, 0).await;
    assert!(!running.is_finished());
    finish.notify_one();
    assert_eq!(running.await.unwrap().unwrap().acked, 1);

    // Dropped as a whole they give back what they worked on.
    push(&q, "again").await;
    let never = tokio::spawn({
        let q = q.clone();
        async move { q.run(2, |_| std::future::pending::<Result<(), Error>>()).await }
    });
    eventually_async("one is worked on", async || q.stats().await.unwrap().claimed == 1).await.unwrap();
    never.abort();
    until_stats(&q, Stats { ready: 1, ..Stats::default() }).await;
    until_parked(&client, 0).await;

    // Work is dropped when somebody takes its claim away.
    let stop = async { eventually_async("it is gone", async || q.stats().await.unwrap() == Stats::default()).await };
    let short = q.clone().visibility(ms(1_000));
    let done = short.workers(1).run_until(stop, |work| {
        let client = client.clone();
        async move {
            client.at(&work.fence().path).delete().await.unwrap();
            std::future::pending::<Result<(), Error>>().await
        }
    });
    let done = tokio::time::timeout(LONG, done).await.unwrap().unwrap();
    assert_eq!((done.acked, done.lost), (0, 1));
    eventually("the client is connected", || client.state() == conclave_client::State::Connected).await.unwrap();
}
