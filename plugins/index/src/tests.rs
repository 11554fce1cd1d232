//! The index is what the data says, whatever is done to the data.

use std::collections::{BTreeMap, BTreeSet};

use conclave_plugin::{Create, TestTree, json};

use super::*;

const SETTINGS: &str = r#"{"indexes": [
    {"of": "/users/*", "field": "city", "at": "/index/city"},
    {"of": "/users/*", "field": "/login/email", "at": "/index/email", "unique": true}
]}"#;

fn tree() -> TestTree {
    TestTree::new::<Index>().settings(SETTINGS)
}

fn find(t: &TestTree, at: &str, value: Value) -> Vec<String> {
    let found: Vec<Path> = t.client("x").query("find", json!({"at": at, "value": value})).unwrap();
    found.iter().map(Path::to_string).collect()
}

fn city(t: &TestTree, city: &str) -> Vec<String> {
    // A text that is not JSON is itself.
    find(t, "/index/city", json!(city))
}

#[test]
fn the_index_follows_the_data() {
    let t = tree();
    t.create("/users/ann", r#"{"city": "Ulm"}"#);
    t.create("/users/bob", r#"{"city": "Ulm"}"#);
    assert_eq!(city(&t, "Ulm"), ["/users/ann", "/users/bob"]);
    t.set("/users/ann", r#"{"city": ["Bonn", "Aalen"]}"#);
    assert_eq!(
        (city(&t, "Ulm"), city(&t, "Bonn"), city(&t, "Aalen").len()),
        (vec!["/users/bob".into()], vec!["/users/ann".into()], 1)
    );
    t.delete("/users/bob");
    assert!(city(&t, "Ulm").is_empty() && t.data("/index/city/Ulm").is_none());
    t.set("/users/ann", "no JSON");
    assert_eq!(t.names("/index/city"), Vec::<String>::new());
}

#[test]
fn a_number_is_not_its_text_and_odd_values_have_names() {
    let t = tree();
    let long = "x".repeat(5_000);
    for (at, value) in
        [json!(1), json!("1"), json!(true), json!("a/b%c"), json!(""), json!(".."), json!(long)].iter().enumerate()
    {
        t.create(&format!("/users/u{at}"), json!({"city": value}).to_string());
    }
    for (at, value) in [json!(1), json!("\"1\""), json!(true), json!("a/b%c"), json!("\"\""), json!(".."), json!(long)]
        .iter()
        .enumerate()
    {
        assert_eq!(find(&t, "/index/city", value.clone()), [format!("/users/u{at}")], "{value}");
    }
}

#[test]
fn a_unique_value_is_had_once_and_can_be_swapped() {
    let t = tree();
    t.create("/users/ann", r#"{"login": {"email": "a@x"}}"#);
    t.create("/users/bob", r#"{"login": {"email": "b@x"}}"#);
    let error = t.client("c").create("/users/cid", r#"{"login": {"email": "a@x"}}"#, Create::default()).unwrap_err();
    assert!(error.message().contains(r#"/index/email: "a@x" is taken by /users/ann"#), "{error}");
    assert_eq!(t.data("/users/cid"), None);
    let swapped = t.client("c").transact(|tree| {
        tree.set("/users/ann", r#"{"login": {"email": "b@x"}}"#)?;
        tree.set("/users/bob", r#"{"login": {"email": "a@x"}}"#)
    });
    swapped.unwrap();
    assert_eq!(find(&t, "/index/email", json!("a@x")), ["/users/bob"]);
    t.set("/users/bob", r#"{"login": {"email": "a@x"}, "city": "Ulm"}"#);
    t.client("e").create("/users/eve", r#"{"login": {"email": "e@x"}}"#, Create::ephemeral()).unwrap();
    t.client("e").expire();
    assert!(find(&t, "/index/email", json!("e@x")).is_empty());
}

#[test]
fn what_was_there_before_the_index_is_taken_in_part_by_part() {
    let t = TestTree::new::<Index>();
    (0..25).for_each(|n| t.create(&format!("/users/u{n:02}"), r#"{"city": "Ulm"}"#));
    let t = t.settings(SETTINGS);
    assert!(city(&t, "Ulm").is_empty());
    let mut after = None;
    loop {
        let args = json!({"at": "/index/city", "limit": 10, "after": after});
        let rebuilt: Rebuilt = t.client("x").call("rebuild", args).reply().unwrap();
        after = rebuilt.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(city(&t, "Ulm").len(), 25);
    assert!(t.client("x").call("rebuild", json!(["/index/none"])).refusal().is_some());
}

#[test]
fn no_order_of_changes_makes_it_disagree() {
    let t = tree();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % below
    };
    t.create("/users", "");
    for _ in 0..300 {
        let steps: Vec<(u64, u64, u64)> = (0..=random(4)).map(|_| (random(4), random(5), random(3))).collect();
        // Some are refused, and then nothing of them happened.
        let _ = t.client("x").transact(|tree| {
            steps.iter().try_for_each(|(what, user, city)| {
                let path = format!("/users/u{user}");
                let data = format!(r#"{{"city": "c{city}", "login": {{"email": "{city}"}}}}"#);
                match (what, tree.exists(&path)?.is_some()) {
                    (0, true) => tree.delete(&path),
                    (_, true) => tree.set(&path, data).map(drop),
                    (_, false) => tree.create(&path, data, Create::default()).map(drop),
                }
            })
        });
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in t.names("/users") {
            let data: Value = serde_json::from_slice(&t.data(&format!("/users/{name}")).unwrap()).unwrap();
            let city = data["city"].as_str().unwrap().to_owned();
            expected.entry(city).or_default().insert(format!("%2Fusers%2F{name}"));
        }
        let actual = t.names("/index/city").into_iter().map(|value| {
            let paths = t.names(&format!("/index/city/{value}")).into_iter().collect();
            (value, paths)
        });
        assert_eq!(actual.collect::<BTreeMap<_, BTreeSet<_>>>(), expected);
    }
}
