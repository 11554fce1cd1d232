//! Typed access: a znode's data as a value of a type, in CBOR or JSON.

mod format;
mod watch;

use std::borrow::Borrow;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::{Duration, Instant};

use conclave_protocol::{Check, Condition, Path, Refusal, Set as SetStep, Stat, Step, Value, Zxid};
use futures::future::BoxFuture;
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, Undecodable};
use crate::znode::{At, Create, Get, Set, Znode};
use format::Format;

pub use watch::{TypedEvent, TypedWatch};

/// A place whose data is a value of type `T`; made by [`At::typed`](crate::At::typed). In CBOR, unless it is said to be
/// in [`Typed::json`].
///
/// ```
/// # async fn example(client: conclave_client::Client) -> Result<(), conclave_testing::Error> {
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Config {
///     workers: u32,
///     motto: String,
/// }
///
/// let config = client.at("/app/config").typed::<Config>().json();
/// config.create(Config { workers: 4, motto: "slowly".into() }).parents().or_set().await?;
/// let read = config.get().await?;
/// println!("{} workers at version {}", read.workers, read.stat.version);
/// config.set(Config { workers: 5, ..read.value }).if_version(read.stat.version).await?;
///
/// // Whatever others do meanwhile: read, change, write if nobody was faster, else again.
/// let updated = config.update(|config| config.workers += 1).await?;
/// assert_eq!(updated.workers, 6);
///
/// let mut watch = config.watch().await?;
/// while let Some(event) = watch.next().await {
///     println!("{:?}", event?);
/// #   return Ok(());
/// }
/// # Err("the watch ended".into()) }
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # tokio::time::timeout(conclave_testing::PATIENCE, example(client.clone())).await??;
/// # Ok(()) }
/// ```
#[must_use = "say what to do there"]
pub struct Typed<T> {
    at: At,
    format: Format,
    within: Option<Duration>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { at: self.at.clone(), format: self.format, within: self.within, of: PhantomData }
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("at", &self.at).field("format", &self.format).finish_non_exhaustive()
    }
}

/// A value as it was read or written. Dereferences to the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// It.
    pub value: T,
    /// The znode's stat.
    pub stat: Stat,
    /// The zxid of the state that it was read from, or of the transaction that wrote it.
    pub zxid: Zxid,
}

impl<T> Deref for Decoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What the closure of a [`Typed::update`] says: nothing, or that it will not, with a reason.
pub trait Verdict {
    /// The reason why not, if there is one.
    ///
    /// # Errors
    /// When it will not.
    fn verdict(self) -> Result<(), String>;
}

impl Verdict for () {
    fn verdict(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Display> Verdict for Result<(), E> {
    fn verdict(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

impl<T> Typed<T> {
    pub(crate) const fn new(at: At) -> Self {
        Self { at, format: Format::Cbor, within: None, of: PhantomData }
    }

    /// The data is JSON.
    pub fn json(mut self) -> Self {
        self.format = Format::Json;
        self
    }

    /// The time that [`Typed::update`] and the like have in all, instead of the options' request timeout.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl<T: Serialize> Typed<T> {
    /// Creates the znode with this value.
    pub fn create(&self, value: impl Borrow<T>) -> Create {
        match self.format.encode(value.borrow()) {
            Ok(data) => self.at.create(data),
            Err(error) => self.at.create("").failed(error),
        }
    }

    /// Replaces the value.
    pub fn set(&self, value: impl Borrow<T>) -> Set {
        match self.format.encode(value.borrow()) {
            Ok(data) => self.at.set(data),
            Err(error) => self.at.set("").failed(error),
        }
    }
}

impl<T: DeserializeOwned> Typed<T> {
    /// Reads the value. Gives [`Decoded`]; [`Error::Undecodable`] when the data is none, refused with `no-znode` when
    /// there is no such znode.
    pub fn get(&self) -> GetTyped<T> {
        GetTyped { get: self.at.get(), path: self.at.path(), format: self.format, of: PhantomData }
    }

    /// Reads the value, or gives the type's default when there is no such znode, or it has no data.
    ///
    /// # Errors
    /// As [`Typed::get`], except `no-znode`.
    pub async fn get_or_default(&self) -> Result<T>
    where
        T: Default,
    {
        match self.get().await {
            Ok(decoded) => Ok(decoded.value),
            Err(Error::Refused(Refusal::NoZnode { .. })) => Ok(T::default()),
            Err(Error::Undecodable(empty)) if empty.data.is_empty() => Ok(T::default()),
            Err(error) => Err(error),
        }
    }

    /// Watches the value: what it is now, and whenever it has changed what it is then. See [`TypedWatch`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<TypedWatch<T>> {
        let watch = self.at.client().watch(self.at.path()?).data().with_data().snapshot();
        Ok(TypedWatch::new(watch.await?, self.format))
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// Reads the value, has the closure change it, and writes it if nobody changed the znode meanwhile; else again, until
    /// the time is over. The closure may run several times, each time with the value as it is then. It may say no, by
    /// giving `Err`: then nothing is changed.
    ///
    /// # Errors
    /// [`Error::Abandoned`] with what the closure said; [`Error::TimedOut`] when others were faster all the time;
    /// otherwise as [`Typed::get`] and as every write.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// let balance = client.at("/balance").typed::<u64>();
    /// balance.create(100).await?;
    /// let paid = balance.update(|balance| match balance.checked_sub(30) {
    ///     Some(rest) => {
    ///         *balance = rest;
    ///         Ok(())
    ///     }
    ///     None => Err(format!("there are only {balance}")),
    /// });
    /// assert_eq!(paid.await?.value, 70);
    /// # Ok(()) }
    /// ```
    pub async fn update<V: Verdict>(&self, change: impl FnMut(&mut T) -> V + Send) -> Result<Decoded<T>>
    where
        T: Send,
    {
        self.update_from(None::<fn() -> T>, change).await
    }

    /// As [`Typed::update`]; when there is no such znode it is created, with its parents, from the type's default. That is
    /// also what a znode without any data holds: one that was made as somebody's parent.
    ///
    /// # Errors
    /// As [`Typed::update`], except `no-znode`.
    pub async fn update_or_default<V: Verdict>(&self, change: impl FnMut(&mut T) -> V + Send) -> Result<Decoded<T>>
    where
        T: Send + Default,
    {
        self.update_from(Some(T::default), change).await
    }

    async fn update_from<V: Verdict>(
        &self,
        default: Option<impl Fn() -> T + Send>,
        mut change: impl FnMut(&mut T) -> V + Send,
    ) -> Result<Decoded<T>>
    where
        T: Send,
    {
        let after = self.within.unwrap_or_else(|| self.at.client().request_timeout());
        let begun = Instant::now();
        let left = || Some(after.saturating_sub(begun.elapsed())).filter(|left| !left.is_zero());
        // Whatever part of the time was left.
        let whole = |error| match error {
            Error::TimedOut { .. } => Error::TimedOut { after },
            other => other,
        };
        let mut tries = 0_u32;
        while let Some(time) = left() {
            let (mut value, stat) = match (self.get().within(time).await, &default) {
                (Ok(decoded), _) => (decoded.value, Some(decoded.stat)),
                (Err(Error::Refused(Refusal::NoZnode { .. })), Some(default)) => (default(), None),
                (Err(Error::Undecodable(empty)), Some(default)) if empty.data.is_empty() => {
                    (default(), Some(empty.stat))
                }
                (Err(error), _) => return Err(whole(error)),
            };
            change(&mut value).verdict().map_err(|why| Error::Abandoned { why })?;
            let data = self.format.encode(&value)?;
            let written = match stat {
                Some(stat) => self.replace(stat, data, left().unwrap_or_default()).await,
                None => self.begin(data, left().unwrap_or_default()).await,
            };
            if let Some(stat) = written.map_err(whole)? {
                return Ok(Decoded { value, stat, zxid: stat.modified });
            }
            // Others want it too: a pause that grows, and differs from theirs.
            tries += 1;
            let pause = rand::rng().random_range(0..=(1_u64 << tries.min(8)));
            tokio::time::sleep(Duration::from_millis(pause).min(left().unwrap_or_default())).await;
        }
        Err(Error::TimedOut { after })
    }

    /// Writes over a znode that was read, if it is still the same one and unchanged. A version alone would not do: it
    /// may have been deleted, created again, and be at the same version.
    async fn replace(&self, read: Stat, data: bytes::Bytes, within: Duration) -> Result<Option<Stat>> {
        let path = self.at.path()?;
        let same = Check { path: path.clone(), condition: Condition::Created(read.created) };
        let set = SetStep { path, data, if_version: Some(read.version) };
        let done = self.at.client().multi([Step::Check(same), Step::Set(set)]).within(within).await;
        match done {
            Ok(values) => match values.last() {
                Some(Value::Set { stat }) => Ok(Some(*stat)),
                _ => Err(Error::Mismatch { question: "an update" }),
            },
            Err(Error::Refused(Refusal::Step { cause, .. })) => match *cause {
                // Without it `update` says so at its next look, and `update_or_default` makes it.
                Refusal::BadVersion { .. } | Refusal::Fenced { .. } | Refusal::NoZnode { .. } => Ok(None),
                // That it is written in steps is nobody's concern.
                cause => Err(cause.into()),
            },
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, data: bytes::Bytes, within: Duration) -> Result<Option<Stat>> {
        match self.at.create(data).parents().within(within).await {
            Ok(created) => Ok(Some(created.stat)),
            Err(Error::Refused(Refusal::ZnodeExists { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads a value. Gives [`Decoded`].
#[must_use = "a request does nothing until it is awaited"]
pub struct GetTyped<T> {
    get: Get,
    path: Result<Path, conclave_protocol::PathError>,
    format: Format,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for GetTyped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetTyped").field("get", &self.get).finish_non_exhaustive()
    }
}

impl<T> GetTyped<T> {
    /// See [`Get::within`].
    pub fn within(self, time: Duration) -> Self {
        Self { get: self.get.within(time), ..self }
    }

    /// See [`Get::linearizable`].
    pub fn linearizable(self) -> Self {
        Self { get: self.get.linearizable(), ..self }
    }

    /// See [`Get::session`].
    pub fn session(self) -> Self {
        Self { get: self.get.session(), ..self }
    }

    /// See [`Get::stale`].
    pub fn stale(self) -> Self {
        Self { get: self.get.stale(), ..self }
    }

    /// See [`Get::stale_within`].
    pub fn stale_within(self, time: Duration) -> Self {
        Self { get: self.get.stale_within(time), ..self }
    }
}

impl<T: DeserializeOwned> IntoFuture for GetTyped<T> {
    type Output = Result<Decoded<T>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { get, path, format, .. } = self;
        Box::pin(async move {
            let znode = get.await?;
            decode(format, path?, znode).map_err(Error::Undecodable)
        })
    }
}

/// The value that a znode holds.
fn decode<T: DeserializeOwned>(format: Format, path: Path, znode: Znode) -> Result<Decoded<T>, Box<Undecodable>> {
    let Znode { data, stat, zxid } = znode;
    match format.decode(&data) {
        Ok(value) => Ok(Decoded { value, stat, zxid }),
        Err(why) => Err(Box::new(Undecodable { path, stat, data, zxid, why })),
    }
}

#[cfg(test)]
mod tests;
