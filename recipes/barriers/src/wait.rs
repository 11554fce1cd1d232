//! Waiting at a barrier: a call that parks on the cluster's side until it may pass.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use conclave_client::{Call, Client, Error as ClientError, Path, Session};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The plugin that keeps barriers.
pub(crate) const PLUGIN: &str = "barrier";

/// The time of a call that has no end of its own. In a session it is answered, or the session is over: any time that is
/// longer than most that is waited for keeps the client from giving it up while the cluster is away.
pub(crate) const UNTIL_ANSWERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits at a barrier or a latch. Awaited it gives nothing, once that may be passed.
///
/// It waits on the cluster's side: without polling, over broken connections and other leaders. Opens the client's session.
///
/// # Errors
/// [`Error::TimedOut`] when it was given a time; [`Error::SessionOver`]; [`Error::Misplaced`]; of a latch
/// [`Error::NoLatch`]; [`Error::Client`] when the request failed.
///
/// # Cancellation
/// Dropping the future withdraws the wait. Nothing is left of it.
#[derive(Debug)]
#[must_use = "it waits for nothing until it is awaited"]
pub struct Wait {
    client: Client,
    path: Path,
    procedure: &'static str,
    what: &'static str,
    within: Option<Duration>,
}

impl Wait {
    pub(crate) fn new(client: &Client, path: &Path, procedure: &'static str, what: &'static str) -> Self {
        Self { client: client.clone(), path: path.clone(), procedure, what, within: None }
    }

    /// Waits so long at most. Without it: as long as the session lives.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl IntoFuture for Wait {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, path, procedure, what, within } = self;
            let begun = Instant::now();
            session(&client, &path, within).await?;
            loop {
                let left = within.map(|within| within.saturating_sub(begun.elapsed()));
                let wait = client.call(PLUGIN, procedure).arg("path", path.as_str()).in_session();
                match parked(&path, left, what, wait).await {
                    Ok(true) => return Ok(()),
                    // What one is told whose time is over at the cluster's side: the time is ours to say.
                    Ok(false) => {}
                    Err(Error::TimedOut { .. }) if within.is_none() => {}
                    Err(Error::TimedOut { path, what, .. }) => {
                        return Err(Error::TimedOut { path, after: within.unwrap_or_default(), what });
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }
}

/// Has the session opened, within that time. From then on whatever waits without an end waits until the session is over.
pub(crate) async fn session(client: &Client, path: &Path, within: Option<Duration>) -> Result<Session> {
    let Some(after) = within else { return Ok(client.session().await?) };
    match tokio::time::timeout(after, client.session()).await {
        Ok(session) => Ok(session?),
        Err(_) => Err(Error::TimedOut { path: path.clone(), after, what: "the cluster did not answer" }),
    }
}

/// Carries out a call that parks, in its time if it has one.
pub(crate) async fn parked<T: DeserializeOwned + Send + 'static>(
    path: &Path,
    within: Option<Duration>,
    what: &'static str,
    call: Call,
) -> Result<T> {
    match call.within(within.unwrap_or(UNTIL_ANSWERED)).typed().await {
        Err(ClientError::TimedOut { after }) => Err(Error::TimedOut { path: path.clone(), after, what }),
        answer => answer.map_err(|error| Error::of(path, error)),
    }
}
