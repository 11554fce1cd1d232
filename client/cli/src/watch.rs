//! `watch`: a line for each change, or a run of a command for each event, until it is interrupted.

mod exec;

use std::time::Duration;

use bytes::Bytes;
use conclave_client::{ChangeKind, Client, Error, Path, Present, Stat, TreeEntry, WatchEvent, Zxid};
use conclave_protocol::WatchId;
use futures::stream::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;

use crate::args::{self, Since};
use crate::data::Json;
use crate::failure::{DONE, Failure, While};
use crate::lock;
use crate::out::{self, Out, complain};
use crate::shell;
use exec::Event;

/// How long to wait before the present state is read again.
const AGAIN: Duration = Duration::from_millis(100);

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    /// `created`, `data`, `deleted`, `acl`; `present` for what there is in a snapshot, or after a `resync`.
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    zxid: Zxid,
    /// With --with-data, unless it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stat: Option<Value>,
}

impl<'a> Line<'a> {
    /// A line without a path.
    const fn bare(kind: &'a str, zxid: Zxid) -> Self {
        Self { kind, path: None, version: None, zxid, data: None, stat: None }
    }

    fn present(path: &'a Path, stat: &Stat, data: Option<&Bytes>) -> Self {
        Self {
            path: Some(path),
            version: Some(stat.version),
            data: data.map(|data| Json::of(data)),
            stat: data.map(|_| conclave_script::stat(stat)),
            ..Self::bare("present", stat.modified)
        }
    }

    fn text(&self) -> String {
        let Self { kind, path, version, zxid, data, .. } = self;
        let data = match data {
            None => String::new(),
            Some(Json::Text(text)) if !text.contains(char::is_control) => format!("  {text}"),
            Some(Json::Text(text)) => format!("  {text:?}"),
            Some(Json::Bytes { base64 }) => format!("  ({} bytes)", base64.len()),
        };
        match (path, version) {
            (Some(path), Some(version)) => format!("{kind:<8} {path}  version {version}  zxid {zxid}{data}"),
            _ if *kind == "snapshot" => format!("{kind:<8} zxid {zxid}  the present state follows"),
            _ => format!("{kind:<8} zxid {zxid}  earlier changes are not kept: the present state follows"),
        }
    }
}

pub(crate) async fn run(client: &Client, args: &args::Watch, out: Out) -> Result<u8, Failure> {
    let path = Path::parse(&args.path).map_err(Error::from).reading()?;
    let mut watch = builder(client, args, &path).await.reading()?;
    let what = match args {
        args::Watch { recursive: true, .. } => " and everything below it",
        args::Watch { children: true, .. } => "'s children",
        args::Watch { existence: true, .. } => "'s existence",
        _ => "",
    };
    out.note(format_args!("watching {path}{what}, after zxid {}", watch.zxid()));
    loop {
        let event = tokio::select! {
            biased;
            event = watch.next() => event,
            // `conclave watch / | head -1` ends when head does, not with the next change.
            () = out::reader_gone(), if args.exec.is_empty() => return Ok(DONE),
        };
        let Some(event) = event else { return Ok(DONE) };
        let event = event.reading()?;
        if args.exec.is_empty() {
            tokio::select! {
                biased;
                told = tell(client, args, &path, event, out) => told?,
                () = out::reader_gone() => return Ok(DONE),
            }
        } else if let Some(code) = execute(args, &path, event, out).await? {
            return Ok(code);
        }
    }
}

fn builder(client: &Client, args: &args::Watch, path: &Path) -> conclave_client::WatchBuilder {
    let mut watch = scope(client, args, path);
    if !args.kinds.is_empty() {
        watch = watch.kinds(&args.kinds.iter().copied().map(ChangeKind::from).collect::<Vec<_>>());
    }
    if args.snapshot {
        watch = watch.snapshot();
    }
    if args.once {
        watch = watch.once();
    }
    match &args.since {
        None => watch,
        Some(Since::Zxid(zxid)) => watch.since(*zxid),
        Some(Since::Bookmark(bookmark)) => watch.resume(bookmark.clone()),
    }
}

/// What is watched, and not yet how.
fn scope(client: &Client, args: &args::Watch, path: &Path) -> conclave_client::WatchBuilder {
    let mut watch = client.watch(path);
    if args.recursive {
        watch = watch.subtree();
    }
    if args.children {
        watch = watch.children();
    }
    if args.existence {
        watch = watch.existence();
    }
    if let Some(names) = &args.names {
        watch = watch.names(names.as_str());
    }
    if args.with_data {
        watch = watch.with_data();
    }
    watch
}

/// Prints an event.
async fn tell(client: &Client, args: &args::Watch, path: &Path, event: WatchEvent, out: Out) -> Result<(), Failure> {
    match event {
        WatchEvent::Changes { zxid, changes, present } => {
            for (n, change) in changes.iter().enumerate() {
                let now: Option<&Present> = present.get(n).and_then(Option::as_ref);
                let kind = change.kind.to_string();
                let line = Line {
                    path: Some(&change.path),
                    version: Some(change.version),
                    data: now.map(|now| Json::of(&now.data)),
                    stat: now.map(|now| conclave_script::stat(&now.stat)),
                    ..Line::bare(&kind, zxid)
                };
                out.show(&line, Line::text)?;
            }
        }
        WatchEvent::Resync { zxid } => {
            out.show(&Line::bare("resync", zxid), Line::text)?;
            let snapshot = async || scope(client, args, path).snapshot().await;
            present(snapshot, |line| out.show(line, Line::text)).await?;
        }
        WatchEvent::Snapshot { zxid, part, entries, .. } => {
            if part == 0 {
                out.show(&Line::bare("snapshot", zxid), Line::text)?;
            }
            for TreeEntry { path, stat, data } in &entries {
                out.show(&Line::present(path, stat, data.as_ref()), Line::text)?;
            }
        }
        // Events that this version does not know.
        _ => {}
    }
    Ok(())
}

/// What there is now, of what the watch tells of: the snapshot of another watch of the same. Connections break, and a watch
/// has no deadline: it is begun until it stands, and reads on by itself then.
async fn present<W>(
    snapshot: impl AsyncFn() -> conclave_client::Result<W>,
    say: impl Fn(&Line<'_>) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    W: Stream<Item = conclave_client::Result<WatchEvent>> + Unpin,
{
    let mut watch = loop {
        match snapshot().await {
            Err(error) if error.is_retryable() => tokio::time::sleep(AGAIN).await,
            watch => break watch.reading()?,
        }
    };
    let mut begun = false;
    while let Some(event) = watch.next().await {
        // A snapshot comes before everything else.
        let WatchEvent::Snapshot { zxid, part, entries, more } = event.reading()? else { continue };
        if part == 0 && std::mem::replace(&mut begun, true) {
            // It was disturbed, and begins anew.
            say(&Line::bare("resync", zxid))?;
        }
        for TreeEntry { path, stat, data } in &entries {
            say(&Line::present(path, stat, data.as_ref()))?;
        }
        if !more {
            break;
        }
    }
    Ok(())
}

/// Runs the command for an event. Gives an exit code when that is to be the end.
async fn execute(args: &args::Watch, path: &Path, event: WatchEvent, out: Out) -> Result<Option<u8>, Failure> {
    let event = Event::new(path, &event, shell::event_line(WatchId(1), event.clone()));
    match exec::run(&args.exec, &event).await {
        Ok(0) => Ok(None),
        Ok(code) => {
            let text = format!("COMMAND failed with {code} at zxid {}", event.zxid);
            if out.json {
                complain(serde_json::json!({ "exec": { "zxid": event.zxid, "exit": code, "message": text } }));
            } else {
                complain(text);
            }
            Ok(args.exit_on_failure.then_some(code))
        }
        Err(error) => Err(lock::cannot_run(&args.exec, &error)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use conclave_client::{Attempt, NoConnection, Refusal};
    use futures::stream;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_a_line() {
        let path = Path::parse("/app/config").unwrap();
        let line = Line { path: Some(&path), version: Some(1), ..Line::bare("data", Zxid(14)) };
        assert_eq!(line.text(), "data     /app/config  version 1  zxid 14");
        let value = serde_json::to_value(&line).unwrap();
        assert_eq!(value, json!({ "kind": "data", "path": "/app/config", "version": 1, "zxid": 14 }));
        let line = Line { data: Some(Json::of(b"v 2")), ..line };
        assert_eq!(line.text(), "data     /app/config  version 1  zxid 14  v 2");
        let line = Line { data: Some(Json::of(b"1\n2")), ..line };
        assert_eq!(line.text(), "data     /app/config  version 1  zxid 14  \"1\\n2\"");
        let line = Line { data: Some(Json::of(b"\xff")), ..line };
        assert_eq!(line.text(), "data     /app/config  version 1  zxid 14  (1 bytes)");
        assert_eq!(serde_json::to_value(&line).unwrap()["data"], json!({ "base64": "/w==" }));
    }

    #[test]
    fn a_resync_and_a_snapshot_are_told_as_such() {
        let line = Line::bare("resync", Zxid(9));
        assert_eq!(line.text(), "resync   zxid 9  earlier changes are not kept: the present state follows");
        assert_eq!(serde_json::to_value(&line).unwrap(), json!({ "kind": "resync", "zxid": 9 }));
        assert_eq!(Line::bare("snapshot", Zxid(9)).text(), "snapshot zxid 9  the present state follows");
    }

    /// A part of a snapshot.
    fn part(part: u64, paths: &[&str], more: bool) -> WatchEvent {
        let entry = |path: &&str| TreeEntry { path: Path::parse(path).unwrap(), stat: Stat::default(), data: None };
        WatchEvent::Snapshot { zxid: Zxid(9), part, entries: paths.iter().map(entry).collect(), more }
    }

    #[tokio::test]
    async fn the_present_state_is_read_until_it_is_whole_whatever_breaks() {
        let (asked, said) = (Cell::new(0), RefCell::new(Vec::new()));
        let snapshot = async || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                let attempt = Attempt { endpoint: "a:1".into(), why: "no".into(), certificate: false };
                return Err(Error::NoConnection(NoConnection { attempts: vec![attempt] }));
            }
            let events = [part(0, &["/a"], true), part(0, &["/a"], true), part(1, &["/a/b"], false)];
            Ok(stream::iter(events.map(Ok)).chain(stream::pending()))
        };
        let say = |line: &Line<'_>| {
            said.borrow_mut().push(line.path.map_or_else(|| line.kind.to_owned(), ToString::to_string));
            Ok(())
        };
        present(snapshot, say).await.unwrap();
        assert_eq!((asked.get(), said.take()), (3, ["/a", "resync", "/a", "/a/b"].map(str::to_owned).to_vec()));
    }

    #[tokio::test]
    async fn a_watch_that_may_not_go_on_after_a_resync_ends() {
        let refused = || Error::Refused(Refusal::BadRequest { why: "no".into() });
        let failed = present(async || Err::<stream::Empty<_>, _>(refused()), |_| Ok(())).await.unwrap_err();
        assert_eq!(failed.code(), "bad-request");
        let failed = present(async || Ok(stream::iter([Err(refused())])), |_| Ok(())).await.unwrap_err();
        assert_eq!(failed.code(), "bad-request");
    }
}
