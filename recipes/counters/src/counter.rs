//! The counter: a number in a znode, changed where it is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use conclave_client::{Client, Edited, Error as ClientError, Path, Refusal, ToPath, TypedEvent, TypedWatch};
use futures::stream::{Stream, StreamExt};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The plugin that counts.
const PLUGIN: &str = "counter";

/// A number at a path of the tree, from -2^63 to 2^63 - 1, as decimal text. Clones are the same counter. Curator calls it
/// DistributedAtomicLong, and SharedCount.
///
/// Every change is one transaction at the leader: nobody reads, calculates and tries again, so none fails because others
/// were faster. It is carried out once, also when connections break and leaders are killed, or its outcome is unknown and
/// [`Error::outcome`] says so. A znode that is not there is 0, and is made by the first change.
#[derive(Clone, Debug)]
pub struct Counter {
    client: Client,
    path: Path,
}

/// What the plugin answers.
#[derive(Deserialize)]
struct Swapped {
    set: bool,
    value: i64,
}

impl Counter {
    /// The counter at a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { client: client.clone(), path: path.to_path()? })
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// What it is now. One round trip, a read.
    ///
    /// # Errors
    /// [`Error::BadNumber`], and as every read.
    pub async fn get(&self) -> Result<i64> {
        let data = match self.client.at(&self.path).get().await {
            Ok(znode) => znode.data,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(0),
            Err(error) => return Err(Error::of(&self.path, error)),
        };
        number(&data).ok_or_else(|| Error::BadNumber { path: self.path.clone(), why: "its data is none".to_owned() })
    }

    /// Adds one; gives what it is then. See [`Counter::add`].
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub async fn increment(&self) -> Result<i64> {
        self.add(1).await
    }

    /// Adds a number, which may be negative; gives what it is then. One round trip; two more the first time, if the
    /// znode's parent is not there. Dropping the future, it may or may not be added.
    ///
    /// # Errors
    /// [`Error::BadNumber`], also when the sum would be none, and as every write.
    pub async fn add(&self, number: i64) -> Result<i64> {
        let add = || async { self.client.at(&self.path).add(number).or_create().await };
        Ok(with_parents(&self.client, &self.path, add).await?.number)
    }

    /// Makes it this number if it is a lower one; gives what it is then. As [`Counter::add`].
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub async fn raise_to(&self, number: i64) -> Result<i64> {
        let raise = || async { self.client.at(&self.path).max(number).or_create().await };
        Ok(with_parents(&self.client, &self.path, raise).await?.number)
    }

    /// Sets it if it is what is expected: `Ok` then, and otherwise `Err` with what it is. One round trip. Dropping the
    /// future, it may or may not be set.
    ///
    /// Numbers come again: that it is what it was does not mean that it was that all the time. Where that matters, let it
    /// only rise.
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> conclave_counters::Result<()> {
    /// let tickets = conclave_counters::Counter::new(&client, "/tickets")?;
    /// let mut left = tickets.get().await?;
    /// while left > 0 {
    ///     match tickets.compare_and_set(left, left - 1).await? {
    ///         Ok(()) => break,
    ///         Err(actual) => left = actual,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::BadNumber`], and as every write.
    pub async fn compare_and_set(&self, expected: i64, value: i64) -> Result<Result<(), i64>> {
        let call = self.client.call(PLUGIN, "set-if").arg("path", self.path.as_str());
        let call = call.arg("expected", expected).arg("value", value).typed();
        let Swapped { set, value } = call.await.map_err(|error| Error::of(&self.path, error))?;
        Ok(if set { Ok(()) } else { Err(value) })
    }

    /// Watches it: what it is now, and whenever it has changed what it is then. Who is slow is told the latest, and not each.
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<Values> {
        // A decimal number is JSON.
        let watch = self.client.at(&self.path).typed::<i64>().json().watch().await;
        let watch = watch.map_err(|error| Error::of(&self.path, error))?;
        Ok(Values { watch, path: self.path.clone() })
    }
}

/// What a counter is, and becomes; made by [`Counter::watch`]. A stream. It outlives connections and members, and ends with an
/// error that waiting does not mend, or when the client is closed. Dropping it ends it.
pub struct Values {
    watch: TypedWatch<i64>,
    path: Path,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Values {
    /// What it has become; none when the watch has ended. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::BadNumber`] when its data is none now: the watch goes on. Otherwise as every watch, and nothing follows.
    pub async fn next(&mut self) -> Option<Result<i64>> {
        StreamExt::next(self).await
    }
}

impl Stream for Values {
    type Item = Result<i64>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let value = match ready!(this.watch.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(TypedEvent::Value(value))) => Ok(value.value),
                Some(Ok(TypedEvent::Absent { .. })) => Ok(0),
                Some(Ok(TypedEvent::Undecodable(empty))) if empty.data.is_empty() => Ok(0),
                Some(Ok(TypedEvent::Undecodable(text))) => {
                    Err(Error::BadNumber { path: this.path.clone(), why: text.why })
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(Error::of(&this.path, error)),
            };
            return Poll::Ready(Some(value));
        }
    }
}

/// Changes the number at a path; makes its parents if there are none.
pub(crate) async fn with_parents<F>(client: &Client, path: &Path, change: impl Fn() -> F) -> Result<Edited>
where
    F: Future<Output = conclave_client::Result<Edited>>,
{
    let of = |error| Error::of(path, error);
    match (change().await, path.parent()) {
        (Err(ClientError::Refused(Refusal::NoZnode { .. })), Some(parent)) => {
            match client.at(&parent).create("").parents().await {
                Ok(_) | Err(ClientError::Refused(Refusal::ZnodeExists { .. })) => change().await.map_err(of),
                Err(error) => Err(of(error)),
            }
        }
        (changed, _) => changed.map_err(of),
    }
}

/// The number that data is; none is 0.
fn number(data: &[u8]) -> Option<i64> {
    if data.is_empty() {
        return Some(0);
    }
    std::str::from_utf8(data).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_a_number_in_decimal_and_none_is_zero() {
        for (data, expected) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("-17", Some(-17)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.5", None),
            ("x", None),
        ] {
            assert_eq!(number(data.as_bytes()), expected, "{data}");
        }
        assert_eq!(number(&[0xff]), None);
    }
}
