//! The commands that write one znode: create, set, update, delete.

use conclave_client::{AccessList, Client, Stat};
use serde::Serialize;
use serde_json::Value;

use crate::args;
use crate::data;
use crate::failure::{DONE, Failure, While};
use crate::out::{Out, Progress, plural};
use crate::{acl, hold};

/// A znode that was written.
#[derive(Serialize)]
struct Written<'a> {
    path: &'a str,
    stat: Value,
    /// `create --or-set`: it was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<bool>,
    /// `update`: what the data is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
}

impl<'a> Written<'a> {
    fn new(path: &'a str, stat: &Stat) -> Self {
        Self { path, stat: conclave_script::stat(stat), replaced: None, number: None }
    }
}

/// `delete`.
#[derive(Serialize)]
struct Deleted<'a> {
    path: &'a str,
    deleted: u64,
}

pub(crate) async fn create(client: &Client, args: args::Create, out: Out) -> Result<u8, Failure> {
    let data = data::read(&args.data)?.unwrap_or_default();
    let mut create = client.at(&args.path).create(data);
    if args.ephemeral {
        create = create.ephemeral();
    }
    if args.sequential {
        create = create.sequential();
    }
    if args.container {
        create = create.container();
    }
    if let Some(time) = args.ttl {
        create = create.ttl(time);
    }
    if args.parents {
        create = create.parents();
    }
    if args.or_set {
        create = create.or_set();
    }
    if !args.acl.is_empty() {
        create = create.acl(AccessList(acl::grants(client, &args.acl)?));
    }
    if let Some(fence) = args.fence {
        create = create.fenced(fence);
    }
    let created = create.await.writing()?;
    let replaced = args.or_set.then_some(created.replaced);
    let written = Written { replaced, ..Written::new(created.path.as_str(), &created.stat) };
    // The output of a command that follows is its own.
    if args.command.is_empty() {
        let what = if created.replaced { "set" } else { "created" };
        out.show(&written, |written| line(what, written.path, &created.stat))?;
    }
    if args.ephemeral {
        return hold::ephemeral(client, &created, &args.command, out).await;
    }
    Ok(DONE)
}

fn line(what: &str, path: &str, stat: &Stat) -> String {
    format!("{what} {path}  version {}  zxid {}", stat.version, stat.modified)
}

pub(crate) async fn set(client: &Client, args: args::Set, out: Out) -> Result<u8, Failure> {
    let Some(data) = data::read(&args.data)? else {
        return Err(Failure::Usage("there is no data: give DATA, --data, --file, or - for stdin".to_owned()));
    };
    let mut set = client.at(&args.path).set(data);
    if let Some(version) = args.if_version {
        set = set.if_version(version);
    }
    if let Some(fence) = args.fence {
        set = set.fenced(fence);
    }
    let stat = set.await.writing()?;
    out.show(&Written::new(&args.path, &stat), |written| line("set", written.path, &stat))?;
    Ok(DONE)
}

pub(crate) async fn update(client: &Client, args: args::Update, out: Out) -> Result<u8, Failure> {
    let at = client.at(&args.path);
    let args::Update { path, add, min, max, append, swap, or_create, if_version, fence } = args;
    // Of numbers and of bytes alike, which are two types.
    macro_rules! send {
        ($edit:expr) => {{
            let mut edit = $edit;
            if or_create {
                edit = edit.or_create();
            }
            if let Some(version) = if_version {
                edit = edit.if_version(version);
            }
            if let Some(fence) = fence {
                edit = edit.fenced(fence);
            }
            edit.await.writing()?
        }};
    }
    let number = match (add, min, max) {
        (Some(number), _, _) => Some(at.add(number)),
        (_, Some(number), _) => Some(at.min(number)),
        (_, _, Some(number)) => Some(at.max(number)),
        _ => None,
    };
    let (number, stat) = match (number, append, swap.as_deref()) {
        (Some(edit), _, _) => {
            let edited = send!(edit);
            (Some(edited.number), edited.stat)
        }
        (None, Some(text), _) => (None, send!(at.append(text))),
        (None, None, Some([expected, data])) => (None, send!(at.swap(expected.clone(), data.clone()))),
        (None, None, _) => return Err(Failure::Usage("say how: --add, --min, --max, --append or --swap".to_owned())),
    };
    let written = Written { number, ..Written::new(&path, &stat) };
    out.show(&written, |written| match written.number {
        Some(number) => line("set", &format!("{} = {number}", written.path), &stat),
        None => line("set", written.path, &stat),
    })?;
    Ok(DONE)
}

pub(crate) async fn delete(client: &Client, args: args::Delete, out: Out) -> Result<u8, Failure> {
    let deleted = if args.in_parts { in_parts(client, &args, out).await? } else { whole(client, &args).await? };
    out.show(&Deleted { path: &args.path, deleted }, |done| {
        if done.deleted == 1 {
            format!("deleted {}", done.path)
        } else {
            format!("deleted {}  {} znode{}", done.path, done.deleted, plural(done.deleted))
        }
    })?;
    Ok(DONE)
}

async fn whole(client: &Client, args: &args::Delete) -> Result<u64, Failure> {
    let mut delete = client.at(&args.path).delete();
    if args.recursive {
        delete = delete.recursive();
    }
    if let Some(version) = args.if_version {
        delete = delete.if_version(version);
    }
    if let Some(fence) = args.fence.clone() {
        delete = delete.fenced(fence);
    }
    delete.await.writing()
}

/// Piece by piece. What is not there is refused, as by the other way; later, it is what was wanted.
async fn in_parts(client: &Client, args: &args::Delete, out: Out) -> Result<u64, Failure> {
    let mut parts = client.at(&args.path).delete_all();
    if let Some(fence) = args.fence.clone() {
        parts = parts.fenced(fence);
    }
    let first = parts.part().await.writing()?;
    if !first.more {
        return Ok(first.count);
    }
    let mut progress = Progress::new(out);
    let parts = parts.on_part(move |gone| {
        progress.show(|| format!("{} znodes deleted …", first.count + gone));
    });
    Ok(first.count + parts.await.writing()?)
}

#[cfg(test)]
mod tests {
    use conclave_client::Zxid;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_told_with_version_and_zxid() {
        let stat = Stat { version: 1, modified: Zxid(14), ..Stat::default() };
        assert_eq!(line("set", "/a", &stat), "set /a  version 1  zxid 14");
        let keys = |written: Written<'_>| {
            let value = serde_json::to_value(written).unwrap();
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(Written::new("/a", &stat)), ["path", "stat"]);
        let all = Written { replaced: Some(true), number: Some(5), ..Written::new("/a", &stat) };
        assert_eq!(keys(all), ["number", "path", "replaced", "stat"]);
        let deleted = Deleted { path: "/a", deleted: 3 };
        assert_eq!(serde_json::to_value(deleted).unwrap(), json!({ "path": "/a", "deleted": 3 }));
    }
}
