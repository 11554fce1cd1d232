//! The rounds of a run: in each a leader is killed under load, at times one is stopped, at times replies are cut off.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conclave_testing::Error;
use rand::seq::IndexedRandom;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::increments::Plan;
use crate::patience::{until, until_async};
use crate::processes::{Metrics, Processes};
use crate::tally::Tally;

/// How long a member's replies are cut off: longer than clients without a session wait for a sign of life.
const MUTE: Duration = Duration::from_millis(1500);
/// At times longer: than clients with a session wait.
const LONG_MUTE: Duration = Duration::from_millis(4500);
/// How often leaders are looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What was done to a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage {
    pub(crate) kills: u64,
    pub(crate) deposed: u64,
    pub(crate) leader_changes: u64,
    pub(crate) mutes: u64,
    /// From the start of a killed member's process until it served clients again, and where the cluster was.
    restarts: Vec<(Duration, u64)>,
}

/// Lets the clients do their work, and kills a leader in the midst of each part of it.
pub(crate) async fn rounds(plan: Plan, cluster: &mut Processes, tally: &Tally) -> Result<Damage, Error> {
    let mut damage = Damage::default();
    let leaders = Leaders::watch(cluster)?;
    let mut released = 0;
    for round in 0..plan.kills {
        let until_now = plan.increments * (round + 1) / plan.kills;
        let part = until_now - released;
        let begun = released;
        tally.quota.add_permits(usize::try_from(part)?);
        released = until_now;
        until("the increments go on", || tally.finished() >= begun + part / 4).await?;
        if round % 4 == 3 {
            depose(cluster, &mut damage).await?;
        }
        let muted = (round % 2 == 0).then(|| mute(cluster, tally, round, &mut damage)).flatten();
        if muted.is_some() {
            let more = (tally.finished() + part / 8).min(released);
            until("the increments of others go on", || tally.finished() >= more).await?;
        }
        let leader = cluster.leader().await?;
        cluster.kill(leader)?;
        damage.kills += 1;
        let more = (tally.finished() + part / 8).min(released);
        until("the increments go on without the dead leader", || tally.finished() >= more).await?;
        restart(cluster, leader, &mut damage).await?;
        if let Some((member, at)) = muted {
            tokio::time::sleep_until(at).await;
            if let Some(proxy) = cluster.proxy(member) {
                proxy.mute(false);
            }
        }
        if let [member, ..] = cluster.fallen()[..] {
            return Err(format!("member {member} has ended by itself").into());
        }
    }
    until("the last increments come to their end", || tally.finished() >= plan.increments).await?;
    damage.leader_changes = leaders.changes();
    Ok(damage)
}

/// Stops the leader until another leads, then lets it go on: it finds out that it was deposed.
async fn depose(cluster: &mut Processes, damage: &mut Damage) -> Result<(), Error> {
    let (leader, term) = cluster.leader_after(0).await?;
    cluster.signal(leader, Signal::STOP)?;
    let other = cluster.leader_after(term).await;
    cluster.signal(leader, Signal::CONT)?;
    other?;
    let admin = cluster.admin(leader)?;
    let follows = async || Metrics::of(admin).await.is_some_and(|m| m.value("term") > term && !m.is("is_leader"));
    until_async("the old leader follows", follows).await?;
    damage.deposed += 1;
    Ok(())
}

/// Cuts off the replies of a member that has clients without a session; says which member, and until when.
fn mute(cluster: &Processes, tally: &Tally, round: u64, damage: &mut Damage) -> Option<(u64, Instant)> {
    let member = *tally.peers().choose(&mut rand::rng())?;
    cluster.proxy(member)?.mute(true);
    damage.mutes += 1;
    Some((member, Instant::now() + if round % 8 == 4 { LONG_MUTE } else { MUTE }))
}

async fn restart(cluster: &mut Processes, member: u64, damage: &mut Damage) -> Result<(), Error> {
    let started = Instant::now();
    cluster.launch(member)?;
    cluster.ready(member).await?;
    let zxid = Metrics::of(cluster.admin(member)?).await.map_or(0, |metrics| metrics.value("zxid"));
    damage.restarts.push((started.elapsed(), zxid));
    Ok(())
}

/// Waits until all members are at one zxid, and demands that they hold the same.
pub(crate) async fn settled(cluster: &Processes) -> Result<(), Error> {
    let client = cluster.client("settled").await?;
    let mut members = Vec::new();
    until_async("all members are at one zxid", async || {
        members = client.status().await.map(|status| status.members).unwrap_or_default();
        let zxid = members.first().and_then(|member| member.zxid);
        zxid.is_some() && members.iter().all(|member| member.zxid == zxid && member.digest.is_some())
    })
    .await?;
    if members.iter().any(|member| member.digest != members[0].digest) {
        return Err(format!("the members hold different things: {members:?}").into());
    }
    Ok(())
}

/// Sees who leads in which term.
struct Leaders {
    seen: Arc<Mutex<BTreeMap<u64, u64>>>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

impl Leaders {
    fn watch(cluster: &Processes) -> Result<Self, Error> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let members: Vec<(u64, SocketAddr)> =
            cluster.ids().into_iter().map(|id| Ok((id, cluster.admin(id)?))).collect::<Result<_, Error>>()?;
        let mut tasks = JoinSet::new();
        // Each on its own: one that is stopped does not answer.
        for (id, admin) in members {
            let into = Arc::clone(&seen);
            tasks.spawn(async move {
                loop {
                    if let Some(metrics) = Metrics::of(admin).await.filter(|metrics| metrics.is("is_leader")) {
                        into.lock().unwrap_or_else(PoisonError::into_inner).insert(metrics.value("term"), id);
                    }
                    // tidy: allow sleep, it samples who leads, again and again
                    tokio::time::sleep(LOOK).await;
                }
            });
        }
        Ok(Self { seen, _tasks: tasks })
    }

    /// How often one took over from another, or from itself in a later term.
    fn changes(&self) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.len() as u64).saturating_sub(1)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times: Vec<Duration> = self.restarts.iter().map(|(took, _)| *took).collect();
        times.sort_unstable();
        let ms = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
        let (least, median, most) = (ms(times.first()), ms(times.get(times.len() / 2)), ms(times.last()));
        writeln!(f, "restart until ready, ms: least {least}, median {median}, most {most}; in order, with the zxid:")?;
        let each = self.restarts.iter().map(|(took, zxid)| format!("{}@{zxid}", took.as_millis()));
        write!(f, "  {}", each.collect::<Vec<_>>().join(" "))
    }
}
