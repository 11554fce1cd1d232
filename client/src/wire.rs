//! The way to a member: dialling, and the two halves of the one ordered stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use conclave_link::{Connection, Credentials, Dialer, Files, FrameReader, FrameWriter, Plane, Tuning};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;
use crate::options::{ConfigError, Options};

/// A stream beside the ordered one.
pub(crate) struct Side {
    pub(crate) reader: FrameReader<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) writer: FrameWriter<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// Opens side streams, and holds the connection open.
pub(crate) type Opener = Arc<dyn Fn() -> BoxFuture<'static, Result<Side, Reason>> + Send + Sync>;

/// A connection's stream.
pub(crate) struct Wire {
    pub(crate) reader: FrameReader<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) writer: FrameWriter<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Says why the connection ended, when it has; holds it open until then.
    pub(crate) end: Box<dyn Fn() -> Option<Reason> + Send>,
    /// Opens further streams.
    pub(crate) side: Opener,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) why: String,
    /// A certificate is at fault.
    pub(crate) certificate: bool,
    /// Waiting a moment will not help.
    pub(crate) definite: bool,
    /// The member is of this cluster, and the client of another.
    pub(crate) foreign: Option<String>,
}

impl Reason {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), certificate: false, definite: false, foreign: None }
    }
}

impl From<conclave_link::Error> for Reason {
    fn from(error: conclave_link::Error) -> Self {
        let certificate = error.is_certificate_problem();
        let definite = certificate || matches!(error, conclave_link::Error::NobodyListens(_));
        Self { why: error.to_string(), certificate, definite, foreign: None }
    }
}

/// How members are reached: by QUIC, or inside the process, in tests.
pub(crate) trait Dial: Send + Sync {
    /// Connects to `host:port`.
    fn dial(self: Arc<Self>, endpoint: String) -> BoxFuture<'static, Result<Wire, Reason>>;

    /// Every endpoint has failed: reads certificates again, which may have been renewed.
    fn refresh(&self);
}

/// QUIC with mutual TLS.
pub(crate) struct Quic {
    dialer: Arc<Dialer>,
    files: Files,
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Quic {
    pub(crate) fn new(options: &Options) -> Result<Self, ConfigError> {
        let files = Files {
            cert: options.certificate.clone(),
            key: options.key.clone(),
            peer_ca: options.ca.clone(),
            client_ca: None,
            crls: Vec::new(),
        };
        let mut tuning = Tuning::default();
        // A member that has stopped must be left well before the session's time is over.
        tuning.idle_timeout = (options.session_timeout * 2 / 5).clamp(Duration::from_secs(1), Duration::from_secs(10));
        tuning.keep_alive = tuning.idle_timeout / 4;
        tuning.handshake = options.connect_timeout;
        let credentials = Credentials::load(&files).map_err(config)?;
        let dialer = Arc::new(Dialer::with(&credentials, Plane::Client, tuning).map_err(config)?);
        Ok(Self { dialer, files })
    }
}

fn opener(connection: Connection) -> Opener {
    Arc::new(move || {
        let connection = connection.clone();
        Box::pin(async move {
            let (send, receive) = connection.open_bi().await?;
            Ok(Side { reader: FrameReader::new(Box::new(receive)), writer: FrameWriter::new(Box::new(send)) })
        })
    })
}

fn config(error: conclave_link::Error) -> ConfigError {
    match error {
        conclave_link::Error::File { path, reason } => ConfigError::File { path, why: reason },
        other => ConfigError::Bad { what: "certificate and key", why: other.to_string() },
    }
}

impl Dial for Quic {
    fn dial(self: Arc<Self>, endpoint: String) -> BoxFuture<'static, Result<Wire, Reason>> {
        let dialer = Arc::clone(&self.dialer);
        Box::pin(async move {
            let addresses = tokio::net::lookup_host(&endpoint).await;
            let addresses = addresses.map_err(|error| Reason::new(format!("its address cannot be found: {error}")))?;
            let mut last = Reason::new("it has no address");
            for address in addresses {
                match dialer.connect(address, None).await {
                    Ok(connection) => {
                        let (send, receive) = connection.open_bi().await?;
                        return Ok(Wire {
                            reader: FrameReader::new(Box::new(receive)),
                            writer: FrameWriter::new(Box::new(send)),
                            side: opener(connection.clone()),
                            end: Box::new(move || connection.close_reason().map(Reason::from)),
                        });
                    }
                    Err(error) => last = error.into(),
                }
            }
            Err(last)
        })
    }

    fn refresh(&self) {
        let reloaded = Credentials::load(&self.files).and_then(|credentials| self.dialer.reload(&credentials));
        if let Err(error) = reloaded {
            tracing::warn!(%error, "certificates could not be read again; the old ones stay");
        }
    }
}
