//! The planner's part in plugins: what must be ready, what failed, timers, and running parked calls again.

use std::collections::BTreeMap;

use bytes::Bytes;
use conclave_protocol::plugin::{On, PluginState, Version};
use conclave_protocol::{Path, Refusal, Value};

use super::Growth;
use crate::entry::Origin;
use crate::op::call::{Begun, Came};
use crate::op::growth;
use crate::op::park::{self, Due};
use crate::op::trigger::{self, Binding};
use crate::plugin::{Resumed, Runner, What};
use crate::row::Phase;
use crate::tree::typed;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, key, query};

/// Runs that fail one after the other until a plugin is suspended.
const FAILURES: u32 = 50;

/// The first active plugin that can't be run here, with all that its parked calls began with, and why; what comes before it is
/// ready afterwards.
pub(super) fn missing(base: &dyn Base, runner: &dyn Runner) -> Result<Option<(String, String)>, Fault> {
    for (name, row) in query::plugins(base)? {
        if row.info.state != PluginState::Active {
            continue;
        }
        // What ran before is only for calls that began with it.
        let parked: Option<u64> = typed(base, Table::Calls, &key::calls_of(&name))?;
        let needed = row.ran().take(if parked.is_some() { usize::MAX } else { 1 });
        for Version { digest, component_bytes, .. } in needed {
            if runner.is_ready(*digest) {
                continue;
            }
            let component = query::component(base, digest, *component_bytes)?;
            let lost = || Fault::Invariant(format!("the component {digest} of plugin {name} is not there"));
            if let Err(why) = runner.prepare(*digest, &component.ok_or_else(lost)?) {
                return Ok(Some((name, why)));
            }
        }
    }
    Ok(None)
}

/// How often plugins failed one time after the other.
#[derive(Default)]
pub(super) struct Failures {
    counts: BTreeMap<String, u32>,
    failing: Vec<(String, String)>,
    /// Those of which a run failed in what was planned last.
    pub(super) latest: Vec<String>,
}

impl Failures {
    pub(super) fn count(&mut self, runs: impl IntoIterator<Item = (String, bool)>) {
        for (plugin, failed) in runs {
            if failed && !self.latest.contains(&plugin) {
                self.latest.push(plugin.clone());
            }
            if !failed {
                self.counts.remove(&plugin);
                continue;
            }
            let count = self.counts.entry(plugin.clone()).or_default();
            *count += 1;
            if *count >= FAILURES {
                self.counts.remove(&plugin);
                self.failing.push((plugin, format!("it failed {FAILURES} times one after the other")));
            }
        }
    }

    pub(super) fn take(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.failing)
    }
}

/// See [`Planner::timers`](super::Planner::timers).
pub(super) fn timers(base: &dyn Base) -> Result<Vec<(String, String, u64)>, Fault> {
    let mut timers = Vec::new();
    for (name, row) in query::plugins(base)? {
        if row.info.state != PluginState::Active {
            continue;
        }
        for trigger in row.info.version.manifest.triggers.iter().filter(|trigger| trigger.on == On::Timer) {
            timers.push((name.clone(), trigger.name().to_owned(), trigger.every_ms));
        }
    }
    Ok(timers)
}

/// Runs a timer's trigger; false when nothing came of it.
pub(super) fn tick(tx: &mut Tx, plugin: &str, trigger: &str) -> Result<bool, Fault> {
    let Ok(installed) = tx.plugins.installed(plugin) else { return Ok(false) };
    if installed.row.info.state != PluginState::Active {
        return Ok(false);
    }
    let ready = installed.ready();
    match ready.run(tx, &Path::root(), What::Timer { trigger: trigger.to_owned() }) {
        Ok(_) => Ok(tx.rows_written() > 0),
        // What it wrote goes with the transaction.
        Err(Stop::Refused(_)) => Ok(false),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Runs a parked call again.
pub(super) fn run_again(tx: &mut Tx, due: &Due, growth: Growth) -> Result<Came, Stop> {
    let reason = due.reason.clone()?;
    let Phase::Waiting { park, .. } = &due.row.phase else {
        return Err(Fault::Invariant("a call that does not wait is run again".to_owned()).into());
    };
    let mut begun = Begun::again(tx, &due.row)?;
    tx.sequence = Some(due.sequence);
    let resumed = Resumed { reason, state: park.state.clone(), done: None };
    let came = begun.proceed(tx, Some(resumed))?;
    trigger::after(tx, Binding::Asked)?;
    growth::within(tx, &Value::Parked, growth)?;
    Ok(came)
}

/// Writes down what became of a call that was run again: whom the transaction is of, and the outcome to tell.
pub(super) fn end_or_park(tx: &mut Tx, due: Due, ran: Result<Came, Refusal>) -> Result<(Origin, Bytes), Fault> {
    let Due { session, sequence, mut row, wake: (key, wake), .. } = due;
    match wake {
        Some(woken) => tx.put_row(Table::Wake, &key, &woken),
        None => tx.remove(Table::Wake, &key),
    }
    let outcome = match ran {
        Ok(Came::Parks(park)) => {
            park::repark(tx, session, sequence, &mut row, park);
            return Ok((Origin::Leader, Bytes::new()));
        }
        Ok(Came::Done(bytes)) => Ok(Value::Called(bytes)),
        Err(refusal) => Err(refusal),
    };
    let reply = park::complete(tx, session, sequence, row, &outcome)?;
    Ok((Origin::Completion { session, sequence }, reply.outcome))
}
