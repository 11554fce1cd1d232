//! The barrier: who comes while it is closed waits until it is opened.

use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::wait::{PLUGIN, Wait};

/// A barrier that somebody closes and opens, at a path of the tree; one that nobody ever closed is open. Clones are the same
/// barrier. Curator calls it DistributedBarrier.
///
/// Every opening lets all pass who waited before it, even if it is closed again at once. So it may be used as often as one
/// likes: close, prepare, open, close, ...
#[derive(Clone, Debug)]
pub struct Barrier {
    client: Client,
    path: Path,
}

/// What lies in its znode.
#[derive(Deserialize)]
struct Gate {
    closed: bool,
}

impl Barrier {
    /// The barrier at a path. Nothing is asked of the cluster yet.
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

    /// Closes it. Repeated it does no harm. One round trip; dropping the future, it may or may not be closed.
    ///
    /// It belongs to no session: one that was closed by a program that is gone stays closed, until somebody opens it or
    /// deletes its znode.
    ///
    /// # Errors
    /// [`Error::Misplaced`], and as every write.
    pub async fn close(&self) -> Result<()> {
        self.set("close").await
    }

    /// Opens it: all who wait pass. Repeated it does no harm. One round trip; dropping the future, it may or may not be opened.
    ///
    /// # Errors
    /// [`Error::Misplaced`], and as every write.
    pub async fn open(&self) -> Result<()> {
        self.set("open").await
    }

    /// Waits until it is open, or is opened. One round trip, parked.
    pub fn wait(&self) -> Wait {
        Wait::new(&self.client, &self.path, "wait", "it was not opened")
    }

    /// Whether it is closed now. One round trip, a read.
    ///
    /// # Errors
    /// [`Error::Misplaced`], and as every read.
    pub async fn is_closed(&self) -> Result<bool> {
        let data = match self.client.at(&self.path).get().await {
            Ok(znode) => znode.data,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if data.is_empty() {
            return Ok(false);
        }
        let gate: Gate = serde_json::from_slice(&data)
            .map_err(|error| Error::Misplaced { path: self.path.clone(), said: error.to_string() })?;
        Ok(gate.closed)
    }

    async fn set(&self, how: &str) -> Result<()> {
        let call = self.client.call(PLUGIN, how).arg("path", self.path.as_str());
        call.await.map(drop).map_err(|error| Error::of(&self.path, error))
    }
}
