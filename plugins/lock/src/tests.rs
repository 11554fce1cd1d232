//! Locks under cancellation, ends of sessions and plain clients: nothing is lost, nobody jumps the queue.

mod permits;

use conclave_plugin::{Create, TestCall, TestClient, TestTree, json};

use super::*;

const L: &str = "/locks/a";

fn held(call: &TestCall) -> Held {
    call.reply::<Option<Held>>().unwrap().unwrap()
}

fn is_awarded(call: &TestCall) -> bool {
    matches!(call.reply::<Option<Held>>(), Ok(Some(_)))
}

fn lock(t: &TestTree, name: &str) -> TestCall {
    t.client(name).call("lock", json!([L]))
}

fn unlock(t: &TestTree, name: &str) {
    t.client(name).call("unlock", json!([L])).reply::<()>().unwrap();
}

fn line(t: &TestTree) -> Vec<String> {
    t.names("/locks/a/line")
}

#[test]
fn a_free_lock_is_taken_in_the_first_run_and_its_fence_is_the_holders_creation() {
    let t = TestTree::new::<Locks>();
    let a = lock(&t, "a");
    let held = held(&a);
    assert_eq!(held.path, "/locks/a/holder");
    let stat = t.stat("/locks/a/holder").unwrap();
    assert_eq!((stat.created, stat.owner), (held.zxid, Some(t.client("a").session_id())));
    assert_eq!(t.text("/locks/a/holder").unwrap(), r#"{"principal":"spiffe://test/client/a"}"#);
    assert!(line(&t).is_empty());
}

#[test]
fn waiters_get_it_in_the_order_in_which_they_came() {
    let t = TestTree::new::<Locks>();
    let calls: Vec<(String, TestCall)> = (0..20).map(|n| (format!("c{n}"), lock(&t, &format!("c{n}")))).collect();
    assert_eq!(t.parked(), 19);
    let mut fences = Vec::new();
    for (at, (name, call)) in calls.iter().enumerate() {
        assert!(is_awarded(call), "{name}");
        assert!(calls[at + 1..].iter().all(|(_, call)| call.is_parked()));
        assert_eq!(line(&t).len(), calls.len() - at - 1);
        fences.push(held(call).zxid);
        unlock(&t, name);
    }
    assert!(fences.is_sorted() && t.data("/locks/a/holder").is_none() && line(&t).is_empty());
}

#[test]
fn it_is_not_re_entrant() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let refusal = lock(&t, "a").refusal().unwrap();
    assert!(refusal.message().contains("holds /locks/a already"), "{refusal}");
    assert!(t.client("a").call("try-lock", json!([L])).refusal().is_some());
    assert!(line(&t).is_empty());
    // Another session of the same principal is another holder.
    assert!(t.session("a").call("lock", json!([L])).is_parked());
}

#[test]
fn several_calls_of_a_session_wait_and_get_it_in_turn() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let (first, second) = (lock(&t, "b"), lock(&t, "b"));
    unlock(&t, "a");
    assert!(is_awarded(&first) && second.is_parked());
    unlock(&t, "b");
    assert!(is_awarded(&second) && held(&second).zxid > held(&first).zxid);
}

#[test]
fn who_comes_waits_for_the_last_in_line_however_that_came_and_whoever_left() {
    let t = TestTree::new::<Locks>();
    let holder = lock(&t, "a");
    let (b, c) = (lock(&t, "b"), lock(&t, "c"));
    let place = |call: &TestCall| call.waits_for()[0].rsplit(' ').next().unwrap().to_owned();
    assert_eq!((place(&b), place(&c)), ("/locks/a/holder".to_owned(), format!("{L}/line/w-0000000000")));
    // The line says who came last; who left may have been that one.
    c.cancel().unwrap();
    let d = lock(&t, "d");
    assert_eq!(place(&d), format!("{L}/line/w-0000000000"));
    // A client on plain znodes says nothing.
    t.client("e").create(&format!("{L}/line/w-"), "", Create::ephemeral().numbered()).unwrap();
    t.set(&format!("{L}/line"), "");
    let f = lock(&t, "f");
    assert_eq!(place(&f), format!("{L}/line/w-0000000003"));
    assert!(is_awarded(&holder));
}

#[test]
fn a_lock_needs_a_session() {
    let t = TestTree::new::<Locks>();
    assert!(t.without_session("x").call("lock", json!([L])).refusal().unwrap().message().contains("needs a session"));
    assert_eq!(t.paths(), ["/"]);
}

#[test]
fn try_lock_never_stands_in_line() {
    let t = TestTree::new::<Locks>();
    let take = |name: &str| t.client(name).call("try-lock", json!([L])).reply::<Option<Held>>().unwrap();
    assert!(take("a").is_some());
    assert!(take("b").is_none());
    assert!(line(&t).is_empty());
    unlock(&t, "a");
    // A plain client that waits comes first, although there is no holder.
    plain_place(&t.client("p"));
    assert!(take("b").is_none());
}

#[test]
fn who_waits_too_long_leaves_the_line() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let b = t.client("b").call("lock", json!({"path": L, "wait": "5s", "note": "deploy"}));
    let c = lock(&t, "c");
    t.advance(4_999);
    assert!(b.is_parked() && t.text("/locks/a/line/w-0000000000").unwrap().contains("deploy"));
    t.advance(1);
    assert_eq!(b.reply::<Option<Held>>().unwrap(), None);
    assert_eq!(line(&t), ["w-0000000001"]);
    assert!(c.is_parked());
    unlock(&t, "a");
    assert!(is_awarded(&c));
}

#[test]
fn a_withdrawn_wait_gives_up_its_place_and_those_behind_move_up() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let [b, c, d] = ["b", "c", "d"].map(|name| lock(&t, name));
    c.cancel().unwrap();
    assert_eq!(d.waits_for(), ["Absent /locks/a/line/w-0000000000"]);
    b.cancel().unwrap();
    assert_eq!(d.waits_for(), ["Absent /locks/a/holder"]);
    assert_eq!((b.refusal().unwrap().code(), c.refusal().unwrap().code()), (Some("cancelled"), Some("cancelled")));
    unlock(&t, "a");
    assert!(is_awarded(&d) && line(&t).is_empty());
}

#[test]
fn a_withdrawn_award_goes_to_the_next() {
    let t = TestTree::new::<Locks>();
    let a = lock(&t, "a");
    let [b, c] = ["b", "c"].map(|name| lock(&t, name));
    // An award of the first run, and one that was waited for.
    a.cancel().unwrap();
    assert!(is_awarded(&b));
    b.cancel().unwrap();
    assert!(is_awarded(&c));
    c.acknowledge();
    assert!(c.cancel().unwrap_err().is("already-done"));
    assert!(t.data("/locks/a/holder").is_some());
}

#[test]
fn cancelling_late_takes_nothing_from_the_next_holder() {
    let t = TestTree::new::<Locks>();
    let a = lock(&t, "a");
    let b = lock(&t, "b");
    unlock(&t, "a");
    let fence = held(&b);
    // Its answer was not acknowledged yet, and it gave the lock back already.
    a.cancel().unwrap();
    assert_eq!(t.stat("/locks/a/holder").unwrap().created, fence.zxid);
}

#[test]
fn a_session_that_ends_gives_back_everything() {
    for expire in [false, true] {
        let t = TestTree::new::<Locks>();
        let end = |client: TestClient| if expire { client.expire() } else { client.close() };
        lock(&t, "a");
        let [b, c, d] = ["b", "c", "d"].map(|name| lock(&t, name));
        end(t.client("c"));
        assert_eq!(c.refusal().unwrap().code(), Some("session-over"));
        assert_eq!(line(&t), ["w-0000000000", "w-0000000002"]);
        end(t.client("a"));
        assert!(is_awarded(&b) && d.is_parked());
        end(t.client("b"));
        assert!(is_awarded(&d));
        end(t.client("d"));
        assert_eq!(t.paths(), ["/", "/locks", "/locks/a", "/locks/a/line"]);
    }
}

#[test]
fn unlock_is_for_the_holder_with_its_fence() {
    let t = TestTree::new::<Locks>();
    let a = held(&lock(&t, "a"));
    let refusal = t.client("b").call("unlock", json!([L])).refusal().unwrap();
    assert!(refusal.message().contains("spiffe://test/client/a"), "{refusal}");
    assert!(t.client("a").call("unlock", json!([L, a.zxid + 1])).refusal().is_some());
    // What lies below the holder does not keep it.
    t.client("a").create("/locks/a/holder/x", "", Create::ephemeral()).unwrap();
    t.client("a").call("unlock", json!([L, a.zxid])).reply::<()>().unwrap();
    assert!(t.data("/locks/a/holder").is_none());
}

#[test]
fn a_place_that_somebody_deletes_is_refused_in_words() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let b = lock(&t, "b");
    let c = lock(&t, "c");
    t.delete("/locks/a/line/w-0000000000");
    assert_eq!(c.waits_for(), ["Absent /locks/a/holder"]);
    unlock(&t, "a");
    // By the order of tickets it is asked first, and has no place any more.
    assert!(b.refusal().is_some_and(|refusal| refusal.message().contains("somebody deleted it")) || b.is_parked());
    assert!(is_awarded(&c));
}

/// What the recipe on plain znodes does: a place, and the line's version raised.
fn plain_place(client: &TestClient) -> String {
    let place = client.transact(|tree| {
        let place = tree.create("/locks/a/line/w-", r#"{"principal":"p"}"#, Create::ephemeral().numbered())?;
        tree.set("/locks/a/line", "")?;
        Ok(place.path)
    });
    place.unwrap().as_str().to_owned()
}

/// Its turn: the place goes, the holder comes.
fn plain_turn(client: &TestClient, place: &str) -> Result<()> {
    client.transact(|tree| {
        tree.delete(place)?;
        tree.create("/locks/a/holder", "", Create::ephemeral()).map(drop)
    })
}

#[test]
fn plain_clients_and_callers_stand_in_one_line() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    let p = plain_place(&t.client("p"));
    let b = lock(&t, "b");
    let q = plain_place(&t.client("q"));
    assert_eq!(b.waits_for(), [format!("Absent {p}")]);
    unlock(&t, "a");
    assert!(b.is_parked(), "the plain client is first");
    plain_turn(&t.client("p"), &p).unwrap();
    assert_eq!(b.waits_for(), ["Absent /locks/a/holder"]);
    assert!(plain_turn(&t.client("q"), &q).is_err());
    t.client("p").delete("/locks/a/holder").unwrap();
    assert!(is_awarded(&b));
    unlock(&t, "b");
    plain_turn(&t.client("q"), &q).unwrap();
}

#[test]
fn a_plain_client_that_saw_an_empty_line_sees_that_it_changed() {
    let t = TestTree::new::<Locks>();
    t.create("/locks/a/line", "");
    lock(&t, "a");
    assert_eq!(t.stat("/locks/a/line").unwrap().version, 0);
    lock(&t, "b");
    assert_eq!(t.stat("/locks/a/line").unwrap().version, 1);
}

fn shared(t: &TestTree, name: &str) -> TestCall {
    t.client(name).call("lock-shared", json!([L]))
}

#[test]
fn readers_share_and_a_writer_waits_for_each_of_them() {
    let t = TestTree::new::<Locks>();
    let readers = ["a", "b", "c"].map(|name| shared(&t, name));
    assert!(readers.iter().all(is_awarded));
    let w = lock(&t, "w");
    let late = shared(&t, "late");
    assert!(w.is_parked() && late.is_parked(), "a reader that comes later does not pass the writer");
    for name in ["b", "a"] {
        unlock(&t, name);
        assert!(w.is_parked());
    }
    t.client("c").expire();
    assert!(is_awarded(&w) && late.is_parked());
    unlock(&t, "w");
    assert!(is_awarded(&late));
}

#[test]
fn readers_in_a_row_enter_together_when_the_writer_goes() {
    let t = TestTree::new::<Locks>();
    lock(&t, "w");
    let readers: Vec<TestCall> = (0..8).map(|n| shared(&t, &format!("r{n}"))).collect();
    let next = lock(&t, "x");
    let after = shared(&t, "after");
    unlock(&t, "w");
    assert!(readers.iter().all(is_awarded) && next.is_parked() && after.is_parked());
    next.cancel().unwrap();
    assert!(is_awarded(&after), "nobody is between the readers any more");
}

#[test]
fn a_downgrade_lets_readers_in_and_nobody_else() {
    let t = TestTree::new::<Locks>();
    lock(&t, "w");
    let r = shared(&t, "r");
    let x = lock(&t, "x");
    let down = t.client("w").call("downgrade", json!([L])).reply::<Held>().unwrap();
    assert!(down.path.starts_with("/locks/a/shared/") && is_awarded(&r) && x.is_parked());
    assert!(t.client("w").call("downgrade", json!([L])).refusal().is_some());
    unlock(&t, "r");
    unlock(&t, "w");
    assert!(is_awarded(&x));
}

#[test]
fn an_upgrade_is_for_the_only_reader_and_passes_nobody_by() {
    let t = TestTree::new::<Locks>();
    shared(&t, "a");
    shared(&t, "b");
    let upgrade = |name: &str| t.client(name).call("try-upgrade", json!([L]));
    assert_eq!(upgrade("a").reply::<Option<Held>>().unwrap(), None);
    let w = lock(&t, "w");
    unlock(&t, "b");
    assert!(w.is_parked());
    assert_eq!(upgrade("a").reply::<Option<Held>>().unwrap().unwrap().path, "/locks/a/holder");
    assert_eq!(w.waits_for(), ["Absent /locks/a/holder"]);
    unlock(&t, "a");
    assert!(is_awarded(&w));
}

#[test]
fn what_is_held_and_waited_for_can_be_seen() {
    let t = TestTree::new::<Locks>();
    lock(&t, "a");
    t.client("b").call("lock", json!({"path": L, "note": "deploy"}));
    let view = t.without_session("eye").query::<View>("show", json!([L])).unwrap();
    assert_eq!(view.holder.unwrap().who.principal, "spiffe://test/client/a");
    assert_eq!(view.line[0].who.note.as_deref(), Some("deploy"));
}

/// Many clients do what comes to their mind. After each step: exclusion holds, whoever could go has gone, and nothing is left
/// behind by those who are gone.
#[test]
fn no_order_of_events_loses_a_lock_or_a_wake_up() {
    for seed in 1..=30_u64 {
        let t = TestTree::new::<Locks>();
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % below
        };
        let mut calls: Vec<(TestClient, TestCall)> = Vec::new();
        let mut plain: Vec<(TestClient, String)> = Vec::new();
        for step in 0..120 {
            let name = format!("c{}", random(7));
            let client = t.client(&name);
            match random(10) {
                0..=2 => calls.push((client.clone(), client.call("lock", json!([L])))),
                3 => calls.push((client.clone(), client.call("lock-shared", json!({"path": L, "wait": 50})))),
                4 | 5 => drop(client.call("unlock", json!([L]))),
                6 if !calls.is_empty() => {
                    let at = usize::try_from(random(calls.len() as u64)).unwrap();
                    let _ = calls.swap_remove(at).1.cancel();
                }
                7 if random(2) == 0 => client.expire(),
                7 => t.advance(random(60)),
                8 => {
                    let place = plain_place(&client);
                    plain.push((client, place));
                }
                _ => plain.retain(|(client, place)| plain_turn(client, place).is_err() && t.data(place).is_some()),
            }
            check(&t, &calls, &format!("seed {seed}, step {step}"));
        }
        // Everybody leaves: nothing may be left.
        (0..7).for_each(|n| t.client(&format!("c{n}")).close());
        assert_eq!((t.parked(), t.data("/locks/a/holder"), line(&t).len()), (0, None, 0), "seed {seed}");
    }
}

fn check(t: &TestTree, calls: &[(TestClient, TestCall)], at: &str) {
    let (holder, shared) = (t.data("/locks/a/holder").is_some(), t.names("/locks/a/shared").len());
    // A plain client knows nothing of readers: only the two kinds of callers exclude each other there.
    let mut places = line(t);
    places.sort_by(|a, b| layout::order(a).cmp(&layout::order(b)));
    let parked: Vec<&TestCall> = calls.iter().map(|(_, call)| call).filter(|call| call.is_parked()).collect();
    let waits = |place: &str| parked.iter().filter(|call| call.waits_for()[0].ends_with(place)).count();
    let places_of_callers = parked.len();
    assert_eq!(t.parked(), places_of_callers, "{at}: every parked call is known");
    // Each call waits for something that is there: what is gone has woken it.
    for call in &parked {
        let on = call.waits_for()[0].trim_start_matches("Absent ").to_owned();
        assert!(t.data(&on).is_some(), "{at}: a call waits for {on}, which is gone");
    }
    // Each place but the first is followed by one that waits on it, if that is a caller's; the first by none but the line.
    for place in &places {
        assert!(waits(place) <= 1, "{at}: two wait on {place}");
    }
    if let Some(first) = places.first().filter(|_| !holder && shared == 0) {
        let is_plain = t.text(&format!("/locks/a/line/{first}")).unwrap() == r#"{"principal":"p"}"#;
        assert!(is_plain, "{at}: {first} could go and did not");
    }
}
