//! One member of a `dev` cluster: its process is started, started again when it dies, and stopped at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dev::{Seat, home, pause};
use crate::out::{self, Failure, Outcome};

/// The time that a member has to stop cleanly.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// A member that lived this long has not died "again".
const STEADY: Duration = Duration::from_secs(30);
/// A log that is longer is put aside at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of a log's end is looked at for its last lines.
const TAIL_BYTES: u64 = 4 << 10;
/// How many of them are shown.
const TAIL_LINES: usize = 5;

/// How the members are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// They are not.
    NotYet,
    /// In their own time, up to [`STOPS_WITHIN`].
    Clean,
    /// Killed.
    AtOnce,
}

/// What is known of a member's process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// Its process, while there is one.
    pub(crate) pid: Option<u32>,
    /// How often it has died since `dev` started.
    pub(crate) deaths: u32,
}

/// What keeps one member running.
pub(crate) struct Keeper {
    /// The member's place.
    pub(crate) seat: Seat,
    /// The program.
    pub(crate) program: PathBuf,
    /// Whether it is started again when it dies.
    pub(crate) restart: bool,
    /// Tells of its process.
    pub(crate) life: watch::Sender<Life>,
}

impl Keeper {
    /// Keeps the member running until it is to end.
    pub(crate) async fn keep(self, mut ending: watch::Receiver<Ending>) {
        let mut row = 0;
        loop {
            let born = Instant::now();
            let last = match self.start() {
                Ok((child, log_start)) => match self.live(child, log_start, &mut ending).await {
                    Some(last) => last,
                    None => return,
                },
                Err(failure) => format!("member {} cannot be started: {failure}", self.seat.id),
            };
            row = if born.elapsed() < STEADY { row + 1 } else { 1 };
            let pause = pause(row);
            let next = if self.restart {
                format!("starting it again in {} s", pause.as_secs())
            } else {
                "it is left down (--no-restart)".to_owned()
            };
            // The reason first, then what the member itself said.
            let (reason, said) = last.split_once('\n').unwrap_or((&last, ""));
            out::line(format!("{reason}; {next}"));
            if !said.is_empty() {
                out::line(said);
            }
            self.life.send_modify(|life| *life = Life { pid: None, deaths: life.deaths + 1 });
            let wait = async {
                if self.restart {
                    tokio::time::sleep(pause).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = wait => {}
                () = reaches(&mut ending, Ending::Clean) => return,
            }
        }
    }

    /// Starts the process; gives it, and where its output begins in the log.
    fn start(&self) -> Outcome<(Child, u64)> {
        let path = self.seat.log();
        let broken = |error: std::io::Error| Failure::broken(path.display(), error);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            fs::rename(&path, path.with_extension("old")).map_err(broken)?;
        }
        let log = OpenOptions::new().append(true).create(true).open(&path).map_err(broken)?;
        let begins = log.metadata().map_err(broken)?.len();
        let mut command = Command::new(&self.program);
        command
            .arg("server")
            .arg("--config")
            .arg(self.seat.file())
            .arg("--parent-pid")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(broken)?)
            .stderr(log)
            // Ctrl-C in the terminal is for `dev`, which then stops its members itself.
            .process_group(0)
            .kill_on_drop(true);
        // A variable overrides a file's key: what is meant for clients here must not reach into the members.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CONCLAVE_") && name != "CONCLAVE_LOG" {
                command.env_remove(name);
            }
        }
        let child = command.spawn().map_err(|error| Failure::broken(self.program.display(), error))?;
        Ok((child, begins))
    }

    /// Waits for the process to die, and says how; nothing when it was to end.
    async fn live(&self, mut child: Child, begins: u64, ending: &mut watch::Receiver<Ending>) -> Option<String> {
        let pid = child.id()?;
        if let Err(failure) = home::write(&self.seat.pid_file(), &format!("{pid}\n")) {
            out::complain(failure);
        }
        let deaths = self.life.borrow().deaths;
        if deaths > 0 {
            out::line(format!("member {} runs again (pid {pid})", self.seat.id));
        }
        self.life.send_modify(|life| life.pid = Some(pid));
        let died = tokio::select! {
            status = child.wait() => Some(status),
            () = reaches(ending, Ending::Clean) => None,
        };
        let last = match died {
            None => {
                self.end(&mut child, pid, ending).await;
                None
            }
            Some(Err(error)) => Some(format!("member {} (pid {pid}) was lost sight of: {error}", self.seat.id)),
            Some(Ok(status)) => {
                let mut text = format!("member {} (pid {pid}) {}", self.seat.id, reason(status));
                if status.code().is_some() {
                    for line in self.last_lines(begins) {
                        text.push_str("\n  | ");
                        text.push_str(&line);
                    }
                }
                Some(text)
            }
        };
        // The number may soon be another program's.
        let _ = fs::remove_file(self.seat.pid_file());
        last
    }

    async fn end(&self, child: &mut Child, pid: u32, ending: &mut watch::Receiver<Ending>) {
        // Not waited for yet, so that the number is still its own.
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let why = tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(STOPS_WITHIN) => format!("did not stop within {} s", STOPS_WITHIN.as_secs()),
            () = reaches(ending, Ending::AtOnce) => "was still stopping".to_owned(),
        };
        out::line(format!("member {} (pid {pid}) {why} and is killed", self.seat.id));
        let _ = child.kill().await;
    }

    /// The last lines that the process wrote.
    fn last_lines(&self, begins: u64) -> Vec<String> {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut log = File::open(self.seat.log())?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(begins.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = tail().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// Waits until the end is at least this near. Nobody to tell any more is the nearest.
async fn reaches(ending: &mut watch::Receiver<Ending>, least: Ending) {
    let _ = ending.wait_for(|now| *now >= least).await;
}

fn reason(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}
