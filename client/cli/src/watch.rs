//! `watch`: a line for each change, until it is interrupted.

use conclave_client::{Client, Error, Path, Refusal, Stat, WatchEvent, Zxid};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::{self, Out};

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    /// `created`, `data`, `deleted`; `present` for what there is after a `resync`.
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    zxid: Zxid,
}

impl Line<'_> {
    fn text(&self) -> String {
        let Self { kind, path, version, zxid } = self;
        match (path, version) {
            (Some(path), Some(version)) => format!("{kind:<8} {path}  version {version}  zxid {zxid}"),
            _ => format!("{kind:<8} zxid {zxid}  earlier changes are not kept: the present state follows"),
        }
    }
}

pub(crate) async fn run(client: &Client, args: &args::Watch, out: Out) -> Result<u8, Failure> {
    let path = Path::parse(&args.path).map_err(Error::from).reading()?;
    let mut watch = client.watch(&path);
    if args.recursive {
        watch = watch.subtree();
    }
    if args.children {
        watch = watch.children();
    }
    if args.once {
        watch = watch.once();
    }
    if let Some(zxid) = args.since {
        watch = watch.since(zxid);
    }
    let mut watch = watch.await.reading()?;
    let what = match (args.recursive, args.children) {
        (true, _) => " and everything below it",
        (_, true) => "'s children",
        _ => "",
    };
    out.note(format_args!("watching {path}{what}, after zxid {}", watch.zxid()));
    loop {
        let event = tokio::select! {
            biased;
            event = watch.next() => event,
            // `conclave watch / | head -1` ends when head does, not with the next change.
            () = out::reader_gone() => return Ok(DONE),
        };
        let Some(event) = event else { return Ok(DONE) };
        match event.reading()? {
            WatchEvent::Changes { zxid, changes } => {
                for change in &changes {
                    let kind = change.kind.to_string();
                    let line = Line { kind: &kind, path: Some(&change.path), version: Some(change.version), zxid };
                    out.show(&line, Line::text)?;
                }
            }
            WatchEvent::Resync { zxid } => {
                out.show(&Line { kind: "resync", path: None, version: None, zxid }, Line::text)?;
                present(client, args, path.clone(), out).await?;
            }
            // Events that this version does not know.
            _ => {}
        }
    }
}

/// What there is now, of what the watch tells of.
async fn present(client: &Client, args: &args::Watch, path: Path, out: Out) -> Result<(), Failure> {
    if !args.children
        && let Some(stat) = client.at(&path).stat().await.reading()?
    {
        line(&path, &stat, out)?;
    }
    if args.children || args.recursive {
        below(client, path, args.recursive, out).await?;
    }
    Ok(())
}

fn below(client: &Client, path: Path, recursive: bool, out: Out) -> BoxFuture<'_, Result<(), Failure>> {
    Box::pin(async move {
        let listing = match client.at(&path).children().await {
            // It went meanwhile, which the watch tells.
            Err(Error::Refused(Refusal::NoZnode { .. })) => return Ok(()),
            listing => listing.reading()?,
        };
        for entry in listing.children {
            let child = path.join(&entry.name).map_err(Error::from).reading()?;
            line(&child, &entry.stat, out)?;
            if recursive && entry.stat.children > 0 {
                below(client, child, true, out).await?;
            }
        }
        Ok(())
    })
}

fn line(path: &Path, stat: &Stat, out: Out) -> Result<(), Failure> {
    let line = Line { kind: "present", path: Some(path), version: Some(stat.version), zxid: stat.modified };
    out.show(&line, Line::text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_a_line() {
        let path = Path::parse("/app/config").unwrap();
        let line = Line { kind: "data", path: Some(&path), version: Some(1), zxid: Zxid(14) };
        assert_eq!(line.text(), "data     /app/config  version 1  zxid 14");
        let value = serde_json::to_value(&line).unwrap();
        assert_eq!(value, json!({ "kind": "data", "path": "/app/config", "version": 1, "zxid": 14 }));
    }

    #[test]
    fn a_resync_is_told_as_such() {
        let line = Line { kind: "resync", path: None, version: None, zxid: Zxid(9) };
        assert_eq!(line.text(), "resync   zxid 9  earlier changes are not kept: the present state follows");
        assert_eq!(serde_json::to_value(&line).unwrap(), json!({ "kind": "resync", "zxid": 9 }));
    }
}
