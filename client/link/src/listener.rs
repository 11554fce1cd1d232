//! The accepting end: one UDP port of one plane.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{digest, hmac};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::Plane;
use crate::connection::{Connection, Live};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::socket;
use crate::tls::{self, Role, Verifier};
use crate::tuning::Tuning;

/// Connections whose handshake is done and that nobody has accepted yet.
const BACKLOG: usize = 64;
/// Refusals that are kept for a slow reader of them.
const REFUSALS_KEPT: usize = 64;

/// A handshake that came to nothing.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Where it came from.
    pub address: SocketAddr,
    /// Why it failed.
    pub error: Error,
}

/// An open port. Handshakes run beside each other; only finished ones come out of [`Listener::accept`].
///
/// Dropping it closes the port and every connection that came through it.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    tasks: [JoinHandle<()>; 2],
}

struct Shared {
    endpoint: Endpoint,
    plane: Plane,
    tuning: Tuning,
    /// With everything but the credentials: a reload must not change the key of the retry tokens under way.
    template: quinn::ServerConfig,
    verifier: RwLock<Arc<Verifier>>,
    live: Arc<Live>,
    handshakes: Arc<Semaphore>,
    refused: broadcast::Sender<Refused>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl Listener {
    /// Opens a port with default [`Tuning`]; port 0 lets the system choose one. Within a Tokio runtime, which then
    /// drives the port.
    ///
    /// # Errors
    /// [`Error::Bind`] naming address and port; [`Error::Credentials`] when they do not suffice for the plane.
    pub fn bind(address: SocketAddr, plane: Plane, credentials: &Credentials) -> Result<Self, Error> {
        Self::bind_with(address, plane, credentials, Tuning::default())
    }

    /// As [`Listener::bind`], with other settings.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_with(
        address: SocketAddr,
        plane: Plane,
        credentials: &Credentials,
        tuning: Tuning,
    ) -> Result<Self, Error> {
        if credentials.principal().member_id().is_none() {
            return Err(Error::Credentials(format!("{} is no member and cannot listen", credentials.principal())));
        }
        Self::unchecked(address, plane, credentials, tuning)
    }

    /// Without asking whether the credentials are a member's, so that tests see the other side refuse them.
    pub(crate) fn unchecked(
        address: SocketAddr,
        plane: Plane,
        credentials: &Credentials,
        tuning: Tuning,
    ) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::new(plane, Role::Listener, credentials)?);
        let mut template = quinn::ServerConfig::with_crypto(crypto(plane, credentials, &verifier)?);
        template
            .transport_config(tuning.transport(plane, false)?)
            .migration(plane == Plane::Client)
            .max_incoming(tuning.handshakes_max)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20);
        let bound = |source| Error::Bind { address, source: Arc::new(source) };
        let socket = socket::open(address, tuning.socket_buffer).map_err(bound)?;
        socket::warn_if_clamped(&socket, tuning.socket_buffer);
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Transport("no Tokio runtime to drive the port".to_owned()));
        }
        let config = stable_resets(credentials);
        let endpoint = Endpoint::new(config, Some(template.clone()), socket, Arc::new(TokioRuntime)).map_err(bound)?;
        let shared = Arc::new(Shared {
            endpoint,
            plane,
            template,
            verifier: RwLock::new(verifier),
            live: Arc::new(Live::default()),
            handshakes: Arc::new(Semaphore::new(tuning.handshakes_max)),
            refused: broadcast::Sender::new(REFUSALS_KEPT),
            tuning,
        });
        let (out, accepted) = mpsc::channel(BACKLOG);
        let tasks = [
            tokio::spawn(serve(Arc::clone(&shared), out)),
            tokio::spawn(Arc::clone(&shared.live).keep_swept(shared.tuning.age_max)),
        ];
        Ok(Self { shared, accepted: Mutex::new(accepted), tasks })
    }

    /// The address that was opened, with the port that the system chose.
    ///
    /// # Errors
    /// [`Error::Transport`] when the system does not tell.
    pub fn local_address(&self) -> Result<SocketAddr, Error> {
        self.shared.endpoint.local_addr().map_err(|e| Error::Transport(e.to_string()))
    }

    /// The next connection; `None` once the listener is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Tells of handshakes that were refused from now on: for counters and the audit log.
    pub fn refusals(&self) -> broadcast::Receiver<Refused> {
        self.shared.refused.subscribe()
    }

    /// Takes new credentials, authorities and revocation lists for what comes, and ends the connections that they
    /// refuse; says how many. On an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::Credentials`] as for [`Listener::bind`].
    pub fn reload(&self, credentials: &Credentials) -> Result<usize, Error> {
        let shared = &self.shared;
        let verifier = Arc::new(Verifier::new(shared.plane, Role::Listener, credentials)?);
        let mut config = shared.template.clone();
        config.crypto = crypto(shared.plane, credentials, &verifier)?;
        // First the verifier, then the check: a handshake that ends in between is checked by one or the other.
        *shared.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&verifier);
        shared.endpoint.set_server_config(Some(config));
        Ok(shared.live.recheck(&verifier))
    }

    /// Closes the port and all connections, and waits until their peers were told.
    pub async fn close(&self, code: u32, reason: &str) {
        self.shared.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
        self.shared.endpoint.wait_idle().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.endpoint.close(VarInt::from_u32(0), b"the listener was closed");
    }
}

fn crypto(plane: Plane, credentials: &Credentials, verifier: &Arc<Verifier>) -> Result<Arc<QuicServerConfig>, Error> {
    let config = tls::server_config(plane, credentials, Arc::clone(verifier))?;
    QuicServerConfig::try_from(config).map(Arc::new).map_err(|e| Error::Credentials(e.to_string()))
}

async fn serve(shared: Arc<Shared>, out: mpsc::Sender<Connection>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        if shared.endpoint.open_connections() >= shared.tuning.connections_max {
            tracing::warn!(address = %incoming.remote_address(), "refused: too many connections");
            incoming.refuse();
            continue;
        }
        // Ignored, not refused: the dialer sends its first packet again, and nothing is kept of it until then.
        let Ok(permit) = Arc::clone(&shared.handshakes).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let loaded = shared.handshakes.available_permits() < shared.tuning.handshakes_max / 2;
        if (shared.plane == Plane::Peer || loaded) && !incoming.remote_address_validated() {
            // Cannot fail: an address that is not validated may be asked to.
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(admit(Arc::clone(&shared), incoming, permit, out.clone()));
    }
}

async fn admit(shared: Arc<Shared>, incoming: Incoming, permit: OwnedSemaphorePermit, out: mpsc::Sender<Connection>) {
    let address = incoming.remote_address();
    let after = shared.tuning.handshake;
    let done = tokio::time::timeout(after, handshake(&shared, incoming))
        .await
        .unwrap_or(Err(Error::NoAnswer { address, after }));
    drop(permit);
    match done {
        // An error is the listener's end; the connection goes with it.
        Ok(connection) => drop(out.send(connection).await),
        Err(error) => {
            tracing::info!(plane = %shared.plane, %address, %error, "handshake failed");
            // Nobody may be listening to refusals.
            let _ = shared.refused.send(Refused { address, error });
        }
    }
}

async fn handshake(shared: &Shared, incoming: Incoming) -> Result<Connection, Error> {
    let address = incoming.remote_address();
    let end = |end| Error::from_end(address, end);
    let quic = incoming.accept().map_err(end)?.await.map_err(end)?;
    let connection = Connection::new(quic, &shared.live)?;
    // Credentials may have been reloaded since the handshake began.
    let verifier = Arc::clone(&shared.verifier.read().unwrap_or_else(PoisonError::into_inner));
    connection.recheck(&verifier)?;
    connection.greet().await?;
    Ok(connection)
}

/// Settings by which a listener that was killed and started again knows the connections of its earlier life, so that
/// it can tell their other ends at once that they are over (a stateless reset): keys derived from the member's own key
/// instead of random ones. Otherwise the clients of a killed member would wait for their idle time-out.
fn stable_resets(credentials: &Credentials) -> EndpointConfig {
    let secret = |purpose: &[u8]| {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(purpose);
        context.update(credentials.inner.key.secret_der());
        context.finish()
    };
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, secret(b"conclave stateless reset").as_ref());
    let ids = secret(b"conclave connection ids");
    let ids = ids.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}
