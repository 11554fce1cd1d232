//! Plugins in the pipeline: woken calls in slices, shares of its time, timers, and a member that lacks what runs.

use conclave_core::plan::{Planner, Verdict};
use conclave_core::query;
use conclave_protocol::plugin::{ComponentDigest, PluginState};
use conclave_protocol::{PushBack, Zxid};

use super::*;

const GATE: &str = "/gate";

fn call(plugin: &str, procedure: &str, at: &str) -> Op {
    let args = Bytes::copy_from_slice(at.as_bytes());
    Op::Call(Call { plugin: plugin.to_owned(), procedure: procedure.to_owned(), args, root: Path::root() })
}

fn create(at: &str) -> Op {
    Op::Create(Create::new(path(at), Bytes::new()))
}

/// Carries out and applies what is asked, by a planner that does not run what is woken.
fn carry_out(member: &mut Member, requests: impl IntoIterator<Item = Request>) {
    let kept = member.tables.kept().clone();
    let runner = Arc::clone(&member.guests) as Arc<dyn Runner>;
    let mut planner = Planner::new(member.at.term, member.tables.snapshot(), &kept, runner).unwrap();
    for request in requests {
        assert!(matches!(planner.plan(&request, 1_000).unwrap(), Verdict::Planned(_)));
    }
    let payload = planner.cut().unwrap().payload;
    assert!(matches!(member.write(member.at.term, &payload), Applied::Done(_)));
}

/// A member that does not lead yet, in whose tables so many calls of a session wait for the gate.
fn with_waiting(calls: u64) -> Member {
    let mut member = Member::new();
    carry_out(&mut member, [once(100, Work::Open { timeout_ms: 5_000 })]);
    let session = SessionId(query::state(&member.tables).unwrap().zxid.0);
    carry_out(&mut member, (1..=calls).map(|n| write(session, n, 1, call("waiter", "wait", GATE))));
    assert_eq!(query::state(&member.tables).unwrap().parked, calls);
    member
}

/// Of the transactions of an entry, but the leader's own, which are ends of calls.
fn completions(payload: &[u8]) -> Vec<bool> {
    let transactions = Entry::decode(payload).unwrap().transactions;
    let asked = transactions.iter().filter(|one| one.origin != Origin::Leader);
    asked.map(|one| matches!(one.origin, Origin::Completion { .. })).collect()
}

#[test]
fn a_new_planner_runs_calls_that_were_woken_before_anything_new() {
    let mut member = with_waiting(100);
    carry_out(&mut member, [once(101, Work::Op(create(GATE)))]);
    member.lead(Some(2));
    member.blank(2);
    assert_eq!(word(&member.pipeline.take_effects()[0]), "started 2");
    member.increment(1);
    let (_, payload) = member.proposed();
    let ends = completions(&payload);
    let first_request = ends.iter().position(|is_end| !is_end).unwrap();
    assert_eq!(first_request, 32, "a slice of them, and then what is new");
    assert_eq!(ends.iter().filter(|is_end| **is_end).count(), 100, "nothing else waits: the others follow");
    assert!(matches!(member.apply(2, &payload), Applied::Done(_)));
    assert_eq!(query::state(&member.tables).unwrap().parked, 0);
}

#[test]
fn woken_calls_and_requests_take_turns_and_neither_starves() {
    let mut member = with_waiting(60);
    member.lead(Some(2));
    member.blank(2);
    member.pipeline.take_effects();
    // A woken call takes as long as a request.
    member.guests.run_us.store(100, Ordering::Relaxed);
    member.ask(1, once(1, Work::Op(create(GATE))));
    for token in 2..=20 {
        member.increment(token);
    }
    let (_, payload) = member.proposed();
    let ends = completions(&payload);
    assert_eq!(ends.len(), 80);
    for (at, pair) in ends[..40].chunks(2).enumerate() {
        assert_eq!(pair, [false, true], "at {at}: {ends:?}");
    }
    assert!(ends[40..].iter().all(|is_end| *is_end));
}

#[test]
fn a_request_that_comes_while_woken_calls_run_is_planned_at_once_and_waits_for_few_of_them() {
    let mut member = with_waiting(200);
    carry_out(&mut member, [once(101, Work::Op(create(GATE)))]);
    member.lead(Some(2));
    member.blank(2);
    member.pipeline.take_effects();
    // Each takes a millisecond.
    member.guests.run_ms.store(1, Ordering::Relaxed);
    let mut alone = 0;
    loop {
        match &member.turn()[..] {
            [] => break,
            [one] => alone += usize::from(one.starts_with("propose")),
            more => panic!("what arrived is not looked at between {more:?}"),
        }
    }
    assert_eq!(alone, 3, "no entry is on its way that a request could be in");
    member.ask(1, once(1, Work::Op(create("/a"))));
    let (_, payload) = member.proposed();
    let ends = completions(&payload);
    assert_eq!(ends.iter().position(|is_end| !is_end), Some(0), "{ends:?}");
    assert!(ends.len() < 10, "as long as an entry may take: {ends:?}");
}

#[test]
fn woken_calls_leave_room_for_who_asks_one_thing_after_the_other() {
    let mut member = with_waiting(100);
    member.lead(Some(2));
    member.blank(2);
    member.pipeline.take_effects();
    let carry_out = |member: &mut Member| {
        let (serial, payload) = member.proposed();
        assert_eq!(member.turn(), [""; 0], "nothing else is on its way when the next request comes");
        assert!(matches!(member.apply(2, &payload), Applied::Done(_)));
        member.outcome(serial, Outcome::Done);
        completions(&payload)
    };
    member.increment(1);
    carry_out(&mut member);
    member.ask(2, once(2, Work::Op(create(GATE))));
    let ends = carry_out(&mut member);
    assert_eq!((ends[0], ends.len()), (false, 1 + 1 + 8), "one behind the request, and so many alone");
    assert_eq!(carry_out(&mut member), [true; 8], "the next request will not wait for long behind these");
    // Nobody asks any more.
    member.guests.clock_us.fetch_add(40_000, Ordering::Relaxed);
    assert_eq!(carry_out(&mut member).len(), 100 - 9 - 8);
}

#[test]
fn requests_that_fill_their_entries_do_not_starve_woken_calls() {
    let mut member = with_waiting(10);
    member.lead(Some(2));
    member.blank(2);
    member.pipeline.take_effects();
    // Each takes as long as an entry may, and the next one is there before the last one is done.
    member.guests.run_ms.store(5, Ordering::Relaxed);
    member.ask(1, once(1, Work::Op(create(GATE))));
    let (mut on_its_way, mut woken) = (Vec::new(), 0);
    for token in 2..=21 {
        member.increment(token);
        let before = std::mem::take(&mut on_its_way);
        for effect in member.effects() {
            let Effect::Propose { serial, payload, .. } = effect else { panic!("{effect:?}") };
            woken += completions(&payload).iter().filter(|is_end| **is_end).count();
            on_its_way.push(serial);
        }
        assert!(!on_its_way.is_empty(), "there is always one on its way");
        before.into_iter().for_each(|serial| member.outcome(serial, Outcome::Done));
    }
    assert_eq!(woken, 10, "they waited for as long as others asked");
}

#[test]
fn an_entry_of_woken_calls_that_came_to_nothing_is_made_again() {
    let mut member = with_waiting(10);
    carry_out(&mut member, [once(101, Work::Op(create(GATE)))]);
    member.lead(Some(2));
    member.blank(2);
    assert_eq!(word(&member.pipeline.take_effects()[0]), "started 2");
    let (serial, payload) = member.proposed();
    assert_eq!(completions(&payload), [true; 10]);
    member.outcome(serial, Outcome::Rejected);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, true);
    let (_, again) = member.proposed();
    assert_eq!(completions(&again), [true; 10]);
}

// A member that lacks what runs.

#[test]
fn a_member_that_lacks_an_active_plugin_plans_nothing_and_wants_another_to_lead() {
    let mut member = Member::new();
    let guests = Arc::new(Guests::default());
    guests.unfit.lock().unwrap().insert(ComponentDigest([1; 32]));
    member.guests = Arc::clone(&guests);
    member.lead(Some(2));
    member.blank(2);
    let lacks = "lacks 2 counter: it needs what this machine lacks";
    assert_eq!(member.turn(), [lacks]);
    // Not even what needs no plugin: it may be what a trigger is for.
    member.ask(1, once(1, Work::Op(create("/a"))));
    member.tell();
    assert_eq!(member.turn(), [""; 0]);
    member.again(2);
    assert_eq!(member.turn(), [lacks], "it is said again each time");
    guests.unfit.lock().unwrap().clear();
    member.again(1);
    assert_eq!(member.turn(), [""; 0], "that was meant for another term");
    member.again(2);
    assert_eq!(member.turn(), ["started 2", "propose 1 in 2: 1"]);
}

#[test]
fn what_waits_at_a_member_that_hands_over_is_sent_again_by_its_member() {
    let mut member = Member::new();
    member.guests = Arc::default();
    member.guests.unfit.lock().unwrap().insert(ComponentDigest([2; 32]));
    member.lead(Some(2));
    member.blank(2);
    member.increment(1);
    assert_eq!(member.turn().len(), 1);
    member.lead(None);
    assert_eq!(member.turn(), ["tell 1 Resend"]);
    member.again(2);
    assert_eq!(member.turn(), [""; 0], "it does not lead any more");
}

// Shares.

#[test]
fn calls_of_a_plugin_that_took_its_share_are_pushed_back_and_no_others() {
    let mut member = Member::leading();
    member.guests.run_us.store(4_000, Ordering::Relaxed);
    for token in 1..=20 {
        member.increment(token);
    }
    member.ask(21, once(21, Work::Op(call("waiter", "increment", "/w"))));
    member.ask(22, once(22, Work::Op(create("/a"))));
    // What was planned is known, however much the plugin has taken.
    member.increment(1);
    let words = member.turn();
    assert_eq!(words[0], "propose 1 in 2: 11", "nine calls of its own, and what others ask: {words:?}");
    let busy: Vec<String> =
        (10..=20).map(|token| format!("tell {token} {:?}", Told::PushBack(PushBack::Busy))).collect();
    assert_eq!(words[1..12], busy);
    assert_eq!(words[12], format!("tell 1 {:?}", Told::Look(Zxid(2))));
    // Time brings another half of it.
    member.guests.clock_us.fetch_add(40_000, Ordering::Relaxed);
    member.increment(11);
    assert_eq!(member.turn(), ["propose 2 in 2: 1"]);
}

#[test]
fn a_plugin_whose_calls_wait_alone_is_not_held_back() {
    let mut member = Member::leading();
    member.guests.run_us.store(100_000, Ordering::Relaxed);
    for token in 1..=20 {
        member.increment(token);
    }
    assert_eq!(member.turn(), ["propose 1 in 2: 20"], "there is nobody to leave time for");
    member.increment(21);
    member.ask(22, once(22, Work::Op(create("/a"))));
    assert_eq!(
        member.turn(),
        ["propose 2 in 2: 1".to_owned(), format!("tell 21 {:?}", Told::PushBack(PushBack::Busy))]
    );
}

#[test]
fn a_plugin_is_held_back_for_who_asks_one_thing_after_the_other() {
    let mut member = Member::leading();
    member.guests.run_us.store(30_000, Ordering::Relaxed);
    member.ask(1, once(1, Work::Op(create("/a"))));
    member.increment(2);
    assert_eq!(member.turn(), ["propose 1 in 2: 2"]);
    // The next write is not there yet.
    member.increment(3);
    let busy = |token: u64| format!("tell {token} {:?}", Told::PushBack(PushBack::Busy));
    assert_eq!(member.turn(), [busy(3)]);
    member.guests.clock_us.fetch_add(10_000, Ordering::Relaxed);
    member.increment(4);
    assert_eq!(member.turn(), ["propose 2 in 2: 1"], "nobody has asked for 40 ms");
}

#[test]
fn a_plugin_that_fails_takes_little_from_others_before_it_is_suspended() {
    let mut member = Member::leading();
    member.guests.run_us.store(5_000, Ordering::Relaxed);
    let mut failed = 0;
    for round in 0..1_000 {
        member.ask(2 * round, once(2 * round, Work::Op(call("broken", "fail", "/x"))));
        member.ask(2 * round + 1, once(2 * round + 1, Work::Op(create(&format!("/{round}")))));
        let words = member.turn();
        // One of two is put off.
        let (serial, _) = words[0].strip_prefix("propose ").unwrap().split_once(' ').unwrap();
        failed += u64::from(words.len() == 1);
        member.outcome(serial.parse().unwrap(), Outcome::Done);
        member.guests.clock_us.fetch_add(1_000, Ordering::Relaxed);
    }
    assert!((5..=9).contains(&failed), "{failed} runs of 5 ms in a second of others' writes");
}

#[test]
fn a_timer_that_fails_pays_for_itself_and_is_due_again_soon_when_it_is_put_off() {
    const HOUR: u64 = 3_600_000;
    let mut member = Member::leading();
    member.guests.run_us.store(5_000, Ordering::Relaxed);
    member.pipeline.tick(1_000 + HOUR);
    assert_eq!(member.turn(), ["propose 1 in 2: 1"], "the clock's; the other one came to nothing");
    for round in 0..3 {
        member.increment(2 * round);
        member.ask(2 * round + 1, once(2 * round + 1, Work::Op(create(&format!("/{round}")))));
        let words = member.turn();
        assert_eq!(words.len(), 1, "the counter is held for what another plugin did: {words:?}");
    }
    member.pipeline.tick(1_000 + 2 * HOUR);
    member.ask(10, once(10, Work::Op(create("/last"))));
    member.turn();
    assert_eq!(member.pipeline.next_tick_ms(), Some(1_100), "it was put off for an hour");
}

#[test]
fn a_woken_call_counts_as_its_plugins_time() {
    let mut member = with_waiting(20);
    carry_out(&mut member, [once(101, Work::Op(create(GATE)))]);
    member.lead(Some(2));
    member.blank(2);
    member.pipeline.take_effects();
    member.guests.run_us.store(100_000, Ordering::Relaxed);
    let (_, payload) = member.proposed();
    assert_eq!(completions(&payload), [true; 20], "who has waited is not pushed back");
    member.ask(1, once(1, Work::Op(call("waiter", "increment", "/w"))));
    member.increment(2);
    assert_eq!(member.turn(), ["propose 2 in 2: 1".to_owned(), format!("tell 1 {:?}", Told::PushBack(PushBack::Busy))]);
}

#[test]
fn a_plugin_that_fails_again_and_again_is_suspended_by_a_transaction() {
    let mut member = Member::leading();
    for token in 1..=60 {
        member.ask(token, once(token, Work::Op(call("broken", "fail", "/x"))));
    }
    member.increment(61);
    let effects = member.effects();
    let payloads: Vec<&Bytes> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Propose { payload, .. } => payload,
            other => panic!("{other:?}"),
        })
        .collect();
    for payload in payloads {
        assert!(matches!(member.write(2, payload), Applied::Done(_)));
    }
    let row = query::plugin(&member.tables, "broken").unwrap().unwrap();
    assert!(
        matches!(&row.info.state, PluginState::Suspended { why, .. } if why.contains("50")),
        "{:?}",
        row.info.state
    );
    assert_eq!(query::plugin(&member.tables, "counter").unwrap().unwrap().info.state, PluginState::Active);
}

// Timers.

#[test]
fn a_timer_is_planned_when_it_is_due_and_one_at_a_time() {
    let mut member = Member::leading();
    member.pipeline.tick(1_499);
    assert_eq!(member.turn(), [""; 0]);
    assert_eq!(member.pipeline.next_tick_ms(), Some(1_500));
    member.pipeline.tick(1_500);
    let (serial, payload) = member.proposed();
    member.pipeline.tick(9_000);
    assert_eq!(member.turn(), [""; 0], "one is under way");
    let Applied::Done(entry) = member.apply(2, &payload) else { panic!("void") };
    assert_eq!(entry.transactions[0].changes[0].change.path, path("/ticks"));
    member.outcome(serial, Outcome::Done);
    member.pipeline.tick(9_000);
    assert_eq!(member.turn(), ["propose 2 in 2: 1"]);
}

#[test]
fn a_tick_that_came_to_nothing_is_not_planned_again_before_its_time() {
    let mut member = Member::leading();
    member.pipeline.tick(1_500);
    let (serial, _) = member.proposed();
    member.outcome(serial, Outcome::Rejected);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, true);
    assert_eq!(member.turn(), [""; 0]);
    member.pipeline.tick(2_000);
    assert_eq!(member.turn(), ["propose 2 in 2: 1"]);
}

#[test]
fn a_timer_of_a_plugin_that_was_disabled_is_not_due_any_more() {
    let mut member = Member::leading();
    let manage = conclave_protocol::plugin::Manage {
        name: "clock".to_owned(),
        what: conclave_protocol::plugin::Action::Disable,
    };
    member.ask(1, once(1, Work::Op(Op::Manage(manage))));
    let (serial, payload) = member.proposed();
    member.apply(2, &payload);
    member.outcome(serial, Outcome::Done);
    member.plugins_changed();
    assert_eq!(member.pipeline.next_tick_ms(), Some(3_601_000), "another plugin's");
    member.pipeline.tick(9_000);
    assert_eq!(member.turn(), [""; 0]);
}
