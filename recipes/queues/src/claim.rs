//! A claim on an item: until when it holds, how it is prolonged, and how it ends.

use std::time::Duration;

use conclave_client::{Call, Client, Error as ClientError, Fence, Path, Zxid};
use tokio::sync::{Mutex, watch};

use crate::clock::Moment;
use crate::error::{Error, Result, said};

/// The plugin that keeps queues.
pub(crate) const PLUGIN: &str = "queue";
/// Between two looks at the clock, at most: a sleep of tokio's takes no account of one of the machine's.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the clock, at least.
pub(crate) const LEAST: Duration = Duration::from_millis(20);

/// May one rely on having the item alone?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The claim holds.
    Held,
    /// It holds until its deadline, but no member was heard lately: it may not be possible to extend or to settle it in time.
    Uncertain,
    /// It is over. It never comes back: the item may be another's.
    Lost,
}

/// Why a claim is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Its time is over by the local clock, which is a little ahead of the cluster's.
    #[error("its time is over")]
    RanOut,
    /// The cluster says so: its time was over, or somebody deleted it.
    #[error("the cluster says that its time is over, or that it was settled")]
    Gone,
    /// The client's session is over, so that it can neither be extended nor settled.
    #[error("the session is over")]
    SessionOver,
    /// It was acknowledged or given back here. Only clones of [`Work`](crate::Work) are told so.
    #[error("it was settled")]
    Settled,
}

/// How it stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    until: Moment,
    /// The first reason stays.
    over: Option<Lost>,
}

/// A claim, shared by all that look at it.
#[derive(Debug)]
pub(crate) struct Claim {
    client: Client,
    queue: Path,
    name: String,
    id: String,
    fence: Fence,
    visibility: Duration,
    standing: watch::Sender<Standing>,
    /// One extension at a time, so that the last one is the one that holds.
    extending: Mutex<()>,
}

impl Claim {
    /// The claim of this name on an item, that holds until then; without that, until it is extended for the first time it
    /// is not known.
    ///
    /// # Errors
    /// When the name is none of the plugin's.
    pub(crate) fn new(
        client: &Client,
        queue: &Path,
        (name, id): (String, String),
        visibility: Duration,
        until: Option<Moment>,
    ) -> Result<Self> {
        let fence = fence(queue, &name).ok_or(ClientError::Mismatch { question: "queue take" })?;
        let standing = watch::Sender::new(Standing { until: until.unwrap_or(Moment::NEVER), over: None });
        let (client, queue) = (client.clone(), queue.clone());
        Ok(Self { client, queue, name, id, fence, visibility, standing, extending: Mutex::default() })
    }

    pub(crate) const fn id(&self) -> &String {
        &self.id
    }

    /// How long it was made for.
    pub(crate) const fn visibility(&self) -> Duration {
        self.visibility
    }

    pub(crate) const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// By the local clock, without asking anybody.
    pub(crate) fn state(&self) -> State {
        let Standing { until, over } = *self.standing.borrow();
        let client = self.client.state();
        let now_over = match client {
            _ if over.is_some() => over,
            conclave_client::State::Lost => Some(Lost::SessionOver),
            _ if Moment::now() >= until => Some(Lost::RanOut),
            _ => None,
        };
        match (now_over, client) {
            (Some(why), _) => {
                // For good, whatever the clock says next.
                self.end(why);
                State::Lost
            }
            (None, conclave_client::State::Connected) => State::Held,
            (None, _) => State::Uncertain,
        }
    }

    pub(crate) fn over(&self) -> Option<Lost> {
        self.state();
        self.standing.borrow().over
    }

    pub(crate) fn time_left(&self) -> Duration {
        match self.state() {
            State::Lost => Duration::ZERO,
            State::Held | State::Uncertain => self.standing.borrow().until.since(Moment::now()),
        }
    }

    /// Waits until it is over.
    pub(crate) async fn lost(&self) -> Lost {
        let mut standing = self.standing.subscribe();
        loop {
            if let Some(why) = self.over() {
                return why;
            }
            let time = self.time_left().clamp(LEAST, LOOK);
            // An error cannot be: the sender is in `self`.
            let _ = tokio::time::timeout(time, standing.wait_for(|standing| standing.over.is_some())).await;
        }
    }

    pub(crate) fn end(&self, why: Lost) {
        self.standing.send_if_modified(|standing| {
            let first = standing.over.is_none();
            standing.over.get_or_insert(why);
            first
        });
    }

    /// It holds for so long from now on.
    pub(crate) async fn extend(&self, visibility: Duration) -> Result<()> {
        let _one = self.extending.lock().await;
        if let Some(why) = self.over() {
            return Err(self.is_over(why));
        }
        let sent = Moment::now();
        let call = self.call("extend").arg("visibility", millis(visibility));
        call.await.map_err(|error| self.failed(error))?;
        self.standing.send_modify(|standing| standing.until = sent.surely(visibility));
        self.over().map_or(Ok(()), |why| Err(self.is_over(why)))
    }

    /// The item is done.
    pub(crate) async fn ack(&self) -> Result<()> {
        self.settle(self.call("ack")).await
    }

    /// The item goes back, to be taken after so long.
    pub(crate) async fn nack(&self, delay: Duration) -> Result<()> {
        let call = self.call("nack");
        self.settle(if delay.is_zero() { call } else { call.arg("delay", millis(delay)) }).await
    }

    /// The cluster decides: its clock is the one that counts.
    async fn settle(&self, call: Call) -> Result<()> {
        let done = call.await.map(drop).map_err(|error| self.failed(error));
        if done.is_ok() {
            self.end(Lost::Settled);
        }
        done
    }

    pub(crate) fn is_over(&self, why: Lost) -> Error {
        Error::ClaimOver { queue: self.queue.clone(), id: self.id.clone(), why }
    }

    fn failed(&self, error: ClientError) -> Error {
        if !said(&error).is_some_and(|said| said.contains("it ran out, or was settled")) {
            return error.into();
        }
        self.gone()
    }

    /// The cluster does not know it any more.
    pub(crate) fn gone(&self) -> Error {
        self.end(Lost::Gone);
        self.is_over(self.over().unwrap_or(Lost::Gone))
    }

    fn call(&self, procedure: &str) -> Call {
        // In the session: each exactly once, and in the order in which they were issued.
        self.client.call(PLUGIN, procedure).arg("queue", self.queue.as_str()).arg("claim", &self.name).in_session()
    }
}

/// What names the claim for the cluster: its znode, and the transaction that made it, which is in its name.
fn fence(queue: &Path, name: &str) -> Option<Fence> {
    let (_, zxid) = name.split_once('-')?;
    let path = queue.join("claimed").ok()?.join(name).ok()?;
    Some(Fence { path, zxid: Zxid(zxid.parse().ok()?) })
}

/// In the plugin's milliseconds; at least one, as none would be over at once.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_of_a_claim_is_in_its_name() {
        let queue = Path::parse("/queues/q").unwrap();
        let of = |name| fence(&queue, name).map(|fence| fence.to_string());
        let name = "01700000000000-00000000000000000042";
        assert_eq!(of(name), Some(format!("/queues/q/claimed/{name}@42")));
        for name in ["", "x", "1-x", "1-", "-"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn no_time_is_no_time_to_the_plugin() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(2_500)), 2);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
