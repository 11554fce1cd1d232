//! Calls a plugin's procedure inside the transaction.

use std::collections::BTreeMap;

use conclave_protocol::{Call, Path, Refusal, Value, limits};

use crate::authority::{Action, authorize};
use crate::plan::{Procedure, Procedures};
use crate::row::Plugin;
use crate::tx::within;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, query};

/// What runs procedures, and which components cannot be run.
pub(crate) struct Plugins {
    procedures: Box<dyn Procedures>,
    /// By digest: why not.
    failed: BTreeMap<[u8; 32], String>,
}

impl Plugins {
    /// Makes every installed plugin ready. One that can't be run is remembered: calls of it are refused.
    pub(crate) fn prepare(base: &dyn Base, mut procedures: Box<dyn Procedures>) -> Result<Self, Fault> {
        let mut failed = BTreeMap::new();
        for (_, plugin) in query::plugins(base)? {
            let component = query::component(base, &plugin.digest, plugin.chunks)?;
            if let Err(why) = procedures.prepare(plugin.digest, &component) {
                failed.insert(plugin.digest, why);
            }
        }
        Ok(Self { procedures, failed })
    }

    /// Makes a plugin ready that this transaction installs.
    pub(crate) fn install(&mut self, digest: [u8; 32], component: &[u8]) {
        match self.procedures.prepare(digest, component) {
            Ok(()) => self.failed.remove(&digest),
            Err(why) => self.failed.insert(digest, why),
        };
    }
}

pub(crate) fn call(tx: Tx, call: &Call, plugins: &mut Plugins) -> (Tx, Result<Value, Stop>) {
    let procedure = match find(&tx, call, plugins) {
        Ok(procedure) => procedure,
        Err(stop) => return (tx, Err(stop)),
    };
    let (mut tx, done) = plugins.procedures.call(tx, procedure);
    // A fault below the plugin is this member's, whatever the plugin made of it.
    let done = match tx.take_fault() {
        Some(fault) => Err(fault.into()),
        None => done.map_err(Stop::Refused).and_then(|bytes| {
            within("bytes of the procedure's result", limits::CALL_BYTES, bytes.len())?;
            Ok(Value::Called(bytes))
        }),
    };
    (tx, done)
}

fn find(tx: &Tx, call: &Call, plugins: &Plugins) -> Result<Procedure, Stop> {
    authorize(tx.principal(), Action::Call, &Path::root())?;
    within("bytes of arguments", limits::CALL_BYTES, call.args.len())?;
    let Some(plugin) = query::plugin(tx, &call.plugin)? else {
        return Err(Refusal::NoPlugin { plugin: call.plugin.clone() }.into());
    };
    let Plugin { digest, settings, .. } = plugin;
    if let Some(why) = plugins.failed.get(&digest) {
        return Err(Refusal::PluginFailed { plugin: call.plugin.clone(), why: why.clone() }.into());
    }
    let Call { plugin, procedure, args } = call.clone();
    Ok(Procedure { plugin, digest, settings, procedure, args })
}
