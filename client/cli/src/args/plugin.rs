//! The command line of plugins: calling them, asking them, and what is done to them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use conclave_client::Fence;

use super::{Freshness, duration};

/// The arguments of a procedure or a query.
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Arguments in their order, or NAME=VALUE each
    #[arg(allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// All arguments as JSON: an object of names and values, or a list
    #[arg(long = "args", value_name = "JSON", conflicts_with = "args")]
    pub json_args: Option<String>,
}

/// `call`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
What it returns is printed: text and bytes as they are, numbers, and anything else as JSON. A procedure may wait, such as
for a lock; Ctrl-C cancels it then, and whatever it had taken is given back.

  conclave call counter increment /hits 5
  conclave call queue take queue=/queues/mail visibility=30s --wait 60s
  conclave call queue push --args '{\"queue\": \"/queues/mail\", \"data\": \"hello\"}'")]
pub struct Call {
    /// The name that the plugin is installed under
    pub plugin: String,
    /// The procedure's name
    pub procedure: String,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: Arguments,
    /// Wait at most this long, such as 30s; then it is cancelled [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// Only while this fence holds: /path@zxid, such as CONCLAVE_FENCE under `conclave lock`
    #[arg(long, value_name = "FENCE")]
    pub fence: Option<Fence>,
    /// It is a query: as `conclave ask`
    #[arg(long, conflicts_with_all = ["wait", "fence"])]
    pub query: bool,
}

/// `ask`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
  conclave ask discovery-query healthy /services/api --stale")]
pub struct Ask {
    /// The name that the plugin is installed under
    pub plugin: String,
    /// The query's name
    pub query: String,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: Arguments,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub fresh: Freshness,
}

/// `plugin`: what a client can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Plugin {
    /// Install a component, and wait until it is active
    Install(Install),
    /// Put another component in the place of an installed one, atomically
    Upgrade(Upgrade),
    /// List the plugins
    List,
    /// Print what is known of a plugin
    Show(Name),
    /// Print a plugin's log
    Logs(Logs),
    /// Print how often plugins ran, failed, and what it took
    Stats(Stats),
    /// List the calls that wait, in a plugin or in all, and for what
    Calls(Stats),
    /// Run a plugin no more; its waiting calls end
    Disable(Name),
    /// Run a plugin again, also one that was suspended
    Enable(Name),
    /// Go back to the version before
    Rollback(Name),
    /// Make the shadow the version that runs
    Promote(Name),
    /// Give up the shadow, or the version that waits to become active
    Abandon(Name),
    /// Take a plugin away, with all its versions; what it has written stays
    Remove(Name),
    /// Give a plugin other settings or budgets
    Set(SetPlugin),
}

/// Which plugin.
#[derive(Args, Clone, Debug)]
pub struct Name {
    /// The name that it is installed under
    pub name: String,
}

/// `plugin install`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
What the plugin needs is asked for on a terminal. Without one, --allow says it:
  --allow asked            everything that it asks for (`conclave plugin check FILE` prints it)
  --allow none             nothing: it can't touch the tree
  --allow read:/app/**     these operations on these paths, of those that it asks for; again for more

  conclave plugin install gate.wasm --allow asked --settings gate.json --budget time_ms=50")]
pub struct Install {
    /// The component
    pub file: PathBuf,
    /// The name to call it by [default: its manifest's]
    #[arg(long)]
    pub name: Option<String>,
    /// On what terms.
    #[command(flatten)]
    pub terms: Terms,
}

/// `plugin upgrade`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Settings and budgets stay as they are unless they are given. What is allowed has to be said again, as with `install`.
With --shadow the new version runs beside the old one on the same input: `conclave plugin stats` tells where it does
otherwise, and what it writes is dropped; then `promote` or `abandon` it.

  conclave plugin upgrade gate gate-2.wasm --allow asked --shadow")]
pub struct Upgrade {
    /// The name that it is installed under
    pub name: String,
    /// The new component
    pub file: PathBuf,
    /// Run it beside the present version for now
    #[arg(long)]
    pub shadow: bool,
    /// On what terms.
    #[command(flatten)]
    pub terms: Terms,
}

/// On what terms a component is installed.
#[derive(Args, Clone, Debug, Default)]
pub struct Terms {
    /// What it is allowed: asked, none, or OPERATION,...:PATTERN
    #[arg(long, value_name = "WHAT")]
    pub allow: Vec<String>,
    /// Its settings: a file that it understands; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// What one run may spend, such as fuel=1000000; again for more
    #[arg(long, value_name = "NAME=NUMBER")]
    pub budget: Vec<String>,
    /// Wait at most this long until it is active
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s")]
    pub wait: Duration,
}

/// `plugin logs`.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// The name that it is installed under
    pub name: String,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
}

/// `plugin stats`.
#[derive(Args, Clone, Debug)]
pub struct Stats {
    /// Only of this plugin
    pub name: Option<String>,
}

/// `plugin set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Budgets: fuel, time_ms, memory_bytes, host_calls, rows, written_bytes, read_bytes. Those that are not named stay; `default`
in place of a number takes one back to its default.

  conclave plugin set gate --budget time_ms=50 --budget fuel=default")]
pub struct SetPlugin {
    /// The name that it is installed under
    pub name: String,
    /// Its settings: a file that it understands; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "budget")]
    pub settings: Option<PathBuf>,
    /// What one run may spend; again for more
    #[arg(long, value_name = "NAME=NUMBER")]
    pub budget: Vec<String>,
}
