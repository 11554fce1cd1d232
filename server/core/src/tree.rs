//! Reading znodes by path, from any state: one that is applied, or the one that a plan sees.

use bytes::Bytes;
use conclave_protocol::{Entry, Page, Path, Refusal, Stat, limits};
use serde::de::DeserializeOwned;

use crate::authority::{Action, authorize};
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

/// The znode at a path, with its id.
pub(crate) fn resolve(base: &dyn Base, path: &Path) -> Result<Option<(ZnodeId, Znode)>, Fault> {
    let mut id = ZnodeId::ROOT;
    for name in path.names() {
        match child(base, id, name)? {
            Some(child) => id = child,
            None => return Ok(None),
        }
    }
    // The root is missing before genesis; every other id was just read.
    if id == ZnodeId::ROOT {
        return Ok(typed(base, Table::Znode, &key::znode(id))?.map(|row| (id, row)));
    }
    Ok(Some((id, znode(base, id)?)))
}

pub(crate) fn get(base: &dyn Base, principal: &str, path: &Path) -> Result<Option<(Bytes, Stat)>, Stop> {
    authorize(principal, Action::Read, path)?;
    let Some((id, znode)) = resolve(base, path)? else {
        return Ok(None);
    };
    Ok(Some((data(base, id, &znode.stat)?, znode.stat)))
}

pub(crate) fn stat(base: &dyn Base, principal: &str, path: &Path) -> Result<Option<Stat>, Stop> {
    authorize(principal, Action::Read, path)?;
    Ok(resolve(base, path)?.map(|(_, znode)| znode.stat))
}

/// A page ends at `limit` children, or before a child whose data would take it beyond [`limits::PAGE_BYTES`] (the first
/// one is always in it).
pub(crate) fn children(
    base: &dyn Base,
    principal: &str,
    path: &Path,
    after: Option<&str>,
    limit: u32,
    with_data: bool,
) -> Result<Page, Stop> {
    authorize(principal, Action::Read, path)?;
    // A longer one would make a key that no table takes.
    within("bytes of the name to go on after", limits::NAME_BYTES, after.map_or(0, str::len))?;
    let Some((parent, _)) = resolve(base, path)? else {
        return Err(Refusal::NoZnode { path: path.clone() }.into());
    };
    let limit = limit.min(limits::PAGE_CHILDREN) as usize;
    let prefix = key::child(parent, "");
    let after = after.map(|name| key::child(parent, name));
    let rows = base.scan(Table::Child, &prefix, after.as_deref(), limit + 1)?;
    let mut page = Page { children: Vec::with_capacity(rows.len().min(limit)), more: rows.len() > limit };
    let mut bytes = 0;
    for (key, value) in rows.into_iter().take(limit) {
        let name = child_name(&key)?;
        let id: ZnodeId = row::decode(Table::Child, &value)?;
        let stat = znode(base, id)?.stat;
        let mut child = Entry { name, stat, data: None };
        if with_data {
            bytes += stat.data_bytes;
            if bytes > limits::PAGE_BYTES as u64 && !page.children.is_empty() {
                page.more = true;
                break;
            }
            child.data = Some(data(base, id, &stat)?);
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
