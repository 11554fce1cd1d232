//! The directory of a `dev` cluster: made at the first start, found again at later ones, used by one `dev` at a time.
//!
//! ```text
//! .conclave/  client.toml   client/ (certificate `admin`)   pki/ (authorities)   lock   .gitignore
//!             members/N/    member.toml  tls/  data/  log  pid
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_link::pki::CERTIFICATE_DAYS;
use conclave_link::{Principal, TrustDomain};
use conclave_server::{Config, Limits, Listen, MemberAddress, PluginOptions, RaftTiming, StorageOptions};
use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

use crate::dev::ports::{self, Trio};
use crate::out::{self, Failure, Outcome};
use crate::pki::Authorities;

/// What clients read; written last, so that it tells a finished first start.
const CLIENT: &str = "client.toml";
/// Held by the `dev` that runs.
const LOCK: &str = "lock";
/// There during the first start: what lies beside it is ours and unfinished.
const UNFINISHED: &str = "unfinished";
/// What the first start makes.
const MADE: [&str; 3] = ["pki", "client", "members"];
/// Certificates share it.
const TRUST_DOMAIN: &str = "dev";
/// The client whose certificate is made.
const ADMIN: &str = "admin";
/// Members when nobody says.
const MEMBERS: u64 = 3;
/// Members of a `dev` that was killed stop by themselves within this time.
const ORPHANS_WITHIN: Duration = Duration::from_secs(12);

/// One member's place.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// The member's number.
    pub(crate) id: u64,
    /// Its directory, absolute.
    pub(crate) dir: PathBuf,
    config: Config,
}

impl Seat {
    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("member.toml")
    }

    /// Where its process id is.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where clients reach it.
    pub(crate) const fn client(&self) -> SocketAddr {
        self.config.listen.client
    }

    fn write(&self) -> Outcome {
        // Loaded, the paths are absolute; in the file they are relative, so that the directory can be moved.
        let config = Config { data: "data".into(), tls: "tls".into(), ..self.config.clone() };
        let broken = |error| Failure::broken(self.file().display(), error);
        let mut table = toml::Table::try_from(&config).map_err(broken)?;
        // Not written down, so that a later version's defaults hold for this cluster too.
        if config.raft == RaftTiming::default() {
            table.remove("raft");
        }
        if config.storage == StorageOptions::default() {
            table.remove("storage");
        }
        if config.limits == Limits::default() {
            table.remove("limits");
        }
        if config.plugins == PluginOptions::default() {
            table.remove("plugins");
        }
        let text = toml::to_string(&table).map_err(broken)?;
        write(&self.file(), &format!("# Written by `conclave dev` at its first start.\n{text}"))
    }

    /// The process that still runs this member, if one does. A number that another program has got is none.
    fn orphan(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let file = self.file();
        command.split(|byte| *byte == 0).any(|part| part == file.as_os_str().as_encoded_bytes()).then_some(pid)
    }
}

/// A cluster's directory, held against another `dev`.
#[derive(Debug)]
pub(crate) struct Home {
    /// The directory as it was given.
    pub(crate) shown: PathBuf,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// The members, by number.
    pub(crate) seats: Vec<Seat>,
    dir: PathBuf,
    _lock: File,
}

/// What a directory is.
enum Found {
    Fresh,
    Unfinished,
    Cluster,
}

impl Home {
    /// Finds the cluster in `dir`, or makes one there. Waits for members of a `dev` that was killed to end.
    ///
    /// # Errors
    /// A refusal when the directory is in use, or something else, or has another number of members, or when a port is
    /// taken.
    pub(crate) async fn open(dir: &Path, members: Option<u64>, base: Option<u16>) -> Outcome<Self> {
        // Before anything is made: a directory that is not ours is left as it is.
        look(dir)?;
        make_dir(dir)?;
        let shown = dir.to_owned();
        let dir = dir.canonicalize().map_err(|error| Failure::broken(dir.display(), error))?;
        let lock = lock(&dir, &shown)?;
        // Again, as another first start may have been faster.
        match look(&dir)? {
            Found::Cluster => {}
            Found::Fresh => make(&dir, members.unwrap_or(MEMBERS), base)?,
            Found::Unfinished => {
                out::complain("an earlier first start was interrupted; beginning again");
                for name in MADE {
                    remove(&dir.join(name))?;
                }
                make(&dir, members.unwrap_or(MEMBERS), base)?;
            }
        }
        let seats = seats(&dir)?;
        let first = seats.first().ok_or_else(|| damaged(&shown, "it has no members"))?;
        let home = Self { cluster: first.config.cluster.clone(), seats, shown, dir, _lock: lock };
        home.agree(members, base)?;
        home.free().await?;
        Ok(home)
    }

    /// The directory, absolute.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster exists from now on: no member may ever make it anew, not even one that lost its data.
    pub(crate) fn initialized(&self) -> Outcome {
        for seat in self.seats.iter().filter(|seat| seat.config.initialize) {
            let mut seat = seat.clone();
            seat.config.initialize = false;
            seat.write()?;
        }
        Ok(())
    }

    /// Refuses flags that are for another cluster than the one that is here.
    fn agree(&self, members: Option<u64>, base: Option<u16>) -> Outcome {
        let (has, shown) = (self.seats.len() as u64, self.shown.display());
        if let Some(asked) = members
            && asked != has
        {
            let text = format!(
                "{shown} holds a cluster of {has} member{}, you asked for {asked}. Nothing was started. Leave out --members, \
                 or name another --dir",
                out::plural(self.seats.len())
            );
            return Err(Failure::refused("other-cluster", text));
        }
        let port = self.seats[0].client().port();
        if let Some(asked) = base
            && asked != port
        {
            let text = format!(
                "the ports of the cluster in {shown} begin at {port}, you asked for {asked}. Nothing was started. Leave \
                 out --base-port, or name another --dir"
            );
            return Err(Failure::refused("other-cluster", text));
        }
        Ok(())
    }

    /// Waits for members of an earlier start, then looks whether all ports can be had.
    async fn free(&self) -> Outcome {
        let begun = Instant::now();
        let mut told = false;
        while let Some((seat, pid)) = self.seats.iter().find_map(|seat| seat.orphan().map(|pid| (seat, pid))) {
            if begun.elapsed() > ORPHANS_WITHIN {
                let text = format!("member {} of an earlier start still runs as process {pid}. Stop it first", seat.id);
                return Err(Failure::refused("in-use", text));
            }
            if !std::mem::replace(&mut told, true) {
                out::complain(format!("waiting for member {} of an earlier start to end (pid {pid})", seat.id));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for seat in &self.seats {
            for (address, what) in Trio::in_config(&seat.config) {
                if let Some(error) = ports::trouble(address, what) {
                    let advice = format!(
                        "Stop it; or move the cluster to other ports in {} and {CLIENT}.",
                        self.shown.join("members/*/member.toml").display()
                    );
                    return Err(ports::taken(address, what, &error, &advice));
                }
            }
        }
        Ok(())
    }
}

/// What is in a directory, if it is one that `dev` may use.
fn look(dir: &Path) -> Outcome<Found> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Fresh),
        Err(error) => return Err(Failure::broken(dir.display(), error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|error| Failure::broken(dir.display(), error))?.file_name());
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let other = names.iter().find(|name| *name != LOCK);
    match (has(UNFINISHED), has(CLIENT), has("members"), other) {
        (true, false, ..) => Ok(Found::Unfinished),
        (_, true, true, _) => Ok(Found::Cluster),
        (false, false, _, None) => Ok(Found::Fresh),
        (_, true, false, _) => {
            let text = format!(
                "{} is a client's directory, with {CLIENT} and no members: its cluster is elsewhere. Name another --dir",
                dir.display()
            );
            Err(Failure::refused("not-ours", text))
        }
        (false, false, _, Some(other)) => {
            let text = format!(
                "{} holds {} and was not made by `conclave dev`. Name an empty directory, or one that is not there",
                dir.display(),
                other.display()
            );
            Err(Failure::refused("not-ours", text))
        }
    }
}

/// Holds the directory until the file is closed, which the kernel does however the process ends.
fn lock(dir: &Path, shown: &Path) -> Outcome<File> {
    let path = dir.join(LOCK);
    let broken = |error: std::io::Error| Failure::broken(path.display(), error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(broken)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let pid = file.read_to_string(&mut pid).ok().map(|_| pid.trim()).filter(|pid| !pid.is_empty());
            let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            let text = format!("another `conclave dev`{pid} runs the cluster in {}", shown.display());
            return Err(Failure::refused("in-use", text));
        }
        Err(error) => return Err(broken(error.into())),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(broken)?;
    Ok(file)
}

/// The first start.
fn make(dir: &Path, members: u64, base: Option<u16>) -> Outcome {
    let base = ports::choose(base, members)?;
    write(&dir.join(UNFINISHED), "the first start of `conclave dev` makes this directory\n")?;
    // Keys are in here.
    write(&dir.join(".gitignore"), "*\n")?;
    let broken = |error| Failure::broken("cannot make an identity", error);
    let domain = TrustDomain::new(TRUST_DOMAIN).map_err(broken)?;
    let authorities = Authorities::create(&dir.join("pki"), &domain)?;
    let cluster = format!("{:04x}", rand::random::<u16>());
    let addresses: Vec<MemberAddress> = (1..=members)
        .map(|id| {
            let ports = Trio::of(base, id);
            MemberAddress { id, client: ports.client.to_string(), peer: ports.peer.to_string() }
        })
        .collect();
    for id in 1..=members {
        let seat_dir = dir.join("members").join(id.to_string());
        make_dir(&seat_dir)?;
        let principal = Principal::member(&domain, id).map_err(broken)?;
        authorities.issue(principal, CERTIFICATE_DAYS, &seat_dir.join("tls"))?;
        let ports = Trio::of(base, id);
        let config = Config {
            cluster: cluster.clone(),
            member: id,
            data: "data".into(),
            tls: "tls".into(),
            initialize: id == 1,
            listen: Listen { client: ports.client, peer: ports.peer, admin: Some(ports.admin) },
            members: addresses.clone(),
            raft: RaftTiming::default(),
            storage: StorageOptions::default(),
            limits: Limits::default(),
            plugins: PluginOptions::default(),
        };
        Seat { id, dir: seat_dir, config }.write()?;
    }
    let principal = Principal::client(&domain, ADMIN).map_err(broken)?;
    authorities.issue(principal, CERTIFICATE_DAYS, &dir.join("client"))?;
    let endpoints: Vec<&str> = addresses.iter().map(|member| member.client.as_str()).collect();
    write(
        &dir.join(CLIENT),
        &format!(
            "# Written by `conclave dev`: how clients of this cluster find it, and who they are to it.\n\
             cluster = \"{cluster}\"\nendpoints = {endpoints:?}\n\
             certificate = \"client/tls.crt\"\nkey = \"client/tls.key\"\nca = \"client/peer-ca.crt\"\n"
        ),
    )?;
    remove(&dir.join(UNFINISHED))
}

/// The members that a directory holds, by number.
fn seats(dir: &Path) -> Outcome<Vec<Seat>> {
    let all = dir.join("members");
    let broken = |error| Failure::broken(all.display(), error);
    let mut seats = Vec::new();
    for entry in fs::read_dir(&all).map_err(broken)? {
        let dir = entry.map_err(broken)?.path();
        let named = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        // Something else that somebody put there.
        let Some(id) = named else { continue };
        let file = dir.join("member.toml");
        let config = Config::load(&file, []).map_err(|error| Failure::Usage(error.to_string()))?;
        if config.member != id {
            return Err(damaged(&file, &format!("it is of member {}", config.member)));
        }
        seats.push(Seat { id, dir, config });
    }
    seats.sort_by_key(|seat| seat.id);
    Ok(seats)
}

fn damaged(path: &Path, why: &str) -> Failure {
    Failure::broken(path.display(), format_args!("{why}; the directory is damaged"))
}

fn make_dir(path: &Path) -> Outcome {
    use std::os::unix::fs::DirBuilderExt;
    // Keys and data: nobody else's business.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::broken(path.display(), error))
}

fn remove(path: &Path) -> Outcome {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::broken(path.display(), error)),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all: a `kill $(cat pid)` never reads half a number.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|error| Failure::broken(path.display(), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::borrow::Cow;

    use super::*;

    fn code(outcome: Outcome<Found>) -> Cow<'static, str> {
        match outcome {
            Err(Failure::Refused { code, .. }) => code,
            Err(_) => "other".into(),
            Ok(Found::Fresh) => "fresh".into(),
            Ok(Found::Unfinished) => "unfinished".into(),
            Ok(Found::Cluster) => "cluster".into(),
        }
    }

    #[test]
    fn only_a_directory_that_is_empty_or_ours_is_used() {
        for (names, expected) in [
            (&[][..], "fresh"),
            (&["lock"], "fresh"),
            (&["lock", "unfinished", "members"], "unfinished"),
            (&["lock", "client.toml", "members", "unfinished"], "cluster"),
            (&["client.toml", "members"], "cluster"),
            (&["client.toml", "client"], "not-ours"),
            (&["members"], "not-ours"),
            (&["src", "lock"], "not-ours"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for name in names {
                fs::write(dir.path().join(name), "").unwrap();
            }
            assert_eq!(code(look(dir.path())), expected, "{names:?}");
        }
        assert_eq!(code(look(Path::new("/nowhere/at/all"))), "fresh");
    }
}
