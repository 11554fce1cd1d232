//! Read indices: one round of heartbeats for all who wait when it begins, never one answer for somebody who came later.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::Raft;
use crate::peer::wire::{NoRead, Request, Response};
use crate::peer::{Error as PeerError, Peers};

type Answer = oneshot::Sender<Result<u64, NoRead>>;

/// Asks for read indices, here or of the leader. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reads {
    /// To the task that runs the rounds of this member as a leader.
    here: mpsc::UnboundedSender<Answer>,
    /// To the task that asks the leader.
    anywhere: mpsc::UnboundedSender<Answer>,
}

impl Reads {
    /// Starts the two tasks, which end with the last clone.
    pub(super) fn start(raft: Raft, peers: Peers, patience: Duration) -> Self {
        let (here, waiting_here) = mpsc::unbounded_channel();
        let (anywhere, waiting_anywhere) = mpsc::unbounded_channel();
        let rounds = raft.clone();
        tokio::spawn(batches(waiting_here, async move || round(&rounds).await));
        let asker = Asker { raft, peers, here: here.clone(), patience };
        tokio::spawn(batches(waiting_anywhere, async move || asker.ask().await));
        Self { here, anywhere }
    }

    /// The index that must be applied before a linearizable read, confirmed by a quorum in a round that began after
    /// this call; none when nobody could confirm it in time. One round serves all who wait for it; a retry is a new
    /// call. A follower asks the leader. Dropping the future is harmless.
    pub async fn index(&self) -> Option<u64> {
        self.anywhere().await.ok()
    }

    /// Whether this member leads: confirmed by a quorum in a round that began after this call.
    pub async fn confirm(&self) -> bool {
        self.here().await.is_ok()
    }

    /// This member's own answer, as the leader.
    pub(super) async fn here(&self) -> Result<u64, NoRead> {
        wait(&self.here).await
    }

    /// The leader's answer, wherever it is.
    pub(super) async fn anywhere(&self) -> Result<u64, NoRead> {
        wait(&self.anywhere).await
    }
}

async fn wait(queue: &mpsc::UnboundedSender<Answer>) -> Result<u64, NoRead> {
    let (answer, answered) = oneshot::channel();
    queue.send(answer).map_err(|_| NoRead::Stopping)?;
    answered.await.unwrap_or(Err(NoRead::Stopping))
}

/// Runs rounds one after the other. A round serves those who asked before it began; who asks meanwhile waits for the
/// next: its answer may be older than what he has seen.
async fn batches(mut waiting: mpsc::UnboundedReceiver<Answer>, mut round: impl AsyncFnMut() -> Result<u64, NoRead>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, usize::MAX).await > 0 {
        let result = round().await;
        for answer in batch.drain(..) {
            // Whoever does not wait any more has no use for it.
            let _ = answer.send(result.clone());
        }
    }
}

/// A round of heartbeats that a quorum answers: nobody else can have been elected before it began.
async fn round(raft: &Raft) -> Result<u64, NoRead> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            Err(NoRead::NotLeader { leader: to.leader_id })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
            Err(NoRead::NoQuorum(error.to_string()))
        }
        Err(RaftError::Fatal(_)) => Err(NoRead::Stopping),
    }
}

struct Asker {
    raft: Raft,
    peers: Peers,
    here: mpsc::UnboundedSender<Answer>,
    patience: Duration,
}

impl Asker {
    async fn ask(&self) -> Result<u64, NoRead> {
        let leader = self.raft.current_leader().await;
        match leader {
            Some(leader) if leader == self.peers.id() => wait(&self.here).await,
            Some(leader) => match self.peers.ask(leader, Request::ReadIndex, self.patience).await {
                Ok(Response::ReadIndex(answer)) => answer,
                Ok(_) => Err(NoRead::NoQuorum(format!("member {leader} gave another answer"))),
                Err(PeerError::Stopped) => Err(NoRead::Stopping),
                Err(error) => Err(NoRead::NoQuorum(format!("member {leader}: {error}"))),
            },
            None => Err(NoRead::NotLeader { leader: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_comes_during_a_round_gets_the_next_one() {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (begun, may_end) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&begun), Arc::clone(&may_end));
        tokio::spawn(batches(waiting, async move || {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            gate.acquire().await.unwrap().forget();
            Ok(number)
        }));
        let ask = || {
            let queue = queue.clone();
            tokio::spawn(async move { wait(&queue).await.unwrap() })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let late = [ask(), ask(), ask()];
        // All of them are in the queue before the first round ends.
        while queue.strong_count() < 5 {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        may_end.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        may_end.add_permits(1);
        for late in late {
            assert_eq!(late.await.unwrap(), 2, "one round for all who waited, and none that had begun before");
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
