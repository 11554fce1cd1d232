//! Carrying a checkpoint to another member: offered, resumed where an earlier attempt ended, checked piece by piece.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::Position;
use conclave_store::{Checkpoint, CheckpointError, Checkpoints, Offer, Progress};
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

/// What was carried since the start, and who replaces what is not fit to be carried.
#[derive(Default)]
pub(crate) struct Carried {
    /// Bytes to other members.
    pub(crate) sent: AtomicU64,
    /// Bytes from other members.
    pub(crate) received: AtomicU64,
    /// Bytes that a resumed transfer did not have to carry again.
    pub(crate) resumed: AtomicU64,
    /// Checkpoints of others that were installed here.
    pub(crate) installed: AtomicU64,
    replace: OnceLock<Box<dyn Fn(Checkpoint) + Send + Sync>>,
}

impl Carried {
    /// Has a checkpoint of this member replaced that turned out to be damaged when it was sent. It must stay until there
    /// is another one: the log that led to it may be gone. Set once.
    pub(crate) fn replace_by(&self, replace: impl Fn(Checkpoint) + Send + Sync + 'static) {
        // A second one comes too late.
        drop(self.replace.set(Box::new(replace)));
    }
}

/// What a receiver thinks of an offer, before anything of it is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is wanted.
    Wanted,
    /// All of it is here already, or the sender has to know first that this ballot is held here.
    Superfluous(Option<Ballot>),
    /// It is not taken, and why.
    Refused(String),
}

/// What becomes of the checkpoints that the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// They are believed: what is received must be newer.
    Believed,
    /// They are not believed, whatever they hold.
    Disbelieved,
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
                Transfer::Damaged(why) => return Err(Error::Damaged(why)),
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
        self.end(&Transfer::Failed(why.to_string())).await;
    }

    /// As [`Self::fail`], after an error of [`receive`]: the sender hears when it is its file that is at fault.
    pub(crate) async fn failed(&mut self, error: &Error) {
        let last = match error {
            Error::Damaged(why) => Transfer::Damaged(why.clone()),
            error => Transfer::Failed(error.to_string()),
        };
        self.end(&last).await;
    }

    async fn end(&mut self, last: &Transfer) {
        drop(self.say(last).await);
        let _ = self.writer.stream_mut().finish();
    }
}

/// Breaks off work on another thread when the future that waits for it is dropped: a member that stops does not wait for
/// gigabytes.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Wanted {
    fn progress(&self) -> impl FnMut(Progress) -> ControlFlow<()> + Send + 'static {
        let given_up = Arc::clone(&self.0);
        move |_| if given_up.load(Ordering::Acquire) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Sends a checkpoint, at most so many bytes a second, and waits until the receiver is done with it; gives the ballot
/// that it holds, if it said one. A file that is found to be damaged by that is replaced.
///
/// # Errors
/// Why it did not arrive; what did, the receiver keeps for the next attempt.
pub(crate) async fn send(
    ends: Ends,
    checkpoint: &Checkpoint,
    bytes_per_s: u64,
    carried: &Carried,
) -> Result<Option<Ballot>, Error> {
    let sent = carry(ends, checkpoint, bytes_per_s, carried).await;
    if let Err(error @ (Error::Damaged(_) | Error::Checkpoint(_))) = &sent
        && is_damaged(checkpoint, error).await
        && let Some(replace) = carried.replace.get()
    {
        replace(checkpoint.clone());
    }
    sent
}

/// Whether it is this member's own file that is at fault for an error.
async fn is_damaged(checkpoint: &Checkpoint, error: &Error) -> bool {
    let (file, wanted) = (checkpoint.clone(), Wanted::default());
    let mut progress = wanted.progress();
    let index = checkpoint.position().index;
    match spawn_blocking(move || file.verify(&mut progress)).await {
        Ok(Ok(())) => {
            tracing::warn!(index, %error, "a checkpoint did not arrive sound; here it is");
            false
        }
        Ok(Err(damage)) => {
            tracing::error!(index, %damage, "this member's checkpoint is damaged");
            true
        }
        // The runtime is ending.
        Err(_) => false,
    }
}

async fn carry(
    mut ends: Ends,
    checkpoint: &Checkpoint,
    bytes_per_s: u64,
    carried: &Carried,
) -> Result<Option<Ballot>, Error> {
    let Position { term, index } = checkpoint.position();
    let bytes = checkpoint.bytes();
    ends.say(&Transfer::Offer { at: At { term, index }, id: checkpoint.id(), bytes }).await?;
    let start = match ends.hear().await? {
        Transfer::From(start) => start,
        Transfer::Done(ballot) => return Ok(ballot),
        _ => return Err(out_of_place()),
    };
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

/// Receives a checkpoint, if it is judged to be wanted; verifies all of it, and makes it this member's newest one. The
/// sender still waits for [`Ends::done`]. None when it is superfluous: then the sender has its answer.
///
/// # Errors
/// Why it is not there; what has arrived is kept for the next attempt.
pub(crate) async fn receive(
    ends: &mut Ends,
    checkpoints: &Checkpoints,
    carried: &Carried,
    others: Others,
    judge: impl FnOnce(Position) -> Judged,
) -> Result<Option<Checkpoint>, Error> {
    let Transfer::Offer { at, id, bytes } = ends.hear().await? else { return Err(out_of_place()) };
    let offer = Offer { position: Position { term: at.term, index: at.index }, id, bytes };
    match judge(offer.position) {
        Judged::Wanted => {}
        Judged::Superfluous(ballot) => return ends.done(ballot).await.map(|()| None),
        Judged::Refused(why) => return Err(Error::Checkpoint(why)),
    }
    let place = checkpoints.clone();
    let started = spawn_blocking(move || place.receive(&offer)).await.map_err(panicked)?;
    let mut incoming = started.map_err(stored)?;
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
        incoming = written.map_err(stored)?;
    }
    let wanted = Wanted::default();
    let mut progress = wanted.progress();
    let finished = spawn_blocking(move || match others {
        Others::Believed => incoming.finish(&mut progress),
        Others::Disbelieved => incoming.finish_as_only(&mut progress),
    });
    let finished = ends.working(finished).await?.map_err(panicked)?;
    finished.map(Some).map_err(stored)
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn stored(error: CheckpointError) -> Error {
    match error {
        CheckpointError::Damaged { why, .. } => Error::Damaged(why),
        error => Error::Checkpoint(error.to_string()),
    }
}

fn out_of_place() -> Error {
    Error::Malformed(wire::Malformed::Message("a message that is out of place".to_owned()))
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn panicked(error: JoinError) -> Error {
    Error::Checkpoint(error.to_string())
}

#[cfg(test)]
mod tests;
