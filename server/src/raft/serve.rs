//! What other members' Raft says to this one: appends, votes, hand-overs and read indices.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use conclave_store::Checkpoints;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use tokio::sync::mpsc;

use super::reads::Reads;
use super::{Raft, machine, translate};
use crate::peer::transfer::{self, Carried, Ends};
use crate::peer::wire::{self, Append, Appended, Ballot, Refused, Request, Response};
use crate::peer::{Error as PeerError, PeerRequest, RaftInlets, Stream};

/// Appends of one stream that are in Raft's hands: beyond, they wait in the stream's flow control.
const IN_HAND: usize = 64;

/// Serves until the peer plane ends.
pub(super) async fn run(raft: Raft, reads: Reads, inlets: RaftInlets, checkpoints: Checkpoints, carried: Arc<Carried>) {
    let RaftInlets { mut append, snapshot, requests } = inlets;
    let requests = tokio::spawn(answer_all(raft.clone(), reads, requests));
    let snapshots = tokio::spawn(install_all(raft.clone(), snapshot, checkpoints, carried));
    while let Some(stream) = append.recv().await {
        let raft = raft.clone();
        tokio::spawn(async move {
            let from = stream.from;
            if let Err(error) = appends(raft, stream).await {
                tracing::debug!(from, %error, "stream of appends ended");
            }
        });
    }
    requests.abort();
    snapshots.abort();
}

/// Receives snapshots, one at a time: a leader that breaks off and begins again finds what has arrived.
async fn install_all(
    raft: Raft,
    mut streams: mpsc::Receiver<(Stream, Ballot)>,
    checkpoints: Checkpoints,
    carried: Arc<Carried>,
) {
    while let Some((stream, ballot)) = streams.recv().await {
        let Stream { from, writer, reader } = stream;
        let mut ends = Ends { writer, reader };
        if let Err(error) = install(&raft, &mut ends, ballot, &checkpoints, &carried).await {
            tracing::warn!(from, %error, "a snapshot was not installed");
            ends.fail(&error).await;
        }
    }
}

async fn install(
    raft: &Raft,
    ends: &mut Ends,
    ballot: Ballot,
    checkpoints: &Checkpoints,
    carried: &Carried,
) -> Result<(), PeerError> {
    let checkpoint = transfer::receive(ends, checkpoints, carried).await?;
    let at = checkpoint.position();
    // openraft takes both for granted, and panics where they do not hold.
    let committed = raft.data_metrics().borrow_watched().local_committed;
    let is_older =
        committed.is_some_and(|committed| (committed.leader_id.term, committed.index) >= (at.term, at.index));
    if at.term > ballot.term || !is_older && committed.is_some_and(|committed| committed.index >= at.index) {
        return Err(PeerError::Checkpoint(format!(
            "it ends with entry {} of term {}, which does not fit the leader of term {} or what is committed here",
            at.index, at.term, ballot.term
        )));
    }
    let snapshot = machine::snapshot(checkpoint).map_err(|error| PeerError::Checkpoint(error.to_string()))?;
    let installed = raft.install_full_snapshot(translate::vote(ballot), snapshot);
    let response = ends.working(installed).await?;
    let response = response.map_err(|error| PeerError::Checkpoint(error.to_string()))?;
    if !is_older {
        carried.installed.fetch_add(1, Ordering::Relaxed);
    }
    ends.done(Some(translate::ballot(&response.vote))).await
}

/// Feeds appends to Raft as they come, and sends its answers back in their order.
async fn appends(raft: Raft, stream: Stream) -> Result<(), PeerError> {
    let Stream { from, mut writer, mut reader } = stream;
    let mut in_hand = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = in_hand.next(), if !in_hand.is_empty() => {
                let last = matches!(answer, Appended::Refused(_));
                writer.push(&wire::encode(&answer))?;
                if last {
                    writer.flush().await?;
                    return Ok(());
                }
            }
            sent = writer.flush(), if writer.pending() > 0 => sent?,
            frame = reader.next(wire::FRAME_BYTES), if in_hand.len() < IN_HAND => {
                let Some(frame) = frame? else { return Ok(()) };
                let checked = check(from, &frame);
                let raft = raft.clone();
                // Futures of one FuturesOrdered are first polled in the order in which they were pushed, which is
                // when each hands its append to Raft.
                in_hand.push_back(async move {
                    match checked {
                        Ok(append) => append_one(&raft, append).await,
                        Err(reason) => Appended::Refused(reason),
                    }
                });
            }
        }
    }
}

fn check(from: u64, frame: &[u8]) -> Result<Append, Refused> {
    let append: Append = wire::decode(frame).map_err(|malformed| Refused::Malformed(malformed.to_string()))?;
    // A leader speaks for itself alone, whatever its frames say.
    match append.ballot.member {
        member if member != from => Err(Refused::NotYours(member)),
        _ => Ok(append),
    }
}

async fn append_one(raft: &Raft, append: Append) -> Appended {
    let malformed = |error: io::Error| Appended::Refused(Refused::Malformed(error.to_string()));
    let request = match translate::append_request(append) {
        Ok(request) => request,
        Err(error) => return malformed(error),
    };
    match raft.append_entries(request).await {
        Ok(AppendEntriesResponse::Success) => Appended::Done,
        // Ours are never partial; to call one done would acknowledge what is not stored.
        Ok(AppendEntriesResponse::PartialSuccess(_)) => Appended::Refused(Refused::NotAvailable),
        Ok(AppendEntriesResponse::Conflict) => Appended::Conflict,
        Ok(AppendEntriesResponse::HigherVote(vote)) => Appended::Higher(translate::ballot(&vote)),
        Err(_) => Appended::Refused(Refused::NotAvailable),
    }
}

async fn answer_all(raft: Raft, reads: Reads, mut requests: mpsc::Receiver<PeerRequest>) {
    while let Some(PeerRequest { request, reply, .. }) = requests.recv().await {
        let (raft, reads) = (raft.clone(), reads.clone());
        tokio::spawn(async move {
            // Nobody may be waiting any more.
            let _ = reply.send(answer(&raft, &reads, request).await);
        });
    }
}

async fn answer(raft: &Raft, reads: &Reads, request: Request) -> Response {
    let stopped = Response::Refused(Refused::NotAvailable);
    match request {
        Request::Vote(candidacy) => match raft.vote(translate::vote_request(candidacy)).await {
            Ok(response) => Response::Poll(translate::poll(&response)),
            Err(_) => stopped,
        },
        Request::PreVote(candidacy) => match raft.pre_vote(translate::vote_request(candidacy)).await {
            Ok(response) => Response::Poll(translate::poll(&response)),
            Err(_) => stopped,
        },
        Request::Handover(handover) => match raft.handle_transfer_leader(translate::transfer_request(handover)).await {
            Ok(taken) => Response::Handover(taken.map_err(|error| translate::handover_refused(&error))),
            Err(_) => stopped,
        },
        // The leader's own answer: one that has become a follower sends the asker on, not itself.
        Request::ReadIndex => Response::ReadIndex(reads.here().await),
        Request::Clock | Request::Status | Request::Digest { .. } | Request::Admin(_) => stopped,
    }
}
