//! The life of a plugin: uploaded, installed, made active, upgraded, taken back, suspended, removed.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use conclave_core::plan::{Begin, Planner, Verdict, Work};
use conclave_core::plugin::{Ended, Run, Test, Wake, What};
use conclave_core::query;
use conclave_core::row::Plugin;
use conclave_core::view::Tx;
use conclave_core::{Table, row};
use conclave_protocol::plugin::{
    Access, Action, BudgetSettings, ComponentDigest, Install, Manage, Manifest, Need, On, PluginInfo, PluginState,
    Upload,
};
use conclave_protocol::{Op, Outcome, Query, Refusal, Value, limits};

use support::scripts::{self, Scripts, digest, done, failed, park, procedures, trigger, triggers};
use support::{Member, code, create, once, own};

/// Answers with the number of its component.
fn number(_: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::Procedure { name, resumed, .. } = &run.what else { return done("") };
    match name.as_str() {
        "wait" if resumed.is_none() => park("/go", Test::Exists, Wake::All),
        "trap" => Err(failed(run, "trap")),
        _ => done(run.digest.0[0].to_string()),
    }
}

fn manifest() -> Manifest {
    let mut manifest = procedures(&["number", "trap"], false);
    manifest.procedures.extend(procedures(&["wait"], true).procedures);
    manifest
}

struct Cluster {
    member: Member,
    scripts: Arc<Scripts>,
    nonce: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut scripts = Scripts::default();
        for number_of in 1..=20 {
            scripts = scripts.with(number_of, manifest(), number);
        }
        scripts = scripts.with(30, triggers(vec![trigger(On::Before, "/app/**")]), number);
        let scripts = scripts::shared(scripts);
        Self { member: Member::with_plugins(Vec::new(), &scripts), scripts, nonce: 0 }
    }

    fn run(&mut self, op: Op) -> Outcome {
        self.nonce += 1;
        self.member.run(&once(self.nonce, self.member.now_ms + 10_000, op))
    }

    fn upload(&mut self, component: u8) {
        let upload = Upload { digest: digest(component), chunk: 0, bytes: scripts::component(component) };
        assert_eq!(self.run(Op::Upload(upload)), Ok(Value::Uploaded));
    }

    fn install(&mut self, component: u8, upgrade: bool) -> Outcome {
        self.run(Op::Install(install(component, upgrade)))
    }

    fn manage(&mut self, what: Action) -> Outcome {
        self.run(Op::Manage(Manage { name: "p".into(), what }))
    }

    /// Makes it active, as far as the leader is concerned.
    fn activate(&mut self, component: u8) -> bool {
        let work = Work::Activate { plugin: "p".into(), digest: digest(component) };
        let verdict = self.member.plan(&own(work));
        self.member.settle();
        matches!(verdict, Verdict::Planned(_))
    }

    fn call(&mut self) -> Result<u8, &'static str> {
        match self.run(Op::Call(support::call("p", "number"))) {
            Ok(Value::Called(bytes)) => Ok(std::str::from_utf8(&bytes).unwrap().parse().unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code()),
        }
    }

    fn info(&self) -> PluginInfo {
        query::plugin(&self.member.tables, "p").unwrap().unwrap().info
    }

    fn blobs(&self) -> usize {
        self.member.tables.count(Table::Blob)
    }
}

fn install(component: u8, upgrade: bool) -> Install {
    Install {
        name: "p".into(),
        digest: digest(component),
        component_bytes: 10,
        allowed: manifest().needs,
        settings: None,
        budgets: None,
        upgrade,
        shadow: false,
    }
}

#[test]
fn a_plugin_runs_once_enough_members_are_ready_and_not_before() {
    let mut cluster = Cluster::new();
    assert_eq!(code(&cluster.install(1, false)), "plugin-unfit", "nothing was uploaded");
    cluster.upload(1);
    assert!(matches!(cluster.install(1, false), Ok(Value::Managed(info)) if info.state == PluginState::Preparing));
    assert_eq!(cluster.call(), Err("plugin-disabled"));
    assert!(!cluster.activate(2), "that is another component");
    assert!(cluster.activate(1));
    assert!(!cluster.activate(1), "it is active already");
    assert_eq!(cluster.call(), Ok(1));
    assert_eq!(code(&cluster.install(1, false)), "plugin-exists");
    assert_eq!(cluster.info().activated.map(|zxid| zxid > conclave_protocol::Zxid(1)), Some(true));
}

#[test]
fn an_upgrade_takes_over_in_one_transaction_and_can_be_taken_back() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    assert_eq!(code(&cluster.install(1, true)), "no-plugin");
    cluster.install(1, false).unwrap();
    cluster.activate(1);
    cluster.upload(2);
    cluster.install(2, true).unwrap();
    assert_eq!(cluster.call(), Ok(1), "the old one runs until the new one is ready");
    assert!(cluster.activate(2));
    assert_eq!(cluster.call(), Ok(2));
    cluster.manage(Action::Rollback).unwrap();
    assert!(cluster.activate(1));
    assert_eq!(cluster.call(), Ok(1));
    assert_eq!(cluster.blobs(), 2);
    // What was to follow and is given up leaves nothing behind.
    cluster.upload(3);
    cluster.install(3, true).unwrap();
    cluster.manage(Action::Abandon).unwrap();
    assert_eq!((cluster.blobs(), cluster.call()), (2, Ok(1)));
    assert_eq!(code(&cluster.manage(Action::Abandon)), "bad-request");
    assert_eq!(cluster.manage(Action::Remove), Ok(Value::Removed));
    assert_eq!((cluster.blobs(), cluster.call()), (0, Err("no-plugin")));
}

#[test]
fn a_call_that_parked_before_an_upgrade_ends_on_the_component_that_it_began_with() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    cluster.install(1, false).unwrap();
    cluster.activate(1);
    let session = cluster.member.open(support::ALICE);
    let wait = support::write(session, 1, 1, Op::Call(support::call("p", "wait")));
    assert_eq!(cluster.member.run(&wait), Ok(Value::Parked));
    for component in 2..=4 {
        cluster.upload(component);
        cluster.install(component, true).unwrap();
        assert!(cluster.activate(component));
    }
    assert_eq!((cluster.call(), cluster.blobs()), (Ok(4), 4), "none goes while a call waits");
    cluster.run(create("/go")).unwrap();
    cluster.member.planned(&own(Work::Wake));
    let outcome = cluster.member.settle().unwrap();
    assert_eq!(outcome, Ok(Value::Called(Bytes::from_static(b"1"))));
    cluster.upload(5);
    cluster.install(5, true).unwrap();
    cluster.activate(5);
    assert_eq!(cluster.blobs(), 2, "the present one and the one before it");
}

#[test]
fn a_member_that_cannot_run_it_keeps_it_from_becoming_active_and_the_old_one_goes_on() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    cluster.install(1, false).unwrap();
    cluster.activate(1);
    cluster.upload(2);
    cluster.install(2, true).unwrap();
    let reject = Work::Reject { plugin: "p".into(), digest: digest(2), why: "member 3: no".into() };
    cluster.member.planned(&own(reject.clone()));
    cluster.member.settle();
    assert_eq!(cluster.member.plan(&own(reject)), Verdict::Dropped);
    assert_eq!((cluster.call(), cluster.blobs()), (Ok(1), 1));
    assert_eq!(cluster.info().rejected.as_deref(), Some("member 3: no"));
    assert!(!cluster.activate(2));
}

#[test]
fn one_that_keeps_failing_is_suspended_and_can_be_enabled_again() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    cluster.install(1, false).unwrap();
    cluster.activate(1);
    let trap = |cluster: &mut Cluster| code(&cluster.run(Op::Call(support::call("p", "trap"))));
    for _ in 0..49 {
        assert_eq!(trap(&mut cluster), "plugin-failed");
    }
    assert_eq!(cluster.call(), Ok(1), "one that goes well begins the count anew");
    for _ in 0..49 {
        trap(&mut cluster);
    }
    assert_eq!(cluster.member.planner.failing(), []);
    trap(&mut cluster);
    let failing = cluster.member.planner.failing();
    assert_eq!(failing.len(), 1);
    let (plugin, why) = failing[0].clone();
    cluster.member.planned(&own(Work::Suspend { plugin, why }));
    cluster.member.settle();
    assert!(matches!(cluster.info().state, PluginState::Suspended { .. }));
    let refused = cluster.run(Op::Call(support::call("p", "number"))).unwrap_err();
    assert!(refused.to_string().contains("suspended: it failed 50 times"), "{refused}");
    cluster.manage(Action::Enable).unwrap();
    assert_eq!(cluster.call(), Err("plugin-disabled"), "it is made ready first");
    assert!(cluster.activate(1));
    assert_eq!(cluster.call(), Ok(1));
}

#[test]
fn a_suspended_trigger_that_is_closed_refuses_and_a_disabled_one_is_not_there() {
    let mut cluster = Cluster::new();
    cluster.upload(30);
    cluster.install(30, false).unwrap();
    cluster.activate(30);
    cluster.member.planned(&own(Work::Suspend { plugin: "p".into(), why: "it traps".into() }));
    cluster.member.settle();
    assert_eq!(code(&cluster.run(create("/app"))), "plugin-disabled");
    assert_eq!(code(&cluster.run(create("/elsewhere"))), "done");
    cluster.manage(Action::Disable).unwrap();
    assert_eq!(code(&cluster.run(create("/app"))), "done");
}

#[test]
fn what_is_uploaded_and_not_installed_is_bounded_and_forgotten() {
    let mut cluster = Cluster::new();
    let bytes = Bytes::from(vec![7; limits::COMPONENT_CHUNK]);
    let mut uploaded = 0;
    let full = (1_u8..=5).find_map(|number| {
        (0..64).find_map(|chunk| {
            let upload = Upload { digest: ComponentDigest([100 + number; 32]), chunk, bytes: bytes.clone() };
            match cluster.run(Op::Upload(upload)) {
                Ok(Value::Uploaded) => {
                    uploaded += bytes.len();
                    None
                }
                other => Some(other),
            }
        })
    });
    assert_eq!(code(&full.unwrap()), "limit");
    assert_eq!(uploaded, limits::UPLOAD_BYTES);
    let state = |cluster: &Cluster| -> row::State { query::state(&cluster.member.tables).unwrap() };
    assert_eq!(state(&cluster).uploaded, limits::UPLOAD_BYTES as u64);
    cluster.member.now_ms += limits::UPLOAD_KEPT_MS + 1;
    while let Verdict::Planned(_) = cluster.member.plan(&own(Work::Sweep)) {
        cluster.member.settle();
    }
    assert_eq!((cluster.blobs(), state(&cluster).uploaded), (0, 0));
    for (upload, expected) in [
        (Upload { digest: digest(1), chunk: 64, bytes: bytes.clone() }, "limit"),
        (Upload { digest: digest(1), chunk: 0, bytes: vec![0; limits::COMPONENT_CHUNK + 1].into() }, "limit"),
        (Upload { digest: digest(1), chunk: 0, bytes: Bytes::new() }, "bad-request"),
    ] {
        assert_eq!(code(&cluster.run(Op::Upload(upload))), expected);
    }
}

#[test]
fn only_who_administers_installs_and_nobody_allows_more_than_is_asked() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    let more = Need { paths: vec!["/secret/**".parse().unwrap()], ops: vec![Access::Read] };
    let greedy = Install { allowed: vec![more], ..install(1, false) };
    assert_eq!(code(&cluster.run(Op::Install(greedy))), "plugin-unfit");
    for name in ["", "Big", "a b", "a/b", &"x".repeat(65)] {
        let named = Install { name: name.into(), ..install(1, false) };
        assert_eq!(code(&cluster.run(Op::Install(named))), "plugin-unfit", "{name:?}");
    }
    let settings = Some(Bytes::from(vec![0; limits::SETTINGS_BYTES + 1]));
    assert_eq!(code(&cluster.run(Op::Install(Install { settings, ..install(1, false) }))), "limit");
    let lone = Install { shadow: true, ..install(1, false) };
    assert_eq!(code(&cluster.run(Op::Install(lone))), "plugin-unfit");
    cluster.install(1, false).unwrap();
    cluster.run(support::set_acl("/", "bob:crwda anyone:crwd")).unwrap();
    assert_eq!(code(&cluster.manage(Action::Disable)), "not-allowed");
    assert_eq!(code(&cluster.install(1, true)), "not-allowed");
    let upload = Upload { digest: digest(2), chunk: 0, bytes: scripts::component(2) };
    assert_eq!(code(&cluster.run(Op::Upload(upload))), "not-allowed");
}

#[test]
fn settings_are_for_administrators_and_budgets_can_be_set() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    let settings = Some(Bytes::from_static(b"secret"));
    cluster.run(Op::Install(Install { settings, ..install(1, false) })).unwrap();
    cluster.activate(1);
    let budgets = BudgetSettings { fuel: Some(5), ..BudgetSettings::default() };
    cluster.manage(Action::Budgets(budgets)).unwrap();
    cluster.run(support::set_acl("/", "alice:crwda anyone:crwd")).unwrap();
    let seen = |cluster: &Cluster, who: &str| {
        let query = Query::Plugins { name: Some("p".into()) };
        match query::answer(&cluster.member.tables, who, &query).unwrap().unwrap() {
            conclave_protocol::Answer::Plugins(plugins) => plugins[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(seen(&cluster, support::ALICE).settings, Bytes::from_static(b"secret"));
    assert_eq!(seen(&cluster, support::BOB).settings, Bytes::new());
    assert_eq!(seen(&cluster, support::BOB).budgets, budgets);
    assert_eq!(cluster.call(), Ok(1));
    let Plugin { older, .. } = query::plugin(&cluster.member.tables, "p").unwrap().unwrap();
    assert_eq!(older, []);
}

#[test]
fn a_member_that_lacks_an_active_plugin_does_not_begin_to_plan() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    cluster.install(1, false).unwrap();
    let begin = |cluster: &Cluster| {
        let tables = &cluster.member.tables;
        Planner::begin_term(9, tables.snapshot(), tables.kept(), Arc::clone(&cluster.scripts) as _).unwrap()
    };
    cluster.scripts.unready.lock().unwrap().push(digest(1));
    assert!(matches!(begin(&cluster), Begin::Planner(_)), "it is not active yet");
    cluster.activate(1);
    match begin(&cluster) {
        Begin::Missing { plugin, why } => {
            assert_eq!((plugin.as_str(), why.as_str()), ("p", "it can't be compiled here"))
        }
        Begin::Planner(_) => panic!("it plans without a plugin"),
    }
    cluster.scripts.unready.lock().unwrap().clear();
    assert!(matches!(begin(&cluster), Begin::Planner(_)));
}

#[test]
fn a_shadow_runs_beside_it_and_only_its_differences_are_told() {
    let mut cluster = Cluster::new();
    cluster.upload(1);
    cluster.install(1, false).unwrap();
    cluster.activate(1);
    cluster.upload(2);
    cluster.run(Op::Install(Install { shadow: true, ..install(2, true) })).unwrap();
    assert!(!cluster.activate(2), "a shadow does not become active by itself");
    assert_eq!(cluster.call(), Ok(1));
    let compared = |cluster: &Cluster| std::mem::take(&mut *cluster.scripts.compared.lock().unwrap());
    let told = "procedure number: done with 1 bytes now, done with 1 bytes as a shadow, and not the same";
    assert_eq!(compared(&cluster), [Some(told.to_owned())]);
    assert_eq!(code(&cluster.run(Op::Call(support::call("p", "trap")))), "plugin-failed");
    assert_eq!(compared(&cluster), [None], "both fail alike");
    cluster.manage(Action::Promote).unwrap();
    assert!(cluster.activate(2));
    assert_eq!(cluster.call(), Ok(2));
}
