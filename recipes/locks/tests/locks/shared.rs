//! Read-write locks and semaphores: who may hold them together, in which order, and what is given back.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conclave_client::Client;
use conclave_locks::{Error, Lost, Overview, RwLock, Semaphore, State, Upgrade};
use conclave_testing::{Cluster, Mortal, PATIENCE, eventually, eventually_async};

use crate::common::{self, LONG, PATH, Way, assert_fenced_out, until_in_line};

async fn clients(cluster: &Cluster, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..count {
        clients.push(cluster.client(&format!("client-{n}")).await.unwrap());
    }
    clients
}

async fn until_empty(view: impl AsyncFn() -> conclave_locks::Result<Overview>) {
    eventually_async("nobody holds it or waits for it", async || {
        let Overview { holder, shared, line, .. } = view().await.unwrap();
        holder.is_none() && shared.is_empty() && line.is_empty()
    })
    .await
    .unwrap();
}

async fn readers_share_it_and_nobody_passes_the_line(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let clients = clients(&cluster, 5).await;
    let locks: Vec<RwLock> = clients.iter().map(|client| way.rwlock(client)).collect();
    // One by the other way: they are one line.
    let other = if way == Way::Plain { Way::Procedure } else { Way::Plain };
    let late = other.rwlock(&clients[4]);
    let (one, two) = (locks[0].read().await.unwrap(), locks[1].try_read().await.unwrap());
    assert_ne!(one.fence(), two.fence());
    assert!(matches!(locks[2].try_write().await, Err(Error::NotFree { ahead: 0, holder: Some(_) })));
    let writing = tokio::spawn(locks[2].write().within(LONG).into_future());
    until_in_line(async || late.view().await, 1).await;
    // Nobody passes who waits to write, who only tries neither.
    assert!(matches!(late.try_read().await, Err(Error::NotFree { ahead: 1, .. })));
    let reading = tokio::spawn(late.read().within(LONG).into_future());
    let seen = until_in_line(async || locks[0].view().await, 2).await;
    assert_eq!(seen.line.iter().map(|claim| claim.is_shared).collect::<Vec<_>>(), [false, true]);
    assert_eq!((seen.shared.len(), seen.holder), (2, None));
    // Who reads already would wait for one who waits for it.
    let Err(Error::AlreadyHeld { fence }) = locks[0].read().await else { panic!("it would wait for itself") };
    assert_eq!(fence, one.fence());
    assert!(matches!(locks[1].write().await, Err(Error::AlreadyHeld { .. })));

    one.release().await.unwrap();
    drop(two);
    let writing = writing.await.unwrap().unwrap();
    assert!(!reading.is_finished());
    assert!(matches!(locks[2].read().await, Err(Error::AlreadyHeld { .. })));
    writing.release().await.unwrap();
    let reading = reading.await.unwrap().unwrap();
    // Nobody waits: a client's tasks may each have a share.
    let again = late.read().await.unwrap();
    assert_eq!(late.view().await.unwrap().shared.len(), 2);
    reading.release().await.unwrap();
    again.release().await.unwrap();
    until_empty(async || late.view().await).await;
}

async fn it_goes_up_and_down_and_nobody_gets_in_between(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let clients = clients(&cluster, 3).await;
    let locks: Vec<RwLock> = clients.iter().map(|client| way.rwlock(client)).collect();
    let (one, two) = (locks[0].read().await.unwrap(), locks[1].read().await.unwrap());
    let held = one.held();
    let Upgrade::Shared(one) = one.try_upgrade().await.unwrap() else { panic!("two read") };
    assert_eq!((held.state(), one.fence()), (State::Held, held.fence()), "it was held all the time");
    two.release().await.unwrap();
    let waiting = tokio::spawn(locks[2].write().within(LONG).into_future());
    until_in_line(async || locks[1].view().await, 1).await;

    let Upgrade::Exclusive(writing) = one.try_upgrade().await.unwrap() else { panic!("it reads alone") };
    assert!(writing.token() > held.token());
    assert_eq!(held.lost().await, Lost::Released);
    assert_fenced_out(&clients[1], held.fence()).await;
    assert!(matches!(locks[1].try_read().await, Err(Error::NotFree { holder: Some(_), .. })));
    let reading = writing.downgrade().await.unwrap();
    assert!(!waiting.is_finished(), "somebody wrote in between");
    assert_eq!(locks[1].view().await.unwrap().shared.len(), 1);

    // Lost meanwhile, there is nothing to go up from.
    clients[1].at(&reading.fence().path).delete().await.unwrap();
    assert_eq!(reading.lost().await, Lost::HolderGone);
    assert!(matches!(reading.try_upgrade().await, Err(Error::Lost(Lost::HolderGone))));
    let writing = waiting.await.unwrap().unwrap();
    let down = writing.downgrade().await.unwrap();
    assert_eq!(down.state(), State::Held);
    down.release().await.unwrap();
    until_empty(async || locks[0].view().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_one_writes_or_some_read_whatever_happens() {
    const CLIENTS: usize = 5;
    const EACH: u32 = 16;
    const WRITER: u64 = 1_000;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = Way::Procedure.rwlock(&cluster.client("observer").await.unwrap());
    let inside = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (n, client) in clients(&cluster, CLIENTS).await.into_iter().enumerate() {
        let (inside, done) = (Arc::clone(&inside), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            for round in 0..EACH {
                let lock = Way::of(n + round as usize / 2).rwlock(&client);
                // Some give up after a while, wherever they are then.
                let patience = if round % 5 == 4 { Duration::from_millis(u64::from(round)) } else { LONG };
                if (n as u32 + round).is_multiple_of(3) {
                    let Ok(mut guard) = lock.write().within(patience).await else { continue };
                    assert_eq!(inside.fetch_add(WRITER, Ordering::SeqCst), 0, "it writes, and is not alone");
                    client.status().await.unwrap();
                    inside.fetch_sub(WRITER, Ordering::SeqCst);
                    if round % 2 == 0 {
                        let reading = guard.downgrade().await.unwrap();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < WRITER, "it reads while another writes");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        match reading.try_upgrade().await.unwrap() {
                            Upgrade::Exclusive(writing) => guard = writing,
                            Upgrade::Shared(_) => continue,
                        }
                        assert_eq!(inside.fetch_add(WRITER, Ordering::SeqCst), 0, "it writes, and is not alone");
                        inside.fetch_sub(WRITER, Ordering::SeqCst);
                    }
                    guard.release().await.unwrap();
                } else {
                    let Ok(guard) = lock.read().within(patience).await else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < WRITER, "it reads while another writes");
                    client.status().await.unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(guard);
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    eventually("it is handed on", || done.load(Ordering::SeqCst) > 12).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    cluster.restart(leader).await.unwrap();
    for task in tasks {
        tokio::time::timeout(2 * PATIENCE, task).await.expect("somebody was forgotten").unwrap();
    }
    until_empty(async || observer.view().await).await;
}

async fn permits_are_never_more_than_there_are_and_come_in_the_order_of_the_line(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let clients = clients(&cluster, 4).await;
    let of = |n: usize| way.semaphore(&clients[n], 5).note(format!("s{n}"));
    let four = of(0).acquire_many(4).await.unwrap();
    assert_eq!(four.permits(), 4);
    let all = tokio::spawn(of(1).acquire_many(5).within(LONG).into_future());
    until_in_line(async || of(3).view().await, 1).await;
    // There is one left, and it is not for who comes later.
    assert!(matches!(of(2).try_acquire().await, Err(Error::NotFree { ahead: 1, holder: Some(_) })));
    let one = tokio::spawn(of(2).acquire().within(LONG).into_future());
    let seen = until_in_line(async || of(3).view().await, 2).await;
    assert_eq!((seen.used(), seen.capacity), (4, Some(5)));
    assert_eq!(seen.line.iter().map(|claim| claim.permits).collect::<Vec<_>>(), [Some(5), Some(1)]);
    four.release().await.unwrap();
    let all = all.await.unwrap().unwrap();
    // Nobody gets any while all are held, whoever waits first.
    let time = Duration::from_millis(200);
    assert!(matches!(of(0).acquire().within(time).await, Err(Error::TimedOut { .. })));
    let seen = until_in_line(async || of(3).view().await, 1).await;
    assert_eq!((seen.used(), one.is_finished()), (5, false));
    // More of them wake who waits; who said another number is told.
    of(3).set_capacity(6).await.unwrap();
    let one = one.await.unwrap().unwrap();
    let Err(Error::OtherCapacity { actual: 6, said: 5, .. }) = of(3).acquire().await else { panic!() };
    let open = Semaphore::open(&clients[3], PATH).unwrap();
    assert!(matches!(open.acquire_many(7).await, Err(Error::BadPermits { permits: 7, capacity: 6, .. })));
    assert!(matches!(open.acquire_many(0).await, Err(Error::BadPermits { permits: 0, .. })));
    assert!(matches!(open.set_capacity(0).await, Err(Error::BadPermits { .. })));
    let none = Semaphore::open(&clients[3], "/locks/none").unwrap();
    let none = if way == Way::Plain { none.plain() } else { none };
    assert!(matches!(none.acquire().await, Err(Error::NoSemaphore { .. })));
    drop((all, one));
    until_empty(async || open.view().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_some_clients_hold_permits_and_a_client_that_dies_gives_them_back() {
    const CAPACITY: u64 = 5;
    const CLIENTS: usize = 3;
    const TASKS: u64 = 3;
    let cluster = Cluster::start(3).await.unwrap();
    let observer = Way::Procedure.semaphore(&cluster.client("observer").await.unwrap(), CAPACITY);
    let options = cluster.options("mortal").unwrap().with_session_timeout(Duration::from_secs(2));
    let mortal = Mortal::connect(options).await.unwrap();
    let dead = Way::Procedure.semaphore(mortal.client(), CAPACITY).acquire_many(CAPACITY).await.unwrap();
    let used = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (n, client) in clients(&cluster, CLIENTS).await.into_iter().enumerate() {
        for task in 0..TASKS {
            // Several tasks of one session: the first by the procedure, the others as they can.
            let (client, semaphore) = (client.clone(), Way::of(n).semaphore(&client, CAPACITY));
            let used = Arc::clone(&used);
            tasks.push(tokio::spawn(async move {
                for round in 0..6 {
                    let permits = (task + round) % 3 + 1;
                    let guard = semaphore.acquire_many(permits).within(LONG).await.unwrap();
                    let now = used.fetch_add(permits, Ordering::SeqCst) + permits;
                    assert!(now <= CAPACITY, "{now} permits of {CAPACITY} are held");
                    client.status().await.unwrap();
                    used.fetch_sub(permits, Ordering::SeqCst);
                    if round % 2 == 0 { guard.release().await.unwrap() } else { drop(guard) }
                }
            }));
        }
    }
    let all = CLIENTS * usize::try_from(TASKS).unwrap();
    until_in_line(async || observer.view().await, all).await;
    assert!(matches!(observer.try_acquire().await, Err(Error::NotFree { .. })));
    mortal.kill();
    for task in tasks {
        tokio::time::timeout(2 * PATIENCE, task).await.expect("somebody was forgotten").unwrap();
    }
    assert_eq!(dead.state(), State::Lost);
    until_empty(async || observer.view().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_try_at_the_same_time_and_exclude_each_other_never_both_have_it() {
    const ROUNDS: usize = 40;
    let cluster = Cluster::start(1).await.unwrap();
    let clients = clients(&cluster, 2).await;
    // One looks and takes, in two steps; the other comes in between.
    let (plain, caller) = (Way::Plain.rwlock(&clients[0]), Way::Procedure.rwlock(&clients[1]));
    let permits = |n: usize| Semaphore::new(&clients[n], "/locks/permits", 5).unwrap();
    let (plain_permits, permits) = (permits(0).plain(), permits(1));
    let mut had = 0;
    for _ in 0..ROUNDS {
        let (writing, reading) = tokio::join!(plain.try_write(), caller.try_read());
        assert!(writing.is_err() || reading.is_err(), "one writes while another reads");
        had += usize::from(writing.is_ok()) + usize::from(reading.is_ok());
        drop((writing, reading));
        let (reading, writing) = tokio::join!(plain.try_read(), caller.try_write());
        assert!(writing.is_err() || reading.is_err(), "one reads while another writes");
        drop((writing, reading));
        let (three, four) = tokio::join!(permits.try_acquire_many(3), plain_permits.try_acquire_many(4));
        assert!(three.is_err() || four.is_err(), "7 permits of 5 are held");
        drop((three, four));
        until_empty(async || caller.view().await).await;
        until_empty(async || permits.view().await).await;
    }
    assert!(had > ROUNDS / 2, "of {ROUNDS} times only {had} times one of them had it");
}

async fn a_wait_for_a_share_that_is_dropped_at_any_moment_leaves_nothing(way: Way) {
    const ROUNDS: u32 = 60;
    let cluster = Cluster::start(1).await.unwrap();
    let clients = clients(&cluster, 2).await;
    let (lock, other) = (way.rwlock(&clients[0]), way.rwlock(&clients[1]));
    let begun = std::time::Instant::now();
    drop(lock.read().await.unwrap());
    let whole = begun.elapsed();
    for round in 0..ROUNDS {
        let time = whole * (round * 37 % ROUNDS) / (ROUNDS / 2);
        let wait =
            async { if round % 2 == 0 { drop(lock.read().await.unwrap()) } else { drop(lock.write().await.unwrap()) } };
        // Whether it came to its end or not.
        drop(tokio::time::timeout(time, wait).await);
        if round % 10 == 0 {
            other.write().within(LONG).await.unwrap().release().await.unwrap();
        }
    }
    until_empty(async || other.view().await).await;
    lock.write().within(LONG).await.unwrap().release().await.unwrap();
}

common::both_ways!(
    readers_share_it_and_nobody_passes_the_line,
    it_goes_up_and_down_and_nobody_gets_in_between,
    permits_are_never_more_than_there_are_and_come_in_the_order_of_the_line,
    a_wait_for_a_share_that_is_dropped_at_any_moment_leaves_nothing,
);
