//! Random messages: proptest's strategies for everything that travels.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{plugins, samples, side};
use crate::plugin::{Access, Action, BudgetSettings, ComponentDigest, Install, Manage, Need, Upload};
use crate::{
    AccessList, Answer, Call, Change, ChangeKind, Check, ClientMessage, Condition, Consistency, Create, Delete, Detail,
    Edit, Entry, Fence, Grant, Kind, Kinds, Nonce, Op, Outcome, Page, Path, PathPattern, Pattern, Permission,
    Permissions, Present, Prune, Query, Scope, ServerMessage, SessionId, SessionInfo, Set, SetAcl, SideMessage,
    SideRequest, Stat, Step, TreeEntry, Update, Value, WatchId, WatchRequest, Who, Zxid,
};

pub(super) fn path() -> impl Strategy<Value = Path> {
    vec("[a-zäß@ .-]{1,9}", 0..6)
        .prop_map(|names| Path::parse(&format!("/{}", names.join("/"))))
        .prop_filter_map("a name is . or ..", Result::ok)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn version() -> impl Strategy<Value = Option<u64>> {
    option::of(any::<u64>())
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[u64; 11]>(), version(), version(), any::<bool>()).prop_map(|(n, owner, ttl_ms, container)| Stat {
        created: Zxid(n[0]),
        modified: Zxid(n[1]),
        children_modified: Zxid(n[2]),
        version: n[3],
        children_version: n[4],
        created_ms: n[5],
        modified_ms: n[6],
        children_modified_ms: n[7],
        owner: owner.map(SessionId),
        data_bytes: n[8],
        children: n[9],
        acl_version: n[10],
        container,
        ttl_ms,
    })
}

pub(super) fn permissions() -> impl Strategy<Value = Permissions> {
    vec(select(&Permission::ALL[..]), 0..7).prop_map(|some| Permissions::of(&some))
}

pub(super) fn access_list() -> impl Strategy<Value = AccessList> {
    let who = prop_oneof![Just(Who::Anyone), any::<String>().prop_map(Who::Principal)];
    vec((who, permissions()).prop_map(|(who, may)| Grant { who, may }), 0..5).prop_map(AccessList)
}

pub(super) fn pattern() -> impl Strategy<Value = Pattern> {
    "[^/]{1,20}".prop_filter_map("longer than a name", |text| text.parse().ok())
}

pub(super) fn kinds() -> impl Strategy<Value = Kinds> {
    vec(select(&ChangeKind::ALL[..]), 0..6).prop_map(|some| Kinds::of(&some))
}

fn create() -> impl Strategy<Value = Create> {
    (path(), data(), any::<[bool; 5]>(), version(), option::of(access_list())).prop_map(
        |(path, data, [ephemeral, sequential, container, parents, or_set], ttl_ms, acl)| Create {
            path,
            data,
            kind: Kind { ephemeral, sequential, container, ttl_ms },
            parents,
            or_set,
            acl,
        },
    )
}

fn set() -> impl Strategy<Value = Set> {
    (path(), data(), version()).prop_map(|(path, data, if_version)| Set { path, data, if_version })
}

fn delete() -> impl Strategy<Value = Delete> {
    (path(), version(), any::<bool>()).prop_map(|(path, if_version, recursive)| Delete { path, if_version, recursive })
}

fn update() -> impl Strategy<Value = Update> {
    let edit = prop_oneof![
        any::<i64>().prop_map(Edit::Add),
        any::<i64>().prop_map(Edit::Min),
        any::<i64>().prop_map(Edit::Max),
        data().prop_map(Edit::Append),
        (data(), data()).prop_map(|(expected, data)| Edit::Swap { expected, data }),
    ];
    (path(), edit, version(), any::<bool>()).prop_map(|(path, edit, if_version, or_create)| Update {
        path,
        edit,
        if_version,
        or_create,
    })
}

fn set_acl() -> impl Strategy<Value = SetAcl> {
    (path(), access_list(), version()).prop_map(|(path, acl, if_acl_version)| SetAcl { path, acl, if_acl_version })
}

fn check() -> impl Strategy<Value = Check> {
    let condition = prop_oneof![
        Just(Condition::Exists),
        Just(Condition::Absent),
        any::<u64>().prop_map(Condition::Version),
        any::<u64>().prop_map(|session| Condition::Owner(SessionId(session))),
        any::<[u64; 2]>().prop_map(|[least, most]| Condition::Children { least, most }),
        data().prop_map(Condition::Data),
        any::<u64>().prop_map(|zxid| Condition::Created(Zxid(zxid))),
    ];
    (path(), condition).prop_map(|(path, condition)| Check { path, condition })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        check().prop_map(Step::Check),
        create().prop_map(Step::Create),
        set().prop_map(Step::Set),
        delete().prop_map(Step::Delete),
        update().prop_map(Step::Update),
        set_acl().prop_map(Step::Acl),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    (any::<String>(), any::<String>(), data(), path()).prop_map(|(plugin, procedure, args, root)| Call {
        plugin,
        procedure,
        args,
        root,
    })
}

fn budgets() -> impl Strategy<Value = BudgetSettings> {
    vec(version(), 7).prop_map(|all| BudgetSettings {
        fuel: all[0],
        time_ms: all[1],
        memory_bytes: all[2],
        host_calls: all[3],
        rows: all[4],
        written_bytes: all[5],
        read_bytes: all[6],
    })
}

/// Text that is a pattern, whatever it says.
pub(super) fn path_pattern() -> impl Strategy<Value = PathPattern> {
    "(/([a-c*?]{1,4}|[*]{2})){1,5}".prop_filter_map("is none", |text| text.parse().ok())
}

fn need() -> impl Strategy<Value = Need> {
    let access = select(&[Access::Read, Access::Create, Access::Write, Access::Delete][..]);
    (vec(path_pattern(), 0..3), vec(access, 0..4)).prop_map(|(paths, ops)| Need { paths, ops })
}

fn install() -> impl Strategy<Value = Install> {
    let rest = (any::<u64>(), vec(need(), 0..3), option::of(data()), option::of(budgets()), any::<[bool; 2]>());
    (any::<String>(), any::<[u8; 32]>(), rest).prop_map(
        |(name, digest, (component_bytes, allowed, settings, budgets, [upgrade, shadow]))| Install {
            name,
            digest: ComponentDigest(digest),
            component_bytes,
            allowed,
            settings,
            budgets,
            upgrade,
            shadow,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![select(plugins::actions()), data().prop_map(Action::Settings), budgets().prop_map(Action::Budgets),]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        create().prop_map(Op::Create),
        set().prop_map(Op::Set),
        delete().prop_map(Op::Delete),
        vec(step(), 0..5).prop_map(Op::Multi),
        update().prop_map(Op::Update),
        (path(), any::<u32>()).prop_map(|(path, limit)| Op::Prune(Prune { path, limit })),
        set_acl().prop_map(Op::Acl),
        call().prop_map(Op::Call),
        any::<u64>().prop_map(|sequence| Op::Cancel { sequence }),
        (any::<[u8; 32]>(), any::<u32>(), data()).prop_map(|(digest, chunk, bytes)| Op::Upload(Upload {
            digest: ComponentDigest(digest),
            chunk,
            bytes
        })),
        install().prop_map(Op::Install),
        (any::<String>(), action()).prop_map(|(name, what)| Op::Manage(Manage { name, what })),
        any::<u64>().prop_map(|session| Op::End(SessionId(session))),
        Just(Op::Close),
    ]
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![
        select(&[Consistency::Session, Consistency::Linearizable, Consistency::Stale][..]),
        any::<u64>().prop_map(Consistency::Within),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let detail = select(&[Detail::Names, Detail::Stats, Detail::Data][..]);
    prop_oneof![
        path().prop_map(|path| Query::Get { path }),
        path().prop_map(|path| Query::Exists { path }),
        (path(), any::<String>(), option::of(any::<String>()), any::<u32>(), detail)
            .prop_map(|(path, prefix, after, limit, detail)| Query::Children { path, prefix, after, limit, detail }),
        vec(path(), 0..5).prop_map(|paths| Query::Many { paths }),
        path().prop_map(|path| Query::Count { path }),
        path().prop_map(|path| Query::Acl { path }),
        (any::<u64>(), version(), any::<u32>()).prop_map(|(session, after, limit)| Query::Owned {
            session: SessionId(session),
            after,
            limit
        }),
        (version(), any::<u32>()).prop_map(|(after, limit)| Query::Sessions { after: after.map(SessionId), limit }),
        call().prop_map(Query::Call),
        option::of(any::<String>()).prop_map(|name| Query::Plugins { name }),
        (any::<String>(), version(), any::<u32>()).prop_map(|(plugin, after, limit)| Query::Calls {
            plugin,
            after: after.map(Zxid),
            limit
        }),
        Just(Query::Status),
    ]
}

fn watch() -> impl Strategy<Value = WatchRequest> {
    let scope = select(&[Scope::Data, Scope::Existence, Scope::Children, Scope::Subtree][..]);
    let filters = (option::of(kinds()), option::of(pattern()));
    (any::<u64>(), path(), scope, filters, any::<[bool; 2]>(), version()).prop_map(
        |(watch, path, scope, (kinds, names), [data, once], since)| WatchRequest {
            watch: WatchId(watch),
            path,
            scope,
            kinds,
            names,
            data,
            once,
            since: since.map(Zxid),
        },
    )
}

pub(super) fn client_message() -> impl Strategy<Value = ClientMessage> {
    let fence = || option::of((path(), any::<u64>()).prop_map(|(path, zxid)| Fence { path, zxid: Zxid(zxid) }));
    prop_oneof![
        (any::<[u64; 3]>(), vec(any::<u64>(), 0..4), fence(), op()).prop_map(
            |([id, sequence, floor], completed, fence, op)| ClientMessage::Write {
                id,
                sequence,
                floor,
                completed,
                fence,
                op
            }
        ),
        (any::<[u64; 2]>(), any::<[u8; 16]>(), fence(), op()).prop_map(|([id, until_ms], nonce, fence, op)| {
            ClientMessage::Once { id, nonce: Nonce::new(nonce), until_ms, fence, op }
        }),
        (any::<[u64; 2]>(), consistency(), query()).prop_map(|([id, within_ms], consistency, query)| {
            ClientMessage::Read { id, consistency, within_ms, query }
        }),
        (any::<u64>(), watch()).prop_map(|(id, watch)| ClientMessage::Watch { id, watch }),
        select(samples::client_messages()).prop_map(|(_, message)| message),
    ]
}

fn present() -> impl Strategy<Value = Present> {
    (data(), stat()).prop_map(|(data, stat)| Present { data, stat })
}

fn answer() -> impl Strategy<Value = Answer> {
    let child = (any::<String>(), option::of(stat()), option::of(data()));
    let child = child.prop_map(|(name, stat, data)| Entry { name, stat, data });
    let session = (any::<[u64; 5]>(), any::<String>()).prop_map(|(n, principal)| SessionInfo {
        session: SessionId(n[0]),
        principal,
        timeout_ms: n[1],
        ephemerals: n[2],
        writes: n[3],
        unacknowledged: n[4],
    });
    prop_oneof![
        (data(), stat()).prop_map(|(data, stat)| Answer::Znode { data, stat }),
        (vec(child, 0..5), any::<bool>()).prop_map(|(children, more)| Answer::Page(Page { children, more })),
        option::of(stat()).prop_map(Answer::Exists),
        vec(option::of(present()), 0..4).prop_map(Answer::Many),
        any::<u64>().prop_map(Answer::Count),
        (access_list(), stat()).prop_map(|(acl, stat)| Answer::Acl { acl, stat }),
        (vec(path(), 0..4), version()).prop_map(|(paths, next)| Answer::Owned { paths, next }),
        (vec(session, 0..4), any::<bool>()).prop_map(|(sessions, more)| Answer::Sessions { sessions, more }),
        data().prop_map(Answer::Called),
        vec(select(plugins::infos()), 0..3).prop_map(Answer::Plugins),
        (vec(version(), 0..4), any::<bool>())
            .prop_map(|(until, more)| Answer::Calls { calls: until.into_iter().map(plugins::parked).collect(), more }),
    ]
}

pub(super) fn server_message() -> impl Strategy<Value = ServerMessage> {
    let kind = select(&ChangeKind::ALL[..]);
    let change = (kind, path(), any::<u64>()).prop_map(|(kind, path, version)| Change { kind, path, version });
    let answer = prop_oneof![answer().prop_map(Ok), select(samples::refusals()).prop_map(Err)];
    prop_oneof![
        (any::<[u64; 2]>(), answer).prop_map(|([id, zxid], answer)| ServerMessage::Answer {
            id,
            zxid: Zxid(zxid),
            answer
        }),
        (any::<[u64; 2]>(), vec((change, option::of(present())), 0..5), any::<bool>()).prop_map(
            |([watch, zxid], told, with_data)| {
                let (changes, present) = told.into_iter().unzip();
                let present = if with_data { present } else { Vec::new() };
                ServerMessage::Event { watch: WatchId(watch), zxid: Zxid(zxid), changes, present }
            }
        ),
        (any::<[u64; 2]>(), data()).prop_map(|([id, zxid], outcome)| ServerMessage::Reply {
            id,
            zxid: Zxid(zxid),
            outcome
        }),
        (any::<[u64; 2]>(), data()).prop_map(|([sequence, zxid], outcome)| ServerMessage::Completed {
            sequence,
            zxid: Zxid(zxid),
            outcome
        }),
        select(samples::server_messages()).prop_map(|(_, message)| message),
    ]
}

pub(super) fn outcome() -> impl Strategy<Value = Outcome> {
    let created = (path(), stat()).prop_map(|(path, stat)| Value::Created { path, stat });
    let number = (any::<i64>(), stat()).prop_map(|(number, stat)| Value::Number { number, stat });
    let one = prop_oneof![created, number, stat().prop_map(|stat| Value::Set { stat }), Just(Value::Checked)].boxed();
    prop_oneof![
        one.clone().prop_map(Ok),
        vec(one, 0..5).prop_map(|values| Ok(Value::Multi(values))),
        data().prop_map(|bytes| Ok(Value::Called(bytes))),
        select(samples::outcomes()).prop_map(|(_, outcome)| outcome),
    ]
}

pub(super) fn side_request() -> impl Strategy<Value = SideRequest> {
    prop_oneof![
        (path(), any::<bool>(), consistency(), any::<u64>()).prop_map(|(path, data, consistency, seen)| {
            SideRequest::Subtree { path, data, consistency, seen: Zxid(seen) }
        }),
        select(side::side_requests()).prop_map(|(_, request)| request),
    ]
}

pub(super) fn side_message() -> impl Strategy<Value = SideMessage> {
    let znode = (path(), stat(), option::of(data())).prop_map(|(path, stat, data)| TreeEntry { path, stat, data });
    prop_oneof![
        vec(znode, 0..5).prop_map(SideMessage::Znodes),
        select(side::side_messages()).prop_map(|(_, message)| message),
    ]
}
