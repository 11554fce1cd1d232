//! The commands about one znode: create, get, set, delete, stat.

use conclave_client::{Client, Path, Refusal, Stat};
use serde::Serialize;

use crate::args;
use crate::data::{self, Json};
use crate::failure::{DONE, Failure, While};
use crate::out::{self, Out, plural};
use crate::{hold, stat};

/// A znode that was written, or one that was looked at.
#[derive(Serialize)]
struct At<'a> {
    path: &'a str,
    stat: &'a Stat,
}

/// `get`.
#[derive(Serialize)]
struct Got<'a> {
    path: &'a str,
    data: Json,
    stat: &'a Stat,
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
    if args.parents {
        create = create.parents();
    }
    if let Some(fence) = args.fence {
        create = create.fenced(fence);
    }
    let created = create.await.writing()?;
    let at = At { path: created.path.as_str(), stat: &created.stat };
    // The output of a command that follows is its own.
    if args.command.is_empty() {
        out.show(&at, |at| written("created", at))?;
    }
    if args.ephemeral {
        return hold::ephemeral(client, &created, &args.command, out).await;
    }
    Ok(DONE)
}

fn written(what: &str, at: &At<'_>) -> String {
    format!("{what} {}  version {}  zxid {}", at.path, at.stat.version, at.stat.modified)
}

pub(crate) async fn get(client: &Client, args: &args::Get, out: Out) -> Result<u8, Failure> {
    let mut get = client.at(&args.path).get();
    if args.stale {
        get = get.stale();
    }
    let znode = get.await.reading()?;
    if out.json {
        out.json(&Got { path: &args.path, data: Json::of(&znode.data), stat: &znode.stat })?;
    } else if out::is_terminal() {
        // The prompt begins on a line of its own; a pipe gets the bytes and nothing else.
        out.text(&String::from_utf8_lossy(&znode.data))?;
    } else {
        out.bytes(&znode.data)?;
    }
    Ok(DONE)
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
    out.show(&At { path: &args.path, stat: &stat }, |at| written("set", at))?;
    Ok(DONE)
}

pub(crate) async fn delete(client: &Client, args: args::Delete, out: Out) -> Result<u8, Failure> {
    let mut delete = client.at(&args.path).delete();
    if args.recursive {
        delete = delete.recursive();
    }
    if let Some(version) = args.if_version {
        delete = delete.if_version(version);
    }
    if let Some(fence) = args.fence {
        delete = delete.fenced(fence);
    }
    let deleted = delete.await.writing()?;
    out.show(&Deleted { path: &args.path, deleted }, |done| {
        if done.deleted == 1 {
            format!("deleted {}", done.path)
        } else {
            format!("deleted {}  {} znode{}", done.path, done.deleted, plural(done.deleted))
        }
    })?;
    Ok(DONE)
}

pub(crate) async fn stat(client: &Client, args: &args::Stat, out: Out) -> Result<u8, Failure> {
    let Some(stat) = client.at(&args.path).stat().await.reading()? else {
        let path = Path::parse(&args.path).map_err(conclave_client::Error::from).reading()?;
        return Err(conclave_client::Error::Refused(Refusal::NoZnode { path }).reading());
    };
    out.show(&At { path: &args.path, stat: &stat }, |at| stat::text(at.path, at.stat))?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use conclave_client::{SessionId, Zxid};
    use serde_json::json;

    use super::*;

    fn sample() -> Stat {
        Stat {
            created: Zxid(12),
            modified: Zxid(14),
            children_modified: Zxid(12),
            version: 1,
            children_version: 0,
            created_ms: 1_000,
            modified_ms: 2_000,
            owner: Some(SessionId(7)),
            data_bytes: 2,
            children: 0,
        }
    }

    #[test]
    fn get_is_path_data_and_stat() {
        let got = Got { path: "/a", data: Json::of(b"v1"), stat: &sample() };
        assert_eq!(
            serde_json::to_value(got).unwrap(),
            json!({ "path": "/a", "data": "v1", "stat": {
                "created": 12, "modified": 14, "children_modified": 12, "version": 1, "children_version": 0,
                "created_ms": 1000, "modified_ms": 2000, "owner": 7, "data_bytes": 2, "children": 0,
            }})
        );
    }

    #[test]
    fn what_was_written_is_told_with_version_and_zxid() {
        let stat = sample();
        let at = At { path: "/a", stat: &stat };
        assert_eq!(written("set", &at), "set /a  version 1  zxid 14");
        let keys = serde_json::to_value(&at).unwrap();
        assert_eq!(keys.as_object().unwrap().keys().collect::<Vec<_>>(), ["path", "stat"]);
        let deleted = Deleted { path: "/a", deleted: 3 };
        assert_eq!(serde_json::to_value(deleted).unwrap(), json!({ "path": "/a", "deleted": 3 }));
    }
}
