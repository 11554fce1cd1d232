//! What the commands about znodes take.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use conclave_client::{Consistency, Fence};

use super::{Data, duration};

/// How fresh a read must be; the client's default if nothing is said.
#[derive(Args, Clone, Copy, Debug, Default)]
#[group(multiple = false)]
pub struct Freshness {
    /// Read what the member has, even if newer writes were acknowledged elsewhere
    #[arg(long)]
    pub stale: bool,
    /// Read what was acknowledged so long ago, such as 500ms, or anything newer
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub stale_within: Option<Duration>,
    /// See every write that was acknowledged before [the default]
    #[arg(long)]
    pub linearizable: bool,
}

impl Freshness {
    /// In the protocol's words.
    #[must_use]
    pub fn consistency(self) -> Option<Consistency> {
        match self {
            Self { stale: true, .. } => Some(Consistency::Stale),
            Self { stale_within: Some(time), .. } => {
                Some(Consistency::Within(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
            }
            Self { linearizable: true, .. } => Some(Consistency::Linearizable),
            _ => None,
        }
    }
}

/// `create`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
With --ephemeral the znode lives as long as this command: until Ctrl-C, or until COMMAND ends. COMMAND
is run as by `conclave lock`, with the same variables and exit codes; the znode itself is the fence. When the session
is lost, the exit code is 123.

A GRANT is WHO:PERMISSIONS, as `conclave acl set --help` says.")]
pub struct Create {
    /// Where; with --sequential, the path that the number is appended to
    pub path: String,
    /// Its data; empty if it is not given
    #[command(flatten)]
    pub data: Data,
    /// It goes when this command ends
    #[arg(long, short)]
    pub ephemeral: bool,
    /// Complete its name with its parent's next number
    #[arg(long, short)]
    pub sequential: bool,
    /// It goes after its last child went
    #[arg(long, conflicts_with = "ephemeral")]
    pub container: bool,
    /// It goes when neither its data nor its children have changed for so long, such as 10m, and it has none
    #[arg(long, value_name = "TIME", value_parser = duration::lifetime)]
    pub ttl: Option<Duration>,
    /// Create missing parents too
    #[arg(long, short)]
    pub parents: bool,
    /// If it is there already, and of that kind, set its data
    #[arg(long, conflicts_with = "sequential")]
    pub or_set: bool,
    /// Its access list; several times for several grants [default: its parent's]
    #[arg(long, value_name = "GRANT")]
    pub acl: Vec<String>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
    /// With --ephemeral: a command to run while the znode is there
    #[arg(last = true, requires = "ephemeral", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Several paths are read at one moment: all of it is the state after one transaction. When one of them is not there, the
others are printed, and the exit code is 1.")]
pub struct Get {
    /// Which znodes
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `set`.
#[derive(Args, Clone, Debug)]
pub struct Set {
    /// Which znode
    pub path: String,
    /// The new data.
    #[command(flatten)]
    pub data: Data,
    /// Only when it is at this version
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
}

/// `update`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("edit").required(true).args(["add", "min", "max", "append", "swap"]))]
#[command(after_help = "\
Numbers are 64-bit integers, written in decimal; no data counts as 0. The whole change is one transaction: nobody can
come in between.

  conclave update /hits --add 1 --or-create
  conclave update /mode --swap blue green")]
pub struct Update {
    /// Which znode
    pub path: String,
    /// Add to the number
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub add: Option<i64>,
    /// The lesser of the number and this one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min: Option<i64>,
    /// The greater of the number and this one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max: Option<i64>,
    /// Put this behind the data
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Replace the data if it is EXPECTED
    #[arg(long, num_args = 2, value_names = ["EXPECTED", "NEW"], allow_hyphen_values = true)]
    pub swap: Option<Vec<String>>,
    /// Create it if it is not there, as if it had been there without data
    #[arg(long)]
    pub or_create: bool,
    /// Only when it is at this version
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
}

/// `delete`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
--recursive is one transaction, and so it is refused for more znodes than one can hold. --in-parts deletes a tree of any
size, the deepest znodes first, a thousand at a time; interrupted, run it again: it goes on with what is left.")]
pub struct Delete {
    /// Which znode
    pub path: String,
    /// With everything below it, as one transaction
    #[arg(long, short)]
    pub recursive: bool,
    /// With everything below it, piece by piece
    #[arg(long, conflicts_with_all = ["recursive", "if_version"])]
    pub in_parts: bool,
    /// Only when it is at this version
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
}

/// `ls`.
#[derive(Args, Clone, Debug)]
pub struct Ls {
    /// Whose children
    #[arg(default_value = "/")]
    pub path: String,
    /// Everything below it, as `conclave tree`
    #[arg(long, short, conflicts_with_all = ["names", "data", "prefix", "after", "limit"])]
    pub tree: bool,
    /// With version, size, children and kind
    #[arg(long, short)]
    pub long: bool,
    /// Names only, in JSON too: the cheapest listing
    #[arg(long, conflicts_with_all = ["long", "data"])]
    pub names: bool,
    /// With their data
    #[arg(long, conflicts_with = "long")]
    pub data: bool,
    /// Only names that begin with this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Only names after this one: the last one of the page before
    #[arg(long, value_name = "NAME")]
    pub after: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `tree`.
#[derive(Args, Clone, Debug)]
pub struct Tree {
    /// The topmost znode
    #[arg(default_value = "/")]
    pub path: String,
    /// With version and size
    #[arg(long, short)]
    pub long: bool,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `stat`.
#[derive(Args, Clone, Debug)]
pub struct Stat {
    /// Which znode
    pub path: String,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `exists`.
#[derive(Args, Clone, Debug)]
pub struct Exists {
    /// Which znode
    pub path: String,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `count`.
#[derive(Args, Clone, Debug)]
pub struct Count {
    /// Below which znode; it is not counted itself
    #[arg(default_value = "/")]
    pub path: String,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `acl`.
#[derive(Subcommand, Clone, Debug)]
pub enum Acl {
    /// Print a znode's access list
    Get(GetAcl),
    /// Replace a znode's access list
    Set(SetAcl),
}

/// `acl get`.
#[derive(Args, Clone, Debug)]
pub struct GetAcl {
    /// Which znode
    pub path: String,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `acl set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A GRANT is WHO:PERMISSIONS. WHO is anyone, me, client/NAME, or a whole URI. PERMISSIONS are letters: c creates children,
r reads, w sets the data, d deletes children, a sets the access list. The list holds for this znode alone: children have
their own, which began as copies of their parent's.

  conclave acl set /app me:crwda client/deploy:rw anyone:r")]
pub struct SetAcl {
    /// Which znode
    pub path: String,
    /// Who may do what
    #[arg(required = true, value_name = "GRANT")]
    pub grants: Vec<String>,
    /// Only when the list is at this version, which `acl get` prints
    #[arg(long, value_name = "N")]
    pub if_acl_version: Option<u64>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
}

/// `txn`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each line is an operation, as in `conclave shell`; empty lines and those that begin with # are left out:
  {\"check\": \"/app/mode\", \"data\": \"blue\"}
  {\"set\": \"/app/config\", \"data\": \"v2\", \"if_version\": 3}
  {\"create\": \"/app/history/v2\", \"parents\": true}
create, set, delete, update, check and set_acl can stand there. All of them are carried out, in order, or none; what is
refused is told with its line.")]
pub struct Txn {
    /// A file of operations; `-` is stdin
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
}
