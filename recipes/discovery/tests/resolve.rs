//! Views as services for tower: what is told adds up to what the view shows, and a balancer lives with it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use conclave_client::Client;
use conclave_discovery::{Discovery, Instance, Instances, Resolver, View};
use conclave_testing::{Cluster, Mortal, PATIENCE, eventually};
use futures::FutureExt;
use futures::stream::StreamExt;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::Constant;
use tower::{BoxError, Service, ServiceExt};

/// Of a session or a heartbeat: long enough that a busy machine shows it, and short enough to wait for its end.
const SHORT: Duration = Duration::from_secs(5);

fn discovery(client: &Client) -> Discovery {
    Discovery::new(client, "/services").unwrap()
}

/// The address that a service was made for.
type Made = String;

/// Who follows what a resolver tells, as a balancer does.
struct Follower {
    view: View,
    resolver: Resolver<Made>,
    services: BTreeMap<String, Made>,
    inserts: usize,
}

impl Follower {
    async fn new(client: &Client) -> Self {
        let view = discovery(client).view("api").await.unwrap();
        let resolver = view.resolve(|instance| instance.address.clone());
        Self { view, resolver, services: BTreeMap::new(), inserts: 0 }
    }

    /// Takes what is told next.
    async fn follow(&mut self) {
        let change = self.resolver.next().await.unwrap();
        self.take(change);
    }

    fn take(&mut self, change: Result<Change<String, Made>, Infallible>) {
        match change.unwrap() {
            Change::Insert(id, made) => {
                self.inserts += 1;
                assert!(self.services.insert(id.clone(), made).is_none(), "{id} came twice");
            }
            Change::Remove(id) => assert!(self.services.remove(&id).is_some(), "{id} went and was not there"),
        }
    }

    /// Takes all that is told by now. If the view stood still meanwhile, that is what it shows.
    fn catch_up(&mut self) {
        let before = self.view.instances();
        while let Some(Some(change)) = self.resolver.next().now_or_never() {
            self.take(change);
        }
        if before == self.view.instances() {
            assert_eq!(self.services, shown(&before), "as of {}", before.zxid);
        }
    }

    /// Follows until these have a service, each with its address.
    async fn until(&mut self, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(id, address)| ((*id).to_owned(), (*address).to_owned())).collect();
        let follows = async {
            while self.services != expected {
                self.follow().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, follows).await.is_ok(), "{:?} and not {expected:?}", self.services);
        self.catch_up();
    }
}

fn shown(instances: &Instances) -> BTreeMap<String, Made> {
    instances.healthy.iter().map(|found| (found.id.clone(), found.address.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_the_view_shows_whoever_comes_drains_moves_or_dies() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let mut follower = Follower::new(&observer).await;
    follower.catch_up();
    assert!(follower.resolver.next().now_or_never().is_none(), "nobody is there, and it waits");

    let ann = cluster.client("ann").await.unwrap();
    let one = discovery(&ann).register(Instance::new("api", "h:1").id("1")).await.unwrap();
    let two = discovery(&ann).register(Instance::new("api", "h:2").id("2")).await.unwrap();
    follower.until(&[("1", "h:1"), ("2", "h:2")]).await;
    // Draining and back.
    one.drain().await.unwrap();
    follower.until(&[("2", "h:2")]).await;
    one.undrain().await.unwrap();
    follower.until(&[("1", "h:1"), ("2", "h:2")]).await;
    // What a service is not made of leaves it alone; what it is made of, not.
    let inserts = follower.inserts;
    one.update(|instance| instance.weight = 7).await.unwrap();
    two.update(|instance| instance.address = "h:3".into()).await.unwrap();
    follower.until(&[("1", "h:1"), ("2", "h:3")]).await;
    assert_eq!(follower.inserts, inserts + 1);
    one.update(|instance| drop(instance.metadata.insert("team".into(), "core".into()))).await.unwrap();
    follower.view.reached(ann.zxid()).await.unwrap();
    follower.catch_up();
    assert_eq!(follower.inserts, inserts + 2, "its metadata are others");
    // A successor under the same id, at the same address, is another one.
    let bob = cluster.client("bob").await.unwrap();
    let successor = Instance::new("api", "h:1").id("1").metadata("team", "core");
    let successor = discovery(&bob).register(successor).await.unwrap();
    follower.view.reached(successor.fence().unwrap().zxid).await.unwrap();
    follower.catch_up();
    assert_eq!((follower.inserts, follower.services.len()), (inserts + 3, 2));
    drop(one);

    // One whose program dies, and one whose heartbeat ends.
    let options = cluster.options("mortal").unwrap().with_session_timeout(SHORT);
    let mortal = Mortal::connect(options).await.unwrap();
    let data = serde_json::to_vec(&Instance::new("api", "h:4")).unwrap();
    mortal.client().at("/services/api/4").create(data).ephemeral().await.unwrap();
    let beating = discovery(&bob).register(Instance::new("api", "h:5").id("5")).heartbeat(SHORT).await.unwrap();
    follower.until(&[("1", "h:1"), ("2", "h:3"), ("4", "h:4"), ("5", "h:5")]).await;
    mortal.kill();
    follower.until(&[("1", "h:1"), ("2", "h:3")]).await;
    beating.beat().await.unwrap();
    follower.until(&[("1", "h:1"), ("2", "h:3"), ("5", "h:5")]).await;

    // A leader dies while they come and go; at each moment that the view stands still it is equal.
    let churn = tokio::spawn({
        let services = discovery(&ann);
        async move {
            for round in 0..40_u32 {
                let instance = Instance::new("api", format!("c:{round}")).id(format!("c{}", round % 3));
                let churned = services.register(instance).await.unwrap();
                if round % 2 == 0 {
                    churned.drain().await.unwrap();
                }
                churned.deregister().await.unwrap();
            }
        }
    });
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    while !churn.is_finished() {
        // A moment without news is no failure: it is the next look that matters.
        _ = tokio::time::timeout(Duration::from_millis(20), follower.follow()).await;
        follower.catch_up();
    }
    churn.await.unwrap();
    drop((two, beating, successor));
    follower.until(&[]).await;

    // The client is closed: nothing is told any more, and that is no error.
    let cass = discovery(&ann).register(Instance::new("api", "h:6").id("6")).await.unwrap();
    follower.until(&[("6", "h:6")]).await;
    observer.close().await.unwrap();
    let end = tokio::time::timeout(PATIENCE, follower.resolver.next()).await.unwrap();
    assert!(end.is_none() && follower.view.failed().is_some());
    assert!(follower.resolver.next().await.is_none(), "it stays over");
    cass.deregister().await.unwrap();
}

/// What is told next.
async fn next<S>(resolver: &mut Resolver<S>) -> Change<String, S> {
    let next = tokio::time::timeout(PATIENCE, resolver.next()).await;
    next.expect("nothing is told").expect("it is over").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_and_goes_while_nobody_asks_is_not_told() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("me").await.unwrap();
    let services = discovery(&client);
    let view = services.view("api").await.unwrap();
    let mut resolver = view.resolve(|instance| instance.address.clone());
    let one = services.register(Instance::new("api", "h:1").id("1")).await.unwrap();
    let two = services.register(Instance::new("api", "h:2").id("2")).await.unwrap();
    view.reached(client.zxid()).await.unwrap();
    assert!(matches!(next(&mut resolver).await, Change::Insert(id, _) if id == "1"));
    // The second one would be told next: of what it is by then, or not at all.
    two.update(|instance| instance.address = "h:3".into()).await.unwrap();
    let three = services.register(Instance::new("api", "h:4").id("3")).await.unwrap();
    three.deregister().await.unwrap();
    one.update(|instance| instance.address = "h:5".into()).await.unwrap();
    view.reached(client.zxid()).await.unwrap();
    assert!(matches!(next(&mut resolver).await, Change::Insert(id, to) if id == "2" && to == "h:3"));
    assert!(matches!(next(&mut resolver).await, Change::Remove(id) if id == "1"));
    one.deregister().await.unwrap();
    two.deregister().await.unwrap();
    view.reached(client.zxid()).await.unwrap();
    assert!(matches!(next(&mut resolver).await, Change::Remove(id) if id == "2"));
    assert!(resolver.next().now_or_never().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_be_made_no_service_of_is_left_out_and_tried_again_when_it_is_another() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("me").await.unwrap();
    let services = discovery(&client);
    let view = services.view("api").await.unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let make = {
        let tries = Arc::clone(&tries);
        move |instance: &Instance| {
            tries.fetch_add(1, Ordering::Relaxed);
            instance.address.parse::<std::net::SocketAddr>()
        }
    };
    // Those that are left out are never told of, neither as coming nor as going.
    let mut resolver = view.try_resolve(make).remake_when(|was, is| was.tags != is.tags);
    let bad = services.register(Instance::new("api", "no address").id("bad")).await.unwrap();
    let good = services.register(Instance::new("api", "127.0.0.1:80").id("good")).await.unwrap();
    view.reached(client.zxid()).await.unwrap();
    let told = next(&mut resolver).await;
    assert!(matches!(&told, Change::Insert(id, _) if id == "good"), "{told:?}");
    // Another address is nothing here, and a tag is.
    good.update(|instance| instance.address = "127.0.0.1:81".into()).await.unwrap();
    bad.update(|instance| instance.address = "127.0.0.1:82".into()).await.unwrap();
    view.reached(client.zxid()).await.unwrap();
    assert!(resolver.next().now_or_never().is_none());
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    bad.update(|instance| instance.tags.push("mended".into())).await.unwrap();
    let told = next(&mut resolver).await;
    assert!(matches!(&told, Change::Insert(id, to) if id == "bad" && to.port() == 82), "{told:?}");
    bad.update(|instance| {
        instance.address = "none again".into();
        instance.tags.clear();
    })
    .await
    .unwrap();
    let told = next(&mut resolver).await;
    assert!(matches!(&told, Change::Remove(id) if id == "bad"), "{told:?}");
    bad.deregister().await.unwrap();
    good.deregister().await.unwrap();
    let told = next(&mut resolver).await;
    assert!(matches!(&told, Change::Remove(id) if id == "good"), "{told:?}");
    assert!(resolver.next().now_or_never().is_none());
}

/// Asks a balancer so often; gives how often each address has answered.
async fn ask<B>(balance: &mut B, times: usize) -> BTreeMap<String, usize>
where
    B: Service<(), Response = String, Error = BoxError>,
{
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let asked = async { balance.ready().await.unwrap().call(()).await.unwrap() };
        let address = tokio::time::timeout(PATIENCE, asked).await.unwrap();
        *answers.entry(address).or_default() += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_calls_those_that_are_healthy_and_no_others() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let view = discovery(&observer).view("api").await.unwrap();
    let resolver = view.resolve(|instance| {
        let address = instance.address.clone();
        tower::service_fn(move |()| ready(Ok::<_, BoxError>(address.clone())))
    });
    let mut balance: Balance<_, ()> = Balance::new(Constant::new(resolver, 1));
    assert!(balance.ready().now_or_never().is_none(), "nobody is there: it waits");
    // Her session is to survive the restart.
    let ann = cluster.options("ann").unwrap().with_session_timeout(4 * PATIENCE);
    let ann = Client::connect(ann).await.unwrap();
    let services = discovery(&ann);
    let one = services.register(Instance::new("api", "h:1").id("1")).await.unwrap();
    assert_eq!(ask(&mut balance, 1).await.keys().collect::<Vec<_>>(), ["h:1"]);
    let two = services.register(Instance::new("api", "h:2").id("2")).await.unwrap();
    view.reached(ann.zxid()).await.unwrap();
    let answers = ask(&mut balance, 200).await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["h:1", "h:2"], "{answers:?}");

    // From when the view shows it, nobody is called who drains, or where it was before.
    one.drain().await.unwrap();
    view.reached(ann.zxid()).await.unwrap();
    assert_eq!(ask(&mut balance, 50).await.keys().collect::<Vec<_>>(), ["h:2"]);
    two.update(|instance| instance.address = "h:3".into()).await.unwrap();
    view.reached(ann.zxid()).await.unwrap();
    assert_eq!(ask(&mut balance, 50).await.keys().collect::<Vec<_>>(), ["h:3"]);
    one.undrain().await.unwrap();
    view.reached(ann.zxid()).await.unwrap();
    assert_eq!(ask(&mut balance, 200).await.len(), 2);

    // Nobody answers for the cluster: those that were known are called.
    cluster.kill(1).await;
    eventually("the view is stale", || view.is_stale()).await.unwrap();
    assert_eq!(ask(&mut balance, 200).await.len(), 2);
    cluster.restart(1).await.unwrap();
    // They go, and it waits again; who comes is called.
    two.deregister().await.unwrap();
    one.deregister().await.unwrap();
    view.reached(ann.zxid()).await.unwrap();
    assert!(balance.ready().now_or_never().is_none() && balance.is_empty());
    let comes = async { services.register(Instance::new("api", "h:4").id("1")).await.unwrap() };
    let (answers, three) = tokio::join!(ask(&mut balance, 1), comes);
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["h:4"]);
    // Its client is closed: it goes on with whom it has.
    observer.close().await.unwrap();
    eventually("the view has ended", || view.failed().is_some()).await.unwrap();
    assert_eq!(ask(&mut balance, 50).await.len(), 1);
    three.deregister().await.unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(balance.poll_ready(&mut cx), Poll::Ready(Ok(()))));
}
