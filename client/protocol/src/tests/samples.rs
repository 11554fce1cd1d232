//! One sample of every message of the ordered stream, and of every variant inside one.

use bytes::Bytes;

use super::{names, plugins};
use crate::plugin::{Install, Manage};
use crate::{
    AccessList, Answer, Attach, Attached, Change, ChangeKind, Check, ClientMessage, Condition, Consistency, Create,
    Delete, Detail, Edit, Endpoint, Entry, Fence, Grant, Hello, Kind, Kinds, MemberId, MemberStatus, NO_REQUEST, Nonce,
    Op, Outcome, Page, Path, Permission, Permissions, Present, Prune, PushBack, Query, Refusal, Role, Scope,
    ServerMessage, SessionId, SessionInfo, Set, SetAcl, Stat, Status, Step, Update, Value, WatchId, WatchRequest,
    Welcome, Who, Zxid, codec,
};

pub(super) fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn fence() -> Fence {
    Fence { path: path("/locks/l/holder"), zxid: Zxid(17) }
}

/// One with every field set, or with each left out that can be.
pub(super) fn stat(owner: Option<SessionId>) -> Stat {
    Stat {
        created: Zxid(1),
        modified: Zxid(2),
        children_modified: Zxid(3),
        version: 4,
        children_version: 5,
        created_ms: 1_700_000_000_000,
        modified_ms: 1_700_000_000_001,
        children_modified_ms: 1_700_000_000_002,
        owner,
        data_bytes: 6,
        children: 7,
        acl_version: 8,
        container: owner.is_none(),
        ttl_ms: owner.map(|_| 60_000),
    }
}

fn acl() -> AccessList {
    AccessList(vec![
        Grant { who: Who::Anyone, may: Permissions::of(&[Permission::Read]) },
        Grant { who: Who::Principal("spiffe://d/client/ci".to_owned()), may: Permissions::ALL },
    ])
}

pub(super) fn edits() -> Vec<Edit> {
    vec![
        Edit::Add(-3),
        Edit::Min(i64::MIN),
        Edit::Max(i64::MAX),
        Edit::Append(Bytes::from_static(b"more")),
        Edit::Swap { expected: Bytes::from_static(b"old"), data: Bytes::from_static(b"new") },
    ]
}

pub(super) fn conditions() -> Vec<Condition> {
    vec![
        Condition::Exists,
        Condition::Absent,
        Condition::Version(4),
        Condition::Owner(SessionId(8)),
        Condition::Children { least: 1, most: u64::MAX },
        Condition::Data(Bytes::from_static(b"d")),
        Condition::Created(Zxid(17)),
    ]
}

fn updates() -> impl Iterator<Item = Update> {
    let update = |(number, edit): (usize, Edit)| Update {
        path: path("/n"),
        edit,
        if_version: (number == 0).then_some(2),
        or_create: number == 1,
    };
    edits().into_iter().enumerate().map(update)
}

pub(super) fn steps() -> Vec<Step> {
    let kind = Kind { ephemeral: true, ttl_ms: Some(60_000), ..Kind::default() };
    let checks = conditions().into_iter().map(|condition| Step::Check(Check { path: path("/c"), condition }));
    let mut steps = checks.collect::<Vec<_>>();
    steps.extend([
        Step::Create(Create { kind, acl: Some(acl()), ..Create::new(path("/a"), Bytes::from_static(b"a")) }),
        Step::Set(Set { path: path("/s"), data: Bytes::new(), if_version: None }),
        Step::Delete(Delete { path: path("/d"), if_version: None, recursive: false }),
        Step::Acl(SetAcl { path: path("/a"), acl: AccessList::open(), if_acl_version: None }),
    ]);
    steps.extend(updates().map(Step::Update));
    steps
}

/// A sample of each operation, with a name.
pub(super) fn ops() -> Vec<(String, Op)> {
    let kind = Kind { sequential: true, container: true, ..Kind::default() };
    let create = Create { kind, parents: true, ..Create::new(path("/q/n-"), Bytes::from_static(b"v1")) };
    let or_set = Create { or_set: true, acl: Some(acl()), ..Create::new(path("/app"), Bytes::new()) };
    let mut ops = vec![("create".to_owned(), Op::Create(create)), ("create.or-set".to_owned(), Op::Create(or_set))];
    let plain = vec![
        Op::Set(Set { path: path("/app"), data: Bytes::from_static(b"\0\xff"), if_version: Some(3) }),
        Op::Delete(Delete { path: path("/app"), if_version: Some(u64::MAX), recursive: true }),
        Op::Multi(steps()),
        Op::Prune(Prune { path: path("/big"), limit: 1_000 }),
        Op::Acl(SetAcl { path: path("/app"), acl: acl(), if_acl_version: Some(1) }),
        Op::Call(plugins::call(b"\xa0")),
        Op::Cancel { sequence: 2 },
        Op::Upload(plugins::upload()),
        Op::End(SessionId(8)),
        Op::Close,
    ];
    ops.extend(plain.into_iter().map(|one| (names::op(&one).to_owned(), one)));
    let manage = |one: Manage| (format!("manage.{}", names::action(&one.what)), Op::Manage(one));
    ops.extend(plugins::manages().into_iter().map(manage));
    let install = |one: Install| (if one.upgrade { "install.upgrade" } else { "install" }.to_owned(), Op::Install(one));
    ops.extend(plugins::installs().into_iter().map(install));
    ops.extend(updates().map(|one| (format!("update.{}", names::edit(&one.edit)), Op::Update(one))));
    ops
}

/// A sample of each query.
pub(super) fn queries() -> Vec<Query> {
    let children = |after: Option<&str>, limit, detail| Query::Children {
        path: path("/app"),
        prefix: if limit == 0 { String::new() } else { "n-".to_owned() },
        after: after.map(str::to_owned),
        limit,
        detail,
    };
    vec![
        Query::Get { path: path("/") },
        Query::Exists { path: path("/ünï") },
        children(Some("n"), 100, Detail::Data),
        children(None, 0, Detail::Names),
        children(None, u32::MAX, Detail::Stats),
        Query::Many { paths: vec![path("/"), path("/app/x")] },
        Query::Count { path: path("/app") },
        Query::Acl { path: path("/app") },
        Query::Owned { session: SessionId(8), after: Some(70), limit: 10 },
        Query::Owned { session: SessionId(8), after: None, limit: 10 },
        Query::Sessions { after: Some(SessionId(8)), limit: 10 },
        Query::Sessions { after: None, limit: 10 },
        Query::Status,
        Query::Call(plugins::call(b"")),
        Query::Plugins { name: Some("queue".to_owned()) },
        Query::Plugins { name: None },
        Query::Calls { plugin: "queue".to_owned(), after: Some(Zxid(57)), limit: 10 },
        Query::Calls { plugin: "queue".to_owned(), after: None, limit: 10 },
    ]
}

/// A sample of each refusal.
pub(super) fn refusals() -> Vec<Refusal> {
    let path = || path("/a");
    let text = |text: &str| text.to_owned();
    vec![
        Refusal::NoZnode { path: path() },
        Refusal::ZnodeExists { path: path() },
        Refusal::BadVersion { path: path(), actual: 1, expected: 0 },
        Refusal::NotEmpty { path: path(), children: 2 },
        Refusal::EphemeralParent { path: path() },
        Refusal::NoSession { what: text("an ephemeral znode") },
        Refusal::SessionOver { session: SessionId(9) },
        Refusal::Fenced { fence: fence(), actual: Some(Zxid(18)) },
        Refusal::Fenced { fence: fence(), actual: None },
        Refusal::NotAllowed { principal: text("p"), action: text("set"), path: path() },
        Refusal::Limit { what: text("bytes of data"), limit: 1, actual: 2 },
        Refusal::BadPath { why: text("w") },
        Refusal::BadRequest { why: text("w") },
        Refusal::Step { step: 3, cause: Box::new(Refusal::NoZnode { path: path() }) },
        Refusal::NoPlugin { plugin: text("p") },
        Refusal::NoProcedure { plugin: text("p"), procedure: text("q") },
        Refusal::PluginRefused { plugin: text("p"), message: text("m") },
        Refusal::PluginFailed { plugin: text("p"), why: text("trap") },
        Refusal::DiskFull { free_bytes: 3 << 20, least_bytes: 5 << 20 },
        Refusal::OtherKind { path: path(), actual: text("persistent"), wanted: text("ephemeral") },
        Refusal::CheckFailed { path: path(), actual: text("2 children"), expected: text("none") },
        Refusal::BadNumber { path: path(), why: text("is no number") },
        Refusal::LocksOut { path: path() },
        Refusal::BadAclVersion { path: path(), actual: 1, expected: 0 },
        Refusal::FutureZxid { zxid: Zxid(99), last: Zxid(12) },
        Refusal::OtherCluster { expected: text("6f1c"), actual: text("aaaa") },
        Refusal::NoQuery { plugin: text("p"), query: text("q") },
        Refusal::PluginExists { plugin: text("p"), version: text("0.1.0") },
        Refusal::BadArguments { plugin: text("p"), procedure: text("q"), why: text("w") },
        Refusal::PluginDisabled { plugin: text("p"), state: text("suspended") },
        Refusal::PluginLoop { plugin: text("p"), why: text("w") },
        Refusal::PluginUnfit { plugin: text("p"), why: text("w") },
        Refusal::PluginNotAllowed { plugin: text("p"), action: text("create"), path: path() },
        Refusal::ReadOnly { what: text("a query") },
        Refusal::Cancelled,
        Refusal::AlreadyDone { sequence: 3 },
    ]
}

/// A sample of each value of a write.
pub(super) fn values() -> Vec<Value> {
    let created = Value::Created { path: path("/q/n-0000000001"), stat: stat(Some(SessionId(8))) };
    vec![
        created.clone(),
        Value::Set { stat: stat(None) },
        Value::Deleted { count: 3 },
        Value::Checked,
        Value::Multi(vec![Value::Checked, created]),
        Value::Called(Bytes::from_static(b"41")),
        Value::Opened { session: SessionId(8), timeout_ms: 10_000 },
        Value::Closed,
        Value::Number { number: -7, stat: stat(None) },
        Value::Pruned { count: 1_000, more: true },
        Value::Acl { stat: stat(None) },
        Value::Ended,
        Value::Parked,
        Value::Cancelled,
        Value::Uploaded,
        Value::Managed(Box::new(plugins::infos().remove(1))),
        Value::Removed,
    ]
}

pub(super) fn status() -> Status {
    let roles = [Role::Leader, Role::Follower, Role::Learner, Role::Candidate, Role::Unreachable, Role::Quarantined];
    let members = (1..).zip(roles).map(|(id, role)| MemberStatus {
        id: MemberId(id),
        role,
        address: format!("127.0.0.1:710{id}"),
        zxid: (role != Role::Unreachable).then_some(Zxid(12)),
        digest: (role != Role::Unreachable).then(|| "00ff".repeat(8)),
    });
    Status {
        cluster: "6f1c".to_owned(),
        leader: Some(MemberId(1)),
        zxid: Zxid(12),
        member: MemberId(2),
        members: members.collect(),
    }
}

fn present() -> Present {
    Present { data: Bytes::from_static(b"v1"), stat: stat(None) }
}

/// A sample of each answer of a read.
pub(super) fn answers() -> Vec<Answer> {
    let child = |stat, data| Entry { name: "n".to_owned(), stat, data };
    let whole = stat(None);
    let children = vec![
        child(None, None),
        child(Some(whole), Some(Bytes::new())),
        child(Some(whole), Some(Bytes::from_static(b"d"))),
    ];
    let session = SessionInfo {
        session: SessionId(8),
        principal: "spiffe://d/client/ci".to_owned(),
        timeout_ms: 10_000,
        ephemerals: 2,
        writes: 7,
        unacknowledged: 1,
    };
    vec![
        Answer::Znode { data: Bytes::from_static(b"v1"), stat: whole },
        Answer::Exists(None),
        Answer::Exists(Some(stat(Some(SessionId(8))))),
        Answer::Page(Page { children, more: true }),
        Answer::Status(Box::new(status())),
        Answer::Watching,
        Answer::Unwatched,
        Answer::Alive,
        Answer::Many(vec![None, Some(present())]),
        Answer::Count(1_000_000),
        Answer::Acl { acl: acl(), stat: whole },
        Answer::Owned { paths: vec![path("/app/x")], next: Some(71) },
        Answer::Owned { paths: Vec::new(), next: None },
        Answer::Sessions { sessions: vec![session], more: true },
        Answer::Called(Bytes::from_static(b"\xf5")),
        Answer::Plugins(plugins::infos()),
        Answer::Calls { calls: vec![plugins::parked(Some(9)), plugins::parked(None)], more: true },
    ]
}

fn watches() -> Vec<WatchRequest> {
    let watch = |scope| WatchRequest::new(WatchId(2), path("/app"), scope);
    vec![
        WatchRequest { once: true, ..watch(Scope::Data) },
        WatchRequest { data: true, ..watch(Scope::Existence) },
        WatchRequest { since: Some(Zxid(0)), kinds: Some(Kinds::of(&[])), ..watch(Scope::Children) },
        WatchRequest {
            since: Some(Zxid(7)),
            kinds: Some(Kinds::of(&ChangeKind::ALL)),
            names: Some("n-*.?".parse().unwrap()),
            ..watch(Scope::Subtree)
        },
    ]
}

/// Every kind of client message.
pub(super) fn client_messages() -> Vec<(String, ClientMessage)> {
    let nonce = Nonce::new(std::array::from_fn(|byte| u8::try_from(byte).unwrap()));
    let cluster = |attach: Option<_>| attach.is_some().then(|| "6f1c".to_owned());
    let hello = |attach| Hello { versions: vec![1, 2], attach, seen: Zxid(5), cluster: cluster(attach) };
    let mut messages = vec![
        ("hello".to_owned(), ClientMessage::Hello(hello(None))),
        ("hello.attach".to_owned(), ClientMessage::Hello(hello(Some(Attach { session: SessionId(8) })))),
        ("open".to_owned(), ClientMessage::Open { id: 1, nonce, until_ms: 1_700_000_030_000, timeout_ms: 10_000 }),
        ("unwatch".to_owned(), ClientMessage::Unwatch { id: 6, watch: WatchId(2) }),
        ("heartbeat".to_owned(), ClientMessage::Heartbeat { id: 7 }),
    ];
    for (name, op) in ops() {
        let message =
            ClientMessage::Write { id: 2, sequence: 3, floor: 2, completed: vec![1], fence: Some(fence()), op };
        messages.push((format!("write.{name}"), message));
    }
    let op = Op::Set(Set { path: path("/app"), data: Bytes::new(), if_version: None });
    messages.push(("once.set".to_owned(), ClientMessage::Once { id: 3, nonce, until_ms: 9, fence: None, op }));
    let freshness = [Consistency::Session, Consistency::Linearizable, Consistency::Stale, Consistency::Within(250)];
    for (number, query) in queries().into_iter().enumerate() {
        let consistency = freshness[number % freshness.len()];
        let name = format!("read.{number}.{}.{}", names::query(&query), names::consistency(&consistency));
        messages.push((name, ClientMessage::Read { id: 4, consistency, within_ms: 500, query }));
    }
    for watch in watches() {
        messages.push((format!("watch.{}", names::scope(&watch.scope)), ClientMessage::Watch { id: 5, watch }));
    }
    messages
}

/// Every kind of member's message.
pub(super) fn server_messages() -> Vec<(String, ServerMessage)> {
    let endpoint = Endpoint { member: MemberId(1), address: "127.0.0.1:7101".to_owned() };
    let welcome = |attached| Welcome {
        version: 2,
        member: MemberId(1),
        cluster: "6f1c".to_owned(),
        principal: "spiffe://d/client/ci".to_owned(),
        now_ms: 1_700_000_000_000,
        zxid: Zxid(12),
        endpoints: vec![endpoint.clone()],
        attached,
    };
    let changes = || ChangeKind::ALL.map(|kind| Change { kind, path: path("/app/x"), version: 1 }).to_vec();
    let event = |present| ServerMessage::Event { watch: WatchId(2), zxid: Zxid(13), changes: changes(), present };
    let outcome = Bytes::from(codec::encode(&Outcome::Ok(Value::Checked)));
    let attached = Some(Attached { timeout_ms: 10_000 });
    let mut messages = vec![
        ("welcome".to_owned(), ServerMessage::Welcome(Box::new(welcome(None)))),
        ("welcome.attached".to_owned(), ServerMessage::Welcome(Box::new(welcome(attached)))),
        ("goodbye".to_owned(), ServerMessage::Goodbye { refusal: Refusal::SessionOver { session: SessionId(8) } }),
        ("completed".to_owned(), ServerMessage::Completed { sequence: 1, zxid: Zxid(13), outcome: outcome.clone() }),
        ("reply".to_owned(), ServerMessage::Reply { id: 2, zxid: Zxid(13), outcome }),
        ("event".to_owned(), event(Vec::new())),
        ("event.data".to_owned(), event(vec![Some(present()), Some(present()), None, None])),
        ("resync".to_owned(), ServerMessage::Resync { watch: WatchId(2), zxid: Zxid(13) }),
    ];
    for (number, one) in answers().into_iter().enumerate() {
        let name = format!("answer.{number}.{}", names::answer(&one));
        messages.push((name, ServerMessage::Answer { id: 4, zxid: Zxid(12), answer: Ok(one) }));
    }
    let refused = Err(Refusal::NoZnode { path: path("/a") });
    messages.push(("answer.refused".to_owned(), ServerMessage::Answer { id: 4, zxid: Zxid(12), answer: refused }));
    let push_backs = [
        PushBack::Busy,
        PushBack::Behind { zxid: Zxid(4) },
        PushBack::NotReady,
        PushBack::Expected { next: 5 },
        PushBack::Until { now_ms: 6 },
    ];
    for why in push_backs {
        let message = ServerMessage::PushBack { id: NO_REQUEST, why };
        messages.push((format!("push-back.{}", names::push_back(&why)), message));
    }
    messages
}

/// Every kind of outcome.
pub(super) fn outcomes() -> Vec<(String, Outcome)> {
    let values = values().into_iter().map(|one| (format!("ok.{}", names::value(&one)), Ok(one)));
    let refusals = refusals().into_iter().enumerate();
    let refusals = refusals.map(|(number, one)| (format!("err.{number}.{}", names::refusal(&one)), Err(one)));
    values.chain(refusals).collect()
}
