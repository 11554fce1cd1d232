//! Failpoints: a member dies at a step of an entry, and not a moment later.
//!
//! Whichever of its threads comes to the step goes no further, and from then on no other thread goes beyond a step
//! either; at the same moment nothing that it says is carried any more. It is dead to everybody, and its disk stays as it
//! is, from there on; that its process ends comes later, and is not noticed by anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conclave_protocol::Zxid;
use conclave_server::{OnStep, Step};
use tokio::sync::watch;

use crate::{Cluster, Error, PATIENCE};

/// How long a round of [`Cluster::fail_everywhere`] may take: an election, and what waits for sessions to run out.
const ROUND: std::time::Duration = PATIENCE.saturating_mul(2);
/// How often a round is played again because somebody else led before the leader came to its step.
const AGAIN: u32 = 5;

/// The death of a member at a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Who died.
    pub member: u64,
    /// Where.
    pub step: Step,
    /// The last transaction of the entry that came there: known from [`Step::Applied`] on.
    pub zxid: Option<Zxid>,
}

enum State {
    Alive,
    /// It dies the so-manieth time that it comes to this step.
    Doomed(Step, u32),
    Dead,
}

/// Where a member's steps are told, from one start to the next.
pub(crate) struct Post {
    member: u64,
    /// Cuts it off.
    cut: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
    died: watch::Sender<Option<Death>>,
}

/// What ends a thread of a member that is dead.
struct Dead;

impl Post {
    pub(crate) fn new(member: u64, cut: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (cut, state) = (Box::new(cut), Mutex::new(State::Alive));
        Arc::new(Self { member, cut, state, died: watch::Sender::new(None) })
    }

    /// What the member is to call.
    pub(crate) fn on_step(self: &Arc<Self>) -> OnStep {
        let here = Arc::clone(self);
        Arc::new(move |step, zxid| {
            if here.is_end(step, zxid) {
                // As a panic, but without its message: nobody has done anything wrong.
                std::panic::resume_unwind(Box::new(Dead));
            }
        })
    }

    /// Whether the thread that came to this step goes no further.
    fn is_end(&self, step: Step, zxid: Option<Zxid>) -> bool {
        let mut state = self.state();
        match &mut *state {
            State::Alive => return false,
            State::Dead => return true,
            State::Doomed(at, _) if *at != step => return false,
            State::Doomed(_, left @ 2..) => {
                *left -= 1;
                return false;
            }
            State::Doomed(..) => {}
        }
        *state = State::Dead;
        (self.cut)();
        self.died.send_replace(Some(Death { member: self.member, step, zxid }));
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member that is to die at a step. Made by [`Cluster::fail_at`].
///
/// Dropped before the member came there it panics: a test whose failure did not happen has shown nothing. Where that may
/// be, say [`Failpoint::disarm`].
#[must_use = "dropped, it panics"]
pub struct Failpoint {
    post: Arc<Post>,
    step: Step,
    count: u32,
}

impl Failpoint {
    /// Waits until the member is dead: for everybody else it is, from that step on. [`Cluster::kill`] is to be called
    /// then, to end what is left of it, before it can be started again.
    ///
    /// # Errors
    /// When it does not come there within [`PATIENCE`].
    pub async fn reached(&self) -> Result<Death, Error> {
        let died = tokio::time::timeout(PATIENCE, self.died()).await;
        died.map_err(|_| format!("not within {} s: {self}", PATIENCE.as_secs()).into())
    }

    async fn died(&self) -> Death {
        let mut died = self.post.died.subscribe();
        loop {
            if let Some(death) = *died.borrow_and_update() {
                return death;
            }
            died.changed().await.expect("the sender is held here");
        }
    }

    /// Takes it back. Gives the death that happened, if it did.
    pub fn disarm(self) -> Option<Death> {
        self.lift();
        *self.post.died.borrow()
    }

    /// Whether the member was still to die; it is not any more.
    fn lift(&self) -> bool {
        let mut state = self.post.state();
        let is_doomed = matches!(*state, State::Doomed(..));
        if is_doomed {
            *state = State::Alive;
        }
        is_doomed
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} comes to step {:?}, time {}", self.post.member, self.step, self.count)
    }
}

impl fmt::Debug for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Drop for Failpoint {
    fn drop(&mut self) {
        if self.lift() && !std::thread::panicking() {
            panic!("it never happened: {self}");
        }
    }
}

/// Says in which round a test failed.
struct Telling(Step, u32);

impl Drop for Telling {
    #[expect(clippy::print_stderr, reason = "beside the panic's own message")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(step, count) = self;
            eprintln!("in the round in which the leader was to die at step {step:?}, time {count}");
        }
    }
}

/// Deaths at chosen steps. The cluster has to have proxies.
impl Cluster {
    /// Makes a member die at a step: the `count`th time that it comes there from now on, counted from 1. A request comes
    /// to [`Step::Received`], an entry to the others; several transactions may be one entry.
    ///
    /// ```
    /// use conclave_testing::{Cluster, Error, Step};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Error> {
    /// let mut cluster = Cluster::proxied(3).await?;
    /// let ann = cluster.client("ann").await?;
    /// let leader = cluster.leader().await?;
    /// let failpoint = cluster.fail_at(leader, Step::Applied, 2)?;
    /// let writes = tokio::spawn(async move {
    ///     ann.at("/a").create("").await?;
    ///     // The leader has applied this one, and tells nobody any more.
    ///     ann.at("/b").create("").await
    /// });
    /// failpoint.reached().await?;
    /// cluster.kill(leader).await;
    /// // The reply comes from another member.
    /// writes.await??;
    /// cluster.restart(leader).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the cluster has no proxies, the member does not run, or it is to die already.
    pub fn fail_at(&self, member: u64, step: Step, count: u32) -> Result<Failpoint, Error> {
        let post = self.post(member)?;
        if count == 0 {
            return Err("steps are counted from 1".into());
        }
        let mut state = post.state();
        if !matches!(*state, State::Alive) {
            return Err(format!("member {member} is to die already").into());
        }
        *state = State::Doomed(step, count);
        drop(state);
        Ok(Failpoint { post: Arc::clone(post), step, count })
    }

    /// Does `work` with a member that dies meanwhile as by [`Cluster::fail_at`], and ends it. Gives the death too; none
    /// when the work was done before the member came there: it lives then.
    ///
    /// # Errors
    /// As [`Cluster::fail_at`].
    pub async fn fail_during<T>(
        &mut self,
        member: u64,
        step: Step,
        count: u32,
        work: impl Future<Output = T>,
    ) -> Result<(T, Option<Death>), Error> {
        let failpoint = self.fail_at(member, step, count)?;
        let mut work = pin!(work);
        let early = tokio::select! {
            biased;
            _ = failpoint.died() => None,
            done = &mut work => Some(done),
        };
        let Some(death) = failpoint.disarm() else {
            return Ok((early.expect("nobody died, so it is done"), None));
        };
        let done = async {
            match early {
                Some(done) => done,
                None => work.await,
            }
        };
        let ((), done) = tokio::join!(self.kill(member), done);
        Ok((done, Some(death)))
    }

    /// Plays a scenario again and again, and kills the leader in it: at each of the steps, the first time that it comes
    /// there, then the second, and so on until the scenario is over first, or was played `most` times for that step. The
    /// scenario gets the number of the round, to have a place of its own in the tree; the dead member is back before the
    /// next one begins. Gives how often the leader died at each step: a test has to look whether that is enough. A leader may
    /// come to the last steps of the last entry when the scenario is over already: then it is not killed there.
    ///
    /// # Errors
    /// When a round takes longer than twice [`PATIENCE`]; as [`Cluster::fail_at`].
    pub async fn fail_everywhere(
        &mut self,
        steps: &[Step],
        most: u32,
        mut scenario: impl AsyncFnMut(u32),
    ) -> Result<BTreeMap<Step, u32>, Error> {
        let mut deaths: BTreeMap<Step, u32> = steps.iter().map(|step| (*step, 0)).collect();
        let (mut round, mut again) = (0, 0);
        for step in steps {
            let mut count = 1;
            while count <= most {
                round += 1;
                let telling = Telling(*step, count);
                let leader = self.leader().await?;
                let played = tokio::time::timeout(ROUND, scenario(round));
                let (played, death) = self.fail_during(leader, *step, count, played).await?;
                let hung = || {
                    format!(
                        "the scenario is not over in time, with a leader that was to die at step {step:?}, time {count}"
                    )
                };
                played.map_err(|_| hung())?;
                drop(telling);
                if death.is_some() {
                    *deaths.entry(*step).or_default() += 1;
                    (count, again) = (count + 1, 0);
                    self.restart(leader).await?;
                } else if self.leader().await? == leader {
                    break;
                } else {
                    // On a busy machine another one may come to lead by itself.
                    again += 1;
                    if again > AGAIN {
                        return Err(format!("{AGAIN} leaders were deposed before they could die").into());
                    }
                }
            }
        }
        Ok(deaths)
    }
}
