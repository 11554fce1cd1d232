//! A client that can vanish, as a process does that is killed: without a word to the cluster.

use conclave_client::{Client, Options};
use tokio::runtime::Runtime;

use crate::Error;

/// A client with a runtime of its own.
pub struct Mortal {
    client: Client,
    runtime: Runtime,
}

impl Mortal {
    /// Connects.
    ///
    /// # Errors
    /// When no member can be reached.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.spawn(Client::connect(options)).await??;
        Ok(Self { client, runtime })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends it: what it would have said is not said any more.
    pub fn kill(self) {
        let Self { client, runtime } = self;
        runtime.shutdown_background();
        // A process that is killed drops nothing: the end of the last handle would still be heard as a goodbye.
        std::mem::forget(client);
    }
}
