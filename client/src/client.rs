//! The client's handle: cheap to clone, one connection and at most one session behind all clones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::{Answer, MemberId, Path, Query, SessionId, Status, Step, Zxid};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::Multi;
use crate::builder::{Read, ToPath};
use crate::cache::CacheBuilder;
use crate::call::{Call, Inquiry};
use crate::driver::{self, Command, Notice, Sent, Shared};
use crate::error::{Error, Outcome, Result};
use crate::namespace::Namespace;
use crate::options::Options;
use crate::plugins::Plugins;
use crate::session::{Ask, Body, Done, State};
use crate::sessions::{EndSession, Owned, Session, Sessions};
use crate::watch::WatchBuilder;
use crate::wire::Opener;
use crate::znode::{At, Many};

/// A client of a cluster. Clones share its connection and its session.
///
/// It connects again by itself, to any member, and sends what was not answered again: a caller sees that only as
/// time. Dropping the last clone (and the last [`Watch`](crate::Watch)) closes the session as [`Client::close`] does,
/// without waiting.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    pipelined: bool,
    namespace: Namespace,
}

struct Core {
    options: Options,
    commands: mpsc::UnboundedSender<Command>,
    notices: mpsc::UnboundedSender<Notice>,
    shared: Arc<Shared>,
}

/// Dropped before what became of a call was taken, it has the call given back.
struct Withdrawal<'a> {
    client: &'a Client,
    call: u64,
    taken: bool,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let notice = if self.taken { Notice::Taken(self.call) } else { Notice::Withdrawn(self.call) };
        // A driver that is gone has no calls.
        let _ = self.client.core.notices.send(notice);
    }
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
    /// # // Not run, for it needs a profile. That of the crate's page is the same, and runs on one that it makes.
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
        let driver::Started { commands, notices, shared, connected } = started;
        let pipelined = options.pipelined;
        let core = Arc::new(Core { options, commands, notices, shared });
        let client = Self { core, pipelined, namespace: Namespace::default() };
        connected.await.unwrap_or(Err(Error::Closed { outcome: Outcome::NotApplied }))?;
        Ok(client)
    }

    /// The place that requests are about: a text or a [`Path`](crate::Path).
    ///
    /// ```
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
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # example(client.clone()).await?;
    /// # Ok(()) }
    /// ```
    pub fn at(&self, path: impl ToPath) -> At {
        At::new(self.clone(), path)
    }

    /// Several steps as one transaction, all or none: said one by one.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app/mode").create("").parents().await?;
    /// # for data in ["a", "b", "c"] {
    /// #     client.at("/app/mode").set(data).await?;
    /// # }
    /// # client.at("/app/config").create("v1").await?;
    /// # client.at("/app/history").create("").await?;
    /// client
    ///     .transaction()
    ///     .check_version("/app/mode", 3)
    ///     .set("/app/config", "v2")
    ///     .create("/app/history/v2", "by hand")
    ///     .commit()
    ///     .await?;
    /// # assert_eq!(client.at("/app/config").get().await?.data, "v2");
    /// # Ok(()) }
    /// ```
    pub fn transaction(&self) -> Multi {
        Multi::new(self.clone(), Vec::new())
    }

    /// Several steps as one transaction, all or none: a list that was made elsewhere.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app").create("").await?;
    /// use conclave_client::{CreateStep, Path, Step};
    ///
    /// let mut steps = Vec::new();
    /// for name in ["a", "b"] {
    ///     let path = Path::parse("/app")?.join(name)?;
    ///     steps.push(Step::from(CreateStep { or_set: true, ..CreateStep::new(path, "v2") }));
    /// }
    /// client.multi(steps).check_exists("/app").await?;
    /// # assert_eq!(client.at("/app/b").get().await?.data, "v2");
    /// # Ok(()) }
    /// ```
    pub fn multi(&self, steps: impl IntoIterator<Item = Step>) -> Multi {
        Multi::new(self.clone(), steps.into_iter().collect())
    }

    /// Reads several znodes with their data, all from one state. Gives a `Vec<Option<Znode>>` in the order of the
    /// paths; those that are not there are none.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app/a").create("").parents().await?;
    /// # client.at("/app/b").create("").await?;
    /// let znodes = client.many(["/app/a", "/app/b"]).await?;
    /// if let [Some(a), Some(b)] = &znodes[..] {
    ///     assert_eq!(a.zxid, b.zxid);
    /// }
    /// # assert_eq!(znodes.iter().flatten().count(), 2);
    /// # Ok(()) }
    /// ```
    pub fn many(&self, paths: impl IntoIterator<Item = impl ToPath>) -> Many {
        Many::new(self.clone(), paths.into_iter().map(|path| path.to_path()).collect())
    }

    /// Lists the open sessions: the principal's own, or all of them for whoever may administer the root.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.session().await?;
    /// for session in client.sessions().await? {
    ///     println!("{} of {}: {} ephemeral znodes", session.session, session.principal, session.ephemerals);
    /// }
    /// # assert_eq!(client.sessions().await?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// Lists a session's ephemeral znodes, in the order of their creation; in a [`Client::namespace`], those within it.
    pub fn owned(&self, session: SessionId) -> Owned {
        Owned::new(self.clone(), session)
    }

    /// Ends another session: one of the same principal, or any for whoever may administer the root. Its ephemeral
    /// znodes go, its locks are free. Refused with `session-over` when it is over already.
    pub fn end_session(&self, session: SessionId) -> EndSession {
        EndSession::new(self.clone(), session)
    }

    /// Calls a plugin's procedure: a transaction of its own, carried out once. Gives what it returned, one CBOR item, or
    /// with [`Call::typed`] a value.
    ///
    /// A procedure may *park*: it waits on the cluster's side until something changes, such as until a lock is free. Then
    /// the call takes as long as that takes, or [`Call::within`] says. It survives broken connections, other members and
    /// other leaders. It needs a session, which is opened if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`]: nothing was changed. By the plugin it is `plugin-refused`; `bad-arguments` says which argument
    /// is wrong; `plugin-failed`, `plugin-disabled` and `no-plugin` are the plugin's own state. [`Error::TimedOut`] with
    /// [`Call::within`]: it was cancelled. Otherwise as every write.
    ///
    /// # Ordering
    /// As every write: through the session in the order of issue. One that parks keeps nobody waiting: later writes are
    /// carried out meanwhile.
    ///
    /// # Cancellation
    /// Dropping the future cancels the call, if it has a session: a place in a line is given up, and what it had taken
    /// already, such as a lock whose award was on its way, is given back. Without a session it is as with every write: it
    /// may be carried out all the same.
    ///
    /// ```no_run
    /// # // Not run, for it needs the plugin.
    /// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
    /// # use std::time::Duration;
    /// #[derive(serde::Deserialize)]
    /// struct Job {
    ///     path: String,
    /// }
    ///
    /// let take = client.call("queue", "take").arg("queue", "/queues/mail").arg("visibility", "30s");
    /// let job = take.within(Duration::from_secs(60)).typed::<Job>().await?;
    /// println!("{}", job.path);
    /// # Ok(()) }
    /// ```
    pub fn call(&self, plugin: impl Into<String>, procedure: impl Into<String>) -> Call {
        Call::new(self.clone(), plugin.into(), procedure.into())
    }

    /// Asks a plugin's query: it reads one state, on the member that this client is connected to, as fresh as is said.
    /// Gives what it returned, one CBOR item, or with [`Inquiry::typed`] a value.
    ///
    /// # Errors
    /// [`Error::Refused`] as with [`Client::call`]; otherwise as every read.
    ///
    /// ```no_run
    /// # // Not run, for it needs the plugin.
    /// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
    /// let healthy = client.ask("discovery-query", "healthy").arg("service", "/services/api").stale();
    /// let instances: Vec<String> = healthy.typed().await?;
    /// # Ok(()) }
    /// ```
    pub fn ask(&self, plugin: impl Into<String>, query: impl Into<String>) -> Inquiry {
        Inquiry::new(self.clone(), plugin.into(), query.into())
    }

    /// The plugins of the cluster: installing, listing, managing them. See [`Plugins`].
    #[must_use]
    pub fn plugins(&self) -> Plugins {
        Plugins::new(self.clone())
    }

    /// Watches a znode, its children or everything below it. See [`Watch`](crate::Watch).
    pub fn watch(&self, path: impl ToPath) -> WatchBuilder {
        WatchBuilder::new(self.clone(), path)
    }

    /// Keeps a znode and everything below it in memory. See [`Cache`](crate::Cache).
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/services/api").create("").parents().await?;
    /// let services = client.cache("/services").limit_bytes(16 << 20).await?;
    /// println!("{} znodes", services.read().len());
    /// # assert_eq!(services.read().len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn cache(&self, path: impl ToPath) -> CacheBuilder {
        CacheBuilder::new(self.clone(), path)
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
        match self.request(Ask::Session, None).await?.body {
            Body::Session { session, timeout } => Ok(Session::new(self.clone(), session, timeout)),
            Body::Value(_) | Body::Answer(_) => Err(Error::Mismatch { question: "open" }),
        }
    }

    /// A clone all of whose writes go through the session, which the first one opens. Many writes can then be on their
    /// way at a time, and are still carried out in order:
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/log").create("").await?;
    /// let client = client.pipelined();
    /// let log = client.at("/log");
    /// let writes = ["a", "b", "c"].map(|data| log.set(data).into_future());
    /// futures::future::try_join_all(writes).await?;
    /// assert_eq!(log.get().await?.data, "c");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn pipelined(&self) -> Self {
        Self { pipelined: true, ..self.clone() }
    }

    /// A clone for which the znode at this path is the root: all its paths, in requests, results, events, fences and
    /// refusals, are relative to it, and what lies outside never shows. Namespaces of namespaces compose.
    ///
    /// The znode need not exist. While it does not, or when somebody deletes it, requests are refused with `no-znode` of
    /// the relative path; creating something below it with `.parents()` makes it again. A refusal that is about a znode
    /// above the root (a parent that is missing, or where nothing may be created) names the root, `/`.
    ///
    /// It is a convenience and no wall: access lists decide who may do what. What is not about paths is the same in all
    /// namespaces: the session, [`Client::status`], members, backups, and plugins. [`Client::call`] and [`Client::ask`] run
    /// with this root as theirs: paths in their arguments and results are relative to it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// let tenant = client.namespace("/tenants/a")?;
    /// let created = tenant.at("/config").create("v1").parents().await?;
    /// assert_eq!(created.path.as_str(), "/config");
    /// assert!(client.at("/tenants/a/config").exists().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] with `bad-path` when it is no path.
    pub fn namespace(&self, path: impl ToPath) -> Result<Self> {
        let namespace = self.namespace.nested(&path.to_path()?)?;
        Ok(Self { namespace, ..self.clone() })
    }

    /// Where this client is rooted in the whole tree: `/` unless it is in a [`Client::namespace`].
    #[must_use]
    pub fn root(&self) -> Path {
        self.namespace.root()
    }

    /// The same client for the whole tree.
    pub(crate) fn whole(&self) -> Self {
        Self { namespace: Namespace::default(), ..self.clone() }
    }

    /// How its paths are those of the members.
    pub(crate) const fn names(&self) -> &Namespace {
        &self.namespace
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

    /// How many messages of this kind it has sent so far, with all its clones. One that was sent again, because it was
    /// pushed back or a connection broke, counts again. Only for tests that count round trips.
    #[doc(hidden)]
    #[must_use]
    pub fn sent(&self, kind: Sent) -> u64 {
        self.core.shared.sent(kind)
    }

    /// A side stream is about to be opened.
    pub(crate) fn sends(&self, kind: Sent) {
        self.core.shared.sends(kind);
    }

    /// Closes the session, if there is one, and the connection, for all clones: ephemeral znodes go now and not when
    /// the session's time is over. Session writes that were issued before are carried out first; other requests get
    /// [`Error::Closed`]. The state of a client with a session is [`State::Lost`] before the cluster hears of it.
    ///
    /// # Errors
    /// When it is not known that the session was closed; it then ends when its time is over. The client is closed
    /// anyway.
    pub async fn close(&self) -> Result<()> {
        match self.request(Ask::Close, None).await {
            Ok(_) | Err(Error::Closed { .. } | Error::SessionOver { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands a request to the driver and waits for what becomes of it.
    pub(crate) async fn request(&self, ask: Ask, within: Option<Duration>) -> Result<Done> {
        let mut ask = self.namespace.ask(ask)?;
        if let Ask::Write { in_session, .. } | Ask::Call { in_session, .. } = &mut ask {
            *in_session |= self.pipelined;
        }
        let (reply, done) = oneshot::channel();
        let within = within.unwrap_or(self.core.options.request_timeout);
        let is_call = matches!(ask, Ask::Call { .. });
        let call = is_call.then(|| Withdrawal { client: self, call: self.core.shared.next_watch().0, taken: false });
        self.command(Command::Ask { ask: Box::new(ask), within, reply, call: call.as_ref().map(|call| call.call) })?;
        let done = done.await.unwrap_or(Err(Error::Closed { outcome: Outcome::Unknown }));
        if let Some(mut call) = call {
            call.taken = true;
        }
        match done {
            Ok(done) => self.namespace.done(done),
            Err(error) => Err(self.namespace.error(error)),
        }
    }

    /// Puts a command in its place at once: a bounded channel, or tokio's cooperative yielding in its `send`, would
    /// shuffle futures that are polled for the first time in order. What waits is what callers hold futures of.
    pub(crate) fn command(&self, command: Command) -> Result<()> {
        self.core.commands.send(command).map_err(|_| self.closed())
    }

    pub(crate) fn unwatch(&self, watch: conclave_protocol::WatchId) {
        // A driver that is gone has no watches.
        let _ = self.core.notices.send(Notice::Unwatch(watch));
    }

    /// What opens side streams; waits until there is a connection.
    pub(crate) async fn opener(&self) -> Result<Opener> {
        let mut opener = self.core.shared.opener();
        let open = tokio::select! {
            open = opener.wait_for(Option::is_some) => open.ok().and_then(|open| open.clone()),
            () = self.core.commands.closed() => None,
        };
        open.ok_or_else(|| self.closed())
    }

    /// Why nothing can be asked any more.
    pub(crate) fn closed(&self) -> Error {
        self.core.shared.end().unwrap_or(Error::Closed { outcome: Outcome::NotApplied })
    }

    /// Its writes go through a session: those that are issued later are carried out later.
    pub(crate) fn is_ordered(&self) -> bool {
        self.pipelined || self.has_session()
    }

    /// Has an open session.
    pub(crate) fn has_session(&self) -> bool {
        self.core.shared.has_session()
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.core.shared.time_left()
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.core.options.request_timeout
    }

    pub(crate) fn next_watch(&self) -> conclave_protocol::WatchId {
        self.core.shared.next_watch()
    }
}
