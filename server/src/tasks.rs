//! A member's standing tasks: becoming ready, leading, syncing, answering other members, reloading credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use conclave_core::Fault;
use conclave_core::apply::Position;
use conclave_link::{Credentials, Listener};
use conclave_protocol::Zxid;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Storage as StorageOptions;
use crate::digests::{self, Computed, Verdict};
use crate::member::Shared;
use crate::peer::transfer::{self, Ends};
use crate::peer::{self, PeerRequest, wire};
use crate::quarantine::Record;
use crate::raft::{Node, Running};
use crate::{admin, forward, listen, monotonic, planner, plugins, sessions, wall_ms};

/// How often the tables are synced: the log makes writes durable, this only keeps what a machine's crash costs small.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How long another member has to tell its wall clock.
const CLOCK_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait before something is tried again that an election decides.
const AGAIN: Duration = Duration::from_millis(20);
/// A member that has served for so long is well again after a quarantine.
const WELL_AFTER: Duration = Duration::from_secs(60);
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

/// Two members computed different digests after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dispute {
    zxid: Zxid,
    mine: u128,
    theirs: u128,
}

/// The last zxid of a dispute: many members may ask about one entry, which is decided once.
#[derive(Debug, Default)]
struct Disputed(Zxid);

impl Disputed {
    /// What this member computed; and a dispute, when that is something else than the asker did.
    fn asked(&mut self, computed: &Computed, zxid: Zxid, theirs: u128) -> (wire::Response, Option<Dispute>) {
        let answer = computed.at(zxid);
        let dispute = match answer {
            wire::Computed::Is(mine) if mine != theirs && zxid > self.0 => {
                self.0 = zxid;
                Some(Dispute { zxid, mine, theirs })
            }
            _ => None,
        };
        (wire::Response::Digest(answer), dispute)
    }
}

/// Answers other members. Until `started` brings what a running member has, it answers what needs none of that: others
/// may wait for this member's digest before they, and with them this one's Raft, can start.
pub(crate) async fn serve_peers(
    computed: Computed,
    mut started: oneshot::Receiver<Arc<Shared>>,
    mut requests: mpsc::Receiver<PeerRequest>,
) {
    let mut disputed = Disputed::default();
    let mut disputes = Vec::new();
    let shared = loop {
        tokio::select! {
            biased;
            shared = &mut started => match shared {
                Ok(shared) => break shared,
                // It did not start.
                Err(_) => return,
            },
            request = requests.recv() => {
                let Some(PeerRequest { request, reply, .. }) = request else { return };
                disputes.extend(answer_early(&computed, &mut disputed, &request, reply));
            }
        }
    };
    disputes.into_iter().for_each(|dispute| drop(tokio::spawn(settle(Arc::clone(&shared), dispute))));
    serve(shared, requests, disputed).await;
}

/// Answers what a member can that does not run yet; gives what it will have to settle when it does.
fn answer_early(
    computed: &Computed,
    disputed: &mut Disputed,
    request: &wire::Request,
    reply: oneshot::Sender<wire::Response>,
) -> Option<Dispute> {
    let mut dispute = None;
    let response = match request {
        wire::Request::Clock => wire::Response::Clock { wall_ms: wall_ms() },
        wire::Request::Status => wire::Response::Status(starting(computed)),
        wire::Request::Digest { zxid, computed: theirs } => {
            let (response, found) = disputed.asked(computed, Zxid(*zxid), *theirs);
            dispute = found;
            response
        }
        _ => wire::Response::Refused(wire::Refused::NotAvailable),
    };
    drop(reply.send(response));
    dispute
}

/// How a member is that does not run yet.
fn starting(computed: &Computed) -> wire::Status {
    let (zxid, digest) = computed.last();
    let status = wire::Status::without_a_run("starting", "it is starting".to_owned());
    wire::Status { zxid: zxid.0, digest: digest.unwrap_or_default(), ..status }
}

async fn serve(shared: Arc<Shared>, mut requests: mpsc::Receiver<PeerRequest>, mut disputed: Disputed) {
    while let Some(PeerRequest { request, reply, .. }) = requests.recv().await {
        let response = match request {
            wire::Request::Clock => wire::Response::Clock { wall_ms: wall_ms() },
            wire::Request::Status => match shared.status() {
                Ok(status) => wire::Response::Status(status),
                Err(fault) => {
                    shared.fault_of(&fault);
                    continue;
                }
            },
            wire::Request::Digest { zxid, computed } => {
                let (response, dispute) = disputed.asked(&shared.computed, Zxid(zxid), computed);
                dispute.into_iter().for_each(|dispute| drop(tokio::spawn(settle(Arc::clone(&shared), dispute))));
                response
            }
            wire::Request::Ready(digests) => {
                wire::Response::Ready(digests.into_iter().map(|digest| shared.plugins.state(digest)).collect())
            }
            wire::Request::PluginStats(plugin) => {
                wire::Response::PluginStats(plugins::own_stats(&shared, plugin.as_deref()))
            }
            wire::Request::PluginLog { plugin, after } => {
                wire::Response::PluginLog(plugins::own_log(&shared, &plugin, after))
            }
            wire::Request::Admin(request) => {
                let shared = Arc::clone(&shared);
                // It takes as long as members take to catch up.
                tokio::spawn(async move {
                    let answer = crate::cluster::perform(&shared, request).await;
                    drop(reply.send(wire::Response::Admin(answer)));
                });
                continue;
            }
            _ => continue,
        };
        drop(reply.send(response));
    }
}

/// Another member computed another digest than this one. Whose entry it was, the planner's own member does not notice by
/// applying it: it asks as well.
async fn settle(shared: Arc<Shared>, Dispute { zxid, mine, theirs }: Dispute) {
    let replica = shared.replica.clone();
    // This member went on behind the entry: what it says is what this member computed.
    match digests::decide(&shared.peers, || replica.membership(), zxid, mine, mine).await {
        Verdict::Mine | Verdict::MineAndPlanned | Verdict::Stopping => {}
        Verdict::Theirs => shared.fault_of(&Fault::Digest { zxid, computed: mine, expected: theirs }),
        Verdict::Nobody => shared.fault(digests::no_majority(zxid)),
    }
}

/// Sends checkpoints to members that make their state again.
pub(crate) async fn serve_fetches(
    shared: Arc<Shared>,
    mut streams: mpsc::Receiver<(peer::Stream, u64)>,
    storage: StorageOptions,
) {
    while let Some((stream, at_least)) = streams.recv().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let peer::Stream { from, writer, reader } = stream;
            let mut ends = Ends { writer, reader };
            tracing::info!(from, at_least, "a member fetches a checkpoint");
            let found = match shared.checkpointer.newest().filter(|newest| newest.position().index >= at_least) {
                Some(newest) => Ok(Ok(newest)),
                // Everything that is applied here.
                None => ends.working(shared.checkpointer.fresh(shared.publisher.published())).await,
            };
            let sent = match found {
                Ok(Ok(checkpoint)) => match enough(checkpoint.position(), at_least) {
                    Ok(()) => {
                        let sent = transfer::send(ends, &checkpoint, storage.snapshot_bytes_per_s, &shared.carried);
                        sent.await.map(|_| ())
                    }
                    Err(why) => return ends.fail(&why).await,
                },
                Ok(Err(why)) => return ends.fail(&why).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::warn!(from, %error, "a checkpoint did not arrive");
            }
        });
    }
}

/// Whether a checkpoint ends late enough: a member that is behind says so, and sends nothing.
fn enough(ends: Position, at_least: u64) -> Result<(), String> {
    if ends.index < at_least {
        return Err(format!("this member's state ends at entry {}, and {at_least} is needed", ends.index));
    }
    Ok(())
}

/// Forgets the last quarantine, when this member has been well for a while, and a checkpoint's scan has found nothing.
pub(crate) async fn forgive(shared: Arc<Shared>, dir: PathBuf) {
    while !shared.is_ready() {
        tokio::time::sleep(AGAIN).await;
    }
    while shared.checkpointer.counts().made.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(WELL_AFTER).await;
    }
    tokio::time::sleep(WELL_AFTER).await;
    if shared.is_ready()
        && let Err(error) = Record::forget(&dir)
    {
        tracing::warn!(%error, "the record of the last quarantine can't be removed");
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
    let asked = voters.iter().map(async |voter| {
        if *voter == shared.id.0 {
            return Some(wall_ms());
        }
        match shared.peers.ask(*voter, wire::Request::Clock, CLOCK_WITHIN).await {
            Ok(wire::Response::Clock { wall_ms }) => Some(wall_ms),
            _ => None,
        }
    });
    let walls: Vec<u64> = join_all(asked).await.into_iter().flatten().collect();
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
            Ok(Err(fault)) => return shared.fault_of(&fault),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What a member that is starting says to this, and what it will have to settle.
    fn ask(computed: &Computed, disputed: &mut Disputed, request: &wire::Request) -> (wire::Response, Option<Dispute>) {
        let (reply, mut answer) = oneshot::channel();
        let dispute = answer_early(computed, disputed, request, reply);
        (answer.try_recv().unwrap(), dispute)
    }

    #[test]
    fn a_member_that_is_starting_tells_its_digests_its_clock_and_how_it_is() {
        let computed = Computed::after(Zxid(3));
        computed.keep(Zxid(4), 44);
        let mut disputed = Disputed::default();
        let mut digest = |zxid, theirs| {
            let request = wire::Request::Digest { zxid, computed: theirs };
            ask(&computed, &mut disputed, &request)
        };
        assert_eq!(digest(3, 1), (wire::Response::Digest(wire::Computed::Forgotten), None));
        assert_eq!(digest(5, 1), (wire::Response::Digest(wire::Computed::NotYet), None));
        assert_eq!(digest(4, 44), (wire::Response::Digest(wire::Computed::Is(44)), None));
        let dispute = Dispute { zxid: Zxid(4), mine: 44, theirs: 5 };
        assert_eq!(digest(4, 5), (wire::Response::Digest(wire::Computed::Is(44)), Some(dispute)));
        assert_eq!(digest(4, 6).1, None, "it is settled once");
        let (said, _) = ask(&computed, &mut disputed, &wire::Request::Status);
        assert!(matches!(&said, wire::Response::Status(status) if status.zxid == 4 && status.role == "starting"));
        assert!(matches!(ask(&computed, &mut disputed, &wire::Request::Clock).0, wire::Response::Clock { .. }));
        let (said, _) = ask(&computed, &mut disputed, &wire::Request::ReadIndex);
        assert_eq!(said, wire::Response::Refused(wire::Refused::NotAvailable));
    }

    #[test]
    fn a_member_that_is_behind_has_no_checkpoint_for_whoever_is_ahead() {
        let ends = Position { term: 2, index: 70 };
        assert_eq!(enough(ends, 70), Ok(()));
        let why = enough(ends, 71).unwrap_err();
        assert!(why.contains("70") && why.contains("71"), "{why}");
    }
}
