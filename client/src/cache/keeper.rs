//! The task that keeps a cache up: from the watch into the tree, and now and then a question to the cluster.

use std::sync::{Arc, Weak};
use std::time::Duration;

use conclave_protocol::{Path, Refusal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::tree::Tree;
use super::{ChangeSet, Shared};
use crate::client::Client;
use crate::error::{Error, Outcome, Result};
use crate::watch::{Watch, WatchEvent};

/// How long something that can't be shown yet waits for the rest of it, before the cluster is asked.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long to wait after a question that was not answered.
const AGAIN: Duration = Duration::from_millis(100);

/// Keeps the cache up until it is dropped, or cannot be kept up any more.
pub(super) async fn keep(client: Client, mut watch: Watch, path: Path, shared: Weak<Shared>, asked: Arc<Notify>) {
    let mut waiting = None;
    let ended = loop {
        let Some(cache) = shared.upgrade() else { return };
        let is_waiting = cache.tree().is_waiting();
        drop(cache);
        waiting = is_waiting.then(|| waiting.unwrap_or_else(|| Instant::now() + PATIENCE));
        let patience = waiting.unwrap_or_else(Instant::now);
        let done = tokio::select! {
            biased;
            // Before the events, which may come without a pause.
            () = sleep_until(patience), if is_waiting => {
                waiting = None;
                ask(&client, &path, &shared, &mut watch).await
            }
            () = asked.notified() => ask(&client, &path, &shared, &mut watch).await,
            event = watch.next() => take(&shared, &mut watch, event),
        };
        if let Err(error) = done {
            break error;
        }
    };
    if let Some(cache) = shared.upgrade() {
        cache.end(Some(ended));
    }
}

/// One event of the watch.
fn take(shared: &Weak<Shared>, watch: &mut Watch, event: Option<Result<WatchEvent>>) -> Result<()> {
    let event = event.unwrap_or(Err(Error::Closed { outcome: Outcome::NotApplied }))?;
    let Some(cache) = shared.upgrade() else { return Ok(()) };
    change(&cache, watch, |tree| tree.take(event))
}

/// Has the tree take something, and the watch take a new snapshot if only that helps the tree.
fn change(
    cache: &Shared,
    watch: &mut Watch,
    take: impl FnOnce(&mut Tree) -> std::result::Result<Option<Arc<ChangeSet>>, Refusal>,
) -> Result<()> {
    let mut needs_snapshot = false;
    cache.change(|tree| {
        let set = take(tree);
        needs_snapshot = tree.needs_snapshot();
        set
    })?;
    if needs_snapshot {
        watch.take_snapshot();
    }
    Ok(())
}

/// Asks the cluster how far it is. Every event up to the answer's zxid is in the watch before it: after those, the cache
/// is as new.
async fn ask(client: &Client, path: &Path, shared: &Weak<Shared>, watch: &mut Watch) -> Result<()> {
    let zxid = match client.at(path).stat().linearizable().with_zxid().await {
        Ok((zxid, _)) => zxid,
        Err(error) if error.is_retryable() => {
            tracing::debug!(%error, "a cache asks again how far the cluster is");
            sleep(AGAIN).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    while let Some(event) = watch.ready() {
        take(shared, watch, event)?;
    }
    // While a snapshot is read, what waits behind it is not taken yet.
    if let Some(cache) = shared.upgrade().filter(|_| watch.is_told()) {
        change(&cache, watch, |tree| tree.reached(zxid))?;
    }
    Ok(())
}
