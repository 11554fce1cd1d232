//! A whole set as it changes, always as one transaction left it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use conclave_client::{Cache, CacheChanges, Path, Zxid};
use futures::stream::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::config::Versioned;
use crate::error::{Error, Result};
use crate::parts::{HISTORY, Parts};
use crate::watch::Event;

/// A stream of [`Event`]s of a whole set; made by [`ConfigSet::watch`](crate::ConfigSet::watch). Each value is all parts as
/// of its zxid, which is a state that there was: never some of a publication without the rest. A slow reader is not told
/// all that was in between.
///
/// It holds the set and its history in memory.
#[derive(Debug)]
#[must_use = "a watch tells only who asks it"]
pub struct SetWatch<T> {
    cache: Cache,
    changes: CacheChanges,
    path: Path,
    told: Option<Zxid>,
    last_good: Option<Versioned<T>>,
}

/// Nothing is pinned in here.
impl<T> Unpin for SetWatch<T> {}

impl<T> SetWatch<T> {
    pub(super) fn new(cache: Cache, path: &Path) -> Self {
        let changes = cache.changes();
        Self { cache, changes, path: path.clone(), told: None, last_good: None }
    }

    /// The last value that was told and could be decoded.
    #[must_use]
    pub const fn last_good(&self) -> Option<&Versioned<T>> {
        self.last_good.as_ref()
    }

    fn is_history(&self, path: &Path) -> bool {
        path.names().nth(self.path.depth()) == Some(HISTORY)
    }

    fn look(&self) -> Result<Parts> {
        let read = self.cache.read();
        let mut found = Parts::new(&self.path);
        found.zxid = read.zxid().unwrap_or_default();
        let here = read.get(&self.path)?.map(|znode| (&self.path, znode));
        for (path, znode) in here.into_iter().chain(read.children(&self.path)?) {
            found.add(path, znode.stat, znode.data.clone());
        }
        Ok(found)
    }
}

impl<T: DeserializeOwned + Clone> SetWatch<T> {
    /// The next event; none after an error. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why it has ended. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<Event<T>>> {
        StreamExt::next(self).await
    }

    fn event(&mut self) -> Result<Event<T>> {
        let found = self.look()?;
        let zxid = found.zxid;
        self.told = Some(zxid);
        let version = found.root.map_or(0, |stat| stat.version);
        match found.value::<T>() {
            Ok(value) => {
                self.last_good = Some(value.clone());
                Ok(Event::Value(value))
            }
            Err(Error::Absent { .. }) => Ok(Event::Absent { zxid }),
            Err(error) => Ok(Event::Undecodable { version, zxid, why: error.to_string() }),
        }
    }
}

impl<T: DeserializeOwned + Clone> Stream for SetWatch<T> {
    type Item = Result<Event<T>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(told) = this.told {
            loop {
                match ready!(this.changes.poll_next_unpin(cx)) {
                    // It was in what was told last.
                    Some(Ok(set)) if set.to <= told => {}
                    // Somebody tidies up: no part is another.
                    Some(Ok(set)) if set.changes.iter().all(|change| this.is_history(&change.path)) => {}
                    Some(Ok(_)) => break,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => return Poll::Ready(None),
                }
            }
        }
        Poll::Ready(Some(this.event()))
    }
}
