//! From a component's bytes to something that can run: checked, compiled within a time, or taken from the cache.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};

use conclave_protocol::plugin::{ComponentDigest, Manifest, On};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::cache::Cache;
use crate::guest::Exports;
use crate::run::Run;
use crate::shape::Shape;
use crate::{Budgets, Error, WORLD, manifest};

/// What the names of all of the world's interfaces begin with.
const OURS: &str = "conclave:plugin/";
/// What they end in.
const VERSION: &str = "@0.1.0";
/// Interfaces that a component may import; `types` comes with the two others.
const IMPORTS: [&str; 3] = ["types", "tree", "context"];
/// Compilations that were given up and go on nevertheless: with so many, no more is begun.
const GIVEN_UP: usize = 2;
/// Components that are remembered as refused.
const REFUSED: usize = 1_000;

/// A component that can run.
pub(crate) struct Ready {
    pub(crate) instance: InstancePre<Run>,
    pub(crate) manifest: Manifest,
    pub(crate) exports: Exports,
}

/// Makes components ready, one thread each.
pub(crate) struct Compiler {
    /// Those that are being made ready now: whoever wants one of them too waits.
    busy: Mutex<HashSet<ComponentDigest>>,
    done: Condvar,
    /// Those that took too long.
    refused: Mutex<HashMap<ComponentDigest, Error>>,
    /// Each is held by a thread that compiles what nobody waits for any more.
    given_up: Mutex<Vec<Weak<()>>>,
}

/// While it lives, nobody else makes that component ready.
pub(crate) struct Turn<'a> {
    compiler: &'a Compiler,
    digest: ComponentDigest,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        Self { busy: Mutex::default(), done: Condvar::new(), refused: Mutex::default(), given_up: Mutex::default() }
    }

    /// Waits until nobody else makes this component ready.
    pub(crate) fn turn(&self, digest: ComponentDigest) -> Turn<'_> {
        let mut busy = lock(&self.busy);
        while !busy.insert(digest) {
            busy = self.done.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { compiler: self, digest }
    }

    /// Everything from bytes to what can run; see [`check`] for what is looked at first.
    pub(crate) fn make(
        &self,
        linker: &Linker<Run>,
        budgets: &Budgets,
        cache: Option<&Cache>,
        digest: ComponentDigest,
        bytes: &[u8],
    ) -> Result<Ready, Error> {
        let (manifest, _) = check(digest, bytes, budgets)?;
        let engine = linker.engine();
        let component = match cache.and_then(|cache| cache.load(engine, digest)) {
            Some(component) => component,
            None => {
                let component = self.compile(engine, budgets, digest, bytes)?;
                cache.inspect(|cache| cache.store(engine, digest, &component));
                component
            }
        };
        let compile = |error: wasmtime::Error| Error::Compile(format!("{error:#}"));
        let instance = linker.instantiate_pre(&component).map_err(compile)?;
        let exports = Exports::of(&instance);
        exports.hold_what(&manifest)?;
        Ok(Ready { instance, manifest, exports })
    }

    /// Forgets what was refused, but for these.
    pub(crate) fn retain(&self, wanted: &dyn Fn(&ComponentDigest) -> bool) {
        lock(&self.refused).retain(|digest, _| wanted(digest));
    }

    /// Compiles on a thread of its own, as nice as the caller's, and waits for so long. The compiler can't be stopped: a
    /// component that takes longer is refused from then on, while its thread goes on to its end, with what memory that
    /// takes. What is known to take long was refused by its shape before.
    fn compile(
        &self,
        engine: &Engine,
        budgets: &Budgets,
        digest: ComponentDigest,
        bytes: &[u8],
    ) -> Result<Component, Error> {
        if let Some(error) = lock(&self.refused).get(&digest) {
            return Err(error.clone());
        }
        let given_up = self.given_up();
        if given_up >= GIVEN_UP {
            return Err(Error::CompilerBusy(given_up));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (engine, bytes, alive) = (engine.clone(), bytes.to_vec(), Arc::new(()));
        let watched = Arc::downgrade(&alive);
        let compile = move || {
            let compiled = Component::new(&engine, bytes).map_err(|error| Error::Compile(format!("{error:#}")));
            // Nobody waits any more: then it is dropped.
            let _ = sender.send(compiled);
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("plugin-compile".to_owned());
        thread.spawn(compile).map_err(|error| Error::Engine(error.to_string()))?;
        match receiver.recv_timeout(budgets.compile) {
            Ok(compiled) => compiled,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Error::Compile("the compiler broke down on it".to_owned()))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                lock(&self.given_up).push(watched);
                let error = Error::CompileTime { seconds: budgets.compile.as_secs() };
                let mut refused = lock(&self.refused);
                if refused.len() >= REFUSED {
                    refused.clear();
                }
                refused.insert(digest, error.clone());
                Err(error)
            }
        }
    }
}

impl Compiler {
    /// How many compilations go on that nobody waits for.
    fn given_up(&self) -> usize {
        let mut given_up = lock(&self.given_up);
        given_up.retain(|thread| thread.strong_count() > 0);
        given_up.len()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.compiler.busy).remove(&self.digest);
        self.compiler.done.notify_all();
    }
}

impl Exports {
    /// Whether these are the interfaces that the manifest names, in the world's form.
    fn hold_what(&self, manifest: &Manifest) -> Result<(), Error> {
        let Self { procedures, queries, before, after, session_end, timer } = self;
        let has = [
            procedures.is_some(),
            queries.is_some(),
            before.is_some(),
            after.is_some(),
            session_end.is_some(),
            timer.is_some(),
        ];
        for ((interface, _, is_named), has) in named(manifest).into_iter().zip(has) {
            if is_named && !has {
                let form = format!("its interface {OURS}{interface}{VERSION} has another form than this member's");
                return Err(Error::Lies(format!("{form}: build it anew with the wit/ of this version")));
            }
        }
        Ok(())
    }
}

/// What can be said against a component without compiling it: its size and shape, its digest, its manifest, what it imports,
/// and whether it exports what its manifest names and nothing else of the world.
pub(crate) fn check(digest: ComponentDigest, bytes: &[u8], budgets: &Budgets) -> Result<(Manifest, Shape), Error> {
    let shape = Shape::of(bytes, budgets)?;
    let actual = ComponentDigest(Sha256::digest(bytes).into());
    if actual != digest {
        return Err(Error::Digest { expected: digest.to_string(), actual: actual.to_string() });
    }
    let is_import = |name: &str| ours(name).is_some_and(|name| IMPORTS.contains(&name));
    if let Some(foreign) = shape.imports.iter().find(|name| !is_import(name)) {
        return Err(Error::ForeignImport(foreign.clone()));
    }
    let manifest = manifest::read(bytes)?;
    let named = named(&manifest);
    for export in shape.exports.iter().filter(|name| name.starts_with(OURS)) {
        let Some((interface, key, is_named)) = named.iter().find(|(name, ..)| ours(export) == Some(name)) else {
            return Err(Error::Lies(format!("it exports {export}, which is not of {WORLD}")));
        };
        if !is_named {
            return Err(Error::Lies(format!(
                "it exports {interface}, and its manifest has no {key}: add one to plugin.toml, or leave the export out"
            )));
        }
    }
    for (interface, key, is_named) in named {
        if is_named && !shape.exports.iter().any(|export| ours(export) == Some(interface)) {
            return Err(Error::Lies(format!(
                "its manifest has a {key}, and it exports no {OURS}{interface}{VERSION}: export it, or take it out of plugin.toml"
            )));
        }
    }
    Ok((manifest, shape))
}

/// The interface's name in the world, if it is one of this version.
fn ours(name: &str) -> Option<&str> {
    name.strip_prefix(OURS)?.strip_suffix(VERSION)
}

/// The world's exports, what names each of them in a manifest, and whether this one does.
fn named(manifest: &Manifest) -> [(&'static str, &'static str, bool); 6] {
    let on = |on: On| manifest.triggers.iter().any(|trigger| trigger.on == on);
    [
        ("procedures", "[[procedure]]", !manifest.procedures.is_empty()),
        ("queries", "[[query]]", !manifest.queries.is_empty()),
        ("before", "[[trigger]] on = \"before\"", on(On::Before)),
        ("after", "[[trigger]] on = \"after\"", on(On::After)),
        ("session-end", "[[trigger]] on = \"session-end\"", on(On::SessionEnd)),
        ("timer", "[[trigger]] on = \"timer\"", on(On::Timer)),
    ]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
