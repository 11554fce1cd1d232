//! Sweeps: what is due goes, under load too.

use conclave_core::Table;

use super::*;

/// A znode with a millisecond to live, applied.
fn create_short_lived(member: &mut Member) {
    let kind = Kind { ttl_ms: Some(1), ..Kind::default() };
    member.ask(1, once(1, Work::Op(Op::Create(Create { kind, ..Create::new(path("/t"), "") }))));
    let (serial, payload) = member.proposed();
    member.apply(2, &payload);
    member.outcome(serial, Outcome::Done);
}

#[test]
fn a_sweep_goes_before_the_requests_that_wait_and_no_two_are_under_way() {
    let mut member = Member::leading();
    create_short_lived(&mut member);
    // Nothing is due yet: nothing is proposed.
    member.pipeline.sweep();
    assert_eq!(member.turn(), [""; 0]);
    member.now_ms += 40_000;
    member.increment(2);
    member.pipeline.sweep();
    member.pipeline.sweep();
    let (serial, payload) = member.proposed();
    member.pipeline.sweep();
    assert_eq!(member.turn(), [""; 0], "a second sweep is under way");
    let entry = Entry::decode(&payload).unwrap();
    let origins: Vec<bool> = entry.transactions.iter().map(|one| one.origin == Origin::Leader).collect();
    assert_eq!(origins, [true, false], "the sweep comes first");
    assert_eq!(entry.transactions[0].changes[0].change.path, path("/t"));
    member.apply(2, &payload);
    member.outcome(serial, Outcome::Done);
    assert!(!member.pipeline.has_swept_much(), "there was one");
    member.pipeline.sweep();
    assert_eq!(member.turn(), [""; 0], "nothing is left, and nothing proposed");
}

#[test]
fn a_sweep_that_found_much_is_soon_followed_by_another_and_none_is_left() {
    let mut member = Member::leading();
    let kind = Kind { ttl_ms: Some(1), ..Kind::default() };
    for number in 1..=1_200 {
        let create = Create { kind, ..Create::new(path(&format!("/t{number}")), "") };
        member.ask(number, once(number, Work::Op(Op::Create(create))));
    }
    let entries = member.effects().into_iter().map(|effect| match effect {
        Effect::Propose { serial, payload, .. } => (serial, payload),
        other => panic!("{other:?}"),
    });
    for (serial, payload) in entries.collect::<Vec<_>>() {
        member.apply(2, &payload);
        member.outcome(serial, Outcome::Done);
    }
    assert_eq!(member.tables.count(Table::Znode), 1_201);
    member.now_ms += 40_000;
    let mut sweeps = Vec::new();
    loop {
        member.pipeline.sweep();
        match &member.effects()[..] {
            [Effect::Propose { serial, payload, .. }] => {
                member.apply(2, payload);
                member.outcome(*serial, Outcome::Done);
            }
            [] => break,
            other => panic!("{other:?}"),
        }
        sweeps.push(member.pipeline.has_swept_much());
    }
    assert_eq!(member.tables.count(Table::Znode), 1);
    assert!(sweeps.len() > 1 && sweeps[0], "{sweeps:?}");
}

#[test]
fn a_sweep_that_came_to_nothing_is_made_again_when_its_time_comes() {
    let mut member = Member::leading();
    create_short_lived(&mut member);
    member.now_ms += 40_000;
    member.pipeline.sweep();
    let (serial, _) = member.proposed();
    member.outcome(serial, Outcome::Rejected);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, true);
    assert_eq!(member.turn(), [""; 0]);
    member.pipeline.sweep();
    let (_, payload) = member.proposed();
    assert!(matches!(member.apply(2, &payload), Applied::Done(_)));
}
