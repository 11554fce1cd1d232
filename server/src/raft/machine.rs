//! The state machine as Raft sees it: batches of committed entries go to the apply thread, answers come back; its
//! snapshots are the checkpoints that others make.

use std::io;

use bytes::Bytes;
use conclave_core::apply::{Local, Position};
use conclave_store::{Checkpoint, Checkpoints};
use futures::{Stream, StreamExt};
use openraft::alias::SnapshotMetaOf;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tokio::sync::{mpsc, oneshot};

use super::codec;
use super::types::{
    Applied, ApplyBatch, ApplyCommand, Entry, Install, Item, Kind, LogId, Payload, Snapshot, StoredMembership, Types,
};

/// Hands committed entries to the apply thread, one batch at a time: the next is collected while one is applied, so
/// batches grow with the load.
pub(crate) struct Machine {
    apply: mpsc::UnboundedSender<ApplyCommand>,
    checkpoints: Checkpoints,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// A machine over a state that has applied what `local` says.
    ///
    /// # Errors
    /// [`codec::Error::Membership`] when the state's membership cannot be read.
    pub(crate) fn new(
        local: &Local,
        checkpoints: Checkpoints,
        apply: mpsc::UnboundedSender<ApplyCommand>,
    ) -> Result<Self, codec::Error> {
        let membership = codec::decode_stored(&local.membership)?;
        Ok(Self { apply, checkpoints, applied: local.applied.map(log_id), membership })
    }

    async fn run(&self, items: Vec<Item>) -> io::Result<Vec<Applied>> {
        let expected = items.len();
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the apply thread has ended");
        self.apply.send(ApplyCommand::Batch(ApplyBatch { items, done })).map_err(|_| gone())?;
        let applied = answer.await.map_err(|_| gone())?.map_err(io::Error::other)?;
        if applied.len() != expected {
            return Err(io::Error::other(format!("{} answers to {expected} entries", applied.len())));
        }
        Ok(applied)
    }
}

/// A checkpoint, as openraft wants to see it.
///
/// # Errors
/// [`codec::Error::Membership`].
pub(super) fn snapshot(checkpoint: Checkpoint) -> Result<Snapshot, codec::Error> {
    let last_membership = codec::decode_stored(&checkpoint.local().membership)?;
    let meta = SnapshotMetaOf::<Types> { last_log_id: Some(log_id(checkpoint.position())), last_membership };
    Ok(Snapshot { meta, snapshot: checkpoint })
}

fn log_id(at: Position) -> LogId {
    LogId::new_term_index(at.term, at.index)
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
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Newest;

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

    async fn get_snapshot_builder(&mut self) -> Newest {
        Newest(self.checkpoints.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        checkpoint: Checkpoint,
    ) -> Result<(), io::Error> {
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the apply thread has ended");
        self.apply.send(ApplyCommand::Install(Install { checkpoint, done })).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(io::Error::other)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.checkpoints.newest().map(snapshot).transpose()?)
    }
}

/// Hands over the newest checkpoint: making one is not Raft's business, so that a full disk is no fault of it.
pub(crate) struct Newest(Checkpoints);

impl RaftSnapshotBuilder<Types> for Newest {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no checkpoint");
        Ok(snapshot(self.0.newest().ok_or_else(none)?)?)
    }
}
