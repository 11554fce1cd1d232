//! A user-space UDP proxy between clients and a member: bad weather, and connections that are cut for a while.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use conclave_testing::Error;
use rand::Rng;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

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
    /// Of the member's, dropped because its way back was cut.
    pub cut: u64,
}

/// A proxy before one member. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    member: SocketAddr,
    weather: Weather,
    mute: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
    twice: AtomicU64,
    late: AtomicU64,
    cut: AtomicU64,
}

impl Proxy {
    /// Listens at `address` for clients of the member at `member`.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start(address: SocketAddr, member: SocketAddr, weather: Weather) -> Result<Self, Error> {
        let front = UdpSocket::bind(address).await?;
        let zero = AtomicU64::default;
        let shared = Arc::new(Shared {
            front,
            member,
            weather,
            mute: AtomicBool::new(false),
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
    /// Through a socket that is the client, to the member.
    There(Arc<UdpSocket>),
    /// Back to this client.
    Back(SocketAddr),
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        // Dropped with this task, they end the flows.
        let mut backs = tokio::task::JoinSet::new();
        let mut buffer = vec![0; 65_536];
        loop {
            // An error is news of an earlier datagram: its client is gone.
            let Ok((len, client)) = self.front.recv_from(&mut buffer).await else { continue };
            let flow = match flows.get(&client) {
                Some(flow) => Arc::clone(flow),
                None => {
                    let Ok(flow) = self.open().await else { continue };
                    let flow = Arc::new(flow);
                    backs.spawn(Arc::clone(&self).back(Arc::clone(&flow), client));
                    flows.insert(client, Arc::clone(&flow));
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

    async fn back(self: Arc<Self>, flow: Arc<UdpSocket>, client: SocketAddr) {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error says that the member is down: as over a real network, the client is not told.
            let Ok(len) = flow.recv(&mut buffer).await else { continue };
            if self.mute.load(Ordering::Relaxed) {
                self.cut.fetch_add(1, Ordering::Relaxed);
            } else {
                self.carry(&Way::Back(client), &buffer[..len]).await;
            }
        }
    }

    async fn carry(self: &Arc<Self>, way: &Way, datagram: &[u8]) {
        self.carried.fetch_add(1, Ordering::Relaxed);
        let Weather { lost, twice, late, delay } = self.weather;
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
            Way::Back(client) => self.front.send_to(datagram, client).await,
        };
    }
}
