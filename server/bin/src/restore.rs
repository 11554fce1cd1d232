//! `conclave restore`: the first member of a new cluster, from a backup.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conclave_cli::Verified;
use conclave_server::offline::{self, First};
use conclave_server::{Config, Limits, Listen, MemberAddress, PluginOptions, RaftTiming, StorageOptions};

use crate::dev;
use crate::out::{self, Failure, Outcome};

/// Make the first member of a new cluster from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new cluster has one member, which votes alone, and everything that the backup holds. The others join it empty, under
numbers above, and get what they lack. It needs an id of its own, so that members of the old cluster are refused, and
should have authorities of its own. Sessions of the old cluster end here when their time is over, and locks with them.

  conclave restore monday.backup --dir one/data --cluster second \\
      --client one.example:7101 --peer one.example:7201
  conclave pki issue member 1 --dir pki --out one/tls
  conclave server --config one/member.toml
  conclave cluster add 2 --client two.example:7101 --peer two.example:7201")]
pub(crate) struct Args {
    /// The backup: what `conclave backup` wrote
    file: PathBuf,
    /// The member's data directory; empty or absent. Its configuration, member.toml, is written beside it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The new cluster's id; another one than the backup's
    #[arg(long, value_name = "ID")]
    cluster: String,
    /// The member's number
    #[arg(long, value_name = "ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    member: u64,
    /// Where clients will reach the member
    #[arg(long, value_name = "HOST:PORT")]
    client: String,
    /// Where other members will reach it
    #[arg(long, value_name = "HOST:PORT")]
    peer: String,
}

/// Reads a backup's whole file, for `conclave backup`.
pub(crate) fn verify(file: &Path) -> Result<Verified, String> {
    let holds = offline::verify(file, &mut progress()).map_err(|error| error.to_string())?;
    Ok(Verified { zxid: holds.zxid, digest: format!("{:032x}", holds.digest) })
}

/// Runs the command.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    let began = Instant::now();
    let (file, config) = configuration(args)?;
    refuse_content(&args.dir)?;
    let first = First {
        cluster: args.cluster.clone(),
        member: args.member,
        client: args.client.clone(),
        peer: args.peer.clone(),
    };
    let restored = offline::restore(&args.file, &args.dir, &first, &mut progress()).map_err(failure)?;
    let is_new = !file.exists();
    if is_new {
        dev::write(&file, &config)?;
    }
    let (before, after) = (format!("{:032x}", restored.backup.digest), format!("{:032x}", restored.digest));
    if json {
        out::line(serde_json::json!({
            "dir": args.dir,
            "cluster": args.cluster,
            "from_cluster": restored.backup.cluster,
            "member": args.member,
            "zxid": restored.backup.zxid,
            "rows": restored.rows,
            "digest_before": before,
            "digest_after": after,
            "config": file,
            "config_written": is_new,
            "seconds": began.elapsed().as_secs_f64(),
        }));
        return Ok(());
    }
    out::line(format!(
        "restored  zxid {}  {} row{}  in {}, as member {} of cluster {}",
        restored.backup.zxid,
        restored.rows,
        out::plural(usize::try_from(restored.rows).unwrap_or(usize::MAX)),
        args.dir.display(),
        args.member,
        args.cluster
    ));
    out::line(format!("digest before  {before}\ndigest after   {after}"));
    out::line(next(args, &file, is_new));
    Ok(())
}

/// What is to be done now.
fn next(args: &Args, file: &Path, is_new: bool) -> String {
    let home = file.parent().unwrap_or(Path::new(""));
    let tls = home.join("tls");
    let edit = if is_new {
        String::new()
    } else {
        let cluster = &args.cluster;
        format!(
            "  edit {}: cluster = {cluster:?}, initialize = false; it was there and is left alone\n",
            file.display()
        )
    };
    format!(
        "next:\n{edit}  conclave pki issue member {} --dir AUTHORITIES --out {}\n  conclave server --config {}\n  conclave \
         cluster add {} --client HOST:PORT --peer HOST:PORT   (and further ones, each started empty)",
        args.member,
        tls.display(),
        file.display(),
        args.member + 1
    )
}

/// The member's configuration, and where it goes: beside the data directory.
fn configuration(args: &Args) -> Outcome<(PathBuf, String)> {
    let name = args.dir.file_name().ok_or_else(|| Failure::Usage(format!("--dir {}: name it", args.dir.display())))?;
    let file = args.dir.with_file_name("member.toml");
    let config = Config {
        cluster: args.cluster.clone(),
        member: args.member,
        data: name.into(),
        tls: "tls".into(),
        initialize: false,
        listen: Listen { client: listen(&args.client, "--client")?, peer: listen(&args.peer, "--peer")?, admin: None },
        members: vec![MemberAddress { id: args.member, client: args.client.clone(), peer: args.peer.clone() }],
        raft: RaftTiming::default(),
        storage: StorageOptions::default(),
        limits: Limits::default(),
        plugins: PluginOptions::default(),
    };
    let broken = |error| Failure::broken(file.display(), error);
    let mut table = toml::Table::try_from(&config).map_err(broken)?;
    // Not written down, so that a later version's defaults hold for this cluster too.
    table.remove("raft");
    table.remove("storage");
    table.remove("limits");
    table.remove("plugins");
    let text = toml::to_string(&table).map_err(|error| Failure::broken(file.display(), error))?;
    // The id is looked at as a start would.
    Config::parse(&text, []).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok((file, format!("# Written by `conclave restore`.\n{text}")))
}

/// Where to listen for those who use this address: on it, when it is one of this machine's, else on all.
fn listen(address: &str, flag: &str) -> Outcome<SocketAddr> {
    let wrong = || Failure::Usage(format!("{flag} {address:?} is not host:port, like one.example:7101"));
    if let Ok(exact) = address.parse::<SocketAddr>() {
        return Ok(exact);
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|_| !host.is_empty()).ok_or_else(wrong)?;
    Ok((IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into())
}

/// A directory that holds anything is not ours; what an interrupted restore left is told apart further down.
fn refuse_content(dir: &Path) -> Outcome {
    const OURS: [&str; 5] = ["lock", "restoring", "marker", "checkpoints", "log"];
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::broken(dir.display(), error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| Failure::broken(dir.display(), error))?.file_name();
        let name = name.to_string_lossy();
        if !OURS.contains(&&*name) && !name.starts_with("env-") {
            let text = format!(
                "{} holds {name}. Nothing was changed. Name an empty directory, or one that is not there.",
                dir.display()
            );
            return Err(Failure::refused("not-empty", text));
        }
    }
    Ok(())
}

fn failure(error: offline::Error) -> Failure {
    let what = error.to_string();
    let what = what.trim_end_matches('.');
    match error.code() {
        code @ "same-cluster" => {
            Failure::refused(code, format!("{what}. Nothing was changed. Choose another --cluster."))
        }
        code @ "not-empty" => Failure::refused(code, format!("{what}. Nothing was changed. Name an empty directory.")),
        code @ "bad-backup" => Failure::refused(code, format!("{what}. No cluster was made. Use another backup.")),
        code @ "in-use" => Failure::refused(code, format!("{what}. Nothing was changed.")),
        _ => Failure::Broken(what.to_owned()),
    }
}

/// Shows how far long work is, on a terminal.
pub(crate) fn progress() -> impl FnMut(&'static str, u64, Option<u64>) {
    const EVERY: Duration = Duration::from_millis(100);
    let mut line = Line { shown: std::io::stderr().is_terminal(), next: Instant::now() };
    move |step, rows, total| {
        if line.shown && Instant::now() >= line.next {
            line.next = Instant::now() + EVERY;
            let total = total.map(|total| format!(" of {total}")).unwrap_or_default();
            let _ = write!(std::io::stderr().lock(), "\r{step}  {rows}{total} rows\x1b[K");
        }
    }
}

/// The line is wiped away in the end.
struct Line {
    shown: bool,
    next: Instant,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(dir: &Path) -> Args {
        Args {
            file: "x.backup".into(),
            dir: dir.join("data"),
            cluster: "second".into(),
            member: 3,
            client: "one.example:7101".into(),
            peer: "127.0.0.1:7201".into(),
        }
    }

    #[test]
    fn the_configuration_that_is_written_is_one_that_a_member_takes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, text) = configuration(&args(dir.path())).unwrap();
        assert_eq!(file, dir.path().join("member.toml"));
        let config = Config::parse(&text, []).unwrap();
        assert_eq!((config.cluster.as_str(), config.member, config.initialize), ("second", 3, false));
        assert_eq!(config.listen.client, "0.0.0.0:7101".parse().unwrap(), "a name is not an address to bind");
        assert_eq!(config.listen.peer, "127.0.0.1:7201".parse().unwrap());
        let bad = Args { client: "one.example".into(), ..args(dir.path()) };
        assert!(matches!(configuration(&bad), Err(Failure::Usage(_))));
        let bad = Args { cluster: "a b".into(), ..args(dir.path()) };
        assert!(matches!(configuration(&bad), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_directory_that_holds_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_content(&dir.path().join("gone")).is_ok());
        std::fs::write(dir.path().join("lock"), "").unwrap();
        assert!(refuse_content(dir.path()).is_ok());
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(refuse_content(dir.path()), Err(Failure::Refused { code, .. }) if code == "not-empty"));
    }
}
