//! `semaphore`: a command that runs while permits are held, or who holds them and who waits.

use std::time::Duration;

use conclave_client::Client;
use conclave_locks::{Error, Overview, Permit, Semaphore};
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::lock::{self, given_back, lock_failure, ms, not_acquired, variables, waiting_line, who};
use crate::out::{Out, table};
use crate::supervise::{self, Signals, signal_exit};

pub(crate) async fn run(client: &Client, args: args::Semaphore, out: Out) -> Result<u8, Failure> {
    let semaphore = match args.capacity {
        Some(capacity) => Semaphore::new(client, &args.path, capacity),
        None => Semaphore::open(client, &args.path),
    };
    if args.show {
        return show(&args.path, semaphore, out).await;
    }
    let semaphore = semaphore.map_err(lock_failure)?.note(lock::title(&args.command));
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let permit = tokio::select! {
        biased;
        // Dropping the wait withdraws it.
        signal = signals.next() => return Ok(signal_exit(signal)),
        permit = acquire(&semaphore, args.permits, args.wait, out) => permit?,
    };
    let ended =
        supervise::run(&permit.held(), &args.command, &variables(&permit.fence()), args.grace, &mut signals).await;
    lock::ending(&args.path, &args.command, ended, given_back(permit.release().await), out)
}

async fn acquire(semaphore: &Semaphore, permits: u64, wait: Option<Duration>, out: Out) -> Result<Permit, Failure> {
    let permit = match wait {
        Some(Duration::ZERO) => semaphore.try_acquire_many(permits).await,
        wait => {
            let acquire = semaphore.acquire_many(permits).on_wait(move |waiting| out.note(waiting_line(waiting)));
            match wait {
                Some(time) => acquire.within(time).await,
                None => acquire.await,
            }
        }
    };
    permit.map_err(|error| match in_options(&error) {
        Some(text) => lock::not_run(&text),
        None => not_acquired(semaphore.path(), error, wait),
    })
}

/// What the recipe says of its methods, said of ours.
fn in_options(error: &Error) -> Option<String> {
    match error {
        Error::NoSemaphore { path, why } => Some(format!("{path} is no semaphore: {why}. --capacity makes one")),
        Error::OtherCapacity { path, actual, said } => {
            Some(format!("{path} has a capacity of {actual}, you said {said}. Say the same, or leave out --capacity"))
        }
        _ => None,
    }
}

/// `semaphore --show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    capacity: Option<u64>,
    used: u64,
    holders: Vec<Row>,
    /// The next one first.
    waiters: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    principal: String,
    note: Option<String>,
    permits: u64,
    for_ms: u64,
}

async fn show(path: &str, semaphore: conclave_locks::Result<Semaphore>, out: Out) -> Result<u8, Failure> {
    let seen = match semaphore {
        Ok(semaphore) => semaphore.view().await,
        Err(error) => Err(error),
    };
    let seen: Overview = seen.map_err(|error| match error {
        Error::Client(error) => error.reading(),
        other => {
            let text = in_options(&other).unwrap_or_else(|| other.to_string());
            Failure::Refused { code: "lock-failed", text: format!("{text}.") }
        }
    })?;
    let used = seen.used();
    let holders = seen.shared.into_iter().map(|sharer| {
        let for_ms = ms(sharer.holder.held_for());
        Row {
            principal: sharer.holder.principal,
            note: sharer.holder.note,
            permits: sharer.permits.unwrap_or(1),
            for_ms,
        }
    });
    let waiters = seen.line.into_iter().map(|claim| {
        let for_ms = ms(claim.waiter.waited_for());
        Row { principal: claim.waiter.principal, note: claim.waiter.note, permits: claim.permits.unwrap_or(1), for_ms }
    });
    let shown = Shown { path, capacity: seen.capacity, used, holders: holders.collect(), waiters: waiters.collect() };
    out.show(&shown, text)?;
    Ok(DONE)
}

fn text(shown: &Shown<'_>) -> String {
    let Shown { path, capacity, used, holders, waiters } = shown;
    let of = capacity.map_or_else(String::new, |capacity| format!(" of {capacity}"));
    let mut text = format!("{path}: {used}{of} permits are held\n");
    for (head, rows) in [("HOLDS", holders), ("WAITS", waiters)] {
        if !rows.is_empty() {
            let row = |row: &Row| {
                let who = who(&row.principal, row.note.as_deref());
                vec![row.permits.to_string(), format!("{} s", row.for_ms / 1000), who]
            };
            let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
            text.push('\n');
            text.push_str(&table(&["PERMITS", head, "WHO"], &[true, true, false], &rows));
        }
    }
    text
}
