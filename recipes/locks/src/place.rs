//! Znodes of one's own, places and awards, given back when they are dropped; and the transactions that make them.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_client::{
    Check, Client, CreateStep, Delete, DeleteStep, Error as ClientError, Fence, Kind, Multi, Path, Refusal, SetStep,
    Step, Value,
};
use futures::FutureExt;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, oneshot};

use crate::error::{Error, Result};
use crate::layout::Layout;

/// The time of a write whose outcome must be known. In a session it is carried out exactly once and answered, or the
/// session is over (within minutes, if it is not renewed), and then everything of it goes: any time that is longer than
/// that keeps the outcome from being unknown.
const UNTIL_ANSWERED: Duration = Duration::from_secs(24 * 60 * 60);

/// An ephemeral znode that this client made: a place in line, or a holder. Dropping it deletes it.
#[derive(Debug)]
pub(crate) struct Owned {
    client: Client,
    fence: Fence,
    /// It is not there any more.
    gone: bool,
}

impl Owned {
    fn new(client: &Client, value: Option<Value>) -> Result<Self> {
        match value {
            Some(Value::Created { path, stat }) => {
                Ok(Self { client: client.clone(), fence: Fence { path, zxid: stat.created }, gone: false })
            }
            _ => Err(ClientError::Mismatch { question: "multi" }.into()),
        }
    }

    pub(crate) const fn fence(&self) -> &Fence {
        &self.fence
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Deletes it, and says how that went. Dropped half-way it is deleted all the same.
    pub(crate) async fn delete(mut self) -> Result<(), ClientError> {
        let done = self.deletion().await.map(drop);
        // Whatever else came: sending it again does no harm, as it carries its own fence.
        self.gone = matches!(done, Ok(()) | Err(ClientError::Refused(Refusal::Fenced { .. })));
        done
    }

    fn deletion(&self) -> Delete {
        deletion(&self.client, &self.fence)
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
pub(crate) fn give_back(client: &Client, fence: &Fence) {
    // The first poll puts the write in its place among the session's writes, before anything that this client asks
    // from now on; nobody needs to wait for it, and no task or runtime is needed.
    drop(deletion(client, fence).within(UNTIL_ANSWERED).into_future().now_or_never());
}

/// With what lies below it: only this session could put anything there, and it must not keep the lock from the next.
fn deletion(client: &Client, fence: &Fence) -> Delete {
    client.at(&fence.path).delete().recursive().fenced(fence.clone()).in_session()
}

/// What came of trying to make an award.
pub(crate) enum Taken {
    /// It is ours.
    Award(Owned),
    /// There is a holder, or a line: not now.
    NotNow,
}

/// What came of trying to make an award from a place in line.
pub(crate) enum Turn {
    /// It is ours; the place is gone.
    Award(Owned),
    /// There is a holder: here is the place again.
    NotNow(Owned),
}

/// Awards that are on their way, so that one can wait until there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awards {
    under_way: Arc<RwLock<()>>,
}

impl Awards {
    /// Waits until each award that is under way has its guard, or is given back if nobody waits for it any more.
    pub(crate) async fn settled(&self) {
        drop(self.under_way.write().await);
    }

    async fn begin(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.under_way).read_owned().await
    }
}

/// Takes a place at the end of the line.
pub(crate) async fn queue(client: &Client, layout: &Layout, who: Bytes) -> Result<Owned> {
    let place = create(layout.place(), who, true);
    // Raises the line's version: an award without a place counts on it.
    let count = SetStep { path: layout.line().clone(), data: Bytes::new(), if_version: None };
    let multi = client.multi([place, Step::Set(count)]);
    let client = client.clone();
    to_its_end((), async move { Owned::new(&client, first_created(multi).await?) }).await
}

/// Makes an award without a place in line, if the line has this version, at which it was empty.
pub(crate) async fn take_free(
    client: &Client,
    layout: &Layout,
    who: Bytes,
    version: u64,
    awards: &Awards,
) -> Result<Taken> {
    let empty = Check { path: layout.line().clone(), if_version: Some(version) };
    let multi = client.multi([Step::Check(empty), create(layout.holder(), who, false)]);
    let client = client.clone();
    to_its_end(awards.begin().await, async move {
        match first_created(multi).await {
            Ok(value) => Ok(Taken::Award(Owned::new(&client, value)?)),
            Err(ClientError::Refused(Refusal::Step { cause, .. }))
                if matches!(
                    *cause,
                    Refusal::BadVersion { .. } | Refusal::NoZnode { .. } | Refusal::ZnodeExists { .. }
                ) =>
            {
                Ok(Taken::NotNow)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Makes an award from the first place in line.
pub(crate) async fn take_turn(layout: &Layout, who: Bytes, mut place: Owned, awards: &Awards) -> Result<Turn> {
    let leave = DeleteStep { path: place.fence.path.clone(), if_version: None, recursive: true };
    let multi = place
        .client
        .multi([Step::Delete(leave), create(layout.holder(), who, false)])
        // A path alone would do for another's place too, if the line was deleted and made anew.
        .fenced(place.fence.clone());
    to_its_end(awards.begin().await, async move {
        match first_created(multi).await {
            Ok(value) => {
                place.gone = true;
                Ok(Turn::Award(Owned::new(&place.client, value)?))
            }
            Err(ClientError::Refused(Refusal::Fenced { .. })) => {
                place.gone = true;
                Err(Error::PlaceGone { place: place.fence.path.clone() })
            }
            Err(ClientError::Refused(Refusal::Step { cause, .. })) if matches!(*cause, Refusal::ZnodeExists { .. }) => {
                Ok(Turn::NotNow(place))
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

fn create(path: &Path, data: Bytes, sequential: bool) -> Step {
    let kind = Kind { ephemeral: true, sequential };
    Step::Create(CreateStep { path: path.clone(), data, kind, parents: true })
}

/// Sends it; gives what it created first.
async fn first_created(multi: Multi) -> Result<Option<Value>, ClientError> {
    let values = multi.in_session().within(UNTIL_ANSWERED).await?;
    Ok(values.into_iter().find(|value| matches!(value, Value::Created { .. })))
}

/// Goes on with a write when its caller's future is dropped: what it made is then dropped as well, and so given back.
/// `held` is kept until that is done.
async fn to_its_end<T: Send + 'static>(
    held: impl Send + 'static,
    write: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        drop(tell.send(write.await));
        drop(held);
    });
    // Nothing is sent only if the runtime is going down, and the client with it.
    told.await.unwrap_or(Err(Error::SessionOver))
}
