//! `conclave doctor`: what is wrong with a cluster that runs, or with a data directory that nobody has open.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use conclave_cli::Globals;
use conclave_cli::finding::{self, Finding, Severity};
use conclave_server::Config;
use conclave_server::offline::{self, Badness, Examined};

use crate::out::{self, Failure, Outcome};
use crate::{check, restore, server};

/// Look for what is wrong: with the cluster, or with a member's data directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Of a running cluster: who answers and who is behind, clocks, the disks' flush times and free room, certificates' ends,
versions, digests at one zxid, checkpoints. Of a data directory, while its member is stopped: every row against its hash,
the digest, tables that do not fit together, checkpoints, every entry of the log, both copies of the vote. Nothing is changed.

  conclave doctor                          the cluster that all commands here find
  conclave doctor --dir one/data           a member's data directory
  conclave doctor --config one/member.toml the same, with certificates and configuration

Exit codes: 0 sound, 1 something was found; otherwise as for all commands")]
pub(crate) struct Args {
    /// The configuration of a stopped member, whose data directory is looked at
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, globals: &Globals) -> ExitCode {
    // A directory that tells clients where a cluster is is none of a member's.
    let data = globals.dir.as_ref().filter(|dir| !dir.join("client.toml").exists());
    if args.config.is_none() && data.is_none() {
        return match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(Box::pin(conclave_cli::doctor(globals))),
            Err(error) => out::end(&Err(Failure::broken("cannot start a runtime", error)), globals.json),
        };
    }
    match offline(args.config.as_deref(), data.map(PathBuf::as_path), globals.json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => out::end(&Err(failure), globals.json),
    }
}

/// Whether the directory is sound.
fn offline(config: Option<&Path>, data: Option<&Path>, json: bool) -> Outcome<bool> {
    let mut findings = Vec::new();
    let loaded = match config {
        Some(path) => Some(Config::load(path, server::variables()).map_err(|error| Failure::Usage(error.to_string()))?),
        None => None,
    };
    let dir = match (data, &loaded) {
        (Some(dir), _) => dir,
        (None, Some(config)) => config.data.as_path(),
        (None, None) => return Err(Failure::Usage("name --dir or --config".to_owned())),
    };
    if !dir.is_dir() {
        let text = format!("{} is not there. Name a member's data directory.", dir.display());
        return Err(Failure::refused("no-data", text));
    }
    let examined = offline::check(dir, &mut restore::progress()).map_err(|error| match error.code() {
        "in-use" => {
            let text =
                format!("{error}. Nothing was looked at. Stop the member; or leave out --dir to look at the cluster.");
            Failure::refused("in-use", text)
        }
        _ => Failure::Broken(error.to_string()),
    })?;
    findings.extend(examined.findings.iter().map(|(badness, code, what)| {
        let severity = match badness {
            Badness::Note => Severity::Note,
            Badness::Warning => Severity::Warning,
            Badness::Error => Severity::Error,
        };
        Finding::new(severity, code, what.clone())
    }));
    if let (Some(path), Some(config)) = (config, &loaded) {
        configured(path, config, &examined, &mut findings);
    }
    say(dir, &examined, &findings, json);
    Ok(finding::is_sound(&findings))
}

/// What of the configuration does not fit what is there.
fn configured(path: &Path, config: &Config, examined: &Examined, findings: &mut Vec<Finding>) {
    if let Some(cluster) = examined.cluster.as_ref().filter(|cluster| **cluster != config.cluster) {
        let text = format!("{} says cluster {}, the tables are of {cluster}", path.display(), config.cluster);
        findings.push(Finding::new(Severity::Error, "cluster", text));
    }
    if let Err(failure) = check::credentials(config) {
        findings.push(Finding::new(Severity::Error, "credentials", failure.to_string()));
    }
    if findings.iter().any(|finding| finding.code == "log" && finding.severity == Severity::Error) {
        let text = format!("`conclave server --config {} --replace` says what to do about the log", path.display());
        findings.push(Finding::new(Severity::Note, "replace", text));
    }
}

fn say(dir: &Path, examined: &Examined, findings: &[Finding], json: bool) {
    let sound = finding::is_sound(findings);
    let digest = examined.digest.map(|digest| format!("{digest:032x}"));
    if json {
        out::line(serde_json::json!({
            "dir": dir,
            "cluster": examined.cluster,
            "sound": sound,
            "zxid": examined.zxid,
            "digest": digest,
            "znodes": examined.znodes,
            "rows": examined.rows,
            "applied": examined.applied,
            "checkpoint": examined.checkpoint,
            "log_first": examined.log_first,
            "log_last": examined.log_last,
            "log_entries": examined.log_entries,
            "vote_term": examined.vote_term,
            "findings": findings,
        }));
        return;
    }
    let or_none = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let cluster = examined.cluster.as_ref().map(|cluster| format!(" · cluster {cluster}")).unwrap_or_default();
    out::line(format!("data directory {}{cluster}", dir.display()));
    match (examined.zxid, digest) {
        (Some(zxid), Some(digest)) => out::line(format!(
            "tables      zxid {zxid}  {} znodes  {} rows  up to entry {}  digest {digest}",
            examined.znodes,
            examined.rows,
            or_none(examined.applied)
        )),
        _ => out::line("tables      none that could be read"),
    }
    out::line(format!("checkpoint  up to entry {}", or_none(examined.checkpoint)));
    out::line(format!(
        "log         {} entries, {} to {}",
        examined.log_entries,
        or_none(examined.log_first),
        or_none(examined.log_last)
    ));
    out::line(format!("vote        term {}", or_none(examined.vote_term)));
    if !findings.is_empty() {
        out::line(finding::text(findings).trim_end());
    }
    let worse = findings.iter().filter(|finding| finding.severity > Severity::Note).count();
    out::line(if sound { "sound".to_owned() } else { format!("{worse} finding{}", out::plural(worse)) });
}
