//! Metrics and health over HTTP, on loopback: `/metrics` for Prometheus, `/healthz`, `/readyz`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use conclave_core::query;
use conclave_protocol::plugin::PluginStats;

use crate::member::Shared;

/// Serves until the listener fails.
pub(crate) async fn run(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(shared);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port has ended");
    }
}

/// Serves for a member whose state is being made again.
pub(crate) async fn quarantined(listener: std::net::TcpListener, why: String) {
    let metrics = "# HELP conclave_quarantined 1 while the state is made again, because it is not believed.\n\
                   # TYPE conclave_quarantined gauge\nconclave_quarantined 1\n\
                   # HELP conclave_ready 1 when clients are served.\n# TYPE conclave_ready gauge\nconclave_ready 0\n";
    let unwell = (StatusCode::SERVICE_UNAVAILABLE, format!("quarantined: {why}\n"));
    let (health, readiness) = (unwell.clone(), unwell);
    let router = Router::new()
        .route("/metrics", get(async move || metrics))
        .route("/healthz", get(async move || health))
        .route("/readyz", get(async move || readiness));
    let served = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, router).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!(%error, "the admin port has ended");
    }
}

async fn healthy(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.is_faulty() { (StatusCode::SERVICE_UNAVAILABLE, "faulty\n") } else { (StatusCode::OK, "healthy\n") }
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    let mut text = String::new();
    let mut metric = |kind: &str, name: &str, help: &str, value: u64| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP conclave_{name} {help}\n# TYPE conclave_{name} {kind}\nconclave_{name} {value}");
    };
    let stats = shared.log.stats();
    metric("counter", "log_fsyncs_total", "fdatasync calls of the log.", stats.fsyncs.load(Ordering::Relaxed));
    metric("counter", "log_entries_total", "Entries written to the log.", stats.entries.load(Ordering::Relaxed));
    metric("counter", "log_bytes_total", "Payload bytes written to the log.", stats.bytes.load(Ordering::Relaxed));
    metric("gauge", "log_last_sync_us", "Duration of the last fdatasync.", stats.last_sync_us.load(Ordering::Relaxed));
    metric("gauge", "log_longest_sync_us", "Longest fdatasync.", stats.longest_sync_us.load(Ordering::Relaxed));
    let counts = shared.publisher.counts();
    metric("counter", "transactions_total", "Transactions applied since the start.", counts.transactions);
    metric("counter", "events_total", "Watch events sent.", counts.events);
    metric("counter", "resyncs_total", "Watches told to read the present state instead.", counts.resyncs);
    metric("gauge", "connections", "Clients connected.", counts.connections as u64);
    metric("gauge", "watches", "Watches.", counts.watches as u64);
    metric("gauge", "waiting_requests", "Requests that wait for their transaction.", counts.waiting as u64);
    metric("gauge", "zxid", "The last transaction published.", shared.publisher.published().0);
    let leadership = *shared.leadership.borrow();
    metric("gauge", "term", "Raft's term.", leadership.term);
    metric("gauge", "is_leader", "1 when this member leads.", u64::from(leadership.is_leader));
    metric("gauge", "ready", "1 when clients are served.", u64::from(shared.is_ready()));
    metric("counter", "planner_resets_total", "Plannings begun again.", shared.resets.load(Ordering::Relaxed));
    metric("counter", "sessions_expired_total", "Sessions ended here.", shared.expired.load(Ordering::Relaxed));
    metric("gauge", "disk_bytes", "Bytes of the tables on disk.", shared.store.disk_bytes().unwrap_or(0));
    metric("gauge", "log_disk_bytes", "Bytes of the log on disk.", shared.log.disk_bytes());
    let purged = shared.log.purged().map_or(0, |purged| purged.index);
    metric("gauge", "log_purged_index", "The last entry that the log has let go.", purged);
    metric("gauge", "log_last_index", "The last entry of the log.", shared.log.last().map_or(0, |last| last.index));
    metric("gauge", "environment", "The N of the directory env-N.", u64::from(shared.store.environment()));
    let counts = shared.checkpointer.counts();
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    metric("counter", "checkpoints_total", "Checkpoints made.", load(&counts.made));
    metric("counter", "checkpoint_failures_total", "Checkpoints that came to nothing.", load(&counts.failed));
    metric("gauge", "checkpoint_last_ms", "How long the last checkpoint took.", load(&counts.last_ms));
    metric("gauge", "checkpoint_rows", "Rows in the checkpoint that is being made.", load(&counts.rows));
    metric("gauge", "checkpoint_disk_bytes", "Bytes of checkpoints on disk.", shared.checkpointer.bytes());
    let newest = shared.checkpointer.newest();
    let index = newest.as_ref().map_or(0, |newest| newest.position().index);
    metric("gauge", "checkpoint_index", "The last entry in the newest checkpoint.", index);
    metric("gauge", "checkpoint_zxid", "Its last transaction.", newest.map_or(0, |newest| newest.zxid().0));
    let carried = &shared.carried;
    metric("counter", "snapshot_sent_bytes_total", "Bytes of checkpoints sent to members.", load(&carried.sent));
    metric("counter", "snapshot_received_bytes_total", "Bytes of checkpoints received.", load(&carried.received));
    metric("counter", "snapshot_resumed_bytes_total", "Bytes that were not sent again.", load(&carried.resumed));
    metric("counter", "snapshots_installed_total", "Checkpoints of others installed.", load(&carried.installed));
    metric("gauge", "quarantined", "1 while the state is made again, because it is not believed.", 0);
    metric("counter", "quarantines_total", "How often the state was not believed.", shared.quarantines);
    metric("gauge", "disk_free_bytes", "Free bytes where the data directory lies.", shared.room.free_bytes());
    let refuses = u64::from(shared.room.refuses_growth());
    metric("gauge", "reserve_held", "1 while the reserve is there.", u64::from(shared.room.reserve_held()));
    metric("counter", "handed_over_total", "Hand-overs because of a slow disk.", shared.room.handed_over());
    metric("gauge", "refuses_growth", "1 when the disk is too full for a larger tree.", refuses);
    let plugins = shared.plugins.counts();
    let stats = shared.plugins.engine().stats(None);
    let sum = |of: fn(&PluginStats) -> u64| stats.iter().map(of).sum();
    metric("counter", "plugin_runs_total", "Runs of plugins on this member.", sum(|stats| stats.runs));
    metric(
        "counter",
        "plugin_refusals_total",
        "Those that ended with the plugin's refusal.",
        sum(|stats| stats.refusals),
    );
    metric("counter", "plugin_failures_total", "Those that trapped or exceeded a budget.", sum(|stats| stats.failures));
    let state = shared.store.snapshot().and_then(|snapshot| query::state(&snapshot));
    metric("gauge", "parked_calls", "Calls that wait.", state.map_or(0, |state| state.parked));
    metric("counter", "plugin_compiles_total", "Components made ready.", load(&plugins.compiled));
    metric("counter", "plugin_compile_failures_total", "Components that can't be run here.", load(&plugins.failed));
    metric("gauge", "plugin_compile_last_ms", "How long the last one took.", load(&plugins.last_ms));
    metric("counter", "plugin_activations_total", "Activations proposed here.", load(&plugins.activated));
    metric("counter", "plugin_rejections_total", "Rejections proposed here.", load(&plugins.rejected));
    metric(
        "gauge",
        "plugin_activation_last_ms",
        "How long the last one waited for members.",
        load(&plugins.activation_ms),
    );
    metric("counter", "plugin_hand_overs_total", "Hand-overs because of a plugin.", load(&plugins.handed_over));
    let readers = shared.store.readers();
    metric("gauge", "snapshots", "Snapshots that are open.", readers.open as u64);
    let oldest = u64::try_from(readers.oldest.as_millis()).unwrap_or(u64::MAX);
    metric("gauge", "oldest_snapshot_ms", "How long the oldest state has been read.", oldest);
    text
}
