//! Brings this member's requests and heartbeats to whoever leads, and sends them again when that changes.
//!
//! The publisher's list of waiting requests is the truth; this task only carries. A request leaves the list when its
//! transaction is published here, so whatever is on the list when the leader changes is sent to the new one, in order
//! of arrival: the session's sequence, or the nonce, makes sure that it is done once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use conclave_core::Fault;
use conclave_core::entry::Origin;
use conclave_core::query::{self, Stored};
use conclave_link::{FrameReader, FrameWriter, RecvStream, SendStream};
use conclave_protocol::{Refusal, RequestId, ServerMessage, SessionId, Zxid, limits};
use conclave_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::monotonic;
use crate::outbox::{LEAST_ROOM, Out, Outbox};
use crate::peer::{Peers, wire};
use crate::planner::{self, Envelope, Told};
use crate::publish::Publisher;
use crate::raft::Leadership;
use crate::sessions;

/// How long a request waits that has to be sent again: long enough for an election not to be hammered, short enough
/// not to be felt.
const RETRY: Duration = Duration::from_millis(10);
/// How long a batch of heartbeats may go unanswered before it is sent again: a leader that has just begun, or that could
/// not be confirmed, says nothing.
const BEATS_AGAIN: Duration = Duration::from_millis(200);
/// How long a request waits for the zxid that its answer is said to have.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of requests that a frame is filled up to; a larger request has one of its own.
const FRAME_FILL: usize = 1 << 20;
/// Bytes of the largest request: it fits a frame with what is around it.
const LARGEST: usize = limits::PEER_FRAME_BYTES - 1_024;

/// What a member sends to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Up {
    /// Requests, in order.
    Requests(Vec<Envelope>),
    /// Sessions that heartbeats have come from.
    Renew {
        /// The sender's number for this batch.
        round: u64,
        /// Which sessions.
        sessions: Vec<SessionId>,
    },
}

/// What the leader sends back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Down {
    /// What became of requests that were not planned, by the sender's numbers.
    Told(Vec<(u64, Told)>),
    /// These sessions of the batch are renewed, by a leader that was confirmed after the batch had arrived.
    Renewed {
        /// Which batch.
        round: u64,
        /// Which sessions: those missing are over.
        sessions: Vec<SessionId>,
    },
}

/// What connections ask of the forwarder.
pub(crate) enum Command {
    /// A request that was just registered with the publisher.
    Submit(Box<Envelope>),
    /// A heartbeat.
    Heartbeat(SessionId, Outbox, RequestId),
}

/// Where the forwarder's requests go.
enum Route {
    /// Nobody is known to lead.
    None,
    /// The planner of this member.
    Local,
    /// Another member.
    Remote { writer: Box<FrameWriter<SendStream>>, reading: tokio::task::JoinHandle<()> },
}

/// See the module.
pub(crate) struct Forwarder {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) store: Store,
    pub(crate) planner: planner::Handle,
    pub(crate) leases: mpsc::UnboundedSender<sessions::Command>,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) id: u64,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    /// Told of rows that can't be read.
    pub(crate) faults: Arc<dyn Fn(&Fault) + Send + Sync>,
}

/// A heartbeat that is not answered.
struct Beat {
    outbox: Outbox,
    id: RequestId,
    /// The first batch that it was in: a confirmation of that one, or of any later, is one of this heartbeat.
    round: u64,
}

/// The forwarder's own state.
struct State {
    route: Route,
    /// Counts routes: the end of an earlier one is no news.
    routes: u64,
    /// Of this (term, leader) the route is.
    target: Option<(u64, u64)>,
    /// What the leader says. A route has its own: what an earlier leader said and was not heard is void, since the
    /// requests that it spoke of are sent again.
    told: planner::Source,
    told_here: mpsc::UnboundedReceiver<Vec<(u64, Told)>>,
    renewed: mpsc::UnboundedSender<(u64, Vec<SessionId>)>,
    broken: mpsc::UnboundedSender<u64>,
    retry: BTreeSet<u64>,
    /// Heartbeats that have not been sent.
    beats: HashMap<SessionId, Vec<(Outbox, RequestId)>>,
    /// Heartbeats that were sent.
    under_way: HashMap<SessionId, Vec<Beat>>,
    /// When the last batch of them was.
    sent_at: Duration,
    round: u64,
}

impl State {
    /// Leaves the route that there is.
    fn close(&mut self) {
        if let Route::Remote { reading, .. } = std::mem::replace(&mut self.route, Route::None) {
            reading.abort();
        }
    }
}

impl Forwarder {
    /// Carries until the member stops.
    pub(crate) async fn run(mut self) {
        let (told, told_here) = mpsc::unbounded_channel();
        let (renewed, mut renewed_here) = mpsc::unbounded_channel();
        let (broken, mut broken_here) = mpsc::unbounded_channel();
        let mut state = State {
            route: Route::None,
            routes: 0,
            target: None,
            told,
            told_here,
            renewed,
            broken,
            retry: BTreeSet::new(),
            beats: HashMap::new(),
            under_way: HashMap::new(),
            sent_at: Duration::ZERO,
            round: 0,
        };
        let mut timer = tokio::time::interval(RETRY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut commands = Vec::new();
        loop {
            let needs_timer = !state.retry.is_empty()
                || !state.under_way.is_empty()
                || matches!(state.route, Route::None) && state.target.is_some();
            tokio::select! {
                biased;
                changed = self.leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reroute(&mut state).await;
                }
                // The timer opens the next one: a leader that closes each stream at once is not to be hammered.
                Some(route) = broken_here.recv() => if route == state.routes {
                    state.close();
                },
                Some(batch) = state.told_here.recv() => self.told(&mut state, batch),
                Some((round, sessions)) = renewed_here.recv() => {
                    self.renewed(&mut state, round, &sessions);
                    if state.under_way.is_empty() {
                        self.send_beats(&mut state).await;
                    }
                }
                count = self.commands.recv_many(&mut commands, 1024) => {
                    if count == 0 {
                        return;
                    }
                    let mut envelopes = Vec::with_capacity(count);
                    for command in commands.drain(..) {
                        match command {
                            Command::Submit(envelope) => envelopes.push(*envelope),
                            Command::Heartbeat(session, outbox, id) => {
                                state.beats.entry(session).or_default().push((outbox, id));
                            }
                        }
                    }
                    self.send(&mut state, envelopes).await;
                    if state.under_way.is_empty() {
                        self.send_beats(&mut state).await;
                    }
                }
                _ = timer.tick(), if needs_timer => {
                    if matches!(state.route, Route::None) {
                        self.reroute(&mut state).await;
                    }
                    self.retry(&mut state).await;
                    if !state.under_way.is_empty() && monotonic().saturating_sub(state.sent_at) >= BEATS_AGAIN {
                        self.send_beats(&mut state).await;
                    }
                }
            }
        }
    }

    /// Turns to whoever leads now, and sends everything that waits.
    async fn reroute(&mut self, state: &mut State) {
        let leadership = *self.leadership.borrow_and_update();
        let target = leadership.leader.map(|leader| (leadership.term, leader));
        if target == state.target && !matches!(state.route, Route::None) {
            return;
        }
        state.target = target;
        state.close();
        state.routes += 1;
        (state.told, state.told_here) = mpsc::unbounded_channel();
        let Some((_, leader)) = target else { return };
        if leader == self.id {
            state.route = Route::Local;
        } else {
            match self.peers.open_forward(leader).await {
                Ok((writer, reader)) => {
                    let broken = (state.routes, state.broken.clone());
                    let reading = read_down(reader, state.told.clone(), state.renewed.clone(), broken);
                    state.route = Route::Remote { writer: Box::new(writer), reading: tokio::spawn(reading) };
                }
                // The timer tries again, for as long as that member is said to lead.
                Err(error) => {
                    tracing::debug!(leader, %error, "the leader can't be reached");
                    return;
                }
            }
        }
        state.retry.clear();
        let waiting = self.publisher.all_waiting();
        let envelopes = waiting.into_iter().map(|(token, request)| Envelope { token, request }).collect();
        self.send(state, envelopes).await;
        self.send_beats(state).await;
    }

    /// Sends requests; without a route they wait on the publisher's list.
    async fn send(&self, state: &mut State, envelopes: Vec<Envelope>) {
        if envelopes.is_empty() {
            return;
        }
        match &mut state.route {
            Route::None => {}
            Route::Local => self.planner.send(planner::Command::Requests(state.told.clone(), envelopes)),
            Route::Remote { writer, .. } => {
                let (frames, too_large) = frames(envelopes);
                for (Envelope { token, .. }, bytes) in too_large {
                    // No client's frame holds as much; a leader that closes the stream for it would be sent it for ever.
                    let what = "bytes of a request between members".to_owned();
                    let refusal = Refusal::Limit { what, limit: LARGEST as u64, actual: bytes as u64 };
                    self.publisher.refuse(token, self.publisher.published(), refusal);
                }
                let sent = frames.into_iter().try_for_each(|frame| push(writer, &Up::Requests(frame)));
                let flushed = match sent {
                    Ok(()) => writer.flush().await,
                    Err(error) => Err(error),
                };
                if flushed.is_err() {
                    let _ = state.broken.send(state.routes);
                }
            }
        }
    }

    /// Sends the heartbeats that came, and those that nobody has answered, as one batch.
    async fn send_beats(&self, state: &mut State) {
        if state.beats.is_empty() && state.under_way.is_empty() || matches!(state.route, Route::None) {
            return;
        }
        state.round += 1;
        let round = state.round;
        for (session, beats) in std::mem::take(&mut state.beats) {
            let beats = beats.into_iter().map(|(outbox, id)| Beat { outbox, id, round });
            state.under_way.entry(session).or_default().extend(beats);
        }
        state.sent_at = monotonic();
        let sessions: Vec<SessionId> = state.under_way.keys().copied().collect();
        match &mut state.route {
            Route::None => {}
            Route::Local => {
                let renewed = state.renewed.clone();
                let reply = Box::new(move |sessions| drop(renewed.send((round, sessions))));
                drop(self.leases.send(sessions::Command::Renew { sessions, arrived: monotonic(), reply }));
            }
            Route::Remote { writer, .. } => {
                let sent = match push(writer, &Up::Renew { round, sessions }) {
                    Ok(()) => writer.flush().await,
                    Err(error) => Err(error),
                };
                if sent.is_err() {
                    let _ = state.broken.send(state.routes);
                }
            }
        }
    }

    /// Answers the heartbeats of a batch, or of an earlier one, that was renewed. A confirmation may take longer than
    /// the patience here, and comes when the batch was sent again: it holds for what was in it.
    fn renewed(&self, state: &mut State, round: u64, sessions: &[SessionId]) {
        let renewed: BTreeSet<SessionId> = sessions.iter().copied().collect();
        let zxid = self.publisher.published();
        for (session, beats) in &mut state.under_way {
            for Beat { outbox, id, .. } in beats.extract_if(.., |beat| beat.round <= round) {
                if renewed.contains(session) {
                    let answer = Ok(conclave_protocol::Answer::Alive);
                    outbox.send(Out::Now(ServerMessage::Answer { id, zxid, answer }, LEAST_ROOM));
                } else {
                    // Not renewed: over, or about to be. The publisher tells the connection when it is.
                    tracing::debug!(%session, "the leader did not renew the session");
                }
            }
        }
        state.under_way.retain(|_, beats| !beats.is_empty());
    }

    fn told(&self, state: &mut State, batch: Vec<(u64, Told)>) {
        for (token, told) in batch {
            match told {
                Told::Resend => {
                    state.retry.insert(token);
                }
                Told::PushBack(why) => self.publisher.push_back(token, why),
                Told::Dropped => {
                    let why = "the reply to this sequence was acknowledged before".to_owned();
                    self.publisher.refuse(token, self.publisher.published(), Refusal::BadRequest { why });
                }
                Told::Look(zxid) => {
                    let (publisher, store, told) =
                        (Arc::clone(&self.publisher), self.store.clone(), state.told.clone());
                    let faults = Arc::clone(&self.faults);
                    tokio::spawn(async move { look(&publisher, &store, token, zxid, &told, &*faults).await });
                }
            }
        }
    }

    /// Sends again what the leader could not place.
    async fn retry(&self, state: &mut State) {
        if matches!(state.route, Route::None) {
            return;
        }
        let tokens = std::mem::take(&mut state.retry);
        let waiting = tokens.into_iter().filter_map(|token| Some((token, self.publisher.waiting(token)?.1)));
        let envelopes = waiting.map(|(token, request)| Envelope { token, request }).collect();
        self.send(state, envelopes).await;
    }
}

/// Looks a request up in this member's applied state, once that has reached a zxid.
async fn look(
    publisher: &Publisher,
    store: &Store,
    token: u64,
    zxid: Zxid,
    told: &mpsc::UnboundedSender<Vec<(u64, Told)>>,
    faults: &(dyn Fn(&Fault) + Send + Sync),
) {
    // A zxid that was planned and came to nothing may be long in coming: what is asked again is looked up again.
    match tokio::time::timeout(LOOK_WITHIN, publisher.reached(zxid)).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(_) => return drop(told.send(vec![(token, Told::Resend)])),
    }
    let Some((origin, _)) = publisher.waiting(token) else { return };
    let stored = store.snapshot().and_then(|snapshot| query::stored(&snapshot, &origin));
    match stored {
        Ok(Stored::Reply { zxid, outcome }) => publisher.deliver_stored(token, zxid, outcome),
        Ok(Stored::SessionOver) => {
            if let Origin::Session { session, .. } = origin {
                publisher.refuse(token, zxid, Refusal::SessionOver { session });
                publisher.over(session);
            }
        }
        // The zxid was planned and then came to nothing: from the start.
        Ok(Stored::NotYet) => drop(told.send(vec![(token, Told::Resend)])),
        Err(fault) => faults(&fault),
    }
}

/// Reads what the leader sends back, until the stream ends.
async fn read_down(
    mut reader: FrameReader<RecvStream>,
    told: mpsc::UnboundedSender<Vec<(u64, Told)>>,
    renewed: mpsc::UnboundedSender<(u64, Vec<SessionId>)>,
    (route, broken): (u64, mpsc::UnboundedSender<u64>),
) {
    while let Ok(Some(frame)) = reader.next(limits::PEER_FRAME_BYTES).await {
        match wire::decode(&frame) {
            Ok(Down::Told(batch)) => drop(told.send(batch)),
            Ok(Down::Renewed { round, sessions }) => drop(renewed.send((round, sessions))),
            Err(error) => {
                tracing::warn!(%error, "the leader sent something that is no message");
                break;
            }
        }
    }
    let _ = broken.send(route);
}

/// The leader's end of a forward stream: serves one member until its stream ends.
pub(crate) async fn serve(
    mut reader: FrameReader<RecvStream>,
    mut writer: FrameWriter<SendStream>,
    planner: planner::Handle,
    leases: mpsc::UnboundedSender<sessions::Command>,
) {
    let (told, mut told_here) = mpsc::unbounded_channel::<Vec<(u64, Told)>>();
    let (renewed, mut renewed_here) = mpsc::unbounded_channel::<(u64, Vec<SessionId>)>();
    loop {
        tokio::select! {
            frame = reader.next(limits::PEER_FRAME_BYTES) => {
                let Ok(Some(frame)) = frame else { return };
                match wire::decode(&frame) {
                    Ok(Up::Requests(envelopes)) => planner.send(planner::Command::Requests(told.clone(), envelopes)),
                    Ok(Up::Renew { round, sessions }) => {
                        let renewed = renewed.clone();
                        let reply = Box::new(move |sessions| drop(renewed.send((round, sessions))));
                        drop(leases.send(sessions::Command::Renew { sessions, arrived: monotonic(), reply }));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a member sent something that is no request");
                        return;
                    }
                }
            }
            Some(batch) = told_here.recv() => {
                if push(&mut writer, &Down::Told(batch)).is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            Some((round, sessions)) = renewed_here.recv() => {
                if push(&mut writer, &Down::Renewed { round, sessions }).is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

fn push<T: Serialize>(writer: &mut FrameWriter<SendStream>, message: &T) -> Result<(), conclave_link::FrameError> {
    writer.push_bytes(wire::encode(message).into())
}

/// Requests in frames that the leader takes, in their order; and those of which one alone would be too large for it, with
/// their sizes.
fn frames(envelopes: Vec<Envelope>) -> (Vec<Vec<Envelope>>, Vec<(Envelope, usize)>) {
    let mut frames = Vec::new();
    let mut too_large = Vec::new();
    let mut frame = Vec::new();
    let mut bytes = 0;
    for envelope in envelopes {
        let weight = weight(&envelope);
        if weight > LARGEST {
            too_large.push((envelope, weight));
            continue;
        }
        if !frame.is_empty() && bytes + weight > FRAME_FILL {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += weight;
        frame.push(envelope);
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    (frames, too_large)
}

/// How many bytes an envelope takes in a frame.
fn weight(envelope: &Envelope) -> usize {
    postcard::experimental::serialized_size(envelope).expect("messages have only known lengths")
}

#[cfg(test)]
mod tests;
