//! The components that are shipped, on the real host: checked in, or built from source just now (`CONCLAVE_PREBUILT`).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use conclave_plugin_host::inspect::inspect;
use conclave_plugin_host::local::{Local, Planned, Told, Tree};
use conclave_protocol::plugin::BudgetSettings;
use conclave_protocol::{Create, Op, Set};
use serde::Deserialize;
use serde_json::{Value, json};

const ALL: [&str; 9] =
    ["audit-trail", "barrier", "counter", "discovery-query", "election", "index", "lock", "queue", "schema"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn component(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("CONCLAVE_PREBUILT").map_or_else(|| root().join("plugins/prebuilt"), PathBuf::from);
    let file = folder.join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn in_c() -> Vec<u8> {
    std::fs::read(root().join("plugins/examples/c-rate-limit/rate-limit.wasm")).unwrap()
}

fn local(component: &[u8], tree: &str, settings: &str) -> Local {
    Local::new(component, &Tree::parse(tree).unwrap(), settings.as_bytes(), BudgetSettings::default()).unwrap()
}

fn args(args: &Value) -> Bytes {
    conclave_protocol::codec::encode(args).into()
}

/// What a take gives.
#[derive(Deserialize)]
struct Item {
    claim: String,
    data: Bytes,
}

#[track_caller]
fn answer(planned: Planned) -> Value {
    match planned.outcome {
        Told::Answer { json, .. } => json.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(planned: &Planned) -> &str {
    match &planned.outcome {
        Told::Refused { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

fn create(path: &str, data: &str) -> Op {
    Op::Create(Create::new(path.parse().unwrap(), data.to_owned()))
}

#[test]
fn every_component_that_is_checked_in_is_known_here_and_can_be_run() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("plugins/prebuilt"))
        .unwrap()
        .filter_map(|file| file.unwrap().file_name().to_str().unwrap().strip_suffix(".wasm").map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names, ALL);
    for name in ALL {
        let component = component(name);
        let report = inspect(&component).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(report.manifest.name, name);
        drop(local(&component, "{}", ""));
    }
}

#[test]
fn the_counter_counts() {
    let mut counter = local(&component("counter"), r#"{"/text": "some"}"#, "");
    assert_eq!(answer(counter.call("increment", args(&json!(["/hits"]))).unwrap()), json!(1));
    assert_eq!(answer(counter.call("increment", args(&json!({"path": "/hits", "amount": 41}))).unwrap()), json!(42));
    let planned = counter.call("increment", args(&json!(["/text"]))).unwrap();
    assert!(refused(&planned).contains("not a number"), "{planned:?}");
    let planned = counter.call("increment", args(&json!(["/hits", "x"]))).unwrap();
    assert!(refused(&planned).contains("integer") && planned.changes.is_empty(), "{planned:?}");
}

#[test]
fn a_lock_is_taken_and_given_back() {
    let mut lock = local(&component("lock"), "{}", "");
    let award = answer(lock.call("lock", args(&json!(["/locks/a"]))).unwrap());
    assert_eq!(award["path"], "/locks/a/holder");
    let again = lock.call("lock", args(&json!(["/locks/a"]))).unwrap();
    assert!(refused(&again).contains("holds /locks/a already"), "{again:?}");
    answer(lock.call("unlock", args(&json!({"path": "/locks/a", "zxid": award["zxid"]}))).unwrap());
    answer(lock.call("lock", args(&json!(["/locks/a"]))).unwrap());
}

#[test]
fn what_is_pushed_is_taken_once() {
    let mut queue = local(&component("queue"), "{}", "");
    answer(queue.call("push", args(&json!({"queue": "/queues/q", "data": "mail"}))).unwrap());
    // Its data is a string of bytes, which JSON has none of.
    let planned = queue.call("take", args(&json!(["/queues/q"]))).unwrap();
    let Told::Answer { cbor, .. } = planned.outcome else { panic!("{:?}", planned.outcome) };
    let bytes: Vec<u8> =
        (0..cbor.len()).step_by(2).map(|at| u8::from_str_radix(&cbor[at..at + 2], 16).unwrap()).collect();
    let Item { claim, data } = conclave_protocol::codec::decode(&bytes).unwrap();
    assert_eq!(data, "mail");
    answer(queue.call("ack", args(&json!({"queue": "/queues/q", "claim": claim}))).unwrap());
    let nothing = queue.call("take", args(&json!({"queue": "/queues/q", "wait": "0s"}))).unwrap();
    assert_eq!(answer(nothing), Value::Null);
}

#[test]
fn a_schema_judges_what_is_written_within_the_budgets_that_its_page_names() {
    let settings = r#"{"schemas": [{"paths": "/app/*", "schema": {"type": "object", "required": ["owner"]}}]}"#;
    let budgets = BudgetSettings { fuel: Some(100_000_000), time_ms: Some(50), ..BudgetSettings::default() };
    let tree = Tree::parse(r#"{"/app": "", "/other": ""}"#).unwrap();
    let mut schema = Local::new(&component("schema"), &tree, settings.as_bytes(), budgets).unwrap();
    let planned = schema.write(create("/app/a", r#"{"size": 1}"#)).unwrap();
    assert!(refused(&planned).contains("owner"), "{planned:?}");
    let planned = schema.write(create("/app/a", r#"{"owner": "ann"}"#)).unwrap();
    assert_eq!(planned.outcome, Told::Done, "{:?}", planned.stats);
    assert_eq!(schema.write(create("/other/a", "anything")).unwrap().outcome, Told::Done);
}

#[test]
fn an_index_and_a_trail_follow_what_is_written() {
    let settings = r#"{"indexes": [{"of": "/users/*", "field": "mail", "at": "/by-mail"}]}"#;
    let mut index = local(&component("index"), r#"{"/users": ""}"#, settings);
    let planned = index.write(create("/users/ann", r#"{"mail": "a@x"}"#)).unwrap();
    assert_eq!(planned.outcome, Told::Done);
    assert!(planned.changes.iter().any(|changed| changed.path.as_str().starts_with("/by-mail/")), "{planned:?}");
    let data = r#"{"mail": "b@x"}"#.to_owned();
    let set = Op::Set(Set { path: "/users/ann".parse().unwrap(), data: data.into(), if_version: None });
    let planned = index.write(set).unwrap();
    assert!(planned.changes.iter().any(|changed| changed.kind == "deleted"), "the old value goes: {planned:?}");
}

#[test]
fn the_plugin_in_c_limits_a_rate() {
    let tree = r#"{"/rate-limits": ""}"#;
    let mut limits = local(&in_c(), tree, "");
    let none = limits.call("allow", args(&json!(["/rate-limits/mail"]))).unwrap();
    assert!(refused(&none).contains("no such limit"), "{none:?}");
    let wrong = limits.write(create("/rate-limits/mail", "x")).unwrap();
    assert!(refused(&wrong).contains("it does not begin with a number"), "{wrong:?}");
    assert_eq!(limits.write(create("/rate-limits/mail", "2/s burst 3")).unwrap().outcome, Told::Done);
    let allow = |limits: &mut Local, tokens: u32| {
        answer(limits.call("allow", args(&json!({"path": "/rate-limits/mail", "tokens": tokens}))).unwrap())
    };
    assert_eq!(allow(&mut limits, 1), json!({"allowed": true, "left": 2, "wait_ms": 0}));
    assert_eq!(allow(&mut limits, 2)["left"], json!(0));
    let waits = allow(&mut limits, 1);
    assert_eq!(waits["allowed"], json!(false), "{waits}");
    let much = limits.call("allow", args(&json!({"path": "/rate-limits/mail", "tokens": 4}))).unwrap();
    assert!(refused(&much).contains("the burst of /rate-limits/mail"), "{much:?}");
}
