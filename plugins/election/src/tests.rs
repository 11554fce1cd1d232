//! Elections under resignations, cancellations and ends of sessions: one leader, the right one, and never none for long.

use conclave_plugin::{TestCall, TestTree, json};

use super::*;

const E: &str = "/e";

fn campaign(t: &TestTree, name: &str, priority: i64) -> TestCall {
    t.client(name)
        .call("campaign", json!({"path": E, "name": name, "priority": priority, "data": format!("{name}:80")}))
}

fn leads(call: &TestCall) -> bool {
    matches!(call.reply::<Option<Term>>(), Ok(Some(_)))
}

fn leader(t: &TestTree) -> Option<String> {
    let leader: Option<Candidate> = t.without_session("eye").query("leader", json!([E])).unwrap();
    leader.and_then(|leader| leader.who.name)
}

#[test]
fn the_first_leads_and_its_term_is_the_fence() {
    let t = TestTree::new::<Election>();
    assert_eq!(leader(&t), None);
    let term = campaign(&t, "a", 0).reply::<Option<Term>>().unwrap().unwrap();
    assert_eq!((term.path.as_str(), term.zxid), ("/e/holder", t.stat("/e/holder").unwrap().created));
    let a: Option<Candidate> = t.client("x").query("leader", json!([E])).unwrap();
    let a = a.unwrap();
    assert_eq!((a.zxid, a.who.data.as_deref(), a.session), (term.zxid, Some("a:80"), Some(t.client("a").session_id())));
}

#[test]
fn candidates_follow_by_priority_and_then_by_age() {
    let t = TestTree::new::<Election>();
    campaign(&t, "a", 0);
    let calls = [("b", 0), ("c", 5), ("d", 0), ("e", 9), ("f", 5)].map(|(name, priority)| campaign(&t, name, priority));
    assert_eq!(t.parked(), 5);
    let line: Vec<Candidate> = t.client("x").query("candidates", json!([E])).unwrap();
    let names: Vec<&str> = line.iter().map(|candidate| candidate.who.called()).collect();
    assert_eq!(names, ["e", "c", "f", "b", "d"]);
    let mut terms = 0;
    for (at, name) in ["a", "e", "c", "f", "b", "d"].into_iter().enumerate() {
        assert_eq!(leader(&t).as_deref(), Some(name));
        assert_eq!(calls.iter().filter(|call| call.is_parked()).count(), 5 - at);
        let term = t.stat("/e/holder").unwrap().created;
        assert!(term > terms);
        terms = term;
        if at % 2 == 0 {
            t.client(name).call("resign", json!([E])).reply::<()>().unwrap()
        } else {
            t.client(name).expire()
        }
    }
    assert_eq!(t.paths(), ["/", "/e", "/e/line"]);
}

#[test]
fn a_leader_hands_over_to_whom_it_names() {
    let t = TestTree::new::<Election>();
    campaign(&t, "a", 0);
    let (b, c, d) = (campaign(&t, "b", 9), campaign(&t, "c", 5), campaign(&t, "d", 0));
    let hand_over = |from: &str, to: &str| t.client(from).call("hand-over", json!([E, to]));
    assert!(hand_over("a", "z").refusal().unwrap().message().contains("these are: b, c, d"));
    assert!(hand_over("b", "c").refusal().unwrap().message().contains("does not lead"));
    hand_over("a", "d").reply::<()>().unwrap();
    assert!(leads(&d) && b.is_parked() && c.is_parked());
    assert!(!t.text("/e/holder").unwrap().contains("chosen"));
    hand_over("d", "c").reply::<()>().unwrap();
    assert!(leads(&c));
    t.client("c").call("resign", json!([E])).reply::<()>().unwrap();
    assert!(leads(&b));
}

#[test]
fn one_session_is_a_candidate_once() {
    let t = TestTree::new::<Election>();
    campaign(&t, "a", 0);
    campaign(&t, "b", 0);
    assert!(campaign(&t, "a", 0).refusal().unwrap().message().contains("leads at /e already"));
    assert!(campaign(&t, "b", 0).refusal().unwrap().message().contains("is a candidate at /e already"));
    assert!(t.without_session("c").call("campaign", json!([E])).refusal().is_some());
}

#[test]
fn a_withdrawn_campaign_leaves_the_line_and_a_withdrawn_term_goes_to_the_next() {
    let t = TestTree::new::<Election>();
    let (a, b, c, d) = (campaign(&t, "a", 0), campaign(&t, "b", 3), campaign(&t, "c", 2), campaign(&t, "d", 1));
    b.cancel().unwrap();
    assert_eq!(c.waits_for()[0], "Absent /e/holder");
    a.cancel().unwrap();
    assert!(leads(&c));
    t.client("d").close();
    assert!(d.refusal().unwrap().is("session-over"));
    c.cancel().unwrap();
    assert_eq!((leader(&t), t.names("/e/line").len()), (None, 0));
}

#[test]
fn a_campaign_ends_in_time() {
    let t = TestTree::new::<Election>();
    campaign(&t, "a", 0);
    let b = t.client("b").call("campaign", json!({"path": E, "wait": "1s"}));
    assert_eq!(t.client("c").call("campaign", json!({"path": E, "wait": 0})).reply::<Option<Term>>().unwrap(), None);
    t.advance(1_000);
    assert_eq!((b.reply::<Option<Term>>().unwrap(), t.names("/e/line").len()), (None, 0));
}

#[test]
fn a_term_is_resigned_with_its_fence_only() {
    let t = TestTree::new::<Election>();
    let term = campaign(&t, "a", 0).reply::<Option<Term>>().unwrap().unwrap();
    assert!(t.client("a").call("resign", json!([E, term.zxid + 1])).refusal().is_some());
    t.client("a").call("resign", json!([E, term.zxid])).reply::<()>().unwrap();
    assert!(t.client("a").call("resign", json!([E])).refusal().is_some());
}

#[test]
fn a_candidate_on_plain_znodes_is_one_of_the_line() {
    let t = TestTree::new::<Election>();
    campaign(&t, "a", 0);
    let plain = t.client("p");
    let place = plain.create("/e/line/w-", r#"{"principal":"p"}"#, Create::ephemeral().numbered()).unwrap();
    let (b, c) = (campaign(&t, "b", 0), campaign(&t, "c", 1));
    t.client("a").close();
    assert!(leads(&c), "a greater priority comes before it");
    t.client("c").close();
    assert!(b.is_parked(), "it is the plain one's turn");
    plain
        .transact(|tree| {
            tree.delete(&place)?;
            tree.create("/e/holder", "", Create::ephemeral())
        })
        .unwrap();
    plain.close();
    assert!(leads(&b));
}

#[test]
fn no_order_of_events_leaves_an_election_without_a_leader() {
    for seed in 1..=30_u64 {
        let t = TestTree::new::<Election>();
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            usize::try_from(chance % below).unwrap()
        };
        let mut calls: Vec<TestCall> = Vec::new();
        for step in 0..120 {
            let name = format!("c{}", random(6));
            match random(8) {
                0..=2 => calls.push(campaign(&t, &name, random(3) as i64)),
                3 => drop(t.client(&name).call("resign", json!([E]))),
                4 => drop(t.client(&name).call("hand-over", json!([E, format!("c{}", random(6))]))),
                5 if !calls.is_empty() => drop(calls.swap_remove(random(calls.len() as u64)).cancel()),
                6 => t.client(&name).expire(),
                _ => calls.push(t.client(&name).call("campaign", json!({"path": E, "name": name, "wait": 20}))),
            }
            if random(4) == 0 {
                t.advance(10);
            }
            let waiting = t.names("/e/line").len();
            assert_eq!(waiting, t.parked(), "seed {seed}, step {step}");
            assert!(waiting == 0 || leader(&t).is_some(), "seed {seed}, step {step}: {waiting} wait and nobody leads");
        }
    }
}
