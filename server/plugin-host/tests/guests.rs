//! Guests that misbehave: each is refused with the name of what it did, what it wrote is undone, and the host goes on.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_core::entry::Entry;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Install, Planner, Procedures, Request, Work};
use conclave_plugin_host::{Budgets, Error, Host, manifest};
use conclave_protocol::{Call, Check, Create, Kind, Nonce, Op, Outcome, Path, Refusal, Step, Value, codec};
use sha2::{Digest, Sha256};

/// The checked-in counter; or one that was just built, in the directory that `CONCLAVE_PREBUILT` names.
static COUNTER: LazyLock<Vec<u8>> = LazyLock::new(|| match std::env::var_os("CONCLAVE_PREBUILT") {
    Some(made) => std::fs::read(std::path::Path::new(&made).join("counter.wasm")).unwrap(),
    None => include_bytes!("../../../plugins/prebuilt/counter.wasm").to_vec(),
});
const FRAME: &str = include_str!("guests/frame.wat");
const MANIFEST: &str =
    "name = \"guest\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\n[[procedure]]\nname = \"run\"\n";

/// Every file in `guests/`, and what its call is refused with; none for the one that behaves.
const GUESTS: [(&str, &str, Option<&str>); 9] = [
    ("well", include_str!("guests/well.wat"), None),
    ("loop", include_str!("guests/loop.wat"), Some("fuel")),
    ("memory", include_str!("guests/memory.wat"), Some("memory")),
    ("trap", include_str!("guests/trap.wat"), Some("trap")),
    ("stack", include_str!("guests/stack.wat"), Some("trap")),
    ("host-calls", include_str!("guests/host-calls.wat"), Some("host-calls")),
    ("bytes", include_str!("guests/bytes.wat"), Some("bytes")),
    ("wild-pointer", include_str!("guests/wild-pointer.wat"), Some("trap")),
    ("refusal", include_str!("guests/refusal.wat"), Some("refused")),
];

/// Only fuel, so that no test depends on how fast the machine is.
fn unhurried() -> Budgets {
    Budgets { time: None, ..Budgets::default() }
}

fn digest(component: &[u8]) -> [u8; 32] {
    Sha256::digest(component).into()
}

/// A component with this text and a manifest; every length here fits two bytes of LEB128.
fn component(wat: &str, manifest: &str) -> Vec<u8> {
    let leb = |length: usize| [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    let mut section = vec![manifest::SECTION.len() as u8];
    section.extend(manifest::SECTION.bytes().chain(manifest.bytes()));
    let mut bytes = wat::parse_str(wat).unwrap();
    bytes.push(0);
    bytes.extend(leb(section.len()));
    bytes.extend(section);
    bytes
}

fn guest(call: &str) -> Vec<u8> {
    component(&FRAME.replace("{{call}}", call), MANIFEST)
}

/// A planner over a tree in memory, with one plugin installed as `guest`.
struct Leader {
    planner: Planner,
    nonce: u8,
}

impl Leader {
    fn new(component: &[u8], host: Host) -> Self {
        let install = Install { name: "guest".into(), digest: digest(component), component: component.to_vec().into() };
        let tables = MemTables::with_root("test", vec![install]).unwrap();
        let planner = Planner::new(2, tables.snapshot(), tables.kept(), Box::new(host)).unwrap();
        Self { planner, nonce: 0 }
    }

    fn write(&mut self, op: Op) -> Result<Value, Refusal> {
        self.nonce += 1;
        let asked = Asked::Once { nonce: Nonce::new([self.nonce; 16]), until_ms: 10_000 };
        let request = Request { principal: "spiffe://test/client/ci".into(), asked, fence: None, work: Work::Op(op) };
        self.planner.plan(&request, 1_000).unwrap();
        let entry = Entry::decode(&self.planner.cut().unwrap().payload).unwrap();
        codec::decode::<Outcome>(&entry.transactions.last().unwrap().outcome).unwrap()
    }

    fn call(&mut self, procedure: &str, args: &[u8]) -> Result<Bytes, Refusal> {
        let args = Bytes::copy_from_slice(args);
        let call = Call { plugin: "guest".into(), procedure: procedure.into(), args };
        self.write(Op::Call(call)).map(|value| match value {
            Value::Called(bytes) => bytes,
            other => panic!("a call gave {other:?}"),
        })
    }

    fn create(&mut self, path: &str, data: &'static str) {
        let path = Path::parse(path).unwrap();
        self.write(Op::Create(Create { path, data: data.into(), kind: Kind::default(), parents: false })).unwrap();
    }

    fn version(&mut self, path: &str, version: u64) -> Result<Value, Refusal> {
        let path = Path::parse(path).unwrap();
        self.write(Op::Multi(vec![Step::Check(Check { path, if_version: Some(version) })]))
    }
}

#[test]
fn the_counter_reads_and_writes_in_one_transaction() {
    let mut leader = Leader::new(&COUNTER, Host::new(unhurried()).unwrap());
    assert_eq!(leader.call("increment", b"\x81\x65/hits").unwrap(), "1");
    assert_eq!(leader.call("increment", b"\x82\x65/hits\x6241").unwrap(), "42");
    assert_eq!(leader.call("read", b"\x81\x65/hits").unwrap(), "42");
    leader.version("/hits", 1).unwrap();
    assert_eq!(leader.call("increment", b"\x81\x68/a/b/new").unwrap(), "1");
}

#[test]
fn what_the_counter_refuses_is_told_in_its_words_and_changes_nothing() {
    let mut leader = Leader::new(&COUNTER, Host::new(unhurried()).unwrap());
    leader.create("/text", "x");
    let refused = leader.call("increment", b"\x81\x65/text").unwrap_err();
    let message = "/text: its data is not a number".to_owned();
    assert_eq!(refused, Refusal::PluginRefused { plugin: "guest".into(), message });
    leader.version("/text", 0).unwrap();
    assert!(matches!(leader.call("increment", b"garbage"), Err(Refusal::PluginRefused { .. })));
    assert!(matches!(leader.call("increment", b"\x81\x64hits"), Err(Refusal::PluginRefused { .. })));
    assert!(matches!(leader.call("empty", b""), Err(Refusal::NoProcedure { .. })));
}

#[test]
fn a_misbehaving_guest_is_refused_by_name_and_undone_and_the_host_goes_on() {
    let host = Host::new(unhurried()).unwrap();
    for (name, text, why) in GUESTS {
        let mut leader = Leader::new(&guest(text), host.clone());
        leader.create("/victim", "");
        // More often than there are instances in the pool: each is given back.
        for _ in 0..20 {
            let called = leader.call("run", b"");
            match (why, called) {
                (None, Ok(_)) => break,
                (Some("refused"), Err(Refusal::PluginRefused { message, .. })) => assert!(message.len() <= 1_024),
                (Some(why), Err(Refusal::PluginFailed { why: actual, .. })) => assert_eq!(actual, why, "{name}"),
                (_, called) => panic!("{name}: {called:?}"),
            }
        }
        assert_eq!(leader.version("/victim", 0).is_ok(), why.is_some(), "{name}");
    }
    let mut leader = Leader::new(&COUNTER, host);
    assert_eq!(leader.call("increment", b"\x81\x65/hits").unwrap(), "1");
}

#[test]
fn no_guest_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let known = GUESTS.iter().any(|(guest, ..)| name == format!("{guest}.wat"));
        assert!(known || name == "frame.wat", "{name} is in no test");
    }
}

#[test]
fn wall_clock_ends_a_run_that_has_fuel() {
    let time = Duration::from_millis(20);
    let host = Host::new(Budgets { fuel: u64::MAX / 2, time: Some(time), ..Budgets::default() }).unwrap();
    let mut leader = Leader::new(&guest(include_str!("guests/loop.wat")), host);
    leader.create("/victim", "");
    for _ in 0..3 {
        let started = Instant::now();
        let refused = leader.call("run", b"").unwrap_err();
        assert_eq!(refused, Refusal::PluginFailed { plugin: "guest".into(), why: "time".into() });
        assert!(started.elapsed() >= time);
    }
    leader.version("/victim", 0).unwrap();
}

#[test]
fn a_run_that_writes_too_many_rows_is_undone() {
    let host = Host::new(Budgets { rows: 0, ..unhurried() }).unwrap();
    let mut leader = Leader::new(&COUNTER, host);
    let refused = leader.call("increment", b"\x81\x65/hits").unwrap_err();
    assert_eq!(refused, Refusal::PluginFailed { plugin: "guest".into(), why: "rows".into() });
    assert_eq!(leader.version("/hits", 0).unwrap_err().code(), "no-znode");
    assert_eq!(leader.call("read", b"\x81\x65/hits").unwrap(), "0");
}

#[test]
fn what_can_never_run_is_refused_with_its_reason() {
    let host = Host::new(unhurried()).unwrap();
    let refused = |bytes: &[u8]| host.compile(digest(bytes), bytes).unwrap_err();
    assert!(matches!(refused(b"garbage"), Error::Malformed(_)));
    assert!(matches!(refused(b""), Error::Malformed(_)));
    assert!(matches!(refused(&wat::parse_str("(module)").unwrap()), Error::Malformed(_)));
    assert!(matches!(refused(&vec![0; (4 << 20) + 1]), Error::Large { what: "bytes", .. }));
    assert!(matches!(host.compile([0; 32], &COUNTER), Err(Error::Digest { .. })));
    assert!(matches!(refused(&wat::parse_str("(component)").unwrap()), Error::Manifest(_)));
    assert!(matches!(refused(&component("(component)", "name = 1")), Error::Manifest(_)));
    assert!(matches!(refused(&component("(component)", MANIFEST)), Error::Export { .. }));
    let foreign = component("(component (import \"wasi:clocks/wall-clock@0.2.0\" (instance)))", MANIFEST);
    assert_eq!(refused(&foreign), Error::ForeignImport("wasi:clocks/wall-clock@0.2.0".into()));
    let nested = "(component ".repeat(9) + &")".repeat(9);
    assert!(matches!(refused(&component(&nested, MANIFEST)), Error::Large { what: "levels of nesting", .. }));
    let modules = format!("(component {})", "(core module)".repeat(33));
    assert!(matches!(refused(&component(&modules, MANIFEST)), Error::Large { what: "core modules", .. }));
    for module in [
        "(memory 1 1 shared)",
        "(memory i64 1)",
        "(memory 1000)",
        "(memory 1) (memory 1)",
        "(type (struct (field i32)))",
        "(func (drop (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0))))",
    ] {
        let bytes = component(&format!("(component (core module {module}))"), MANIFEST);
        assert!(matches!(refused(&bytes), Error::Compile(_)), "{module}");
    }
    for cut in (0..COUNTER.len()).step_by(997) {
        refused(&COUNTER[..cut]);
    }
    host.compile(digest(&COUNTER), &COUNTER).unwrap();
    assert!(host.is_ready(digest(&COUNTER)));
}

#[test]
fn the_cache_is_shared_between_threads_and_forgets_what_nobody_wants() {
    let host = Host::new(unhurried()).unwrap();
    let ahead = host.clone();
    std::thread::spawn(move || ahead.compile(digest(&COUNTER), &COUNTER).unwrap()).join().unwrap();
    assert!(host.is_ready(digest(&COUNTER)));
    // Ready already: the bytes are not looked at.
    host.clone().prepare(digest(&COUNTER), b"").unwrap();
    host.retain(|_| false);
    assert!(!host.is_ready(digest(&COUNTER)));
}
