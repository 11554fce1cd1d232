//! `conclave barrier`: gates that keep who waits, and commands that begin and end together.

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{MORTAL, UP, cluster, until};

#[test]
fn a_closed_barrier_keeps_all_who_wait_until_it_is_opened() {
    let cluster = cluster();
    let wait = ["barrier", "wait", "/barriers/gate"];
    assert_eq!(cluster.done(&wait), "passed  /barriers/gate\n", "one that does not exist is open");
    assert_eq!(cluster.done(&[&wait[..], &["--wait", "0"]].concat()), "passed  /barriers/gate\n");
    assert_eq!(cluster.done(&["barrier", "close", "/barriers/gate"]), "closed  /barriers/gate\n");
    for time in ["0", "50ms"] {
        let late = cluster.fails_in_json(5, &[&wait[..], &["--wait", time]].concat());
        assert_eq!((&late["code"], &late["outcome"]), (&"timed-out".into(), &"not-applied".into()), "{late}");
    }
    assert_eq!(cluster.fails(5, &[&wait[..], &["--wait", "0"]].concat()), "timed out: /barriers/gate is closed.");
    let late = cluster.fails(5, &[&wait[..], &["--wait", "50ms"]].concat());
    assert!(late.starts_with("timed out: waited 50 ms at /barriers/gate: "), "{late}");
    let waiters = [cluster.start(&wait), cluster.start(&[&["--json"], &wait[..]].concat())];
    let tired = cluster.start(&wait);
    // Other tests wait at barriers of their own.
    let waiting = || {
        let calls = cluster.json(&["plugin", "calls", "barrier"]);
        calls["calls"].as_array().unwrap().iter().filter(|call| call.to_string().contains("/barriers/gate")).count()
    };
    until("all wait", || waiting() == 3);
    tired.signal(Signal::TERM);
    assert_eq!(tired.ends().code, 143);
    let opened = cluster.json(&["barrier", "open", "/barriers/gate"]);
    assert_eq!(opened, json!({ "done": "opened", "path": "/barriers/gate" }));
    let said = waiters.map(|one| {
        let ran = one.ends();
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    });
    assert_eq!(said, ["passed  /barriers/gate\n", "{\"done\":\"passed\",\"path\":\"/barriers/gate\"}\n"]);
}

#[test]
fn commands_begin_when_all_have_come_and_end_when_all_have_ended() {
    let cluster = cluster();
    let enter = ["barrier", "enter", "/barriers/batch", "--members", "2"];
    let late = cluster.fails(124, &[&enter[..], &["--wait", "50ms", "--", "echo", "no"]].concat());
    assert!(late.starts_with("timed out: waited 50 ms at /barriers/batch: "), "{late}");
    assert!(late.ends_with("COMMAND was not run."), "{late}");
    let mut first = cluster.start(&[&enter[..], &["--", "sh", "-c", "echo $CONCLAVE_FENCE; exec cat"]].concat());
    let mut second = cluster.start(&[&enter[..], &["--", "sh", "-c", "echo up; exit 4"]].concat());
    second.out.until("up");
    assert!(first.out.until("/barriers/batch/").contains('@'));
    // Its command has ended, and it has not: the other one is still at it.
    second.err.until("waiting for the others to end …");
    assert_eq!(first.end().code, 0);
    assert_eq!(second.end().code, 4);
}

#[test]
fn who_is_killed_inside_is_not_waited_for() {
    let cluster = cluster();
    let enter = ["barrier", "enter", "/barriers/killed", "--members", "2", "--", "sh", "-c"];
    let mut first = cluster.start(&[&["--dir", MORTAL], &enter[..], &[UP]].concat());
    let mut second = cluster.start(&[&enter[..], &["echo up; exit 4"]].concat());
    first.out.until("up");
    second.err.until("waiting for the others to end …");
    first.kill();
    assert_eq!(second.end().code, 4);
}

#[test]
fn who_has_ended_and_loses_its_session_does_not_say_that_nothing_ran() {
    let cluster = cluster();
    let enter = ["barrier", "enter", "/barriers/over", "--members", "2", "--", "sh", "-c"];
    let mut first = cluster.start(&[&enter[..], &[UP]].concat());
    let mut second = cluster.start(&[&enter[..], &["echo $CONCLAVE_FENCE"]].concat());
    first.out.until("up");
    let fence = second.out.until("/barriers/over/");
    second.err.until("waiting for the others to end …");
    // A member's znode is named after its session.
    let session = fence.rsplit_once("/s-").and_then(|(_, name)| name.split('@').next()).unwrap();
    cluster.done(&["session", "kill", session]);
    let ran = second.ends();
    assert_eq!(ran.code, 123, "{}", ran.err);
    let last = ran.err.lines().last().unwrap();
    assert!(last.starts_with("lost: /barriers/over: ") && last.contains("COMMAND had ended by itself"), "{}", ran.err);
    assert_eq!(first.end().code, 0);
}

#[test]
fn what_makes_no_sense_is_said_in_a_line() {
    let cluster = cluster();
    for args in [&["close", "gate"][..], &["open", "gate"], &["wait", "gate"]] {
        let line = cluster.fails(1, &[&["barrier"], args].concat());
        assert!(line.starts_with("refused: ") && line.contains("does not begin with /"), "{line}");
    }
    let enter = ["barrier", "enter", "gate", "--members", "1", "--", "true"];
    assert!(cluster.fails(125, &enter).ends_with("COMMAND was not run."));
    cluster.done(&["barrier", "enter", "/barriers/one", "--members", "1", "--", "true"]);
    for members in ["0", "-1", "x"] {
        cluster.misunderstood(&["barrier", "enter", "/barriers/one", "--members", members, "--", "true"]);
    }
    cluster.misunderstood(&["barrier", "enter", "/barriers/one", "--", "true"]);
    cluster.misunderstood(&["barrier", "enter", "/barriers/one", "--members", "1"]);
    cluster.misunderstood(&["barrier", "shut", "/barriers/one"]);
}
