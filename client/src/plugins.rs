//! The cluster's plugins: what is installed, installing it, what is done to it, its parked calls, statistics and log.

mod install;
mod log;
mod manifest;

use std::future::IntoFuture;

use bytes::Bytes;
use conclave_protocol::plugin::{Action, BudgetSettings, Manage, ParkedCall, PluginInfo, PluginState, PluginStats};
use conclave_protocol::{Answer, Consistency, Op, Query, Refusal, SideMessage, SideRequest, Value, Zxid, limits};
use futures::future::BoxFuture;
use futures::stream::{Stream, TryStreamExt};

use crate::builder::{Read, Write, read_methods};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::sessions::pages;

pub use install::{Install, InstallStep};
pub use log::PluginLog;
pub use manifest::manifest;

/// What can be done about plugins; made by [`Client::plugins`]. To change anything takes the right to administer the root.
///
/// ```no_run
/// # // Not run, for it needs a component.
/// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
/// let component = std::fs::read("gate.wasm").expect("`conclave plugin build` makes it");
/// let plugins = client.plugins();
/// let gate = plugins.install(component).allow_asked().settings(r#"{"approvers": 2}"#).await?;
/// println!("{} {} is active", gate.name, gate.version.manifest.version);
/// for call in plugins.calls("gate").await? {
///     println!("{} waits for {:?}", call.principal, call.waits_for);
/// }
/// plugins.disable("gate").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Plugins {
    client: Client,
}

impl Plugins {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Those that are installed, by name.
    ///
    /// # Errors
    /// As every read.
    pub async fn list(&self) -> Result<Vec<PluginInfo>> {
        self.read(None).await
    }

    /// What is known of one. Refused with `no-plugin` when there is none of that name.
    ///
    /// # Errors
    /// As every read.
    pub async fn get(&self, name: &str) -> Result<PluginInfo> {
        let mut found = self.read(Some(name.to_owned())).await?;
        found.pop().ok_or_else(|| Error::Refused(Refusal::NoPlugin { plugin: name.to_owned() }))
    }

    async fn read(&self, name: Option<String>) -> Result<Vec<PluginInfo>> {
        // As of now, whoever installed it: a session's own reads would do for its own writes only.
        let read = Read { consistency: Some(Consistency::Linearizable), ..Read::new(self.client.clone()) };
        match read.send(Query::Plugins { name }).await? {
            (_, Answer::Plugins(plugins)) => Ok(plugins),
            _ => Err(Error::Mismatch { question: "plugins" }),
        }
    }

    /// Installs a component. Awaited it uploads it, and waits until it is active. See [`Install`].
    pub fn install(&self, component: impl Into<Bytes>) -> Install {
        Install::new(self.client.clone(), component.into(), None)
    }

    /// Puts a component in the place of the version that is installed under this name, atomically: each transaction runs
    /// with the one or with the other. See [`Install`].
    pub fn upgrade(&self, name: impl Into<String>, component: impl Into<Bytes>) -> Install {
        Install::new(self.client.clone(), component.into(), Some(name.into()))
    }

    /// It runs no more: its triggers as well as its procedures; its parked calls end with `plugin-disabled`.
    pub fn disable(&self, name: impl Into<String>) -> Actions {
        self.act(name, Action::Disable)
    }

    /// It runs again; awaited, this waits until it does.
    pub fn enable(&self, name: impl Into<String>) -> Actions {
        self.act(name, Action::Enable)
    }

    /// The version before the present one runs again; awaited, this waits until it does.
    pub fn rollback(&self, name: impl Into<String>) -> Actions {
        self.act(name, Action::Rollback)
    }

    /// The shadow becomes what runs; awaited, this waits until it does.
    pub fn promote(&self, name: impl Into<String>) -> Actions {
        self.act(name, Action::Promote)
    }

    /// The version that waits to become active, or runs as a shadow, is given up.
    pub fn abandon(&self, name: impl Into<String>) -> Actions {
        self.act(name, Action::Abandon)
    }

    /// Gives it other settings: bytes that the plugin understands.
    pub fn settings(&self, name: impl Into<String>, settings: impl Into<Bytes>) -> Actions {
        self.act(name, Action::Settings(settings.into()))
    }

    /// Gives it other budgets: those that are none are the defaults.
    pub fn budgets(&self, name: impl Into<String>, budgets: BudgetSettings) -> Actions {
        self.act(name, Action::Budgets(budgets))
    }

    /// It goes, with all its versions; its parked calls end with `plugin-disabled`. What it has written stays.
    ///
    /// # Errors
    /// As every write; refused with `no-plugin` when there is none of that name.
    pub async fn remove(&self, name: impl Into<String>) -> Result<()> {
        let op = Op::Manage(Manage { name: name.into(), what: Action::Remove });
        match Write::new(self.client.clone()).send(Ok(op)).await? {
            Value::Removed => Ok(()),
            _ => Err(Error::Mismatch { question: "a removal" }),
        }
    }

    fn act(&self, name: impl Into<String>, what: Action) -> Actions {
        Actions { name: name.into(), what, write: Write::new(self.client.clone()) }
    }

    /// Calls that are parked in a plugin: the principal's own, or all for whoever administers the cluster.
    pub fn calls(&self, plugin: impl Into<String>) -> ParkedCalls {
        ParkedCalls { plugin: plugin.into(), read: Read::new(self.client.clone()) }
    }

    /// What the members know of the runs of a plugin, or of all, since they started; by plugin and member. Members that do
    /// not answer are missing.
    ///
    /// # Errors
    /// As every read; [`Error::Interrupted`] when the connection broke.
    pub async fn stats(&self, plugin: Option<&str>) -> Result<Vec<PluginStats>> {
        let request = SideRequest::PluginStats { plugin: plugin.map(str::to_owned) };
        let within = self.client.request_timeout();
        let ask = async || match self.client.talk(&request, within).await?.hear().await? {
            SideMessage::PluginStats(stats) => Ok(stats),
            _ => Err(Error::Mismatch { question: "statistics of plugins" }),
        };
        self.client.again(within, ask).await
    }

    /// A plugin's log, which the member that leads keeps in memory: its last lines, and those that come.
    #[must_use]
    pub fn log(&self, plugin: impl Into<String>) -> PluginLog {
        PluginLog::new(self.client.clone(), plugin.into())
    }
}

/// Something that is done to a plugin; made by [`Plugins::disable`] and the like. Gives the plugin as it is then. Where
/// members have to make something ready, it waits for that.
///
/// # Errors
/// When awaited: [`Error::Rejected`] when a member can't run it, and which and why; [`Error::Unknown`] when the time was
/// over before it was active; otherwise as every write.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Actions {
    name: String,
    what: Action,
    write: Write,
}

impl Actions {
    /// The time that it has, instead of the options' request timeout; a minute to make something ready.
    pub fn within(mut self, time: std::time::Duration) -> Self {
        self.write.within = Some(time);
        self
    }
}

impl IntoFuture for Actions {
    type Output = Result<PluginInfo>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { name, what, write } = self;
        Box::pin(async move {
            let waits = matches!(what, Action::Enable | Action::Rollback | Action::Promote);
            let (client, within) = (write.client.clone(), write.within);
            let info = match write.send(Ok(Op::Manage(Manage { name, what }))).await? {
                Value::Managed(info) => *info,
                _ => return Err(Error::Mismatch { question: "an action on a plugin" }),
            };
            if !waits {
                return Ok(info);
            }
            let awaited = info.next.as_ref().map_or(info.version.digest, |next| next.version.digest);
            install::active(&client, info, awaited, within).await
        })
    }
}

/// Whether a version of this digest has come to where it was to come; or why not.
fn settled(info: &PluginInfo, digest: conclave_protocol::plugin::ComponentDigest) -> Option<Result<(), String>> {
    if let Some(why) = &info.rejected {
        return Some(Err(why.clone()));
    }
    if let Some(next) = &info.next {
        // A shadow runs as soon as a member has it; it is nothing that anybody waits for.
        return (next.shadow && next.version.digest == digest).then_some(Ok(()));
    }
    if info.version.digest != digest {
        return Some(Err("another version was installed meanwhile".to_owned()));
    }
    (info.state != PluginState::Preparing).then_some(Ok(()))
}

/// Lists parked calls by ticket; made by [`Plugins::calls`]. Awaited it gives all of them, a `Vec` of [`ParkedCall`];
/// [`ParkedCalls::stream`] one after the other. Pages are read one by one: only what is within one page is one state.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct ParkedCalls {
    plugin: String,
    read: Read,
}

impl ParkedCalls {
    read_methods!();

    /// The calls one by one; pages are read as they are needed. Ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<ParkedCall>> + Send + Unpin {
        pages(move |after: Option<Zxid>| {
            let Self { plugin, read } = self.clone();
            Box::pin(async move {
                match read.send(Query::Calls { plugin, after, limit: limits::PAGE_CHILDREN }).await?.1 {
                    Answer::Calls { calls, more } => {
                        let next = calls.last().map(|call| call.ticket).filter(|_| more);
                        Ok((calls, next))
                    }
                    _ => Err(Error::Mismatch { question: "parked calls" }),
                }
            })
        })
    }
}

impl IntoFuture for ParkedCalls {
    type Output = Result<Vec<ParkedCall>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stream().try_collect())
    }
}

#[cfg(test)]
mod tests;
