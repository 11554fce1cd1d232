//! Side streams of a client's connection: backups, health, changes of membership.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::{
    Backup, ClusterRefusal, ClusterRequest, Health, MemberId, SIDE_FRAME_BYTES, SideMessage, SideRequest, Zxid, codec,
    sum,
};
use tokio::time::timeout;

use crate::client::Client;
use crate::driver::Sent;
use crate::error::{Error, Outcome, Result};
use crate::wire::{Opener, Side};

/// A member that works on something says so every second; one that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// How long to wait before something is asked again.
pub(crate) const AGAIN: Duration = Duration::from_millis(50);

impl Client {
    /// Starts a backup: the member that this client is connected to makes a checkpoint of its tree, if it has none that
    /// is new enough, and sends it. Every write that was acknowledged to anybody before this call is in it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the member makes a backup already, otherwise as every read; [`Error::Interrupted`] when
    /// the connection broke.
    pub async fn backup(&self) -> Result<BackupStream> {
        // Linearizable: what it was read from holds every write that was acknowledged before.
        self.whole().at("/").exists().linearizable().await?;
        self.backup_of(self.zxid()).await
    }

    /// As [`Client::backup`], of what that member has applied: nobody is asked for anything newer, so that it works
    /// without a leader too.
    ///
    /// # Errors
    /// As [`Client::backup`].
    pub async fn backup_stale(&self) -> Result<BackupStream> {
        let zxid = self.status().await?.zxid;
        self.backup_of(zxid).await
    }

    async fn backup_of(&self, at_least: Zxid) -> Result<BackupStream> {
        let mut talk = self.talk(&SideRequest::Backup { at_least }, self.request_timeout()).await?;
        match talk.hear().await? {
            SideMessage::Backup(backup) => Ok(BackupStream { talk, backup, received: 0, ended: false }),
            _ => Err(Error::Mismatch { question: "a backup" }),
        }
    }

    /// How every member is, as the member finds out that this client is connected to. It is answered without a leader
    /// too.
    ///
    /// # Errors
    /// As every read; [`Error::Interrupted`] when the connection broke.
    pub async fn health(&self) -> Result<Health> {
        let ask = async || match self.talk(&SideRequest::Health, self.request_timeout()).await?.hear().await? {
            SideMessage::Health(health) => Ok(*health),
            _ => Err(Error::Mismatch { question: "health" }),
        };
        self.again(self.request_timeout(), ask).await
    }

    /// Asks until there is an answer, while there is time: connections break.
    pub(crate) async fn again<T>(&self, within: Duration, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match ask().await {
                Err(Error::Interrupted { .. }) if begun.elapsed() + AGAIN < within => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    /// Adds a member without a vote; `client` and `peer` are where clients and members reach it, `host:port`. It is
    /// sent what it lacks, which this does not wait for. Harmless when it is a member already, at these addresses.
    ///
    /// # Errors
    /// [`Error::Declined`]: nothing was changed, and why. [`Error::Interrupted`]: it may have happened. It was asked
    /// for again, when a connection broke, until the request's time was over; asking once more is harmless.
    pub async fn add_learner(&self, member: MemberId, client: &str, peer: &str) -> Result<()> {
        let (client, peer) = (client.to_owned(), peer.to_owned());
        self.change(ClusterRequest::AddLearner { member, client, peer }).await
    }

    /// Gives a learner that has caught up its vote. Harmless when it has one.
    ///
    /// # Errors
    /// As [`Client::add_learner`].
    pub async fn promote(&self, member: MemberId) -> Result<()> {
        self.change(ClusterRequest::Promote { member }).await
    }

    /// Takes a member out of the cluster, for good.
    ///
    /// # Errors
    /// As [`Client::add_learner`].
    pub async fn remove(&self, member: MemberId) -> Result<()> {
        let interrupted = AtomicBool::new(false);
        let ask = async || match self.change_once(&ClusterRequest::Remove { member }).await {
            // It was done when it was asked for before.
            Err(Error::Declined(ClusterRefusal::NoMember { .. })) if interrupted.load(Ordering::Relaxed) => Ok(()),
            done => {
                interrupted.fetch_or(matches!(done, Err(Error::Interrupted { .. })), Ordering::Relaxed);
                done
            }
        };
        self.again(self.request_timeout(), ask).await
    }

    /// Has the leader hand over to the voter whose log is furthest.
    ///
    /// # Errors
    /// As [`Client::add_learner`], except that it is asked for once: the next leader is not to hand over too.
    pub async fn step_down(&self) -> Result<()> {
        self.change_once(&ClusterRequest::StepDown).await
    }

    async fn change(&self, request: ClusterRequest) -> Result<()> {
        self.again(self.request_timeout(), async || self.change_once(&request).await).await
    }

    async fn change_once(&self, request: &ClusterRequest) -> Result<()> {
        let mut talk = self.talk(&SideRequest::Cluster(request.clone()), self.request_timeout()).await?;
        // It was sent: only an answer can say that it did not happen.
        talk.silence = Outcome::Unknown;
        match talk.hear().await? {
            SideMessage::Done => Ok(()),
            _ => Err(Error::Mismatch { question: "a change of membership" }),
        }
    }

    /// Opens a side stream and asks.
    pub(crate) async fn talk(&self, request: &SideRequest, within: Duration) -> Result<Talk> {
        let open = async {
            let opener = self.opener().await?;
            self.sends(Sent::Stream);
            let mut side = opener().await.map_err(|reason| interrupted(reason.why))?;
            side.writer.push(&codec::encode(request)).map_err(interrupted)?;
            side.writer.flush().await.map_err(interrupted)?;
            Ok(Talk { side, silence: Outcome::NotApplied, _open: opener })
        };
        timeout(within, open).await.unwrap_or(Err(Error::TimedOut { after: within }))
    }
}

pub(crate) fn interrupted(why: impl fmt::Display) -> Error {
    Error::Interrupted { why: why.to_string(), outcome: Outcome::NotApplied }
}

/// A side stream on which something was asked.
pub(crate) struct Talk {
    side: Side,
    /// What is known of what was asked, when nothing more comes.
    silence: Outcome,
    /// Holds the connection open.
    _open: Opener,
}

impl Talk {
    /// The next message that says something.
    pub(crate) async fn hear(&mut self) -> Result<SideMessage> {
        let outcome = self.silence;
        let interrupted = |why: String| Error::Interrupted { why, outcome };
        loop {
            let silent = || interrupted(format!("the member said nothing for {} s", SILENCE.as_secs()));
            let frame = timeout(SILENCE, self.side.reader.next(SIDE_FRAME_BYTES)).await.map_err(|_| silent())?;
            let frame = frame.map_err(|error| interrupted(error.to_string()))?;
            let frame = frame.ok_or_else(|| interrupted("the member ended the stream".to_owned()))?;
            match codec::decode(&frame).map_err(|error| interrupted(error.to_string()))? {
                SideMessage::Working => {}
                SideMessage::Declined(refusal) => return Err(Error::Declined(refusal)),
                SideMessage::Refused { refusal } => return Err(Error::Refused(refusal)),
                SideMessage::Failed { why, unknown } => {
                    let outcome = if unknown { Outcome::Unknown } else { Outcome::NotApplied };
                    return Err(Error::Interrupted { why, outcome });
                }
                message => return Ok(message),
            }
        }
    }
}

/// A backup that is being received: what it holds, then the file's bytes. Dropping it ends it.
#[must_use = "the backup ends when this is dropped"]
pub struct BackupStream {
    talk: Talk,
    backup: Backup,
    received: u64,
    ended: bool,
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupStream").field("backup", &self.backup).field("received", &self.received).finish()
    }
}

impl BackupStream {
    /// What it holds.
    #[must_use]
    pub const fn backup(&self) -> &Backup {
        &self.backup
    }

    /// Bytes received so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The file's next bytes; none when it is complete. Each piece has been held against its checksum, and the whole
    /// against its length.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the rest will not come; what was received is no backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        match self.talk.hear().await? {
            SideMessage::Chunk { sum: expected, bytes } => {
                let at = self.received;
                if sum(&bytes) != expected {
                    return Err(interrupted(format!(
                        "the bytes from {at} on came with another checksum than they have"
                    )));
                }
                self.received += bytes.len() as u64;
                if self.received > self.backup.bytes {
                    return Err(interrupted(format!(
                        "more came than the {} bytes that were announced",
                        self.backup.bytes
                    )));
                }
                Ok(Some(bytes))
            }
            SideMessage::End { bytes } if bytes == self.received && bytes == self.backup.bytes => {
                self.ended = true;
                Ok(None)
            }
            SideMessage::End { .. } => {
                Err(interrupted(format!("{} of {} bytes came", self.received, self.backup.bytes)))
            }
            _ => Err(Error::Mismatch { question: "a backup" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conclave_link::{FrameReader, FrameWriter};
    use conclave_protocol::{ClusterRefusal, Refusal};

    use super::*;
    use crate::wire::Reason;

    /// A side stream on which a member has said all this.
    async fn said(messages: &[SideMessage]) -> Talk {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut member = FrameWriter::new(theirs);
        for message in messages {
            member.push(&codec::encode(message)).unwrap();
        }
        member.flush().await.unwrap();
        let (read, write) = tokio::io::split(ours);
        let side = Side { reader: FrameReader::new(Box::new(read)), writer: FrameWriter::new(Box::new(write)) };
        Talk {
            side,
            silence: Outcome::NotApplied,
            _open: Arc::new(|| Box::pin(std::future::ready(Err(Reason::new("closed"))))),
        }
    }

    fn chunk(bytes: &'static [u8]) -> SideMessage {
        SideMessage::Chunk { sum: sum(bytes), bytes: Bytes::from_static(bytes) }
    }

    /// What a backup of so many bytes gives when these messages come.
    async fn receive(announced: u64, messages: &[SideMessage]) -> Result<Vec<u8>> {
        let digest = "0".repeat(32);
        let backup = Backup { cluster: "c".to_owned(), zxid: Zxid(3), digest, bytes: announced, rows: 1 };
        let mut stream = BackupStream { talk: said(messages).await, backup, received: 0, ended: false };
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await? {
            all.extend_from_slice(&bytes);
        }
        assert!(stream.next().await?.is_none(), "the end stays the end");
        Ok(all)
    }

    fn is_interrupted<T>(result: &Result<T>) -> bool {
        matches!(result, Err(Error::Interrupted { outcome: Outcome::NotApplied, .. }))
    }

    #[tokio::test]
    async fn a_backup_is_its_chunks_in_order() {
        let whole = [chunk(b"ab"), SideMessage::Working, chunk(b"cde"), SideMessage::End { bytes: 5 }];
        assert_eq!(receive(5, &whole).await.unwrap(), b"abcde");
    }

    #[tokio::test]
    async fn a_backup_that_is_cut_longer_or_damaged_is_none() {
        let damaged = SideMessage::Chunk { sum: sum(b"ab"), bytes: Bytes::from_static(b"aB") };
        for messages in [
            &[chunk(b"ab")][..],
            &[chunk(b"ab"), SideMessage::End { bytes: 2 }],
            &[chunk(b"ab"), SideMessage::End { bytes: 5 }],
            &[chunk(b"ab"), chunk(b"cdef")],
            &[damaged, chunk(b"cde"), SideMessage::End { bytes: 5 }],
            &[SideMessage::Failed { why: "its disk is full".to_owned(), unknown: false }],
        ] {
            let received = receive(5, messages).await;
            assert!(is_interrupted(&received), "{messages:?}: {received:?}");
        }
        let other = receive(5, &[SideMessage::Done]).await;
        assert!(matches!(other, Err(Error::Mismatch { .. })), "{other:?}");
    }

    #[tokio::test]
    async fn an_answer_that_says_no_is_an_error_of_its_kind() {
        let refusal = Refusal::Limit { what: "backups".to_owned(), limit: 1, actual: 2 };
        let refused = said(&[SideMessage::Refused { refusal: refusal.clone() }]).await.hear().await;
        assert!(matches!(refused, Err(Error::Refused(it)) if it == refusal));
        let declined = said(&[SideMessage::Declined(ClusterRefusal::NoSuccessor)]).await.hear().await;
        assert!(matches!(declined, Err(Error::Declined(ClusterRefusal::NoSuccessor))));
        let failed = said(&[SideMessage::Failed { why: "w".to_owned(), unknown: true }]).await.hear().await;
        assert!(matches!(failed, Err(Error::Interrupted { outcome: Outcome::Unknown, .. })));
    }
}
