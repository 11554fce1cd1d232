//! Reading znodes by path, from any state: one that is applied, or the one that a plan sees.

use bytes::Bytes;
use conclave_protocol::{Detail, Entry, Page, Path, Permission, Refusal, Stat, limits};
use serde::de::DeserializeOwned;

use crate::authority::{is_allowed, may_look};
use crate::row::{self, Znode};
use crate::tx::within;
use crate::view::{Base, Row, Stop};
use crate::{Fault, Table, ZnodeId, key};

/// Children that are looked up at a time: a page that ends by its bytes has few of them.
const AT_ONCE: usize = 128;

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
    typed(base, Table::Znode, &key::znode(id))?.ok_or_else(|| no_row(id))
}

fn no_row(id: ZnodeId) -> Fault {
    Fault::Invariant(format!("znode {} is named and has no row", id.0))
}

/// A znode's data.
pub(crate) fn data(base: &dyn Base, id: ZnodeId, stat: &Stat) -> Result<Bytes, Fault> {
    if stat.data_bytes == 0 {
        return Ok(Bytes::new());
    }
    as_its_stat_says(id, stat, base.row(Table::Data, &key::znode(id))?)
}

fn as_its_stat_says(id: ZnodeId, stat: &Stat, row: Option<Bytes>) -> Result<Bytes, Fault> {
    let data = row.unwrap_or_default();
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
        None if id != ZnodeId::ROOT => return Err(no_row(id)),
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
    let mut rows = base.scan(Table::Child, &prefix, after.as_deref(), limit + 1)?;
    let mut page = Page { children: Vec::with_capacity(rows.len().min(limit)), more: rows.len() > limit };
    rows.truncate(limit);
    if detail == Detail::Names {
        for (key, _) in rows {
            page.children.push(Entry { name: child_name(&key)?, stat: None, data: None });
        }
        return Ok(page);
    }
    let mut room = limits::PAGE_BYTES as u64;
    for rows in rows.chunks(AT_ONCE) {
        let mut listed = listed(base, principal, rows)?;
        if detail == Detail::Data {
            let fit = listed.iter().take_while(|(_, child)| {
                let bytes = child.stat.map_or(0, |stat| stat.data_bytes);
                let fits = bytes <= room;
                room = room.saturating_sub(bytes);
                fits
            });
            let fit = fit.count().max(usize::from(page.children.is_empty()));
            listed.truncate(fit);
            add_data(base, &mut listed)?;
        }
        let is_cut = listed.len() < rows.len();
        page.children.extend(listed.into_iter().map(|(_, child)| child));
        if is_cut {
            page.more = true;
            break;
        }
    }
    Ok(page)
}

/// Children, with the stats of those that the principal may read.
fn listed(base: &dyn Base, principal: &str, rows: &[Row]) -> Result<Vec<(ZnodeId, Entry)>, Fault> {
    let ids: Vec<ZnodeId> = rows.iter().map(|(_, id)| row::decode(Table::Child, id)).collect::<Result<_, _>>()?;
    // Most children of one parent have one access list.
    let mut last = None;
    let mut listed = Vec::with_capacity(rows.len());
    for ((key, _), (id, row)) in rows.iter().zip(ids.iter().zip(several(base, Table::Znode, &ids)?)) {
        let znode: Znode = row::decode(Table::Znode, &row.ok_or_else(|| no_row(*id))?)?;
        let may_read = match last {
            Some((acl, may_read)) if acl == znode.acl => may_read,
            _ => is_allowed(base, principal, Permission::Read, znode.acl)?,
        };
        last = Some((znode.acl, may_read));
        let stat = may_read.then_some(znode.stat);
        listed.push((*id, Entry { name: child_name(key)?, stat, data: None }));
    }
    Ok(listed)
}

/// Adds the data of those whose stats are told.
fn add_data(base: &dyn Base, listed: &mut [(ZnodeId, Entry)]) -> Result<(), Fault> {
    let has_row = |child: &Entry| child.stat.is_some_and(|stat| stat.data_bytes > 0);
    let ids: Vec<ZnodeId> = listed.iter().filter(|(_, child)| has_row(child)).map(|(id, _)| *id).collect();
    let mut rows = several(base, Table::Data, &ids)?.into_iter();
    for (id, child) in listed {
        if let Some(stat) = &child.stat {
            let row = if has_row(child) { rows.next().flatten() } else { None };
            child.data = Some(as_its_stat_says(*id, stat, row)?);
        }
    }
    Ok(())
}

/// Rows of znodes, in the order of their ids here; the table is asked in its own.
fn several(base: &dyn Base, table: Table, ids: &[ZnodeId]) -> Result<Vec<Option<Bytes>>, Fault> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|at| ids[*at]);
    let keys: Vec<[u8; 8]> = order.iter().map(|at| key::znode(ids[*at])).collect();
    let mut rows = vec![None; ids.len()];
    for (at, row) in order.into_iter().zip(base.several(table, &keys)?) {
        rows[at] = row;
    }
    Ok(rows)
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
