//! A tree in memory and a client for it: plugins are tested natively, without a cluster and without wasm.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::context::{Caller, Level};
use crate::tree::{Child, Create, Created, Page, Stat, Znode, refused};
use crate::{Answer, Args, Plugin, Result};

/// A tree that procedures can be called on, each call a transaction.
///
/// It knows no access lists, limits or fences; `conclave plugin` tries a component on a real tree.
#[derive(Debug, Default)]
pub struct TestTree {
    state: Rc<RefCell<State>>,
    settings: Vec<u8>,
}

/// The whole state: cloned before a call, and put back when the call fails.
#[derive(Clone, Debug, Default)]
struct State {
    znodes: BTreeMap<String, Znode>,
    next_sequence: BTreeMap<String, u64>,
    zxid: u64,
    log: Vec<(Level, String)>,
}

impl TestTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        let tree = Self::default();
        tree.state.borrow_mut().znodes.insert("/".to_owned(), Znode::default());
        tree
    }

    /// With these settings of the plugin.
    #[must_use]
    pub fn settings(mut self, settings: &[u8]) -> Self {
        settings.clone_into(&mut self.settings);
        self
    }

    /// Creates a znode, parents too.
    ///
    /// # Errors
    /// `znode-exists`, `bad-path`.
    pub fn create(&self, path: &str, data: &str) -> Result<()> {
        let how = Create { parents: true, ..Create::default() };
        self.transaction(|tree| tree.create(path, data.as_bytes(), how)).map(drop)
    }

    /// A znode's data as text; none when there is no such znode or it is no text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.state.borrow().znodes.get(path).and_then(|znode| String::from_utf8(znode.data.clone()).ok())
    }

    /// Lines that the plugin has logged.
    #[must_use]
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.state.borrow().log.clone()
    }

    /// Calls a procedure in a session of the principal `spiffe://test/client/ci`: all that it writes, or nothing.
    ///
    /// # Errors
    /// What the procedure returns; also when there is none of this name.
    pub fn call<P: Plugin>(&self, procedure: &str, args: &[&str]) -> Result<Vec<u8>> {
        let args: Args = args.iter().copied().collect();
        // Through the bytes, as in the cluster.
        let args = Args::decode(&args.encode())?;
        let context = Context { state: Rc::clone(&self.state), settings: self.settings.clone() };
        let called = self.transaction(|tree| {
            P::call(procedure, &crate::Tree(tree.clone()), &crate::Context(context), &args)
                .unwrap_or_else(|| Err(format!("there is no procedure {procedure}").into()))
        });
        called.map(|Answer::Done(bytes)| bytes)
    }

    fn transaction<T>(&self, run: impl FnOnce(&Tree) -> Result<T>) -> Result<T> {
        let before = self.state.borrow().clone();
        self.state.borrow_mut().zxid += 1;
        let done = run(&Tree(Rc::clone(&self.state)));
        if done.is_err() {
            *self.state.borrow_mut() = State { zxid: before.zxid + 1, ..before };
        }
        done
    }
}

/// The tree that a procedure sees in a test.
#[derive(Clone)]
pub(crate) struct Tree(Rc<RefCell<State>>);

impl Tree {
    pub(crate) fn get(&self, path: &str) -> Result<Option<Znode>> {
        check(path)?;
        Ok(self.0.borrow().znodes.get(path).cloned())
    }

    pub(crate) fn exists(&self, path: &str) -> Result<Option<Stat>> {
        Ok(self.get(path)?.map(|znode| znode.stat))
    }

    pub(crate) fn children(&self, path: &str, after: Option<&str>, limit: u32, data: bool) -> Result<Page> {
        let parent = self.exists(path)?.ok_or_else(|| no_znode(path))?;
        let state = self.0.borrow();
        let prefix = prefix(path);
        let mut page = Page::default();
        if parent.children == 0 {
            return Ok(page);
        }
        for (at, znode) in state.znodes.range(prefix.clone()..).take_while(|(at, _)| at.starts_with(&prefix)) {
            let name = &at[prefix.len()..];
            if name.is_empty() || name.contains('/') || after.is_some_and(|after| name <= after) {
                continue;
            }
            if page.children.len() == limit as usize {
                page.more = true;
                break;
            }
            let data = data.then(|| znode.data.clone());
            page.children.push(Child { name: name.to_owned(), stat: znode.stat, data });
        }
        Ok(page)
    }

    pub(crate) fn create(&self, path: &str, data: &[u8], how: Create) -> Result<Created> {
        check(path)?;
        let above = parent(path).ok_or_else(|| exists(path))?;
        if self.exists(above)?.is_none() {
            if !how.parents {
                return Err(no_znode(above));
            }
            self.create(above, b"", Create { parents: true, ..Create::default() })?;
        }
        let mut state = self.0.borrow_mut();
        let mut path = path.to_owned();
        if how.sequential {
            let next = state.next_sequence.entry(above.to_owned()).or_default();
            path = format!("{path}{next:010}");
            *next += 1;
        }
        if state.znodes.contains_key(&path) {
            return Err(exists(&path));
        }
        let zxid = state.zxid;
        let stat = Stat {
            created: zxid,
            modified: zxid,
            children_modified: zxid,
            created_ms: now_ms(zxid),
            modified_ms: now_ms(zxid),
            owner: how.ephemeral.then_some(SESSION),
            data_bytes: data.len() as u64,
            ..Stat::default()
        };
        state.znodes.insert(path.clone(), Znode { data: data.to_vec(), stat });
        state.children_changed(&path, 1);
        Ok(Created { path, stat })
    }

    pub(crate) fn set(&self, path: &str, data: &[u8], if_version: Option<u64>) -> Result<Stat> {
        check(path)?;
        let mut state = self.0.borrow_mut();
        let zxid = state.zxid;
        let znode = state.znodes.get_mut(path).ok_or_else(|| no_znode(path))?;
        check_version(path, znode.stat.version, if_version)?;
        data.clone_into(&mut znode.data);
        znode.stat.version += 1;
        znode.stat.modified = zxid;
        znode.stat.modified_ms = now_ms(zxid);
        znode.stat.data_bytes = data.len() as u64;
        Ok(znode.stat)
    }

    pub(crate) fn delete(&self, path: &str, if_version: Option<u64>) -> Result<()> {
        let stat = self.exists(path)?.ok_or_else(|| no_znode(path))?;
        check_version(path, stat.version, if_version)?;
        if stat.children > 0 {
            return Err(refused("not-empty", format!("{path} has {} children", stat.children)));
        }
        let mut state = self.0.borrow_mut();
        state.znodes.remove(path);
        state.children_changed(path, -1);
        Ok(())
    }
}

impl State {
    fn children_changed(&mut self, child: &str, by: i64) {
        let zxid = self.zxid;
        if let Some(above) = parent(child).and_then(|above| self.znodes.get_mut(above)) {
            above.stat.children = above.stat.children.saturating_add_signed(by);
            above.stat.children_version += 1;
            above.stat.children_modified = zxid;
        }
    }
}

/// The context of a run in a test.
pub(crate) struct Context {
    state: Rc<RefCell<State>>,
    settings: Vec<u8>,
}

impl Context {
    pub(crate) fn now_ms(&self) -> u64 {
        now_ms(self.zxid())
    }

    pub(crate) fn zxid(&self) -> u64 {
        self.state.borrow().zxid
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        Some(Caller { principal: "spiffe://test/client/ci".to_owned(), session: Some(SESSION) })
    }

    pub(crate) fn settings(&self) -> Vec<u8> {
        self.settings.clone()
    }

    pub(crate) fn random(&self, bytes: u32) -> Vec<u8> {
        // A counter is as random as a test needs, and easy to predict.
        (0..bytes).map(|at| at.wrapping_add(self.zxid() as u32).to_le_bytes()[0]).collect()
    }

    pub(crate) fn log(&self, level: Level, line: &str) {
        self.state.borrow_mut().log.push((level, line.to_owned()));
    }
}

/// The session of every call in a test.
const SESSION: u64 = 1;

/// A second passes with each transaction.
fn now_ms(zxid: u64) -> u64 {
    1_700_000_000_000 + zxid * 1_000
}

fn check(path: &str) -> Result<()> {
    let names = path.strip_prefix('/').ok_or_else(|| refused("bad-path", format!("path {path:?} is relative")))?;
    if path != "/" && names.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(refused("bad-path", format!("path {path:?} has an empty name, . or .. in it")));
    }
    Ok(())
}

fn check_version(path: &str, actual: u64, expected: Option<u64>) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => {
            Err(refused("bad-version", format!("{path} is at version {actual}, you said {expected}")))
        }
        _ => Ok(()),
    }
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

fn prefix(path: &str) -> String {
    if path == "/" { path.to_owned() } else { format!("{path}/") }
}

fn no_znode(path: &str) -> crate::Error {
    refused("no-znode", format!("{path} does not exist"))
}

fn exists(path: &str) -> crate::Error {
    refused("znode-exists", format!("{path} exists already"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Tree};

    struct Sorter;

    fn fill(tree: &Tree, context: &Context, args: &Args) -> Result<String> {
        for name in ["b", "a", "c"] {
            tree.create(&format!("/{name}"), name.as_bytes(), Create::default())?;
        }
        let numbered = tree.create("/a/n-", b"", Create { sequential: true, ..Create::default() })?;
        context.log(Level::Info, &numbered.path);
        args.at_most(0)?;
        let page = tree.children_with_data("/", Some("a"), 1)?;
        tree.delete("/c")?;
        Ok(format!("{} {}", page.children[0].name, page.more))
    }

    crate::export!(Sorter: procedures(fill));

    #[test]
    fn a_call_is_a_transaction() {
        let tree = TestTree::new();
        let error = tree.call::<Sorter>("fill", &["x"]).unwrap_err();
        assert_eq!(error.to_string(), "argument x is one too many");
        assert_eq!(tree.text("/a"), None);
        assert_eq!(tree.call::<Sorter>("fill", &[]).unwrap(), b"b true");
        assert_eq!(tree.text("/a").as_deref(), Some("a"));
        assert_eq!(tree.text("/c"), None);
        assert_eq!(tree.logged(), [(Level::Info, "/a/n-0000000000".to_owned())]);
        assert_eq!(tree.call::<Sorter>("fill", &[]).unwrap_err().code(), Some("znode-exists"));
        assert!(tree.call::<Sorter>("empty", &[]).is_err());
    }

    #[test]
    fn versions_and_children_are_checked() {
        let tree = TestTree::new();
        tree.create("/a/b", "1").unwrap();
        tree.transaction(|t| {
            assert_eq!(t.delete("/a", None).unwrap_err().code(), Some("not-empty"));
            assert_eq!(t.set("/a/b", b"2", Some(1)).unwrap_err().code(), Some("bad-version"));
            assert_eq!(t.set("/a/b", b"2", Some(0)).unwrap().version, 1);
            assert_eq!(t.get("a").unwrap_err().code(), Some("bad-path"));
            t.delete("/a/b", Some(1))
        })
        .unwrap();
    }
}
