//! `barrier`: gates that are closed and opened, and commands that several members begin and end together.

use std::time::Duration;

use conclave_barriers::{Barrier, DoubleBarrier, Error};
use conclave_client::{Client, Fence, Outcome};
use serde_json::json;

use crate::args;
use crate::failure::{DONE, Failure, TIMED_OUT, While};
use crate::lock::{self, FAILED, LOST, WAITED, as_ours, cannot_run};
use crate::out::Out;
use crate::supervise::{self, Ended, Signals, signal_exit};

pub(crate) async fn run(client: &Client, command: args::Barrier, out: Out) -> Result<u8, Failure> {
    match command {
        args::Barrier::Close { path } => {
            Barrier::new(client, &path).map_err(failure)?.close().await.map_err(failure)?;
            done(out, "closed", &path)
        }
        args::Barrier::Open { path } => {
            Barrier::new(client, &path).map_err(failure)?.open().await.map_err(failure)?;
            done(out, "opened", &path)
        }
        args::Barrier::Wait { path, wait } => {
            let barrier = Barrier::new(client, &path).map_err(failure)?;
            if wait == Some(Duration::ZERO) {
                // A call that waits has no time at all then, not even for its answer.
                return match barrier.is_closed().await.map_err(failure)? {
                    true => Err(late(&format_args!("{path} is closed"))),
                    false => done(out, "passed", &path),
                };
            }
            let mut signals = Signals::listen().map_err(lock::failed)?;
            let passes = match wait {
                Some(time) => barrier.wait().within(time),
                None => barrier.wait(),
            };
            tokio::select! {
                biased;
                signal = signals.next() => return Ok(signal_exit(signal)),
                passed = passes => passed.map_err(failure)?,
            }
            done(out, "passed", &path)
        }
        args::Barrier::Enter(args) => enter(client, args, out).await.map_err(as_ours),
    }
}

fn done(out: Out, done: &str, path: &str) -> Result<u8, Failure> {
    out.show(&json!({ "done": done, "path": path }), |_| format!("{done}  {path}"))?;
    Ok(DONE)
}

async fn enter(client: &Client, args: args::Enter, out: Out) -> Result<u8, Failure> {
    let args::Enter { path, members, wait, grace, command } = args;
    let barrier = DoubleBarrier::new(client, &path, members).map_err(failure)?;
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let mut enter = barrier.enter().note(lock::title(&command));
    if let Some(time) = wait {
        enter = enter.within(time);
    }
    let inside = tokio::select! {
        biased;
        // Dropping it withdraws it.
        signal = signals.next() => return Ok(signal_exit(signal)),
        inside = enter => inside.map_err(not_entered)?,
    };
    let fence: Fence = inside.fence().await.map_err(failure)?;
    let session = client.session().await.writing()?;
    let ended = supervise::run(&session, &command, &lock::variables(&fence), grace, &mut signals).await;
    match ended {
        Err(error) => Err(cannot_run(&command, &error)),
        Ok(Ended::Lost) => {
            // Dropping it leaves.
            drop(inside);
            let text = format!(
                "lost: {path}: the session is over, or nearly: no member was heard in time. COMMAND was ended; see how far it \
                 came before you run it again."
            );
            Err(Failure::Exact { code: "session-over", exit: LOST, outcome: Outcome::Unknown, text })
        }
        Ok(Ended::Exited(code)) => {
            out.note(format_args!("waiting for the others to end …"));
            tokio::select! {
                biased;
                signal = signals.next() => return Ok(signal_exit(signal)),
                left = inside.leave() => left.map_err(|error| not_left(&path, &error))?,
            }
            Ok(code)
        }
    }
}

/// COMMAND was not run: an exit code of its own must not be taken for that.
fn not_entered(error: Error) -> Failure {
    match error {
        late @ Error::TimedOut { .. } => Failure::Exact {
            code: "timed-out",
            exit: WAITED,
            outcome: Outcome::NotApplied,
            text: format!("timed out: {late}. COMMAND was not run."),
        },
        other => failure(other),
    }
}

/// COMMAND has run to its end, and whether the others have is not known: not even its exit code 0 means that.
fn not_left(path: &str, error: &Error) -> Failure {
    let is_over = matches!(error, Error::NotIn { .. } | Error::Lost { .. } | Error::SessionOver { .. });
    let exit = if is_over { LOST } else { FAILED };
    let text = format!("lost: {path}: {error}. COMMAND had ended by itself; others may still be at it.");
    Failure::Exact { code: "not-left", exit, outcome: Outcome::Unknown, text }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => error.writing(),
        Error::TimedOut { .. } => late(&error),
        other => Failure::Refused { code: "barrier-failed", text: format!("{other}.") },
    }
}

fn late(why: &impl std::fmt::Display) -> Failure {
    let text = format!("timed out: {why}.");
    Failure::Exact { code: "timed-out", exit: TIMED_OUT, outcome: Outcome::NotApplied, text }
}
