//! `conclave lock`: a command alone, its exit code and its signals, and its end with the lock.

use std::fs;

use rustix::process::Signal;

use crate::common::is_alive;
use crate::stage::{MORTAL, UP, cluster, until};

#[test]
fn a_command_runs_with_the_fence_and_its_exit_code_is_passed_on() {
    let cluster = cluster();
    let lock = |command: &[&str]| cluster.run(&[&["lock", "/locks/code", "--"], command].concat());
    let ran = lock(&["sh", "-c", "echo $CONCLAVE_FENCE $CONCLAVE_FENCE_TOKEN; exit 7"]);
    assert_eq!((ran.code, ran.err.as_str()), (7, ""), "{}", ran.out);
    let (fence, token) = ran.out.trim().split_once(' ').unwrap();
    assert_eq!(fence, format!("/locks/code/holder@{token}"));

    let conclave = env!("CARGO_BIN_EXE_conclave");
    let ran = lock(&["sh", "-c", "\"$0\" create /locks/mine --fence \"$CONCLAVE_FENCE\"", conclave]);
    assert!(ran.code == 0 && ran.out.starts_with("created /locks/mine "), "{}{}", ran.out, ran.err);
    let late = cluster.fails(1, &["set", "/locks/mine", "x", "--fence", fence]);
    assert!(late.starts_with("refused: fenced: "), "{late}");

    assert_eq!(lock(&["sh", "-c", "kill -KILL $$"]).code, 137);
    assert_eq!(lock(&["true"]).code, 0);
    let missing = cluster.fails(127, &["lock", "/locks/code", "--", "no-such-command-anywhere"]);
    assert!(missing.starts_with("error: no-such-command-anywhere cannot be run: "), "{missing}");
    cluster.fails(126, &["lock", "/locks/code", "--", "/"]);
    let shown = cluster.json(&["lock", "--show", "/locks/code"]);
    assert_eq!(shown, serde_json::json!({ "path": "/locks/code", "holder": null, "waiters": [] }));
}

#[test]
fn commands_of_one_lock_never_run_at_the_same_time() {
    let cluster = cluster();
    // Whoever meets another in there fails.
    let script = "mkdir there || exit 9; n=$(cat count 2> /dev/null); echo $((n + 1)) > count; rmdir there";
    let all: Vec<_> = (0..5).map(|_| cluster.start(&["lock", "/locks/alone", "--", "sh", "-c", script])).collect();
    for one in all {
        let ran = one.ends();
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(fs::read_to_string(cluster.dir().join("count")).unwrap(), "5\n");
}

#[test]
fn who_waits_is_told_for_whom_gives_up_in_time_and_has_its_turn() {
    let cluster = cluster();
    let mut holder = cluster.start(&["lock", "/locks/turn", "--", "sh", "-c", UP]);
    holder.out.until("up");
    for wait in ["0", "50ms"] {
        let late = cluster.fails_in_json(124, &["lock", "/locks/turn", "--wait", wait, "--", "echo", "no"]);
        assert_eq!((&late["code"], &late["outcome"]), (&"lock-timeout".into(), &"not-applied".into()), "{late}");
    }
    let late = cluster.run(&["lock", "/locks/turn", "--wait", "50ms", "--", "echo", "no"]);
    assert_eq!((late.code, late.out.as_str()), (124, ""));
    let last = late.err.lines().last().unwrap();
    assert!(last.starts_with("timed out: /locks/turn is not free: "), "{}", late.err);
    assert!(last.ends_with(" COMMAND was not run."), "{}", late.err);

    let mut next = cluster.start(&["lock", "/locks/turn", "--", "sh", "-c", UP]);
    let told = next.err.until("waiting: ");
    assert!(told.starts_with("waiting: held by spiffe://dev/client/admin (sh) for "), "{told}");
    assert!(told.ends_with(" s, you are next …"), "{told}");
    let gone = cluster.start(&["lock", "/locks/turn", "--", "echo", "no"]);
    let waiting = || cluster.json(&["lock", "--show", "/locks/turn"])["waiters"].as_array().unwrap().len();
    until("both wait", || waiting() == 2);
    let shown = cluster.done(&["lock", "--show", "/locks/turn"]);
    assert!(shown.starts_with("/locks/turn is held by spiffe://dev/client/admin (sh)\nsince   "), "{shown}");
    for line in ["fence   /locks/turn/holder@", "   WAITS  WHO\n1   ", " s  spiffe://dev/client/admin (sh)\n2   "] {
        assert!(shown.contains(line), "{line:?}: {shown}");
    }
    assert!(shown.ends_with(" s  spiffe://dev/client/admin (echo)\n"), "{shown}");
    // Who is told to end while it waits leaves the line, and runs nothing.
    gone.signal(Signal::TERM);
    let ran = gone.ends();
    assert_eq!((ran.code, ran.out.as_str()), (143, ""));
    until("one waits", || waiting() == 1);

    assert_eq!(holder.end().code, 0);
    next.out.until("up");
    assert_eq!(next.end().code, 0);
}

#[test]
fn signals_reach_the_command_and_stdin_does() {
    let cluster = cluster();
    let script = "exec 3<&0; trap 'echo told; exit 3' INT TERM HUP; cat <&3 & echo up; wait";
    for (n, with) in [Signal::INT, Signal::TERM, Signal::HUP].into_iter().enumerate() {
        let path = format!("/locks/signal-{n}");
        let mut holder = cluster.start_hearing(&["lock", &path, "--", "sh", "-c", script]);
        holder.out.until("up");
        holder.signal(with);
        holder.out.until("told");
        assert_eq!(holder.end().code, 3, "{with:?}");
    }
    let mut holder = cluster.start(&["lock", "/locks/signal", "--", "sh", "-c", UP]);
    holder.out.until("up");
    holder.write("hello\n");
    holder.out.until("hello");
    holder.signal(Signal::TERM);
    assert_eq!(holder.ends().code, 143);
}

#[test]
fn a_command_is_killed_when_its_lock_is_lost() {
    let cluster = cluster();
    let script = "trap '' TERM; echo $$; exec 3<&0; cat <&3 & wait; wait";
    for json in [false, true] {
        let hold = ["lock", "/locks/lost", "--", "sh", "-c", script];
        let mut holder = cluster.start(&[if json { &["--json"][..] } else { &[] }, &hold].concat());
        let command: u32 = holder.out.until("").trim().parse().unwrap();
        let shown = cluster.json(&["lock", "--show", "/locks/lost"]);
        let session = shown["holder"]["session"].as_u64().unwrap();
        cluster.done(&["session", "kill", &session.to_string()]);
        let ran = holder.ends();
        assert_eq!(ran.code, 123, "{}", ran.err);
        assert!(!is_alive(command), "it runs on");
        if json {
            let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
            assert_eq!((&error["error"]["code"], &error["error"]["outcome"]), (&"lock-lost".into(), &"unknown".into()));
        } else {
            assert!(ran.err.starts_with("lost: /locks/lost: "), "{}", ran.err);
            assert!(ran.err.contains("COMMAND was ended; "), "{}", ran.err);
        }
    }
}

#[test]
fn a_lock_whose_holder_is_killed_is_the_next_ones_and_the_old_fence_holds_no_more() {
    let cluster = cluster();
    let script = "echo $CONCLAVE_FENCE; exec cat";
    let mut old = cluster.start(&["--dir", MORTAL, "lock", "/locks/killed", "--", "sh", "-c", script]);
    let fence = old.out.until("/locks/killed/holder@");
    let mut new = cluster.start(&["lock", "/locks/killed", "--", "sh", "-c", script]);
    new.err.until("waiting: ");
    old.kill();
    let next = new.out.until("/locks/killed/holder@");
    // What was killed could not end its command: that one is fenced off.
    let refused = cluster.fails(1, &["create", "/locks/late", "--fence", &fence]);
    assert!(refused.starts_with("refused: fenced: "), "{refused}");
    cluster.done(&["create", "/locks/in-time", "--fence", &next]);
    assert_eq!(new.end().code, 0);
}

#[test]
fn what_makes_no_sense_is_said_in_a_line() {
    let cluster = cluster();
    let relative = cluster.fails(125, &["lock", "locks/x", "--", "true"]);
    assert!(relative.contains("does not begin with /") && relative.ends_with("COMMAND was not run."), "{relative}");
    cluster.fails(1, &["lock", "--show", "locks/x"]);
    for args in [
        &["lock", "/locks/x"][..],
        &["lock", "/locks/x", "--wait", "30", "--", "true"],
        &["lock", "/locks/x", "--wait", "-1s", "--", "true"],
        &["lock", "/locks/x", "--show", "--", "true"],
        &["lock"],
        &["lokc", "/locks/x"],
    ] {
        cluster.misunderstood(args);
    }
    let free = cluster.run(&["lock", "--show", "/locks/never"]);
    assert_eq!((free.code, free.out.as_str()), (0, "/locks/never is free\n"));
    assert_eq!(free.err, "note: /locks/never does not exist: nobody has locked it yet\n");
    let nowhere = cluster.run(&["--endpoints", "127.0.0.1:1", "--timeout", "300ms", "lock", "/locks/x", "--", "true"]);
    assert_eq!((nowhere.code, nowhere.out.as_str()), (125, ""), "{}", nowhere.err);
    assert!(nowhere.err.starts_with("no connection: "), "{}", nowhere.err);
}
