//! Pushing: one transaction, exactly once, in the order of the pushes of a client.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use bytes::Bytes;
use conclave_client::Error as ClientError;
use futures::future::BoxFuture;
use rand::Rng;
use serde::Deserialize;

use crate::claim::{PLUGIN, millis};
use crate::clock::Moment;
use crate::error::{Error, Result, said};
use crate::queue::Queue;

/// Bytes that an item may have, encoded. The cluster keeps the answer of a take until it is acknowledged, and answers of
/// 64 KiB at most: what is larger could be pushed, and never be taken.
pub const ITEM_BYTES: usize = 63 << 10;

/// The greatest priority.
const PRIORITIES: u8 = 9;
/// Pauses before a full queue is tried again: at most this at first, twice that each time, up to ...
const PAUSE_MS: u64 = 20;
/// ... this.
const PAUSE_MOST_MS: u64 = 1_000;

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Pushed {
    /// The item's name in the queue.
    pub id: String,
    /// An item of this key was pushed lately, whatever has become of it: this is that one's name, and nothing was added.
    pub duplicate: bool,
}

/// Pushes an item; made by [`Queue::push`]. Awaited it gives [`Pushed`].
///
/// # Errors
/// [`Error::Full`], [`Error::TooLarge`], [`Error::BadKey`], [`Error::BadPriority`]: nothing was pushed.
/// [`Error::SessionOver`] and [`Error::Client`]: see [`Error::outcome`]. After `Unknown`, a push with a
/// [key](Push::dedup) can simply be repeated.
///
/// # Ordering
/// Pushes of one client are carried out in the order in which they were issued, through its session, which is opened.
///
/// # Cancellation
/// Dropping the future, the item may or may not be pushed.
#[derive(Debug)]
#[must_use = "it pushes nothing until it is awaited"]
pub struct Push<T> {
    queue: Queue<T>,
    data: Result<Bytes, String>,
    priority: u8,
    delay: Duration,
    key: Option<String>,
    room: Option<Duration>,
}

impl<T> Push<T> {
    pub(crate) const fn new(queue: Queue<T>, data: Result<Bytes, String>) -> Self {
        Self { queue, data, priority: 0, delay: Duration::ZERO, key: None, room: None }
    }

    /// From 0, the default, to 9, which is taken first. Among those of one priority the oldest is taken first.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// It can be taken after so long, and not before; by those who wait, within a second of that.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// An item of this key is pushed once within the queue's [`Queue::dedup_for`], whatever becomes of the first one. The
    /// key becomes the name of a znode: it has no `/`, and 255 bytes at most.
    pub fn dedup(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// When the queue is full, tries again for so long: after pauses of random length that grow from 20 ms to 1 s. Nobody
    /// is told when there is room, so those who wait for it are served in no particular order.
    pub const fn wait_for_room(mut self, time: Duration) -> Self {
        self.room = Some(time);
        self
    }
}

impl<T: 'static> IntoFuture for Push<T> {
    type Output = Result<Pushed>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { queue, data, priority, delay, key, room } = self;
            let data = data.map_err(|why| ClientError::Unencodable { why })?;
            check(&queue, &data, priority, key.as_deref())?;
            queue.declared().await?;
            let push = || {
                let call = queue.client().call(PLUGIN, "push").arg("queue", queue.path().as_str());
                let mut call = call.arg("data", &data).arg("priority", priority).in_session();
                if !delay.is_zero() {
                    call = call.arg("delay", millis(delay));
                }
                if let Some(key) = &key {
                    call = call.arg("key", key);
                }
                let pushed = call.typed().into_future();
                async { pushed.await.map_err(|error| refused(&queue, error)) }
            };
            match room {
                Some(time) => until_room(time, push).await,
                None => push().await,
            }
        })
    }
}

/// What can be said without asking.
fn check<T>(queue: &Queue<T>, data: &Bytes, priority: u8, key: Option<&str>) -> Result<()> {
    if priority > PRIORITIES {
        return Err(Error::BadPriority { priority });
    }
    if data.len() > ITEM_BYTES {
        return Err(Error::TooLarge { bytes: data.len(), limit: ITEM_BYTES });
    }
    let Some(key) = key else { return Ok(()) };
    let bad = |error: conclave_client::PathError| Error::BadKey { key: key.to_owned(), why: error.to_string() };
    queue.path().join("keys").and_then(|keys| keys.join(key)).map(drop).map_err(bad)
}

fn refused<T>(queue: &Queue<T>, error: ClientError) -> Error {
    match said(&error) {
        Some(said) if said.contains(" is full: ") => Error::Full { queue: queue.path().clone(), said: said.to_owned() },
        Some(why) if why.contains(" is no queue: ") => {
            Error::NoQueue { path: queue.path().clone(), why: why.to_owned() }
        }
        _ => error.into(),
    }
}

/// Pushes until the queue is not full, or the time is over.
async fn until_room<P>(time: Duration, push: impl Fn() -> P) -> Result<Pushed>
where
    P: Future<Output = Result<Pushed>>,
{
    let begun = Moment::now();
    let mut most_ms = PAUSE_MS;
    loop {
        let left = time.saturating_sub(Moment::now().since(begun));
        match push().await {
            Err(Error::Full { .. }) if !left.is_zero() => {}
            pushed => return pushed,
        }
        // Others wait too: a pause that differs from theirs.
        let pause = Duration::from_millis(rand::rng().random_range(1..=most_ms));
        tokio::time::sleep(pause.min(left)).await;
        most_ms = (most_ms * 2).min(PAUSE_MOST_MS);
    }
}
