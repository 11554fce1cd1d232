//! The host: compiled components by digest, and one run of any of them from start to answer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use conclave_core::plugin::{self, Ended, Ran, Runner, What};
use conclave_core::view::Tx;
use conclave_protocol::Refusal;
use conclave_protocol::plugin::{ComponentDigest, LogLine, Manifest, PluginStats};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Store, Trap};

use crate::bindings::Plugin;
use crate::cache::Cache;
use crate::compile::{self, Compiler, Ready};
use crate::guest::{self, Said};
use crate::record::{Came, Records};
use crate::run::Run;
use crate::slots::Slots;
use crate::ticker::Ticker;
use crate::{Budgets, Error, Exceeded, args, engine};

/// Why a run failed that came before its component: the planner's mistake, not the plugin's.
const NOT_PREPARED: &str = "not-prepared: this member has not compiled it yet";

/// Compiles and runs plugins. Clones share everything.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    linker: Linker<Run>,
    budgets: Budgets,
    ticker: Option<Ticker>,
    compiler: Compiler,
    cache: OnceLock<Cache>,
    ready: Mutex<HashMap<ComponentDigest, Arc<Ready>>>,
    /// For queries, of which there may be any number at a time.
    slots: Slots,
    records: Records,
}

impl Host {
    /// A host with these budgets, and no components yet.
    ///
    /// # Errors
    /// [`Error::Engine`] when this machine can't run it.
    pub fn new(budgets: Budgets) -> Result<Self, Error> {
        let broken = |error: wasmtime::Error| Error::Engine(format!("{error:#}"));
        let engine = engine::engine(&budgets)?;
        let mut linker = Linker::new(&engine);
        Plugin::add_to_linker::<_, HasSelf<Run>>(&mut linker, |run| run).map_err(broken)?;
        let ticker = budgets.time.map(|_| Ticker::start(&engine)).transpose();
        let ticker = ticker.map_err(|error| Error::Engine(error.to_string()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                linker,
                budgets,
                ticker,
                compiler: Compiler::new(),
                cache: OnceLock::new(),
                ready: Mutex::default(),
                slots: Slots::new(engine::QUERIES),
                records: Records::default(),
            }),
        })
    }

    /// Keeps compiled components in this folder from now on, and takes them from there, so that a restart need not compile
    /// them again. Once: later folders are not looked at.
    ///
    /// # Errors
    /// [`Error::Cache`]: the folder or its secret can't be made or read.
    pub fn with_cache(self, folder: &Path) -> Result<Self, Error> {
        self.with(Cache::open(folder, false)?)
    }

    /// As [`Host::with_cache`], in a folder that other hosts of this user have too: nothing is removed from it.
    ///
    /// # Errors
    /// [`Error::Cache`]: the folder or its secret can't be made or read.
    pub fn with_shared_cache(self, folder: &Path) -> Result<Self, Error> {
        self.with(Cache::open(folder, true)?)
    }

    fn with(self, cache: Cache) -> Result<Self, Error> {
        // A second one is dropped: what the first one keeps is as good.
        let _ = self.shared.cache.set(cache);
        Ok(self)
    }

    /// Makes a component ready, or finds that it is, and gives its manifest. Takes tens of milliseconds, and for a large
    /// component many seconds: call it ahead of time, from any thread; runs go on meanwhile. `digest` is the component's SHA-256.
    ///
    /// # Errors
    /// Why it can never run here, or takes too long to compile.
    pub fn compile(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, Error> {
        let _turn = self.shared.compiler.turn(digest);
        if let Some(ready) = self.shared.ready().get(&digest) {
            return Ok(ready.manifest.clone());
        }
        let Shared { linker, budgets, compiler, cache, .. } = &*self.shared;
        let ready = compiler.make(linker, budgets, cache.get(), digest, component)?;
        let manifest = ready.manifest.clone();
        self.shared.ready().insert(digest, Arc::new(ready));
        Ok(manifest)
    }

    /// Forgets all components but these, on the disk too.
    pub fn retain(&self, wanted: impl Fn(&ComponentDigest) -> bool) {
        self.shared.ready().retain(|digest, _| wanted(digest));
        self.shared.compiler.retain(&wanted);
        if let Some(cache) = self.shared.cache.get() {
            cache.retain(self.shared.linker.engine(), &wanted);
        }
    }

    /// What is known of the runs of a plugin, or of all that ran, since this host was made.
    #[must_use]
    pub fn stats(&self, plugin: Option<&str>) -> Vec<PluginStats> {
        match plugin {
            None => self.shared.records.stats(),
            Some(name) => {
                self.shared.records.find(name).map(|record| record.stats(name.to_owned())).into_iter().collect()
            }
        }
    }

    /// The lines of a plugin's log with numbers after this one, of the last thousand.
    #[must_use]
    pub fn log_after(&self, plugin: &str, number: u64) -> Vec<LogLine> {
        self.shared.records.find(plugin).map(|record| record.log_after(number)).unwrap_or_default()
    }

    /// Forgets what is known of a plugin's runs: it was removed.
    pub fn forget(&self, plugin: &str) {
        self.shared.records.forget(plugin);
    }
}

impl Runner for Host {
    fn inspect(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        let checked = compile::check(digest, component, &self.shared.budgets);
        checked.map(|(manifest, _)| manifest).map_err(|error| error.to_string())
    }

    fn prepare(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        self.compile(digest, component).map_err(|error| error.to_string())
    }

    fn is_ready(&self, digest: ComponentDigest) -> bool {
        self.shared.ready().contains_key(&digest)
    }

    fn run(&self, tx: Tx, run: plugin::Run) -> Ran {
        let ready = self.shared.ready().get(&run.digest).cloned();
        let prepared = match &ready {
            Some(ready) => Prepared::of(&run, ready).map(|prepared| (prepared, ready)),
            None => Err(Refusal::PluginFailed { plugin: run.plugin.clone(), why: NOT_PREPARED.to_owned() }),
        };
        match prepared {
            Ok((prepared, ready)) => self.shared.run(tx, &run, ready, prepared),
            Err(refusal) => Ran { tx, ended: Err(refusal), fuel: 0, args: None },
        }
    }

    fn compared(&self, plugin: &str, difference: Option<String>) {
        self.shared.records.of(plugin).compared(difference.as_deref());
    }
}

/// What is known before any code runs.
struct Prepared {
    /// Normalised, of a procedure and a query.
    args: Option<Bytes>,
    /// It may park.
    parks: bool,
}

impl Prepared {
    fn of(run: &plugin::Run, ready: &Ready) -> Result<Self, Refusal> {
        let plugin = || run.plugin.clone();
        let (procedure, args, again) = match &run.what {
            What::Procedure { name, args, resumed, .. } => {
                let missing = || Refusal::NoProcedure { plugin: plugin(), procedure: name.clone() };
                (ready.manifest.procedure(name).ok_or_else(missing)?, args, resumed.is_some())
            }
            What::Query { name, args } => {
                let missing = || Refusal::NoQuery { plugin: plugin(), query: name.clone() };
                (ready.manifest.query(name).ok_or_else(missing)?, args, false)
            }
            _ => return Ok(Self { args: None, parks: false }),
        };
        // Of one that is run again they are what the first run was given.
        let args = if again { Ok(args.clone()) } else { args::normalise(procedure, args) };
        let args =
            args.map_err(|why| Refusal::BadArguments { plugin: plugin(), procedure: procedure.name.clone(), why })?;
        Ok(Self { args: Some(args), parks: procedure.parks })
    }
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, HashMap<ComponentDigest, Arc<Ready>>> {
        // Each change of the map is one call: a panic elsewhere leaves it whole.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a guest within the budgets; the transaction comes back, however it ended.
    fn run(&self, tx: Tx, run: &plugin::Run, ready: &Ready, prepared: Prepared) -> Ran {
        let _slot = matches!(run.what, What::Query { .. }).then(|| self.slots.take());
        let began = Instant::now();
        let budgets = self.budgets.with(&run.budgets, run.fuel_left);
        let given = budgets.fuel;
        let mut store = Store::new(self.linker.engine(), Run::new(tx, run, budgets, self.records.of(&run.plugin)));
        store.limiter(|run| run);
        store.set_hostcall_fuel(self.budgets.host_call_bytes);
        let ticking = self.ticker.as_ref().map(Ticker::running);
        if ticking.is_some() {
            store.epoch_deadline_callback(|store| store.data().at_tick());
            store.set_epoch_deadline(1);
        }
        let args = prepared.args.as_deref().unwrap_or_default();
        let said = store
            .set_fuel(given)
            .and_then(|()| guest::call(&mut store, &ready.instance, &ready.exports, &run.what, (args, prepared.parks)));
        drop(ticking);
        let fuel = given.saturating_sub(store.get_fuel().unwrap_or(0));
        let data = store.into_data();
        if let Some(limit) = &data.limit {
            limit.end();
        }
        let ended = ended(&data, run, said);
        let came = match &ended {
            Ok(_) => Came::Well,
            Err(Refusal::PluginFailed { .. }) => Came::Failed,
            Err(_) => Came::Refused,
        };
        data.record.ran(came, fuel, began.elapsed());
        Ran { tx: data.tx, ended, fuel, args: prepared.args }
    }
}

/// What came of it, for the planner; and of a failure a line in the plugin's log.
fn ended(data: &Run, run: &plugin::Run, said: wasmtime::Result<Said>) -> Result<Ended, Refusal> {
    let plugin = run.plugin.clone();
    let (why, detail) = match said {
        Ok(Said::Ended(ended)) => return Ok(ended),
        Ok(Said::Refused(message)) => return Err(Refusal::PluginRefused { plugin, message }),
        Ok(Said::Stopped(refusal)) => return Err(refusal),
        Ok(Said::Wrong(why)) => (why, String::new()),
        // The engine's text is for this member's log only: other versions say it in other words.
        Err(error) => (why(&error, &data.budgets), format!(" ({error:#})")),
    };
    let what = words(&run.what);
    let detail: String = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    tracing::debug!(target: "plugin", plugin, "{what} failed: {why}{detail}");
    data.keep("error", format!("{what} failed, and is undone: {why}{detail}"));
    Err(Refusal::PluginFailed { plugin, why })
}

/// Why a run failed: a budget's name and what it is, or what kind of trap it was.
fn why(error: &wasmtime::Error, budgets: &Budgets) -> String {
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return exceeded.words(budgets);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Exceeded::Fuel.words(budgets),
        Some(Trap::UnreachableCodeReached) => "trap: it gave up (a panic)".to_owned(),
        Some(Trap::StackOverflow) => "trap: its stack is exhausted".to_owned(),
        Some(Trap::MemoryOutOfBounds | Trap::HeapMisaligned) => "trap: it left its memory".to_owned(),
        Some(Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature) => {
            "trap: it called what is no function".to_owned()
        }
        Some(Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger) => {
            "trap: it calculated what can't be".to_owned()
        }
        Some(_) => "trap".to_owned(),
        // The engine has no type for it that could be asked for.
        None if error.to_string().starts_with("too much data is being copied") => Exceeded::CallBytes.words(budgets),
        None => "trap: it broke the world's rules".to_owned(),
    }
}

fn words(what: &What) -> String {
    match what {
        What::Procedure { name, .. } => format!("procedure {name}"),
        What::Query { name, .. } => format!("query {name}"),
        What::Before { trigger, .. } | What::After { trigger, .. } | What::Timer { trigger } => {
            format!("trigger {trigger}")
        }
        What::SessionEnd { session, .. } => format!("session-end of {session}"),
    }
}
