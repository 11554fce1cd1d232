//! The one task behind a client: it moves frames between the connection and the session machine, and results to callers.

mod connect;
mod sent;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::{ServerMessage, WatchId, WatchRequest, codec, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::clock::Moment;
use crate::error::{Error, NoConnection, Outcome, Result};
use crate::options::Options;
use crate::session::{Ask, Done, Event, Machine, Settings, Ticket};
use crate::watch::Queue;
use crate::wire::{Dial, Quic, Reason, Wire};
use connect::Roster;
pub use sent::Sent;
pub(crate) use shared::Shared;

/// Requests that the machine may hold; commands wait in the channel beyond.
const REQUESTS: usize = 16_384;
/// Bytes that are encoded ahead of the stream.
const AHEAD: usize = 256 << 10;
/// Frames or commands taken in a row, before the other side has its turn.
const BATCH: usize = 256;
/// Bytes of one frame from a member: an event can tell of a whole transaction's changes.
const FRAME_MAX: usize = 2 * limits::TRANSACTION_BYTES;
/// At most so long the task sleeps while a session is open: its timer stands still while the machine sleeps.
const NAP: Duration = Duration::from_secs(1);
/// Time to close the session of a client that was dropped.
const DROPPED: Duration = Duration::from_secs(2);

/// From the client's handles to the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// A call has a number, for notices.
    Ask {
        ask: Box<Ask>,
        within: Duration,
        reply: oneshot::Sender<Result<Done>>,
        call: Option<u64>,
    },
    Watch {
        request: WatchRequest,
        queue: Arc<Queue>,
        within: Duration,
        reply: oneshot::Sender<Result<Done>>,
    },
}

/// What a driver is told beside commands, and never waits behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// Nobody reads the watch any more.
    Unwatch(WatchId),
    /// Whoever called has what became of the call.
    Taken(u64),
    /// Whoever called does not wait any more, and has nothing.
    Withdrawn(u64),
}

/// What a client holds of its driver.
pub(crate) struct Started {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connected: oneshot::Receiver<Result<()>>,
}

/// Starts a driver over QUIC.
pub(crate) fn start(options: &Options) -> Result<Started> {
    let dial = Arc::new(Quic::new(options)?);
    Ok(start_over(options, dial, rand::random()))
}

/// Starts a driver over any way to a member.
pub(crate) fn start_over(options: &Options, dial: Arc<dyn Dial>, seed: [u8; 32]) -> Started {
    let (commands, command) = mpsc::unbounded_channel();
    let (notices, notice) = mpsc::unbounded_channel();
    let (told, connected) = oneshot::channel();
    let shared = Arc::new(Shared::default());
    let settings = Settings { session_timeout: options.session_timeout };
    let driver = Driver {
        desk: Desk {
            machine: Machine::new(settings, seed),
            callers: HashMap::new(),
            queues: HashMap::new(),
            shared: Arc::clone(&shared),
            command,
            notice,
            calls: HashMap::new(),
            orphaned: false,
            alarm: Alarm { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), at: None },
            attempts: NoConnection::default(),
            leave: None,
            finished: false,
            over: None,
        },
        dial,
        roster: Roster::new(options, seed),
        connect_timeout: options.connect_timeout,
        cluster: options.cluster.clone(),
        told: Some(told),
    };
    tokio::spawn(driver.run());
    Started { commands, notices, shared, connected }
}

struct Driver {
    desk: Desk,
    dial: Arc<dyn Dial>,
    roster: Roster,
    connect_timeout: Duration,
    cluster: Option<String>,
    /// Whoever waits for the first connection.
    told: Option<oneshot::Sender<Result<()>>>,
}

/// Everything that goes on whether or not there is a connection.
struct Desk {
    machine: Machine,
    callers: HashMap<Ticket, Caller>,
    queues: HashMap<WatchId, Arc<Queue>>,
    shared: Arc<Shared>,
    command: mpsc::UnboundedReceiver<Command>,
    notice: mpsc::UnboundedReceiver<Notice>,
    /// Calls of which a notice is to come.
    calls: HashMap<u64, Ticket>,
    /// All handles are gone.
    orphaned: bool,
    alarm: Alarm,
    /// The last failure at each endpoint.
    attempts: NoConnection,
    /// The machine wants another connection.
    leave: Option<String>,
    finished: bool,
    /// The client cannot go on, because of this.
    over: Option<Error>,
}

struct Caller {
    reply: oneshot::Sender<Result<Done>>,
    /// It begins this watch.
    watch: Option<WatchId>,
}

struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Moment>,
}

impl Driver {
    async fn run(mut self) {
        while let Some(mut wire) = self.connect().await {
            let since = Moment::now();
            self.desk.shared.may_open(Some(Arc::clone(&wire.side)));
            let reason = self.desk.serve(&mut wire).await;
            self.desk.shared.may_open(None);
            self.desk.machine.handle_disconnect();
            self.desk.settle();
            if self.desk.finished {
                break;
            }
            tracing::debug!(why = reason.why, "disconnected");
            self.roster.left(Moment::now().since(since));
            self.desk.failed(self.roster.current(), reason);
        }
        self.desk.finish();
    }
}

impl Desk {
    /// Works on a connection until it ends or is to be left; says why.
    async fn serve(&mut self, wire: &mut Wire) -> Reason {
        loop {
            if let Err(why) = self.fill(wire) {
                return Reason::new(why);
            }
            self.settle();
            if self.finished {
                // What the member still has to hear is at most an acknowledgement.
                let _ = wire.writer.flush().await;
                return Reason::new("closed");
            }
            if let Some(why) = self.leave.take() {
                return Reason::new(why);
            }
            let pending = wire.writer.pending() > 0;
            tokio::select! {
                frame = wire.reader.next(FRAME_MAX) => match frame {
                    Ok(Some(frame)) => {
                        if let Err(why) = self.read(wire, &frame) {
                            return Reason::new(why);
                        }
                    }
                    Ok(None) => return (wire.end)().unwrap_or_else(|| Reason::new("the member ended the connection")),
                    Err(error) => return (wire.end)().unwrap_or_else(|| Reason::new(error.to_string())),
                },
                flushed = wire.writer.flush(), if pending => {
                    if let Err(error) = flushed {
                        return (wire.end)().unwrap_or_else(|| Reason::new(error.to_string()));
                    }
                }
                () = self.attend() => {}
            }
        }
    }

    /// Whoever drops a call and then asks for something finds what the call had taken given back: its cancelling goes first.
    fn take_after_notices(&mut self, now: Moment, command: Command) {
        self.hear_all();
        self.take(now, command);
    }

    fn hear_all(&mut self) {
        while let Ok(notice) = self.notice.try_recv() {
            self.hear(notice);
        }
    }

    /// Encodes what may be sent.
    fn fill(&mut self, wire: &mut Wire) -> Result<(), String> {
        let now = Moment::now();
        while wire.writer.pending() < AHEAD
            && let Some(message) = self.machine.poll_send(now)
        {
            self.shared.sends(Sent::of(&message));
            wire.writer.push_bytes(codec::encode(&message).into()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes this frame and those that came with it.
    fn read(&mut self, wire: &mut Wire, frame: &[u8]) -> Result<(), String> {
        let now = Moment::now();
        let message = |frame: &[u8]| codec::decode::<ServerMessage>(frame).map_err(|error| error.to_string());
        self.machine.handle_message(now, message(frame)?);
        for _ in 0..BATCH {
            match wire.reader.ready(FRAME_MAX).map_err(|error| error.to_string())? {
                Some(frame) => self.machine.handle_message(now, message(&frame)?),
                None => break,
            }
        }
        Ok(())
    }

    /// Waits for the next command or the next time-out, and sees to it. Cancel-safe.
    async fn attend(&mut self) {
        // The two channels keep no order between them: see `take_after_notices`.
        self.alarm.set(Moment::now(), self.machine.poll_timeout(Moment::now()), self.machine.has_session());
        tokio::select! {
            command = self.command.recv(), if !self.orphaned && self.machine.len() < REQUESTS => {
                let now = Moment::now();
                match command {
                    Some(command) => {
                        self.take_after_notices(now, command);
                        for _ in 0..BATCH {
                            let Ok(command) = self.command.try_recv() else { break };
                            self.take_after_notices(now, command);
                        }
                    }
                    None => {
                        self.orphaned = true;
                        // What was dropped before the last handle is given back before the session is closed.
                        self.hear_all();
                        self.machine.handle_request(now, Ask::Close, DROPPED);
                    }
                }
            }
            Some(notice) = self.notice.recv() => self.hear(notice),
            () = self.alarm.sleep.as_mut() => {
                self.alarm.at = None;
                self.machine.handle_timeout(Moment::now());
            }
        }
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Unwatch(watch) => {
                self.queues.remove(&watch);
                self.machine.handle_unwatch(watch);
            }
            Notice::Taken(call) => {
                if let Some(ticket) = self.calls.remove(&call) {
                    self.machine.handle_taken(ticket);
                }
            }
            Notice::Withdrawn(call) => {
                if let Some(ticket) = self.calls.remove(&call) {
                    self.callers.remove(&ticket);
                    self.machine.handle_withdrawn(ticket);
                }
            }
        }
    }

    fn take(&mut self, now: Moment, command: Command) {
        match command {
            // The future that called was dropped, and its notice may have come before this.
            Command::Ask { reply, call: Some(_), .. } if reply.is_closed() => {}
            Command::Ask { ask, within, reply, call } => {
                let ticket = self.machine.handle_request(now, *ask, within);
                self.callers.insert(ticket, Caller { reply, watch: None });
                self.calls.extend(call.map(|call| (call, ticket)));
            }
            Command::Watch { request, queue, within, reply } => {
                // The future that began it was dropped, and its `unwatch` may have overtaken it.
                if reply.is_closed() {
                    return;
                }
                let watch = request.watch;
                self.queues.insert(watch, queue);
                let ticket = self.machine.handle_watch(now, request, within);
                self.callers.insert(ticket, Caller { reply, watch: Some(watch) });
            }
        }
    }

    /// Publishes the machine's state and delivers its events, in order.
    fn settle(&mut self) {
        let now = Moment::now();
        self.shared.publish(self.machine.state(now), self.machine.seen(), self.machine.lease_ends());
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Done { ticket, result } => self.deliver(ticket, result),
                Event::Changes { watch, zxid, changes, present } => {
                    if let Some(queue) = self.queues.get(&watch) {
                        queue.push(zxid, changes, present);
                    }
                }
                Event::Resync { watch, zxid } => {
                    if let Some(queue) = self.queues.get(&watch) {
                        queue.resync(zxid);
                    }
                }
                Event::Ended { watch, error } => {
                    if let Some(queue) = self.queues.remove(&watch) {
                        queue.end(Some(error));
                    }
                }
                Event::Leave { why } => self.leave = Some(why),
                Event::Finished => self.finished = true,
            }
        }
    }

    fn deliver(&mut self, ticket: Ticket, result: Result<Done>) {
        let Some(Caller { reply, watch }) = self.callers.remove(&ticket) else { return };
        let failed = result.is_err();
        let result = match result {
            Err(Error::Closed { outcome: Outcome::NotApplied }) if self.over.is_some() => Err(self.closed()),
            Err(Error::TimedOut { .. }) if !self.machine.is_connected() && !self.attempts.attempts.is_empty() => {
                Err(Error::NoConnection(self.attempts.clone()))
            }
            other => other,
        };
        let unheard = reply.send(result).is_err();
        if let Some(watch) = watch.filter(|_| failed || unheard) {
            self.queues.remove(&watch);
            self.machine.handle_unwatch(watch);
        }
    }

    /// Remembers why an endpoint is of no use.
    fn failed(&mut self, endpoint: &str, reason: Reason) {
        let Reason { why, certificate, .. } = reason;
        let attempts = &mut self.attempts.attempts;
        match attempts.iter_mut().find(|attempt| attempt.endpoint == endpoint) {
            Some(attempt) => (attempt.why, attempt.certificate) = (why, certificate),
            None => attempts.push(crate::error::Attempt { endpoint: endpoint.to_owned(), why, certificate }),
        }
    }

    fn closed(&self) -> Error {
        self.over.clone().unwrap_or(Error::Closed { outcome: Outcome::NotApplied })
    }

    /// Nothing more is done: tells everybody.
    fn finish(&mut self) {
        if let Some(error) = &self.over {
            tracing::error!(%error, "the client has ended");
            self.shared.ended(error.clone());
        }
        self.machine.handle_finish();
        self.settle();
        self.command.close();
        while let Ok(command) = self.command.try_recv() {
            let (Command::Ask { reply, .. } | Command::Watch { reply, .. }) = command;
            // Whoever does not wait any more need not hear it.
            let _ = reply.send(Err(self.closed()));
        }
        for (_, queue) in self.queues.drain() {
            queue.end(self.over.clone());
        }
    }
}

impl Alarm {
    /// Arms it. A later time than before is left for when it rings: that costs less than setting it at every answer.
    fn set(&mut self, now: Moment, at: Option<Moment>, nap: bool) {
        let soonest = at.into_iter().chain(nap.then(|| now.after(NAP))).min();
        let Some(at) = soonest.or(self.at.is_none().then(|| now.after(Duration::from_secs(60)))) else { return };
        if self.at.is_none_or(|armed| at < armed) {
            self.at = Some(at);
            self.sleep.as_mut().reset(tokio::time::Instant::now() + at.since(now));
        }
    }
}
