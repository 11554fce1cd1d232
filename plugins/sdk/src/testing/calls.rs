//! Transactions, and the life of calls: runs, parking, waking, time.

use std::cell::RefCell;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

use conclave_protocol::limits;
use conclave_protocol::plugin::{On, OnFailure, Trigger};

use super::host::{Rights, Tree, context, watches};
use super::world::{CallState, Tx, Woken, World};
use crate::context::{Reason, Resumed};
use crate::{Answer, Change, Error, Park, Path, Result, Wake};

/// How often a call that parks on what holds already is run again.
const RERUNS: u32 = 4;

/// Who a transaction is of.
#[derive(Clone, Default)]
pub(super) struct Actor {
    pub(super) principal: Option<String>,
    pub(super) session: Option<u64>,
}

/// The machine around the state.
#[derive(Clone)]
pub(super) struct Machine(pub(super) Rc<RefCell<World>>);

impl Machine {
    /// Runs a transaction, `after` triggers included: all of it, or nothing. What it wakes is not run yet.
    pub(super) fn transact<T>(
        &self,
        actor: &Actor,
        ticket: Option<u64>,
        run: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        {
            let mut world = self.0.borrow_mut();
            if let Some(session) = actor.session.filter(|session| !world.sessions.contains_key(session)) {
                let why = format!("session {session} is over: its time ran out, or it was closed");
                return Err(Error::refused("session-over", why));
            }
            world.zxid += 1;
            let Actor { principal, session } = actor.clone();
            world.tx = Tx { principal, session, ticket, ..Tx::default() };
        }
        let start = self.0.borrow().savepoint();
        let done = run(self).and_then(|done| {
            self.0.borrow_mut().tx.ticket = None;
            self.react()?;
            Ok(done)
        });
        let mut world = self.0.borrow_mut();
        if done.is_err() {
            world.roll_back(start);
        }
        world.commit();
        done
    }

    pub(super) fn tree(&self, rights: Rights) -> crate::Tree {
        crate::Tree(Tree { world: Rc::clone(&self.0), rights })
    }

    fn triggers(&self, on: On) -> Vec<Trigger> {
        let mut triggers = self.0.borrow().manifest.triggers.clone();
        triggers.retain(|trigger| trigger.on == on);
        triggers.sort_by_key(|trigger| trigger.order);
        triggers
    }

    /// Runs the `after` triggers on what was changed, and on what they change, to a depth.
    fn react(&self) -> Result<()> {
        let Some(react) = self.0.borrow().exports.after else { return Ok(()) };
        let triggers = self.triggers(On::After);
        let mut seen = 0;
        for _ in 0..=limits::CASCADE {
            let changes: Vec<Change> = self.0.borrow().tx.changes[seen..].to_vec();
            if !triggers.iter().any(|trigger| changes.iter().any(|change| watches(trigger, change))) {
                return Ok(());
            }
            seen += changes.len();
            for trigger in &triggers {
                let matching: Vec<Change> = changes.iter().filter(|change| watches(trigger, change)).cloned().collect();
                if matching.is_empty() {
                    continue;
                }
                let before = self.0.borrow().savepoint();
                let done = react(&self.tree(Rights::Plugin), &context(&self.0, trigger.name(), None), &matching);
                // What ends a session or removes what is due is of nobody, and can't be refused.
                let is_open = trigger.on_failure == OnFailure::Open || self.0.borrow().tx.principal.is_none();
                match done {
                    Err(_) if is_open => self.0.borrow_mut().roll_back(before),
                    Err(error) => return Err(self.said(&error)),
                    Ok(()) => {}
                }
            }
        }
        let name = self.0.borrow().manifest.name.clone();
        Err(Error::refused("plugin-loop", format!("plugin {name} goes round in circles: its triggers run each other")))
    }

    /// What a client is told when the plugin says no.
    fn said(&self, error: &Error) -> Error {
        Error::refused("plugin-refused", format!("{}: {error}", self.0.borrow().manifest.name))
    }

    /// Runs a call, and again while what it waits for holds already.
    pub(super) fn run(&self, ticket: u64, mut reason: Option<Reason>) {
        for _ in 0..=RERUNS {
            match self.run_once(ticket, reason) {
                Ok(Answer::Done(bytes)) => {
                    let state = match reason {
                        Some(Reason::Cancel) => {
                            CallState::Refused(Error::refused("cancelled", "the call was cancelled"))
                        }
                        Some(Reason::SessionEnd) => {
                            CallState::Refused(Error::refused("session-over", "its session is over"))
                        }
                        _ => CallState::Done(bytes),
                    };
                    return self.end(ticket, state);
                }
                Ok(Answer::Park(park)) => {
                    if let Some(call) = self.0.borrow_mut().calls.get_mut(&ticket) {
                        call.kept = park.state.clone().unwrap_or_default();
                        call.state = CallState::Parked(park.clone());
                    }
                    if !self.0.borrow().holds_on(&park, None) {
                        return;
                    }
                    reason = Some(Reason::Change);
                }
                Err(error) => return self.end(ticket, CallState::Refused(error)),
            }
        }
        let name = self.0.borrow().manifest.name.clone();
        let why =
            format!("plugin {name} goes round in circles: what it waits for holds already, {RERUNS} times in a row");
        self.end(ticket, CallState::Refused(Error::refused("plugin-loop", why)));
    }

    fn end(&self, ticket: u64, state: CallState) {
        if let Some(call) = self.0.borrow_mut().calls.get_mut(&ticket) {
            call.state = state;
        }
    }

    fn run_once(&self, ticket: u64, reason: Option<Reason>) -> Result<Answer<Vec<u8>>> {
        let (call, parks, procedure) = {
            let world = self.0.borrow();
            let call = world.calls.get(&ticket).cloned().ok_or("there is no such call")?;
            let parks = world.manifest.procedure(&call.procedure).is_some_and(|procedure| procedure.parks);
            let procedure = world.exports.procedures.and_then(|named| named(&call.procedure.replace('-', "_")));
            (call, parks, procedure.ok_or("there is no such procedure")?)
        };
        let actor = Actor { principal: Some(call.principal), session: call.session };
        let done = match call.state {
            CallState::Done(bytes) => Some(bytes),
            _ => None,
        };
        let resumed = reason.map(|reason| Resumed { reason, state: call.kept, done });
        self.transact(&actor, Some(ticket), |machine| {
            let context = context(&machine.0, "", resumed);
            let answer = procedure(&machine.tree(Rights::Plugin), &context, &call.args);
            let answer = answer.map_err(|error| machine.said(&error))?;
            if let Answer::Park(park) = &answer {
                machine.may_park(park, parks, reason, call.session)?;
            }
            Ok(answer)
        })
    }

    fn may_park(&self, park: &Park, parks: bool, reason: Option<Reason>, session: Option<u64>) -> Result<()> {
        let name = self.0.borrow().manifest.name.clone();
        let failed = |why: String| Err(Error::refused("plugin-failed", format!("plugin {name} failed: {why}")));
        let state = park.state.as_ref().map_err(|error| self.said(error))?;
        if !parks {
            return failed("it parks, and its manifest does not say `parks = true`".to_owned());
        }
        if let Some(reason @ (Reason::Deadline | Reason::Cancel | Reason::SessionEnd)) = reason {
            return failed(format!("it parks again after {reason:?}"));
        }
        if session.is_none() {
            return Err(Error::refused("no-session", "a call that waits needs a session"));
        }
        if !(1..=limits::PARK_CONDITIONS).contains(&park.any_of.len()) {
            return failed(format!(
                "it waits for {} conditions, 1 to {} are allowed",
                park.any_of.len(),
                limits::PARK_CONDITIONS
            ));
        }
        if state.len() > limits::PARK_STATE_BYTES {
            return failed(format!("it parks with {} bytes, {} are allowed", state.len(), limits::PARK_STATE_BYTES));
        }
        park.any_of.iter().try_for_each(|condition| Path::parse(&condition.path).map(drop))
    }

    /// Runs all that was woken, and what that wakes.
    pub(super) fn drain(&self) {
        loop {
            let Some(Woken { path, latched }) = self.0.borrow_mut().wakes.pop_front() else { return };
            for ticket in latched {
                if self.parked(ticket).is_some() {
                    self.run(ticket, Some(Reason::Change));
                }
            }
            let mut last = None;
            while let Some(ticket) = self.next_waiter(&path, last) {
                self.run(ticket, Some(Reason::Change));
                last = Some(ticket);
            }
        }
    }

    /// The next by ticket who is woken one by one by a change of this path, if one of its conditions holds.
    fn next_waiter(&self, path: &str, last: Option<u64>) -> Option<u64> {
        let world = self.0.borrow();
        let after = last.map_or(Unbounded, Excluded);
        let waits = |park: &Park| park.wake == Wake::One && park.any_of.iter().any(|condition| condition.path == path);
        let mut parked = world.calls.range((after, Unbounded)).filter_map(|(ticket, call)| match &call.state {
            CallState::Parked(park) if waits(park) => Some((*ticket, park)),
            _ => None,
        });
        parked.next().filter(|(_, park)| world.holds_on(park, None)).map(|(ticket, _)| ticket)
    }

    pub(super) fn parked(&self, ticket: u64) -> Option<Park> {
        match &self.0.borrow().calls.get(&ticket)?.state {
            CallState::Parked(park) => Some(park.clone()),
            _ => None,
        }
    }

    /// Ends a session: its parked calls are run again first, then its ephemeral znodes go.
    pub(super) fn end_session(&self, session: u64, expired: bool) {
        let parked: Vec<u64> = {
            let world = self.0.borrow();
            let its = world.calls.iter().filter(|(_, call)| call.session == Some(session));
            its.map(|(ticket, _)| *ticket).collect()
        };
        for ticket in parked {
            if self.parked(ticket).is_some() {
                self.run(ticket, Some(Reason::SessionEnd));
                self.drain();
            }
        }
        let Some(principal) = self.0.borrow().sessions.get(&session).map(|session| session.principal.clone()) else {
            return;
        };
        let done = self.transact(&Actor::default(), None, |machine| {
            let ended = crate::Ended { session, principal, expired };
            let run = machine.0.borrow().exports.session_end;
            for trigger in machine.triggers(On::SessionEnd) {
                let before = machine.0.borrow().savepoint();
                let context = context(&machine.0, trigger.name(), None);
                if run.is_some_and(|run| run(&machine.tree(Rights::Plugin), &context, &ended).is_err()) {
                    machine.0.borrow_mut().roll_back(before);
                }
            }
            let mut world = machine.0.borrow_mut();
            let own = world.znodes.iter().filter(|(_, node)| node.stat.owner == Some(session));
            let mut own: Vec<Path> = own.filter_map(|(path, _)| Path::parse(path).ok()).collect();
            own.reverse();
            own.iter().for_each(|path| world.delete(path));
            world.sessions.remove(&session);
            Ok(())
        });
        debug_assert!(done.is_ok(), "the end of a session can't be refused: {done:?}");
        self.drain();
    }

    /// Lets time pass: deadlines, timers, times to live, each at its time.
    pub(super) fn advance(&self, ms: u64) {
        let end = self.0.borrow().now_ms + ms;
        loop {
            let due = self.0.borrow().next_event_ms().filter(|due| *due <= end);
            let Some(due) = due else { break };
            {
                let mut world = self.0.borrow_mut();
                world.now_ms = world.now_ms.max(due);
            }
            self.due();
        }
        self.0.borrow_mut().now_ms = end;
    }

    /// Does what is due now.
    fn due(&self) {
        let now_ms = self.0.borrow().now_ms;
        let expired = self.0.borrow().expired();
        if !expired.is_empty() {
            let gone = self.transact(&Actor::default(), None, |machine| {
                expired.iter().for_each(|path| machine.0.borrow_mut().delete(path));
                Ok(())
            });
            debug_assert!(gone.is_ok(), "what is due can't be refused: {gone:?}");
            self.drain();
        }
        let tickets: Vec<u64> = self.0.borrow().calls.keys().copied().collect();
        for ticket in tickets {
            if self.parked(ticket).and_then(|park| park.until_ms).is_some_and(|until| until <= now_ms) {
                self.run(ticket, Some(Reason::Deadline));
                self.drain();
            }
        }
        let tick = self.0.borrow().exports.timer;
        for (at, trigger) in self.triggers(On::Timer).iter().enumerate() {
            if self.0.borrow().timers[at] > now_ms {
                continue;
            }
            self.0.borrow_mut().timers[at] = now_ms + trigger.every_ms.max(1);
            if let Some(tick) = tick {
                // One that fails is undone, and runs again at its next time.
                let _ = self.transact(&Actor::default(), None, |machine| {
                    tick(&machine.tree(Rights::Plugin), &context(&machine.0, trigger.name(), None))
                });
                self.drain();
            }
        }
    }
}
