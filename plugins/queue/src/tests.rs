//! Queues under cancellation, ends of sessions and time: no item is lost, none is claimed by two at a time.

use std::collections::BTreeMap;

use conclave_plugin::{TestCall, TestTree, json};

use super::*;

const Q: &str = "/queues/q";

fn push(t: &TestTree, data: &str) -> Pushed {
    t.client("p").call("push", json!([Q, data])).reply().unwrap()
}

fn take(t: &TestTree, name: &str) -> TestCall {
    t.client(name).call("take", json!([Q]))
}

fn taken(call: &TestCall) -> Taken {
    call.reply::<Option<Taken>>().unwrap().unwrap()
}

fn data(call: &TestCall) -> String {
    String::from_utf8(taken(call).data.into_vec()).unwrap()
}

fn try_take(t: &TestTree) -> Option<Taken> {
    t.client("x").call("take", json!({"queue": Q, "wait": 0})).reply().unwrap()
}

fn settle(t: &TestTree, how: &str, claim: &str) -> Result<()> {
    t.client("x").call(how, json!([Q, claim])).reply()
}

#[test]
fn items_come_in_order_of_priority_and_then_of_age() {
    let t = TestTree::new::<Queue>();
    for (data, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 9), ("e", 5)] {
        t.client("p").call("push", json!([Q, data, priority])).reply::<Pushed>().unwrap();
    }
    let order: String = (0..5).map(|_| data(&take(&t, "w"))).collect();
    assert_eq!(order, "dbeac");
    assert!(t.client("p").call("push", json!([Q, "x", 10])).refusal().is_some());
    assert!(try_take(&t).is_none());
}

#[test]
fn who_waits_gets_the_next_item_in_the_order_in_which_they_called() {
    let t = TestTree::new::<Queue>();
    let calls = ["a", "b", "c"].map(|name| take(&t, name));
    assert_eq!(t.parked(), 3);
    push(&t, "1");
    assert!(calls[0].is_done() && calls[1].is_parked() && calls[2].is_parked());
    push(&t, "2");
    push(&t, "3");
    assert_eq!(calls.each_ref().map(data), ["1", "2", "3"]);
}

#[test]
fn a_wait_has_an_end() {
    let t = TestTree::new::<Queue>();
    let call = t.client("a").call("take", json!({"queue": Q, "wait": "2s"}));
    t.advance(1_999);
    assert!(call.is_parked());
    t.advance(1);
    assert_eq!(call.reply::<Option<Taken>>().unwrap(), None);
    push(&t, "1");
    assert!(try_take(&t).is_some());
}

#[test]
fn an_acknowledged_item_is_gone_and_one_that_is_given_back_comes_again_first() {
    let t = TestTree::new::<Queue>();
    push(&t, "1");
    push(&t, "2");
    let first = taken(&take(&t, "w"));
    settle(&t, "nack", &first.claim).unwrap();
    let again = taken(&take(&t, "w"));
    assert_eq!((again.id.as_str(), again.deliveries), (first.id.as_str(), 2));
    settle(&t, "ack", &again.claim).unwrap();
    for how in ["ack", "nack", "extend"] {
        let refusal = settle(&t, how, &again.claim).unwrap_err();
        assert!(refusal.message().contains("it ran out, or was settled"), "{refusal}");
    }
    assert_eq!(data(&take(&t, "w")), "2");
}

#[test]
fn a_claim_that_runs_out_makes_the_item_visible_for_the_next_take() {
    let t = TestTree::new::<Queue>().settings(r#"{"below": []}"#);
    push(&t, "1");
    let first = taken(&take(&t, "w"));
    t.advance(29_999);
    assert!(try_take(&t).is_none());
    t.advance(1);
    let second = try_take(&t).unwrap();
    assert_eq!((second.id, second.deliveries), (first.id, 2));
    assert!(settle(&t, "ack", &first.claim).is_err());
    settle(&t, "ack", &second.claim).unwrap();
}

#[test]
fn a_claim_that_has_run_out_settles_nothing_even_before_anybody_sees_it() {
    let t = TestTree::new::<Queue>().settings(r#"{"below": []}"#);
    push(&t, "1");
    let first = taken(&take(&t, "w"));
    t.advance(30_000);
    assert!(settle(&t, "ack", &first.claim).is_err());
    assert!(try_take(&t).is_some());
}

#[test]
fn the_timer_gives_run_out_claims_and_due_items_to_who_waits() {
    let t = TestTree::new::<Queue>();
    push(&t, "1");
    take(&t, "dies");
    t.client("dies").expire();
    let waits = take(&t, "w");
    t.advance(29_000);
    assert!(waits.is_parked());
    t.advance(2_000);
    assert_eq!((data(&waits).as_str(), taken(&waits).deliveries), ("1", 2));
    let later = take(&t, "later");
    t.client("p").call("push", json!({"queue": Q, "data": "2", "delay": "5s"})).reply::<Pushed>().unwrap();
    assert!(later.is_parked());
    t.advance(6_000);
    assert_eq!(data(&later), "2");
}

#[test]
fn an_extended_claim_lasts_longer_and_hides_none_behind_it() {
    let t = TestTree::new::<Queue>();
    push(&t, "1");
    push(&t, "2");
    let one = taken(&take(&t, "w"));
    take(&t, "w");
    t.advance(20_000);
    let until = t.client("w").call("extend", json!([Q, one.claim])).reply::<u64>().unwrap();
    assert_eq!(until, t.now_ms() + 30_000);
    t.advance(15_000);
    assert_eq!(try_take(&t).unwrap().data, b"2");
    settle(&t, "ack", &one.claim).unwrap();
}

#[test]
fn what_is_delivered_too_often_is_dead_until_it_is_driven_back() {
    let t = TestTree::new::<Queue>();
    t.client("p")
        .call("configure", json!({"queue": Q, "max-deliveries": 2, "visibility": "1s"}))
        .reply::<()>()
        .unwrap();
    push(&t, "bad");
    settle(&t, "nack", &try_take(&t).unwrap().claim).unwrap();
    assert!(try_take(&t).is_some());
    t.advance(2_000);
    assert!(try_take(&t).is_none());
    let dead: Vec<Dead> = t.client("x").query("dead-letters", json!([Q])).unwrap();
    assert_eq!((dead.len(), &dead[0].data[..], dead[0].deliveries), (1, &b"bad"[..], 2));
    let waits = take(&t, "w");
    assert_eq!(t.client("x").call("redrive", json!([Q])).reply::<u64>().unwrap(), 1);
    assert_eq!(taken(&waits).deliveries, 1);
    assert!(t.client("x").call("redrive", json!([Q, "none"])).refusal().is_some());
}

#[test]
fn a_key_is_pushed_once_within_its_time() {
    let t = TestTree::new::<Queue>();
    let push =
        || t.client("p").call("push", json!({"queue": Q, "data": "1", "key": "order-7"})).reply::<Pushed>().unwrap();
    let first = push();
    assert!(!first.duplicate);
    assert_eq!(push(), Pushed { id: first.id, duplicate: true });
    settle(&t, "ack", &try_take(&t).unwrap().claim).unwrap();
    assert!(push().duplicate && try_take(&t).is_none());
    t.advance(300_001);
    assert!(!push().duplicate);
    let bad = t.client("p").call("push", json!({"queue": Q, "data": "1", "key": "a/b"}));
    assert!(bad.refusal().unwrap().message().contains("bad-path"));
}

#[test]
fn a_full_queue_refuses_and_counts_what_is_worked_on() {
    let t = TestTree::new::<Queue>();
    t.client("p").call("configure", json!({"queue": Q, "bound": 2})).reply::<()>().unwrap();
    push(&t, "1");
    t.client("p").call("push", json!({"queue": Q, "data": "2", "delay": 9})).reply::<Pushed>().unwrap();
    let claim = try_take(&t).unwrap();
    let full = || t.client("p").call("push", json!({"queue": Q, "data": "3", "key": "k"}));
    assert!(full().refusal().unwrap().message().contains("is full: it has 2 items, 2 are allowed"));
    settle(&t, "ack", &claim.claim).unwrap();
    // The refused push left no key behind.
    assert!(!full().reply::<Pushed>().unwrap().duplicate);
}

#[test]
fn a_withdrawn_take_puts_the_item_back_as_if_nobody_had_it() {
    let t = TestTree::new::<Queue>();
    let a = take(&t, "a");
    let b = take(&t, "b");
    push(&t, "1");
    a.cancel().unwrap();
    assert_eq!((data(&b).as_str(), taken(&b).deliveries), ("1", 1));
    settle(&t, "ack", &taken(&b).claim).unwrap();
    // Withdrawn after it was settled: there is nothing to put back.
    b.cancel().unwrap();
    assert!(try_take(&t).is_none());
    let c = take(&t, "c");
    c.cancel().unwrap();
    push(&t, "2");
    assert_eq!(try_take(&t).unwrap().data, b"2");
}

#[test]
fn what_somebody_put_there_by_hand_is_an_item_too() {
    let t = TestTree::new::<Queue>();
    let waits = take(&t, "w");
    t.create("/queues/q/items/by-hand", "hello\nthere");
    assert_eq!((data(&waits).as_str(), taken(&waits).id.as_str()), ("hello\nthere", "by-hand"));
    settle(&t, "nack", &taken(&waits).claim).unwrap();
    assert_eq!(t.names("/queues/q/items"), ["by-hand"]);
}

#[test]
fn a_queue_can_be_looked_at() {
    let t = TestTree::new::<Queue>();
    push(&t, "1");
    push(&t, "2");
    try_take(&t).unwrap();
    let peeked: Peeked = t.without_session("eye").query("peek", json!([Q])).unwrap();
    assert_eq!((peeked.ready, peeked.claimed, peeked.delayed, peeked.dead), (1, 1, 0, 0));
    assert_eq!(peeked.items[0].data, b"2");
}

/// Many clients do what comes to their mind: every item is in exactly one place at any time, each delivery is of a claim of its
/// own, and nobody waits while there is something to take.
#[test]
fn no_order_of_events_loses_an_item_or_a_wake_up_or_gives_it_to_two() {
    for seed in 1..=12_u64 {
        let t = TestTree::new::<Queue>();
        t.client("p")
            .call("configure", json!({"queue": Q, "visibility": 100, "max-deliveries": 3}))
            .reply::<()>()
            .unwrap();
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            usize::try_from(chance % below).unwrap()
        };
        let (mut calls, mut pushed, mut acked) = (Vec::new(), 0_usize, 0_usize);
        for step in 0..150 {
            let name = format!("c{}", random(5));
            match random(9) {
                0 | 1 => {
                    let delay = [0, 0, 150][random(3)];
                    let args = json!({"queue": Q, "data": "x", "delay": delay, "priority": random(3)});
                    t.client(&name).call("push", args).reply::<Pushed>().unwrap();
                    pushed += 1;
                }
                2..=4 => calls.push(t.client(&name).call("take", json!({"queue": Q, "wait": 300}))),
                5 if !calls.is_empty() => drop(calls.swap_remove(random(calls.len() as u64)).cancel()),
                6 if !calls.is_empty() => {
                    let call = calls.swap_remove(random(calls.len() as u64));
                    if let Ok(Some(taken)) = call.reply::<Option<Taken>>() {
                        let how = ["ack", "ack", "nack"][random(3)];
                        let done = settle(&t, how, &taken.claim);
                        acked += usize::from(done.is_ok() && how == "ack");
                    } else {
                        calls.push(call);
                    }
                }
                7 if random(3) == 0 => t.client(&name).expire(),
                _ => t.advance(random(80) as u64),
            }
            let count = |below: &str| t.names(&format!("{Q}/{below}")).len();
            let there = count("items") + count("delayed") + count("claimed") + count("dead");
            assert_eq!(there + acked, pushed, "seed {seed}, step {step}");
            assert!(count("items") == 0 || t.parked() == 0, "seed {seed}, step {step}: somebody waits beside an item");
            let mut claims = BTreeMap::new();
            for claim in t.names(&format!("{Q}/claimed")) {
                let item = Item::decode(&t.data(&format!("{Q}/claimed/{claim}")).unwrap());
                assert!(claims.insert(item.header.item, claim).is_none(), "seed {seed}, step {step}: claimed twice");
            }
        }
    }
}

#[test]
fn an_item_that_nobody_could_be_given_is_refused_or_set_aside() {
    let t = TestTree::new::<Queue>();
    let large = "x".repeat(ITEM_BYTES + 1);
    let refusal = t.client("p").call("push", json!([Q, large])).refusal().unwrap();
    assert!(refusal.message().contains("64513 bytes, 64512 are allowed"), "{refusal}");
    push(&t, &"x".repeat(ITEM_BYTES));
    assert_eq!(taken(&take(&t, "w")).data.len(), ITEM_BYTES);
    // Made by hand, before one that is well.
    t.create(&format!("{Q}/items/0-by-hand"), &large);
    push(&t, "small");
    assert_eq!(data(&take(&t, "w")), "small");
    assert_eq!(t.names(&format!("{Q}/dead")), ["0-by-hand"]);
}

#[test]
fn an_item_goes_back_although_somebody_has_put_another_in_its_place() {
    let t = TestTree::new::<Queue>();
    push(&t, "first");
    let first = taken(&take(&t, "w"));
    t.create(&format!("{Q}/items/{}", first.id), "another");
    t.advance(31_000);
    let mut both = [data(&take(&t, "w")), data(&take(&t, "w"))];
    both.sort();
    assert_eq!(both, ["another", "first"]);
    assert!(try_take(&t).is_none());
}

#[test]
fn a_queue_that_is_broken_keeps_no_other_from_being_looked_at() {
    let t = TestTree::new::<Queue>();
    let push_to = |queue: &str| t.client("p").call("push", json!([queue, "x"])).reply::<Pushed>().unwrap();
    let take_from = |queue: &str| t.client("w").call("take", json!([queue]));
    push_to("/queues/a");
    let claim = taken(&take_from("/queues/a")).claim;
    t.set("/queues/a", "this is not JSON");
    let waits = take_from("/queues/b");
    t.client("p")
        .call("push", json!({"queue": "/queues/b", "data": "late", "delay": "40s"}))
        .reply::<Pushed>()
        .unwrap();
    t.advance(41_000);
    assert_eq!(data(&waits), "late");
    assert!(t.data(&format!("/queues/a/claimed/{claim}")).is_some(), "nothing of it is lost");
    t.set("/queues/a", "");
    t.advance(1_000);
    assert_eq!(data(&take_from("/queues/a")), "x");
}
