//! What the shell asks: a client; or, in tests, something that answers as it is told to.

use std::time::Duration;

use conclave_client::{ChangeKind, Client, Consistency, Error, Outcome, Scope, State, WatchEvent};
use conclave_protocol::WatchId;
use conclave_script::{Ask, Body, Dialect, Request, Watch};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};

use super::Begun;
use crate::acl;
use crate::failure::{Failure, While};

/// Znodes of a subtree in one line.
const PART: usize = 256;

/// Who carries requests out.
pub(super) trait Backend {
    /// How principals are written.
    fn dialect(&self) -> Dialect;

    /// A request that one line answers. It is sent when the future is first polled.
    fn ask(&self, request: Request, dialect: Dialect) -> BoxFuture<'static, Value>;

    /// A request for a subtree: lines of parts, then the line that answers.
    fn subtree(&self, request: Request, dialect: Dialect) -> BoxStream<'static, Value>;

    /// A request for a watch.
    fn watch(&self, request: Request, watch: WatchId, dialect: Dialect) -> Begun;

    /// Each new state.
    fn states(&self) -> BoxStream<'static, State>;

    /// Closes the session, if there is one; or says why it is not known to be closed.
    fn close(&self) -> BoxFuture<'static, Result<(), String>>;
}

impl Backend for Client {
    fn dialect(&self) -> Dialect {
        acl::dialect(self)
    }

    fn ask(&self, request: Request, dialect: Dialect) -> BoxFuture<'static, Value> {
        let client = self.clone();
        async move {
            let Request { id, fence, consistency, within_ms, ask } = request;
            let within = within_ms.map(Duration::from_millis);
            let body = match ask {
                Ask::Write(op) => {
                    let mut submit = client.submit(op);
                    if let Some(time) = within {
                        submit = submit.within(time);
                    }
                    if let Some(fence) = fence {
                        submit = submit.fenced(fence);
                    }
                    submit.await.map(|(zxid, value)| (Some(zxid), dialect.value(&value))).map_err(Error::writing)
                }
                Ask::Read(query) => {
                    let mut query = client.query(query);
                    if let Some(time) = within {
                        query = query.within(time);
                    }
                    if let Some(consistency) = consistency {
                        query = query.consistency(consistency);
                    }
                    query.await.map(|(zxid, answer)| (Some(zxid), dialect.answer(&answer))).map_err(Error::reading)
                }
                Ask::Open { .. } => open(&client).await.map(|opened| (None, opened)),
                // The engine has asked for these otherwise.
                _ => Err(Error::Mismatch { question: "a line" }.reading()),
            };
            match body {
                Ok((zxid, ok)) => conclave_script::line(id.as_ref(), zxid, Body::Ok(ok)),
                Err(failure) => conclave_script::line(id.as_ref(), None, failed(failure, &dialect)),
            }
        }
        .boxed()
    }

    fn subtree(&self, request: Request, dialect: Dialect) -> BoxStream<'static, Value> {
        let client = self.clone();
        stream::once(async move {
            let Request { id, consistency, within_ms, ask, .. } = request;
            let Ask::Subtree { path, data } = ask else { return stream::empty().boxed() };
            let mut subtree = client.at(&path).subtree();
            if data {
                subtree = subtree.with_data();
            }
            if let Some(ms) = within_ms {
                subtree = subtree.within(Duration::from_millis(ms));
            }
            subtree = match consistency {
                None => subtree,
                Some(Consistency::Session) => subtree.session(),
                Some(Consistency::Linearizable) => subtree.linearizable(),
                Some(Consistency::Stale) => subtree.stale(),
                Some(Consistency::Within(ms)) => subtree.stale_within(Duration::from_millis(ms)),
            };
            let fail = move |id: Option<&Value>, error: Error| {
                conclave_script::line(id, None, failed(error.reading(), &dialect))
            };
            let znodes = match subtree.await {
                Ok(znodes) => znodes,
                Err(error) => return stream::once(std::future::ready(fail(id.as_ref(), error))).boxed(),
            };
            let zxid = znodes.zxid();
            let parts = stream::unfold(Some((znodes.ready_chunks(PART), 0_u64)), move |state| {
                let (id, fail) = (id.clone(), fail.clone());
                async move {
                    let (mut chunks, count) = state?;
                    let Some(chunk) = chunks.next().await else {
                        let body = Body::Ok(json!({ "count": count }));
                        return Some((vec![conclave_script::line(id.as_ref(), Some(zxid), body)], None));
                    };
                    let mut znodes = Vec::with_capacity(chunk.len());
                    for znode in chunk {
                        match znode {
                            Ok(znode) => znodes.push(znode),
                            Err(error) => return Some((vec![fail(id.as_ref(), error)], None)),
                        }
                    }
                    let count = count + znodes.len() as u64;
                    Some((vec![conclave_script::part(id.as_ref(), zxid, &znodes)], Some((chunks, count))))
                }
            });
            parts.flat_map(stream::iter).boxed()
        })
        .flatten()
        .boxed()
    }

    fn watch(&self, request: Request, watch: WatchId, dialect: Dialect) -> Begun {
        let client = self.clone();
        async move {
            let Request { within_ms, ask, .. } = request;
            let Ask::Watch(asked) = ask else {
                return Err(failed(Error::Mismatch { question: "a line" }.reading(), &dialect));
            };
            let mut builder = builder(&client, &asked);
            if let Some(ms) = within_ms {
                builder = builder.within(Duration::from_millis(ms));
            }
            match builder.await {
                Ok(standing) => Ok((standing.zxid(), events(standing, watch))),
                Err(error) => Err(failed(error.reading(), &dialect)),
            }
        }
        .boxed()
    }

    fn states(&self) -> BoxStream<'static, State> {
        let mut states = Self::states(self);
        let now = *states.borrow_and_update();
        stream::unfold((states, now), |(mut states, before)| async move {
            loop {
                // An error means that the client is closed: nothing more is told.
                states.changed().await.ok()?;
                let state = *states.borrow_and_update();
                if state != before {
                    return Some((state, (states, state)));
                }
            }
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), String>> {
        let client = self.clone();
        async move { Self::close(&client).await.map_err(|error| error.to_string()) }.boxed()
    }
}

fn builder(client: &Client, asked: &Watch) -> conclave_client::WatchBuilder {
    let mut builder = client.watch(&asked.path);
    builder = match asked.scope {
        Scope::Data => builder.data(),
        Scope::Existence => builder.existence(),
        Scope::Children => builder.children(),
        Scope::Subtree => builder.subtree(),
    };
    if let Some(kinds) = asked.kinds {
        builder = builder.kinds(&kinds.iter().collect::<Vec<ChangeKind>>());
    }
    if let Some(names) = &asked.names {
        builder = builder.names(names.as_str());
    }
    if asked.data {
        builder = builder.with_data();
    }
    if asked.once {
        builder = builder.once();
    }
    if asked.snapshot {
        builder = builder.snapshot();
    }
    if let Some(zxid) = asked.since {
        builder = builder.since(zxid);
    }
    builder
}

/// What a watch tells, as lines; the last one says that it has ended.
fn events(standing: conclave_client::Watch, watch: WatchId) -> BoxStream<'static, Value> {
    stream::unfold(Some(standing), move |state| async move {
        let mut standing = state?;
        match standing.next().await {
            None => Some((conclave_script::ended(watch, None), None)),
            Some(Err(error)) => Some((conclave_script::ended(watch, Some(&error.to_string())), None)),
            Some(Ok(event)) => Some((line(watch, event), Some(standing))),
        }
    })
    .boxed()
}

/// One event as a line.
pub(crate) fn line(watch: WatchId, event: WatchEvent) -> Value {
    match event {
        WatchEvent::Changes { zxid, changes, present } => conclave_script::changes(watch, zxid, &changes, &present),
        WatchEvent::Resync { zxid } => conclave_script::resync(watch, zxid),
        WatchEvent::Snapshot { zxid, part, entries, more } => {
            conclave_script::snapshot(watch, zxid, part, &entries, more)
        }
        // Events that this version does not know.
        _ => json!({ "watch": watch, "unknown": true }),
    }
}

/// The session. Its timeout is agreed on as the command line says: the reply tells which one it is.
async fn open(client: &Client) -> Result<Value, Failure> {
    let session = client.session().await.writing()?;
    let timeout_ms = u64::try_from(session.timeout().as_millis()).unwrap_or(u64::MAX);
    Ok(json!({ "session": session.id(), "timeout_ms": timeout_ms }))
}

/// How a failure is told.
fn failed(failure: Failure, dialect: &Dialect) -> Body {
    if let Failure::Client { error: Error::Refused(refusal), .. } = &failure {
        return Body::Refused(dialect.refusal(refusal));
    }
    let message = match &failure {
        Failure::Client { error, .. } => error.to_string(),
        other => other.message(),
    };
    match failure.outcome() {
        Outcome::Unknown => Body::Unknown { message },
        Outcome::NotApplied => Body::Failed { code: failure.code().to_owned(), message },
    }
}
