//! Increments through kills, stops, bad weather and cut connections: none lost, none done twice.
//!
//! Clients of four kinds work at once. Two share one counter and are patient: *one-shot* writes, repeated under a nonce, and
//! *pipelined* ones, many at a time in a session's order. As each value of that counter must be acknowledged to one caller at
//! most, and only increments of unknown outcome may be missing, nothing can be lost or done twice unseen. Two have counters
//! of their own and deadlines so short that a fail-over outlasts them: their outcomes are unknown, and found out by reading,
//! behind the increment in its session, or when a one-shot write can no longer be carried out.
//!
//! What is *proven to have been a duplicate*: a one-shot request whose connection broke is sent again, to another member. If
//! it then gets a value that the counter had passed before the connection was found broken, it was carried out the first
//! time, its reply was lost, and the second one was recognised.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conclave_client::{Client, Error as ClientError, State};
use conclave_server::Config;
use conclave_testing::{Error, Weather, small_storage};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Processes;
use crate::chaos::{self, Damage};
use crate::tally::{Fate, Tally};

/// What the patient clients share.
const SHARED: &str = "/hits";
/// Long enough for every fail-over.
const PATIENT: Duration = Duration::from_secs(150);
/// Shorter than any fail-over.
const IMPATIENT: Duration = Duration::from_millis(200);
/// A one-shot write may still be carried out so long after its deadline; and a margin.
const REMEMBERED: Duration = Duration::from_secs(6);
/// Makes a client without a session leave a silent member after a second.
const SHORT_SESSION: Duration = Duration::from_millis(2500);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Increments that get an end, all together.
    pub increments: u64,
    /// Kills of a leader.
    pub kills: u64,
    /// Clients of each kind.
    pub clients: u64,
    /// Increments that a patient client has on their way.
    pub depth: usize,
    /// What the proxies do all the time.
    pub weather: Weather,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    acknowledged: u64,
    unknown: u64,
    resolved: u64,
    sum: u64,
    refused: u64,
    unsent: u64,
    sessions_lost: u64,
    broken: u64,
    again: u64,
    known: u64,
    damage: Damage,
    carried: conclave_testing::Done,
    took: Duration,
}

/// Runs a plan against a new cluster of three. The final values are checked, and that all members hold the same.
///
/// # Errors
/// When an increment was lost or done twice, a member ended by itself, or something does not come in time. The cluster's
/// directory then stays, and its path is in the error.
pub async fn run(plan: Plan) -> Result<Report, Error> {
    // Logs are purged behind checkpoints all the time, so that members that were away come back by snapshots too.
    let small = |config: &mut Config| config.storage = small_storage();
    let mut cluster = Processes::start_with(3, Some(plan.weather), small).await?;
    let ran = run_on(plan, &mut cluster).await;
    if ran.is_err() {
        cluster.keep();
    }
    ran.map_err(|error| format!("{error} (see {})", cluster.dir().display()).into())
}

async fn run_on(plan: Plan, cluster: &mut Processes) -> Result<Report, Error> {
    let begun = Instant::now();
    let tally = Arc::new(Tally::new());
    let mut clients = JoinSet::new();
    for n in 0..plan.clients {
        let name = |kind: &str| format!("{kind}-{n}");
        let once = cluster.options(&name("once"))?.with_session_timeout(SHORT_SESSION);
        let worker = |name, options, depth| Worker { name, options, depth, tally: Arc::clone(&tally) };
        clients.spawn(worker(name("once"), once, plan.depth).patient());
        let pipelined = cluster.options(&name("pipelined"))?.pipelined();
        clients.spawn(worker(name("pipelined"), pipelined, plan.depth).patient());
        let hasty = cluster.options(&name("hasty"))?.with_session_timeout(SHORT_SESSION);
        clients.spawn(worker(name("hasty"), hasty, 1).hasty_once());
        let ordered = cluster.options(&name("ordered"))?.pipelined();
        clients.spawn(worker(name("ordered"), ordered, 1).hasty_in_session());
    }
    let damage = tokio::select! {
        damage = chaos::rounds(plan, cluster, &tally) => damage?,
        Some(ended) = clients.join_next() => {
            ended??;
            return Err("a client ended before its work".into());
        }
    };
    tally.quota.close();
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    // After this no one-shot write of unknown outcome can be carried out any more.
    // tidy: allow sleep, nothing can be asked for: what is remembered must be forgotten first
    tokio::time::sleep(IMPATIENT + REMEMBERED).await;
    let (resolved, sum) = resolve(cluster, &tally).await?;
    chaos::settled(cluster).await?;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Tally { acknowledged, unknown, refused, unsent, sessions_lost, broken, again, known, .. } = &*tally;
    let report = Report {
        acknowledged: load(acknowledged),
        unknown: load(unknown),
        resolved,
        sum,
        refused: load(refused),
        unsent: load(unsent),
        sessions_lost: load(sessions_lost),
        broken: load(broken),
        again: load(again),
        known: load(known),
        damage,
        carried: cluster.carried(),
        took: begun.elapsed(),
    };
    if report.acknowledged + report.resolved != report.sum {
        return Err(format!("the sum is wrong:\n{report}").into());
    }
    Ok(report)
}

/// Reads all counters: how many of the increments of unknown outcome were carried out, and the sum of all.
async fn resolve(cluster: &Processes, tally: &Tally) -> Result<(u64, u64), Error> {
    let reader = cluster.client("reader").await?;
    let value = async |path: &str| -> Result<u64, Error> {
        match reader.at(path).get().linearizable().within(PATIENT).await {
            Ok(znode) => Ok(std::str::from_utf8(&znode.data)?.parse()?),
            Err(ClientError::Refused(conclave_client::Refusal::NoZnode { .. })) => Ok(0),
            Err(error) => Err(error.into()),
        }
    };
    let (acknowledged, highest, unknown) = tally.shared_result();
    let last = value(SHARED).await?;
    let mut resolved =
        last.checked_sub(acknowledged).filter(|more| *more <= unknown && highest <= last).ok_or_else(|| {
            format!("{SHARED} is at {last}: {acknowledged} acknowledged up to {highest}, {unknown} of unknown outcome")
        })?;
    let mut sum = last;
    for (path, own) in tally.own_results() {
        let value = value(&path).await?;
        let more = value.checked_sub(own.acknowledged).filter(|more| (own.found..=own.unknown).contains(more));
        resolved += more.ok_or_else(|| format!("{path} is at {value}: {own:?}"))?;
        sum += value;
    }
    Ok((resolved, sum))
}

/// One client's work.
struct Worker {
    name: String,
    options: conclave_client::Options,
    depth: usize,
    tally: Arc<Tally>,
}

/// What is on its way on a client's connection.
#[derive(Default)]
struct Flight {
    outstanding: AtomicU64,
    /// Where the counter was, when the connection was found broken under what is on its way; 0 when it was not.
    broken_at: AtomicU64,
}

impl Worker {
    /// Connects; goes on trying, as there are times without any member that answers.
    async fn connect(&self) -> Result<Client, Error> {
        let deadline = Instant::now() + PATIENT;
        loop {
            match Client::connect(self.options.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => return Err(format!("{}: {error}", self.name).into()),
                Err(_) => {}
            }
        }
    }

    /// Waits for leave to begin an increment. False at the end of the work.
    async fn may_begin(&self) -> bool {
        self.tally.quota.acquire().await.map(|permit| permit.forget()).is_ok()
    }

    /// Increments the shared counter, several at a time.
    async fn patient(self) -> Result<(), Error> {
        let mut client = self.connect().await?;
        let flight = Arc::new(Flight::default());
        let mut watcher = self.watch(&client, &flight);
        let (mut due, mut highest) = (0, 0);
        loop {
            if due == 0 {
                if !self.may_begin().await {
                    break;
                }
                due = 1;
            }
            while due < self.depth && self.tally.quota.try_acquire().map(|permit| permit.forget()).is_ok() {
                due += 1;
            }
            flight.broken_at.store(0, Ordering::Relaxed);
            let batch = futures::future::join_all((0..due).map(|_| self.one(&client, &flight))).await;
            due = 0;
            let mut over = false;
            for ended in batch {
                let (fate, session_over) = ended?;
                over |= session_over;
                match fate {
                    Fate::Acknowledged(value) if self.is_pipelined() && value <= highest => {
                        return Err(format!("{}: {value} after {highest}: out of order", self.name).into());
                    }
                    Fate::Acknowledged(value) => highest = value,
                    Fate::Not => due += 1,
                    Fate::Unknown => {}
                }
            }
            if over {
                self.tally.sessions_lost.fetch_add(1, Ordering::Relaxed);
                watcher.abort();
                client = self.connect().await?;
                watcher = self.watch(&client, &flight);
            }
        }
        watcher.abort();
        Ok(())
    }

    fn is_pipelined(&self) -> bool {
        self.name.starts_with("pipelined")
    }

    /// One increment of the shared counter; also says whether the session is over.
    async fn one(&self, client: &Client, flight: &Flight) -> Result<(Fate, bool), Error> {
        flight.outstanding.fetch_add(1, Ordering::Relaxed);
        let answer = increment(client, SHARED, PATIENT).await;
        flight.outstanding.fetch_sub(1, Ordering::Relaxed);
        let fate = self.tally.judge(answer.as_ref())?;
        if matches!(fate, Fate::Acknowledged(value) if value <= flight.broken_at.load(Ordering::Relaxed)) {
            self.tally.known.fetch_add(1, Ordering::Relaxed);
        }
        self.tally.shared(fate)?;
        Ok((fate, answer.is_err_and(|error| error.is_session_over())))
    }

    /// Notes when the connection of a client without a session breaks: without one, nothing else suspends it.
    fn watch(&self, client: &Client, flight: &Arc<Flight>) -> tokio::task::AbortHandle {
        let (mut states, flight, tally) = (client.states(), Arc::clone(flight), Arc::clone(&self.tally));
        let (pipelined, name, client) = (self.is_pipelined(), self.name.clone(), client.clone());
        let watching = tokio::spawn(async move {
            if pipelined {
                return;
            }
            loop {
                let outstanding = flight.outstanding.load(Ordering::Relaxed);
                let state = *states.borrow_and_update();
                if let Some(peer) = client.peer().filter(|_| state == State::Connected) {
                    tally.connected(&name, peer.member.0);
                }
                if state == State::Suspended && outstanding > 0 {
                    tally.broken.fetch_add(1, Ordering::Relaxed);
                    tally.again.fetch_add(outstanding, Ordering::Relaxed);
                    flight.broken_at.fetch_max(tally.value_before(), Ordering::Relaxed);
                }
                if states.changed().await.is_err() {
                    return;
                }
            }
        });
        watching.abort_handle()
    }

    /// Increments counters of its own, the next one whenever an outcome is unknown.
    async fn hasty_once(self) -> Result<(), Error> {
        let client = self.connect().await?;
        let mut number = 0;
        while self.may_begin().await {
            loop {
                let path = format!("/{}-{number}", self.name);
                let fate = self.tally.judge(increment(&client, &path, IMPATIENT).await.as_ref())?;
                self.tally.own(&path, fate)?;
                match fate {
                    Fate::Not => continue,
                    Fate::Unknown => number += 1,
                    Fate::Acknowledged(_) => {}
                }
                break;
            }
        }
        Ok(())
    }

    /// Increments a counter of its own in a session, and reads behind whatever is unknown.
    async fn hasty_in_session(self) -> Result<(), Error> {
        let mut client = self.connect().await?;
        let mut number = 0;
        while self.may_begin().await {
            loop {
                let path = format!("/{}-{number}", self.name);
                let answer = increment(&client, &path, IMPATIENT).await;
                let fate = self.tally.judge(answer.as_ref())?;
                self.tally.own(&path, fate)?;
                let mut over = answer.is_err_and(|error| error.is_session_over());
                if fate == Fate::Unknown && !over {
                    match client.at(&path).get().within(PATIENT).await {
                        Ok(znode) => {
                            let value = std::str::from_utf8(&znode.data)?.parse()?;
                            // In a session's order nothing that was sent is left out.
                            self.tally.own_found(&path, value)?;
                        }
                        // The session was lost before the increment was carried out.
                        Err(error) if client.state() == State::Lost || error.is_session_over() => over = true,
                        Err(error) => return Err(format!("{}: {error}", self.name).into()),
                    }
                }
                if over {
                    self.tally.sessions_lost.fetch_add(1, Ordering::Relaxed);
                    client = self.connect().await?;
                    number += 1;
                }
                if fate != Fate::Not {
                    break;
                }
            }
        }
        Ok(())
    }
}

async fn increment(client: &Client, path: &str, within: Duration) -> conclave_client::Result<u64> {
    client.call("counter", "increment").positional(path).within(within).typed().await
}

impl Report {
    /// What should have happened and did not: a run without it proves nothing.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let seen = [
            ("increments of unknown outcome", self.unknown),
            ("increments resolved by reading", self.resolved),
            ("replies dropped", self.known),
            ("duplicates sent", self.again),
            ("step-downs", self.damage.leader_changes),
            ("leaders deposed alive", self.damage.deposed),
            ("datagrams lost", self.carried.lost),
            ("datagrams twice", self.carried.twice),
            ("replies cut", self.carried.cut),
        ];
        seen.into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, value: &dyn fmt::Display| writeln!(f, "{what:<66} {value:>10}");
        line("increments acknowledged", &self.acknowledged)?;
        line("increments of unknown outcome", &self.unknown)?;
        line("  of them carried out, found by reading", &self.resolved)?;
        line("sum of all counters", &self.sum)?;
        line(
            "  minus acknowledged and resolved",
            &(i128::from(self.sum) - i128::from(self.acknowledged + self.resolved)),
        )?;
        line("leaders killed (kill -9)", &self.damage.kills)?;
        line("leaders stopped (SIGSTOP) until deposed, then continued", &self.damage.deposed)?;
        line("step-downs: changes of leader seen", &self.damage.leader_changes)?;
        line("times that a member's replies were cut off", &self.damage.mutes)?;
        line("connections of one-shot clients broken with requests on their way", &self.broken)?;
        line("  duplicates sent: those requests, sent again", &self.again)?;
        line("  replies dropped: of them, proven carried out before", &self.known)?;
        line("sessions lost (the client opened another)", &self.sessions_lost)?;
        line("increments surely not carried out, tried again: refused", &self.refused)?;
        line("increments surely not carried out, tried again: not sent in time", &self.unsent)?;
        line("datagrams carried by the proxies", &self.carried.carried)?;
        line("  lost", &self.carried.lost)?;
        line("  delivered twice", &self.carried.twice)?;
        line("  delayed", &self.carried.late)?;
        line("  of members, cut off", &self.carried.cut)?;
        line("seconds", &self.took.as_secs())?;
        write!(f, "{}", self.damage)
    }
}
