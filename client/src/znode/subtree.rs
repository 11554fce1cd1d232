//! Reading a whole subtree as of one zxid, on a stream of its own.

use std::collections::VecDeque;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use conclave_protocol::{Consistency, Path, PathError, SideMessage, SideRequest, TreeEntry, Zxid};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::{sleep, timeout};

use super::At;
use crate::builder::{Read, read_methods};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::side::{AGAIN, Talk};

/// Reads a znode and everything below it, as of one zxid. Awaited it gives a [`SubtreeStream`], once that zxid is known;
/// refused with `no-znode` when there is no such znode.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Subtree {
    path: Result<Path, PathError>,
    data: bool,
    read: Read,
}

impl Subtree {
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), data: false, read: Read::new(at.client().clone()) }
    }

    read_methods!();

    /// With their data.
    pub fn with_data(mut self) -> Self {
        self.data = true;
        self
    }
}

impl IntoFuture for Subtree {
    type Output = Result<SubtreeStream>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { path, data, read: Read { client, within, consistency } } = self;
            let within = within.unwrap_or_else(|| client.request_timeout());
            let own = if client.has_session() { Consistency::Session } else { Consistency::Linearizable };
            let consistency = consistency.unwrap_or(own);
            let path = client.names().enter(&path?)?;
            let begun = Instant::now();
            let (zxid, talk) = loop {
                let left = within.saturating_sub(begun.elapsed());
                let opened = timeout(left, open(&client, path.clone(), data, consistency, left)).await;
                match opened.unwrap_or(Err(Error::TimedOut { after: within })) {
                    Err(Error::TimedOut { .. }) => break Err(Error::TimedOut { after: within })?,
                    // Connections break.
                    Err(Error::Interrupted { .. }) if begun.elapsed() + AGAIN < within => sleep(AGAIN).await,
                    opened => break opened.map_err(|error| client.names().error(error))?,
                }
            };
            let names = client.names().clone();
            let parts = parts(talk).map(move |part| match part {
                Ok(entries) => Ok(entries.into_iter().filter_map(|entry| names.entry(entry)).collect()),
                Err(error) => Err(names.error(error)),
            });
            Ok(SubtreeStream { zxid, parts: parts.boxed(), waiting: VecDeque::new() })
        })
    }
}

/// Asks for it, and hears of which zxid it is. A member that lets it wait for its turn says so all the time: whoever asks
/// ends it when his time is over.
async fn open(
    client: &Client,
    path: Path,
    data: bool,
    consistency: Consistency,
    within: Duration,
) -> Result<(Zxid, Talk)> {
    let request = SideRequest::Subtree { path, data, consistency, seen: client.zxid() };
    let mut talk = client.talk(&request, within).await?;
    match talk.hear().await? {
        SideMessage::Subtree { zxid } => Ok((zxid, talk)),
        _ => Err(Error::Mismatch { question: "a subtree" }),
    }
}

/// What comes on the stream, part by part, until its end or the first error.
fn parts(talk: Talk) -> impl Stream<Item = Result<Vec<TreeEntry>>> {
    stream::unfold(Some((talk, 0_u64)), |state| async {
        let (mut talk, received) = state?;
        match talk.hear().await {
            Ok(SideMessage::Znodes(entries)) => {
                let received = received + entries.len() as u64;
                Some((Ok(entries), Some((talk, received))))
            }
            Ok(SideMessage::End { bytes }) if bytes == received => None,
            Ok(SideMessage::End { bytes }) => {
                Some((Err(crate::side::interrupted(format!("{received} of {bytes} znodes came"))), None))
            }
            Ok(_) => Some((Err(Error::Mismatch { question: "a subtree" }), None)),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// The znodes of a subtree as of one zxid: parents before children, siblings in order of their names' bytes. What the
/// client may not read is left out, with all below it. Dropping it ends it.
#[must_use = "the reading ends when this is dropped"]
pub struct SubtreeStream {
    zxid: Zxid,
    parts: BoxStream<'static, Result<Vec<TreeEntry>>>,
    waiting: VecDeque<TreeEntry>,
}

impl fmt::Debug for SubtreeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubtreeStream").field("zxid", &self.zxid).finish_non_exhaustive()
    }
}

impl SubtreeStream {
    /// The zxid of the state that all of it is read from.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next znode; none after the last one.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the rest will not come: read it again. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<TreeEntry>> {
        StreamExt::next(self).await
    }

    /// The next znodes, as they came; none at the end.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<TreeEntry>>>> {
        self.parts.poll_next_unpin(cx)
    }
}

impl Stream for SubtreeStream {
    type Item = Result<TreeEntry>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match std::task::ready!(self.parts.poll_next_unpin(cx)) {
                Some(Ok(entries)) => self.waiting = entries.into(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
