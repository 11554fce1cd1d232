//! What goes out is absolute, what comes back is relative: every operation, answer and refusal, nested ones too.

use bytes::Bytes;
use conclave_protocol::plugin::{Action, Awaited, ComponentDigest, Manage, ParkedCall, Upload};
use conclave_protocol::{
    AccessList, Call, ChangeKind, Condition, Consistency, Detail, Edit, Kind, Page, Scope, SessionId, Stat, WatchId,
    Zxid, codec,
};

use super::*;
use crate::fake::Fake;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn tenant() -> Namespace {
    Namespace::default().nested(&path("/tenants/a")).unwrap()
}

/// Every operation that there is, about `/x`.
fn ops(x: &Path) -> Vec<Op> {
    let path = || x.clone();
    let steps = vec![
        Step::Check(Check { path: path(), condition: Condition::Exists }),
        Step::Create(Create { kind: Kind::default(), ..Create::new(path(), "d") }),
        Step::Set(Set { path: path(), data: "d".into(), if_version: Some(1) }),
        Step::Delete(Delete { path: path(), if_version: None, recursive: true }),
        Step::Update(Update { path: path(), edit: Edit::Add(1), if_version: None, or_create: true }),
        Step::Acl(SetAcl { path: path(), acl: AccessList::open(), if_acl_version: None }),
    ];
    vec![
        Op::Create(Create { parents: true, ..Create::new(path(), "d") }),
        Op::Set(Set { path: path(), data: "d".into(), if_version: Some(1) }),
        Op::Delete(Delete { path: path(), if_version: Some(2), recursive: true }),
        Op::Multi(steps),
        Op::Update(Update { path: path(), edit: Edit::Append("d".into()), if_version: None, or_create: false }),
        Op::Prune(Prune { path: path(), limit: 7 }),
        Op::Acl(SetAcl { path: path(), acl: AccessList::open(), if_acl_version: Some(3) }),
        Op::Call(Call { plugin: "p".into(), procedure: "f".into(), args: Bytes::from_static(b"/x"), root: path() }),
        Op::Cancel { sequence: 3 },
        Op::Upload(Upload { digest: ComponentDigest::default(), chunk: 0, bytes: Bytes::new() }),
        Op::Manage(Manage { name: "p".into(), what: Action::Disable }),
        Op::End(SessionId(4)),
        Op::Close,
    ]
}

fn queries(x: &Path) -> Vec<Query> {
    let path = || x.clone();
    vec![
        Query::Get { path: path() },
        Query::Exists { path: path() },
        Query::Children { path: path(), prefix: "p".into(), after: Some("q".into()), limit: 3, detail: Detail::Data },
        Query::Many { paths: vec![path(), path()] },
        Query::Count { path: path() },
        Query::Acl { path: path() },
        Query::Owned { session: SessionId(1), after: Some(2), limit: 3 },
        Query::Sessions { after: None, limit: 3 },
        Query::Call(Call { plugin: "p".into(), procedure: "f".into(), args: Bytes::from_static(b"/x"), root: path() }),
        Query::Plugins { name: None },
        Query::Calls { plugin: "p".into(), after: None, limit: 3 },
        Query::Status,
    ]
}

#[test]
fn every_request_goes_out_with_the_paths_of_the_whole_tree() {
    let tenant = tenant();
    let (ours, theirs) = (path("/x"), path("/tenants/a/x"));
    let fence = |path: &Path| Some(Fence { path: path.clone(), zxid: Zxid(5) });
    for (op, expected) in ops(&ours).into_iter().zip(ops(&theirs)) {
        let ask = Ask::Write { op, fence: fence(&ours), in_session: true };
        let expected = Ask::Write { op: expected, fence: fence(&theirs), in_session: true };
        assert_eq!(Namespace::default().ask(ask.clone()).unwrap(), ask, "the whole tree is as it is");
        assert_eq!(tenant.ask(ask).unwrap(), expected);
    }
    let call = |root: &str| {
        let call = Call { plugin: "p".into(), procedure: "f".into(), args: Bytes::new(), root: path(root) };
        Ask::Call { call, fence: fence(if root == "/" { &ours } else { &theirs }), in_session: false, bounded: true }
    };
    assert_eq!(tenant.ask(call("/")).unwrap(), call("/tenants/a"));
    for (query, expected) in queries(&ours).into_iter().zip(queries(&theirs)) {
        let read = |query| Ask::Read { consistency: Some(Consistency::Stale), query };
        assert_eq!(tenant.ask(read(query)).unwrap(), read(expected));
    }
    let watch = |path| WatchRequest::new(WatchId(1), path, Scope::Subtree);
    assert_eq!(tenant.watch(watch(ours)).unwrap(), watch(theirs));
    assert_eq!(tenant.watch(watch(Path::root())).unwrap(), watch(path("/tenants/a")));
}

/// Every refusal that names a path, with this one.
fn refusals(x: &Path) -> Vec<Refusal> {
    let path = || x.clone();
    let text = String::new;
    let all = vec![
        Refusal::NoZnode { path: path() },
        Refusal::ZnodeExists { path: path() },
        Refusal::BadVersion { path: path(), actual: 1, expected: 2 },
        Refusal::NotEmpty { path: path(), children: 1 },
        Refusal::OtherKind { path: path(), actual: text(), wanted: text() },
        Refusal::CheckFailed { path: path(), actual: text(), expected: text() },
        Refusal::BadNumber { path: path(), why: text() },
        Refusal::LocksOut { path: path() },
        Refusal::BadAclVersion { path: path(), actual: 1, expected: 2 },
        Refusal::EphemeralParent { path: path() },
        Refusal::Fenced { fence: Fence { path: path(), zxid: Zxid(1) }, actual: None },
        Refusal::NotAllowed { principal: text(), action: text(), path: path() },
        Refusal::PluginNotAllowed { plugin: text(), action: text(), path: path() },
    ];
    let nested = |cause: &Refusal| Refusal::Step { step: 1, cause: Box::new(cause.clone()) };
    let nested: Vec<Refusal> = all.iter().map(|cause| nested(&nested(cause))).collect();
    all.into_iter().chain(nested).collect()
}

#[test]
fn every_refusal_comes_back_with_our_paths_and_the_outside_is_our_root() {
    let tenant = tenant();
    let back = |refusal| tenant.error(Error::Refused(refusal)).refusal().unwrap().clone();
    for (theirs, ours) in [
        ("/tenants/a/x", "/x"),
        ("/tenants/a", "/"),
        // A parent of ours, or what can't happen: nothing of it is shown.
        ("/tenants", "/"),
        ("/", "/"),
        ("/tenants/ab", "/"),
    ] {
        for (refusal, expected) in refusals(&path(theirs)).into_iter().zip(refusals(&path(ours))) {
            assert!(!codec::encode(&back(refusal.clone())).windows(7).any(|text| text == b"tenants"));
            assert_eq!(back(refusal), expected);
        }
    }
    let limit = Refusal::Limit { what: "w".into(), limit: 1, actual: 2 };
    assert_eq!(back(limit.clone()), limit);
}

#[test]
fn every_answer_comes_back_with_our_paths_and_without_what_is_outside() {
    let tenant = tenant();
    let stat = Stat::default();
    let created = |at: &str| Value::Created { path: path(at), stat };
    let value = |value| match tenant.done(Done { zxid: Zxid(1), body: Body::Value(value) }).unwrap().body {
        Body::Value(value) => value,
        other => panic!("{other:?}"),
    };
    let multi = Value::Multi(vec![Value::Checked, created("/tenants/a/x"), Value::Set { stat }]);
    assert_eq!(value(multi), Value::Multi(vec![Value::Checked, created("/x"), Value::Set { stat }]));
    for same in [
        Value::Parked,
        Value::Cancelled,
        Value::Uploaded,
        Value::Removed,
        Value::Set { stat },
        Value::Number { number: 1, stat },
        Value::Deleted { count: 1 },
        Value::Pruned { count: 1, more: true },
        Value::Acl { stat },
        Value::Checked,
        Value::Called(Bytes::from_static(b"/tenants/a/x")),
        Value::Opened { session: SessionId(1), timeout_ms: 1 },
        Value::Closed,
        Value::Ended,
    ] {
        assert_eq!(value(same.clone()), same);
    }
    let answer = |answer| match tenant.done(Done { zxid: Zxid(1), body: Body::Answer(answer) }).unwrap().body {
        Body::Answer(answer) => answer,
        other => panic!("{other:?}"),
    };
    let owned = |paths: &[&str]| Answer::Owned { paths: paths.iter().map(|at| path(at)).collect(), next: Some(3) };
    assert_eq!(answer(owned(&["/tenants/a/x", "/tenants/b/x", "/tenants/a"])), owned(&["/x", "/"]));
    let page = Answer::Page(Page { children: Vec::new(), more: false });
    assert_eq!(answer(page.clone()), page);
    assert_eq!(answer(Answer::Watching), Answer::Watching);

    let change = |at: &str| Change { kind: ChangeKind::Data, path: path(at), version: 1 };
    let present = |data: &'static str| Some(Present { data: data.into(), stat });
    let told = tenant.changes(
        vec![change("/tenants/b"), change("/tenants/a/x"), change("/tenants/a")],
        vec![present("b"), present("x"), None],
    );
    assert_eq!(told, (vec![change("/x"), change("/")], vec![present("x"), None]));
    assert_eq!(tenant.changes(vec![change("/tenants/a/x")], Vec::new()), (vec![change("/x")], Vec::new()));
    let entry = |at: &str| TreeEntry { path: path(at), stat, data: None };
    assert_eq!(tenant.entry(entry("/tenants/a/x")), Some(entry("/x")));
    assert_eq!(tenant.entry(entry("/tenants")), None);
}

#[test]
fn namespaces_compose_and_a_path_that_becomes_too_deep_is_refused_with_its_step() {
    let inner = tenant().nested(&path("/in/ner")).unwrap();
    assert_eq!(inner.enter(&path("/x")).unwrap(), path("/tenants/a/in/ner/x"));
    assert_eq!(inner.leave(&path("/tenants/a/in/ner")), Some(Path::root()));
    assert_eq!(inner.leave(&path("/tenants/a/in")), None);
    assert_eq!(tenant().nested(&Path::root()).unwrap(), tenant());
    assert_eq!(Namespace::default().nested(&Path::root()).unwrap(), Namespace::default());

    let deep = path(&"/d".repeat(63));
    let set = |path: &Path| Step::Set(Set { path: path.clone(), data: Bytes::new(), if_version: None });
    let write = |op| Ask::Write { op, fence: None, in_session: false };
    let refusal = inner.ask(write(Op::Multi(vec![set(&path("/x")), set(&deep)]))).unwrap_err();
    assert!(matches!(&refusal, Refusal::Step { step: 1, cause } if cause.code() == "bad-path"), "{refusal}");
    assert!(inner.nested(&deep).is_err());
}

#[test]
fn a_sequential_znode_is_never_made_beside_the_namespace() {
    let kind = Kind { sequential: true, ..Kind::default() };
    let create = |at: &str| Create { kind, ..Create::new(path(at), "") };
    let write = |op| tenant().ask(Ask::Write { op, fence: None, in_session: false });
    let exists = Refusal::ZnodeExists { path: Path::root() };
    assert_eq!(write(Op::Create(create("/"))).unwrap_err(), exists);
    let steps = vec![Step::Create(create("/x")), Step::Create(create("/"))];
    let refused = Refusal::Step { step: 1, cause: Box::new(exists) };
    assert_eq!(write(Op::Multi(steps)).unwrap_err(), refused);
    assert!(write(Op::Create(create("/x"))).is_ok());
    // And if a member did it all the same, it is not called the root.
    let beside = Value::Created { path: path("/tenants/a0000000000"), stat: Stat::default() };
    for value in [beside.clone(), Value::Multi(vec![Value::Checked, beside])] {
        let done = tenant().done(Done { zxid: Zxid(1), body: Body::Value(value) });
        assert!(matches!(done, Err(Error::Mismatch { .. })), "{done:?}");
    }
}

#[tokio::test]
async fn a_client_in_a_namespace_sees_nothing_but_it() {
    let fake = Fake::new();
    let whole = fake.client().await;
    let client = whole.namespace("/tenants/a").unwrap();
    assert_eq!((client.root(), whole.root()), (path("/tenants/a"), Path::root()));
    assert_eq!(client.namespace("/b").unwrap().namespace("/c").unwrap().root(), path("/tenants/a/b/c"));
    assert!(client.namespace("b").is_err());

    let refused = |error: Error| error.refusal().unwrap().clone();
    // Its root is not there yet.
    assert_eq!(refused(client.at("/x").create("").await.unwrap_err()), Refusal::NoZnode { path: Path::root() });
    assert_eq!(refused(client.at("/").get().await.unwrap_err()), Refusal::NoZnode { path: Path::root() });
    let mut watch = client.watch("/").subtree().await.unwrap();
    let created = client.at("/x").create("1").parents().await.unwrap();
    assert_eq!(created.path, path("/x"));
    let Some(Ok(crate::WatchEvent::Changes { changes, .. })) = watch.next().await else { panic!("no change") };
    assert_eq!(changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["/", "/x"]);
    whole.at("/tenants/b").create("2").await.unwrap();

    // A fence that was made here holds here.
    let fence = Fence { path: created.path, zxid: created.stat.created };
    let multi = client.transaction().check_fence(fence.clone()).set("/x", "2").create("/y", "3");
    let values = multi.fenced(fence).commit().await.unwrap();
    assert!(matches!(&values[2], Value::Created { path, .. } if path.as_str() == "/y"));
    let refusal = refused(client.transaction().set("/y", "").create("/y", "").await.unwrap_err());
    assert_eq!(refusal, Refusal::Step { step: 1, cause: Box::new(Refusal::ZnodeExists { path: path("/y") }) });

    let mut subtree = client.at("/").subtree().with_data().await.unwrap();
    let mut paths = Vec::new();
    while let Some(entry) = subtree.next().await {
        paths.push(entry.unwrap().path.to_string());
    }
    assert_eq!(paths, ["/", "/x", "/y"]);
    assert_eq!(subtree.zxid(), Zxid(fake.world().zxid));
    let owned = client.owned(SessionId(9)).await.unwrap();
    assert_eq!(owned, ["/", "/x", "/y"].map(path));

    // Deleted under its client, and made again.
    whole.at("/tenants/a").delete().recursive().await.unwrap();
    assert_eq!(refused(client.at("/x").set("").await.unwrap_err()), Refusal::NoZnode { path: path("/x") });
    let missing = client.at("/").subtree().await.unwrap_err();
    assert_eq!(refused(missing), Refusal::NoZnode { path: Path::root() });
    assert_eq!(client.at("/x").create("").parents().await.unwrap().path, path("/x"));
}

#[test]
fn parked_calls_are_listed_without_what_they_wait_for_outside() {
    let awaited = |at: &str| Awaited { path: path(at), test: "absent".into() };
    let call = |waits_for| ParkedCall {
        plugin: "lock".into(),
        procedure: "acquire".into(),
        ticket: Zxid(7),
        session: SessionId(1),
        sequence: 3,
        principal: "p".into(),
        waits_for,
        since_ms: 0,
        until_ms: None,
    };
    let calls = vec![call(vec![awaited("/tenants/a/l"), awaited("/tenants/b/l")])];
    let answer = tenant().answer(Answer::Calls { calls, more: true });
    assert_eq!(answer, Answer::Calls { calls: vec![call(vec![awaited("/l")])], more: true });
}
