//! The host: compiled components by digest, and one run of a procedure from start to answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use conclave_core::plan::{Procedure, Procedures};
use conclave_core::view::Tx;
use conclave_protocol::Refusal;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store, Trap};

use crate::bindings::Plugin;
use crate::bindings::exports::conclave::plugin::procedures;
use crate::manifest::Manifest;
use crate::run::Run;
use crate::ticker::Ticker;
use crate::{Budgets, Error, Exceeded, engine, shape};

/// Interfaces that a component may import; `types` comes with the two others.
const IMPORTS: [&str; 3] =
    ["conclave:plugin/types@0.1.0", "conclave:plugin/tree@0.1.0", "conclave:plugin/context@0.1.0"];
/// Characters of a guest's error that are told: they lie in replicated state.
const MESSAGE_CHARACTERS: usize = 1_024;
/// Why a call failed, when no budget did.
const TRAP: &str = "trap";
/// Why a call failed that came before its component: the planner's mistake, not the plugin's.
const NOT_PREPARED: &str = "not-prepared";

/// Compiles and runs plugins. Clones share everything.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    linker: Linker<Run>,
    budgets: Budgets,
    ticker: Option<Ticker>,
    ready: Mutex<HashMap<[u8; 32], Arc<Ready>>>,
}

/// A component that can run.
struct Ready {
    instance: InstancePre<Run>,
    manifest: Manifest,
    procedures: Option<procedures::GuestIndices>,
}

impl Host {
    /// A host with these budgets, and no components yet.
    ///
    /// # Errors
    /// [`Error::Engine`] when this machine can't run it.
    pub fn new(budgets: Budgets) -> Result<Self, Error> {
        let engine = engine::engine(&budgets)?;
        let mut linker = Linker::new(&engine);
        Plugin::add_to_linker::<_, HasSelf<Run>>(&mut linker, |run| run).map_err(broken)?;
        let ticker = budgets.time.map(|_| Ticker::start(&engine)).transpose();
        let ticker = ticker.map_err(|error| Error::Engine(error.to_string()))?;
        let ready = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { engine, linker, budgets, ticker, ready }) })
    }

    /// Makes a component ready, or finds that it is. Takes tens of milliseconds: call it ahead of time, from any
    /// thread; runs go on meanwhile. `digest` is the component's SHA-256.
    ///
    /// # Errors
    /// Why it can never run here.
    pub fn compile(&self, digest: [u8; 32], component: &[u8]) -> Result<(), Error> {
        if self.is_ready(digest) {
            return Ok(());
        }
        let ready = self.shared.compile(digest, component)?;
        self.shared.ready().insert(digest, Arc::new(ready));
        Ok(())
    }

    /// Whether the component of this digest can run.
    #[must_use]
    pub fn is_ready(&self, digest: [u8; 32]) -> bool {
        self.shared.ready().contains_key(&digest)
    }

    /// Forgets all components but these.
    pub fn retain(&self, mut wanted: impl FnMut(&[u8; 32]) -> bool) {
        self.shared.ready().retain(|digest, _| wanted(digest));
    }
}

impl Procedures for Host {
    fn prepare(&mut self, digest: [u8; 32], component: &[u8]) -> Result<(), String> {
        self.compile(digest, component).map_err(|error| error.to_string())
    }

    fn call(&mut self, tx: Tx, call: Procedure) -> (Tx, Result<Bytes, Refusal>) {
        let failed = |plugin: String, why: &str| Refusal::PluginFailed { plugin, why: why.to_owned() };
        let ready = self.shared.ready().get(&call.digest).cloned();
        let Some(ready) = ready else {
            return (tx, Err(failed(call.plugin, NOT_PREPARED)));
        };
        let (true, Some(indices)) = (ready.manifest.procedure(&call.procedure).is_some(), &ready.procedures) else {
            return (tx, Err(Refusal::NoProcedure { plugin: call.plugin, procedure: call.procedure }));
        };
        let run = Run::new(tx, call.plugin.clone(), call.settings, &self.shared.budgets);
        let (run, ended) = self.shared.run(run, |store| {
            let instance = ready.instance.instantiate(&mut *store)?;
            let guest = indices.load(&mut *store, &instance)?;
            guest.call_call(store, &call.procedure, &call.args)
        });
        let answer = match ended {
            Ok(Ok(procedures::Answer::Done(bytes))) if bytes.len() > self.shared.budgets.answer_bytes => {
                Err(failed(call.plugin, Exceeded::Bytes.name()))
            }
            Ok(Ok(procedures::Answer::Done(bytes))) => Ok(bytes.into()),
            Ok(Err(message)) => {
                let message = message.chars().take(MESSAGE_CHARACTERS).collect();
                Err(Refusal::PluginRefused { plugin: call.plugin, message })
            }
            Err(error) => {
                // The engine's text is for this member's log only: other versions say it in other words.
                tracing::debug!(target: "plugin", plugin = call.plugin, procedure = call.procedure, "{error:#}");
                Err(failed(call.plugin, why(&error)))
            }
        };
        (run.tx, answer)
    }
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Ready>>> {
        // Each change of the map is one call: a panic elsewhere leaves it whole.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, digest: [u8; 32], bytes: &[u8]) -> Result<Ready, Error> {
        shape::check(bytes, &self.budgets)?;
        let actual: [u8; 32] = Sha256::digest(bytes).into();
        if actual != digest {
            return Err(Error::Digest { expected: hex(&digest), actual: hex(&actual) });
        }
        let manifest = Manifest::read(bytes)?;
        let component = Component::new(&self.engine, bytes).map_err(|error| Error::Compile(format!("{error:#}")))?;
        let kind = component.component_type();
        if let Some((foreign, _)) = kind.imports(&self.engine).find(|(name, _)| !IMPORTS.contains(name)) {
            return Err(Error::ForeignImport(foreign.to_owned()));
        }
        let compile = |error: wasmtime::Error| Error::Compile(format!("{error:#}"));
        let instance = self.linker.instantiate_pre(&component).map_err(compile)?;
        let procedures = procedures::GuestIndices::new(&instance).ok();
        if procedures.is_none() && !manifest.procedures.is_empty() {
            return Err(Error::Export { what: "procedures", interface: "conclave:plugin/procedures@0.1.0" });
        }
        Ok(Ready { instance, manifest, procedures })
    }

    /// Runs a guest within the budgets; its data comes back, however it ended.
    fn run<T>(
        &self,
        run: Run,
        guest: impl FnOnce(&mut Store<Run>) -> wasmtime::Result<T>,
    ) -> (Run, wasmtime::Result<T>) {
        let mut store = Store::new(&self.engine, run);
        store.limiter(|run| run);
        store.set_hostcall_fuel(self.budgets.host_call_bytes);
        let ticking = self.ticker.as_ref().map(Ticker::running);
        if ticking.is_some() {
            store.epoch_deadline_callback(|store| store.data().at_tick());
            store.set_epoch_deadline(1);
        }
        let ended = store.set_fuel(self.budgets.fuel).and_then(|()| guest(&mut store));
        drop(ticking);
        (store.into_data(), ended)
    }
}

/// The name of what ended a run: a budget's, or `trap`.
fn why(error: &wasmtime::Error) -> &'static str {
    match (error.downcast_ref::<Exceeded>(), error.downcast_ref::<Trap>()) {
        (Some(exceeded), _) => exceeded.name(),
        (None, Some(Trap::OutOfFuel)) => Exceeded::Fuel.name(),
        _ => TRAP,
    }
}

fn broken(error: wasmtime::Error) -> Error {
    Error::Engine(format!("{error:#}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
