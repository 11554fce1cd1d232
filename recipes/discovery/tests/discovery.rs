//! Services whose instances, sessions and members die: what views show, and what is registered.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, Zxid};
use conclave_discovery::{Discovery, Error, Instance, Instances, Pick, State, View};
use conclave_testing::{Cluster, Mortal, PATIENCE, eventually, eventually_async};

/// Of a session: long enough that a busy machine shows it, and short enough to wait for its end.
const SHORT: Duration = Duration::from_secs(5);

fn discovery(client: &Client) -> Discovery {
    Discovery::new(client, "/services").unwrap()
}

/// Waits until a view shows these instances, with so many healthy ones; gives what it shows.
async fn until(view: &View, ids: &[&str], healthy: &[&str]) -> Arc<Instances> {
    let mut seen = view.instances();
    let shows = async {
        loop {
            let names = |found: &[Arc<conclave_discovery::Found>]| -> Vec<String> {
                found.iter().map(|found| found.id.clone()).collect()
            };
            if names(&seen.all) == ids && names(&seen.healthy) == healthy {
                return;
            }
            seen = view.changed(&seen).await.unwrap();
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shows).await;
    assert!(shown.is_ok(), "not {ids:?}, healthy {healthy:?}: {:?}", view.instances());
    view.instances()
}

#[tokio::test(flavor = "multi_thread")]
async fn views_equal_the_tree_at_their_zxid_under_churn_and_the_dead_disappear() {
    /// So many states are looked at, and so many rounds made of them. A view shows not each.
    const ENOUGH: usize = 20;
    const ROUNDS: u64 = 80;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let view = discovery(&observer).view("api").await.unwrap();
    assert!(matches!(view.pick(Pick::Random), Err(Error::NoInstance { known: 0, .. })));
    // What the tree was after each transaction: only this client writes, one after the other.
    let writer = cluster.client("writer").await.unwrap();
    let seen_so_far = Arc::new(AtomicUsize::new(0));
    let seen_enough = {
        let (seen, begun) = (Arc::clone(&seen_so_far), Instant::now());
        move || seen.load(Ordering::SeqCst) >= ENOUGH || begun.elapsed() > 2 * PATIENCE
    };
    let churn = tokio::spawn(async move {
        let mut tree: BTreeMap<String, u64> = BTreeMap::new();
        let mut states: Vec<(Zxid, BTreeMap<String, u64>)> = vec![(Zxid(0), tree.clone())];
        writer.at("/services/api").create("").parents().await.unwrap();
        for round in (0_u64..).take_while(|round| *round < ROUNDS || !seen_enough()) {
            let id = format!("i{}", round * 7 % 5);
            let at = writer.at(format!("/services/api/{id}"));
            let data = Instance::new("api", "h:1").weight(round);
            let data = serde_json::to_vec(&data).unwrap();
            let zxid = match (tree.contains_key(&id), round % 3) {
                (false, _) => at.create(data).await.unwrap().stat.created,
                (true, 0) => at.set(data).await.unwrap().modified,
                (true, _) => {
                    at.delete().await.unwrap();
                    // A delete gives no zxid: its parent's stat does.
                    writer.at("/services/api").stat().linearizable().await.unwrap().unwrap().children_modified
                }
            };
            if tree.contains_key(&id) && round % 3 != 0 {
                tree.remove(&id);
            } else {
                tree.insert(id, round);
            }
            states.push((zxid, tree.clone()));
        }
        for id in tree.keys() {
            writer.at(format!("/services/api/{id}")).delete().await.unwrap();
        }
        states
    });
    let done = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn({
        let (view, done, count) = (view.clone(), Arc::clone(&done), Arc::clone(&seen_so_far));
        async move {
            let mut shown = Vec::new();
            let mut seen = view.instances();
            while !done.load(Ordering::SeqCst) {
                let Ok(now) = tokio::time::timeout(Duration::from_millis(100), view.changed(&seen)).await else {
                    continue;
                };
                seen = now.unwrap();
                let weights: BTreeMap<_, _> = seen.all.iter().map(|found| (found.id.clone(), found.weight)).collect();
                shown.push((seen.zxid, weights));
                count.store(shown.len(), Ordering::SeqCst);
            }
            shown
        }
    });
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let states = churn.await.unwrap();
    done.store(true, Ordering::SeqCst);
    let shown = looking.await.unwrap();
    assert!(shown.len() >= ENOUGH, "only {} states were seen", shown.len());
    let last = states.last().unwrap().0;
    for (zxid, weights) in shown.iter().filter(|(zxid, _)| *zxid <= last) {
        let (at, tree) = states.iter().rev().find(|(at, _)| at <= zxid).unwrap();
        assert_eq!(weights, tree, "shown as of {zxid}, which is the tree after {at}");
    }
    assert!(shown.is_sorted_by(|(a, _), (b, _)| a < b), "{shown:?}");
    cluster.restart(leader).await.unwrap();
    until(&view, &[], &[]).await;

    // One dies without a word, another leaves; a third stays.
    let options = cluster.options("mortal").unwrap().with_session_timeout(SHORT);
    let mortal = Mortal::connect(options).await.unwrap();
    let data = serde_json::to_vec(&Instance::new("api", "h:2")).unwrap();
    mortal.client().at("/services/api/dead").create(data).ephemeral().await.unwrap();
    observer.at("/services/api/no-instance").create("what is this?").await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let anns = discovery(&ann).register(Instance::new("api", "h:3").id("ann")).await.unwrap();
    let shown = until(&view, &["ann", "dead"], &["ann", "dead"]).await;
    assert_eq!(shown.undecodable, 1);
    mortal.kill();
    until(&view, &["ann"], &["ann"]).await;
    let services = discovery(&observer).services().await.unwrap();
    assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["api"]);
    assert_eq!(services[0].instances, 2);
    anns.deregister().await.unwrap();
    until(&view, &[], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_its_session_it_is_registered_exactly_once_and_stale_views_stay() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let ann = Client::connect(cluster.options("ann").unwrap().with_session_timeout(SHORT)).await.unwrap();
    let view = discovery(&observer).view("api").await.unwrap();
    // One whose client has a session, and loses it.
    let own = discovery(&ann).view("api").await.unwrap();
    let anns = discovery(&ann).register(Instance::new("api", "h:1").id("ann")).await.unwrap();
    let first = anns.fence().unwrap();
    let before = until(&view, &["ann"], &["ann"]).await;
    until(&own, &["ann"], &["ann"]).await;
    assert!(!view.is_stale());
    let watching = tokio::spawn({
        let (view, mut seen) = (view.clone(), Arc::clone(&before));
        async move {
            loop {
                seen = view.changed(&seen).await.unwrap();
                assert!(seen.all.len() <= 1, "it is registered {} times", seen.all.len());
                if seen.all.first().is_some_and(|found| found.weight == 7) {
                    return seen;
                }
            }
        }
    });

    // All die: what was known stays, and is picked from.
    for member in 1..=3 {
        cluster.kill(member).await;
    }
    eventually("the views are stale", || view.is_stale() && own.is_stale()).await.unwrap();
    assert_eq!(*view.instances(), *before);
    assert_eq!(view.pick(Pick::RoundRobin).unwrap().address, "h:1");
    eventually("its session is lost", || anns.state() == State::Absent).await.unwrap();
    // What it says of itself meanwhile is what it is registered again with.
    let said = anns.update(|instance| instance.weight = 7);
    let restart = async {
        for member in 1..=3 {
            cluster.launch(member).await.unwrap();
        }
        cluster.ready().await.unwrap();
    };
    // Restarting may take longer than the update waits: it is said all the same.
    let (_, ()) = tokio::join!(said, restart);
    let last = tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert!(last.all[0].since > first.zxid, "it is another znode");
    assert_eq!(anns.fence().map(|fence| fence.zxid), Some(last.all[0].since));
    eventually("the views are kept up again", || !view.is_stale() && !own.is_stale()).await.unwrap();
    assert_eq!(own.instances().all.len(), 1);
    // A program that was started again under the same id replaces the old one at once.
    let bob = cluster.client("bob").await.unwrap();
    let bobs = discovery(&bob).register(Instance::new("api", "h:2").id("ann")).await.unwrap();
    view.reached(bobs.fence().unwrap().zxid).await.unwrap();
    assert_eq!(view.instances().all.iter().map(|found| found.address.as_str()).collect::<Vec<_>>(), ["h:2"]);
    eventually("the old one knows it", || matches!(anns.state(), State::Taken { .. })).await.unwrap();
    drop(anns);
    drop(bobs);
    until(&view, &[], &[]).await;
    // Its client is closed: a view shows what it showed last.
    observer.close().await.unwrap();
    eventually("the view has ended", || view.failed().is_some()).await.unwrap();
    assert!(view.is_stale() && view.changed(&view.instances()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_ill_or_drains_is_seen_by_all_views_and_picked_by_none() {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let (anns, bobs) = (discovery(&ann), discovery(&bob).locality("eu", ""));
    let views = [anns.view("api").await.unwrap(), bobs.view("api").await.unwrap()];
    let is_well = Arc::new(AtomicBool::new(false));
    let check = {
        let is_well = Arc::clone(&is_well);
        move || {
            let is_well = is_well.load(Ordering::SeqCst);
            async move { if is_well { Ok(()) } else { Err("the database is away") } }
        }
    };
    let every = Duration::from_millis(50);
    let one = anns.register(Instance::new("api", "h:1").id("1").region("eu")).check(every, check).await.unwrap();
    let two = anns.register(Instance::new("api", "h:2").id("2")).await.unwrap();
    let beating = bobs.register(Instance::new("api", "h:3").id("3")).heartbeat(Duration::from_secs(2));
    let three = beating.await.unwrap();
    assert!(matches!(two.beat().await, Err(Error::NoHeartbeat { .. })));
    for view in &views {
        // With its first heartbeat, which goes by itself.
        view.reached(bob.zxid()).await.unwrap();
        let seen = until(view, &["1", "2", "3"], &["2"]).await;
        eventually("the reason is told", || view.instances().all[0].reason.as_deref() == Some("the database is away"))
            .await
            .unwrap();
        assert_eq!(seen.all[0].status.to_string(), "down");
        for _ in 0..20 {
            assert_eq!(view.pick(Pick::Random).unwrap().id, "2");
        }
    }
    is_well.store(true, Ordering::SeqCst);
    three.beat().await.unwrap();
    eventually_async("all are well", async || {
        three.beat().await.unwrap();
        views.iter().all(|view| view.instances().healthy.len() == 3)
    })
    .await
    .unwrap();
    assert_eq!(views[1].pick(Pick::Locality).unwrap().id, "1");
    let sticky = views[0].pick(Pick::Sticky("key")).unwrap().id.clone();
    assert_eq!(views[1].pick(Pick::Sticky("key")).unwrap().id, sticky, "views agree");

    // Who fails is avoided, unless all have.
    let view = &views[0];
    let first = view.pick(Pick::RoundRobin).unwrap();
    let failed: Result<(), &str> = first.clone().call(async |_| Err("refused")).await;
    assert!(failed.is_err());
    for _ in 0..10 {
        assert_ne!(view.pick(Pick::RoundRobin).unwrap().id, first.id);
    }
    assert!(first.clone().call(async |_| Ok::<_, ()>(())).await.is_ok());
    let mut ids: Vec<String> = (0..3).map(|_| view.pick(Pick::RoundRobin).unwrap().id.clone()).collect();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3"], "it is forgiven");

    // Drained it is seen by all and picked by none, whatever its check says.
    one.drain().await.unwrap();
    for view in &views {
        eventually_async("it drains", async || {
            three.beat().await.unwrap();
            let now = view.instances();
            now.all[0].status.to_string() == "draining" && now.healthy.len() == 2
        })
        .await
        .unwrap();
        for _ in 0..20 {
            assert_ne!(view.pick(Pick::Weighted).unwrap().id, "1");
        }
    }
    one.undrain().await.unwrap();
    two.update(|instance| {
        instance.id = "other".into();
        instance.weight = 0;
    })
    .await
    .unwrap();
    eventually("the weight is told", || view.instances().get("2").is_some_and(|two| two.weight == 0)).await.unwrap();
    assert!(view.instances().get("1").is_some_and(|one| one.is_healthy));
    // Its heartbeat goes with it, and it does not come back.
    three.beat().await.unwrap();
    one.deregister().await.unwrap();
    two.deregister().await.unwrap();
    three.deregister().await.unwrap();
    for view in &views {
        until(view, &[], &[]).await;
    }
    assert!(matches!(view.pick(Pick::Weighted), Err(Error::NoInstance { known: 0, .. })));
    // A registration that is dropped at any moment leaves nothing.
    for round in 0..30 {
        let register = anns.register(Instance::new("api", "h:1")).within(Duration::from_millis(round * 7 % 30));
        drop(register.await);
    }
    eventually_async("nothing is left", async || {
        bob.at("/services/api").children().linearizable().await.unwrap().children.is_empty()
    })
    .await
    .unwrap();
}
