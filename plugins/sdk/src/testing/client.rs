//! Clients of the tree for tests, and the calls that they make.

use conclave_protocol::plugin::Procedure;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::{Actor, Machine};
use super::host::{self, Rights};
use super::world::{self, Call, CallState};
use crate::tree::{Create, Stat};
use crate::{Answer, Error, Path, Result, cbor};

/// A session of a client, or a client without one.
#[derive(Clone)]
pub struct TestClient {
    pub(super) machine: Machine,
    pub(super) actor: Actor,
}

/// A call of a procedure: answered, refused or parked.
#[derive(Clone)]
pub struct TestCall {
    machine: Machine,
    ticket: u64,
}

impl TestClient {
    /// Calls a procedure. Arguments are a map, an array of positionals, or null.
    ///
    /// # Panics
    /// When the arguments can't be serialized.
    pub fn call(&self, procedure: &str, args: impl Serialize) -> TestCall {
        let args = ciborium::Value::serialized(&args).expect("arguments that can be serialized");
        let machine = self.machine.clone();
        let (args, refused) = {
            let world = machine.0.borrow();
            match arguments(&world.manifest.name, procedure, world.manifest.procedure(procedure), args) {
                Ok(args) => (args, None),
                Err(refused) => (Vec::new(), Some(refused)),
            }
        };
        let ticket = {
            let mut world = machine.0.borrow_mut();
            // The transaction of the first run takes this number; of a call that never runs, nobody does.
            let ticket = world.zxid + 1;
            world.zxid += u64::from(refused.is_some());
            let state = refused.clone().map_or(CallState::Running, CallState::Refused);
            let principal = self.actor.principal.clone().unwrap_or_default();
            let (procedure, session) = (procedure.to_owned(), self.actor.session);
            let (kept, acknowledged) = (Vec::new(), false);
            world.calls.insert(ticket, Call { procedure, args, principal, session, state, kept, acknowledged });
            ticket
        };
        if refused.is_none() {
            machine.run(ticket, None);
            machine.drain();
        }
        TestCall { machine, ticket }
    }

    /// Asks a query.
    ///
    /// # Errors
    /// What it says, or what is wrong with the arguments.
    ///
    /// # Panics
    /// When the arguments can't be serialized.
    pub fn query<T: DeserializeOwned>(&self, query: &str, args: impl Serialize) -> Result<T> {
        let args = ciborium::Value::serialized(&args).expect("arguments that can be serialized");
        let (args, run, name) = {
            let mut world = self.machine.0.borrow_mut();
            let args = arguments(&world.manifest.name, query, world.manifest.query(query), args)?;
            let (principal, session) = (self.actor.principal.clone(), self.actor.session);
            world.tx = world::Tx { principal, session, ..world::Tx::default() };
            (args, world.exports.queries.and_then(|named| named(&query.replace('-', "_"))), world.manifest.name.clone())
        };
        let run = run.ok_or_else(|| format!("there is no query {query}"))?;
        let (tree, context) = (self.machine.tree(Rights::Reads("a query")), host::context(&self.machine.0, "", None));
        match run(&tree, &context, &args) {
            Ok(Answer::Done(bytes)) => cbor::decode(&bytes, "the answer"),
            Ok(Answer::Park(_)) => Err("a query can't park".into()),
            Err(error) => Err(Error::refused("plugin-refused", format!("{name}: {error}"))),
        }
    }

    /// Creates a znode.
    ///
    /// # Errors
    /// The refusal.
    pub fn create(&self, path: &str, data: impl AsRef<[u8]>, how: Create) -> Result<Path> {
        self.transact(|tree| tree.create(path, data, how).map(|created| created.path))
    }

    /// Sets a znode's data.
    ///
    /// # Errors
    /// The refusal.
    pub fn set(&self, path: &str, data: impl AsRef<[u8]>) -> Result<Stat> {
        self.transact(|tree| tree.set(path, data))
    }

    /// Deletes a znode.
    ///
    /// # Errors
    /// The refusal.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.transact(|tree| tree.delete(path))
    }

    /// A transaction of several steps: all of them, or none.
    ///
    /// # Errors
    /// The first refusal.
    pub fn transact<T>(&self, steps: impl FnOnce(&crate::Tree) -> Result<T>) -> Result<T> {
        let done = self.machine.transact(&self.actor, None, |machine| steps(&machine.tree(Rights::All)));
        self.machine.drain();
        done
    }

    /// Closes the session.
    pub fn close(&self) {
        if let Some(session) = self.actor.session {
            self.machine.end_session(session, false);
        }
    }

    /// Lets the session expire.
    pub fn expire(&self) {
        if let Some(session) = self.actor.session {
            self.machine.end_session(session, true);
        }
    }

    /// The session's number; 0 for a client without one.
    #[must_use]
    pub fn session_id(&self) -> u64 {
        self.actor.session.unwrap_or_default()
    }
}

impl TestCall {
    /// It waits.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.machine.parked(self.ticket).is_some()
    }

    /// What it waits for, in words: `absent /locks/a/holder`; empty when it does not wait.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let park = self.machine.parked(self.ticket);
        let conditions = park.map(|park| park.any_of).unwrap_or_default();
        conditions.iter().map(|condition| format!("{:?} {}", condition.test, condition.path)).collect()
    }

    /// Its answer.
    ///
    /// # Errors
    /// Its refusal; that it is parked; that the answer is something else than `T`.
    pub fn reply<T: DeserializeOwned>(&self) -> Result<T> {
        match self.state() {
            CallState::Done(bytes) => cbor::decode(&bytes, "the answer"),
            CallState::Refused(error) => Err(error),
            CallState::Parked(_) | CallState::Running => Err("the call is parked".into()),
        }
    }

    /// It is answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state(), CallState::Done(_))
    }

    /// Why it was refused, if it was.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        match self.state() {
            CallState::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// Withdraws the call, also when it is answered: it is run again to give back what it took.
    ///
    /// # Errors
    /// `already-done` when its answer was acknowledged or it was refused; the refusal of the run that should have given back.
    pub fn cancel(&self) -> Result<()> {
        let acknowledged = self.machine.0.borrow().calls.get(&self.ticket).is_none_or(|call| call.acknowledged);
        if acknowledged || self.refusal().is_some() {
            return Err(Error::refused("already-done", "the call is done, and its end was acknowledged"));
        }
        self.machine.run(self.ticket, Some(crate::Reason::Cancel));
        self.machine.drain();
        match self.refusal() {
            Some(error) if !error.is("cancelled") => Err(error),
            _ => Ok(()),
        }
    }

    /// Acknowledges the answer: it can't be withdrawn any more.
    pub fn acknowledge(&self) {
        if let Some(call) = self.machine.0.borrow_mut().calls.get_mut(&self.ticket) {
            call.acknowledged = true;
        }
    }

    fn state(&self) -> CallState {
        let call = self.machine.0.borrow().calls.get(&self.ticket).map(|call| call.state.clone());
        call.unwrap_or(CallState::Running)
    }
}

fn arguments(plugin: &str, name: &str, procedure: Option<&Procedure>, args: ciborium::Value) -> Result<Vec<u8>> {
    let Some(procedure) = procedure else {
        return Err(Error::refused("no-procedure", format!("plugin {plugin} has no procedure or query {name}")));
    };
    match super::args::complete(&procedure.params, args) {
        Ok(args) => cbor::encode(&args),
        Err(why) => Err(Error::refused("bad-arguments", format!("{plugin} {name}: {why}"))),
    }
}
