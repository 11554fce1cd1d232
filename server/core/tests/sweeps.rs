//! What goes by itself: times to live, containers that were left; never early, never twice, in batches.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::Table;
use conclave_core::plan::{Verdict, Work};
use conclave_core::query;
use conclave_protocol::limits::{self, Limits};
use conclave_protocol::{Create, Kind, Op, Query, Step};

use support::{ALICE, Member, create, delete, once, own, path, set, write};

const CONTAINER: Kind = Kind { ephemeral: false, sequential: false, container: true, ttl_ms: None };

fn ttl(ttl_ms: u64) -> Kind {
    Kind { ttl_ms: Some(ttl_ms), ..Kind::default() }
}

fn with_kind(text: &str, kind: Kind) -> Op {
    Op::Create(Create { kind, parents: true, ..Create::new(path(text), Bytes::new()) })
}

/// Runs operations one after the other at this time.
fn at(member: &mut Member, now_ms: u64, ops: impl IntoIterator<Item = Op>) {
    member.now_ms = now_ms;
    for op in ops {
        // Remembered for long, so that no sweep has it to forget.
        let number = member.planner.last().0;
        member.done(&once(number, now_ms + limits::ONCE_AHEAD_MS, op));
    }
}

/// Sweeps at this time; false when nothing was due.
fn sweep(member: &mut Member, now_ms: u64) -> bool {
    member.now_ms = member.now_ms.max(now_ms);
    let verdict = member.plan(&own(Work::Sweep));
    member.settle();
    assert_eq!(member.tables.kept().digest, member.tables.digest().0);
    matches!(verdict, Verdict::Planned(_))
}

fn exists(member: &Member, text: &str) -> bool {
    query::answer(&member.tables, ALICE, &Query::Get { path: path(text) }).unwrap().is_ok()
}

#[test]
fn a_znode_with_a_time_to_live_goes_at_its_time_and_not_a_millisecond_before() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/a", ttl(5_000))]);
    assert!(!sweep(&mut member, 5_999));
    assert!(exists(&member, "/a"));
    assert!(sweep(&mut member, 6_000));
    assert!(!exists(&member, "/a"));
    assert_eq!(member.tables.count(Table::Expiry), 1, "of the one-shot write");
    assert!(!sweep(&mut member, 7_000));
}

#[test]
fn its_time_begins_again_with_data_and_children_and_not_with_an_access_list() {
    for (op, goes_ms) in [
        (set("/a", b"x"), 9_000),
        (set("/a", b""), 9_000),
        (create("/a/b"), 14_000),
        (support::set_acl("/a", "anyone:crwda alice:r"), 6_000),
    ] {
        let mut member = Member::new();
        at(&mut member, 1_000, [with_kind("/a", ttl(5_000))]);
        let below = matches!(op, Op::Create(_));
        at(&mut member, 4_000, [op.clone()]);
        if below {
            at(&mut member, 9_000, [delete("/a/b", false)]);
        }
        for now_ms in [6_000, goes_ms - 1].into_iter().filter(|now_ms| *now_ms < goes_ms) {
            sweep(&mut member, now_ms);
            assert!(exists(&member, "/a"), "{op:?} at {now_ms}");
        }
        assert!(sweep(&mut member, goes_ms));
        assert!(!exists(&member, "/a"), "{op:?}");
    }
}

#[test]
fn children_keep_a_znode_however_old_and_cost_one_look() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/a", ttl(1)), create("/a/b")]);
    assert!(sweep(&mut member, 2_000), "it is looked at, and let be");
    for now_ms in [3_000, 30_000, 60_000] {
        assert!(!sweep(&mut member, now_ms), "no sweep is planned for it any more: the log does not grow of itself");
    }
    at(&mut member, 60_000, [delete("/a/b", false)]);
    assert!(exists(&member, "/a"));
    assert!(sweep(&mut member, 60_001));
    assert!(!exists(&member, "/a"));
}

#[test]
fn an_ephemeral_znode_with_a_time_to_live_goes_at_the_earlier_end() {
    let mut member = Member::new();
    let session = member.open(ALICE);
    let kind = Kind { ephemeral: true, ..ttl(5_000) };
    member.done(&write(session, 1, 1, with_kind("/a", kind)));
    member.done(&write(session, 2, 2, with_kind("/b", Kind { ephemeral: true, ..ttl(90_000) })));
    assert!(sweep(&mut member, 6_000));
    let row = query::session(&member.tables, session).unwrap().unwrap();
    assert_eq!((exists(&member, "/a"), row.owned, member.tables.count(Table::Owned)), (false, 1, 1));
    member.planned(&own(Work::Expire { session }));
    member.settle();
    assert!(!exists(&member, "/b"));
    assert_eq!(member.tables.count(Table::Expiry), 0, "nothing is left that would be looked at in vain");
}

#[test]
fn a_container_stays_until_it_had_a_child_and_the_grace_after_its_last_one() {
    let mut member = Member::new();
    let grace_ms = limits::CONTAINER_GRACE_MS;
    at(&mut member, 1_000, [with_kind("/c", CONTAINER)]);
    assert!(!sweep(&mut member, 50_000), "it had no child");
    at(&mut member, 50_000, [create("/c/a"), create("/c/b"), delete("/c/a", false)]);
    assert!(!sweep(&mut member, 52_000), "it has one");
    at(&mut member, 52_000, [delete("/c/b", false)]);
    assert!(!sweep(&mut member, 52_000 + grace_ms - 1));
    assert!(sweep(&mut member, 52_000 + grace_ms));
    assert!(!exists(&member, "/c"));
}

#[test]
fn a_container_that_gets_another_child_within_the_grace_stays() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/c", CONTAINER), create("/c/a"), delete("/c/a", false)]);
    at(&mut member, 1_500, [create("/c/b")]);
    assert!(sweep(&mut member, 2_000), "it is looked at");
    assert!(exists(&member, "/c/b"));
    assert!(!sweep(&mut member, 9_000));
    // It comes and goes within the grace: the grace begins again.
    at(&mut member, 10_000, [delete("/c/b", false), create("/c/d")]);
    at(&mut member, 10_900, [delete("/c/d", false)]);
    sweep(&mut member, 11_899);
    assert!(exists(&member, "/c"));
    assert!(sweep(&mut member, 11_900));
    assert!(!exists(&member, "/c"));
}

#[test]
fn containers_in_containers_go_one_after_the_other_each_after_its_grace() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/c", CONTAINER), with_kind("/c/d", CONTAINER), create("/c/d/e")]);
    at(&mut member, 1_000, [delete("/c/d/e", false)]);
    assert!(sweep(&mut member, 2_000));
    assert_eq!((exists(&member, "/c"), exists(&member, "/c/d")), (true, false));
    assert!(!sweep(&mut member, 2_999));
    assert!(sweep(&mut member, 3_000));
    assert!(!exists(&member, "/c"));
}

#[test]
fn without_a_grace_a_left_container_goes_with_the_next_sweep_and_sweeps_come_to_an_end() {
    let mut member = Member::new();
    member.planner.set_limits(Limits { container_grace_ms: 0, ..Limits::default() });
    at(&mut member, 1_000, [with_kind("/c", CONTAINER), with_kind("/c/d", CONTAINER), with_kind("/c/d/e", ttl(1))]);
    assert!(exists(&member, "/c/d"), "never while it has a child");
    let sweeps = (0..9).take_while(|_| sweep(&mut member, 1_001)).count();
    assert!((1..=3).contains(&sweeps), "{sweeps}");
    assert!(!exists(&member, "/c"));
}

#[test]
fn a_container_whose_last_child_goes_with_its_session_goes_too() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/c", CONTAINER)]);
    let session = member.open(ALICE);
    member.done(&write(session, 1, 1, support::ephemeral("/c/e")));
    member.planned(&own(Work::Expire { session }));
    member.settle();
    assert!(sweep(&mut member, 2_000));
    assert!(!exists(&member, "/c"));
}

#[test]
fn a_container_with_a_time_to_live_goes_at_whichever_comes_first() {
    let mut member = Member::new();
    let kind = |ttl_ms| Kind { container: true, ..ttl(ttl_ms) };
    at(&mut member, 1_000, [with_kind("/a", kind(10)), with_kind("/b", kind(50_000)), with_kind("/c", kind(400))]);
    at(&mut member, 1_000, ["/b/x", "/c/x"].map(create));
    at(&mut member, 1_100, ["/b/x", "/c/x"].map(|text| delete(text, false)));
    for (now_ms, there) in [(1_100, "bc"), (1_499, "bc"), (1_500, "b"), (2_099, "b"), (2_100, "")] {
        sweep(&mut member, now_ms);
        let left: String = "abc".chars().filter(|name| exists(&member, &format!("/{name}"))).collect();
        assert_eq!(left, there, "at {now_ms}");
    }
}

#[test]
fn a_change_of_the_grace_holds_for_those_that_were_left_before_it_too_and_none_goes_early() {
    for (grace_ms, goes_ms) in [(5_000, 6_000), (0, 2_000)] {
        let mut member = Member::new();
        at(&mut member, 1_000, [with_kind("/c", CONTAINER), create("/c/a"), delete("/c/a", false)]);
        member.planner.set_limits(Limits { container_grace_ms: grace_ms, ..Limits::default() });
        sweep(&mut member, goes_ms - 1);
        assert!(exists(&member, "/c"), "{grace_ms}");
        assert!(sweep(&mut member, goes_ms), "looked at when it would have been, or later");
        assert!(!exists(&member, "/c"), "{grace_ms}");
    }
}

#[test]
fn a_sweep_takes_a_batch_and_the_oldest_first() {
    let mut member = Member::new();
    let step = |kind| {
        Step::Create(Create {
            kind: Kind { sequential: true, ..kind },
            ..Create::new(path("/s"), Bytes::from_static(b"x"))
        })
    };
    at(&mut member, 1_000, [Op::Multi(vec![step(ttl(20)); 800]), Op::Multi(vec![step(ttl(10)); 400])]);
    let mut left = Vec::new();
    while left.len() < 9 && sweep(&mut member, 1_020) {
        left.push(member.tables.count(Table::Data));
    }
    assert_eq!(left, [700, 200, 0]);
    let first = query::answer(&member.tables, ALICE, &Query::Exists { path: path("/s0000000000") });
    assert_eq!(first.unwrap().unwrap(), conclave_protocol::Answer::Exists(None));
    assert_eq!((member.tables.count(Table::Znode), query::state(&member.tables).unwrap().znodes), (1, 1));
}

#[test]
fn a_sweep_of_the_longest_paths_fits_an_entry() {
    let mut member = Member::new();
    let below = format!("/{}", "n".repeat(255)).repeat(limits::DEPTH - 2);
    let count = 300;
    for number in 0..count {
        let parent = format!("{below}/{number:0255}");
        let child = with_kind(&format!("{parent}/{number:0255}"), ttl(10));
        for op in [with_kind(&parent, CONTAINER), child] {
            let number = member.planner.last().0;
            member.planned(&once(number, 1_000 + limits::ONCE_AHEAD_MS, op));
        }
    }
    member.settle();
    member.now_ms = 1_010;
    let mut sweeps = 0;
    while sweeps < 20 && member.plan(&own(Work::Sweep)) != Verdict::Dropped {
        member.cut();
        let bytes = member.cuts[0].payload.len();
        assert!(bytes < limits::TRANSACTION_BYTES, "{bytes}");
        member.settle();
        sweeps += 1;
    }
    assert!(sweeps > 1 && sweeps < 20, "{sweeps}");
    assert!(sweep(&mut member, 2_010), "the containers, after their grace");
    assert!(query::state(&member.tables).unwrap().znodes < count + limits::DEPTH as u64);
}

#[test]
fn a_new_leader_times_nothing_anew() {
    let mut member = Member::new();
    at(&mut member, 1_000, [with_kind("/a", ttl(5_000)), with_kind("/c", CONTAINER), create("/c/x")]);
    at(&mut member, 3_000, [delete("/c/x", false)]);
    member.reset();
    assert!(!sweep(&mut member, 3_999));
    assert!(sweep(&mut member, 4_000));
    member.reset();
    assert_eq!((exists(&member, "/a"), exists(&member, "/c")), (true, false));
    assert!(sweep(&mut member, 6_000));
    assert!(!exists(&member, "/a"));
}

#[test]
fn expiry_is_told_as_a_deletion_to_whoever_may_read() {
    let mut member = Member::new();
    at(&mut member, 1_000, [create("/p"), with_kind("/p/a", ttl(10))]);
    at(&mut member, 1_000, [support::set_acl("/p/a", "alice:crwda"), support::set_acl("/p", "bob:r alice:crwda")]);
    member.now_ms = 1_010;
    member.planned(&own(Work::Sweep));
    member.cut();
    let entry = member.apply_one().unwrap();
    let [recorded] = &entry.transactions[0].changes[..] else { panic!("{:?}", entry.transactions) };
    assert_eq!(recorded.change.path, path("/p/a"));
    let sees = |who: &str| conclave_core::may_see(&member.tables, who, recorded).unwrap();
    assert!(sees(ALICE) && sees(support::BOB) && !sees(support::CAROL), "by its own list, or its parent's");
}
