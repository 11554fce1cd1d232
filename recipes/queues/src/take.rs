//! Taking: parked on the cluster's side until there is an item, which is ours alone from then on.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_client::Error as ClientError;
use futures::future::BoxFuture;
use serde::Deserialize;

use crate::claim::{Claim, PLUGIN, millis};
use crate::clock::Moment;
use crate::error::{Error, Result, Undecodable};
use crate::holding::Holding;
use crate::job::Job;
use crate::queue::Queue;

/// When an item that can't be decoded can be taken again: those behind it come first, and perhaps somebody who can.
const UNDECODABLE: Duration = Duration::from_secs(1);

/// The time of a take that has no end of its own. In a session it is answered, or the session is over: any time that is
/// longer than most that is waited for keeps the client from giving it up while the cluster is away.
const UNTIL_ANSWERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What the plugin answers.
#[derive(Deserialize)]
struct Taken {
    claim: String,
    id: String,
    data: Bytes,
    key: Option<String>,
    deliveries: u64,
}

/// Takes an item; made by [`Queue::take`]. Awaited it gives a [`Job`].
///
/// It waits on the cluster's side: without polling, over broken connections and other leaders. Those who wait get items in
/// the order of their calls. Opens the client's session.
///
/// One round trip. When it waited for longer than half the visibility there is a second one, which makes sure that the
/// deadline is not later than the cluster's.
///
/// # Errors
/// [`Error::Empty`] when it was given a time; [`Error::Undecodable`] with an item that is none of the queue's type;
/// [`Error::SessionOver`]; [`Error::Client`] when the request failed.
///
/// # Cancellation
/// Dropping the future withdraws the take. An item that was on its way goes back as if nobody had had it.
#[derive(Debug)]
#[must_use = "it takes nothing until it is awaited"]
pub struct Take<T> {
    queue: Queue<T>,
    within: Option<Duration>,
    visibility: Option<Duration>,
}

impl<T> Take<T> {
    pub(crate) const fn new(queue: Queue<T>) -> Self {
        Self { queue, within: None, visibility: None }
    }

    /// Waits so long at most. Without it: as long as the session lives.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// How long the item is ours, instead of the queue's [`Queue::visibility`].
    pub fn visibility(mut self, time: Duration) -> Self {
        self.visibility = Some(time);
        self
    }

    /// Takes what is there, and does not wait. One round trip; nothing parks.
    ///
    /// # Errors
    /// As awaited, without [`Error::Empty`].
    pub async fn now(self) -> Result<Option<Job<T>>> {
        let Self { queue, within, visibility } = self;
        queue.declared().await?;
        let visibility = visibility.unwrap_or(queue.claims_for());
        loop {
            let within = within.unwrap_or(queue.client().options().request_timeout());
            let (sent, taken) = ask(&queue, visibility, within, true).await?;
            let Some(taken) = taken else { return Ok(None) };
            if let Some(job) = job(&queue, taken, visibility, sent).await? {
                return Ok(Some(job));
            }
        }
    }
}

impl<T: 'static> IntoFuture for Take<T> {
    type Output = Result<Job<T>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { queue, within, visibility } = self;
            let begun = Moment::now();
            queue.declared().await?;
            let visibility = visibility.unwrap_or(queue.claims_for());
            session(&queue, within).await?;
            loop {
                let left = within.map(|within| within.saturating_sub(Moment::now().since(begun)));
                let empty = |after| Error::Empty { queue: queue.path().clone(), after };
                let (sent, taken) = match ask(&queue, visibility, left.unwrap_or(UNTIL_ANSWERED), false).await {
                    Err(Error::Client(ClientError::TimedOut { .. })) => match within {
                        Some(after) => return Err(empty(after)),
                        None => continue,
                    },
                    asked => asked?,
                };
                let Some(taken) = taken else { continue };
                if let Some(job) = job(&queue, taken, visibility, sent).await? {
                    return Ok(job);
                }
            }
        })
    }
}

/// Has the session opened, within that time. From then on a take without an end waits until the session is over.
async fn session<T>(queue: &Queue<T>, within: Option<Duration>) -> Result<()> {
    let Some(after) = within else { return Ok(queue.client().session().await.map(drop)?) };
    match tokio::time::timeout(after, queue.client().session()).await {
        Ok(session) => Ok(session.map(drop)?),
        Err(_) => Err(Error::Empty { queue: queue.path().clone(), after }),
    }
}

/// Asks once; gives when that was.
async fn ask<T>(
    queue: &Queue<T>,
    visibility: Duration,
    within: Duration,
    at_once: bool,
) -> Result<(Moment, Option<Taken>)> {
    let call = queue.client().call(PLUGIN, "take").arg("queue", queue.path().as_str());
    let mut call = call.arg("visibility", millis(visibility)).in_session().within(within);
    if at_once {
        call = call.arg("wait", 0);
    }
    let sent = Moment::now();
    Ok((sent, call.typed().await?))
}

/// Makes a job of what was taken; none when its claim is over already. From here on the item is given back by whatever is
/// dropped.
async fn job<T>(queue: &Queue<T>, taken: Taken, visibility: Duration, sent: Moment) -> Result<Option<Job<T>>> {
    let Taken { claim, id, data, key, deliveries } = taken;
    let asked = Moment::now().since(sent);
    let until = is_fresh(asked, visibility).then(|| sent.surely(visibility));
    let claim = Claim::new(queue.client(), queue.path(), (claim, id), visibility, until)?;
    let mut holding = Holding::new(Arc::new(claim));
    if until.is_none() {
        match holding.claim.extend(visibility).await {
            Err(Error::ClaimOver { .. }) => return Ok(None),
            confirmed => confirmed?,
        }
    }
    match (queue.coding().decode)(data.clone()) {
        Ok(item) => Ok(Some(Job::new(item, deliveries, key, holding))),
        Err(why) => {
            holding.delay = UNDECODABLE;
            let (queue, id) = (queue.path().clone(), holding.claim.id().clone());
            Err(Error::Undecodable(Box::new(Undecodable { queue, id, deliveries, data, why })))
        }
    }
}

/// Whether a claim may count from when it was asked for. After a long wait little would be left of it that is sure, since
/// nobody here knows when it was made, and how long the answer was on its way: then it is extended once, which says so.
fn is_fresh(asked: Duration, visibility: Duration) -> bool {
    asked <= visibility / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_was_long_waited_for_is_confirmed() {
        for (asked, visibility, expected) in
            [(0, 30, true), (15, 30, true), (16, 30, false), (90, 30, false), (0, 0, true)]
        {
            let seconds = Duration::from_secs;
            assert_eq!(is_fresh(seconds(asked), seconds(visibility)), expected, "{asked} {visibility}");
        }
    }
}
