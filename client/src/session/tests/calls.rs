//! Calls: parked and completed in any order with their answers, told twice, cancelled, timed out, dropped.

mod random;

use super::*;

/// A call; `bounded` when it has a time of its own.
pub(super) fn call(tag: u64, in_session: bool, bounded: bool) -> Ask {
    let (plugin, procedure) = ("lock".to_owned(), "acquire".to_owned());
    let call = Call { plugin, procedure, args: Bytes::from(tag.to_string()), root: Path::root() };
    Ask::Call { call, fence: None, in_session, bounded }
}

pub(super) fn completed(sequence: u64, zxid: u64, outcome: Stored) -> ServerMessage {
    ServerMessage::Completed { sequence, zxid: Zxid(zxid), outcome: codec::encode(&outcome).into() }
}

fn value(text: &'static str) -> Stored {
    Ok(Value::Called(Bytes::from_static(text.as_bytes())))
}

/// Of a write: sequence, floor, and the completions that it tells of.
fn told(message: &ClientMessage) -> (u64, u64, Vec<u64>) {
    match message {
        ClientMessage::Write { sequence, floor, completed, .. } => (*sequence, *floor, completed.clone()),
        other => panic!("{other:?}"),
    }
}

fn cancels(message: &ClientMessage) -> Option<u64> {
    match message {
        ClientMessage::Write { op: Op::Cancel { sequence }, .. } => Some(*sequence),
        _ => None,
    }
}

/// The value that a caller got.
fn got(result: &Result<Done, Error>) -> Option<&[u8]> {
    match result {
        Ok(Done { body: Body::Value(Value::Called(bytes)), .. }) => Some(bytes),
        _ => None,
    }
}

/// A machine whose call, of sequence 1, is sent and not answered; with the frame.
fn calling(bounded: bool) -> (Machine, Ticket, ClientMessage) {
    let mut machine = open();
    let ticket = machine.handle_request(at(10), call(1, true, bounded), WITHIN);
    let frame = only(&mut machine, at(10));
    assert_eq!(told(&frame), (1, 1, vec![]));
    (machine, ticket, frame)
}

/// The same, parked.
fn parked(bounded: bool) -> (Machine, Ticket) {
    let (mut machine, ticket, frame) = calling(bounded);
    machine.handle_message(at(20), reply(id(&frame), 2, Ok(Value::Parked)));
    assert!(results(&mut machine).is_empty(), "it has parked, and not ended");
    (machine, ticket)
}

#[test]
fn a_parked_call_waits_for_its_completion_and_lets_the_floor_pass() {
    let (mut machine, ticket) = parked(false);
    machine.handle_request(at(30), write(2), WITHIN);
    let other = only(&mut machine, at(30));
    assert_eq!(told(&other), (2, 2, vec![]));
    machine.handle_message(at(40), was_set(id(&other), 3));
    assert_eq!(results(&mut machine).len(), 1);
    machine.handle_message(at(50), completed(1, 4, value("mine")));
    let done = results(&mut machine);
    assert_eq!((done[0].0, got(&done[0].1)), (ticket, Some(&b"mine"[..])));
}

#[test]
fn a_completion_is_acknowledged_once_it_is_taken_and_until_a_write_that_tells_of_it_is_answered() {
    let (mut machine, ticket) = parked(false);
    machine.handle_message(at(30), completed(1, 3, value("mine")));
    machine.handle_request(at(30), write(2), WITHIN);
    let early = only(&mut machine, at(30));
    assert!(told(&early).2.is_empty(), "nobody has it yet");
    machine.handle_message(at(35), was_set(id(&early), 4));
    machine.handle_taken(ticket);
    machine.handle_request(at(40), write(3), WITHIN);
    machine.handle_request(at(40), write(4), WITHIN);
    let both = sent(&mut machine, at(40));
    assert_eq!(both.iter().map(|one| told(one).2).collect::<Vec<_>>(), [[1], [1]]);
    machine.handle_message(at(50), was_set(id(&both[0]), 5));
    machine.handle_request(at(60), write(5), WITHIN);
    assert!(told(&only(&mut machine, at(60))).2.is_empty());
}

#[test]
fn a_write_that_is_sent_again_tells_of_what_it_told_before_and_later_completions_wait_for_the_next() {
    let (mut machine, ticket) = parked(false);
    machine.handle_request(at(30), write(2), WITHIN);
    only(&mut machine, at(30));
    machine.handle_message(at(35), completed(1, 3, value("mine")));
    machine.handle_taken(ticket);
    machine.handle_disconnect();
    connect(&mut machine, at(40));
    let frames = sent(&mut machine, at(40));
    let again = frames.iter().find(|one| matches!(one, ClientMessage::Write { .. })).unwrap();
    assert!(told(again).2.is_empty(), "it may have been carried out, without telling");
    machine.handle_message(at(45), was_set(id(again), 4));
    machine.handle_request(at(50), write(3), WITHIN);
    assert_eq!(told(&only(&mut machine, at(50))).2, [1]);
}

#[test]
fn a_completion_that_is_told_again_resolves_nothing_twice_and_is_acknowledged_again() {
    let (mut machine, ticket) = parked(false);
    machine.handle_message(at(30), completed(1, 3, value("mine")));
    machine.handle_disconnect();
    connect(&mut machine, at(40));
    machine.handle_message(at(41), completed(1, 3, value("mine")));
    assert_eq!(results(&mut machine).len(), 1);
    machine.handle_taken(ticket);
    machine.handle_request(at(50), write(2), WITHIN);
    let frames = sent(&mut machine, at(50));
    let first = frames.iter().find(|one| matches!(one, ClientMessage::Write { .. })).unwrap();
    assert_eq!(told(first).2, [1]);
    machine.handle_message(at(60), was_set(id(first), 4));
    // The member's word and ours have crossed.
    machine.handle_message(at(61), completed(1, 3, value("mine")));
    assert_eq!(results(&mut machine).len(), 1, "only the write's");
    machine.handle_request(at(70), write(3), WITHIN);
    assert_eq!(told(&only(&mut machine, at(70))).2, [1]);
}

#[test]
fn a_completion_that_comes_before_its_answer_ends_the_call_and_the_answer_is_not_missed() {
    let (mut machine, ticket, _) = calling(false);
    machine.handle_disconnect();
    connect(&mut machine, at(30));
    machine.handle_message(at(31), completed(1, 3, value("mine")));
    let done = results(&mut machine);
    assert_eq!((done.len(), done[0].0, got(&done[0].1)), (1, ticket, Some(&b"mine"[..])));
    machine.handle_request(at(40), write(2), WITHIN);
    let frames = sent(&mut machine, at(40));
    let writes: Vec<_> = frames.iter().filter(|one| matches!(one, ClientMessage::Write { .. })).map(told).collect();
    assert_eq!(writes, [(2, 2, vec![])], "the call need not be sent again");
}

#[test]
fn the_answer_that_follows_its_completion_is_of_no_matter() {
    let (mut machine, _, frame) = calling(false);
    machine.handle_message(at(30), completed(1, 3, value("mine")));
    machine.handle_message(at(31), reply(id(&frame), 2, Ok(Value::Parked)));
    assert_eq!(results(&mut machine).len(), 1);
    assert!(!leaves(&mut machine));
}

#[test]
fn a_parked_call_without_a_time_of_its_own_has_none() {
    let (mut machine, _) = parked(false);
    machine.handle_timeout(at(8_000));
    assert!(results(&mut machine).is_empty());
    let waits = sent(&mut machine, at(8_000));
    assert!(waits.iter().all(|one| cancels(one).is_none()), "{waits:?}");
}

#[test]
fn a_call_whose_time_is_over_is_cancelled_and_then_surely_did_not_happen() {
    let mut machine = open();
    let within = Duration::from_millis(500);
    let ticket = machine.handle_request(at(10), call(1, true, true), within);
    let frame = only(&mut machine, at(10));
    machine.handle_message(at(20), reply(id(&frame), 2, Ok(Value::Parked)));
    machine.handle_timeout(at(509));
    assert!(sent(&mut machine, at(509)).is_empty());
    machine.handle_timeout(at(510));
    let cancel = only(&mut machine, at(510));
    assert_eq!(cancels(&cancel), Some(1));
    assert!(results(&mut machine).is_empty(), "it is not known yet");
    machine.handle_message(at(520), reply(id(&cancel), 3, Ok(Value::Cancelled)));
    let done = results(&mut machine);
    assert!(matches!(done[..], [(of, Err(Error::TimedOut { after }))] if of == ticket && after == within), "{done:?}");
}

#[test]
fn a_call_that_ends_before_its_cancelling_is_sent_keeps_what_it_has() {
    let (mut machine, ticket) = parked(true);
    machine.call_expired(at(5_000), ticket);
    // Not polled: it waits for its turn, as without a connection.
    machine.handle_message(at(5_010), completed(1, 3, value("mine")));
    let done = results(&mut machine);
    assert_eq!(done.len(), 1);
    assert_eq!(got(&done[0].1), Some(&b"mine"[..]));
    assert!(sent(&mut machine, at(5_010)).iter().all(|one| cancels(one).is_none()));
}

#[test]
fn what_a_call_returns_while_its_cancelling_is_under_way_is_given_back() {
    let (mut machine, ticket) = parked(true);
    machine.call_expired(at(5_000), ticket);
    let cancel = sent(&mut machine, at(5_000)).into_iter().find(|one| cancels(one).is_some()).unwrap();
    machine.handle_message(at(5_010), completed(1, 3, value("mine")));
    assert!(results(&mut machine).is_empty(), "it is about to be given back");
    machine.handle_message(at(5_020), reply(id(&cancel), 4, Ok(Value::Cancelled)));
    let done = results(&mut machine);
    assert!(matches!(done[..], [(of, Err(Error::TimedOut { .. }))] if of == ticket), "{done:?}");
}

#[test]
fn a_call_that_cannot_be_cancelled_ends_with_what_it_returned() {
    let (mut machine, ticket, frame) = calling(true);
    machine.call_expired(at(5_000), ticket);
    let cancel = sent(&mut machine, at(5_000)).into_iter().find(|one| cancels(one).is_some()).unwrap();
    machine.handle_message(at(5_010), reply(id(&frame), 2, value("5")));
    assert!(results(&mut machine).is_empty());
    machine.handle_message(at(5_020), reply(id(&cancel), 3, Err(Refusal::AlreadyDone { sequence: 1 })));
    let done = results(&mut machine);
    assert_eq!((done.len(), got(&done[0].1)), (1, Some(&b"5"[..])));
}

#[test]
fn nothing_is_known_of_a_call_whose_cancelling_has_no_answer_and_it_is_asked_for_until_it_has() {
    let (mut machine, ticket, _) = calling(true);
    machine.handle_disconnect();
    machine.call_expired(at(2_000), ticket);
    machine.handle_timeout(at(6_999));
    assert!(results(&mut machine).is_empty());
    machine.handle_timeout(at(7_000));
    assert!(matches!(results(&mut machine)[..], [(_, Err(Error::Unknown { why: Doubt::Deadline }))]));
    connect(&mut machine, at(7_500));
    let frames = sent(&mut machine, at(7_500));
    let writes: Vec<_> = frames.iter().filter(|one| matches!(one, ClientMessage::Write { .. })).collect();
    assert_eq!((told(writes[0]).0, told(writes[1]).0, cancels(writes[1])), (1, 2, Some(1)));
    machine.handle_message(at(7_510), reply(id(writes[0]), 2, value("late")));
    machine.handle_message(at(7_520), reply(id(writes[1]), 3, Ok(Value::Cancelled)));
    assert!(results(&mut machine).is_empty());
    assert_eq!(machine.len(), 0);
}

#[test]
fn a_dropped_call_that_was_not_sent_is_forgotten_and_one_that_was_is_cancelled() {
    let mut machine = open();
    let unsent = machine.handle_request(at(10), call(1, true, false), WITHIN);
    machine.handle_withdrawn(unsent);
    assert!(sent(&mut machine, at(10)).is_empty());
    let (mut machine, ticket, frame) = calling(false);
    machine.handle_withdrawn(ticket);
    let cancel = only(&mut machine, at(20));
    assert_eq!((told(&cancel).0, cancels(&cancel)), (2, Some(1)));
    machine.handle_message(at(30), reply(id(&frame), 2, Ok(Value::Parked)));
    machine.handle_message(at(30), reply(id(&cancel), 3, Ok(Value::Cancelled)));
    assert!(results(&mut machine).is_empty());
    assert_eq!(machine.len(), 0);
}

#[test]
fn a_call_that_is_dropped_with_its_value_on_the_way_gives_it_back() {
    // Answered at once, and by a completion.
    for parks in [false, true] {
        let (mut machine, ticket, frame) = calling(false);
        if parks {
            machine.handle_message(at(20), reply(id(&frame), 2, Ok(Value::Parked)));
            machine.handle_message(at(30), completed(1, 3, value("mine")));
        } else {
            machine.handle_message(at(20), reply(id(&frame), 2, value("mine")));
        }
        assert_eq!(results(&mut machine).len(), 1, "told, and not taken");
        machine.handle_withdrawn(ticket);
        let cancel = only(&mut machine, at(40));
        assert_eq!(cancels(&cancel), Some(1));
        let (_, floor, completed) = told(&cancel);
        assert!(
            floor == if parks { 2 } else { 1 } && completed.is_empty(),
            "its end is not acknowledged: it could not be \
             cancelled then"
        );
        machine.handle_message(at(50), reply(id(&cancel), 4, Ok(Value::Cancelled)));
        machine.handle_request(at(60), write(2), WITHIN);
        assert_eq!(told(&only(&mut machine, at(60))).1, 3);
        assert!(results(&mut machine).is_empty());
    }
}

#[test]
fn a_refused_call_has_nothing_to_give_back() {
    let (mut machine, ticket, frame) = calling(false);
    let refusal = Refusal::PluginRefused { plugin: "lock".into(), message: "no".into() };
    machine.handle_message(at(20), reply(id(&frame), 2, Err(refusal.clone())));
    assert!(matches!(&results(&mut machine)[..], [(_, Err(Error::Refused(said)))] if *said == refusal));
    machine.handle_withdrawn(ticket);
    assert!(sent(&mut machine, at(30)).is_empty());
    assert_eq!(machine.floor(), 2);
}

#[test]
fn a_call_ends_with_its_session_and_nothing_is_given_back() {
    let (mut machine, _) = parked(false);
    let second = machine.handle_request(at(30), call(2, true, false), WITHIN);
    machine.handle_withdrawn(second);
    machine.handle_message(at(40), ServerMessage::Goodbye { refusal: Refusal::SessionOver { session: SESSION } });
    let done = results(&mut machine);
    assert!(matches!(done[..], [(_, Err(Error::SessionOver { outcome: Outcome::Unknown }))]), "{done:?}");
    assert_eq!(machine.len(), 0);
}

#[test]
fn a_call_that_needs_a_session_opens_it_and_is_asked_again_before_what_was_issued_later() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    let ticket = machine.handle_request(at(0), call(1, false, false), WITHIN);
    let first = only(&mut machine, at(0));
    assert!(matches!(first, ClientMessage::Once { .. }));
    let later = machine.handle_request(at(1), read(), WITHIN);
    let read = only(&mut machine, at(1));
    let refusal = Refusal::NoSession { what: "lock acquire, which waits,".into() };
    machine.handle_message(at(5), reply(id(&first), 1, Err(refusal)));
    let open = only(&mut machine, at(5));
    assert!(matches!(open, ClientMessage::Open { .. }), "{open:?}");
    machine.handle_message(at(6), exists(id(&read), 1));
    let opened = Value::Opened { session: SESSION, timeout_ms: 10_000 };
    machine.handle_message(at(8), reply(id(&open), 1, Ok(opened)));
    let again = only(&mut machine, at(8));
    assert_eq!(told(&again), (1, 1, vec![]));
    machine.handle_message(at(9), reply(id(&again), 2, Ok(Value::Parked)));
    machine.handle_message(at(10), completed(1, 3, value("mine")));
    let done: Vec<_> = results(&mut machine).into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(done, [later, ticket]);
}

#[test]
fn an_answer_that_nobody_takes_holds_the_floor_for_a_time_and_not_for_ever() {
    let (mut machine, _, frame) = calling(false);
    machine.handle_message(at(20), reply(id(&frame), 2, value("mine")));
    results(&mut machine);
    for tag in 2..2_000_u64 {
        machine.handle_request(at(30), write(tag), WITHIN);
        let frame = only(&mut machine, at(30));
        let (sequence, floor, _) = told(&frame);
        assert_eq!(floor == 1, sequence < 1 + limits(), "at {sequence}");
        machine.handle_message(at(30), was_set(id(&frame), sequence + 1));
        results(&mut machine);
    }
}

fn limits() -> u64 {
    conclave_protocol::limits::SESSION_REPLIES as u64 / 2
}

#[test]
fn a_call_is_cancelled_before_writes_that_wait_though_they_are_many() {
    let (mut machine, ticket, frame) = calling(false);
    machine.handle_message(at(20), reply(id(&frame), 2, value("mine")));
    results(&mut machine);
    for tag in 2..5_000 {
        machine.handle_request(at(30), write(tag), WITHIN);
    }
    machine.handle_withdrawn(ticket);
    let frames = sent(&mut machine, at(30));
    assert_eq!(cancels(&frames[0]), Some(1));
    assert!(frames.len() < 1_100, "the member keeps no more replies");
}
