//! Services at a path of the tree: registering, viewing, listing.

use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath};

use crate::error::Result;
use crate::instance::Instance;
use crate::pick::Locality;
use crate::registration::Register;
use crate::view::View;

/// Services below a path of the tree (Curator's `ServiceDiscovery`). Clones are the same. The [crate's page](crate) says
/// what it promises.
#[derive(Clone, Debug)]
pub struct Discovery {
    client: Client,
    path: Path,
    here: Locality,
}

/// A service that there is, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How many instances are registered, healthy or not.
    pub instances: u64,
}

impl Discovery {
    /// The services below a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        let path = path.to_path()?;
        path.join("service")?.join("instance")?.join("beat")?;
        Ok(Self { client: client.clone(), path, here: Locality::default() })
    }

    /// Where this program stands, for [`Pick::Locality`](crate::Pick::Locality). An empty text says nothing.
    #[must_use]
    pub fn locality(mut self, region: impl Into<String>, zone: impl Into<String>) -> Self {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        self.here = Locality { region: said(region.into()), zone: said(zone.into()) };
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Registers an instance. See [`Register`] for how its health is known, and for errors and cancellation.
    pub fn register(&self, instance: Instance) -> Register {
        let path = self.path.join(&instance.service).and_then(|service| service.join(&instance.id));
        Register::new(&self.client, path, instance)
    }

    /// The instances of a service, from now on. There need be none yet. See [`View`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn view(&self, service: &str) -> Result<View> {
        View::new(&self.client, self.path.join(service)?, service, self.here.clone()).await
    }

    /// The services that there are, in order of their names: also those whose last instance has gone.
    ///
    /// # Errors
    /// As every read.
    pub async fn services(&self) -> Result<Vec<Service>> {
        let listing = match self.client.at(&self.path).children().await {
            Ok(listing) => listing,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let service = |entry: conclave_client::Entry| Service {
            instances: entry.stat.map_or(0, |stat| stat.children),
            name: entry.name,
        };
        Ok(listing.children.into_iter().map(service).collect())
    }
}
