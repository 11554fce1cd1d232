//! Runs of every kind: what they may, what they are told, and what they are part of.
#![allow(clippy::unwrap_used)]

mod kit;

use bytes::Bytes;
use conclave_core::plugin::{Ended, Reason, Resumed, Run, Runner, Seen, Verdict, What};
use conclave_core::view::Tx;
use conclave_guests::text;
use conclave_protocol::plugin::Need;
use conclave_protocol::{Change, ChangeKind, Path, Refusal, SessionId, Zxid};
use kit::*;
use std::sync::Arc;

const OPS: [&str; 9] = ["get", "exists", "list", "create", "parents", "or-set", "set", "delete", "tree"];

/// The probe, which does to a path what a procedure is called.
fn probe() -> Vec<u8> {
    let manifest: String =
        OPS.iter().map(|name| format!("[[procedure]]\nname = \"{name}\"\nparams = [\"p: path\"]\n")).collect();
    guest(text("probe"), &["procedures"], &manifest)
}

fn args(path: &str) -> Bytes {
    let mut args = vec![0x81, 0x78, path.len() as u8];
    args.extend(path.bytes());
    args.into()
}

fn asked(component: &[u8], op: &str, path: &str) -> Run {
    run_of(component, What::Procedure { name: op.into(), args: args(path), ticket: Zxid(7), resumed: None })
}

/// What the probe was told, and the transaction.
fn done(allowed: Arc<[Need]>, root: &str, op: &str, path: &str) -> (Result<(), String>, Tx) {
    let component = probe();
    HOST.compile(digest(&component), &component).unwrap();
    let run = Run { allowed, root: root.parse().unwrap(), ..asked(&component, op, path) };
    let ran = HOST.run(tx(&["/app/x", "/other/y"], None), run);
    let told = match ran.ended {
        Ok(_) => Ok(()),
        Err(Refusal::PluginRefused { message, .. }) => Err(message),
        Err(other) => panic!("{op} {path}: {other}"),
    };
    (told, ran.tx)
}

#[test]
fn each_operation_needs_its_capability_and_no_other() {
    for (op, path, needs) in [
        ("get", "/app/x", "read"),
        ("exists", "/app/x", "read"),
        ("list", "/app", "read"),
        ("create", "/app/new", "create"),
        ("or-set", "/app/x", "create write"),
        ("set", "/app/x", "write"),
        ("delete", "/app/x", "delete"),
        ("tree", "/app", "delete"),
    ] {
        let (told, _) = done(allowed(&["/app/**"], needs), "/", op, path);
        assert_eq!(told, Ok(()), "{op} with {needs}");
        for missing in needs.split(' ') {
            let others: Vec<&str> =
                ["read", "create", "write", "delete"].into_iter().filter(|access| *access != missing).collect();
            let (told, mut tx) = done(allowed(&["/app/**"], &others.join(" ")), "/", op, path);
            assert_eq!(told, Err(format!("plugin guest may not {missing} {path}")), "{op}");
            assert!(is_there(&mut tx, "/app/x") && !is_there(&mut tx, "/app/new"));
        }
        let (told, _) = done(allowed(&["/other/**"], "read create write delete"), "/", op, path);
        assert!(told.unwrap_err().starts_with("plugin guest may not"), "{op}");
    }
}

#[test]
fn missing_parents_are_created_only_where_that_is_allowed() {
    let create = |paths: &[&str], path| done(allowed(paths, "create"), "/", "parents", path).0;
    assert_eq!(create(&["/app/**"], "/app/a/b/c"), Ok(()));
    assert_eq!(create(&["/app/x/new"], "/app/x/new"), Ok(()), "all parents are there");
    assert_eq!(create(&["/app/a/b"], "/app/a/b"), Err("plugin guest may not create /app/a".to_owned()));
    assert_eq!(create(&["/**/c", "/app/a/b"], "/app/a/b/c"), Err("plugin guest may not create /app/a".to_owned()));
    // Without read: what is there is not looked at as the plugin.
    assert_eq!(create(&["/app/a", "/app/a/b"], "/app/a/b"), Ok(()));
}

#[test]
fn a_run_with_a_root_sees_nothing_else_and_is_allowed_by_what_lies_in_the_tree() {
    let all = || allowed(&["/app/**"], "read create write delete");
    let (told, mut tx) = done(all(), "/app", "create", "/new");
    assert_eq!(told, Ok(()));
    assert!(is_there(&mut tx, "/app/new") && !is_there(&mut tx, "/new"));
    assert_eq!(done(all(), "/app", "get", "/x").0, Ok(()));
    assert_eq!(done(all(), "/app", "list", "/").0, Ok(()));
    // What it is told has the root taken off, in refusals of the tree and of what it was allowed.
    assert_eq!(done(all(), "/app", "create", "/x").0, Err("/x exists already".to_owned()));
    assert_eq!(done(all(), "/app", "list", "/none").0, Err("/none does not exist".to_owned()));
    assert_eq!(done(all(), "/other", "get", "/y").0, Err("plugin guest may not read /y".to_owned()));
    // The tree's own name is no name inside of it.
    assert_eq!(done(all(), "/app", "set", "/app/x").0, Err("/app/x does not exist".to_owned()));
}

#[test]
fn arguments_are_refused_before_any_code_runs_and_completed_for_the_guest() {
    let component = probe();
    HOST.compile(digest(&component), &component).unwrap();
    let run = |name: &str, args: &[u8], resumed| {
        let what = What::Procedure { name: name.into(), args: Bytes::copy_from_slice(args), ticket: Zxid(1), resumed };
        HOST.run(tx(&["/app/x"], None), run_of(&component, what))
    };
    let ran = run("get", b"\xa1\x61q\x01", None);
    let why = "there is no parameter \"q\", did you mean p?: get takes p: path".to_owned();
    assert_eq!(ran.ended, Err(Refusal::BadArguments { plugin: "guest".into(), procedure: "get".into(), why }));
    assert_eq!((ran.fuel, ran.args), (0, None));
    let first = run("get", b"\x81\x66/app/x", None);
    let whole = Bytes::from_static(b"\xa1\x61p\x66/app/x");
    assert_eq!((first.ended.is_ok(), first.args), (true, Some(whole.clone())));
    let resumed = Resumed { reason: Reason::Change, state: Bytes::new(), done: None };
    let again = run("get", &whole, Some(resumed));
    assert_eq!((again.ended.is_ok(), again.args), (true, Some(whole)));
    assert_eq!(run("none", b"", None).ended.unwrap_err().code(), "no-procedure");
    let mut other = run_of(&component, call());
    other.digest = digest(b"never prepared");
    assert!(HOST.run(tx(&[], None), other).ended.unwrap_err().to_string().contains("not-prepared"));
}

/// A core function of this many parameters that deletes `/victim` and gives what `body` says.
fn trigger(params: &str, body: &str) -> String {
    format!("(func (export \"call\") (param {params}) (result i32) (call $delete-victim) {body} (i32.const 256))")
}

#[test]
fn queries_and_before_triggers_may_only_read() {
    let body = "(i32.store8 (i32.const 256) (i32.load8_u (i32.const 64)))
        (i32.store (i32.const 260) (i32.load (i32.const 76))) (i32.store (i32.const 264) (i32.load (i32.const 80)))";
    let query = guest(&trigger("i32 i32 i32 i32", body), &["queries"], "[[query]]\nname = \"look\"");
    let what = What::Query { name: "look".into(), args: Bytes::new() };
    let mut ran = run(&HOST, &query, run_of(&query, what));
    assert!(is_there(&mut ran.tx, "/victim"));
    assert_eq!(ran.ended.unwrap_err().to_string(), "guest: a query may only read");
    assert_eq!(ran.args.unwrap(), &b"\xa0"[..]);
    // A verdict's text lies where a query's does, and to refuse is its case 1 too.
    let before = guest(&trigger(BEFORE, body), &["before"], "[[trigger]]\non = \"before\"\npaths = [\"/**\"]");
    let mut ran = run(&HOST, &before, run_of(&before, about(ChangeKind::Deleted, None)));
    assert!(is_there(&mut ran.tx, "/victim"));
    assert_eq!(ran.ended.unwrap_err().to_string(), "guest: a before trigger may only read");
}

const BEFORE: &str = "i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32";

fn about(kind: ChangeKind, data: Option<&'static str>) -> What {
    let change = Change { kind, path: Path::parse("/app/x").unwrap(), version: 3 };
    let change = Seen { change, data: data.map(Into::into), previous: None };
    What::Before { trigger: "before".into(), change }
}

#[test]
fn a_before_trigger_allows_refuses_or_rewrites_what_it_is_shown() {
    let manifest = "[[trigger]]\non = \"before\"\npaths = [\"/**\"]";
    // Says the case that the version is, of the data that it was shown.
    let body = "(i32.store8 (i32.const 256) (i32.wrap_i64 (local.get 5)))
        (i32.store (i32.const 260) (local.get 7)) (i32.store (i32.const 264) (local.get 8))";
    let component = guest(&trigger(BEFORE, body), &["before"], manifest);
    let said = |kind, version| {
        let What::Before { trigger, mut change } = about(kind, Some("text")) else { unreachable!() };
        change.change.version = version;
        run(&HOST, &component, run_of(&component, What::Before { trigger, change })).ended
    };
    assert_eq!(said(ChangeKind::Data, 0), Ok(Ended::Verdict(Verdict::Allow)));
    let refused = Refusal::PluginRefused { plugin: "guest".into(), message: "text".into() };
    assert_eq!(said(ChangeKind::Created, 1), Err(refused));
    assert_eq!(said(ChangeKind::Data, 2), Ok(Ended::Verdict(Verdict::Rewrite("text".into()))));
    let odd = said(ChangeKind::Deleted, 2).unwrap_err().to_string();
    assert_eq!(odd, "plugin guest failed: it rewrites the data of a change that has none (deleted)");
}

#[test]
fn after_session_end_and_timer_triggers_write_and_say_no() {
    let refuses = "(i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 16))
        (i32.store (i32.const 264) (i32.const 7))";
    let change = Change { kind: ChangeKind::Data, path: Path::parse("/app/x").unwrap(), version: 1 };
    let seen = Seen { change, data: Some("1".into()), previous: Some("0".into()) };
    for (interface, params, manifest, what) in [
        (
            "after",
            "i32 i32 i32 i32",
            "on = \"after\"\npaths = [\"/**\"]",
            What::After { trigger: "after".into(), changes: vec![seen.clone(), seen] },
        ),
        (
            "session-end",
            "i64 i32 i32 i32",
            "on = \"session-end\"",
            What::SessionEnd { session: SessionId(5), principal: CALLER.into(), expired: true },
        ),
        ("timer", "i32 i32", "on = \"timer\"\nevery-ms = 100", What::Timer { trigger: "timer".into() }),
    ] {
        let manifest = format!("[[trigger]]\n{manifest}");
        let component = guest(&trigger(params, ""), &[interface], &manifest);
        let mut ran = run(&HOST, &component, run_of(&component, what.clone()));
        assert_eq!(ran.ended, Ok(Ended::Done(Bytes::new())), "{interface}");
        assert!(!is_there(&mut ran.tx, "/victim"), "{interface}");
        let component = guest(&trigger(params, refuses), &[interface], &manifest);
        let ran = run(&HOST, &component, run_of(&component, what));
        assert_eq!(ran.ended.unwrap_err().to_string(), "guest: /victim", "{interface}");
    }
}

#[test]
fn what_changes_show_counts_as_read() {
    let manifest = "[[trigger]]\non = \"after\"\npaths = [\"/**\"]";
    let component = guest(&trigger("i32 i32 i32 i32", ""), &["after"], manifest);
    let change = Change { kind: ChangeKind::Data, path: Path::parse("/app/x").unwrap(), version: 1 };
    let seen = Seen { change, data: Some(vec![0; 1 << 20].into()), previous: None };
    let what = What::After { trigger: "after".into(), changes: vec![seen; 17] };
    let why = run(&HOST, &component, run_of(&component, what)).ended.unwrap_err().to_string();
    assert!(why.contains("read-bytes: more than the 16777216 bytes"), "{why}");
}

/// A procedure that parks on one condition, of the path that is its argument, with so many bytes of state.
fn parking(count: u32, state: u32) -> Vec<u8> {
    let call = format!(
        "(func (export \"call\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
          ;; A condition: path, its length, the test (exists).
          (i32.store (i32.const 512) (i32.const 16)) (i32.store (i32.const 516) (i32.const 7))
          (i32.store8 (i32.const 264) (i32.const 1))
          (i32.store (i32.const 272) (i32.const 512)) (i32.store (i32.const 276) (i32.const {count}))
          (i32.store8 (i32.const 280) (i32.const 1))
          (i32.store (i32.const 304) (i32.const 2048)) (i32.store (i32.const 308) (i32.const {state}))
          (i32.const 256))"
    );
    guest(&call, &["procedures"], "[[procedure]]\nname = \"run\"\nparks = true")
}

#[test]
fn a_procedure_parks_in_a_session_on_what_it_may_read_within_limits() {
    let park = |component: &[u8], session, allowed: Arc<[Need]>, root: &str| {
        HOST.compile(digest(component), component).unwrap();
        let run = Run { allowed, root: root.parse().unwrap(), ..run_of(component, call()) };
        HOST.run(tx(&[], session), run).ended
    };
    let session = Some(SessionId(5));
    let good = parking(1, 3);
    let Ok(Ended::Park(parked)) = park(&good, session, everything(), "/team") else { panic!("it does not park") };
    assert_eq!(parked.any_of[0].path.as_str(), "/team/victim");
    assert_eq!((parked.state.len(), parked.until_ms), (3, None));
    assert_eq!(park(&good, None, everything(), "/").unwrap_err().code(), "no-session");
    let refused = park(&good, session, allowed(&["/app"], "read"), "/team").unwrap_err();
    assert_eq!(refused.to_string(), "plugin guest may not read /team/victim");
    for (component, why) in [
        (parking(0, 0), "it parks with 0 conditions, 1 to 16 are allowed"),
        (parking(17, 0), "it parks with 17 conditions"),
        (parking(1, 4_097), "it parks with a state of 4097 bytes, 4096 are allowed"),
    ] {
        let refused = park(&component, session, everything(), "/").unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_trigger_runs_inside_of_a_procedures_write_on_the_same_host() {
    let needs = "[[needs]]\npaths = [\"/**\"]\nops = [\"read\", \"create\", \"write\", \"delete\"]\n";
    let manifest = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("[[procedure]]\nname = \"{name}\"\nparams = [\"p: path\"]\n"))
            .collect::<String>()
    };
    let writer = guest(text("probe"), &["procedures"], &format!("{needs}{}", manifest(&["create", "set"])));
    // Refuses changes of data, in the name of their path.
    let body = "(if (i32.eq (local.get 2) (i32.const 1)) (then (i32.store8 (i32.const 256) (i32.const 1))))
        (i32.store (i32.const 260) (local.get 3)) (i32.store (i32.const 264) (local.get 4))";
    let text = format!("(func (export \"call\") (param {BEFORE}) (result i32) {body} (i32.const 256))");
    let gate = guest(&text, &["before"], "[[trigger]]\non = \"before\"\npaths = [\"/app/**\"]");
    let mut leader = Leader::new(&[("writer", &writer), ("gate", &gate)], HOST.clone());
    leader.call("writer", "create", &args("/app")).unwrap();
    leader.call("writer", "create", &args("/app/x")).unwrap();
    // The procedure hears what the trigger said, and says it to its caller.
    let refused = leader.call("writer", "set", &args("/app/x")).unwrap_err();
    assert_eq!(refused, Refusal::PluginRefused { plugin: "writer".into(), message: "gate: /app/x".into() });
    leader.call("writer", "create", &args("/free")).unwrap();
    leader.call("writer", "set", &args("/free")).unwrap();
    // A trigger that never ends fails with its own budget, not with that of the run around it.
    let text = format!("(func (export \"call\") (param {BEFORE}) (result i32) (loop $again (br $again)) unreachable)");
    let gate = guest(&text, &["before"], "[[trigger]]\non = \"before\"\npaths = [\"/app/**\"]");
    let mut leader = Leader::new(&[("writer", &writer), ("gate", &gate)], HOST.clone());
    let refused = leader.call("writer", "create", &args("/app")).unwrap_err().to_string();
    assert!(refused.starts_with("writer: plugin gate failed: fuel"), "{refused}");
}
