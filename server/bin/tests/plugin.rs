//! `conclave plugin run` and `bench`, run as programs: a component tried without a cluster, within budgets of one's own.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Ran, done, run};
use serde_json::Value;

const COUNTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/prebuilt/counter.wasm");

fn counter(dir: &Path, command: &str, budgets: &[&str]) -> Ran {
    let mut options: Vec<&str> = budgets.iter().flat_map(|budget| ["--budget", budget]).collect();
    if command == "bench" {
        options.extend(["--calls", "50"]);
    }
    run(dir, &[&["plugin", command, COUNTER, "--call", "increment", "/hits", "5"], &options[..]].concat())
}

#[test]
fn what_one_run_may_spend_is_as_said_or_as_in_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Time enough for a busy machine: fuel is the same on all.
    let within = |command: &str, fuel: &str| counter(dir, command, &["time_ms=5000", fuel]);
    for command in ["run", "bench"] {
        let refused = within(command, "fuel=100");
        assert_eq!(refused.code, 1, "{command}: {}", refused.out);
        let said = "counter failed: fuel: more than the 100 units of its budget";
        let code = if command == "run" { "plugin-failed: plugin" } else { "not-measured: increment: plugin" };
        assert!(refused.err.starts_with(&format!("refused: {code} {said}")), "{command}: {}", refused.err);
        for enough in ["fuel=10000000", "fuel=default"] {
            let ran = within(command, enough);
            assert_eq!(ran.code, 0, "{command}: {}", ran.err);
        }
    }
    // The last one of a name holds, as with `plugin install`.
    assert_eq!(counter(dir, "run", &["time_ms=5000", "fuel=100", "fuel=default"]).code, 0);
    let few = counter(dir, "run", &["time_ms=5000", "host_calls=0"]);
    assert!(few.code == 1 && few.err.contains("host-calls: more than the 0 calls"), "{}", few.err);
}

#[test]
fn a_budget_above_the_usual_one_lets_a_guest_run_that_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let index = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/prebuilt/index.wasm");
    let tree: serde_json::Map<String, Value> =
        (0..400).map(|n| (format!("/people/{n}"), serde_json::json!({ "name": format!("n{n}") }))).collect();
    std::fs::write(dir.join("tree.json"), serde_json::json!(tree).to_string()).unwrap();
    std::fs::write(dir.join("index.json"), r#"{"indexes": [{"of": "/people/*", "field": "name", "at": "/by-name"}]}"#)
        .unwrap();
    let rebuild = ["plugin", "run", index, "--tree", "tree.json", "--settings", "index.json", "--call", "rebuild"];
    let rebuild = [&rebuild[..], &["at=/by-name", "limit=400", "--budget", "time_ms=60000", "--json"]].concat();
    let refused = run(dir, &rebuild);
    assert_eq!(refused.code, 1, "{}", refused.out);
    let planned: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(planned["outcome"]["refused"]["code"], "plugin-failed", "{planned}");
    let said = planned["outcome"]["refused"]["message"].as_str().unwrap();
    assert!(said.contains("fuel: more than the 10000000 units of its budget"), "{said}");
    let ran = done(dir, &[&rebuild[..], &["--budget", "fuel=1000000000"]].concat());
    let planned: Value = serde_json::from_str(&ran).unwrap();
    assert_eq!(planned["outcome"]["answer"]["json"]["seen"], 400, "{}", planned["outcome"]);
}

#[test]
fn a_budget_that_makes_no_sense_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["run", "bench"] {
        for (budget, said) in [
            ("gas=1", "\"gas\" is none of fuel, time_ms, memory_bytes, host_calls, rows, written_bytes, read_bytes"),
            ("fuel", "write NAME=NUMBER, such as time_ms=50"),
            ("fuel=much", "it is no number, nor `default`"),
            ("fuel=-1", "it is no number, nor `default`"),
        ] {
            let ran = counter(dir.path(), command, &[budget]);
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{command} {budget}: {}", ran.err);
            assert_eq!(ran.err, format!("error: --budget {budget}: {said}\n"), "{command}");
        }
        let ran = run(dir.path(), &["--json", "plugin", command, COUNTER, "--call", "increment", "--budget", "gas=1"]);
        let error: Value = serde_json::from_str(&ran.err).unwrap();
        let error = &error["error"];
        assert_eq!(
            (ran.code, &error["code"], &error["exit"]),
            (2, &"usage".into(), &2.into()),
            "as the client's: {error}"
        );
        assert_eq!(error["outcome"], "not-applied");
        let help = done(dir.path(), &["plugin", command, "--help"]);
        assert!(help.contains("--budget <NAME=NUMBER>"), "{help}");
    }
}
