//! What is told of plugins' runs: this member's, and every member's that answers.

use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::MemberId;
use conclave_protocol::plugin::{LogLine, PluginStats};
use futures::future::join_all;

use crate::member::Shared;
use crate::peer::wire;

/// How long other members have to tell.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// Lines of a plugin's log that are told at a time.
const LOG_LINES: usize = 256;

/// What this member knows of the runs of a plugin, or of all.
pub(crate) fn own_stats(shared: &Shared, plugin: Option<&str>) -> Vec<PluginStats> {
    let mut stats = shared.plugins.engine().stats(plugin);
    stats.iter_mut().for_each(|stats| stats.member = Some(shared.id));
    stats
}

/// Lines of a plugin's log on this member, with numbers after this one.
pub(crate) fn own_log(shared: &Shared, plugin: &str, after: u64) -> Vec<LogLine> {
    let mut lines = shared.plugins.engine().log_after(plugin, after);
    lines.truncate(LOG_LINES);
    lines
}

/// What all members know that answer: by plugin, then by member.
pub(crate) async fn stats(shared: &Arc<Shared>, plugin: Option<String>) -> Vec<PluginStats> {
    let members = shared.replica.membership().nodes;
    let asked = members.into_keys().map(async |id| {
        if id == shared.id.0 {
            return own_stats(shared, plugin.as_deref());
        }
        match shared.peers.ask(id, wire::Request::PluginStats(plugin.clone()), TELL_WITHIN).await {
            Ok(wire::Response::PluginStats(stats)) => stats,
            Ok(_) | Err(_) => Vec::new(),
        }
    });
    let mut stats: Vec<PluginStats> = join_all(asked).await.into_iter().flatten().collect();
    stats.sort_by(|a, b| (&a.plugin, a.member).cmp(&(&b.plugin, b.member)));
    stats
}

/// Lines of a plugin's log of the member that leads: that runs all but queries.
///
/// # Errors
/// Why there are none.
pub(crate) async fn log(shared: &Arc<Shared>, plugin: String, after: u64) -> Result<(MemberId, Vec<LogLine>), String> {
    let leader = shared.leadership.borrow().leader.ok_or_else(|| "no member leads at present".to_owned())?;
    if leader == shared.id.0 {
        return Ok((shared.id, own_log(shared, &plugin, after)));
    }
    match shared.peers.ask(leader, wire::Request::PluginLog { plugin, after }, TELL_WITHIN).await {
        Ok(wire::Response::PluginLog(lines)) => Ok((MemberId(leader), lines)),
        Ok(_) => Err(format!("member {leader}, which leads, answered something else")),
        Err(error) => Err(format!("member {leader}, which leads, did not tell its log: {error}")),
    }
}
