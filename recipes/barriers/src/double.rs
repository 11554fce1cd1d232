//! The double barrier: so many members enter together and leave together, cycle after cycle.

use std::future::{Future, IntoFuture};
use std::time::{Duration, Instant};

use conclave_client::{Client, Fence, Path, Session, State as ClientState, ToPath};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::wait::{PLUGIN, UNTIL_ANSWERED, parked, session};

/// How often an entering asks again that is told that its session is in already. The client may send a call before the
/// withdrawal of an earlier one whose future was dropped; after a round trip, that has gone out as well.
const AGAIN: u32 = 2;

/// A barrier that a fixed number of members pass together, twice: when all have come, and when all are done; at a path of
/// the tree. Clones are the same barrier. Curator calls it DistributedDoubleBarrier.
///
/// It goes in cycles. Who comes while a cycle is inside waits for the next one, and is never taken for one of those inside.
/// A client is one member, with its session.
#[derive(Clone, Debug)]
pub struct DoubleBarrier {
    client: Client,
    path: Path,
    members: u64,
}

/// May one rely on being counted as inside?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The others wait for this member before they leave.
    Inside,
    /// No member of the cluster was heard lately. It may still be saved; until it is, do nothing that only one inside may do.
    Uncertain,
    /// The session is over, and the others do not wait for this one any more. It never comes back.
    Lost,
}

impl DoubleBarrier {
    /// The double barrier at a path, for so many members. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath, members: u64) -> Result<Self> {
        let path = path.to_path()?;
        let longest = u64::MAX;
        path.join(&format!("cycle-{longest}"))?.join(&format!("s-{longest}"))?;
        Ok(Self { client: client.clone(), path, members: members.max(1) })
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// How many enter together.
    #[must_use]
    pub const fn members(&self) -> u64 {
        self.members
    }

    /// Enters, once as many as it takes have come. See [`Enter`].
    pub fn enter(&self) -> Enter {
        Enter { barrier: self.clone(), within: None, note: None }
    }

    /// Enters, does the work inside, and leaves when all others are done too. The work is dropped where it stands when the
    /// session is lost. For a time limit and the like see [`Enter::run`].
    ///
    /// # Errors
    /// As [`Enter::run`].
    pub async fn run<W: Future>(&self, work: impl FnOnce(u64) -> W) -> Result<W::Output> {
        self.enter().run(work).await
    }
}

/// Enters a double barrier; made by [`DoubleBarrier::enter`]. Awaited it gives [`Inside`]. One round trip, parked until
/// the last member has come.
///
/// A member that dies before the cycle begins does not count; one that dies inside keeps nobody. Either all of a cycle's
/// members enter, or none.
///
/// # Errors
/// [`Error::TimedOut`] when it was given a time and too few have come; [`Error::AlreadyIn`]; [`Error::Disputed`];
/// [`Error::SessionOver`]; [`Error::NotIn`] when somebody deleted its znode; [`Error::Client`] when the request failed.
/// After each of them this client is no member.
///
/// # Cancellation
/// Dropping the future withdraws the member. When the last one had just come, it has entered and left at once.
#[derive(Debug)]
#[must_use = "it enters nothing until it is awaited"]
pub struct Enter {
    barrier: DoubleBarrier,
    within: Option<Duration>,
    note: Option<String>,
}

impl Enter {
    /// Waits so long at most. Without it: as long as the session lives.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// A text for people, in the member's znode.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Enters, does the work, which is told the number of its cycle, and leaves when all others are done too.
    ///
    /// # Errors
    /// [`Error::Lost`] when the work was dropped, or ended too late. [`Error::NotIn`] and [`Error::Client`] can also come
    /// after the work, of the leaving.
    pub async fn run<W: Future>(self, work: impl FnOnce(u64) -> W) -> Result<W::Output> {
        let inside = self.await?;
        let path = inside.barrier.path.clone();
        let value = tokio::select! {
            biased;
            () = inside.lost() => return Err(Error::Lost { path }),
            value = work(inside.cycle()) => value,
        };
        if inside.state() == State::Lost {
            return Err(Error::Lost { path });
        }
        inside.leave().await?;
        Ok(value)
    }
}

impl IntoFuture for Enter {
    type Output = Result<Inside>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { barrier, within, note } = self;
            let begun = Instant::now();
            // Known before it enters, so that nothing is awaited between having entered and having the guard.
            let session = session(&barrier.client, &barrier.path, within).await?;
            let mut again = AGAIN;
            let cycle = loop {
                let left = within.map(|within| within.saturating_sub(begun.elapsed()));
                let enter = barrier.client.call(PLUGIN, "enter").arg("path", barrier.path.as_str());
                let enter = enter.arg("members", barrier.members).in_session();
                let enter = if let Some(note) = &note { enter.arg("note", note) } else { enter };
                match parked::<Option<u64>>(&barrier.path, left, "too few have come", enter).await {
                    Ok(Some(cycle)) => break cycle,
                    // What one is told whose time is over at the cluster's side: the time is ours to say.
                    Ok(None) => {}
                    Err(Error::TimedOut { .. }) if within.is_none() => {}
                    Err(Error::AlreadyIn { .. }) if again > 0 => again -= 1,
                    Err(Error::TimedOut { path, what, .. }) => {
                        return Err(Error::TimedOut { path, after: within.unwrap_or_default(), what });
                    }
                    Err(error) => return Err(error),
                }
            };
            let place = barrier.path.join(&format!("cycle-{cycle}"))?.join(&format!("s-{}", session.id().0))?;
            Ok(Inside { barrier, session, cycle, place, left: false })
        })
    }
}

/// Being inside a double barrier: a guard. Dropping it leaves, without waiting for the others and without a report; see
/// [`Inside::leave`].
#[derive(Debug)]
#[must_use = "dropping it leaves at once"]
pub struct Inside {
    barrier: DoubleBarrier,
    session: Session,
    cycle: u64,
    place: Path,
    left: bool,
}

impl Inside {
    /// Which cycle it is: the same for all who are inside together, and one more each time.
    #[must_use]
    pub const fn cycle(&self) -> u64 {
        self.cycle
    }

    /// May one rely on it? By the local clock, without asking anybody.
    #[must_use]
    pub fn state(&self) -> State {
        match self.barrier.client.state() {
            ClientState::Connected => State::Inside,
            ClientState::Suspended => State::Uncertain,
            ClientState::Lost => State::Lost,
        }
    }

    /// When it is lost if no member of the cluster is heard any more. It moves on with each renewal of the session.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.session.time_left()).unwrap_or(now)
    }

    /// Waits until it is lost: until the session is over.
    pub async fn lost(&self) {
        self.session.lost().await;
    }

    /// Names this membership: writes that are `.fenced(..)` by it are refused once this member has left, or is counted as
    /// gone. One round trip, a read.
    ///
    /// # Errors
    /// [`Error::NotIn`] when it is over already, and as every read.
    pub async fn fence(&self) -> Result<Fence> {
        let stat = self.barrier.client.at(&self.place).stat().await?;
        let session = Some(self.session.id());
        match stat.filter(|stat| stat.owner == session) {
            Some(stat) => Ok(Fence { path: self.place.clone(), zxid: stat.created }),
            None => Err(Error::NotIn { path: self.barrier.path.clone() }),
        }
    }

    /// Leaves, and waits until all others have left, or are gone. See [`Leave`].
    pub fn leave(self) -> Leave {
        Leave { inside: self, within: None }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // The first poll puts the deletion in its place among the session's writes, before anything that this client asks
        // from now on; nobody needs to wait for it, and no task or runtime is needed. Only this cycle's member has this
        // path, so it can't be another's.
        let deletion = self.barrier.client.at(&self.place).delete().in_session().within(UNTIL_ANSWERED);
        drop(deletion.into_future().now_or_never());
    }
}

/// Leaves a double barrier; made by [`Inside::leave`]. Awaited it gives nothing, once all have left or are gone. One round
/// trip, parked.
///
/// # Errors
/// After each of them this member has left, or is about to. [`Error::TimedOut`] when it was given a time and others are
/// still inside; [`Error::NotIn`] when its session was over, or somebody deleted its znode; [`Error::SessionOver`];
/// [`Error::Client`] when the request failed.
///
/// # Cancellation
/// Dropping the future leaves all the same, without waiting.
#[derive(Debug)]
#[must_use = "await it to wait for the others"]
pub struct Leave {
    inside: Inside,
    within: Option<Duration>,
}

impl Leave {
    /// Waits for the others so long at most. Without it: as long as the session lives.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl IntoFuture for Leave {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { mut inside, within } = self;
            let DoubleBarrier { client, path, .. } = &inside.barrier;
            let leave = client.call(PLUGIN, "leave").arg("path", path.as_str()).in_session();
            // Asked once: a second one would be told that this session is not inside.
            let done = parked::<Option<u64>>(path, within, "others have not left; this one has", leave).await.map(drop);
            // If it was not heard, it is deleted when it is dropped.
            inside.left = matches!(done, Ok(()) | Err(Error::NotIn { .. }));
            done
        })
    }
}
