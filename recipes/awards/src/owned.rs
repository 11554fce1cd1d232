//! Znodes of one's own, places and awards, given back when they are dropped.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use conclave_client::{Client, Delete, Error as ClientError, Fence, Multi, Outcome, Refusal, Value};
use futures::FutureExt;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, oneshot};

use crate::error::{Error, Lost, Result};

/// The time of a write whose outcome must be known. In a session it is carried out exactly once and answered, or the
/// session is over (within minutes, if it is not renewed), and then everything of it goes: any time that is longer than
/// that keeps the outcome from being unknown.
pub const UNTIL_ANSWERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The time of a call that waits for as long as the session lives.
pub const WHILE_OPEN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// An ephemeral znode that this client made: a place in line, or a holder. Dropping it deletes it, without waiting.
#[derive(Debug)]
#[must_use = "dropping it deletes the znode"]
pub struct Owned {
    client: Client,
    fence: Fence,
    /// It is not there any more.
    gone: bool,
}

impl Owned {
    /// The znode that this fence names, made in the client's session.
    pub fn new(client: &Client, fence: Fence) -> Self {
        Self { client: client.clone(), fence, gone: false }
    }

    /// Sends a transaction in the client's session, and owns what it creates, the first one if there are several ephemeral
    /// znodes. Dropping the future gives back what it may have made.
    ///
    /// # Errors
    /// As every write.
    pub async fn create(client: &Client, transaction: Multi) -> Result<Self, ClientError> {
        let client = client.clone();
        to_its_end((), async move { Self::created(&client, commit(transaction).await?) }).await
    }

    /// The znode that a transaction created, the first one if there are several.
    pub(crate) fn created(client: &Client, values: Vec<Value>) -> Result<Self, ClientError> {
        let created = values.into_iter().find_map(|value| match value {
            Value::Created { path, stat } => Some(Fence { path, zxid: stat.created }),
            _ => None,
        });
        let fence = created.ok_or(ClientError::Mismatch { question: "multi" })?;
        Ok(Self::new(client, fence))
    }

    /// Names it, and no other znode of its path.
    #[must_use]
    pub const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Whose session it belongs to.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Deletes it, and says how that went. Dropped half-way it is deleted all the same.
    ///
    /// # Errors
    /// As every write; refused with [`Refusal::Fenced`] when it was gone already.
    pub async fn delete(mut self) -> Result<(), ClientError> {
        let done = deletion(&self.client, &self.fence).await.map(drop);
        // Whatever else came: sending it again does no harm, as it carries its own fence.
        self.gone = matches!(done, Ok(()) | Err(ClientError::Refused(Refusal::Fenced { .. })));
        done
    }

    /// Deletes it, as the end of an award that may have been lost before; see [`Held::why`](crate::Held::why).
    ///
    /// # Errors
    /// [`Error::Lost`] when it was lost, or is gone. [`Error::Client`] when there was no answer in the client's request
    /// timeout: it goes on being deleted, and goes with the session's end at the latest.
    pub async fn release(self, lost: Option<Lost>) -> Result<()> {
        match (lost, self.delete().await) {
            (Some(why), _) => Err(why.into()),
            (None, Ok(())) => Ok(()),
            (None, Err(ClientError::Refused(Refusal::Fenced { .. }))) => Err(Lost::HolderGone.into()),
            (None, Err(error)) => match error.into() {
                Error::SessionOver => Err(Lost::SessionOver.into()),
                error => Err(error),
            },
        }
    }

    /// It is gone, by whatever its owner did.
    pub fn forget(mut self) {
        self.gone = true;
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.gone {
            give_back(&self.client, &self.fence);
        }
    }
}

/// Deletes such a znode without waiting; does nothing if it is not there any more.
pub fn give_back(client: &Client, fence: &Fence) {
    // The first poll puts the write in its place among the session's writes, before anything that this client asks
    // from now on; nobody needs to wait for it, and no task or runtime is needed.
    drop(deletion(client, fence).within(UNTIL_ANSWERED).into_future().now_or_never());
}

/// With what lies below it: only this session could put anything there, and it must not keep others out.
fn deletion(client: &Client, fence: &Fence) -> Delete {
    client.at(&fence.path).delete().recursive().fenced(fence.clone()).in_session()
}

/// Places and awards that are on their way, so that one can wait until there are none.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    lock: Arc<RwLock<()>>,
}

impl UnderWay {
    /// Waits until each of them has its owner, or is given back if nobody waits for it any more.
    pub async fn settled(&self) {
        drop(self.lock.write().await);
    }

    pub(crate) async fn begin(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.lock).read_owned().await
    }
}

/// Sends a transaction in the session, and waits until it is answered.
pub(crate) async fn commit(multi: Multi) -> Result<Vec<Value>, ClientError> {
    multi.in_session().within(UNTIL_ANSWERED).await
}

/// Goes on with a write when its caller's future is dropped: what it made is then dropped as well, and so given back.
/// `kept` is kept until that is done.
pub(crate) async fn to_its_end<T: Send + 'static, E: From<ClientError> + Send + 'static>(
    kept: impl Send + 'static,
    write: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        drop(tell.send(write.await));
        drop(kept);
    });
    // Nothing is sent only if the runtime is going down, and the client with it.
    told.await.unwrap_or_else(|_| Err(ClientError::SessionOver { outcome: Outcome::Unknown }.into()))
}
