//! Plugins as people read them.

use conclave_client::Zxid;
use conclave_client::plugin::{LogLine, ParkedCall, PluginInfo, PluginState, PluginStats, Procedure, Version};
use conclave_script::Dialect;

use super::{budget, in_words};
use crate::out::{plural, table};

/// All of them, a row each.
pub(super) fn list(plugins: &[PluginInfo]) -> String {
    let row = |info: &PluginInfo| {
        vec![
            info.name.clone(),
            info.version.manifest.version.clone(),
            info.state.name().to_owned(),
            info.parked.to_string(),
            info.version.manifest.procedures.len().to_string(),
            info.version.manifest.triggers.len().to_string(),
            note(info),
        ]
    };
    let rows: Vec<Vec<String>> = plugins.iter().map(row).collect();
    let header = ["PLUGIN", "VERSION", "STATE", "PARKED", "PROCEDURES", "TRIGGERS", ""];
    table(&header, &[false, false, false, true, true, true, false], &rows)
}

/// What else there is to say of it.
fn note(info: &PluginInfo) -> String {
    match (&info.state, &info.next, &info.rejected) {
        (PluginState::Suspended { why, .. }, ..) => why.clone(),
        (_, Some(next), _) if next.shadow => format!("{} runs as a shadow", next.version.manifest.version),
        (_, Some(next), _) => format!("{} is made ready", next.version.manifest.version),
        (_, None, Some(why)) => format!("rejected: {why}"),
        _ => String::new(),
    }
}

/// One of them, whole.
pub(super) fn one(info: &PluginInfo) -> String {
    let manifest = &info.version.manifest;
    let mut lines = vec![("plugin", format!("{} {}", info.name, manifest.version))];
    if !manifest.description.is_empty() {
        lines.push(("", manifest.description.clone()));
    }
    lines.push(("state", state(info)));
    lines.push(("component", component(&info.version)));
    if let Some(next) = &info.next {
        let what = if next.shadow { "runs as a shadow" } else { "is made ready" };
        lines.push(("next", format!("{} {what}, {}", next.version.manifest.version, component(&next.version))));
    }
    if let Some(previous) = &info.previous {
        lines.push(("previous", format!("{}, {}", previous.manifest.version, component(previous))));
    }
    if let Some(why) = &info.rejected {
        lines.push(("rejected", why.clone()));
    }
    let allowed = conclave_client::plugin::Manifest { needs: info.version.allowed.clone(), ..manifest.clone() };
    let allowed = in_words(&allowed);
    lines.extend(labelled("allowed", allowed.into_iter(), "nothing"));
    lines.extend(labelled("procedures", manifest.procedures.iter().map(procedure), ""));
    lines.extend(labelled("queries", manifest.queries.iter().map(procedure), ""));
    let trigger = |one: &conclave_client::plugin::Trigger| {
        let paths: Vec<&str> = one.paths.iter().map(conclave_protocol::PathPattern::as_str).collect();
        format!("{} {}", one.name(), paths.join(", ")).trim_end().to_owned()
    };
    lines.extend(labelled("triggers", manifest.triggers.iter().map(trigger), ""));
    let mut budgets = info.budgets;
    let set = budget::named(&mut budgets).into_iter().filter_map(|(name, budget)| Some((name, (*budget)?)));
    let set: Vec<String> = set.map(|(name, number)| format!("{name}={number}")).collect();
    lines.push(("budgets", if set.is_empty() { "the defaults".to_owned() } else { set.join(" ") }));
    lines.push(("settings", format!("{} byte{}", info.settings.len(), plural(info.settings.len() as u64))));
    lines.push(("parked", format!("{} call{}", info.parked, plural(info.parked))));
    lines.push(("installed by", info.installer.clone()));
    lines.iter().map(|(label, text)| format!("{label:<13}{text}\n")).collect()
}

/// The lines of a list: its label before the first.
fn labelled(label: &'static str, lines: impl Iterator<Item = String>, none: &str) -> Vec<(&'static str, String)> {
    let mut labelled: Vec<(&str, String)> = lines.map(|line| ("", line)).collect();
    match labelled.first_mut() {
        Some(first) => first.0 = label,
        None if !none.is_empty() => labelled.push((label, none.to_owned())),
        None => {}
    }
    labelled
}

fn procedure(procedure: &Procedure) -> String {
    let params: Vec<String> = procedure.params.iter().map(ToString::to_string).collect();
    let parks = if procedure.parks { ", may wait" } else { "" };
    format!("{}({}){parks}", procedure.name, params.join(", "))
}

fn component(version: &Version) -> String {
    let digest = version.digest.to_string();
    format!("{} KB, sha256:{}…", version.component_bytes.div_ceil(1024), &digest[..12])
}

fn state(info: &PluginInfo) -> String {
    let since = |zxid: Option<Zxid>| zxid.map(|zxid| format!(" since zxid {zxid}")).unwrap_or_default();
    match &info.state {
        PluginState::Active => format!("active{}", since(info.activated)),
        PluginState::Suspended { why, .. } => {
            format!("suspended: {why}; `conclave plugin enable {}` runs it again", info.name)
        }
        other => other.name().to_owned(),
    }
}

/// What is said when an installation is over.
pub(super) fn active(info: &PluginInfo, members: usize) -> String {
    let version = &info.version.manifest.version;
    match (&info.next, info.activated) {
        (Some(next), _) => {
            format!("{} {} runs as a shadow of {version}", info.name, next.version.manifest.version)
        }
        (None, Some(zxid)) if members > 0 => {
            format!("{} {version} is active at zxid {zxid}, in a cluster of {members}", info.name)
        }
        (None, Some(zxid)) => format!("{} {version} is active at zxid {zxid}", info.name),
        (None, None) => format!("{} {version} is {}", info.name, info.state.name()),
    }
}

/// What is said when something was done.
pub(super) fn done(done: &str, info: &PluginInfo) -> String {
    format!("{done}: {} {} is {}", info.name, info.version.manifest.version, info.state.name())
}

/// Parked calls: who waits for what.
pub(super) fn calls(dialect: &Dialect, calls: &[ParkedCall]) -> String {
    let row = |call: &ParkedCall| {
        let waits: Vec<String> = call.waits_for.iter().map(|one| format!("{} {}", one.path, one.test)).collect();
        vec![
            call.ticket.to_string(),
            call.plugin.clone(),
            call.procedure.clone(),
            call.session.to_string(),
            dialect.short(&call.principal).to_owned(),
            waits.join(", or "),
        ]
    };
    let rows: Vec<Vec<String>> = calls.iter().map(row).collect();
    let heads = ["TICKET", "PLUGIN", "PROCEDURE", "SESSION", "PRINCIPAL", "WAITS FOR"];
    table(&heads, &[true, false, false, true, false, false], &rows)
}

/// What plugins cost.
pub(super) fn stats(stats: &[PluginStats]) -> String {
    let row = |one: &PluginStats| {
        let member = one.member.map_or_else(|| "-".to_owned(), |member| member.to_string());
        let [median, most, _] = one.time_us;
        let shadow =
            if one.shadow[0] == 0 { "-".to_owned() } else { format!("{} of {} differ", one.shadow[1], one.shadow[0]) };
        vec![
            one.plugin.clone(),
            member,
            one.runs.to_string(),
            one.refusals.to_string(),
            one.failures.to_string(),
            one.fuel[1].to_string(),
            format!("{median}/{most} µs"),
            shadow,
        ]
    };
    let rows: Vec<Vec<String>> = stats.iter().map(row).collect();
    let header = ["PLUGIN", "MEMBER", "RUNS", "REFUSED", "FAILED", "FUEL P99", "TIME P50/P99", "SHADOW"];
    let mut text = table(&header, &[false, true, true, true, true, true, true, false], &rows);
    for (one, difference) in stats.iter().flat_map(|one| one.differences.iter().map(move |line| (one, line))) {
        text.push_str(&format!("{}: {difference}\n", one.plugin));
    }
    text
}

/// A line of a log.
pub(super) fn log_line(line: &LogLine) -> String {
    format!("{:<5} zxid {}  {}", line.level, line.zxid, line.line)
}
