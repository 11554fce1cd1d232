//! A watch that tells values.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use conclave_protocol::{Change, ChangeKind, Present, Stat, TreeEntry, Zxid};
use futures::stream::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use super::format::Format;
use super::{Decoded, decode};
use crate::error::{Result, Undecodable};
use crate::watch::{Watch, WatchEvent};
use crate::znode::Znode;

/// What a [`TypedWatch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedEvent<T> {
    /// The value is this. Told as of the last change that was seen; a value that was replaced at once may not be told.
    Value(Decoded<T>),
    /// The data is no such value. The watch goes on.
    Undecodable(Undecodable),
    /// There is no such znode, or it was deleted, or may not be read any more.
    Absent {
        /// Of the transaction that told of it. It is seen when that is told, so that it may be the state of a later one.
        zxid: Zxid,
    },
}

/// A stream of a znode's values; made by [`Typed::watch`](crate::Typed::watch). First what it is now, then what it has
/// become, whenever it changed. It takes no end with the znode, nor with data that does not decode. Losing the right to
/// read it is told as [`TypedEvent::Absent`], or ends it with an error that says so.
pub struct TypedWatch<T> {
    watch: Watch,
    values: Values,
    waiting: VecDeque<TypedEvent<T>>,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TypedWatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedWatch").field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// Values that wait are moved out; nothing is pinned in here.
impl<T> Unpin for TypedWatch<T> {}

impl<T: DeserializeOwned> TypedWatch<T> {
    pub(super) const fn new(watch: Watch, format: Format) -> Self {
        Self { watch, values: Values { format, last: None }, waiting: VecDeque::new(), of: PhantomData }
    }

    /// The next event; none when the watch has ended: after an error, or when the client is closed. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// As [`Watch::next`]. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<TypedEvent<T>>> {
        StreamExt::next(self).await
    }
}

impl<T: DeserializeOwned> Stream for TypedWatch<T> {
    type Item = Result<TypedEvent<T>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.waiting.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(this.watch.poll_next_unpin(cx)) {
                Some(Ok(event)) => this.values.take(event, &mut this.waiting),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Absent,
    /// A znode by its creation, at a version.
    Version(Zxid, u64),
}

/// Makes values of a watch's events. Pure.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) format: Format,
    last: Option<Last>,
}

impl Values {
    #[cfg(test)]
    pub(super) const fn new(format: Format) -> Self {
        Self { format, last: None }
    }

    pub(super) fn take<T: DeserializeOwned>(&mut self, event: WatchEvent, out: &mut VecDeque<TypedEvent<T>>) {
        match event {
            WatchEvent::Snapshot { zxid, mut entries, .. } => match entries.pop() {
                Some(TreeEntry { path, stat, data }) => {
                    let znode = Znode { data: data.unwrap_or_default(), stat, zxid };
                    self.value(path, znode, out);
                }
                None => self.absent(zxid, out),
            },
            WatchEvent::Changes { zxid, changes, present } => {
                for (change, present) in changes.into_iter().zip(present) {
                    self.change(zxid, change, present, out);
                }
            }
            // A watch with a snapshot tells none.
            WatchEvent::Resync { .. } => {}
        }
    }

    fn change<T: DeserializeOwned>(
        &mut self,
        zxid: Zxid,
        change: Change,
        present: Option<Present>,
        out: &mut VecDeque<TypedEvent<T>>,
    ) {
        match (change.kind, present) {
            // What is there now, if anything, has a creation of its own, which is told next.
            (ChangeKind::Deleted, _) | (_, None) => self.absent(zxid, out),
            (ChangeKind::Created | ChangeKind::Data | ChangeKind::Acl, Some(Present { data, stat })) => {
                // The state may be newer than the change.
                let zxid = zxid.max(stat.modified).max(stat.created);
                self.value(change.path, Znode { data, stat, zxid }, out);
            }
        }
    }

    fn value<T: DeserializeOwned>(
        &mut self,
        path: conclave_protocol::Path,
        znode: Znode,
        out: &mut VecDeque<TypedEvent<T>>,
    ) {
        let Stat { created, version, .. } = znode.stat;
        if self.last.replace(Last::Version(created, version)) != Some(Last::Version(created, version)) {
            out.push_back(match decode(self.format, path, znode) {
                Ok(decoded) => TypedEvent::Value(decoded),
                Err(error) => TypedEvent::Undecodable(*error),
            });
        }
    }

    fn absent<T>(&mut self, zxid: Zxid, out: &mut VecDeque<TypedEvent<T>>) {
        if self.last.replace(Last::Absent) != Some(Last::Absent) {
            out.push_back(TypedEvent::Absent { zxid });
        }
    }
}
