//! The round trips of queues, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use conclave_client::Client;
use conclave_client::Sent::{Read, Session, Write};
use conclave_queues::Queue;
use conclave_testing::{Tally, eventually, eventually_async};
use futures::TryStreamExt;

const PATH: &str = "/queues/q";

/// Claims hold for longer than anything is waited for.
const CLAIMED: Duration = Duration::from_secs(120);

fn queue(client: &Client) -> Queue<String> {
    Queue::new(client, PATH).unwrap().visibility(CLAIMED)
}

async fn push(queue: &Queue<String>, item: &str) {
    queue.push(&item.to_owned()).await.unwrap();
}

async fn until_parked(client: &Client) {
    let parked = async || client.plugins().calls("queue").await.unwrap().len() == 1;
    eventually_async("a take is parked", parked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_take_the_stated_round_trips() {
    let cluster = Tally::cluster(Some("queue")).await.unwrap();
    // Of one principal, so that each sees the calls of the other.
    let (client, other) = (cluster.client("ann").await.unwrap(), cluster.client("ann").await.unwrap());
    let mut tally = Tally::new(&client);
    let (mine, others) = (queue(&client), queue(&other));

    push(&mine, "a").await;
    tally.row("Queue::push: 1, and 1 for the client's session", &[Session, Write]).await;
    push(&mine, "b").await;
    tally.row("Queue::push: 1", &[Write]).await;
    assert_eq!(mine.peek(5).await.unwrap().len(), 2);
    tally.row("Queue::peek: 1", &[Read]).await;
    assert_eq!(mine.stats().await.unwrap().ready, 2);
    tally.row("Queue::stats: 1", &[Read]).await;
    mine.settings().await.unwrap();
    tally.row("Queue::settings: 1", &[Read]).await;

    let job = mine.take().await.unwrap();
    tally.row("Queue::take of what is there: 1", &[Write]).await;
    job.extend(CLAIMED).await.unwrap();
    tally.row("Job::extend: 1", &[Write]).await;
    job.ack().await.unwrap();
    tally.row("Job::ack: 1", &[Write]).await;
    let job = mine.take().await.unwrap();
    tally.row("Queue::take: 1", &[Write]).await;
    job.nack().await.unwrap();
    tally.row("Job::nack: 1", &[Write]).await;
    let job = mine.take().now().await.unwrap().unwrap();
    tally.row("Take::now: 1", &[Write]).await;
    job.ack_with(client.transaction().create("/done", "")).await.unwrap();
    tally.row("Job::ack_with: 1", &[Write]).await;

    let takes = tokio::spawn(mine.take().into_future());
    tally.row("Queue::take, and wait: 1", &[Write]).await;
    until_parked(&other).await;
    push(&others, "c").await;
    drop(takes.await.unwrap().unwrap());
    tally.row("the item comes by itself; dropped it is given back: 1 that is not waited for", &[Write]).await;
    let job = mine.take().await.unwrap();
    tally.row("Queue::take: 1", &[Write]).await;
    job.ack().await.unwrap();
    tally.row("Job::ack: 1", &[Write]).await;

    // It waits for longer than half of its visibility.
    let visibility = Duration::from_secs(4);
    let begun = Instant::now();
    let takes = tokio::spawn(mine.take().visibility(visibility).into_future());
    tally.row("Queue::take, and wait: 1", &[Write]).await;
    until_parked(&other).await;
    eventually("half of the visibility is over", || begun.elapsed() > visibility * 3 / 5).await.unwrap();
    push(&others, "d").await;
    let job = takes.await.unwrap().unwrap();
    tally.row("the item comes by itself, and is extended: 1", &[Write]).await;
    job.ack().await.unwrap();
    tally.row("Job::ack: 1", &[Write]).await;

    mine.configure().await.unwrap();
    tally.row("Queue::configure: 1", &[Write]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_letters_and_workers_take_the_stated_round_trips() {
    // As many as a page has, and one.
    const LETTERS: usize = 17;
    let cluster = Tally::cluster(Some("queue")).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mut tally = Tally::new(&client);
    client.session().await.unwrap();
    tally.row("a client's session: 1", &[Session]).await;
    for (which, expected) in [("the first of all: 2", &[Read, Write, Write][..]), ("1", &[Read, Write])] {
        let queue = queue(&client).max_deliveries(1);
        push(&queue, which).await;
        tally.row(&format!("a push of a handle that says settings, {which} besides the push"), expected).await;
        push(&queue, which).await;
        tally.row("another push of that handle: 1", &[Write]).await;
    }

    let queue = queue(&client);
    for n in 4..LETTERS {
        push(&queue, &n.to_string()).await;
    }
    tally.row("pushes: 1 each", &[Write; LETTERS - 4]).await;
    for _ in 0..LETTERS {
        queue.take().await.unwrap().nack().await.unwrap();
    }
    tally.row("items are taken and given back: 2 each", &[Write; 2 * LETTERS]).await;
    let mut letters = queue.dead_letters();
    let first = letters.try_next().await.unwrap().unwrap();
    tally.row("a page of dead letters: 1", &[Read]).await;
    assert_eq!(letters.try_collect::<Vec<_>>().await.unwrap().len(), LETTERS - 1);
    tally.row("the next page: 1", &[Read]).await;
    queue.redrive(&first.id).await.unwrap();
    tally.row("Queue::redrive: 1", &[Write]).await;

    // A claim is extended when half of its time is left; far from that otherwise, however slow the machine.
    let queue = queue.visibility(Duration::from_secs(4));
    let (stop, mut over) = tokio::sync::watch::channel(false);
    let written = || client.sent(Write);
    let work = async |_| {
        let taken = written();
        eventually("the claim is extended", || written() > taken).await.unwrap();
        // It is the only one: no other is taken.
        stop.send_replace(true);
        Ok::<_, Infallible>(())
    };
    let over = async move { drop(over.wait_for(|over| *over).await) };
    let done = queue.workers(1).run_until(over, work).await.unwrap();
    assert_eq!((done.acked, done.lost), (1, 0));
    tally.row("a worker's item: 2, and 1 for each half of its visibility", &[Write; 3]).await;
}
