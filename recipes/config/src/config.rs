//! One typed configuration: read, published, and its earlier versions.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_client::{Client, Error as ClientError, Path, Refusal, Stat, ToPath, Verdict, Znode, Zxid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::history::{self, Past, Record};
use crate::publish::{Publish, encode, left, pause};
use crate::watch::Watch;

/// How many versions are kept, unless it is said.
const KEEP: usize = 10;

/// A value as it was read or published. Dereferences to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// It.
    pub value: T,
    /// How often it was published before, or set by hand.
    pub version: u64,
    /// The transaction that published it.
    pub zxid: Zxid,
}

impl<T> Deref for Versioned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What a value must be before it is published.
pub(crate) type Validate<T> = Arc<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

/// A typed configuration at a path of the tree, as JSON. Clones are the same one. The [crate's page](crate) says what it
/// promises.
pub struct Config<T> {
    pub(crate) client: Client,
    pub(crate) path: Path,
    pub(crate) history: Path,
    pub(crate) keep: usize,
    pub(crate) within: Duration,
    validate: Option<Validate<T>>,
}

impl<T> Clone for Config<T> {
    fn clone(&self) -> Self {
        let Self { client, path, history, keep, within, validate } = self;
        let (client, path, history) = (client.clone(), path.clone(), history.clone());
        Self { client, path, history, keep: *keep, within: *within, validate: validate.clone() }
    }
}

impl<T> fmt::Debug for Config<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("path", &self.path).field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl<T> Config<T> {
    /// The configuration at a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        let path = path.to_path()?;
        let history = path.join("history")?;
        history::path(&history, u64::MAX)?;
        let within = client.options().request_timeout();
        Ok(Self { client: client.clone(), path, history, keep: KEEP, within, validate: None })
    }

    /// What every value must be before it is published here: the error that it gives is told as [`Error::Invalid`].
    ///
    /// It holds for this program alone. What no program may publish is said in the cluster, by the `schema` plugin.
    #[must_use]
    pub fn validate<V: Verdict>(mut self, validate: impl Fn(&T) -> V + Send + Sync + 'static) -> Self {
        self.validate = Some(Arc::new(move |value| validate(value).verdict()));
        self
    }

    /// So many versions are kept, the present one among them; ten without it. None with 0.
    #[must_use]
    pub const fn keep(mut self, versions: usize) -> Self {
        self.keep = versions;
        self
    }

    /// The time that publishing and updating have in all, instead of the client's request timeout.
    #[must_use]
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    fn undecodable(&self, stat: &Stat, why: impl fmt::Display) -> Error {
        Error::Undecodable { path: self.path.clone(), version: stat.version, why: why.to_string() }
    }

    fn check(&self, value: &T) -> Result<()> {
        let verdict = self.validate.as_ref().map_or(Ok(()), |validate| validate(value));
        verdict.map_err(|why| Error::Invalid { why })
    }
}

impl<T: DeserializeOwned> Config<T> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Undecodable`]; otherwise as every read.
    pub async fn get(&self) -> Result<Versioned<T>> {
        let znode = match self.client.at(&self.path).get().await {
            Ok(znode) => znode,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => {
                return Err(Error::Absent { path: self.path.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        self.decode(&znode)
    }

    /// Reads it, or gives the type's default when nothing is published.
    ///
    /// # Errors
    /// As [`Config::get`], except [`Error::Absent`].
    pub async fn get_or_default(&self) -> Result<T>
    where
        T: Default,
    {
        match self.get().await {
            Ok(found) => Ok(found.value),
            Err(Error::Absent { .. }) => Ok(T::default()),
            Err(error) => Err(error),
        }
    }

    /// Tells what it is, and whenever it has changed what it is then. See [`Watch`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<Watch<T>> {
        let values = self.client.at(&self.path).typed::<T>().json().watch().await?;
        Ok(Watch::new(values))
    }

    /// The versions that are kept, the newest first, the present one among them.
    ///
    /// # Errors
    /// As every read.
    pub async fn history(&self) -> Result<Vec<Past<T>>> {
        let listing = match self.client.at(&self.history).children().with_data().await {
            Ok(listing) => listing,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut past = Vec::with_capacity(listing.children.len());
        for entry in listing.children.into_iter().rev() {
            let Some(version) = history::version(&entry.name) else { continue };
            let (stat, data) = (entry.stat.unwrap_or_default(), entry.data.unwrap_or_default());
            let (Record { by, note }, value) = Record::decode(&data);
            let value = serde_json::from_slice(&value).map_err(|error| error.to_string());
            past.push(Past { version, value, by, note, at: history::time(stat.modified_ms), zxid: stat.modified });
        }
        Ok(past)
    }

    fn decode(&self, znode: &Znode) -> Result<Versioned<T>> {
        // A znode without data was made as somebody's parent.
        if znode.data.is_empty() {
            return Err(Error::Absent { path: self.path.clone() });
        }
        let value = serde_json::from_slice(&znode.data).map_err(|error| self.undecodable(&znode.stat, error))?;
        Ok(Versioned { value, version: znode.stat.version, zxid: znode.stat.modified })
    }
}

impl<T: Serialize> Config<T> {
    /// Publishes a value, over whatever is there unless [`Publish::if_version`] is said; keeps it in the history in the
    /// same transaction.
    pub fn publish(&self, value: &T) -> Publish<T> {
        let checked = self.check(value).and_then(|()| encode(value));
        Publish::new(self.clone(), checked)
    }
}

impl<T: Serialize + DeserializeOwned> Config<T> {
    /// Reads the value, has the closure change it, and publishes it if nobody else did meanwhile; else again, until the
    /// time is over. The closure may run several times. It may say no, by giving `Err`: then nothing is changed.
    ///
    /// Dropping the future may leave it published or not, and nothing in between.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what the closure or the validation said, [`Error::TimedOut`] when others were faster all
    /// the time; otherwise as [`Config::get`] and as every write.
    pub async fn update<V: Verdict>(&self, mut change: impl FnMut(&mut T) -> V + Send) -> Result<Versioned<T>>
    where
        T: Send,
    {
        let begun = Instant::now();
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let znode = found.znode.as_ref().ok_or_else(|| Error::Absent { path: self.path.clone() })?;
            let Versioned { mut value, .. } = self.decode(znode)?;
            change(&mut value).verdict().map_err(|why| Error::Invalid { why })?;
            self.check(&value)?;
            let data = encode(&value)?;
            if let Some((version, zxid)) = self.put(&found, data, None, begun).await? {
                return Ok(Versioned { value, version, zxid });
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }

    /// Publishes an earlier version again, as a new one: what was published since stays in the history.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`]; [`Error::Undecodable`] or [`Error::Invalid`] when it is no value that may be published
    /// today; otherwise as [`Config::publish`].
    pub async fn roll_back(&self, version: u64) -> Result<Versioned<T>> {
        let path = history::path(&self.history, version)?;
        let znode = match self.client.at(&path).get().await {
            Ok(znode) => znode,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Err(self.not_kept(version).await?),
            Err(error) => return Err(error.into()),
        };
        let (_, data) = Record::decode(&znode.data);
        let undecodable = |error: serde_json::Error| Error::Undecodable { path, version, why: error.to_string() };
        let value: T = serde_json::from_slice(&data).map_err(undecodable)?;
        self.check(&value)?;
        let note = Some(format!("roll back to version {version}"));
        let (version, zxid) = self.publish_over(data, None, note).await?;
        Ok(Versioned { value, version, zxid })
    }
}
