//! Side streams of a client's connection: backups, the members' health, changes of membership.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::{Action, authorize};
use conclave_link::{Connection, FrameError, FrameReader, FrameWriter, RecvStream, SendStream};
use conclave_protocol::{
    Backup, CHUNK_BYTES, Path, Refusal, SIDE_FRAME_BYTES, SideMessage, SideRequest, Zxid, codec, sum,
};
use conclave_store::Checkpoint;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};

use crate::cluster::{self, AdminAnswer, AdminRequest};
use crate::member::Shared;
use crate::publish::Publisher;

/// Backups that a member sends at a time: each reads a whole file from the disk that writes wait for.
const BACKUPS: usize = 1;
/// How long a client may take over its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How often a client is told that its request is worked on.
const WORKING_EVERY: Duration = Duration::from_secs(1);
/// How long this member may take to apply what a backup has to hold, before the client is told that it has not: a backup
/// waits for its turn meanwhile, and a client can name a transaction that there will never be.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);

/// What a member's side streams share.
#[derive(Debug)]
pub(crate) struct Desk {
    backups: Semaphore,
}

impl Default for Desk {
    fn default() -> Self {
        Self { backups: Semaphore::new(BACKUPS) }
    }
}

/// Serves the side streams of a connection that was welcomed, until it ends. Dropped, it ends what is under way.
pub(crate) async fn accept(shared: Arc<Shared>, desk: Arc<Desk>, connection: Connection) {
    let principal: Arc<str> = connection.principal().uri().into();
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let (shared, desk, principal) = (Arc::clone(&shared), Arc::clone(&desk), Arc::clone(&principal));
                    streams.spawn(async move {
                        let mut talk = Talk { writer: FrameWriter::new(send) };
                        let served = talk.serve(&shared, &desk, &principal, FrameReader::new(receive)).await;
                        if let Err(error) = served {
                            tracing::debug!(%principal, %error, "a side stream ended early");
                        }
                    });
                }
                Err(_) => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Whether the principal may ask this. Until policies name administrators, every client's certificate may: what
/// shows the whole tree is held against reading its root, what changes the cluster against setting it.
fn may(principal: &str, request: &SideRequest) -> Result<(), Refusal> {
    let action = match request {
        SideRequest::Backup { .. } | SideRequest::Health => Action::Read,
        SideRequest::Cluster(_) => Action::Set,
    };
    authorize(principal, action, &Path::root())
}

/// One side stream.
struct Talk {
    writer: FrameWriter<SendStream>,
}

impl Talk {
    async fn serve(
        &mut self,
        shared: &Arc<Shared>,
        desk: &Desk,
        principal: &str,
        mut reader: FrameReader<RecvStream>,
    ) -> Result<(), FrameError> {
        let Ok(frame) = timeout(REQUEST_WITHIN, reader.next(SIDE_FRAME_BYTES)).await else { return Ok(()) };
        let Some(frame) = frame? else { return Ok(()) };
        let request = codec::decode::<SideRequest>(&frame)
            .map_err(|error| Refusal::BadRequest { why: error.to_string() })
            .and_then(|request| may(principal, &request).map(|()| request));
        match request {
            Err(refusal) => self.say(&SideMessage::Refused { refusal }).await?,
            Ok(SideRequest::Backup { at_least }) => self.backup(shared, desk, at_least).await?,
            Ok(SideRequest::Health) => {
                let health = cluster::health(shared).await;
                self.say(&SideMessage::Health(Box::new(health))).await?;
            }
            Ok(SideRequest::Cluster(what)) => {
                let request = AdminRequest { principal: principal.to_owned(), what };
                let asked = Arc::clone(shared);
                // On a task of its own: what was begun is not broken off because the client went.
                let asked = tokio::spawn(async move { cluster::ask_leader(&asked, request).await });
                let answer = self.working(asked).await?;
                self.say(&message(answer.unwrap_or_else(|error| AdminAnswer::Failed(error.to_string())))).await?;
            }
        }
        // Fails only where the client has gone.
        drop(self.writer.stream_mut().finish());
        Ok(())
    }

    async fn say(&mut self, message: &SideMessage) -> Result<(), FrameError> {
        self.writer.push_bytes(codec::encode(message).into())?;
        let stalled = |_| FrameError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client takes nothing"));
        timeout(STALLED, self.writer.flush()).await.map_err(stalled)?
    }

    /// Waits for something that may take long, and tells the client so; fails when the client has gone.
    async fn working<T>(&mut self, work: impl Future<Output = T>) -> Result<T, FrameError> {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(WORKING_EVERY);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                _ = ticks.tick() => self.say(&SideMessage::Working).await?,
            }
        }
    }

    async fn backup(&mut self, shared: &Arc<Shared>, desk: &Desk, at_least: Zxid) -> Result<(), FrameError> {
        let _one = match desk.backups.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                let what = "backups that a member sends at a time".to_owned();
                let refusal = Refusal::Limit { what, limit: BACKUPS as u64, actual: BACKUPS as u64 + 1 };
                return self.say(&SideMessage::Refused { refusal }).await;
            }
        };
        // What this member has not applied can't be in its checkpoint.
        if let Err(refusal) = self.working(reached(&shared.publisher, at_least, REACHED_WITHIN)).await? {
            return self.say(&SideMessage::Refused { refusal }).await;
        }
        match self.working(shared.checkpointer.fresh(at_least)).await? {
            Ok(checkpoint) => self.send(checkpoint).await,
            Err(why) => self.say(&SideMessage::Failed { why, unknown: false }).await,
        }
    }

    async fn send(&mut self, checkpoint: Checkpoint) -> Result<(), FrameError> {
        let backup = Backup {
            cluster: checkpoint.cluster().to_owned(),
            zxid: checkpoint.zxid(),
            digest: format!("{:032x}", checkpoint.local().digest),
            bytes: checkpoint.bytes(),
            rows: checkpoint.rows(),
        };
        let bytes = backup.bytes;
        tracing::info!(zxid = %backup.zxid, bytes, "a backup is being sent");
        self.say(&SideMessage::Backup(backup)).await?;
        let mut at = 0;
        // One chunk is read while the one before it is sent: nothing else is held.
        let mut next = read(&checkpoint, at);
        while at < bytes {
            let chunk = match next.await {
                Ok(Ok(chunk)) if !chunk.is_empty() => chunk,
                Ok(Ok(_)) => return self.failed(format!("the checkpoint ends at byte {at} of {bytes}")).await,
                Ok(Err(error)) => return self.failed(format!("the checkpoint can't be read: {error}")).await,
                Err(error) => return self.failed(error.to_string()).await,
            };
            at += chunk.len() as u64;
            next = read(&checkpoint, at);
            self.say(&SideMessage::Chunk { sum: sum(&chunk), bytes: chunk }).await?;
        }
        self.say(&SideMessage::End { bytes }).await
    }

    async fn failed(&mut self, why: String) -> Result<(), FrameError> {
        tracing::warn!(why, "a backup came to nothing");
        self.say(&SideMessage::Failed { why, unknown: false }).await
    }
}

/// Waits until this member has applied a transaction, but no longer than that.
async fn reached(publisher: &Publisher, at_least: Zxid, within: Duration) -> Result<(), Refusal> {
    match timeout(within, publisher.reached(at_least)).await {
        // A member that stops says so where it makes checkpoints.
        Ok(_) => Ok(()),
        Err(_) => {
            let what = "the transaction that the backup has to hold".to_owned();
            Err(Refusal::Limit { what, limit: publisher.published().0, actual: at_least.0 })
        }
    }
}

/// Reads a chunk; nothing at the end of the file.
fn read(checkpoint: &Checkpoint, at: u64) -> tokio::task::JoinHandle<std::io::Result<Bytes>> {
    let checkpoint = checkpoint.clone();
    spawn_blocking(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut filled = 0;
        while filled < chunk.len() {
            match checkpoint.read_at(at + filled as u64, &mut chunk[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        chunk.truncate(filled);
        Ok(chunk.into())
    })
}

fn message(answer: AdminAnswer) -> SideMessage {
    match answer {
        AdminAnswer::Done => SideMessage::Done,
        AdminAnswer::Declined(refusal) => SideMessage::Declined(refusal),
        AdminAnswer::NotLeader { .. } => SideMessage::Declined(conclave_protocol::ClusterRefusal::NoLeader),
        AdminAnswer::Failed(why) => SideMessage::Failed { why, unknown: true },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_backup_does_not_wait_for_ever_for_a_transaction_that_never_comes() {
        let publisher = Publisher::new(Zxid(7));
        reached(&publisher, Zxid(7), Duration::ZERO).await.unwrap();
        let refused = reached(&publisher, Zxid(u64::MAX), Duration::from_millis(1)).await;
        assert!(matches!(refused, Err(Refusal::Limit { limit: 7, actual: u64::MAX, .. })), "{refused:?}");
    }
}
