//! The state machine as Raft sees it: batches of committed entries go to the apply thread, answers come back.

use std::io;

use bytes::Bytes;
use conclave_core::apply::{Local, Position};
use futures::{Stream, StreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tokio::sync::{mpsc, oneshot};

use super::codec;
use super::types::{Applied, ApplyBatch, Entry, Item, Kind, LogId, Payload, StoredMembership, Types};

/// Hands committed entries to the apply thread, one batch at a time: the next is collected while one is applied, so
/// batches grow with the load.
pub(crate) struct Machine {
    apply: mpsc::UnboundedSender<ApplyBatch>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// A machine over a state that has applied what `local` says.
    ///
    /// # Errors
    /// [`codec::Error::Membership`] when the state's membership cannot be read.
    pub(crate) fn new(local: &Local, apply: mpsc::UnboundedSender<ApplyBatch>) -> Result<Self, codec::Error> {
        let applied = local.applied.map(|at| LogId::new_term_index(at.term, at.index));
        Ok(Self { apply, applied, membership: codec::decode_stored(&local.membership)? })
    }

    async fn run(&self, items: Vec<Item>) -> io::Result<Vec<Applied>> {
        let expected = items.len();
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the apply thread has ended");
        self.apply.send(ApplyBatch { items, done }).map_err(|_| gone())?;
        let applied = answer.await.map_err(|_| gone())?.map_err(io::Error::other)?;
        if applied.len() != expected {
            return Err(io::Error::other(format!("{} answers to {expected} entries", applied.len())));
        }
        Ok(applied)
    }
}

fn item(entry: Entry) -> Item {
    let at = entry.log_id();
    let kind = match entry.payload {
        EntryPayload::Blank => Kind::Blank,
        EntryPayload::Normal(Payload(bytes)) => Kind::Payload(bytes),
        EntryPayload::Membership(membership) => Kind::Membership(stored(at, membership)),
    };
    Item { position: Position { term: at.leader_id.term, index: at.index }, kind }
}

fn stored(at: LogId, membership: super::types::Membership) -> Bytes {
    codec::encode_stored(&StoredMembership::new(Some(at), membership))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = NoCheckpoints;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut items = Vec::new();
        let mut responders = Vec::new();
        let mut last = None;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            last = Some(entry.log_id());
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(last, membership.clone());
            }
            items.push(item(entry));
            responders.push(responder);
        }
        if items.is_empty() {
            return Ok(());
        }
        let applied = self.run(items).await?;
        self.applied = last;
        // Every responder must be sent: the caller of one that is dropped would wait for ever.
        for (responder, applied) in responders.into_iter().zip(applied) {
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    /// None is "not now", which openraft takes for an answer except at its start: then an error must come of it.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<NoCheckpoints> {
        force.then_some(NoCheckpoints)
    }

    async fn get_snapshot_builder(&mut self) -> NoCheckpoints {
        NoCheckpoints
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<Types>, _snapshot: ()) -> Result<(), io::Error> {
        Err(none_yet())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

/// Stands where checkpoints will be made. Nothing is ever purged until then, so nobody needs one.
pub(crate) struct NoCheckpoints;

impl RaftSnapshotBuilder<Types> for NoCheckpoints {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Err(none_yet())
    }
}

fn none_yet() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "no checkpoints yet")
}
