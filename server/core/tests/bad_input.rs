//! Bad input that core decides: each a typed refusal or a documented answer, and nothing written.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::Table;
use conclave_core::query;
use conclave_protocol::limits::{self, Limits};
use conclave_protocol::{
    AccessList, Answer, Check, Condition, Create, Delete, Detail, Edit, Grant, Kind, Op, Outcome, Page, Permissions,
    Prune, Query, Refusal, SessionId, Set, SetAcl, Step, Update, Value, Who,
};

use support::{ALICE, BOB, Member, acl, by, code, create, delete, ephemeral, once, path, set, set_acl, write};

/// Runs what must be refused, and sees to it that nothing of it is left.
fn refused(member: &mut Member, op: Op) -> Refusal {
    let (number, until_ms) = (500_000 + member.planner.last().0, member.now_ms + 1_000);
    let tables = [Table::Znode, Table::Data, Table::Child, Table::Owned, Table::Acl, Table::AclIndex];
    let before = tables.map(|table| member.tables.count(table));
    let state = query::state(&member.tables).unwrap();
    let refusal = member.run(&once(number, until_ms, op)).unwrap_err();
    assert_eq!(tables.map(|table| member.tables.count(table)), before, "{refusal}");
    let after = query::state(&member.tables).unwrap();
    assert_eq!((after.znodes, after.next_id, after.acls), (state.znodes, state.next_id, state.acls), "{refusal}");
    assert_eq!(member.tables.kept().digest, member.tables.digest().0);
    refusal
}

fn with_kind(text: &str, kind: Kind) -> Op {
    Op::Create(Create { kind, ..Create::new(path(text), Bytes::new()) })
}

fn ttl(ttl_ms: u64) -> Kind {
    Kind { ttl_ms: Some(ttl_ms), ..Kind::default() }
}

#[test]
fn a_multi_with_one_bad_step_among_a_thousand_says_which_and_why_and_writes_nothing() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/top")));
    let good = |number: u32| Step::Create(Create::new(path(&format!("/top/{number}")), vec![1; 100]));
    let missing = Step::Set(Set { path: path("/top/none"), ..Set::default() });
    for bad in [0, 1, 499, 999] {
        let mut steps: Vec<Step> = (0..1_000).map(good).collect();
        steps[bad as usize] = missing.clone();
        let cause = Box::new(Refusal::NoZnode { path: path("/top/none") });
        assert_eq!(refused(&mut member, Op::Multi(steps)), Refusal::Step { step: bad, cause });
    }
    let steps: Vec<Step> = (0..1_000).map(good).collect();
    let Ok(Value::Multi(values)) = member.run(&once(9, 2_000, Op::Multi(steps))) else {
        panic!("without it, it is done")
    };
    assert_eq!((values.len(), member.tables.count(Table::Znode)), (1_000, 1_002));
}

#[test]
fn a_multi_of_nothing_is_done_and_one_over_the_limit_is_not_begun() {
    let mut member = Member::new();
    assert_eq!(member.run(&once(1, 2_000, Op::Multi(Vec::new()))), Ok(Value::Multi(Vec::new())));
    let step = Step::Create(Create::new(path("/a"), Bytes::new()));
    let refusal = refused(&mut member, Op::Multi(vec![step; limits::MULTI_STEPS + 1]));
    assert!(matches!(refusal, Refusal::Limit { limit: 5_000, actual: 5_001, .. }), "no step is to blame: {refusal:?}");
}

#[test]
fn a_page_after_a_name_of_another_listing_is_what_comes_after_that_name_here() {
    let mut member = Member::new();
    for (number, text) in (1..).zip(["/a", "/a/x", "/a/y", "/b", "/b/m", "/b/z"]) {
        member.done(&once(number, 2_000, create(text)));
    }
    let page = |text: &str, prefix: &str, after: &str| -> Vec<String> {
        let (prefix, after) = (prefix.to_owned(), Some(after.to_owned()));
        let query = Query::Children { path: path(text), prefix, after, limit: 10, detail: Detail::Names };
        match query::answer(&member.tables, ALICE, &query).unwrap() {
            Ok(Answer::Page(Page { children, more: false })) => children.into_iter().map(|child| child.name).collect(),
            other => panic!("{other:?}"),
        }
    };
    let none: [&str; 0] = [];
    assert_eq!(page("/b", "", "x"), ["z"], "of /a");
    assert_eq!(page("/a", "", "m"), ["x", "y"], "of /b");
    assert_eq!(page("/a", "", "z"), none, "of /b, and behind all of /a");
    assert_eq!(page("/a", "x", "b"), ["x"], "before the prefix");
    assert_eq!(page("/a", "x", "y"), none, "behind the prefix");
    assert_eq!(page("/", "", "a/x"), ["b"], "no name at all: it is only compared");
    assert_eq!(page("/a/x", "", "y"), none);
    // Of a session's ephemeral znodes: a number that is nobody's.
    let session = member.open(ALICE);
    member.done(&write(session, 1, 1, ephemeral("/e")));
    let owned = |after| {
        let query = Query::Owned { session, after, limit: 10 };
        query::answer(&member.tables, ALICE, &query).unwrap().unwrap()
    };
    assert_eq!(owned(Some(0)), Answer::Owned { paths: vec![path("/e")], next: None });
    assert_eq!(owned(Some(u64::MAX)), Answer::Owned { paths: Vec::new(), next: None });
}

#[test]
fn names_in_a_listing_may_have_255_bytes_and_not_one_more() {
    let mut member = Member::new();
    let name = "n".repeat(limits::NAME_BYTES);
    member.done(&once(1, 2_000, create(&format!("/{name}"))));
    let page = |prefix: &str, after: Option<&str>| {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let query = Query::Children { path: path("/"), prefix, after, limit: 10, detail: Detail::Data };
        query::answer(&member.tables, ALICE, &query).unwrap()
    };
    let names = |answer| match answer {
        Ok(Answer::Page(page)) => page.children.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names(page(&name, None)), 1);
    assert_eq!(names(page(&name[1..], Some(&name[1..]))), 1);
    assert_eq!(names(page("", Some(&name))), 0);
    let long = format!("{name}n");
    for answer in [page(&long, None), page("", Some(&long))] {
        assert!(matches!(answer, Err(Refusal::Limit { limit: 255, actual: 256, .. })), "{answer:?}");
    }
}

#[test]
fn a_read_of_many_is_bounded_in_paths_and_in_bytes() {
    let mut member = Member::new();
    for number in 0..3 {
        let bytes = vec![1; limits::DATA_BYTES];
        member.done(&once(number, 2_000, Op::Create(Create::new(path(&format!("/{number}")), bytes))));
    }
    let many = |paths: Vec<_>| query::answer(&member.tables, ALICE, &Query::Many { paths }).unwrap();
    let over = many(vec![path("/none"); limits::READ_PATHS + 1]);
    assert!(matches!(over, Err(Refusal::Limit { limit: 1_000, actual: 1_001, .. })));
    assert!(many(vec![path("/none"); limits::READ_PATHS]).is_ok());
    assert!(many(vec![path("/0"), path("/1")]).is_ok(), "exactly as many bytes as may be");
    let over = many(vec![path("/0"), path("/1"), path("/2")]);
    assert!(matches!(over, Err(Refusal::Limit { limit, .. }) if limit == limits::READ_BYTES as u64), "{over:?}");
    assert!(many(vec![path("/0"); 3]).is_err(), "one that stands there twice counts twice");
}

#[test]
fn a_time_to_live_is_neither_0_nor_ten_centuries() {
    let mut member = Member::new();
    assert_eq!(refused(&mut member, with_kind("/a", ttl(0))).code(), "bad-request");
    let centuries = 10 * 100 * 365 * 24 * 60 * 60 * 1_000;
    for ttl_ms in [limits::TTL_MAX_MS + 1, centuries, u64::MAX] {
        let expected = (limits::TTL_MAX_MS, ttl_ms);
        let refusal = refused(&mut member, with_kind("/a", ttl(ttl_ms)));
        assert!(matches!(refusal, Refusal::Limit { limit, actual, .. } if (limit, actual) == expected), "{refusal}");
    }
    member.done(&once(1, 2_000, with_kind("/a", ttl(limits::TTL_MAX_MS))));
    member.done(&once(2, 2_000, with_kind("/b", ttl(1))));
}

#[test]
fn a_limit_on_the_time_to_live_of_the_greatest_number_overflows_nowhere() {
    let mut member = Member::new();
    member.planner.set_limits(Limits { ttl_max_ms: u64::MAX, container_grace_ms: u64::MAX, ..Limits::default() });
    member.done(&once(1, 2_000, with_kind("/a", Kind { container: true, ..ttl(u64::MAX) })));
    member.done(&once(2, 2_000, create("/a/b")));
    member.done(&once(3, 2_000, delete("/a/b", false)));
    member.now_ms = u64::MAX / 2;
    member.planned(&support::own(conclave_core::plan::Work::Sweep));
    member.settle();
    assert_eq!(member.tables.count(Table::Znode), 2, "it forgot the one-shot writes, and kept the znode");
}

#[test]
fn a_container_takes_data_and_is_checked_by_version_as_any_znode() {
    let mut member = Member::new();
    let container = Kind { container: true, ..Kind::default() };
    member.done(&once(1, 2_000, with_kind("/c", container)));
    member.done(&once(2, 2_000, set("/c", b"x")));
    let set = |version| Op::Set(Set { path: path("/c"), data: Bytes::new(), if_version: Some(version) });
    assert_eq!(refused(&mut member, set(0)).code(), "bad-version");
    assert_eq!(code(&member.run(&once(3, 2_000, set(1)))), "done");
    let delete = |version| Op::Delete(Delete { path: path("/c"), if_version: Some(version), recursive: false });
    assert_eq!(refused(&mut member, delete(1)).code(), "bad-version");
    assert_eq!(code(&member.run(&once(4, 2_000, delete(2)))), "done");
    let both = Kind { ephemeral: true, ..container };
    let session = member.open(ALICE);
    assert_eq!(code(&member.run(&write(session, 1, 1, with_kind("/e", both)))), "bad-request");
}

#[test]
fn below_an_ephemeral_znode_there_is_only_its_own_sessions_ephemerals() {
    let mut member = Member::new();
    let (one, other) = (member.open(ALICE), member.open(ALICE));
    member.done(&write(one, 1, 1, ephemeral("/e")));
    let parent = Err(Refusal::EphemeralParent { path: path("/e") });
    let deep = |text: &str| {
        let kind = Kind { ephemeral: true, ..Kind::default() };
        Op::Create(Create { kind, parents: true, ..Create::new(path(text), Bytes::new()) })
    };
    assert_eq!(member.run(&write(other, 1, 1, ephemeral("/e/theirs"))), parent);
    assert_eq!(member.run(&write(other, 2, 2, deep("/e/a/b"))), parent);
    assert_eq!(member.run(&write(one, 2, 2, deep("/e/a/b"))), parent, "the parent between would be persistent");
    assert_eq!(member.run(&write(one, 3, 3, create("/e/stays"))), parent);
    let update = Update { path: path("/e/n"), edit: Edit::Add(1), if_version: None, or_create: true };
    assert_eq!(member.run(&write(one, 4, 4, Op::Update(update))), parent);
    for container in [Kind { container: true, ..Kind::default() }, ttl(5)] {
        assert_eq!(refused(&mut member, with_kind("/e/c", container)), Refusal::EphemeralParent { path: path("/e") });
    }
    assert_eq!(code(&member.run(&write(one, 5, 5, ephemeral("/e/own")))), "done");
}

#[test]
fn an_access_list_that_locks_everybody_out_is_refused_wherever_it_comes() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    let nobody = AccessList(vec![Grant { who: Who::Principal(String::new()), may: Permissions::ALL }]);
    for list in [AccessList(Vec::new()), acl("anyone:crwd"), acl("anyone: alice:crwd bob:r"), nobody] {
        let locks_out = |text: &str| Refusal::LocksOut { path: path(text) };
        let set = SetAcl { path: path("/a"), acl: list.clone(), if_acl_version: None };
        assert_eq!(refused(&mut member, Op::Acl(set.clone())), locks_out("/a"));
        let root = SetAcl { path: path("/"), ..set.clone() };
        assert_eq!(refused(&mut member, Op::Acl(root)), locks_out("/"));
        let new = Create { acl: Some(list), parents: true, ..Create::new(path("/x/y"), Bytes::new()) };
        assert_eq!(refused(&mut member, Op::Create(new.clone())), locks_out("/x/y"));
        let steps = vec![Step::Check(Check { path: path("/a"), condition: Condition::Exists }), Step::Acl(set)];
        let cause = Box::new(locks_out("/a"));
        assert_eq!(refused(&mut member, Op::Multi(steps)), Refusal::Step { step: 1, cause });
    }
    assert_eq!(code(&member.run(&once(2, 2_000, set_acl("/a", "bob:a")))), "done", "somebody else is somebody");
    assert_eq!(refused(&mut member, set_acl("/a", "anyone:crwda")).code(), "not-allowed");
    assert_eq!(code(&member.run(&by(BOB, once(3, 2_000, set_acl("/a", "anyone:crwda"))))), "done");
}

#[test]
fn access_lists_are_bounded_in_grants_in_bytes_and_in_number() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    let grant = |number: usize| Grant { who: Who::Principal(format!("p{number}")), may: Permissions::ALL };
    let set = |acl: AccessList| Op::Acl(SetAcl { path: path("/a"), acl, if_acl_version: None });
    let grants = |count: usize| AccessList((0..count).map(grant).collect());
    let refusal = refused(&mut member, set(grants(limits::ACL_GRANTS + 1)));
    assert!(matches!(refusal, Refusal::Limit { limit: 64, actual: 65, .. }));
    let long =
        |bytes| AccessList(vec![Grant { who: Who::Principal("p".repeat(bytes)), may: Permissions::ALL }, grant(1)]);
    let refusal = refused(&mut member, set(long(limits::PRINCIPAL_BYTES + 1)));
    assert!(matches!(refusal, Refusal::Limit { limit: 1_024, actual: 1_025, .. }), "{refusal}");
    member.planner.set_limits(Limits { access_lists: 1, ..Limits::default() });
    // Alice stays among those who may set it.
    let keep = |letters: &str| set_acl("/a", &format!("alice:{letters}a"));
    member.done(&once(2, 2_000, keep("r")));
    let refusal = refused(&mut member, keep("rw"));
    assert!(matches!(refusal, Refusal::Limit { limit: 1, actual: 2, .. }), "{refusal}");
    // One that is there already, in any order and in pieces, and the open one, are no further ones.
    member.done(&once(3, 2_000, set_acl("/a", "bob: alice:a alice:r alice:ra")));
    member.done(&once(4, 2_000, set_acl("/a", "anyone:crwd anyone:a")));
    assert_eq!((member.tables.count(Table::Acl), member.tables.count(Table::AclIndex)), (1, 1));
    let new = Create { acl: Some(acl("bob:a")), ..Create::new(path("/b"), Bytes::new()) };
    assert_eq!(refused(&mut member, Op::Create(new)).code(), "limit");
}

#[test]
fn a_sequential_znode_is_always_new_so_it_is_not_set_if_it_is_there() {
    let mut member = Member::new();
    let kind = Kind { sequential: true, ..Kind::default() };
    let op = Op::Create(Create { kind, or_set: true, ..Create::new(path("/s"), Bytes::new()) });
    assert_eq!(refused(&mut member, op.clone()).code(), "bad-request");
    member.done(&once(1, 2_000, create("/s")));
    assert_eq!(refused(&mut member, op).code(), "bad-request");
}

#[test]
fn what_is_there_is_set_only_if_it_is_of_the_very_kind_that_is_wanted() {
    let mut member = Member::new();
    let (one, other) = (member.open(ALICE), member.open(ALICE));
    let kinds = [
        Kind::default(),
        ttl(5),
        ttl(6),
        Kind { container: true, ..Kind::default() },
        Kind { container: true, ..ttl(5) },
        Kind { ephemeral: true, ..Kind::default() },
        Kind { ephemeral: true, ..ttl(5) },
    ];
    let mut sequence = 0;
    let mut of_other = 0;
    for (number, actual) in kinds.into_iter().enumerate() {
        let text = format!("/{number}");
        let wanted = |kind| Op::Create(Create { kind, or_set: true, ..Create::new(path(&text), Bytes::new()) });
        for (kind, expected) in [(actual, "done")]
            .into_iter()
            .chain(kinds.map(|kind| (kind, if kind == actual { "done" } else { "other-kind" })))
        {
            sequence += 1;
            assert_eq!(
                code(&member.run(&write(one, sequence, sequence, wanted(kind)))),
                expected,
                "{actual:?} {kind:?}"
            );
        }
        of_other += 1;
        let expected = if actual.ephemeral { "other-kind" } else { "done" };
        assert_eq!(code(&member.run(&write(other, of_other, of_other, wanted(actual)))), expected, "{actual:?}");
    }
    // The root is a persistent znode.
    let root = |kind| Op::Create(Create { kind, or_set: true, ..Create::default() });
    assert_eq!(refused(&mut member, root(ttl(5))).code(), "other-kind");
    assert!(matches!(member.run(&once(1, 2_000, root(Kind::default()))), Ok(Value::Set { stat }) if stat.version == 1));
    assert_eq!(refused(&mut member, create("/")).code(), "znode-exists");
}

#[test]
fn neither_a_prune_of_nothing_nor_one_of_the_root_is_begun() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, create("/a")));
    let prune = |text: &str, limit| Op::Prune(Prune { path: path(text), limit });
    assert_eq!(refused(&mut member, prune("/a", 0)).code(), "bad-request");
    assert_eq!(refused(&mut member, prune("/", 0)).code(), "bad-request");
    assert_eq!(refused(&mut member, prune("/", 1)).code(), "bad-request");
    assert_eq!(refused(&mut member, delete("/", true)).code(), "bad-request");
    assert_eq!(refused(&mut member, prune("/none", 1)), Refusal::NoZnode { path: path("/none") });
    let pruned = member.run(&once(2, 2_000, prune("/a", u32::MAX)));
    assert_eq!(pruned, Ok(Value::Pruned { count: 1, more: false }));
}

#[test]
fn a_prune_takes_at_most_the_limits_number_whatever_is_asked_for() {
    let mut member = Member::new();
    let kind = Kind { sequential: true, ..Kind::default() };
    let child = Create { kind, parents: true, ..Create::new(path("/a/c"), Bytes::new()) };
    member.done(&once(1, 2_000, Op::Multi(vec![Step::Create(child); 2_500])));
    let counts: Vec<Outcome> = (2..5)
        .map(|number| member.run(&once(number, 2_000, Op::Prune(Prune { path: path("/a"), limit: u32::MAX }))))
        .collect();
    let pruned = |count, more| Ok(Value::Pruned { count, more });
    assert_eq!(counts, [pruned(1_000, true), pruned(1_000, true), pruned(501, false)]);
    assert_eq!(member.tables.count(Table::Znode), 1);
}

#[test]
fn numbers_that_are_none_and_sums_that_do_not_fit_are_refused() {
    let mut member = Member::new();
    let update = |edit| Op::Update(Update { path: path("/n"), edit, if_version: None, or_create: false });
    let mut number = 0;
    let mut become_ = |member: &mut Member, data: &[u8]| {
        number += 1;
        let create = Create { or_set: true, ..Create::new(path("/n"), data.to_vec()) };
        member.done(&once(number, 2_000, Op::Create(create)));
    };
    for bad in [&b"x"[..], b"1.0", b"0x10", b"9223372036854775808", b"- 1", b" ", b"\xff", b"1 2", b"1e3"] {
        become_(&mut member, bad);
        for edit in [Edit::Add(0), Edit::Min(0), Edit::Max(0)] {
            assert_eq!(refused(&mut member, update(edit)).code(), "bad-number", "{bad:?}");
        }
    }
    for (data, by) in [(i64::MAX, 1), (i64::MIN, -1), (i64::MAX, i64::MAX), (-2, i64::MIN)] {
        become_(&mut member, data.to_string().as_bytes());
        assert_eq!(refused(&mut member, update(Edit::Add(by))).code(), "bad-number");
    }
    become_(&mut member, i64::MIN.to_string().as_bytes());
    let outcome = member.run(&once(99, 2_000, update(Edit::Add(i64::MAX))));
    assert!(matches!(outcome, Ok(Value::Number { number: -1, .. })), "{outcome:?}");
    member.planner.set_limits(Limits { data_bytes: 3, ..Limits::default() });
    let long = update(Edit::Append(Bytes::from_static(b"12")));
    assert!(matches!(refused(&mut member, long), Refusal::Limit { limit: 3, actual: 4, .. }));
    assert!(matches!(refused(&mut member, update(Edit::Add(1_001))), Refusal::Limit { limit: 3, actual: 4, .. }));
}

#[test]
fn a_refusal_shows_short_texts_and_never_all_of_long_or_strange_data() {
    let mut member = Member::new();
    member.done(&once(1, 2_000, Op::Create(Create::new(path("/long"), vec![b'x'; 100_000]))));
    member.done(&once(2, 2_000, Op::Create(Create::new(path("/odd"), Bytes::from_static(b"\x00\xff")))));
    for (text, says) in [("/long", "100000 bytes"), ("/odd", "2 bytes")] {
        let condition = Condition::Data(Bytes::from_static(b"\"short\"\n"));
        let refusal = refused(&mut member, Op::Multi(vec![Step::Check(Check { path: path(text), condition })]));
        let said = refusal.to_string();
        assert!(said.contains(says) && said.contains(r#"\"short\"\n"#) && said.len() < 250, "{said}");
        let edit = Edit::Add(1);
        let update = Update { path: path(text), edit, if_version: None, or_create: false };
        let said = refused(&mut member, Op::Update(update)).to_string();
        assert!(said.len() < 200 && !said.contains('\0'), "{said}");
    }
}

#[test]
fn a_session_that_never_was_can_neither_be_ended_nor_asked_about() {
    let mut member = Member::new();
    let none = SessionId(77_777);
    assert_eq!(refused(&mut member, Op::End(none)), Refusal::SessionOver { session: none });
    assert_eq!(refused(&mut member, Op::Close).code(), "no-session");
    let owned = Query::Owned { session: none, after: None, limit: 1 };
    assert_eq!(query::answer(&member.tables, ALICE, &owned).unwrap(), Err(Refusal::SessionOver { session: none }));
}

#[test]
fn a_lowered_limit_takes_nothing_away_and_holds_for_what_comes() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    for (sequence, text) in (1..).zip(["/e1", "/e2", "/e3"]) {
        member.done(&write(session, sequence, sequence, ephemeral(text)));
    }
    member.done(&once(1, 2_000, Op::Create(Create::new(path("/long"), vec![1; 2_000]))));
    member.done(&once(2, 2_000, with_kind("/ttl", ttl(5_000))));
    let low = Limits { session_ephemerals: 2, data_bytes: 1_024, ttl_max_ms: 1_000, ..Limits::default() };
    member.planner.set_limits(low);
    assert_eq!(member.tables.count(Table::Znode), 6);
    let refused = member.run(&write(session, 4, 4, ephemeral("/e4")));
    assert!(matches!(refused, Err(Refusal::Limit { limit: 2, actual: 4, .. })), "{refused:?}");
    let read = query::answer(&member.tables, ALICE, &Query::Get { path: path("/long") }).unwrap().unwrap();
    assert!(matches!(read, Answer::Znode { data, .. } if data.len() == 2_000));
    assert_eq!(code(&member.run(&once(3, 2_000, set("/long", &[1; 1_025])))), "limit");
    assert_eq!(code(&member.run(&once(4, 2_000, set("/long", &[1; 1_024])))), "done");
    assert_eq!(code(&member.run(&once(5, 2_000, set("/ttl", b"x")))), "done");
    member.done(&write(session, 5, 5, Op::Close));
    assert_eq!(member.tables.count(Table::Owned), 0);
}
