//! `elect`: a command that runs while this leads, or who leads and who waits.

use conclave_client::Client;
use conclave_election::{Candidate, Election, Error, Leader};
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::lock::{self, as_ours, variables};
use crate::out::{Out, table};
use crate::stat::utc;
use crate::supervise::{self, Signals, signal_exit};

pub(crate) async fn run(client: &Client, args: args::Elect, out: Out) -> Result<u8, Failure> {
    let election = Election::new(client, &args.path);
    if args.show {
        return show(&args.path, election, out).await;
    }
    let mut election = election.map_err(failure)?.priority(args.priority);
    if let Some(name) = &args.name {
        election = election.name(name);
    }
    if let Some(data) = &args.data {
        election = election.data(data);
    }
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let mut campaign = election.campaign();
    if let Some(wait) = args.wait {
        campaign = campaign.within(wait);
    }
    let leadership = tokio::select! {
        biased;
        // Dropping the campaign withdraws it.
        signal = signals.next() => return Ok(signal_exit(signal)),
        leadership = campaign => leadership.map_err(|error| match error {
            Error::TimedOut { .. } => lock::waited("election-timeout", election.path(), &error),
            other => failure(other),
        })?,
    };
    out.note(format_args!("leads {} since {}", args.path, leadership.fence().zxid));
    let term = leadership.term();
    let ended = supervise::run(&*term, &args.command, &variables(&term.fence()), args.grace, &mut signals).await;
    let resigned = match leadership.resign().await {
        Ok(()) => Ok(Ok(())),
        Err(Error::Lost(why)) => Err(why),
        Err(error) => Ok(Err(error.to_string())),
    };
    lock::ending(&args.path, &args.command, ended, resigned, out)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => as_ours(error.reading()),
        other => as_ours(Failure::Refused { code: "election-failed", text: format!("{other}.") }),
    }
}

/// `elect --show --json`.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    leader: Option<ShownLeader>,
    /// The next one first.
    candidates: Vec<ShownCandidate>,
}

#[derive(Serialize)]
struct ShownLeader {
    name: String,
    principal: String,
    priority: i64,
    data: Option<String>,
    since_ms: u64,
    /// What `--fence` takes.
    fence: String,
    term: u64,
}

#[derive(Serialize)]
struct ShownCandidate {
    name: String,
    principal: String,
    priority: i64,
    since_ms: u64,
}

async fn show(path: &str, election: conclave_election::Result<Election>, out: Out) -> Result<u8, Failure> {
    let seen = async {
        let election = election?;
        Ok((election.leader().await?, election.candidates().await?))
    };
    let (leader, candidates) = seen.await.map_err(|error: Error| match error {
        Error::Client(error) => error.reading(),
        other => Failure::Refused { code: "election-failed", text: format!("{other}.") },
    })?;
    let shown = Shown {
        path,
        leader: leader.map(shown_leader),
        candidates: candidates.into_iter().map(shown_candidate).collect(),
    };
    out.show(&shown, text)?;
    Ok(DONE)
}

fn shown_leader(leader: Leader) -> ShownLeader {
    let term = leader.term();
    let Leader { name, principal, priority, data, fence, since, .. } = leader;
    ShownLeader { name, principal, priority, data, since_ms: lock::since_1970(since), fence: fence.to_string(), term }
}

fn shown_candidate(candidate: Candidate) -> ShownCandidate {
    let Candidate { name, principal, priority, since, .. } = candidate;
    ShownCandidate { name, principal, priority, since_ms: lock::since_1970(since) }
}

fn text(shown: &Shown<'_>) -> String {
    let mut text = match &shown.leader {
        None => format!("nobody leads {}\n", shown.path),
        Some(leader) => {
            let data = leader.data.as_ref().map_or_else(String::new, |data| format!("data    {data}\n"));
            format!(
                "{} is led by {}\nsince   {}\nfence   {}\n{data}",
                shown.path,
                leader.name,
                utc(leader.since_ms),
                leader.fence
            )
        }
    };
    if !shown.candidates.is_empty() {
        let row = |one: &ShownCandidate| vec![one.priority.to_string(), utc(one.since_ms), one.name.clone()];
        let rows: Vec<Vec<String>> = shown.candidates.iter().map(row).collect();
        text.push('\n');
        text.push_str(&table(&["PRIORITY", "SINCE", "CANDIDATE"], &[true, false, false], &rows));
    }
    text
}
