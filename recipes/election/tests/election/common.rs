//! What the tests of elections share.

use std::future::IntoFuture;
use std::time::Duration;

use conclave_client::{Client, Error, Refusal};
use conclave_election::{Candidate, Election, Leader, Leadership};
use conclave_testing::{Cluster, eventually_async};
use tokio::task::JoinHandle;

/// A wait that ends the test, not one that is waited out.
pub const LONG: Duration = Duration::from_secs(60);

/// The path of every test's election.
pub const PATH: &str = "/election/billing";

/// By which of the two ways a candidate works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Procedure,
    Plain,
}

impl Way {
    /// One way, then the other.
    pub const fn of(n: usize) -> Self {
        if n.is_multiple_of(2) { Self::Procedure } else { Self::Plain }
    }

    /// A client as a candidate.
    pub fn election(self, client: &Client) -> Election {
        let election = Election::new(client, PATH).unwrap();
        if self == Self::Plain { election.plain() } else { election }
    }
}

/// The same tests by both ways.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod by_procedure {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::common::Way::Procedure).await;
            })*
        }

        mod plain {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(crate::common::Way::Plain).await;
            })*
        }
    };
}
pub(crate) use both_ways;

/// A candidate of a client of its own.
pub async fn candidate(cluster: &Cluster, way: Way, name: &str) -> Election {
    way.election(&cluster.client(name).await.unwrap()).name(name)
}

/// Begins to campaign in a task.
pub fn campaign(election: &Election) -> JoinHandle<conclave_election::Result<Leadership>> {
    tokio::spawn(election.campaign().within(LONG).into_future())
}

/// Waits until these are the candidates, the next one first.
pub async fn until_candidates(election: &Election, names: &[&str]) -> Vec<Candidate> {
    let mut seen = Vec::new();
    eventually_async(&format!("{names:?} are candidates"), async || {
        seen = election.candidates().await.unwrap();
        seen.iter().map(|candidate| candidate.name.as_str()).eq(names.iter().copied())
    })
    .await
    .unwrap();
    seen
}

/// Waits until one of this name leads.
pub async fn until_led_by(election: &Election, name: &str) -> Leader {
    let mut seen = None;
    eventually_async(&format!("{name} leads"), async || {
        seen = election.leader().await.unwrap();
        seen.as_ref().is_some_and(|leader| leader.name == name)
    })
    .await
    .unwrap();
    seen.unwrap()
}

/// Waits until nobody leads or wants to.
pub async fn until_over(election: &Election) {
    eventually_async("nobody leads", async || election.leader().await.unwrap().is_none()).await.unwrap();
    until_candidates(election, &[]).await;
}

/// Asserts that a write with this term's fence is refused.
pub async fn assert_fenced_out(client: &Client, fence: conclave_client::Fence) {
    let refused = client.at("/late").create("late").fenced(fence).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::Fenced { .. })), "{refused}");
}
