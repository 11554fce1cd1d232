//! Load for examples that measure a running cluster (`conclave dev`), and how long each thing took.

use std::future::Future;
use std::time::{Duration, Instant};

use conclave_client::{Client, Options};
use conclave_testing::Error;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

/// The time that a request may take: what is measured is how long it takes, not that it is too long.
const PATIENT: Duration = Duration::from_secs(60);
/// Clients that connect at a time: a handshake costs both sides some milliseconds of a core.
const AT_A_TIME: usize = 16;

/// A client of the cluster that is found as the command line does, with a session: what was answered is acknowledged, and
/// not remembered for as long as a one-shot write is.
///
/// # Errors
/// When it can't be reached.
pub async fn connect() -> Result<Client, Error> {
    let client = Client::connect(Options::load()?.with_request_timeout(PATIENT)).await?;
    client.session().await?;
    Ok(client)
}

/// So many of them.
///
/// # Errors
/// As [`connect`].
pub async fn clients(count: usize) -> Result<Vec<Client>, Error> {
    stream::iter((0..count).map(|_| connect())).buffered(AT_A_TIME).try_collect().await
}

/// A path that nobody has used.
#[must_use]
pub fn fresh(name: &str) -> String {
    format!("/{name}-{:08x}", rand::random::<u32>())
}

/// How long each of some things took.
#[derive(Debug, Default)]
pub struct Times {
    sorted: Vec<Duration>,
}

impl Times {
    /// Of these, in any order.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self { sorted: times }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The time below which this share of them is, milliseconds.
    #[must_use]
    pub fn ms(&self, share: f64) -> f64 {
        let at = ((self.sorted.len() as f64 * share) as usize).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// How many a second, if all of them were within that time.
    #[must_use]
    pub fn rate(&self, time: Duration) -> f64 {
        self.sorted.len() as f64 / time.as_secs_f64()
    }

    /// The same, with percentiles, in words.
    #[must_use]
    pub fn words(&self, time: Duration) -> String {
        let (rate, [median, slow, slowest]) = (self.rate(time), [0.5, 0.99, 1.0].map(|share| self.ms(share)));
        format!("{rate:.0}/s, p50 {median:.2} ms, p99 {slow:.2} ms, longest {slowest:.1} ms")
    }

    /// Of a few: the median, the least and the most, in words.
    #[must_use]
    pub fn spread(&self) -> String {
        format!("median {:.0} ms (least {:.0}, most {:.0})", self.ms(0.5), self.ms(0.0), self.ms(1.0))
    }
}

/// Does the same with every client, given its number, again and again for a while: how long each time took.
///
/// # Errors
/// The first one that comes.
pub async fn each<F>(clients: &[Client], time: Duration, act: impl Fn(Client, usize) -> F) -> Result<Times, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let until = Instant::now() + time;
    let all = clients.iter().enumerate().map(|(n, client)| {
        let act = &act;
        async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let begun = Instant::now();
                act(client.clone(), n).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, Error>(times)
        }
    });
    Ok(Times::of(try_join_all(all).await?.concat()))
}
