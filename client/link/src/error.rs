//! What can go wrong on a link, one variant per thing that a caller can act on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::refusal::{Refusal, Side};

/// Why a link could not be made, or ended. Cheap to clone, as one end of a connection is told to many.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port could not be opened.
    #[error("{}", bind_text(*address, source))]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A certificate, key or revocation list could not be read or does not fit the rest.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials cannot be used for what was asked.
    #[error("these credentials cannot be used: {0}")]
    Credentials(String),
    /// Nobody listens at the address.
    #[error("connection refused: nobody listens on {0}")]
    NobodyListens(SocketAddr),
    /// No answer came in time.
    #[error("no answer from {address} within {} ms", after.as_millis())]
    NoAnswer {
        /// The address that was dialled.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The handshake was refused, and why.
    #[error("handshake with {address} refused {}: {reason}", match side { Side::Us => "by us", Side::Peer => "by the peer" })]
    Refused {
        /// The other end.
        address: SocketAddr,
        /// Who refused.
        side: Side,
        /// Why.
        reason: Refusal,
    },
    /// The peer's application closed the connection.
    #[error("closed by the peer ({code}): {reason}")]
    Closed {
        /// The application's code.
        code: u32,
        /// The application's words.
        reason: String,
    },
    /// This side closed the connection, or dropped its last handle.
    #[error("closed here")]
    ClosedHere,
    /// Nothing was heard from the peer for the idle time-out.
    #[error("the connection was lost: nothing heard from the peer")]
    Lost,
    /// The peer does not know the connection any more: it was restarted.
    #[error("the connection was reset: the peer was restarted")]
    Reset,
    /// Something else in the transport.
    #[error("transport: {0}")]
    Transport(String),
}

impl Error {
    /// Is a certificate at fault, so that trying again without another one is pointless?
    pub const fn is_certificate_problem(&self) -> bool {
        match self {
            Self::Refused { reason, .. } => reason.is_certificate_problem(),
            Self::Credentials(_) | Self::File { .. } => true,
            _ => false,
        }
    }

    /// The named reason, if a handshake was refused.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }

    /// What quinn's reason for the end of a connection means to a caller.
    pub(crate) fn from_end(address: SocketAddr, end: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as End;
        let refused = |side, code: quinn::TransportErrorCode, text: &str| match tls_alert(code) {
            Some(alert) => Self::Refused { address, side, reason: Refusal::from_close(alert, text) },
            // CONNECTION_REFUSED (RFC 9000, 20.1): the listener is closing or over its limits.
            None => Self::Transport(format!("{code}: {text}")),
        };
        match end {
            End::TransportError(error) => refused(Side::Us, error.code, &error.reason),
            End::ConnectionClosed(close) => {
                refused(Side::Peer, close.error_code, &String::from_utf8_lossy(&close.reason))
            }
            End::ApplicationClosed(close) => Self::from_application(address, &close),
            End::Reset => Self::Reset,
            End::TimedOut => Self::Lost,
            End::LocallyClosed => Self::ClosedHere,
            other => Self::Transport(other.to_string()),
        }
    }

    fn from_application(address: SocketAddr, close: &quinn::ApplicationClose) -> Self {
        let text = String::from_utf8_lossy(&close.reason);
        if close.error_code == quinn::VarInt::from_u32(crate::connection::REFUSED_CODE) {
            // A certificate that was good once: revoked, or expired, in mid-connection.
            return Self::Refused { address, side: Side::Peer, reason: Refusal::from_close(0, &text) };
        }
        Self::Closed {
            code: u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX),
            reason: text.into_owned(),
        }
    }
}

/// The TLS alert inside a QUIC error code: CRYPTO_ERROR is 0x0100 plus the alert (RFC 9000, 20.1).
fn tls_alert(code: quinn::TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn bind_text(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is in use on {ip}"),
        io::ErrorKind::PermissionDenied => format!("port {port} on {ip} may not be opened by this user"),
        io::ErrorKind::AddrNotAvailable => format!("{ip} is not an address of this machine (port {port})"),
        _ => format!("port {port} on {ip} cannot be opened: {error}"),
    }
}
