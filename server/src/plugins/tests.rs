//! What is made ready, and when; with an engine that compiles nothing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Position, apply};
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Install, Planner, Request, Work};
use conclave_core::plugin::{Ran, Run, Runner};
use conclave_core::view::{Base, Tx};
use conclave_protocol::plugin::{Action, ComponentDigest, LogLine, Manage, Manifest, PluginStats};
use conclave_protocol::{Nonce, Op};

use super::readiness::Part;
use super::{Engine, Readiness, State, compile};

const ALICE: &str = "spiffe://test/client/alice";
/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says of each component what it was told to say.
#[derive(Default)]
struct Fake {
    ready: Mutex<BTreeSet<ComponentDigest>>,
    unfit: Mutex<BTreeSet<ComponentDigest>>,
    prepared: Mutex<Vec<ComponentDigest>>,
    forgotten: Mutex<Vec<String>>,
}

impl Runner for Fake {
    fn inspect(&self, _: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        Ok(Manifest { name: String::from_utf8_lossy(component).into_owned(), ..Manifest::default() })
    }

    fn prepare(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        self.prepared.lock().unwrap().push(digest);
        if self.unfit.lock().unwrap().contains(&digest) {
            return Err("no such instruction here".to_owned());
        }
        self.ready.lock().unwrap().insert(digest);
        self.inspect(digest, component)
    }

    fn is_ready(&self, digest: ComponentDigest) -> bool {
        self.ready.lock().unwrap().contains(&digest)
    }

    fn run(&self, _: Tx, run: Run) -> Ran {
        panic!("{run:?}")
    }

    fn compared(&self, _: &str, _: Option<String>) {}
}

impl Engine for Fake {
    fn retain(&self, wanted: &dyn Fn(ComponentDigest) -> bool) {
        self.ready.lock().unwrap().retain(|digest| wanted(*digest));
    }

    fn stats(&self, _: Option<&str>) -> Vec<PluginStats> {
        Vec::new()
    }

    fn log_after(&self, _: &str, _: u64) -> Vec<LogLine> {
        Vec::new()
    }

    fn forget(&self, plugin: &str) {
        self.forgotten.lock().unwrap().push(plugin.to_owned());
    }
}

fn digest(number: u8) -> ComponentDigest {
    ComponentDigest([number; 32])
}

/// A member's tables, and what runs its plugins.
struct Bench {
    tables: Arc<Mutex<MemTables>>,
    engine: Arc<Fake>,
    readiness: Arc<Readiness>,
}

impl Bench {
    /// With two plugins that are active, and nothing ready.
    fn new() -> Self {
        let planning = Arc::new(Fake::default());
        let mut tables = MemTables::new("test");
        let install = |(name, number): (&str, u8)| Install {
            name: name.to_owned(),
            digest: digest(number),
            component: Bytes::copy_from_slice(name.as_bytes()),
        };
        let work = Work::Genesis { plugins: [("one", 1), ("two", 2)].map(install).to_vec() };
        let genesis = Request { principal: String::new(), asked: Asked::Leader, fence: None, work };
        carry_out(&mut tables, planning, &genesis);
        let engine = Arc::new(Fake::default());
        let readiness = Arc::new(Readiness::new(Arc::clone(&engine) as Arc<dyn Engine>, &tables).unwrap());
        Self { tables: Arc::new(Mutex::new(tables)), engine, readiness }
    }

    fn manage(&self, number: u8, name: &str, what: Action) {
        let op = Op::Manage(Manage { name: name.to_owned(), what });
        let asked = Asked::Once { nonce: Nonce::new([number; 16]), until_ms: 10_000 };
        let request = Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) };
        carry_out(&mut self.tables.lock().unwrap(), Arc::clone(&self.engine), &request);
    }

    fn look(&self) {
        // As the thread does.
        assert!(self.readiness.wait(Duration::ZERO));
        let tables = Arc::clone(&self.tables);
        let open: Box<dyn Fn() -> Result<Box<dyn Base>, Fault> + Send> =
            Box::new(move || Ok(tables.lock().unwrap().snapshot()));
        compile::look(&self.readiness, &open).unwrap();
    }
}

fn carry_out(tables: &mut MemTables, runner: Arc<Fake>, request: &Request) {
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), runner).unwrap();
    planner.plan(request, 1_000).unwrap();
    let payload = planner.cut().unwrap().payload;
    let outcome = &conclave_core::entry::Entry::decode(&payload).unwrap().transactions[0].outcome;
    assert!(
        outcome.is_empty() || conclave_protocol::codec::decode::<conclave_protocol::Outcome>(outcome).unwrap().is_ok()
    );
    apply(tables, Position { term: 1, index: planner.last().0 }, &payload).unwrap();
}

#[test]
fn what_rows_of_plugins_name_is_made_ready_and_nothing_else() {
    let bench = Bench::new();
    assert_eq!(bench.readiness.state(digest(1)), State::NotYet);
    bench.look();
    assert_eq!([1, 2].map(|number| bench.readiness.state(digest(number))), [State::Ready, State::Ready]);
    assert_eq!(bench.readiness.state(digest(3)), State::NotYet, "nobody has named it");
    bench.look();
    assert_eq!(bench.engine.prepared.lock().unwrap().len(), 2, "it was compiled again");
}

#[test]
fn what_is_removed_is_forgotten_and_what_a_planner_made_ready_by_itself_is_not() {
    let bench = Bench::new();
    bench.look();
    // A new leader has found another component in a state that the compile thread has not looked at.
    bench.engine.ready.lock().unwrap().insert(digest(7));
    bench.manage(1, "one", Action::Remove);
    bench.look();
    assert!(!bench.engine.is_ready(digest(1)) && bench.engine.is_ready(digest(2)));
    assert!(bench.engine.is_ready(digest(7)), "taken from a planner that runs it");
    assert_eq!(*bench.engine.forgotten.lock().unwrap(), ["one"]);
    assert_eq!(bench.readiness.state(digest(7)), State::NotYet, "nor is it relied on");
}

#[test]
fn a_member_says_what_it_can_not_run_and_tries_again_what_is_named_anew() {
    let bench = Bench::new();
    bench.engine.unfit.lock().unwrap().insert(digest(2));
    bench.look();
    let cannot = State::Cannot("no such instruction here".to_owned());
    assert_eq!(bench.readiness.state(digest(2)), cannot);
    let note = bench.readiness.note().unwrap();
    assert!(note.contains("plugin two") && note.contains("no such instruction"), "{note}");
    bench.look();
    assert_eq!(bench.engine.prepared.lock().unwrap().len(), 2, "it was tried again for nothing");
    bench.manage(1, "two", Action::Remove);
    bench.look();
    assert_eq!((bench.readiness.state(digest(2)), bench.readiness.note()), (State::NotYet, None));
}

#[test]
fn what_is_enabled_again_waits_for_members_and_what_is_disabled_does_not() {
    let bench = Bench::new();
    let pending = || bench.readiness.pending().into_iter().map(|one| (one.plugin, one.part)).collect::<Vec<_>>();
    bench.manage(1, "one", Action::Disable);
    bench.look();
    assert_eq!(pending(), []);
    assert_eq!(bench.readiness.state(digest(1)), State::Ready, "it may be enabled at any time");
    bench.manage(2, "one", Action::Enable);
    bench.look();
    assert_eq!(pending(), [("one".to_owned(), Part::Pending)]);
}

#[test]
fn the_compile_thread_looks_when_it_is_told_and_ends_when_it_is_stopped() {
    let bench = Bench::new();
    let tables = Arc::clone(&bench.tables);
    let open = Box::new(move || Ok(tables.lock().unwrap().snapshot()));
    let thread = compile::spawn(Arc::clone(&bench.readiness), Vec::new(), open, Box::new(|fault| panic!("{fault}")));
    let until = Instant::now() + PATIENCE;
    let eventually = |what: &str, is: &dyn Fn() -> bool| {
        while !is() {
            assert!(Instant::now() < until, "{what}");
            std::thread::yield_now();
        }
    };
    eventually("it looks at the start", &|| bench.readiness.state(digest(2)) == State::Ready);
    bench.manage(1, "two", Action::Remove);
    bench.readiness.look();
    eventually("it looks when it is told", &|| !bench.engine.is_ready(digest(2)));
    bench.readiness.stop();
    thread.unwrap().join().unwrap();
}

#[test]
fn what_a_new_cluster_starts_with_is_compiled_before_there_is_any_state() {
    let engine = Arc::new(Fake::default());
    let tables = MemTables::new("test");
    let readiness = Arc::new(Readiness::new(Arc::clone(&engine) as Arc<dyn Engine>, &tables).unwrap());
    let open = Box::new(move || Ok(tables.snapshot()));
    let built_in = vec![Install { name: "one".to_owned(), digest: digest(1), component: Bytes::from_static(b"one") }];
    let thread = compile::spawn(Arc::clone(&readiness), built_in, open, Box::new(|fault| panic!("{fault}"))).unwrap();
    let until = Instant::now() + PATIENCE;
    while !engine.is_ready(digest(1)) {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    readiness.stop();
    thread.join().unwrap();
}

#[test]
fn a_member_that_was_elected_and_can_not_lead_says_so_until_it_does() {
    let bench = Bench::new();
    bench.readiness.lacks(Some("it does not lead, because it can't run plugin one".to_owned()));
    assert!(bench.readiness.note().unwrap().contains("does not lead"));
    bench.readiness.lacks(None);
    assert_eq!(bench.readiness.note(), None);
}

#[tokio::test]
async fn a_query_waits_until_its_component_is_ready_and_not_for_a_plugin_that_does_not_run() {
    let bench = Bench::new();
    let active = Mutex::new(Some(digest(1)));
    let mut waits = std::pin::pin!(bench.readiness.can_run(|| Ok(*active.lock().unwrap())));
    assert!(futures::poll!(&mut waits).is_pending(), "it is not ready");
    bench.look();
    waits.await.unwrap();
    // Another version is active by now.
    *active.lock().unwrap() = Some(digest(9));
    let mut waits = std::pin::pin!(bench.readiness.can_run(|| Ok(*active.lock().unwrap())));
    assert!(futures::poll!(&mut waits).is_pending());
    *active.lock().unwrap() = None;
    bench.look();
    waits.await.unwrap();
}
