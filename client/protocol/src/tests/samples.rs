//! One sample of every message and of every variant inside one; a new variant does not compile until it is named here.

use bytes::Bytes;

use crate::{
    Answer, Attach, Attached, Backup, Call, Change, ChangeKind, Check, ClientMessage, ClusterRefusal, ClusterRequest,
    Consistency, Create, Delete, Endpoint, Entry, Fence, Health, Hello, Kind, MemberHealth, MemberId, MemberReport,
    MemberStatus, NO_REQUEST, Nonce, Op, Outcome, Page, Path, PushBack, Query, Refusal, Role, Scope, ServerMessage,
    SessionId, Set, SideMessage, SideRequest, Stat, Status, Step, Value, WatchId, WatchRequest, Welcome, Zxid, codec,
};

/// The name of each variant, in a match that must be complete; and all the names.
macro_rules! variants {
    ($name:ident, $all:ident, $type:ty: $($pattern:pat => $text:literal),+ $(,)?) => {
        pub(super) fn $name(of: &$type) -> &'static str {
            match of { $($pattern => $text),+ }
        }
        pub(super) const $all: &[&str] = &[$($text),+];
    };
}

variants! { client, CLIENT, ClientMessage:
    ClientMessage::Hello(_) => "hello", ClientMessage::Open { .. } => "open", ClientMessage::Write { .. } => "write",
    ClientMessage::Once { .. } => "once", ClientMessage::Read { .. } => "read", ClientMessage::Watch { .. } => "watch",
    ClientMessage::Unwatch { .. } => "unwatch", ClientMessage::Heartbeat { .. } => "heartbeat",
}
variants! { server, SERVER, ServerMessage:
    ServerMessage::Welcome(_) => "welcome", ServerMessage::Goodbye { .. } => "goodbye",
    ServerMessage::Reply { .. } => "reply", ServerMessage::Answer { .. } => "answer",
    ServerMessage::PushBack { .. } => "push-back", ServerMessage::Event { .. } => "event",
    ServerMessage::Resync { .. } => "resync",
}
variants! { op, OP, Op:
    Op::Create(_) => "create", Op::Set(_) => "set", Op::Delete(_) => "delete", Op::Multi(_) => "multi",
    Op::Call(_) => "call", Op::Close => "close",
}
variants! { step, STEP, Step:
    Step::Check(_) => "check", Step::Create(_) => "create", Step::Set(_) => "set", Step::Delete(_) => "delete",
}
variants! { query, QUERY, Query:
    Query::Get { .. } => "get", Query::Exists { .. } => "exists", Query::Children { .. } => "children",
    Query::Status => "status",
}
variants! { consistency, CONSISTENCY, Consistency:
    Consistency::Session => "session", Consistency::Linearizable => "linearizable", Consistency::Stale => "stale",
}
variants! { scope, SCOPE, Scope: Scope::Data => "data", Scope::Children => "children", Scope::Subtree => "subtree" }
variants! { value, VALUE, Value:
    Value::Created { .. } => "created", Value::Set { .. } => "set", Value::Deleted { .. } => "deleted",
    Value::Checked => "checked", Value::Multi(_) => "multi", Value::Called(_) => "called",
    Value::Opened { .. } => "opened", Value::Closed => "closed",
}
variants! { answer, ANSWER, Answer:
    Answer::Znode { .. } => "znode", Answer::Exists(_) => "exists", Answer::Page(_) => "page",
    Answer::Status(_) => "status", Answer::Watching => "watching", Answer::Unwatched => "unwatched",
    Answer::Alive => "alive",
}
variants! { push_back, PUSH_BACK, PushBack:
    PushBack::Busy => "busy", PushBack::Behind { .. } => "behind", PushBack::NotReady => "not-ready",
    PushBack::Expected { .. } => "expected", PushBack::Until { .. } => "until",
}
variants! { role, ROLE, Role:
    Role::Leader => "leader", Role::Follower => "follower", Role::Learner => "learner",
    Role::Candidate => "candidate", Role::Quarantined => "quarantined", Role::Unreachable => "unreachable",
}
variants! { side_request, SIDE_REQUEST, SideRequest:
    SideRequest::Backup { .. } => "backup", SideRequest::Health => "health",
    SideRequest::Cluster(ClusterRequest::AddLearner { .. }) => "cluster.add-learner",
    SideRequest::Cluster(ClusterRequest::Promote { .. }) => "cluster.promote",
    SideRequest::Cluster(ClusterRequest::Remove { .. }) => "cluster.remove",
    SideRequest::Cluster(ClusterRequest::StepDown) => "cluster.step-down",
}
variants! { side_message, SIDE_MESSAGE, SideMessage:
    SideMessage::Working => "working", SideMessage::Backup(_) => "backup", SideMessage::Chunk { .. } => "chunk",
    SideMessage::End { .. } => "end", SideMessage::Health(_) => "health", SideMessage::Done => "done",
    SideMessage::Declined(_) => "declined", SideMessage::Refused { .. } => "refused",
    SideMessage::Failed { .. } => "failed",
}
variants! { cluster_refusal, CLUSTER_REFUSAL, ClusterRefusal:
    ClusterRefusal::MemberExists { .. } => "member-exists", ClusterRefusal::NumberUsed { .. } => "number-used",
    ClusterRefusal::AddressTaken { .. } => "address-taken", ClusterRefusal::BadAddress { .. } => "bad-address",
    ClusterRefusal::NoMember { .. } => "no-member", ClusterRefusal::Behind { .. } => "behind", ClusterRefusal::NotAMember { .. } => "not-a-member",
    ClusterRefusal::Unreachable { .. } => "unreachable", ClusterRefusal::LastVoter { .. } => "last-voter",
    ClusterRefusal::NoMajority { .. } => "no-majority", ClusterRefusal::NoSuccessor => "no-successor",
    ClusterRefusal::Changing => "changing", ClusterRefusal::NoLeader => "no-leader",
}
variants! { kind, KIND, ChangeKind:
    ChangeKind::Created => "created", ChangeKind::Data => "data", ChangeKind::Deleted => "deleted",
}
variants! { refusal, REFUSAL, Refusal:
    Refusal::NoZnode { .. } => "no-znode", Refusal::ZnodeExists { .. } => "znode-exists",
    Refusal::BadVersion { .. } => "bad-version", Refusal::NotEmpty { .. } => "not-empty",
    Refusal::EphemeralParent { .. } => "ephemeral-parent", Refusal::NoSession { .. } => "no-session",
    Refusal::SessionOver { .. } => "session-over", Refusal::Fenced { .. } => "fenced",
    Refusal::NotAllowed { .. } => "not-allowed", Refusal::Limit { .. } => "limit",
    Refusal::DiskFull { .. } => "disk-full", Refusal::BadPath { .. } => "bad-path",
    Refusal::BadRequest { .. } => "bad-request",
    Refusal::Step { .. } => "step", Refusal::NoPlugin { .. } => "no-plugin",
    Refusal::NoProcedure { .. } => "no-procedure", Refusal::PluginRefused { .. } => "plugin-refused",
    Refusal::PluginFailed { .. } => "plugin-failed",
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn fence() -> Fence {
    Fence { path: path("/locks/l/holder"), zxid: Zxid(17) }
}

fn stat(owner: Option<SessionId>) -> Stat {
    Stat {
        created: Zxid(1),
        modified: Zxid(2),
        children_modified: Zxid(3),
        version: 4,
        children_version: 5,
        created_ms: 1_700_000_000_000,
        modified_ms: 1_700_000_000_001,
        owner,
        data_bytes: 6,
        children: 7,
    }
}

fn steps() -> Vec<Step> {
    let kind = Kind { ephemeral: true, sequential: false };
    vec![
        Step::Check(Check { path: path("/c"), if_version: Some(1) }),
        Step::Create(Create { path: path("/a"), data: Bytes::from_static(b"a"), kind, parents: false }),
        Step::Set(Set { path: path("/s"), data: Bytes::new(), if_version: None }),
        Step::Delete(Delete { path: path("/d"), if_version: None, recursive: false }),
    ]
}

fn ops() -> Vec<Op> {
    let kind = Kind { ephemeral: false, sequential: true };
    let call = Call { plugin: "counter".to_owned(), procedure: "add".to_owned(), args: Bytes::from_static(b"{}") };
    vec![
        Op::Create(Create { path: path("/q/n-"), data: Bytes::from_static(b"v1"), kind, parents: true }),
        Op::Set(Set { path: path("/app"), data: Bytes::from_static(b"\0\xff"), if_version: Some(3) }),
        Op::Delete(Delete { path: path("/app"), if_version: Some(u64::MAX), recursive: true }),
        Op::Multi(steps()),
        Op::Call(call),
        Op::Close,
    ]
}

fn queries() -> Vec<Query> {
    vec![
        Query::Get { path: path("/") },
        Query::Exists { path: path("/ünï") },
        Query::Children { path: path("/app"), after: Some("n".to_owned()), limit: 100, data: true },
        Query::Children { path: path("/app"), after: None, limit: 0, data: false },
        Query::Status,
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
    ]
}

fn values() -> Vec<Value> {
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
    ]
}

fn status() -> Status {
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

fn answers() -> Vec<Answer> {
    let child = |data| Entry { name: "n".to_owned(), stat: stat(None), data };
    let children = vec![child(None), child(Some(Bytes::new())), child(Some(Bytes::from_static(b"d")))];
    vec![
        Answer::Znode { data: Bytes::from_static(b"v1"), stat: stat(None) },
        Answer::Exists(None),
        Answer::Exists(Some(stat(Some(SessionId(8))))),
        Answer::Page(Page { children, more: true }),
        Answer::Status(Box::new(status())),
        Answer::Watching,
        Answer::Unwatched,
        Answer::Alive,
    ]
}

/// Every kind of client message.
pub(super) fn client_messages() -> Vec<(String, ClientMessage)> {
    let nonce = Nonce::new(std::array::from_fn(|byte| u8::try_from(byte).unwrap()));
    let hello = |attach| Hello { versions: vec![1, 2], attach, seen: Zxid(5) };
    let mut messages = vec![
        ("hello".to_owned(), ClientMessage::Hello(hello(None))),
        ("hello.attach".to_owned(), ClientMessage::Hello(hello(Some(Attach { session: SessionId(8) })))),
        ("open".to_owned(), ClientMessage::Open { id: 1, nonce, until_ms: 1_700_000_030_000, timeout_ms: 10_000 }),
        ("unwatch".to_owned(), ClientMessage::Unwatch { id: 6, watch: WatchId(2) }),
        ("heartbeat".to_owned(), ClientMessage::Heartbeat { id: 7 }),
    ];
    for one in ops() {
        let name = format!("write.{}", op(&one));
        messages.push((name, ClientMessage::Write { id: 2, sequence: 3, floor: 2, fence: Some(fence()), op: one }));
    }
    let set = ops().swap_remove(1);
    messages.push(("once.set".to_owned(), ClientMessage::Once { id: 3, nonce, until_ms: 9, fence: None, op: set }));
    for (number, one) in queries().into_iter().enumerate() {
        let consistency = [Consistency::Session, Consistency::Linearizable, Consistency::Stale][number % 3];
        let name = format!("read.{number}.{}.{}", query(&one), self::consistency(&consistency));
        messages.push((name, ClientMessage::Read { id: 4, consistency, within_ms: 500, query: one }));
    }
    for (one, since) in [(Scope::Data, None), (Scope::Children, Some(Zxid(0))), (Scope::Subtree, Some(Zxid(7)))] {
        let watch = WatchRequest { watch: WatchId(2), path: path("/app"), scope: one, once: since.is_none(), since };
        messages.push((format!("watch.{}", scope(&one)), ClientMessage::Watch { id: 5, watch }));
    }
    messages
}

/// Every kind of member's message.
pub(super) fn server_messages() -> Vec<(String, ServerMessage)> {
    let endpoint = Endpoint { member: MemberId(1), address: "127.0.0.1:7101".to_owned() };
    let welcome = |attached| Welcome {
        version: 1,
        member: MemberId(1),
        cluster: "6f1c".to_owned(),
        principal: "spiffe://d/client/ci".to_owned(),
        now_ms: 1_700_000_000_000,
        zxid: Zxid(12),
        endpoints: vec![endpoint.clone()],
        attached,
    };
    let all = [ChangeKind::Created, ChangeKind::Data, ChangeKind::Deleted];
    let changes = all.map(|kind| Change { kind, path: path("/app/x"), version: 1 }).to_vec();
    let outcome = Bytes::from(codec::encode(&Outcome::Ok(Value::Checked)));
    let attached = Some(Attached { timeout_ms: 10_000 });
    let mut messages = vec![
        ("welcome".to_owned(), ServerMessage::Welcome(Box::new(welcome(None)))),
        ("welcome.attached".to_owned(), ServerMessage::Welcome(Box::new(welcome(attached)))),
        ("goodbye".to_owned(), ServerMessage::Goodbye { refusal: Refusal::SessionOver { session: SessionId(8) } }),
        ("reply".to_owned(), ServerMessage::Reply { id: 2, zxid: Zxid(13), outcome }),
        ("event".to_owned(), ServerMessage::Event { watch: WatchId(2), zxid: Zxid(13), changes }),
        ("resync".to_owned(), ServerMessage::Resync { watch: WatchId(2), zxid: Zxid(13) }),
    ];
    for (number, one) in answers().into_iter().enumerate() {
        let name = format!("answer.{number}.{}", answer(&one));
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
        messages.push((format!("push-back.{}", push_back(&why)), message));
    }
    messages
}

/// Every kind of outcome.
pub(super) fn outcomes() -> Vec<(String, Outcome)> {
    let values = values().into_iter().map(|one| (format!("ok.{}", value(&one)), Ok(one)));
    let refusals = refusals().into_iter().enumerate();
    values.chain(refusals.map(|(number, one)| (format!("err.{number}.{}", refusal(&one)), Err(one)))).collect()
}

fn cluster_refusals() -> Vec<ClusterRefusal> {
    let member = MemberId(4);
    let address = || "h:1".to_owned();
    vec![
        ClusterRefusal::MemberExists { member, client: address(), peer: address() },
        ClusterRefusal::NumberUsed { member, next: MemberId(5) },
        ClusterRefusal::AddressTaken { address: address(), member },
        ClusterRefusal::BadAddress { address: "h".to_owned() },
        ClusterRefusal::NoMember { member },
        ClusterRefusal::NotAMember { member },
        ClusterRefusal::Behind { member, entries: 7 },
        ClusterRefusal::Unreachable { member },
        ClusterRefusal::LastVoter { member },
        ClusterRefusal::NoMajority { member, voters: 2, reachable: 1 },
        ClusterRefusal::NoSuccessor,
        ClusterRefusal::Changing,
        ClusterRefusal::NoLeader,
    ]
}

/// Every kind of request on a side stream.
pub(super) fn side_requests() -> Vec<(String, SideRequest)> {
    let member = MemberId(4);
    let address = || "h:1".to_owned();
    let requests = [
        SideRequest::Backup { at_least: Zxid(12) },
        SideRequest::Health,
        SideRequest::Cluster(ClusterRequest::AddLearner { member, client: address(), peer: address() }),
        SideRequest::Cluster(ClusterRequest::Promote { member }),
        SideRequest::Cluster(ClusterRequest::Remove { member }),
        SideRequest::Cluster(ClusterRequest::StepDown),
    ];
    requests.into_iter().map(|one| (side_request(&one).to_owned(), one)).collect()
}

fn health() -> Health {
    let report = MemberReport {
        term: 3,
        zxid: Zxid(12),
        digest: "00ff".repeat(8),
        version: "0.1.0".to_owned(),
        clock_offset_ms: -4,
        round_trip_ms: 1,
        log_last_sync_us: 700,
        log_longest_sync_us: 9_000,
        free_bytes: 1 << 40,
        checkpoint_zxid: Some(Zxid(9)),
        certificate_end_s: Some(1_800_000_000),
        note: Some("why".to_owned()),
    };
    let member = |id, report: Option<MemberReport>| MemberHealth {
        id: MemberId(id),
        voter: report.is_some(),
        client: "h:1".to_owned(),
        peer: "h:2".to_owned(),
        role: if report.is_some() { Role::Leader } else { Role::Unreachable },
        report,
    };
    let bare = MemberReport { checkpoint_zxid: None, certificate_end_s: None, note: None, ..report.clone() };
    Health {
        cluster: "6f1c".to_owned(),
        member: MemberId(1),
        leader: Some(MemberId(1)),
        wall_ms: 1_700_000_000_000,
        members: vec![member(1, Some(report)), member(2, Some(bare)), member(3, None)],
    }
}

/// Every kind of message on a side stream.
pub(super) fn side_messages() -> Vec<(String, SideMessage)> {
    let bytes = Bytes::from_static(b"rows");
    let backup =
        Backup { cluster: "6f1c".to_owned(), zxid: Zxid(12), digest: "00ff".repeat(8), bytes: 4_096, rows: 10 };
    let messages = [
        SideMessage::Working,
        SideMessage::Backup(backup),
        SideMessage::Chunk { sum: crate::sum(&bytes), bytes },
        SideMessage::End { bytes: 4_096 },
        SideMessage::Health(Box::new(health())),
        SideMessage::Done,
        SideMessage::Refused { refusal: Refusal::BadRequest { why: "w".to_owned() } },
        SideMessage::Failed { why: "w".to_owned(), unknown: true },
    ];
    let messages = messages.into_iter().map(|one| (side_message(&one).to_owned(), one));
    let declined = cluster_refusals().into_iter();
    let declined = declined.map(|one| (format!("declined.{}", cluster_refusal(&one)), SideMessage::Declined(one)));
    messages.chain(declined).collect()
}

/// Panics unless each of these names is the name of a sample.
fn all_there(what: &str, all: &[&str], there: impl IntoIterator<Item = &'static str>) {
    let there: Vec<&str> = there.into_iter().collect();
    for name in all {
        assert!(there.contains(name), "there is no sample of the {what} {name}");
    }
}

#[test]
fn there_is_a_sample_of_every_variant() {
    all_there("client message", CLIENT, client_messages().iter().map(|(_, one)| client(one)));
    all_there("member's message", SERVER, server_messages().iter().map(|(_, one)| server(one)));
    all_there("operation", OP, ops().iter().map(op));
    all_there("step", STEP, steps().iter().map(step));
    all_there("query", QUERY, queries().iter().map(query));
    all_there("value", VALUE, values().iter().map(value));
    all_there("answer", ANSWER, answers().iter().map(answer));
    all_there("refusal", REFUSAL, refusals().iter().map(refusal));
    all_there("side request", SIDE_REQUEST, side_requests().iter().map(|(_, one)| side_request(one)));
    all_there("side message", SIDE_MESSAGE, side_messages().iter().map(|(_, one)| side_message(one)));
    all_there("cluster's refusal", CLUSTER_REFUSAL, cluster_refusals().iter().map(cluster_refusal));
    all_there("role", ROLE, status().members.iter().map(|member| role(&member.role)));
    let messages = client_messages();
    let reads = messages.iter().filter_map(|(_, one)| match one {
        ClientMessage::Read { consistency, .. } => Some(self::consistency(consistency)),
        _ => None,
    });
    all_there("consistency", CONSISTENCY, reads);
    let scopes = messages.iter().filter_map(|(_, one)| match one {
        ClientMessage::Watch { watch, .. } => Some(scope(&watch.scope)),
        _ => None,
    });
    all_there("scope", SCOPE, scopes);
    let messages = server_messages();
    let push_backs = messages.iter().filter_map(|(_, one)| match one {
        ServerMessage::PushBack { why, .. } => Some(push_back(why)),
        _ => None,
    });
    all_there("push-back", PUSH_BACK, push_backs);
    let changes = messages.iter().filter_map(|(_, one)| match one {
        ServerMessage::Event { changes, .. } => Some(changes),
        _ => None,
    });
    all_there("change", KIND, changes.flatten().map(|change| kind(&change.kind)));
}

#[test]
fn a_refusals_code_is_its_name_on_the_wire() {
    for one in refusals() {
        match &one {
            Refusal::Step { cause, .. } => assert_eq!(one.code(), cause.code(), "a step's is its cause's"),
            _ => assert_eq!(one.code(), refusal(&one)),
        }
        let bytes = codec::encode(&one);
        let name = refusal(&one).as_bytes();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{one:?}");
    }
}

#[test]
fn a_clusters_refusals_code_is_its_name_on_the_wire() {
    for one in cluster_refusals() {
        assert_eq!(one.code(), cluster_refusal(&one));
        let bytes = codec::encode(&one);
        let name = one.code().as_bytes();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{one:?}");
    }
}
