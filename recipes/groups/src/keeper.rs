//! The task that keeps an ephemeral znode: session after session.

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use conclave_awards::Owned;
use conclave_client::{
    ChangeKind, Client, Error as ClientError, Fence, Outcome, Refusal, Session, SessionId, WatchEvent, Zxid,
};
use rand::Rng;

use crate::decide::{Decision, decide};
use crate::ephemeral::{Award, Inner, Now, Wanted};
use crate::owned::{self, is_over, is_overtaken};

/// The first pause after something failed that is tried again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest: who is away for as long as the cluster is should not be away much longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Why a session's part is over.
enum Over {
    /// Nobody wants it any more.
    Stopped,
    /// The session is.
    Session,
    /// It can't be done.
    Failed(ClientError),
}

struct Keeper {
    inner: Arc<Inner>,
    /// The client that it was made with. It outlives its session, and watches: when it is closed, all is over.
    original: Client,
    /// It was there once: whatever the cluster says now may change.
    was_there: bool,
    /// How often something failed in a row.
    failures: u32,
}

/// Keeps the znode until nobody wants it.
pub(crate) async fn keep(inner: Arc<Inner>, client: Client) {
    let mut keeper = Keeper { inner: Arc::clone(&inner), original: client, was_there: false, failures: 0 };
    let why = keeper.run().await;
    if let Some(error) = &why {
        tracing::warn!(path = %inner.path, %error, "an ephemeral znode is kept no more");
        // Nobody is going to remove it.
        drop(inner.slot.take());
    }
    inner.seen.send_modify(|seen| seen.now = Now::Ended(why));
}

impl Keeper {
    /// Gives the error that ended it, if it was one.
    async fn run(&mut self) -> Option<ClientError> {
        let mut client = self.original.clone();
        let mut former = Vec::new();
        loop {
            let over = match self.until_stopped(client.session()).await {
                None => Over::Stopped,
                Some(Ok(session)) => {
                    let over = self.hold(&client, &session, &former).await;
                    former.push(session.id());
                    over
                }
                Some(Err(error)) if is_over(&error) => Over::Session,
                Some(Err(error)) => match self.again(error).await {
                    None => continue,
                    Some(over) => over,
                },
            };
            match over {
                Over::Stopped => return None,
                Over::Failed(error) => return Some(error),
                Over::Session => {}
            }
            self.now(Now::Absent);
            // Its owner's session is over: there is nothing to give back.
            drop(self.inner.slot.take());
            match self.reconnect().await {
                Ok(new) => client = new,
                Err(Over::Failed(error)) => return Some(error),
                Err(Over::Stopped | Over::Session) => return None,
            }
        }
    }

    /// Creates the znode in a session, and has it there until that is over.
    async fn hold(&mut self, client: &Client, session: &Session, former: &[SessionId]) -> Over {
        loop {
            let fence = match self.establish(client, session, former).await {
                Ok(fence) => fence,
                Err(over) => return over,
            };
            if let Some(over) = self.guard(client, session, &fence).await {
                return over;
            }
            tracing::warn!(%fence, "an ephemeral znode was deleted by somebody else; it is created again");
            self.now(Now::Absent);
            drop(self.inner.slot.take());
        }
    }

    /// Creates it, as soon as nobody else's is there.
    async fn establish(&mut self, client: &Client, session: &Session, former: &[SessionId]) -> Result<Fence, Over> {
        loop {
            let found = client.at(&self.inner.path).stat().linearizable().with_zxid();
            let (zxid, found) = match self.until_stopped(found).await.ok_or(Over::Stopped)? {
                Ok(found) => found,
                Err(error) => {
                    self.again(error).await.map_or(Ok(()), Err)?;
                    continue;
                }
            };
            let instead_of = match decide(found.as_ref(), former, self.inner.replaces && !self.was_there) {
                Decision::Create => None,
                Decision::Replace(created) => Some(created),
                Decision::Wait { owner } => {
                    self.now(Now::Taken(owner));
                    tokio::select! {
                        changed = self.until_stopped(self.changed(zxid)) => changed.ok_or(Over::Stopped)??,
                        () = session.lost() => return Err(Over::Session),
                    }
                    continue;
                }
            };
            let Wanted { data, revision, stopped } = self.inner.wanted.borrow().clone();
            if stopped {
                return Err(Over::Stopped);
            }
            let creation = owned::creation(client, &self.inner.path, data, instead_of);
            // To its end, whoever wants to stop: what it makes is known then.
            match Owned::create(client, creation).await {
                Ok(owned) => {
                    let fence = owned.fence().clone();
                    if !self.inner.slot.put(owned) {
                        return Err(Over::Stopped);
                    }
                    (self.was_there, self.failures) = (true, 0);
                    let award = Award { client: client.clone(), session: session.clone(), fence: fence.clone() };
                    self.inner.seen.send_modify(|seen| {
                        seen.now = Now::Here(award);
                        seen.settled = seen.settled.max(revision);
                    });
                    return Ok(fence);
                }
                Err(error) if is_overtaken(&error) => tracing::debug!(%error, "somebody was faster"),
                Err(error) => self.again(error).await.map_or(Ok(()), Err)?,
            }
        }
    }

    /// Watches it, and writes its data when that changes. None: somebody else deleted it.
    async fn guard(&self, client: &Client, session: &Session, fence: &Fence) -> Option<Over> {
        let mut wanted = self.inner.wanted.subscribe();
        let mut written = wanted.borrow().data.clone();
        let mut gone = pin!(gone(&self.original, fence));
        loop {
            let Wanted { data, revision, stopped } = wanted.borrow_and_update().clone();
            if stopped {
                return Some(Over::Stopped);
            }
            if revision > self.inner.seen.borrow().settled {
                let set = owned::set(client, fence, data.clone());
                match self.until_stopped(set).await {
                    None => return Some(Over::Stopped),
                    Some(Ok(_)) => {
                        written = data;
                        self.inner.seen.send_modify(|seen| seen.settled = revision);
                    }
                    Some(Err(ClientError::Refused(Refusal::Fenced { .. }))) => return None,
                    Some(Err(error)) if is_over(&error) => return Some(Over::Session),
                    Some(Err(error)) => self.refused(revision, &written, error),
                }
                continue;
            }
            tokio::select! {
                () = session.lost() => return Some(Over::Session),
                done = &mut gone => return done.err().map(Over::Failed),
                // The sender is in `self`.
                _ = wanted.changed() => {}
            }
        }
    }

    /// The cluster does not take these data: what is there stays, and is what it is created again with.
    fn refused(&self, revision: u64, written: &bytes::Bytes, error: ClientError) {
        self.inner.wanted.send_modify(|wanted| {
            if wanted.revision == revision {
                wanted.data = written.clone();
            }
        });
        self.inner.seen.send_modify(|seen| {
            seen.settled = revision;
            seen.failed = Some((revision, error));
        });
    }

    /// A new client like the first one.
    async fn reconnect(&mut self) -> Result<Client, Over> {
        loop {
            // Who closes the client does not want it to come back with another.
            match self.original.session().await {
                Err(error) if is_over(&error) && !error.is_session_over() => return Err(Over::Stopped),
                Err(error) if !error.is_session_over() && !error.is_retryable() => return Err(Over::Failed(error)),
                _ => {}
            }
            let connecting = Client::connect(self.original.options().clone());
            let client = match self.until_stopped(connecting).await.ok_or(Over::Stopped)? {
                Ok(client) => client,
                // Also what can't be mended by waiting alone, such as a certificate: somebody may mend it.
                Err(error) => {
                    tracing::warn!(path = %self.inner.path, %error, "no new connection for an ephemeral znode yet");
                    self.pause().await?;
                    continue;
                }
            };
            return client.namespace(self.original.root()).map_err(Over::Failed);
        }
    }

    /// Something failed. None: it is to be tried again, after a pause.
    async fn again(&mut self, error: ClientError) -> Option<Over> {
        if is_over(&error) {
            return Some(Over::Session);
        }
        if !self.was_there && !error.is_retryable() {
            return Some(Over::Failed(error));
        }
        tracing::warn!(path = %self.inner.path, %error, "an ephemeral znode can't be created yet");
        self.pause().await.err()
    }

    async fn pause(&mut self) -> Result<(), Over> {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Many lose their sessions at the same moment, and should not come back at one.
        let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        self.until_stopped(tokio::time::sleep(pause)).await.ok_or(Over::Stopped)
    }

    /// Waits until what is at the path is another than in that state.
    async fn changed(&self, since: Zxid) -> Result<(), Over> {
        loop {
            let watch = self.original.watch(&self.inner.path).existence().once().since(since).await;
            let event = match watch {
                Ok(mut watch) => watch.next().await,
                Err(error) => Some(Err(error)),
            };
            match event {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) if !is_over(&error) => {
                    tracing::debug!(%error, "a path can't be watched");
                    tokio::time::sleep(PAUSE).await;
                }
                Some(Err(error)) => return Err(Over::Failed(error)),
                None => return Err(Over::Stopped),
            }
        }
    }

    /// None: nobody wants it any more.
    async fn until_stopped<F: IntoFuture>(&self, future: F) -> Option<F::Output> {
        let mut wanted = self.inner.wanted.subscribe();
        tokio::select! {
            biased;
            _ = wanted.wait_for(|wanted| wanted.stopped) => None,
            value = future.into_future() => Some(value),
        }
    }

    fn now(&self, now: Now) {
        self.inner.seen.send_modify(|seen| seen.now = now);
    }
}

/// Waits until the znode is gone.
///
/// # Errors
/// When the client is closed: then nobody wants it.
pub(crate) async fn gone(client: &Client, fence: &Fence) -> Result<(), ClientError> {
    loop {
        match watch(client, fence).await {
            Err(error) if !is_over(&error) => {
                tracing::debug!(%fence, %error, "an ephemeral znode can't be watched");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn watch(client: &Client, fence: &Fence) -> Result<(), ClientError> {
    // From its creation on, so nothing is missed between that and the watch.
    let mut watch = client.watch(&fence.path).data().kinds(&[ChangeKind::Deleted]).since(fence.zxid).await?;
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Changes { .. } => return Ok(()),
            // Deletions may be untold.
            _ => {
                let stat = client.at(&fence.path).stat().await?;
                if stat.is_none_or(|stat| stat.created != fence.zxid) {
                    return Ok(());
                }
            }
        }
    }
    Err(ClientError::Closed { outcome: Outcome::NotApplied })
}
