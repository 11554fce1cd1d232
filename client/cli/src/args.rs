//! The command line: what can be asked, and in which words.

mod duration;
mod live;
mod plugin;
mod recipes;
mod tree;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

pub use live::{KillSession, Kind, ListSessions, Session, Shell, ShowSession, Since, Watch};
pub use plugin::{Arguments, Ask, Call, Install, Logs, Name, Plugin, SetPlugin, Stats, Terms, Upgrade};
pub use recipes::{Barrier, Configure, Counter, Elect, Enter, Push, Queue, Register, Semaphore, Service, Take};
pub use tree::{Acl, Count, Create, Delete, Exists, Freshness, Get, GetAcl, Ls, Set, SetAcl, Stat, Tree, Txn, Update};

/// Options that every command has.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Print JSON for programs; errors too, on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// The .conclave directory of the cluster [default: CONCLAVE_DIR, else .conclave here or above]
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The time that a request may take, such as 500ms, 10s or 2m [default: client.toml's, else 10s]
    #[arg(long, global = true, value_name = "TIME", env = "CONCLAVE_TIMEOUT", value_parser = duration::parse, hide_env_values = true)]
    pub timeout: Option<Duration>,
    /// The znode that all paths are relative to, as if it were the root; plugins see it as the root too
    #[arg(long, global = true, value_name = "PATH", env = "CONCLAVE_NAMESPACE", hide_env_values = true)]
    pub namespace: Option<String>,
    /// Connect to these members, HOST:PORT,... [default: CONCLAVE_ENDPOINTS, else client.toml's]
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',', hide_short_help = true)]
    pub endpoints: Vec<String>,
    /// Show this certificate, a PEM file [default: CONCLAVE_CERTIFICATE, else client.toml's]
    #[arg(long, global = true, value_name = "FILE", requires_all = ["key", "ca"], hide_short_help = true)]
    pub certificate: Option<PathBuf>,
    /// The certificate's key, a PEM file [default: CONCLAVE_KEY, else client.toml's]
    #[arg(long, global = true, value_name = "FILE", requires_all = ["certificate", "ca"], hide_short_help = true)]
    pub key: Option<PathBuf>,
    /// The authority that members' certificates are issued by, a PEM file [default: CONCLAVE_CA, else client.toml's]
    #[arg(long, global = true, value_name = "FILE", requires_all = ["certificate", "key"], hide_short_help = true)]
    pub ca: Option<PathBuf>,
}

/// What a client can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Create a znode
    Create(Create),
    /// Print a znode's data, or that of several, read at one moment
    Get(Get),
    /// Replace a znode's data
    Set(Set),
    /// Change a znode's data by what it is: add, min, max, append, swap
    Update(Update),
    /// Delete a znode
    Delete(Delete),
    /// List a znode's children
    Ls(Ls),
    /// Draw a znode and everything below it, as of one moment
    Tree(Tree),
    /// Print a znode's stat
    Stat(Stat),
    /// Tell whether a znode is there: exit code 0 if it is, 1 if it is not
    Exists(Exists),
    /// Count the znodes below one
    Count(Count),
    /// Show and set who may do what to a znode
    #[command(subcommand)]
    Acl(Acl),
    /// Carry out many operations as one transaction, all or nothing
    Txn(Txn),
    /// Print changes as they happen, or run a command for each
    Watch(Watch),
    /// Create a tree of znodes from a JSON file
    Import(Import),
    /// Write a tree of znodes to a JSON file
    Export(Export),
    /// Run a command while holding a lock
    Lock(Lock),
    /// Run a command while holding permits of a semaphore
    Semaphore(Semaphore),
    /// Run a command while leading an election
    Elect(Elect),
    /// Register services, list and watch their instances
    #[command(subcommand)]
    Service(Service),
    /// Push items to queues, take and settle them
    #[command(subcommand)]
    Queue(Queue),
    /// Wait at barriers, open and close them
    #[command(subcommand)]
    Barrier(Barrier),
    /// Count
    #[command(subcommand)]
    Counter(Counter),
    /// Call a plugin's procedure
    Call(Call),
    /// Ask a plugin's query
    Ask(Ask),
    /// What is done to plugins. The program has more commands of that name, and passes these on.
    #[command(skip)]
    Plugin(Plugin),
    /// Print members, leader, zxid and digests
    Status(Status),
    /// Show who belongs to the cluster, add and remove members
    #[command(subcommand)]
    Cluster(Cluster),
    /// Write the whole tree to a file, from which `conclave restore` makes a new cluster
    Backup(Backup),
    /// Measure the cluster under load
    Bench(Bench),
    /// List, show and end sessions
    #[command(subcommand)]
    Session(Session),
    /// Speak JSON, a line for each request, reply and event: one session, for programs in any language
    Shell(Shell),
}

/// Where data comes from.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct Data {
    /// The data; `-` reads it from stdin
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    pub positional: Option<String>,
    /// The data, whatever it looks like
    #[arg(long = "data", value_name = "DATA", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Read the data from this file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The file is what `conclave export` writes:
  {\"path\": \"/app\", \"data\": \"text\", \"children\": [{\"name\": \"a\", \"data\": {\"base64\": \"AP8=\"}}]}
`data` and `children` may be left out. At most 5000 znodes and 3 MiB are one transaction; more are several, so others
can see a part.")]
pub struct Import {
    /// A JSON file; `-` is stdin
    pub file: PathBuf,
    /// Replace the data of znodes that exist already; those that are not in the file are left alone
    #[arg(long)]
    pub replace: bool,
}

/// `export`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Ephemeral znodes are left out. All of it is as of one zxid, however large it is.")]
pub struct Export {
    /// Which znode, with everything below it
    #[arg(default_value = "/")]
    pub path: String,
    /// Write to this file; `-` is stdout
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

/// `lock`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
COMMAND runs in a process group of its own, without a shell; INT, TERM and HUP are passed on to it. It finds
  CONCLAVE_FENCE        /path@zxid: what --fence takes
  CONCLAVE_FENCE_TOKEN  the zxid alone, for other systems: it rises with each holder
When the cluster is not heard for so long that the lock may soon be another's, COMMAND gets TERM, and KILL in time.

Exit codes: COMMAND's (128 + N when signal N ended it)  123 the lock was lost  124 waited too long
            125 conclave failed  126 COMMAND cannot be run  127 it is not found")]
pub struct Lock {
    /// The lock's path; it is created when it is missing
    pub path: String,
    /// Wait at most this long, such as 30s; 0 does not wait [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// The time that COMMAND has between TERM and KILL, before the lock may be another's
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "2s")]
    pub grace: Duration,
    /// Print who holds it and who waits
    #[arg(long, conflicts_with_all = ["wait", "command"])]
    pub show: bool,
    /// What to run
    #[arg(last = true, required_unless_present = "show", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `status`.
#[derive(Args, Clone, Debug)]
pub struct Status {}

/// `cluster`.
#[derive(Subcommand, Clone, Debug)]
pub enum Cluster {
    /// Print the members: who votes, where they are, who is behind
    List,
    /// Add a member, wait until it has caught up, then give it its vote
    Add(Add),
    /// Take a member out of the cluster, for good
    #[command(after_help = "\
It is refused when too few of the other voters answer: nothing could be written then. A member that leads hands over first.

  conclave cluster remove 2")]
    Remove {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Have the leader hand over to another voter, such as before its machine is shut down
    StepDown,
}

/// `cluster add`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Numbers rise: none that was a member's is used again. The new member needs a certificate for its number and a
configuration with its own addresses; start it before or after this. Interrupted, run it again: it goes on from there.

  conclave pki issue member 4 --dir pki --out four/tls
  conclave server --config four/member.toml &
  conclave cluster add 4 --client four.example:7101 --peer four.example:7201")]
pub struct Add {
    /// Its number: above that of every member
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub client: String,
    /// Where members reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: String,
    /// It has no vote, and gets none: for reads far away
    #[arg(long)]
    pub learner: bool,
    /// Wait at most this long until it has caught up
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10m")]
    pub wait: Duration,
}

/// `backup`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Every write that was acknowledged before is in it. The file is written as FILE.part, verified to the last row, and only
then gets its name. It is not encrypted, and holds everything.

  conclave backup monday.backup
  conclave restore monday.backup --dir one/data --cluster second")]
pub struct Backup {
    /// The file; it must not be there yet
    pub file: PathBuf,
    /// Replace the file
    #[arg(long)]
    pub overwrite: bool,
    /// What the member has, even if newer writes were acknowledged elsewhere: works without a leader
    #[arg(long)]
    pub stale: bool,
}

/// What `bench` does over and over.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Set znodes, each client its own
    Write,
    /// Get znodes
    Read,
    /// Create znodes, sequential
    Create,
    /// Call the plugin `counter` on one znode that all share
    Counter,
    /// Lock and unlock one mutex that all share
    Lock,
}

/// `bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each client has a connection and a session of its own, and keeps DEPTH requests on their way. What it makes lies below
/bench-N and is deleted at the end.")]
pub struct Bench {
    /// What to do
    #[arg(long, short, value_enum, default_value = "write")]
    pub workload: Workload,
    /// How many clients
    #[arg(long, short, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// How many requests of each client are on their way at a time
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub depth: u32,
    /// How long it is measured
    #[arg(long, short, default_value_t = 10.0, value_parser = duration::seconds)]
    pub seconds: f64,
    /// Bytes of data in a znode
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Seconds of load before it is measured
    #[arg(long, default_value_t = 1.0, value_parser = duration::seconds)]
    pub warmup: f64,
    /// Reads see every acknowledged write
    #[arg(long)]
    pub linearizable: bool,
    /// Leave the znodes there
    #[arg(long)]
    pub keep: bool,
}

#[cfg(test)]
mod tests;
