//! The network of a cluster with proxies: who is cut off from whom, and what it does to datagrams.
//!
//! Every member has a proxy before its port for clients and one before its port for members; only these are known to
//! others. Each client has proxies of its own besides, which are all that its options name: by the address that it comes
//! from there it is known at the others too. Members dial from addresses of their own on the loopback network.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conclave_client::Options;
use tokio::runtime::Runtime;

use crate::ports::Ports;
use crate::proxy::{Direction, Proxy, Rule, Weather};
use crate::{Error, eventually_async};

/// The network that members dial from: all of 127.0.0.0/8 is this machine.
const DIAL_FROM: [u8; 2] = [127, 77];

/// Where a member dials others from.
pub(crate) fn dial_from(member: u64) -> IpAddr {
    // Tests have fewer members than that; more would share addresses, and be paused together.
    let [.., high, low] = member.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(DIAL_FROM[0], DIAL_FROM[1], high, low))
}

/// What is done to a client's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None passes.
    Cut,
    /// What it says passes, what it is told does not.
    NoReplies,
}

/// A client, by the number of the options that it was made with.
type ClientNumber = usize;

#[derive(Default)]
struct State {
    paused: BTreeSet<u64>,
    numbered: ClientNumber,
    clients: HashMap<SocketAddr, ClientNumber>,
    fates: HashMap<ClientNumber, Fate>,
}

/// Whom a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Members,
    Clients,
    /// One client, which thereby tells where it comes from.
    Client(ClientNumber),
}

/// What every proxy's rule looks at.
#[derive(Default)]
struct Board(Mutex<State>);

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passes(&self, member: u64, whom: For, dialler: SocketAddr, direction: Direction) -> bool {
        let mut state = self.state();
        if let For::Client(number) = whom {
            state.clients.insert(dialler, number);
        }
        if state.paused.contains(&member) {
            return false;
        }
        if whom == For::Members {
            return !state.paused.iter().any(|paused| dial_from(*paused) == dialler.ip());
        }
        match state.clients.get(&dialler).and_then(|number| state.fates.get(number)) {
            None => true,
            Some(Fate::Cut) => false,
            Some(Fate::NoReplies) => direction == Direction::There,
        }
    }
}

struct Front {
    member: u64,
    whom: For,
    address: SocketAddr,
    target: SocketAddr,
    /// None while the member does not run: then nobody listens, as on a machine where a process is gone.
    proxy: Option<Proxy>,
}

/// The proxies, on a runtime of their own: a test that computes does not hold them up.
pub(crate) struct Network {
    runtime: Option<Runtime>,
    board: Arc<Board>,
    fronts: Mutex<Vec<Front>>,
    weather: Mutex<Weather>,
    /// Of the proxies for one client each.
    ports: Ports,
}

impl Network {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("network").enable_all().build()?;
        Ok(Self {
            runtime: Some(runtime),
            board: Arc::default(),
            fronts: Mutex::default(),
            weather: Mutex::default(),
            ports: Ports::default(),
        })
    }

    /// Makes proxies before a member that will listen at these addresses; they begin with [`Network::open`].
    pub(crate) fn add_member(&self, member: u64, client: [SocketAddr; 2], peer: [SocketAddr; 2]) {
        let front = |whom, [address, target]: [SocketAddr; 2]| Front { member, whom, address, target, proxy: None };
        self.fronts().extend([front(For::Clients, client), front(For::Members, peer)]);
    }

    /// Proxies before these members for a client that is new: their addresses.
    pub(crate) fn add_client(&self, members: &[u64]) -> Result<Vec<SocketAddr>, Error> {
        let number = {
            let mut state = self.board.state();
            state.numbered += 1;
            state.numbered
        };
        let mut addresses = Vec::new();
        for member in members {
            let address = self.ports.udp()?;
            let mut fronts = self.fronts();
            let public = fronts.iter().find(|front| front.member == *member && front.whom == For::Clients);
            let public = public.ok_or_else(|| format!("there is no member {member}"))?;
            let (target, runs) = (public.target, public.proxy.is_some());
            let whom = For::Client(number);
            let proxy = if runs { Some(self.start(*member, whom, address, target)?) } else { None };
            fronts.push(Front { member: *member, whom, address, target, proxy });
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Begins to carry what is for a member.
    pub(crate) async fn open(&self, member: u64) -> Result<(), Error> {
        // An address that was given up a moment ago may still be held by what was on its way.
        let mut last = None;
        let opened = eventually_async("the proxies have their addresses", async || {
            last = self.try_open(member).err();
            last.is_none()
        });
        let opened = opened.await;
        opened.map_err(|late| last.map_or(late, |why| why))
    }

    fn try_open(&self, member: u64) -> Result<(), Error> {
        for front in self.fronts().iter_mut().filter(|front| front.member == member && front.proxy.is_none()) {
            front.proxy = Some(self.start(member, front.whom, front.address, front.target)?);
        }
        Ok(())
    }

    fn start(&self, member: u64, whom: For, address: SocketAddr, target: SocketAddr) -> Result<Proxy, Error> {
        let board = Arc::clone(&self.board);
        let rule: Rule = Box::new(move |dialler, direction| board.passes(member, whom, dialler, direction));
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = self.runtime.as_ref().ok_or("the network has ended")?;
        let _inside = runtime.enter();
        Proxy::start_with(address, target, weather, rule)
    }

    /// Nobody listens for a member any more.
    pub(crate) fn close(&self, member: u64) {
        for front in self.fronts().iter_mut().filter(|front| front.member == member) {
            front.proxy = None;
        }
        // Last: what it said before its end, and was not carried, is not carried now.
        self.board.state().paused.remove(&member);
    }

    /// Whether a member neither hears nor says anything.
    pub(crate) fn pause(&self, member: u64, paused: bool) {
        let mut state = self.board.state();
        if paused {
            state.paused.insert(member)
        } else {
            state.paused.remove(&member)
        };
    }

    /// What cuts a member off at once, wherever it is called, until [`Network::close`].
    pub(crate) fn cutter(&self, member: u64) -> impl Fn() + Send + Sync + use<> {
        let board = Arc::clone(&self.board);
        move || {
            board.state().paused.insert(member);
        }
    }

    pub(crate) fn is_paused(&self, member: u64) -> bool {
        self.board.state().paused.contains(&member)
    }

    /// What happens to the datagrams of the client that has these options.
    pub(crate) fn decide(&self, options: &Options, fate: Option<Fate>) -> Result<(), Error> {
        let is_named = |front: &Front| options.endpoints().contains(&front.address.to_string());
        let number = self.fronts().iter().find_map(|front| match front.whom {
            For::Client(number) if is_named(front) => Some(number),
            _ => None,
        });
        let number = number.ok_or("the client was not made with options of this cluster")?;
        let mut state = self.board.state();
        match fate {
            Some(fate) => state.fates.insert(number, fate),
            None => state.fates.remove(&number),
        };
        Ok(())
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
        for proxy in self.fronts().iter().filter_map(|front| front.proxy.as_ref()) {
            proxy.weather(weather);
        }
    }

    fn fronts(&self) -> MutexGuard<'_, Vec<Front>> {
        self.fronts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A runtime must not be dropped within another, and need not be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
