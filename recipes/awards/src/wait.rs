//! Waiting without polling: for a change of what was seen, and through times without an answer.

use std::future::Future;

use conclave_client::{Client, Path, Session, Zxid};
use futures::future::{select_all, try_join_all};

use crate::error::{Error, Result};

/// What is looked at again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// A znode itself.
    Znode(Path),
    /// Which children a znode has.
    Children(Path),
}

/// Waits until one of these has changed since that state. Nothing is missed in between.
///
/// # Errors
/// [`Error::SessionOver`] when the client is closed; otherwise as every watch.
pub async fn changed(client: &Client, on: &[On], since: Zxid) -> Result<()> {
    let begun = on.iter().map(|on| {
        let watch = match on {
            On::Znode(path) => client.watch(path).data(),
            On::Children(path) => client.watch(path).children(),
        };
        watch.once().since(since).into_future()
    });
    let mut watches = try_join_all(begun).await?;
    if watches.is_empty() {
        return std::future::pending().await;
    }
    let next = watches.iter_mut().map(|watch| Box::pin(watch.next()));
    match select_all(next).await.0 {
        // Whatever it was, and if it is not told what: look again.
        Some(event) => event.map(drop).map_err(Error::from),
        // The client is closed.
        None => Err(Error::SessionOver),
    }
}

/// Asks, and asks again what could only not be answered in its time: a line is left when the session is lost, and not
/// before.
///
/// # Errors
/// [`Error::SessionOver`]; otherwise what was answered.
pub async fn while_open<T, A>(session: &Session, ask: impl Fn() -> A) -> Result<T>
where
    A: Future<Output = Result<T>>,
{
    loop {
        let done = tokio::select! {
            biased;
            () = session.lost() => return Err(Error::SessionOver),
            done = ask() => done,
        };
        match done {
            Err(Error::Client(error)) if error.is_retryable() => tracing::debug!(%error, "asked again"),
            done => return done,
        }
    }
}
