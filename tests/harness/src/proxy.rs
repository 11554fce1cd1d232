//! A user-space UDP proxy before a member's port: bad weather, and datagrams that a rule lets through or not.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::Error;

/// No QUIC packet is shorter; what is asks whether anybody listens, and the proxy does.
const LEAST_PACKET: usize = 21;

/// What happens to datagrams, of a thousand each, in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost.
    pub lost: u32,
    /// Delivered twice.
    pub twice: u32,
    /// Late, by up to [`Weather::delay`]: later ones overtake them.
    pub late: u32,
    /// The longest delay.
    pub delay: Duration,
}

/// What a proxy has done to datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Carried, in either direction.
    pub carried: u64,
    /// Lost to the weather.
    pub lost: u64,
    /// Delivered twice.
    pub twice: u64,
    /// Delivered late.
    pub late: u64,
    /// Dropped because their way was cut.
    pub cut: u64,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever dialled, to the member.
    There,
    /// From the member, back.
    Back,
}

/// Says whether a datagram passes: of which dialler, and which way.
pub type Rule = Box<dyn Fn(SocketAddr, Direction) -> bool + Send + Sync>;

/// A proxy before one port of a member. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    front: UdpSocket,
    member: SocketAddr,
    weather: Mutex<Weather>,
    mute: AtomicBool,
    rule: Rule,
    carried: AtomicU64,
    lost: AtomicU64,
    twice: AtomicU64,
    late: AtomicU64,
    cut: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("front", &self.front).field("member", &self.member).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens at `address` for those who want the port at `member`. Its tasks run on the runtime of this call.
    ///
    /// # Errors
    /// When the address is taken.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(address: SocketAddr, member: SocketAddr, weather: Weather) -> Result<Self, Error> {
        Self::start_with(address, member, weather, Box::new(|_, _| true))
    }

    /// As [`Proxy::start`], with a rule that every datagram is held against. It is asked often, and must not wait.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn start_with(address: SocketAddr, member: SocketAddr, weather: Weather, rule: Rule) -> Result<Self, Error> {
        let front = std::net::UdpSocket::bind(address)?;
        front.set_nonblocking(true)?;
        let front = UdpSocket::from_std(front)?;
        let zero = AtomicU64::default;
        let shared = Arc::new(Shared {
            front,
            member,
            weather: Mutex::new(weather),
            mute: AtomicBool::new(false),
            rule,
            carried: zero(),
            lost: zero(),
            twice: zero(),
            late: zero(),
            cut: zero(),
        });
        let task = tokio::spawn(Arc::clone(&shared).run());
        Ok(Self { shared, task })
    }

    /// Whether what the member says is dropped, while it still hears all: it carries requests out, and replies are lost.
    pub fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::Relaxed);
    }

    /// Changes the weather.
    pub fn weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// What it has done until now.
    #[must_use]
    pub fn done(&self) -> Done {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { carried, lost, twice, late, cut, .. } = &*self.shared;
        Done { carried: read(carried), lost: read(lost), twice: read(twice), late: read(late), cut: read(cut) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.carried += other.carried;
        self.lost += other.lost;
        self.twice += other.twice;
        self.late += other.late;
        self.cut += other.cut;
    }
}

/// Where a datagram goes.
#[derive(Clone)]
enum Way {
    /// Through a socket that is the dialler, to the member.
    There(Arc<UdpSocket>),
    /// Back to this dialler.
    Back(SocketAddr),
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        // Dropped with this task, they end the flows.
        let mut backs = tokio::task::JoinSet::new();
        let mut buffer = vec![0; 65_536];
        loop {
            // An error is news of an earlier datagram: its dialler is gone.
            let Ok((len, dialler)) = self.front.recv_from(&mut buffer).await else { continue };
            if len < LEAST_PACKET || !self.passes(dialler, Direction::There) {
                continue;
            }
            let flow = match flows.get(&dialler) {
                Some(flow) => Arc::clone(flow),
                None => {
                    let Ok(flow) = self.open().await else { continue };
                    let flow = Arc::new(flow);
                    backs.spawn(Arc::clone(&self).back(Arc::clone(&flow), dialler));
                    flows.insert(dialler, Arc::clone(&flow));
                    flow
                }
            };
            self.carry(&Way::There(flow), &buffer[..len]).await;
        }
    }

    async fn open(&self) -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(self.member).await?;
        Ok(socket)
    }

    async fn back(self: Arc<Self>, flow: Arc<UdpSocket>, dialler: SocketAddr) {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error says that the member is down: as over a real network, the dialler is not told.
            let Ok(len) = flow.recv(&mut buffer).await else { continue };
            if self.passes(dialler, Direction::Back) {
                self.carry(&Way::Back(dialler), &buffer[..len]).await;
            }
        }
    }

    fn passes(&self, dialler: SocketAddr, direction: Direction) -> bool {
        let muted = direction == Direction::Back && self.mute.load(Ordering::Relaxed);
        let passes = (self.rule)(dialler, direction) && !muted;
        if !passes {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    async fn carry(self: &Arc<Self>, way: &Way, datagram: &[u8]) {
        self.carried.fetch_add(1, Ordering::Relaxed);
        let Weather { lost, twice, late, delay } = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let (dice, wait) = {
            let mut random = rand::rng();
            (random.random_range(0..1000), delay.mul_f64(random.random_range(0.0..1.0)))
        };
        if dice < lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else if dice < lost + twice {
            self.twice.fetch_add(1, Ordering::Relaxed);
            self.send(way, datagram).await;
            self.send(way, datagram).await;
        } else if dice < lost + twice + late {
            self.late.fetch_add(1, Ordering::Relaxed);
            let (shared, way, datagram) = (Arc::clone(self), way.clone(), datagram.to_vec());
            tokio::spawn(async move {
                // tidy: allow sleep, a datagram that is late is what is played here
                tokio::time::sleep(wait).await;
                shared.send(&way, &datagram).await;
            });
        } else {
            self.send(way, datagram).await;
        }
    }

    async fn send(&self, way: &Way, datagram: &[u8]) {
        // What cannot be sent is lost, as datagrams may be.
        let _ = match way {
            Way::There(flow) => flow.send(datagram).await,
            Way::Back(dialler) => self.front.send_to(datagram, dialler).await,
        };
    }
}
