//! Access lists: what each operation needs of which znode, for every step, and what nobody learns without.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::plan::{Growth, Request};
use conclave_core::query::{self, Walk};
use conclave_core::{Table, administers};
use conclave_protocol::{
    Answer, Check, Condition, Create, Delete, Detail, Edit, Op, Outcome, Path, Prune, Query, Refusal, Set, SetAcl,
    Step, Update, Value, Zxid,
};

use support::{ALICE, BOB, CAROL, Member, acl, by, code, create, delete, ephemeral, once, path, set, set_acl, write};

/// Runs an operation of this principal.
fn run(member: &mut Member, who: &str, op: Op) -> Outcome {
    let (number, until_ms) = (100_000 + member.planner.last().0, member.now_ms + 1_000);
    member.run(&by(who, once(number, until_ms, op)))
}

/// With `/p` (its list: alice everything, bob these letters) and `/p/c` below it (the same for bob with those letters).
fn member(parent: &str, child: &str) -> Member {
    let mut member = Member::new();
    for (text, bobs) in [("/p", parent), ("/p/c", child)] {
        let list = Some(acl(&format!("alice:crwda bob:{bobs}")));
        let create = Create { acl: list, ..Create::new(path(text), Bytes::from_static(b"1")) };
        run(&mut member, ALICE, Op::Create(create)).unwrap();
    }
    member
}

fn update(text: &str, edit: Edit) -> Op {
    Op::Update(Update { path: path(text), edit, if_version: None, or_create: false })
}

fn step(op: Op) -> Step {
    match op {
        Op::Create(create) => Step::Create(create),
        Op::Set(set) => Step::Set(set),
        Op::Delete(delete) => Step::Delete(delete),
        Op::Update(update) => Step::Update(update),
        Op::Acl(set) => Step::Acl(set),
        other => panic!("{other:?}"),
    }
}

/// Operations of bob, with the letters that they need on `/p` and on `/p/c`, and where it is said that he may not.
fn needs() -> Vec<(Op, &'static str, &'static str, &'static str)> {
    let or_set = Create { or_set: true, ..Create::new(path("/p/c"), Bytes::new()) };
    let or_create = |text: &str| Update { path: path(text), edit: Edit::Add(1), if_version: None, or_create: true };
    vec![
        (create("/p/new"), "c", "", "/p"),
        (create("/p/c/new"), "", "c", "/p/c"),
        (Op::Create(Create { parents: true, ..Create::new(path("/p/x/y/z"), Bytes::new()) }), "c", "", "/p/x/y"),
        (Op::Create(or_set), "", "w", "/p/c"),
        (set("/p/c", b"x"), "", "w", "/p/c"),
        (delete("/p/c", false), "d", "", "/p"),
        (delete("/p/c", true), "d", "", "/p"),
        (update("/p/c", Edit::Add(1)), "", "rw", "/p/c"),
        (update("/p/c", Edit::Swap { expected: Bytes::from_static(b"1"), data: Bytes::new() }), "", "rw", "/p/c"),
        (Op::Update(or_create("/p/c")), "", "rw", "/p/c"),
        (Op::Update(or_create("/p/new")), "c", "", "/p"),
        (set_acl("/p/c", "bob:a"), "", "a", "/p/c"),
    ]
}

#[test]
fn each_operation_needs_its_permission_and_no_other() {
    const ALL: &str = "crwda";
    for (op, parent, child, at) in needs() {
        let mut enough = member(parent, child);
        assert_eq!(code(&run(&mut enough, BOB, op.clone())), "done", "{op:?}");
        let without = |letters: &str, one: char| letters.chars().filter(|letter| *letter != one).collect::<String>();
        let mut less = Vec::new();
        less.extend(parent.chars().map(|one| (without(ALL, one), ALL.to_owned())));
        less.extend(child.chars().map(|one| (ALL.to_owned(), without(ALL, one))));
        for (parent, child) in less {
            let mut member = member(&parent, &child);
            let before = member.tables.count(Table::Znode);
            let refused = run(&mut member, BOB, op.clone()).unwrap_err();
            let Refusal::NotAllowed { principal, path, .. } = &refused else { panic!("{op:?}: {refused:?}") };
            assert_eq!((principal.as_str(), path.as_str()), (BOB, at), "{op:?}");
            assert_eq!(member.tables.count(Table::Znode), before);
            // Whoever may everything may this.
            assert_eq!(code(&run(&mut member, ALICE, op.clone())), "done", "{op:?}");
        }
    }
}

#[test]
fn a_refusal_says_who_may_not_do_what_and_where() {
    let mut member = member("", "");
    for (op, says) in [
        (create("/p/new"), "create children of /p"),
        (delete("/p/c", false), "delete children of /p"),
        (set("/p/c", b""), "write /p/c"),
        (set_acl("/p/c", "bob:a"), "administer /p/c"),
    ] {
        let refused = run(&mut member, BOB, op).unwrap_err();
        assert_eq!(refused.to_string(), format!("{BOB} may not {says}"));
    }
}

#[test]
fn every_step_of_a_multi_is_checked_and_not_the_first_alone() {
    for (op, ..) in needs() {
        for place in 0..3 {
            let mut member = member("", "");
            let own = |number: usize| Step::Create(Create::new(path(&format!("/bobs-{number}")), Bytes::new()));
            let mut steps: Vec<Step> = (0..3).map(own).collect();
            steps.insert(place, step(op.clone()));
            let refused = run(&mut member, BOB, Op::Multi(steps)).unwrap_err();
            assert_eq!(refused.code(), "not-allowed", "{op:?} at {place}");
            assert!(matches!(refused, Refusal::Step { step, .. } if step as usize == place));
            assert_eq!(member.tables.count(Table::Znode), 3, "nothing of it is left");
        }
    }
}

#[test]
fn a_multi_may_use_what_it_was_given_by_its_own_steps() {
    let mut member = member("", "a");
    let may = Step::Acl(SetAcl { path: path("/p/c"), acl: acl("bob:wa"), if_acl_version: None });
    let set = Step::Set(Set { path: path("/p/c"), ..Set::default() });
    let refused = run(&mut member, BOB, Op::Multi(vec![set.clone(), may.clone()])).unwrap_err();
    assert!(matches!(refused, Refusal::Step { step: 0, .. }));
    assert_eq!(code(&run(&mut member, BOB, Op::Multi(vec![may, set]))), "done");
    let locked = Step::Acl(SetAcl { path: path("/p/c"), acl: acl("alice:crwda"), if_acl_version: None });
    let again = Step::Set(Set { path: path("/p/c"), ..Set::default() });
    let refused = run(&mut member, BOB, Op::Multi(vec![locked, again])).unwrap_err();
    assert!(matches!(refused, Refusal::Step { step: 1, .. }), "and loses what it gave away");
}

#[test]
fn a_subtree_is_deleted_only_by_whoever_may_delete_below_each_znode_that_has_children() {
    let build = |list: &str| {
        let mut member = member("d", "");
        for text in ["/p/c/x", "/p/c/x/leaf"] {
            run(&mut member, ALICE, create(text)).unwrap();
        }
        run(&mut member, ALICE, set_acl("/p/c", list)).unwrap();
        member
    };
    let prune = Op::Prune(Prune { path: path("/p/c"), limit: 1 });
    for op in [delete("/p/c", true), prune] {
        let refused = run(&mut build("alice:crwda"), BOB, op.clone()).unwrap_err();
        assert!(matches!(&refused, Refusal::NotAllowed { path, .. } if path.as_str() == "/p/c"), "{refused:?}");
        let refused = run(&mut build("alice:crwda bob:d"), BOB, op.clone()).unwrap_err();
        assert!(matches!(&refused, Refusal::NotAllowed { path, .. } if path.as_str() == "/p/c/x"), "{refused:?}");
        let mut member = build("alice:crwda bob:d");
        run(&mut member, ALICE, set_acl("/p/c/x", "alice:a bob:d")).unwrap();
        run(&mut member, ALICE, set_acl("/p/c/x/leaf", "alice:a")).unwrap();
        assert_eq!(code(&run(&mut member, BOB, op)), "done", "the leaf's own list does not matter");
    }
}

fn ask(member: &Member, who: &str, query: &Query) -> Result<Answer, &'static str> {
    query::answer(&member.tables, who, query).unwrap().map_err(|refusal| refusal.code())
}

#[test]
fn reads_need_the_right_to_read_of_the_znode_alone() {
    let mut member = member("", "r");
    run(&mut member, ALICE, create("/p/c/x")).unwrap();
    run(&mut member, ALICE, set_acl("/p/c/x", "alice:crwda")).unwrap();
    let get = |text: &str| Query::Get { path: path(text) };
    assert!(
        ask(&member, BOB, &get("/p/c")).is_ok(),
        "whoever may read a znode need not be allowed to read those above"
    );
    for text in ["/p", "/p/c/x", "/p/none", "/p/none/deeper", "/p/c/x/none"] {
        let path = path(text);
        let queries = [
            Query::Get { path: path.clone() },
            Query::Exists { path: path.clone() },
            Query::Count { path: path.clone() },
            Query::Acl { path: path.clone() },
            Query::Many { paths: vec![Path::root(), path.clone()] },
            Query::Children { path: path.clone(), prefix: String::new(), after: None, limit: 9, detail: Detail::Names },
        ];
        for query in queries {
            assert_eq!(ask(&member, BOB, &query), Err("not-allowed"), "{query:?}");
            assert_ne!(ask(&member, ALICE, &query), Err("not-allowed"), "{query:?}");
        }
        let walk = Walk::new(&member.tables, BOB, &path, true).unwrap().map(|_| ());
        assert_eq!(walk.unwrap_err().code(), "not-allowed");
        assert_eq!(query::present(&member.tables, BOB, &path).unwrap(), None);
    }
    assert_eq!(ask(&member, BOB, &get("/p/c/none")), Err("no-znode"), "below what he may read he is told");
}

#[test]
fn a_listing_names_children_that_may_not_be_read_and_tells_no_more_of_them() {
    let mut member = member("r", "r");
    run(&mut member, ALICE, create("/p/hidden")).unwrap();
    run(&mut member, ALICE, set_acl("/p/hidden", "alice:crwda")).unwrap();
    run(&mut member, ALICE, create("/p/hidden/below")).unwrap();
    let (prefix, after) = (String::new(), None);
    let query = Query::Children { path: path("/p"), prefix, after, limit: 9, detail: Detail::Data };
    let Ok(Answer::Page(page)) = ask(&member, BOB, &query) else { panic!("a page") };
    let told: Vec<_> =
        page.children.iter().map(|one| (one.name.as_str(), one.stat.is_some(), one.data.is_some())).collect();
    assert_eq!(told, [("c", true, true), ("hidden", false, false)]);
    assert_eq!(ask(&member, BOB, &Query::Count { path: path("/p") }), Ok(Answer::Count(1)));
    assert_eq!(ask(&member, ALICE, &Query::Count { path: path("/p") }), Ok(Answer::Count(3)));
    let mut walk = Walk::new(&member.tables, BOB, &path("/p"), false).unwrap().unwrap();
    let walked = walk.next(&member.tables, 9, 9).unwrap();
    assert_eq!(walked.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["/p", "/p/c"]);
}

#[test]
fn who_may_not_look_learns_nothing_from_writes_either() {
    // The same refusal, whether there is such a znode or not, of this version or data or not.
    let mut member = member("", "");
    let twice = |text: &str| -> Vec<Op> {
        let (path, zero) = (path(text), Some(0));
        let check = |condition| Op::Multi(vec![Step::Check(Check { path: path.clone(), condition })]);
        let update =
            |edit, if_version, or_create| Op::Update(Update { path: path.clone(), edit, if_version, or_create });
        let swap = || Edit::Swap { expected: Bytes::from_static(b"guess"), data: Bytes::new() };
        vec![
            create(text),
            create(&format!("{text}/below")),
            set(text, b"x"),
            Op::Set(Set { path: path.clone(), data: Bytes::new(), if_version: Some(7) }),
            delete(text, false),
            Op::Delete(Delete { path: path.clone(), if_version: Some(7), recursive: true }),
            Op::Prune(Prune { path: path.clone(), limit: 1 }),
            update(Edit::Add(1), None, false),
            update(Edit::Add(1), zero, true),
            update(swap(), None, false),
            update(swap(), zero, true),
            Op::Acl(SetAcl { path: path.clone(), acl: acl("bob:a"), if_acl_version: Some(7) }),
            check(Condition::Exists),
            check(Condition::Absent),
            check(Condition::Version(0)),
            check(Condition::Children { least: 0, most: 9 }),
            check(Condition::Data(Bytes::from_static(b"1"))),
        ]
    };
    for op in twice("/p/c").into_iter().chain(twice("/p/none")) {
        assert_eq!(code(&run(&mut member, BOB, op.clone())), "not-allowed", "{op:?}");
    }
    let swap = Edit::Swap { expected: Bytes::from_static(b"guess"), data: Bytes::new() };
    let or_create = Update { path: path("/p/none"), edit: swap, if_version: None, or_create: true };
    assert_eq!(code(&run(&mut member, BOB, Op::Update(or_create))), "not-allowed");
}

#[test]
fn whoever_may_write_and_not_read_cannot_read_by_updates() {
    let mut member = member("", "w");
    run(&mut member, BOB, set("/p/c", b"41")).unwrap();
    let swap = Edit::Swap { expected: Bytes::from_static(b"guess"), data: Bytes::new() };
    for edit in [Edit::Add(0), Edit::Min(i64::MAX), Edit::Max(i64::MIN), swap] {
        let refused = run(&mut member, BOB, update("/p/c", edit.clone())).unwrap_err();
        assert_eq!(refused.code(), "not-allowed", "{edit:?}");
        assert!(!refused.to_string().contains("41"));
    }
}

#[test]
fn a_fence_holds_without_the_right_to_read_and_tells_only_a_zxid() {
    let mut member = member("", "");
    let Ok(Answer::Exists(Some(stat))) = ask(&member, ALICE, &Query::Exists { path: path("/p/c") }) else { panic!() };
    let check = |zxid| Op::Multi(vec![Step::Check(Check { path: path("/p/c"), condition: Condition::Created(zxid) })]);
    assert_eq!(run(&mut member, BOB, check(stat.created)), Ok(Value::Multi(vec![Value::Checked])));
    assert_eq!(code(&run(&mut member, BOB, check(Zxid(1)))), "fenced");
    let request = |zxid, number| -> Request {
        support::fenced(by(BOB, once(number, 2_000, create(&format!("/of-{number}")))), "/p/c", zxid)
    };
    assert_eq!(code(&member.run(&request(stat.created, 1))), "done");
    assert_eq!(code(&member.run(&request(Zxid(1), 2))), "fenced");
}

#[test]
fn a_new_znode_has_a_copy_of_its_parents_list_or_its_own_with_the_parents_made_for_it() {
    let mut member = Member::new();
    run(&mut member, ALICE, set_acl("/", "alice:crwda bob:c")).unwrap();
    run(&mut member, BOB, create("/a")).unwrap();
    let own = Create { acl: Some(acl("bob:crwda")), parents: true, ..Create::new(path("/x/y/z"), Bytes::new()) };
    run(&mut member, BOB, Op::Create(own)).unwrap();
    run(&mut member, ALICE, set_acl("/", "alice:crwda")).unwrap();
    let list = |text: &str| match query::answer(&member.tables, "", &Query::Acl { path: path(text) }).unwrap() {
        Ok(Answer::Acl { acl, .. }) => acl,
        other => panic!("{other:?}"),
    };
    assert_eq!(list("/"), acl("alice:crwda"));
    assert_eq!(list("/a"), acl("alice:crwda bob:c"), "a copy: what changes above later does not change it");
    for text in ["/x", "/x/y", "/x/y/z"] {
        assert_eq!(list(text), acl("bob:crwda"), "{text}");
    }
    assert_eq!(member.tables.count(Table::Acl), 3, "each list once");
}

#[test]
fn a_list_is_kept_in_its_normal_form_and_may_be_read_by_whoever_administers() {
    let mut member = member("", "a");
    run(&mut member, ALICE, set_acl("/p/c", "carol:r anyone: bob:a carol:w bob:a")).unwrap();
    let query = Query::Acl { path: path("/p/c") };
    let expected = acl("bob:a carol:rw");
    for who in [BOB, CAROL] {
        assert!(
            matches!(ask(&member, who, &query), Ok(Answer::Acl { acl, stat }) if acl == expected && stat.acl_version == 1)
        );
    }
    assert_eq!(ask(&member, ALICE, &query), Err("not-allowed"), "she gave it away");
    assert_eq!(ask(&member, BOB, &Query::Get { path: path("/p/c") }), Err("not-allowed"));
    let versioned = |version| Op::Acl(SetAcl { path: path("/p/c"), acl: acl("bob:a"), if_acl_version: Some(version) });
    let refused = run(&mut member, BOB, versioned(0));
    assert!(matches!(refused, Err(Refusal::BadAclVersion { actual: 1, expected: 0, .. })));
    assert!(
        matches!(run(&mut member, BOB, versioned(1)), Ok(Value::Acl { stat }) if (stat.acl_version, stat.version) == (2, 0))
    );
}

#[test]
fn sessions_are_ended_and_seen_by_their_own_principal_and_by_administrators() {
    let mut member = Member::new();
    let (alices, bobs, third) = (member.open(ALICE), member.open(BOB), member.open(ALICE));
    member.done(&by(BOB, write(bobs, 1, 1, ephemeral("/e"))));
    // The root's list says who administers: here everybody, then carol alone.
    assert!(administers(&member.tables, BOB).unwrap());
    run(&mut member, ALICE, set_acl("/", "anyone:crwd carol:a")).unwrap();
    assert!(!administers(&member.tables, BOB).unwrap() && administers(&member.tables, CAROL).unwrap());
    assert!(administers(&member.tables, "").unwrap());
    let sessions = |member: &Member, who: &str| match ask(member, who, &Query::Sessions { after: None, limit: 9 }) {
        Ok(Answer::Sessions { sessions, more: false }) => sessions.iter().map(|one| one.session).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sessions(&member, ALICE), [alices, third]);
    assert_eq!(sessions(&member, BOB), [bobs]);
    assert_eq!(sessions(&member, CAROL), [alices, bobs, third]);
    let owned = Query::Owned { session: bobs, after: None, limit: 9 };
    assert_eq!(ask(&member, ALICE, &owned), Err("not-allowed"));
    for who in [BOB, CAROL] {
        assert_eq!(ask(&member, who, &owned), Ok(Answer::Owned { paths: vec![path("/e")], next: None }));
    }
    assert_eq!(code(&run(&mut member, ALICE, Op::End(bobs))), "not-allowed");
    assert_eq!(member.tables.count(Table::Owned), 1);
    assert_eq!(run(&mut member, ALICE, Op::End(alices)), Ok(Value::Ended));
    assert_eq!(run(&mut member, CAROL, Op::End(bobs)), Ok(Value::Ended));
    assert_eq!((member.tables.count(Table::Owned), sessions(&member, CAROL)), (0, vec![third]));
    // By itself, too: it is over, and the answer is lost with it.
    member.done(&write(third, 1, 1, Op::End(third)));
    assert_eq!(code(&run(&mut member, CAROL, Op::End(third))), "session-over");
}

#[test]
fn an_ephemeral_znode_goes_with_its_session_whatever_the_lists_say() {
    let mut member = member("crd", "");
    let session = member.open(BOB);
    let locked = Create { acl: Some(acl("alice:crwda")), ..Create::new(path("/p/e"), Bytes::new()) };
    let kind = conclave_protocol::Kind { ephemeral: true, ..Default::default() };
    member.done(&by(BOB, write(session, 1, 1, Op::Create(Create { kind, ..locked }))));
    run(&mut member, ALICE, set_acl("/p", "alice:crwda")).unwrap();
    member.planned(&support::own(conclave_core::plan::Work::Expire { session }));
    member.settle();
    assert_eq!((member.tables.count(Table::Owned), member.tables.count(Table::Znode)), (0, 3));
}

#[test]
fn on_a_full_disk_a_list_that_is_known_may_be_set_and_a_new_one_may_not() {
    let mut member = member("", "");
    member.planner.set_growth(Growth::Refused { free_bytes: 1, least_bytes: 2 });
    assert_eq!(code(&run(&mut member, ALICE, set_acl("/p", "alice:crwda carol:r"))), "disk-full");
    assert_eq!(member.tables.count(Table::Acl), 1);
    assert_eq!(code(&run(&mut member, ALICE, set_acl("/p", "alice:crwda"))), "done", "as bob's was empty");
    assert_eq!(code(&run(&mut member, ALICE, set_acl("/p", "anyone:crwda"))), "done");
}
