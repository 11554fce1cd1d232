//! The commands that read znodes: get, exists, stat, count.

use conclave_client::{Client, Error, Path, Refusal, Stat, Znode, Zxid};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args;
use crate::data::Json;
use crate::failure::{DONE, Failure, REFUSED, While};
use crate::out::{self, Out};
use crate::stat;

/// A read's builder, as fresh as the command line wants it.
macro_rules! fresh {
    ($read:expr, $fresh:expr) => {{
        let (read, fresh): (_, $crate::args::Freshness) = ($read, $fresh);
        match fresh.stale_within {
            Some(time) => read.stale_within(time),
            None if fresh.stale => read.stale(),
            None if fresh.linearizable => read.linearizable(),
            None => read,
        }
    }};
}
pub(crate) use fresh;

/// `get` of one znode.
#[derive(Serialize)]
struct Got<'a> {
    path: &'a str,
    data: Json,
    stat: Value,
}

/// `get` of several.
#[derive(Serialize)]
struct Several<'a> {
    /// The state that all of them are read from.
    zxid: Zxid,
    /// In the order of the command line; those that are not there have neither data nor stat.
    znodes: Vec<One<'a>>,
}

#[derive(Serialize)]
struct One<'a> {
    path: &'a str,
    data: Option<Json>,
    stat: Option<Value>,
}

pub(crate) async fn get(client: &Client, args: &args::Get, out: Out) -> Result<u8, Failure> {
    let [path] = &args.paths[..] else { return several(client, args, out).await };
    let znode = fresh!(client.at(path).get(), args.fresh).await.reading()?;
    if out.json {
        out.json(&Got { path, data: Json::of(&znode.data), stat: conclave_script::stat(&znode.stat) })?;
    } else if out::is_terminal() {
        // The prompt begins on a line of its own; a pipe gets the bytes and nothing else.
        out.text(&String::from_utf8_lossy(&znode.data))?;
    } else {
        out.bytes(&znode.data)?;
    }
    Ok(DONE)
}

async fn several(client: &Client, args: &args::Get, out: Out) -> Result<u8, Failure> {
    let znodes = fresh!(client.many(&args.paths), args.fresh).await.reading()?;
    let missing = znodes.iter().any(Option::is_none);
    if out.json {
        let zxid = znodes.iter().flatten().next().map_or_else(|| client.zxid(), |znode| znode.zxid);
        let znodes = args.paths.iter().zip(&znodes).map(|(path, znode)| One {
            path,
            data: znode.as_ref().map(|znode| Json::of(&znode.data)),
            stat: znode.as_ref().map(|znode| conclave_script::stat(&znode.stat)),
        });
        out.json(&Several { zxid, znodes: znodes.collect() })?;
    } else {
        out.bytes(&sections(&args.paths, &znodes))?;
    }
    Ok(if missing { REFUSED } else { DONE })
}

/// Each under a line with its path, as `head` and `tail` show several files.
fn sections(paths: &[String], znodes: &[Option<Znode>]) -> Vec<u8> {
    let mut text = Vec::new();
    for (path, znode) in paths.iter().zip(znodes) {
        if !text.is_empty() {
            text.push(b'\n');
        }
        match znode {
            None => text.extend_from_slice(format!("==> {path} does not exist <==\n").as_bytes()),
            Some(znode) => {
                text.extend_from_slice(format!("==> {path} <==\n").as_bytes());
                text.extend_from_slice(&znode.data);
                if !znode.data.is_empty() && !znode.data.ends_with(b"\n") {
                    text.push(b'\n');
                }
            }
        }
    }
    text
}

pub(crate) async fn exists(client: &Client, args: &args::Exists, out: Out) -> Result<u8, Failure> {
    let found = fresh!(client.at(&args.path).stat(), args.fresh).await.reading()?;
    let shown = existence(&args.path, found.as_ref());
    out.show(&shown, |_| match &found {
        Some(stat) => format!("{} exists  version {}  zxid {}", args.path, stat.version, stat.modified),
        None => format!("{} does not exist", args.path),
    })?;
    Ok(if found.is_some() { DONE } else { REFUSED })
}

fn existence(path: &str, found: Option<&Stat>) -> Value {
    json!({ "path": path, "exists": found.is_some(), "stat": found.map(conclave_script::stat) })
}

pub(crate) async fn stat(client: &Client, args: &args::Stat, out: Out) -> Result<u8, Failure> {
    let Some(stat) = fresh!(client.at(&args.path).stat(), args.fresh).await.reading()? else {
        let path = Path::parse(&args.path).map_err(Error::from).reading()?;
        return Err(Error::Refused(Refusal::NoZnode { path }).reading());
    };
    let shown = json!({ "path": args.path, "stat": conclave_script::stat(&stat) });
    out.show(&shown, |_| stat::text(&args.path, &stat))?;
    Ok(DONE)
}

pub(crate) async fn count(client: &Client, args: &args::Count, out: Out) -> Result<u8, Failure> {
    let count = fresh!(client.at(&args.path).count(), args.fresh).await.reading()?;
    out.show(&json!({ "path": args.path, "count": count }), |_| count.to_string())?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn znode(data: &str) -> Znode {
        Znode { data: data.to_owned().into(), stat: Stat::default(), zxid: Zxid(9) }
    }

    #[test]
    fn get_is_path_data_and_stat() {
        let stat = Stat { version: 1, ..Stat::default() };
        let got = Got { path: "/a", data: Json::of(b"v1"), stat: conclave_script::stat(&stat) };
        let value = serde_json::to_value(got).unwrap();
        assert_eq!(
            (&value["path"], &value["data"], &value["stat"]["version"]),
            (&json!("/a"), &json!("v1"), &json!(1))
        );
        assert_eq!(value.as_object().unwrap().len(), 3);
    }

    #[test]
    fn several_are_shown_one_under_the_other_and_those_that_are_missing_too() {
        let paths = ["/a", "/b", "/c", "/d"].map(str::to_owned);
        let znodes = [Some(znode("x")), None, Some(znode("")), Some(znode("y\n"))];
        assert_eq!(
            String::from_utf8(sections(&paths, &znodes)).unwrap(),
            "==> /a <==\nx\n\n==> /b does not exist <==\n\n==> /c <==\n\n==> /d <==\ny\n"
        );
        let one = One { path: "/b", data: None, stat: None };
        assert_eq!(
            serde_json::to_value(Several { zxid: Zxid(9), znodes: vec![one] }).unwrap(),
            json!({ "zxid": 9, "znodes": [{ "path": "/b", "data": null, "stat": null }] })
        );
    }

    #[test]
    fn programs_are_told_whether_it_is_there() {
        assert_eq!(existence("/a", None), json!({ "path": "/a", "exists": false, "stat": null }));
        assert_eq!(existence("/a", Some(&Stat::default()))["stat"]["version"], 0);
    }
}
