//! The dialling end: connections to members, on either plane.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use tokio::task::JoinHandle;

use crate::Plane;
use crate::connection::{Connection, Live};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::socket;
use crate::tls::{self, Role, Verifier};
use crate::tuning::Tuning;

/// After so long without an answer to anything that was sent, it is asked whether anybody listens there at all.
const SILENCE: Duration = Duration::from_millis(200);

/// Dials members. Sockets are opened at the first call, one for each address family, and belong to the runtime of
/// that call: use one dialer in one runtime.
///
/// Dropping it leaves its connections open, but ends the watch over their age and certificates.
pub struct Dialer {
    plane: Plane,
    tuning: Tuning,
    transport: Arc<TransportConfig>,
    state: RwLock<State>,
    sockets: Mutex<Sockets>,
    live: Arc<Live>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("plane", &self.plane).field("tuning", &self.tuning).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct State {
    config: quinn::ClientConfig,
    verifier: Arc<Verifier>,
}

#[derive(Default)]
struct Sockets {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    sweeper: Option<JoinHandle<()>>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some(sweeper) = &self.sweeper {
            sweeper.abort();
        }
    }
}

impl Dialer {
    /// A dialer with default [`Tuning`].
    ///
    /// # Errors
    /// [`Error::Credentials`] when they do not fit the plane, or the key does not fit the certificate.
    pub fn new(credentials: &Credentials, plane: Plane) -> Result<Self, Error> {
        Self::with(credentials, plane, Tuning::default())
    }

    /// A dialer with other settings.
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn with(credentials: &Credentials, plane: Plane, tuning: Tuning) -> Result<Self, Error> {
        let principal = credentials.principal();
        let fits = match plane {
            Plane::Client => principal.client_name().is_some(),
            Plane::Peer => principal.member_id().is_some(),
        };
        if !fits {
            return Err(Error::Credentials(format!("{principal} cannot dial on the {plane}")));
        }
        Self::unchecked(credentials, plane, tuning)
    }

    /// Without asking whether the credentials fit the plane, so that tests see the other side refuse them.
    pub(crate) fn unchecked(credentials: &Credentials, plane: Plane, tuning: Tuning) -> Result<Self, Error> {
        let transport = tuning.transport(plane, true)?;
        let state = State::new(credentials, plane, &transport)?;
        Ok(Self {
            plane,
            tuning,
            transport,
            state: RwLock::new(state),
            sockets: Mutex::default(),
            live: Arc::new(Live::default()),
        })
    }

    /// Dials a member and waits until both sides have verified each other. With `expected`, only the member of
    /// that id will do; on the peer plane always give it, unless you ask who is there.
    ///
    /// Gives up after [`Tuning::handshake`]. Dropping the future gives up at once.
    ///
    /// # Errors
    /// [`Error::NobodyListens`], [`Error::NoAnswer`], [`Error::Refused`] with the named reason, or why the
    /// connection ended otherwise.
    pub async fn connect(&self, address: SocketAddr, expected: Option<u64>) -> Result<Connection, Error> {
        let after = self.tuning.handshake;
        let dial = async {
            tokio::select! {
                done = self.dial(address, expected) => done,
                () = nobody_listens(address) => Err(Error::NobodyListens(address)),
            }
        };
        tokio::time::timeout(after, dial).await.unwrap_or(Err(Error::NoAnswer { address, after }))
    }

    async fn dial(&self, address: SocketAddr, expected: Option<u64>) -> Result<Connection, Error> {
        let config = self.state().config;
        let connecting = self
            .endpoint(address)?
            .connect_with(config, address, &tls::server_name(expected))
            .map_err(|e| Error::Transport(e.to_string()))?;
        let quic = connecting.await.map_err(|end| Error::from_end(address, end))?;
        let connection = Connection::new(quic, &self.live)?;
        connection.recheck(&self.state().verifier)?;
        connection.greeted().await?;
        tokio::spawn(watch_port(connection.quic(), address));
        Ok(connection)
    }

    /// Takes new credentials, authorities and revocation lists for what comes, and ends the connections that they
    /// refuse; says how many. On an error nothing has changed.
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn reload(&self, credentials: &Credentials) -> Result<usize, Error> {
        let state = State::new(credentials, self.plane, &self.transport)?;
        let verifier = Arc::clone(&state.verifier);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(self.live.recheck(&verifier))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn endpoint(&self, to: SocketAddr) -> Result<Endpoint, Error> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.sweeper.is_none() {
            sockets.sweeper = Some(tokio::spawn(Arc::clone(&self.live).keep_swept(self.tuning.age_max)));
        }
        let slot = if to.is_ipv4() { &mut sockets.v4 } else { &mut sockets.v6 };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let address = any_port(to, self.tuning.dial_from);
        let bound = |source| Error::Bind { address, source: Arc::new(source) };
        let socket = socket::open(address, self.tuning.socket_buffer).map_err(bound)?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(bound)?;
        Ok(slot.insert(endpoint).clone())
    }
}

impl State {
    fn new(credentials: &Credentials, plane: Plane, transport: &Arc<TransportConfig>) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::new(plane, Role::Dialer, credentials)?);
        let tls = tls::client_config(plane, credentials, Arc::clone(&verifier))?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| Error::Credentials(e.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::clone(transport));
        Ok(Self { config, verifier })
    }
}

fn any_port(to: SocketAddr, from: Option<IpAddr>) -> SocketAddr {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(from.filter(|from| from.is_ipv4() == to.is_ipv4()).unwrap_or(any), 0)
}

/// Ends a connection whose peer's process is gone. QUIC would learn of that by silence alone, after the idle time-out;
/// the peer's machine says at once that nobody listens, to a socket of its own that asks while there is silence.
async fn watch_port(connection: quinn::Connection, address: SocketAddr) {
    let (mut sent, mut received) = (0, 0);
    let watch = async {
        loop {
            tokio::time::sleep(SILENCE).await;
            let stats = connection.stats();
            let asked = std::mem::replace(&mut sent, stats.udp_tx.datagrams) != sent;
            let answered = std::mem::replace(&mut received, stats.udp_rx.datagrams) != received;
            if asked && !answered {
                // Past the time-out without a refusal, somebody listens or nobody can tell.
                drop(tokio::time::timeout(SILENCE, nobody_listens(address)).await.map(|()| {
                    connection
                        .close(quinn::VarInt::from_u32(crate::connection::GONE_CODE), b"nobody listens there any more");
                }));
            }
        }
    };
    tokio::select! {
        () = watch => {}
        _ = connection.closed() => {}
    }
}

/// Returns when the system says that the port is closed, else never.
///
/// quinn does not see ICMP's "port unreachable", as its sockets are not connected, so a member that is down would
/// cost a whole time-out. A connected socket hears it; its one byte is noise that an endpoint drops unanswered.
async fn nobody_listens(address: SocketAddr) {
    let probe = async {
        let socket = tokio::net::UdpSocket::bind(any_port(address, None)).await?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        loop {
            socket.recv(&mut [0]).await?;
        }
    };
    let refused: std::io::Result<()> = probe.await;
    if !refused.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
        std::future::pending::<()>().await;
    }
}
