//! Plugins, their parked calls, statistics and log, as JSON under names that stay.

use conclave_protocol::plugin::{
    LogLine, Need, ParkedCall, PluginInfo, PluginState, PluginStats, Procedure, RunsAs, Trigger, Version,
};
use serde_json::{Map, Value, json};

use crate::reply::data;

/// An installed plugin.
#[must_use]
pub fn info(info: &PluginInfo) -> Value {
    let PluginInfo { name, state, version, next, previous, settings, budgets, installer, activated, parked, rejected } =
        info;
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(name));
    object.insert("state".to_owned(), json!(state.name()));
    if let PluginState::Suspended { why, at_ms } = state {
        object.insert("suspended".to_owned(), json!({ "why": why, "at_ms": at_ms }));
    }
    object.insert("version".to_owned(), self::version(version));
    let next = next.as_ref().map(|next| json!({ "version": self::version(&next.version), "shadow": next.shadow }));
    object.insert("next".to_owned(), json!(next));
    object.insert("previous".to_owned(), json!(previous.as_ref().map(self::version)));
    data(&mut object, "settings", settings);
    object.insert("budgets".to_owned(), json!(budgets));
    object.insert("installer".to_owned(), json!(installer));
    object.insert("activated".to_owned(), json!(activated));
    object.insert("parked".to_owned(), json!(parked));
    object.insert("rejected".to_owned(), json!(rejected));
    object.into()
}

/// One component of a plugin.
#[must_use]
pub fn version(version: &Version) -> Value {
    let Version { digest, component_bytes, manifest, allowed } = version;
    json!({
        "version": manifest.version,
        "digest": digest.to_string(),
        "component_bytes": component_bytes,
        "world": manifest.world,
        "description": manifest.description,
        "runs_as": match manifest.runs_as { RunsAs::Caller => "caller", RunsAs::Plugin => "plugin" },
        "needs": needs(&manifest.needs),
        "allowed": needs(allowed),
        "triggers": manifest.triggers.iter().map(trigger).collect::<Vec<_>>(),
        "procedures": manifest.procedures.iter().map(procedure).collect::<Vec<_>>(),
        "queries": manifest.queries.iter().map(procedure).collect::<Vec<_>>(),
    })
}

/// What a plugin needs, or is allowed.
#[must_use]
pub fn needs(needs: &[Need]) -> Value {
    needs.iter().map(|need| json!({ "paths": need.paths, "ops": need.ops })).collect()
}

fn trigger(trigger: &Trigger) -> Value {
    json!({
        "name": trigger.name(),
        "on": trigger.on,
        "kinds": trigger.kinds,
        "paths": trigger.paths,
        "order": trigger.order,
        "on_failure": trigger.on_failure,
        "every_ms": trigger.every_ms,
    })
}

fn procedure(procedure: &Procedure) -> Value {
    let params: Vec<String> = procedure.params.iter().map(ToString::to_string).collect();
    json!({ "name": procedure.name, "params": params, "parks": procedure.parks })
}

/// A parked call.
#[must_use]
pub fn call(call: &ParkedCall) -> Value {
    json!(call)
}

/// What a member knows of a plugin's runs.
#[must_use]
pub fn stats(stats: &PluginStats) -> Value {
    let PluginStats { plugin, member, runs, refusals, failures, fuel, time_us, shadow, differences } = stats;
    let of = |three: &[u64; 3]| json!({ "p50": three[0], "p99": three[1], "max": three[2] });
    json!({
        "plugin": plugin,
        "member": member,
        "runs": runs,
        "refusals": refusals,
        "failures": failures,
        "fuel": of(fuel),
        "time_us": of(time_us),
        "shadow": { "runs": shadow[0], "differences": shadow[1], "first": differences },
    })
}

/// A line of a plugin's log.
#[must_use]
pub fn log_line(line: &LogLine) -> Value {
    json!(line)
}
