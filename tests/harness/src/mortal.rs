//! A client that can vanish, as a process does that is killed: without a word to the cluster.

use std::mem::ManuallyDrop;

use conclave_client::{Client, Options};
use tokio::runtime::Runtime;

use crate::{Cluster, Error};

/// A client with a runtime of its own. Dropped, it ends as by [`Mortal::kill`].
pub struct Mortal {
    /// A process that is killed drops nothing: the end of the last handle would still be heard as a goodbye.
    client: ManuallyDrop<Client>,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Mortal {
    /// Connects.
    ///
    /// # Errors
    /// When no member can be reached.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.spawn(Client::connect(options)).await??;
        Ok(Self { client: ManuallyDrop::new(client), runtime: Some(runtime) })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends it: what it would have said is not said any more.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // A runtime must not be dropped within another, and need not be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a client ends, in tests that try each way.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Without a word.
    Vanishes,
    /// Its session is killed; it lives.
    SessionIsKilled,
    /// It lives, and is heard again, after [`Cluster::mend`], when its time is over.
    IsPaused,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vanishes, Self::SessionIsKilled, Self::IsPaused];

    /// So ends this client, which is the victim's. One that vanishes is taken.
    ///
    /// # Errors
    /// When it can't be ended so.
    pub async fn befall(self, cluster: &Cluster, client: &Client, victim: &mut Option<Mortal>) -> Result<(), Error> {
        match self {
            Self::Vanishes => drop(victim.take()),
            Self::SessionIsKilled => cluster.kill_session(client).await?,
            Self::IsPaused => cluster.cut(client)?,
        }
        Ok(())
    }
}
