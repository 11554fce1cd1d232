//! An item that was taken: a guard that gives it back unless it is acknowledged.

use std::fmt;
use std::future::IntoFuture;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_client::{Error as ClientError, Fence, Multi, Refusal, Value};
use futures::future::BoxFuture;

use crate::claim::{Claim, Lost, State};
use crate::error::Result;
use crate::holding::Holding;

/// What is known of an item that is worked on. Dereferences to the item. Clones of it hold nothing: the [`Job`] does.
pub struct Work<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    item: T,
    deliveries: u64,
    key: Option<String>,
    claim: Arc<Claim>,
}

/// An item that is ours until its [deadline](Work::deadline). Dereferences to the item, and has everything of [`Work`]
/// besides. Dropping it unacknowledged gives the item back, without waiting and without a report; it is then taken again
/// before later ones of its priority.
#[must_use = "dropping it gives the item back"]
pub struct Job<T> {
    work: Work<T>,
    holding: Holding,
}

impl<T> Clone for Work<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Deref for Work<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner.item
    }
}

impl<T> Deref for Job<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.work
    }
}

impl<T: fmt::Debug> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { item, deliveries, key, claim } = &*self.inner;
        let mut shown = f.debug_struct("Work");
        shown.field("id", claim.id()).field("item", item).field("deliveries", deliveries).field("key", key);
        shown.field("state", &claim.state()).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&self.work).finish()
    }
}

/// What is asked of a claim, for both.
macro_rules! claim_methods {
    () => {
        /// The item's name in the queue: the same at each delivery.
        #[must_use]
        pub fn id(&self) -> &str {
            self.claim().id()
        }

        /// Names this delivery. A write that is `.fenced(..)` by it is refused once somebody else may have the item: by
        /// far the simplest way to let nothing be done twice. Its zxid is a number that rises with each delivery, for
        /// systems outside the cluster.
        #[must_use]
        pub fn fence(&self) -> Fence {
            self.claim().fence().clone()
        }

        /// May one rely on having the item alone? By the local clock, without asking anybody.
        #[must_use]
        pub fn state(&self) -> State {
            self.claim().state()
        }

        /// When the claim is over if it is not extended; now, if it is over. It is counted from when the item was asked
        /// for, so that it is not after the cluster's; on a clock that runs while the machine sleeps.
        #[must_use]
        pub fn deadline(&self) -> Instant {
            let now = Instant::now();
            now.checked_add(self.time_left()).unwrap_or(now)
        }

        /// The time until the deadline.
        #[must_use]
        pub fn time_left(&self) -> Duration {
            self.claim().time_left()
        }

        /// Waits until the claim is over, and says why.
        pub async fn lost(&self) -> Lost {
            self.claim().lost().await
        }

        /// The claim holds for so long from now on; that may also be shorter than it was. Dropping the future, it may or
        /// may not do so.
        ///
        /// # Errors
        /// [`Error::ClaimOver`](crate::Error::ClaimOver) when it was over already: it can't be had back.
        pub async fn extend(&self, visibility: Duration) -> Result<()> {
            self.claim().extend(visibility).await
        }
    };
}

impl<T> Work<T> {
    claim_methods!();

    /// How often the item was given to somebody, this time included.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.inner.deliveries
    }

    /// The key that it was pushed with.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.inner.key.as_deref()
    }

    fn claim(&self) -> &Claim {
        &self.inner.claim
    }
}

impl<T> Job<T> {
    claim_methods!();

    pub(crate) fn new(item: T, deliveries: u64, key: Option<String>, holding: Holding) -> Self {
        let claim = Arc::clone(&holding.claim);
        Self { work: Work { inner: Arc::new(Inner { item, deliveries, key, claim }) }, holding }
    }

    /// See [`Work::deliveries`].
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.work.deliveries()
    }

    /// See [`Work::key`].
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.work.key()
    }

    fn claim(&self) -> &Claim {
        &self.holding.claim
    }

    /// What can be asked of it, for tasks that work on it.
    #[must_use]
    pub fn work(&self) -> Work<T> {
        self.work.clone()
    }

    /// From now on the claim is extended by itself, each time for as long as it was made for, until the job is settled or
    /// dropped. A task of its own does it: it needs no help of the work, and goes on when that is stuck. When the cluster
    /// is not heard in time, the job is [`State::Lost`].
    pub fn keep_alive(&mut self) {
        self.holding.keep_alive();
    }

    /// The item is done and goes for good. Dropping the future, it is acknowledged or given back.
    ///
    /// # Errors
    /// [`Error::ClaimOver`](crate::Error::ClaimOver): it is not acknowledged, and another has it, or will have it. Any other
    /// error: see [`Error::outcome`](crate::Error::outcome); what was not applied is given back.
    pub async fn ack(self) -> Result<()> {
        self.holding.ack().await
    }

    /// The item is done, and that is part of this transaction: either all of its steps are carried out and the item is
    /// gone, or nothing is changed. What is written into the tree like this is written exactly once, whatever fails.
    /// Gives one [`Value`] for each of the transaction's own steps.
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
    /// let queue = conclave_queues::Queue::<u64>::new(&client, "/queues/payments")?;
    /// let job = queue.take().await?;
    /// let paid = client.transaction().add("/paid/total", i64::try_from(*job)?);
    /// job.ack_with(paid).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::ClaimOver`](crate::Error::ClaimOver): nothing was changed, the item is another's. A refusal of one of the
    /// steps: nothing was changed, and the item is given back.
    pub async fn ack_with(self, transaction: Multi) -> Result<Vec<Value>> {
        let mut holding = self.holding;
        let claim = Arc::clone(&holding.claim);
        let fence = claim.fence();
        let all = transaction.check_fence(fence.clone()).delete(&fence.path).in_session();
        let done = match all.commit().await {
            Ok(mut values) => {
                claim.end(Lost::Settled);
                // The last two are ours.
                values.truncate(values.len().saturating_sub(2));
                Ok(values)
            }
            Err(error) if is_ours(&error, fence) => Err(claim.gone()),
            Err(error) => Err(error.into()),
        };
        holding.settled(&done);
        done
    }

    /// Gives the item back, and waits until the cluster has it. Without a delay it is taken again before later ones of its
    /// priority. Once it was delivered as often as the queue allows, it is a dead letter.
    pub fn nack(self) -> Nack {
        Nack { holding: self.holding }
    }
}

/// Whether a step was refused because the claim is over.
fn is_ours(error: &ClientError, ours: &Fence) -> bool {
    let ClientError::Refused(Refusal::Step { cause, .. }) = error else { return false };
    match &**cause {
        Refusal::Fenced { fence, .. } => fence == ours,
        Refusal::NoZnode { path } => *path == ours.path,
        _ => false,
    }
}

/// Gives an item back; made by [`Job::nack`]. Dropping it, or its future, gives it back too, without a report.
///
/// # Errors
/// [`Error::ClaimOver`](crate::Error::ClaimOver) when another has it already, or will have it.
#[derive(Debug)]
#[must_use = "await it for its report"]
pub struct Nack {
    holding: Holding,
}

impl Nack {
    /// It can be taken again after so long, and not before.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.holding.delay = delay;
        self
    }
}

impl IntoFuture for Nack {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.holding.nack())
    }
}
