//! Looks over a data directory that no member has open, and changes nothing in it but its lock file's process id.

mod tables;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use conclave_core::apply::{Local, Position};
use conclave_protocol::Zxid;

use crate::checkpoint::{OnProgress, files, read};
use crate::environment::{DATA, Environment, FORMAT, directory, environments};
use crate::error::io;
use crate::marker::{Found, Marker, Place};
use crate::{Boot, CheckpointError, DirLock, Error, Snapshot, restore};

/// So many findings of one kind are told one by one.
const TOLD: usize = 10;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Note,
    /// Mended by itself at the next start, at some cost.
    Warning,
    /// Something is damaged or missing.
    Error,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In plain words: a sentence without its full stop.
    pub what: String,
}

/// What a data directory holds, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Whose tables these are.
    pub cluster: Option<String>,
    /// The N of the directory `env-N` that the marker names.
    pub environment: Option<u32>,
    /// What is kept beside the tables, when they could be read.
    pub local: Option<Local>,
    /// The tables' last transaction.
    pub zxid: Option<Zxid>,
    /// How many znodes there are.
    pub znodes: u64,
    /// How many rows were read, and found to have the right hash.
    pub rows: u64,
    /// The newest checkpoint that is good.
    pub checkpoint: Option<Position>,
    /// Findings of each kind, for those that are not told one by one.
    counts: Vec<(&'static str, Severity, usize)>,
}

impl Report {
    /// How bad the worst finding is.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn add(&mut self, severity: Severity, what: impl Into<String>) {
        self.findings.push(Finding { severity, what: what.into() });
    }

    /// One of perhaps very many of this kind.
    fn add_one(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        let severity = Severity::Error;
        let counted = match self.counts.iter().position(|(known, ..)| *known == kind) {
            Some(at) => &mut self.counts[at].2,
            None => {
                self.counts.push((kind, severity, 0));
                &mut self.counts.last_mut().expect("just pushed").2
            }
        };
        *counted += 1;
        if *counted <= TOLD {
            self.add(severity, what());
        }
    }

    fn sum_up(&mut self) {
        for (kind, severity, count) in std::mem::take(&mut self.counts) {
            if count > TOLD {
                self.add(severity, format!("{kind}: {} more", count - TOLD));
            }
        }
    }
}

/// Checks marker, tables and checkpoints of a data directory: every row's hash, the digest, and that the rows of all
/// tables fit together. The log is another crate's.
///
/// # Errors
/// [`Error::Locked`] while a member has it; [`Error::Io`] when the directory can't be read. All else is a finding.
pub fn check(dir: &Path, progress: &mut OnProgress<'_>) -> Result<Report, Error> {
    // The lock would make the directory.
    fs::metadata(dir).map_err(io("find", dir))?;
    let lock = DirLock::acquire(dir)?;
    let dir = lock.dir();
    let mut report = Report::default();
    if let Err(error) = restore::refuse_half(dir) {
        report.add(Severity::Error, error.to_string());
    }
    let believed = check_marker(dir, &mut report)?;
    for (number, path) in environments(dir)? {
        if Some(number) != report.environment {
            let what = format!("{} is left over, and will be removed at the next start", path.display());
            report.add(Severity::Note, what);
        }
    }
    if let Some(number) = believed {
        check_tables(&lock, number, &mut report);
    }
    check_checkpoints(dir, &mut report, progress)?;
    report.sum_up();
    Ok(report)
}

/// Tells what the next start would do; gives the environment that it would believe.
fn check_marker(dir: &Path, report: &mut Report) -> Result<Option<u32>, Error> {
    let marker = match Marker::read(dir, FORMAT)? {
        Found::Marker(marker) => marker,
        Found::OtherFormat(found) => {
            let error = Error::OtherFormat { found, expected: FORMAT };
            report.add(Severity::Error, error.to_string());
            return Ok(None);
        }
        Found::Nothing if environments(dir)?.is_empty() => {
            report.add(Severity::Note, "there are no tables: they will be built from checkpoint and log");
            return Ok(None);
        }
        Found::Nothing => {
            let what = "the marker of the tables is missing or unreadable: they will be thrown away and built again";
            report.add(Severity::Warning, what);
            return Ok(None);
        }
    };
    report.cluster = Some(marker.cluster.clone());
    report.environment = Some(marker.environment);
    let place = Place::of(&directory(dir, marker.environment).join(DATA))?;
    match marker.judge(&Boot::current(), place) {
        Ok(_) => {
            if !marker.is_clean() {
                let what = "the tables were not closed; the machine has not gone down since, so they are believed";
                report.add(Severity::Note, what);
            }
            Ok(Some(marker.environment))
        }
        Err(why) => {
            // Not looked at: pages may be missing, and LMDB does not bear that.
            report.add(Severity::Warning, format!("{why}: they will be thrown away and built again"));
            Ok(None)
        }
    }
}

fn check_tables(lock: &DirLock, number: u32, report: &mut Report) {
    let checked = Environment::read_only(lock, number).and_then(|environment| {
        if let Some(found) = environment.cluster()?.filter(|found| Some(found) != report.cluster.as_ref()) {
            let expected = report.cluster.clone().unwrap_or_default();
            return Err(Error::OtherCluster { found, expected });
        }
        tables::check(&Snapshot::new(Arc::new(environment))?, report)?;
        Ok(())
    });
    if let Err(error) = checked {
        report.add(Severity::Error, format!("the tables can't be read: {error}"));
    }
}

fn check_checkpoints(dir: &Path, report: &mut Report, progress: &mut OnProgress<'_>) -> Result<(), Error> {
    let dir = dir.join("checkpoints");
    if !dir.exists() {
        report.add(Severity::Note, "there is no checkpoint");
        return Ok(());
    }
    let found = files(&dir)?;
    if found.is_empty() {
        report.add(Severity::Note, "there is no checkpoint");
    }
    for (number, (position, path)) in found.into_iter().enumerate() {
        let verified = read(&path, position).and_then(|checkpoint| {
            checkpoint.verify(progress)?;
            Ok(checkpoint)
        });
        match verified {
            Ok(checkpoint) => {
                if report.cluster.as_ref().is_some_and(|cluster| cluster != checkpoint.cluster()) {
                    let what = format!("checkpoint {} is of cluster {}", path.display(), checkpoint.cluster());
                    report.add(Severity::Error, what);
                } else if number > 0 {
                    report.add(Severity::Note, format!("{} is an older checkpoint", path.display()));
                }
                report.checkpoint = report.checkpoint.max(Some(position));
            }
            Err(CheckpointError::Cancelled) => {
                report.add(Severity::Note, format!("{} was not read to its end", path.display()));
                return Ok(());
            }
            Err(error) => report.add(Severity::Error, error.to_string()),
        }
    }
    let applied = report.local.as_ref().map(|local| local.applied.map_or(0, |at| at.index));
    if let (Some(applied), Some(newest)) = (applied, report.checkpoint)
        && applied < newest.index
    {
        let what = format!("the checkpoint holds entry {}, the tables end at {applied}", newest.index);
        report.add(Severity::Warning, format!("{what}: an install was interrupted"));
    }
    Ok(())
}
