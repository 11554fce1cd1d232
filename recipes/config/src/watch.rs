//! A configuration as it changes: what can't be decoded is told, and the last good value stays.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use conclave_client::{TypedEvent, TypedWatch, Undecodable, Zxid};
use futures::stream::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::config::Versioned;
use crate::error::Result;

/// What a [`Watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<T> {
    /// This is the configuration now.
    Value(Versioned<T>),
    /// What is there now is no such configuration. Go on with [`Watch::last_good`], and tell somebody.
    Undecodable {
        /// At which version.
        version: u64,
        /// The transaction that made it so.
        zxid: Zxid,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is published, or may be read.
    Absent {
        /// As of which transaction, or a later one.
        zxid: Zxid,
    },
}

/// A stream of [`Event`]s; made by [`Config::watch`](crate::Config::watch). First what the configuration is, then whenever
/// it has changed what it is then; a value that was replaced at once may not be told.
///
/// It outlives connections, members and sessions, and ends only with an error that waiting does not mend, such as a client
/// that was closed.
#[derive(Debug)]
#[must_use = "a watch tells only who asks it"]
pub struct Watch<T> {
    values: TypedWatch<T>,
    last_good: Option<Versioned<T>>,
}

/// Nothing is pinned in here.
impl<T> Unpin for Watch<T> {}

impl<T> Watch<T> {
    pub(crate) const fn new(values: TypedWatch<T>) -> Self {
        Self { values, last_good: None }
    }

    /// The last value that was told and could be decoded: what a program goes on with, whatever happened since.
    #[must_use]
    pub const fn last_good(&self) -> Option<&Versioned<T>> {
        self.last_good.as_ref()
    }
}

impl<T: DeserializeOwned + Clone> Watch<T> {
    /// The next event; none after an error. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why it has ended. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<Event<T>>> {
        StreamExt::next(self).await
    }
}

impl<T: DeserializeOwned + Clone> Stream for Watch<T> {
    type Item = Result<Event<T>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let event = match ready!(this.values.poll_next_unpin(cx)) {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            };
            // Kinds of events that are not known yet say nothing to this.
            if let Some(event) = told(event) {
                if let Event::Value(value) = &event {
                    this.last_good = Some(value.clone());
                }
                return Poll::Ready(Some(Ok(event)));
            }
        }
    }
}

fn told<T>(event: TypedEvent<T>) -> Option<Event<T>> {
    match event {
        TypedEvent::Value(found) => {
            let (version, zxid) = (found.stat.version, found.stat.modified);
            Some(Event::Value(Versioned { value: found.value, version, zxid }))
        }
        // A znode without data was made as somebody's parent.
        TypedEvent::Undecodable(Undecodable { data, zxid, .. }) if data.is_empty() => Some(Event::Absent { zxid }),
        TypedEvent::Undecodable(Undecodable { stat, why, .. }) => {
            Some(Event::Undecodable { version: stat.version, zxid: stat.modified, why })
        }
        TypedEvent::Absent { zxid } => Some(Event::Absent { zxid }),
        _ => None,
    }
}
