//! The client's handle: cheap to clone, one connection and at most one session behind all clones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::{Answer, MemberId, Query, SessionId, Status, Step, Zxid};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Call, Multi};
use crate::builder::{Read, ToPath};
use crate::driver::{self, Command, Shared};
use crate::error::{Error, Outcome, Result};
use crate::options::Options;
use crate::session::{Ask, Body, Done, State};
use crate::watch::WatchBuilder;
use crate::wire::Opener;
use crate::znode::At;

/// A client of a cluster. Clones share its connection and its session.
///
/// It connects again by itself, to any member, and sends what was not answered again: a caller sees that only as
/// time. Dropping the last clone (and the last [`Watch`](crate::Watch)) closes the session as [`Client::close`] does,
/// without waiting.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    pipelined: bool,
}

struct Core {
    options: Options,
    commands: mpsc::UnboundedSender<Command>,
    unwatch: mpsc::UnboundedSender<conclave_protocol::WatchId>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &self.state()).field("zxid", &self.zxid()).finish_non_exhaustive()
    }
}

/// The member that a client is connected to, and who the client is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, `host:port`.
    pub endpoint: String,
    /// Its number.
    pub member: MemberId,
    /// The cluster's id.
    pub cluster: String,
    /// The client's principal.
    pub principal: String,
}

impl Client {
    /// Connects to a cluster: tries the endpoints in turn, until the options' connect timeout is over, or at once when
    /// every endpoint surely cannot be used (nobody listens, or a certificate is refused).
    ///
    /// No session is opened; see [`Client::session`].
    ///
    /// # Errors
    /// [`Error::Config`] when the options are wrong or a certificate cannot be read, [`Error::NoConnection`] with the
    /// reason for each endpoint.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```no_run
    /// # async fn example() -> conclave_client::Result<()> {
    /// use conclave_client::{Client, Options};
    ///
    /// let client = Client::connect(Options::load()?).await?;
    /// println!("{}", client.status().await?.cluster);
    /// # Ok(()) }
    /// ```
    pub async fn connect(options: Options) -> Result<Self> {
        options.check()?;
        let started = driver::start(&options)?;
        Self::over(options, started).await
    }

    pub(crate) async fn over(options: Options, started: driver::Started) -> Result<Self> {
        let driver::Started { commands, unwatch, shared, connected } = started;
        let pipelined = options.pipelined;
        let client = Self { core: Arc::new(Core { options, commands, unwatch, shared }), pipelined };
        connected.await.unwrap_or(Err(Error::Closed { outcome: Outcome::NotApplied }))?;
        Ok(client)
    }

    /// The place that requests are about: a text or a [`Path`](crate::Path).
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
    /// use conclave_client::{Error, Refusal};
    ///
    /// let config = client.at("/app/config");
    /// config.create("v1").parents().await?;
    /// match config.set("v2").if_version(0).await {
    ///     Ok(stat) => println!("version {}", stat.version),
    ///     Err(Error::Refused(Refusal::BadVersion { actual, .. })) => println!("somebody was faster: {actual}"),
    ///     Err(error) => return Err(error),
    /// }
    /// let znode = config.get().await?;
    /// assert_eq!(znode.data, "v2");
    /// # Ok(()) }
    /// ```
    pub fn at(&self, path: impl ToPath) -> At {
        At::new(self.clone(), path)
    }

    /// Several steps as one transaction: all or none.
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use conclave_client::{Check, Path, SetStep, Step};
    ///
    /// let steps = [
    ///     Step::Check(Check { path: Path::parse("/app/mode")?, if_version: Some(3) }),
    ///     Step::Set(SetStep { path: Path::parse("/app/config")?, data: "v2".into(), if_version: None }),
    /// ];
    /// client.multi(steps).await?;
    /// # Ok(()) }
    /// ```
    pub fn multi(&self, steps: impl IntoIterator<Item = Step>) -> Multi {
        Multi::new(self.clone(), steps.into_iter().collect())
    }

    /// Calls a plugin's procedure; what `args` are is the plugin's to say.
    pub fn call(&self, plugin: impl Into<String>, procedure: impl Into<String>, args: impl Into<Bytes>) -> Call {
        Call::new(self.clone(), plugin.into(), procedure.into(), args.into())
    }

    /// Watches a znode, its children or everything below it. See [`Watch`](crate::Watch).
    pub fn watch(&self, path: impl ToPath) -> WatchBuilder {
        WatchBuilder::new(self.clone(), path)
    }

    /// The cluster, as the member sees it that the client is connected to. Stale: it is answered without a leader too.
    ///
    /// # Errors
    /// As every read.
    pub async fn status(&self) -> Result<Status> {
        let read = Read { consistency: Some(conclave_protocol::Consistency::Stale), ..Read::new(self.clone()) };
        match read.send(Query::Status).await? {
            (_, Answer::Status(status)) => Ok(*status),
            _ => Err(Error::Mismatch { question: "status" }),
        }
    }

    /// The client's session; the first call opens it. From then on all writes of all clones go through it: they are
    /// carried out in the order that they were issued in, each exactly once, also when connections break.
    ///
    /// There is one session in a client's life. When it is [`State::Lost`], connect a new client.
    ///
    /// # Errors
    /// [`Error::SessionOver`] when it was lost; otherwise as every write. Dropping the future leaves the session to be
    /// opened.
    pub async fn session(&self) -> Result<Session> {
        match self.ask(Ask::Session, None).await?.body {
            Body::Session { session, timeout } => Ok(Session { client: self.clone(), id: session, timeout }),
            Body::Value(_) | Body::Answer(_) => Err(Error::Mismatch { question: "open" }),
        }
    }

    /// A clone all of whose writes go through the session, which the first one opens. Many writes can then be on their
    /// way at a time, and are still carried out in order:
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
    /// let client = client.pipelined();
    /// let log = client.at("/log");
    /// let writes = ["a", "b", "c"].map(|data| log.set(data).into_future());
    /// futures::future::try_join_all(writes).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn pipelined(&self) -> Self {
        Self { core: Arc::clone(&self.core), pipelined: true }
    }

    /// Is the client connected, and if it has a session: may it be relied on?
    #[must_use]
    pub fn state(&self) -> State {
        self.core.shared.state()
    }

    /// Tells of each change of [`Client::state`]. After the process or the machine has slept, ask [`Client::state`],
    /// which looks at the clock; this tells of it a moment later.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<State> {
        self.core.shared.states()
    }

    /// The highest zxid that this client has seen.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.core.shared.zxid()
    }

    /// Who the client is connected to; the last one while it is not.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.core.shared.peer()
    }

    /// The options that it was connected with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.core.options
    }

    /// Closes the session, if there is one, and the connection, for all clones: ephemeral znodes go now and not when
    /// the session's time is over. Session writes that were issued before are carried out first; other requests get
    /// [`Error::Closed`].
    ///
    /// # Errors
    /// When it is not known that the session was closed; it then ends when its time is over. The client is closed
    /// anyway.
    pub async fn close(&self) -> Result<()> {
        match self.ask(Ask::Close, None).await {
            Ok(_) | Err(Error::Closed { .. } | Error::SessionOver { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands a request to the driver and waits for what becomes of it.
    pub(crate) async fn ask(&self, mut ask: Ask, within: Option<Duration>) -> Result<Done> {
        if let Ask::Write { in_session, .. } = &mut ask {
            *in_session |= self.pipelined;
        }
        let (reply, done) = oneshot::channel();
        let within = within.unwrap_or(self.core.options.request_timeout);
        self.command(Command::Ask { ask, within, reply })?;
        done.await.unwrap_or(Err(Error::Closed { outcome: Outcome::Unknown }))
    }

    /// Puts a command in its place at once: a bounded channel, or tokio's cooperative yielding in its `send`, would
    /// shuffle futures that are polled for the first time in order. What waits is what callers hold futures of.
    pub(crate) fn command(&self, command: Command) -> Result<()> {
        self.core.commands.send(command).map_err(|_| Error::Closed { outcome: Outcome::NotApplied })
    }

    pub(crate) fn unwatch(&self, watch: conclave_protocol::WatchId) {
        // A driver that is gone has no watches.
        let _ = self.core.unwatch.send(watch);
    }

    /// What opens side streams; waits until there is a connection.
    pub(crate) async fn opener(&self) -> Result<Opener> {
        let mut opener = self.core.shared.opener();
        let closed = Error::Closed { outcome: Outcome::NotApplied };
        let open = tokio::select! {
            open = opener.wait_for(Option::is_some) => open.ok().and_then(|open| open.clone()),
            () = self.core.commands.closed() => None,
        };
        open.ok_or(closed)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.core.options.request_timeout
    }

    pub(crate) fn next_watch(&self) -> conclave_protocol::WatchId {
        self.core.shared.next_watch()
    }
}

/// The client's open session. Dropping it changes nothing: the session is the client's.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    id: SessionId,
    timeout: Duration,
}

impl Session {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The timeout that was agreed.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// May it be relied on?
    #[must_use]
    pub fn state(&self) -> State {
        self.client.state()
    }

    /// How long this client will surely hold the session if it hears nothing more: at its end it is lost here, before
    /// it can be lost at the cluster. Runs on while the machine sleeps. Zero when it is lost.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.client.core.shared.time_left()
    }

    /// Waits until the session is lost.
    pub async fn lost(&self) {
        // An error means that the driver is gone, and the session with it.
        let _ = self.client.states().wait_for(|state| *state == State::Lost).await;
    }
}
