//! A plugin tried out on a tree in memory: what `conclave plugin run` and `conclave plugin bench` do, without a cluster.
//!
//! It is the members' own planner that plans, and this crate that runs the component: triggers run as they would, and what
//! comes out is the transaction that a leader would have made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use conclave_core::Table;
use conclave_core::entry::Entry;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Install, Planner, Request, Verdict, Work};
use conclave_core::plugin::{Ended, Run, Runner, What};
use conclave_core::view::{Tx, View};
use conclave_protocol::plugin::{BudgetSettings, ComponentDigest, LogLine, Manifest, PluginStats};
use conclave_protocol::{Call, Create, Nonce, Op, Outcome, Path, Refusal, SessionId, Value, Zxid, codec};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Budgets, Host, hex};

/// Who calls, unless somebody else is named.
pub const PRINCIPAL: &str = "spiffe://local/client/cli";
/// Cluster time at the beginning, milliseconds, so that a run gives the same every time.
const NOW_MS: u64 = 1_700_000_000_000;
/// Bytes of a value that a report shows.
const SHOWN: usize = 200;

/// A tree, a component and a session: a cluster of one that nobody else sees.
pub struct Local {
    host: Host,
    planner: Planner,
    manifest: Manifest,
    digest: ComponentDigest,
    name: String,
    principal: String,
    session: SessionId,
    /// The last one of the session.
    sequence: u64,
    /// How many one-shot writes there were.
    once: u64,
    now_ms: u64,
    settings: Bytes,
    budgets: BudgetSettings,
}

/// A znode to begin with: its data, as text or as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree(pub BTreeMap<Path, serde_json::Value>);

/// A transaction that would have been made, or refused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// What the caller would be told.
    pub outcome: Told,
    /// What would happen to znodes, in order; of a refusal nothing.
    pub changes: Vec<Changed>,
    /// Rows that would be written to the members' tables, the bookkeeping of the request included.
    pub rows: Vec<RowWritten>,
    /// What the plugin logged.
    pub log: Vec<LogLine>,
    /// What its runs took so far.
    pub stats: Vec<PluginStats>,
}

/// What the caller would be told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The procedure's answer: as JSON where its CBOR can be shown so, and as it is, in hexadecimal.
    Answer {
        /// As JSON.
        json: Option<serde_json::Value>,
        /// As it is.
        cbor: String,
    },
    /// It parked: its answer comes later.
    Parked,
    /// The write was done.
    Done,
    /// No.
    Refused {
        /// The stable code.
        code: String,
        /// In words.
        message: String,
    },
}

/// A change of a znode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// `created`, `data`, `deleted` or `acl`.
    pub kind: String,
    /// Which znode.
    pub path: Path,
    /// The version of its data.
    pub version: u64,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowWritten {
    /// Which table.
    pub table: String,
    /// Its key, hexadecimal.
    pub key: String,
    /// Its bytes, as text where they are some; none: it is deleted.
    pub value: Option<String>,
}

/// What a call costs on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bench {
    /// How many were made.
    pub calls: u64,
    /// In a second, one after the other.
    pub calls_per_s: f64,
    /// Microseconds of a call: median, 99th percentile, greatest.
    pub time_us: [f64; 3],
    /// Fuel of the last call.
    pub fuel: u64,
}

impl Tree {
    /// The tree in a JSON text: an object from paths to data. Data that is no text is kept as JSON. Missing parents are made.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("the tree can't be read: {error}; it is an object from paths to data: {{\"/app/config\": \"on\"}}")
        })
    }

    fn data(value: &serde_json::Value) -> Bytes {
        match value {
            serde_json::Value::Null => Bytes::new(),
            serde_json::Value::String(text) => text.clone().into(),
            other => other.to_string().into(),
        }
    }
}

impl Local {
    /// This tree, with this component installed as its manifest's name, with all that it asks for allowed.
    ///
    /// # Errors
    /// Why the component can't run, or the tree can't be made.
    pub fn new(component: &[u8], tree: &Tree, settings: &[u8], budgets: BudgetSettings) -> Result<Self, String> {
        let host = Host::new(Budgets::default()).map_err(|error| error.to_string())?;
        let digest = ComponentDigest(Sha256::digest(component).into());
        let manifest = host.compile(digest, component).map_err(|error| error.to_string())?;
        let fault = |fault: conclave_core::Fault| fault.to_string();
        let tables = MemTables::new("local");
        let planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(host.clone())).map_err(fault)?;
        let mut local = Self {
            host,
            planner,
            digest,
            name: manifest.name.clone(),
            manifest,
            principal: PRINCIPAL.to_owned(),
            session: SessionId(0),
            sequence: 0,
            once: 0,
            now_ms: NOW_MS,
            settings: Bytes::copy_from_slice(settings),
            budgets,
        };
        let install = Install { name: local.name.clone(), digest, component: Bytes::copy_from_slice(component) };
        local.own(Work::Genesis { plugins: vec![install] })?;
        local.manage(conclave_protocol::plugin::Action::Disable)?;
        for (path, value) in &tree.0 {
            let create = Create { parents: true, or_set: true, ..Create::new(path.clone(), Tree::data(value)) };
            local.once(Work::Op(Op::Create(create)))?.map_err(|refusal| format!("{path}: {refusal}"))?;
        }
        local.manage(conclave_protocol::plugin::Action::Settings(Bytes::copy_from_slice(settings)))?;
        local.manage(conclave_protocol::plugin::Action::Budgets(budgets))?;
        local.manage(conclave_protocol::plugin::Action::Enable)?;
        // What the members' readiness would bring about.
        local.own(Work::Activate { plugin: local.name.clone(), digest })?;
        match local.once(Work::Open { timeout_ms: 30_000 })? {
            Ok(Value::Opened { session, .. }) => local.session = session,
            other => return Err(format!("no session can be opened: {other:?}")),
        }
        Ok(local)
    }

    /// The plugin's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Calls a procedure, with arguments as a client sends them, in a session.
    ///
    /// # Errors
    /// A fault of the tree, which would be a defect here.
    pub fn call(&mut self, procedure: &str, args: Bytes) -> Result<Planned, String> {
        let call = Call { plugin: self.name.clone(), procedure: procedure.to_owned(), args, root: Path::root() };
        self.write(Op::Call(call))
    }

    /// Makes a write as a client would, in a session: the plugin's triggers run.
    ///
    /// # Errors
    /// The same.
    pub fn write(&mut self, op: Op) -> Result<Planned, String> {
        self.sequence += 1;
        // Each reply is read before the next request is made.
        let (session, sequence) = (self.session, self.sequence);
        let asked = Asked::Session { session, sequence, floor: sequence, completed: Vec::new() };
        let seen = self.host.log_after(&self.name, 0).last().map_or(0, |line| line.number);
        let entry = self.plan(asked, Work::Op(op))?;
        let last = entry.transactions.last().ok_or("nothing was planned")?;
        let outcome: Outcome = codec::decode(&last.outcome).map_err(|error| error.to_string())?;
        let changes = last.changes.iter().map(|recorded| Changed {
            kind: recorded.change.kind.to_string(),
            path: recorded.change.path.clone(),
            version: recorded.change.version,
        });
        let rows = entry.rows.iter().map(|row| RowWritten {
            table: Table::of_number(row.table).map_or_else(|| row.table.to_string(), |table| table.name().to_owned()),
            key: hex(&row.key),
            value: row.value.as_ref().map(|value| shown(value)),
        });
        Ok(Planned {
            outcome: told(outcome),
            changes: changes.collect(),
            rows: rows.collect(),
            log: self.host.log_after(&self.name, seen),
            stats: self.host.stats(Some(&self.name)),
        })
    }

    /// Asks a query.
    ///
    /// # Errors
    /// A fault of the tree, which would be a defect here.
    pub fn query(&self, tree: &Tree, query: &str, args: Bytes) -> Result<Told, String> {
        let ran = self.host.run(over(tree)?, self.run(What::Query { name: query.to_owned(), args }));
        Ok(match ran.ended {
            Ok(Ended::Done(bytes)) => answer(&bytes),
            Ok(_) => Told::Done,
            Err(refusal) => refused(&refusal),
        })
    }

    /// Calls a procedure so often on this tree, each time as if it were the first time, and measures.
    ///
    /// # Errors
    /// What the first call was refused with; then there is nothing to measure.
    pub fn bench(&self, tree: &Tree, procedure: &str, args: &Bytes, calls: u64) -> Result<Bench, String> {
        let what = What::Procedure { name: procedure.to_owned(), args: args.clone(), ticket: Zxid(1), resumed: None };
        let mut tx = over(tree)?;
        let mut times = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
        let (mut fuel, mut total) = (0, 0);
        for _ in 0..calls.max(1) {
            // What the calls before wrote is seen by this one, as it would be; and a full transaction is begun anew.
            if tx.bytes_written() > conclave_protocol::limits::TRANSACTION_BYTES / 2 {
                tx = over(tree)?;
            }
            let began = Instant::now();
            let ran = self.host.run(tx, self.run(what.clone()));
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            total += took;
            times.saturating_record(took);
            ran.ended.map_err(|refusal| refusal.to_string())?;
            (tx, fuel) = (ran.tx, ran.fuel);
        }
        let us = |ns: u64| ns as f64 / 1_000.0;
        let calls_per_s = times.len() as f64 / (total.max(1) as f64 / 1e9);
        let time_us = [us(times.value_at_quantile(0.5)), us(times.value_at_quantile(0.99)), us(times.max())];
        Ok(Bench { calls: times.len(), calls_per_s, time_us, fuel })
    }

    fn run(&self, what: What) -> Run {
        Run {
            plugin: self.name.clone(),
            digest: self.digest,
            settings: self.settings.clone(),
            budgets: self.budgets,
            fuel_left: u64::MAX,
            allowed: self.manifest.needs.clone().into(),
            root: Path::root(),
            what,
        }
    }

    fn manage(&mut self, what: conclave_protocol::plugin::Action) -> Result<(), String> {
        let manage = conclave_protocol::plugin::Manage { name: self.name.clone(), what };
        self.once(Work::Op(Op::Manage(manage)))?.map(drop).map_err(|refusal| refusal.to_string())
    }

    fn own(&mut self, work: Work) -> Result<(), String> {
        self.plan(Asked::Leader, work).map(drop)
    }

    fn once(&mut self, work: Work) -> Result<Outcome, String> {
        self.once += 1;
        let nonce = Nonce::new(u128::from(self.once).to_be_bytes());
        let asked = Asked::Once { nonce, until_ms: self.now_ms + 10_000 };
        let entry = self.plan(asked, work)?;
        let outcome = entry.transactions.last().ok_or("nothing was planned")?.outcome.clone();
        codec::decode(&outcome).map_err(|error| error.to_string())
    }

    fn plan(&mut self, asked: Asked, work: Work) -> Result<Entry, String> {
        let principal = if asked == Asked::Leader { String::new() } else { self.principal.clone() };
        let request = Request { principal, asked, fence: None, work };
        let verdict = self.planner.plan(&request, self.now_ms).map_err(|fault| fault.to_string())?;
        match (verdict, self.planner.cut()) {
            (Verdict::Planned(_), Some(cut)) => Entry::decode(&cut.payload).map_err(|fault| fault.to_string()),
            (verdict, _) => Err(format!("nothing was planned: {verdict:?}")),
        }
    }
}

/// A transaction over this tree.
fn over(tree: &Tree) -> Result<Tx, String> {
    let fault = |fault: conclave_core::Fault| fault.to_string();
    let tables = MemTables::with_root("local", Vec::new()).map_err(fault)?;
    let mut tx = Tx::over(View::new(tables.snapshot()), NOW_MS, PRINCIPAL, None).map_err(fault)?;
    for (path, value) in &tree.0 {
        let create = Create { parents: true, or_set: true, ..Create::new(path.clone(), Tree::data(value)) };
        tx.create(&create).map_err(|stop| format!("{path}: {stop:?}"))?;
    }
    Ok(tx)
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Ok(Value::Called(bytes)) => answer(&bytes),
        Ok(Value::Parked) => Told::Parked,
        Ok(_) => Told::Done,
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Told {
    Told::Refused { code: refusal.code().to_owned(), message: refusal.to_string() }
}

fn answer(bytes: &[u8]) -> Told {
    // An answer of a plugin that keeps to its world is one item; of one that does not, its bytes are shown alone.
    Told::Answer { json: codec::decode(bytes).ok(), cbor: hex(bytes) }
}

/// Bytes as text where they are some, or in hexadecimal; not too many of them.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.chars().take(SHOWN).collect(),
        _ => hex(&bytes[..bytes.len().min(SHOWN / 2)]),
    }
}
