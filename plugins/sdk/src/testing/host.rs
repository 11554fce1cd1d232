//! What a run sees: the tree within its rights, with triggers before each change; and the context.

use std::cell::RefCell;
use std::rc::Rc;

use conclave_protocol::limits;
use conclave_protocol::plugin::{Access, On};

use super::world::{World, fits, kind_of, no_znode, prefix};
use crate::context::{Caller, Level};
use crate::tree::{Child, Create, Created, Page, Stat, Znode};
use crate::{Change, ChangeKind, Error, Path, Result, Verdict};

/// The tree that a run sees.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) rights: Rights,
}

/// What a run may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// A client, or the cluster itself.
    All,
    /// A plugin, with what its manifest needs.
    Plugin,
    /// A plugin that may only read: the name of what it is.
    Reads(&'static str),
}

impl Tree {
    fn may(&self, access: Access, path: &str) -> Result<()> {
        if self.rights == Rights::All {
            return Ok(());
        }
        if let Rights::Reads(what) = self.rights
            && access != Access::Read
        {
            return Err(Error::refused("read-only", format!("{what} may only read")));
        }
        let parsed =
            conclave_protocol::Path::parse(path).map_err(|error| Error::refused("bad-path", error.to_string()))?;
        let world = self.world.borrow();
        if world.manifest.needs.iter().any(|need| need.covers(access, &parsed)) {
            return Ok(());
        }
        let name = &world.manifest.name;
        Err(Error::refused(
            "not-allowed",
            format!("plugin {name} may not {access} {path}: its manifest does not need that"),
        ))
    }

    pub(crate) fn get(&self, path: &str) -> Result<Option<Znode>> {
        let path = Path::parse(path)?;
        self.may(Access::Read, &path)?;
        let world = self.world.borrow();
        Ok(world.node(&path).map(|node| Znode { data: node.data.clone(), stat: node.stat }))
    }

    pub(crate) fn exists(&self, path: &str) -> Result<Option<Stat>> {
        Ok(self.get(path)?.map(|znode| znode.stat))
    }

    pub(crate) fn children(
        &self,
        path: &str,
        begins: &str,
        after: Option<&str>,
        limit: u32,
        with_data: bool,
    ) -> Result<Page> {
        let parent = self.exists(path)?.ok_or_else(|| no_znode(path))?;
        let world = self.world.borrow();
        let above = prefix(path);
        let mut page = Page::default();
        if parent.children == 0 {
            return Ok(page);
        }
        let limit = limit.clamp(1, limits::PAGE_CHILDREN) as usize;
        for (at, node) in world.znodes.range(above.clone()..).take_while(|(at, _)| at.starts_with(&above)) {
            let name = &at[above.len()..];
            if name.is_empty() || name.contains('/') || !name.starts_with(begins) || after.is_some_and(|a| name <= a) {
                continue;
            }
            if page.children.len() == limit {
                page.more = true;
                break;
            }
            let data = if with_data { node.data.clone() } else { Vec::new() };
            page.children.push(Child { path: Path::parse(at)?, stat: node.stat, data });
        }
        Ok(page)
    }

    pub(crate) fn create(&self, path: &str, data: &[u8], how: Create) -> Result<Created> {
        let plan = self.world.borrow().plan_create(path, data, how);
        let Some((target, _)) = plan.as_ref().ok().and_then(|plan| plan.last()) else {
            self.may(if how.or_set { Access::Write } else { Access::Create }, path)?;
            plan?;
            let stat = self.set(path, data, None)?;
            return Ok(Created { path: Path::parse(path)?, stat });
        };
        let target = target.clone();
        let mut stat = Stat::default();
        for (path, is_parent) in plan? {
            self.may(Access::Create, &path)?;
            let (data, how) = if is_parent { (&b""[..], Create::default()) } else { (data, how) };
            let change = Change {
                kind: ChangeKind::Created,
                path: path.clone(),
                version: 0,
                data: Some(data.to_vec()),
                previous: None,
            };
            let data = self.ask_before(change)?.unwrap_or_default();
            stat = self.world.borrow_mut().create(&path, data, how);
        }
        Ok(Created { path: target, stat })
    }

    pub(crate) fn set(&self, path: &str, data: &[u8], if_version: Option<u64>) -> Result<Stat> {
        self.may(Access::Write, path)?;
        fits(data)?;
        let (path, node) = self.world.borrow().at_version(path, if_version)?;
        let change = Change {
            kind: ChangeKind::Data,
            path: path.clone(),
            version: node.stat.version + 1,
            data: Some(data.to_vec()),
            previous: Some(node.data),
        };
        let data = self.ask_before(change)?.unwrap_or_default();
        Ok(self.world.borrow_mut().set(&path, data))
    }

    pub(crate) fn delete(&self, path: &str, if_version: Option<u64>) -> Result<()> {
        self.may(Access::Delete, path)?;
        let (path, node) = self.world.borrow().at_version(path, if_version)?;
        if node.stat.children > 0 {
            return Err(Error::refused("not-empty", format!("{path} has {} children", node.stat.children)));
        }
        self.remove(&path)
    }

    pub(crate) fn delete_tree(&self, path: &str) -> Result<u64> {
        self.may(Access::Delete, path)?;
        let (path, _) = self.world.borrow().at_version(path, None)?;
        let all = self.world.borrow().below(&path);
        for path in &all {
            self.may(Access::Delete, path)?;
            self.remove(path)?;
        }
        Ok(all.len() as u64)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if path.as_str() == "/" {
            return Err(Error::refused("bad-request", "the root can't be deleted"));
        }
        let (_, node) = self.world.borrow().at_version(path, None)?;
        let (kind, version) = (ChangeKind::Deleted, node.stat.version);
        self.ask_before(Change { kind, path: path.clone(), version, data: None, previous: Some(node.data) })?;
        self.world.borrow_mut().delete(path);
        Ok(())
    }

    /// Asks the `before` triggers that watch the path, in their order; gives the data as they leave it.
    fn ask_before(&self, mut change: Change) -> Result<Option<Vec<u8>>> {
        let (mut triggers, exports, name) = {
            let world = self.world.borrow();
            (world.manifest.triggers.clone(), world.exports, world.manifest.name.clone())
        };
        triggers.retain(|trigger| trigger.on == On::Before && watches(trigger, &change));
        triggers.sort_by_key(|trigger| trigger.order);
        for trigger in triggers {
            let Some(check) = exports.before else { break };
            let reads = Self { world: Rc::clone(&self.world), rights: Rights::Reads("a before trigger") };
            let context = context(&self.world, trigger.name(), None);
            match check(&crate::Tree(reads), &context, &change) {
                Verdict::Allow => {}
                Verdict::Refuse(why) => return Err(Error::refused("plugin-refused", format!("{name}: {why}"))),
                Verdict::Rewrite(data) if change.data.is_some() => {
                    fits(&data)?;
                    change.data = Some(data);
                }
                Verdict::Rewrite(_) => {
                    let why = format!("plugin {name} failed: it rewrites a change that has no data");
                    return Err(Error::refused("plugin-failed", why));
                }
            }
        }
        Ok(change.data)
    }
}

/// Whether the trigger is of this change.
pub(super) fn watches(trigger: &conclave_protocol::plugin::Trigger, change: &Change) -> bool {
    let Ok(path) = conclave_protocol::Path::parse(&change.path) else { return false };
    trigger.is_of(kind_of(change.kind)) && trigger.paths.iter().any(|pattern| pattern.matches(&path))
}

/// The context of a run in the transaction at hand.
pub(super) fn context(world: &Rc<RefCell<World>>, trigger: &str, resumed: Option<crate::Resumed>) -> crate::Context {
    crate::Context { host: Context { world: Rc::clone(world) }, trigger: trigger.to_owned(), resumed }
}

/// The host's part of a context.
pub(crate) struct Context {
    world: Rc<RefCell<World>>,
}

impl Context {
    pub(crate) fn now_ms(&self) -> u64 {
        self.world.borrow().now_ms
    }

    pub(crate) fn zxid(&self) -> u64 {
        self.world.borrow().zxid
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        let world = self.world.borrow();
        world.tx.principal.clone().map(|principal| Caller { principal, session: world.tx.session })
    }

    pub(crate) fn ticket(&self) -> Option<u64> {
        self.world.borrow().tx.ticket
    }

    pub(crate) fn settings(&self) -> Vec<u8> {
        self.world.borrow().settings.clone()
    }

    pub(crate) fn random(&self, bytes: u32) -> Vec<u8> {
        // As predictable as the cluster's, and different from one transaction to the next.
        let mut state = self.zxid().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..bytes).map(|_| next()).collect()
    }

    pub(crate) fn log(&self, level: Level, line: &str) {
        self.world.borrow_mut().log.push((level, line.to_owned()));
    }
}
