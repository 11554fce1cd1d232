//! A member's standing tasks: becoming ready, leading, syncing, answering other members, reloading credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use conclave_link::{Credentials, Listener};
use tokio::sync::{mpsc, watch};

use crate::member::Shared;
use crate::peer::{self, PeerRequest, wire};
use crate::raft::{Node, Running};
use crate::{admin, forward, listen, monotonic, planner, sessions, wall_ms};

/// How often the tables are synced: the log makes writes durable, this only keeps what a machine's crash costs small.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How long another member has to tell its wall clock.
const CLOCK_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait before something is tried again that an election decides.
const AGAIN: Duration = Duration::from_millis(20);
/// How often the files of the credentials are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn serve_forwards(
    mut streams: mpsc::Receiver<peer::Stream>,
    planner: planner::Handle,
    leases: mpsc::UnboundedSender<sessions::Command>,
) {
    while let Some(stream) = streams.recv().await {
        tokio::spawn(forward::serve(stream.reader, stream.writer, planner.clone(), leases.clone()));
    }
}

pub(crate) async fn serve_peers(shared: Arc<Shared>, mut requests: mpsc::Receiver<PeerRequest>) {
    while let Some(PeerRequest { request, reply, .. }) = requests.recv().await {
        let response = match request {
            wire::Request::Clock => wire::Response::Clock { wall_ms: wall_ms() },
            wire::Request::Status => match shared.status() {
                Ok(status) => wire::Response::Status(status),
                Err(fault) => {
                    shared.fault(fault);
                    continue;
                }
            },
            // Quarantine by comparing digests comes with checkpoints; until then a mismatch stops the member.
            _ => continue,
        };
        drop(reply.send(response));
    }
}

/// Tells the planner when this member leads: once the clock runs.
pub(crate) async fn lead(
    shared: Arc<Shared>,
    planner: planner::Handle,
    leases: mpsc::UnboundedSender<sessions::Command>,
) {
    let mut leadership = shared.leadership.clone();
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_leader {
            if start_clock(&shared).await {
                planner.send(planner::Command::Leadership(Some(now.term)));
            } else {
                tokio::time::sleep(AGAIN).await;
                if !leadership.has_changed().unwrap_or(true) {
                    leadership.mark_changed();
                }
            }
        } else {
            planner.send(planner::Command::Leadership(None));
            drop(leases.send(sessions::Command::Stop));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Asks a majority of voters for their wall clocks, when this member has no cluster time of its own.
pub(crate) async fn start_clock(shared: &Shared) -> bool {
    let is_running = || shared.clock.lock().unwrap_or_else(PoisonError::into_inner).is_running();
    if is_running() {
        return true;
    }
    let voters: std::collections::BTreeSet<u64> = shared.replica.membership().voters.into_iter().flatten().collect();
    let mut walls = Vec::new();
    for voter in &voters {
        if *voter == shared.id.0 {
            walls.push(wall_ms());
        } else if let Ok(wire::Response::Clock { wall_ms }) =
            shared.peers.ask(*voter, wire::Request::Clock, CLOCK_WITHIN).await
        {
            walls.push(wall_ms);
        }
    }
    if walls.len() * 2 <= voters.len() {
        return false;
    }
    shared.clock.lock().unwrap_or_else(PoisonError::into_inner).start(&walls, monotonic());
    true
}

pub(crate) async fn sync(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SYNC_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = shared.store.clone();
        match tokio::task::spawn_blocking(move || store.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return shared.fault(fault),
            Err(error) if error.is_panic() => return shared.fault("the sync of the tables panicked"),
            Err(_) => return,
        }
    }
}

/// A Raft instance that ends by itself ends the member.
pub(crate) async fn watch_raft(shared: Arc<Shared>, mut running: watch::Receiver<Running>) {
    if let Ok(running) = running.wait_for(|running| *running != Running::Yes).await
        && let Running::Failed(why) = &*running
    {
        shared.fault(why);
    }
}

pub(crate) async fn admin_port(shared: Arc<Shared>, listener: std::net::TcpListener) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => admin::run(shared, listener).await,
        Err(error) => tracing::error!(%error, "the admin port can't be served"),
    }
}

/// Makes the cluster, if this member is to; recovers; then lets clients in.
pub(crate) async fn begin(shared: Arc<Shared>, listener: Arc<Listener>, initial: Option<BTreeMap<u64, Node>>) {
    if let Some(members) = initial {
        match shared.replica.is_pristine().await {
            Ok(true) => {
                if let Err(error) = shared.replica.initialize(members).await {
                    return shared.fault(error);
                }
                tracing::info!("a new cluster is made");
            }
            Ok(false) => {}
            Err(error) => return shared.fault(error),
        }
    }
    tokio::spawn(listen::run(Arc::clone(&shared), listener));
    while !crate::read::catch_up(&shared).await || shared.publisher.published().0 == 0 {
        tokio::time::sleep(AGAIN).await;
    }
    if !shared.is_faulty() {
        shared.ready.store(true, Ordering::Release);
        tracing::info!(zxid = %shared.publisher.published(), "ready");
    }
}

/// Takes new certificates, authorities and revocation lists when their files change, without a restart: connections
/// that they refuse end. Files that can't be used change nothing.
pub(crate) async fn reload(shared: Arc<Shared>, listener: Arc<Listener>, tls: PathBuf) {
    let mut ticks = tokio::time::interval(RELOAD_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = changed(&tls);
    loop {
        ticks.tick().await;
        let now = changed(&tls);
        if now == seen {
            continue;
        }
        seen = now;
        let reloaded = Credentials::load_dir(&tls).and_then(|credentials| {
            let ended = listener.reload(&credentials)?;
            Ok(ended + shared.peers.listener().reload(&credentials)? + shared.peers.dialer().reload(&credentials)?)
        });
        match reloaded {
            Ok(ended) => tracing::info!(tls = %tls.display(), ended, "credentials were reloaded"),
            Err(error) => tracing::error!(tls = %tls.display(), %error, "the new credentials can't be used"),
        }
    }
}

/// When each file of a directory last changed.
fn changed(dir: &std::path::Path) -> BTreeMap<PathBuf, SystemTime> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?))).collect()
}
