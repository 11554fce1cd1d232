//! A cluster of real processes: started one by one, killed, stopped and continued by their ids.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_protocol::limits::Limits;
use conclave_server::{Config, Listen, MemberAddress, RaftTiming, StorageOptions};
use conclave_testing::{Done, Error, Pki, Ports, Proxy, Weather};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binary;
use crate::patience::until_async;

/// How long a member may take to tell its metrics; one that is stopped never does.
const METRICS_WITHIN: Duration = Duration::from_millis(500);

/// A cluster whose members are processes of the real binary.
///
/// When it is dropped they are killed, and its directory goes, unless the test has failed: then it stays, and its path is
/// printed.
pub struct Processes {
    dir: tempfile::TempDir,
    pki: Pki,
    seats: BTreeMap<u64, Seat>,
    /// Theirs while they are down, too.
    _ports: Ports,
}

struct Seat {
    config: Config,
    file: PathBuf,
    log: PathBuf,
    process: Option<Child>,
    proxy: Option<Proxy>,
}

/// What a member says about itself, of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    values: BTreeMap<String, u64>,
}

impl Processes {
    /// Starts so many members, with a proxy before each if there is weather, and waits until all are ready. Clients know
    /// the proxies only.
    ///
    /// # Errors
    /// When the binary cannot be had, or the members are not ready in time.
    pub async fn start(members: u64, weather: Option<Weather>) -> Result<Self, Error> {
        Self::start_with(members, weather, |_| {}).await
    }

    /// As [`Processes::start`], with configurations that `change` has seen.
    ///
    /// # Errors
    /// As [`Processes::start`].
    pub async fn start_with(
        members: u64,
        weather: Option<Weather>,
        change: impl Fn(&mut Config),
    ) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("conclave-processes-").tempdir()?;
        let pki = Pki::create(dir.path())?;
        let ports = Ports::default();
        let (mut addresses, mut listens) = (Vec::new(), Vec::new());
        for id in 1..=members {
            let listen = Listen { client: ports.udp()?, peer: ports.udp()?, admin: Some(ports.tcp()?) };
            let client = if weather.is_some() { ports.udp()? } else { listen.client };
            addresses.push(MemberAddress { id, client: client.to_string(), peer: listen.peer.to_string() });
            listens.push(listen);
        }
        let mut cluster = Self { dir, pki, seats: BTreeMap::new(), _ports: ports };
        for (address, listen) in addresses.iter().zip(listens) {
            let seat = cluster.seat(address, listen, &addresses, weather, &change).await?;
            cluster.seats.insert(address.id, seat);
        }
        for id in 1..=members {
            cluster.launch(id)?;
        }
        for id in 1..=members {
            cluster.ready(id).await?;
        }
        Ok(cluster)
    }

    async fn seat(
        &self,
        address: &MemberAddress,
        listen: Listen,
        members: &[MemberAddress],
        weather: Option<Weather>,
        change: &impl Fn(&mut Config),
    ) -> Result<Seat, Error> {
        let home = self.dir.path().join(format!("member-{}", address.id));
        std::fs::create_dir(&home)?;
        let proxy = match weather {
            Some(weather) => Some(Proxy::start(address.client.parse()?, listen.client, weather)?),
            None => None,
        };
        let mut config = Config {
            cluster: "processes".to_owned(),
            member: address.id,
            data: home.join("data"),
            tls: self.pki.member(address.id)?,
            initialize: address.id == 1,
            listen,
            members: members.to_vec(),
            raft: RaftTiming::default(),
            storage: StorageOptions::default(),
            limits: Limits::default(),
            plugins: conclave_server::PluginOptions::default(),
        };
        change(&mut config);
        let file = home.join("member.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        Ok(Seat { config, file, log: home.join("log"), process: None, proxy })
    }

    /// Where its files are; each member's output is `member-N/log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps its directory when it is dropped.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Starts a member that does not run.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(&mut self, id: u64) -> Result<(), Error> {
        let seat = self.seats.get_mut(&id).ok_or("there is no such member")?;
        let log = File::options().create(true).append(true).open(&seat.log)?;
        let mut command = command()?;
        if let Some(level) = std::env::var_os("CONCLAVE_LOG") {
            command.env("CONCLAVE_LOG", level);
        }
        let process =
            command.arg("server").arg("--config").arg(&seat.file).stdout(log.try_clone()?).stderr(log).spawn()?;
        seat.process = Some(process);
        Ok(())
    }

    /// Waits until a member serves clients.
    ///
    /// # Errors
    /// When it has ended, or takes too long.
    pub async fn ready(&mut self, id: u64) -> Result<(), Error> {
        let admin = self.admin(id)?;
        until_async("the member is ready", async || Metrics::of(admin).await.is_some_and(|m| m.is("ready")))
            .await
            .map_err(|error| format!("member {id}: {error}: {}", self.last_words(id)).into())
    }

    fn last_words(&self, id: u64) -> String {
        let log = self.seats.get(&id).and_then(|seat| std::fs::read_to_string(&seat.log).ok()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// kill -9, and waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, id: u64) -> Result<(), Error> {
        let seat = self.seats.get_mut(&id).ok_or("there is no such member")?;
        let mut process = seat.process.take().ok_or("it does not run")?;
        if let Some(status) = process.try_wait()? {
            return Err(format!("member {id} had ended by itself: {status}: {}", self.last_words(id)).into());
        }
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Sends a signal to a member that runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn signal(&self, id: u64, signal: Signal) -> Result<(), Error> {
        let process = self.seats.get(&id).and_then(|seat| seat.process.as_ref()).ok_or("it does not run")?;
        Ok(kill_process(pid(process.id())?, signal)?)
    }

    /// The members whose process has ended though nobody killed it.
    pub fn fallen(&mut self) -> Vec<u64> {
        let ended =
            |seat: &mut Seat| seat.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
        self.seats.iter_mut().filter_map(|(id, seat)| ended(seat).then_some(*id)).collect()
    }

    /// Waits until a member leads, and gives its number: the one of the highest term, of those that say so.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn leader(&self) -> Result<u64, Error> {
        self.leader_after(0).await.map(|(leader, _)| leader)
    }

    /// Waits until a member leads in a term after this one; gives its number and its term.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn leader_after(&self, term: u64) -> Result<(u64, u64), Error> {
        let mut found = None;
        until_async("a member leads", async || {
            let mut leaders = Vec::new();
            for (id, seat) in self.seats.iter().filter(|(_, seat)| seat.process.is_some()) {
                let Some(admin) = seat.config.listen.admin else { continue };
                let metrics = Metrics::of(admin).await.filter(|metrics| metrics.is("is_leader"));
                leaders.extend(metrics.map(|metrics| (metrics.value("term"), *id)));
            }
            found = leaders.into_iter().max().filter(|(at, _)| *at > term);
            found.is_some()
        })
        .await?;
        found.map(|(term, id)| (id, term)).ok_or_else(|| "there is no leader".into())
    }

    /// Where a member tells its metrics.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn admin(&self, id: u64) -> Result<SocketAddr, Error> {
        self.seats.get(&id).and_then(|seat| seat.config.listen.admin).ok_or_else(|| "there is no such member".into())
    }

    /// The members' numbers.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.seats.keys().copied().collect()
    }

    /// The proxy before a member.
    #[must_use]
    pub fn proxy(&self, id: u64) -> Option<&Proxy> {
        self.seats.get(&id).and_then(|seat| seat.proxy.as_ref())
    }

    /// What all proxies have done.
    #[must_use]
    pub fn carried(&self) -> Done {
        let mut all = Done::default();
        for proxy in self.seats.values().filter_map(|seat| seat.proxy.as_ref()) {
            all += proxy.done();
        }
        all
    }

    /// The options of a client with a certificate of this name.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn options(&self, name: &str) -> Result<Options, Error> {
        let dir = self.pki.client(name)?;
        Ok(Options::new(self.endpoints(), dir.join("tls.crt"), dir.join("tls.key"), dir.join("peer-ca.crt")))
    }

    /// A client with a certificate of this name.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn client(&self, name: &str) -> Result<Client, Error> {
        Ok(Client::connect(self.options(name)?).await?)
    }

    /// The command line as the client of this name, who asks for this session time-out.
    ///
    /// # Errors
    /// When the certificate cannot be made, or there is no binary.
    pub fn cli(&self, name: &str, session_timeout: Duration) -> Result<Command, Error> {
        let dir = self.pki.client(name)?;
        let text = format!(
            "endpoints = {:?}\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\nca = \"peer-ca.crt\"\nsession_timeout_ms = {}\n",
            self.endpoints(),
            session_timeout.as_millis()
        );
        std::fs::write(dir.join("client.toml"), text)?;
        let mut command = command()?;
        command.env("CONCLAVE_DIR", dir);
        Ok(command)
    }

    fn endpoints(&self) -> Vec<String> {
        let Some(seat) = self.seats.values().next() else { return Vec::new() };
        seat.config.members.iter().map(|member| member.client.clone()).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        for process in self.seats.values_mut().filter_map(|seat| seat.process.as_mut()) {
            // Both fail when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Metrics {
    /// What the member with this admin address says; None when it does not answer.
    pub async fn of(admin: SocketAddr) -> Option<Self> {
        tokio::time::timeout(METRICS_WITHIN, Self::ask(admin)).await.ok()?.ok()
    }

    async fn ask(admin: SocketAddr) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("conclave_")?.split_once(' '));
        let values = lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
        Ok(Self { values })
    }

    /// A value, without the prefix `conclave_` of its name; 0 when it is not told.
    #[must_use]
    pub fn value(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }

    /// Whether a value is 1.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.value(name) == 1
    }
}

/// The binary, without what the environment says about clusters.
fn command() -> Result<Command, Error> {
    let mut command = Command::new(binary::conclave()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONCLAVE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

fn pid(id: u32) -> Result<Pid, Error> {
    i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| "no process has this id".into())
}
