//! What a member knows of a plugin's runs, since it started and in memory: how many, how long, and what they logged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave_protocol::Zxid;
use conclave_protocol::plugin::{LogLine, PluginStats};
use hdrhistogram::Histogram;

/// Lines of the log that are kept.
const LINES: usize = 1_000;
/// Differences of a shadow that are kept.
const DIFFERENCES: usize = 20;
/// Characters of a difference.
const DIFFERENCE_CHARACTERS: usize = 500;
/// More plugins than can be installed: beyond, those that ran longest ago are forgotten.
const PLUGINS: usize = 2 * conclave_protocol::limits::PLUGINS;

/// How a run ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Well,
    Refused,
    Failed,
}

/// The records of all plugins, by their names.
#[derive(Default)]
pub(crate) struct Records(Mutex<BTreeMap<String, Arc<Record>>>);

/// One plugin's.
#[derive(Default)]
pub(crate) struct Record(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    stats: PluginStats,
    histograms: Option<Histograms>,
    lines: VecDeque<LogLine>,
    /// The number of the last line.
    number: u64,
}

struct Histograms {
    fuel: Histogram<u32>,
    time_us: Histogram<u32>,
}

impl Records {
    pub(crate) fn of(&self, plugin: &str) -> Arc<Record> {
        let mut records = lock(&self.0);
        if let Some(record) = records.get(plugin) {
            return Arc::clone(record);
        }
        if records.len() >= PLUGINS {
            // Names are the planner's: so many different ones were never installed at a time.
            records.retain(|_, record| Arc::strong_count(record) > 1);
        }
        Arc::clone(records.entry(plugin.to_owned()).or_default())
    }

    pub(crate) fn find(&self, plugin: &str) -> Option<Arc<Record>> {
        lock(&self.0).get(plugin).cloned()
    }

    pub(crate) fn stats(&self) -> Vec<PluginStats> {
        let all: Vec<_> = lock(&self.0).iter().map(|(name, record)| (name.clone(), Arc::clone(record))).collect();
        all.into_iter().map(|(name, record)| record.stats(name)).collect()
    }

    pub(crate) fn forget(&self, plugin: &str) {
        lock(&self.0).remove(plugin);
    }
}

impl Record {
    pub(crate) fn ran(&self, came: Came, fuel: u64, time: Duration) {
        let mut inner = lock(&self.0);
        inner.stats.runs += 1;
        inner.stats.refusals += u64::from(came == Came::Refused);
        inner.stats.failures += u64::from(came == Came::Failed);
        if inner.histograms.is_none() {
            inner.histograms = Histograms::new();
        }
        if let Some(histograms) = &mut inner.histograms {
            histograms.fuel.saturating_record(fuel);
            histograms.time_us.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn compared(&self, difference: Option<&str>) {
        let mut inner = lock(&self.0);
        inner.stats.shadow[0] += 1;
        if let Some(difference) = difference {
            inner.stats.shadow[1] += 1;
            if inner.stats.differences.len() == DIFFERENCES {
                inner.stats.differences.remove(0);
            }
            inner.stats.differences.push(difference.chars().take(DIFFERENCE_CHARACTERS).collect());
        }
    }

    pub(crate) fn log(&self, at_ms: u64, zxid: Zxid, level: &str, line: String) {
        let mut inner = lock(&self.0);
        inner.number += 1;
        if inner.lines.len() == LINES {
            inner.lines.pop_front();
        }
        let number = inner.number;
        inner.lines.push_back(LogLine { number, at_ms, zxid, level: level.to_owned(), line });
    }

    pub(crate) fn stats(&self, plugin: String) -> PluginStats {
        let inner = lock(&self.0);
        let spread = |of: fn(&Histograms) -> &Histogram<u32>| {
            let histogram = inner.histograms.as_ref().map(of);
            histogram.map_or([0; 3], |all| [all.value_at_quantile(0.5), all.value_at_quantile(0.99), all.max()])
        };
        let (fuel, time_us) = (spread(|all| &all.fuel), spread(|all| &all.time_us));
        PluginStats { plugin, fuel, time_us, ..inner.stats.clone() }
    }

    /// Lines with greater numbers.
    pub(crate) fn log_after(&self, number: u64) -> Vec<LogLine> {
        let inner = lock(&self.0);
        let first = inner.lines.partition_point(|line| line.number <= number);
        inner.lines.range(first..).cloned().collect()
    }
}

impl Histograms {
    /// To two digits: about 30 KiB a plugin. None if the bounds were wrong, which they are not.
    fn new() -> Option<Self> {
        const FUEL_MAX: u64 = 1 << 40;
        const TIME_MAX_US: u64 = 100_000_000;
        let of = |most| Histogram::new_with_bounds(1, most, 2).ok();
        Some(Self { fuel: of(FUEL_MAX)?, time_us: of(TIME_MAX_US)? })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and lines: a panic elsewhere leaves nothing half-done that matters.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_how_they_came_out() {
        let records = Records::default();
        let record = records.of("a");
        for (came, fuel) in [(Came::Well, 100), (Came::Refused, 100), (Came::Failed, 1 << 50)] {
            record.ran(came, fuel, Duration::from_micros(25));
        }
        records.of("a").compared(None);
        records.of("a").compared(Some("other"));
        let [stats] = &records.stats()[..] else { panic!("one plugin ran") };
        assert_eq!((stats.plugin.as_str(), stats.runs, stats.refusals, stats.failures), ("a", 3, 1, 1));
        assert_eq!((stats.fuel[0], stats.time_us[0], stats.time_us[2]), (100, 25, 25));
        assert!(stats.fuel[2] >= 1 << 40, "what is beyond the greatest is the greatest");
        assert_eq!((stats.shadow, stats.differences.as_slice()), ([2, 1], &["other".to_owned()][..]));
        records.forget("a");
        assert!(records.stats().is_empty() && records.find("a").is_none());
    }

    #[test]
    fn the_last_thousand_lines_are_kept_with_their_numbers() {
        let record = Record::default();
        for number in 1..=1_005 {
            record.log(7, Zxid(number), "info", number.to_string());
        }
        let lines = record.log_after(0);
        assert_eq!((lines.len(), lines[0].number, lines[0].line.as_str()), (1_000, 6, "6"));
        assert_eq!(record.log_after(1_004).iter().map(|line| line.number).collect::<Vec<_>>(), [1_005]);
        assert!(record.log_after(1_005).is_empty() && record.log_after(u64::MAX).is_empty());
    }

    #[test]
    fn only_so_many_differences_are_kept() {
        let record = Record::default();
        (0..100).for_each(|number| record.compared(Some(&format!("{number}{}", "x".repeat(1_000)))));
        let differences = record.stats(String::new()).differences;
        assert_eq!(differences.len(), DIFFERENCES);
        assert!(differences[0].starts_with("80x") && differences[0].len() == DIFFERENCE_CHARACTERS);
    }
}
