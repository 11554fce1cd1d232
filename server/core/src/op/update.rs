//! Changes a znode's data by what it is: arithmetic, appending, compare-and-set.

use bytes::Bytes;
use conclave_protocol::{Create, Edit, Path, Permission, Refusal, Stat, Update};

use super::create::{self, Made};
use super::set;
use crate::ZnodeId;
use crate::authority::authorize;
use crate::tree;
use crate::tx::within_u64;
use crate::view::{Stop, Tx};

/// The stat afterwards, and the number if the data is one.
pub(crate) fn update(tx: &mut Tx, update: &Update) -> Result<(Stat, Option<i64>), Stop> {
    let Update { path, edit, if_version, or_create } = update;
    let (id, znode) = if *or_create && if_version.is_none() {
        let Some((id, znode)) = tree::resolve(tx, path)? else { return create(tx, update) };
        create::may_write(tx, path, &znode)?;
        (id, znode)
    } else {
        set::writable(tx, path, *if_version)?
    };
    // What comes back tells what was there.
    authorize(tx, tx.actor(), Permission::Read, znode.acl, path)?;
    let bytes = znode.stat.data_bytes;
    if let Edit::Swap { expected, .. } = edit {
        super::multi::same_length(path, bytes, expected)?;
    }
    tx.edit(bytes)?;
    let before = tree::data(tx, id, &znode.stat)?;
    let (data, number) = edited(path, edit, &before)?;
    tx.edit(data.len() as u64)?;
    within_u64("bytes of data", tx.limits.data_bytes, data.len() as u64)?;
    let stat = set::write(tx, id, znode, path, data.clone())?;
    Ok((stat, told(tx, id, &stat, &data, number)?))
}

fn create(tx: &mut Tx, update: &Update) -> Result<(Stat, Option<i64>), Stop> {
    let Update { path, edit, .. } = update;
    create::may_create(tx, path)?;
    let (data, number) = edited(path, edit, &Bytes::new())?;
    match create::create(tx, &Create::new(path.clone(), data.clone()))? {
        Made::Created(path, stat) | Made::Set(path, stat) => {
            let number = match tree::resolve(tx, &path)? {
                Some((id, _)) if number.is_some() => told(tx, id, &stat, &data, number)?,
                _ => number,
            };
            Ok((stat, number))
        }
    }
}

/// The number that the data is now: a plugin may have written another one.
fn told(tx: &Tx, id: ZnodeId, stat: &Stat, meant: &Bytes, number: Option<i64>) -> Result<Option<i64>, Stop> {
    if number.is_none() {
        return Ok(None);
    }
    let data = tree::data(tx, id, stat)?;
    Ok(if data == *meant { number } else { self::number(&Path::root(), &data).ok().flatten() })
}

/// What the data becomes.
fn edited(path: &Path, edit: &Edit, before: &Bytes) -> Result<(Bytes, Option<i64>), Refusal> {
    let made = |number: i64| (Bytes::from(number.to_string()), Some(number));
    let bad = |why: String| Refusal::BadNumber { path: path.clone(), why };
    Ok(match edit {
        Edit::Add(by) => {
            let number = number(path, before)?.unwrap_or(0);
            let sum = number.checked_add(*by);
            made(sum.ok_or_else(|| bad(format!("is {number}, and {by} more is no 64-bit integer")))?)
        }
        Edit::Min(other) => made(number(path, before)?.map_or(*other, |number| number.min(*other))),
        Edit::Max(other) => made(number(path, before)?.map_or(*other, |number| number.max(*other))),
        Edit::Append(bytes) => ([&before[..], &bytes[..]].concat().into(), None),
        Edit::Swap { expected, data } if before == expected => (data.clone(), None),
        Edit::Swap { expected, .. } => return Err(super::multi::other_data(path, before, expected)),
    })
}

/// The data as a 64-bit integer in decimal; none when there is no data.
fn number(path: &Path, data: &Bytes) -> Result<Option<i64>, Refusal> {
    if data.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(data).ok().and_then(|text| text.trim().parse().ok());
    let why = || {
        let shown: String = String::from_utf8_lossy(&data[..data.len().min(32)]).escape_debug().collect();
        format!("is no 64-bit integer in decimal: \"{shown}\"")
    };
    number.map(Some).ok_or_else(|| Refusal::BadNumber { path: path.clone(), why: why() })
}
