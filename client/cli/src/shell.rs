//! `shell --json`: one session, requests and replies and events as lines of JSON; see `client/script/SHELL.md`.
//!
//! Requests are sent in the order of their lines, and many are on their way at a time. What a request gives and what a
//! watch tells is a stream of lines each; [`serve`] merges them, so that the events up to a zxid come before a newer reply.

mod backend;
mod stdin;
mod stdout;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use conclave_client::{Client, State, Zxid};
use conclave_protocol::{Op, WatchId};
use conclave_script::{Ask, Body, Dialect, LineError, Request};
use futures::future::BoxFuture;
use futures::stream::{self, AbortHandle, Abortable, BoxStream, FusedStream, SelectAll, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::failure::{DONE, Failure};
use crate::out;
use crate::supervise::Signals;
use backend::Backend;
pub(crate) use backend::line as event_line;
use stdout::Writer;

/// Requests that are on their way at a time; further lines wait, so that memory is bounded.
const IN_FLIGHT: usize = 1_024;
/// Bytes of one line. Larger ones could not be sent anyway: data grows in base64, and by escapes.
const LINE_BYTES: usize = 32 << 20;
/// Bytes of the lines that are not answered yet; with more, further lines wait. At least one line is always served.
const IN_FLIGHT_BYTES: usize = 64 << 20;
/// After a signal, a reader that takes nothing for so long is given up: the session is closed without it.
const GRACE: Duration = Duration::from_secs(5);

/// One line of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its text.
    Text(String),
    /// It cannot be read, and why.
    Bad(String),
}

impl Line {
    /// The bytes that it holds.
    const fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Bad(text) => text.len(),
        }
    }
}

/// Serves stdin until it ends, or until it is told to stop, or until nobody reads what it says.
pub(crate) async fn run(client: &Client) -> Result<u8, Failure> {
    let mut signals = Signals::listen().map_err(crate::lock::failed)?;
    let (stop, stopped) = watch::channel(false);
    // Heard also while nothing is read, because nobody reads what is said.
    tokio::spawn(async move {
        signals.next().await;
        stop.send_replace(true);
    });
    // INT, TERM and HUP are an end of stdin: what is on its way is answered, and the session closed.
    let mut told = stopped.clone();
    let end = Box::pin(async move {
        tokio::select! {
            _ = told.wait_for(|stopped| *stopped) => {}
            // Otherwise an idle shell would keep its session for nobody.
            () = out::reader_gone() => {}
        }
    });
    let lines = stdin::lines().take_until(end);
    let writer = Writer::new(io::stdout, stopped, GRACE);
    let served = match serve(client, lines, async |line| writer.say(line).await).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
        served => writer.end().await.and(served),
    };
    served.map_err(Failure::Output)?;
    Ok(DONE)
}

/// Answers lines until there are none, then closes the client: its session, if it opened one, ends in good order.
///
/// # Errors
/// When a line cannot be written; the client is closed all the same.
pub async fn serve(
    client: &Client,
    lines: impl Stream<Item = Line> + Unpin,
    say: impl AsyncFnMut(&Value) -> io::Result<()>,
) -> io::Result<()> {
    let mut engine = Engine::new(client.pipelined(), say);
    let served = engine.serve(lines.fuse()).await;
    let clean = engine.close().await;
    served?;
    (engine.say)(&conclave_script::closed(clean)).await
}

/// What a stream of a request or of a watch gives.
enum Told {
    /// A line.
    Line(Value),
    /// The line that says that a watch stands, and its events.
    Watching(Value, BoxStream<'static, Event>),
    /// The line that says that it does not.
    Refused(Value, WatchId),
    /// The session is to be closed, by the request with this id.
    Close(Option<Value>),
    /// All of it has been told, of a line of so many bytes. (A merged stream's end tells nobody.)
    End(usize),
}

/// What a watch tells.
enum Event {
    /// A line.
    Line(Value),
    /// Nothing more.
    End(WatchId),
}

/// Says that a call has ended when it is dropped.
struct Ongoing(Arc<AtomicBool>);

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How to cancel a call.
struct Cancel {
    handle: AbortHandle,
    ended: Arc<AtomicBool>,
}

impl Cancel {
    fn is_aborted(&self) -> bool {
        self.handle.is_aborted()
    }

    fn is_done(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Everything that is on its way.
struct Engine<B: Backend, S> {
    backend: B,
    say: S,
    requests: SelectAll<BoxStream<'static, Told>>,
    /// How many of them have not ended.
    in_flight: usize,
    /// The bytes of their lines.
    in_flight_bytes: usize,
    watches: SelectAll<BoxStream<'static, Event>>,
    /// How to end each watch that stands or is about to.
    standing: BTreeMap<WatchId, AbortHandle>,
    next_watch: u64,
    /// Calls that have an id, and how to cancel them.
    calls: Vec<(Value, Cancel)>,
    /// `{"session": "close"}` was asked, by the request with this id.
    closing: Option<Option<Value>>,
}

impl<B: Backend, S: AsyncFnMut(&Value) -> io::Result<()>> Engine<B, S> {
    fn new(backend: B, say: S) -> Self {
        Self {
            backend,
            say,
            requests: SelectAll::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            watches: SelectAll::new(),
            standing: BTreeMap::new(),
            next_watch: 1,
            calls: Vec::new(),
            closing: None,
        }
    }

    /// Until the lines end and everything that they asked is answered.
    async fn serve(&mut self, mut lines: impl FusedStream<Item = Line> + Unpin) -> io::Result<()> {
        let mut states = self.backend.states().fuse();
        loop {
            let reads = !lines.is_terminated() && self.closing.is_none();
            if !reads && self.in_flight == 0 {
                return Ok(());
            }
            // None of these is the end: what has ended is left out the next time.
            tokio::select! {
                biased;
                event = self.watches.next(), if !self.watches.is_empty() => {
                    if let Some(event) = event {
                        self.event(event).await?;
                    }
                }
                state = states.next(), if !states.is_terminated() => {
                    if let Some(state) = state {
                        (self.say)(&conclave_script::state(word(state))).await?;
                    }
                }
                told = self.requests.next(), if !self.requests.is_empty() => {
                    if let Some(told) = told {
                        self.told(told).await?;
                    }
                }
                line = lines.next(), if reads && self.has_room() => {
                    if let Some(line) = line {
                        self.line(line).await?;
                    }
                }
            }
        }
    }

    /// Whether another line may be served: what has no answer yet is bounded.
    const fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT && self.in_flight_bytes < IN_FLIGHT_BYTES
    }

    async fn line(&mut self, line: Line) -> io::Result<()> {
        let dialect = self.backend.dialect();
        let bytes = line.bytes();
        let request = match line {
            Line::Bad(message) => Err(LineError { id: None, code: "bad-line", message }),
            Line::Text(text) if text.trim().is_empty() => return Ok(()),
            Line::Text(text) => dialect.request(&text),
        };
        match request {
            Err(error) => (self.say)(&error.reply()).await,
            Ok(request) => self.begin(request, dialect, bytes).await,
        }
    }

    /// Sends a request, of a line of so many bytes: its place among the others is that of its first poll, so that is now.
    async fn begin(&mut self, request: Request, dialect: Dialect, bytes: usize) -> io::Result<()> {
        let told = match &request.ask {
            Ask::Unwatch(watch) => {
                let reply = self.unwatch(*watch, &request);
                return (self.say)(&reply).await;
            }
            Ask::Cancel(_) => return self.cancel(&request).await,
            Ask::Write(Op::Close) => stream::once(std::future::ready(Told::Close(request.id))).boxed(),
            Ask::Watch(_) => self.watch(request, dialect),
            Ask::Subtree { .. } => self.backend.subtree(request, dialect).map(Told::Line).boxed(),
            Ask::Write(Op::Call(_)) => self.call(request, dialect),
            _ => stream::once(self.backend.ask(request, dialect)).map(Told::Line).boxed(),
        };
        let mut told = told.chain(stream::once(std::future::ready(Told::End(bytes)))).boxed();
        self.in_flight += 1;
        self.in_flight_bytes += bytes;
        let first = futures::poll!(told.next());
        self.requests.push(told);
        match first {
            Poll::Ready(Some(first)) => self.told(first).await,
            Poll::Ready(None) | Poll::Pending => Ok(()),
        }
    }

    /// A call can be cancelled while it is on its way: its future is dropped then.
    fn call(&mut self, request: Request, dialect: Dialect) -> BoxStream<'static, Told> {
        let Some(id) = request.id.clone() else {
            return stream::once(self.backend.ask(request, dialect)).map(Told::Line).boxed();
        };
        self.calls.retain(|(_, handle)| !handle.is_aborted() && !handle.is_done());
        let (handle, registration) = AbortHandle::new_pair();
        let call = Ongoing(Arc::new(AtomicBool::new(false)));
        self.calls.push((id.clone(), Cancel { handle, ended: Arc::clone(&call.0) }));
        let asked = Abortable::new(self.backend.ask(request, dialect), registration);
        stream::once(async move {
            let answer = asked.await;
            drop(call);
            Told::Line(answer.unwrap_or_else(|_| {
                let message = "the call was cancelled, as was asked".to_owned();
                conclave_script::line(Some(&id), None, Body::Failed { code: "cancelled".to_owned(), message })
            }))
        })
        .boxed()
    }

    /// Has a call given back; its own line is answered in its turn.
    async fn cancel(&mut self, request: &Request) -> io::Result<()> {
        let Ask::Cancel(call) = &request.ask else { return Ok(()) };
        let at = self.calls.iter().position(|(id, handle)| id == call && !handle.is_aborted() && !handle.is_done());
        let body = match at.map(|at| self.calls.swap_remove(at)) {
            Some((_, cancel)) => {
                cancel.handle.abort();
                Body::Ok(json!({ "cancelled": true }))
            }
            None => {
                let message = format!("no call with the id {call} is on its way: it was answered, or never asked");
                Body::Refused(json!({ "code": "already-done", "message": message }))
            }
        };
        (self.say)(&conclave_script::line(request.id.as_ref(), None, body)).await
    }

    fn watch(&mut self, request: Request, dialect: Dialect) -> BoxStream<'static, Told> {
        let watch = WatchId(self.next_watch);
        self.next_watch += 1;
        // From now on it can be ended, also before it stands.
        let (handle, registration) = AbortHandle::new_pair();
        self.standing.insert(watch, handle);
        let id = request.id.clone();
        let begun = self.backend.watch(request, watch, dialect);
        stream::once(async move {
            match begun.await {
                Ok((zxid, events)) => {
                    let body = Body::Ok(json!({ "watching": watch }));
                    let end = stream::once(std::future::ready(Event::End(watch)));
                    let events = Abortable::new(events.map(Event::Line).chain(end), registration).boxed();
                    Told::Watching(conclave_script::line(id.as_ref(), Some(zxid), body), events)
                }
                Err(body) => Told::Refused(conclave_script::line(id.as_ref(), None, body), watch),
            }
        })
        .boxed()
    }

    fn unwatch(&mut self, watch: WatchId, request: &Request) -> Value {
        let body = match self.standing.remove(&watch) {
            Some(handle) => {
                handle.abort();
                Body::Ok(json!({ "unwatched": true }))
            }
            None => Body::Refused(json!({ "code": "no-watch", "message": format!("there is no watch {watch}") })),
        };
        conclave_script::line(request.id.as_ref(), None, body)
    }

    async fn event(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Line(line) => (self.say)(&line).await,
            Event::End(watch) => {
                self.standing.remove(&watch);
                Ok(())
            }
        }
    }

    /// Says what came of a request; before it, the events that are no newer.
    async fn told(&mut self, told: Told) -> io::Result<()> {
        while let Poll::Ready(Some(event)) = futures::poll!(self.watches.next()) {
            self.event(event).await?;
        }
        match told {
            Told::End(bytes) => {
                self.in_flight -= 1;
                self.in_flight_bytes -= bytes;
                Ok(())
            }
            Told::Line(line) => (self.say)(&line).await,
            Told::Close(id) => {
                self.closing.get_or_insert(id);
                Ok(())
            }
            Told::Refused(line, watch) => {
                self.standing.remove(&watch);
                (self.say)(&line).await
            }
            Told::Watching(line, events) => {
                (self.say)(&line).await?;
                self.watches.push(events);
                Ok(())
            }
        }
    }

    /// Ends watches and session; whether the session was closed in good order.
    async fn close(&mut self) -> bool {
        self.watches.clear();
        let closed = self.backend.close().await;
        if let Some(id) = self.closing.take() {
            let body = match &closed {
                Ok(()) => Body::Ok(json!({ "closed": true })),
                Err(message) => Body::Unknown { message: message.clone() },
            };
            // Whoever does not read it has gone.
            let _ = (self.say)(&conclave_script::line(id.as_ref(), None, body)).await;
        }
        closed.is_ok()
    }
}

const fn word(state: State) -> &'static str {
    match state {
        State::Connected => "connected",
        State::Suspended => "suspended",
        State::Lost => "lost",
    }
}

/// What begins a watch: its zxid and its events, or how it was refused.
type Begun = BoxFuture<'static, Result<(Zxid, BoxStream<'static, Value>), Body>>;

#[cfg(test)]
mod tests;
