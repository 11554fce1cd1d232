//! Deleting a subtree of any size, part by part.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use conclave_protocol::{Fence, Op, Path, PathError, Prune as PruneOp, Refusal, Value, limits};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::At;
use crate::builder::Write;
use crate::error::{Doubt, Error, Result};
use crate::session::REMEMBERED;

/// So many parts in a row of which the outcome is unknown are one too many: there is no majority.
const DOUBTS: u32 = 3;
/// After its deadline, until when a write outside a session can still be carried out: as long as the cluster takes it,
/// and as much again for how far our idea of the cluster's time may be off.
const SETTLED: Duration = REMEMBERED.saturating_mul(2);

type OnPart = Box<dyn FnMut(u64) + Send>;

/// Deletes a znode with everything below it, part by part, the deepest znodes first; made by
/// [`At::delete_all`](crate::At::delete_all). Awaited it deletes all, and gives how many znodes went: 0 if there was none.
///
/// Each part is a transaction of its own. Whoever stops half-way (the future is dropped, an error comes) leaves the rest,
/// and does no harm by beginning again. A part whose outcome is unknown is asked for again by itself; what it deleted is
/// then not counted. After three of them in a row it ends with [`Error::Unknown`]. Somebody who creates faster below it
/// than this deletes keeps it from ending.
///
/// What is created at this path after it gave `Ok` stays: when the outcome of a part was unknown, and the client has no
/// session to keep its writes in order, it waits some seconds at its end, until that part can't happen any more.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # client.at("/archive/a/b").create("").parents().await?;
/// let gone = client.at("/archive").delete_all().on_part(|gone| println!("{gone} deleted so far")).await?;
/// println!("{gone} in all");
/// # assert_eq!(gone, 3);
/// assert!(!client.at("/archive").exists().await?);
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is awaited"]
pub struct Prune {
    part: Part,
    on_part: Option<OnPart>,
}

/// The request for one part.
#[derive(Clone, Debug)]
struct Part {
    path: Result<Path, PathError>,
    limit: u32,
    write: Write,
}

impl Part {
    async fn send(self) -> Result<Pruned> {
        let op = Op::Prune(PruneOp { path: self.path?, limit: self.limit });
        match self.write.send(Ok(op)).await? {
            Value::Pruned { count, more } => Ok(Pruned { count, more }),
            _ => Err(Error::Mismatch { question: "prune" }),
        }
    }
}

/// A part of a subtree that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// How many znodes.
    pub count: u64,
    /// There are more.
    pub more: bool,
}

impl fmt::Debug for Prune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prune").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Prune {
    pub(super) fn new(at: &At) -> Self {
        let limit = u32::try_from(limits::PRUNE_ZNODES).unwrap_or(u32::MAX);
        Self { part: Part { path: at.path(), limit, write: Write::new(at.client().clone()) }, on_part: None }
    }

    /// So many znodes at most in one part, at least 1; the cluster may make parts smaller.
    pub fn part_size(mut self, znodes: u32) -> Self {
        self.part.limit = znodes.max(1);
        self
    }

    /// The time that each part has, instead of the options' request timeout. The whole has none.
    pub fn within(mut self, time: Duration) -> Self {
        self.part.write.within = Some(time);
        self
    }

    /// Only while this fence holds; it is checked with each part.
    pub fn fenced(mut self, fence: impl Into<Fence>) -> Self {
        self.part.write.fence = Some(fence.into());
        self
    }

    /// Is told after each part how many znodes have gone so far.
    pub fn on_part(mut self, tell: impl FnMut(u64) + Send + 'static) -> Self {
        self.on_part = Some(Box::new(tell));
        self
    }

    /// Deletes one part, and tells whether there are more.
    ///
    /// # Errors
    /// As every write; refused with `no-znode` when there is none.
    pub fn part(&self) -> impl Future<Output = Result<Pruned>> + Send + 'static {
        self.part.clone().send()
    }
}

impl IntoFuture for Prune {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { part, mut on_part } = self;
        Box::pin(async move {
            let (mut gone, mut doubts, mut settled) = (0, 0, None);
            loop {
                let is_ordered = part.write.client.is_ordered();
                let Pruned { count, more } = match part.clone().send().await {
                    // It is gone: whoever else deleted the last of it.
                    Err(Error::Refused(Refusal::NoZnode { .. })) => break,
                    // If it happened, what is left is less. Asking again does no harm.
                    Err(Error::Unknown { why }) if doubts + 1 < DOUBTS => {
                        doubts += 1;
                        if !is_ordered && why == Doubt::Deadline {
                            settled = Some(Instant::now() + SETTLED);
                        }
                        continue;
                    }
                    part => part?,
                };
                doubts = 0;
                gone += count;
                if let Some(on_part) = &mut on_part {
                    on_part(gone);
                }
                if !more {
                    break;
                }
            }
            // A late copy would delete what others create once they are told that all is gone.
            if let Some(settled) = settled {
                sleep_until(settled).await;
            }
            Ok(gone)
        })
    }
}
