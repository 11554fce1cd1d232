//! The names of fields in replies: programs rely on them.

use bytes::Bytes;
use conclave_protocol::{AccessList, Page, SessionId};

use super::*;

fn sample() -> Stat {
    Stat { created: Zxid(3), version: 1, owner: Some(SessionId(2)), ..Stat::default() }
}

fn stat_json() -> Value {
    json!({
        "created": 3, "modified": 0, "children_modified": 0, "version": 1, "children_version": 0,
        "created_ms": 0, "modified_ms": 0, "children_modified_ms": 0, "owner": 2, "data_bytes": 0, "children": 0,
        "acl_version": 0, "container": false, "ttl_ms": null,
    })
}

fn dialect() -> Dialect {
    Dialect::of("spiffe://example/client/ci")
}

#[test]
fn every_value_of_a_write_has_its_names() {
    let path: conclave_protocol::Path = "/a".parse().unwrap();
    let stat = stat_json();
    for (value, looks) in [
        (Given::Created { path, stat: sample() }, json!({ "path": "/a", "stat": stat })),
        (Given::Set { stat: sample() }, json!({ "stat": stat })),
        (Given::Acl { stat: sample() }, json!({ "stat": stat })),
        (Given::Number { number: -5, stat: sample() }, json!({ "number": -5, "stat": stat })),
        (Given::Deleted { count: 4 }, json!({ "deleted": 4 })),
        (Given::Pruned { count: 4, more: true }, json!({ "deleted": 4, "more": true })),
        (
            Given::Multi(vec![Given::Checked, Given::Deleted { count: 1 }]),
            json!({ "steps": [{ "checked": true }, { "deleted": 1 }] }),
        ),
        (Given::Called(Bytes::from_static(b"\x05")), json!({ "result": 5 })),
        (Given::Called(Bytes::from_static(b"\xa1\x64data\x42v1")), json!({ "result": { "data": "v1" } })),
        (Given::Parked, json!({ "parked": true })),
        (Given::Cancelled, json!({ "cancelled": true })),
        (Given::Uploaded, json!({ "uploaded": true })),
        (Given::Removed, json!({ "removed": true })),
        (Given::Called(Bytes::from_static(b"\xff")), json!({ "result_base64": "/w==" })),
        (Given::Opened { session: SessionId(7), timeout_ms: 5_000 }, json!({ "session": 7, "timeout_ms": 5000 })),
        (Given::Closed, json!({ "closed": true })),
        (Given::Ended, json!({ "ended": true })),
    ] {
        assert_eq!(dialect().value(&value), looks);
    }
}

#[test]
fn every_answer_of_a_read_has_its_names() {
    let stat = stat_json();
    let entry =
        |with: bool| Entry { name: "n".into(), stat: with.then(sample), data: with.then(|| Bytes::from_static(b"x")) };
    let info = SessionInfo {
        session: SessionId(7),
        principal: "spiffe://example/client/bob".into(),
        timeout_ms: 10_000,
        ephemerals: 1,
        writes: 2,
        unacknowledged: 3,
    };
    for (answer, looks) in [
        (Answer::Znode { data: "x".into(), stat: sample() }, json!({ "data": "x", "stat": stat })),
        (Answer::Exists(Some(sample())), json!({ "exists": true, "stat": stat })),
        (Answer::Exists(None), json!({ "exists": false, "stat": null })),
        (
            Answer::Page(Page { children: vec![entry(true), entry(false)], more: true }),
            json!({ "children": [{ "name": "n", "stat": stat, "data": "x" }, { "name": "n" }], "more": true }),
        ),
        (
            Answer::Many(vec![Some(Present { data: "x".into(), stat: sample() }), None]),
            json!({ "znodes": [{ "data": "x", "stat": stat }, null] }),
        ),
        (Answer::Count(3), json!({ "count": 3 })),
        (
            Answer::Acl { acl: AccessList::open(), stat: sample() },
            json!({ "acl": [{ "who": "anyone", "may": "crwda" }], "stat": stat }),
        ),
        (Answer::Owned { paths: vec!["/a".parse().unwrap()], next: Some(4) }, json!({ "paths": ["/a"], "next": 4 })),
        (
            Answer::Sessions { sessions: vec![info], more: false },
            json!({ "sessions": [{
                "session": 7, "principal": "client/bob", "timeout_ms": 10000, "ephemerals": 1, "writes": 2,
                "unacknowledged": 3,
            }], "more": false }),
        ),
        (Answer::Watching, json!({ "watching": true })),
        (Answer::Unwatched, json!({ "unwatched": true })),
    ] {
        assert_eq!(dialect().answer(&answer), looks);
    }
}

#[test]
fn a_refusal_has_code_message_and_what_it_knows() {
    let path = || "/a".parse::<conclave_protocol::Path>().unwrap();
    let fence = Fence { path: path(), zxid: Zxid(5) };
    let bad_version = || Refusal::BadVersion { path: path(), actual: 1, expected: 0 };
    for (refusal, looks) in [
        (
            bad_version(),
            json!({ "code": "bad-version", "message": "/a is at version 1, you said 0", "path": "/a",
                    "actual": 1, "expected": 0 }),
        ),
        (
            Refusal::Step { step: 3, cause: Box::new(bad_version()) },
            json!({ "code": "bad-version", "message": "step 3: /a is at version 1, you said 0", "path": "/a",
                    "actual": 1, "expected": 0, "step": 3 }),
        ),
        (
            Refusal::PluginRefused { plugin: "gate".into(), message: "no".into() },
            json!({ "code": "plugin-refused", "message": "gate: no", "plugin": "gate", "said": "no" }),
        ),
        (
            Refusal::Fenced { fence, actual: None },
            json!({ "code": "fenced", "message": "fence /a@5 does not hold: nobody holds it", "fence": "/a@5",
                    "actual": null }),
        ),
        (
            Refusal::NotAllowed {
                principal: "spiffe://example/client/bob".into(),
                action: "read".into(),
                path: path(),
            },
            json!({ "code": "not-allowed", "message": "spiffe://example/client/bob may not read /a",
                    "principal": "client/bob", "action": "read", "path": "/a" }),
        ),
    ] {
        assert_eq!(dialect().refusal(&refusal), looks);
    }
}

#[test]
fn a_line_says_how_it_ended() {
    let id = json!("x");
    let failed = Body::Failed { code: "timed-out".into(), message: "m".into() };
    for (body, looks) in [
        (Body::Ok(json!({})), json!({ "id": "x", "zxid": 4, "ok": {} })),
        (Body::Refused(json!({})), json!({ "id": "x", "zxid": 4, "refused": {} })),
        (Body::Unknown { message: "m".into() }, json!({ "id": "x", "zxid": 4, "unknown": { "message": "m" } })),
        (failed, json!({ "id": "x", "zxid": 4, "failed": { "code": "timed-out", "message": "m" } })),
    ] {
        assert_eq!(line(Some(&id), Some(Zxid(4)), body), looks);
    }
    assert_eq!(line(None, None, Body::Ok(json!({}))), json!({ "ok": {} }));
    let entry = TreeEntry { path: "/a".parse().unwrap(), stat: sample(), data: None };
    assert_eq!(
        part(Some(&id), Zxid(4), std::slice::from_ref(&entry)),
        json!({ "id": "x", "zxid": 4, "part": [{ "path": "/a", "stat": stat_json() }] })
    );
    assert_eq!(subtree(&[entry])["count"], 1);
}
