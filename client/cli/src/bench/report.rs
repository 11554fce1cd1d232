//! What came out: one line for people, one object for programs.

use clap::ValueEnum;
use serde::Serialize;

use super::load::Tally;
use crate::args::Bench;
use crate::out::table;

/// `bench --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: String,
    clients: u32,
    depth: u32,
    size: usize,
    seconds: f64,
    operations: u64,
    ops_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    errors: u64,
    /// The longest time in which no request of any client was completed.
    longest_gap_ms: u64,
    /// In words; none when there were no errors.
    pub(super) first_error: Option<String>,
}

impl Report {
    pub(super) fn new(args: &Bench, tallies: &[Tally]) -> Self {
        let mut all = Tally::new();
        for tally in tallies {
            // All have the same bounds, so adding cannot fail.
            let _ = all.latency_us.add(&tally.latency_us);
            all.errors += tally.errors;
            all.gap_us = all.gap_us.max(tally.gap_us);
            all.first_error = all.first_error.or_else(|| tally.first_error.clone());
        }
        let quantile = |q| if all.latency_us.is_empty() { 0 } else { all.latency_us.value_at_quantile(q) };
        let operations = all.latency_us.len();
        #[expect(clippy::cast_precision_loss, reason = "operations are far fewer than 2^52")]
        let ops_per_s = (operations as f64 / args.seconds * 10.0).round() / 10.0;
        Self {
            workload: args.workload.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
            clients: args.clients,
            depth: args.depth,
            size: args.size,
            seconds: args.seconds,
            operations,
            ops_per_s,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: quantile(1.0),
            errors: all.errors,
            longest_gap_ms: all.gap_us / 1000,
            first_error: all.first_error,
        }
    }

    pub(super) fn text(&self) -> String {
        let row = vec![
            self.workload.clone(),
            self.clients.to_string(),
            self.depth.to_string(),
            format!("{:.0}", self.ops_per_s),
            span(self.p50_us),
            span(self.p99_us),
            span(self.p999_us),
            self.errors.to_string(),
            format!("{} ms", self.longest_gap_ms),
        ];
        let header = ["WORKLOAD", "CLIENTS", "DEPTH", "OPS/S", "P50", "P99", "P99.9", "ERRORS", "LONGEST GAP"];
        table(&header, &[false, true, true, true, true, true, true, true, true], &[row])
    }
}

/// Microseconds for people.
fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::Workload;

    fn args() -> Bench {
        Bench {
            workload: Workload::Counter,
            clients: 2,
            depth: 8,
            seconds: 2.0,
            size: 100,
            warmup: 1.0,
            linearizable: false,
            keep: false,
        }
    }

    #[test]
    fn programs_get_every_field_by_its_name() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        for _ in 0..99 {
            one.latency_us.record(100).unwrap();
        }
        other.latency_us.record(5_000).unwrap();
        other.errors = 3;
        other.first_error = Some("asleep".into());
        one.gap_us = 7_900;
        let report = Report::new(&args(), &[one, other]);
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            json!({
                "workload": "counter", "clients": 2, "depth": 8, "size": 100, "seconds": 2.0, "operations": 100,
                "ops_per_s": 50.0, "p50_us": 100, "p99_us": 100, "p999_us": 5023, "max_us": 5023, "errors": 3,
                "longest_gap_ms": 7, "first_error": "asleep",
            })
        );
        assert_eq!(
            report.text(),
            "WORKLOAD  CLIENTS  DEPTH  OPS/S     P50     P99   P99.9  ERRORS  LONGEST GAP\n\
             counter         2      8     50  100 µs  100 µs  5.0 ms       3         7 ms\n"
        );
    }

    #[test]
    fn a_run_in_which_nothing_was_done_has_no_latency() {
        let report = Report::new(&args(), &[Tally::new()]);
        assert_eq!((report.operations, report.p50_us, report.max_us), (0, 0, 0));
    }

    #[test]
    fn times_are_written_for_people() {
        assert_eq!([999, 1_250, 12_500, 12_000_000].map(span), ["999 µs", "1.2 ms", "12 ms", "12 s"]);
    }
}
