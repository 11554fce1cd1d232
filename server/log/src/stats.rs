//! Counters of the log's thread, for metrics, for the watchdog of slow disks, and for `doctor`.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Counts since the log was opened. Read at any time, from any thread.
#[derive(Debug)]
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
    /// When the write or sync began that goes on now, in milliseconds on a monotonic clock of this value's own, at
    /// least 1; 0 if none does. [`Stats::busy_for`] reads it.
    pub busy_since: AtomicU64,
    /// The disk is full and the log waits for room: nothing that is queued is written or told.
    pub full: AtomicBool,
    origin: Instant,
    syncs: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            fsyncs: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_sync_us: AtomicU64::new(0),
            longest_sync_us: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            full: AtomicBool::new(false),
            origin: Instant::now(),
            syncs: Histogram::default(),
        }
    }
}

impl Stats {
    /// How long the present write or sync has been going on; `None` if the log's thread is not at the disk. Waiting
    /// for room on a full disk is not counted.
    pub fn busy_for(&self) -> Option<Duration> {
        let since = self.busy_since.load(Relaxed).checked_sub(1)?;
        Some(self.origin.elapsed().saturating_sub(Duration::from_millis(since)))
    }

    /// The duration in microseconds that a share `quantile` (0 to 1) of the last few thousand syncs did not exceed, a
    /// quarter too high at most; `None` before the first.
    pub fn sync_quantile_us(&self, quantile: f64) -> Option<u64> {
        self.syncs.quantile(quantile)
    }

    /// Marks the log's thread as busy for as long as the returned value lives.
    pub(crate) fn busy(&self) -> Busy<'_> {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.busy_since.store(now + 1, Relaxed);
        Busy(self)
    }

    pub(crate) fn synced(&self, times: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.fsyncs.fetch_add(times, Relaxed);
        self.last_sync_us.store(us, Relaxed);
        self.longest_sync_us.fetch_max(us, Relaxed);
        self.syncs.add(us / times.max(1));
    }

    pub(crate) fn wrote(&self, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// See [`Stats::busy`].
pub(crate) struct Busy<'a>(&'a Stats);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy_since.store(0, Relaxed);
    }
}

/// Counts by duration, four buckets to each doubling. One thread adds, any may read.
#[derive(Debug)]
struct Histogram([AtomicU64; BUCKETS]);

/// Up to 2³³ µs, two hours.
const BUCKETS: usize = 128;
/// When there are so many, all counts are halved: so the newest weigh most, and a bad hour is forgotten.
const AGED: u64 = 4096;

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    fn add(&self, us: u64) {
        self.0[bucket(us)].fetch_add(1, Relaxed);
        if self.total() >= AGED {
            for count in &self.0 {
                count.store(count.load(Relaxed) / 2, Relaxed);
            }
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.total();
        // Far below 2⁵², so exact.
        let mut left = ((total as f64) * quantile.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        for (bucket, count) in self.0.iter().enumerate() {
            let count = count.load(Relaxed);
            if left <= count {
                return Some(greatest(bucket));
            }
            left -= count;
        }
        None
    }
}

fn bucket(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let doublings = us.ilog2();
    let quarter = (us >> (doublings - 2)) & 3;
    ((doublings as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The greatest duration that falls into `bucket`.
fn greatest(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    ((bucket as u64 % 4 + 5) << (bucket / 4 - 1)) - 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_a_quarter_less_than_its_greatest() {
        for us in (0..5000).chain([1 << 20, (1 << 20) + 77, 3_000_000_000]) {
            let greatest = greatest(bucket(us));
            assert!(us <= greatest && greatest <= us + us / 4, "{us} in {greatest}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_follow_the_newest_syncs() {
        let stats = Stats::default();
        assert_eq!(stats.sync_quantile_us(0.99), None);
        for us in 1..=100 {
            stats.synced(1, Duration::from_micros(us * 100));
        }
        let (median, high) = (stats.sync_quantile_us(0.5).unwrap(), stats.sync_quantile_us(0.99).unwrap());
        assert!((5_000..6_250).contains(&median) && (9_900..12_375).contains(&high), "{median} {high}");
        for _ in 0..60_000 {
            stats.synced(1, Duration::from_micros(3));
        }
        assert_eq!(stats.sync_quantile_us(0.999), Some(3), "a bad hour is forgotten");
    }

    #[test]
    fn busy_is_told_while_it_lasts() {
        let stats = Stats::default();
        assert_eq!(stats.busy_for(), None);
        let busy = stats.busy();
        assert!(stats.busy_for().is_some() && stats.busy_since.load(Relaxed) > 0);
        drop(busy);
        assert_eq!(stats.busy_for(), None);
    }
}
