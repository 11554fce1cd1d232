//! Metrics and health over HTTP, on loopback: `/metrics` for Prometheus, `/healthz`, `/readyz`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

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
    let readers = shared.store.readers();
    metric("gauge", "snapshots", "Snapshots that are open.", readers.open as u64);
    let oldest = u64::try_from(readers.oldest.as_millis()).unwrap_or(u64::MAX);
    metric("gauge", "oldest_snapshot_ms", "How long the oldest state has been read.", oldest);
    text
}
