//! A configuration of several parts, each a znode, that are published and seen together.

mod watch;

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_client::{Client, CreateStep, Error as ClientError, Multi, Path, Refusal, ToPath, Verdict, Zxid};
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Versioned;
use crate::error::{Error, Found, Result};
use crate::parts::{self, Part, Parts};
use crate::publish::{left, pause};

pub use watch::SetWatch;

/// Before a read that was interrupted is tried again.
const AGAIN: Duration = Duration::from_millis(50);

type Validate<T> = Arc<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

/// A configuration of several parts below one path. `T` is a struct (or a map with texts as keys): each of its fields is
/// a part, a znode of its own, as JSON. Whoever reads or watches sees all parts as one transaction left them.
///
/// Parts that `T` has not are left alone: programs with more or fewer fields can share a set, as while they are being
/// replaced by newer ones. Clones are the same one.
pub struct ConfigSet<T> {
    client: Client,
    path: Path,
    within: Duration,
    validate: Option<Validate<T>>,
}

impl<T> Clone for ConfigSet<T> {
    fn clone(&self) -> Self {
        let Self { client, path, within, validate } = self;
        Self { client: client.clone(), path: path.clone(), within: *within, validate: validate.clone() }
    }
}

impl<T> fmt::Debug for ConfigSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSet").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> ConfigSet<T> {
    /// The set whose parts lie below a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        let path = path.to_path()?;
        path.join("part")?;
        let within = client.options().request_timeout();
        Ok(Self { client: client.clone(), path, within, validate: None })
    }

    /// What every value must be before it is published here. See [`Config::validate`](crate::Config::validate).
    #[must_use]
    pub fn validate<V: Verdict>(mut self, validate: impl Fn(&T) -> V + Send + Sync + 'static) -> Self {
        self.validate = Some(Arc::new(move |value| validate(value).verdict()));
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

    /// What the set's own znode says: who has published last.
    fn by(&self) -> String {
        let by = self.client.peer().map(|peer| peer.principal).unwrap_or_default();
        serde_json::json!({ "by": by }).to_string()
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
            found.add(&entry.path, entry.stat, entry.data.unwrap_or_default());
        }
        Ok(found)
    }

    /// Publishes these parts over what was found, if it is still that; none if it is not.
    async fn put(&self, found: &Parts, wanted: &[Part], begun: Instant) -> Result<Option<(u64, Zxid)>> {
        let left = left(begun, self.within).unwrap_or(Duration::from_millis(1));
        match self.transaction(found, wanted)?.within(left).await {
            // The set's own znode is written last, and its stat says the version.
            Ok(values) => match values.last().and_then(parts::written) {
                Some(stat) => Ok(Some((stat.version, stat.modified))),
                None => Err(ClientError::Mismatch { question: "multi" }.into()),
            },
            Err(ClientError::Refused(Refusal::Step { cause, .. })) if parts::is_overtaken(&cause) => Ok(None),
            // That it is written in steps is nobody's concern.
            Err(ClientError::Refused(Refusal::Step { cause, .. })) => Err(ClientError::from(*cause).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn transaction(&self, found: &Parts, wanted: &[Part]) -> Result<Multi> {
        let mut multi = self.client.transaction();
        if found.root.is_none() {
            multi = multi.step(CreateStep { parents: true, ..CreateStep::new(self.path.clone(), "") });
        }
        for Part { name, data } in wanted {
            let path = self.path.join(name)?;
            multi = match found.parts.get(name) {
                None => multi.create(path, data.clone()),
                Some((stat, present)) => {
                    multi = multi.check_created(&path, stat.created);
                    // Also what stays as it is: somebody may be changing it by hand.
                    if present == data {
                        multi.check_version(path, stat.version)
                    } else {
                        multi.set_if_version(path, data.clone(), stat.version)
                    }
                }
            };
        }
        Ok(match found.root {
            None => multi.set_if_version(&self.path, self.by(), 0),
            Some(stat) => {
                multi.check_created(&self.path, stat.created).set_if_version(&self.path, self.by(), stat.version)
            }
        })
    }

    async fn publish_over(&self, wanted: &[Part], if_version: Option<u64>) -> Result<(u64, Zxid)> {
        let begun = Instant::now();
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let actual = found.root.map(|stat| stat.version);
            if let Some(expected) = if_version.filter(|expected| actual != Some(*expected)) {
                return Err(Error::Conflict { path: self.path.clone(), expected, actual: Found(actual) });
            }
            if let Some(done) = self.put(&found, wanted, begun).await? {
                return Ok(done);
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
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

    /// Tells what it is, and whenever any part has changed what all of it is then. See [`SetWatch`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<SetWatch<T>> {
        Ok(SetWatch::new(self.client.cache(&self.path).await?, &self.path))
    }
}

impl<T: Serialize> ConfigSet<T> {
    /// Publishes all parts of a value, those that differ from what is there, in one transaction.
    pub fn publish(&self, value: &T) -> PublishSet<T> {
        let parts = self.check(value).and_then(|()| parts::split(value));
        PublishSet { set: self.clone(), parts, if_version: None }
    }

    /// Deletes a part. What is left must still be what those who read it expect.
    ///
    /// # Errors
    /// As every write. That there is no such part is none.
    pub async fn remove(&self, part: &str) -> Result<()> {
        let begun = Instant::now();
        let path = self.path.join(part)?;
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let Some((stat, _)) = found.parts.get(part) else { return Ok(()) };
            let multi = self.client.transaction().check_created(&path, stat.created).delete_recursive(&path);
            // Together with the set's version, so that who updates meanwhile notices.
            match multi.set(&self.path, self.by()).within(left).await {
                Ok(_) => return Ok(()),
                // Somebody was faster.
                Err(ClientError::Refused(Refusal::Step { cause, .. })) if parts::is_overtaken(&cause) => {}
                Err(error) => return Err(error.into()),
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path, after: self.within })
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
    /// the time; otherwise as [`ConfigSet::get`] and as every write.
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
            if let Some((version, zxid)) = self.put(&found, &parts::split(&value)?, begun).await? {
                return Ok(Versioned { value, version, zxid });
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }
}

/// Publishes a set; made by [`ConfigSet::publish`]. Awaited it gives the set's version and the zxid. Errors and
/// cancellation are those of [`Publish`](crate::Publish).
#[must_use = "nothing is published until it is awaited"]
pub struct PublishSet<T> {
    set: ConfigSet<T>,
    parts: Result<Vec<Part>>,
    if_version: Option<u64>,
}

impl<T> fmt::Debug for PublishSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishSet").field("path", &self.set.path).finish_non_exhaustive()
    }
}

impl<T> PublishSet<T> {
    /// Only over this version of the set: what was read before.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }
}

impl<T: 'static> IntoFuture for PublishSet<T> {
    type Output = Result<(u64, Zxid)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { set, parts, if_version } = self;
        Box::pin(async move { set.publish_over(&parts?, if_version).await })
    }
}
