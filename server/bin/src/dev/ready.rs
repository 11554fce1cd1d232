//! When a `dev` cluster is ready: a client connects to each member and reads, linearizably.

use std::collections::BTreeSet;
use std::time::Duration;

use conclave_client::{Client, Options};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::dev::home::Home;
use crate::dev::keep::Life;
use crate::out::{self, Failure, Outcome};

/// Between two tries at a member.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The time of one try.
const TRY: Duration = Duration::from_secs(2);
/// With a majority ready, the others are waited for this long.
const STRAGGLERS: Duration = Duration::from_secs(5);
/// A member that has died so often before the cluster was ever ready will not start by itself.
const DEATHS_MAX: u32 = 3;
/// People hear that it takes long after this time, and then each time again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known when the cluster is ready.
pub(crate) struct Ready {
    /// Who leads.
    pub(crate) leader: Option<u64>,
    /// The members that are not ready themselves.
    pub(crate) missing: BTreeSet<u64>,
}

/// Waits until all members serve clients, or a majority does and the others take too long.
///
/// # Errors
/// When so many members cannot be started that there will be no majority, or the client's files cannot be read.
pub(crate) async fn wait(home: &Home, lives: &[watch::Receiver<Life>], restart: bool) -> Outcome<Ready> {
    let broken = |error| Failure::broken("the cluster's client", error);
    let options = Options::from_dir(home.dir()).map_err(broken)?.with_connect_timeout(TRY);
    let mut missing: BTreeSet<u64> = home.seats.iter().map(|seat| seat.id).collect();
    let (words, heard) = watch::channel(String::from("nothing heard yet"));
    let mut probes = JoinSet::new();
    for seat in &home.seats {
        let options = options.clone().with_endpoints([seat.client().to_string()]);
        probes.spawn(probe(seat.id, options, words.clone()));
    }
    let majority = home.seats.len() / 2 + 1;
    let mut leader = None;
    let mut enough_since = None;
    let mut nag = Instant::now() + PATIENCE;
    let mut tick = interval(AGAIN_AFTER);
    while !missing.is_empty() {
        tokio::select! {
            Some(probed) = probes.join_next() => {
                let (id, led_by) = probed.map_err(|error| Failure::broken("a probe", error))?;
                missing.remove(&id);
                leader = led_by.or(leader);
                if home.seats.len() - missing.len() >= majority {
                    enough_since.get_or_insert_with(Instant::now);
                }
            }
            _ = tick.tick() => {}
        }
        if enough_since.is_some_and(|since| since.elapsed() > STRAGGLERS) {
            break;
        }
        let deaths_max = if restart { DEATHS_MAX } else { 1 };
        let hopeless = lives.iter().filter(|life| life.borrow().deaths >= deaths_max).count();
        if enough_since.is_none() && home.seats.len() - hopeless < majority {
            let text = format!(
                "{hopeless} of {} members cannot be started, and {majority} are needed; the logs are in {}",
                home.seats.len(),
                home.shown.join("members/*/log").display()
            );
            return Err(Failure::Broken(text));
        }
        if Instant::now() > nag {
            nag += PATIENCE;
            out::complain(format!("waiting for member {missing:?}: {}", heard.borrow().clone()));
        }
    }
    Ok(Ready { leader, missing })
}

/// Tries until the member serves clients; then tells its number and who leads.
async fn probe(id: u64, options: Options, words: watch::Sender<String>) -> (u64, Option<u64>) {
    loop {
        match attempt(options.clone()).await {
            Ok(leader) => return (id, leader),
            Err(error) => {
                let _ = words.send(format!("member {id}: {error}"));
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn attempt(options: Options) -> conclave_client::Result<Option<u64>> {
    let client = Client::connect(options).await?;
    // Whether the root is there does not matter; that a leader vouches for the answer does.
    let asked = async {
        client.at("/").exists().linearizable().within(TRY).await?;
        client.status().await
    };
    let status = asked.await;
    let _ = client.close().await;
    Ok(status?.leader.map(|leader| leader.0))
}
