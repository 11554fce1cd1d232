//! The ports of a `dev` cluster: chosen once, at its first start, and looked at before each.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use conclave_server::Config;

use crate::out::{Failure, Outcome};

/// Where the first client port is looked for.
const FIRST: u16 = 7101;
/// Members' ports lie this much above the clients' ones.
const PEER: u16 = 100;
/// Ports for metrics lie this much above the clients' ones.
const ADMIN: u16 = 200;
/// From one try to the next: more than a cluster has members.
const STEP: u16 = 10;
/// From one row of tries to the next: past the metrics of the row before.
const ROW: u16 = 300;

/// What a member's ports are, in words.
pub(crate) struct Trio {
    /// QUIC, for clients.
    pub(crate) client: SocketAddr,
    /// QUIC, for members.
    pub(crate) peer: SocketAddr,
    /// HTTP, for metrics and health.
    pub(crate) admin: SocketAddr,
}

impl Trio {
    /// The ports of the member of that number, from the first client port on.
    pub(crate) fn of(base: u16, id: u64) -> Self {
        let offset = u16::try_from(id - 1).expect("a dev cluster has at most five members");
        let at = |above: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, base + above + offset));
        Self { client: at(0), peer: at(PEER), admin: at(ADMIN) }
    }

    /// The ports that a configuration names.
    pub(crate) fn in_config(config: &Config) -> Vec<(SocketAddr, Use)> {
        let listen = &config.listen;
        let mut all = vec![(listen.client, Use::Client), (listen.peer, Use::Peer)];
        all.extend(listen.admin.map(|admin| (admin, Use::Admin)));
        all
    }

    fn all(&self) -> [(SocketAddr, Use); 3] {
        [(self.client, Use::Client), (self.peer, Use::Peer), (self.admin, Use::Admin)]
    }
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Clients, over QUIC.
    Client,
    /// Members, over QUIC.
    Peer,
    /// Metrics and health, over HTTP.
    Admin,
}

impl Use {
    /// What a member needs it for.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Client => "for clients (UDP)",
            Self::Peer => "for members (UDP)",
            Self::Admin => "for metrics (TCP)",
        }
    }
}

/// Why a port cannot be opened now; none if it can.
pub(crate) fn trouble(address: SocketAddr, what: Use) -> Option<std::io::Error> {
    match what {
        Use::Client | Use::Peer => UdpSocket::bind(address).err(),
        Use::Admin => TcpListener::bind(address).err(),
    }
}

/// The first client port of a new cluster.
///
/// # Errors
/// A refusal that names the port, when one that was asked for is taken; or when all are.
pub(crate) fn choose(asked: Option<u16>, members: u64) -> Outcome<u16> {
    if let Some(base) = asked {
        if u64::from(base) + u64::from(ADMIN) + members > u64::from(u16::MAX) {
            return Err(Failure::Usage(format!("--base-port {base}: ports up to {ADMIN} above it are needed too")));
        }
        return match first_taken(base, members) {
            None => Ok(base),
            Some((address, what, error)) => Err(taken(address, what, &error, "Choose another --base-port.")),
        };
    }
    let bases = (0..10).flat_map(|row| (0..10).map(move |step| FIRST + row * ROW + step * STEP));
    bases.into_iter().find(|base| first_taken(*base, members).is_none()).ok_or_else(|| {
        Failure::refused("port-in-use", "no free ports were found from 7101 on. Name some with --base-port")
    })
}

/// A port that cannot be had, as a refusal.
pub(crate) fn taken(address: SocketAddr, what: Use, error: &std::io::Error, advice: &str) -> Failure {
    let (ip, port, what) = (address.ip(), address.port(), what.text());
    if error.kind() == std::io::ErrorKind::AddrInUse {
        let text = format!("port {port} on {ip}, {what}, is in use by another program. Nothing was started. {advice}");
        return Failure::refused("port-in-use", text);
    }
    Failure::broken(format!("port {port} on {ip}, {what}, cannot be opened"), error)
}

fn first_taken(base: u16, members: u64) -> Option<(SocketAddr, Use, std::io::Error)> {
    (1..=members)
        .flat_map(|id| Trio::of(base, id).all())
        .find_map(|(address, what)| trouble(address, what).map(|error| (address, what, error)))
}
