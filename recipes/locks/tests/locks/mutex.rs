//! A lock that nothing happens to: exclusion, order, trying, times, withdrawing.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use conclave_client::Outcome;
use conclave_locks::{Error, Lost, State};
use conclave_testing::{Cluster, eventually};

use crate::common::{self, LONG, PATH, Way, assert_fenced_out, mutex, until_free, until_waiting, waiter};

async fn eight_clients_hold_it_one_at_a_time_and_fences_rise(way: Way) {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 25;
    let cluster = Cluster::start(3).await.unwrap();
    let observer = mutex(&cluster, way, "observer").await;
    let inside = Arc::new(AtomicUsize::new(0));
    let tokens = Arc::new(StdMutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..CLIENTS {
        let client = cluster.client(&format!("client-{n}")).await.unwrap();
        let (inside, tokens) = (Arc::clone(&inside), Arc::clone(&tokens));
        tasks.push(tokio::spawn(async move {
            let mutex = way.mutex(&client);
            let log = client.at(format!("/log/{n}"));
            log.create("").parents().await.unwrap();
            for round in 0..ROUNDS {
                // Some try before they wait: that must not let them in twice, or in front of somebody.
                let tried = if round % 5 == n % 5 { mutex.try_acquire().await.ok() } else { None };
                let guard = match tried {
                    Some(guard) => guard,
                    None => mutex.acquire().within(LONG).await.unwrap(),
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                tokens.lock().unwrap().push(guard.token());
                log.set(round.to_string()).fenced(guard.fence()).await.unwrap();
                assert_eq!(guard.state(), State::Held);
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two are inside");
                // By either way.
                if round % 2 == 0 { guard.release().await.unwrap() } else { drop(guard) }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let tokens = tokens.lock().unwrap().clone();
    assert_eq!(tokens.len(), CLIENTS * ROUNDS);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    until_free(&observer).await;
}

async fn it_is_served_in_the_order_of_the_line_and_nobody_passes_it(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let observer = mutex(&cluster, way, "observer").await;
    let first = mutex(&cluster, way, "first").await;
    let guard = first.acquire().await.unwrap();
    let served = Arc::new(StdMutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..6 {
        let mutex = mutex(&cluster, way, &format!("w{n}")).await;
        let served = Arc::clone(&served);
        tasks.push(tokio::spawn(async move {
            let guard = mutex.acquire().within(LONG).await.unwrap();
            served.lock().unwrap().push(n);
            guard.release().await.unwrap();
        }));
        let view = until_waiting(&observer, n + 1).await;
        assert_eq!(view.waiters[n].note, Some(format!("w{n}")));
        assert!(view.waiters.is_sorted_by_key(|waiter| waiter.place.clone()));
    }
    // One who only tries, as fast as it can, is not served before the line is empty.
    let hasty = mutex(&cluster, way, "hasty").await;
    let trying = {
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            loop {
                match hasty.try_acquire().await {
                    Ok(guard) => {
                        served.lock().unwrap().push(99);
                        return guard.release().await.unwrap();
                    }
                    Err(Error::NotFree { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    guard.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    trying.await.unwrap();
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4, 5, 99]);
    until_free(&observer).await;
}

async fn who_tries_or_waits_too_long_is_told_whom_it_waited_for(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob, eve) =
        (mutex(&cluster, way, "ann").await, mutex(&cluster, way, "bob").await, mutex(&cluster, way, "eve").await);
    assert_eq!(ann.view().await.unwrap(), conclave_locks::View::default(), "there is nothing yet");
    let guard = ann.try_acquire().await.unwrap();

    let Err(Error::NotFree { ahead: 0, holder: Some(holder) }) = bob.try_acquire().await else { panic!() };
    assert!(holder.principal.ends_with("ann"), "{}", holder.principal);
    assert_eq!(holder.note.as_deref(), Some("ann"));
    assert_eq!(holder.fence, guard.fence());
    assert!(bob.view().await.unwrap().waiters.is_empty(), "who tries does not stand in line");

    let waiting = waiter(&ann, &bob, 0).await;
    let told = Arc::new(StdMutex::new(Vec::new()));
    let tell = {
        let told = Arc::clone(&told);
        move |waiting: &conclave_locks::Waiting| told.lock().unwrap().push(waiting.clone())
    };
    let time = Duration::from_millis(300);
    let error = eve.acquire().within(time).on_wait(tell).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let Error::TimedOut { after, ahead: 1, holder: Some(holder) } = error else { panic!("{error:?}") };
    assert_eq!((after, &holder.fence), (time, &guard.fence()));
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].ahead, told[0].holder.as_ref()), (1, Some(&*holder)));
    let view = until_waiting(&eve, 1).await;
    assert_eq!(view.waiters[0].note.as_deref(), Some("bob"));

    drop(guard);
    let guard = waiting.await.unwrap().unwrap();
    guard.release().await.unwrap();
    until_free(&eve).await;
}

async fn a_dropped_wait_leaves_nothing_and_lets_the_next_come_up(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob, eve) =
        (mutex(&cluster, way, "ann").await, mutex(&cluster, way, "bob").await, mutex(&cluster, way, "eve").await);
    let guard = ann.acquire().await.unwrap();
    let bobs = waiter(&ann, &bob, 0).await;
    let eves = waiter(&ann, &eve, 1).await;
    bobs.abort();
    assert!(bobs.await.unwrap_err().is_cancelled());
    let view = until_waiting(&ann, 1).await;
    assert_eq!(view.waiters[0].note.as_deref(), Some("eve"));
    guard.release().await.unwrap();
    eves.await.unwrap().unwrap().release().await.unwrap();
    until_free(&ann).await;
}

async fn a_wait_dropped_at_any_moment_gives_back_what_it_had_taken(way: Way) {
    const ROUNDS: u32 = 150;
    let cluster = Cluster::start(1).await.unwrap();
    let observer = mutex(&cluster, way, "observer").await;
    let mutex = mutex(&cluster, way, "ann").await;
    drop(mutex.acquire().await.unwrap());
    let begun = Instant::now();
    drop(mutex.acquire().await.unwrap());
    let whole = begun.elapsed();
    let (mut had, mut dropped) = (0, 0);
    for round in 0..ROUNDS {
        // Up to twice the time that it takes: it is dropped between any two steps, also while the award is on its way.
        let time = whole * (round * 37 % ROUNDS) / (ROUNDS / 2);
        match tokio::time::timeout(time, mutex.acquire().into_future()).await {
            Ok(guard) => {
                had += 1;
                drop(guard.unwrap());
            }
            Err(_) => dropped += 1,
        }
    }
    assert!(had > 0 && dropped > 0, "had {had}, dropped {dropped}");
    // Never is the lock refused as the client's own: nobody has a guard.
    let guard = mutex.acquire().within(LONG).await.unwrap();
    guard.release().await.unwrap();
    until_free(&observer).await;
}

async fn who_holds_it_is_refused_it_and_not_made_to_wait_for_itself(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mutex = way.mutex(&client);
    let guard = mutex.acquire().await.unwrap();
    let other = way.mutex(&client.clone());
    for error in [mutex.acquire().await.unwrap_err(), other.try_acquire().await.unwrap_err()] {
        let Error::AlreadyHeld { fence } = error else { panic!("{error}") };
        assert_eq!(fence, guard.fence());
    }
    // Given back is given back, however it was, for this client's next request too.
    drop(guard);
    for _ in 0..20 {
        drop(other.acquire().await.unwrap());
        drop(mutex.try_acquire().await.unwrap());
    }
    // Two tasks of one client may wait for it, and get it in turn.
    let elsewhere = common::mutex(&cluster, way, "bob").await;
    let guard = elsewhere.acquire().await.unwrap();
    let one = waiter(&elsewhere, &mutex, 0).await;
    let two = waiter(&elsewhere, &other, 1).await;
    guard.release().await.unwrap();
    one.await.unwrap().unwrap().release().await.unwrap();
    two.await.unwrap().unwrap().release().await.unwrap();
    until_free(&elsewhere).await;
}

async fn work_is_run_under_the_lock_and_dropped_when_it_is_lost(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let mutex = way.mutex(&client);

    let kept = mutex.run(|held| async move { (held.state(), held) }).await.unwrap();
    assert_eq!((kept.0, kept.1.state(), kept.1.lost().await), (State::Held, State::Lost, Lost::Released));
    assert_eq!(mutex.view().await.unwrap().holder, None, "it is released when `run` returns");
    assert_fenced_out(&observer, kept.1.fence()).await;

    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let work = Dropped(Arc::clone(&drops));
    let running = mutex.run(|held| async move {
        let _work = work;
        observer.at(&held.fence().path).delete().await.unwrap();
        std::future::pending::<()>().await;
    });
    let error = tokio::time::timeout(LONG, running).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::HolderGone)), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    mutex.acquire().within(LONG).await.unwrap().release().await.unwrap();
}

async fn what_is_deleted_by_hand_is_noticed_and_a_holder_by_hand_is_respected(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let hand = cluster.client("operator").await.unwrap();
    let (ann, bob) = (mutex(&cluster, way, "ann").await, mutex(&cluster, way, "bob").await);
    let guard = ann.acquire().await.unwrap();
    let waiting = waiter(&ann, &bob, 0).await;
    let held = guard.held();
    hand.at(&held.fence().path).delete().await.unwrap();
    assert_eq!(guard.lost().await, Lost::HolderGone);
    assert_eq!((guard.state(), guard.time_left()), (State::Lost, Duration::ZERO));
    assert_fenced_out(&hand, held.fence()).await;
    let next = waiting.await.unwrap().unwrap();
    assert!(next.token() > guard.token());
    // Releasing what is lost takes nothing from the next.
    let error = guard.release().await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::HolderGone)), "{error}");
    assert_eq!((next.state(), held.state()), (State::Held, State::Lost));
    assert_eq!(hand.at(&next.fence().path).stat().await.unwrap().unwrap().created.0, next.token());

    // A place that is gone is told when its turn would be next.
    let waiting = waiter(&bob, &ann, 0).await;
    let place = bob.view().await.unwrap().waiters.remove(0).place;
    hand.at(&place).delete().await.unwrap();
    next.release().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::PlaceGone { place: gone } if *gone == place), "{error}");

    // A holder that is made by hand keeps all out until it is deleted.
    hand.at(&held.fence().path).create("maintenance").await.unwrap();
    let Err(Error::NotFree { holder: Some(holder), .. }) = ann.try_acquire().await else { panic!() };
    assert_eq!((holder.note.as_deref(), holder.session), (Some("maintenance"), None));
    let waiting = waiter(&bob, &ann, 0).await;
    hand.at(&held.fence().path).delete().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    // And so does a line that is deleted and made anew under those who wait.
    let waiting = waiter(&ann, &bob, 0).await;
    hand.at(format!("{PATH}/line")).delete().recursive().await.unwrap();
    let other = waiter(&bob, &mutex(&cluster, way, "eve").await, 0).await;
    guard.release().await.unwrap();
    assert!(
        matches!(waiting.await.unwrap(), Err(Error::PlaceGone { .. })),
        "another's place of the same name is not its"
    );
    other.await.unwrap().unwrap().release().await.unwrap();
    let free = ann.acquire().await.unwrap();
    eventually("it is held", || free.state() == State::Held).await.unwrap();
}

common::both_ways!(
    eight_clients_hold_it_one_at_a_time_and_fences_rise,
    it_is_served_in_the_order_of_the_line_and_nobody_passes_it,
    who_tries_or_waits_too_long_is_told_whom_it_waited_for,
    a_dropped_wait_leaves_nothing_and_lets_the_next_come_up,
    a_wait_dropped_at_any_moment_gives_back_what_it_had_taken,
    who_holds_it_is_refused_it_and_not_made_to_wait_for_itself,
    work_is_run_under_the_lock_and_dropped_when_it_is_lost,
    what_is_deleted_by_hand_is_noticed_and_a_holder_by_hand_is_respected,
);
