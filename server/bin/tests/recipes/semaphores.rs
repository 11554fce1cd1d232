//! `conclave semaphore`: as many commands as there are permits.

use rustix::process::Signal;
use serde_json::json;

use crate::stage::{MORTAL, UP, cluster, until};

#[test]
fn as_many_commands_run_as_there_are_permits() {
    let cluster = cluster();
    let up = ["sh", "-c", UP];
    let hold = |options: &[&str]| cluster.start(&[&["semaphore", "/limits/two"], options, &["--"], &up].concat());
    let mut first = hold(&["--capacity", "2"]);
    first.out.until("up");
    // Without a capacity: what it has.
    let mut second = hold(&[]);
    second.out.until("up");
    let mut third = hold(&["--capacity", "2"]);
    third.err.until("waiting: ");
    let shown = cluster.json(&["semaphore", "/limits/two", "--show"]);
    assert_eq!((&shown["path"], &shown["capacity"], &shown["used"]), (&"/limits/two".into(), &2.into(), &2.into()));
    let lists = ["holders", "waiters"].map(|list| shown[list].as_array().unwrap().len());
    assert_eq!(lists, [2, 1], "{shown}");
    assert_eq!(shown["waiters"][0]["note"], "sh");
    let text = cluster.done(&["semaphore", "/limits/two", "--show"]);
    assert!(text.starts_with("/limits/two: 2 of 2 permits are held\n\nPERMITS  HOLDS  WHO\n"), "{text}");
    assert!(text.contains("\n\nPERMITS  WAITS  WHO\n      1    "), "{text}");
    let late = cluster.fails(124, &["semaphore", "/limits/two", "--wait", "0", "--", "echo", "no"]);
    assert!(late.starts_with("timed out: /limits/two is not free: "), "{late}");

    first.signal(Signal::TERM);
    assert_eq!(first.ends().code, 143);
    third.out.until("up");
    for one in [second, third] {
        assert_eq!(one.end().code, 0);
    }
    let shown = cluster.json(&["semaphore", "/limits/two", "--show"]);
    assert_eq!(shown, json!({ "path": "/limits/two", "capacity": 2, "used": 0, "holders": [], "waiters": [] }));
}

#[test]
fn who_needs_several_permits_waits_for_all_and_the_killed_ones_come_back() {
    let cluster = cluster();
    let one = ["semaphore", "/limits/all", "--capacity", "3", "--", "sh", "-c", UP];
    let mut holder = cluster.start(&[&["--dir", MORTAL], &one[..]].concat());
    holder.out.until("up");
    let mut all = cluster.start(&["semaphore", "/limits/all", "--permits", "3", "--", "sh", "-c", "echo all; exit 5"]);
    all.err.until("waiting: ");
    until("it waits", || cluster.json(&["semaphore", "/limits/all", "--show"])["waiters"][0]["permits"] == 3);
    holder.kill();
    all.out.until("all");
    assert_eq!(all.end().code, 5);
}

#[test]
fn what_cannot_be_is_said_in_the_words_of_the_command() {
    let cluster = cluster();
    let missing = cluster.fails(125, &["semaphore", "/limits/none", "--", "true"]);
    assert!(missing.contains("is no semaphore") && missing.contains("--capacity makes one"), "{missing}");
    cluster.done(&["semaphore", "/limits/three", "--capacity", "3", "--", "true"]);
    let other = cluster.fails(125, &["semaphore", "/limits/three", "--capacity", "4", "--", "true"]);
    assert!(other.contains("has a capacity of 3, you said 4") && other.contains("leave out --capacity"), "{other}");
    let many = cluster.fails(125, &["semaphore", "/limits/three", "--permits", "4", "--", "true"]);
    assert!(many.contains("4 permits of 3"), "{many}");
    cluster.fails(125, &["semaphore", "limits/x", "--capacity", "1", "--", "true"]);
    cluster.fails(1, &["semaphore", "limits/x", "--show"]);
    for (option, number) in [("--capacity", "0"), ("--capacity", "-1"), ("--permits", "0"), ("--permits", "x")] {
        cluster.misunderstood(&["semaphore", "/limits/three", option, number, "--", "true"]);
    }
}
