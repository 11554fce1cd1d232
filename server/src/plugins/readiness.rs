//! Which components this member is to have ready, which it has, and which it can't have: what its threads share of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conclave_core::Fault;
use conclave_core::query;
use conclave_core::view::Base;
use conclave_protocol::plugin::{ComponentDigest, PluginState};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Engine;

/// How a component is on a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It can be run.
    Ready,
    /// It is being compiled, or the member does not know of it yet.
    NotYet,
    /// It can't be run there, and why.
    Cannot(String),
}

/// A component that a plugin's row names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    /// The plugin.
    pub(crate) plugin: String,
    /// Its digest.
    pub(crate) digest: ComponentDigest,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// What it is to the plugin.
    pub(crate) part: Part,
}

/// What a component is to its plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// It runs.
    Active,
    /// It is to run once enough members are ready.
    Pending,
    /// It runs beside the active one.
    Shadow,
    /// Calls that are parked began with it, or it may run again.
    Kept,
}

/// See the module.
pub(crate) struct Readiness {
    engine: Arc<dyn Engine>,
    inner: Mutex<Inner>,
    turn: Condvar,
    /// Changes when a component has become ready, or can't.
    changed: watch::Sender<u64>,
    counts: Counts,
}

#[derive(Default)]
struct Inner {
    /// Rows of plugins were written since the last look.
    look: bool,
    stopping: bool,
    /// What the last look found.
    wanted: Vec<Component>,
    failed: BTreeMap<ComponentDigest, String>,
    /// Why this member does not lead, though it was elected.
    lacks: Option<String>,
}

/// Numbers for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Components compiled.
    pub(crate) compiled: AtomicU64,
    /// Components that could not be.
    pub(crate) failed: AtomicU64,
    /// Milliseconds that the last one took.
    pub(crate) last_ms: AtomicU64,
    /// Plugins that became active by this member's proposal.
    pub(crate) activated: AtomicU64,
    /// Plugins that were rejected by it.
    pub(crate) rejected: AtomicU64,
    /// Milliseconds from when this member, leading, first saw the last of them waiting to its proposal.
    pub(crate) activation_ms: AtomicU64,
    /// Hand-overs because of a plugin that could not be run here.
    pub(crate) handed_over: AtomicU64,
}

impl Readiness {
    /// Of a member that runs plugins with this, and starts with this state.
    ///
    /// # Errors
    /// A fault of this member.
    pub(crate) fn new(engine: Arc<dyn Engine>, base: &dyn Base) -> Result<Self, Fault> {
        let wanted = components(base)?;
        // Before anything can have been made ready: of the disk goes what was removed while this member was not there.
        engine.retain(&|digest| wanted.iter().any(|component| component.digest == digest));
        let inner = Inner { look: true, wanted, ..Inner::default() };
        Ok(Self {
            engine,
            inner: Mutex::new(inner),
            turn: Condvar::new(),
            changed: watch::Sender::new(0),
            counts: Counts::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change of it is whole between statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs plugins here.
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Numbers for the metrics.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Rows of plugins were written: the compile thread looks what there is to do.
    pub(crate) fn look(&self) {
        self.lock().look = true;
        self.turn.notify_all();
    }

    /// The compile thread is to end.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.turn.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits until there is something to look for, or this time has passed: false when the thread is to end.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let idle = |inner: &mut Inner| !inner.look && !inner.stopping;
        let (mut inner, _) =
            self.turn.wait_timeout_while(self.lock(), most, idle).unwrap_or_else(PoisonError::into_inner);
        inner.look = false;
        !inner.stopping
    }

    /// Whether there is something new to look for: what is being done is not what is wanted any more.
    pub(super) fn is_stale(&self) -> bool {
        let inner = self.lock();
        inner.look || inner.stopping
    }

    /// These are wanted from now on. What was wanted before and is not any more is forgotten: never what a planner has made
    /// ready out of a state that the look behind this one will find.
    pub(super) fn want(&self, wanted: Vec<Component>) {
        let (gone, removed) = {
            let mut inner = self.lock();
            let before = std::mem::replace(&mut inner.wanted, wanted);
            let is_wanted = |digest: &ComponentDigest| inner.wanted.iter().any(|one| one.digest == *digest);
            let gone: BTreeSet<_> = before.iter().map(|one| one.digest).filter(|digest| !is_wanted(digest)).collect();
            let is_there = |plugin: &str| inner.wanted.iter().any(|one| one.plugin == plugin);
            let removed: BTreeSet<_> =
                before.iter().map(|one| one.plugin.clone()).filter(|plugin| !is_there(plugin)).collect();
            inner.failed.retain(|digest, _| !gone.contains(digest));
            (gone, removed)
        };
        if !gone.is_empty() {
            self.engine.retain(&|digest| !gone.contains(&digest));
        }
        removed.iter().for_each(|plugin| self.engine.forget(plugin));
        self.tell();
    }

    /// What is to be made ready, the most urgent first.
    pub(super) fn to_do(&self) -> Vec<Component> {
        let inner = self.lock();
        let is_open = |one: &&Component| !self.engine.is_ready(one.digest) && !inner.failed.contains_key(&one.digest);
        let mut open: Vec<Component> = inner.wanted.iter().filter(is_open).cloned().collect();
        open.sort_by_key(|one| one.part);
        open
    }

    /// A component was compiled, or can't be.
    pub(super) fn done(&self, component: &Component, result: Result<(), String>, took: Duration) {
        self.counts.last_ms.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let Component { plugin, digest, .. } = component;
        match result {
            Ok(()) => {
                self.counts.compiled.fetch_add(1, Ordering::Relaxed);
                tracing::info!(plugin, %digest, ?took, "a plugin's component is ready");
            }
            Err(why) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(plugin, %digest, ?took, why, "a plugin can't be run on this member");
                self.lock().failed.insert(*digest, why);
            }
        }
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Changes when a component has become ready, or can't, or others are wanted.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How a component is here. One that this member does not know to be wanted is not ready, even where it still is: it
    /// may be about to be forgotten.
    pub(crate) fn state(&self, digest: ComponentDigest) -> State {
        let inner = self.lock();
        if !inner.wanted.iter().any(|one| one.digest == digest) {
            return State::NotYet;
        }
        if self.engine.is_ready(digest) {
            return State::Ready;
        }
        inner.failed.get(&digest).map_or(State::NotYet, |why| State::Cannot(why.clone()))
    }

    /// Waits until a component can be run: the one that `look` finds in the applied state, or none if there is nothing to
    /// wait for.
    ///
    /// # Errors
    /// What `look` fails with.
    pub(crate) async fn can_run(&self, look: impl Fn() -> Result<Option<ComponentDigest>, Fault>) -> Result<(), Fault> {
        let mut changed = self.subscribe();
        loop {
            changed.mark_unchanged();
            if look()?.is_none_or(|digest| self.engine.is_ready(digest)) {
                return Ok(());
            }
            // The sender is this one's: it never ends before.
            let _ = changed.changed().await;
        }
    }

    /// Components of this part, of all plugins.
    pub(crate) fn of(&self, part: Part) -> Vec<Component> {
        self.lock().wanted.iter().filter(|one| one.part == part).cloned().collect()
    }

    /// What waits for members to be ready.
    pub(crate) fn pending(&self) -> Vec<Component> {
        let inner = self.lock();
        inner.wanted.iter().filter(|one| matches!(one.part, Part::Pending | Part::Shadow)).cloned().collect()
    }

    /// This member does not lead, though it was elected, and why; none: it does, or it was not.
    pub(crate) fn lacks(&self, why: Option<String>) {
        self.lock().lacks = why;
    }

    /// What there is to know of this member's plugins, if anything is amiss.
    pub(crate) fn note(&self) -> Option<String> {
        let inner = self.lock();
        if let Some(why) = &inner.lacks {
            return Some(why.clone());
        }
        let is_active = |one: &&Component| one.part == Part::Active;
        inner.wanted.iter().filter(is_active).find_map(|one| {
            let why = inner.failed.get(&one.digest).filter(|_| !self.engine.is_ready(one.digest))?;
            Some(format!("it can't run plugin {}, and so can't lead: {why}", one.plugin))
        })
    }
}

/// The components that a state's plugins name.
pub(super) fn components(base: &dyn Base) -> Result<Vec<Component>, Fault> {
    let mut found = Vec::new();
    for (plugin, row) in query::plugins(base)? {
        let info = &row.info;
        let present = match info.state {
            PluginState::Preparing => Part::Pending,
            PluginState::Active => Part::Active,
            PluginState::Disabled | PluginState::Suspended { .. } => Part::Kept,
        };
        let next = info.next.as_ref().map(|next| {
            let part = if next.shadow { Part::Shadow } else { Part::Pending };
            (&next.version, part)
        });
        let kept = info.previous.iter().chain(&row.older).map(|version| (version, Part::Kept));
        for (version, part) in std::iter::once((&info.version, present)).chain(next).chain(kept) {
            let (digest, bytes) = (version.digest, version.component_bytes);
            found.push(Component { plugin: plugin.clone(), digest, bytes, part });
        }
    }
    Ok(found)
}

/// Since when something waits, to tell how long it took.
#[derive(Debug, Default)]
pub(super) struct Since(BTreeMap<(String, ComponentDigest), Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    is_proposed: bool,
}

impl Since {
    /// These wait now; others do not any more.
    pub(super) fn keep(&mut self, pending: &[Component]) {
        let is_pending = |(plugin, digest): &(String, ComponentDigest)| {
            pending.iter().any(|one| one.plugin == *plugin && one.digest == *digest)
        };
        self.0.retain(|name, _| is_pending(name));
        for one in pending {
            let wait = Wait { since: Instant::now(), is_proposed: false };
            self.0.entry((one.plugin.clone(), one.digest)).or_insert(wait);
        }
    }

    /// What waited is decided: how long it has waited, milliseconds; none when that was told before, and is proposed again
    /// because it is not applied yet.
    pub(super) fn decided(&mut self, plugin: &str, digest: ComponentDigest) -> Option<u64> {
        let wait = self.0.get_mut(&(plugin.to_owned(), digest)).filter(|wait| !wait.is_proposed)?;
        wait.is_proposed = true;
        Some(u64::try_from(wait.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
