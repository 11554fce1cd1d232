//! Plugins tried out on a tree in memory, without a cluster.
#![allow(clippy::unwrap_used)]

mod kit;

use bytes::Bytes;
use conclave_plugin_host::inspect::inspect;
use conclave_plugin_host::local::{Local, Told, Tree};
use conclave_protocol::plugin::BudgetSettings;
use conclave_protocol::{Create, Op};
use kit::*;

const NEEDS: &str = "[[needs]]\npaths = [\"/**\"]\nops = [\"read\", \"create\", \"write\", \"delete\"]\n";
const TREE: &str = "{\"/app/x\": \"on\", \"/app/list\": [1, 2], \"/empty\": null}";

fn probe() -> Vec<u8> {
    let manifest = "[[procedure]]\nname = \"create\"\nparams = [\"p: path\"]\n[[procedure]]\nname = \"set\"\nparams = [\"p: path\"]\n";
    guest(conclave_guests::text("probe"), &["procedures"], &format!("{NEEDS}{manifest}"))
}

#[test]
fn a_call_gives_the_transaction_that_it_would_make() {
    let tree = Tree::parse(TREE).unwrap();
    let mut local = Local::new(&probe(), &tree, b"", BudgetSettings::default()).unwrap();
    let planned = local.call("set", Bytes::from_static(b"\x81\x66/app/x")).unwrap();
    assert!(matches!(planned.outcome, Told::Answer { .. }), "{:?}", planned.outcome);
    let [changed] = &planned.changes[..] else { panic!("{:?}", planned.changes) };
    assert_eq!((changed.kind.as_str(), changed.path.as_str(), changed.version), ("data", "/app/x", 1));
    assert!(planned.rows.iter().any(|row| row.table == "data" && row.value.as_deref() == Some("/victim")));
    assert_eq!(planned.stats[0].runs, 1);
    // The next one is a transaction of its own.
    let planned = local.call("create", Bytes::from_static(b"\x81\x66/app/x")).unwrap();
    let Told::Refused { code, message } = planned.outcome else { panic!("{:?}", planned.outcome) };
    assert_eq!((code.as_str(), message.as_str()), ("plugin-refused", "guest: /app/x exists already"));
    assert!(planned.changes.is_empty());
    let planned = local.call("create", Bytes::new()).unwrap();
    assert!(matches!(planned.outcome, Told::Refused { code, .. } if code == "bad-arguments"));
}

#[test]
fn a_write_runs_the_triggers_of_the_plugin() {
    let call = "(func (export \"call\") (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32)
        (call $log (i32.const 2) (i32.const 16) (i32.const 7))
        (i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (local.get 3))
        (i32.store (i32.const 264) (local.get 4)) (i32.const 256))";
    let gate = guest(call, &["before"], "[[trigger]]\non = \"before\"\npaths = [\"/app/**\"]");
    let mut local = Local::new(&gate, &Tree::parse(TREE).unwrap(), b"", BudgetSettings::default()).unwrap();
    let create = |path: &str| Op::Create(Create::new(path.parse().unwrap(), "1"));
    let planned = local.write(create("/app/new")).unwrap();
    assert_eq!(planned.outcome, Told::Refused { code: "plugin-refused".into(), message: "guest: /app/new".into() });
    assert_eq!((planned.log.len(), planned.log[0].level.as_str()), (1, "warn"));
    assert_eq!(local.write(create("/free")).unwrap().outcome, Told::Done);
}

#[test]
fn a_bench_measures_calls_and_says_why_it_cannot() {
    let tree = Tree::parse(TREE).unwrap();
    let local = Local::new(&probe(), &tree, b"", BudgetSettings::default()).unwrap();
    let bench = local.bench(&tree, "set", &Bytes::from_static(b"\x81\x66/app/x"), 50).unwrap();
    assert!(bench.calls == 50 && bench.fuel > 0 && bench.calls_per_s > 0.0 && bench.time_us[0] <= bench.time_us[2]);
    let why = local.bench(&tree, "set", &Bytes::from_static(b"\x81\x65/none"), 50).unwrap_err();
    assert_eq!(why, "guest: /none does not exist");
}

#[test]
fn what_is_no_tree_or_no_plugin_is_said() {
    for text in ["", "[]", "{\"a\": 1}", "{\"/a\": 1"] {
        assert!(Tree::parse(text).unwrap_err().contains("an object from paths to data"), "{text}");
    }
    let tree = Tree::parse("{}").unwrap();
    let error = Local::new(b"garbage", &tree, b"", BudgetSettings::default()).err().unwrap();
    assert!(error.contains("no WebAssembly component"), "{error}");
}

#[test]
fn a_report_says_what_is_known_from_the_bytes() {
    let report = inspect(&probe()).unwrap();
    assert_eq!(report.digest, digest(&probe()).to_string());
    assert_eq!(report.exports, ["conclave:plugin/procedures@0.1.0"]);
    assert_eq!(report.imports.len(), 3);
    assert_eq!(report.memory_bytes, 131_072);
    assert!(report.code_bytes > 100 && report.functions >= 3);
    assert_eq!(report.may[0], "read, create, write, delete on /**, as whoever calls it");
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["manifest"]["name"], "guest");
    assert!(inspect(b"garbage").is_err());
}
