//! Reads: from the applied state of this member, as fresh as they must be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conclave_core::Fault;
use conclave_core::query;
use conclave_protocol::plugin::PluginState;
use conclave_protocol::{
    Answer, Call, Consistency, MemberId, MemberStatus, PushBack, Query, RequestId, ServerMessage, SessionId, Status,
    Who, Zxid, codec,
};
use tokio::time::{Instant, timeout_at};

use crate::cluster::{self, Surveyed};
use crate::member::Shared;
use crate::monotonic;
use crate::outbox::Outbox;

/// Paths of one read of many up to which it is answered at once.
const FEW_PATHS: usize = 64;

/// Whether answering may take long: it is done on a thread that may block, and not many at a time.
pub(crate) fn is_heavy(query: &Query) -> bool {
    match query {
        // The principal's own may be far apart among those of others.
        Query::Count { .. } | Query::Sessions { .. } => true,
        // Manifests of all plugins; parked calls of others in between; what a plugin does.
        Query::Plugins { .. } | Query::Calls { .. } | Query::Call(_) => true,
        Query::Many { paths } => paths.len() > FEW_PATHS,
        _ => false,
    }
}

/// About how many bytes an answer takes until it is written.
pub(crate) fn weight(message: &ServerMessage) -> usize {
    const STAT: usize = 256;
    let ServerMessage::Answer { answer: Ok(answer), .. } = message else { return 0 };
    let principal = |who: &Who| match who {
        Who::Anyone => 0,
        Who::Principal(principal) => principal.len(),
    };
    match answer {
        Answer::Znode { data, .. } => data.len() + STAT,
        Answer::Page(page) => {
            let entry = |entry: &conclave_protocol::Entry| {
                entry.name.len() + entry.data.as_ref().map_or(0, bytes::Bytes::len) + STAT
            };
            page.children.iter().map(entry).sum()
        }
        Answer::Many(many) => many.iter().map(|one| one.as_ref().map_or(1, |one| one.data.len() + STAT)).sum(),
        Answer::Acl { acl, .. } => acl.0.iter().map(|grant| principal(&grant.who) + STAT).sum(),
        Answer::Owned { paths, .. } => paths.iter().map(|path| path.as_str().len() + 8).sum(),
        Answer::Sessions { sessions, .. } => sessions.iter().map(|one| one.principal.len() + STAT).sum(),
        Answer::Called(result) => result.len(),
        // Few of them and large, or small ones: what they take is what their bytes are, about.
        Answer::Plugins(_) | Answer::Calls { .. } => codec::encode(message).len(),
        _ => 0,
    }
}

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

/// The same for what may take long: elsewhere, when it is its turn.
pub(crate) async fn answer_elsewhere(
    shared: &Arc<Shared>,
    asker: Asker,
    id: RequestId,
    query: Query,
    until: Instant,
) -> (ServerMessage, Zxid) {
    let not_ready = || (ServerMessage::PushBack { id, why: PushBack::NotReady }, Zxid(0));
    let places = if let Query::Call(call) = &query {
        match timeout_at(until, can_run(shared, &call.plugin)).await {
            Ok(Ok(())) => &shared.queries,
            Ok(Err(fault)) => return (shared.faulty(id, fault), Zxid(0)),
            Err(_) => return not_ready(),
        }
    } else {
        &shared.heavy
    };
    let permit = Arc::clone(places).acquire_owned().await;
    let here = Arc::clone(shared);
    let answered = tokio::task::spawn_blocking(move || {
        // Until it is done, whether anybody waits for it or not.
        let _permit = permit;
        match &query {
            Query::Call(call) => ask_plugin(&here, &asker, id, call),
            query => answer(&here, &asker.principal, id, query),
        }
    });
    // It panicked, or the runtime is ending.
    answered.await.unwrap_or_else(|_| not_ready())
}

/// Who asks.
pub(crate) struct Asker {
    principal: Arc<str>,
    session: Option<SessionId>,
}

impl Asker {
    /// Whoever is at the other end of this connection.
    pub(crate) fn of(outbox: &Outbox) -> Self {
        Self { principal: Arc::clone(&outbox.principal), session: outbox.session() }
    }
}

/// Waits until this member can run a plugin. That there is none, or that it does not run, is an answer.
async fn can_run(shared: &Shared, plugin: &str) -> Result<(), Fault> {
    let active = || {
        let row = query::plugin(&shared.store.snapshot()?, plugin)?;
        let active = row.filter(|row| row.info.state == PluginState::Active);
        Ok(active.map(|row| row.info.version.digest))
    };
    shared.plugins.can_run(active).await
}

/// Asks a plugin over the applied state.
fn ask_plugin(shared: &Shared, asker: &Asker, id: RequestId, call: &Call) -> (ServerMessage, Zxid) {
    let ask = || -> Result<_, Fault> {
        let snapshot = shared.store.snapshot()?;
        let zxid = query::state(&snapshot)?.zxid;
        let engine = Arc::clone(shared.plugins.engine());
        let Asker { principal, session } = asker;
        let answer = query::call(Box::new(snapshot), engine, principal, *session, shared.now_ms(), call)?;
        Ok((zxid, answer.map(Answer::Called)))
    };
    match ask() {
        Ok((zxid, answer)) => (ServerMessage::Answer { id, zxid, answer }, zxid),
        Err(fault) => (shared.faulty(id, fault), Zxid(0)),
    }
}

/// The last read-index round whose outcome is applied here: when it began, on this member's monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Freshness(Mutex<Option<Duration>>);

impl Freshness {
    fn applied(&self, began: Duration) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(began));
    }

    /// Whether this member has everything that was acknowledged up to so long before now.
    fn is_within(&self, much: Duration, now: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.saturating_sub(last) <= much)
    }
}

/// Waits until this member has applied, and published, everything that was committed when this was called. False when no
/// leader could be asked.
pub(crate) async fn catch_up(shared: &Shared) -> bool {
    let began = monotonic();
    let Some(index) = shared.replica.read_index().await.ok() else { return false };
    let mut position = shared.position.clone();
    let reached = position.wait_for(|position| position.is_some_and(|position| position.index >= index)).await.is_ok();
    if reached {
        shared.freshness.applied(began);
    }
    reached
}

/// Whether this member has already what a read of this consistency must see, as far as others' writes go.
pub(crate) fn is_fresh(shared: &Shared, consistency: Consistency) -> bool {
    match consistency {
        Consistency::Session | Consistency::Stale => true,
        Consistency::Linearizable => false,
        Consistency::Within(ms) => shared.freshness.is_within(Duration::from_millis(ms), monotonic()),
    }
}

/// Whether a read is answered at once: from the state as it is, and not for long.
pub(crate) fn is_at_once(shared: &Shared, consistency: Consistency, query: &Query) -> bool {
    is_fresh(shared, consistency) && !matches!(query, Query::Status) && !is_heavy(query)
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

impl Shared {
    /// A fault is no answer: this member stops, and the client turns to another.
    fn faulty(&self, id: RequestId, fault: Fault) -> ServerMessage {
        self.fault_of(&fault);
        ServerMessage::PushBack { id, why: PushBack::NotReady }
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::{AccessList, Grant, Permissions, SessionId, SessionInfo, Stat};

    use super::*;

    #[test]
    fn what_names_principals_weighs_at_least_what_it_takes() {
        let name = "p".repeat(conclave_protocol::limits::PRINCIPAL_BYTES);
        let grant = Grant { who: Who::Principal(name.clone()), may: Permissions::ALL };
        let session = SessionInfo {
            session: SessionId(u64::MAX),
            principal: name,
            timeout_ms: u64::MAX,
            ephemerals: u64::MAX,
            writes: u64::MAX,
            unacknowledged: u64::MAX,
        };
        let acl = Answer::Acl { acl: AccessList(vec![grant; 64]), stat: Stat::default() };
        let sessions = Answer::Sessions { sessions: vec![session; 64], more: true };
        for answer in [acl, sessions] {
            let message = ServerMessage::Answer { id: 1, zxid: Zxid(1), answer: Ok(answer) };
            let (weighs, takes) = (weight(&message), codec::encode(&message).len());
            assert!((takes..2 * takes).contains(&weighs), "weighs {weighs}, takes {takes}");
        }
    }

    #[test]
    fn a_state_is_as_fresh_as_the_last_round_that_is_applied_was_when_it_began() {
        let at = Duration::from_millis;
        let freshness = Freshness::default();
        assert!(!freshness.is_within(at(u64::MAX), at(5)), "there was no round yet");
        freshness.applied(at(100));
        assert!(freshness.is_within(at(50), at(150)));
        assert!(!freshness.is_within(at(49), at(150)));
        freshness.applied(at(40));
        assert!(freshness.is_within(at(50), at(150)), "an earlier round that ended later takes nothing back");
    }
}
