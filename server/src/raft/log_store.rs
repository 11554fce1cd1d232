//! The write-ahead log and the vote record as openraft wants to see them.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use conclave_log::{Handle, Position, Record};
use futures::{Stream, stream};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    alias::LeaderIdOf,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    codec,
    types::{Entry, LogId, Types, Vote},
};
use crate::steps::{self, Step};

/// Payload bytes in one append to a follower, and in one step of an apply: enough for a full pipeline, little
/// enough that a member that is far behind is not sent its whole backlog from memory at once.
const READ_BYTES: usize = 1 << 20;

/// openraft's log storage, over the handle of the log's thread. All writes go through that one queue, in order;
/// a fault there ends the process by itself, so what is only queued here (truncations, purges) reports nothing.
pub(crate) struct LogStore {
    handle: Handle,
    committed: Option<LogId>,
    steps: steps::Steps,
}

/// Reads entries and the vote.
#[derive(Clone)]
pub(crate) struct LogReader {
    handle: Handle,
}

impl LogStore {
    /// Over an open log. What was known to be committed when the member stopped is known again.
    pub(crate) fn new(handle: Handle, steps: steps::Steps) -> Self {
        let committed = handle.committed().and_then(|index| {
            let upto = handle.purged().filter(|purged| purged.index > index);
            match upto {
                // What was purged was committed.
                Some(purged) => Some(log_id(purged)),
                None => handle.term_at(index).map(|term| LogId::new_term_index(term, index)),
            }
        });
        Self { handle, committed, steps }
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.handle.purged().map(log_id),
            last_log_id: self.handle.last().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { handle: self.handle.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = conclave_log::Vote {
            term: vote.leader_id.term,
            node: Some(vote.leader_id.voted_for),
            committed: vote.committed,
        };
        let (told, durable) = oneshot::channel();
        self.handle.save_vote(
            vote,
            Box::new(move |result| {
                // Nobody listens any more if Raft is being dropped.
                let _ = told.send(result);
            }),
        )?;
        durable.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
    }

    /// Kept in memory, and carried by the frames written next: it costs no sync. What is lost of it in a crash, the
    /// next leader tells.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.handle.set_committed(committed.index);
        }
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let steps = self.steps.clone();
        let mut payloads = 0;
        let records = entries.into_iter().map(|entry| {
            if matches!(entry.payload, EntryPayload::Normal(_)) {
                payloads += 1;
                steps.reached(Step::Proposed, None);
            }
            let at = entry.log_id();
            let (kind, payload) = codec::to_parts(&entry.payload);
            Record { index: at.index, term: at.leader_id.term, kind, payload }
        });
        let records = records.collect();
        let done = move |result: io::Result<()>| {
            if result.is_ok() {
                (0..payloads).for_each(|_| steps.reached(Step::Durable, None));
            }
            callback.io_completed(result);
        };
        self.handle.append(records, Box::new(done))?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.handle.truncate_after(last.map(|last| last.index), Box::new(|_| {}))?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let upto = Position { index: upto.index, term: upto.leader_id.term };
        self.handle.purge_upto(upto, Box::new(|_| {}))?;
        Ok(())
    }
}

impl LogReader {
    /// Entries from `range.start` on, with no more than `limit_bytes` of payload after the first.
    fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<Entry>, io::Error> {
        let records = self.handle.read(range, limit_bytes)?;
        records.into_iter().map(|r| Ok(codec::from_parts(r.term, r.index, r.kind, r.payload)?)).collect()
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX)
    }

    /// Never empty if there is anything at `start`, and always from `start` on: openraft sends what it gets as the
    /// successor of the entry before, so entries that begin later would be a malformed append. If `start` was purged
    /// meanwhile the answer is nothing, which openraft takes as a heartbeat before it turns to a snapshot.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start..end, READ_BYTES)?;
        let follows = entries.first().is_some_and(|first| first.log_id.index == start);
        Ok(if follows { entries } else { Vec::new() })
    }

    /// In steps, so that a long backlog is not in memory at once.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = half_open(&range);
        let steps = Steps {
            reader: self.clone(),
            next: range.start,
            end: range.end,
            begun: false,
            ready: Vec::new().into_iter(),
        };
        stream::unfold(Some(steps), |steps| async move {
            let mut steps = steps?;
            match steps.next() {
                Ok(None) => None,
                Ok(Some(entry)) => Some((Ok(entry), Some(steps))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let Some(vote) = self.handle.vote() else { return Ok(None) };
        let Some(node) = vote.node else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the vote record names no member"));
        };
        let leader_id = LeaderIdOf::<Types> { term: vote.term, voted_for: node };
        Ok(Some(Vote { leader_id, committed: vote.committed }))
    }
}

/// A read that goes on.
struct Steps {
    reader: LogReader,
    next: u64,
    end: u64,
    begun: bool,
    ready: std::vec::IntoIter<Entry>,
}

impl Steps {
    fn next(&mut self) -> Result<Option<Entry>, io::Error> {
        if self.ready.len() == 0 && self.next < self.end {
            self.ready = self.reader.read(self.next..self.end, READ_BYTES)?.into_iter();
        }
        let Some(entry) = self.ready.next() else { return Ok(None) };
        let index = entry.log_id.index;
        if self.begun && index != self.next {
            return Err(io::Error::other(format!("entry {} was purged while it was being read", self.next)));
        }
        self.begun = true;
        self.next = index + 1;
        Ok(Some(entry))
    }
}

fn log_id(position: Position) -> LogId {
    LogId::new_term_index(position.term, position.index)
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests;
