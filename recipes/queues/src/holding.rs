//! Having a claim: it is extended while that is wanted, settled once, or given back when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use conclave_client::Outcome;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::claim::{Claim, LEAST, LOOK, Lost};
use crate::error::{Error, Result};

/// Before a claim that could not be extended is extended again.
const PAUSE: Duration = Duration::from_millis(200);

/// Has the claim. Dropping it gives the item back.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) claim: Arc<Claim>,
    /// When it is given back: so long until it can be taken again.
    pub(crate) delay: Duration,
    /// There is nothing to give back, or it is not to be given back before its time is over.
    settled: bool,
    keeper: Option<AbortHandle>,
    /// Where it is given back from, wherever it is dropped.
    runtime: Option<Handle>,
}

impl Holding {
    pub(crate) fn new(claim: Arc<Claim>) -> Self {
        Self { claim, delay: Duration::ZERO, settled: false, keeper: None, runtime: Handle::try_current().ok() }
    }

    /// Extends it from now on.
    pub(crate) fn keep_alive(&mut self) {
        if self.keeper.is_none()
            && let Some(runtime) = &self.runtime
        {
            self.keeper = Some(runtime.spawn(keep(Arc::clone(&self.claim))).abort_handle());
        }
    }

    /// Settles it. Dropped half-way, or without a result, the item is acknowledged or given back.
    pub(crate) async fn ack(mut self) -> Result<()> {
        let done = self.claim.ack().await;
        self.settled(&done);
        done
    }

    /// As [`Holding::ack`].
    pub(crate) async fn nack(mut self) -> Result<()> {
        let done = self.claim.nack(self.delay).await;
        self.settled(&done);
        done
    }

    /// After the answer: if it is not known whether the work counts as done, doing it again is left to the claim's end.
    pub(crate) fn settled<T>(&mut self, done: &Result<T>) {
        self.settled = match done {
            Ok(_) | Err(Error::ClaimOver { .. }) => true,
            Err(error) => error.outcome() == Outcome::Unknown,
        };
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        if self.settled {
            return;
        }
        self.claim.end(Lost::Settled);
        // A call that is dropped is taken back, so somebody has to wait for it.
        if let Some(runtime) = &self.runtime {
            let (claim, delay) = (Arc::clone(&self.claim), self.delay);
            runtime.spawn(async move {
                if let Err(error) = claim.nack(delay).await {
                    tracing::debug!(item = claim.id(), %error, "not given back: it comes back when its time is over");
                }
            });
        }
    }
}

/// Extends a claim whenever half of its time is over, until it is over.
async fn keep(claim: Arc<Claim>) {
    while claim.over().is_none() {
        let early = claim.time_left().saturating_sub(claim.visibility() / 2);
        if !early.is_zero() {
            tokio::time::sleep(early.clamp(LEAST, LOOK)).await;
            continue;
        }
        match claim.extend(claim.visibility()).await {
            Ok(()) | Err(Error::ClaimOver { .. }) => {}
            Err(error) => {
                tracing::warn!(item = claim.id(), %error, "a claim was not extended");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
