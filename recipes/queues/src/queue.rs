//! The queue: a path, a client, a type of items, and what can be done with them.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath};
use futures::stream::{self, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::claim::{PLUGIN, millis};
use crate::coding::Coding;
use crate::error::{Error, Result};
use crate::job::{Job, Work};
use crate::push::Push;
use crate::settings::{self, Decision, Settings, Wanted};
use crate::take::Take;
use crate::workers::{Done, Workers};

/// How long a claim holds, unless it is said: as with the queue's own settings.
const VISIBILITY: Duration = Duration::from_secs(30);

/// A queue of items of type `T` at a path of the tree. Clones are the same queue. The [crate's page](crate) says what it
/// promises.
///
/// # Settings
/// [`Queue::visibility`] is this program's own: how long what *it* takes is its own. [`Queue::max_deliveries`],
/// [`Queue::bound`] and [`Queue::dedup_for`] are the queue's, and hold for all who use it. A program that says them is
/// checked before its first push or take: if nobody has said anything yet, they are written; if they are others, it is
/// refused with [`Error::OtherSettings`]. So what a program says holds, or it is told, and two programs of two minds do
/// not overrule each other in turn. [`Queue::configure`] is what changes them.
pub struct Queue<T> {
    client: Client,
    path: Path,
    coding: Coding<T>,
    visibility: Duration,
    wanted: Wanted,
    declared: Arc<OnceCell<()>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        let Self { client, path, coding, visibility, wanted, declared, of } = self;
        Self {
            client: client.clone(),
            path: path.clone(),
            coding: *coding,
            visibility: *visibility,
            wanted: *wanted,
            declared: Arc::clone(declared),
            of: *of,
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, coding, visibility, .. } = self;
        let mut shown = f.debug_struct("Queue");
        shown.field("path", path).field("coding", coding).field("visibility", visibility).finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// The queue at a path, its items as CBOR. Nothing is asked of the cluster yet.
    ///
    /// Keep queues directly below `/queues`, or have the plugin's settings name where they are: those alone are looked
    /// after when nobody takes from them.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Self::of(client, path, Coding::CBOR)
    }

    /// Its items are JSON.
    #[must_use]
    pub fn json(self) -> Self {
        Self { coding: Coding::JSON, ..self }
    }
}

impl Queue<Bytes> {
    /// The queue at a path, its items as they are: bytes that are pushed and taken unchanged.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn raw(client: &Client, path: impl ToPath) -> Result<Self> {
        Self::of(client, path, Coding::RAW)
    }
}

impl<T> Queue<T> {
    fn of(client: &Client, path: impl ToPath, coding: Coding<T>) -> Result<Self> {
        let path = path.to_path()?;
        // With the longest name that there is below it, so that a path that is too long for that is refused here.
        path.join("delayed")?.join(&"0".repeat(60))?;
        let (wanted, declared) = (Wanted::default(), Arc::default());
        Ok(Self { client: client.clone(), path, coding, visibility: VISIBILITY, wanted, declared, of: PhantomData })
    }

    /// How long an item is ours that is taken with this handle, unless it is extended; 30 s if it is not said.
    #[must_use]
    pub fn visibility(mut self, time: Duration) -> Self {
        self.visibility = time;
        self.wanted.visibility_ms = Some(millis(time));
        self
    }

    /// How often an item is given to somebody before it is a dead letter; 5 if nobody says it. See [`Queue`].
    #[must_use]
    pub fn max_deliveries(mut self, deliveries: u64) -> Self {
        self.wanted.max_deliveries = Some(deliveries.max(1));
        self.undeclared()
    }

    /// How many items the queue may have: ready, delayed and claimed ones together; 100,000 if nobody says it. See
    /// [`Queue`].
    #[must_use]
    pub fn bound(mut self, items: u64) -> Self {
        self.wanted.bound = Some(items.max(1));
        self.undeclared()
    }

    /// How long the key of an item keeps another one of the same key away; 5 minutes if nobody says it. See [`Queue`].
    #[must_use]
    pub fn dedup_for(mut self, time: Duration) -> Self {
        self.wanted.dedup_ms = Some(millis(time));
        self.undeclared()
    }

    fn undeclared(mut self) -> Self {
        self.declared = Arc::default();
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what this handle says hold for all who use the queue, whatever was said before; what it does not say stays.
    /// Programs that have said something else go on, and are refused when they begin anew. One round trip.
    ///
    /// # Errors
    /// As every write.
    pub async fn configure(&self) -> Result<()> {
        let Wanted { visibility_ms, max_deliveries, bound, dedup_ms } = self.wanted;
        let mut call = self.client.call(PLUGIN, "configure").arg("queue", self.path.as_str());
        for (name, value) in
            [("visibility", visibility_ms), ("max-deliveries", max_deliveries), ("bound", bound), ("dedup", dedup_ms)]
        {
            if let Some(value) = value {
                call = call.arg(name, value);
            }
        }
        call.await?;
        // Whoever looks at the same time finds the same.
        let _ = self.declared.set(());
        Ok(())
    }

    /// What holds for the queue now. One round trip, a read.
    ///
    /// # Errors
    /// [`Error::NoQueue`], and as every read.
    pub async fn settings(&self) -> Result<Settings> {
        let data = match self.client.at(&self.path).get().await {
            Ok(znode) => znode.data,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let stored = settings::read(&data).map_err(|why| Error::NoQueue { path: self.path.clone(), why })?;
        Ok(stored.into())
    }

    /// Pushes an item. See [`Push`] for what can be said about it, and for errors and cancellation. One round trip.
    pub fn push(&self, item: &T) -> Push<T> {
        Push::new(self.clone(), (self.coding.encode)(item))
    }

    /// Takes the first item, and waits for one if there is none. See [`Take`].
    pub fn take(&self) -> Take<T> {
        Take::new(self.clone())
    }

    /// Takes items and works on them, so many at a time: [`Workers`] says how. The same as `workers(..).run(..)`.
    ///
    /// ```no_run
    /// # async fn send(mail: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(client: conclave_client::Client) -> conclave_queues::Result<()> {
    /// let queue = conclave_queues::Queue::<String>::new(&client, "/queues/mail")?;
    /// queue.run(4, |mail| async move { send(&mail).await }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Workers::run`].
    pub async fn run<F, E>(&self, concurrency: usize, work: impl Fn(Work<T>) -> F) -> Result<Done>
    where
        T: 'static,
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        self.workers(concurrency).run(work).await
    }

    /// So many workers, of whom something else is to be said before they run.
    pub fn workers(&self, concurrency: usize) -> Workers<T> {
        Workers::new(self.clone(), concurrency)
    }

    /// The jobs one after the other, without an end while the session lives: each time one is asked for, the next is
    /// taken. Goes on after [`Error::Undecodable`], and ends after any other error.
    pub fn stream(&self) -> impl Stream<Item = Result<Job<T>>> + Send + Unpin + use<T>
    where
        T: 'static,
    {
        Box::pin(stream::unfold(Some(self.clone()), |queue| async {
            let queue = queue?;
            match queue.take().await {
                Err(error) if !matches!(error, Error::Undecodable(_)) => Some((Err(error), None)),
                taken => Some((taken, Some(queue))),
            }
        }))
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn coding(&self) -> &Coding<T> {
        &self.coding
    }

    pub(crate) const fn claims_for(&self) -> Duration {
        self.visibility
    }

    /// Makes sure that the queue is as this handle says, the first time.
    pub(crate) async fn declared(&self) -> Result<()> {
        if !self.wanted.is_any() {
            return Ok(());
        }
        self.declared.get_or_try_init(|| self.declare()).await.copied()
    }

    async fn declare(&self) -> Result<()> {
        let at = self.client.at(&self.path);
        loop {
            let there = match at.get().await {
                Ok(znode) => Some(znode),
                Err(ClientError::Refused(Refusal::NoZnode { .. })) => None,
                Err(error) => return Err(error.into()),
            };
            let stored = match settings::decide(&self.wanted, there.as_ref().map(|znode| &znode.data[..])) {
                Decision::Fits => return Ok(()),
                Decision::Write(stored) => serde_json::to_vec(&stored).map_err(|error| error.to_string()),
                Decision::Differ(differ) => {
                    let (there, wanted) = (differ.to_string(), self.wanted.to_string());
                    return Err(Error::OtherSettings { queue: self.path.clone(), there, wanted });
                }
                Decision::NoQueue(why) => return Err(Error::NoQueue { path: self.path.clone(), why }),
            };
            let stored = stored.map_err(|why| ClientError::Unencodable { why })?;
            let written = match there {
                Some(znode) => at.set(stored).if_version(znode.stat.version).await.map(drop),
                None => at.create(stored).parents().await.map(drop),
            };
            match written {
                // Somebody else was faster: is it what is wanted?
                Err(ClientError::Refused(
                    Refusal::ZnodeExists { .. } | Refusal::BadVersion { .. } | Refusal::NoZnode { .. },
                )) => {}
                written => return Ok(written?),
            }
        }
    }
}
