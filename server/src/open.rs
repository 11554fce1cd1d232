//! What a member opens before anything of it runs: credentials, log, tables; and why it can't.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use conclave_core::Fault;
use conclave_link::{Credentials, Principal};
use conclave_log::RealDisk;
use conclave_protocol::{Endpoint, MemberId};
use conclave_store::{Checkpoints, DirLock, Store, Writer};
use tokio::sync::watch;

use crate::config::{Config, MemberAddress};
use crate::member::{Stopped, Surroundings};
use crate::raft::Node;
use crate::room::Room;

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
    /// The state can't be believed, and has to be made again from another member's.
    #[error("data directory {}: {why}", dir.display())]
    NotBelieved {
        /// Which.
        dir: std::path::PathBuf,
        /// Why not.
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
    pub(crate) checkpoints: Checkpoints,
    pub(crate) room: Room,
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

/// How to open the tables.
pub(crate) fn store_options(around: &Surroundings) -> conclave_store::Options {
    let mut options = conclave_store::Options::default();
    if let Some(boot) = &around.boot {
        options.boot = boot.clone();
    }
    options
}

/// Opens log and tables, and checks that they belong together.
pub(crate) fn open(
    config: &Config,
    around: &Surroundings,
    stopped: watch::Sender<Option<Stopped>>,
) -> Result<Kept, StartError> {
    let dir = &config.data;
    let data = |source| StartError::Data { dir: dir.clone(), source };
    let lock = DirLock::acquire(dir).map_err(data)?;
    let checkpoints = Checkpoints::open(&lock, &config.cluster).map_err(data)?;
    let opened = match Store::open(&lock, &config.cluster, &checkpoints, &store_options(around)) {
        Ok(opened) => opened,
        Err(error @ conclave_store::Error::DamagedCheckpoint { .. }) => {
            return Err(StartError::NotBelieved { dir: dir.clone(), why: error.to_string() });
        }
        Err(error) => return Err(data(error)),
    };
    let room = Room::open(dir, &config.storage, around.free_bytes.clone())?;
    let (log, log_thread, created) = open_log(config, around, &stopped, Some(&room))?;
    if created && (opened.writer.local().applied.is_some() || checkpoints.newest().is_some()) {
        return Err(StartError::Torn { dir: dir.clone(), why: lost_log(config) });
    }
    fit(config, &opened.writer, &checkpoints, &log)?;
    let newest = checkpoints.newest().map_or(0, |newest| newest.position().index);
    if log.purged().is_some_and(|purged| purged.index > newest) {
        // Raft starts on a checkpoint that holds what the log has let go; the tables hold it.
        tracing::warn!("the checkpoint behind which the log was purged is gone: another one is made of the tables");
        let made = checkpoints.make(&opened.store, &mut |_| std::ops::ControlFlow::Continue(()));
        made.map_err(|error| data(conclave_store::Error::Checkpoint(error)))?;
    }
    Ok(Kept { log, log_thread, store: opened.store, writer: opened.writer, checkpoints, room, stopped })
}

/// Opens the log alone, of a member that has one.
pub(crate) fn log(
    config: &Config,
    around: &Surroundings,
) -> Result<(conclave_log::Handle, JoinHandle<()>), StartError> {
    let (log, thread, created) = open_log(config, around, &watch::Sender::new(None), None)?;
    if created {
        return Err(StartError::Torn { dir: config.data.clone(), why: lost_log(config) });
    }
    Ok((log, thread))
}

/// What a member says whose tables or checkpoints are there, and whose log is not.
fn lost_log(config: &Config) -> String {
    format!(
        "there is state of this member, and no log and no vote: what it acknowledged and whom it elected is not known any \
         more. Is everything mounted? If the log is lost, member {} must not come back: `conclave server --replace` says \
         how another one takes its place",
        config.member
    )
}

fn open_log(
    config: &Config,
    around: &Surroundings,
    stopped: &watch::Sender<Option<Stopped>>,
    room: Option<&Room>,
) -> Result<(conclave_log::Handle, JoinHandle<()>, bool), StartError> {
    let dir = &config.data;
    let disk = match &around.log_disk {
        Some(disk) => Arc::clone(disk),
        None => Arc::new(RealDisk::open(dir.join("log"))?),
    };
    let options =
        conclave_log::Options { segment_bytes: config.storage.log_segment_bytes, ..conclave_log::Options::default() };
    let opened = conclave_log::open(disk, options.clone());
    let (log, votes, recovered) = opened.map_err(|source| StartError::Log { dir: dir.clone(), source })?;
    if let Some(torn) = &recovered.torn {
        tracing::info!(?torn, "a write that nobody was told of was cut short by a crash, and is cleared away");
    }
    let fatal = stopped.clone();
    let failed = Box::new(move |error: &conclave_log::Error| {
        tracing::error!(%error, "the log can't be written");
        crate::member::end(&fatal, Stopped::Fault(format!("the log can't be written: {error}")));
    });
    let (handle, thread) = conclave_log::Writer::spawn(log, votes, &recovered, &options, failed)?;
    if let Some(room) = room.cloned() {
        handle.on_full(Box::new(move || {
            room.release();
        }));
    }
    Ok((handle, thread, recovered.created))
}

/// Whether log and tables fit each other: the log goes on where the tables end, or a checkpoint does.
fn fit(
    config: &Config,
    writer: &Writer,
    checkpoints: &Checkpoints,
    log: &conclave_log::Handle,
) -> Result<(), StartError> {
    let dir = config.data.clone();
    let applied = writer.local().applied;
    let newest = checkpoints.newest().map(|newest| newest.position());
    if let Some(at) = newest.max(applied)
        && newest == Some(at)
    {
        // A snapshot was installed, or about to be, when the last run ended: the log may still be the one before it.
        crate::reseed::fit(log, at).map_err(|source| StartError::Log { dir: dir.clone(), source })?;
    }
    let (applied, last) = (applied.max(newest).map(|at| at.index), log.last().map(|last| last.index));
    if applied > last {
        let (applied, last) = (applied.unwrap_or(0), last.unwrap_or(0));
        let why = format!("the tables hold entry {applied}, the log ends at {last}: a part of the log was lost");
        return Err(StartError::Torn { dir, why });
    }
    match log.purged() {
        Some(purged) if applied < Some(purged.index) => {
            let index = applied.unwrap_or(0);
            let why = format!("tables and checkpoint end at entry {index}, the log begins after {}", purged.index);
            Err(StartError::NotBelieved { dir, why })
        }
        _ => Ok(()),
    }
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
    config.initialize.then(|| nodes(config))
}

/// The members that the configuration names, as Raft does.
pub(crate) fn nodes(config: &Config) -> BTreeMap<u64, Node> {
    let node = |member: &MemberAddress| (member.id, Node { peer: member.peer.clone(), client: member.client.clone() });
    config.members.iter().map(node).collect()
}
