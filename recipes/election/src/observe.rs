//! Who leads, as a stream: the present one first, and no change twice.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use conclave_client::{Path, Watch, WatchEvent};
use futures::{Stream, StreamExt};

use crate::candidate::Leader;
use crate::error::Result;

/// Who leads: a stream that begins with who does now, or that nobody does, and tells whenever that has changed. (Curator's
/// `LeaderLatch` tells only whether oneself leads.)
///
/// It never misses the present leader: what it told last is who leads, or a newer one is about to be told. Those who came
/// and went in between may not be told. It outlives connections and members; dropping it ends it.
///
/// ```no_run
/// # // Not run: the tests do, with leaders that change.
/// # async fn example(election: conclave_election::Election) -> conclave_election::Result<()> {
/// let mut leaders = election.observe().await?;
/// while let Some(leader) = leaders.next().await {
///     match leader? {
///         Some(leader) => println!("term {}: {leader} at {:?}", leader.term(), leader.data),
///         None => println!("nobody leads"),
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Observe {
    watch: Watch,
    holder: Path,
    /// What was told last.
    told: Option<Option<Leader>>,
    /// Of a snapshot that is not whole yet.
    found: Option<Leader>,
}

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").field("holder", &self.holder).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Observe {
    pub(crate) const fn new(watch: Watch, holder: Path) -> Self {
        Self { watch, holder, told: None, found: None }
    }

    /// The next one who leads, or that nobody does; none when the client is closed, or after an error. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When it may not read the leader any more.
    pub async fn next(&mut self) -> Option<Result<Option<Leader>>> {
        StreamExt::next(self).await
    }

    /// What an event says of who leads; none if it does not say it yet.
    fn seen(&mut self, event: WatchEvent) -> Option<Option<Leader>> {
        match event {
            WatchEvent::Changes { present, .. } => {
                let now = present.into_iter().next_back().flatten();
                Some(now.map(|now| Leader::new(&self.holder, &now.data, &now.stat)))
            }
            WatchEvent::Snapshot { part, entries, more, .. } => {
                if part == 0 {
                    self.found = None;
                }
                for entry in entries {
                    let data = entry.data.unwrap_or_default();
                    self.found = Some(Leader::new(&self.holder, &data, &entry.stat));
                }
                if more { None } else { Some(self.found.take()) }
            }
            // It takes a new snapshot by itself.
            _ => None,
        }
    }
}

impl Stream for Observe {
    type Item = Result<Option<Leader>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(event) = ready!(this.watch.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            let event = match event {
                Ok(event) => event,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            };
            if let Some(now) = this.seen(event)
                && this.told.as_ref() != Some(&now)
            {
                this.told = Some(now.clone());
                return Poll::Ready(Some(Ok(now)));
            }
        }
    }
}
