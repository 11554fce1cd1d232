//! `conclave dev`: a whole cluster on this machine, each member a process of its own, kept running.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::out::{self, Failure, Outcome};
use crate::signals::Stop;
pub(crate) use home::write;
use home::{Home, Seat};
use keep::{Ending, Keeper, Life};

mod home;
mod keep;
mod ports;
mod ready;

/// The directory, where none is named: the one that clients look for.
const DIRECTORY: &str = ".conclave";

/// Run a cluster on this machine, for development
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Members of a new cluster: 1, 3 or 5 [default: 3]
    #[arg(long, value_name = "N", value_parser = ["1", "3", "5"])]
    members: Option<String>,
    /// Where the cluster lives: data, keys, logs, and what clients need to find it
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    /// Leave a member down when it dies
    #[arg(long)]
    no_restart: bool,
    /// First client port of a new cluster; members' ports begin 100 above, metrics 200 above [default: 7101, or the
    /// next that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Outcome {
    let members = args.members.as_deref().and_then(|text| text.parse().ok());
    // One thread: a member is told of the death of the *thread* that started it, which must be this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::broken("cannot start a runtime", error))?;
    runtime.block_on(async {
        let mut stop = Stop::new()?;
        let home = tokio::select! {
            home = Home::open(&args.dir, members, args.base_port) => home?,
            signal = stop.asked() => {
                out::line(format!("{signal}: nothing was started"));
                return Ok(());
            }
        };
        cluster(&home, !args.no_restart, &mut stop).await
    })
}

/// Runs the members until a signal, or until it is plain that there will never be enough of them.
async fn cluster(home: &Home, restart: bool, stop: &mut Stop) -> Outcome {
    let program = std::env::current_exe().map_err(|error| Failure::broken("cannot find the own program", error))?;
    let (ending, ended) = watch::channel(Ending::NotYet);
    let mut keepers = JoinSet::new();
    let mut lives = Vec::new();
    for seat in &home.seats {
        let (life, seen) = watch::channel(Life::default());
        let keeper = Keeper { seat: seat.clone(), program: program.clone(), restart, life };
        keepers.spawn(keeper.keep(ended.clone()));
        lives.push(seen);
    }
    let served = async {
        let status = ready::wait(home, &lives, restart).await?;
        home.initialized()?;
        introduce(home, &lives, &status);
        std::future::pending::<Outcome>().await
    };
    let outcome = tokio::select! {
        outcome = served => outcome,
        signal = stop.asked() => {
            out::line(format!("{signal}: stopping {} member{}", home.seats.len(), out::plural(home.seats.len())));
            Ok(())
        }
    };
    // The keepers hold the other end until they are done.
    let _ = ending.send(Ending::Clean);
    loop {
        tokio::select! {
            next = keepers.join_next() => if next.is_none() { break },
            _ = stop.asked() => {
                let _ = ending.send(Ending::AtOnce);
            }
        }
    }
    if outcome.is_ok() {
        out::line("stopped");
    }
    outcome
}

/// What is running where, and what to try.
fn introduce(home: &Home, lives: &[watch::Receiver<Life>], status: &ready::Ready) {
    let count = home.seats.len();
    let members: Vec<String> = home
        .seats
        .iter()
        .zip(lives)
        .map(|(seat, life)| {
            let role = if status.leader == Some(seat.id) { " leader" } else { "" };
            let pid = life.borrow().pid.map_or_else(|| "down".to_owned(), |pid| format!("pid {pid}"));
            let note = if status.missing.contains(&seat.id) { " (not ready yet)" } else { "" };
            format!("{}{role} {} {pid}{note}", seat.id, seat.client())
        })
        .collect();
    out::line(format!(
        "cluster {} in {} · mutual TLS · {count} member{}   {}",
        home.cluster,
        home.shown.display(),
        out::plural(count),
        members.join(" · ")
    ));
    let flag =
        if home.shown == Path::new(DIRECTORY) { String::new() } else { format!(" --dir {}", home.shown.display()) };
    out::line(format!("ready. Try: {}{flag} create /app/config --data v1 --parents", command_name()));
}

/// How this program is called from here: by name where it is on the path, else by its file.
fn command_name() -> String {
    const NAME: &str = "conclave";
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(NAME).is_file()) {
        return NAME.to_owned();
    }
    let Ok(program) = std::env::current_exe() else { return NAME.to_owned() };
    let near = std::env::current_dir().ok().and_then(|here| program.strip_prefix(here).ok().map(Path::to_owned));
    match near {
        // With a slash in it, or the shell would look for it on the path.
        Some(near) if near.components().count() == 1 => format!("./{}", near.display()),
        Some(near) => near.display().to_string(),
        None => program.display().to_string(),
    }
}

/// A second, or as long as a number of deaths one shortly after the other deserves.
fn pause(deaths: u32) -> Duration {
    const MOST: u64 = 30;
    Duration::from_secs(1_u64.checked_shl(deaths.saturating_sub(1)).unwrap_or(MOST).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_keeps_dying_is_started_less_and_less_often() {
        assert_eq!([0, 1, 2, 3, 6, 7, 63, 64, u32::MAX].map(|n| pause(n).as_secs()), [1, 1, 2, 4, 30, 30, 30, 30, 30]);
    }
}
