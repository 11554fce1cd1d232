//! Making a state again that is not believed: from this member's own checkpoint and log, or from another member's
//! checkpoint. Vote and log are kept; Raft does not run meanwhile.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_core::apply::Position;
use conclave_link::{Dialer, Listener, Plane};
use conclave_log::Handle;
use conclave_store::{Checkpoint, Checkpoints, DirLock, Store};
use tokio::sync::mpsc;

use crate::admin;
use crate::config::Config;
use crate::member::Surroundings;
use crate::open;
use crate::peer::transfer::{self, Carried, Ends, Judged, Others};
use crate::peer::{self, PeerRequest, Peers, wire};
use crate::quarantine::Record;
use crate::raft::{self, Node};
use crate::wall_ms;

/// How long to wait before the other members are asked once more.
const AGAIN: Duration = Duration::from_millis(250);
/// How often work is broken off when the member is ending.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the run before may take to let the data directory go: a sync of its tables may be under way.
const CLOSING: Duration = Duration::from_secs(60);

/// Makes the state again, or gives up when the member is `ending`. The next run finds tables that are closed in good
/// order, and a log that fits them.
///
/// # Errors
/// Why it can't be done, in words for the log.
pub(crate) fn run(config: &Config, around: &Surroundings, record: &Record, ending: &AtomicBool) -> Result<(), String> {
    let dir = &config.data;
    let lock = lock(dir).map_err(words)?;
    // Before anything goes: nobody else here knows who was added since the configuration was written.
    let members = united(config, stored(config, around, &lock));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("reseed")
        .build()
        .map_err(words)?;
    let peers = {
        let _inside = runtime.enter();
        if let Some(address) = config.listen.admin {
            let listener = open::bind_admin(address).map_err(words)?;
            tokio::spawn(admin::quarantined(listener, record.why.clone()));
        }
        plane(config, record, &members)?
    };
    let made = (|| {
        if record.attempt == 1 {
            match rebuild(config, around, &lock) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(error, "this member's own checkpoint and log do not make its state"),
            }
        }
        let (log, thread) = open::log(config, around).map_err(words)?;
        let purged = log.purged().map_or(0, |purged| purged.index);
        let fetched = runtime.block_on(fetch(config, &peers, &members, &lock, purged, ending));
        let fitted = fetched
            .and_then(|fetched| fetched.map(|checkpoint| fit(&log, checkpoint.position())).transpose().map_err(words));
        drop(log);
        let ended = thread.join().map_err(|_| "the log's thread panicked".to_owned());
        if fitted?.is_none() {
            return ended;
        }
        ended?;
        rebuild(config, around, &lock)
    })();
    drop(peers);
    runtime.shutdown_timeout(Duration::from_secs(2));
    made
}

/// An error, as the log has it.
#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The lock on the data directory: the last run may still be closing what it had open.
fn lock(dir: &Path) -> Result<DirLock, conclave_store::Error> {
    let until = Instant::now() + CLOSING;
    loop {
        match DirLock::acquire(dir) {
            Err(conclave_store::Error::Locked { pid: Some(pid), .. })
                if pid == std::process::id() && Instant::now() < until =>
            {
                std::thread::sleep(AGAIN);
            }
            locked => return locked,
        }
    }
}

/// Who belongs to the cluster as far as the state of this member knows, which is not believed in all else: as its newest
/// checkpoint says, or its tables where there is none.
fn stored(config: &Config, around: &Surroundings, lock: &DirLock) -> BTreeMap<u64, Node> {
    let found = Checkpoints::open(lock, &config.cluster).and_then(|checkpoints| {
        if let Some(newest) = checkpoints.newest() {
            return Ok(raft::stored_members(newest.local()).nodes);
        }
        let opened = Store::open(lock, &config.cluster, &checkpoints, &open::store_options(around))?;
        let members = raft::stored_members(opened.writer.local()).nodes;
        if let Err(fault) = opened.writer.close() {
            tracing::warn!(%fault, "tables that are not believed were not closed");
        }
        Ok(members)
    });
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "who belongs to the cluster, only the configuration tells");
        BTreeMap::new()
    })
}

/// With the members of the configuration: whoever is in both is where the cluster has said.
fn united(config: &Config, stored: BTreeMap<u64, Node>) -> BTreeMap<u64, Node> {
    let mut members = open::nodes(config);
    members.extend(stored);
    members
}

/// The peer plane of a member that has nothing to say but that it is in quarantine.
fn plane(config: &Config, record: &Record, members: &BTreeMap<u64, Node>) -> Result<Peers, String> {
    let credentials = open::credentials(config).map_err(words)?;
    let listener = Listener::bind_with(config.listen.peer, Plane::Peer, &credentials, peer::tuning());
    let listener = listener.map_err(words)?;
    let dialer = Dialer::with(&credentials, Plane::Peer, peer::tuning()).map_err(words)?;
    let (peers, inlets) = Peers::start(config.member, &config.cluster, listener, dialer);
    // They are not made the members: then strangers would get no answer, and this one does not know who is none.
    members.iter().filter(|(id, _)| **id != config.member).for_each(|(id, node)| peers.add(*id, node));
    tokio::spawn(answer(inlets.services, format!("{} (attempt {})", record.why, record.attempt)));
    Ok(peers)
}

async fn answer(mut requests: mpsc::Receiver<PeerRequest>, why: String) {
    while let Some(PeerRequest { request, reply, .. }) = requests.recv().await {
        let response = match request {
            wire::Request::Clock => wire::Response::Clock { wall_ms: wall_ms() },
            wire::Request::Status => wire::Response::Status(wire::Status::without_a_run("quarantined", why.clone())),
            _ => wire::Response::Refused(wire::Refused::NotAvailable),
        };
        // Whoever asked may be gone.
        let _ = reply.send(response);
    }
}

/// Throws the tables away and makes them again from the newest checkpoint of this member; the log is applied by the
/// next run.
fn rebuild(config: &Config, around: &Surroundings, lock: &DirLock) -> Result<(), String> {
    let checkpoints = Checkpoints::open(lock, &config.cluster).map_err(words)?;
    if let Some(newest) = checkpoints.newest() {
        newest.verify(&mut |_| ControlFlow::Continue(())).map_err(words)?;
    }
    let mut options = open::store_options(around);
    options.discard = true;
    let opened = Store::open(lock, &config.cluster, &checkpoints, &options).map_err(words)?;
    let applied = opened.writer.local().applied.map_or(0, |applied| applied.index);
    opened.writer.close().map_err(words)?;
    drop(opened.store);
    let (log, thread) = open::log(config, around).map_err(words)?;
    let purged = log.purged().map_or(0, |purged| purged.index);
    drop(log);
    thread.join().map_err(|_| "the log's thread panicked".to_owned())?;
    if applied < purged {
        return Err(format!("the checkpoint ends at entry {applied}, and the log begins after {purged}"));
    }
    tracing::info!(index = applied, "the tables were made again");
    Ok(())
}

/// Fetches a checkpoint that holds at least this entry from whichever member has one, and makes it the only one here.
/// None when the member is ending.
async fn fetch(
    config: &Config,
    peers: &Peers,
    members: &BTreeMap<u64, Node>,
    lock: &DirLock,
    at_least: u64,
    ending: &AtomicBool,
) -> Result<Option<Checkpoint>, String> {
    let checkpoints = Checkpoints::open(lock, &config.cluster).map_err(words)?;
    let carried = Carried::default();
    let others: Vec<u64> = members.keys().copied().filter(|id| *id != config.member).collect();
    if others.is_empty() {
        return Err("there is no other member to fetch a checkpoint from; restore a backup".to_owned());
    }
    let fetching = async {
        let mut said = None;
        loop {
            for member in &others {
                match fetch_from(peers, *member, at_least, &checkpoints, &carried).await {
                    Ok(checkpoint) => return checkpoint,
                    Err(error) => {
                        let error = error.to_string();
                        if said.as_ref() != Some(&error) {
                            tracing::warn!(member, error, "no checkpoint was fetched; the others are asked");
                        }
                        said = Some(error);
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    Ok(unless(ending, fetching).await)
}

/// What comes of the work; None when the member ends meanwhile, however long the work would have taken.
async fn unless<T>(ending: &AtomicBool, work: impl Future<Output = T>) -> Option<T> {
    let ended = async {
        while !ending.load(Ordering::Acquire) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = ended => None,
        done = work => Some(done),
    }
}

async fn fetch_from(
    peers: &Peers,
    member: u64,
    at_least: u64,
    checkpoints: &Checkpoints,
    carried: &Carried,
) -> Result<Checkpoint, peer::Error> {
    let (writer, reader) = peers.open_fetch(member, at_least).await?;
    let mut ends = Ends { writer, reader };
    // The checkpoints that this member made itself are of a state that is not believed.
    let received =
        transfer::receive(&mut ends, checkpoints, carried, Others::Disbelieved, |at| judge(at, at_least)).await;
    if let Err(error) = &received {
        ends.failed(error).await;
    }
    let checkpoint = received?.ok_or(peer::Error::Ended)?;
    // The sender may be gone: what it sent is here.
    drop(ends.done(None).await);
    Ok(checkpoint)
}

/// Refuses a checkpoint that ends before the log begins, before it is carried over.
fn judge(at: Position, at_least: u64) -> Judged {
    match at.index < at_least {
        true => Judged::Refused(format!("it ends at entry {}, and {at_least} is needed", at.index)),
        false => Judged::Wanted,
    }
}

/// Makes the log fit a state that ends at this entry, which is committed: what conflicts with it goes, and the log begins
/// no earlier than it would have to be applied.
///
/// # Errors
/// When the log can't be written.
pub(crate) fn fit(log: &Handle, at: Position) -> Result<(), conclave_log::Error> {
    let purged = log.purged();
    if purged.is_some_and(|purged| purged.index >= at.index) || log.term_at(at.index) == Some(at.term) {
        // The log goes on from there, or has it behind it.
        return Ok(());
    }
    if log.last().is_some_and(|last| last.index >= at.index) {
        // Another leader wrote there: nothing from there on was ever committed. What lies before, the state holds.
        log.truncate_after(purged.map(|purged| purged.index), Box::new(|_| {}))?;
    }
    log.purge_upto(conclave_log::Position { index: at.index, term: at.term }, Box::new(|_| {}))?;
    Ok(())
}

#[cfg(test)]
mod tests;
