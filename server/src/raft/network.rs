//! Raft's messages to one other member: single requests, and appends pipelined on a stream that stays open.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use conclave_store::Checkpoint;
use futures::{Stream, StreamExt};
use openraft::alias::VoteOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::entry::RaftEntry;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::{Instant, Sleep, sleep_until};

use super::translate;
use super::types::{LogId, Node, Snapshot, Types};
use crate::peer::transfer::{self, Carried, Ends};
use crate::peer::wire::{self, Appended, Request, Response};
use crate::peer::{Error as PeerError, Peers, Reader, Writer};

/// Appends on their way to one member. More would only lengthen the queue in front of its disk.
const IN_FLIGHT: usize = 64;
/// Bytes of appends that may wait for the stream to take them.
const UNSENT_BYTES: usize = 8 << 20;

/// Makes networks.
pub(super) struct Factory {
    pub(super) peers: Peers,
    /// An append that is not answered this long fails, and its stream with it. Much longer than a heartbeat: answers
    /// wait for the other's disk, and to send everything again makes a slow disk slower.
    pub(super) stall: Duration,
    pub(super) snapshots: Snapshots,
}

/// How checkpoints are sent.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub(super) bytes_per_s: u64,
    pub(super) carried: Arc<Carried>,
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Node) -> Network {
        self.peers.add(target, node);
        Network { peers: self.peers.clone(), target, stall: self.stall, snapshots: self.snapshots.clone(), lane: None }
    }
}

/// Messages to one member.
pub(super) struct Network {
    peers: Peers,
    target: u64,
    stall: Duration,
    snapshots: Snapshots,
    /// The stream of appends, kept from one call to the next: heartbeats and read indices are calls of one append,
    /// and opening a stream costs several times one.
    lane: Option<Lane>,
}

/// A stream of appends. Answers come in the order of the appends, so counting says which is whose.
struct Lane {
    writer: Writer,
    reader: Reader,
    /// Appends without an answer yet, oldest first.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// When it was handed to the stream.
    since: Instant,
    prev: Option<LogId>,
    last: Option<LogId>,
    /// Of a call that was given up: nobody wants the answer.
    abandoned: bool,
}

impl Network {
    fn failed(&self, action: RPCTypes, error: &PeerError) -> RPCError<Types> {
        match error {
            PeerError::NoAnswer(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.peers.id(), target: self.target, timeout: *timeout })
            }
            // The stream or the connection broke: another one may work at once.
            PeerError::Ended | PeerError::Frame(_) => RPCError::Network(NetworkError::new(error)),
            _ => RPCError::Unreachable(Unreachable::new(error)),
        }
    }

    async fn ask(&self, action: RPCTypes, request: Request, option: &RPCOption) -> Result<Response, RPCError<Types>> {
        // A little before openraft gives up by itself, so that it hears why.
        let deadline = option.hard_ttl() * 15 / 16;
        self.peers.ask(self.target, request, deadline).await.map_err(|error| self.failed(action, &error))
    }

    fn out_of_place(&self) -> RPCError<Types> {
        RPCError::Network(NetworkError::from_string(format!("member {} gave another answer", self.target)))
    }

    async fn poll(&self, request: Request, option: &RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(RPCTypes::Vote, request, option).await? {
            Response::Poll(poll) => Ok(translate::vote_response(poll)),
            _ => Err(self.out_of_place()),
        }
    }

    /// The stream that is there, or a new one. Answers to calls before this one are to be dropped.
    async fn lane(&mut self, option: &RPCOption) -> Result<&mut Lane, RPCError<Types>> {
        let now = Instant::now();
        let stall = self.stall;
        if let Some(lane) = &mut self.lane {
            if lane.overdue(stall).is_some_and(|at| at <= now) || lane.waiting.len() >= IN_FLIGHT {
                self.lane = None;
            } else {
                lane.waiting.iter_mut().for_each(|waiting| waiting.abandoned = true);
            }
        }
        if self.lane.is_none() {
            let opened = tokio::time::timeout(option.hard_ttl().max(stall), self.peers.open_append(self.target)).await;
            let opened = opened.unwrap_or_else(|_| Err(PeerError::NoAnswer(stall)));
            let (writer, reader) = opened.map_err(|error| self.failed(RPCTypes::AppendEntries, &error))?;
            return Ok(self.lane.insert(Lane { writer, reader, waiting: VecDeque::new() }));
        }
        Ok(self.lane.as_mut().expect("it was just seen"))
    }
}

impl Lane {
    /// When the oldest append without an answer has waited too long.
    fn overdue(&self, stall: Duration) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.since + stall)
    }

    fn push(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), PeerError> {
        let last = request.entries.last().map(RaftEntry::log_id).or(request.prev_log_id);
        self.writer.push_bytes(wire::encode(&translate::append(request)).into())?;
        self.waiting.push_back(Waiting { since: Instant::now(), prev: request.prev_log_id, last, abandoned: false });
        Ok(())
    }

    /// What an answer means; none if nobody wants it.
    fn answered(&mut self, frame: &[u8]) -> Result<Option<StreamAppendResult<Types>>, PeerError> {
        let answer: Appended = wire::decode(frame)?;
        let waiting = self.waiting.pop_front().ok_or(PeerError::Ended)?;
        let result = match answer {
            Appended::Done => Ok(waiting.last),
            Appended::Conflict => match waiting.prev {
                Some(prev) => Err(StreamAppendError::Conflict(prev)),
                // Nothing comes before the beginning of a log, so nothing can be missing there.
                None => return Err(PeerError::Malformed(wire::Malformed::Message("a conflict at no entry".into()))),
            },
            Appended::Higher(ballot) => Err(StreamAppendError::HigherVote(translate::vote(ballot))),
            Appended::Refused(reason) => return Err(PeerError::Refused(reason)),
        };
        Ok((!waiting.abandoned).then_some(result))
    }
}

/// One call of `stream_append`.
struct Session<'s, S> {
    network: &'s mut Network,
    option: RPCOption,
    input: Option<S>,
    /// The first request, until the lane for it is open.
    first: Option<AppendEntriesRequest<Types>>,
    /// The lane is open.
    begun: bool,
    /// Wakes it to look for an append that waits too long; re-armed only when it fires, as answers are many.
    alarm: Pin<Box<Sleep>>,
}

enum Step {
    Answer(StreamAppendResult<Types>),
    End,
}

impl<S> Session<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    /// Until there is an answer for the caller, or the end. Each of its waits may be dropped without loss.
    async fn step(&mut self) -> Result<Step, PeerError> {
        let stall = self.network.stall;
        let Some(lane) = &mut self.network.lane else { return Ok(Step::End) };
        loop {
            if self.input.is_none() && lane.waiting.iter().all(|waiting| waiting.abandoned) {
                return Ok(Step::End);
            }
            let room = lane.waiting.len() < IN_FLIGHT && lane.writer.pending() < UNSENT_BYTES;
            tokio::select! {
                biased;
                frame = lane.reader.next(wire::FRAME_BYTES) => {
                    let frame = frame?.ok_or(PeerError::Ended)?;
                    if let Some(answer) = lane.answered(&frame)? {
                        return Ok(Step::Answer(answer));
                    }
                }
                sent = lane.writer.flush(), if lane.writer.pending() > 0 => sent?,
                request = next(&mut self.input), if self.input.is_some() && room => match request {
                    Some(request) => lane.push(&request)?,
                    None => self.input = None,
                },
                () = &mut self.alarm => {
                    let now = Instant::now();
                    match lane.overdue(stall) {
                        Some(at) if at <= now => return Err(PeerError::NoAnswer(stall)),
                        at => self.alarm.as_mut().reset(at.unwrap_or(now + stall)),
                    }
                }
            }
        }
    }

    /// Opens the lane, once there is a request for it: openraft sleeps its backoff before it gives one, so a member that
    /// can't be reached is dialled at that pace and no faster. False when there is no request.
    async fn begin(&mut self) -> Result<bool, RPCError<Types>> {
        if self.first.is_none() {
            self.first = next(&mut self.input).await;
        }
        let Some(first) = &self.first else { return Ok(false) };
        let pushed = self.network.lane(&self.option).await?.push(first);
        pushed.map_err(|error| self.network.failed(RPCTypes::AppendEntries, &error))?;
        self.first = None;
        self.begun = true;
        Ok(true)
    }

    /// The next item of the output, and whether it is the last.
    async fn next(&mut self) -> Option<(Result<StreamAppendResult<Types>, RPCError<Types>>, bool)> {
        if !self.begun {
            match self.begin().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some((Err(error), true)),
            }
        }
        match self.step().await {
            Ok(Step::End) => None,
            // What is behind a conflict in the pipeline conflicts as well: the caller begins again from elsewhere.
            Ok(Step::Answer(answer)) => Some((Ok(answer.clone()), answer.is_err())),
            Err(error) => {
                self.network.lane = None;
                Some((Err(self.network.failed(RPCTypes::AppendEntries, &error)), true))
            }
        }
    }
}

async fn next<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let input = futures::stream::iter([rpc]);
        let mut answers = RaftNetworkV2::stream_append(self, input, option).await?;
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(RPCError::Network(NetworkError::new(&PeerError::Ended))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let alarm = Box::pin(sleep_until(Instant::now() + self.stall));
            let session = Session { network: self, option, input: Some(input), first: None, begun: false, alarm };
            let answers = futures::stream::unfold(Some(session), |session| async move {
                let mut session = session?;
                let (item, last) = session.next().await?;
                Some((item, (!last).then_some(session)))
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.poll(Request::Vote(translate::candidacy(&rpc)), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.poll(Request::PreVote(translate::candidacy(&rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sending = async {
            let (writer, reader) = self.peers.open_snapshot(self.target, translate::ballot(&vote)).await?;
            transfer::send(
                Ends { writer, reader },
                &snapshot.snapshot,
                self.snapshots.bytes_per_s,
                &self.snapshots.carried,
            )
            .await
        };
        let sent = tokio::select! {
            sent = sending => sent,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match sent {
            Ok(Some(ballot)) => Ok(SnapshotResponse::new(translate::vote(ballot))),
            Ok(None) => Err(StreamingError::Network(NetworkError::new(&PeerError::Ended))),
            Err(error) => {
                tracing::warn!(member = self.target, %error, "a snapshot did not arrive; it is sent again, from where it broke off if it can be");
                // Whatever it was, a pause comes before the next attempt.
                Err(StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(RPCTypes::TransferLeader, Request::Handover(translate::handover(&rpc)), &option).await? {
            Response::Handover(taken) => Ok(taken.map_err(|refused| translate::transfer_error(refused, &rpc))),
            _ => Err(self.out_of_place()),
        }
    }
}
