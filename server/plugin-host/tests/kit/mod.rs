//! What the tests share: components made of misbehaving texts, and runs of them on a tree in memory.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use conclave_core::entry::Entry;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Install, Planner, Request, Work};
use conclave_core::plugin::{Ran, Run, Runner, What};
use conclave_core::view::{Tx, View};
pub(crate) use conclave_guests::{HEAD, PROCEDURE, component, guest, procedure};
use conclave_plugin_host::{Budgets, Host, manifest};
use conclave_protocol::plugin::{BudgetSettings, ComponentDigest, Manifest, Need};
use conclave_protocol::{Call, Create, Nonce, Op, Outcome, Path, Refusal, SessionId, Value, Zxid, codec};
use sha2::{Digest, Sha256};

/// One host for all tests of a file: only fuel, so that no test depends on how fast the machine is.
pub(crate) static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(unhurried()).unwrap());

/// Budgets without a clock.
pub(crate) fn unhurried() -> Budgets {
    Budgets { time: None, ..Budgets::default() }
}

/// The digest of a component.
pub(crate) fn digest(component: &[u8]) -> ComponentDigest {
    ComponentDigest(Sha256::digest(component).into())
}

/// All operations on these znodes.
pub(crate) fn allowed(paths: &[&str], ops: &str) -> Arc<[Need]> {
    let paths: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
    let ops: Vec<String> = ops.split_whitespace().map(|op| format!("{op:?}")).collect();
    let text = format!("{HEAD}{PROCEDURE}[[needs]]\npaths = [{}]\nops = [{}]", paths.join(", "), ops.join(", "));
    let Manifest { needs, .. } = manifest::parse(&text).unwrap();
    needs.into()
}

/// Everything.
pub(crate) fn everything() -> Arc<[Need]> {
    allowed(&["/**"], "read create write delete")
}

/// What runs by default: the procedure `run`, without arguments.
pub(crate) fn call() -> What {
    What::Procedure { name: "run".to_owned(), args: Bytes::new(), ticket: Zxid(7), resumed: None }
}

/// A run of a component as the plugin `guest`.
pub(crate) fn run_of(component: &[u8], what: What) -> Run {
    Run {
        plugin: "guest".to_owned(),
        digest: digest(component),
        settings: Bytes::new(),
        budgets: BudgetSettings::default(),
        fuel_left: u64::MAX,
        allowed: everything(),
        root: Path::root(),
        what,
    }
}

/// A transaction over a tree that has these znodes, without data.
pub(crate) fn tx(paths: &[&str], session: Option<SessionId>) -> Tx {
    let tables = MemTables::with_root("test", Vec::new()).unwrap();
    let mut tx = Tx::over(View::new(tables.snapshot()), 1_000, CALLER, session).unwrap();
    for path in paths {
        let create = Create { parents: true, ..Create::new(path.parse().unwrap(), Bytes::new()) };
        tx.create(&create).unwrap();
    }
    tx
}

/// Runs it on a tree with `/victim`.
pub(crate) fn run(host: &Host, component: &[u8], run: Run) -> Ran {
    host.compile(digest(component), component).unwrap();
    host.run(tx(&["/victim"], None), run)
}

/// Whether a znode is there.
pub(crate) fn is_there(tx: &mut Tx, path: &str) -> bool {
    tx.stat(&path.parse().unwrap()).unwrap().is_some()
}

/// Who calls.
pub(crate) const CALLER: &str = "spiffe://test/client/ci";

/// A planner over a tree in memory, with these plugins installed.
pub(crate) struct Leader {
    planner: Planner,
    nonce: u128,
}

impl Leader {
    /// With the first transaction planned.
    pub(crate) fn new(plugins: &[(&str, &[u8])], host: Host) -> Self {
        let install = |(name, component): &(&str, &[u8])| Install {
            name: (*name).to_owned(),
            digest: digest(component),
            component: component.to_vec().into(),
        };
        let tables = MemTables::new("test");
        let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(host)).unwrap();
        let work = Work::Genesis { plugins: plugins.iter().map(install).collect() };
        planner.plan(&Request { principal: String::new(), asked: Asked::Leader, fence: None, work }, 0).unwrap();
        Self { planner, nonce: 0 }
    }

    /// Plans an operation: its outcome.
    pub(crate) fn write(&mut self, op: Op) -> Result<Value, Refusal> {
        self.nonce += 1;
        let asked = Asked::Once { nonce: Nonce::new(self.nonce.to_be_bytes()), until_ms: 10_000 };
        let request = Request { principal: CALLER.into(), asked, fence: None, work: Work::Op(op) };
        self.planner.plan(&request, 1_000).unwrap();
        let entry = Entry::decode(&self.planner.cut().unwrap().payload).unwrap();
        codec::decode::<Outcome>(&entry.transactions.last().unwrap().outcome).unwrap()
    }

    /// Calls a procedure.
    pub(crate) fn call(&mut self, plugin: &str, procedure: &str, args: &[u8]) -> Result<Bytes, Refusal> {
        let args = Bytes::copy_from_slice(args);
        let call = Call { plugin: plugin.into(), procedure: procedure.into(), args, root: Path::root() };
        self.write(Op::Call(call)).map(|value| match value {
            Value::Called(bytes) => bytes,
            other => panic!("a call gave {other:?}"),
        })
    }

    /// Sets a znode's data.
    pub(crate) fn set(&mut self, path: &str) -> Result<Value, Refusal> {
        let data = Bytes::from_static(&[b'x'; 100]);
        self.write(Op::Set(conclave_protocol::Set { path: path.parse().unwrap(), data, if_version: None }))
    }

    /// Creates a znode.
    pub(crate) fn create(&mut self, path: &str) -> Result<Value, Refusal> {
        self.write(Op::Create(Create::new(path.parse().unwrap(), Bytes::new())))
    }
}
