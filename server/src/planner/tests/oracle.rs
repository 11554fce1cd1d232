//! What must have come of a world: counted again from its log, by a model that knows nothing of planning.

use std::collections::BTreeMap;

use conclave_core::query;
use conclave_protocol::Zxid;

use super::world::{Ask, Kind, World};
use super::*;

/// Checks a world that has come to its end.
pub(super) fn check(world: &World) {
    let [one, two] = world.tables();
    assert_eq!(one.kept(), two.kept(), "the members differ");
    for tables in [one, two] {
        assert_eq!(tables.kept().digest, tables.digest().0, "the digest is not that of the rows");
    }

    // The log, applied a third time, gives the transactions that count, in their order.
    let mut tables = MemTables::new(CLUSTER);
    let mut done: Vec<(Zxid, Origin, Bytes)> = Vec::new();
    for (index, logged) in world.log.iter().enumerate() {
        let at = Position { term: logged.term, index: index as u64 + 1 };
        match &logged.kind {
            Kind::Blank => skip(&mut tables, at, None),
            Kind::Payload(payload) => {
                if let Applied::Done(entry) = apply(&mut tables, at, payload).unwrap() {
                    let asked = entry.numbered().filter(|(_, one)| one.origin != Origin::Leader);
                    done.extend(asked.map(|(zxid, one)| (zxid, one.origin.clone(), one.outcome.clone())));
                }
            }
        }
    }
    assert_eq!(tables.kept(), one.kept());

    let mut counter = 0;
    let mut sequences: BTreeMap<SessionId, u64> = BTreeMap::new();
    let mut seen: BTreeMap<&Origin, Zxid> = BTreeMap::new();
    for (zxid, origin, outcome) in &done {
        assert_eq!(seen.insert(origin, *zxid), None, "{origin:?} was carried out twice");
        if let Origin::Session { session, sequence } = origin {
            let last = sequences.insert(*session, *sequence).unwrap_or(0);
            assert_eq!(*sequence, last + 1, "session {session} was carried out in another order");
        }
        let (told, answer) = &world.answers[origin];
        assert_eq!(told, zxid);
        assert_eq!(*answer, decode(outcome), "{origin:?} was told something else");
        match world.asked[origin] {
            Ask::Count => {
                counter += 1;
                assert_eq!(*answer, counted(counter), "{origin:?} did not count what was counted before it");
            }
            Ask::Refuse => assert_eq!(answer.as_ref().unwrap_err().code(), "no-znode"),
            Ask::Open => assert!(matches!(answer, Ok(Value::Opened { session, .. }) if session.0 == zxid.0)),
        }
    }
    assert_eq!(seen.len(), world.asked.len(), "a request was lost");
    assert_eq!(world.answers.len(), world.asked.len(), "a request was not answered");
    let read = conclave_protocol::Query::Get { path: path("/n") };
    let read = query::answer(one, ALICE, &read).unwrap().unwrap();
    let conclave_protocol::Answer::Znode { data, .. } = read else { panic!("{read:?}") };
    assert_eq!(data, counter.to_string());
}
