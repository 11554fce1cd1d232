//! `conclave elect`: one leads, and the next one does when it ends, however it ends.

use serde_json::Value;

use crate::common::is_alive;
use crate::stage::{MORTAL, UP, cluster, until};

#[test]
fn one_leads_and_the_next_one_when_it_ends_or_is_killed() {
    let cluster = cluster();
    let elect = |profile: &str, name: &str, priority: &str| {
        let candidate = ["elect", "/election/one", "--name", name, "--priority", priority, "--data", "here"];
        cluster.start(&[&["--dir", profile], &candidate[..], &["--", "sh", "-c", UP]].concat())
    };
    let show = || cluster.json(&["elect", "/election/one", "--show"]);
    let mut first = elect(".conclave", "a", "0");
    first.out.until("up");
    let led = first.err.until("leads /election/one since ");
    let mut last = elect(".conclave", "b", "-1");
    until("it is a candidate", || show()["candidates"].as_array().unwrap().len() == 1);
    let mut second = elect(MORTAL, "c", "5");
    until("both are candidates", || show()["candidates"].as_array().unwrap().len() == 2);

    let shown = show();
    let leader = &shown["leader"];
    assert_eq!((&leader["name"], &leader["data"], &leader["priority"]), (&"a".into(), &"here".into(), &0.into()));
    assert_eq!(leader["fence"], format!("/election/one/holder@{}", leader["term"]));
    assert_eq!(led, format!("leads /election/one since {}", leader["term"]));
    let names: Vec<&Value> = shown["candidates"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["c", "b"], "the greatest priority first");
    let text = cluster.done(&["elect", "/election/one", "--show"]);
    assert!(text.starts_with("/election/one is led by a\nsince   "), "{text}");
    assert!(text.contains("data    here\n\nPRIORITY  SINCE  ") && text.contains("\n       5  "), "{text}");
    let late = cluster.fails(124, &["elect", "/election/one", "--wait", "50ms", "--", "echo", "no"]);
    assert!(late.starts_with("timed out: ") && late.contains("COMMAND was not run."), "{late}");

    // By ending, and then by being killed.
    assert_eq!(first.end().code, 0);
    second.out.until("up");
    second.kill();
    last.out.until("up");
    let shown = show();
    assert_eq!((&shown["leader"]["name"], shown["candidates"].as_array().unwrap().len()), (&"b".into(), 0));
    assert_eq!(last.end().code, 0);
    assert_eq!(cluster.done(&["elect", "/election/one", "--show"]), "nobody leads /election/one\n");
    assert_eq!(cluster.done(&["elect", "/election/one", "--wait", "0", "--", "echo", "at once"]), "at once\n");
}

#[test]
fn a_leader_that_is_deposed_is_ended_and_exit_codes_are_passed_on() {
    let cluster = cluster();
    let path = "/election/deposed";
    let script = "trap '' TERM; echo $$ $CONCLAVE_FENCE; exec 3<&0; cat <&3 & wait; wait";
    let mut leader = cluster.start(&["elect", path, "--", "sh", "-c", script]);
    let said = leader.out.until("");
    let (command, fence) = said.split_once(' ').unwrap();
    let holder = fence.rsplit_once('@').unwrap().0;
    cluster.done(&["delete", holder]);
    let ran = leader.ends();
    assert_eq!(ran.code, 123, "{}", ran.err);
    assert!(
        ran.err.contains("lost: /election/deposed: the holder znode was deleted. COMMAND was ended; "),
        "{}",
        ran.err
    );
    assert!(!is_alive(command.parse().unwrap()), "it runs on");

    assert_eq!(cluster.run(&["elect", path, "--", "sh", "-c", "exit 9"]).code, 9);
    let missing = cluster.run(&["elect", path, "--", "no-such-command-anywhere"]);
    assert_eq!((missing.code, missing.out.as_str()), (127, ""), "{}", missing.err);
    let relative = cluster.fails(125, &["elect", "deposed", "--", "true"]);
    assert!(relative.contains("does not begin with /"), "{relative}");
    cluster.misunderstood(&["elect", path]);
    cluster.misunderstood(&["elect", path, "--priority", "high", "--", "true"]);
    cluster.misunderstood(&["elect", path, "--show", "--name", "x"]);
}
