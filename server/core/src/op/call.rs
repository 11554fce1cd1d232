//! Calls of plugins' procedures, from the first run to the end or to where they park, and their cancelling.

use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::{Call, Outcome, Path, Refusal, Value, Zxid, codec, limits};

use super::park;
use crate::plugin::{Ended, Found, Park, Reason, Resumed, Wanted, What};
use crate::plugins::Ready;
use crate::row::{Parked, Phase, Session};
use crate::tx::within;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, key, query, tree};

/// How often a call that parks for what holds already is run again at once.
const AT_ONCE: usize = 4;

/// Bytes of the result of a procedure that may park: it lies in the session's rows until it is acknowledged.
const PARKED_RESULT_BYTES: usize = 64 << 10;

/// A call that can be run.
pub(crate) struct Begun {
    pub(crate) plugin: Arc<Ready>,
    pub(crate) procedure: String,
    pub(crate) args: Bytes,
    pub(crate) root: Path,
    pub(crate) ticket: Zxid,
    /// It may park.
    pub(crate) parks: bool,
}

/// How far a call came.
pub(crate) enum Came {
    /// To its end.
    Done(Bytes),
    /// It waits for what does not hold yet.
    Parks(Park),
}

pub(crate) fn call(tx: &mut Tx, call: &Call) -> Result<Value, Stop> {
    within("bytes of arguments", limits::CALL_BYTES, call.args.len())?;
    let plugins = Arc::clone(&tx.plugins);
    let installed = plugins.installed(&call.plugin)?;
    let version = &installed.row.info.version;
    let plugin = installed.ready();
    plugin.runs()?;
    let Some(procedure) = version.manifest.procedure(&call.procedure) else {
        let Call { plugin, procedure, .. } = call.clone();
        return Err(Refusal::NoProcedure { plugin, procedure }.into());
    };
    // Whether it parks this time shows when it has run. A client that is told so at once opens a session and asks again.
    if procedure.parks && tx.session().is_none() {
        let what = format!("{} {}, which may have to wait,", call.plugin, call.procedure);
        return Err(Refusal::NoSession { what }.into());
    }
    let mut begun = Begun {
        plugin,
        procedure: call.procedure.clone(),
        args: call.args.clone(),
        root: call.root.clone(),
        ticket: tx.zxid(),
        parks: procedure.parks,
    };
    let came = begun.proceed(tx, None)?;
    let place = tx.session().zip(tx.sequence).filter(|_| begun.parks);
    let phase = match &came {
        Came::Done(_) => Phase::Answered,
        Came::Parks(park) => Phase::Waiting { park: park.clone(), since: tx.zxid() },
    };
    if let Some((session, sequence)) = place {
        let parked = Parked {
            plugin: call.plugin.clone(),
            digest: begun.plugin.digest(),
            allowed: version.allowed.clone(),
            procedure: begun.procedure,
            args: begun.args,
            root: begun.root,
            ticket: begun.ticket,
            since_ms: tx.now_ms(),
            phase,
        };
        park::begin(tx, session, sequence, &parked)?;
    }
    Ok(match came {
        Came::Done(bytes) => Value::Called(bytes),
        Came::Parks(_) => Value::Parked,
    })
}

impl Begun {
    /// The call of this row, to be run again with the component that it began with.
    pub(crate) fn again(tx: &Tx, row: &Parked) -> Result<Self, Refusal> {
        let plugin = tx.plugins.installed(&row.plugin)?.begun_with(row.digest, &row.allowed);
        plugin.runs()?;
        Ok(Self {
            plugin,
            procedure: row.procedure.clone(),
            args: row.args.clone(),
            root: row.root.clone(),
            ticket: row.ticket,
            parks: true,
        })
    }

    /// Runs it until it is done, or parks for what does not hold yet.
    pub(crate) fn proceed(&mut self, tx: &mut Tx, mut resumed: Option<Resumed>) -> Result<Came, Stop> {
        for _ in 0..=AT_ONCE {
            let must_end = resumed.as_ref().is_some_and(|resumed| resumed.reason != Reason::Change);
            let what = What::Procedure {
                name: self.procedure.clone(),
                args: self.args.clone(),
                ticket: self.ticket,
                resumed: resumed.take(),
            };
            let (ended, args) = self.plugin.run(tx, &self.root, what)?;
            if let Some(args) = args {
                self.args = args;
            }
            let park = match ended {
                Ended::Done(bytes) => {
                    let most = if self.parks { PARKED_RESULT_BYTES } else { limits::CALL_BYTES };
                    within("bytes of the procedure's result", most, bytes.len())?;
                    return Ok(Came::Done(bytes));
                }
                Ended::Park(park) => park,
                Ended::Verdict(_) => return Err(self.failed("it answers as a trigger")),
            };
            if !self.parks {
                return Err(self.failed("it parks, and its manifest does not say that it does"));
            }
            if must_end {
                return Err(self.failed("it parks again, though it is to end"));
            }
            within("conditions of the parked call", limits::PARK_CONDITIONS, park.any_of.len())?;
            within("bytes of the parked call's state", limits::PARK_STATE_BYTES, park.state.len())?;
            if park.any_of.is_empty() {
                return Err(self.failed("it parks for nothing"));
            }
            for wanted in &park.any_of {
                self.plugin.may_wait_for(tx, &wanted.path)?;
            }
            if !any_holds(tx, &park.any_of)? {
                return Ok(Came::Parks(park));
            }
            resumed = Some(Resumed { reason: Reason::Change, state: park.state, done: None });
        }
        let why = format!("it parked {} times for what holds already", AT_ONCE + 1);
        Err(Refusal::PluginLoop { plugin: self.plugin.name.clone(), why }.into())
    }

    fn failed(&self, why: &str) -> Stop {
        Refusal::PluginFailed { plugin: self.plugin.name.clone(), why: why.to_owned() }.into()
    }
}

/// Whether any of them holds.
pub(crate) fn any_holds(base: &dyn Base, wanted: &[Wanted]) -> Result<bool, Fault> {
    for one in wanted {
        if holds(base, one)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether it holds. Asks nobody's rights: those were asked when the call parked, and the run that it leads to asks again.
pub(crate) fn holds(base: &dyn Base, wanted: &Wanted) -> Result<bool, Fault> {
    Ok(wanted.test.holds(find(base, &wanted.path)?))
}

/// What is tested of a znode.
pub(crate) fn find(base: &dyn Base, path: &Path) -> Result<Option<Found>, Fault> {
    let found = tree::resolve(base, path)?;
    Ok(found.map(|(_, znode)| Found { version: znode.stat.version, children: znode.stat.children }))
}

/// Cancels a call of the session: it is run again to give back what it took.
pub(crate) fn cancel(tx: &mut Tx, sequence: u64) -> Result<Value, Stop> {
    let session = tx.session().ok_or_else(|| Refusal::NoSession { what: "cancelling a call".to_owned() })?;
    let Some(row) = tx.typed::<Parked>(Table::Parked, &key::parked(session, sequence))? else {
        let next = query::session(tx, session)?.map_or(0, |row: Session| row.next);
        return Err(if sequence >= next {
            Refusal::BadRequest { why: format!("sequence {sequence} was not used yet") }.into()
        } else {
            Refusal::AlreadyDone { sequence }.into()
        });
    };
    let (state, done) = match &row.phase {
        Phase::Waiting { park, .. } => (park.state.clone(), None),
        Phase::Completed(reply) => (Bytes::new(), result(&reply.outcome)?),
        Phase::Answered => {
            let owner = query::session(tx, session)?;
            let reply = owner.map(|owner| query::reply(tx, session, &owner, sequence)).transpose()?.flatten();
            let reply = reply.ok_or(Refusal::AlreadyDone { sequence })?;
            (Bytes::new(), result(&reply.outcome)?)
        }
    };
    let is_waiting = matches!(row.phase, Phase::Waiting { .. });
    // One that ended with a refusal has nothing to give back.
    if is_waiting || done.is_some() {
        let before = tx.savepoint();
        let resumed = Resumed { reason: Reason::Cancel, state, done };
        match Begun::again(tx, &row).map_err(Stop::from).and_then(|mut begun| begun.proceed(tx, Some(resumed))) {
            Ok(_) => {}
            // It waits no more in any case; what it wrote to take its place is the plugin's to answer for.
            Err(Stop::Refused(_)) if is_waiting => tx.restore(before),
            Err(stop) => return Err(stop),
        }
    }
    park::forget(tx, session, sequence, &row)?;
    Ok(Value::Cancelled)
}

/// What a call returned, by its outcome; none if it was refused.
fn result(outcome: &[u8]) -> Result<Option<Bytes>, Fault> {
    match codec::decode::<Outcome>(outcome) {
        Ok(Ok(Value::Called(bytes))) => Ok(Some(bytes)),
        Ok(_) => Ok(None),
        Err(error) => Err(Fault::Row { table: Table::Parked, why: error.to_string() }),
    }
}
