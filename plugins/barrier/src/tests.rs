//! Barriers cycle after cycle, with members that die, are too late, or change their mind.

use conclave_plugin::{TestCall, TestTree, json};

use super::*;

fn call(t: &TestTree, name: &str, procedure: &str, args: conclave_plugin::Value) -> TestCall {
    t.client(name).call(procedure, args)
}

fn passed(call: &TestCall) -> bool {
    call.reply::<bool>() == Ok(true)
}

#[test]
fn a_gate_that_opens_lets_all_pass_even_if_it_closes_at_once() {
    let t = TestTree::new::<Barriers>();
    assert!(passed(&call(&t, "a", "wait", json!(["/b"]))), "what was never closed is open");
    call(&t, "x", "close", json!(["/b"])).reply::<()>().unwrap();
    let calls: Vec<TestCall> = (0..50).map(|n| call(&t, &format!("c{n}"), "wait", json!(["/b"]))).collect();
    assert_eq!(t.parked(), 50);
    call(&t, "x", "close", json!(["/b"])).reply::<()>().unwrap();
    assert_eq!(t.parked(), 50, "closing what is closed opens nothing");
    // Both in one transaction: nobody ever sees it open.
    t.client("x")
        .transact(|tree| {
            tree.set("/b", r#"{"closed":false}"#)?;
            tree.set("/b", r#"{"closed":true}"#)
        })
        .unwrap();
    assert!(calls.iter().all(passed));
    let next = call(&t, "a", "wait", json!(["/b"]));
    assert!(next.is_parked());
    call(&t, "x", "open", json!(["/b"])).reply::<()>().unwrap();
    call(&t, "x", "close", json!(["/b"])).reply::<()>().unwrap();
    assert!(passed(&next));
}

#[test]
fn a_gate_that_is_deleted_is_open() {
    let t = TestTree::new::<Barriers>();
    call(&t, "x", "close", json!(["/b"])).reply::<()>().unwrap();
    let waits = call(&t, "a", "wait", json!(["/b"]));
    t.delete("/b");
    assert!(passed(&waits));
}

#[test]
fn waiting_ends_in_time_and_can_be_withdrawn() {
    let t = TestTree::new::<Barriers>();
    call(&t, "x", "close", json!(["/b"])).reply::<()>().unwrap();
    let (late, gone) = (call(&t, "a", "wait", json!(["/b", "1s"])), call(&t, "b", "wait", json!(["/b"])));
    gone.cancel().unwrap();
    t.advance(1_000);
    assert_eq!(late.reply::<bool>(), Ok(false));
    assert_eq!(call(&t, "a", "wait", json!(["/b", 0])).reply::<bool>(), Ok(false));
    assert_eq!(t.parked(), 0);
    t.create("/text", "x");
    assert!(call(&t, "a", "wait", json!(["/text"])).refusal().unwrap().message().contains("is no gate"));
}

fn enter(t: &TestTree, name: &str) -> TestCall {
    call(t, name, "enter", json!(["/d", 3]))
}

fn leave(t: &TestTree, name: &str) -> TestCall {
    call(t, name, "leave", json!(["/d"]))
}

fn cycle(call: &TestCall) -> Option<u64> {
    call.reply::<Option<u64>>().unwrap()
}

#[test]
fn members_enter_together_and_leave_together_cycle_after_cycle() {
    let t = TestTree::new::<Barriers>();
    for round in 0..4 {
        let mut inside = vec![enter(&t, "a"), enter(&t, "b")];
        assert!(inside.iter().all(TestCall::is_parked), "round {round}");
        inside.push(enter(&t, "c"));
        assert!(inside.iter().all(|call| cycle(call) == Some(round)));
        let mut out = vec![leave(&t, "b"), leave(&t, "c")];
        assert!(out.iter().all(TestCall::is_parked));
        out.push(leave(&t, "a"));
        assert!(out.iter().all(|call| cycle(call) == Some(round)));
    }
    assert_eq!(t.names("/d"), Vec::<String>::new());
}

#[test]
fn who_is_faster_than_the_others_waits_for_the_next_cycle() {
    let t = TestTree::new::<Barriers>();
    let _ = ["a", "b", "c"].map(|name| enter(&t, name));
    let out = leave(&t, "a");
    out.cancel().unwrap();
    let again = enter(&t, "a");
    let d = enter(&t, "d");
    assert_eq!(again.waits_for(), ["ChildrenAtMost(0) /d/cycle-0"]);
    let (b, c) = (leave(&t, "b"), leave(&t, "c"));
    assert_eq!((cycle(&b), cycle(&c)), (Some(0), Some(0)));
    assert!(again.is_parked() && d.is_parked());
    assert_eq!(cycle(&enter(&t, "b")), Some(1));
    assert_eq!((cycle(&again), cycle(&d)), (Some(1), Some(1)));
}

#[test]
fn a_member_that_dies_before_the_cycle_begins_does_not_count() {
    let t = TestTree::new::<Barriers>();
    let a = enter(&t, "a");
    enter(&t, "b");
    t.client("b").expire();
    let c = enter(&t, "c");
    assert!(a.is_parked() && c.is_parked());
    a.cancel().unwrap();
    enter(&t, "d");
    assert!(c.is_parked());
    assert_eq!(cycle(&enter(&t, "e")), Some(0));
    assert_eq!(cycle(&c), Some(0));
}

#[test]
fn members_that_die_inside_do_not_keep_the_others() {
    let t = TestTree::new::<Barriers>();
    let _ = ["a", "b", "c"].map(|name| enter(&t, name));
    let a = leave(&t, "a");
    t.client("b").expire();
    assert!(a.is_parked());
    t.client("c").expire();
    assert_eq!(cycle(&a), Some(0), "nobody is there to say so, and it is seen");
    let next = ["d", "e", "f"].map(|name| enter(&t, name));
    assert!(next.iter().all(|call| cycle(call) == Some(1)));
}

#[test]
fn all_members_may_die_at_any_time() {
    let t = TestTree::new::<Barriers>();
    enter(&t, "a");
    enter(&t, "b");
    t.client("a").expire();
    t.client("b").close();
    let _ = ["a", "b", "c"].map(|name| enter(&t, name));
    let waits = enter(&t, "d");
    let _ = ["a", "b", "c"].map(|name| t.client(name).expire());
    assert_eq!(waits.waits_for(), ["VersionAbove(2) /d"], "it is the first of the next cycle");
    enter(&t, "e");
    assert_eq!(cycle(&enter(&t, "f")), Some(1));
    assert_eq!(cycle(&waits), Some(1));
}

#[test]
fn an_entrance_that_is_withdrawn_late_is_a_leave() {
    let t = TestTree::new::<Barriers>();
    let calls = ["a", "b", "c"].map(|name| enter(&t, name));
    let b = leave(&t, "b");
    calls[0].cancel().unwrap();
    assert!(b.is_parked());
    calls[2].cancel().unwrap();
    assert_eq!(cycle(&b), Some(0));
}

#[test]
fn too_few_in_time_is_said_and_leaves_nothing() {
    let t = TestTree::new::<Barriers>();
    let a = call(&t, "a", "enter", json!(["/d", 2, "1s"]));
    t.advance(1_000);
    assert_eq!(cycle(&a), None);
    assert_eq!(t.names("/d/cycle-0"), Vec::<String>::new());
    // The next ones agree anew on how many they are.
    let b = call(&t, "b", "enter", json!(["/d", 3]));
    assert!(call(&t, "c", "enter", json!(["/d", 2])).refusal().unwrap().message().contains("3 members, you said 2"));
    assert!(call(&t, "b", "enter", json!(["/d", 3])).refusal().is_some() && b.is_parked());
    assert!(leave(&t, "b").refusal().is_some() && leave(&t, "z").refusal().is_some());
}

#[test]
fn a_leave_that_takes_too_long_has_left() {
    let t = TestTree::new::<Barriers>();
    let _ = ["a", "b", "c"].map(|name| enter(&t, name));
    let a = call(&t, "a", "leave", json!(["/d", "1s"]));
    t.advance(1_000);
    assert_eq!(cycle(&a), None);
    leave(&t, "b");
    assert_eq!(cycle(&leave(&t, "c")), Some(0));
}

#[test]
fn a_latch_opens_once_and_stays_open() {
    let t = TestTree::new::<Barriers>();
    assert!(call(&t, "a", "wait-latch", json!(["/l"])).refusal().unwrap().message().contains("is no latch"));
    call(&t, "x", "set-latch", json!(["/l", 3])).reply::<()>().unwrap();
    let calls: Vec<TestCall> = (0..10).map(|n| call(&t, &format!("c{n}"), "wait-latch", json!(["/l"]))).collect();
    assert_eq!(call(&t, "x", "count-down", json!(["/l"])).reply::<u64>(), Ok(2));
    t.client("x").expire();
    assert!(calls.iter().all(TestCall::is_parked));
    assert_eq!(call(&t, "y", "count-down", json!(["/l", 5])).reply::<u64>(), Ok(0));
    assert!(calls.iter().all(passed));
    assert_eq!(call(&t, "y", "count-down", json!(["/l"])).reply::<u64>(), Ok(0));
    assert!(passed(&call(&t, "a", "wait-latch", json!(["/l"]))));
    assert!(call(&t, "x", "set-latch", json!(["/l", 3])).refusal().is_some());
    call(&t, "x", "set-latch", json!(["/none", 0])).reply::<()>().unwrap();
    assert!(passed(&call(&t, "a", "wait-latch", json!(["/none"]))));
}

#[test]
fn waiting_for_a_latch_ends_in_time() {
    let t = TestTree::new::<Barriers>();
    call(&t, "x", "set-latch", json!(["/l", 1])).reply::<()>().unwrap();
    let late = call(&t, "a", "wait-latch", json!(["/l", "1s"]));
    t.advance(1_000);
    assert_eq!(late.reply::<bool>(), Ok(false));
}
