//! Parked calls: who is woken when, what they are told, and how they end.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use conclave_core::entry::Origin;
use conclave_core::plan::{Asked, Request, Verdict, Work};
use conclave_core::plugin::{Ended, Park, Reason, Run, Test, Wake, Wanted, What};
use conclave_core::query;
use conclave_core::view::{Stop, Tx};
use conclave_core::{Table, row};
use conclave_protocol::plugin::{Action, Manage};
use conclave_protocol::{Create, Delete, Kind, Op, Outcome, Query, Refusal, SessionId, Value, Zxid, codec, limits};

use support::scripts::{self, Scripts, built_in, done, failed, park, procedures};
use support::{Member, code, create, delete, once, own, path, set};

/// A mutex: the holder is an ephemeral znode; who can't create it waits until it is gone. What it takes it gives back.
fn lock(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::Procedure { resumed, .. } = &run.what else { panic!() };
    if let Some(resumed) = resumed {
        match resumed.reason {
            Reason::Change => {}
            Reason::Cancel if resumed.done.is_some() => {
                let delete = Delete { path: path("/lock/holder"), if_version: None, recursive: false };
                return tx
                    .delete(&delete)
                    .map(|_| Ended::Done(Bytes::new()))
                    .map_err(|_| scripts::refused(run, "gone"));
            }
            Reason::Cancel | Reason::SessionEnd => return done(""),
            Reason::Deadline => return Err(scripts::refused(run, "too late")),
        }
    }
    let kind = Kind { ephemeral: true, ..Kind::default() };
    match tx.create(&Create { kind, ..Create::new(path("/lock/holder"), "") }) {
        Ok((_, stat)) => done(stat.created.0.to_string()),
        Err(Stop::Refused(Refusal::ZnodeExists { .. })) => {
            let any_of = vec![Wanted { path: path("/lock/holder"), test: Test::Absent }];
            Ok(Ended::Park(Park {
                any_of,
                wake: Wake::One,
                until_ms: Some(tx.now_ms() + 5_000),
                state: "waits".into(),
            }))
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// What these tests call, by the procedure's name.
fn script(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::Procedure { name, resumed, .. } = &run.what else { panic!() };
    let again = resumed.is_some();
    match name.as_str() {
        "lock" => lock(tx, run),
        "gate" if again => done("through"),
        "gate" => park("/gate", Test::Exists, Wake::All),
        "full" if again => done("full"),
        "full" => park("/room", Test::ChildrenAtLeast(2), Wake::All),
        "few" if again => done("few"),
        "few" => park("/room", Test::ChildrenAtMost(1), Wake::One),
        "newer" if again => done("newer"),
        "newer" => park("/room", Test::VersionAbove(0), Wake::All),
        "far" | "near" if again => done(name.clone()),
        "far" => park("/room", Test::ChildrenAtLeast(2), Wake::One),
        "near" => park("/room", Test::ChildrenAtLeast(1), Wake::One),
        // What holds already, for ever.
        "loop" => park("/", Test::Exists, Wake::One),
        "trap" if again => Err(failed(run, "trap")),
        "trap" => {
            scripts::make(tx, "/trap", "")?;
            park("/gate", Test::Exists, Wake::One)
        }
        "secret" => park("/never", Test::Absent, Wake::One),
        "stubborn" => park("/never", Test::Exists, Wake::One),
        "none" => Ok(Ended::Park(Park { any_of: vec![], wake: Wake::One, until_ms: None, state: Bytes::new() })),
        other => panic!("{other}"),
    }
}

const ALL: [&str; 12] =
    ["secret", "lock", "gate", "full", "few", "newer", "far", "near", "loop", "trap", "stubborn", "none"];

struct Cluster {
    member: Member,
    scripts: Arc<Scripts>,
    sessions: Vec<(SessionId, u64)>,
}

impl Cluster {
    fn new(sessions: usize) -> Self {
        let scripts = scripts::shared(Scripts::default().with(1, procedures(&ALL, true), script).with(
            2,
            procedures(&["gate"], false),
            script,
        ));
        let mut member = Member::with_plugins(vec![built_in("p", 1), built_in("flat", 2)], &scripts);
        member.done(&once(1, 2_000, create("/lock")));
        member.done(&once(2, 2_000, create("/room")));
        let sessions = (0..sessions).map(|_| (member.open(support::ALICE), 1)).collect();
        Self { member, scripts, sessions }
    }

    /// The next request of a session.
    fn next(&mut self, who: usize, op: Op) -> Outcome {
        let (session, sequence) = self.sessions[who];
        self.sessions[who].1 += 1;
        self.member.run(&support::write(session, sequence, sequence, op))
    }

    fn call(&mut self, who: usize, procedure: &str) -> Outcome {
        self.next(who, Op::Call(support::call("p", procedure)))
    }

    /// Runs everything that was woken: whose calls have ended how, in order.
    fn wake(&mut self) -> Vec<(usize, Result<String, &'static str>)> {
        let mut ended = Vec::new();
        while let Verdict::Planned(_) = self.member.plan(&own(Work::Wake)) {
            self.member.cut();
            let entry = self.member.apply_one().unwrap();
            for transaction in entry.transactions {
                let Origin::Completion { session, .. } = transaction.origin else { continue };
                let who = self.sessions.iter().position(|(id, _)| *id == session).unwrap();
                ended.push((who, result(&codec::decode(&transaction.outcome).unwrap())));
            }
            self.member.planner.rebase(self.member.tables.snapshot()).unwrap();
        }
        ended
    }

    /// Nothing is left of any call.
    fn is_clean(&self) {
        for table in [Table::Waiting, Table::Wake, Table::Calls] {
            assert_eq!(self.member.tables.count(table), 0, "{table:?}");
        }
        assert_eq!(query::state(&self.member.tables).unwrap().parked, 0);
        for (session, _) in &self.sessions {
            if let Some(row) = query::session(&self.member.tables, *session).unwrap() {
                assert_eq!(row.parked, 0);
            }
        }
        assert_eq!(self.member.tables.kept().digest, self.member.tables.digest().0);
    }
}

fn result(outcome: &Outcome) -> Result<String, &'static str> {
    match outcome {
        Ok(Value::Called(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code()),
    }
}

#[test]
fn who_waits_for_one_is_woken_in_the_order_of_coming_each_when_it_can_go_on() {
    let mut cluster = Cluster::new(4);
    let first = result(&cluster.call(0, "lock")).unwrap();
    for who in 1..4 {
        assert_eq!(cluster.call(who, "lock"), Ok(Value::Parked));
    }
    assert_eq!(cluster.wake(), [], "nobody is woken by nothing");
    let mut before: u64 = first.parse().unwrap();
    for who in 0..3 {
        cluster.next(who, delete("/lock/holder", false)).unwrap();
        let ended = cluster.wake();
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(ended[0].0, who + 1);
        let fence: u64 = ended[0].1.clone().unwrap().parse().unwrap();
        assert!(fence > before);
        before = fence;
    }
    cluster.is_clean();
}

#[test]
fn all_who_waited_before_a_change_are_woken_by_it_even_if_it_has_passed() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.call(0, "gate"), Ok(Value::Parked));
    assert_eq!(cluster.call(1, "gate"), Ok(Value::Parked));
    // Open and closed again before anybody is run.
    cluster.member.planned(&once(10, 2_000, create("/gate")));
    cluster.member.planned(&once(11, 2_000, delete("/gate", false)));
    cluster.member.settle();
    assert_eq!(cluster.call(2, "gate"), Ok(Value::Parked), "too late for that opening");
    assert_eq!(cluster.wake(), [(0, Ok("through".into())), (1, Ok("through".into()))]);
    cluster.member.done(&once(12, 2_000, create("/gate")));
    assert_eq!(cluster.wake(), [(2, Ok("through".into()))]);
    assert_eq!(result(&cluster.call(0, "gate")), Ok("through".into()), "open: it is run again at once");
    cluster.is_clean();
}

#[test]
fn who_waits_for_another_test_of_the_same_znode_hides_nobody() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.call(0, "far"), Ok(Value::Parked));
    assert_eq!(cluster.call(1, "near"), Ok(Value::Parked));
    assert_eq!(cluster.call(2, "near"), Ok(Value::Parked));
    cluster.member.done(&once(10, 2_000, create("/room/a")));
    assert_eq!(cluster.wake(), [(1, Ok("near".into())), (2, Ok("near".into()))]);
    cluster.member.done(&once(11, 2_000, create("/room/b")));
    assert_eq!(cluster.wake(), [(0, Ok("far".into()))]);
    cluster.is_clean();
}

#[test]
fn children_and_versions_are_waited_for_too() {
    let mut cluster = Cluster::new(2);
    assert_eq!(cluster.call(0, "full"), Ok(Value::Parked));
    assert_eq!(cluster.call(1, "newer"), Ok(Value::Parked));
    cluster.member.done(&once(10, 2_000, create("/room/a")));
    assert_eq!(cluster.wake(), [], "it is a change of the znode, and brings nobody what he waits for");
    cluster.member.done(&once(11, 2_000, create("/room/b")));
    cluster.member.done(&once(12, 2_000, delete("/room/a", false)));
    assert_eq!(cluster.wake(), [(0, Ok("full".into()))], "it was full");
    cluster.member.done(&once(13, 2_000, set("/room", b"x")));
    assert_eq!(cluster.wake(), [(1, Ok("newer".into()))]);
    cluster.is_clean();
}

#[test]
fn fewer_children_are_waited_for_and_of_a_znode_that_is_gone_there_are_none() {
    let mut cluster = Cluster::new(2);
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        cluster.member.done(&once(10 + at as u64, 2_000, create(&format!("/room/{name}"))));
    }
    assert_eq!(cluster.call(0, "few"), Ok(Value::Parked));
    cluster.member.done(&once(20, 2_000, delete("/room/a", false)));
    assert_eq!(cluster.member.tables.count(Table::Wake), 0, "nothing is written down that wakes nobody");
    assert_eq!(cluster.wake(), []);
    cluster.member.done(&once(21, 2_000, delete("/room/b", false)));
    assert_eq!(cluster.wake(), [(0, Ok("few".into()))]);
    cluster.member.done(&once(22, 2_000, create("/room/a")));
    assert_eq!(cluster.call(1, "few"), Ok(Value::Parked));
    cluster.member.done(&once(23, 2_000, delete("/room", true)));
    assert_eq!(cluster.wake(), [(1, Ok("few".into()))]);
    cluster.is_clean();
}

#[test]
fn a_call_that_fails_when_it_is_run_again_ends_with_that_and_others_go_on() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.call(0, "trap"), Ok(Value::Parked));
    assert_eq!(cluster.call(1, "gate"), Ok(Value::Parked));
    assert_eq!(cluster.call(2, "trap"), Err(Refusal::ZnodeExists { path: path("/trap") }));
    cluster.member.done(&once(10, 2_000, create("/gate")));
    assert_eq!(cluster.wake(), [(1, Ok("through".into())), (0, Err("plugin-failed"))]);
    cluster.is_clean();
}

#[test]
fn what_parks_wrongly_is_refused_and_leaves_nothing() {
    let mut cluster = Cluster::new(1);
    assert_eq!(code(&cluster.call(0, "loop")), "plugin-loop");
    assert_eq!(cluster.scripts.take_runs().len(), 5, "once, and four times at once");
    assert_eq!(code(&cluster.call(0, "none")), "plugin-failed");
    let flat = |procedure| Op::Call(support::call("flat", procedure));
    assert_eq!(code(&cluster.next(0, flat("gate"))), "plugin-failed", "its manifest does not say that it parks");
    let outcome = cluster.member.run(&once(10, 2_000, Op::Call(support::call("p", "trap"))));
    assert_eq!(code(&outcome), "no-session");
    assert_eq!(query::present(&cluster.member.tables, support::ALICE, &path("/trap")).unwrap(), None);
    cluster.is_clean();
}

#[test]
fn a_deadline_runs_a_call_again_and_parking_then_is_a_failure() {
    let mut cluster = Cluster::new(2);
    result(&cluster.call(0, "lock")).unwrap();
    assert_eq!(cluster.call(1, "lock"), Ok(Value::Parked));
    cluster.member.now_ms += 4_000;
    cluster.member.plan(&own(Work::Sweep));
    cluster.member.settle();
    assert_eq!(cluster.wake(), []);
    cluster.member.now_ms += 2_000;
    cluster.member.planned(&own(Work::Sweep));
    cluster.member.settle();
    assert_eq!(cluster.wake(), [(1, Err("plugin-refused"))]);
    cluster.is_clean();
}

#[test]
fn a_cancelled_call_gives_back_what_it_has_or_was_about_to_get() {
    let mut cluster = Cluster::new(3);
    let holder = |cluster: &Cluster| {
        query::present(&cluster.member.tables, support::ALICE, &path("/lock/holder"))
            .unwrap()
            .map(|found| found.stat.owner)
    };
    // One that waits.
    result(&cluster.call(0, "lock")).unwrap();
    assert_eq!(cluster.call(1, "lock"), Ok(Value::Parked));
    assert_eq!(cluster.next(1, Op::Cancel { sequence: 1 }), Ok(Value::Cancelled));
    cluster.next(0, delete("/lock/holder", false)).unwrap();
    assert_eq!(cluster.wake(), [], "it does not wait any more");
    assert_eq!(cluster.next(1, Op::Cancel { sequence: 1 }), Err(Refusal::AlreadyDone { sequence: 1 }));
    // One that was awarded meanwhile, and whose client does not know it yet.
    result(&cluster.call(0, "lock")).unwrap();
    assert_eq!(cluster.call(2, "lock"), Ok(Value::Parked));
    cluster.next(0, delete("/lock/holder", false)).unwrap();
    assert_eq!(cluster.wake().len(), 1);
    assert!(holder(&cluster).is_some());
    assert_eq!(cluster.next(2, Op::Cancel { sequence: 1 }), Ok(Value::Cancelled));
    assert_eq!(holder(&cluster), None);
    // One that never parked, unless its reply was acknowledged.
    let (session, sequence) = cluster.sessions[0];
    let call = Op::Call(support::call("p", "lock"));
    result(&cluster.member.run(&support::write(session, sequence, sequence, call))).unwrap();
    let cancel = |floor| support::write(session, sequence + 1, floor, Op::Cancel { sequence });
    let outcome = cluster.member.run(&cancel(sequence));
    assert_eq!(outcome, Ok(Value::Cancelled));
    assert_eq!(holder(&cluster), None);
    cluster.sessions[0].1 = sequence + 2;
    result(&cluster.call(0, "lock")).unwrap();
    let sequence = sequence + 2;
    cluster.next(0, set("/room", b"acknowledges what was before")).unwrap();
    assert_eq!(cluster.next(0, Op::Cancel { sequence }), Err(Refusal::AlreadyDone { sequence }));
    assert_eq!(code(&cluster.next(0, Op::Cancel { sequence: 99 })), "bad-request");
    assert!(holder(&cluster).is_some(), "an award that is known is released, not cancelled");
    cluster.is_clean();
}

#[test]
fn a_session_that_ends_takes_its_calls_along_and_wakes_others() {
    let mut cluster = Cluster::new(3);
    result(&cluster.call(0, "lock")).unwrap();
    assert_eq!(cluster.call(1, "lock"), Ok(Value::Parked));
    assert_eq!(cluster.call(2, "lock"), Ok(Value::Parked));
    cluster.scripts.take_runs();
    let (session, _) = cluster.sessions[1];
    cluster.member.planned(&own(Work::Expire { session }));
    cluster.member.settle();
    assert_eq!(cluster.scripts.take_runs(), ["p lock SessionEnd"]);
    let (session, _) = cluster.sessions[0];
    cluster.member.planned(&own(Work::Expire { session }));
    cluster.member.settle();
    let ended = cluster.wake();
    assert_eq!((ended.len(), ended[0].0), (1, 2), "{ended:?}");
    assert_eq!(cluster.member.tables.count(Table::Parked), 1, "its end is kept until it is acknowledged");
    cluster.is_clean();
}

#[test]
fn an_end_is_kept_until_it_is_acknowledged_and_told_again_meanwhile() {
    let mut cluster = Cluster::new(1);
    assert_eq!(cluster.call(0, "gate"), Ok(Value::Parked));
    let (session, _) = cluster.sessions[0];
    assert_eq!(query::completions(&cluster.member.tables, session).unwrap(), []);
    cluster.member.done(&once(10, 2_000, create("/gate")));
    cluster.wake();
    let kept = query::completions(&cluster.member.tables, session).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].0, result(&codec::decode(&kept[0].2).unwrap())), (1, Ok("through".into())));
    // A later write that does not name it leaves it; one that does forgets it.
    cluster.next(0, set("/room", b"1")).unwrap();
    assert_eq!(query::completions(&cluster.member.tables, session).unwrap().len(), 1);
    let (session, sequence) = cluster.sessions[0];
    let asked = Asked::Session { session, sequence, floor: sequence, completed: vec![1, 77] };
    let request = Request { asked, ..support::write(session, sequence, sequence, set("/room", b"2")) };
    cluster.member.run(&request).unwrap();
    assert_eq!(query::completions(&cluster.member.tables, session).unwrap(), []);
    assert_eq!(cluster.member.tables.count(Table::Parked), 0);
    let row: row::Session = query::session(&cluster.member.tables, session).unwrap().unwrap();
    assert_eq!((row.calls, row.parked), (0, 0));
    cluster.is_clean();
}

#[test]
fn a_plugin_that_runs_no_more_ends_its_calls() {
    let mut cluster = Cluster::new(3);
    for who in 0..3 {
        assert_eq!(cluster.call(who, "gate"), Ok(Value::Parked));
    }
    let manage = Op::Manage(Manage { name: "p".into(), what: Action::Disable });
    cluster.member.done(&once(10, 2_000, manage));
    let ended = cluster.wake();
    assert_eq!(ended, (0..3).map(|who| (who, Err("plugin-disabled"))).collect::<Vec<_>>());
    assert_eq!(code(&cluster.call(0, "gate")), "plugin-disabled");
    cluster.is_clean();
}

#[test]
fn a_new_planner_wakes_those_that_the_one_before_did_not() {
    let mut cluster = Cluster::new(2);
    assert_eq!(cluster.call(0, "gate"), Ok(Value::Parked));
    assert_eq!(cluster.call(1, "gate"), Ok(Value::Parked));
    cluster.member.done(&once(10, 2_000, create("/gate")));
    cluster.member.term += 1;
    let (tables, term) = (&cluster.member.tables, cluster.member.term);
    let runner = Arc::clone(&cluster.scripts) as _;
    cluster.member.planner = conclave_core::plan::Planner::new(term, tables.snapshot(), tables.kept(), runner).unwrap();
    assert!(cluster.member.planner.may_wake());
    assert_eq!(cluster.wake().len(), 2);
    assert!(!cluster.member.planner.may_wake());
    cluster.is_clean();
}

#[test]
fn nobody_waits_for_what_he_may_not_read() {
    let mut cluster = Cluster::new(1);
    cluster.member.done(&once(10, 2_000, create("/never")));
    cluster.member.done(&once(11, 2_000, support::set_acl("/never", "bob:crwda")));
    assert_eq!(code(&cluster.call(0, "secret")), "not-allowed");
    assert_eq!(cluster.call(0, "gate"), Ok(Value::Parked));
}

#[test]
fn parked_calls_are_listed_for_their_own_and_for_administrators() {
    let mut cluster = Cluster::new(1);
    assert_eq!(cluster.call(0, "stubborn"), Ok(Value::Parked));
    let list = |cluster: &Cluster, who: &str| {
        let query = Query::Calls { plugin: "p".into(), after: None, limit: 10 };
        match query::answer(&cluster.member.tables, who, &query).unwrap().unwrap() {
            conclave_protocol::Answer::Calls { calls, more: false } => calls,
            other => panic!("{other:?}"),
        }
    };
    let calls = list(&cluster, support::ALICE);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].procedure.as_str(), calls[0].waits_for[0].test.as_str()), ("stubborn", "exists"));
    assert_eq!(calls[0].waits_for[0].path, path("/never"));
    assert!(calls[0].ticket > Zxid(0));
    cluster.member.done(&once(10, 2_000, support::set_acl("/", "alice:crwda anyone:r")));
    assert_eq!(list(&cluster, support::BOB), []);
    assert_eq!(list(&cluster, support::ALICE).len(), 1);
}

#[test]
fn a_session_parks_only_so_many_calls() {
    let mut cluster = Cluster::new(1);
    for _ in 0..limits::SESSION_PARKED {
        assert_eq!(cluster.call(0, "gate"), Ok(Value::Parked));
    }
    assert_eq!(code(&cluster.call(0, "gate")), "limit");
    cluster.member.done(&once(10, 2_000, create("/gate")));
    assert_eq!(cluster.wake().len(), limits::SESSION_PARKED);
    cluster.is_clean();
}

#[test]
fn ten_thousand_that_wait_for_one_change_are_woken_in_the_order_of_their_tickets() {
    let sessions = 40;
    let mut cluster = Cluster::new(sessions);
    for call in 0..10_000 {
        let who = call % sessions;
        let (session, sequence) = cluster.sessions[who];
        cluster.sessions[who].1 += 1;
        let op = Op::Call(support::call("p", "gate"));
        cluster.member.planned(&support::write(session, sequence, sequence, op));
        if call % 500 == 499 {
            cluster.member.settle();
        }
    }
    cluster.member.planned(&once(10, 2_000, create("/gate")));
    cluster.member.settle();
    let mut order = Vec::new();
    while let Verdict::Planned(_) = cluster.member.plan(&own(Work::Wake)) {
        if cluster.member.planner.pending() == 500 {
            cluster.member.cut();
            order.push(cluster.member.apply_one().unwrap());
            cluster.member.planner.rebase(cluster.member.tables.snapshot()).unwrap();
        }
    }
    cluster.member.cut();
    order.extend(cluster.member.apply_one());
    let whose: Vec<usize> = order
        .iter()
        .flat_map(|entry| &entry.transactions)
        .filter_map(|transaction| match transaction.origin {
            Origin::Completion { session, .. } => cluster.sessions.iter().position(|(id, _)| *id == session),
            _ => None,
        })
        .collect();
    assert_eq!(whose, (0..10_000).map(|call| call % sessions).collect::<Vec<_>>());
    cluster.is_clean();
}
