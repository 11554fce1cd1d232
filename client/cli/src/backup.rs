//! `backup`: the whole tree into one file, which is there complete and verified, or not at all.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use conclave_client::{BackupStream, Client, Error, Outcome};
use serde::Serialize;

use crate::failure::{DONE, Failure, NO_CONNECTION, While};
use crate::finding::size;
use crate::out::{Out, Progress, plural};
use crate::{Tools, args};

/// `backup --json`.
#[derive(Debug, Serialize)]
struct BackedUp<'a> {
    file: &'a Path,
    cluster: &'a str,
    zxid: u64,
    digest: &'a str,
    rows: u64,
    bytes: u64,
    seconds: f64,
}

pub(crate) async fn run(client: &Client, args: &args::Backup, tools: &Tools, out: Out) -> Result<u8, Failure> {
    let began = Instant::now();
    let file = args.file.as_path();
    refuse_existing(args)?;
    let mut part = Part::create(file)?;
    let begun = if args.stale { client.backup_stale().await } else { client.backup().await };
    let mut stream = begun.map_err(|error| not_written(error, file))?;
    receive(&mut stream, &mut part, out).await?;
    let backup = stream.backup().clone();
    let written = part.sync()?;
    let verify = tools.verify_backup;
    let verified = tokio::task::spawn_blocking(move || verify(&written)).await;
    let verified = verified.map_err(|error| Failure::file(file, error))?.map_err(|why| damaged(file, &why))?;
    if (verified.zxid, verified.digest.as_str()) != (backup.zxid.0, backup.digest.as_str()) {
        let why = format!("it holds zxid {} where {} was announced", verified.zxid, backup.zxid);
        return Err(damaged(file, &why));
    }
    // Somebody may have been faster.
    refuse_existing(args)?;
    part.finish(file)?;
    let done = BackedUp {
        file,
        cluster: &backup.cluster,
        zxid: backup.zxid.0,
        digest: &backup.digest,
        rows: backup.rows,
        bytes: backup.bytes,
        seconds: began.elapsed().as_secs_f64(),
    };
    out.show(&done, text)?;
    Ok(DONE)
}

fn text(done: &BackedUp<'_>) -> String {
    format!(
        "backed up cluster {}  zxid {}  {} row{}  {}  in {}\ndigest {}",
        done.cluster,
        done.zxid,
        done.rows,
        plural(done.rows),
        size(done.bytes),
        done.file.display(),
        done.digest
    )
}

fn refuse_existing(args: &args::Backup) -> Result<(), Failure> {
    if args.overwrite || !args.file.exists() {
        return Ok(());
    }
    let text = format!("{} exists already. Nothing was changed. --overwrite replaces it.", args.file.display());
    Err(Failure::Refused { code: "file-exists", text })
}

async fn receive(stream: &mut BackupStream, part: &mut Part, out: Out) -> Result<(), Failure> {
    let total = stream.backup().bytes;
    let mut progress = Progress::new(out);
    while let Some(bytes) = stream.next().await.map_err(|error| not_written(error, &part.path))? {
        part.write(&bytes)?;
        let received = stream.received();
        let percent = if total == 0 { 100 } else { u128::from(received) * 100 / u128::from(total) };
        progress.show(|| format!("backup  {percent:>3} %  {} of {}", size(received), size(total)));
    }
    Ok(())
}

fn not_written(error: Error, file: &Path) -> Failure {
    let file = file.display();
    match error {
        Error::Interrupted { why, .. } => {
            let why = why.trim_end_matches('.');
            let text = format!(
                "interrupted: {why}. {file} was not written. Try again, or at another member with --endpoints."
            );
            Failure::Exact { code: "interrupted", exit: NO_CONNECTION, outcome: Outcome::NotApplied, text }
        }
        Error::Refused(refusal) if refusal.code() == "limit" => {
            let text = format!(
                "{refusal}. {file} was not written. Wait for the other one to end, or ask another member with --endpoints."
            );
            Failure::Refused { code: "limit", text }
        }
        other => other.reading(),
    }
}

fn damaged(file: &Path, why: &str) -> Failure {
    let text = format!(
        "what came is damaged: {}. {} was not written. Try again at another member, with --endpoints; `conclave doctor` \
         looks at them all.",
        why.trim_end_matches('.'),
        file.display()
    );
    Failure::Refused { code: "damaged", text }
}

/// The file while it is not complete, under a name that says so. Dropped, it is removed.
struct Part {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    keep: bool,
}

impl Part {
    fn create(beside: &Path) -> Result<Self, Failure> {
        let mut path = beside.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        // What is in it is the whole tree: nobody else's business.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Failure::file(&path, error))?;
        Ok(Self { path, file: Some(BufWriter::with_capacity(1 << 20, file)), keep: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|error| Failure::file(&self.path, error))
    }

    /// Everything is on the disk; gives its name.
    fn sync(&mut self) -> Result<PathBuf, Failure> {
        let failed = |error| Failure::file(&self.path, error);
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
        }
        Ok(self.path.clone())
    }

    /// Gives it its name, durably.
    fn finish(mut self, name: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::file(name, error);
        std::fs::rename(&self.path, name).map_err(failed)?;
        self.keep = true;
        let dir = name.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.keep {
            // Left there, it would only be in the way.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("demo.backup");
        let mut part = Part::create(&name).unwrap();
        part.write(b"half").unwrap();
        drop(part);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of what was given up");
        let mut part = Part::create(&name).unwrap();
        part.write(b"whole").unwrap();
        part.sync().unwrap();
        assert!(!name.exists());
        part.finish(&name).unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let args = args::Backup { file: name.clone(), overwrite: false, stale: false };
        let refused = refuse_existing(&args).unwrap_err();
        assert_eq!((refused.exit(), refused.code()), (1, "file-exists"));
        assert!(refuse_existing(&args::Backup { overwrite: true, ..args }).is_ok());
    }

    #[test]
    fn a_broken_connection_is_exit_code_3_and_a_busy_member_a_refusal() {
        let error = Error::Interrupted { why: "the member ended the stream".into(), outcome: Outcome::NotApplied };
        let failure = not_written(error, Path::new("x"));
        assert_eq!((failure.exit(), failure.code(), failure.outcome()), (3, "interrupted", Outcome::NotApplied));
        assert_eq!(
            failure.message(),
            "interrupted: the member ended the stream. x was not written. Try again, or at another member with --endpoints."
        );
        let refusal = conclave_client::Refusal::Limit { what: "backups".into(), limit: 1, actual: 2 };
        let failure = not_written(Error::Refused(refusal), Path::new("x"));
        assert_eq!((failure.exit(), failure.code()), (1, "limit"));
        assert!(failure.message().starts_with("refused: limit: backups is 2, 1 is the limit. x was not written."));
    }

    #[test]
    fn programs_get_every_field_by_its_name() {
        let done = BackedUp {
            file: Path::new("demo.backup"),
            cluster: "6f1c",
            zxid: 57,
            digest: "ab",
            rows: 1,
            bytes: 2_048,
            seconds: 0.5,
        };
        assert_eq!(
            serde_json::to_value(&done).unwrap(),
            serde_json::json!({
                "file": "demo.backup", "cluster": "6f1c", "zxid": 57, "digest": "ab", "rows": 1, "bytes": 2048,
                "seconds": 0.5,
            })
        );
        assert_eq!(text(&done), "backed up cluster 6f1c  zxid 57  1 row  2.0 KiB  in demo.backup\ndigest ab");
    }
}
