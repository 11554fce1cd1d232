//! Plugins in Rust: what a component would do, as a closure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use conclave_core::plan::Install;
use conclave_core::plugin::{Ended, Park, Ran, Reason, Run, Runner, Test, Wake, Wanted, What};
use conclave_core::view::{Stop, Tx};
use conclave_protocol::plugin::{Access, ComponentDigest, Manifest, Need, On, OnFailure, Procedure, RunsAs, Trigger};
use conclave_protocol::{ChangeKind, Create, Refusal};

use super::path;

pub(crate) type Script = fn(&mut Tx, &Run) -> Result<Ended, Refusal>;

/// Runs closures by the digest of the component that they stand for.
#[derive(Default)]
pub(crate) struct Scripts {
    scripts: BTreeMap<ComponentDigest, (Manifest, Script)>,
    pub(crate) unready: Mutex<Vec<ComponentDigest>>,
    pub(crate) compared: Mutex<Vec<Option<String>>>,
    pub(crate) runs: Mutex<Vec<(String, What)>>,
    /// What each run spends.
    fuel: u64,
}

impl Scripts {
    pub(crate) fn with(mut self, number: u8, manifest: Manifest, script: Script) -> Self {
        self.scripts.insert(digest(number), (manifest, script));
        self
    }

    /// Each run spends so much.
    pub(crate) fn spending(mut self, fuel: u64) -> Self {
        self.fuel = fuel;
        self
    }

    /// What has run since this was asked last: plugin, and what in a word.
    pub(crate) fn take_runs(&self) -> Vec<String> {
        let word = |(plugin, what): (String, What)| match what {
            What::Procedure { name, resumed, .. } => match resumed.map(|resumed| resumed.reason) {
                None => format!("{plugin} {name}"),
                Some(Reason::Change) => format!("{plugin} {name} again"),
                Some(reason) => format!("{plugin} {name} {reason:?}"),
            },
            What::Query { name, .. } => format!("{plugin} {name}"),
            What::Before { trigger, change } => {
                format!("{plugin} {trigger} {} {}", change.change.kind, change.change.path)
            }
            What::After { trigger, changes } => {
                let paths: Vec<String> =
                    changes.iter().map(|seen| format!("{} {}", seen.change.kind, seen.change.path)).collect();
                format!("{plugin} {trigger} {}", paths.join(", "))
            }
            What::SessionEnd { expired, .. } => format!("{plugin} session-end {expired}"),
            What::Timer { trigger } => format!("{plugin} {trigger}"),
        };
        std::mem::take(&mut *self.runs.lock().unwrap()).into_iter().map(word).collect()
    }
}

impl Runner for Scripts {
    fn inspect(&self, digest: ComponentDigest, _: &[u8]) -> Result<Manifest, String> {
        self.scripts.get(&digest).map(|(manifest, _)| manifest.clone()).ok_or_else(|| "it is no component".to_owned())
    }

    fn prepare(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        if self.is_ready(digest) {
            self.inspect(digest, component)
        } else {
            Err("it can't be compiled here".to_owned())
        }
    }

    fn is_ready(&self, digest: ComponentDigest) -> bool {
        self.scripts.contains_key(&digest) && !self.unready.lock().unwrap().contains(&digest)
    }

    fn run(&self, mut tx: Tx, run: Run) -> Ran {
        self.runs.lock().unwrap().push((run.plugin.clone(), run.what.clone()));
        let ended = match self.scripts.get(&run.digest) {
            Some((_, script)) => script(&mut tx, &run),
            None => Err(failed(&run, "not ready")),
        };
        Ran { tx, ended, fuel: self.fuel, args: None }
    }

    fn compared(&self, _: &str, difference: Option<String>) {
        self.compared.lock().unwrap().push(difference);
    }
}

pub(crate) fn digest(number: u8) -> ComponentDigest {
    ComponentDigest([number; 32])
}

/// The bytes of a component that has this digest, as far as scripts are concerned.
pub(crate) fn component(number: u8) -> Bytes {
    vec![number; 10].into()
}

pub(crate) fn built_in(name: &str, number: u8) -> Install {
    Install { name: name.to_owned(), digest: digest(number), component: component(number) }
}

pub(crate) fn manifest() -> Manifest {
    let all = Need {
        paths: vec!["/**".parse().unwrap()],
        ops: vec![Access::Read, Access::Create, Access::Write, Access::Delete],
    };
    Manifest { name: "scripted".into(), version: "1".into(), needs: vec![all], ..Manifest::default() }
}

pub(crate) fn procedures(names: &[&str], parks: bool) -> Manifest {
    let procedure = |name: &&str| Procedure { name: (*name).to_owned(), params: Vec::new(), parks };
    Manifest { procedures: names.iter().map(procedure).collect(), ..manifest() }
}

pub(crate) fn trigger(on: On, pattern: &str) -> Trigger {
    let paths = if pattern.is_empty() { Vec::new() } else { vec![pattern.parse().unwrap()] };
    let (name, kinds) = (String::new(), Vec::new());
    Trigger { name, on, kinds, paths, order: 0, on_failure: OnFailure::Closed, every_ms: 0 }
}

pub(crate) fn triggers(triggers: Vec<Trigger>) -> Manifest {
    Manifest { triggers, ..manifest() }
}

pub(crate) fn of_kinds(trigger: Trigger, kinds: &[ChangeKind]) -> Trigger {
    Trigger { kinds: kinds.to_vec(), ..trigger }
}

pub(crate) fn as_itself(manifest: Manifest) -> Manifest {
    Manifest { runs_as: RunsAs::Plugin, ..manifest }
}

pub(crate) fn failed(run: &Run, why: &str) -> Refusal {
    Refusal::PluginFailed { plugin: run.plugin.clone(), why: why.to_owned() }
}

pub(crate) fn refused(run: &Run, message: &str) -> Refusal {
    Refusal::PluginRefused { plugin: run.plugin.clone(), message: message.to_owned() }
}

pub(crate) fn done(bytes: impl Into<Bytes>) -> Result<Ended, Refusal> {
    Ok(Ended::Done(bytes.into()))
}

pub(crate) fn park(at: &str, test: Test, wake: Wake) -> Result<Ended, Refusal> {
    let any_of = vec![Wanted { path: path(at), test }];
    Ok(Ended::Park(Park { any_of, wake, until_ms: None, state: Bytes::new() }))
}

/// Creates a znode, or tells the plugin's caller why not.
pub(crate) fn make(tx: &mut Tx, at: &str, data: impl Into<Bytes>) -> Result<String, Refusal> {
    put(tx, &Create { parents: true, ..Create::new(path(at), data) })
}

pub(crate) fn put(tx: &mut Tx, create: &Create) -> Result<String, Refusal> {
    match tx.create(create) {
        Ok((made, _)) => Ok(made.to_string()),
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Fault(fault)) => panic!("{fault}"),
    }
}

pub(crate) fn shared(scripts: Scripts) -> Arc<Scripts> {
    Arc::new(scripts)
}
