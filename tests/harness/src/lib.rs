//! A cluster for tests: real members on real sockets and disks, in this process, with kill, restart and step-down.
//!
//! ```no_run
//! # async fn example() -> Result<(), conclave_testing::Error> {
//! let mut cluster = conclave_testing::Cluster::start(3).await?;
//! let client = cluster.client("tester").await?;
//! client.at("/greeting").create("hello").await?;
//! let leader = cluster.leader().await?;
//! cluster.kill(leader).await;
//! assert_eq!(client.at("/greeting").get().await?.data, "hello");
//! # Ok(()) }
//! ```

mod mortal;
mod pki;
mod raw;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_server::{Config, Listen, Member, MemberAddress, RaftTiming, StorageOptions, Surroundings};

pub use mortal::Mortal;
pub use pki::Pki;
pub use raw::Raw;

/// What a test can't go on after.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a condition may take to come true, before the test fails: an election and a recovery on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster whose members run in this process.
pub struct Cluster {
    dir: tempfile::TempDir,
    pki: Pki,
    configs: BTreeMap<u64, Config>,
    surroundings: BTreeMap<u64, Surroundings>,
    members: BTreeMap<u64, Member>,
}

impl Cluster {
    /// Starts so many members, and waits until all of them are ready.
    ///
    /// # Errors
    /// When a member can't start, or they are not ready in time.
    pub async fn start(members: u64) -> Result<Self, Error> {
        Self::start_with(members, |_| {}).await
    }

    /// As [`Cluster::start`], with configurations that `change` has seen.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(members: u64, change: impl Fn(&mut Config)) -> Result<Self, Error> {
        Self::start_in(members, change, |_| Surroundings::default()).await
    }

    /// As [`Cluster::start_with`], each member in other surroundings than the machine's.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_in(
        members: u64,
        change: impl Fn(&mut Config),
        around: impl Fn(u64) -> Surroundings,
    ) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("conclave-").tempdir()?;
        let pki = Pki::create(dir.path())?;
        let ports = free_ports(usize::try_from(members)? * 2)?;
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addresses: Vec<MemberAddress> = (1..=members)
            .zip(ports.chunks(2))
            .map(|(id, ports)| MemberAddress {
                id,
                client: address(ports[0]).to_string(),
                peer: address(ports[1]).to_string(),
            })
            .collect();
        let name = format!("test-{}", ports[0]);
        let mut configs = BTreeMap::new();
        for (member, ports) in addresses.iter().zip(ports.chunks(2)) {
            let tls = pki.member(member.id)?;
            let mut config = Config {
                cluster: name.clone(),
                member: member.id,
                data: dir.path().join(format!("member-{}", member.id)),
                tls,
                initialize: member.id == 1,
                listen: Listen { client: address(ports[0]), peer: address(ports[1]), admin: Some(address(0)) },
                members: addresses.clone(),
                raft: RaftTiming::default(),
                storage: StorageOptions::default(),
            };
            change(&mut config);
            configs.insert(member.id, config);
        }
        let surroundings = (1..=members).map(|id| (id, around(id))).collect();
        let mut cluster = Self { dir, pki, configs, surroundings, members: BTreeMap::new() };
        for id in 1..=members {
            cluster.launch(id).await?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

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
    pub fn surround(&mut self, id: u64, around: Surroundings) {
        self.surroundings.insert(id, around);
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

    /// The running members' numbers.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Waits until every running member serves clients.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`].
    pub async fn ready(&self) -> Result<(), Error> {
        eventually("all members are ready", || self.members.values().all(Member::is_ready)).await
    }

    /// Waits until one of the running members leads, and gives its number.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`].
    pub async fn leader(&self) -> Result<u64, Error> {
        let leader = || self.members.iter().find(|(_, member)| member.is_leader()).map(|(id, _)| *id);
        eventually("a member leads", || leader().is_some()).await?;
        leader().ok_or_else(|| "the leader has just gone".into())
    }

    /// Ends a member as kill -9 would: nothing is synced, closed or said.
    pub async fn kill(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            let ended = tokio::task::spawn_blocking(move || member.kill()).await;
            ended.expect("ending a member does not panic");
        }
    }

    /// Stops a member in good order.
    ///
    /// # Errors
    /// When its tables could not be closed.
    pub async fn stop(&mut self, id: u64) -> Result<(), Error> {
        if let Some(member) = self.members.remove(&id) {
            tokio::task::spawn_blocking(move || member.stop()).await??;
        }
        Ok(())
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

    /// Makes the leader hand over to another member.
    ///
    /// # Errors
    /// When there is no leader, or nobody takes over.
    pub async fn step_down(&self) -> Result<(), Error> {
        let leader = self.leader().await?;
        let member = self.members.get(&leader).ok_or("the leader has just gone")?;
        Ok(member.step_down().await?)
    }

    /// A client with a certificate of this name.
    ///
    /// # Errors
    /// When it can't connect.
    pub async fn client(&self, name: &str) -> Result<Client, Error> {
        Ok(Client::connect(self.options(name)?).await?)
    }

    /// The options of such a client.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn options(&self, name: &str) -> Result<Options, Error> {
        let dir = self.pki.client(name)?;
        let endpoints: Vec<String> = self.configs.values().map(|config| config.listen.client.to_string()).collect();
        self.profile(&dir, &endpoints)
    }

    /// The options of a client that knows only these members.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn options_to(&self, name: &str, members: &[u64]) -> Result<Options, Error> {
        let dir = self.pki.client(name)?;
        let endpoints: Vec<String> = members.iter().map(|id| self.configs[id].listen.client.to_string()).collect();
        self.profile(&dir, &endpoints)
    }

    fn profile(&self, dir: &Path, endpoints: &[String]) -> Result<Options, Error> {
        Ok(Options::new(endpoints.iter().cloned(), dir.join("tls.crt"), dir.join("tls.key"), dir.join("peer-ca.crt")))
    }

    /// Starts a member that was killed or stopped, and does not wait for it.
    ///
    /// # Errors
    /// When it can't start.
    pub async fn launch(&mut self, id: u64) -> Result<(), Error> {
        let config = self.configs.get(&id).ok_or_else(|| format!("there is no member {id}"))?.clone();
        let around = self.surroundings.get(&id).cloned().unwrap_or_default();
        let member = tokio::task::spawn_blocking(move || Member::start_in(&config, around)).await??;
        self.members.insert(id, member);
        Ok(())
    }
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

/// Checkpoints after little log, files of it that are small, and none of it kept: what takes hours elsewhere happens within
/// a test. Nothing is kept free of the disk.
#[must_use]
pub fn small_storage() -> StorageOptions {
    StorageOptions {
        checkpoint_log_bytes: 256 << 10,
        log_segment_bytes: 64 << 10,
        log_keep_bytes: 0,
        reserve_bytes: 0,
        least_free_bytes: 0,
        ..StorageOptions::default()
    }
}

/// Waits until a condition holds.
///
/// # Errors
/// Which condition did not come true within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// As [`eventually`], for a condition that has to be asked for.
///
/// # Errors
/// Which condition did not come true within [`PATIENCE`].
pub async fn eventually_async(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Ports that nobody listens on.
fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let sockets: Vec<UdpSocket> =
        (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    Ok(sockets.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?)
}

/// Where a directory of the cluster's lies.
fn below(dir: &Path, parts: &[&str]) -> PathBuf {
    parts.iter().fold(dir.to_owned(), |dir, part| dir.join(part))
}
