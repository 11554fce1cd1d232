//! `conclave counter`: numbers that are read, added to and set.

use serde_json::json;

use crate::stage::cluster;

#[test]
fn a_counter_counts_from_nothing_and_is_set_if_it_is_what_one_says() {
    let cluster = cluster();
    let counter = |args: &[&str]| cluster.done(&[&["counter"], args].concat());
    assert_eq!(counter(&["get", "/hits"]), "0\n");
    cluster.fails(1, &["stat", "/hits"]);
    assert_eq!(counter(&["add", "/hits"]), "1\n");
    assert_eq!(counter(&["add", "/hits", "41"]), "42\n");
    assert_eq!(counter(&["add", "/hits", "-50"]), "-8\n");
    assert_eq!(cluster.json(&["counter", "get", "/hits"]), json!({ "path": "/hits", "value": -8 }));
    assert_eq!(counter(&["set", "/hits", "-1", "--if", "-8"]), "-1\n");
    let other = cluster.fails(1, &["counter", "set", "/hits", "5", "--if", "0"]);
    assert_eq!(other, "refused: check-failed: /hits is -1, you said 0. Nothing was changed.");
    assert_eq!(cluster.json(&["counter", "set", "/fresh", "7", "--if", "0"]), json!({ "path": "/fresh", "value": 7 }));
}

#[test]
fn no_count_of_many_is_lost() {
    let cluster = cluster();
    let all: Vec<_> = (0..8).map(|_| cluster.start(&["counter", "add", "/many", "3"])).collect();
    for one in all {
        assert_eq!(one.ends().code, 0);
    }
    assert_eq!(cluster.done(&["counter", "get", "/many"]), "24\n");
}

#[test]
fn what_is_no_number_is_said_in_a_line_and_left_alone() {
    let cluster = cluster();
    cluster.done(&["create", "/word", "--data", "abc"]);
    for args in [&["get", "/word"][..], &["add", "/word"], &["set", "/word", "1", "--if", "0"]] {
        let line = cluster.fails(1, &[&["counter"], args].concat());
        assert!(line.starts_with("refused: ") && line.contains("/word"), "{line}");
    }
    assert_eq!(cluster.done(&["get", "/word"]), "abc");
    cluster.done(&["counter", "set", "/full", &i64::MAX.to_string(), "--if", "0"]);
    cluster.fails(1, &["counter", "add", "/full"]);
    assert_eq!(cluster.done(&["counter", "get", "/full"]), format!("{}\n", i64::MAX));
    for args in [&["get", "hits"][..], &["add", "hits"]] {
        let line = cluster.fails(1, &[&["counter"], args].concat());
        assert!(line.contains("does not begin with /"), "{line}");
    }
    for args in [&["add", "/x", "many"][..], &["add", "/x", "9223372036854775808"], &["set", "/x", "1"], &["sub", "/x"]]
    {
        cluster.misunderstood(&[&["counter"], args].concat());
    }
}
