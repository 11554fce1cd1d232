//! Publishing a configuration: the transaction that writes the value and its history.

use std::fmt;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_client::{CreateStep, Error as ClientError, Multi, Refusal, Step, Znode, Zxid};
use futures::future::BoxFuture;
use rand::Rng;
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Found, Result};
use crate::history::{self, Record};
use crate::parts::{is_overtaken, written};

/// Publishes a value; made by [`Config::publish`]. Awaited it gives the version and the zxid.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Unencodable`]; [`Error::Conflict`] with [`Publish::if_version`]; [`Error::TimedOut`] when
/// others were faster all the time; otherwise as every write.
///
/// # Cancellation
/// Dropping the future may leave it published or not, and nothing in between.
#[must_use = "nothing is published until it is awaited"]
pub struct Publish<T> {
    config: Config<T>,
    data: Result<Bytes>,
    if_version: Option<u64>,
    note: Option<String>,
}

impl<T> fmt::Debug for Publish<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("path", &self.config.path).finish_non_exhaustive()
    }
}

impl<T> Publish<T> {
    pub(crate) const fn new(config: Config<T>, data: Result<Bytes>) -> Self {
        Self { config, data, if_version: None, note: None }
    }

    /// Only over this version: what was read before.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }

    /// What is said about it in the history.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

impl<T: 'static> IntoFuture for Publish<T> {
    type Output = Result<(u64, Zxid)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { config, data, if_version, note } = self;
        Box::pin(async move { config.publish_over(data?, if_version, note).await })
    }
}

/// What is there before something is published.
pub(crate) struct Look {
    pub(crate) znode: Option<Znode>,
    /// The versions that are kept; none when there is no history yet.
    kept: Option<Vec<u64>>,
}

impl<T> Config<T> {
    pub(crate) async fn look(&self, within: Duration) -> Result<Look> {
        let znode = async {
            match self.client.at(&self.path).get().linearizable().within(within).await {
                Ok(znode) => Ok(Some(znode)),
                Err(ClientError::Refused(Refusal::NoZnode { .. })) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let kept = async {
            match self.client.at(&self.history).children().names_only().linearizable().within(within).await {
                Ok(listing) => {
                    let names = listing.children.iter();
                    Ok(Some(names.filter_map(|entry| history::version(&entry.name)).collect()))
                }
                Err(ClientError::Refused(Refusal::NoZnode { .. })) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let (znode, kept) = futures::try_join!(znode, kept)?;
        Ok(Look { znode, kept })
    }

    pub(crate) async fn publish_over(
        &self,
        data: Bytes,
        if_version: Option<u64>,
        note: Option<String>,
    ) -> Result<(u64, Zxid)> {
        let begun = Instant::now();
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let actual = found.znode.as_ref().map(|znode| znode.stat.version);
            if let Some(expected) = if_version.filter(|expected| actual != Some(*expected)) {
                return Err(Error::Conflict { path: self.path.clone(), expected, actual: Found(actual) });
            }
            if let Some(done) = self.put(&found, data.clone(), note.as_deref(), begun).await? {
                return Ok(done);
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }

    /// Publishes over what was found, if it is still that; none if it is not.
    pub(crate) async fn put(
        &self,
        found: &Look,
        data: Bytes,
        note: Option<&str>,
        begun: Instant,
    ) -> Result<Option<(u64, Zxid)>> {
        let left = left(begun, self.within).unwrap_or(Duration::from_millis(1));
        match self.transaction(found, data, note)?.within(left).await {
            // Of all that is written the configuration itself is the first.
            Ok(values) => match values.iter().find_map(written) {
                Some(stat) => Ok(Some((stat.version, stat.modified))),
                None => Err(ClientError::Mismatch { question: "multi" }.into()),
            },
            Err(ClientError::Refused(Refusal::Step { cause, .. })) if is_overtaken(&cause) => Ok(None),
            // That it is written in steps is nobody's concern.
            Err(ClientError::Refused(Refusal::Step { cause, .. })) => Err(ClientError::from(*cause).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn transaction(&self, found: &Look, data: Bytes, note: Option<&str>) -> Result<Multi> {
        let mut multi = self.client.transaction();
        let version = match &found.znode {
            // A version alone would not do: it may have been deleted, created again, and be at the same version.
            Some(Znode { stat, .. }) => {
                multi = multi.check_created(&self.path, stat.created);
                multi = multi.set_if_version(&self.path, data.clone(), stat.version);
                stat.version + 1
            }
            None => {
                multi = multi.step(CreateStep { parents: true, ..CreateStep::new(self.path.clone(), data.clone()) });
                0
            }
        };
        let kept = found.kept.clone().unwrap_or_default();
        for old in history::surplus(kept, version, self.keep) {
            multi = multi.delete(history::path(&self.history, old)?);
        }
        if self.keep == 0 {
            return Ok(multi);
        }
        if found.kept.is_none() {
            multi = multi.create(&self.history, "");
        }
        let by = self.client.peer().map(|peer| peer.principal).unwrap_or_default();
        let record = Record { by, note: note.map(str::to_owned) }.encode(&data);
        let create = CreateStep::new(history::path(&self.history, version)?, record);
        Ok(multi.step(Step::Create(CreateStep { or_set: true, ..create })))
    }

    /// Which versions there are instead.
    pub(crate) async fn not_kept(&self, version: u64) -> Result<Error> {
        let mut kept_versions = self.look(self.within).await?.kept.unwrap_or_default();
        kept_versions.sort_unstable();
        Ok(Error::NoSuchVersion { path: self.path.clone(), version, kept_versions })
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes> {
    let data = serde_json::to_vec_pretty(value).map_err(|error| Error::Unencodable { why: error.to_string() })?;
    Ok(data.into())
}

/// What is left of the time; none when it is over.
pub(crate) fn left(begun: Instant, within: Duration) -> Option<Duration> {
    Some(within.saturating_sub(begun.elapsed())).filter(|left| !left.is_zero())
}

/// Others want it too: a pause that grows, and differs from theirs.
pub(crate) async fn pause(tries: &mut u32, begun: Instant, within: Duration) {
    *tries += 1;
    let pause = rand::rng().random_range(0..=(1_u64 << (*tries).min(8)));
    tokio::time::sleep(Duration::from_millis(pause).min(left(begun, within).unwrap_or_default())).await;
}
