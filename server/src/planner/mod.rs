//! The planner's thread: feeds the [`pipeline`] with what arrives, and carries out what it wants done.

mod pipeline;
mod share;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use conclave_core::Fault;
use conclave_core::apply::Position;
use conclave_core::plan::{Request, Work};
use tokio::sync::mpsc;

use crate::steps::Step;
use pipeline::Pipeline;
pub(crate) use pipeline::{Effect, Ground, Item, Outcome, Told};

/// How often an idle leader writes the time down.
const STAMP_EVERY_MS: u64 = 10_000;
/// How often the leader looks for what is due: znodes whose time is over, one-shot writes that may be forgotten. Under
/// load too: it takes a look at one row when nothing is.
const SWEEP_EVERY_MS: u64 = 250;
/// How often while there is more of it than one sweep takes: faster than one-shot writes can come, and most of the time
/// is the clients' still.
const SWEEP_ON_EVERY_MS: u64 = 25;
/// How long the thread waits for something to happen before it looks at the time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bytes of the thread's stack: components run on it, those of `before` triggers inside of those whose writes run them.
const STACK_BYTES: usize = 16 << 20;

/// Where verdicts go: the forwarder of this member, or the stream to another.
pub(crate) type Source = mpsc::UnboundedSender<Vec<(u64, Told)>>;

/// A request on its way from a member to the leader.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Envelope {
    /// The sending member's number for it.
    pub(crate) token: u64,
    /// It.
    pub(crate) request: Request,
}

/// What happens to the planner.
pub(crate) enum Command {
    /// Requests of a member, in order.
    Requests(Source, Vec<Envelope>),
    /// The leader's own work, decided in this term and void in any other.
    Own(u64, Box<Work>),
    /// This member has applied so much.
    Applied(Position),
    /// This member leads in this term, or none.
    Leadership(Option<u64>),
    /// An entry is resolved.
    Outcome(u64, Outcome),
    /// Leadership is confirmed, or not.
    Confirmed(u64, bool),
    /// Rows of plugins were written here.
    Plugins,
    /// Nobody took over in this term from a member that lacks a plugin.
    Again(u64),
    /// The end.
    Stop,
}

/// What the thread needs of the rest of the member, beside its [`Ground`].
pub(crate) trait Surroundings: Ground + Send + 'static {
    /// Puts an entry behind those before it. Its outcome comes as [`Command::Outcome`].
    fn propose(&self, serial: u64, term: u64, payload: bytes::Bytes);
    /// Asks for a read-index round. Its end comes as [`Command::Confirmed`].
    fn confirm(&self, term: u64);
    /// This member leads in this term and can't run an active plugin: another voter is to lead. When none can,
    /// [`Command::Again`] is sent after a while.
    fn lacks(&self, term: u64, plugin: String, why: String);
    /// Planning begins in this term.
    fn started(&self, term: u64);
    /// This member can't go on.
    fn fault(&self, fault: Fault);
    /// How often planning had to begin again.
    fn resets(&self, count: u64);
    /// A request, or an entry, has come to this step.
    fn reached(&self, step: Step);
}

/// Sends the planner what happens.
#[derive(Clone)]
pub(crate) struct Handle(Sender<Command>);

impl Handle {
    /// Tells it. After its end nobody listens, and nobody needs to.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

/// A planner that has not been started yet: the handle is needed to build its surroundings.
pub(crate) fn prepare() -> (Handle, Receiver<Command>) {
    let (sender, receiver) = channel();
    (Handle(sender), receiver)
}

/// Starts the thread.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn spawn(
    receiver: Receiver<Command>,
    surroundings: impl Surroundings,
    applied: Option<Position>,
    plugin_share: u32,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("planner".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let pipeline = Pipeline::new(applied, plugin_share);
        if let Err(fault) = run(&receiver, &surroundings, pipeline) {
            surroundings.fault(fault);
        }
    })
}

fn run(
    receiver: &Receiver<Command>,
    surroundings: &impl Surroundings,
    mut pipeline: Pipeline<Source>,
) -> Result<(), Fault> {
    let mut stamped_ms = 0;
    let mut swept_ms = 0;
    let mut looked_ms = 0;
    loop {
        let patience = patience(&pipeline, looked_ms);
        let first = match receiver.recv_timeout(patience) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut rebase = None;
        let mut plugins_changed = false;
        // Everything that has arrived is taken in before anything is planned: bigger batches, fewer snapshots.
        for command in first.into_iter().chain(receiver.try_iter()) {
            match command {
                Command::Requests(source, envelopes) => {
                    envelopes.iter().for_each(|_| surroundings.reached(Step::Received));
                    pipeline.requests(envelopes.into_iter().map(|envelope| Item {
                        source: Some(source.clone()),
                        token: envelope.token,
                        request: envelope.request,
                    }));
                }
                Command::Own(term, work) => pipeline.own_in(term, *work),
                Command::Applied(position) => rebase = Some(position),
                Command::Leadership(term) => pipeline.leadership(surroundings, term)?,
                Command::Outcome(serial, outcome) => {
                    // What was applied before the outcome came is below the view before anything new is planned.
                    pipeline.outcome(surroundings, serial, outcome)?;
                }
                Command::Confirmed(term, leads) => pipeline.confirmed(surroundings, term, leads)?,
                Command::Plugins => plugins_changed = true,
                Command::Again(term) => pipeline.again(surroundings, term)?,
                Command::Stop => return Ok(()),
            }
        }
        if let Some(position) = rebase {
            pipeline.applied(surroundings, position)?;
        }
        if plugins_changed {
            pipeline.plugins_changed(surroundings)?;
        }
        // Asked for by a leader only: the time that it gets becomes a stamp.
        let now_ms = if pipeline.is_running() { surroundings.now_ms() } else { stamped_ms };
        if pipeline.is_running() {
            if pipeline.is_idle() && now_ms.saturating_sub(stamped_ms) >= STAMP_EVERY_MS {
                pipeline.own(Work::Stamp);
            }
            let every_ms = if pipeline.has_swept_much() { SWEEP_ON_EVERY_MS } else { SWEEP_EVERY_MS };
            if now_ms.saturating_sub(swept_ms) >= every_ms {
                swept_ms = now_ms;
                pipeline.sweep();
            }
            pipeline.tick(now_ms);
            looked_ms = now_ms;
        }
        pipeline.turn(surroundings)?;
        if carry_out(&mut pipeline, surroundings) {
            stamped_ms = now_ms;
        }
    }
}

/// How long to wait for something to happen; the time was looked at at `looked_ms`.
fn patience(pipeline: &Pipeline<Source>, looked_ms: u64) -> Duration {
    if pipeline.has_work() {
        return Duration::ZERO;
    }
    let usual = if pipeline.has_swept_much() { Duration::from_millis(SWEEP_ON_EVERY_MS) } else { LOOK_EVERY };
    let tick = pipeline.next_tick_ms().map(|due_ms| Duration::from_millis(due_ms.saturating_sub(looked_ms).max(1)));
    tick.map_or(usual, |tick| usual.min(tick))
}

/// Does what the pipeline wants; true when an entry was proposed.
fn carry_out(pipeline: &mut Pipeline<Source>, surroundings: &impl Surroundings) -> bool {
    let mut proposed = false;
    let mut told: Vec<(Source, Vec<(u64, Told)>)> = Vec::new();
    for effect in pipeline.take_effects() {
        match effect {
            Effect::Propose { serial, term, payload } => {
                proposed = true;
                surroundings.reached(Step::Planned);
                surroundings.propose(serial, term, payload);
            }
            Effect::Tell(source, token, what) => match told.iter_mut().find(|(s, _)| s.same_channel(&source)) {
                Some((_, batch)) => batch.push((token, what)),
                None => told.push((source, vec![(token, what)])),
            },
            Effect::Confirm { term } => surroundings.confirm(term),
            Effect::Lacks { term, plugin, why } => surroundings.lacks(term, plugin, why),
            Effect::Started { term } => surroundings.started(term),
        }
    }
    for (source, batch) in told {
        // The member may be gone; it sends again to whoever leads then.
        drop(source.send(batch));
    }
    surroundings.resets(pipeline.resets());
    proposed
}
