//! The queue between the driver, which never waits, and whoever reads a watch: bounded in changes and in bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use conclave_protocol::{Change, Present, Zxid};

use super::WatchEvent;
use crate::error::{Error, Result};

/// Changes that may wait for a slow reader; beyond, it gets [`WatchEvent::Resync`] instead of them.
const WAITING: usize = 10_000;
/// Bytes of paths and data that may wait for it.
const WAITING_BYTES: usize = 16 << 20;
/// What a change takes besides its path and its data.
const CHANGE_BYTES: usize = 64;

/// What the driver puts in and the reader takes out. Never blocks the driver: what does not fit becomes a `Resync`.
#[derive(Debug)]
pub(crate) struct Queue {
    once: bool,
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Waiter>,
    /// How many changes `events` holds.
    changes: usize,
    /// How many bytes.
    bytes: usize,
    /// Told after `events`: what did not fit, up to where.
    resync: Option<Zxid>,
    /// Told last.
    end: Option<Option<Error>>,
    reader: Option<Waker>,
}

/// A transaction's changes.
#[derive(Debug)]
struct Waiter {
    zxid: Zxid,
    changes: Vec<Change>,
    present: Vec<Option<Present>>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(once: bool) -> Self {
        Self { once, state: Mutex::default() }
    }

    /// Adds a transaction's changes.
    pub(crate) fn push(&self, zxid: Zxid, changes: Vec<Change>, present: Vec<Option<Present>>) {
        let paths: usize = changes.iter().map(|change| CHANGE_BYTES + change.path.as_str().len()).sum();
        let bytes = paths + present.iter().flatten().map(|present| CHANGE_BYTES + present.data.len()).sum::<usize>();
        let mut state = self.lock();
        let full = state.changes + changes.len() > WAITING || state.bytes + bytes > WAITING_BYTES;
        if let Some(resync) = &mut state.resync {
            *resync = zxid;
        } else if full && state.changes > 0 {
            // What waits is still true and in order; only what comes now is left out.
            state.resync = Some(zxid);
        } else {
            state.changes += changes.len();
            state.bytes += bytes;
            state.events.push_back(Waiter { zxid, changes, present, bytes });
        }
        self.told(state);
    }

    /// Says that changes up to this zxid are not told.
    pub(crate) fn resync(&self, zxid: Zxid) {
        let mut state = self.lock();
        state.resync = Some(zxid);
        self.told(state);
    }

    /// Nothing more will come, because of this.
    pub(crate) fn end(&self, error: Option<Error>) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(error);
        }
        wake(state);
    }

    fn told(&self, mut state: MutexGuard<'_, Waiting>) {
        if self.once && state.end.is_none() {
            state.end = Some(None);
        }
        wake(state);
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<WatchEvent>>> {
        let mut state = self.lock();
        if let Some(Waiter { zxid, changes, present, bytes }) = state.events.pop_front() {
            state.changes -= changes.len();
            state.bytes -= bytes;
            return Poll::Ready(Some(Ok(WatchEvent::Changes { zxid, changes, present })));
        }
        if let Some(zxid) = state.resync.take() {
            return Poll::Ready(Some(Ok(WatchEvent::Resync { zxid })));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(end.take().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, Waiting>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use conclave_protocol::{ChangeKind, Path, Stat};

    use super::*;
    use crate::error::Outcome;

    fn change() -> Change {
        Change { kind: ChangeKind::Data, path: Path::root(), version: 1 }
    }

    async fn next(queue: &Queue) -> Option<Result<WatchEvent>> {
        std::future::poll_fn(|cx| queue.poll(cx)).await
    }

    #[tokio::test]
    async fn a_slow_reader_gets_what_waits_then_resync_then_what_comes_later() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change(); WAITING - 1], Vec::new());
        queue.push(Zxid(2), vec![change()], Vec::new());
        queue.push(Zxid(3), vec![change()], Vec::new());
        queue.push(Zxid(4), vec![change()], Vec::new());
        let zxid = |event| match event {
            Some(Ok(WatchEvent::Changes { zxid, .. })) => zxid,
            other => panic!("{other:?}"),
        };
        assert_eq!(zxid(next(&queue).await), Zxid(1));
        queue.push(Zxid(5), vec![change()], Vec::new());
        assert_eq!(zxid(next(&queue).await), Zxid(2));
        assert_eq!(next(&queue).await.unwrap().unwrap(), WatchEvent::Resync { zxid: Zxid(5) });
        queue.push(Zxid(6), vec![change()], Vec::new());
        assert_eq!(zxid(next(&queue).await), Zxid(6));
    }

    #[tokio::test]
    async fn data_that_waits_is_bounded_by_its_bytes() {
        let queue = Queue::new(false);
        let large = Present { data: vec![0; WAITING_BYTES / 2].into(), stat: Stat::default() };
        for zxid in 1..=3 {
            queue.push(Zxid(zxid), vec![change()], vec![Some(large.clone())]);
        }
        assert!(matches!(next(&queue).await, Some(Ok(WatchEvent::Changes { zxid: Zxid(1), .. }))));
        assert_eq!(next(&queue).await.unwrap().unwrap(), WatchEvent::Resync { zxid: Zxid(3) });
        queue.push(Zxid(4), vec![change()], vec![Some(large)]);
        assert!(matches!(next(&queue).await, Some(Ok(WatchEvent::Changes { zxid: Zxid(4), .. }))));
        assert_eq!(queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_transaction_larger_than_the_queue_is_told_to_a_reader_that_keeps_up() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change(); 2 * WAITING], Vec::new());
        assert!(matches!(next(&queue).await, Some(Ok(WatchEvent::Changes { .. }))));
    }

    #[tokio::test]
    async fn a_watch_for_one_event_ends_after_it() {
        let queue = Queue::new(true);
        queue.push(Zxid(1), vec![change()], Vec::new());
        assert!(next(&queue).await.is_some());
        assert!(next(&queue).await.is_none());
        assert!(next(&queue).await.is_none());
    }

    #[tokio::test]
    async fn an_error_is_told_once_and_after_the_events() {
        let queue = Queue::new(false);
        queue.push(Zxid(1), vec![change()], Vec::new());
        queue.end(Some(Error::Closed { outcome: Outcome::NotApplied }));
        queue.end(None);
        assert!(next(&queue).await.unwrap().is_ok());
        assert!(next(&queue).await.unwrap().is_err());
        assert!(next(&queue).await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let queue = Arc::new(Queue::new(false));
        let reader = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { next(&queue).await }
        });
        tokio::task::yield_now().await;
        queue.push(Zxid(1), vec![change()], Vec::new());
        assert!(reader.await.unwrap().is_some());
    }
}
