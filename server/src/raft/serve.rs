//! What other members' Raft says to this one: appends, votes, hand-overs and read indices.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use conclave_core::apply::Position;
use conclave_store::Checkpoints;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use tokio::sync::mpsc;

use super::reads::Reads;
use super::types::LogId;
use super::{Raft, machine, translate};
use crate::peer::transfer::{self, Carried, Ends, Judged, Others};
use crate::peer::wire::{self, Append, Appended, Ballot, Refused, Request, Response};
use crate::peer::{Error as PeerError, Offering, PeerRequest, RaftInlets, Stream};

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
    mut offerings: mpsc::Receiver<Offering>,
    checkpoints: Checkpoints,
    carried: Arc<Carried>,
) {
    while let Some(Offering { stream, ballot, is_known }) = offerings.recv().await {
        let Stream { from, writer, reader } = stream;
        let mut ends = Ends { writer, reader };
        if let Err(error) = install(&raft, &mut ends, (ballot, is_known), &checkpoints, &carried).await {
            tracing::warn!(from, %error, "a snapshot was not installed");
            ends.failed(&error).await;
        }
    }
}

async fn install(
    raft: &Raft,
    ends: &mut Ends,
    (ballot, is_known): (Ballot, bool),
    checkpoints: &Checkpoints,
    carried: &Carried,
) -> Result<(), PeerError> {
    let judge = |at| judge(&Situation::of(raft), ballot, is_known, at);
    let received = transfer::receive(ends, checkpoints, carried, Others::Believed, judge).await?;
    let Some(checkpoint) = received else { return Ok(()) };
    // openraft takes for granted that it fits, and panics where it does not: much may have happened meanwhile.
    match judge(checkpoint.position()) {
        Judged::Wanted => {}
        Judged::Superfluous(ballot) => return ends.done(ballot).await,
        Judged::Refused(why) => return Err(PeerError::Checkpoint(why)),
    }
    let snapshot = machine::snapshot(checkpoint).map_err(|error| PeerError::Checkpoint(error.to_string()))?;
    let installed = raft.install_full_snapshot(translate::vote(ballot), snapshot);
    let response = ends.working(installed).await?;
    let response = response.map_err(|error| PeerError::Checkpoint(error.to_string()))?;
    carried.installed.fetch_add(1, Ordering::Relaxed);
    ends.done(Some(translate::ballot(&response.vote))).await
}

/// What an offer of a snapshot is judged by.
#[derive(Clone, Copy, Debug)]
struct Situation {
    /// The ballot that this member holds.
    held: Ballot,
    /// The last entry that it knows to be committed.
    committed: Option<Position>,
}

impl Situation {
    fn of(raft: &Raft) -> Self {
        let position = |id: LogId| Position { term: id.leader_id.term, index: id.index };
        let committed = raft.data_metrics().borrow_watched().local_committed;
        let held = translate::ballot(&raft.server_metrics().borrow_watched().vote);
        Self { held, committed: committed.map(position) }
    }
}

/// Whether a snapshot that ends at `at` is to be taken from who holds this ballot: a bad one is refused before gigabytes
/// of it have come, and before it takes the place of this member's own.
fn judge(here: &Situation, ballot: Ballot, is_known: bool, at: Position) -> Judged {
    let refused = |why: &str| {
        Judged::Refused(format!(
            "it ends with entry {} of term {}, of the leader of term {}: {why}",
            at.index, at.term, ballot.term
        ))
    };
    if !ballot.committed {
        return refused("nobody elected that leader");
    }
    // One that was added while this member was away shows by its heartbeats that it leads.
    if !is_known && here.held != ballot {
        return refused("it is not in the membership");
    }
    let order = |ballot: Ballot| (ballot.term, ballot.committed, ballot.member);
    if order(here.held) > order(ballot) {
        // It does not lead any more, and hears so.
        return Judged::Superfluous(Some(here.held));
    }
    if at.term > ballot.term {
        return refused("that term was not yet when it was elected");
    }
    match here.committed {
        Some(committed) if at.index <= committed.index && at.term <= committed.term => {
            Judged::Superfluous(Some(here.held))
        }
        Some(committed) if at.index <= committed.index || at.term < committed.term => {
            refused("that contradicts what is committed here")
        }
        _ => Judged::Wanted,
    }
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
        Request::Clock
        | Request::Status
        | Request::Digest { .. }
        | Request::Admin(_)
        | Request::Ready(_)
        | Request::PluginStats(_)
        | Request::PluginLog { .. } => stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALLOT: Ballot = Ballot { term: 5, member: 2, committed: true };

    fn at(term: u64, index: u64) -> Position {
        Position { term, index }
    }

    /// A member that follows that leader, and knows this to be committed.
    fn here(committed: Position) -> Situation {
        Situation { held: BALLOT, committed: Some(committed) }
    }

    fn is_refused(here: &Situation, ballot: Ballot, at: Position) -> bool {
        matches!(judge(here, ballot, true, at), Judged::Refused(_))
    }

    #[test]
    fn a_leaders_newer_snapshot_is_wanted() {
        assert_eq!(judge(&here(at(4, 90)), BALLOT, true, at(5, 100)), Judged::Wanted);
        assert_eq!(judge(&here(at(4, 90)), BALLOT, true, at(4, 100)), Judged::Wanted);
        let empty = Situation { held: Ballot { term: 0, member: 0, committed: false }, committed: None };
        assert_eq!(judge(&empty, BALLOT, true, at(1, 1)), Judged::Wanted);
    }

    #[test]
    fn a_snapshot_that_is_not_newer_is_answered_without_it() {
        for old in [at(4, 90), at(4, 89), at(3, 89)] {
            assert_eq!(judge(&here(at(4, 90)), BALLOT, true, old), Judged::Superfluous(Some(BALLOT)), "{old:?}");
        }
    }

    #[test]
    fn a_ballot_that_nobody_granted_or_that_is_beaten_moves_nothing() {
        let candidate = Ballot { committed: false, ..BALLOT };
        assert!(is_refused(&here(at(4, 90)), candidate, at(5, 100)));
        let later = Ballot { term: 6, member: 1, committed: false };
        let voted = Situation { held: later, ..here(at(4, 90)) };
        assert_eq!(judge(&voted, BALLOT, true, at(5, 100)), Judged::Superfluous(Some(later)), "it is told who beat it");
    }

    #[test]
    fn a_snapshot_that_does_not_fit_its_leader_or_this_log_is_refused() {
        assert!(is_refused(&here(at(4, 90)), BALLOT, at(6, 100)), "from a later term than its leader's");
        assert!(is_refused(&here(at(4, 90)), BALLOT, at(5, 90)), "another entry in a place that is committed");
        assert!(is_refused(&here(at(4, 90)), BALLOT, at(5, 80)));
        assert!(is_refused(&here(at(4, 90)), BALLOT, at(3, 100)), "a later entry of an earlier term");
    }

    #[test]
    fn a_stranger_is_heard_only_when_raft_follows_it() {
        assert_eq!(judge(&here(at(4, 90)), BALLOT, false, at(5, 100)), Judged::Wanted, "it was added meanwhile");
        let other = Ballot { term: 7, member: 9, committed: true };
        assert!(matches!(judge(&here(at(4, 90)), other, false, at(5, 100)), Judged::Refused(_)));
    }
}
