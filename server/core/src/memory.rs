//! The tables in memory: for tests, the simulator, and plugins that are tried out locally.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::Refusal;
use conclave_protocol::plugin::{ComponentDigest, Manifest};

use crate::apply::{Local, Position, Tables, apply};
use crate::digest::{Chain, Digest, RowHash};
use crate::plan::{Asked, Install, Planner, Request, Work};
use crate::plugin::{Ran, Run, Runner};
use crate::view::{Base, Row, Tx};
use crate::{Fault, Table, layer};

/// Sorted rows with their hashes.
type Rows = BTreeMap<Vec<u8>, (RowHash, Bytes)>;

/// Tables in memory. A clone or a snapshot costs a pointer a table; a table is copied when it is written to while an
/// older one is held.
#[derive(Clone, Debug, Default)]
pub struct MemTables {
    tables: [Arc<Rows>; Table::ALL.len()],
    local: Local,
}

impl MemTables {
    /// Empty ones, of this cluster.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let local = Local { chain: Chain::start(cluster), ..Local::default() };
        Self { local, ..Self::default() }
    }

    /// With the first transaction applied, as term 1 and index 1: a root, and these plugins.
    ///
    /// # Errors
    /// A fault, which would be a defect here.
    pub fn with_root(cluster: &str, plugins: Vec<Install>) -> Result<Self, Fault> {
        Self::with_plugins(cluster, plugins, Arc::new(NoPlugins))
    }

    /// The same, with what runs these plugins.
    ///
    /// # Errors
    /// A fault, which would be a defect here.
    pub fn with_plugins(cluster: &str, plugins: Vec<Install>, runner: Arc<dyn Runner>) -> Result<Self, Fault> {
        let mut tables = Self::new(cluster);
        let mut planner = Planner::new(1, tables.snapshot(), &tables.local, runner)?;
        let work = Work::Genesis { plugins };
        planner.plan(&Request { principal: String::new(), asked: Asked::Leader, fence: None, work }, 0)?;
        if let Some(cut) = planner.cut() {
            apply(&mut tables, Position { term: 1, index: 1 }, &cut.payload)?;
        }
        Ok(tables)
    }

    /// What they hold now; later writes do not change it.
    #[must_use]
    pub fn snapshot(&self) -> Box<dyn Base> {
        Box::new(self.clone())
    }

    /// What is kept beside them.
    #[must_use]
    pub fn kept(&self) -> &Local {
        &self.local
    }

    /// The digest, summed up from every row.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for table in Table::ALL.into_iter().filter(|table| table.is_digested()) {
            let hashes = self.rows(table).iter().map(|(key, (_, value))| RowHash::of(table, key, value));
            hashes.for_each(|hash| digest.add(hash));
        }
        digest
    }

    /// How many rows a table has.
    #[must_use]
    pub fn count(&self, table: Table) -> usize {
        self.rows(table).len()
    }

    /// Changes a row's bytes behind its hash's back, as a bad disk would.
    pub fn damage(&mut self, table: Table, key: &[u8], value: Bytes) {
        if let Some((_, damaged)) = Arc::make_mut(&mut self.tables[slot(table)]).get_mut(key) {
            *damaged = value;
        }
    }

    fn rows(&self, table: Table) -> &Rows {
        &self.tables[slot(table)]
    }
}

impl Tables for MemTables {
    fn write(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<Option<RowHash>, Fault> {
        let rows = Arc::make_mut(&mut self.tables[slot(table)]);
        let before = match value {
            Some(value) => {
                let row = (RowHash::of(table, key, value), Bytes::copy_from_slice(value));
                rows.insert(key.to_vec(), row)
            }
            None => rows.remove(key),
        };
        Ok(before.map(|(hash, _)| hash))
    }

    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.row(table, key)
    }

    fn after(&self, table: Table, key: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Fault> {
        let mut rows = self.rows(table).range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded));
        Ok(rows.next().map(|(key, (_, value))| (key.clone(), value.len())))
    }

    fn local(&mut self) -> &mut Local {
        &mut self.local
    }
}

impl Base for MemTables {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.rows(table).get(key).map(|row| verified(table, key, row)).transpose()
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, Fault> {
        let range = (layer::start(prefix, after), Bound::Unbounded);
        let rows = self.rows(table).range::<[u8], _>(range).take_while(|(key, _)| key.starts_with(prefix));
        rows.take(limit).map(|(key, row)| Ok((key.clone(), verified(table, key, row)?))).collect()
    }
}

fn verified(table: Table, key: &[u8], (hash, value): &(RowHash, Bytes)) -> Result<Bytes, Fault> {
    if *hash == RowHash::of(table, key, value) {
        return Ok(value.clone());
    }
    Err(Fault::Damaged { table, key: key.iter().map(|byte| format!("{byte:02x}")).collect() })
}

fn slot(table: Table) -> usize {
    usize::from(table.number()) - 1
}

/// Where no plugin can be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPlugins;

impl Runner for NoPlugins {
    fn inspect(&self, _: ComponentDigest, _: &[u8]) -> Result<Manifest, String> {
        Err("plugins can't be run here".to_owned())
    }

    fn prepare(&self, _: ComponentDigest, _: &[u8]) -> Result<Manifest, String> {
        Err("plugins can't be run here".to_owned())
    }

    fn is_ready(&self, _: ComponentDigest) -> bool {
        false
    }

    fn run(&self, tx: Tx, run: Run) -> Ran {
        let ended = Err(Refusal::PluginFailed { plugin: run.plugin, why: "it can't be run here".to_owned() });
        Ran { tx, ended, fuel: 0, args: None }
    }

    fn compared(&self, _: &str, _: Option<String>) {}
}
