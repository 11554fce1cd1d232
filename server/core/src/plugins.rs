//! The installed plugins as the planner has them at hand: which triggers there are, and running any of it on a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::plugin::{ComponentDigest, Need, On, OnFailure, PluginInfo, PluginState, RunsAs, Trigger};
use conclave_protocol::{ChangeKind, Path, PathPattern, PatternName, Refusal};

use crate::authority::may_look;
use crate::plugin::{Ended, Ran, Run, Runner, What};
use crate::row::Plugin;
use crate::view::{Base, Stop, Tx};
use crate::{Fault, query};

/// Whom a plugin is to the tree's access lists when it runs as itself.
pub(crate) fn principal(plugin: &str) -> String {
    format!("plugin:{plugin}")
}

/// See the [module](self).
pub(crate) struct Plugins {
    pub(crate) runner: Arc<dyn Runner>,
    before: Index,
    after: Index,
    session_end: Vec<Bound>,
    /// By name, so that a call need not read what is as good as always the same.
    installed: BTreeMap<String, Installed>,
}

/// A plugin that is installed, in whatever state.
pub(crate) struct Installed {
    pub(crate) row: Plugin,
    ready: Arc<Ready>,
}

/// A trigger, and the plugin that it is of.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) plugin: Arc<Ready>,
    pub(crate) trigger: Arc<Trigger>,
}

/// What is needed of a plugin to run it.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) name: String,
    state: PluginState,
    digest: ComponentDigest,
    allowed: Arc<[Need]>,
    settings: Bytes,
    budgets: conclave_protocol::plugin::BudgetSettings,
    runs_as: RunsAs,
    /// Runs beside it.
    shadow: Option<(ComponentDigest, Arc<[Need]>)>,
}

/// Triggers by the names that their patterns begin with: a path that none is for costs a look or two.
#[derive(Default)]
struct Index {
    root: Branch,
    bound: Vec<Bound>,
}

#[derive(Default)]
struct Branch {
    below: BTreeMap<String, Self>,
    /// Numbers of triggers whose pattern goes on with other than a plain name here, or ends.
    here: Vec<(usize, PathPattern)>,
}

impl Plugins {
    /// None are installed.
    pub(crate) fn empty(runner: Arc<dyn Runner>) -> Self {
        Self {
            runner,
            before: Index::default(),
            after: Index::default(),
            session_end: Vec::new(),
            installed: BTreeMap::new(),
        }
    }

    /// Those that a state has.
    pub(crate) fn of(base: &dyn Base, runner: Arc<dyn Runner>) -> Result<Arc<Self>, Fault> {
        let mut all = Vec::new();
        let mut plugins = Self::empty(runner);
        for (name, row) in query::plugins(base)? {
            let ready = Arc::new(Ready::of(name.clone(), &row.info));
            for trigger in &row.info.version.manifest.triggers {
                all.push(Bound { plugin: Arc::clone(&ready), trigger: Arc::new(trigger.clone()) });
            }
            plugins.installed.insert(name, Installed { row, ready });
        }
        // Disabled and not yet active ones are as if they were not there. Suspended ones may have to refuse.
        all.retain(|bound| match bound.plugin.state {
            PluginState::Active => true,
            PluginState::Suspended { .. } => {
                matches!(bound.trigger.on, On::Before | On::After) && bound.trigger.on_failure == OnFailure::Closed
            }
            PluginState::Preparing | PluginState::Disabled => false,
        });
        all.sort_by(|a, b| (a.trigger.order, &a.plugin.name).cmp(&(b.trigger.order, &b.plugin.name)));
        for bound in all {
            match bound.trigger.on {
                On::Before => plugins.before.add(bound),
                On::After => plugins.after.add(bound),
                On::SessionEnd => plugins.session_end.push(bound),
                On::Timer => {}
            }
        }
        Ok(Arc::new(plugins))
    }

    /// Refuses a name that none has.
    pub(crate) fn installed(&self, name: &str) -> Result<&Installed, Refusal> {
        self.installed.get(name).ok_or_else(|| Refusal::NoPlugin { plugin: name.to_owned() })
    }

    /// `before` triggers of such a change, in order.
    pub(crate) fn before(&self, kind: ChangeKind, path: &Path) -> Vec<Bound> {
        self.before.of(kind, path)
    }

    /// `after` triggers of such a change, in order: their numbers.
    pub(crate) fn after(&self, kind: ChangeKind, path: &Path) -> Vec<usize> {
        self.after.numbers(kind, path)
    }

    /// Whether there is any `after` trigger at all.
    pub(crate) fn has_after(&self) -> bool {
        !self.after.bound.is_empty()
    }

    /// The `after` trigger of this number.
    pub(crate) fn after_trigger(&self, number: usize) -> Option<&Bound> {
        self.after.bound.get(number)
    }

    /// `session-end` triggers, in order.
    pub(crate) fn session_end(&self) -> &[Bound] {
        &self.session_end
    }
}

impl Installed {
    /// The version that runs.
    pub(crate) fn ready(&self) -> Arc<Ready> {
        Arc::clone(&self.ready)
    }

    /// With the component that a call began with.
    pub(crate) fn begun_with(&self, digest: ComponentDigest, allowed: &[Need]) -> Arc<Ready> {
        if self.ready.digest == digest {
            return self.ready();
        }
        let version = self.row.ran().find(|version| version.digest == digest);
        let runs_as = version.map_or(self.ready.runs_as, |version| version.manifest.runs_as);
        Arc::new(Ready { digest, allowed: allowed.into(), runs_as, shadow: None, ..Ready::clone(&self.ready) })
    }
}

impl Index {
    fn add(&mut self, bound: Bound) {
        let number = self.bound.len();
        for pattern in &bound.trigger.paths {
            let mut branch = &mut self.root;
            for name in pattern.names() {
                let PatternName::Literal(name) = name else { break };
                branch = branch.below.entry(name.to_owned()).or_default();
            }
            branch.here.push((number, pattern.clone()));
        }
        self.bound.push(bound);
    }

    fn numbers(&self, kind: ChangeKind, path: &Path) -> Vec<usize> {
        let mut found = Vec::new();
        if self.bound.is_empty() {
            return found;
        }
        let mut branch = Some(&self.root);
        let mut names = path.names();
        while let Some(here) = branch {
            let fits =
                |number: usize, pattern: &PathPattern| self.bound[number].trigger.is_of(kind) && pattern.matches(path);
            found
                .extend(here.here.iter().filter(|(number, pattern)| fits(*number, pattern)).map(|(number, _)| *number));
            branch = names.next().and_then(|name| here.below.get(name));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn of(&self, kind: ChangeKind, path: &Path) -> Vec<Bound> {
        self.numbers(kind, path).into_iter().map(|number| self.bound[number].clone()).collect()
    }
}

impl Ready {
    /// The version that is installed.
    pub(crate) fn of(name: String, info: &PluginInfo) -> Self {
        let shadow = info.next.as_ref().filter(|next| next.shadow);
        Self {
            name,
            state: info.state.clone(),
            digest: info.version.digest,
            allowed: info.version.allowed.clone().into(),
            settings: info.settings.clone(),
            budgets: info.budgets,
            runs_as: info.version.manifest.runs_as,
            shadow: shadow.map(|next| (next.version.digest, next.version.allowed.clone().into())),
        }
    }

    pub(crate) fn digest(&self) -> ComponentDigest {
        self.digest
    }

    /// Whether the tree is asked as the plugin itself: the leader's own work has no rights that could be lent.
    fn runs_as_itself(&self, tx: &Tx) -> bool {
        self.runs_as == RunsAs::Plugin || tx.actor().is_empty()
    }

    /// Refuses unless it may read at a path, as whom it runs: to wait for a change of a znode is to be told of it.
    pub(crate) fn may_wait_for(&self, tx: &Tx, path: &Path) -> Result<(), Stop> {
        let itself = self.runs_as_itself(tx).then(|| principal(&self.name));
        may_look(tx, itself.as_deref().unwrap_or_else(|| tx.actor()), path).map(drop)
    }

    /// Refuses when it does not run.
    pub(crate) fn runs(&self) -> Result<(), Refusal> {
        let state = match &self.state {
            PluginState::Active => return Ok(()),
            PluginState::Preparing => "not active yet: enough members have to be ready first".to_owned(),
            PluginState::Disabled => "disabled".to_owned(),
            PluginState::Suspended { why, .. } => format!("suspended: {why}"),
        };
        Err(Refusal::PluginDisabled { plugin: self.name.clone(), state })
    }

    /// Runs it, on this transaction. What it wrote stays also when it is refused: the caller undoes it.
    pub(crate) fn run(&self, tx: &mut Tx, root: &Path, what: What) -> Result<(Ended, Option<Bytes>), Stop> {
        let Some((digest, allowed)) = self.shadow.as_ref().filter(|(digest, _)| tx.plugins.runner.is_ready(*digest))
        else {
            return self.run_as(tx, self.digest, Arc::clone(&self.allowed), root, what);
        };
        let before = tx.savepoint();
        let runs = tx.runs.len();
        let beside = self.run_as(tx, *digest, Arc::clone(allowed), root, what.clone());
        let beside = Outcome::of(tx, beside)?;
        tx.runs.truncate(runs);
        tx.restore(before);
        let done = self.run_as(tx, self.digest, Arc::clone(&self.allowed), root, what.clone());
        let mine = Outcome::of(tx, done.clone())?;
        tx.plugins.runner.compared(&self.name, mine.difference(&beside, &what));
        done
    }

    fn run_as(
        &self,
        tx: &mut Tx,
        digest: ComponentDigest,
        allowed: Arc<[Need]>,
        root: &Path,
        what: What,
    ) -> Result<(Ended, Option<Bytes>), Stop> {
        if tx.fuel_left == 0 {
            let why = "budget exceeded: fuel of the transaction".to_owned();
            return Err(Refusal::PluginFailed { plugin: self.name.clone(), why }.into());
        }
        let runner = Arc::clone(&tx.plugins.runner);
        let before = tx.acting.clone();
        if self.runs_as_itself(tx) {
            tx.acting = Some(principal(&self.name));
        }
        let run = Run {
            plugin: self.name.clone(),
            digest,
            settings: self.settings.clone(),
            budgets: self.budgets,
            fuel_left: tx.fuel_left,
            allowed,
            root: root.clone(),
            what,
        };
        let Ran { tx: back, ended, fuel, args } =
            runner.run(std::mem::replace(tx, Tx::hollow(Arc::clone(&tx.plugins))), run);
        *tx = back;
        tx.acting = before;
        tx.fuel_left = tx.fuel_left.saturating_sub(fuel);
        // A fault below the plugin is this member's, whatever the plugin made of it.
        if let Some(fault) = tx.take_fault() {
            return Err(fault.into());
        }
        tx.runs.push((self.name.clone(), matches!(ended, Err(Refusal::PluginFailed { .. }))));
        Ok((ended?, args))
    }
}

/// What a run did, for a comparison.
struct Outcome {
    ended: Result<Ended, Refusal>,
    rows: Vec<(crate::Table, Vec<u8>, Option<Bytes>)>,
}

impl Outcome {
    fn of(tx: &Tx, done: Result<(Ended, Option<Bytes>), Stop>) -> Result<Self, Stop> {
        let ended = match done {
            Ok((ended, _)) => Ok(ended),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(fault @ Stop::Fault(_)) => return Err(fault),
        };
        Ok(Self { ended, rows: tx.rows().clone().into_rows().collect() })
    }

    fn difference(&self, beside: &Self, what: &What) -> Option<String> {
        if self.ended != beside.ended {
            return Some(format!(
                "{}: {} now, {} as a shadow, and not the same",
                words(what),
                ended(&self.ended),
                ended(&beside.ended)
            ));
        }
        let differs = self.rows != beside.rows;
        differs.then(|| {
            format!(
                "{}: {} rows written now, {} as a shadow, and not the same",
                words(what),
                self.rows.len(),
                beside.rows.len()
            )
        })
    }
}

fn words(what: &What) -> String {
    match what {
        What::Procedure { name, .. } => format!("procedure {name}"),
        What::Query { name, .. } => format!("query {name}"),
        What::Before { trigger, change } => format!("{trigger} of {}", change.change.path),
        What::After { trigger, changes } => format!("{trigger} of {} changes", changes.len()),
        What::SessionEnd { session, .. } => format!("end of session {session}"),
        What::Timer { trigger } => trigger.clone(),
    }
}

fn ended(ended: &Result<Ended, Refusal>) -> String {
    match ended {
        Ok(Ended::Done(bytes)) => format!("done with {} bytes", bytes.len()),
        Ok(Ended::Park(_)) => "parked".to_owned(),
        Ok(Ended::Verdict(crate::plugin::Verdict::Allow)) => "allowed".to_owned(),
        Ok(Ended::Verdict(crate::plugin::Verdict::Rewrite(_))) => "rewritten".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}
