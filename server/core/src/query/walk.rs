//! Walks a subtree: every znode in turn, parents before children, siblings in order of their names' bytes.

use conclave_protocol::{Path, Permission, Refusal, TreeEntry};

use crate::authority::{is_allowed, may_look};
use crate::row::{self, Znode};
use crate::tree;
use crate::view::{Base, Row, Stop};
use crate::{Fault, Table, ZnodeId, key};

/// Children that are read at a time.
const SCAN: usize = 1_000;

/// Where a walk through a subtree has come to. What the principal may not read is left out, with all below it.
#[derive(Debug)]
pub struct Walk {
    principal: String,
    data: bool,
    /// The top, until it was given.
    top: Option<(ZnodeId, Znode, Path)>,
    /// Znodes whose children are not all given.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    id: ZnodeId,
    path: Path,
    /// Rows of `Child` that were read and not given yet, the next one last.
    rows: Vec<Row>,
    /// The last row that was read.
    after: Option<Vec<u8>>,
    /// There may be more rows.
    more: bool,
}

impl Walk {
    /// From this znode on, with data or without.
    ///
    /// # Errors
    /// A fault of this member. A refusal is an answer: no such znode, or one that may not be read.
    pub fn new(base: &dyn Base, principal: &str, path: &Path, data: bool) -> Result<Result<Self, Refusal>, Fault> {
        match may_look(base, principal, path) {
            Ok(Some((id, znode))) => {
                let top = Some((id, znode, path.clone()));
                Ok(Ok(Self { principal: principal.to_owned(), data, top, levels: Vec::new() }))
            }
            Ok(None) => Ok(Err(Refusal::NoZnode { path: path.clone() })),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// The next znodes: at most so many, and none more once they have so many bytes of data. None: that was all.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn next(&mut self, base: &dyn Base, most: usize, most_bytes: usize) -> Result<Vec<TreeEntry>, Fault> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < most && bytes < most_bytes {
            let Some((id, znode, path)) = self.step(base)? else { break };
            let data = if self.data { Some(tree::data(base, id, &znode.stat)?) } else { None };
            bytes += data.as_ref().map_or(0, bytes::Bytes::len);
            if znode.stat.children > 0 {
                let level = Level { id, path: path.clone(), rows: Vec::new(), after: None, more: true };
                self.levels.push(level);
            }
            entries.push(TreeEntry { path, stat: znode.stat, data });
        }
        Ok(entries)
    }

    /// The next znode that may be read.
    fn step(&mut self, base: &dyn Base) -> Result<Option<(ZnodeId, Znode, Path)>, Fault> {
        if let Some(top) = self.top.take() {
            return Ok(Some(top));
        }
        while let Some(level) = self.levels.last_mut() {
            if level.rows.is_empty() && level.more {
                level.rows = base.scan(Table::Child, &key::child(level.id, ""), level.after.as_deref(), SCAN)?;
                level.more = level.rows.len() == SCAN;
                level.after = level.rows.last().map(|(key, _)| key.clone());
                level.rows.reverse();
            }
            let Some((key, value)) = level.rows.pop() else {
                self.levels.pop();
                continue;
            };
            let id = row::decode(Table::Child, &value)?;
            let znode = tree::znode(base, id)?;
            if is_allowed(base, &self.principal, Permission::Read, znode.acl)? {
                let path = level.path.join(&tree::child_name(&key)?);
                let path = path.map_err(|error| Fault::Invariant(format!("a child's path is none: {error}")))?;
                return Ok(Some((id, znode, path)));
            }
        }
        Ok(None)
    }
}

/// How many znodes lie below one that may be read, and may be read themselves, as all above them.
pub(crate) fn count(base: &dyn Base, principal: &str, top: ZnodeId, znode: &Znode) -> Result<u64, Fault> {
    let mut count = 0;
    let mut parents = Vec::new();
    if znode.stat.children > 0 {
        parents.push(top);
    }
    while let Some(parent) = parents.pop() {
        let prefix = key::child(parent, "");
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = base.scan(Table::Child, &prefix, after.as_deref(), SCAN)?;
            let full = rows.len() == SCAN;
            after = rows.last().map(|(key, _)| key.clone());
            for (_, value) in rows {
                let id = row::decode(Table::Child, &value)?;
                let znode = tree::znode(base, id)?;
                if is_allowed(base, principal, Permission::Read, znode.acl)? {
                    count += 1;
                    if znode.stat.children > 0 {
                        parents.push(id);
                    }
                }
            }
            if !full {
                break;
            }
        }
    }
    Ok(count)
}
