//! `lock`: a command that runs while a lock is held, or who holds it and who waits.

use std::ffi::OsString;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};

use conclave_client::{Client, Fence, Outcome, Path, SessionId};
use conclave_locks::{Error, Guard, Holder, Lost, Mutex, View, Waiter, Waiting};
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::{Out, table};
use crate::stat::utc;
use crate::supervise::{self, Ended, Signals, signal_exit};

/// Exit code: the lock was lost, and the command ended.
pub(crate) const LOST: u8 = 123;
/// Exit code: waited too long.
pub(crate) const WAITED: u8 = 124;
/// Exit code: conclave itself failed.
pub(crate) const FAILED: u8 = 125;
/// Exit code: the command cannot be run.
const CANNOT_RUN: u8 = 126;
/// Exit code: the command is not found.
const NOT_FOUND: u8 = 127;

/// Takes the lock, runs the command, gives the lock back.
pub(crate) async fn run(client: &Client, args: args::Lock, out: Out) -> Result<u8, Failure> {
    let mut signals = Signals::listen().map_err(failed)?;
    let mutex = Mutex::new(client, &args.path).map_err(lock_failure)?.note(title(&args.command));
    let guard = tokio::select! {
        biased;
        // Dropping the wait withdraws it.
        signal = signals.next() => return Ok(signal_exit(signal)),
        guard = acquire(&mutex, args.wait, out) => guard?,
    };
    let ended =
        supervise::run(&guard.held(), &args.command, &variables(&guard.fence()), args.grace, &mut signals).await;
    ending(&args.path, &args.command, ended, given_back(guard.release().await), out)
}

/// What came of giving a lock back: done, lost before, or not done in good order.
pub(crate) type GivenBack = Result<Result<(), String>, Lost>;

/// As it is said of locks and semaphores.
pub(crate) fn given_back(released: conclave_locks::Result<()>) -> GivenBack {
    match released {
        Ok(()) => Ok(Ok(())),
        Err(Error::Lost(why)) => Err(why),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// The exit code of a command that ran while something was held, or why it is another.
pub(crate) fn ending(
    path: &str,
    command: &[OsString],
    ended: std::io::Result<Ended>,
    released: GivenBack,
    out: Out,
) -> Result<u8, Failure> {
    match (ended, released) {
        (Err(error), _) => Err(cannot_run(command, &error)),
        (Ok(Ended::Lost), Err(why)) => Err(lost(path, &why.to_string(), "COMMAND was ended")),
        // It was ended in time, while there was still something to give back.
        (Ok(Ended::Lost), Ok(_)) => Err(lost(path, "no member was heard in time", "COMMAND was ended")),
        (Ok(Ended::Exited(_)), Err(why)) => Err(lost(path, &why.to_string(), "COMMAND had ended by itself")),
        (Ok(Ended::Exited(code)), Ok(Ok(()))) => Ok(code),
        (Ok(Ended::Exited(code)), Ok(Err(error))) => {
            out.note(format_args!("{path} was not given back in good order: {error}"));
            Ok(code)
        }
    }
}

async fn acquire(mutex: &Mutex, wait: Option<Duration>, out: Out) -> Result<Guard, Failure> {
    let guard = match wait {
        Some(Duration::ZERO) => mutex.try_acquire().await,
        wait => {
            let acquire = mutex.acquire().on_wait(move |waiting| out.note(waiting_line(waiting)));
            match wait {
                Some(time) => acquire.within(time).await,
                None => acquire.await,
            }
        }
    };
    guard.map_err(|error| not_acquired(mutex.path(), error, wait))
}

/// Why COMMAND was not run.
pub(crate) fn not_acquired(path: &Path, error: Error, wait: Option<Duration>) -> Failure {
    match (&error, wait) {
        // A try that had no answer has not waited for a lock but for the cluster.
        (Error::TimedOut { .. }, Some(Duration::ZERO)) => lock_failure(error),
        (Error::TimedOut { .. } | Error::NotFree { .. }, _) => waited("lock-timeout", path, &error),
        _ => lock_failure(error),
    }
}

/// It was not to be had in the time that there was.
pub(crate) fn waited(code: &'static str, path: &Path, why: &impl std::fmt::Display) -> Failure {
    let text = format!("timed out: {path} is not free: {why}. COMMAND was not run.");
    Failure::Exact { code, exit: WAITED, outcome: Outcome::NotApplied, text }
}

pub(crate) fn waiting_line(waiting: &Waiting) -> String {
    match (&waiting.holder, waiting.ahead) {
        (Some(holder), 0) => format!("waiting: held by {holder}, you are next …"),
        (Some(holder), ahead) => format!("waiting: held by {holder}, {ahead} ahead of you …"),
        (None, ahead) => format!("waiting: {ahead} ahead of you …"),
    }
}

/// What the command finds in its environment.
pub(crate) fn variables(fence: &Fence) -> [(&'static str, String); 2] {
    [("CONCLAVE_FENCE", fence.to_string()), ("CONCLAVE_FENCE_TOKEN", fence.zxid.to_string())]
}

/// What others who wait are shown: the command, without its arguments, which may be secret.
pub(crate) fn title(command: &[OsString]) -> String {
    let program = command.first().map(FilePath::new).and_then(FilePath::file_name);
    program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn lost(path: &str, why: &str, what: &str) -> Failure {
    Failure::Exact {
        code: "lock-lost",
        exit: LOST,
        outcome: Outcome::Unknown,
        text: format!("lost: {path}: {why}. {what}; see how far it came before you run it again."),
    }
}

/// The command could not be started.
pub(crate) fn cannot_run(command: &[OsString], error: &std::io::Error) -> Failure {
    let exit = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    let program = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = format!("error: {program} cannot be run: {error}");
    Failure::Exact { code: "cannot-run", exit, outcome: Outcome::NotApplied, text }
}

/// The system refused something that conclave needs.
pub(crate) fn failed(error: std::io::Error) -> Failure {
    let text = format!("error: signals cannot be listened to: {error}");
    Failure::Exact { code: "failed", exit: FAILED, outcome: Outcome::NotApplied, text }
}

/// Any failure before COMMAND runs is conclave's, not the command's: its exit code must not be taken for that.
pub(crate) fn as_ours(failure: Failure) -> Failure {
    match failure {
        exact @ Failure::Exact { .. } => exact,
        other => Failure::Exact {
            code: other.code(),
            exit: FAILED,
            outcome: other.outcome(),
            text: format!("{} COMMAND was not run.", other.message()),
        },
    }
}

pub(crate) fn lock_failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => as_ours(error.reading()),
        other => not_run(&other),
    }
}

/// The recipe could not do it.
pub(crate) fn not_run(why: &impl std::fmt::Display) -> Failure {
    let text = format!("error: {why}. COMMAND was not run.");
    Failure::Exact { code: "lock-failed", exit: FAILED, outcome: Outcome::NotApplied, text }
}

/// `lock --show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    holder: Option<ShownHolder>,
    /// The next one first.
    waiters: Vec<ShownWaiter>,
}

#[derive(Serialize)]
struct ShownHolder {
    principal: String,
    note: Option<String>,
    /// Since when, cluster time.
    since_ms: u64,
    held_ms: u64,
    /// What `--fence` takes.
    fence: String,
    /// For other systems.
    token: u64,
    session: Option<SessionId>,
}

#[derive(Serialize)]
struct ShownWaiter {
    principal: String,
    note: Option<String>,
    since_ms: u64,
    waited_ms: u64,
    place: String,
    session: Option<SessionId>,
}

/// Prints who holds it and who waits.
pub(crate) async fn show(client: &Client, args: &args::Lock, out: Out) -> Result<u8, Failure> {
    let seen = match Mutex::new(client, &args.path) {
        Ok(mutex) => mutex.view().await,
        Err(error) => Err(error),
    };
    let View { holder, waiters } = match seen {
        Ok(view) => view,
        Err(Error::Client(error)) => return Err(error.reading()),
        Err(other) => return Err(Failure::Refused { code: "lock-failed", text: format!("{other}.") }),
    };
    if holder.is_none() && waiters.is_empty() {
        mention_if_unused(client, &args.path, out).await?;
    }
    let shown = Shown {
        path: &args.path,
        holder: holder.map(shown_holder),
        waiters: waiters.into_iter().map(shown_waiter).collect(),
    };
    out.show(&shown, text)?;
    Ok(DONE)
}

/// A path that nobody has ever locked is probably mistyped. It is free all the same.
async fn mention_if_unused(client: &Client, path: &str, out: Out) -> Result<(), Failure> {
    if !out.json && client.at(path).stat().await.reading()?.is_none() {
        out.note(format_args!("note: {path} does not exist: nobody has locked it yet"));
    }
    Ok(())
}

fn shown_holder(holder: Holder) -> ShownHolder {
    let held_ms = ms(holder.held_for());
    let Holder { principal, note, since, fence, session } = holder;
    ShownHolder {
        principal,
        note,
        since_ms: since_1970(since),
        held_ms,
        token: fence.zxid.0,
        fence: fence.to_string(),
        session,
    }
}

fn shown_waiter(waiter: Waiter) -> ShownWaiter {
    let waited_ms = ms(waiter.waited_for());
    let Waiter { principal, note, since, place, session } = waiter;
    ShownWaiter { principal, note, since_ms: since_1970(since), waited_ms, place: place.to_string(), session }
}

fn text(shown: &Shown<'_>) -> String {
    let Some(holder) = &shown.holder else {
        return match shown.waiters.len() {
            0 => format!("{} is free\n", shown.path),
            _ => format!("{} is being handed over\n\n{}", shown.path, line(&shown.waiters)),
        };
    };
    let who = who(&holder.principal, holder.note.as_deref());
    let mut text = format!("{} is held by {who}\n", shown.path);
    text.push_str(&format!("since   {}  ({} s)\n", utc(holder.since_ms), holder.held_ms / 1000));
    text.push_str(&format!("fence   {}\n", holder.fence));
    if !shown.waiters.is_empty() {
        text.push_str(&format!("\n{}", line(&shown.waiters)));
    }
    text
}

fn line(waiters: &[ShownWaiter]) -> String {
    let row = |(n, waiter): (usize, &ShownWaiter)| {
        let who = who(&waiter.principal, waiter.note.as_deref());
        vec![(n + 1).to_string(), format!("{} s", waiter.waited_ms / 1000), who]
    };
    let rows: Vec<Vec<String>> = waiters.iter().enumerate().map(row).collect();
    table(&["", "WAITS", "WHO"], &[true, true, false], &rows)
}

pub(crate) fn who(principal: &str, note: Option<&str>) -> String {
    match (principal, note.filter(|note| !note.is_empty())) {
        ("", None) => "somebody who does not say".to_owned(),
        ("", Some(note)) => note.to_owned(),
        (principal, None) => principal.to_owned(),
        (principal, Some(note)) => format!("{principal} ({note})"),
    }
}

pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn since_1970(time: SystemTime) -> u64 {
    ms(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
