//! The latch: a count that goes down to nothing, once; then everybody passes, for good.

use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath};

use crate::error::{Error, Result};
use crate::wait::{PLUGIN, Wait};

/// A latch at a path of the tree. Clones are the same latch. What Java calls CountDownLatch.
///
/// It is used once. For rounds take a path for each, `/latches/build-17`: so nobody who is late takes one round for
/// another. Or take a [`DoubleBarrier`](crate::DoubleBarrier), which counts its rounds itself and whose members may die.
#[derive(Clone, Debug)]
pub struct Latch {
    client: Client,
    path: Path,
}

impl Latch {
    /// The latch at a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        let path = path.to_path()?;
        path.join("open")?;
        Ok(Self { client: client.clone(), path })
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it: so many counts are to come; with none it is open at once. One round trip, and a read when there is one.
    ///
    /// # Errors
    /// [`Error::LatchExists`]: it is never counted up or made anew under those who wait. As every write.
    pub async fn set(&self, count: u64) -> Result<()> {
        let call = self.client.call(PLUGIN, "set-latch").arg("path", self.path.as_str()).arg("count", count);
        match call.await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(Refusal::PluginRefused { message, .. })) if message.contains("znode-exists") => {
                Err(Error::LatchExists { path: self.path.clone(), left: self.left().await? })
            }
            Err(error) => Err(Error::of(&self.path, error)),
        }
    }

    /// Counts down by one; gives what is left. See [`Latch::count_down_by`].
    ///
    /// # Errors
    /// As [`Latch::count_down_by`].
    pub async fn count_down(&self) -> Result<u64> {
        self.count_down_by(1).await
    }

    /// Counts down; gives what is left, which is not less than 0. One round trip, through the session: exactly once, also
    /// when connections break. Counts stay when their session ends. Dropping the future, it may or may not count.
    ///
    /// # Errors
    /// [`Error::NoLatch`], [`Error::Misplaced`], and as every write.
    pub async fn count_down_by(&self, by: u64) -> Result<u64> {
        let call = self.client.call(PLUGIN, "count-down").arg("path", self.path.as_str()).arg("by", by);
        call.in_session().typed().await.map_err(|error| Error::of(&self.path, error))
    }

    /// Waits until the count is 0. One round trip, parked.
    pub fn wait(&self) -> Wait {
        Wait::new(&self.client, &self.path, "wait-latch", "its count did not come to 0")
    }

    /// What is left to count. One round trip, a read.
    ///
    /// # Errors
    /// [`Error::NoLatch`], [`Error::Misplaced`], and as every read.
    pub async fn left(&self) -> Result<u64> {
        let data = match self.client.at(&self.path).get().await {
            Ok(znode) => znode.data,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => {
                return Err(Error::NoLatch { path: self.path.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        count(&data)
            .ok_or_else(|| Error::Misplaced { path: self.path.clone(), said: "its data is no number".to_owned() })
    }

    /// Takes it away. Who waits for it then waits on, for one that is made anew: take it away when nobody does any more. One
    /// round trip; repeated it does no harm.
    ///
    /// # Errors
    /// As every write.
    pub async fn delete(&self) -> Result<()> {
        match self.client.at(&self.path).delete().recursive().await {
            Ok(_) | Err(ClientError::Refused(Refusal::NoZnode { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn count(data: &[u8]) -> Option<u64> {
    std::str::from_utf8(data).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_decimal_text() {
        for (data, expected) in [("0", Some(0)), ("17", Some(17)), ("", None), ("-1", None), ("x", None)] {
            assert_eq!(count(data.as_bytes()), expected, "{data}");
        }
    }
}
