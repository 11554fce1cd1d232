//! What is in a queue, without taking it; and dead letters, which can be put back.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use conclave_client::Inquiry;
use futures::stream::{self, Stream};
use serde::Deserialize;

use crate::claim::PLUGIN;
use crate::error::{Error, Result, said};
use crate::queue::Queue;

/// Items in one answer: as many of the largest fit.
const PAGE: u32 = 16;
/// Dead letters that are put back by one transaction.
const REDRIVEN: u64 = 20;

/// How many items a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// That can be taken now.
    pub ready: u64,
    /// That are not due yet; or are, and nobody has looked since.
    pub delayed: u64,
    /// That somebody works on; or that come back, because their time is over, when somebody looks.
    pub claimed: u64,
    /// That were delivered as often as the queue allows.
    pub dead: u64,
}

/// An item that was looked at, and is nobody's by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// Its name in the queue.
    pub id: String,
    /// It; or why it can't be decoded.
    pub item: Result<T, String>,
    /// Its bytes.
    pub data: Bytes,
    /// The key that it was pushed with.
    pub key: Option<String>,
    /// How often it was given to somebody.
    pub deliveries: u64,
    /// When it was pushed, in cluster time.
    pub pushed: SystemTime,
}

/// As the plugin says it.
#[derive(Deserialize)]
struct Told {
    id: String,
    data: Bytes,
    key: Option<String>,
    deliveries: u64,
    pushed_ms: u64,
}

/// The same.
#[derive(Deserialize)]
struct Peeked {
    ready: u64,
    delayed: u64,
    claimed: u64,
    dead: u64,
    items: Vec<Told>,
}

impl<T> Queue<T> {
    /// How many items there are. One round trip, a read.
    ///
    /// # Errors
    /// As every read.
    pub async fn stats(&self) -> Result<Stats> {
        let Peeked { ready, delayed, claimed, dead, .. } = self.ask("peek").arg("limit", 0).typed().await?;
        Ok(Stats { ready, delayed, claimed, dead })
    }

    /// The first items of those that can be taken: 16 at most. One round trip, a read.
    ///
    /// # Errors
    /// As every read.
    pub async fn peek(&self, items: u32) -> Result<Vec<Seen<T>>> {
        let peeked: Peeked = self.ask("peek").arg("limit", items.min(PAGE)).typed().await?;
        Ok(peeked.items.into_iter().map(|told| self.seen(told)).collect())
    }

    /// The items that were delivered as often as the queue allows. 16 for each round trip, a read. Ends after the first
    /// error.
    pub fn dead_letters(&self) -> impl Stream<Item = Result<Seen<T>>> + Send + Unpin + use<T>
    where
        T: 'static,
    {
        let begin = Some((self.clone(), VecDeque::<Told>::new(), None::<String>, true));
        Box::pin(stream::unfold(begin, |state| async {
            let (queue, mut page, mut after, mut more) = state?;
            if page.is_empty() && more {
                let ask = queue.ask("dead-letters").arg("limit", PAGE);
                let ask = if let Some(after) = &after { ask.arg("after", after) } else { ask };
                match ask.typed::<VecDeque<Told>>().await {
                    Ok(next) => page = next,
                    Err(error) => return Some((Err(error.into()), None)),
                }
                more = page.len() == PAGE as usize;
            }
            let letter = page.pop_front()?;
            after = Some(letter.id.clone());
            Some((Ok(queue.seen(letter)), Some((queue, page, after, more))))
        }))
    }

    /// Puts a dead letter back into the queue, as if it had never been delivered. One round trip. Repeated it does no harm.
    ///
    /// # Errors
    /// [`Error::NoLetter`], and as every write.
    pub async fn redrive(&self, id: &str) -> Result<()> {
        let call = self.client().call(PLUGIN, "redrive").arg("queue", self.path().as_str()).arg("id", id);
        match call.await {
            Ok(_) => Ok(()),
            Err(error) if said(&error).is_some_and(|said| said.ends_with(" does not exist")) => {
                Err(Error::NoLetter { queue: self.path().clone(), id: id.to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts back all dead letters; how many. A round trip for each 20. Dropped half-way it has put back some of them.
    ///
    /// # Errors
    /// As every write.
    pub async fn redrive_all(&self) -> Result<u64> {
        let mut all = 0;
        loop {
            let call = self.client().call(PLUGIN, "redrive").arg("queue", self.path().as_str());
            let some: u64 = call.arg("limit", REDRIVEN).typed().await?;
            all += some;
            if some < REDRIVEN {
                return Ok(all);
            }
        }
    }

    fn ask(&self, query: &str) -> Inquiry {
        self.client().ask(PLUGIN, query).arg("queue", self.path().as_str())
    }

    fn seen(&self, told: Told) -> Seen<T> {
        let Told { id, data, key, deliveries, pushed_ms } = told;
        let item = (self.coding().decode)(data.clone());
        let pushed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(pushed_ms));
        Seen { id, item, data, key, deliveries, pushed: pushed.unwrap_or(SystemTime::UNIX_EPOCH) }
    }
}
