//! Reading znodes by path, from any state: one that is applied, or the one that a plan sees.

use bytes::Bytes;
use conclave_protocol::{Detail, Entry, Page, Path, Permission, Refusal, Stat, limits};
use serde::de::DeserializeOwned;

use crate::authority::{is_allowed, may_look};
use crate::row::{self, Znode};
use crate::tx::within;
use crate::view::{Base, Row, Stop};
use crate::{Fault, Table, ZnodeId, key};

/// A row, decoded.
pub(crate) fn typed<T: DeserializeOwned>(base: &dyn Base, table: Table, key: &[u8]) -> Result<Option<T>, Fault> {
    base.row(table, key)?.map(|bytes| row::decode(table, &bytes)).transpose()
}

/// The id of a parent's child.
pub(crate) fn child(base: &dyn Base, parent: ZnodeId, name: &str) -> Result<Option<ZnodeId>, Fault> {
    typed(base, Table::Child, &key::child(parent, name))
}

/// A znode's row; its absence is a broken tree when something refers to it.
pub(crate) fn znode(base: &dyn Base, id: ZnodeId) -> Result<Znode, Fault> {
    let row = typed(base, Table::Znode, &key::znode(id))?;
    row.ok_or_else(|| Fault::Invariant(format!("znode {} is named and has no row", id.0)))
}

/// A znode's data.
pub(crate) fn data(base: &dyn Base, id: ZnodeId, stat: &Stat) -> Result<Bytes, Fault> {
    if stat.data_bytes == 0 {
        return Ok(Bytes::new());
    }
    let data = base.row(Table::Data, &key::znode(id))?.unwrap_or_default();
    if data.len() as u64 == stat.data_bytes {
        return Ok(data);
    }
    Err(Fault::Invariant(format!("znode {} has {} bytes of data, its stat says {}", id.0, data.len(), stat.data_bytes)))
}

/// How far a path leads.
pub(crate) struct Found {
    /// The deepest znode that exists on the way; none in an empty tree.
    pub(crate) deepest: Option<(ZnodeId, Znode)>,
    /// How many names below it are missing.
    pub(crate) missing: usize,
}

impl Found {
    /// The znode that the path names, if it leads all the way.
    pub(crate) fn whole(self) -> Option<(ZnodeId, Znode)> {
        self.deepest.filter(|_| self.missing == 0)
    }
}

/// Follows a path as far as it leads.
pub(crate) fn find(base: &dyn Base, path: &Path) -> Result<Found, Fault> {
    let mut id = ZnodeId::ROOT;
    let mut found = 0;
    for name in path.names() {
        match child(base, id, name)? {
            Some(child) => id = child,
            None => break,
        }
        found += 1;
    }
    // The root is missing before genesis; every other id was just read.
    let deepest = match typed(base, Table::Znode, &key::znode(id))? {
        None if id != ZnodeId::ROOT => return Err(Fault::Invariant(format!("znode {} is named and has no row", id.0))),
        row => row.map(|row| (id, row)),
    };
    Ok(Found { deepest, missing: path.depth() - found })
}

/// The znode at a path, with its id.
pub(crate) fn resolve(base: &dyn Base, path: &Path) -> Result<Option<(ZnodeId, Znode)>, Fault> {
    Ok(find(base, path)?.whole())
}

pub(crate) fn get(base: &dyn Base, principal: &str, path: &Path) -> Result<Option<(Bytes, Stat)>, Stop> {
    let Some((id, znode)) = may_look(base, principal, path)? else {
        return Ok(None);
    };
    Ok(Some((data(base, id, &znode.stat)?, znode.stat)))
}

pub(crate) fn stat(base: &dyn Base, principal: &str, path: &Path) -> Result<Option<Stat>, Stop> {
    Ok(may_look(base, principal, path)?.map(|(_, znode)| znode.stat))
}

/// Which children are listed, and how much of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) after: Option<&'a str>,
    pub(crate) limit: u32,
    pub(crate) detail: Detail,
}

/// A page ends at `limit` children (one, if it is 0: it must be possible to go on after it), or before a child whose data would take it beyond [`limits::PAGE_BYTES`] (the first
/// one is always in it). Of a child that may not be read there is only the name.
pub(crate) fn children(base: &dyn Base, principal: &str, path: &Path, listing: Listing<'_>) -> Result<Page, Stop> {
    let Listing { prefix, after, limit, detail } = listing;
    // Longer ones would make keys that no table takes.
    within("bytes of the prefix", limits::NAME_BYTES, prefix.len())?;
    within("bytes of the name to go on after", limits::NAME_BYTES, after.map_or(0, str::len))?;
    let Some((parent, _)) = may_look(base, principal, path)? else {
        return Err(Refusal::NoZnode { path: path.clone() }.into());
    };
    let limit = limit.clamp(1, limits::PAGE_CHILDREN) as usize;
    let prefix = key::child(parent, prefix);
    let after = after.map(|name| key::child(parent, name));
    let rows = base.scan(Table::Child, &prefix, after.as_deref(), limit + 1)?;
    let mut page = Page { children: Vec::with_capacity(rows.len().min(limit)), more: rows.len() > limit };
    let mut bytes = 0;
    for (key, value) in rows.into_iter().take(limit) {
        let mut child = Entry { name: child_name(&key)?, stat: None, data: None };
        if detail != Detail::Names {
            let id: ZnodeId = row::decode(Table::Child, &value)?;
            let znode = znode(base, id)?;
            if is_allowed(base, principal, Permission::Read, znode.acl)? {
                child.stat = Some(znode.stat);
            }
            if let (Detail::Data, Some(stat)) = (detail, &child.stat) {
                bytes += stat.data_bytes;
                if bytes > limits::PAGE_BYTES as u64 && !page.children.is_empty() {
                    page.more = true;
                    break;
                }
                child.data = Some(data(base, id, stat)?);
            }
        }
        page.children.push(child);
    }
    Ok(page)
}

/// All rows with a prefix, page by page.
pub(crate) fn rows(base: &dyn Base, table: Table, prefix: &[u8]) -> Result<Vec<Row>, Fault> {
    const PAGE: usize = 1_000;
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let page = base.scan(table, prefix, rows.last().map(|(key, _)| key.as_slice()), PAGE)?;
        let full = page.len() == PAGE;
        rows.extend(page);
        if !full {
            return Ok(rows);
        }
    }
}

/// The name in a key of `Child`.
pub(crate) fn child_name(key: &[u8]) -> Result<String, Fault> {
    let name = key.get(8..).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.ok_or_else(|| Fault::Row { table: Table::Child, why: "its key holds no name".to_owned() })?;
    Ok(name.to_owned())
}
