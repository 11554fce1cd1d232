//! Guests that misbehave: each is refused with the name of what it did, and the host goes on.
#![allow(clippy::unwrap_used)]

mod kit;

use std::time::{Duration, Instant};

use conclave_core::plugin::Runner;
use conclave_guests::{Ends, GUESTS, text};
use conclave_plugin_host::{Budgets, Error, Host};
use conclave_protocol::Refusal;
use conclave_protocol::plugin::BudgetSettings;
use kit::*;

#[test]
fn a_misbehaving_guest_is_refused_by_name_and_the_host_goes_on() {
    for (name, text, ends) in GUESTS {
        let component = procedure(text);
        // More often than there are instances in the pool: each is given back.
        for _ in 0..if name == "rows" { 1 } else { 40 } {
            let mut ran = run(&HOST, &component, run_of(&component, call()));
            match (ends, &ran.ended) {
                (Ends::Well, Ok(_)) => {}
                (Ends::Refused, Err(Refusal::PluginRefused { message, .. })) => assert!(message.len() <= 1_024),
                (Ends::Failed(why), Err(Refusal::PluginFailed { plugin, why: actual })) => {
                    assert!(plugin == "guest" && actual.starts_with(why), "{name}: {actual}");
                }
                (_, ended) => panic!("{name}: {ended:?}"),
            }
            // What it wrote came back with the transaction, for the planner to drop.
            assert!(!is_there(&mut ran.tx, "/victim") || name == "probe", "{name}");
            assert!(ran.fuel > 0 && ran.fuel <= Budgets::default().fuel, "{name}: {}", ran.fuel);
        }
    }
    let well = procedure(text("well"));
    assert!(run(&HOST, &well, run_of(&well, call())).ended.is_ok());
}

#[test]
fn what_a_failed_run_wrote_is_undone_by_the_planner() {
    let component = guest(
        text("trap"),
        &["procedures"],
        &format!("{PROCEDURE}[[needs]]\npaths = [\"/victim\"]\nops = [\"delete\"]"),
    );
    let mut leader = Leader::new(&[("guest", &component)], HOST.clone());
    leader.create("/victim").unwrap();
    let refused = leader.call("guest", "run", b"").unwrap_err();
    assert_eq!(refused.to_string(), "plugin guest failed: trap: it gave up (a panic)");
    assert_eq!(leader.create("/victim").unwrap_err().code(), "znode-exists");
}

#[test]
fn a_plugins_own_budgets_hold_instead_of_the_hosts() {
    let set = |change: fn(&mut BudgetSettings)| {
        let mut budgets = BudgetSettings::default();
        change(&mut budgets);
        budgets
    };
    for (name, budgets, why) in [
        ("loop", set(|set| set.fuel = Some(1_000)), "fuel: more than the 1000 units"),
        ("memory", set(|set| set.memory_bytes = Some(1 << 20)), "memory: more than the 1048576 bytes"),
        ("memory", set(|set| set.memory_bytes = Some(64 << 20)), "memory: more than the 67108864 bytes"),
        ("host-calls", set(|set| set.host_calls = Some(10)), "host-calls: more than the 10 calls"),
        ("well", set(|set| set.host_calls = Some(0)), "host-calls: more than the 0 calls"),
        ("rows", set(|set| set.rows = Some(20)), "rows: more than the 20 rows"),
        ("rows", set(|set| set.written_bytes = Some(2_000)), "written-bytes: more than the 2000 bytes"),
        ("random", set(|set| set.read_bytes = Some(u64::MAX)), "call-bytes"),
        ("random", set(|set| set.read_bytes = Some(5)), "read-bytes: more than the 5 bytes"),
        ("well", set(|set| set.memory_bytes = Some(65_536)), "memory: more than the 65536 bytes"),
    ] {
        let component = procedure(text(name));
        let ran = run(&HOST, &component, conclave_core::plugin::Run { budgets, ..run_of(&component, call()) });
        match ran.ended {
            Err(Refusal::PluginFailed { why: actual, .. }) => assert!(actual.starts_with(why), "{name}: {actual}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn no_more_fuel_is_spent_than_the_transaction_has_left() {
    let component = procedure(text("loop"));
    let mut asked = run_of(&component, call());
    asked.fuel_left = 5_000;
    let ran = run(&HOST, &component, asked);
    assert_eq!(ran.fuel, 5_000);
    assert!(matches!(ran.ended, Err(Refusal::PluginFailed { why, .. }) if why.starts_with("fuel: more than the 5000")));
}

#[test]
fn the_clock_ends_a_run_that_has_fuel() {
    let time = Duration::from_millis(20);
    let host = Host::new(Budgets { fuel: u64::MAX / 2, time: Some(time), ..Budgets::default() }).unwrap();
    let component = procedure(text("loop"));
    for (own, time) in [(None, time), (Some(5), Duration::from_millis(5)), (Some(40), 2 * time)] {
        let budgets = BudgetSettings { time_ms: own, ..BudgetSettings::default() };
        let started = Instant::now();
        let ran = run(&host, &component, conclave_core::plugin::Run { budgets, ..run_of(&component, call()) });
        let why = format!("time: more than the {} ms of its budget", time.as_millis());
        assert_eq!(ran.ended, Err(Refusal::PluginFailed { plugin: "guest".into(), why }));
        assert!(started.elapsed() >= time);
    }
}

#[test]
fn what_is_logged_and_counted_can_be_read() {
    let host = Host::new(unhurried()).unwrap();
    for name in ["log", "trap", "refusal"] {
        let component = procedure(text(name));
        drop(run(&host, &component, run_of(&component, call())));
    }
    let lines = host.log_after("guest", 0);
    // A hundred lines of the one that logs, and one that says what failed.
    assert_eq!(lines.len(), 101);
    assert_eq!((lines[0].level.as_str(), lines[0].line.as_str(), lines[0].at_ms), ("info", "/victim", 1_000));
    assert!(lines[100].line.contains("procedure run failed, and is undone: trap"), "{}", lines[100].line);
    assert_eq!(host.log_after("guest", 100).len(), 1);
    host.compared("guest", Some("it differs".to_owned()));
    let [stats] = &host.stats(None)[..] else { panic!("one plugin ran") };
    assert_eq!((stats.runs, stats.refusals, stats.failures, stats.shadow), (3, 1, 1, [1, 1]));
    assert!(stats.fuel[2] > 0);
    assert_eq!(host.stats(Some("guest")), host.stats(None));
    assert!(host.stats(Some("other")).is_empty() && host.log_after("other", 0).is_empty());
}

#[test]
fn what_can_never_run_is_refused_with_its_reason() {
    let host = Host::new(unhurried()).unwrap();
    let refused = |bytes: &[u8]| {
        let error = host.compile(digest(bytes), bytes).unwrap_err();
        assert!(!host.is_ready(digest(bytes)));
        error
    };
    assert!(matches!(refused(b"garbage"), Error::Malformed(_)));
    assert!(matches!(refused(b""), Error::Malformed(_)));
    assert!(refused(&wat::parse_str("(module)").unwrap()).to_string().contains("core module"));
    // 100 MiB.
    assert_eq!(refused(&vec![0; 100 << 20]).to_string(), "the component has 104857600 bytes, 16777216 are allowed");
    let well = procedure(text("well"));
    assert!(matches!(host.compile(digest(b""), &well), Err(Error::Digest { .. })));
    assert!(matches!(refused(&wat::parse_str("(component)").unwrap()), Error::Manifest(_)));
    assert!(matches!(refused(&component("(component)", "name = 1")), Error::Manifest(_)));
    let whole = format!("{HEAD}{PROCEDURE}");
    let foreign = component("(component (import \"wasi:clocks/wall-clock@0.2.0\" (instance)))", &whole);
    assert_eq!(refused(&foreign), Error::ForeignImport("wasi:clocks/wall-clock@0.2.0".into()));
    let other = component("(component (import \"conclave:plugin/network@0.1.0\" (instance)))", &whole);
    assert_eq!(refused(&other), Error::ForeignImport("conclave:plugin/network@0.1.0".into()));
    let nested = "(component ".repeat(9) + &")".repeat(9);
    assert!(matches!(refused(&component(&nested, &whole)), Error::Large { what: "levels of nesting", .. }));
    let modules = format!("(component {})", "(core module)".repeat(33));
    assert!(matches!(refused(&component(&modules, &whole)), Error::Large { what: "core modules", .. }));
    for (call, why) in [
        ("(memory 1)", "multiple memories"),
        ("(type (struct (field i32)))", ""),
        ("(func (drop (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0))))", "relaxed"),
    ] {
        let error = refused(&procedure(&format!("{call} {}", text("well"))));
        assert!(matches!(&error, Error::Compile(text) if text.contains(why)), "{call}: {error}");
    }
    for (module, why) in [("(memory 1 1 shared)", ""), ("(memory i64 1)", ""), ("(memory 5000)", "exceeds the limit")] {
        let bytes = component(
            &format!(
                "(component (core module {module}) (core module $m (func (export \"f\") (param i32 i32 i32 i32) (result i32) i32.const 0)
                   (memory (export \"m\") 1)) (core instance $i (instantiate $m)) (alias core export $i \"m\" (core memory $mem))
                 (func $q (param \"name\" string) (param \"args\" (list u8)) (result (result (list u8) (error string)))
                   (canon lift (core func $i \"f\") (memory $mem) (realloc (core func $i \"f\"))))
                 (instance $x (export \"query\" (func $q))) (export \"conclave:plugin/queries@0.1.0\" (instance $x)))"
            ),
            &format!("{HEAD}[[query]]\nname = \"look\""),
        );
        let error = refused(&bytes);
        assert!(matches!(&error, Error::Compile(text) if text.contains(why)), "{module}: {error}");
    }
    // Cut anywhere, it is no component.
    for cut in (0..well.len()).step_by(97) {
        refused(&well[..cut]);
    }
    host.compile(digest(&well), &well).unwrap();
    assert!(host.is_ready(digest(&well)));
}

#[test]
fn a_component_that_lies_in_its_manifest_is_told_what_to_write() {
    let query = "[[query]]\nname = \"look\"\n";
    let before = "[[trigger]]\non = \"before\"\npaths = [\"/a\"]\n";
    for (call, interface, manifest, why) in [
        (text("well"), "procedures", format!("{PROCEDURE}{query}"), "it exports no conclave:plugin/queries@0.1.0"),
        (text("well"), "procedures", format!("{PROCEDURE}{before}"), "it exports no conclave:plugin/before@0.1.0"),
        (text("well"), "procedures", query.to_owned(), "it exports procedures, and its manifest has no [[procedure]]"),
        (
            BEFORE,
            "before",
            PROCEDURE.to_owned(),
            "it exports before, and its manifest has no [[trigger]] on = \"before\"",
        ),
    ] {
        let bytes = guest(call, &[interface], &manifest);
        let error = HOST.compile(digest(&bytes), &bytes).unwrap_err();
        assert!(matches!(&error, Error::Lies(text) if text.contains(why)), "{error}");
        let inspected = HOST.inspect(digest(&bytes), &bytes).unwrap_err();
        assert_eq!(inspected, error.to_string());
    }
    // Of another version of the world, and of another form than this one's.
    let export = |wat: &str| component(&format!("(component {wat})"), &format!("{HEAD}{query}"));
    let other = export("(instance $i) (export \"conclave:plugin/queries@0.2.0\" (instance $i))");
    let error = HOST.compile(digest(&other), &other).unwrap_err().to_string();
    assert!(error.contains("queries@0.2.0, which is not of conclave:plugin@0.1"), "{error}");
    let odd = export("(instance $i) (export \"conclave:plugin/queries@0.1.0\" (instance $i))");
    let error = HOST.compile(digest(&odd), &odd).unwrap_err().to_string();
    assert!(error.contains("has another form"), "{error}");
}

/// A trigger that allows everything.
const BEFORE: &str =
    "(func (export \"call\") (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 256))";

#[test]
fn code_that_would_take_long_to_compile_is_refused_by_its_shape() {
    let refused = |call: &str| {
        let bytes = procedure(&format!("{call} {}", text("well")));
        HOST.compile(digest(&bytes), &bytes).unwrap_err()
    };
    let long = format!("(func {})", "(drop (i32.const 1))".repeat(200_000));
    assert!(matches!(refused(&long), Error::Large { what: "bytes in one function", .. }));
    let locals = format!("(func (local {}))", "i32 ".repeat(10_001));
    assert!(matches!(refused(&locals), Error::Large { what: "local variables in one function", .. }));
    let host = Host::new(Budgets { functions: 3, ..unhurried() }).unwrap();
    let well = procedure(text("well"));
    let few = procedure(&format!("{} {}", "(func)".repeat(3), text("well")));
    assert!(matches!(host.compile(digest(&few), &few), Err(Error::Large { what: "functions", .. })));
    assert!(host.compile(digest(&well), &well).is_ok());
}

#[test]
fn a_component_that_takes_too_long_to_compile_is_given_up_and_remembered() {
    let host = Host::new(Budgets { compile: Duration::ZERO, ..unhurried() }).unwrap();
    let slow = procedure(&format!("{} {}", "(func (drop (i32.const 1)))".repeat(2_000), text("well")));
    for _ in 0..2 {
        let error = host.compile(digest(&slow), &slow).unwrap_err();
        assert_eq!(error, Error::CompileTime { seconds: 0 });
        assert!(error.to_string().contains("is given up"), "{error}");
    }
    assert!(!host.is_ready(digest(&slow)));
}

#[test]
fn compiled_components_are_found_on_the_disk_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let well = procedure(text("well"));
    let first = Host::new(unhurried()).unwrap().with_cache(folder.path()).unwrap();
    first.compile(digest(&well), &well).unwrap();
    // No time to compile at all: it is taken from the disk, or not ready.
    let second =
        Host::new(Budgets { compile: Duration::ZERO, ..unhurried() }).unwrap().with_cache(folder.path()).unwrap();
    second.compile(digest(&well), &well).unwrap();
    assert!(run(&second, &well, run_of(&well, call())).ended.is_ok());
    second.retain(|_| false);
    assert!(!second.is_ready(digest(&well)));
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "only the secret is left");
}

#[test]
fn components_are_shared_between_threads() {
    let host = Host::new(unhurried()).unwrap();
    let well = procedure(text("well"));
    let made: Vec<_> = (0..4)
        .map(|_| {
            let (host, well) = (host.clone(), well.clone());
            std::thread::spawn(move || host.compile(digest(&well), &well).unwrap().name)
        })
        .collect();
    assert!(made.into_iter().all(|thread| thread.join().unwrap() == "guest"));
    assert!(host.is_ready(digest(&well)));
    // Ready already: the bytes are not looked at.
    host.prepare(digest(&well), b"").unwrap();
}
