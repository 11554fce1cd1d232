//! A configuration of several parts, each a znode, that are published and seen together.

mod publish;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Validate, Versioned};
use crate::error::{Error, Result};
use crate::history::{self, Past};
use crate::parts::{self, HISTORY, Parts};
use crate::publish::{left, pause};
use publish::Wanted;

pub use publish::PublishSet;
pub use watch::SetWatch;

/// Before a read that was interrupted is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// A configuration of several parts below one path. `T` is a struct (or a map with texts as keys): each of its fields is
/// a part, a znode of its own, as JSON. Whoever reads or watches sees all parts as one transaction left them.
///
/// Parts that `T` has not are left alone, also those that its client may not read: programs with more or fewer fields can share a set, as while they are being
/// replaced by newer ones. Clones are the same one.
pub struct ConfigSet<T> {
    client: Client,
    path: Path,
    history: Path,
    keep: usize,
    within: Duration,
    validate: Option<Validate<T>>,
}

impl<T> Clone for ConfigSet<T> {
    fn clone(&self) -> Self {
        let Self { client, path, history, keep, within, validate } = self;
        let (client, path, history) = (client.clone(), path.clone(), history.clone());
        Self { client, path, history, keep: *keep, within: *within, validate: validate.clone() }
    }
}

impl<T> fmt::Debug for ConfigSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSet").field("path", &self.path).field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl<T> ConfigSet<T> {
    /// The set whose parts lie below a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        let path = path.to_path()?;
        let history = path.join(HISTORY)?;
        history::path(&history, u64::MAX)?.join("part")?;
        let within = client.options().request_timeout();
        Ok(Self { client: client.clone(), path, history, keep: 0, within, validate: None })
    }

    /// What every value must be before it is published here. See [`Config::validate`](crate::Config::validate).
    #[must_use]
    pub fn validate<V: Verdict>(mut self, validate: impl Fn(&T) -> V + Send + Sync + 'static) -> Self {
        self.validate = Some(Arc::new(move |value| validate(value).verdict()));
        self
    }

    /// So many versions are kept, the present one among them. Without it, or with 0, a set has no history: nothing is
    /// kept, and what others keep is neither looked at nor dropped. Each version is all parts, and lies below the set:
    /// reading and watching it carry them too.
    ///
    /// The copies have not the access lists of the parts. They have the one that `.history` has when they are made: that of
    /// the set's own znode, unless `.history` was given another one. *Who is on that list can read all parts of those
    /// versions*, and a part that had gone comes back with the list of the set's znode. So keep no versions of a set whose
    /// parts have lists of their own; or make `.history` before the first version is kept, with a list of those only who
    /// may read every part.
    ///
    /// Who keeps versions has to be shown all parts, and `.history`: see [`Error::Hidden`].
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

    fn check(&self, value: &T) -> Result<()> {
        let verdict = self.validate.as_ref().map_or(Ok(()), |validate| validate(value));
        verdict.map_err(|why| Error::Invalid { why })
    }

    /// All that is there, as of one zxid.
    async fn look(&self, within: Duration) -> Result<Parts> {
        let read = async {
            loop {
                match self.read().await {
                    // The connection broke in the middle of it.
                    Err(error) if error.is_retryable() => tokio::time::sleep(AGAIN).await,
                    done => return done,
                }
            }
        };
        match tokio::time::timeout(within, read).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ClientError::TimedOut { after: within }.into()),
        }
    }

    async fn read(&self) -> Result<Parts, ClientError> {
        let mut found = Parts::new(&self.path);
        let mut subtree = match self.client.at(&self.path).subtree().with_data().linearizable().await {
            Ok(subtree) => subtree,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(found),
            Err(error) => return Err(error),
        };
        found.zxid = subtree.zxid();
        while let Some(entry) = subtree.next().await {
            let entry = entry?;
            // Others may keep versions.
            if self.keep == 0 && entry.path.is_within(&self.history) {
                continue;
            }
            found.add(&entry.path, entry.stat, entry.data.unwrap_or_default());
        }
        Ok(found)
    }
}

impl<T: DeserializeOwned> ConfigSet<T> {
    /// Reads all parts, as of one zxid.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Undecodable`]; otherwise as every read.
    pub async fn get(&self) -> Result<Versioned<T>> {
        self.look(self.within).await?.value()
    }

    /// The versions that are kept, the newest first, the present one among them. None without [`ConfigSet::keep`].
    ///
    /// # Errors
    /// As every read.
    pub async fn history(&self) -> Result<Vec<Past<T>>> {
        if self.keep == 0 {
            return Ok(Vec::new());
        }
        Ok(self.look(self.within).await?.history(&self.history))
    }

    /// Publishes an earlier version again, as a new one and in one transaction: all parts are what they were then, byte by
    /// byte, also those that `T` has not, and parts that have come since are deleted. It goes over whatever is there, which
    /// need not be decodable; what was published stays in the history.
    ///
    /// Dropping the future may leave it published or not, and nothing in between.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`], always without [`ConfigSet::keep`]; [`Error::Hidden`]; [`Error::Undecodable`] or [`Error::Invalid`] when it is no value that may be published
    /// today; otherwise as [`ConfigSet::publish`].
    pub async fn roll_back(&self, version: u64) -> Result<Versioned<T>> {
        let begun = Instant::now();
        if self.keep == 0 {
            return Err(Error::NoSuchVersion { path: self.path.clone(), version, kept_versions: Vec::new() });
        }
        let note = format!("roll back to version {version}");
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let Some(kept) = found.version(version) else {
                let (path, kept_versions) = (self.path.clone(), found.versions());
                return Err(Error::NoSuchVersion { path, version, kept_versions });
            };
            // What it was not shown would be missing, or even deleted.
            kept.is_whole(&self.history, version)?;
            let value: T = kept.value(&self.history, version)?;
            self.check(&value)?;
            let parts = kept.parts();
            let has = |name: &String| parts.iter().any(|part| part.name == *name);
            let gone: Vec<String> = found.parts.keys().filter(|name| !has(name)).cloned().collect();
            let wanted = Wanted { parts: &parts, gone: &gone, note: Some(&note) };
            if let Some((version, zxid)) = self.put(&found, wanted, begun).await? {
                return Ok(Versioned { value, version, zxid });
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }

    /// Tells what it is, and whenever any part has changed what all of it is then. See [`SetWatch`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<SetWatch<T>> {
        Ok(SetWatch::new(self.client.cache(&self.path).await?, &self.path))
    }
}

impl<T: Serialize> ConfigSet<T> {
    /// Publishes all parts of a value, those that differ from what is there, in one transaction; which with
    /// [`ConfigSet::keep`] also keeps them in the history, together with the parts that `T` has not.
    pub fn publish(&self, value: &T) -> PublishSet<T> {
        let parts = self.check(value).and_then(|()| parts::split(value));
        PublishSet::new(self.clone(), parts)
    }

    /// Deletes a part, in a transaction that is a version too. What is left must still be what those who read it expect.
    ///
    /// # Errors
    /// As every write, and [`Error::Hidden`]. That there is no such part is none.
    pub async fn remove(&self, part: &str) -> Result<()> {
        let begun = Instant::now();
        let gone = [part.to_owned()];
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            if !found.parts.contains_key(part) {
                return Ok(());
            }
            let wanted = Wanted { parts: &[], gone: &gone, note: None };
            if self.put(&found, wanted, begun).await?.is_some() {
                return Ok(());
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.join(part)?, after: self.within })
    }
}

impl<T: Serialize + DeserializeOwned> ConfigSet<T> {
    /// Reads all parts, has the closure change them, and publishes those that differ if nobody changed any meanwhile; else
    /// again, until the time is over. The closure may run several times. It may say no, by giving `Err`.
    ///
    /// Dropping the future may leave it published or not, and nothing in between.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what the closure or the validation said, [`Error::TimedOut`] when others were faster all
    /// the time, [`Error::Hidden`]; otherwise as [`ConfigSet::get`] and as every write.
    pub async fn update<V: Verdict>(&self, mut change: impl FnMut(&mut T) -> V + Send) -> Result<Versioned<T>>
    where
        T: Send,
    {
        let begun = Instant::now();
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let mut value: T = found.value()?.value;
            change(&mut value).verdict().map_err(|why| Error::Invalid { why })?;
            self.check(&value)?;
            let parts = parts::split(&value)?;
            let wanted = Wanted { parts: &parts, gone: &[], note: None };
            if let Some((version, zxid)) = self.put(&found, wanted, begun).await? {
                return Ok(Versioned { value, version, zxid });
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }
}
