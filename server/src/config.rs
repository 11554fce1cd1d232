//! A member's configuration: one TOML file, each key also as `CONCLAVE_SECTION__KEY`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conclave_protocol::limits::{self, Limits};
use serde::{Deserialize, Serialize};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A key that there is not.
    #[error("there is no key `{key}`{}", nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key, with its section.
        key: String,
        /// The one that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong form.
    #[error("{0}")]
    Form(String),
    /// A value that can't be.
    #[error("`{key}` is {value}: {why}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A member's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's id: members of another cluster, and data directories of one, are refused.
    pub cluster: String,
    /// This member's number; its certificate must name it.
    pub member: u64,
    /// The data directory; relative to the file.
    pub data: PathBuf,
    /// The directory with `tls.crt`, `tls.key`, `peer-ca.crt` and `client-ca.crt`; relative to the file.
    pub tls: PathBuf,
    /// Make a new cluster of `members`, when the data directory is empty. Set on exactly one member, once.
    #[serde(default)]
    pub initialize: bool,
    /// Where this member listens.
    pub listen: Listen,
    /// Every member of the cluster, this one included.
    pub members: Vec<MemberAddress>,
    /// Raft's timing.
    #[serde(default)]
    pub raft: Raft,
    /// Log, checkpoints and what is kept free of the disk.
    #[serde(default)]
    pub storage: Storage,
    /// Limits of the tree, of sessions and of connections: the leader's hold.
    #[serde(default)]
    pub limits: Limits,
    /// What plugins may spend.
    #[serde(default)]
    pub plugins: Plugins,
}

/// Where a member listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For clients.
    pub client: SocketAddr,
    /// For other members.
    pub peer: SocketAddr,
    /// For metrics and health, HTTP without TLS: only on loopback.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
}

/// Where a member is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberAddress {
    /// Its number.
    pub id: u64,
    /// `host:port` for clients.
    pub client: String,
    /// `host:port` for members.
    pub peer: String,
}

/// Raft's timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Between heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// After the lease of a leader that is silent, a member waits at least this before it stands for election,
    /// milliseconds.
    pub election_min_ms: u64,
    /// At most this; also the leader's lease.
    pub election_max_ms: u64,
}

impl Default for Raft {
    /// Suits members within a few milliseconds of each other, on machines that are busy at times: an election begins 600
    /// to 800 ms after the last heartbeat (the greatest time, the leader's lease, plus one between both).
    fn default() -> Self {
        Self { heartbeat_ms: 80, election_min_ms: 200, election_max_ms: 400 }
    }
}

/// Log, checkpoints and what is kept free of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// A checkpoint is made when the log has grown by so many bytes since the last one, or by half of the tree's bytes if
    /// that is more.
    pub checkpoint_log_bytes: u64,
    /// Bytes of one file of the log: what a checkpoint makes superfluous goes in such steps.
    pub log_segment_bytes: u64,
    /// Bytes of log that stay behind a checkpoint, so that a member that was away for a moment needs no snapshot.
    pub log_keep_bytes: u64,
    /// Bytes a second of a snapshot that is sent to another member, at most.
    pub snapshot_bytes_per_s: u64,
    /// Bytes of the file that keeps room on the disk: it is given up to get out of a full disk.
    pub reserve_bytes: u64,
    /// Bytes of free disk below which the leader refuses what makes the tree grow.
    pub least_free_bytes: u64,
    /// Milliseconds that a sync of the log may take before a leader hands over, because its disk is too slow.
    pub stalled_sync_ms: u64,
}

impl Default for Storage {
    /// Checkpoints after 64 MiB, files of 32 MiB, 16 MiB kept; snapshots at 256 MiB/s; 64 MiB in reserve, 256 MiB free;
    /// a second for a sync.
    fn default() -> Self {
        Self {
            checkpoint_log_bytes: 64 << 20,
            log_segment_bytes: 32 << 20,
            log_keep_bytes: 16 << 20,
            snapshot_bytes_per_s: 256 << 20,
            reserve_bytes: 64 << 20,
            least_free_bytes: 256 << 20,
            stalled_sync_ms: 1_000,
        }
    }
}

/// What plugins may spend: of a run, where a plugin has no budgets of its own; of the planner; and of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plugins {
    /// Units of fuel of a run, about one an instruction.
    pub fuel: u64,
    /// Milliseconds of a run on the processor.
    pub time_ms: u64,
    /// Bytes of linear memory of a run.
    pub memory_bytes: u64,
    /// Calls of the host of a run.
    pub host_calls: u64,
    /// Rows that a run writes.
    pub rows: u64,
    /// Bytes that a run writes.
    pub written_bytes: u64,
    /// Bytes that a run reads.
    pub read_bytes: u64,
    /// Bytes of a component.
    pub component_bytes: u64,
    /// Milliseconds that compiling a component may take.
    pub compile_ms: u64,
    /// Hundredths of the planner's time that calls of one plugin may take while others ask for something too. A run that fails
    /// counts twentyfold.
    pub planner_share_percent: u32,
    /// Keep compiled components in the data directory, for the next start.
    pub cache: bool,
}

impl Default for Plugins {
    /// 10 million units and 5 ms, 16 MiB of memory; 10,000 calls of the host, 10,000 rows, 8 MiB written, 16 MiB read;
    /// components to 16 MiB, two minutes to compile; half of the planner's time; compiled ones are kept.
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            time_ms: 5,
            memory_bytes: 16 << 20,
            host_calls: 10_000,
            rows: 10_000,
            written_bytes: limits::TRANSACTION_BYTES as u64,
            read_bytes: 16 << 20,
            component_bytes: limits::COMPONENT_BYTES as u64,
            compile_ms: 120_000,
            planner_share_percent: 50,
            cache: true,
        }
    }
}

impl Plugins {
    /// Each number with its key, its least and its greatest value, and what it is, for whoever reads the file.
    fn all(&self) -> [(&'static str, u64, u64, u64, &'static str); 10] {
        // What the plugin host sets aside addresses for.
        const MEMORY: u64 = 256 << 20;
        [
            ("plugins.fuel", self.fuel, 10_000, limits::TRANSACTION_FUEL, "of a run, about one an instruction"),
            ("plugins.time_ms", self.time_ms, 1, 1_000, "of a run"),
            ("plugins.memory_bytes", self.memory_bytes, 1 << 20, MEMORY, "of a run"),
            ("plugins.host_calls", self.host_calls, 10, 1_000_000, "of a run"),
            ("plugins.rows", self.rows, 1, 100_000, "that a run writes"),
            ("plugins.written_bytes", self.written_bytes, 1 << 10, limits::TRANSACTION_BYTES as u64, "by a run"),
            ("plugins.read_bytes", self.read_bytes, 1 << 10, MEMORY, "by a run"),
            (
                "plugins.component_bytes",
                self.component_bytes,
                1 << 10,
                limits::COMPONENT_BYTES as u64,
                "of a component",
            ),
            ("plugins.compile_ms", self.compile_ms, 100, 600_000, "for a component"),
            ("plugins.planner_share_percent", self.planner_share_percent.into(), 1, 100, "for calls of one plugin"),
        ]
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (key, value, least, most, _) in self.all() {
            if !(least..=most).contains(&value) {
                let why = format!("it must be from {least} to {most}");
                return Err(ConfigError::Value { key, value: value.to_string(), why });
            }
        }
        Ok(())
    }

    fn write(&self, text: &mut String) {
        text.push_str(
            "\n[plugins]                         # these are the defaults; an administrator can set a plugin's own\n",
        );
        for (key, value, least, most, what) in self.all() {
            let set = format!("{} = {value}", key.trim_start_matches("plugins."));
            // Writing to a String does not fail.
            let _ = writeln!(text, "{set:<34}# {least} to {most}, {what}");
        }
        let set = format!("cache = {}", self.cache);
        let _ = writeln!(text, "{set:<34}# keep compiled components for the next start");
    }
}

/// The smallest file of the log.
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;
/// Slower, a snapshot of any size would never arrive.
const LEAST_SNAPSHOT_BYTES_PER_S: u64 = 64 << 10;
/// Every key, for suggestions.
const KEYS: [&str; 48] = [
    "cluster",
    "member",
    "data",
    "tls",
    "initialize",
    "listen.client",
    "listen.peer",
    "listen.admin",
    "members.id",
    "members.client",
    "members.peer",
    "raft.heartbeat_ms",
    "raft.election_min_ms",
    "raft.election_max_ms",
    "storage.checkpoint_log_bytes",
    "storage.log_segment_bytes",
    "storage.log_keep_bytes",
    "storage.snapshot_bytes_per_s",
    "storage.reserve_bytes",
    "storage.least_free_bytes",
    "storage.stalled_sync_ms",
    "limits.data_bytes",
    "limits.multi_steps",
    "limits.subtree_znodes",
    "limits.prune_znodes",
    "limits.session_ephemerals",
    "limits.session_timeout_min_ms",
    "limits.session_timeout_max_ms",
    "limits.once_rows",
    "limits.acl_grants",
    "limits.access_lists",
    "limits.ttl_max_ms",
    "limits.container_grace_ms",
    "limits.watches",
    "limits.queued_events",
    "limits.queued_event_bytes",
    "plugins.fuel",
    "plugins.time_ms",
    "plugins.memory_bytes",
    "plugins.host_calls",
    "plugins.rows",
    "plugins.written_bytes",
    "plugins.read_bytes",
    "plugins.component_bytes",
    "plugins.compile_ms",
    "plugins.planner_share_percent",
    "plugins.cache",
    "members",
];

impl Config {
    /// Reads a file, then what `variables` set: `CONCLAVE_LISTEN__CLIENT` sets `listen.client`, `CONCLAVE_MEMBER` sets
    /// `member`. Relative paths become relative to the file's directory.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file, the key, and the key that was probably meant.
    pub fn load(path: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let file = |why: String| ConfigError::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| file(error.to_string()))?;
        let mut config = Self::parse(&text, variables).map_err(|error| file(error.to_string()))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        config.data = dir.join(&config.data);
        config.tls = dir.join(&config.tls);
        Ok(config)
    }

    /// As [`Config::load`], from text.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Form(error.to_string()))?;
        for (name, value) in variables {
            set(&mut table, &name, &value)?;
        }
        check_keys(&table, "")?;
        let config: Self = toml::Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Form(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: &dyn std::fmt::Display, why: &str| {
            Err(ConfigError::Value { key, value: value.to_string(), why: why.to_owned() })
        };
        if self.cluster.is_empty() || self.cluster.len() > 64 || self.cluster.chars().any(|c| !c.is_ascii_graphic()) {
            return bad("cluster", &self.cluster, "an id has 1 to 64 printable characters");
        }
        if self.member == 0 {
            return bad("member", &self.member, "members are numbered from 1");
        }
        if !self.members.iter().any(|member| member.id == self.member) {
            return bad("member", &self.member, "it is not among `members`");
        }
        let mut ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) || ids.contains(&0) {
            return bad("members", &format!("{ids:?}"), "each has a number of its own, from 1");
        }
        if let Some(admin) = self.listen.admin
            && !admin.ip().is_loopback()
        {
            return bad("listen.admin", &admin, "it has no TLS, so it must be a loopback address");
        }
        let raft = self.raft;
        if raft.heartbeat_ms == 0 || raft.heartbeat_ms.saturating_mul(2) >= raft.election_min_ms {
            return bad("raft.heartbeat_ms", &raft.heartbeat_ms, "it must be less than half of raft.election_min_ms");
        }
        if raft.election_min_ms >= raft.election_max_ms {
            return bad("raft.election_min_ms", &raft.election_min_ms, "it must be less than raft.election_max_ms");
        }
        self.limits.check().map_err(ConfigError::Form)?;
        self.plugins.check()?;
        if raft.election_max_ms.saturating_mul(4) > self.limits.session_timeout_max_ms {
            let why = "sessions last at least four elections, and limits.session_timeout_max_ms is less than that";
            return bad("raft.election_max_ms", &raft.election_max_ms, why);
        }
        let storage = self.storage;
        if !(LEAST_SEGMENT_BYTES..=1 << 30).contains(&storage.log_segment_bytes) {
            return bad(
                "storage.log_segment_bytes",
                &storage.log_segment_bytes,
                "a file of the log has 64 KiB to 1 GiB",
            );
        }
        if storage.checkpoint_log_bytes == 0 {
            return bad("storage.checkpoint_log_bytes", &0, "a checkpoint after every write would be no end of them");
        }
        if storage.snapshot_bytes_per_s < LEAST_SNAPSHOT_BYTES_PER_S {
            return bad("storage.snapshot_bytes_per_s", &storage.snapshot_bytes_per_s, "it must be at least 65536");
        }
        if storage.stalled_sync_ms < raft.election_max_ms {
            let why = "it must not be less than raft.election_max_ms";
            return bad("storage.stalled_sync_ms", &storage.stalled_sync_ms, why);
        }
        Ok(())
    }

    /// The limits that hold: no session's timeout is less than four of the greatest election timeouts.
    #[must_use]
    pub fn effective_limits(&self) -> Limits {
        let least = self.raft.election_max_ms.saturating_mul(4);
        Limits { session_timeout_min_ms: self.limits.session_timeout_min_ms.max(least), ..self.limits }
    }

    /// A file with every key, as an example.
    #[must_use]
    pub fn example() -> String {
        let mut text = String::from(EXAMPLE);
        for (name, value, least, most) in Limits::default().all() {
            let set = format!("{name} = {value}");
            // Writing to a String does not fail.
            let _ = writeln!(text, "{set:<34}# {least} to {most}");
        }
        Plugins::default().write(&mut text);
        text
    }
}

/// All but the limits, which know their own defaults and bounds.
const EXAMPLE: &str = r#"# One member of a cluster. Each key can also be set as CONCLAVE_SECTION__KEY, such as CONCLAVE_LISTEN__CLIENT.
cluster = "production"            # members of another cluster are refused
member = 1                        # this member's number; its certificate must name it
data = "data"                     # the data directory, relative to this file
tls = "tls"                       # tls.crt, tls.key, peer-ca.crt, client-ca.crt: see `conclave pki`
initialize = false                # true on exactly one member, for the first start of a new cluster

[listen]
client = "0.0.0.0:7101"
peer = "0.0.0.0:7201"
admin = "127.0.0.1:7301"          # metrics and health; only loopback

[[members]]
id = 1
client = "one.example:7101"
peer = "one.example:7201"

[[members]]
id = 2
client = "two.example:7101"
peer = "two.example:7201"

[[members]]
id = 3
client = "three.example:7101"
peer = "three.example:7201"

[raft]                            # these are the defaults
heartbeat_ms = 80
election_min_ms = 200
election_max_ms = 400

[storage]                         # these are the defaults
checkpoint_log_bytes = 67108864   # a checkpoint is made after so much log, or half of the tree if that is more
log_segment_bytes = 33554432      # one file of the log
log_keep_bytes = 16777216         # log that stays behind a checkpoint, for members that were away for a moment
snapshot_bytes_per_s = 268435456  # to a member that needs one
reserve_bytes = 67108864          # a file that is given up to get out of a full disk
least_free_bytes = 268435456      # below it the leader refuses what makes the tree grow
stalled_sync_ms = 1000            # a leader whose disk is slower hands over

[limits]                          # these are the defaults; all members should have the same, the leader's hold
"#;

/// Sets the key that a variable names; variables of other programs' business are left alone.
fn set(table: &mut toml::Table, name: &str, value: &str) -> Result<(), ConfigError> {
    let Some(rest) = name.strip_prefix("CONCLAVE_") else { return Ok(()) };
    let key = rest.to_lowercase();
    let parts: Vec<&str> = key.split("__").collect();
    let dotted = parts.join(".");
    if !KEYS.contains(&dotted.as_str()) || parts.first() == Some(&"members") {
        // CONCLAVE_DIR and such are the client's; a variable with a section can only be meant for this file.
        return if parts.len() > 1 { Err(unknown(dotted)) } else { Ok(()) };
    }
    let value = match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) if key != "cluster" => toml::Value::Integer(number),
        (_, Ok(flag)) => toml::Value::Boolean(flag),
        _ => toml::Value::String(value.to_owned()),
    };
    let mut at = table;
    for section in &parts[..parts.len() - 1] {
        let next = at.entry(*section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(next) = next else { return Err(ConfigError::Form(format!("{section} is no section"))) };
        at = next;
    }
    at.insert(parts[parts.len() - 1].to_owned(), value);
    Ok(())
}

fn check_keys(table: &toml::Table, prefix: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let dotted = format!("{prefix}{key}");
        match value {
            toml::Value::Table(below) if KEYS.iter().any(|k| k.starts_with(&format!("{dotted}."))) => {
                check_keys(below, &format!("{dotted}."))?;
            }
            toml::Value::Array(items) if dotted == "members" => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    check_keys(item, "members.")?;
                }
            }
            _ if KEYS.contains(&dotted.as_str()) => {}
            _ => return Err(unknown(dotted)),
        }
    }
    Ok(())
}

fn unknown(key: String) -> ConfigError {
    let nearest =
        KEYS.into_iter().map(|k| (strsim::levenshtein(k, &key), k)).min().filter(|(d, _)| *d <= 3).map(|(_, k)| k);
    ConfigError::UnknownKey { key, nearest }
}

#[cfg(test)]
mod tests;
