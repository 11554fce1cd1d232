//! Streams of what changed in a cache: a slow reader gets several changes as one, and so never loses any.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use conclave_protocol::{Path, Present, Zxid};
use futures::stream::{Stream, StreamExt};

use super::{CacheChange, ChangeSet};
use crate::error::{Error, Result};

/// A stream of [`ChangeSet`]s; made by [`Cache::changes`](crate::Cache::changes).
#[derive(Debug)]
pub struct CacheChanges {
    pub(super) inbox: Arc<Inbox>,
    pub(super) zxid: Zxid,
}

impl CacheChanges {
    /// Every change after this zxid is told.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// What has changed since the last call, or the next change; none when the cache was dropped, or after an error.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why the cache has ended. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<ChangeSet>> {
        StreamExt::next(self).await
    }
}

impl Stream for CacheChanges {
    type Item = Result<ChangeSet>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inbox.poll(cx)
    }
}

/// What waits for one reader: for each znode what it was and what it is, so no more than there are znodes.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    from: Zxid,
    to: Zxid,
    changes: BTreeMap<Path, (Option<Present>, Option<Present>)>,
    /// Told last.
    end: Option<Option<Error>>,
    reader: Option<Waker>,
}

impl Inbox {
    pub(super) fn push(&self, set: &ChangeSet) {
        let mut waiting = self.lock();
        if waiting.changes.is_empty() {
            waiting.from = set.from;
        }
        waiting.to = set.to;
        for CacheChange { path, before, after } in &set.changes {
            let (first, last) = waiting.changes.entry(path.clone()).or_insert_with(|| (before.clone(), None));
            last.clone_from(after);
            if first == last {
                waiting.changes.remove(path);
            }
        }
        wake(waiting);
    }

    pub(super) fn end(&self, error: Option<Error>) {
        let mut waiting = self.lock();
        waiting.end.get_or_insert(error);
        wake(waiting);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<ChangeSet>>> {
        let mut waiting = self.lock();
        if !waiting.changes.is_empty() {
            let changes = std::mem::take(&mut waiting.changes).into_iter();
            let changes = changes.map(|(path, (before, after))| CacheChange { path, before, after }).collect();
            return Poll::Ready(Some(Ok(ChangeSet { from: waiting.from, to: waiting.to, changes })));
        }
        if let Some(end) = &mut waiting.end {
            return Poll::Ready(end.take().map(Err));
        }
        waiting.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let reader = waiting.reader.take();
    drop(waiting);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::Stat;

    use super::*;

    fn set(from: u64, to: u64, before: Option<&'static str>, after: Option<&'static str>) -> ChangeSet {
        let present = |data: &'static str| Present { data: data.into(), stat: Stat::default() };
        let change = CacheChange { path: Path::root(), before: before.map(present), after: after.map(present) };
        ChangeSet { from: Zxid(from), to: Zxid(to), changes: vec![change] }
    }

    async fn next(inbox: &Inbox) -> Option<Result<ChangeSet>> {
        std::future::poll_fn(|cx| inbox.poll(cx)).await
    }

    #[tokio::test]
    async fn a_slow_reader_gets_several_changes_as_one_and_what_came_and_went_not_at_all() {
        let inbox = Inbox::default();
        inbox.push(&set(1, 2, None, Some("a")));
        inbox.push(&set(2, 5, Some("a"), Some("b")));
        assert_eq!(next(&inbox).await.unwrap().unwrap(), set(1, 5, None, Some("b")));
        inbox.push(&set(5, 6, Some("b"), None));
        inbox.push(&set(6, 7, None, Some("b")));
        inbox.push(&set(7, 9, Some("b"), None));
        assert_eq!(next(&inbox).await.unwrap().unwrap(), set(7, 9, Some("b"), None));
        inbox.push(&set(9, 10, None, Some("c")));
        inbox.end(Some(Error::Mismatch { question: "q" }));
        inbox.end(None);
        assert!(next(&inbox).await.unwrap().is_ok());
        assert!(next(&inbox).await.unwrap().is_err());
        assert!(next(&inbox).await.is_none());
    }
}
