//! Barriers that are opened and closed at once, double barriers whose members die at every step, latches that count once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conclave_barriers::{Barrier, DoubleBarrier, Error, Latch, State};
use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Error as ClientError, Refusal};
use conclave_testing::{Cluster, Mortal, eventually_async};
use tokio::task::JoinSet;

/// A wait that ends the test, not one that is waited out.
const LONG: Duration = Duration::from_secs(60);

const PATH: &str = "/barriers/b";

/// A cluster whose plugins have time: members that are built for debugging, on a machine that has other things to do, need
/// more than a cluster in earnest allows.
async fn start(members: u64) -> Cluster {
    let cluster = Cluster::start(members).await.unwrap();
    let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
    cluster.client("ann").await.unwrap().plugins().budgets("barrier", unhurried).await.unwrap();
    cluster
}

/// All clients of a test are of one principal, so that each sees the calls of all.
async fn client(cluster: &Cluster) -> Client {
    cluster.client("ann").await.unwrap()
}

async fn until_parked(client: &Client, count: usize) {
    let what = format!("{count} calls are parked");
    eventually_async(&what, async || client.plugins().calls("barrier").await.is_ok_and(|calls| calls.len() == count))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_opening_lets_all_pass_who_waited_however_short_it_was() {
    let mut cluster = start(3).await;
    let observer = client(&cluster).await;
    // Its writes are carried out in the order in which they are issued.
    let barrier = Barrier::new(&observer.pipelined(), PATH).unwrap();
    assert!(!barrier.is_closed().await.unwrap());
    barrier.wait().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&cluster).await);
    }
    for round in 0..4 {
        barrier.close().await.unwrap();
        barrier.close().await.unwrap();
        assert!(barrier.is_closed().await.unwrap());
        let mut waiting = JoinSet::new();
        for n in 0..12 {
            let barrier = Barrier::new(&clients[n % clients.len()], PATH).unwrap();
            waiting.spawn(barrier.wait().into_future());
        }
        let withdrawn = tokio::spawn(Barrier::new(&clients[0], PATH).unwrap().wait().into_future());
        until_parked(&observer, 13).await;
        withdrawn.abort();
        until_parked(&observer, 12).await;
        if round == 1 {
            let leader = cluster.leader().await.unwrap();
            cluster.kill(leader).await;
            cluster.launch(leader).await.unwrap();
        }
        if round == 2 {
            cluster.kill_session(&clients[3]).await.unwrap();
        }
        // One right after the other: nobody can look in between.
        let (opened, closed) = tokio::join!(barrier.open(), barrier.close());
        opened.unwrap();
        closed.unwrap();
        assert!(barrier.is_closed().await.unwrap());
        let mut over = 0;
        while let Some(passed) = tokio::time::timeout(LONG, waiting.join_next()).await.unwrap() {
            match passed.unwrap() {
                Ok(()) => {}
                Err(Error::SessionOver { .. }) => over += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(over, if round == 2 { 3 } else { 0 });
        if round == 2 {
            clients[3] = client(&cluster).await;
        }
    }
    barrier.close().await.unwrap();
    let error = barrier.wait().within(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    until_parked(&observer, 0).await;
    // One that is deleted is open.
    let waiting = tokio::spawn(barrier.wait().into_future());
    until_parked(&observer, 1).await;
    observer.at(PATH).delete().await.unwrap();
    waiting.await.unwrap().unwrap();
    observer.at(PATH).create("hello").await.unwrap();
    for error in [barrier.wait().await.unwrap_err(), barrier.close().await.unwrap_err()] {
        assert!(matches!(error, Error::Misplaced { .. }), "{error}");
    }
    assert!(matches!(barrier.is_closed().await, Err(Error::Misplaced { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latch_opens_when_all_have_counted_and_each_count_counts_once() {
    let mut cluster = start(3).await;
    let observer = client(&cluster).await;
    let latch = Latch::new(&observer, "/latches/l").unwrap();
    assert!(matches!(latch.count_down().await, Err(Error::NoLatch { .. })));
    assert!(matches!(latch.wait().await, Err(Error::NoLatch { .. })));
    assert!(matches!(latch.left().await, Err(Error::NoLatch { .. })));
    latch.set(10).await.unwrap();
    assert!(matches!(latch.set(3).await, Err(Error::LatchExists { left: 10, .. })));
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(latch.wait().into_future());
    }
    until_parked(&observer, 5).await;
    // Counted while leaders die, each by another client.
    let mut counting = JoinSet::new();
    for _ in 0..9 {
        let latch = Latch::new(&client(&cluster).await, "/latches/l").unwrap();
        counting.spawn(async move { latch.count_down().await.unwrap() });
    }
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let mut left = counting.join_all().await;
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    cluster.restart(leader).await.unwrap();
    assert_eq!(latch.left().await.unwrap(), 1);
    assert!(waiting.try_join_next().is_none(), "it opened before all had counted");
    assert_eq!(latch.count_down_by(7).await.unwrap(), 0);
    waiting.join_all().await.into_iter().for_each(|passed| passed.unwrap());
    // From now on it is open.
    latch.wait().await.unwrap();
    assert_eq!(latch.count_down().await.unwrap(), 0);
    latch.delete().await.unwrap();
    latch.delete().await.unwrap();
    latch.set(1).await.unwrap();
    let error = latch.wait().within(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    Latch::new(&observer, "/latches/none").unwrap().set(0).await.unwrap();
    Latch::new(&observer, "/latches/none").unwrap().wait().await.unwrap();
    until_parked(&observer, 0).await;
}

/// How many are inside each cycle, as they themselves know.
type Insides = Arc<Mutex<BTreeMap<u64, (usize, usize)>>>;

/// Enters and leaves, and sees that nobody is inside any more when it has left.
async fn cycle(barrier: DoubleBarrier, insides: Insides) -> u64 {
    let inside = barrier.enter().await.unwrap();
    let cycle = inside.cycle();
    {
        let mut insides = insides.lock().unwrap();
        let (ever, now) = insides.entry(cycle).or_default();
        (*ever, *now) = (*ever + 1, *now + 1);
    }
    tokio::task::yield_now().await;
    insides.lock().unwrap().get_mut(&cycle).unwrap().1 -= 1;
    inside.leave().await.unwrap();
    assert_eq!(insides.lock().unwrap()[&cycle].1, 0, "it is let out while others are inside");
    cycle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_of_a_cycle_enter_or_none_and_dead_ones_keep_nobody() {
    let mut cluster = start(3).await;
    let observer = client(&cluster).await;
    let insides = Insides::default();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(client(&cluster).await);
    }
    let barrier = |client: &Client| DoubleBarrier::new(client, PATH, 3).unwrap();
    // Six clients, three at a time, two times each, while the leader dies.
    let mut members = JoinSet::new();
    for client in &clients {
        let (barrier, insides) = (barrier(client), Arc::clone(&insides));
        members.spawn(async move {
            let first = cycle(barrier.clone(), Arc::clone(&insides)).await;
            (first, cycle(barrier, insides).await)
        });
    }
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let cycles = tokio::time::timeout(LONG, members.join_all()).await.unwrap();
    cluster.restart(leader).await.unwrap();
    assert!(cycles.iter().all(|(first, second)| first < second), "{cycles:?}");
    assert_eq!(*insides.lock().unwrap(), (0..4).map(|cycle| (cycle, (3, 0))).collect());

    // Those who die before the cycle begins do not count, however they die.
    let mortal =
        |name: &str| Mortal::connect(cluster.options(name).unwrap().with_session_timeout(Duration::from_secs(2)));
    let (dies, later) = (mortal("ann").await.unwrap(), mortal("ann").await.unwrap());
    let never = tokio::spawn(barrier(dies.client()).enter().into_future());
    let first = tokio::spawn(barrier(&clients[0]).enter().into_future());
    until_parked(&observer, 2).await;
    dies.kill();
    until_parked(&observer, 1).await;
    never.abort();
    let killed = tokio::spawn(barrier(&clients[5]).enter().into_future());
    until_parked(&observer, 2).await;
    cluster.kill_session(&clients[5]).await.unwrap();
    assert!(matches!(killed.await.unwrap(), Err(Error::SessionOver { .. })));
    until_parked(&observer, 1).await;
    let second = tokio::spawn(barrier(&clients[1]).enter().into_future());
    until_parked(&observer, 2).await;
    assert!(!first.is_finished());
    let third = barrier(later.client()).enter().await.unwrap();
    let mut guards = vec![first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert!(guards.iter().all(|guard| guard.cycle() == third.cycle()));
    // Its program dies: nothing of it is dropped.
    std::mem::forget(third);
    // Two are inside, and one that dies now keeps nobody. Who comes meanwhile waits for the next cycle.
    let next = tokio::spawn(barrier(&clients[2]).enter().into_future());
    until_parked(&observer, 1).await;
    let fence = guards[0].fence().await.unwrap();
    observer.at("/member").create("").fenced(fence.clone()).await.unwrap();
    assert!(guards.iter().all(|guard| guard.state() == State::Inside && guard.deadline() > Instant::now()));
    let again = barrier(&clients[0]).enter().await.unwrap_err();
    assert!(matches!(again, Error::AlreadyIn { .. }), "{again}");
    let cycle_now = guards[0].cycle();
    later.kill();
    // One drops its guard, the other waits: for the dead one alone.
    let last = guards.swap_remove(0);
    guards.clear();
    tokio::time::timeout(LONG, last.leave().into_future()).await.unwrap().unwrap();
    let late = observer.at("/member").set("").fenced(fence).await.unwrap_err();
    assert!(matches!(late, ClientError::Refused(Refusal::Fenced { .. })), "{late}");
    let others = (3..5).map(|n| tokio::spawn(barrier(&clients[n]).enter().into_future())).collect::<Vec<_>>();
    let next = tokio::time::timeout(LONG, next).await.unwrap().unwrap().unwrap();
    assert_eq!(next.cycle(), cycle_now + 1);
    // One whose session is over is not inside any more, and says so.
    let doomed = others.into_iter().map(|other| async { other.await.unwrap().unwrap() });
    let doomed = futures::future::join_all(doomed).await;
    cluster.kill_session(&clients[3]).await.unwrap();
    cluster.kill_session(&clients[4]).await.unwrap();
    for guard in doomed {
        guard.lost().await;
        assert_eq!(guard.state(), State::Lost);
        assert!(guard.leave().await.unwrap_err().is_session_over());
    }
    next.leave().await.unwrap();
}

/// Whether one who has this note is a member.
async fn has_member(client: &Client, note: &str) -> bool {
    let cycles = client.at(PATH).children().names_only().await.unwrap().children;
    for cycle in cycles {
        // A cycle may be over by now.
        let Ok(members) = client.at(format!("{PATH}/{}", cycle.name)).children().with_data().await else { continue };
        let is_it = |data: &[u8]| String::from_utf8_lossy(data).contains(&format!("\"{note}\""));
        if members.children.iter().any(|member| member.data.as_deref().is_some_and(is_it)) {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entering_or_leaving_dropped_at_any_moment_leaves_nobody_behind() {
    let cluster = start(1).await;
    let (ann, bob) = (client(&cluster).await, client(&cluster).await);
    let both = [&ann, &bob].map(|client| DoubleBarrier::new(client, PATH, 2).unwrap());
    let whole = async |begun: Instant| {
        let guards = futures::future::try_join_all(both.iter().map(|b| b.enter().into_future())).await.unwrap();
        futures::future::try_join_all(guards.into_iter().map(|guard| guard.leave().into_future())).await.unwrap();
        begun.elapsed()
    };
    whole(Instant::now()).await;
    let time = whole(Instant::now()).await;
    let (mut entered, mut dropped, mut left) = (0, 0, 0);
    for round in 0..60_u32 {
        if round % 10 == 9 {
            // None is taken for a member who is just being withdrawn.
            until_parked(&ann, 0).await;
        }
        let one = |n: u32| {
            // Up to twice the time that it takes, so that it is dropped between any two steps; now and then not at all.
            let time = if round % 10 == 9 { LONG } else { time * (round * (37 + n * 16) % 60) / 30 };
            let barrier = both[n as usize].clone();
            async move {
                let deadline = tokio::time::Instant::now() + time;
                let inside = tokio::time::timeout_at(deadline, barrier.enter().into_future()).await.ok()?.unwrap();
                // What is dropped half-way has left as well.
                Some(
                    tokio::time::timeout_at(deadline, inside.leave().into_future())
                        .await
                        .map(|left| left.unwrap())
                        .is_ok(),
                )
            }
        };
        for done in <[_; 2]>::from(tokio::join!(one(0), one(1))) {
            match done {
                None => dropped += 1,
                Some(out) => (entered, left) = (entered + 1, left + u32::from(out)),
            }
        }
    }
    // Who changes its mind, and at once changes it again, is not taken for the one that it was.
    for _ in 0..10 {
        let mut entering = both[0].enter().into_future();
        tokio::select! {
            _ = &mut entering => panic!("nobody else is there"),
            () = until_parked(&ann, 1) => {}
        }
        drop(entering);
        let again = both[0].enter().note("again").into_future();
        let second = async {
            // The other one comes when the first is withdrawn: it might pass with that one otherwise.
            eventually_async("it is the second one", async || has_member(&ann, "again").await).await.unwrap();
            both[1].run(|_| async {}).await.unwrap();
        };
        let both_pass = async { tokio::join!(async { again.await.unwrap().leave().await.unwrap() }, second) };
        tokio::time::timeout(LONG, both_pass).await.unwrap();
    }
    assert!(entered > 0 && dropped > 0 && left > 0, "{entered} entered, {left} left, {dropped} dropped");
    // Nobody is there: alone one waits, together they pass.
    until_parked(&ann, 0).await;
    let error = both[0].enter().within(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    tokio::time::timeout(LONG, whole(Instant::now())).await.unwrap();
    assert_eq!(ann.owned(ann.session().await.unwrap().id()).await.unwrap(), []);
    assert_eq!(bob.owned(bob.session().await.unwrap().id()).await.unwrap(), []);

    // The others are told that they are of another mind.
    let waiting = tokio::spawn(both[0].enter().note("the first").into_future());
    until_parked(&ann, 1).await;
    let disputed = DoubleBarrier::new(&bob, PATH, 5).unwrap().enter().await.unwrap_err();
    assert!(matches!(disputed, Error::Disputed { .. }), "{disputed}");
    let values = both[1].run(|cycle| async move { cycle });
    let (value, first) = tokio::join!(values, async { waiting.await.unwrap().unwrap().leave().await });
    first.unwrap();
    value.unwrap();
    // The work is dropped with the session.
    let waiting = tokio::spawn(both[0].enter().into_future());
    let lost = both[1].run(|_| async {
        cluster.kill_session(&bob).await.unwrap();
        std::future::pending::<()>().await;
    });
    let lost = tokio::time::timeout(LONG, lost).await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Lost { .. }), "{lost}");
    waiting.await.unwrap().unwrap().leave().await.unwrap();
}
