//! Between openraft's messages and the peer plane's, field by field.

use std::io;

use openraft::entry::RaftEntry;

use openraft::raft::{AppendEntriesRequest, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse};

use super::codec;
use super::types::{LogId, Types, Vote};
use crate::peer::wire::{Append, At, Ballot, Candidacy, Handover, HandoverRefused, Poll, Record};

pub(super) fn at(id: LogId) -> At {
    At { term: id.leader_id.term, index: id.index }
}

pub(super) fn log_id(at: At) -> LogId {
    LogId::new_term_index(at.term, at.index)
}

pub(super) fn ballot(vote: &Vote) -> Ballot {
    Ballot { term: vote.leader_id().term, member: vote.leader_id().voted_for, committed: vote.is_committed() }
}

pub(super) fn vote(ballot: Ballot) -> Vote {
    match ballot.committed {
        true => Vote::new_committed(ballot.term, ballot.member),
        false => Vote::new(ballot.term, ballot.member),
    }
}

pub(super) fn candidacy(request: &VoteRequest<Types>) -> Candidacy {
    Candidacy {
        ballot: ballot(&request.vote),
        last: request.last_log_id.map(at),
        transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request(candidacy: Candidacy) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(vote(candidacy.ballot), candidacy.last.map(log_id));
    request.leadership_transfer = candidacy.transfer;
    request
}

pub(super) fn poll(response: &VoteResponse<Types>) -> Poll {
    Poll { ballot: ballot(&response.vote), granted: response.vote_granted, last: response.last_log_id.map(at) }
}

pub(super) fn vote_response(poll: Poll) -> VoteResponse<Types> {
    VoteResponse::new(vote(poll.ballot), poll.last.map(log_id), poll.granted)
}

pub(super) fn handover(request: &TransferLeaderRequest<Types>) -> Handover {
    Handover {
        ballot: ballot(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(at),
    }
}

pub(super) fn transfer_request(handover: Handover) -> TransferLeaderRequest<Types> {
    TransferLeaderRequest::new(vote(handover.ballot), handover.to, handover.last.map(log_id))
}

pub(super) fn handover_refused(error: &TransferLeaderError<Types>) -> HandoverRefused {
    match error {
        TransferLeaderError::VoteChanged { actual, .. } => HandoverRefused::VoteChanged(ballot(actual)),
        TransferLeaderError::LogNotFlushed { actual, .. } => HandoverRefused::NotFlushed(actual.map(at)),
    }
}

pub(super) fn transfer_error(
    refused: HandoverRefused,
    request: &TransferLeaderRequest<Types>,
) -> TransferLeaderError<Types> {
    match refused {
        HandoverRefused::VoteChanged(actual) => {
            TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: vote(actual) }
        }
        HandoverRefused::NotFlushed(actual) => {
            TransferLeaderError::LogNotFlushed { expected: request.last_log_id().copied(), actual: actual.map(log_id) }
        }
    }
}

pub(super) fn append(request: &AppendEntriesRequest<Types>) -> Append {
    let record = |entry: &super::types::Entry| {
        let (kind, payload) = codec::to_parts(&entry.payload);
        Record { at: at(entry.log_id()), kind, payload }
    };
    Append {
        ballot: ballot(&request.vote),
        prev: request.prev_log_id.map(at),
        commit: request.leader_commit.map(at),
        entries: request.entries.iter().map(record).collect(),
    }
}

/// Reads an append.
///
/// # Errors
/// `InvalidData` when an entry can't be read, or when they are not dense: openraft takes both for granted.
pub(super) fn append_request(append: Append) -> io::Result<AppendEntriesRequest<Types>> {
    // Without `prev` they begin a log, whose first entry has index 0.
    let mut next = append.prev.map_or(0, |prev| prev.index.saturating_add(1));
    let mut term = append.prev.map_or(0, |prev| prev.term);
    let mut entries = Vec::with_capacity(append.entries.len());
    for Record { at, kind, payload } in append.entries {
        if at.index != next || at.term < term || at.term > append.ballot.term {
            let why = format!("entry {}.{} where {term}.{next} was due", at.term, at.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        (next, term) = (at.index.saturating_add(1), at.term);
        entries.push(codec::from_parts(at.term, at.index, kind, payload)?);
    }
    Ok(AppendEntriesRequest {
        vote: vote(append.ballot),
        prev_log_id: append.prev.map(log_id),
        entries,
        leader_commit: append.commit.map(log_id),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;

    fn sample() -> Append {
        let record = |index| Record { at: At { term: 2, index }, kind: 1, payload: Bytes::from_static(b"p") };
        Append {
            ballot: Ballot { term: 2, member: 1, committed: true },
            prev: Some(At { term: 1, index: 4 }),
            commit: Some(At { term: 1, index: 4 }),
            entries: vec![record(5), record(6)],
        }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        assert_eq!(append(&append_request(sample()).unwrap()), sample());
        let asked = Candidacy {
            ballot: Ballot { term: 3, member: 2, committed: false },
            last: Some(At { term: 2, index: 6 }),
            transfer: true,
        };
        assert_eq!(candidacy(&vote_request(asked.clone())), asked);
        let answered = Poll { ballot: asked.ballot, granted: true, last: None };
        assert_eq!(poll(&vote_response(answered.clone())), answered);
        let handed = Handover { ballot: sample().ballot, to: 3, last: asked.last };
        assert_eq!(handover(&transfer_request(handed.clone())), handed);
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let mut gap = sample();
        gap.entries.remove(0);
        assert!(append_request(gap).is_err());
        let mut older = sample();
        older.entries[1].at.term = 1;
        assert!(append_request(older).is_err());
        let mut newer = sample();
        newer.entries[1].at.term = 3;
        assert!(append_request(newer).is_err());
    }
}
