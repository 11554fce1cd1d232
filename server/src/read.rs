//! Reads: from the applied state of this member, as fresh as they must be; and what a new watch is told of the past.

use std::convert::Infallible;

use conclave_core::query::{self, History};
use conclave_core::view::Base;
use conclave_core::{Action, Fault, authorize};
use conclave_protocol::{
    Answer, Change, MemberId, MemberStatus, PushBack, Query, RequestId, ServerMessage, Status, WatchRequest, Zxid,
    limits,
};

use crate::cluster::{self, Surveyed};
use crate::member::Shared;
use crate::publish::{Out, Outbox};
use crate::watches::{ConnectionId, is_told};

/// Transactions of the past that a new watch is told of while the publisher's lock is held.
const REPLAY_LOCKED: u64 = 256;
/// Transactions read at a time.
const REPLAY_PAGE: usize = 1_000;
/// Events that may wait for one connection because of watches that resume; beyond, they read the present state.
const REPLAY_EVENTS: usize = 10 * limits::QUEUED_EVENTS;

/// Answers a read from a snapshot; with the answer comes the zxid that has to be published before it is sent.
pub(crate) fn answer(shared: &Shared, principal: &str, id: RequestId, query: &Query) -> (ServerMessage, Zxid) {
    let read = || -> Result<_, Fault> {
        let snapshot = shared.store.snapshot()?;
        let zxid = query::state(&snapshot)?.zxid;
        Ok((zxid, query::answer(&snapshot, principal, query)?))
    };
    match read() {
        Ok((zxid, answer)) => (ServerMessage::Answer { id, zxid, answer }, zxid),
        Err(fault) => (shared.faulty(id, fault), Zxid(0)),
    }
}

/// Waits until this member has applied everything that was committed when this was called. False when no leader could
/// be asked.
pub(crate) async fn catch_up(shared: &Shared) -> bool {
    let Some(index) = shared.replica.read_index().await.ok() else { return false };
    let mut position = shared.position.clone();
    position.wait_for(|position| position.is_some_and(|position| position.index >= index)).await.is_ok()
}

/// The cluster as this member sees it.
pub(crate) async fn status(shared: &Shared, id: RequestId) -> ServerMessage {
    let leader = shared.leadership.borrow().leader.map(MemberId);
    let surveyed = cluster::survey(shared).await;
    let zxid = |one: &Surveyed| one.status().map(|status| Zxid(status.zxid));
    let own = surveyed.iter().find(|one| one.id == shared.id).and_then(zxid).unwrap_or_default();
    let member = |one: Surveyed| MemberStatus {
        id: one.id,
        role: one.role(),
        zxid: zxid(&one),
        digest: one.status().map(|status| format!("{:032x}", status.digest)),
        address: one.node.client,
    };
    let members = surveyed.into_iter().map(member).collect();
    // What is told of a zxid stands behind the events up to it.
    shared.publisher.reached(own).await;
    let status = Status { cluster: shared.cluster.clone(), leader, zxid: own, member: shared.id, members };
    ServerMessage::Answer { id, zxid: own, answer: Ok(Answer::Status(Box::new(status))) }
}

/// Starts a watch: what lies between the zxid that it resumes from and now is told first, without a gap or a repeat.
pub(crate) fn watch(
    shared: &Shared,
    connection: ConnectionId,
    outbox: &Outbox,
    id: RequestId,
    request: &WatchRequest,
) -> ServerMessage {
    match start(shared, connection, outbox, request) {
        Ok(zxid) => ServerMessage::Answer { id, zxid, answer: Ok(Answer::Watching) },
        Err(fault) => shared.faulty(id, fault),
    }
}

fn start(shared: &Shared, connection: ConnectionId, outbox: &Outbox, request: &WatchRequest) -> Result<Zxid, Fault> {
    let registration = (&request.path, request.scope, request.once);
    let Some(mut told) = request.since else {
        let since = shared
            .publisher
            .watch::<Infallible>(connection, request.watch, registration, |published, _| Ok(Some(published)));
        return Ok(since.unwrap_or_default().unwrap_or_default());
    };
    // A client that has seen more than this member was sent away at its hello; what it names beyond is not to be.
    told = told.min(shared.publisher.published());
    loop {
        // Without the lock, as long as there is much to tell.
        let end = shared.publisher.published();
        if end.0 - told.0 > REPLAY_LOCKED {
            let mut send = |out| outbox.send(out);
            match replay(shared, outbox, request, told, end, &mut send)? {
                Replayed::Upto(zxid) => told = zxid,
                Replayed::Over(zxid) => return Ok(zxid),
            }
            continue;
        }
        let mut over = None;
        let watching =
            shared.publisher.watch::<Fault>(connection, request.watch, registration, |published, send| {
                if published.0 - told.0 > REPLAY_LOCKED {
                    return Ok(None);
                }
                match replay(shared, outbox, request, told, published, send)? {
                    Replayed::Upto(zxid) => Ok(Some(zxid)),
                    Replayed::Over(zxid) => {
                        over = Some(zxid);
                        Ok(Some(zxid))
                    }
                }
            })?;
        if let Some(zxid) = over {
            // A one-shot watch that has had its event is over before it began.
            shared.publisher.unwatch(connection, request.watch);
            return Ok(zxid);
        }
        if let Some(zxid) = watching {
            return Ok(zxid);
        }
    }
}

enum Replayed {
    /// Everything up to here was told.
    Upto(Zxid),
    /// The one-shot watch has had its event.
    Over(Zxid),
}

/// Tells what happened after `after`, up to `end`.
fn replay(
    shared: &Shared,
    outbox: &Outbox,
    request: &WatchRequest,
    mut after: Zxid,
    end: Zxid,
    send: &mut dyn FnMut(Out),
) -> Result<Replayed, Fault> {
    let watch = request.watch;
    let mut event = |message| {
        outbox.queued.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        send(Out::Event(message));
    };
    while after < end {
        if outbox.queued.load(std::sync::atomic::Ordering::Acquire) >= REPLAY_EVENTS {
            event(ServerMessage::Resync { watch, zxid: end });
            return Ok(if request.once { Replayed::Over(end) } else { Replayed::Upto(end) });
        }
        let snapshot = shared.store.snapshot()?;
        let base: &dyn Base = &snapshot;
        let (transactions, upto) = match query::history(base, after, REPLAY_PAGE)? {
            History::TooShort { .. } => {
                event(ServerMessage::Resync { watch, zxid: end });
                return Ok(if request.once { Replayed::Over(end) } else { Replayed::Upto(end) });
            }
            History::Kept { transactions, upto, .. } => (transactions, upto),
        };
        for (zxid, changes) in transactions {
            if zxid > end {
                break;
            }
            let is_for = |change: &Change| {
                is_told(&request.path, request.scope, change)
                    && authorize(&outbox.principal, Action::Read, &change.path).is_ok()
            };
            let mut changes: Vec<Change> = changes.into_iter().filter(is_for).collect();
            if changes.is_empty() {
                continue;
            }
            if request.once {
                changes.truncate(1);
            }
            event(ServerMessage::Event { watch, zxid, changes });
            if request.once {
                return Ok(Replayed::Over(zxid));
            }
        }
        after = upto;
    }
    Ok(Replayed::Upto(end))
}

impl Shared {
    /// A fault is no answer: this member stops, and the client turns to another.
    fn faulty(&self, id: RequestId, fault: Fault) -> ServerMessage {
        self.fault_of(&fault);
        ServerMessage::PushBack { id, why: PushBack::NotReady }
    }
}
