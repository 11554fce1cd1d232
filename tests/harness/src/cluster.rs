//! The cluster: its start, its members' ends and returns, its clients, and what is done to the network between them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use conclave_client::{Client, Options};
use conclave_server::{Config, Listen, Member, MemberAddress, Surroundings};

use crate::failpoint::Post;
use crate::network::{Fate, Network, dial_from};
use crate::ports::Ports;
use crate::proxy::Weather;
use crate::{Error, Pki, eventually};

/// Where members of tests find what others have compiled, from this crate's folder on.
const COMPILED: &str = "../../target/compiled";

/// What members of tests have around them: the machine, and a folder of compiled components, so that not each of them
/// compiles those that every cluster has.
#[doc(hidden)]
#[must_use]
pub fn surroundings() -> Surroundings {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join(COMPILED);
    Surroundings { compiled: Some(compiled), ..Surroundings::default() }
}

/// A cluster whose members run in this process, on real sockets and disks. The [crate's page](crate) shows it at work.
///
/// When it is dropped its members end as by `kill -9`, and its files go.
pub struct Cluster {
    dir: tempfile::TempDir,
    pki: Pki,
    configs: BTreeMap<u64, Config>,
    surroundings: BTreeMap<u64, Surroundings>,
    members: BTreeMap<u64, Member>,
    posts: BTreeMap<u64, Arc<Post>>,
    network: Option<Network>,
    ports: Ports,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("dir", &self.dir.path())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

/// A cluster that is to be started. See [`Cluster::setup`].
#[must_use = "nothing is started yet"]
pub struct Setup<'a> {
    members: u64,
    is_proxied: bool,
    change: Box<dyn Fn(&mut Config) + Send + 'a>,
    around: Box<dyn Fn(u64) -> Surroundings + Send + 'a>,
}

impl<'a> Setup<'a> {
    /// With proxies before every member, for clients and for other members: what [`Cluster::pause`], [`Cluster::cut`],
    /// [`Cluster::drop_replies`] and [`Cluster::weather`] need. Every datagram is carried by a thread of the test's, so
    /// it is slower.
    pub fn proxied(mut self) -> Self {
        self.is_proxied = true;
        self
    }

    /// With configurations that `change` has seen: other limits, other timing.
    pub fn configured(mut self, change: impl Fn(&mut Config) + Send + 'a) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Each member in other surroundings than the machine's.
    #[doc(hidden)]
    pub fn surrounded(mut self, around: impl Fn(u64) -> Surroundings + Send + 'a) -> Self {
        self.around = Box::new(around);
        self
    }

    /// Starts it, and waits until all members are ready.
    ///
    /// # Errors
    /// When a member can't start, or they are not ready in time.
    pub async fn start(self) -> Result<Cluster, Error> {
        let mut cluster = self.prepare()?;
        let ids: Vec<u64> = cluster.configs.keys().copied().collect();
        for id in ids {
            cluster.launch(id).await?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Directories, certificates and configurations.
    fn prepare(self) -> Result<Cluster, Error> {
        let dir = tempfile::Builder::new().prefix("conclave-").tempdir()?;
        let pki = Pki::create(dir.path())?;
        let network = if self.is_proxied { Some(Network::new()?) } else { None };
        let ports = Ports::default();
        // Nobody else has to know it, so that the system may choose.
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listens = BTreeMap::new();
        let mut addresses = Vec::new();
        for id in 1..=self.members {
            let listen = Listen { client: ports.udp()?, peer: ports.udp()?, admin: Some(admin) };
            let (mut client, mut peer) = (listen.client, listen.peer);
            if let Some(network) = &network {
                (client, peer) = (ports.udp()?, ports.udp()?);
                network.add_member(id, [client, listen.client], [peer, listen.peer]);
            }
            addresses.push(MemberAddress { id, client: client.to_string(), peer: peer.to_string() });
            listens.insert(id, listen);
        }
        let name = format!("test-{}", listens[&1].client.port());
        let (mut configs, mut surroundings) = (BTreeMap::new(), BTreeMap::new());
        for (id, listen) in listens {
            let mut config = Config {
                cluster: name.clone(),
                member: id,
                data: dir.path().join(format!("member-{id}")),
                tls: pki.member(id)?,
                initialize: id == 1,
                listen,
                members: addresses.clone(),
                raft: conclave_server::RaftTiming::default(),
                storage: conclave_server::StorageOptions::default(),
                limits: conclave_protocol::limits::Limits::default(),
                // The host is slow where it is not optimised, and machines that run tests are busy.
                plugins: conclave_server::PluginOptions { time_ms: 100, ..conclave_server::PluginOptions::default() },
            };
            (self.change)(&mut config);
            configs.insert(id, config);
            let mut around = (self.around)(id);
            around.dial_from = network.as_ref().map(|_| dial_from(id)).or(around.dial_from);
            surroundings.insert(id, around);
        }
        Ok(Cluster {
            dir,
            pki,
            configs,
            surroundings,
            members: BTreeMap::new(),
            posts: BTreeMap::new(),
            network,
            ports,
        })
    }
}

impl Cluster {
    /// Starts so many members, and waits until all of them are ready.
    ///
    /// # Errors
    /// When a member can't start, or they are not ready in time.
    pub async fn start(members: u64) -> Result<Self, Error> {
        Self::setup(members).start().await
    }

    /// As [`Cluster::start`], with proxies: see [`Setup::proxied`].
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn proxied(members: u64) -> Result<Self, Error> {
        Self::setup(members).proxied().start().await
    }

    /// A cluster of so many members that is to be started.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), conclave_testing::Error> {
    /// use conclave_testing::Cluster;
    ///
    /// let cluster = Cluster::setup(3).proxied().configured(|config| config.raft.heartbeat_ms = 50).start().await?;
    /// # Ok(()) }
    /// ```
    pub fn setup<'a>(members: u64) -> Setup<'a> {
        let around = Box::new(|_| Surroundings::default());
        Setup { members, is_proxied: false, change: Box::new(|_| {}), around }
    }

    /// As [`Cluster::start`], with configurations that `change` has seen.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(members: u64, change: impl Fn(&mut Config) + Send) -> Result<Self, Error> {
        Self::setup(members).configured(change).start().await
    }

    /// As [`Cluster::start_with`], each member in other surroundings than the machine's.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    #[doc(hidden)]
    pub async fn start_in(
        members: u64,
        change: impl Fn(&mut Config) + Send,
        around: impl Fn(u64) -> Surroundings + Send,
    ) -> Result<Self, Error> {
        Self::setup(members).configured(change).surrounded(around).start().await
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The running members' numbers.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Waits until every running member serves clients.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`](crate::PATIENCE).
    pub async fn ready(&self) -> Result<(), Error> {
        eventually("all members are ready", || self.members.values().all(Member::is_ready)).await
    }

    /// Waits until one of the running members leads, and gives its number. One that is paused does not count: it may not
    /// have noticed yet that it does not lead any more.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`](crate::PATIENCE).
    pub async fn leader(&self) -> Result<u64, Error> {
        let hears = |id: u64| self.network.as_ref().is_none_or(|network| !network.is_paused(id));
        let leader = || self.members.iter().find(|(id, member)| hears(**id) && member.is_leader()).map(|(id, _)| *id);
        eventually("a member leads", || leader().is_some()).await?;
        leader().ok_or_else(|| "the leader has just gone".into())
    }

    /// Ends a member as `kill -9` would: nothing is synced, closed or said. Does nothing when it does not run.
    pub async fn kill(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            let ended = tokio::task::spawn_blocking(move || member.kill()).await;
            ended.expect("ending a member does not panic");
            self.gone(id);
        }
    }

    /// Stops a member in good order. Does nothing when it does not run.
    ///
    /// # Errors
    /// When its tables could not be closed.
    pub async fn stop(&mut self, id: u64) -> Result<(), Error> {
        if let Some(member) = self.members.remove(&id) {
            let stopped = tokio::task::spawn_blocking(move || member.stop()).await;
            self.gone(id);
            stopped??;
        }
        Ok(())
    }

    fn gone(&self, id: u64) {
        if let Some(network) = &self.network {
            network.close(id);
        }
    }

    /// Starts a member that was killed or stopped, and waits until it is ready.
    ///
    /// # Errors
    /// When it can't start, or is not ready in time.
    pub async fn restart(&mut self, id: u64) -> Result<(), Error> {
        self.launch(id).await?;
        let member = &self.members[&id];
        eventually("the member is ready", || member.is_ready()).await
    }

    /// Starts a member that was killed or stopped, and does not wait for it.
    ///
    /// # Errors
    /// When it can't start.
    pub async fn launch(&mut self, id: u64) -> Result<(), Error> {
        let config = self.configs.get(&id).ok_or_else(|| format!("there is no member {id}"))?.clone();
        if self.members.contains_key(&id) {
            return Err(format!("member {id} runs already").into());
        }
        let mut around = self.surroundings.get(&id).cloned().unwrap_or_default();
        around.compiled = around.compiled.or_else(|| surroundings().compiled);
        if let Some(network) = &self.network {
            let post = Post::new(id, network.cutter(id));
            around.on_step = around.on_step.or_else(|| Some(post.on_step()));
            self.posts.insert(id, post);
        }
        let member = tokio::task::spawn_blocking(move || Member::start_in(&config, around)).await??;
        self.members.insert(id, member);
        match &self.network {
            Some(network) => network.open(id).await,
            None => Ok(()),
        }
    }

    /// Makes the leader hand over to another member.
    ///
    /// # Errors
    /// When there is no leader, or nobody takes over.
    pub async fn step_down(&self) -> Result<(), Error> {
        let leader = self.leader().await?;
        let member = self.members.get(&leader).ok_or("the leader has just gone")?;
        Ok(member.step_down().await?)
    }

    /// Cuts a member off: it lives, and neither hears nor says anything, to clients and to members, until
    /// [`Cluster::resume`]. A leader is deposed meanwhile, and finds out when it is heard again, or when it notices that it
    /// hears nobody.
    ///
    /// # Errors
    /// When the cluster has no proxies, or the member does not run.
    pub fn pause(&self, id: u64) -> Result<(), Error> {
        if !self.members.contains_key(&id) {
            return Err(format!("member {id} does not run").into());
        }
        self.network()?.pause(id, true);
        Ok(())
    }

    /// Lets a member hear and speak again.
    ///
    /// # Errors
    /// When the cluster has no proxies.
    pub fn resume(&self, id: u64) -> Result<(), Error> {
        self.network()?.pause(id, false);
        Ok(())
    }

    /// A client with a certificate of this name; the name is the end of its principal.
    ///
    /// # Errors
    /// When it can't connect.
    pub async fn client(&self, name: &str) -> Result<Client, Error> {
        Ok(Client::connect(self.options(name)?).await?)
    }

    /// The options of such a client, to be changed before it connects. Each call is for one client.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn options(&self, name: &str) -> Result<Options, Error> {
        let all: Vec<u64> = self.configs.keys().copied().collect();
        self.options_to(name, &all)
    }

    /// The options of a client that knows only these members at first.
    ///
    /// # Errors
    /// When the certificate can't be made, or there is no such member.
    pub fn options_to(&self, name: &str, members: &[u64]) -> Result<Options, Error> {
        let dir = self.pki.client(name)?;
        let addresses = match &self.network {
            Some(network) => network.add_client(members)?,
            None => members.iter().map(|id| self.configs[id].listen.client).collect(),
        };
        Ok(profile(&dir, &addresses))
    }

    /// Cuts a client off: nothing that it says arrives, and it hears nothing, until [`Cluster::mend`]. Its connection
    /// breaks after a while, and its session's time runs out at the cluster, if that lasts.
    ///
    /// # Errors
    /// When the cluster has no proxies, or the client is of another one.
    pub fn cut(&self, client: &Client) -> Result<(), Error> {
        self.network()?.decide(client.options(), Some(Fate::Cut))
    }

    /// Loses all that a client is told, until [`Cluster::mend`]: its requests arrive and are carried out, and it does not
    /// get to know. After a while it gives its connection up and asks again, over another one.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn drop_replies(&self, client: &Client) -> Result<(), Error> {
        self.network()?.decide(client.options(), Some(Fate::NoReplies))
    }

    /// Ends what [`Cluster::cut`] or [`Cluster::drop_replies`] began.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn mend(&self, client: &Client) -> Result<(), Error> {
        self.network()?.decide(client.options(), None)
    }

    /// Ends a client's session as its expiry would: its ephemeral znodes go, its locks are free, and nothing that it has
    /// sent since is carried out. The client is told if it is connected; if it is cut off, it notices as it would in
    /// earnest. One without a session opens one for that. When this returns, it has happened.
    ///
    /// # Errors
    /// When the session is over already, or the cluster does not answer.
    pub async fn kill_session(&self, client: &Client) -> Result<(), Error> {
        let session = client.session().await?.id();
        let certificate = client.options().certificate();
        let dir = certificate.parent().ok_or("the client's certificate lies nowhere")?;
        let addresses: Vec<SocketAddr> = self.configs.values().map(|config| config.listen.client).collect();
        // Another connection of the same principal, past the proxies: the client itself may be cut off.
        let other = Client::connect(profile(dir, &addresses)).await?;
        other.end_session(session).await?;
        other.close().await?;
        Ok(())
    }

    /// What happens to all datagrams from now on, between members too.
    ///
    /// # Errors
    /// When the cluster has no proxies.
    pub fn weather(&self, weather: Weather) -> Result<(), Error> {
        self.network()?.weather(weather);
        Ok(())
    }

    /// Where a running member's steps are told.
    pub(crate) fn post(&self, id: u64) -> Result<&Arc<Post>, Error> {
        self.network()?;
        let runs = self.members.contains_key(&id);
        let post = self.posts.get(&id).filter(|_| runs);
        post.ok_or_else(|| format!("member {id} does not run").into())
    }

    fn network(&self) -> Result<&Network, Error> {
        let none = "the cluster has no proxies: start it with Cluster::proxied, or Cluster::setup(..).proxied()";
        self.network.as_ref().ok_or_else(|| none.into())
    }
}

/// What this project's own tests need besides.
#[doc(hidden)]
impl Cluster {
    /// Its authorities.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// A member's configuration.
    #[must_use]
    pub fn config(&self, id: u64) -> &Config {
        &self.configs[&id]
    }

    /// Changes a member's configuration, from its next start on.
    pub fn configure(&mut self, id: u64, change: impl FnOnce(&mut Config)) {
        if let Some(config) = self.configs.get_mut(&id) {
            change(config);
        }
    }

    /// Puts a member into other surroundings, from its next start on.
    pub fn surround(&mut self, id: u64, mut around: Surroundings) {
        if self.network.is_some() {
            around.dial_from = Some(dial_from(id));
        }
        self.surroundings.insert(id, around);
    }

    /// Where members that are started beside it get their ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// A running member.
    #[must_use]
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// One of a running member's metrics, by its name without `conclave_`.
    ///
    /// # Errors
    /// When the member does not run, or has no such metric.
    pub async fn metric(&self, id: u64, name: &str) -> Result<u64, Error> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let member = self.members.get(&id).ok_or("it does not run")?;
        let address = member.admin_address().ok_or("it has no admin port")?;
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("conclave_{name} ")));
        Ok(line.ok_or_else(|| format!("there is no metric {name}"))?.parse()?)
    }
}

fn profile(dir: &Path, endpoints: &[SocketAddr]) -> Options {
    let endpoints = endpoints.iter().map(ToString::to_string);
    Options::new(endpoints, dir.join("tls.crt"), dir.join("tls.key"), dir.join("peer-ca.crt"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, member) in std::mem::take(&mut self.members) {
            // A runtime must not be dropped within another.
            let ended = std::thread::spawn(move || member.kill()).join();
            if ended.is_err() && !std::thread::panicking() {
                panic!("ending a member panicked");
            }
        }
    }
}
