//! What the commands take that last: watches and the shell; and those about sessions.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use conclave_client::{Bookmark, ChangeKind, Pattern, Zxid};

use super::duration;

/// `watch`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("scope").args(["existence", "children", "recursive"]))]
#[command(after_help = "\
Each line is one change: its kind, the path, the version of the data and the zxid. It goes on when members fail: no
change is left out or repeated. `resync` stands for changes that the cluster does not keep any more: the present state
follows it.

COMMAND runs once for every transaction that changes something here, for every `resync`, and with --snapshot for every
part of the present state, also one with nothing in it: one at a time, in order, without a shell. It reads the event as a line of JSON (as in `conclave shell`) on stdin, and finds
  CONCLAVE_ZXID   the transaction's zxid
  CONCLAVE_KIND   created, data, deleted, acl, resync or snapshot: of the first change
  CONCLAVE_PATH   its path; with `resync` and `snapshot`, the path that is watched
  CONCLAVE_COUNT  how many changes there are
When it fails, that is reported, and the watch goes on; with --exit-on-failure it ends, with COMMAND's exit code.

  conclave watch /app --recursive --names '*.json' --exec ./reload --fast")]
pub struct Watch {
    /// Which znode; it need not exist
    pub path: String,
    /// The znode and everything below it
    #[arg(long, short)]
    pub recursive: bool,
    /// Which children are created and deleted
    #[arg(long, short)]
    pub children: bool,
    /// Only whether it is created and deleted
    #[arg(long)]
    pub existence: bool,
    /// Only changes of these kinds
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_enum)]
    pub kinds: Vec<Kind>,
    /// Only znodes whose last name matches: * is any text, ? one character
    #[arg(long, value_name = "PATTERN")]
    pub names: Option<Pattern>,
    /// With the data that the znode holds now
    #[arg(long)]
    pub with_data: bool,
    /// The present state first, then every change
    #[arg(long, conflicts_with = "since")]
    pub snapshot: bool,
    /// Every change after this zxid; those that have happened already come first. ZXID@CLUSTER is refused elsewhere
    #[arg(long, value_name = "ZXID")]
    pub since: Option<Since>,
    /// End after the first event
    #[arg(long)]
    pub once: bool,
    /// With --exec: end when COMMAND fails
    #[arg(long, requires = "exec")]
    pub exit_on_failure: bool,
    /// Run a command for every event; all that follows belongs to it
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    pub exec: Vec<OsString>,
}

/// Where a watch goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// After this transaction.
    Zxid(Zxid),
    /// After this transaction of that cluster.
    Bookmark(Bookmark),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(zxid) => Ok(Self::Zxid(Zxid(zxid))),
            Err(_) => match text.parse() {
                Ok(bookmark) => Ok(Self::Bookmark(bookmark)),
                Err(_) => {
                    Err(format!("a zxid, such as 17, or a bookmark, such as 17@6f1c, is expected; it is {text:?}"))
                }
            },
        }
    }
}

/// A kind of change.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The znode was created
    Created,
    /// Its data was set
    Data,
    /// It was deleted
    Deleted,
    /// Its access list was set
    Acl,
}

impl From<Kind> for ChangeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Created => Self::Created,
            Kind::Data => Self::Data,
            Kind::Deleted => Self::Deleted,
            Kind::Acl => Self::Acl,
        }
    }
}

/// `shell`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Stdin is requests, stdout what answers them, and events: one JSON object a line, such as
  {\"id\": 1, \"create\": \"/jobs/job-\", \"sequential\": true, \"ephemeral\": true}
  {\"id\": 1, \"zxid\": 17, \"ok\": {\"path\": \"/jobs/job-0000000000\", \"stat\": {...}}}
Many requests can be on their way at a time; `id` comes back. At the end of stdin what is on its way is answered, then the
session is closed: its ephemeral znodes go. client/script/SHELL.md is the whole language, with examples.")]
pub struct Shell {
    /// The timeout to ask for, if a session is opened, such as 10s
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub session_timeout: Option<Duration>,
}

/// `session`.
#[derive(Subcommand, Clone, Debug)]
pub enum Session {
    /// List open sessions: yours, or everybody's for those who may administer the root
    List(ListSessions),
    /// Print a session and its ephemeral znodes
    Show(ShowSession),
    /// End a session: its ephemeral znodes go, its locks are free
    Kill(KillSession),
}

/// `session list`.
#[derive(Args, Clone, Debug)]
pub struct ListSessions {}

/// `session show`.
#[derive(Args, Clone, Debug)]
pub struct ShowSession {
    /// Its number
    pub session: u64,
}

/// `session kill`.
#[derive(Args, Clone, Debug)]
pub struct KillSession {
    /// Its number
    pub session: u64,
}
