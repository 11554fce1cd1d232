//! What is done while no member runs: a backup is verified, a data directory made from it, a data directory looked over.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use conclave_core::apply::Position;
use conclave_log::{CheckReport, RealDisk, VoteCopy};
use conclave_store::{Checkpoint, CheckpointError, DirLock, Progress, Severity, Step};

use crate::quarantine::Record;
use crate::raft::single_member;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backup's file.
    #[error("{0}")]
    Backup(String),
    /// The new cluster would have the id of the old one: its members would take each other for their own.
    #[error("the backup is of cluster {0}, and the new cluster needs an id of its own")]
    SameCluster(String),
    /// The data directory.
    #[error(transparent)]
    Data(#[from] conclave_store::Error),
    /// The log in it.
    #[error("log in {}: {source}", dir.display())]
    Log {
        /// In which data directory.
        dir: PathBuf,
        /// Why.
        source: conclave_log::Error,
    },
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holds {
    /// The cluster that it is of.
    pub cluster: String,
    /// Its last transaction.
    pub zxid: u64,
    /// The sum of its rows.
    pub digest: u128,
    /// How many rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// How far it is: what is being done, rows done, and of how many when that is known.
pub type OnProgress<'a> = dyn FnMut(&'static str, u64, Option<u64>) + 'a;

/// What a backup's file says of itself. The rows are not read.
///
/// # Errors
/// [`Error::Backup`].
pub fn look(file: &Path) -> Result<Holds, Error> {
    Ok(holds(&Checkpoint::open(file).map_err(unusable)?))
}

/// Reads a backup's whole file, and recomputes every hash and sum in it.
///
/// # Errors
/// [`Error::Backup`]: what is damaged, and where.
pub fn verify(file: &Path, progress: &mut OnProgress<'_>) -> Result<Holds, Error> {
    let checkpoint = Checkpoint::open(file).map_err(unusable)?;
    checkpoint.verify(&mut told(progress)).map_err(unusable)?;
    Ok(holds(&checkpoint))
}

fn holds(checkpoint: &Checkpoint) -> Holds {
    Holds {
        cluster: checkpoint.cluster().to_owned(),
        zxid: checkpoint.zxid().0,
        digest: checkpoint.local().digest,
        rows: checkpoint.rows(),
        bytes: checkpoint.bytes(),
    }
}

fn unusable(error: CheckpointError) -> Error {
    Error::Backup(error.to_string())
}

fn told<'a>(progress: &'a mut OnProgress<'_>) -> impl FnMut(Progress) -> ControlFlow<()> + 'a {
    |now| {
        let step = match now.step {
            Step::Load => "load",
            Step::Verify => "verify",
            Step::Write => "write",
            _ => "work",
        };
        progress(step, now.rows, now.total_rows);
        ControlFlow::Continue(())
    }
}

/// The first member of the cluster that a restore makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// The new cluster's id.
    pub cluster: String,
    /// The member's number.
    pub member: u64,
    /// `host:port` where clients reach it.
    pub client: String,
    /// `host:port` where members reach it.
    pub peer: String,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub backup: Holds,
    /// The sum of the rows that are there now: that of the backup.
    pub digest: u128,
    /// How many rows.
    pub rows: u64,
}

/// Makes a data directory of a cluster with one voter from a backup: its log begins behind what the backup holds, so
/// that other members, which are added later, get that as a snapshot.
///
/// Everything is durable when this returns. Interrupted, it can be done again; a member does not start from what is
/// half done.
///
/// # Errors
/// [`Error`]. The directory must be empty or absent.
pub fn restore(file: &Path, dir: &Path, first: &First, progress: &mut OnProgress<'_>) -> Result<Restored, Error> {
    let backup = look(file)?;
    if backup.cluster == first.cluster {
        return Err(Error::SameCluster(backup.cluster));
    }
    let held = Checkpoint::open(file).map_err(unusable)?.position().index;
    // An entry of term 0 is older than any that a leader makes; indices go on from where the old cluster was.
    let position = Position { term: 0, index: held.max(1) };
    let membership = single_member(first.member, &first.peer, &first.client, position.index);
    let lock = DirLock::acquire(dir)?;
    let log = lock.dir().join("log");
    let restoring = conclave_store::restore(&lock, file, &first.cluster, position, membership, &mut told(progress))?;
    begin_log(&log, position).map_err(|source| Error::Log { dir: dir.to_owned(), source })?;
    // Not before the log is there: without one, a member would begin another.
    let restored = restoring.finish()?;
    Ok(Restored { backup, digest: restored.digest.0, rows: restored.rows })
}

/// A log without entries, purged up to there.
fn begin_log(dir: &Path, upto: Position) -> Result<(), conclave_log::Error> {
    let dead = |why: String| conclave_log::Error::Dead(why.into());
    let disk = RealDisk::open(dir).map_err(|error| dead(error.to_string()))?;
    let options = conclave_log::Options::default();
    let (log, votes, recovered) = conclave_log::open(Arc::new(disk), options.clone())?;
    let spawned = conclave_log::Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {}));
    let (handle, thread) = spawned.map_err(|error| dead(error.to_string()))?;
    let (done, purged) = mpsc::channel();
    let upto = conclave_log::Position { index: upto.index, term: upto.term };
    handle.purge_upto(upto, Box::new(move |result| drop(done.send(result))))?;
    let purged = purged.recv().map_err(|_| dead("its thread ended".to_owned()))?;
    drop(handle);
    thread.join().map_err(|_| dead("its thread panicked".to_owned()))?;
    purged.map_err(|error| dead(error.to_string()))
}

/// How bad something is that was found in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Badness {
    /// Worth knowing.
    Note,
    /// The next start mends it, at some cost.
    Warning,
    /// It is damaged.
    Error,
}

/// What a data directory holds, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// Whose tables these are.
    pub cluster: Option<String>,
    /// The tables' last transaction.
    pub zxid: Option<u64>,
    /// The tables' digest.
    pub digest: Option<u128>,
    /// Znodes there.
    pub znodes: u64,
    /// Rows that were read, each against its hash.
    pub rows: u64,
    /// The last entry that the tables hold.
    pub applied: Option<u64>,
    /// The last entry that the newest good checkpoint holds.
    pub checkpoint: Option<u64>,
    /// The log's first and last entries.
    pub log_first: Option<u64>,
    /// See `log_first`.
    pub log_last: Option<u64>,
    /// Entries in it, each read against its checksums.
    pub log_entries: u64,
    /// The term of the vote that counts.
    pub vote_term: Option<u64>,
    /// What was found, with a stable code.
    pub findings: Vec<(Badness, &'static str, String)>,
}

/// Looks over a data directory that no member has open: tables, checkpoints, log, votes. Changes nothing.
///
/// # Errors
/// When the directory is in use, or can't be read.
pub fn check(dir: &Path, progress: &mut OnProgress<'_>) -> Result<Examined, Error> {
    let store = conclave_store::check(dir, &mut told(progress))?;
    let mut examined = Examined {
        cluster: store.cluster.clone(),
        zxid: store.zxid.map(|zxid| zxid.0),
        digest: store.local.as_ref().map(|local| local.digest),
        znodes: store.znodes,
        rows: store.rows,
        applied: store.local.as_ref().and_then(|local| local.applied).map(|at| at.index),
        checkpoint: store.checkpoint.map(|at| at.index),
        ..Examined::default()
    };
    for finding in store.findings {
        let badness = match finding.severity {
            Severity::Note => Badness::Note,
            Severity::Warning => Badness::Warning,
            Severity::Error => Badness::Error,
        };
        examined.findings.push((badness, "tables", finding.what));
    }
    match Record::read(dir) {
        Ok(Some(Record { attempt, is_pending: true, why })) => {
            let what = format!("its state is not believed: {why}. The next start makes it again (attempt {attempt})");
            examined.findings.push((Badness::Warning, "quarantined", what));
        }
        Ok(Some(Record { attempt, why, .. })) => {
            let what = format!("its state was not believed: {why}. It was made again (attempt {attempt})");
            examined.findings.push((Badness::Note, "was-quarantined", what));
        }
        Ok(None) => {}
        Err(error) => {
            let what = format!("the record of a quarantine can't be read: {error}");
            examined.findings.push((Badness::Warning, "quarantined", what));
        }
    }
    // The disk would make the directory.
    let log = dir.join("log");
    if !log.is_dir() {
        let what = format!("there is no log in {}", dir.display());
        examined.findings.push((Badness::Error, "no-log", what));
        return Ok(examined);
    }
    let failed = |source| Error::Log { dir: dir.to_owned(), source };
    let disk = RealDisk::open(log).map_err(|error| failed(conclave_log::Error::Dead(error.to_string().into())))?;
    let report = conclave_log::check(&disk).map_err(failed)?;
    examined.take_log(&report);
    Ok(examined)
}

impl Examined {
    fn take_log(&mut self, report: &CheckReport) {
        self.log_first = report.first;
        self.log_last = report.last.map(|last| last.index);
        self.log_entries = report.entries;
        self.vote_term = report.vote.map(|vote| vote.term);
        let mut found = |badness, code, what: String| self.findings.push((badness, code, what));
        for damage in &report.damage {
            found(Badness::Error, "log", damage.to_string());
        }
        if let Some(torn) = &report.torn {
            let what = format!(
                "{}: a crash cut the last write short, {} bytes from byte {} on; nobody was told that it was durable, and \
                 the next start clears it away",
                torn.segment, torn.length_bytes, torn.offset_bytes
            );
            found(Badness::Note, "torn", what);
        }
        for (name, copy) in ["vote-a", "vote-b"].into_iter().zip(&report.votes) {
            if *copy == VoteCopy::Damaged {
                found(
                    Badness::Warning,
                    "vote",
                    format!("{name} is damaged: the next start mends it from the other copy"),
                );
            }
        }
        for name in &report.unfinished {
            found(
                Badness::Note,
                "unfinished",
                format!("{name} is left of an interrupted start, and is used up by the next"),
            );
        }
        let purged = report.purged.map(|purged| purged.index);
        let held = self.applied.max(self.checkpoint);
        if let Some(purged) = purged
            && held < Some(purged)
            && report.damage.is_empty()
        {
            let what = format!(
                "the log begins after entry {purged}, and neither tables nor a checkpoint hold all before it: the member \
                 fetches a checkpoint of another one"
            );
            found(Badness::Error, "gap", what);
        }
        let last = report.last.map_or(0, |last| last.index);
        if let Some(applied) = self.applied.filter(|applied| *applied > last && self.checkpoint < Some(*applied)) {
            let what = format!("the tables hold entry {applied}, the log ends at {last}: a part of the log was lost");
            self.findings.push((Badness::Error, "log-lost", what));
        }
    }
}

impl Error {
    /// A stable code: lower case, words joined by `-`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Backup(_) => "bad-backup",
            Self::SameCluster(_) => "same-cluster",
            Self::Data(conclave_store::Error::NotEmpty { .. }) => "not-empty",
            Self::Data(conclave_store::Error::Locked { .. }) => "in-use",
            Self::Data(_) | Self::Log { .. } => "data",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use conclave_core::Table;
    use conclave_store::{Boot, Checkpoints, Options, Store};

    use super::*;

    fn open(lock: &DirLock, cluster: &str) -> Result<conclave_store::Opened, conclave_store::Error> {
        let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
        Store::open(lock, cluster, &Checkpoints::open(lock, cluster)?, &options)
    }

    #[test]
    fn a_restore_that_ended_before_the_log_was_begun_is_no_member_and_can_be_repeated() {
        let from = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(from.path()).unwrap();
        let mut opened = open(&lock, "old").unwrap();
        // A row of the history, which no digest counts.
        opened.writer.write(|tables| tables.write(Table::Change, b"changed", Some(b"what")), |_| Ok(())).unwrap();
        let checkpoints = Checkpoints::open(&lock, "old").unwrap();
        let made = checkpoints.make(&opened.store, &mut |_| ControlFlow::Continue(())).unwrap();
        let first = First {
            cluster: "new".to_owned(),
            member: 1,
            client: "localhost:1".to_owned(),
            peer: "localhost:2".to_owned(),
        };
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        // While the tables are restored, something takes the name of a file of the log.
        let failed = restore(made.path(), dir.path(), &first, &mut |step, _, _| {
            if step == "load" {
                fs::create_dir_all(log.join("vote-a")).unwrap();
            }
        });
        assert!(matches!(failed, Err(Error::Log { .. })), "{failed:?}");
        assert!(matches!(
            open(&DirLock::acquire(dir.path()).unwrap(), "new"),
            Err(conclave_store::Error::HalfRestored { .. })
        ));

        restore(made.path(), dir.path(), &first, &mut |_, _, _| {}).unwrap();
        let found = check(dir.path(), &mut |_, _, _| {}).unwrap();
        assert!(found.findings.iter().all(|(badness, ..)| *badness < Badness::Warning), "{:?}", found.findings);
        assert_eq!((found.applied, found.log_last, found.log_entries), (Some(1), Some(1), 0));
        open(&DirLock::acquire(dir.path()).unwrap(), "new").unwrap();
    }
}
