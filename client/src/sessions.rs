//! Sessions: the client's own, and those of the cluster: listing them, what they own, ending one.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use conclave_protocol::{Answer, Op, Path, Query, SessionId, SessionInfo, Value, limits};
use futures::future::BoxFuture;
use futures::stream::{self, Stream, TryStreamExt};

use crate::builder::{Read, Write, read_methods, write_methods};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::session::State;

/// The client's open session. Dropping it changes nothing: the session is the client's.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    id: SessionId,
    timeout: Duration,
}

impl Session {
    pub(crate) const fn new(client: Client, id: SessionId, timeout: Duration) -> Self {
        Self { client, id, timeout }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The timeout that was agreed.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// May it be relied on?
    #[must_use]
    pub fn state(&self) -> State {
        self.client.state()
    }

    /// How long this client will surely hold the session if it hears nothing more: at its end it is lost here, before
    /// it can be lost at the cluster. Runs on while the machine sleeps. Zero when it is lost.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.client.time_left()
    }

    /// Waits until the session is lost.
    pub async fn lost(&self) {
        // An error means that the driver is gone, and the session with it.
        let _ = self.client.states().wait_for(|state| *state == State::Lost).await;
    }
}

/// Lists open sessions by number; made by [`Client::sessions`]. Awaited it gives all of them, a `Vec` of
/// [`SessionInfo`]; [`Sessions::stream`] one after the other. Pages are read one by one: only what is within one page is
/// one state.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Sessions {
    limit: u32,
    read: Read,
}

impl Sessions {
    pub(crate) fn new(client: Client) -> Self {
        Self { limit: limits::PAGE_CHILDREN, read: Read::new(client) }
    }

    read_methods!();

    /// At most this many in a page, 1 to [`limits::PAGE_CHILDREN`]; the number in all is not limited by it.
    pub fn page_size(mut self, sessions: u32) -> Self {
        self.limit = sessions.clamp(1, limits::PAGE_CHILDREN);
        self
    }

    /// The sessions one by one; pages are read as they are needed. Ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<SessionInfo>> + Send + Unpin {
        pages(move |after: Option<SessionId>| {
            let this = self.clone();
            Box::pin(async move {
                match this.read.send(Query::Sessions { after, limit: this.limit }).await?.1 {
                    Answer::Sessions { sessions, more } => {
                        let next = sessions.last().map(|info| info.session).filter(|_| more);
                        Ok((sessions, next))
                    }
                    _ => Err(Error::Mismatch { question: "sessions" }),
                }
            })
        })
    }
}

impl IntoFuture for Sessions {
    type Output = Result<Vec<SessionInfo>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stream().try_collect())
    }
}

/// Lists a session's ephemeral znodes in the order of their creation; made by [`Client::owned`]. Awaited it gives all of
/// them, a `Vec` of paths; [`Owned::stream`] one after the other.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Owned {
    session: SessionId,
    read: Read,
}

impl Owned {
    pub(crate) fn new(client: Client, session: SessionId) -> Self {
        Self { session, read: Read::new(client) }
    }

    read_methods!();

    /// The paths one by one; pages are read as they are needed. Ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<Path>> + Send + Unpin {
        pages(move |after: Option<u64>| {
            let this = self.clone();
            Box::pin(async move {
                let query = Query::Owned { session: this.session, after, limit: limits::PAGE_CHILDREN };
                match this.read.send(query).await?.1 {
                    // A cursor that does not move on would never end.
                    Answer::Owned { paths, next } => Ok((paths, next.filter(|next| after.is_none_or(|a| *next > a)))),
                    _ => Err(Error::Mismatch { question: "owned" }),
                }
            })
        })
    }
}

impl IntoFuture for Owned {
    type Output = Result<Vec<Path>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stream().try_collect())
    }
}

/// A page, and the cursor of the next one if there is one.
type Fetched<'a, T, C> = BoxFuture<'a, Result<(Vec<T>, Option<C>)>>;

/// The items of all pages, read as they are needed.
pub(crate) fn pages<T: Send + 'static, C: Send + 'static>(
    fetch: impl Fn(Option<C>) -> Fetched<'static, T, C> + Send + 'static,
) -> Pin<Box<dyn Stream<Item = Result<T>> + Send>> {
    let begin = Some((fetch, Vec::new().into_iter(), Some(None)));
    Box::pin(stream::unfold(begin, |state| async {
        let (fetch, mut items, mut next) = state?;
        loop {
            if let Some(item) = items.next() {
                return Some((Ok(item), Some((fetch, items, next))));
            }
            match fetch(next.take()?).await {
                Ok((page, cursor)) => {
                    items = page.into_iter();
                    next = cursor.map(Some);
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    }))
}

/// Ends another session; made by [`Client::end_session`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct EndSession {
    session: SessionId,
    write: Write,
}

impl EndSession {
    pub(crate) fn new(client: Client, session: SessionId) -> Self {
        Self { session, write: Write::new(client) }
    }

    write_methods!();
}

impl IntoFuture for EndSession {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.write.send(Ok(Op::End(self.session))).await? {
                Value::Ended => Ok(()),
                _ => Err(Error::Mismatch { question: "end of a session" }),
            }
        })
    }
}
