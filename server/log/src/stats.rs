//! Counters of the log's thread, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts since the log was opened. Read at any time, from any thread.
#[derive(Debug, Default)]
pub struct Stats {
    /// Calls of fdatasync for batches and votes.
    pub fsyncs: AtomicU64,
    /// Entries written.
    pub entries: AtomicU64,
    /// Payload bytes written.
    pub bytes: AtomicU64,
    /// Duration of the last sync, in microseconds.
    pub last_sync_us: AtomicU64,
    /// Longest sync, in microseconds.
    pub longest_sync_us: AtomicU64,
}

impl Stats {
    pub(crate) fn synced(&self, times: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.fsyncs.fetch_add(times, Relaxed);
        self.last_sync_us.store(us, Relaxed);
        self.longest_sync_us.fetch_max(us, Relaxed);
    }

    pub(crate) fn wrote(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}
