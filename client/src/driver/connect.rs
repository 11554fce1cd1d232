//! Finding a member: endpoints in turn, several at a time when they are slow to answer, pauses that grow and jitter.

use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::{ClientMessage, PushBack, Refusal, ServerMessage, Welcome, codec};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{Driver, FRAME_MAX, Sent};
use crate::client::Peer;
use crate::clock::Moment;
use crate::error::{Error, NoConnection};
use crate::options::Options;
use crate::wire::{Reason, Wire};

/// After so long without an answer the next endpoint is dialled beside.
const STAGGER: Duration = Duration::from_millis(300);
/// A connection that lived shorter than this does not count as a success.
const STABLE: Duration = Duration::from_secs(1);
/// The longest pause between two rounds.
const PAUSE_MAX_MS: u64 = 2_000;

/// The endpoints, and where in them we are.
pub(super) struct Roster {
    endpoints: Vec<String>,
    current: usize,
    /// Rounds and short-lived connections in a row that came to nothing.
    failures: u32,
    random: StdRng,
}

impl Roster {
    pub(super) fn new(options: &Options, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let mut endpoints = options.endpoints.clone();
        // Many clients with one configuration: they must not all crowd on its first member.
        endpoints.shuffle(&mut random);
        Self { endpoints, current: 0, failures: 0, random }
    }

    pub(super) fn current(&self) -> &str {
        self.endpoints.get(self.current).map_or("", String::as_str)
    }

    /// The connection to the current endpoint has ended after so long: the next one's turn.
    pub(super) fn left(&mut self, lived: Duration) {
        self.failures = if lived < STABLE { self.failures + 1 } else { 0 };
    }

    fn learn(&mut self, welcome: &Welcome) {
        for endpoint in &welcome.endpoints {
            if !self.endpoints.contains(&endpoint.address) {
                self.endpoints.push(endpoint.address.clone());
            }
        }
    }

    /// All endpoints, those after the current one first.
    fn round(&self) -> Vec<usize> {
        let count = self.endpoints.len();
        (1..=count).map(|step| (self.current + step) % count).collect()
    }

    /// How long to wait before the next round.
    fn pause(&mut self) -> Duration {
        match self.failures {
            // The first attempt is quick, but clients that lost the same member do not all knock at once.
            0 => Duration::from_millis(self.random.random_range(0..20)),
            n => {
                let most = (50_u64 << n.min(6)).min(PAUSE_MAX_MS);
                Duration::from_millis(self.random.random_range(most / 2..=most))
            }
        }
    }
}

impl Driver {
    /// Connects and has the machine welcomed. None when the client is finished instead.
    pub(super) async fn connect(&mut self) -> Option<Wire> {
        let begun = Moment::now();
        let mut at_once = self.told.is_some();
        loop {
            if !std::mem::take(&mut at_once) && !self.pause().await {
                return None;
            }
            let round = self.roster.round();
            let mut definite = true;
            let mut foreign = Foreign::default();
            let mut left = round.as_slice();
            while !left.is_empty() {
                let (wire, at, rest) = match self.dial_in_turn(left, &mut definite).await {
                    Dialled::Wire(wire, at, rest) => (wire, at, rest),
                    Dialled::Nobody => break,
                    Dialled::Finished => return None,
                };
                self.roster.current = at;
                match self.greet(wire).await {
                    Ok(Some(wire)) => {
                        if let Some(told) = self.told.take() {
                            // Before whoever waits for it looks.
                            self.desk.settle();
                            // Nobody waits any more: the commands' channel tells.
                            let _ = told.send(Ok(()));
                        }
                        return Some(wire);
                    }
                    Ok(None) => return None,
                    Err(reason) => {
                        definite &= reason.definite;
                        foreign.count(&reason);
                        let endpoint = self.roster.current().to_owned();
                        tracing::debug!(endpoint, why = reason.why, "no welcome");
                        self.desk.failed(&endpoint, reason);
                    }
                }
                left = &round[round.len() - rest..];
            }
            self.roster.failures += 1;
            self.dial.refresh();
            if let Some(error) = foreign.verdict(self.desk.machine.home(), round.len()) {
                self.desk.over = Some(error);
                return None;
            }
            let over = definite || Moment::now().since(begun) >= self.connect_timeout;
            if over && let Some(told) = self.told.take() {
                let none = NoConnection { attempts: self.desk.attempts.attempts.clone() };
                let _ = told.send(Err(Error::NoConnection(none)));
                return None;
            }
        }
    }

    /// Waits a moment, and sees to the desk meanwhile. False when the client is finished.
    async fn pause(&mut self) -> bool {
        let until = tokio::time::Instant::now() + self.roster.pause();
        loop {
            self.desk.settle();
            self.desk.leave = None;
            if self.desk.finished {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                () = self.desk.attend() => {}
            }
        }
    }

    /// Dials one endpoint after the other, the next beside the last when that is slow. Gives the first that answers,
    /// and how many have not been dialled.
    async fn dial_in_turn(&mut self, endpoints: &[usize], definite: &mut bool) -> Dialled {
        let mut dials = FuturesUnordered::new();
        let mut next = endpoints.iter().copied();
        let mut stagger = tokio::time::Instant::now();
        loop {
            self.desk.settle();
            self.desk.leave = None;
            if self.desk.finished {
                return Dialled::Finished;
            }
            if (dials.is_empty() || stagger <= tokio::time::Instant::now())
                && let Some(at) = next.next()
            {
                let dial = Arc::clone(&self.dial).dial(self.roster.endpoints[at].clone());
                let time = self.connect_timeout;
                dials.push(async move { (at, tokio::time::timeout(time, dial).await) });
                stagger = tokio::time::Instant::now() + STAGGER;
            }
            if dials.is_empty() {
                return Dialled::Nobody;
            }
            tokio::select! {
                Some((at, result)) = dials.next() => {
                    let reason = match result {
                        Ok(Ok(wire)) => return Dialled::Wire(wire, at, next.len()),
                        Ok(Err(reason)) => reason,
                        Err(_) => Reason::new(format!("no answer within {} ms", self.connect_timeout.as_millis())),
                    };
                    *definite &= reason.definite;
                    tracing::debug!(endpoint = self.roster.endpoints[at], why = reason.why, "cannot connect");
                    self.desk.failed(&self.roster.endpoints[at], reason);
                    stagger = tokio::time::Instant::now();
                }
                () = tokio::time::sleep_until(stagger), if next.len() > 0 => {}
                () = self.desk.attend() => {}
            }
        }
    }

    /// Says hello and takes the welcome. None when the client is finished.
    async fn greet(&mut self, mut wire: Wire) -> Result<Option<Wire>, Reason> {
        let hello = codec::encode(&ClientMessage::Hello(self.desk.machine.hello()));
        self.desk.shared.sends(Sent::Hello);
        let exchange = async {
            let end = |wire: &Wire, why: String| (wire.end)().unwrap_or_else(|| Reason::new(why));
            wire.writer.push(&hello).map_err(|error| Reason::new(error.to_string()))?;
            if let Err(error) = wire.writer.flush().await {
                return Err(end(&wire, error.to_string()));
            }
            match wire.reader.next(FRAME_MAX).await {
                Ok(Some(frame)) => Ok((wire, frame)),
                Ok(None) => Err(end(&wire, "the member ended the connection".to_owned())),
                Err(error) => Err(end(&wire, error.to_string())),
            }
        };
        let exchange = tokio::time::timeout(self.connect_timeout, exchange);
        tokio::pin!(exchange);
        let (wire, frame) = loop {
            self.desk.settle();
            self.desk.leave = None;
            if self.desk.finished {
                return Ok(None);
            }
            tokio::select! {
                done = &mut exchange => break done.unwrap_or_else(|_| Err(Reason::new("no welcome in time")))?,
                () = self.desk.attend() => {}
            }
        };
        let message = codec::decode(&frame).map_err(|error| Reason::new(error.to_string()))?;
        self.welcomed(message).map(|()| Some(wire))
    }

    fn welcomed(&mut self, message: ServerMessage) -> Result<(), Reason> {
        let now = Moment::now();
        let welcome = match message {
            ServerMessage::Welcome(welcome) => welcome,
            ServerMessage::Goodbye { refusal } => {
                let why = refusal.to_string();
                if let Refusal::OtherCluster { actual, .. } = refusal {
                    return Err(Reason { definite: true, foreign: Some(actual), ..Reason::new(why) });
                }
                if matches!(refusal, Refusal::SessionOver { .. }) {
                    self.desk.machine.handle_message(now, ServerMessage::Goodbye { refusal });
                }
                return Err(Reason::new(why));
            }
            ServerMessage::PushBack { why: PushBack::Behind { zxid }, .. } => {
                return Err(Reason::new(format!("it is at zxid {zxid}, behind what this client has seen")));
            }
            ServerMessage::PushBack { why, .. } => return Err(Reason::new(format!("it is not ready ({why:?})"))),
            _ => return Err(Reason::new("it does not speak this protocol")),
        };
        let wanted = self.cluster.as_deref().or(self.desk.machine.home());
        if let Some(wanted) = wanted.filter(|wanted| *wanted != welcome.cluster) {
            let why = format!("it is of cluster {}, not {wanted}", welcome.cluster);
            return Err(Reason { definite: true, foreign: Some(welcome.cluster), ..Reason::new(why) });
        }
        self.desk.machine.handle_welcome(now, &welcome).map_err(Reason::new)?;
        self.roster.learn(&welcome);
        self.desk.attempts.attempts.clear();
        self.desk.leave = None;
        let Welcome { member, cluster, principal, .. } = *welcome;
        tracing::debug!(%member, endpoint = self.roster.current(), "connected");
        self.desk.shared.connected_to(Peer { endpoint: self.roster.current().to_owned(), member, cluster, principal });
        Ok(())
    }
}

/// The endpoints of a round that are of another cluster.
#[derive(Default)]
struct Foreign {
    count: usize,
    cluster: String,
}

impl Foreign {
    fn count(&mut self, reason: &Reason) {
        if let Some(cluster) = &reason.foreign {
            self.count += 1;
            self.cluster.clone_from(cluster);
        }
    }

    /// Most of the endpoints have become those of another cluster than the client's: that does not pass by waiting.
    /// Fewer may be a mistake in the configuration, while the others are down.
    fn verdict(self, home: Option<&str>, endpoints: usize) -> Option<Error> {
        let expected = home.filter(|_| 2 * self.count > endpoints)?.to_owned();
        Some(Error::Refused(Refusal::OtherCluster { expected, actual: self.cluster }))
    }
}

/// What dialling came to.
enum Dialled {
    Wire(Wire, usize, usize),
    Nobody,
    Finished,
}
