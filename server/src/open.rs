//! What a member opens before anything of it runs: credentials, log, tables; and why it can't.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use conclave_core::Fault;
use conclave_link::{Credentials, Principal};
use conclave_log::RealDisk;
use conclave_protocol::{Endpoint, MemberId};
use conclave_store::{DirLock, Store, Writer};
use tokio::sync::watch;

use crate::config::{Config, MemberAddress};
use crate::member::Stopped;
use crate::raft::Node;

/// Why a member can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory.
    #[error("data directory {}: {source}", dir.display())]
    Data {
        /// Which.
        dir: std::path::PathBuf,
        /// Why.
        source: conclave_store::Error,
    },
    /// The log in it.
    #[error("log in {}: {source}", dir.display())]
    Log {
        /// In which data directory.
        dir: std::path::PathBuf,
        /// Why.
        source: conclave_log::Error,
    },
    /// Log and tables do not belong together.
    #[error("data directory {}: {why}", dir.display())]
    Torn {
        /// Which.
        dir: std::path::PathBuf,
        /// In what way.
        why: String,
    },
    /// Certificates or ports.
    #[error(transparent)]
    Link(#[from] conclave_link::Error),
    /// The certificate is another's.
    #[error("the certificate in {} is for {found}, this is member {expected}", tls.display())]
    OtherMember {
        /// The directory.
        tls: std::path::PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: u64,
    },
    /// The admin port.
    #[error("admin port {address}: {source}")]
    Admin {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Raft.
    #[error(transparent)]
    Raft(#[from] crate::raft::Error),
    /// The plugin host.
    #[error("plugins: {0}")]
    Plugins(#[from] conclave_plugin_host::Error),
    /// A fault of what is kept.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The system refused a thread or a runtime.
    #[error("the system refused a thread: {0}")]
    Threads(#[from] io::Error),
}

/// What is opened before anything runs.
pub(crate) struct Kept {
    pub(crate) log: conclave_log::Handle,
    pub(crate) log_thread: JoinHandle<()>,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) stopped: watch::Sender<Option<Stopped>>,
}

/// This member's certificate, which must name it.
pub(crate) fn credentials(config: &Config) -> Result<Credentials, StartError> {
    let credentials = Credentials::load_dir(&config.tls)?;
    match credentials.principal() {
        Principal::Member { id, .. } if *id == config.member => Ok(credentials),
        other => {
            Err(StartError::OtherMember { tls: config.tls.clone(), found: other.to_string(), expected: config.member })
        }
    }
}

/// Opens log and tables, and checks that they belong together.
pub(crate) fn open(config: &Config) -> Result<Kept, StartError> {
    let dir = &config.data;
    let data = |source| StartError::Data { dir: dir.clone(), source };
    let log = |source| StartError::Log { dir: dir.clone(), source };
    let lock = DirLock::acquire(dir).map_err(data)?;
    let opened = Store::open(&lock, &config.cluster, &conclave_store::Options::default()).map_err(data)?;
    if let Some(why) = &opened.discarded {
        tracing::warn!(?why, "the tables can't be believed: they are built again from the log");
    }
    let disk = RealDisk::open(dir.join("log"))?;
    let options = conclave_log::Options::default();
    let (open_log, votes, recovered) = conclave_log::open(Arc::new(disk), options.clone()).map_err(log)?;
    if let Some(torn) = &recovered.torn {
        tracing::info!(?torn, "a write that nobody was told of was cut short by a crash, and is cleared away");
    }
    let last = recovered.last.map_or(0, |position| position.index);
    if let Some(applied) = opened.writer.local().applied
        && applied.index > last
    {
        let why =
            format!("the tables hold entry {}, the log ends at {last}: a part of the log was lost", applied.index);
        return Err(StartError::Torn { dir: dir.clone(), why });
    }
    let stopped = watch::Sender::new(None);
    let fatal = stopped.clone();
    let failed = Box::new(move |error: &conclave_log::Error| {
        tracing::error!(%error, "the log can't be written");
        fatal.send_replace(Some(Stopped::Fault(format!("the log can't be written: {error}"))));
    });
    let (handle, log_thread) = conclave_log::Writer::spawn(open_log, votes, &recovered, &options, failed)?;
    Ok(Kept { log: handle, log_thread, store: opened.store, writer: opened.writer, stopped })
}

/// The port for metrics and health.
pub(crate) fn bind_admin(address: std::net::SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Admin { address, source })
}

/// Where clients reach the members, by number.
pub(crate) fn endpoints(config: &Config) -> Vec<Endpoint> {
    let endpoint = |member: &MemberAddress| Endpoint { member: MemberId(member.id), address: member.client.clone() };
    let mut endpoints: Vec<Endpoint> = config.members.iter().map(endpoint).collect();
    endpoints.sort_by_key(|endpoint| endpoint.member);
    endpoints
}

/// The members that a new cluster begins with, when this member is to make one.
pub(crate) fn initial(config: &Config) -> Option<BTreeMap<u64, Node>> {
    let node = |member: &MemberAddress| (member.id, Node { peer: member.peer.clone(), client: member.client.clone() });
    config.initialize.then(|| config.members.iter().map(node).collect())
}
