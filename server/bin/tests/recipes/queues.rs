//! `conclave queue`: items that are pushed, taken and settled, and come again when they are not.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stage::{Cluster, cluster, until};

/// Takes what there is, for so long, and says what.
fn take(cluster: &Cluster, path: &str, visibility: &str) -> Value {
    cluster.json(&["queue", "take", path, "--wait", "30s", "--visibility", visibility])
}

fn counts(cluster: &Cluster, path: &str) -> [u64; 4] {
    let seen = cluster.json(&["queue", "peek", path]);
    ["ready", "delayed", "claimed", "dead"].map(|count| seen[count].as_u64().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn items_come_by_priority_and_age_and_go_when_they_are_acknowledged() {
    let cluster = cluster();
    let path = "/queues/mail";
    let pushed = cluster.done(&["queue", "push", path, "second"]);
    let id = pushed.trim().strip_prefix("pushed  /queues/mail  9-").unwrap();
    assert!(id.len() == 20 && id.bytes().all(|digit| digit.is_ascii_digit()), "{pushed}");
    cluster.done(&["queue", "push", path, "third"]);
    let first = cluster.json(&["queue", "push", path, "--data", "-first", "--priority", "5"]);
    assert_eq!(first["duplicate"], false);
    let seen = cluster.json(&["queue", "peek", path, "--limit", "2"]);
    assert_eq!((&seen["ready"], seen["items"].as_array().unwrap().len()), (&3.into(), 2), "{seen}");
    assert_eq!(seen["items"][0], json!({ "id": first["id"], "data": "-first", "key": null, "deliveries": 0 }));
    let table = cluster.done(&["queue", "peek", path]);
    assert!(table.starts_with("ready 3  delayed 0  claimed 0  dead 0\n\nITEM "), "{table}");

    // The item alone is on stdout, and what is to be known of it beside.
    let ran = cluster.run(&["queue", "take", path, "--visibility", "5m"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "-first"), "{}", ran.err);
    let (said, claim) = ran.err.trim().split_once(" Done? conclave queue ack /queues/mail ").unwrap();
    assert!(said.starts_with(&format!("item {}, delivery 1, yours until ", text(&first["id"]))), "{said}");
    assert_eq!(counts(&cluster, path), [2, 0, 1, 0]);
    let acked = cluster.done(&["queue", "ack", path, claim]);
    assert_eq!(acked, format!("acknowledged  {path}  {claim}\n"));
    assert_eq!(counts(&cluster, path), [2, 0, 0, 0]);
    let again = cluster.fails(1, &["queue", "ack", path, claim]);
    assert!(
        again.starts_with("refused: plugin-refused: queue: the claim ") && again.contains("ran out, or was settled")
    );

    let second = take(&cluster, path, "5m");
    assert_eq!((&second["data"], &second["deliveries"]), (&"second".into(), &1.into()));
    let nacked = cluster.json(&["queue", "nack", path, text(&second["claim"])]);
    assert_eq!(nacked, json!({ "done": "given back", "path": path, "claim": second["claim"] }));
    let second = take(&cluster, path, "5m");
    assert_eq!((&second["data"], &second["deliveries"]), (&"second".into(), &2.into()), "before the third");
    cluster.done(&["queue", "nack", path, text(&second["claim"]), "--delay", "1h"]);
    assert_eq!(counts(&cluster, path), [1, 1, 0, 0]);
    assert_eq!(take(&cluster, path, "5m")["data"], "third");
}

#[test]
fn an_item_whose_taker_is_gone_is_delivered_again_when_its_time_is_over() {
    let cluster = cluster();
    let path = "/queues/again";
    cluster.done(&["queue", "push", path, "once more"]);
    // Each of these ends without a word to the cluster: what it took is a claim, and nothing else.
    let first = take(&cluster, path, "500ms");
    let second = take(&cluster, path, "500ms");
    assert_eq!((&first["data"], &first["deliveries"]), (&"once more".into(), &1.into()));
    assert_eq!((&second["id"], &second["deliveries"]), (&first["id"], &2.into()));
    assert_ne!(first["claim"], second["claim"]);
    let late = cluster.fails(1, &["queue", "ack", path, text(&first["claim"])]);
    assert!(late.contains(text(&first["claim"])), "{late}");
    let third = take(&cluster, path, "5m");
    assert_eq!(third["deliveries"], 3);
    cluster.done(&["queue", "ack", path, text(&third["claim"])]);
    assert_eq!(counts(&cluster, path), [0; 4]);
}

#[test]
fn what_a_killed_taker_was_given_comes_to_the_next_when_its_time_is_over() {
    let cluster = cluster();
    let path = "/queues/killed";
    let waiting = || {
        let calls = cluster.json(&["plugin", "calls", "queue"]);
        calls["calls"].as_array().unwrap().iter().filter(|call| call.to_string().contains(path)).count()
    };
    let mut killed = cluster.start(&["queue", "take", path, "--visibility", "500ms"]);
    until("it waits", || waiting() == 1);
    let next = cluster.start(&["--json", "queue", "take", path, "--visibility", "5m"]);
    until("both wait", || waiting() == 2);
    killed.kill();
    // The cluster does not know yet, and gives it to the one that came first.
    cluster.done(&["queue", "push", path, "kept"]);
    let ran = next.ends();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let taken: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&taken["data"], &taken["deliveries"]), (&"kept".into(), &2.into()));
    cluster.done(&["queue", "ack", path, text(&taken["claim"])]);

    // Who is asked to end leaves the line by itself.
    let asked = cluster.start(&["queue", "take", path]);
    until("it waits", || waiting() == 1);
    asked.signal(Signal::TERM);
    let ran = asked.ends();
    assert_eq!((ran.code, ran.out.as_str()), (143, ""));
    until("nobody waits", || waiting() == 0);
    cluster.done(&["queue", "push", path, "kept too"]);
    assert_eq!(counts(&cluster, path), [1, 0, 0, 0]);
}

#[test]
fn a_take_waits_as_long_as_it_is_told_and_no_longer() {
    let cluster = cluster();
    let path = "/queues/empty";
    for wait in ["0", "50ms"] {
        let late = cluster.fails_in_json(5, &["queue", "take", path, "--wait", wait]);
        assert_eq!((&late["code"], &late["outcome"]), (&"timed-out".into(), &"not-applied".into()), "{late}");
    }
    let late = cluster.fails(5, &["queue", "take", path, "--wait", "50ms"]);
    assert_eq!(late, "timed out: /queues/empty had nothing for 50 ms. Nothing was taken.");
    // The time of a request is not the time of a wait.
    let mut waits = cluster.start(&["--timeout", "3s", "queue", "take", path]);
    cluster.done(&["queue", "push", path, "in time", "--delay", "5s"]);
    assert_eq!(counts(&cluster, path), [0, 1, 0, 0]);
    waits.err.until("item ");
    assert_eq!(waits.end().out, "in time\n");
}

#[test]
fn dead_letters_are_shown_and_brought_back_and_keys_are_pushed_once() {
    let cluster = cluster();
    let path = "/queues/dead";
    let configured = cluster.done(&["queue", "configure", path, "--max-deliveries", "1", "--bound", "2"]);
    assert_eq!(configured, "configured  /queues/dead\n");
    let pushed = cluster.json(&["queue", "push", path, "x", "--dedup", "k"]);
    let double = cluster.done(&["queue", "push", path, "y", "--dedup", "k"]);
    assert_eq!(double, format!("pushed before  {path}  {}\n", text(&pushed["id"])));
    cluster.done(&["queue", "push", path, "z", "--priority", "0"]);
    let full = cluster.fails(1, &["queue", "push", path, "more"]);
    assert!(full.contains("/queues/dead is full: it has 2 items, 2 are allowed. Nothing was changed."), "{full}");

    let taken = take(&cluster, path, "5m");
    assert_eq!((&taken["data"], &taken["key"]), (&"x".into(), &"k".into()));
    cluster.done(&["queue", "nack", path, text(&taken["claim"])]);
    assert_eq!(counts(&cluster, path), [1, 0, 0, 1]);
    let dead = cluster.json(&["queue", "dead", path]);
    assert_eq!((&dead["dead"][0]["data"], &dead["dead"][0]["deliveries"]), (&"x".into(), &1.into()), "{dead}");
    assert!(cluster.done(&["queue", "dead", path]).starts_with("ITEM "));
    let missing = cluster.fails(1, &["queue", "redrive", path, "--id", "9-0"]);
    assert!(missing.contains("/queues/dead/dead/9-0 does not exist"), "{missing}");
    assert_eq!(cluster.done(&["queue", "redrive", path]), "redriven  /queues/dead  1\n");
    assert_eq!(counts(&cluster, path), [2, 0, 0, 0]);
}

#[test]
fn what_makes_no_sense_is_said_in_a_line() {
    let cluster = cluster();
    for args in [
        &["push", "mail", "x"][..],
        &["take", "mail", "--wait", "0"],
        &["ack", "mail", "c"],
        &["nack", "mail", "c"],
        &["peek", "mail"],
        &["dead", "mail"],
        &["redrive", "mail"],
        &["configure", "mail", "--bound", "5"],
    ] {
        let line = cluster.fails(1, &[&["queue"], args].concat());
        assert!(line.starts_with("refused: bad-path: path \"mail\" does not begin with /"), "{line}");
    }
    cluster.done(&["create", "/queues/none", "--data", "text", "--parents"]);
    let none = cluster.fails(1, &["queue", "push", "/queues/none", "x"]);
    assert!(none.contains("/queues/none is no queue: "), "{none}");
    let zero = cluster.fails(1, &["queue", "configure", "/queues/zero", "--bound", "0"]);
    assert!(zero.contains("bound can't be 0"), "{zero}");
    for args in [
        &["push", "/queues/x", "x", "--priority", "10"][..],
        &["push", "/queues/x", "x", "--priority", "-1"],
        &["push", "/queues/x", "x", "--delay", "5"],
        &["peek", "/queues/x", "--limit", "-1"],
        &["configure", "/queues/x", "--max-deliveries", "-1"],
        &["take", "/queues/x", "--wait", "-1s"],
        &["pop", "/queues/x"],
        &["ack", "/queues/x"],
    ] {
        cluster.misunderstood(&[&["queue"], args].concat());
    }
}
