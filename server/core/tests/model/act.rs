//! What can happen in a history, at random.

use std::ops::Range;

use bytes::Bytes;
use conclave_protocol::limits::Limits;
use conclave_protocol::{
    AccessList, Call, Check, Condition, Create, Delete, Edit, Grant, Kind, Op, Path, Permissions, Prune, SessionId,
    Set, SetAcl, Step, Update, Who, Zxid,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::support::{ALICE, BOB, CAROL};

/// What happens next; small numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Open { nonce: u64, timeout_ms: u64, who: usize },
    Write { session: usize, sequence: i64, acknowledge: bool, stranger: bool, fence: Pick, op: Op },
    Once { nonce: u64, until: i64, who: usize, fence: Pick, op: Op },
    Again { back: usize },
    Expire { session: usize },
    Stamp,
    Sweep,
    Pass { ms: u64 },
    Back { ms: u64 },
    Limits(Limits),
    Cut,
    Apply,
    Rebase,
    Reset { same_term: bool },
}

/// Which fence a write carries.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    None,
    /// The zxid that created the znode, off by this much.
    Of {
        path: Path,
        off: u64,
    },
}

/// Data that stands for what the znode holds at that moment, where something is compared with it.
pub(crate) const SAME: &[u8] = b"=";

/// Who there is.
pub(crate) const PRINCIPALS: [&str; 3] = [ALICE, BOB, CAROL];

/// A path; one that begins with `/~` and a digit stands for a znode that is there at that moment, see [`there`].
fn path() -> impl Strategy<Value = Path> {
    let name = || {
        let made = prop::sample::select(vec!["a0000000000", "a0000000001", "b0000000000"]);
        prop_oneof![9 => "[ab]", 2 => "c", 1 => made.prop_map(str::to_owned)]
    };
    let depth = prop_oneof![1 => Just(0_usize), 20 => Just(1_usize), 16 => Just(2_usize), 8 => Just(3_usize)];
    let names = depth.prop_flat_map(move |depth| vec(name(), depth));
    let there = prop_oneof![3 => "~[0-9]", 1 => "~[0-9]/[ab]"].prop_map(|there| vec![there]);
    let names = prop_oneof![2 => names, 3 => there];
    names.prop_map(|names| Path::parse(&format!("/{}", names.join("/"))).unwrap())
}

/// The path that a path stands for, where these are.
pub(crate) fn there<'a>(path: &Path, mut paths: impl ExactSizeIterator<Item = &'a String>) -> Path {
    let Some((number, rest)) = path.as_str().strip_prefix("/~").and_then(|rest| rest.split_at_checked(1)) else {
        return path.clone();
    };
    let number = number.parse::<usize>().unwrap() % paths.len();
    match (paths.nth(number).unwrap().as_str(), rest) {
        ("/", "") => Path::root(),
        ("/", rest) => Path::parse(rest).unwrap(),
        (there, rest) => Path::parse(&format!("{there}{rest}")).unwrap(),
    }
}

/// The paths in an operation.
pub(crate) fn paths(op: &mut Op) -> Vec<&mut Path> {
    match op {
        Op::Create(Create { path, .. })
        | Op::Set(Set { path, .. })
        | Op::Delete(Delete { path, .. })
        | Op::Update(Update { path, .. })
        | Op::Prune(Prune { path, .. })
        | Op::Acl(SetAcl { path, .. }) => vec![path],
        Op::Multi(steps) => steps.iter_mut().map(of_step).collect(),
        Op::Call(_) | Op::Cancel { .. } | Op::Upload(_) | Op::Install(_) | Op::Manage(_) | Op::End(_) | Op::Close => {
            Vec::new()
        }
    }
}

fn of_step(step: &mut Step) -> &mut Path {
    match step {
        Step::Check(Check { path, .. })
        | Step::Create(Create { path, .. })
        | Step::Set(Set { path, .. })
        | Step::Delete(Delete { path, .. })
        | Step::Update(Update { path, .. })
        | Step::Acl(SetAcl { path, .. }) => path,
    }
}

fn data() -> impl Strategy<Value = Bytes> {
    let number = prop::sample::select(vec!["7", "-3", "0", " 12\n", "9223372036854775807", "-9223372036854775808"]);
    prop_oneof![
        2 => Just(Bytes::new()),
        2 => "[xyz]{1,4}".prop_map(Bytes::from),
        3 => number.prop_map(Bytes::from),
        // Long data makes long replies nowhere, but rows beyond the one-piece hash, and is over lowered limits.
        1 => Just(Bytes::from(vec![7; 900])),
    ]
}

/// Data to compare with.
fn compared() -> impl Strategy<Value = Bytes> {
    prop_oneof![2 => Just(Bytes::from_static(SAME)), 1 => data()]
}

fn version() -> impl Strategy<Value = Option<u64>> {
    option::weighted(0.25, 0..3_u64)
}

fn who() -> impl Strategy<Value = Who> {
    let principals = [ALICE, BOB, CAROL].map(|one| Just(Who::Principal(one.to_owned())));
    let [alice, bob, carol] = principals;
    prop_oneof![8 => Just(Who::Anyone), 4 => alice, 4 => bob, 2 => carol, 1 => Just(Who::Principal(String::new()))]
}

fn access_list() -> impl Strategy<Value = AccessList> {
    let may = prop_oneof![Just("crwda".to_owned()), Just("crwd".to_owned()), "[crwda]{0,4}"];
    let may = may.prop_map(|letters| letters.parse::<Permissions>().unwrap());
    vec((who(), may).prop_map(|(who, may)| Grant { who, may }), 0..5).prop_map(AccessList)
}

fn kind() -> impl Strategy<Value = Kind> {
    let ttl_ms = prop_oneof![12 => 1..20_000_u64, 1 => Just(0_u64), 1 => Just(u64::MAX)];
    let (flag, rarely) = (prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    (flag, rarely, prop::bool::weighted(0.2), option::weighted(0.3, ttl_ms))
        .prop_map(|(ephemeral, sequential, container, ttl_ms)| Kind { ephemeral, sequential, container, ttl_ms })
}

fn a_create() -> impl Strategy<Value = Create> {
    let acl = option::weighted(0.15, access_list());
    (path(), data(), kind(), prop::bool::weighted(0.7), prop::bool::weighted(0.25), acl)
        .prop_map(|(path, data, kind, parents, or_set, acl)| Create { path, data, kind, parents, or_set, acl })
}

fn a_set() -> impl Strategy<Value = Set> {
    (path(), data(), version()).prop_map(|(path, data, if_version)| Set { path, data, if_version })
}

fn a_delete() -> impl Strategy<Value = Delete> {
    (path(), version(), any::<bool>()).prop_map(|(path, if_version, recursive)| Delete { path, if_version, recursive })
}

fn edit() -> impl Strategy<Value = Edit> {
    let number = || prop_oneof![4 => -9..9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    prop_oneof![
        3 => number().prop_map(Edit::Add),
        1 => number().prop_map(Edit::Min),
        1 => number().prop_map(Edit::Max),
        1 => data().prop_map(Edit::Append),
        2 => (compared(), data()).prop_map(|(expected, data)| Edit::Swap { expected, data }),
    ]
}

fn an_update() -> impl Strategy<Value = Update> {
    let version = option::weighted(0.15, 0..3_u64);
    (path(), edit(), version, any::<bool>()).prop_map(|(path, edit, if_version, or_create)| Update {
        path,
        edit,
        if_version,
        or_create,
    })
}

fn a_prune() -> impl Strategy<Value = Prune> {
    let limit = prop_oneof![6 => 1..6_u32, 1 => Just(0_u32), 1 => Just(u32::MAX)];
    (path(), limit).prop_map(|(path, limit)| Prune { path, limit })
}

fn a_set_acl() -> impl Strategy<Value = SetAcl> {
    (path(), access_list(), version()).prop_map(|(path, acl, if_acl_version)| SetAcl { path, acl, if_acl_version })
}

fn check() -> impl Strategy<Value = Check> {
    let condition = prop_oneof![
        Just(Condition::Exists),
        Just(Condition::Absent),
        (0..3_u64).prop_map(Condition::Version),
        (0..3_u64).prop_map(|number| Condition::Owner(SessionId(number))),
        (0..2_u64, 0..4_u64).prop_map(|(least, most)| Condition::Children { least, most }),
        compared().prop_map(Condition::Data),
        (0..2_u64).prop_map(|off| Condition::Created(Zxid(off))),
    ];
    (path(), condition).prop_map(|(path, condition)| Check { path, condition })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => check().prop_map(Step::Check),
        3 => a_create().prop_map(Step::Create),
        1 => a_set().prop_map(Step::Set),
        1 => a_delete().prop_map(Step::Delete),
        1 => an_update().prop_map(Step::Update),
        1 => a_set_acl().prop_map(Step::Acl),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let call =
        || Op::Call(Call { plugin: "p".to_owned(), procedure: "q".to_owned(), args: Bytes::new(), root: Path::root() });
    prop_oneof![
        40 => a_create().prop_map(Op::Create),
        10 => a_set().prop_map(Op::Set),
        6 => a_delete().prop_map(Op::Delete),
        2 => Just(Op::Multi(Vec::new())),
        16 => vec(step(), 1..4).prop_map(Op::Multi),
        10 => an_update().prop_map(Op::Update),
        6 => a_prune().prop_map(Op::Prune),
        8 => a_set_acl().prop_map(Op::Acl),
        1 => Just(call()),
        1 => (0..4_u64).prop_map(|number| Op::End(SessionId(number))),
        1 => Just(Op::Close),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        12 => Just(Pick::None),
        1 => (path(), prop_oneof![3 => Just(0_u64), 1 => Just(1_u64)]).prop_map(|(path, off)| Pick::Of { path, off }),
    ]
}

/// Limits that a small history meets.
fn low_limits() -> impl Strategy<Value = Limits> {
    (1..4_u64, 1..5_u64, 1..4_u64, 1..4_u64, (1..4_u64, 1..6_u64, 1..9_000_u64, 1..5_000_u64)).prop_map(
        |(multi_steps, subtree_znodes, prune_znodes, session_ephemerals, more)| {
            let (acl_grants, access_lists, ttl_max_ms, container_grace_ms) = more;
            Limits {
                data_bytes: 899,
                multi_steps,
                subtree_znodes,
                prune_znodes,
                session_ephemerals,
                session_timeout_min_ms: 3_000,
                session_timeout_max_ms: 20_000,
                once_rows: 3,
                acl_grants,
                access_lists,
                ttl_max_ms,
                container_grace_ms,
                ..Limits::default()
            }
        },
    )
}

/// A tree that is built first, and whatever happens then.
pub(crate) fn history(acts: Range<usize>) -> impl Strategy<Value = Vec<Act>> {
    let deep = vec("[abc]", 1..4).prop_map(|names| Path::parse(&format!("/{}", names.join("/"))).unwrap());
    let create = (deep, data(), option::weighted(0.2, access_list()))
        .prop_map(|(path, data, acl)| Op::Create(Create { parents: true, acl, ..Create::new(path, data) }));
    let building = (1_000..9_999_u64, 0..3_usize, create).prop_map(|(nonce, who, op)| Act::Once {
        nonce,
        until: 30_000,
        who,
        fence: Pick::None,
        op,
    });
    (vec(building, 0..20), vec(act(), acts)).prop_map(|(mut built, acts)| {
        built.extend(acts);
        built
    })
}

fn act() -> impl Strategy<Value = Act> {
    let sequence = prop_oneof![8 => Just(0_i64), 1 => -3..0_i64, 1 => 1..3_i64];
    let write = (0..4_usize, sequence, any::<bool>(), prop::bool::weighted(0.05), pick(), op());
    let limits = prop_oneof![1 => low_limits(), 4 => Just(Limits::default())];
    prop_oneof![
        2 => (0..9_u64, 0..400_000_u64, 0..2_usize)
            .prop_map(|(nonce, timeout_ms, who)| Act::Open { nonce, timeout_ms, who }),
        24 => write.prop_map(|(session, sequence, acknowledge, stranger, fence, op)| {
            Act::Write { session, sequence, acknowledge, stranger, fence, op }
        }),
        8 => (0..99_u64, -2_000..70_000_i64, 0..3_usize, pick(), op())
            .prop_map(|(nonce, until, who, fence, op)| Act::Once { nonce, until, who, fence, op }),
        2 => (0..9_usize).prop_map(|back| Act::Again { back }),
        1 => (0..4_usize).prop_map(|session| Act::Expire { session }),
        1 => Just(Act::Stamp),
        4 => Just(Act::Sweep),
        2 => (0..2_000_u64).prop_map(|ms| Act::Pass { ms }),
        1 => (0..40_000_u64).prop_map(|ms| Act::Pass { ms }),
        1 => (0..5_000_u64).prop_map(|ms| Act::Back { ms }),
        1 => limits.prop_map(Act::Limits),
        3 => Just(Act::Cut),
        3 => Just(Act::Apply),
        2 => Just(Act::Rebase),
        1 => any::<bool>().prop_map(|same_term| Act::Reset { same_term }),
    ]
}
