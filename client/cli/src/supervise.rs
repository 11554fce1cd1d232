//! A command that runs only as long as something is held: ended in time, as a group, whatever happens.
//!
//! The child has a process group of its own, so that all that it starts is ended with it. What this cannot do: when
//! conclave itself is killed with KILL, the child runs on; then only the fence keeps its writes out.

mod judge;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use conclave_client::{Session, State};
use conclave_locks::Held;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::time::{ClockId, clock_gettime};
use tokio::process::{Child, Command};

use crate::out::complain;
use judge::{Act, Judge};
pub(crate) use signals::{Signals, exit_code as signal_exit};

/// How often the award is looked at. Also after a stop or a sleep, of which no notification tells.
const TICK: Duration = Duration::from_millis(50);

/// Said when a child that has no terminal is stopped: most often by the system, because it reads one.
const STOPPED: &str = "note: COMMAND is stopped, and holds on. If it reads the terminal: in a script or a pipeline it has none; \
                       redirect its stdin. `kill -CONT` continues it.";

/// May one rely on what is held?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Yes.
    Held,
    /// Nothing was heard for a while.
    Uncertain,
    /// No, and never again.
    Lost,
}

/// What is held: a lock, or a session with its znode.
pub(crate) trait Award {
    /// Now, by a clock that runs while the machine sleeps.
    fn standing(&self) -> Standing;

    /// Until it is lost, if nothing more is heard.
    fn time_left(&self) -> Duration;
}

impl Award for Held {
    fn standing(&self) -> Standing {
        match self.state() {
            conclave_locks::State::Held => Standing::Held,
            conclave_locks::State::Uncertain => Standing::Uncertain,
            conclave_locks::State::Lost => Standing::Lost,
        }
    }

    fn time_left(&self) -> Duration {
        self.time_left()
    }
}

impl Award for Session {
    fn standing(&self) -> Standing {
        match self.state() {
            State::Connected => Standing::Held,
            State::Suspended => Standing::Uncertain,
            State::Lost => Standing::Lost,
        }
    }

    fn time_left(&self) -> Duration {
        self.time_left()
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The command ended by itself while the award was held, with this exit code.
    Exited(u8),
    /// The award was lost, or nearly; the command is ended.
    Lost,
}

/// Runs a command. `variables` are set last: they come before what it would inherit.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn run(
    award: &impl Award,
    command: &[OsString],
    variables: &[(&str, String)],
    grace: Duration,
    signals: &mut Signals,
) -> std::io::Result<Ended> {
    let (program, args) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .args(args)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .spawn()?;
    let group = Group::of(&child);
    let foreground = group.pid.is_some_and(terminal::hand_over);
    let mut judge = Judge::new(grace);
    loop {
        // First of all: whoever was stopped for a minute wakes up here, and the lock may be another's by now.
        match judge.look(award.standing(), award.time_left(), clock_gettime(ClockId::Boottime)) {
            Act::Nothing => {}
            Act::Terminate => group.send(Signal::TERM),
            Act::Kill => {
                group.send(Signal::KILL);
                child.wait().await?;
                return Ok(Ended::Lost);
            }
        }
        tokio::select! {
            biased;
            status = child.wait() => return Ok(ended(status?, award, &judge, group)),
            signal = signals.next() => group.send(signal),
            () = tokio::time::sleep(TICK.min(judge.next(award.time_left()))) => {
                match group.pid {
                    Some(pid) if foreground => terminal::keep_going(pid),
                    Some(pid) if terminal::was_stopped(pid) => complain(STOPPED),
                    _ => {}
                }
            }
        }
    }
}

/// The child has ended: by itself, or because it was told to.
fn ended(status: ExitStatus, award: &impl Award, judge: &Judge, group: Group) -> Ended {
    if judge.has_told() || award.standing() == Standing::Lost {
        // What it has started may have outlived it.
        group.send(Signal::KILL);
        return Ended::Lost;
    }
    Ended::Exited(exit_code(status))
}

/// As shells tell it: 128 + N when signal N ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// A process group, by its leader.
#[derive(Clone, Copy)]
struct Group {
    pid: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { pid: child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) }
    }

    fn send(self, signal: Signal) {
        if let Some(pid) = self.pid {
            // Both fail when all of the group is gone: then there is nobody to tell. Who is stopped must run to be told.
            let _ = kill_process_group(pid, signal);
            let _ = kill_process_group(pid, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests;
