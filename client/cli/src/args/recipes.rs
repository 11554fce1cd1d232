//! The command line of recipes that a shell can use, beside the lock: semaphores, elections, services, counters, queues,
//! barriers.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Data, duration};

/// `counter`.
#[derive(Subcommand, Clone, Debug)]
#[command(after_help = "\
A counter is a znode whose data is a number, as text. Adding is one transaction: no count is ever lost.

  conclave counter add /hits
  conclave counter set /hits 0 --if 41")]
pub enum Counter {
    /// Print the number; 0 if there is no such znode
    Get {
        /// The counter's znode
        path: String,
    },
    /// Add to it, and print what it is then
    Add {
        /// The counter's znode; it is created when it is missing
        path: String,
        /// How many; negative ones subtract
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        number: i64,
    },
    /// Set it, if it is what you say it is
    Set {
        /// The counter's znode; it is created when it is missing
        path: String,
        /// What it is to be
        #[arg(allow_negative_numbers = true)]
        value: i64,
        /// What it is now
        #[arg(long = "if", value_name = "NUMBER", allow_negative_numbers = true)]
        expected: i64,
    },
}

/// `queue`.
#[derive(Subcommand, Clone, Debug)]
#[command(after_help = "\
Who takes an item has it for a while (--visibility). Acknowledged, it is gone; not acknowledged in time, the next one gets
it, and after too many deliveries it is a dead letter.

  conclave queue push /queues/mail hello --priority 5
  conclave queue take /queues/mail --wait 1m --visibility 30s
  conclave queue ack /queues/mail CLAIM")]
pub enum Queue {
    /// Add an item
    Push(Push),
    /// Take the next item, and print it
    Take(Take),
    /// An item is done: it is gone
    Ack {
        /// The queue's znode
        path: String,
        /// What `take` has told
        claim: String,
    },
    /// An item is not done: the next one gets it
    Nack {
        /// The queue's znode
        path: String,
        /// What `take` has told
        claim: String,
        /// Not before this time
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        delay: Option<Duration>,
    },
    /// Print how many items there are, and the next ones, without taking any
    Peek {
        /// The queue's znode
        path: String,
        /// How many items
        #[arg(long, default_value_t = 10)]
        limit: u32,
    },
    /// Print what was delivered too often
    Dead {
        /// The queue's znode
        path: String,
        /// How many items
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Make dead letters items again
    Redrive {
        /// The queue's znode
        path: String,
        /// Only this one [default: the first hundred]
        #[arg(long)]
        id: Option<String>,
    },
    /// Say how long items are invisible, how often they are delivered, how many there may be
    Configure(Configure),
}

impl Queue {
    /// The queue's znode.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Push(Push { path, .. }) | Self::Take(Take { path, .. }) | Self::Configure(Configure { path, .. }) => {
                path
            }
            Self::Ack { path, .. }
            | Self::Nack { path, .. }
            | Self::Peek { path, .. }
            | Self::Dead { path, .. }
            | Self::Redrive { path, .. } => path,
        }
    }
}

/// `queue push`.
#[derive(Args, Clone, Debug)]
pub struct Push {
    /// The queue's znode; it is created when it is missing
    pub path: String,
    /// The item.
    #[command(flatten)]
    pub data: Data,
    /// From 0 to 9, the greatest first
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: u8,
    /// Not to be taken before this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub delay: Option<Duration>,
    /// Push it once: another item with this key is none for a while
    #[arg(long, value_name = "KEY")]
    pub dedup: Option<String>,
}

/// `queue take`.
#[derive(Args, Clone, Debug)]
pub struct Take {
    /// The queue's znode
    pub path: String,
    /// Wait at most this long; 0 does not wait [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// How long it is yours [default: as the queue is configured, 30s at first]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub visibility: Option<Duration>,
}

/// `queue configure`.
#[derive(Args, Clone, Debug)]
pub struct Configure {
    /// The queue's znode; it is created when it is missing
    pub path: String,
    /// How long an item is whose who took it
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub visibility: Option<Duration>,
    /// How often an item is delivered before it is a dead letter
    #[arg(long, value_name = "NUMBER")]
    pub max_deliveries: Option<u64>,
    /// How many items there may be
    #[arg(long, value_name = "NUMBER")]
    pub bound: Option<u64>,
    /// How long keys are remembered
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub dedup: Option<Duration>,
}

/// `barrier`.
#[derive(Subcommand, Clone, Debug)]
#[command(after_help = "\
A closed barrier keeps all who wait until it is opened; one that does not exist is open.

  conclave barrier close /barriers/release
  conclave barrier wait /barriers/release && ./start
  conclave barrier enter /barriers/batch --members 3 -- ./batch")]
pub enum Barrier {
    /// Keep who waits from now on
    Close {
        /// The barrier's znode; it is created when it is missing
        path: String,
    },
    /// Let all pass who wait
    Open {
        /// The barrier's znode
        path: String,
    },
    /// Wait until it is open
    Wait {
        /// The barrier's znode
        path: String,
        /// Wait at most this long; 0 does not wait [default: as long as it takes]
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        wait: Option<Duration>,
    },
    /// Run a command once so many have come, and end once all of theirs have ended
    Enter(Enter),
}

/// `barrier enter`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
COMMAND runs as with `conclave lock`, whose help tells what it finds and what the exit codes mean.")]
pub struct Enter {
    /// The double barrier's znode; it is created when it is missing
    pub path: String,
    /// How many have to come
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub members: u64,
    /// Wait at most this long for the others to come [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// The time that COMMAND has between TERM and KILL, when the session is lost
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "2s")]
    pub grace: Duration,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `semaphore`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
COMMAND runs as with `conclave lock`, whose help tells what it finds and what the exit codes mean.

  conclave semaphore /limits/deploys --capacity 3 -- ./deploy")]
pub struct Semaphore {
    /// The semaphore's path
    pub path: String,
    /// How many permits there are; makes the semaphore when it is missing [default: what it has]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub capacity: Option<u64>,
    /// How many permits COMMAND needs
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub permits: u64,
    /// Wait at most this long, such as 30s; 0 does not wait [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// The time that COMMAND has between TERM and KILL, before the permits may be another's
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "2s")]
    pub grace: Duration,
    /// Print who holds permits and who waits
    #[arg(long, conflicts_with_all = ["wait", "permits", "command"])]
    pub show: bool,
    /// What to run
    #[arg(last = true, required_unless_present = "show", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `elect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
COMMAND runs while this leads, and is ended when it leads no more; as with `conclave lock`, whose help tells what it finds
and what the exit codes mean. When COMMAND ends by itself, another candidate leads.

  conclave elect /election/billing --name billing-7 -- ./billing
  conclave elect /election/billing --show")]
pub struct Elect {
    /// The election's path; it is created when it is missing
    pub path: String,
    /// What others call this candidate [default: its principal]
    #[arg(long)]
    pub name: Option<String>,
    /// The greatest leads first
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i64,
    /// What others are told of the leader, such as its address
    #[arg(long)]
    pub data: Option<String>,
    /// Wait at most this long to lead [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// The time that COMMAND has between TERM and KILL, before another may lead
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "2s")]
    pub grace: Duration,
    /// Print who leads and who waits
    #[arg(long, conflicts_with_all = ["wait", "name", "priority", "data", "command"])]
    pub show: bool,
    /// What to run
    #[arg(last = true, required_unless_present = "show", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `service`.
#[derive(Subcommand, Clone, Debug)]
#[command(after_help = "\
  conclave service register api 10.0.0.7:8080 --tag blue -- ./api
  conclave service list api
  conclave service drain api 8a3f")]
pub enum Service {
    /// Register an instance, for as long as this runs, or COMMAND does
    Register(Register),
    /// Print the services, or the instances of one
    List {
        /// Only this service
        service: Option<String>,
        /// Where services are registered
        #[arg(long, value_name = "PATH", default_value = SERVICES)]
        at: String,
    },
    /// Print the instances of a service whenever they change
    Watch {
        /// The service
        service: String,
        /// Where services are registered
        #[arg(long, value_name = "PATH", default_value = SERVICES)]
        at: String,
    },
    /// Mark an instance, so that nobody picks it any more
    Drain {
        /// The service
        service: String,
        /// The instance's id, as `list` prints it
        id: String,
        /// Where services are registered
        #[arg(long, value_name = "PATH", default_value = SERVICES)]
        at: String,
    },
}

/// Where services are registered, when nobody says anything else.
const SERVICES: &str = "/services";

/// `service register`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
COMMAND runs as with `conclave lock`, whose help tells what it finds and what the exit codes mean: it is ended when the
session is lost that the instance lives by.")]
pub struct Register {
    /// The service
    pub service: String,
    /// Where the instance is reached
    pub address: String,
    /// Its name among the instances of the service; one of the same name is replaced [default: a random one]
    #[arg(long)]
    pub id: Option<String>,
    /// Its share of the load among the others
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub weight: u64,
    /// Its version
    #[arg(long, value_name = "TEXT")]
    pub release: Option<String>,
    /// Where it stands
    #[arg(long)]
    pub region: Option<String>,
    /// Where in its region
    #[arg(long)]
    pub zone: Option<String>,
    /// What else it is; may be given several times
    #[arg(long = "tag", value_name = "TEXT")]
    pub tags: Vec<String>,
    /// Whatever else is to be known; may be given several times
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// Where services are registered
    #[arg(long, value_name = "PATH", default_value = SERVICES)]
    pub at: String,
    /// What to run; the instance goes when it ends [default: nothing, until Ctrl-C]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("it is written KEY=VALUE, and {text:?} is not"))?;
    Ok((key.to_owned(), value.to_owned()))
}
