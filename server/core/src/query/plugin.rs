//! What is told of plugins and their parked calls, and asking a plugin.

use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::plugin::{Awaited, ParkedCall, PluginInfo};
use conclave_protocol::{Answer, Call, Path, Refusal, SessionId, Zxid, limits};

use super::{plugin, plugins, session};
use crate::authority::administers;
use crate::plugin::{Ended, Runner, What};
use crate::plugins::{Plugins, Ready};
use crate::row::{self, Parked, Phase, Plugin};
use crate::tree::typed;
use crate::tx::within;
use crate::view::{Base, Stop, Tx, View};
use crate::{Fault, Table, key};

/// Installed plugins. Settings may hold secrets: they are for administrators.
pub(super) fn all(base: &dyn Base, principal: &str, name: Option<&str>) -> Result<Answer, Stop> {
    let found = match name {
        Some(name) => {
            let row = plugin(base, name)?.ok_or_else(|| Refusal::NoPlugin { plugin: name.to_owned() })?;
            vec![(name.to_owned(), row)]
        }
        None => plugins(base)?,
    };
    let sees_settings = administers(base, principal)?;
    let mut told: Vec<PluginInfo> = Vec::with_capacity(found.len());
    for (name, Plugin { mut info, .. }) in found {
        info.parked = typed(base, Table::Calls, &key::calls_of(&name))?.unwrap_or_default();
        if !sees_settings {
            info.settings = Bytes::new();
        }
        told.push(info);
    }
    Ok(Answer::Plugins(told))
}

/// A page of a plugin's parked calls.
pub(super) fn calls(
    base: &dyn Base,
    principal: &str,
    plugin: &str,
    after: Option<Zxid>,
    limit: u32,
) -> Result<Answer, Stop> {
    within("bytes of the plugin's name", limits::NAME_BYTES, plugin.len())?;
    let sees_all = administers(base, principal)?;
    let limit = limit.clamp(1, limits::PAGE_CHILDREN) as usize;
    let prefix = key::calls_of(plugin);
    let mut last = after.map_or_else(|| prefix.clone(), |after| key::call(plugin, after));
    let mut calls = Vec::new();
    loop {
        let rows = base.scan(Table::Calls, &prefix, Some(&last), limit + 1)?;
        let is_end = rows.len() <= limit;
        for (key, value) in rows {
            let (owner, sequence): (SessionId, u64) = row::decode(Table::Calls, &value)?;
            if let Some(call) = told(base, owner, sequence)?.filter(|call| sees_all || call.principal == principal) {
                if calls.len() == limit {
                    return Ok(Answer::Calls { calls, more: true });
                }
                calls.push(call);
            }
            last = key;
        }
        if is_end {
            return Ok(Answer::Calls { calls, more: false });
        }
    }
}

fn told(base: &dyn Base, owner: SessionId, sequence: u64) -> Result<Option<ParkedCall>, Fault> {
    let row: Option<Parked> = typed(base, Table::Parked, &key::parked(owner, sequence))?;
    let (Some(row), Some(owned)) = (row, session(base, owner)?) else { return Ok(None) };
    let Phase::Waiting { park, .. } = row.phase else { return Ok(None) };
    let awaited = |wanted: crate::plugin::Wanted| Awaited { test: wanted.test.to_string(), path: wanted.path };
    Ok(Some(ParkedCall {
        plugin: row.plugin,
        procedure: row.procedure,
        ticket: row.ticket,
        session: owner,
        sequence,
        principal: owned.principal,
        waits_for: park.any_of.into_iter().map(awaited).collect(),
        since_ms: row.since_ms,
        until_ms: park.until_ms,
    }))
}

/// Asks a plugin, over this state.
///
/// # Errors
/// A fault of this member. A refusal is an answer.
pub fn call(
    base: Box<dyn Base>,
    runner: Arc<dyn Runner>,
    principal: &str,
    session: Option<SessionId>,
    now_ms: u64,
    call: &Call,
) -> Result<Result<Bytes, Refusal>, Fault> {
    let plugins = Arc::new(Plugins::empty(runner));
    let mut tx = Tx::reading(View::new(base), plugins, now_ms, principal, session)?;
    match ask(&mut tx, call) {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn ask(tx: &mut Tx, call: &Call) -> Result<Bytes, Stop> {
    within("bytes of arguments", limits::CALL_BYTES, call.args.len())?;
    let row = plugin(tx, &call.plugin)?.ok_or_else(|| Refusal::NoPlugin { plugin: call.plugin.clone() })?;
    let ready = Ready::of(call.plugin.clone(), &row.info);
    ready.runs()?;
    if row.info.version.manifest.query(&call.procedure).is_none() {
        let Call { plugin, procedure: query, .. } = call.clone();
        return Err(Refusal::NoQuery { plugin, query }.into());
    }
    let what = What::Query { name: call.procedure.clone(), args: call.args.clone() };
    let root: &Path = &call.root;
    match ready.run(tx, root, what)? {
        (Ended::Done(bytes), _) => {
            within("bytes of the query's result", limits::CALL_BYTES, bytes.len())?;
            Ok(bytes)
        }
        _ => Err(Refusal::PluginFailed { plugin: call.plugin.clone(), why: "it parks in a query".to_owned() }.into()),
    }
}
