//! `watch --exec`: a command for each event, which it reads on stdin and finds in its environment.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use conclave_client::{Path, WatchEvent, Zxid};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command is told of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The transaction's, or that of the state.
    pub(super) zxid: Zxid,
    kind: String,
    path: Path,
    count: usize,
    json: Value,
}

impl Event {
    /// An event of a watch at that path; `json` is its line.
    pub(super) fn new(watched: &Path, event: &WatchEvent, json: Value) -> Self {
        let (zxid, kind, path, count) = match event {
            WatchEvent::Changes { zxid, changes, .. } => {
                let first = changes.first();
                let kind = first.map(|change| change.kind.to_string()).unwrap_or_default();
                (*zxid, kind, first.map_or(watched, |change| &change.path), changes.len())
            }
            WatchEvent::Resync { zxid } => (*zxid, "resync".to_owned(), watched, 0),
            WatchEvent::Snapshot { zxid, entries, .. } => (*zxid, "snapshot".to_owned(), watched, entries.len()),
            // Events that this version does not know.
            _ => (Zxid(0), "unknown".to_owned(), watched, 0),
        };
        Self { zxid, kind, path: path.clone(), count, json }
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("CONCLAVE_ZXID", self.zxid.to_string()),
            ("CONCLAVE_KIND", self.kind.clone()),
            ("CONCLAVE_PATH", self.path.to_string()),
            ("CONCLAVE_COUNT", self.count.to_string()),
        ]
    }
}

/// Runs the command to its end; gives its exit code (128 + N when signal N ended it).
///
/// # Errors
/// When it cannot be started.
pub(super) async fn run(command: &[OsString], event: &Event) -> io::Result<u8> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child =
        Command::new(program).args(args).envs(event.variables()).stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut stdin = child.stdin.take();
    let mut line = event.json.to_string();
    line.push('\n');
    let write = async {
        if let Some(stdin) = &mut stdin {
            // A command need not read it.
            let _ = stdin.write_all(line.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        drop(stdin.take());
        std::future::pending::<()>().await;
    };
    // Nor does a command that has ended wait for somebody who got its stdin and does not read.
    let status = tokio::select! {
        status = child.wait() => status?,
        () = write => return Err(io::ErrorKind::Other.into()),
    };
    let signalled = || status.signal().map_or(1, |signal| 128 + signal);
    Ok(u8::try_from(status.code().unwrap_or_else(signalled)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use conclave_client::{Change, ChangeKind};
    use serde_json::json;

    use super::*;

    fn event(json: Value) -> Event {
        let path: Path = "/app/a".parse().unwrap();
        let change = |kind| Change { kind, path: path.clone(), version: 1 };
        let changes = vec![change(ChangeKind::Created), change(ChangeKind::Data)];
        let event = WatchEvent::Changes { zxid: Zxid(9), changes, present: Vec::new() };
        Event::new(&"/app".parse().unwrap(), &event, json)
    }

    async fn sh(script: &str, json: Value) -> u8 {
        let command = ["sh", "-c", script].map(OsString::from);
        run(&command, &event(json)).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_reads_the_event_and_finds_its_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("told");
        let script = format!(
            "cat > {0}; echo $CONCLAVE_ZXID $CONCLAVE_KIND $CONCLAVE_PATH $CONCLAVE_COUNT >> {0}",
            file.display()
        );
        assert_eq!(sh(&script, json!({ "zxid": 9 })).await, 0);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"zxid\":9}\n9 created /app/a 2\n");
    }

    #[tokio::test]
    async fn its_exit_code_or_signal_is_known_and_it_need_not_read() {
        let large = json!({ "data": "x".repeat(1 << 20) });
        assert_eq!(sh("exit 7", large.clone()).await, 7);
        assert_eq!(sh("kill -9 $$", large).await, 137);
        let missing = [OsString::from("/nonexistent/command")];
        assert!(run(&missing, &event(json!({}))).await.is_err());
    }

    #[test]
    fn what_has_no_change_is_about_the_path_that_is_watched() {
        let watched: Path = "/app".parse().unwrap();
        let resync = Event::new(&watched, &WatchEvent::Resync { zxid: Zxid(4) }, json!({}));
        let variables = resync.variables().map(|(_, value)| value);
        assert_eq!(variables, ["4", "resync", "/app", "0"]);
    }
}
