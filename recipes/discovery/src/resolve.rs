//! A view as what the balancers of tower take: services that are made, remade and dropped as instances come and go.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use conclave_client::CacheChanges;
use futures::stream::{Stream, StreamExt};
use tower::discover::Change;

use crate::instance::{Found, Instance};
use crate::view::View;

type Make<S> = Box<dyn FnMut(&Instance) -> Result<S, String> + Send>;
type Differ = Box<dyn Fn(&Instance, &Instance) -> bool + Send>;

/// The instances of a service as a [`tower::discover::Discover`]: what [`Balance`] takes, and whatever else tower and those
/// who build on it have for services that come and go. Made by [`View::resolve`]. Its keys are the ids of instances.
///
/// ```
/// use std::convert::Infallible;
///
/// use conclave_client::Client;
/// use conclave_discovery::{Discovery, Instance};
/// use tower::balance::p2c::Balance;
/// use tower::load::Constant;
/// use tower::{Service, ServiceExt};
///
/// # async fn example(client: Client) -> Result<(), conclave_testing::Error> {
/// let services = Discovery::new(&client, "/services")?;
/// let me = services.register(Instance::new("api", "10.0.0.1:80")).await?;
///
/// let view = services.view("api").await?;
/// let resolver = view.resolve(|instance| {
///     let address = instance.address.clone(); // in a real program: a connection to it, which is made when it is needed
///     tower::service_fn(move |question: &'static str| {
///         let answer = format!("{question} {address}");
///         async move { Ok::<_, Infallible>(answer) }
///     })
/// });
/// let mut api = Balance::new(Constant::new(resolver, 1)); // all of them the same load; see `tower::load` for real ones
/// assert_eq!(api.ready().await?.call("hello").await?, "hello 10.0.0.1:80");
/// me.deregister().await?;
/// # Ok(()) }
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # tokio::time::timeout(conclave_testing::PATIENCE, example(client)).await?
/// # }
/// ```
///
/// # What is told
/// | an instance | |
/// |---|---|
/// | is there and healthy, or is healthy again | `Insert` |
/// | is another than the one that its service was made for: its address, its ports, its metadata, or it was registered anew | `Remove`, then `Insert` |
/// | is down, drains, is without its heartbeat, or is gone | `Remove` |
/// | has another weight, version, place or tag | nothing, unless [`Resolver::remake_when`] says so |
///
/// An `Insert` is only told of who has no service, and a `Remove` only of who has one. Of one state of the view first all
/// `Insert`s of who is new are told, so that nobody stands without a service while others have come. What comes and goes
/// while nobody asks is not told at all. When all has been told, what was told is what [`View::healthy`] gives.
///
/// What is under way at a service that is dropped goes on: its future belongs to the caller. When nobody is healthy a
/// balancer is not ready, and waits; put a timeout before it.
///
/// # Whose services
/// A service is made at once, without asking the instance: let it connect when it is polled, as `tower::reconnect` and
/// tonic's `Endpoint::connect_lazy` do. [`Balance`] drops a service whose `poll_ready` fails, and does not ask for another: such
/// an instance comes back to it when it is remade or healthy again. Who connects again by itself is not dropped.
///
/// What is made need be no service: tonic's `Channel::balance_channel` wants each change with an `Endpoint`, which
/// [`View::try_resolve`] makes with `Endpoint::from_shared(format!("https://{}", instance.address))`. A task that sends on what
/// is told here keeps such a channel up.
///
/// [`Picked::failed`](crate::Picked::failed) is about [`View::pick`], and changes nothing here: who is slow or fails is
/// noticed by the measure of load.
///
/// # Its end
/// It ends when the view is not kept up any more, as when its client is closed: with the last state that the view has, and
/// never with an error, so that a balancer goes on with what it has. [`View::failed`] says why.
///
/// [`Balance`]: https://docs.rs/tower/0.5/tower/balance/p2c/struct.Balance.html
#[must_use = "nothing is told to who does not ask"]
pub struct Resolver<S> {
    view: View,
    /// From before the first look on.
    changes: CacheChanges,
    make: Make<S>,
    differ: Differ,
    told: Told,
    /// What is still to be told of the state that was seen; none when there is another one.
    plan: Option<VecDeque<Step>>,
    is_over: bool,
}

/// The instances that were told of: what they were when their service was made, and whether it could be made.
type Told = BTreeMap<String, (Arc<Found>, bool)>;

/// One thing that is to be told.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Insert(Arc<Found>),
    Remove(String),
}

/// Nothing is pinned in here.
impl<S> Unpin for Resolver<S> {}

impl<S> fmt::Debug for Resolver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("service", &self.view.service()).finish_non_exhaustive()
    }
}

impl View {
    /// Its instances as services, which are made by this closure. See [`Resolver`]. (With the crate's feature `tower`.)
    pub fn resolve<S>(&self, mut make: impl FnMut(&Instance) -> S + Send + 'static) -> Resolver<S> {
        self.try_resolve(move |instance| Ok::<_, Infallible>(make(instance)))
    }

    /// The same when not every instance can be made a service of, as when its address is none. Who can't is left out with
    /// a warning until it is another one.
    pub fn try_resolve<S, E: fmt::Display>(
        &self,
        mut make: impl FnMut(&Instance) -> Result<S, E> + Send + 'static,
    ) -> Resolver<S> {
        Resolver {
            changes: self.changes(),
            view: self.clone(),
            make: Box::new(move |instance| make(instance).map_err(|error| error.to_string())),
            differ: Box::new(differ),
            told: BTreeMap::new(),
            plan: None,
            is_over: false,
        }
    }
}

impl<S> Resolver<S> {
    /// When an instance, that was the first and is the second now, needs another service: instead of when its address, its
    /// ports or its metadata are others. Who was registered anew gets another one all the same.
    pub fn remake_when(mut self, differ: impl Fn(&Instance, &Instance) -> bool + Send + 'static) -> Self {
        self.differ = Box::new(differ);
        self
    }

    /// What it tells of.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Takes a step; gives what is told of it.
    fn take(&mut self, step: Step) -> Option<Change<String, S>> {
        match step {
            Step::Insert(found) => {
                let made = (self.make)(&found.instance);
                self.told.insert(found.id.clone(), (Arc::clone(&found), made.is_ok()));
                match made {
                    Ok(service) => Some(Change::Insert(found.id.clone(), service)),
                    Err(error) => {
                        let (service, id, address) = (&found.service, &found.id, &found.address);
                        tracing::warn!(%service, %id, %address, %error, "an instance can't be used");
                        None
                    }
                }
            }
            Step::Remove(id) => {
                let (_, was_made) = self.told.remove(&id)?;
                was_made.then_some(Change::Remove(id))
            }
        }
    }
}

impl<S> Stream for Resolver<S> {
    type Item = Result<Change<String, S>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Until it is going to wake this: what changes after the look is told after it.
        while !this.is_over {
            match this.changes.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(_))) => this.plan = None,
                Poll::Ready(Some(Err(_)) | None) => (this.plan, this.is_over) = (None, true),
                Poll::Pending => break,
            }
        }
        let mut plan = match this.plan.take() {
            Some(plan) => plan,
            None => plan(&this.told, &this.view.instances().healthy, &this.differ),
        };
        while let Some(step) = plan.pop_front() {
            if let Some(change) = this.take(step) {
                this.plan = Some(plan);
                return Poll::Ready(Some(Ok(change)));
            }
        }
        this.plan = Some(plan);
        if this.is_over { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// What of an instance its service is made of, unless it is said.
fn differ(was: &Instance, is: &Instance) -> bool {
    (&was.address, &was.ports, &was.metadata) != (&is.address, &is.ports, &is.metadata)
}

/// How what was told becomes what is there: who is new, then who is another, then who is gone.
fn plan(told: &Told, healthy: &[Arc<Found>], differ: &dyn Fn(&Instance, &Instance) -> bool) -> VecDeque<Step> {
    let mut plan: VecDeque<Step> =
        healthy.iter().filter(|found| !told.contains_key(&found.id)).cloned().map(Step::Insert).collect();
    for is in healthy {
        let Some((was, _)) = told.get(&is.id) else { continue };
        if was.since != is.since || differ(&was.instance, &is.instance) {
            plan.extend([Step::Remove(is.id.clone()), Step::Insert(Arc::clone(is))]);
        }
    }
    // They are in order of their ids.
    let is_there = |id: &str| healthy.binary_search_by(|found| found.id.as_str().cmp(id)).is_ok();
    plan.extend(told.keys().filter(|id| !is_there(id)).cloned().map(Step::Remove));
    plan
}

#[cfg(test)]
mod tests {
    use conclave_client::Zxid;

    use super::*;

    fn found(id: &str, since: u64, address: &str) -> Arc<Found> {
        let instance = Instance::new("api", address).id(id);
        Arc::new(Found::new(instance, Zxid(since), Zxid(since), false))
    }

    fn told(all: &[Arc<Found>]) -> Told {
        all.iter().map(|found| (found.id.clone(), (Arc::clone(found), true))).collect()
    }

    /// As text: `+` for an insert, `-` for a remove.
    fn steps(told: &Told, healthy: &[Arc<Found>]) -> String {
        let text = |step: Step| match step {
            Step::Insert(found) => format!("+{}", found.id),
            Step::Remove(id) => format!("-{id}"),
        };
        plan(told, healthy, &differ).into_iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_is_new_comes_first_and_who_is_another_goes_before_it_comes() {
        let [a, b, c] = [found("a", 1, "h:1"), found("b", 2, "h:2"), found("c", 3, "h:3")];
        assert_eq!(steps(&told(&[]), &[a.clone(), b.clone()]), "+a +b");
        assert_eq!(steps(&told(&[a.clone(), b.clone()]), &[b.clone(), c.clone()]), "+c -a");
        assert_eq!(steps(&told(&[a.clone(), b.clone()]), &[a.clone(), b.clone()]), "");
        assert_eq!(steps(&told(&[a.clone(), b.clone()]), &[]), "-a -b");
        let moved = found("a", 1, "h:9");
        assert_eq!(steps(&told(&[a.clone(), b.clone()]), &[moved, c]), "+c -a +a -b");
        // At the same address, and another program: what there was of the connection is gone.
        assert_eq!(steps(&told(&[a.clone(), b]), &[found("a", 7, "h:1")]), "-a +a -b");
        let with =
            |change: fn(Instance) -> Instance| Arc::new(Found::new(change(a.instance.clone()), Zxid(1), Zxid(8), true));
        for (change, expected) in [
            (with(|instance| instance.port("admin", 1)), "-a +a"),
            (with(|instance| instance.metadata("k", "v")), "-a +a"),
            (with(|instance| instance.weight(7).version("2").tag("blue").region("eu").zone("a")), ""),
        ] {
            assert_eq!(steps(&told(std::slice::from_ref(&a)), &[change]), expected);
        }
        let weighs = |was: &Instance, is: &Instance| was.weight != is.weight;
        assert_eq!(plan(&told(std::slice::from_ref(&a)), &[with(|instance| instance.weight(7))], &weighs).len(), 2);
        assert_eq!(plan(&told(&[a]), &[found("a", 1, "h:9")], &weighs).len(), 0);
    }
}
