//! Carrying a checkpoint to another member: offered, resumed where an earlier attempt ended, checked piece by piece.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::Position;
use conclave_store::{Checkpoint, Checkpoints, Offer};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, interval, sleep_until, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::wire::{self, At, Ballot, Transfer};
use super::{Error, Reader, Writer};

/// Bytes of the file in one frame.
const CHUNK_BYTES: usize = 256 << 10;
/// A peer that says nothing for so long is given up; it says [`Transfer::Working`] much more often.
const SILENCE: Duration = Duration::from_secs(20);
/// How often a peer that is at work says so.
const WORKING_EVERY: Duration = Duration::from_secs(1);

/// Bytes carried since the start.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// To other members.
    pub(crate) sent: AtomicU64,
    /// From other members.
    pub(crate) received: AtomicU64,
    /// Bytes that a resumed transfer did not have to carry again.
    pub(crate) resumed: AtomicU64,
    /// Checkpoints of others that were installed here.
    pub(crate) installed: AtomicU64,
}

/// Both directions of a stream.
pub(crate) struct Ends {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

impl Ends {
    async fn say(&mut self, message: &Transfer) -> Result<(), Error> {
        self.writer.push_bytes(wire::encode(message).into())?;
        timeout(SILENCE, self.writer.flush()).await.map_err(|_| Error::NoAnswer(SILENCE))??;
        Ok(())
    }

    /// The next message that says something.
    async fn hear(&mut self) -> Result<Transfer, Error> {
        loop {
            let frame = timeout(SILENCE, self.reader.next(wire::FRAME_BYTES));
            let frame = frame.await.map_err(|_| Error::NoAnswer(SILENCE))??.ok_or(Error::Ended)?;
            match wire::decode(&frame)? {
                Transfer::Working => {}
                Transfer::Failed(why) => return Err(Error::Failed(why)),
                message => return Ok(message),
            }
        }
    }

    /// Waits for work that takes long, and keeps the other side waiting with it.
    pub(crate) async fn working<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(WORKING_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = ticks.tick() => self.say(&Transfer::Working).await?,
            }
        }
    }

    /// The receiver's last word.
    pub(crate) async fn done(&mut self, ballot: Option<Ballot>) -> Result<(), Error> {
        self.say(&Transfer::Done(ballot)).await?;
        // Fails only where the other side has gone: then nobody waits for it.
        let _ = self.writer.stream_mut().finish();
        Ok(())
    }

    /// Says that it ends here. The other side may be gone.
    pub(crate) async fn fail(&mut self, why: &impl ToString) {
        drop(self.say(&Transfer::Failed(why.to_string())).await);
        let _ = self.writer.stream_mut().finish();
    }
}

/// Sends a checkpoint, at most so many bytes a second, and waits until the receiver is done with it; gives the ballot
/// that it holds, if it said one.
///
/// # Errors
/// Why it did not arrive; what did, the receiver keeps for the next attempt.
pub(crate) async fn send(
    mut ends: Ends,
    checkpoint: &Checkpoint,
    bytes_per_s: u64,
    carried: &Carried,
) -> Result<Option<Ballot>, Error> {
    let Position { term, index } = checkpoint.position();
    let bytes = checkpoint.bytes();
    ends.say(&Transfer::Offer { at: At { term, index }, id: checkpoint.id(), bytes }).await?;
    let Transfer::From(start) = ends.hear().await? else { return Err(out_of_place()) };
    let began = Instant::now();
    let mut offset = start.min(bytes);
    tracing::info!(index, bytes, from = offset, "sending a checkpoint");
    while offset < bytes {
        let file = checkpoint.clone();
        let chunk = spawn_blocking(move || read(&file, offset)).await.map_err(panicked)??;
        offset += chunk.len() as u64;
        carried.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        ends.say(&Transfer::Chunk { sum: xxh3_64(&chunk), bytes: chunk }).await?;
        #[allow(clippy::cast_precision_loss)] // a pause need not be exact
        let due = Duration::from_secs_f64((offset - start) as f64 / bytes_per_s.max(1) as f64);
        sleep_until(began + due).await;
    }
    match ends.hear().await? {
        Transfer::Done(ballot) => Ok(ballot),
        _ => Err(out_of_place()),
    }
}

fn read(file: &Checkpoint, offset: u64) -> Result<Bytes, Error> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let got = file.read_at(offset, &mut chunk).map_err(|error| Error::Checkpoint(error.to_string()))?;
    if got == 0 {
        return Err(Error::Checkpoint(format!("the file ends at byte {offset}")));
    }
    chunk.truncate(got);
    Ok(chunk.into())
}

/// Receives a checkpoint, verifies all of it, and makes it this member's newest one. The sender still waits for
/// [`Ends::done`].
///
/// # Errors
/// Why it is not there; what has arrived is kept for the next attempt.
pub(crate) async fn receive(
    ends: &mut Ends,
    checkpoints: &Checkpoints,
    carried: &Carried,
) -> Result<Checkpoint, Error> {
    let Transfer::Offer { at, id, bytes } = ends.hear().await? else { return Err(out_of_place()) };
    let offer = Offer { position: Position { term: at.term, index: at.index }, id, bytes };
    let place = checkpoints.clone();
    let started = spawn_blocking(move || place.receive(&offer)).await.map_err(panicked)?;
    let mut incoming = started.map_err(|error| Error::Checkpoint(error.to_string()))?;
    let mut offset = incoming.offset();
    carried.resumed.fetch_add(offset, Ordering::Relaxed);
    tracing::info!(index = at.index, bytes, from = offset, "receiving a checkpoint");
    ends.say(&Transfer::From(offset)).await?;
    while offset < bytes {
        let Transfer::Chunk { sum, bytes: chunk } = ends.hear().await? else { return Err(out_of_place()) };
        if xxh3_64(&chunk) != sum {
            return Err(Error::Checkpoint(format!("the piece at byte {offset} was damaged on its way")));
        }
        offset += chunk.len() as u64;
        carried.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let written = spawn_blocking(move || incoming.write(&chunk).map(|()| incoming)).await.map_err(panicked)?;
        incoming = written.map_err(|error| Error::Checkpoint(error.to_string()))?;
    }
    let finished = spawn_blocking(move || incoming.finish(&mut |_| std::ops::ControlFlow::Continue(())));
    let finished = ends.working(finished).await?.map_err(panicked)?;
    finished.map_err(|error| Error::Checkpoint(error.to_string()))
}

fn out_of_place() -> Error {
    Error::Malformed(wire::Malformed::Message("a message that is out of place".to_owned()))
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn panicked(error: JoinError) -> Error {
    Error::Checkpoint(error.to_string())
}
