//! Proposals: one task hands them to Raft in their order, another tells their outcomes in the same order.

use std::fmt;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};

use super::Raft;
use super::types::{Applied, Payload, Types};

/// Proposals that may wait for the task.
pub(super) const QUEUE: usize = 1_024;

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied on this member.
    Done {
        /// Its place in the log.
        index: u64,
    },
    /// It is in the log and changed nothing, on every member alike.
    Void {
        /// Its place in the log.
        index: u64,
    },
    /// It is surely not in the log, and never will be: this member does not lead that term, does not know whether it
    /// still does, or is handing over.
    Rejected,
    /// It may be in the log, or may yet come there.
    Unknown,
}

/// An entry for the log.
pub struct Proposal {
    /// The term that it was planned for. It is rejected in any other.
    pub term: u64,
    /// Its bytes, as they will lie in every log.
    pub payload: Bytes,
    /// Told once, in the order of the proposals, on Raft's runtime: it must not block.
    pub outcome: Box<dyn FnOnce(Outcome) + Send>,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal").field("term", &self.term).field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

type Resolving = (oneshot::Receiver<ClientWriteResult<Types>>, Box<dyn FnOnce(Outcome) + Send>);

/// Runs until the last sender of proposals is gone.
pub(super) async fn run(raft: Raft, mut proposals: mpsc::Receiver<Proposal>) {
    let (resolving, resolved) = mpsc::unbounded_channel();
    tokio::spawn(resolve(resolved));
    while let Some(Proposal { term, payload, outcome }) = proposals.recv().await {
        let (responder, answered) = ProgressResponder::complete_only();
        // Awaited one by one: the log has them in this order, or not at all. On an error Raft has ended, the responder
        // is dropped, and the outcome is unknown.
        if let Err(error) = raft.write(Payload(payload)).with_leader(term).responder(responder).await {
            tracing::debug!(%error, "a proposal found Raft ended");
        }
        if resolving.send((answered, outcome)).is_err() {
            return;
        }
    }
}

/// Bounded by what Raft has not answered, which its sender bounds.
async fn resolve(mut resolved: mpsc::UnboundedReceiver<Resolving>) {
    while let Some((answered, outcome)) = resolved.recv().await {
        outcome(match answered.await {
            Ok(Ok(written)) => match written.data {
                Applied::Done => Outcome::Done { index: written.log_id.index },
                Applied::Void => Outcome::Void { index: written.log_id.index },
                Applied::Skipped => {
                    tracing::error!(index = written.log_id.index, "transactions were applied as if there were none");
                    Outcome::Unknown
                }
            },
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Outcome::Rejected,
            // The log gave it up for another leader's; somebody else may still have it.
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Outcome::Unknown,
            // These answer changes of the membership only.
            Ok(Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_))) => {
                Outcome::Unknown
            }
            Err(_) => Outcome::Unknown,
        });
    }
}
