//! What people and programs read of plugins, word by word; what the command line says of them.

use conclave_client::plugin::{
    Access, Awaited, ComponentDigest, LogLine, Need, ParkedCall, PluginState, PluginStats, Procedure, RunsAs, Version,
};
use conclave_client::{MemberId, SessionId, Zxid};
use conclave_script::Dialect;

use super::*;

fn a_manifest() -> Manifest {
    let needs = vec![Need {
        paths: vec!["/queues/**".parse().unwrap()],
        ops: vec![Access::Read, Access::Create, Access::Delete],
    }];
    let params = ["queue: path", "visibility: duration = 30s"].map(|param| param.parse().unwrap()).to_vec();
    Manifest {
        name: "queue".into(),
        version: "0.1.0".into(),
        world: "conclave:plugin@0.1".into(),
        description: "Queues.".into(),
        needs,
        procedures: vec![Procedure { name: "take".into(), params, parks: true }],
        ..Manifest::default()
    }
}

fn info(state: PluginState) -> PluginInfo {
    let manifest = a_manifest();
    let allowed = manifest.needs.clone();
    PluginInfo {
        name: "queue".into(),
        state,
        version: Version { digest: ComponentDigest([0xab; 32]), component_bytes: 21_000, manifest, allowed },
        next: None,
        previous: None,
        settings: "{}".into(),
        budgets: BudgetSettings { time_ms: Some(50), ..BudgetSettings::default() },
        installer: "spiffe://example/client/admin".into(),
        activated: Some(Zxid(57)),
        parked: 2,
        rejected: None,
    }
}

#[test]
fn plugins_are_a_table_and_each_is_a_page() {
    let suspended = PluginState::Suspended { why: "it trapped 5 times".into(), at_ms: 0 };
    assert_eq!(
        show::list(&[info(PluginState::Active), info(suspended)]),
        "PLUGIN  VERSION  STATE      PARKED  PROCEDURES  TRIGGERS\n\
         queue   0.1.0    active          2           1         0\n\
         queue   0.1.0    suspended       2           1         0  it trapped 5 times\n"
    );
    assert_eq!(
        show::one(&info(PluginState::Active)),
        "plugin       queue 0.1.0\n             Queues.\nstate        active since zxid 57\n\
         component    21 KB, sha256:abababababab…\n\
         allowed      read, create, delete on /queues/** as the caller\n\
         procedures   take(queue: path, visibility: duration = 30s), may wait\n\
         budgets      time_ms=50\nsettings     2 bytes\nparked       2 calls\n\
         installed by spiffe://example/client/admin\n"
    );
}

#[test]
fn programs_get_every_field_of_a_plugin_by_its_name() {
    let value = conclave_script::plugins::info(&info(PluginState::Active));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let mut names: Vec<_> = keys(&value).split(' ').map(str::to_owned).collect();
    names.sort_unstable();
    assert_eq!(
        names.join(" "),
        "activated budgets installer name next parked previous rejected settings state version"
    );
    assert_eq!(value["version"]["needs"], json!([{ "paths": ["/queues/**"], "ops": ["read", "create", "delete"] }]));
    assert_eq!(value["version"]["digest"], "ab".repeat(32));
    assert_eq!(
        value["version"]["procedures"],
        json!([{ "name": "take", "params": ["queue: path", "visibility: duration = 30s"], "parks": true }])
    );
}

#[test]
fn who_waits_for_what_is_a_row() {
    let call = ParkedCall {
        plugin: "queue".into(),
        procedure: "take".into(),
        ticket: Zxid(57),
        session: SessionId(8),
        sequence: 3,
        principal: "spiffe://example/client/ci".into(),
        waits_for: vec![Awaited { path: "/queues/q".parse().unwrap(), test: "1 child or more".into() }],
        since_ms: 0,
        until_ms: None,
    };
    let dialect = Dialect::of("spiffe://example/client/me");
    assert_eq!(
        show::calls(&dialect, &[call]),
        "TICKET  PLUGIN  PROCEDURE  SESSION  PRINCIPAL  WAITS FOR\n    \
         57  queue   take             8  client/ci  /queues/q 1 child or more\n"
    );
}

#[test]
fn statistics_and_logs_are_lines() {
    let stats = PluginStats {
        plugin: "queue".into(),
        member: Some(MemberId(1)),
        runs: 1_204,
        refusals: 3,
        failures: 0,
        fuel: [9_000, 18_000, 20_000],
        time_us: [24, 61, 900],
        shadow: [100, 1],
        differences: vec!["take: done 1, not 2".into()],
    };
    assert_eq!(
        show::stats(std::slice::from_ref(&stats)),
        "PLUGIN  MEMBER  RUNS  REFUSED  FAILED  FUEL P99  TIME P50/P99  SHADOW\n\
         queue        1  1204        3       0     18000      24/61 µs  1 of 100 differ\n\
         queue: take: done 1, not 2\n"
    );
    assert_eq!(
        conclave_script::plugins::stats(&stats),
        json!({
            "plugin": "queue", "member": 1, "runs": 1204, "refusals": 3, "failures": 0,
            "fuel": { "p50": 9000, "p99": 18000, "max": 20000 }, "time_us": { "p50": 24, "p99": 61, "max": 900 },
            "shadow": { "runs": 100, "differences": 1, "first": ["take: done 1, not 2"] },
        })
    );
    let line = LogLine { number: 7, at_ms: 5, zxid: Zxid(57), level: "info".into(), line: "gave it away".into() };
    assert_eq!(show::log_line(&line), "info  zxid 57  gave it away");
    assert_eq!(
        conclave_script::plugins::log_line(&line),
        json!({ "number": 7, "at_ms": 5, "zxid": 57, "level": "info", "line": "gave it away" })
    );
}

#[test]
fn what_a_plugin_needs_is_said_in_words() {
    let itself = Manifest { runs_as: RunsAs::Plugin, ..a_manifest() };
    assert_eq!(in_words(&a_manifest()), ["read, create, delete on /queues/** as the caller"]);
    assert_eq!(in_words(&itself), ["read, create, delete on /queues/** as itself, plugin:queue"]);
}

#[test]
fn what_is_allowed_is_all_none_or_some_of_what_is_asked_for() {
    let said = |allow: &[&str]| {
        let allow: Vec<String> = allow.iter().map(|&one| one.to_owned()).collect();
        allow::said(&allow, &a_manifest())
    };
    assert_eq!(said(&[]).unwrap(), None);
    assert_eq!(said(&["asked"]).unwrap(), Some(Allowed::Asked));
    assert_eq!(said(&["none"]).unwrap(), Some(Allowed::These(Vec::new())));
    let some = Need { paths: vec!["/queues/**".parse().unwrap()], ops: vec![Access::Read, Access::Delete] };
    assert_eq!(said(&["read,delete:/queues/**"]).unwrap(), Some(Allowed::These(vec![some])));
    for (allow, why) in [
        (&["write:/queues/**"][..], "it does not ask for write on /queues/**"),
        (&["read:/other"], "it does not ask for read on /other"),
        (&["read:other"], "does not begin with '/'"),
        (&["look:/queues/**"], "none of read, create, write, delete"),
        (&["read"], "OPERATION,...:PATTERN"),
        (&["asked", "none"], "stand alone"),
    ] {
        let failure = said(allow).unwrap_err();
        assert!(failure.message().contains(why), "{}", failure.message());
        assert_eq!(failure.exit(), 2);
    }
}

#[test]
fn budgets_are_changed_one_by_one() {
    let change = |changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(|&one| one.to_owned()).collect();
        budget::change(BudgetSettings { fuel: Some(1), ..BudgetSettings::default() }, &changes)
    };
    let changed = change(&["time_ms=50", "fuel=default"]).unwrap();
    assert_eq!(changed, BudgetSettings { time_ms: Some(50), ..BudgetSettings::default() });
    for (text, why) in [("fuel", "NAME=NUMBER"), ("fuel=x", "no number"), ("gas=1", "none of fuel, time_ms")] {
        assert!(change(&[text]).unwrap_err().message().contains(why), "{text}");
    }
}

#[test]
fn a_budget_that_makes_no_sense_is_said_before_the_component_is_looked_at() {
    let terms = args::Terms { budget: vec!["gas=1".to_owned()], ..args::Terms::default() };
    let failure = allowed(Path::new("gate.wasm"), b"no component", &terms).unwrap_err();
    assert_eq!(failure.exit(), 2);
    assert!(failure.message().starts_with("error: --budget gas=1: \"gas\" is none of "), "{}", failure.message());
}

#[test]
fn an_installation_that_a_member_rejects_says_which_and_why() {
    let failure = not_active(Error::Rejected { plugin: "queue".into(), why: "member 2: it imports wasi:io".into() });
    assert_eq!((failure.exit(), failure.code()), (1, "rejected"));
    assert_eq!(
        failure.message(),
        "refused: rejected: a member can't run queue: member 2: it imports wasi:io. What was active before is so still."
    );
    let terms = args::Terms { wait: std::time::Duration::from_secs(60), ..args::Terms::default() };
    let failure = failed(Error::Unknown { why: Doubt::Activation }, &terms);
    assert_eq!((failure.exit(), failure.code()), (4, "outcome-unknown"));
}
