//! What lines ask, and what is said of those that ask nothing.

use conclave_protocol::{
    Check, Condition, Create, Delete, Detail, Edit, Kind, Prune, SessionId, Set, SetAcl, Step, Update, Who, codec,
    limits,
};

use super::*;

fn dialect() -> Dialect {
    Dialect::of("spiffe://example/client/ci")
}

fn ask(line: &str) -> Ask {
    dialect().request(line).unwrap_or_else(|error| panic!("{line}: {error}")).ask
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

#[test]
fn every_write_has_its_line() {
    let create = Create {
        path: path("/a"),
        data: "x".into(),
        kind: Kind { ephemeral: true, sequential: true, container: true, ttl_ms: Some(1000) },
        parents: true,
        or_set: true,
        acl: Some(conclave_protocol::AccessList(vec![conclave_protocol::Grant {
            who: Who::Principal("spiffe://example/client/bob".into()),
            may: "rw".parse().unwrap(),
        }])),
    };
    let update = |edit| Op::Update(Update { path: path("/a"), edit, if_version: None, or_create: false });
    let check = |condition| Op::Multi(vec![Step::Check(Check { path: path("/a"), condition })]);
    let acl = conclave_protocol::AccessList::open();
    let call = conclave_protocol::Call {
        plugin: "my.counter".into(),
        procedure: "add".into(),
        args: codec::encode(&["/a", "5"]).into(),
        root: Path::root(),
    };
    for (line, op) in [
        (
            r#"{"create":"/a","data":"x","ephemeral":true,"sequential":true,"container":true,"ttl_ms":1000,
                "parents":true,"or_set":true,"acl":[{"who":"client/bob","may":"rw"}]}"#,
            Op::Create(create),
        ),
        (r#"{"create":"/a","data":null}"#, Op::Create(Create::new(path("/a"), ""))),
        (
            r#"{"set":"/a","data_base64":"/w==","if_version":3}"#,
            Op::Set(Set { path: path("/a"), data: vec![0xff].into(), if_version: Some(3) }),
        ),
        (
            r#"{"delete":"/a","recursive":true,"if_version":1}"#,
            Op::Delete(Delete { path: path("/a"), if_version: Some(1), recursive: true }),
        ),
        (r#"{"prune":"/a","limit":100}"#, Op::Prune(Prune { path: path("/a"), limit: 100 })),
        (r#"{"prune":"/a"}"#, Op::Prune(Prune { path: path("/a"), limit: 1_000 })),
        (r#"{"update":"/a","add":-5}"#, update(Edit::Add(-5))),
        (r#"{"update":"/a","min":5}"#, update(Edit::Min(5))),
        (r#"{"update":"/a","max":5}"#, update(Edit::Max(5))),
        (r#"{"update":"/a","append":"x"}"#, update(Edit::Append("x".into()))),
        (
            r#"{"update":"/a","swap":{"expected":"x","data_base64":""},"if_version":1,"or_create":true}"#,
            Op::Update(Update {
                path: path("/a"),
                edit: Edit::Swap { expected: "x".into(), data: "".into() },
                if_version: Some(1),
                or_create: true,
            }),
        ),
        (r#"{"check":"/a","exists":true}"#, check(Condition::Exists)),
        (r#"{"check":"/a","absent":true}"#, check(Condition::Absent)),
        (r#"{"check":"/a","version":3}"#, check(Condition::Version(3))),
        (r#"{"check":"/a","owner":3}"#, check(Condition::Owner(SessionId(3)))),
        (r#"{"check":"/a","created":3}"#, check(Condition::Created(Zxid(3)))),
        (r#"{"check":"/a","data":"x"}"#, check(Condition::Data("x".into()))),
        (r#"{"check":"/a","children":2}"#, check(Condition::Children { least: 2, most: 2 })),
        (r#"{"check":"/a","children":{"least":1}}"#, check(Condition::Children { least: 1, most: u64::MAX })),
        (
            r#"{"multi":[{"set":"/a","data":""},{"check":"/a","exists":true}]}"#,
            Op::Multi(vec![
                Step::Set(Set { path: path("/a"), ..Set::default() }),
                Step::Check(Check { path: path("/a"), condition: Condition::Exists }),
            ]),
        ),
        (r#"{"multi":[]}"#, Op::Multi(vec![])),
        (
            r#"{"set_acl":"/a","acl":[{"who":"anyone","may":"crwda"}],"if_acl_version":2}"#,
            Op::Acl(SetAcl { path: path("/a"), acl, if_acl_version: Some(2) }),
        ),
        (r#"{"call":"my.counter.add","args":["/a","5"]}"#, Op::Call(call.clone())),
        (
            r#"{"call":"my.counter.add","args":{"n":5},"root":"/a"}"#,
            Op::Call(conclave_protocol::Call { args: b"\xa1\x61n\x05".to_vec().into(), root: path("/a"), ..call }),
        ),
        (r#"{"cancel_call":3}"#, Op::Cancel { sequence: 3 }),
        (
            r#"{"call":"p.q","args_base64":"/w=="}"#,
            Op::Call(conclave_protocol::Call {
                plugin: "p".into(),
                procedure: "q".into(),
                args: vec![0xff].into(),
                root: Path::root(),
            }),
        ),
        (r#"{"session":"close"}"#, Op::Close),
        (r#"{"session":"kill","number":17}"#, Op::End(SessionId(17))),
    ] {
        assert_eq!(ask(line), Ask::Write(op), "{line}");
    }
}

#[test]
fn every_read_has_its_line() {
    let children = |prefix: &str, after: Option<&str>, limit, detail| Query::Children {
        path: path("/a"),
        prefix: prefix.into(),
        after: after.map(Into::into),
        limit,
        detail,
    };
    let page = limits::PAGE_CHILDREN;
    for (line, query) in [
        (r#"{"get":"/a"}"#, Query::Get { path: path("/a") }),
        (r#"{"exists":"/a"}"#, Query::Exists { path: path("/a") }),
        (r#"{"children":"/a"}"#, children("", None, page, Detail::Stats)),
        (
            r#"{"children":"/a","prefix":"p","after":"q","limit":2,"detail":"names"}"#,
            children("p", Some("q"), 2, Detail::Names),
        ),
        (r#"{"many":["/a","/b"]}"#, Query::Many { paths: vec![path("/a"), path("/b")] }),
        (r#"{"count":"/a"}"#, Query::Count { path: path("/a") }),
        (r#"{"acl":"/a"}"#, Query::Acl { path: path("/a") }),
        (r#"{"owned":7,"after":3}"#, Query::Owned { session: SessionId(7), after: Some(3), limit: page }),
        (r#"{"sessions":true,"after":3,"limit":1}"#, Query::Sessions { after: Some(SessionId(3)), limit: 1 }),
        (r#"{"status":true}"#, Query::Status),
    ] {
        assert_eq!(ask(line), Ask::Read(query), "{line}");
    }
    assert_eq!(ask(r#"{"subtree":"/a","data":true}"#), Ask::Subtree { path: path("/a"), data: true });
}

#[test]
fn watches_and_sessions_have_their_lines() {
    use conclave_protocol::ChangeKind;
    let plain = Watch {
        path: path("/a"),
        scope: Scope::Data,
        kinds: None,
        names: None,
        data: false,
        once: false,
        since: None,
        snapshot: false,
    };
    assert_eq!(ask(r#"{"watch":"/a"}"#), Ask::Watch(plain.clone()));
    assert_eq!(
        ask(
            r#"{"watch":"/a","scope":"subtree","kinds":["created","acl"],"names":"*.json","data":true,"once":true,"since":17}"#
        ),
        Ask::Watch(Watch {
            scope: Scope::Subtree,
            kinds: Some(Kinds::of(&[ChangeKind::Created, ChangeKind::Acl])),
            names: Some("*.json".parse().unwrap()),
            data: true,
            once: true,
            since: Some(Zxid(17)),
            ..plain.clone()
        })
    );
    assert_eq!(ask(r#"{"watch":"/a","snapshot":true}"#), Ask::Watch(Watch { snapshot: true, ..plain }));
    assert_eq!(ask(r#"{"unwatch":3}"#), Ask::Unwatch(WatchId(3)));
    assert_eq!(ask(r#"{"session":"open"}"#), Ask::Open { timeout_ms: None });
    assert_eq!(ask(r#"{"session":"open","timeout_ms":5000}"#), Ask::Open { timeout_ms: Some(5000) });
}

#[test]
fn what_every_line_may_carry_is_read() {
    let request =
        dialect().request(r#"{"id":{"any":[1]},"set":"/a","data":"x","fence":"/l/h@9","within_ms":500}"#).unwrap();
    assert_eq!(request.id, Some(json!({ "any": [1] })));
    assert_eq!(request.fence.unwrap().to_string(), "/l/h@9");
    assert_eq!((request.within_ms, request.consistency), (Some(500), None));
    for (text, consistency) in [
        (r#""session""#, Consistency::Session),
        (r#""linearizable""#, Consistency::Linearizable),
        (r#""stale""#, Consistency::Stale),
        (r#"{"within_ms":500}"#, Consistency::Within(500)),
    ] {
        let request = dialect().request(&format!(r#"{{"get":"/a","consistency":{text}}}"#)).unwrap();
        assert_eq!(request.consistency, Some(consistency));
    }
}

#[test]
fn a_line_that_asks_nothing_says_what_where_and_what_is_expected() {
    for (line, says) in [
        ("", "this is no JSON"),
        ("nonsense", "this is no JSON"),
        ("[1]", "the line: an object is expected, and it is [1]"),
        ("{}", "it says nothing to do; one of create, set, "),
        (r#"{"creat":"/a"}"#, r#""creat" is no request; did you mean "create"?"#),
        (r#"{"create":"/a","delete":"/a"}"#, r#""create" and "delete" cannot be asked for in one line"#),
        (r#"{"create":"/a","ephemral":true}"#, r#""ephemral": create has no such key; did you mean "ephemeral"?"#),
        (r#"{"create":"/a","colour":1}"#, r#""colour": create has no such key"#),
        (r#"{"get":"/a","data":"x"}"#, r#""data": get has no such key"#),
        (r#"{"create":"/a","ephemeral":1}"#, r#""ephemeral": true or false is expected, and it is 1"#),
        (r#"{"create":5}"#, r#""create": a path, as a string, is expected, and it is 5"#),
        (r#"{"create":"/a","data":5}"#, r#""data": a string is expected, and it is 5"#),
        (r#"{"create":"/a","data":"x","data_base64":""}"#, r#"there is "data_base64" too"#),
        (r#"{"create":"/a","data_base64":"x"}"#, r#""data_base64": it is not base64"#),
        (r#"{"create":"/a","ttl_ms":-1}"#, r#""ttl_ms": a whole number from 0 up is expected, and it is -1"#),
        (r#"{"create":"/a","ttl_ms":1.5}"#, "and it is 1.5"),
        (r#"{"create":"/a","acl":[{"who":"bob","may":"r"}]}"#, r#"grant 0: "who": "bob" is nobody"#),
        (r#"{"create":"/a","acl":[{"who":"anyone","may":"x"}]}"#, "'x' is no permission"),
        (r#"{"create":"/a","acl":[{"who":"anyone"}]}"#, r#"grant 0: "may": it is missing"#),
        (r#"{"set":"/a"}"#, r#""data": it is missing; a string (or "data_base64") is expected"#),
        (r#"{"update":"/a"}"#, "one of add, min, max, append or swap is expected beside it"),
        (r#"{"update":"/a","add":1,"min":2}"#, "and there are more"),
        (r#"{"update":"/a","add":"1"}"#, r#""add": a whole number of 64 bits is expected, and it is "1""#),
        (r#"{"update":"/a","swap":{"expected":"x"}}"#, r#""swap": "data": it is missing"#),
        (r#"{"check":"/a"}"#, "one of exists, absent, version,"),
        (r#"{"check":"/a","exists":false}"#, "it is true, or left out"),
        (r#"{"check":"/a","version":1,"exists":true}"#, "and there are more"),
        (r#"{"check":"/a","children":{"lest":1}}"#, r#"did you mean "least"?"#),
        (r#"{"multi":[{"set":"/a","data":"x"},{"get":"/a"}]}"#, r#"step 1: "get": it is no step"#),
        (r#"{"multi":[{"set":"/a","date":"x"}]}"#, r#"step 0: "data": it is missing"#),
        (r#"{"multi":[5]}"#, "step 0: an object is expected, and it is 5"),
        (r#"{"multi":{"set":"/a"}}"#, r#""multi": a list is expected"#),
        (r#"{"multi":[{"id":1,"delete":"/a"}]}"#, r#"step 0: "id": it belongs to the whole transaction"#),
        (r#"{"call":"counter"}"#, "PLUGIN.PROCEDURE is expected"),
        (r#"{"call":"a.b","args":1}"#, r#""args": a list, or an object of names and values, is expected, and it is 1"#),
        (r#"{"get":"/a","fence":"/l@1"}"#, r#""fence": it is for writes, and get is none"#),
        (r#"{"set":"/a","data":"","fence":"/l"}"#, "a fence is written /path@zxid"),
        (r#"{"set":"/a","data":"","consistency":"stale"}"#, "it is for reads, and set is none"),
        (r#"{"get":"/a","consistency":"fresh"}"#, "one of session, linearizable, stale,"),
        (r#"{"watch":"/a","scope":"all"}"#, "one of data, existence, children, subtree is expected"),
        (r#"{"watch":"/a","kinds":["moved"]}"#, "one of created, data, deleted, acl"),
        (r#"{"watch":"/a","kinds":[]}"#, "nothing would be told"),
        (r#"{"watch":"/a","names":"a/b"}"#, "last name only"),
        (r#"{"watch":"/a","snapshot":true,"since":1}"#, "not both"),
        (r#"{"watch":"/a","consistency":"stale"}"#, "it is for reads, and watch is none"),
        (r#"{"session":"kill"}"#, r#""number": it is missing"#),
        (r#"{"session":"end"}"#, "one of open, close, kill is expected"),
        (r#"{"sessions":1}"#, "true is expected"),
        (r#"{"children":"/a","detail":"all"}"#, "one of names, stats, data is expected"),
        (r#"{"children":"/a","limit":0}"#, r#""limit": a whole number from 1 up is expected, and it is 0"#),
        (r#"{"prune":"/a","limit":0}"#, r#""limit": a whole number from 1 up is expected, and it is 0"#),
        (r#"{"get":"/a","get":"/b"}"#, r#""get" stands there twice"#),
    ] {
        let error = dialect().request(line).unwrap_err();
        assert_eq!(error.code, "bad-line", "{line}");
        assert!(error.message.contains(says), "{line}: {}", error.message);
    }
}

#[test]
fn a_path_that_is_none_has_a_code_of_its_own_and_the_id_comes_back() {
    let error = dialect().request(r#"{"id":"x","get":"a"}"#).unwrap_err();
    assert_eq!((error.code, &error.id), ("bad-path", &Some(json!("x"))));
    let reply = error.reply();
    assert_eq!(reply["id"], "x");
    assert_eq!(reply["refused"]["code"], "bad-path");
    let error = dialect().request(r#"{"id":3,"gett":"/a"}"#).unwrap_err();
    assert_eq!(error.reply()["id"], 3);
    assert_eq!(dialect().request("{").unwrap_err().reply().get("id"), None);
}

#[test]
fn a_long_value_is_shown_short() {
    let line = format!(r#"{{"create":"/a","ephemeral":"{}"}}"#, "é".repeat(10_000));
    let error = dialect().request(&line).unwrap_err();
    assert!(error.message.len() < 300, "{}", error.message);
}

#[test]
fn the_lines_of_the_page_are_taken() {
    let page = include_str!("../../SHELL.md");
    let is_request = |text: &str| {
        let answer =
            ["..", "GRANT", "STEP", "CONDITION", "SESSION", "N,", "N}", "\"ok\"", "\"refused\"", "\"changes\""];
        text.starts_with("{\"") && !answer.iter().any(|part| text.contains(part))
    };
    let quoted = page.split('`').filter(|text| is_request(text));
    let lines = page.lines().filter(|line| is_request(line) && !line.contains('`'));
    let mut taken = 0;
    for text in quoted.chain(lines).filter(|text| !text.contains('\n')) {
        let about_words = VERBS.iter().any(|(verb, _)| text.contains(&format!("\"{verb}\"")));
        let event =
            ["{\"watch\": 1", "\"state\"", "\"ended\"", "\"resync\"", "\"watching\"", "\"least\"", "\"who\"", "$"];
        if about_words && !event.iter().any(|part| text.contains(part)) {
            dialect().request(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            taken += 1;
        }
    }
    assert!(taken >= 20, "only {taken} were found");
    let scenario = page.rsplit("```\n").nth(1).unwrap();
    assert_eq!(crate::Scenario::parse(scenario).unwrap().moments.len(), 7, "{scenario}");
}
