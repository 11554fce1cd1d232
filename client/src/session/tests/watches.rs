//! Watches across connections: nothing missed, nothing told twice, none left standing.

use super::*;

fn watch(once: bool, since: Option<u64>) -> WatchRequest {
    WatchRequest { once, since: since.map(Zxid), ..WatchRequest::new(WatchId(5), Path::root(), Scope::Subtree) }
}

fn event(zxid: u64) -> ServerMessage {
    let changes = vec![Change { kind: ChangeKind::Data, path: Path::root(), version: zxid }];
    ServerMessage::Event { watch: WatchId(5), zxid: Zxid(zxid), changes, present: Vec::new() }
}

fn watching(id: RequestId, zxid: u64) -> ServerMessage {
    ServerMessage::Answer { id, zxid: Zxid(zxid), answer: Ok(Answer::Watching) }
}

fn told(machine: &mut Machine) -> Vec<u64> {
    std::iter::from_fn(|| machine.poll_event())
        .filter_map(|event| match event {
            Event::Changes { zxid, .. } => Some(zxid.0),
            _ => None,
        })
        .collect()
}

#[test]
fn a_watch_goes_on_after_the_last_zxid_that_it_told_before_anything_else_is_sent() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_watch(at(0), watch(false, None), WITHIN);
    let begin = only(&mut machine, at(0));
    machine.handle_message(at(1), watching(id(&begin), 40));
    machine.handle_message(at(2), event(41));
    machine.handle_message(at(2), event(43));
    machine.handle_request(at(3), read(), WITHIN);
    assert_eq!(sent(&mut machine, at(3)).len(), 1);
    machine.handle_disconnect();
    connect(&mut machine, at(10));
    let again = sent(&mut machine, at(10));
    assert!(matches!(&again[0], ClientMessage::Watch { watch, .. } if watch.since == Some(Zxid(43))), "{again:?}");
    assert!(matches!(again[1], ClientMessage::Read { .. }));
    machine.handle_message(at(11), event(43));
    machine.handle_message(at(11), event(44));
    machine.handle_message(at(11), watching(id(&again[0]), 45));
    assert_eq!(told(&mut machine), [41, 43, 44], "nothing is told twice");
}

#[test]
fn a_reply_that_was_asked_for_after_the_watch_stood_moves_it_on_and_an_earlier_one_does_not() {
    for (asked_after, since) in [(false, 40), (true, 90)] {
        let mut machine = machine();
        connect(&mut machine, at(0));
        machine.handle_watch(at(0), watch(false, Some(40)), WITHIN);
        let mut messages = sent(&mut machine, at(0));
        let ask = |machine: &mut Machine, messages: &mut Vec<ClientMessage>| {
            machine.handle_request(at(0), read(), WITHIN);
            messages.extend(sent(machine, at(0)));
        };
        if !asked_after {
            ask(&mut machine, &mut messages);
        }
        machine.handle_message(at(1), watching(id(&messages[0]), 80));
        if asked_after {
            ask(&mut machine, &mut messages);
        }
        machine.handle_message(at(2), exists(id(&messages[1]), 90));
        machine.handle_disconnect();
        connect(&mut machine, at(10));
        let again = only(&mut machine, at(10));
        assert!(matches!(&again, ClientMessage::Watch { watch, .. } if watch.since == Some(Zxid(since))), "{again:?}");
    }
}

#[test]
fn a_watch_for_one_event_is_not_begun_again_after_it() {
    for answered in [true, false] {
        let mut machine = machine();
        connect(&mut machine, at(0));
        machine.handle_watch(at(0), watch(true, Some(1)), WITHIN);
        let begin = only(&mut machine, at(0));
        machine.handle_message(at(1), event(2));
        if answered {
            machine.handle_message(at(1), watching(id(&begin), 2));
        }
        machine.handle_disconnect();
        connect(&mut machine, at(10));
        for message in sent(&mut machine, at(10)) {
            assert!(!answered, "{message:?}");
            machine.handle_message(at(11), event(3));
            machine.handle_message(at(11), watching(id(&message), 3));
        }
        assert_eq!(told(&mut machine), [2]);
    }
}

#[test]
fn a_watch_that_may_not_go_on_is_ended_and_one_that_is_dropped_is_taken_back() {
    let mut machine = machine();
    connect(&mut machine, at(0));
    machine.handle_watch(at(0), watch(false, None), WITHIN);
    let begin = only(&mut machine, at(0));
    machine.handle_message(at(1), watching(id(&begin), 4));
    machine.handle_disconnect();
    connect(&mut machine, at(10));
    let again = only(&mut machine, at(10));
    let refusal = Refusal::NotAllowed { principal: "p".into(), action: "watch".into(), path: Path::root() };
    machine.handle_message(at(11), ServerMessage::Answer { id: id(&again), zxid: Zxid(4), answer: Err(refusal) });
    assert!(std::iter::from_fn(|| machine.poll_event()).any(|event| matches!(event, Event::Ended { .. })));

    machine.handle_watch(at(20), watch(false, None), WITHIN);
    assert_eq!(sent(&mut machine, at(20)).len(), 1);
    machine.handle_unwatch(WatchId(5));
    assert!(matches!(only(&mut machine, at(21)), ClientMessage::Unwatch { watch: WatchId(5), .. }));
    machine.handle_message(at(22), event(9));
    assert_eq!(told(&mut machine), [0_u64; 0]);
}

#[test]
fn a_watch_with_data_that_is_told_without_is_ended_and_one_without_keeps_none() {
    let present = Some(Present { data: Bytes::from_static(b"x"), stat: Stat::default() });
    for (data, present, expected) in
        [(true, vec![present.clone()], Some(1)), (true, Vec::new(), None), (false, vec![present], Some(0))]
    {
        let mut machine = machine();
        connect(&mut machine, at(0));
        machine.handle_watch(at(0), WatchRequest { data, ..watch(false, None) }, WITHIN);
        let begin = only(&mut machine, at(0));
        machine.handle_message(at(1), watching(id(&begin), 4));
        let ServerMessage::Event { watch, zxid, changes, .. } = event(5) else { panic!("no event") };
        machine.handle_message(at(2), ServerMessage::Event { watch, zxid, changes, present });
        let told = std::iter::from_fn(|| machine.poll_event()).find_map(|event| match event {
            Event::Changes { present, .. } => Some(Some(present.len())),
            Event::Ended { error: Error::Mismatch { .. }, .. } => Some(None),
            _ => None,
        });
        assert_eq!(told, Some(expected), "with data: {data}");
    }
}
