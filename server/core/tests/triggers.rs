//! Triggers: what plugins have to say before znodes change, and what they write after.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::plan::Work;
use conclave_core::plugin::{Ended, Run, Verdict as Said, What};
use conclave_core::view::Tx;
use conclave_protocol::plugin::{On, OnFailure, Trigger};
use conclave_protocol::{ChangeKind, Create, Delete, Edit, Kind, Op, Refusal, Set, Step, Update, Value};

use support::scripts::{
    self, Scripts, as_itself, built_in, done, failed, make, of_kinds, procedures, refused, trigger, triggers,
};
use support::{Member, code, create, delete, once, own, path, set};

/// Allows what is short, refuses what says no, doubles what says twice, traps at what says trap.
fn gate(_: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::Before { change, .. } = &run.what else { panic!("{:?}", run.what) };
    let data = change.data.clone().unwrap_or_default();
    match &data[..] {
        b"no" => Err(refused(run, "it says no")),
        b"trap" => Err(failed(run, "trap")),
        b"twice" => Ok(Ended::Verdict(Said::Rewrite(Bytes::from_static(b"twicetwice")))),
        b"huge" => Ok(Ended::Verdict(Said::Rewrite(vec![0; 2 << 20].into()))),
        _ => Ok(Ended::Verdict(Said::Allow)),
    }
}

/// Writes down every change that it is told of, below `/log`.
fn log(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::After { changes, .. } = &run.what else { panic!("{:?}", run.what) };
    for seen in changes {
        let text = |data: &Option<Bytes>| {
            data.as_ref().map_or("-".to_owned(), |data| String::from_utf8_lossy(data).into_owned())
        };
        let line = format!("{} {} {}>{}", seen.change.kind, seen.change.path, text(&seen.previous), text(&seen.data));
        if line.contains("refused") {
            make(tx, "/left/behind", "x")?;
            return Err(refused(run, "it is refused"));
        }
        let kind = Kind { sequential: true, ..Kind::default() };
        scripts::put(tx, &Create { parents: true, kind, ..Create::new(path("/log/n-"), line) })?;
    }
    done("")
}

fn with(plugins: &[(&str, u8)], scripts: Scripts) -> (Member, std::sync::Arc<Scripts>) {
    let scripts = scripts::shared(scripts);
    let plugins = plugins.iter().map(|(name, number)| built_in(name, *number)).collect();
    (Member::with_plugins(plugins, &scripts), scripts)
}

fn gated(trigger: Trigger) -> (Member, std::sync::Arc<Scripts>) {
    with(&[("gate", 1)], Scripts::default().with(1, triggers(vec![trigger]), gate))
}

fn text(member: &mut Member, at: &str) -> String {
    let found = conclave_core::query::present(&member.tables, support::ALICE, &path(at)).unwrap();
    found.map_or("-".to_owned(), |found| String::from_utf8_lossy(&found.data).into_owned())
}

fn lines(member: &mut Member) -> Vec<String> {
    let mut lines = Vec::new();
    while let line = text(member, &format!("/log/n-{:010}", lines.len()))
        && line != "-"
    {
        lines.push(line);
    }
    lines
}

#[test]
fn a_before_trigger_allows_refuses_and_rewrites_whoever_writes() {
    let (mut member, _) = gated(trigger(On::Before, "/app/**"));
    member.done(&once(1, 2_000, create("/app")));
    member.done(&once(2, 2_000, Op::Create(Create::new(path("/app/a"), "fine"))));
    let refused = member.run(&once(3, 2_000, set("/app/a", b"no"))).unwrap_err();
    assert_eq!(refused, Refusal::PluginRefused { plugin: "gate".into(), message: "it says no".into() });
    assert_eq!(text(&mut member, "/app/a"), "fine");
    member.done(&once(4, 2_000, set("/app/a", b"twice")));
    assert_eq!(text(&mut member, "/app/a"), "twicetwice");
    // Elsewhere it is not asked.
    member.done(&once(5, 2_000, Op::Create(Create::new(path("/b"), "no"))));
    // A later step of a multi is asked as any other writer, and its refusal names the step.
    let step = |at: &str, data: &'static str| Step::Create(Create::new(path(at), data));
    let outcome = member.run(&once(6, 2_000, Op::Multi(vec![step("/app/c", "x"), step("/app/d", "no")])));
    assert!(matches!(outcome, Err(Refusal::Step { step: 1, .. })), "{outcome:?}");
    assert_eq!(text(&mut member, "/app/c"), "-");
    // Data that a trigger makes too long is no way around the limit.
    assert_eq!(code(&member.run(&once(7, 2_000, set("/app/a", b"huge")))), "limit");
    assert_eq!(text(&mut member, "/app/a"), "twicetwice");
}

#[test]
fn a_failing_before_trigger_refuses_unless_it_is_open() {
    let (mut member, _) = gated(trigger(On::Before, "/**"));
    assert_eq!(code(&member.run(&once(1, 2_000, Op::Create(Create::new(path("/a"), "trap"))))), "plugin-failed");
    let open = Trigger { on_failure: OnFailure::Open, ..trigger(On::Before, "/**") };
    let (mut member, _) = gated(open);
    member.done(&once(1, 2_000, Op::Create(Create::new(path("/a"), "trap"))));
    assert_eq!(text(&mut member, "/a"), "trap");
    // Its own "no" is no failure.
    assert_eq!(code(&member.run(&once(2, 2_000, set("/a", b"no")))), "plugin-refused");
}

#[test]
fn triggers_run_by_their_order_and_see_what_those_before_them_made_of_it() {
    fn add(_: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
        let What::Before { change, .. } = &run.what else { panic!() };
        let data = [change.data.as_deref().unwrap_or_default(), run.plugin.as_bytes()].concat();
        Ok(Ended::Verdict(Said::Rewrite(data.into())))
    }
    let ordered = |order| triggers(vec![Trigger { order, ..trigger(On::Before, "/**") }]);
    let scripts = Scripts::default().with(1, ordered(5), add).with(2, ordered(-5), add).with(3, ordered(5), add);
    let (mut member, _) = with(&[("b", 1), ("c", 2), ("a", 3)], scripts);
    member.done(&once(1, 2_000, create("/x")));
    assert_eq!(text(&mut member, "/x"), "cab");
    // The number that an update tells is the one that is there.
    let update = Update { path: path("/n"), edit: Edit::Add(5), if_version: None, or_create: true };
    let value = member.done(&once(2, 2_000, Op::Update(update)));
    assert_eq!(text(&mut member, "/n"), "5cab");
    assert!(matches!(value, Value::Set { .. }), "{value:?}");
}

#[test]
fn every_znode_of_a_subtree_is_asked_about_and_what_goes_by_itself_is_not() {
    let asked = of_kinds(trigger(On::Before, "/app/**"), &[ChangeKind::Deleted]);
    let (mut member, scripts) = gated(asked);
    let session = member.open(support::ALICE);
    for (number, at) in (1..).zip(["/app", "/app/a", "/app/a/b"]) {
        member.done(&once(number, 2_000, create(at)));
    }
    let kind = Kind { ephemeral: true, ..Kind::default() };
    member.done(&support::write(session, 1, 1, Op::Create(Create { kind, ..Create::new(path("/app/e"), "") })));
    member.planned(&own(Work::Expire { session }));
    member.settle();
    assert_eq!(scripts.take_runs(), [""; 0]);
    member.done(&once(9, 2_000, delete("/app", true)));
    assert_eq!(scripts.take_runs().len(), 3);
}

#[test]
fn an_after_trigger_writes_in_the_same_transaction_with_the_data_before_and_after() {
    let (mut member, _) =
        with(&[("log", 1)], Scripts::default().with(1, triggers(vec![trigger(On::After, "/app/**")]), log));
    member.done(&once(1, 2_000, Op::Create(Create::new(path("/app"), "1"))));
    let zxid = member.planner.last();
    let value = member.done(&once(2, 2_000, set("/app", b"2")));
    assert!(matches!(value, Value::Set { .. }));
    assert_eq!(member.planner.last(), zxid.next(), "one transaction");
    member.done(&once(3, 2_000, delete("/app", false)));
    assert_eq!(lines(&mut member), ["created /app ->1", "data /app 1>2", "deleted /app 2>-"]);
    // Refused, it takes the write along.
    let outcome = member.run(&once(4, 2_000, Op::Create(Create::new(path("/app"), "refused"))));
    assert_eq!(code(&outcome), "plugin-refused");
    assert_eq!((text(&mut member, "/app"), text(&mut member, "/left/behind")), ("-".into(), "-".into()));
}

#[test]
fn an_open_after_trigger_that_fails_is_undone_alone() {
    fn half(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
        make(tx, "/left/behind", "x")?;
        Err(failed(run, "trap"))
    }
    let open = Trigger { on_failure: OnFailure::Open, ..trigger(On::After, "/app/**") };
    let (mut member, _) = with(&[("half", 1)], Scripts::default().with(1, triggers(vec![open]), half));
    member.done(&once(1, 2_000, create("/app")));
    assert_eq!((text(&mut member, "/app"), text(&mut member, "/left/behind")), (String::new(), "-".into()));
}

#[test]
fn an_end_of_a_session_and_of_a_time_to_live_runs_after_triggers_and_cannot_be_prevented() {
    let (mut member, scripts) =
        with(&[("log", 1)], Scripts::default().with(1, triggers(vec![trigger(On::After, "/app/**")]), log));
    let session = member.open(support::ALICE);
    let kind = Kind { ephemeral: true, ..Kind::default() };
    let ephemeral = |at: &str, data: &'static str| Op::Create(Create { kind, ..Create::new(path(at), data) });
    member.done(&once(1, 2_000, create("/app")));
    member.done(&support::write(session, 1, 1, ephemeral("/app/a", "mine")));
    let kind = Kind { ttl_ms: Some(10), ..Kind::default() };
    member.done(&once(2, 2_000, Op::Create(Create { kind, ..Create::new(path("/app/t"), "short") })));
    member.planned(&own(Work::Expire { session }));
    member.settle();
    member.now_ms += 1_000;
    member.planned(&own(Work::Sweep));
    member.settle();
    let told = lines(&mut member);
    assert_eq!(told[3..], ["deleted /app/a mine>-", "deleted /app/t short>-"], "{told:?}");
    // One that says no is undone alone.
    let session = member.open(support::ALICE);
    scripts.take_runs();
    let value = member.done(&support::write(session, 1, 1, ephemeral("/app/b", "fine")));
    assert!(matches!(value, Value::Created { .. }));
    let outcome = member.run(&support::write(session, 2, 2, set("/app/b", b"refused-later")));
    assert_eq!(code(&outcome), "plugin-refused");
    member.planned(&own(Work::Expire { session }));
    member.settle();
    assert_eq!(text(&mut member, "/app/b"), "-");
    assert_eq!(scripts.take_runs().len(), 3);
}

#[test]
fn a_session_end_trigger_runs_before_the_ephemeral_znodes_go_and_its_failure_is_undone_alone() {
    fn farewell(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
        let What::SessionEnd { session, principal, expired } = &run.what else { panic!() };
        assert!(tx.get(&path("/mine")).unwrap().is_some(), "it is there still");
        make(tx, &format!("/ended/{session}"), format!("{principal} {expired}"))?;
        if run.plugin == "bad" { Err(failed(run, "trap")) } else { done("") }
    }
    let ends = || triggers(vec![trigger(On::SessionEnd, "")]);
    let scripts = Scripts::default().with(1, ends(), farewell).with(2, ends(), farewell);
    let (mut member, scripts) = with(&[("good", 1), ("bad", 2)], scripts);
    for expired in [true, false] {
        let session = member.open(support::ALICE);
        let kind = Kind { ephemeral: true, ..Kind::default() };
        member.done(&support::write(session, 1, 1, Op::Create(Create { kind, ..Create::new(path("/mine"), "") })));
        if expired {
            member.planned(&own(Work::Expire { session }));
            member.settle();
        } else {
            assert_eq!(member.done(&support::write(session, 2, 2, Op::Close)), Value::Closed);
        }
        assert_eq!(scripts.take_runs(), [format!("bad session-end {expired}"), format!("good session-end {expired}")]);
        assert_eq!(text(&mut member, &format!("/ended/{session}")), format!("{} {expired}", support::ALICE));
        assert_eq!(text(&mut member, "/mine"), "-");
    }
}

#[test]
fn triggers_that_run_each_other_end_at_a_depth() {
    fn deeper(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
        let What::After { changes, .. } = &run.what else { panic!() };
        for seen in changes.iter().filter(|seen| seen.change.kind == ChangeKind::Created) {
            make(tx, &format!("{}/x", seen.change.path), "")?;
        }
        done("")
    }
    let (mut member, scripts) =
        with(&[("deep", 1)], Scripts::default().with(1, triggers(vec![trigger(On::After, "/app/**")]), deeper));
    let outcome = member.run(&once(1, 2_000, create("/app")));
    assert_eq!(code(&outcome), "plugin-loop");
    assert_eq!(scripts.take_runs().len(), conclave_protocol::limits::CASCADE);
    assert_eq!(text(&mut member, "/app"), "-");
    member.done(&once(2, 2_000, create("/other")));
}

#[test]
fn writes_of_procedures_and_of_after_triggers_pass_the_before_triggers() {
    fn write(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
        make(tx, "/app/made", "no").map_err(|refusal| {
            assert_eq!(refusal.code(), "plugin-refused");
            refused(run, "it heard no")
        })?;
        done("")
    }
    let scripts = Scripts::default()
        .with(1, triggers(vec![trigger(On::Before, "/app/*")]), gate)
        .with(2, procedures(&["go"], false), write)
        .with(3, triggers(vec![trigger(On::After, "/b")]), write);
    let (mut member, _) = with(&[("gate", 1), ("writer", 2), ("follower", 3)], scripts);
    let call = Op::Call(support::call("writer", "go"));
    let said = |outcome| match outcome {
        Err(Refusal::PluginRefused { plugin, message }) => format!("{plugin}: {message}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(said(member.run(&once(1, 2_000, call))), "writer: it heard no");
    assert_eq!(said(member.run(&once(2, 2_000, create("/b")))), "follower: it heard no");
}

#[test]
fn a_plugin_that_runs_as_itself_has_rights_of_its_own() {
    use conclave_protocol::{AccessList, Grant, Permissions, SetAcl, Who};
    let write = |tx: &mut Tx, _: &Run| -> Result<Ended, Refusal> {
        match tx.create(&Create::new(path("/log/x"), "")) {
            Ok(_) => done(""),
            Err(conclave_core::view::Stop::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{other:?}"),
        }
    };
    let after = || triggers(vec![trigger(On::After, "/app")]);
    for (manifest, expected) in [(after(), "not-allowed"), (as_itself(after()), "done")] {
        let (mut member, _) = with(&[("audit", 1)], Scripts::default().with(1, manifest, write));
        member.done(&once(1, 2_000, create("/log")));
        let grant = |who: &str| Grant { who: Who::Principal(who.into()), may: Permissions::ALL };
        let acl = AccessList(vec![grant("plugin:audit"), grant(support::BOB)]);
        member.done(&once(2, 2_000, Op::Acl(SetAcl { path: path("/log"), acl, if_acl_version: None })));
        assert_eq!(code(&member.run(&once(3, 2_000, create("/app")))), expected);
    }
}

#[test]
fn all_runs_of_a_transaction_share_its_fuel() {
    fn hungry(_: &mut Tx, _: &Run) -> Result<Ended, Refusal> {
        Ok(Ended::Verdict(Said::Allow))
    }
    let hungry = Scripts::default().with(1, triggers(vec![trigger(On::Before, "/**")]), hungry);
    let hungry = hungry.spending(conclave_protocol::limits::TRANSACTION_FUEL / 2);
    let (mut member, scripts) = with(&[("hungry", 1)], hungry);
    let steps = |count: u64| {
        let step = |number: u64| Step::Set(Set { path: path("/"), data: number.to_string().into(), if_version: None });
        Op::Multi((0..count).map(step).collect())
    };
    member.done(&once(1, 2_000, steps(2)));
    let refused = member.run(&once(2, 2_000, steps(3))).unwrap_err();
    assert!(matches!(&refused, Refusal::Step { step: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("fuel of the transaction"), "{refused}");
    assert_eq!(scripts.take_runs().len(), 4, "the fifth is not run");
    // The next one has its own.
    member.done(&once(3, 2_000, steps(2)));
}

#[test]
fn deleting_needs_nobody_to_rewrite_anything() {
    fn rewrite(_: &mut Tx, _: &Run) -> Result<Ended, Refusal> {
        Ok(Ended::Verdict(Said::Rewrite(Bytes::from_static(b"x"))))
    }
    let (mut member, _) =
        with(&[("odd", 1)], Scripts::default().with(1, triggers(vec![trigger(On::Before, "/**")]), rewrite));
    member.done(&once(1, 2_000, create("/a")));
    assert_eq!(text(&mut member, "/a"), "x");
    let outcome =
        member.run(&once(2, 2_000, Op::Delete(Delete { path: path("/a"), if_version: None, recursive: false })));
    assert_eq!(code(&outcome), "plugin-failed");
}
