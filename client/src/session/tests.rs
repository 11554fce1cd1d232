//! The machine against scripts: lost replies, repetitions, push-backs, reconnects, and the lease's end.

mod calls;
mod random;
mod watches;

use bytes::Bytes;
use conclave_protocol::{
    Attached, Change, ChangeKind, ClientMessage, MemberId, Outcome as Stored, Path, PushBack, Refusal, Scope,
    ServerMessage, Set, Stat, Welcome, codec,
};

use super::*;
use crate::error::Doubt;

const TIMEOUT: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(10);
const SESSION: SessionId = SessionId(77);

fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(1_000_000 + ms))
}

fn machine() -> Machine {
    Machine::new(Settings { session_timeout: TIMEOUT }, [7; 32])
}

fn set(tag: u64) -> Op {
    Op::Set(Set { path: Path::root(), data: Bytes::from(tag.to_string()), if_version: None })
}

fn write(tag: u64) -> Ask {
    Ask::Write { op: set(tag), fence: None, in_session: true }
}

fn once(tag: u64) -> Ask {
    Ask::Write { op: set(tag), fence: None, in_session: false }
}

fn read() -> Ask {
    Ask::Read { consistency: None, query: Query::Exists { path: Path::root() } }
}

fn welcome(session: bool) -> Welcome {
    Welcome {
        version: conclave_protocol::PROTOCOL_VERSION,
        member: MemberId(1),
        cluster: "c".into(),
        principal: "client/test".into(),
        now_ms: 5_000_000,
        zxid: Zxid(0),
        endpoints: Vec::new(),
        attached: session.then_some(Attached { timeout_ms: 10_000 }),
    }
}

fn connect(machine: &mut Machine, now: Moment) {
    let attach = machine.hello().attach;
    machine.handle_welcome(now, &welcome(attach.is_some())).unwrap();
}

fn sent(machine: &mut Machine, now: Moment) -> Vec<ClientMessage> {
    std::iter::from_fn(|| machine.poll_send(now)).collect()
}

/// The single message that is sent.
fn only(machine: &mut Machine, now: Moment) -> ClientMessage {
    let mut all = sent(machine, now);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn id(message: &ClientMessage) -> RequestId {
    match message {
        ClientMessage::Hello(_) => 0,
        ClientMessage::Open { id, .. }
        | ClientMessage::Write { id, .. }
        | ClientMessage::Once { id, .. }
        | ClientMessage::Read { id, .. }
        | ClientMessage::Watch { id, .. }
        | ClientMessage::Unwatch { id, .. }
        | ClientMessage::Heartbeat { id } => *id,
    }
}

fn reply(id: RequestId, zxid: u64, outcome: Stored) -> ServerMessage {
    ServerMessage::Reply { id, zxid: Zxid(zxid), outcome: codec::encode(&outcome).into() }
}

fn was_set(id: RequestId, zxid: u64) -> ServerMessage {
    reply(id, zxid, Ok(Value::Set { stat: Stat { modified: Zxid(zxid), ..Stat::default() } }))
}

fn exists(id: RequestId, zxid: u64) -> ServerMessage {
    ServerMessage::Answer { id, zxid: Zxid(zxid), answer: Ok(Answer::Exists(None)) }
}

fn alive(id: RequestId) -> ServerMessage {
    ServerMessage::Answer { id, zxid: Zxid(0), answer: Ok(Answer::Alive) }
}

fn results(machine: &mut Machine) -> Vec<(Ticket, Result<Done, Error>)> {
    std::iter::from_fn(|| machine.poll_event())
        .filter_map(|event| match event {
            Event::Done { ticket, result } => Some((ticket, result)),
            _ => None,
        })
        .collect()
}

fn leaves(machine: &mut Machine) -> bool {
    std::iter::from_fn(|| machine.poll_event()).any(|event| matches!(event, Event::Leave { .. }))
}

/// A machine with an open session, opened at 0.
fn open() -> Machine {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_request(at(0), Ask::Session, WITHIN);
    let open = only(&mut machine, at(0));
    assert!(matches!(open, ClientMessage::Open { timeout_ms: 10_000, .. }), "{open:?}");
    let opened = Value::Opened { session: SESSION, timeout_ms: 10_000 };
    machine.handle_message(at(5), reply(id(&open), 1, Ok(opened)));
    assert!(matches!(results(&mut machine)[..], [(_, Ok(_))]));
    machine
}

fn sequences(messages: &[ClientMessage]) -> Vec<(u64, u64)> {
    let pick = |message: &ClientMessage| match message {
        ClientMessage::Write { sequence, floor, .. } => Some((*sequence, *floor)),
        _ => None,
    };
    messages.iter().filter_map(pick).collect()
}

#[test]
fn session_writes_are_numbered_densely_and_the_floor_follows_the_replies() {
    let mut machine = open();
    for tag in 1..=3 {
        machine.handle_request(at(10), write(tag), WITHIN);
    }
    let first = sent(&mut machine, at(10));
    assert_eq!(sequences(&first), [(1, 1), (2, 1), (3, 1)]);
    machine.handle_message(at(20), was_set(id(&first[0]), 2));
    machine.handle_message(at(20), was_set(id(&first[1]), 3));
    machine.handle_request(at(20), write(4), WITHIN);
    assert_eq!(sequences(&sent(&mut machine, at(20))), [(4, 3)]);
    assert_eq!(results(&mut machine).len(), 2);
}

#[test]
fn everything_unanswered_is_sent_again_in_order_and_late_replies_of_the_old_connection_cannot_confuse() {
    let mut machine = open();
    let tickets: Vec<_> =
        [write(1), read(), write(2), read()].map(|ask| machine.handle_request(at(10), ask, WITHIN)).into();
    let first = sent(&mut machine, at(10));
    assert_eq!(first.len(), 4);
    machine.handle_message(at(11), was_set(id(&first[0]), 2));
    machine.handle_disconnect();
    assert_eq!(sent(&mut machine, at(20)), []);
    assert_eq!(machine.hello().attach.unwrap().session, SESSION);
    assert_eq!(machine.hello().seen, Zxid(2));
    connect(&mut machine, at(30));
    let again = sent(&mut machine, at(30));
    assert!(matches!(again[0], ClientMessage::Heartbeat { .. }));
    assert!(matches!(again[1], ClientMessage::Read { .. }));
    assert!(matches!(again[2], ClientMessage::Write { sequence: 2, floor: 2, .. }));
    assert!(matches!(again[3], ClientMessage::Read { .. }));
    assert_eq!(again.len(), 4);
    machine.handle_message(at(31), exists(id(&again[1]), 2));
    machine.handle_message(at(31), was_set(id(&again[2]), 3));
    machine.handle_message(at(31), exists(id(&again[3]), 3));
    let done: Vec<_> = results(&mut machine).into_iter().map(|(ticket, result)| (ticket, result.is_ok())).collect();
    assert_eq!(done, tickets.iter().map(|ticket| (*ticket, true)).collect::<Vec<_>>());
}

#[test]
fn a_write_past_its_deadline_is_unknown_to_its_caller_and_goes_on() {
    let mut machine = open();
    let late = machine.handle_request(at(10), write(1), Duration::from_secs(1));
    let message = only(&mut machine, at(10));
    machine.handle_timeout(at(1_010));
    let results_now = results(&mut machine);
    assert!(
        matches!(results_now[..], [(ticket, Err(Error::Unknown { why: Doubt::Deadline }))] if ticket == late),
        "{results_now:?}"
    );
    machine.handle_request(at(1_020), write(2), WITHIN);
    assert_eq!(sequences(&sent(&mut machine, at(1_020))), [(2, 1)], "the floor waits for the first");
    machine.handle_message(at(1_030), was_set(id(&message), 2));
    assert_eq!(results(&mut machine).len(), 0, "its caller was told before");
    machine.handle_request(at(1_040), write(3), WITHIN);
    assert_eq!(sequences(&sent(&mut machine, at(1_040))), [(3, 2)]);
}

#[test]
fn a_member_that_does_not_answer_a_one_shot_write_is_left() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_request(at(0), once(1), Duration::from_secs(2));
    assert_eq!(sent(&mut machine, at(0)).len(), 1);
    machine.handle_timeout(at(1_999));
    assert!(!leaves(&mut machine));
    machine.handle_timeout(at(2_000));
    assert!(leaves(&mut machine), "it may be cut off from the others");
}

#[test]
fn what_was_never_sent_times_out_without_having_happened_and_leaves_no_gap() {
    let mut machine = open();
    machine.handle_disconnect();
    for ask in [write(1), read()] {
        machine.handle_request(at(10), ask, Duration::from_secs(1));
    }
    machine.handle_timeout(at(1_010));
    let results_now = results(&mut machine);
    assert_eq!(results_now.len(), 2);
    assert!(results_now.iter().all(|(_, result)| matches!(result, Err(Error::TimedOut { .. }))), "{results_now:?}");
    connect(&mut machine, at(1_020));
    machine.handle_request(at(1_020), write(2), WITHIN);
    assert_eq!(sequences(&sent(&mut machine, at(1_020))), [(1, 1)]);
}

#[test]
fn a_one_shot_write_keeps_its_nonce_across_connections() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_request(at(0), once(1), WITHIN);
    let ClientMessage::Once { nonce, until_ms, .. } = only(&mut machine, at(0)) else { panic!("not once") };
    assert_eq!(until_ms, 5_015_000, "deadline and a margin, in cluster time");
    machine.handle_disconnect();
    connect(&mut machine, at(100));
    let ClientMessage::Once { nonce: again, until_ms: until_again, .. } = only(&mut machine, at(100)) else {
        panic!("not once")
    };
    assert_eq!((nonce, until_ms), (again, until_again));
    machine.handle_timeout(at(10_000));
    assert!(matches!(results(&mut machine)[..], [(_, Err(Error::Unknown { .. }))]));
    assert_eq!(machine.len(), 0);
}

#[test]
fn a_one_shot_write_that_was_forgotten_is_repeated_only_if_it_surely_did_not_happen() {
    for lost_before in [false, true] {
        let mut machine = machine();
        connect(&mut machine, at(0));
        machine.handle_request(at(0), once(1), WITHIN);
        let mut message = only(&mut machine, at(0));
        if lost_before {
            machine.handle_disconnect();
            connect(&mut machine, at(10));
            message = only(&mut machine, at(10));
        }
        let until = PushBack::Until { now_ms: 9_000_000 };
        machine.handle_message(at(20), ServerMessage::PushBack { id: id(&message), why: until });
        if lost_before {
            let results = results(&mut machine);
            assert!(matches!(results[..], [(_, Err(Error::Unknown { why: Doubt::Forgotten }))]), "{results:?}");
        } else {
            machine.handle_timeout(at(100));
            let ClientMessage::Once { until_ms, .. } = only(&mut machine, at(100)) else { panic!("not once") };
            assert_eq!(until_ms, 9_000_080 + 9_900 + 5_000, "counted from the leader's clock");
        }
    }
}

#[test]
fn expected_is_followed_from_the_sequence_it_names_and_busy_after_a_pause() {
    for (why, pause) in [(PushBack::Expected { next: 1 }, false), (PushBack::Busy, true), (PushBack::NotReady, true)] {
        let mut machine = open();
        for tag in 1..=2 {
            machine.handle_request(at(10), write(tag), WITHIN);
        }
        machine.handle_request(at(10), read(), WITHIN);
        let first = sent(&mut machine, at(10));
        machine.handle_message(at(20), ServerMessage::PushBack { id: id(&first[0]), why });
        machine.handle_message(at(20), ServerMessage::PushBack { id: id(&first[1]), why });
        let now = if pause {
            assert_eq!(sent(&mut machine, at(20)), [], "{why:?}");
            machine.poll_timeout(at(20)).unwrap()
        } else {
            at(100)
        };
        assert!(now <= at(100));
        let again = sent(&mut machine, now);
        assert_eq!(sequences(&again), [(1, 1), (2, 1)], "{why:?}");
        assert!(matches!(again[2], ClientMessage::Read { .. }), "a read behind a write is sent behind it again");
        // The first read's answer is not believed: it was read before the write.
        machine.handle_message(now, exists(id(&first[2]), 9));
        assert_eq!(results(&mut machine).len(), 0);
    }
}

#[test]
fn a_member_that_is_behind_or_never_ready_is_left() {
    let mut machine = open();
    machine.handle_request(at(10), read(), WITHIN);
    let message = only(&mut machine, at(10));
    let why = PushBack::Behind { zxid: Zxid(0) };
    machine.handle_message(at(20), ServerMessage::PushBack { id: id(&message), why });
    assert!(leaves(&mut machine));

    let mut machine = open();
    machine.handle_request(at(10), write(1), WITHIN);
    let mut now = at(10);
    for round in 0..3 {
        let message = only(&mut machine, now);
        machine.handle_message(now, ServerMessage::PushBack { id: id(&message), why: PushBack::NotReady });
        assert_eq!(leaves(&mut machine), round == 2);
        now = now.after(Duration::from_secs(1));
        machine.handle_timeout(now);
    }
}

#[test]
fn the_lease_runs_from_the_sending_of_what_was_acknowledged() {
    let mut machine = open();
    assert_eq!(machine.lease_ends(), Some(at(8_750)), "7/8 from when the opening was sent");
    assert_eq!(sent(&mut machine, at(3_332)), []);
    let beat = only(&mut machine, at(3_334));
    assert_eq!(machine.lease_ends(), Some(at(8_750)), "sending alone renews nothing");
    machine.handle_message(at(4_000), alive(id(&beat)));
    assert_eq!(machine.lease_ends(), Some(at(3_334 + 8_750)));
}

#[test]
fn a_reconnect_alone_renews_nothing_and_does_not_end_the_suspension() {
    let mut machine = open();
    assert_eq!(machine.state(at(10)), State::Connected);
    machine.handle_disconnect();
    assert_eq!(machine.state(at(10)), State::Suspended);
    connect(&mut machine, at(2_000));
    assert_eq!(machine.state(at(2_000)), State::Suspended);
    let beat = only(&mut machine, at(2_000));
    assert_eq!(machine.lease_ends(), Some(at(8_750)));
    machine.handle_message(at(2_100), alive(id(&beat)));
    assert_eq!(machine.state(at(2_100)), State::Connected);
    assert_eq!(machine.lease_ends(), Some(at(2_000 + 8_750)));
}

#[test]
fn a_session_without_acknowledgements_is_suspended_then_lost_and_its_member_is_left() {
    let mut machine = open();
    let _beat = only(&mut machine, at(3_400));
    assert_eq!(machine.state(at(6_665)), State::Connected);
    assert_eq!(machine.state(at(6_667)), State::Suspended);
    machine.handle_timeout(at(8_400));
    assert!(leaves(&mut machine));
    assert_eq!(machine.state(at(8_749)), State::Suspended);
    assert_eq!(machine.state(at(8_750)), State::Lost, "also before anybody handled the time-out");
    machine.handle_timeout(at(8_750));
    assert_eq!(machine.state(at(0)), State::Lost, "for good");
}

#[test]
fn an_acknowledgement_or_a_welcome_after_the_leases_end_revives_nothing() {
    let mut machine = open();
    let heartbeat = sent(&mut machine, at(3_334)).pop().unwrap();
    machine.handle_message(at(8_750), alive(id(&heartbeat)));
    assert_eq!(machine.state(at(8_750)), State::Lost);

    let mut machine = open();
    machine.handle_disconnect();
    machine.handle_welcome(at(8_750), &welcome(true)).unwrap();
    assert_eq!(machine.state(at(8_751)), State::Lost);
}

#[test]
fn losing_the_session_ends_its_requests_and_nothing_else() {
    let mut machine = open();
    let on_its_way = machine.handle_request(at(10), write(1), WITHIN);
    assert_eq!(sent(&mut machine, at(10)).len(), 1);
    machine.handle_disconnect();
    let waiting = machine.handle_request(at(20), write(2), WITHIN);
    let reading = machine.handle_request(at(20), read(), WITHIN);
    machine.handle_timeout(at(8_750));
    let results_now = results(&mut machine);
    assert!(
        matches!(results_now[..], [
            (a, Err(Error::SessionOver { outcome: Outcome::Unknown })),
            (b, Err(Error::SessionOver { outcome: Outcome::NotApplied })),
        ] if a == on_its_way && b == waiting),
        "{results_now:?}"
    );
    assert_eq!(machine.hello().attach, None);
    connect(&mut machine, at(9_000));
    let message = only(&mut machine, at(9_000));
    machine.handle_message(at(9_001), exists(id(&message), 4));
    assert!(matches!(results(&mut machine)[..], [(ticket, Ok(_))] if ticket == reading));
    machine.handle_request(at(9_002), once(3), WITHIN);
    machine.handle_request(at(9_002), Ask::Session, WITHIN);
    let over = results(&mut machine);
    assert!(over.len() == 2 && over.iter().all(|(_, r)| r.as_ref().is_err_and(Error::is_session_over)), "{over:?}");
}

#[test]
fn goodbye_and_a_refusal_that_the_session_is_over_lose_it() {
    let refusal = Refusal::SessionOver { session: SESSION };
    let mut machine = open();
    machine.handle_message(at(10), ServerMessage::Goodbye { refusal: refusal.clone() });
    assert_eq!(machine.state(at(10)), State::Lost);

    let mut machine = open();
    machine.handle_request(at(10), write(1), WITHIN);
    let message = only(&mut machine, at(10));
    machine.handle_message(at(20), reply(id(&message), 5, Err(refusal.clone())));
    assert_eq!(machine.state(at(20)), State::Lost);
    let results_now = results(&mut machine);
    // An earlier sending of the member's own may have been carried out before the session ended.
    assert!(matches!(results_now[..], [(_, Err(Error::SessionOver { outcome: Outcome::Unknown }))]), "{results_now:?}");

    let mut machine = open();
    let beat = only(&mut machine, at(3_400));
    let answer = ServerMessage::Answer { id: id(&beat), zxid: Zxid(0), answer: Err(refusal) };
    machine.handle_message(at(3_500), answer);
    assert_eq!(machine.state(at(3_500)), State::Lost);
}

#[test]
fn a_refusal_about_another_session_ends_nothing() {
    let mut machine = open();
    machine.handle_request(at(10), write(1), WITHIN);
    let message = only(&mut machine, at(10));
    let refusal = Refusal::SessionOver { session: SessionId(3) };
    machine.handle_message(at(20), reply(id(&message), 5, Err(refusal.clone())));
    let results_now = results(&mut machine);
    assert!(matches!(&results_now[..], [(_, Err(Error::Refused(why)))] if *why == refusal), "{results_now:?}");
    assert_eq!(machine.state(at(20)), State::Connected);
}

#[test]
fn an_opening_whose_reply_is_lost_is_sent_again_and_the_lease_counts_from_the_first() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_request(at(0), write(1), WITHIN);
    let ClientMessage::Open { nonce, .. } = only(&mut machine, at(0)) else { panic!("not open") };
    machine.handle_disconnect();
    connect(&mut machine, at(1_000));
    let again = only(&mut machine, at(1_000));
    assert!(matches!(&again, ClientMessage::Open { nonce: same, .. } if *same == nonce));
    let opened = Value::Opened { session: SESSION, timeout_ms: 10_000 };
    machine.handle_message(at(1_100), reply(id(&again), 1, Ok(opened)));
    assert_eq!(machine.lease_ends(), Some(at(8_750)));
    assert_eq!(sequences(&sent(&mut machine, at(1_100))), [(1, 1)]);
}

#[test]
fn a_refused_opening_refuses_all_that_waits_for_it() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    let tickets = [Ask::Session, write(1)].map(|ask| machine.handle_request(at(0), ask, WITHIN));
    let open = only(&mut machine, at(0));
    let refusal = Refusal::Limit { what: "sessions".into(), limit: 1, actual: 2 };
    machine.handle_message(at(10), reply(id(&open), 1, Err(refusal)));
    let results_now = results(&mut machine);
    assert_eq!(results_now.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets);
    assert!(results_now.iter().all(|(_, result)| matches!(result, Err(Error::Refused(Refusal::Limit { .. })))));
    assert_eq!(machine.state(at(10)), State::Connected);
}

#[test]
fn a_client_belongs_to_the_cluster_that_it_met_first() {
    let mut machine = machine();
    assert_eq!(machine.hello().cluster, None);
    connect(&mut machine, at(0));
    machine.handle_disconnect();
    assert_eq!(machine.hello().cluster.as_deref(), Some("c"));
    let other = Welcome { cluster: "d".into(), ..welcome(false) };
    let why = machine.handle_welcome(at(1), &other).unwrap_err();
    assert!(why.contains("cluster d, not c"), "{why}");
    assert!(!machine.is_connected());
    connect(&mut machine, at(2));
    assert!(machine.is_connected());
}

#[test]
fn reads_that_may_be_stale_wait_for_no_write() {
    for (consistency, waits) in [
        (Consistency::Session, true),
        (Consistency::Linearizable, true),
        (Consistency::Stale, false),
        (Consistency::Within(5), false),
    ] {
        let mut machine = machine();
        connect(&mut machine, at(0));
        machine.handle_request(at(0), write(1), WITHIN);
        let query = Query::Exists { path: Path::root() };
        machine.handle_request(at(0), Ask::Read { consistency: Some(consistency), query }, WITHIN);
        let reads = sent(&mut machine, at(0)).into_iter().filter(|m| matches!(m, ClientMessage::Read { .. })).count();
        // The write waits for the session to be open.
        assert_eq!(reads, usize::from(!waits), "{consistency:?}");
    }
}

#[test]
fn closing_waits_for_the_writes_before_it_and_refuses_those_behind() {
    let mut machine = open();
    machine.handle_request(at(10), write(1), WITHIN);
    machine.handle_request(at(10), Ask::Close, WITHIN);
    let behind = machine.handle_request(at(10), write(2), WITHIN);
    assert!(matches!(results(&mut machine)[..], [(ticket, Err(Error::Closed { .. }))] if ticket == behind));
    let messages = sent(&mut machine, at(10));
    assert!(matches!(messages[1], ClientMessage::Write { sequence: 2, op: Op::Close, .. }));
    machine.handle_message(at(20), was_set(id(&messages[0]), 2));
    machine.handle_message(at(20), reply(id(&messages[1]), 3, Ok(Value::Closed)));
    let events: Vec<_> = std::iter::from_fn(|| machine.poll_event()).collect();
    assert!(matches!(events[..2], [Event::Done { result: Ok(_), .. }, Event::Done { result: Ok(_), .. }]));
    assert!(events.iter().any(|event| matches!(event, Event::Finished)));
    assert_eq!(machine.state(at(20)), State::Lost);
}

#[test]
fn a_session_is_not_relied_on_from_the_moment_that_its_closing_is_asked_for() {
    let mut machine = open();
    assert_eq!(machine.state(at(10)), State::Connected);
    machine.handle_request(at(10), Ask::Close, WITHIN);
    // Before anything was sent: the cluster tells of the end of its ephemeral znodes before it answers.
    assert_eq!(machine.state(at(10)), State::Lost);
}

#[test]
fn what_is_no_answer_to_the_question_ends_the_connection_and_not_the_program() {
    let mut machine = open();
    machine.handle_request(at(10), write(1), WITHIN);
    machine.handle_request(at(10), read(), WITHIN);
    let messages = sent(&mut machine, at(10));
    for nonsense in [
        ServerMessage::Reply { id: id(&messages[0]), zxid: Zxid(1), outcome: Bytes::from_static(b"\xff") },
        exists(id(&messages[0]), 1),
        was_set(id(&messages[1]), 1),
        ServerMessage::Welcome(Box::new(welcome(true))),
        ServerMessage::PushBack { id: 0, why: PushBack::Busy },
        ServerMessage::Goodbye { refusal: Refusal::BadRequest { why: "no".into() } },
    ] {
        machine.handle_message(at(11), nonsense.clone());
        assert!(leaves(&mut machine), "{nonsense:?}");
        machine.handle_disconnect();
        connect(&mut machine, at(12));
        let again = sent(&mut machine, at(12));
        assert_eq!(again.iter().map(id).collect::<Vec<_>>(), [1, 2, 3], "a heartbeat and both again: {again:?}");
        // As before, so that the numbers of the next nonsense fit.
        machine.handle_disconnect();
        connect(&mut machine, at(13));
        assert_eq!(sent(&mut machine, at(13)).len(), 3);
    }
    machine.handle_message(at(20), was_set(999, 5));
    machine.handle_message(at(20), ServerMessage::PushBack { id: 999, why: PushBack::Busy });
    assert!(!leaves(&mut machine), "an answer to what nobody asks any more is nothing");
}
