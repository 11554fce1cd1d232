//! QUIC endpoints, mutual TLS, identities and frames: the only user of quinn, rustls and rcgen.
//!
//! Two *planes* share this crate: clients talk to members on [`Plane::Client`], members to members on
//! [`Plane::Peer`]. They differ in port, ALPN name and issuing authority, so that a client's certificate opens
//! nothing on the peer plane even when it reaches the port. Who a peer is comes from the one URI SAN of its
//! certificate ([`Principal`]), never from a DNS name or a common name.
//!
//! ```text
//! Authority ─issue─▶ Issued ─write─▶ files ─load─▶ Credentials ─▶ Listener / Dialer ─▶ Connection ─▶ frames
//! ```

pub mod connection;
pub mod credentials;
pub mod dialer;
pub mod error;
pub mod frame;
pub mod identity;
pub mod listener;
pub mod pki;
pub mod refusal;
mod revocation;
mod socket;
mod tls;
pub mod tuning;

pub use connection::{Connection, RecvStream, SendStream};
pub use credentials::{Credentials, Files};
pub use dialer::Dialer;
pub use error::Error;
pub use frame::{FrameError, FrameReader, FrameWriter};
pub use identity::{Principal, TrustDomain};
pub use listener::{Listener, Refused};
pub use refusal::{Refusal, Side};
pub use tuning::Tuning;

/// Which of the two separate networks a port, a connection or a certificate authority belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// Clients to members: clients carry certificates of the client authority, members of the peer authority.
    Client,
    /// Members to members: both sides carry certificates of the peer authority.
    Peer,
}

impl Plane {
    /// The ALPN name: the first thing that tells the planes (and later versions of the wire) apart.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Client => b"conclave/1",
            Self::Peer => b"conclave-peer/1",
        }
    }
}

impl std::fmt::Display for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client plane",
            Self::Peer => "peer plane",
        })
    }
}

#[cfg(test)]
mod tests;
