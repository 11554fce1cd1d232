//! Workers: take, work, acknowledge, again; nothing of which can be forgotten.

use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::ops::AddAssign;
use std::time::Duration;

use conclave_client::Outcome;
use futures::FutureExt;
use futures::future::{Shared, try_join_all};

use crate::error::{Error, Result};
use crate::job::{Job, Work};
use crate::queue::Queue;

/// When an item can be taken again whose work failed, unless it is said.
const RETRY: Duration = Duration::from_secs(1);
/// Before a take that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// What workers did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// Items that were worked on and acknowledged.
    pub acked: u64,
    /// Items whose work failed, and that were given back.
    pub failed: u64,
    /// Items whose claim was over before the work was, or whose acknowledgement is not known to have arrived: others get
    /// them.
    pub lost: u64,
    /// Items that could not be decoded, and were given back.
    pub undecodable: u64,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.lost += other.lost;
        self.undecodable += other.undecodable;
    }
}

/// Workers of a queue; made by [`Queue::workers`].
///
/// Each takes an item, extends the claim while it works on it, acknowledges it when the work says `Ok`, gives it back when
/// it says `Err`, and takes the next. Work is dropped where it stands when the claim on its item is lost. All run in the
/// one future: work that computes for long spawns a task. Dropping that future drops the work, and gives the items back.
#[derive(Debug)]
#[must_use = "they do nothing until they run"]
pub struct Workers<T> {
    queue: Queue<T>,
    concurrency: usize,
    retry: Duration,
}

impl<T> Workers<T> {
    pub(crate) const fn new(queue: Queue<T>, concurrency: usize) -> Self {
        Self { queue, concurrency, retry: RETRY }
    }

    /// An item whose work failed can be taken again after so long, 1 s if it is not said. With no time at all it is taken
    /// again at once, and is a dead letter before what was wrong can be over.
    pub const fn retry_after(mut self, time: Duration) -> Self {
        self.retry = time;
        self
    }
}

impl<T: 'static> Workers<T> {
    /// Runs them until there is an error that trying again does not mend.
    ///
    /// # Errors
    /// [`Error::SessionOver`]; a refusal, such as of a missing permission. What they were working on is dropped and given
    /// back, or comes back when its time is over.
    pub async fn run<F, E>(self, work: impl Fn(Work<T>) -> F) -> Result<Done>
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        self.run_until(pending::<()>(), work).await
    }

    /// Runs them until `stop` is done: then none takes anything more, what they are working on is finished, and it returns.
    ///
    /// ```no_run
    /// # async fn send(mail: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(client: conclave_client::Client) -> conclave_queues::Result<()> {
    /// let queue = conclave_queues::Queue::<String>::new(&client, "/queues/mail")?;
    /// let stop = tokio::signal::ctrl_c();
    /// let done = queue.workers(4).run_until(stop, |mail| async move { send(&mail).await }).await?;
    /// println!("{} sent", done.acked);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Workers::run`].
    pub async fn run_until<F, E>(self, stop: impl Future, work: impl Fn(Work<T>) -> F) -> Result<Done>
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let stop = stop.map(drop).shared();
        let workers = (0..self.concurrency.max(1)).map(|_| self.worker(stop.clone(), &work));
        let mut done = Done::default();
        try_join_all(workers).await?.into_iter().for_each(|one| done += one);
        Ok(done)
    }

    async fn worker<F, E>(
        &self,
        mut stop: Shared<impl Future<Output = ()>>,
        work: &impl Fn(Work<T>) -> F,
    ) -> Result<Done>
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut done = Done::default();
        loop {
            let taken = tokio::select! {
                biased;
                () = &mut stop => return Ok(done),
                taken = self.queue.take().into_future() => taken,
            };
            match taken {
                Ok(job) => done += self.job(job, work).await?,
                Err(Error::Undecodable(undecodable)) => {
                    tracing::warn!(%undecodable, "an item was given back");
                    done.undecodable += 1;
                }
                Err(error) if error.is_retryable() || is_unknown(&error) => {
                    tracing::warn!(queue = %self.queue.path(), %error, "nothing was taken; it is tried again");
                    // One that is stopped meanwhile stops at its next take.
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn job<F, E>(&self, mut job: Job<T>, work: &impl Fn(Work<T>) -> F) -> Result<Done>
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut done = Done::default();
        job.keep_alive();
        let id = job.id().to_owned();
        let worked = tokio::select! {
            biased;
            why = job.lost() => {
                tracing::warn!(item = id, %why, "the work was dropped: the claim is lost");
                done.lost += 1;
                return Ok(done);
            }
            worked = work(job.work()) => worked,
        };
        let settled = match &worked {
            Ok(()) => job.ack().await,
            Err(error) => {
                tracing::warn!(item = id, %error, "the work failed; the item is given back");
                job.nack().delay(self.retry).await
            }
        };
        match (settled, worked) {
            (Ok(()), Ok(())) => done.acked += 1,
            (Ok(()), Err(_)) => done.failed += 1,
            (Err(error), _) if error.is_retryable() || is_unknown(&error) || is_lost(&error) => {
                tracing::warn!(item = id, %error, "the item was not settled");
                done.lost += 1;
            }
            (Err(error), _) => return Err(error),
        }
        Ok(done)
    }
}

/// The cluster did not answer.
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Client(error) if error.outcome() == Outcome::Unknown)
}

const fn is_lost(error: &Error) -> bool {
    matches!(error, Error::ClaimOver { .. })
}
