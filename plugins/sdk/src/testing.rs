//! A tree in memory and clients for it: plugins are tested natively, without a cluster and without wasm.

mod args;
mod calls;
mod client;
mod host;
#[cfg(test)]
mod tests;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use conclave_protocol::plugin::{Manifest, On};

use calls::{Actor, Machine};
pub use client::{TestCall, TestClient};
use host::Rights;
pub(crate) use host::{Context, Tree};
use world::{CallState, Node, Session, World};

use crate::Plugin;
use crate::context::Level;
use crate::tree::{Create, Stat};

/// A tree with a plugin installed, on which each call is a transaction, as in a cluster: triggers run where the manifest says
/// so, calls park and are woken by what others change, sessions end, and time passes when it is told to.
///
/// What the manifest does not need is refused. Access lists, budgets and fences are not known here:
/// `conclave plugin run` tries a component within them.
#[derive(Clone)]
pub struct TestTree {
    machine: Machine,
}

impl TestTree {
    /// An empty tree, with the plugin as its `plugin.toml` says.
    ///
    /// # Panics
    /// When the manifest is wrong, or names what the plugin does not export, or the other way round.
    #[must_use]
    pub fn new<P: Plugin>() -> Self {
        Self::with_manifest::<P>(P::MANIFEST)
    }

    /// An empty tree, with the plugin as this manifest says.
    ///
    /// # Panics
    /// As of [`TestTree::new`].
    #[must_use]
    pub fn with_manifest<P: Plugin>(manifest: &str) -> Self {
        let manifest: Manifest = toml::from_str(manifest).unwrap_or_else(|error| panic!("plugin.toml: {error}"));
        let exports = P::exports();
        agree(&manifest, &exports);
        let now_ms = 1_700_000_000_000;
        let timers = manifest.triggers.iter().filter(|trigger| trigger.on == On::Timer);
        let timers = timers.map(|trigger| now_ms + trigger.every_ms.max(1)).collect();
        let world = World {
            manifest,
            exports,
            settings: Vec::new(),
            znodes: BTreeMap::from([("/".to_owned(), Node::default())]),
            zxid: 0,
            now_ms,
            sessions: BTreeMap::new(),
            next_session: 1,
            calls: BTreeMap::new(),
            wakes: VecDeque::new(),
            timers,
            log: Vec::new(),
            tx: world::Tx::default(),
        };
        Self { machine: Machine(Rc::new(RefCell::new(world))) }
    }

    /// With these settings of the plugin.
    #[must_use]
    pub fn settings(self, settings: impl AsRef<[u8]>) -> Self {
        settings.as_ref().clone_into(&mut self.machine.0.borrow_mut().settings);
        self
    }

    /// The session of the client of this name, whose principal is `spiffe://test/client/NAME`; a new one if it has none, or if
    /// that has ended.
    #[must_use]
    pub fn client(&self, name: &str) -> TestClient {
        let principal = principal(name);
        let open = {
            let world = self.machine.0.borrow();
            world.sessions.iter().find(|(_, session)| session.principal == principal).map(|(id, _)| *id)
        };
        match open {
            Some(session) => self.actor(principal, Some(session)),
            None => self.session(name),
        }
    }

    /// A new session of the client of this name, beside those that it has.
    #[must_use]
    pub fn session(&self, name: &str) -> TestClient {
        let principal = principal(name);
        let mut world = self.machine.0.borrow_mut();
        let id = world.next_session;
        world.next_session += 1;
        world.sessions.insert(id, Session { principal: principal.clone() });
        drop(world);
        self.actor(principal, Some(id))
    }

    /// The client of this name, without a session.
    #[must_use]
    pub fn without_session(&self, name: &str) -> TestClient {
        self.actor(principal(name), None)
    }

    fn actor(&self, principal: String, session: Option<u64>) -> TestClient {
        TestClient { machine: self.machine.clone(), actor: Actor { principal: Some(principal), session } }
    }

    /// Creates a znode, parents too, as a client without a session.
    ///
    /// # Panics
    /// When that is refused. [`TestClient::create`] gives the refusal.
    pub fn create(&self, path: &str, data: impl AsRef<[u8]>) {
        let made = self.without_session("root").create(path, data, Create::with_parents());
        assert!(made.is_ok(), "create {path}: {made:?}");
    }

    /// Sets a znode's data, as a client without a session.
    ///
    /// # Panics
    /// When that is refused.
    pub fn set(&self, path: &str, data: impl AsRef<[u8]>) {
        let set = self.without_session("root").set(path, data);
        assert!(set.is_ok(), "set {path}: {set:?}");
    }

    /// Deletes a znode, as a client without a session.
    ///
    /// # Panics
    /// When that is refused.
    pub fn delete(&self, path: &str) {
        let deleted = self.without_session("root").delete(path);
        assert!(deleted.is_ok(), "delete {path}: {deleted:?}");
    }

    /// A znode's data; none when there is no such znode.
    #[must_use]
    pub fn data(&self, path: &str) -> Option<Vec<u8>> {
        self.machine.0.borrow().node(path).map(|node| node.data.clone())
    }

    /// A znode's data as text; none when there is no such znode or it is no text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.data(path).and_then(|data| String::from_utf8(data).ok())
    }

    /// A znode's stat; none when there is no such znode.
    #[must_use]
    pub fn stat(&self, path: &str) -> Option<Stat> {
        self.machine.0.borrow().node(path).map(|node| node.stat)
    }

    /// The names of a znode's children, in order; none of one that does not exist.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let children = self.machine.tree(Rights::All).children(path).all().unwrap_or_default();
        children.iter().map(|child| child.name().to_owned()).collect()
    }

    /// Every path, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.machine.0.borrow().znodes.keys().cloned().collect()
    }

    /// Lets so many milliseconds pass: what is due meanwhile happens, each at its time.
    pub fn advance(&self, ms: u64) {
        self.machine.advance(ms);
    }

    /// Cluster time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.machine.0.borrow().now_ms
    }

    /// How many calls are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        let world = self.machine.0.borrow();
        world.calls.values().filter(|call| matches!(call.state, CallState::Parked(_))).count()
    }

    /// Lines that the plugin has logged.
    #[must_use]
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.machine.0.borrow().log.clone()
    }
}

fn principal(name: &str) -> String {
    format!("spiffe://test/client/{name}")
}

/// The manifest names what is exported.
fn agree(manifest: &Manifest, exports: &crate::Exports) {
    let has = |on: On| manifest.triggers.iter().any(|trigger| trigger.on == on);
    for (on, named, exported) in [
        ("before", has(On::Before), exports.before.is_some()),
        ("after", has(On::After), exports.after.is_some()),
        ("session-end", has(On::SessionEnd), exports.session_end.is_some()),
        ("timer", has(On::Timer), exports.timer.is_some()),
        ("procedures", !manifest.procedures.is_empty(), exports.procedures.is_some()),
        ("queries", !manifest.queries.is_empty(), exports.queries.is_some()),
    ] {
        assert!(named == exported, "{on}: plugin.toml names it: {named}, the plugin exports it: {exported}");
    }
    let mut seen = BTreeSet::new();
    for (kind, named, exported) in
        [("procedure", &manifest.procedures, exports.procedures), ("query", &manifest.queries, exports.queries)]
    {
        for procedure in named {
            let name = procedure.name.replace('-', "_");
            let there = exported.is_some_and(|exported| exported(&name).is_some());
            assert!(there, "plugin.toml names the {kind} {}, the plugin exports none", procedure.name);
            assert!(seen.insert((kind, name)), "plugin.toml names the {kind} {} twice", procedure.name);
        }
    }
}
