//! An authenticated connection, and the register of the live ones.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use quinn::VarInt;
pub use quinn::{RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;

use crate::error::Error;
use crate::identity::Principal;
use crate::pki::summary_of;
use crate::refusal::{Refusal, Side};
use crate::tls::Verifier;

/// Close code of a connection whose certificate is not good any more. Applications use codes below it.
pub(crate) const REFUSED_CODE: u32 = 0x4000_0000;
/// Close code of a connection that reached its greatest age: dial again.
pub const AGED_CODE: u32 = REFUSED_CODE + 1;

/// The code with which a dialer closes a connection whose peer's process is gone.
pub const GONE_CODE: u32 = REFUSED_CODE + 2;
/// The listener's one byte that ends a dialer's wait: "your certificate is good, go on". It is the link's version.
const GREETING: u8 = 1;

/// One connection with a peer whose certificate was verified. Cheap to clone.
///
/// Dropping the last clone closes it, also while streams of it are open: a connection that the register does not
/// know could not be ended when its certificate is revoked.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    quic: quinn::Connection,
    principal: Principal,
    chain: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    since: Instant,
    live: Arc<Live>,
    id: u64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} at {})", self.principal(), self.remote_address())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(VarInt::from_u32(0), b"dropped");
        self.live.map().remove(&self.id);
    }
}

impl Connection {
    /// Takes over a connection whose handshake is done, and registers it.
    pub(crate) fn new(quic: quinn::Connection, live: &Arc<Live>) -> Result<Self, Error> {
        let address = quic.remote_address();
        let refused = |reason| Error::Refused { address, side: Side::Us, reason };
        let chain = quic
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
            .ok_or_else(|| refused(Refusal::NoCertificate))?;
        let first = chain.first().ok_or_else(|| refused(Refusal::NoCertificate))?;
        let summary = summary_of(first).map_err(|text| refused(Refusal::Malformed(text)))?;
        let id = live.next.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner {
            quic,
            principal: summary.principal,
            not_after: summary.not_after.into(),
            chain: *chain,
            since: Instant::now(),
            live: Arc::clone(live),
            id,
        });
        live.map().insert(id, Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// What lies below, without keeping it open.
    pub(crate) fn quic(&self) -> quinn::Connection {
        self.inner.quic.clone()
    }

    /// Who the peer is.
    pub fn principal(&self) -> &Principal {
        &self.inner.principal
    }

    /// Where the peer is; a client may move.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.quic.remote_address()
    }

    /// The present estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.inner.quic.rtt()
    }

    /// Opens a stream in both directions. The peer hears of it with the first byte that is written.
    ///
    /// Waits while the peer allows no more streams. Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Error> {
        self.inner.quic.open_bi().await.map_err(|end| self.end(end))
    }

    /// The next stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Error> {
        self.inner.quic.accept_bi().await.map_err(|end| self.end(end))
    }

    /// Ends the connection at once: what is in flight is lost. The peer gets [`Error::Closed`] with this code
    /// (below 0x4000_0000, which are the link's own) and these words.
    pub fn close(&self, code: u32, reason: &str) {
        self.inner.quic.close(VarInt::from_u32(code.min(REFUSED_CODE - 1)), reason.as_bytes());
    }

    /// Waits until the connection has ended, and says why. Cancel-safe.
    pub async fn closed(&self) -> Error {
        let end = self.inner.quic.closed().await;
        self.end(end)
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<Error> {
        self.inner.quic.close_reason().map(|end| self.end(end))
    }

    /// The listener's word that the handshake is done on its side as well.
    pub(crate) async fn greet(&self) -> Result<(), Error> {
        let mut stream = self.inner.quic.open_uni().await.map_err(|end| self.end(end))?;
        let sent = stream.write_all(&[GREETING]).await;
        sent.map_err(|e| self.close_reason().unwrap_or_else(|| Error::Transport(e.to_string())))?;
        // A stream that is finished twice or reset: neither can be here.
        stream.finish().map_err(|e| Error::Transport(e.to_string()))
    }

    /// Waits for that word. In TLS 1.3 the dialer's own handshake ends before the listener saw its certificate.
    pub(crate) async fn greeted(&self) -> Result<(), Error> {
        let mut stream = self.inner.quic.accept_uni().await.map_err(|end| self.end(end))?;
        let mut greeting = [0];
        let read = stream.read_exact(&mut greeting).await;
        read.map_err(|e| self.close_reason().unwrap_or_else(|| Error::Transport(e.to_string())))?;
        match greeting {
            [GREETING] => Ok(()),
            [other] => Err(Error::Transport(format!("link version {other}, where {GREETING} is spoken"))),
        }
    }

    /// Closes the connection if its peer's certificate is not good any more.
    pub(crate) fn recheck(&self, verifier: &Verifier) -> Result<(), Error> {
        verifier.check(&self.inner.chain, UnixTime::now()).map(|_| ()).map_err(|reason| {
            self.refuse(&reason);
            Error::Refused { address: self.remote_address(), side: Side::Us, reason }
        })
    }

    fn refuse(&self, reason: &Refusal) {
        tracing::info!(peer = %self.principal(), address = %self.remote_address(), %reason, "connection ended");
        self.inner.quic.close(VarInt::from_u32(REFUSED_CODE), reason.marked().as_bytes());
    }

    fn end(&self, end: quinn::ConnectionError) -> Error {
        Error::from_end(self.remote_address(), end)
    }
}

/// The live connections of one listener or dialer.
#[derive(Default)]
pub(crate) struct Live {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Weak<Inner>>>,
}

impl Live {
    fn map(&self) -> MutexGuard<'_, HashMap<u64, Weak<Inner>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Vec<Connection> {
        // Collected first: dropping the last handle takes the lock again.
        self.map().values().filter_map(Weak::upgrade).map(|inner| Connection { inner }).collect()
    }

    /// Ends the connections whose certificates the new verifier refuses; says how many.
    pub(crate) fn recheck(&self, verifier: &Verifier) -> usize {
        self.snapshot().iter().filter(|connection| connection.recheck(verifier).is_err()).count()
    }

    /// Ends connections that are too old, or whose certificates have expired meanwhile.
    pub(crate) fn sweep(&self, age_max: Duration) {
        let now = SystemTime::now();
        for connection in self.snapshot() {
            if connection.inner.not_after < now {
                connection.refuse(&Refusal::Expired("while connected".to_owned()));
            } else if connection.inner.since.elapsed() > age_max {
                connection.inner.quic.close(VarInt::from_u32(AGED_CODE), b"the connection reached its greatest age");
            }
        }
    }

    /// Sweeps until aborted.
    pub(crate) async fn keep_swept(self: Arc<Self>, age_max: Duration) {
        let pause = (age_max / 4).clamp(Duration::from_millis(20), Duration::from_secs(5));
        loop {
            tokio::time::sleep(pause).await;
            self.sweep(age_max);
        }
    }
}
