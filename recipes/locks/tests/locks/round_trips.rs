//! The round trips of locks, counted: what the table of the crate's page states.

use conclave_client::Client;
use conclave_client::Sent::{self, Read, Session, Watch, Write};
use conclave_locks::{Error, Guard, Kind, MultiLock, Mutex, RwLock, Semaphore, Upgrade};
use conclave_testing::{Cluster, Tally};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::common::{self, LONG, PATH, Way, until_in_line, until_waiting};

/// A look at a mutex: its line, what is in it, and its holder, sent together.
const LOOK: [Sent; 3] = [Read; 3];
/// A look at a read-write lock: also those who share it.
const LOOK_RW: [Sent; 4] = [Read; 4];
/// A look at a semaphore: also its capacity.
const LOOK_PERMITS: [Sent; 5] = [Read; 5];

/// The requests of all these steps.
fn all(steps: &[&[Sent]]) -> Vec<Sent> {
    steps.concat()
}

/// A client whose session is open, and what it has sent.
async fn counted(cluster: &Cluster, name: &str) -> (Client, Tally) {
    let client = cluster.client(name).await.unwrap();
    let mut tally = Tally::new(&client);
    client.session().await.unwrap();
    tally.row("the first use of a client: 1, its session", &[Session]).await;
    (client, tally)
}

async fn released<K: Kind>(guard: Guard<K>, tally: &mut Tally) {
    guard.release().await.unwrap();
    tally.row("release: 1", &[Write]).await;
}

fn waits(mutex: &Mutex) -> JoinHandle<conclave_locks::Result<Guard>> {
    tokio::spawn(mutex.acquire().within(LONG).into_future())
}

/// What is free is acquired, and tried, when the lock is new and when it is not.
async fn what_is_free_takes_the_stated_round_trips(way: Way) {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let is_plain = way == Way::Plain;
    let by = |plain: &[&[Sent]]| if is_plain { all(plain) } else { vec![Write, Watch] };
    let mutex = way.mutex(&client);
    for (which, steps) in
        [("the first time", &[&LOOK[..], &[Write, Write, Watch]][..]), ("", &[&LOOK, &[Write, Watch]])]
    {
        let guard = mutex.acquire().await.unwrap();
        tally.row(&format!("{way:?}: acquire what is free {which}: 1; plain 2, the first time 3"), &by(steps)).await;
        released(guard, &mut tally).await;
    }
    let guard = mutex.try_acquire().await.unwrap();
    tally.row("try: 1; plain 2", &by(&[&LOOK, &[Write, Watch]])).await;
    released(guard, &mut tally).await;

    let path = |kind: &str| format!("/locks/{kind}");
    let lock = RwLock::new(&client, path("rw")).unwrap();
    let lock = if is_plain { lock.plain() } else { lock };
    let reading = lock.read().await.unwrap();
    tally.row("read the first time: 1; plain 3", &by(&[&LOOK_RW, &[Write, Write, Watch]])).await;
    released(reading, &mut tally).await;
    let writing = lock.write().await.unwrap();
    tally.row("write: 1; plain 2", &by(&[&LOOK_RW, &[Write, Watch]])).await;
    released(writing, &mut tally).await;
    let reading = lock.try_read().await.unwrap();
    tally.row("try to read: 1; plain 2", &by(&[&LOOK_RW, &[Write, Watch]])).await;
    released(reading, &mut tally).await;
    let writing = lock.try_write().await.unwrap();
    tally.row("try to write: 1; plain 2", &by(&[&LOOK_RW, &[Write, Watch]])).await;
    released(writing, &mut tally).await;

    let semaphore = Semaphore::new(&client, path("permits"), 2).unwrap();
    let semaphore = if is_plain { semaphore.plain() } else { semaphore };
    // A place, a look at it, and the permits, besides the look before.
    let stand: &[&[Sent]] = &[&LOOK_PERMITS, &[Write], &LOOK_PERMITS, &[Write, Watch]];
    let first = all(&[&LOOK_PERMITS, &[Write], &all(stand)]);
    let permit = semaphore.acquire().await.unwrap();
    tally.row("permits the first time: 1; plain 6", &by(&[&first])).await;
    released(permit, &mut tally).await;
    let permit = semaphore.acquire().await.unwrap();
    tally.row("permits: 1; plain 4", &by(stand)).await;
    released(permit, &mut tally).await;
    let permit = semaphore.try_acquire().await.unwrap();
    tally.row("try permits: 1; plain 4", &by(stand)).await;
    released(permit, &mut tally).await;
}

/// What is not free is tried.
async fn what_is_not_free_takes_the_stated_round_trips(way: Way) {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let other = cluster.client("bob").await.unwrap();
    let is_plain = way == Way::Plain;
    let refused = |look: &[Sent]| if is_plain { all(&[look, look]) } else { all(&[&[Write], look]) };
    let holder = way.mutex(&other).acquire().await.unwrap();
    assert!(matches!(way.mutex(&client).try_acquire().await, Err(Error::NotFree { .. })));
    tally.row("try what is not free: 2", &refused(&LOOK)).await;
    holder.release().await.unwrap();

    let writer = way.rwlock(&other).write().await.unwrap();
    assert!(matches!(way.rwlock(&client).try_read().await, Err(Error::NotFree { .. })));
    tally.row("try to read what is not free: 2", &refused(&LOOK_RW)).await;
    assert!(matches!(way.rwlock(&client).try_write().await, Err(Error::NotFree { .. })));
    tally.row("try to write what is not free: 2", &refused(&LOOK_RW)).await;
    writer.release().await.unwrap();

    let path = "/locks/permits";
    let [own, others] = [&client, &other].map(|client| Semaphore::new(client, path, 1).unwrap());
    let permit = others.acquire().await.unwrap();
    let own = if is_plain { own.plain() } else { own };
    assert!(matches!(own.try_acquire().await, Err(Error::NotFree { .. })));
    // A look, a place, a look; the place is given back, which is not waited for; a look.
    let plain = all(&[&LOOK_PERMITS, &[Write], &LOOK_PERMITS, &[Write], &LOOK_PERMITS]);
    let expected = if is_plain { plain } else { refused(&LOOK_PERMITS) };
    tally.row("try permits that are not free: 2; plain 4, and 1 in the background", &expected).await;
    permit.release().await.unwrap();
}

/// Waits for one before it in line, and then for the holder: two changes. With somebody who is told, or without.
async fn waiting_takes_the_stated_round_trips(way: Way) {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let observer = way.mutex(&cluster.client("observer").await.unwrap());
    let (client, mut tally) = counted(&cluster, "ann").await;
    let [first, second] = [cluster.client("bob").await.unwrap(), cluster.client("cid").await.unwrap()];
    let steps = |plain: Vec<Sent>, procedure: &[Sent]| if way == Way::Plain { plain } else { procedure.to_vec() };
    for is_told in [false, true] {
        let holder = way.mutex(&first).acquire().await.unwrap();
        let before = waits(&way.mutex(&second));
        until_waiting(&observer, 1).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let wait = way.mutex(&client).acquire().within(LONG);
        let wait = if is_told { wait.on_wait(move |waiting| tell.send(waiting.ahead).unwrap()) } else { wait };
        let mine = tokio::spawn(wait.into_future());
        // A look, a place in line, a look, a watch.
        let plain = all(&[&LOOK, &[Write], &LOOK, &[Watch]]);
        // Who is told looks, and watches, beside the call.
        let beside = all(&[&LOOK, &[Watch]]);
        let tells: &[Sent] = if is_told { &beside } else { &[] };
        let row = "acquire, and wait: 1; plain 4; told: 2 more, plain none";
        tally.row(row, &steps(plain, &all(&[&[Write], tells]))).await;
        until_waiting(&observer, 2).await;

        holder.release().await.unwrap();
        let holder = before.await.unwrap().unwrap();
        let row = "who is before it has changed: none; plain 2; told: 2, plain no more";
        tally.row(row, &steps(beside.clone(), tells)).await;
        if is_told {
            assert_eq!((told.recv().await, told.recv().await), (Some(1), Some(0)));
        }
        holder.release().await.unwrap();
        let guard = mine.await.unwrap().unwrap();
        if is_told && way == Way::Procedure {
            // The change is heard beside the award: whether there is still a look is open.
            guard.release().await.unwrap();
            return;
        }
        tally
            .row(
                "the award: none; plain 2; its watch: 1 in the background",
                &steps(all(&[&LOOK, &[Write, Watch]]), &[Watch]),
            )
            .await;
        released(guard, &mut tally).await;
    }
}

/// Waits until readers are gone, and until permits are given back.
async fn waiting_for_those_who_share_takes_as_many(way: Way) {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let other = cluster.client("bob").await.unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let steps = |plain: &[&[Sent]], procedure: &[Sent]| if way == Way::Plain { all(plain) } else { procedure.to_vec() };
    let reader = way.rwlock(&other).read().await.unwrap();
    let lock = way.rwlock(&client);
    let mine = tokio::spawn(lock.write().within(LONG).into_future());
    tally.row("write, and wait: 1; plain 4", &steps(&[&LOOK_RW, &[Write], &LOOK_RW, &[Watch]], &[Write])).await;
    until_in_line(async || way.rwlock(&other).view().await, 1).await;
    reader.release().await.unwrap();
    let guard = mine.await.unwrap().unwrap();
    tally.row("the award: none; plain 2", &steps(&[&LOOK_RW, &[Write, Watch]], &[Watch])).await;
    released(guard, &mut tally).await;

    let path = "/locks/permits";
    let [own, others] = [&client, &other].map(|client| Semaphore::new(client, path, 1).unwrap());
    let permit = others.acquire().await.unwrap();
    let own = if way == Way::Plain { own.plain() } else { own };
    let mine = tokio::spawn(own.acquire().within(LONG).into_future());
    // Those who hold permits and the capacity are watched: two watches, sent together.
    let plain: &[&[Sent]] = &[&LOOK_PERMITS, &[Write], &LOOK_PERMITS, &[Watch, Watch]];
    tally.row("permits, and wait: 1; plain 4", &steps(plain, &[Write])).await;
    until_in_line(async || others.view().await, 1).await;
    permit.release().await.unwrap();
    let permit = mine.await.unwrap().unwrap();
    tally.row("the award: none; plain 2", &steps(&[&LOOK_PERMITS, &[Write, Watch]], &[Watch])).await;
    released(permit, &mut tally).await;
}

/// All that is the same by either way, or nearly so.
async fn the_rest_takes_the_stated_round_trips(way: Way) {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let (other, mut others) = counted(&cluster, "bob").await;
    let is_plain = way == Way::Plain;
    let lock = way.rwlock(&client);
    let reading = lock.read().await.unwrap();
    let first = if is_plain { all(&[&LOOK_RW, &[Write, Write, Watch]]) } else { vec![Write, Watch] };
    tally.row("read", &first).await;
    let also = way.rwlock(&other).read().await.unwrap();
    others.row("read", &if is_plain { all(&[&LOOK_RW, &[Write, Watch]]) } else { vec![Write, Watch] }).await;
    let Upgrade::Shared(reading) = reading.try_upgrade().await.unwrap() else { panic!("two read") };
    tally.row("try_upgrade when others read: 1", &[Write]).await;
    released(also, &mut others).await;
    let Upgrade::Exclusive(writing) = reading.try_upgrade().await.unwrap() else { panic!("it reads alone") };
    tally.row("try_upgrade: 1", &[Write, Watch]).await;
    let reading = writing.downgrade().await.unwrap();
    tally.row("downgrade: 1", &[Write, Watch]).await;
    lock.view().await.unwrap();
    // Of procedures the plugin's query and the capacity; on plain znodes each part: sent together.
    tally.row("a view of a read-write lock: 1", &[Read; 5][..if is_plain { 4 } else { 2 }]).await;
    released(reading, &mut tally).await;

    let mutex = way.mutex(&client);
    let guard = mutex.acquire().await.unwrap();
    tally.row("acquire", &if is_plain { all(&[&LOOK, &[Write, Watch]]) } else { vec![Write, Watch] }).await;
    mutex.view().await.unwrap();
    tally.row("a view of a mutex: 1", &[Read; 2][..if is_plain { 2 } else { 1 }]).await;
    let mut heard = Box::pin(guard.release_requested());
    assert!((&mut heard).now_or_never().is_none());
    tally.row("hearing of a request: 1 to begin", &[Watch]).await;
    way.mutex(&other).request_release("please").await.unwrap();
    others.row("asking for a release: 1", &[Write]).await;
    tokio::time::timeout(LONG, heard).await.unwrap();
    tally.row("a request comes by itself", &[]).await;
    released(guard, &mut tally).await;

    let both = MultiLock::new(&client, ["/locks/one", "/locks/two"]).unwrap();
    let both = if is_plain { both.plain() } else { both };
    for steps in [&[&LOOK[..], &[Write, Write, Watch]][..], &[&LOOK, &[Write, Watch]]] {
        let guard = both.acquire().await.unwrap();
        let one = if is_plain { all(steps) } else { vec![Write, Watch] };
        tally.row("a MultiLock of two: twice that of a mutex", &all(&[&one, &one])).await;
        guard.release().await.unwrap();
        tally.row("its release: 1 for each, sent together", &[Write, Write]).await;
    }
}

common::both_ways!(
    what_is_free_takes_the_stated_round_trips,
    what_is_not_free_takes_the_stated_round_trips,
    waiting_takes_the_stated_round_trips,
    waiting_for_those_who_share_takes_as_many,
    the_rest_takes_the_stated_round_trips,
);

/// Each task waits by a call of its own. What a client holds already the procedure gives it no second time: it is taken on
/// plain znodes.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_client_take_the_stated_round_trips() {
    let cluster = Tally::cluster(Some("lock")).await.unwrap();
    let observer = Mutex::new(&cluster.client("observer").await.unwrap(), PATH).unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let holder = observer.acquire().await.unwrap();
    let first = waits(&mutex);
    until_waiting(&observer, 1).await;
    let second = waits(&mutex);
    until_waiting(&observer, 2).await;
    tally.row("two tasks wait: 1 each", &[Write, Write]).await;
    holder.release().await.unwrap();
    let guard = first.await.unwrap().unwrap();
    tally.row("the first has it: none", &[Watch]).await;
    guard.release().await.unwrap();
    let guard = second.await.unwrap().unwrap();
    tally.row("its release: 1; the second has it: none", &[Write, Watch]).await;
    released(guard, &mut tally).await;

    let lock = RwLock::new(&client, "/locks/rw").unwrap();
    let reading = lock.read().await.unwrap();
    tally.row("read: 1", &[Write, Watch]).await;
    let also = lock.read().await.unwrap();
    tally.row("read once more: as plain, and 1", &all(&[&[Write], &LOOK_RW, &[Write, Write, Watch]])).await;
    released(reading, &mut tally).await;
    released(also, &mut tally).await;
    let semaphore = Semaphore::new(&client, "/locks/permits", 2).unwrap();
    let permit = semaphore.acquire().await.unwrap();
    tally.row("a permit: 1", &[Write, Watch]).await;
    let also = semaphore.acquire().await.unwrap();
    let plain = all(&[&LOOK_PERMITS, &[Write], &LOOK_PERMITS, &[Write, Watch]]);
    tally.row("another permit: as plain, and 1", &all(&[&[Write], &plain])).await;
    released(permit, &mut tally).await;
    released(also, &mut tally).await;
}
