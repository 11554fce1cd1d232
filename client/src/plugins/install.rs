//! Installing a component: uploaded in chunks, named, allowed what it asks for, and awaited until it is active.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::plugin::{
    BudgetSettings, ComponentDigest, Install as InstallOp, Manifest, Need, PluginInfo, Upload,
};
use conclave_protocol::{Op, Refusal, Value, limits};
use futures::future::BoxFuture;

use super::{manifest, settled};
use crate::builder::Write;
use crate::client::Client;
use crate::error::{Doubt, Error, Result};

/// The time that members have to make a version ready, unless it is said: compiling a large component takes a while.
const READY: Duration = Duration::from_secs(60);
/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(50);

/// How far an installation is; see [`Install::progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallStep {
    /// So many bytes of the component are uploaded.
    Uploaded {
        /// So far.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// It is installed, and the members make it ready.
    Preparing,
}

/// Installs or upgrades a plugin; made by [`Plugins::install`](super::Plugins::install) and
/// [`Plugins::upgrade`](super::Plugins::upgrade). Gives the plugin as it is when it is active.
///
/// # Errors
/// When awaited: refused with `plugin-unfit` when it is no component that can be a plugin of this cluster,
/// `plugin-exists`, `no-plugin` or `not-allowed`; [`Error::Rejected`] when a member can't run it, and which and why: what
/// was active before is so still; [`Error::Unknown`] when it is installed and was not active in its time, which it may
/// still become. Otherwise as every write. Dropping the future before it is installed leaves an upload that is forgotten
/// after ten minutes.
#[derive(Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Install {
    component: Bytes,
    name: Option<String>,
    allow: Allow,
    settings: Option<Bytes>,
    budgets: Option<BudgetSettings>,
    upgrade: bool,
    shadow: bool,
    within: Option<Duration>,
    progress: Option<Arc<dyn Fn(InstallStep) + Send + Sync>>,
    client: Client,
}

#[derive(Clone, Debug)]
enum Allow {
    Asked,
    These(Vec<Need>),
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install").field("name", &self.name).field("allow", &self.allow).finish_non_exhaustive()
    }
}

impl Install {
    pub(super) fn new(client: Client, component: Bytes, upgraded: Option<String>) -> Self {
        Self {
            component,
            upgrade: upgraded.is_some(),
            name: upgraded,
            allow: Allow::These(Vec::new()),
            settings: None,
            budgets: None,
            shadow: false,
            within: None,
            progress: None,
            client,
        }
    }

    /// The name to call it by, instead of the one in its manifest.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Allows it these operations; each must be one that its manifest asks for. Without, it may do nothing to the tree.
    pub fn allow(mut self, allowed: Vec<Need>) -> Self {
        self.allow = Allow::These(allowed);
        self
    }

    /// Allows it all that its manifest asks for: read that first ([`manifest`](super::manifest())).
    pub fn allow_asked(mut self) -> Self {
        self.allow = Allow::Asked;
        self
    }

    /// Its settings: bytes that it understands. An upgrade keeps those that there are.
    pub fn settings(mut self, settings: impl Into<Bytes>) -> Self {
        self.settings = Some(settings.into());
        self
    }

    /// What one run may spend. An upgrade keeps the budgets that there are.
    pub fn budgets(mut self, budgets: BudgetSettings) -> Self {
        self.budgets = Some(budgets);
        self
    }

    /// Of an upgrade: runs it beside the present version on the same input, reports what it does otherwise
    /// ([`Plugins::stats`](super::Plugins::stats)), and drops what it writes. [`Plugins::promote`](super::Plugins::promote)
    /// makes it what runs.
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// The time that members have until it is active, instead of a minute. Each request before that has the options'
    /// request timeout.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Is told how far it is.
    pub fn progress(mut self, told: impl Fn(InstallStep) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(told));
        self
    }

    fn tell(&self, step: InstallStep) {
        if let Some(told) = &self.progress {
            told(step);
        }
    }

    async fn write(&self, op: Op) -> Result<Value> {
        Write::new(self.client.clone()).send(Ok(op)).await
    }

    async fn upload(&self, digest: ComponentDigest) -> Result<()> {
        let of = self.component.len() as u64;
        for (chunk, start) in (0..).zip((0..self.component.len()).step_by(limits::COMPONENT_CHUNK)) {
            let end = self.component.len().min(start + limits::COMPONENT_CHUNK);
            let upload = Upload { digest, chunk, bytes: self.component.slice(start..end) };
            match self.write(Op::Upload(upload)).await? {
                Value::Uploaded => self.tell(InstallStep::Uploaded { bytes: end as u64, of }),
                _ => return Err(Error::Mismatch { question: "an upload" }),
            }
        }
        Ok(())
    }

    async fn run(self) -> Result<PluginInfo> {
        let unfit = |why: String| {
            let plugin = self.name.clone().unwrap_or_else(|| "a plugin".to_owned());
            Error::Refused(Refusal::PluginUnfit { plugin, why })
        };
        let component_bytes = self.component.len() as u64;
        // Before all of it is uploaded for nothing.
        if self.component.len() > limits::COMPONENT_BYTES {
            let (what, limit) = ("bytes of the component".to_owned(), limits::COMPONENT_BYTES as u64);
            return Err(Error::Refused(Refusal::Limit { what, limit, actual: component_bytes }));
        }
        let Manifest { name, needs, .. } = manifest(&self.component).map_err(unfit)?;
        let digest = digest(&self.component);
        self.upload(digest).await?;
        let install = InstallOp {
            name: self.name.clone().unwrap_or(name),
            digest,
            component_bytes,
            allowed: match &self.allow {
                Allow::Asked => needs,
                Allow::These(allowed) => allowed.clone(),
            },
            settings: self.settings.clone(),
            budgets: self.budgets,
            upgrade: self.upgrade,
            shadow: self.shadow,
        };
        let info = match self.write(Op::Install(install)).await? {
            Value::Managed(info) => *info,
            _ => return Err(Error::Mismatch { question: "an installation" }),
        };
        self.tell(InstallStep::Preparing);
        active(&self.client, info, digest, self.within).await
    }
}

impl IntoFuture for Install {
    type Output = Result<PluginInfo>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// SHA-256 of a component.
pub(super) fn digest(component: &[u8]) -> ComponentDigest {
    let hash = ring::digest::digest(&ring::digest::SHA256, component);
    let mut digest = ComponentDigest::default();
    digest.0.copy_from_slice(hash.as_ref());
    digest
}

/// Waits until this version is active, or a shadow; or was rejected.
pub(super) async fn active(
    client: &Client,
    mut info: PluginInfo,
    digest: ComponentDigest,
    within: Option<Duration>,
) -> Result<PluginInfo> {
    let (begun, within) = (Instant::now(), within.unwrap_or(READY));
    let plugins = client.plugins();
    loop {
        match settled(&info, digest) {
            Some(Ok(())) => return Ok(info),
            Some(Err(why)) => return Err(Error::Rejected { plugin: info.name, why }),
            None if begun.elapsed() >= within => return Err(Error::Unknown { why: Doubt::Activation }),
            None => tokio::time::sleep(LOOK).await,
        }
        info = match plugins.get(&info.name).await {
            Ok(info) => info,
            // It was removed meanwhile.
            Err(Error::Refused(refusal)) => return Err(Error::Refused(refusal)),
            // It is installed: while there is time, the next look may tell.
            Err(error) if error.is_retryable() && begun.elapsed() < within => continue,
            Err(_) => return Err(Error::Unknown { why: Doubt::Activation }),
        };
    }
}
