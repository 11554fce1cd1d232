//! Samples of what has to do with plugins: manifests, versions, what is done to them, parked calls, logs.

use bytes::Bytes;

use super::samples::path;
use crate::plugin::{
    Access, Action, Awaited, BudgetSettings, ComponentDigest, Install, LogLine, Manage, Manifest, Need, Next, On,
    OnFailure, Param, ParkedCall, PluginInfo, PluginState, PluginStats, Procedure, RunsAs, Trigger, Upload, Version,
};
use crate::{Call, ChangeKind, MemberId, SessionId, Zxid};

pub(super) fn call(args: &'static [u8]) -> Call {
    let (plugin, procedure) = ("counter".to_owned(), "add".to_owned());
    Call { plugin, procedure, args: Bytes::from_static(args), root: path("/tenants/a") }
}

pub(super) fn needs() -> Vec<Need> {
    let ops = vec![Access::Read, Access::Create, Access::Write, Access::Delete];
    let paths = ["/queues/**", "/app/*/x?"].map(|pattern| pattern.parse().unwrap());
    vec![Need { paths: paths.to_vec(), ops }, Need { paths: Vec::new(), ops: Vec::new() }]
}

pub(super) fn budgets() -> BudgetSettings {
    BudgetSettings {
        fuel: Some(1),
        time_ms: Some(2),
        memory_bytes: Some(3),
        host_calls: Some(4),
        rows: Some(5),
        written_bytes: Some(6),
        read_bytes: Some(u64::MAX),
    }
}

fn triggers() -> Vec<Trigger> {
    let trigger = |on, on_failure| Trigger {
        name: String::new(),
        on,
        kinds: Vec::new(),
        paths: Vec::new(),
        order: 0,
        on_failure,
        every_ms: 0,
    };
    vec![
        Trigger {
            name: "gate".to_owned(),
            kinds: vec![ChangeKind::Created, ChangeKind::Data],
            paths: vec!["/app/**".parse().unwrap()],
            order: -3,
            ..trigger(On::Before, OnFailure::Open)
        },
        trigger(On::After, OnFailure::Closed),
        trigger(On::SessionEnd, OnFailure::Closed),
        Trigger { every_ms: 60_000, ..trigger(On::Timer, OnFailure::Closed) },
    ]
}

fn manifest() -> Manifest {
    let params = ["queue: path", "visibility: duration = 30s", "note?: text"];
    let params: Vec<Param> = params.map(|param| param.parse().unwrap()).to_vec();
    let take = Procedure { name: "take".to_owned(), params, parks: true };
    Manifest {
        name: "queue".to_owned(),
        version: "0.1.0".to_owned(),
        world: "conclave:plugin@0.1".to_owned(),
        description: "Queues.".to_owned(),
        runs_as: RunsAs::Plugin,
        needs: needs(),
        triggers: triggers(),
        procedures: vec![take.clone()],
        queries: vec![Procedure { parks: false, params: Vec::new(), ..take }],
    }
}

fn version(manifest: Manifest) -> Version {
    let digest = ComponentDigest(std::array::from_fn(|byte| u8::try_from(byte).unwrap()));
    Version { digest, component_bytes: 21_000, manifest, allowed: needs() }
}

pub(super) fn states() -> Vec<PluginState> {
    vec![
        PluginState::Preparing,
        PluginState::Active,
        PluginState::Disabled,
        PluginState::Suspended { why: "it trapped 5 times".to_owned(), at_ms: 1_700_000_000_000 },
    ]
}

/// A plugin in each state: the first has nothing that it can do without, the others have it all.
pub(super) fn infos() -> Vec<PluginInfo> {
    let bare = PluginInfo {
        name: "queue".to_owned(),
        state: PluginState::Preparing,
        version: version(Manifest { runs_as: RunsAs::Caller, ..manifest() }),
        next: None,
        previous: None,
        settings: Bytes::new(),
        budgets: BudgetSettings::default(),
        installer: "spiffe://d/client/admin".to_owned(),
        activated: None,
        parked: 0,
        rejected: None,
    };
    let whole = |state| PluginInfo {
        state,
        next: Some(Next { version: version(manifest()), shadow: true }),
        previous: Some(version(manifest())),
        settings: Bytes::from_static(b"{}"),
        budgets: budgets(),
        activated: Some(Zxid(57)),
        parked: 2,
        rejected: Some("member 2: it imports wasi:io".to_owned()),
        ..bare.clone()
    };
    states()
        .into_iter()
        .map(|state| if state == PluginState::Preparing { bare.clone() } else { whole(state) })
        .collect()
}

pub(super) fn upload() -> Upload {
    Upload { digest: ComponentDigest([0xab; 32]), chunk: 3, bytes: Bytes::from_static(b"\0asm") }
}

pub(super) fn installs() -> Vec<Install> {
    let first = Install {
        name: "queue".to_owned(),
        digest: ComponentDigest([0xab; 32]),
        component_bytes: 21_000,
        allowed: Vec::new(),
        settings: None,
        budgets: None,
        upgrade: false,
        shadow: false,
    };
    let upgrade = Install {
        allowed: needs(),
        settings: Some(Bytes::from_static(b"{}")),
        budgets: Some(budgets()),
        upgrade: true,
        shadow: true,
        ..first.clone()
    };
    vec![first, upgrade]
}

pub(super) fn actions() -> Vec<Action> {
    vec![
        Action::Disable,
        Action::Enable,
        Action::Rollback,
        Action::Abandon,
        Action::Promote,
        Action::Remove,
        Action::Settings(Bytes::from_static(b"{}")),
        Action::Budgets(budgets()),
    ]
}

pub(super) fn manages() -> Vec<Manage> {
    actions().into_iter().map(|what| Manage { name: "queue".to_owned(), what }).collect()
}

pub(super) fn parked(until_ms: Option<u64>) -> ParkedCall {
    ParkedCall {
        plugin: "queue".to_owned(),
        procedure: "take".to_owned(),
        ticket: Zxid(57),
        session: SessionId(8),
        sequence: 3,
        principal: "spiffe://d/client/ci".to_owned(),
        waits_for: vec![Awaited { path: path("/queues/q/items"), test: "1 child or more".to_owned() }],
        since_ms: 1_700_000_000_000,
        until_ms,
    }
}

pub(super) fn stats() -> Vec<PluginStats> {
    let whole = PluginStats {
        plugin: "queue".to_owned(),
        member: Some(MemberId(1)),
        runs: 1_204,
        refusals: 3,
        failures: 1,
        fuel: [9_000, 18_000, 20_000],
        time_us: [24, 61, 900],
        shadow: [100, 1],
        differences: vec!["take: done 1, not 2".to_owned()],
    };
    vec![whole, PluginStats { plugin: "queue".to_owned(), ..PluginStats::default() }]
}

pub(super) fn log() -> Vec<LogLine> {
    let (level, line) = ("info".to_owned(), "gave it away".to_owned());
    vec![LogLine { number: 7, at_ms: 1_700_000_000_000, zxid: Zxid(57), level, line }]
}
