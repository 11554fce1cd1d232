//! Publishing a set: the transaction that writes its parts and their history.

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_client::{CreateStep, Error as ClientError, Multi, Refusal, Zxid};
use futures::future::BoxFuture;

use super::ConfigSet;
use crate::error::{Error, Found, Result};
use crate::history::{self, Record};
use crate::parts::{Part, Parts, is_overtaken, written};
use crate::publish::{left, pause};

/// Publishes a set; made by [`ConfigSet::publish`]. Awaited it gives the set's version and the zxid. Errors and
/// cancellation are those of [`Publish`](crate::Publish); and [`Error::Hidden`] of a set that keeps versions.
#[must_use = "nothing is published until it is awaited"]
pub struct PublishSet<T> {
    set: ConfigSet<T>,
    parts: Result<Vec<Part>>,
    if_version: Option<u64>,
    note: Option<String>,
}

impl<T> fmt::Debug for PublishSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishSet").field("path", &self.set.path).finish_non_exhaustive()
    }
}

impl<T> PublishSet<T> {
    pub(super) const fn new(set: ConfigSet<T>, parts: Result<Vec<Part>>) -> Self {
        Self { set, parts, if_version: None, note: None }
    }

    /// Only over this version of the set: what was read before.
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

impl<T: 'static> IntoFuture for PublishSet<T> {
    type Output = Result<(u64, Zxid)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { set, parts, if_version, note } = self;
        Box::pin(async move { set.publish_over(&parts?, if_version, note.as_deref()).await })
    }
}

/// What is to become of a set. Parts that are not named stay.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) parts: &'a [Part],
    /// Those that are to go. They were found.
    pub(super) gone: &'a [String],
    pub(super) note: Option<&'a str>,
}

impl Wanted<'_> {
    /// The parts that stay as they were found.
    fn rest<'f>(&self, found: &'f Parts) -> BTreeMap<&'f str, &'f (conclave_client::Stat, Bytes)> {
        let is_named = |name: &str| {
            self.parts.iter().any(|part| part.name == name) || self.gone.iter().any(|gone| gone.as_str() == name)
        };
        found.parts.iter().map(|(name, part)| (name.as_str(), part)).filter(|(name, _)| !is_named(name)).collect()
    }
}

impl<T> ConfigSet<T> {
    async fn publish_over(&self, parts: &[Part], if_version: Option<u64>, note: Option<&str>) -> Result<(u64, Zxid)> {
        let begun = Instant::now();
        let mut tries = 0;
        while let Some(left) = left(begun, self.within) {
            let found = self.look(left).await?;
            let actual = found.root.map(|stat| stat.version);
            if let Some(expected) = if_version.filter(|expected| actual != Some(*expected)) {
                return Err(Error::Conflict { path: self.path.clone(), expected, actual: Found(actual) });
            }
            if let Some(done) = self.put(&found, Wanted { parts, gone: &[], note }, begun).await? {
                return Ok(done);
            }
            pause(&mut tries, begun, self.within).await;
        }
        Err(Error::TimedOut { path: self.path.clone(), after: self.within })
    }

    /// Makes of what was found what is wanted, if it is still that; none if it is not.
    pub(super) async fn put(&self, found: &Parts, wanted: Wanted<'_>, begun: Instant) -> Result<Option<(u64, Zxid)>> {
        let left = left(begun, self.within).unwrap_or(Duration::from_millis(1));
        match self.transaction(found, wanted)?.within(left).await {
            // The set's own znode is written last, and its stat says the version.
            Ok(values) => match values.last().and_then(written) {
                Some(stat) => Ok(Some((stat.version, stat.modified))),
                None => Err(ClientError::Mismatch { question: "multi" }.into()),
            },
            Err(ClientError::Refused(Refusal::Step { cause, .. })) if is_overtaken(&cause) => Ok(None),
            // That it is written in steps is nobody's concern.
            Err(ClientError::Refused(Refusal::Step { cause, .. })) => Err(ClientError::from(*cause).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn transaction(&self, found: &Parts, wanted: Wanted<'_>) -> Result<Multi> {
        let mut multi = self.client.transaction();
        multi = match found.root {
            None => multi.step(CreateStep { parents: true, ..CreateStep::new(self.path.clone(), "") }),
            Some(stat) => multi.check_created(&self.path, stat.created),
        };
        let version = found.root.map_or(0, |stat| stat.version);
        // First, as it counts what was found.
        multi = self.keep_version(multi, found, wanted, version + 1)?;
        for Part { name, data } in wanted.parts {
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
        for name in wanted.gone {
            let path = self.path.join(name)?;
            if let Some((stat, _)) = found.parts.get(name) {
                multi = multi.check_created(&path, stat.created).delete_recursive(path);
            }
        }
        // Whoever updates meanwhile notices.
        Ok(multi.set_if_version(&self.path, serde_json::json!({ "by": self.by() }).to_string(), version))
    }

    /// Adds what keeps the version that is being published, and drops what is too old; nothing if none are kept.
    fn keep_version(&self, mut multi: Multi, found: &Parts, wanted: Wanted<'_>, version: u64) -> Result<Multi> {
        if self.keep == 0 {
            return Ok(multi);
        }
        found.is_whole()?;
        for old in history::surplus(found.versions(), version, self.keep) {
            multi = multi.delete_recursive(history::path(&self.history, old)?);
        }
        let rest = wanted.rest(found);
        // What is kept is all that there is then: no part has changed, come or gone since it was found.
        if let Some(stat) = found.root {
            multi = multi.check_children(&self.path, stat.children..=stat.children);
        }
        for (name, (stat, _)) in &rest {
            let path = self.path.join(name)?;
            multi = multi.check_created(&path, stat.created).check_version(path, stat.version);
        }
        if found.kept.is_none() {
            multi = multi.create(&self.history, "");
        }
        let entry = history::path(&self.history, version)?;
        if found.version(version).is_some() {
            // Made by hand.
            multi = multi.delete_recursive(&entry);
        }
        multi = multi.create(&entry, Record { by: self.by(), note: wanted.note.map(str::to_owned) }.encode(b""));
        let rest = rest.iter().map(|(name, (_, data))| (*name, data));
        for (name, data) in wanted.parts.iter().map(|part| (part.name.as_str(), &part.data)).chain(rest) {
            multi = multi.create(entry.join(name)?, data.clone());
        }
        Ok(multi)
    }

    /// Who publishes.
    fn by(&self) -> String {
        self.client.peer().map(|peer| peer.principal).unwrap_or_default()
    }
}
