//! What a client sends, counted operation by operation: the round trips that a recipe's documentation states.

use conclave_client::plugin::BudgetSettings;
use conclave_client::{Client, Sent};

use crate::{Cluster, Error, eventually};

/// What is a request. All else is not waited for.
const REQUESTS: [Sent; 5] = [Sent::Session, Sent::Write, Sent::Read, Sent::Watch, Sent::Stream];

/// So many requests of each kind.
type Counts = [u64; REQUESTS.len()];

/// Counts the requests of a client that has just connected, in rows: one for each operation.
#[derive(Debug)]
pub struct Tally {
    client: Client,
    /// Those of the rows so far.
    told: Counts,
}

impl Tally {
    /// A cluster of one member, to count on. This plugin has time: members that are built for debugging, on a machine that
    /// has other things to do, need more than a cluster in earnest allows.
    ///
    /// # Errors
    /// As [`Cluster::start`], and when there is no such plugin.
    pub async fn cluster(plugin: Option<&str>) -> Result<Cluster, Error> {
        let cluster = Cluster::start(1).await?;
        if let Some(plugin) = plugin {
            let unhurried = BudgetSettings { time_ms: Some(1_000), ..BudgetSettings::default() };
            cluster.client("operator").await?.plugins().budgets(plugin, unhurried).await?;
        }
        Ok(cluster)
    }

    /// Begins with nothing: what the client has sent already is in the first row.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), told: Counts::default() }
    }

    /// Asserts that since the last row the client has sent these requests and no others, in whatever order. It waits for
    /// those that are sent in the background. What is sent later than that counts in the next row: none escapes.
    ///
    /// # Panics
    /// When it has sent others, or these have not all been sent within [`PATIENCE`](crate::PATIENCE).
    pub async fn row(&mut self, operation: &str, expected: &[Sent]) {
        let expected = REQUESTS.map(|kind| expected.iter().map(|sent| u64::from(*sent == kind)).sum::<u64>());
        let sent = || {
            let mut sent = REQUESTS.map(|kind| self.client.sent(kind));
            sent.iter_mut().zip(self.told).for_each(|(sent, told)| *sent -= told);
            sent
        };
        let are_all = || sent().iter().zip(expected).all(|(sent, expected)| *sent >= expected);
        let in_time = eventually(operation, are_all).await;
        let sent = sent();
        assert!(in_time.is_ok() && sent == expected, "{operation}: {}, expected {}", words(sent), words(expected));
        self.told.iter_mut().zip(sent).for_each(|(told, sent)| *told += sent);
    }
}

fn words(requests: Counts) -> String {
    let kinds: Vec<String> = REQUESTS.iter().zip(requests).map(|(kind, count)| format!("{kind:?} {count}")).collect();
    format!("{} requests ({})", requests.iter().sum::<u64>(), kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_their_kinds() {
        assert_eq!(words([0, 2, 1, 0, 0]), "3 requests (Session 0, Write 2, Read 1, Watch 0, Stream 0)");
    }
}
