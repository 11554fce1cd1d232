//! The commands that a client can run: the tree, watches, locks, procedures, status and load.
//!
//! [`Globals`] and [`Command`] are parts of a clap command line; [`run`] does what was asked.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;

mod acl;
mod backup;
mod barrier;
mod bench;
mod call;
mod cluster;
mod connect;
mod counter;
mod data;
mod doctor;
mod document;
mod elect;
mod failure;
pub mod finding;
mod hold;
mod lock;
mod ls;
mod nest;
mod out;
mod plugin;
mod port;
mod queue;
mod read;
mod semaphore;
mod service;
mod session;
pub mod shell;
mod stat;
mod status;
mod supervise;
mod tree;
mod txn;
mod watch;

use std::path::Path;
use std::process::ExitCode;

pub use args::{Command, Globals};
use conclave_client::Client;
use conclave_client::plugin::BudgetSettings;
pub use plugin::in_words;

use failure::{DONE, Failure};
use out::Out;

/// Does what was asked, and says how it went: 0 done, 1 refused, 2 usage, 3 no connection, 4 outcome unknown, 5 timed
/// out; with a command of the user's, its exit code, or one of 123 to 127 as `conclave lock --help` says.
///
/// What was asked for goes to stdout, everything else to stderr.
pub async fn run(command: Command, globals: &Globals, tools: &Tools) -> ExitCode {
    let out = Out { json: globals.json };
    end(Box::pin(dispatch(command, globals, tools, out)).await, out)
}

/// Looks at a running cluster: 0 when it is sound, 1 when something was found, otherwise as [`run`].
pub async fn doctor(globals: &Globals) -> ExitCode {
    let out = Out { json: globals.json };
    let ended = async {
        let client = connect::connect(globals, connect::options(globals)?).await?;
        let ended = doctor::run(&client, out).await;
        connect::goodbye(&client).await;
        ended
    };
    end(Box::pin(ended).await, out)
}

/// What the program has that a client's library has not.
#[derive(Clone, Copy, Debug)]
pub struct Tools {
    /// Reads a backup's whole file, and recomputes every hash and sum in it; or says what is wrong.
    pub verify_backup: fn(&Path) -> Result<Verified, String>,
}

/// What a backup's file holds, by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its last transaction.
    pub zxid: u64,
    /// The digest of its rows, 32 hexadecimal digits.
    pub digest: String,
}

/// The arguments of a procedure or a query as they travel: CBOR, or no bytes.
///
/// # Errors
/// What is wrong with them.
pub fn encode_arguments(arguments: &args::Arguments) -> Result<Vec<u8>, String> {
    call::encoded(arguments).map_err(|failure| match failure {
        Failure::Usage(text) => text,
        other => other.message(),
    })
}

/// What `--budget NAME=NUMBER`, given so often, makes of the defaults.
///
/// # Errors
/// Which of them makes no sense, and why.
pub fn budgets(changes: &[String]) -> Result<BudgetSettings, String> {
    plugin::budget::change(BudgetSettings::default(), changes).map_err(|failure| match failure {
        Failure::Usage(text) => text,
        other => other.message(),
    })
}

fn end(ended: Result<u8, Failure>, out: Out) -> ExitCode {
    let code = match ended {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe() => DONE,
        Err(failure) => {
            if out.json {
                out::complain(failure.json());
            } else {
                out::complain(failure.message());
            }
            failure.exit()
        }
    };
    ExitCode::from(code)
}

async fn dispatch(command: Command, globals: &Globals, tools: &Tools, out: Out) -> Result<u8, Failure> {
    // Those that run a command of the user's keep its exit codes apart from ours.
    let holds = match &command {
        Command::Lock(args) => !args.show,
        Command::Semaphore(args) => !args.show,
        Command::Elect(args) => !args.show,
        Command::Service(args::Service::Register(args)) => !args.command.is_empty(),
        Command::Barrier(args::Barrier::Enter(_)) => true,
        Command::Create(args) => !args.command.is_empty(),
        _ => false,
    };
    let ended = async {
        let mut options = connect::options(globals)?;
        if let Command::Shell(args::Shell { session_timeout: Some(time) }) = &command {
            options = options.with_session_timeout(*time);
        }
        let client = connect::connect(globals, options).await?;
        let ended = Box::pin(with(&client, command, tools, out)).await;
        connect::goodbye(&client).await;
        ended
    };
    let ended = ended.await;
    if holds { ended.map_err(lock::as_ours) } else { ended }
}

async fn with(client: &Client, command: Command, tools: &Tools, out: Out) -> Result<u8, Failure> {
    match command {
        Command::Create(args) => tree::create(client, args, out).await,
        Command::Get(args) => read::get(client, &args, out).await,
        Command::Set(args) => tree::set(client, args, out).await,
        Command::Update(args) => tree::update(client, args, out).await,
        Command::Delete(args) => tree::delete(client, args, out).await,
        Command::Exists(args) => read::exists(client, &args, out).await,
        Command::Stat(args) => read::stat(client, &args, out).await,
        Command::Count(args) => read::count(client, &args, out).await,
        Command::Ls(args) => ls::run(client, &args, out).await,
        Command::Tree(args) => ls::tree(client, &args, out).await,
        Command::Acl(command) => acl::run(client, &command, out).await,
        Command::Session(command) => session::run(client, &command, out).await,
        Command::Txn(args) => txn::run(client, args, out).await,
        Command::Shell(_) => shell::run(client).await,
        Command::Watch(args) => watch::run(client, &args, out).await,
        Command::Lock(args) if args.show => lock::show(client, &args, out).await,
        Command::Lock(args) => lock::run(client, args, out).await,
        Command::Semaphore(args) => semaphore::run(client, args, out).await,
        Command::Elect(args) => elect::run(client, args, out).await,
        Command::Service(command) => service::run(client, command, out).await,
        Command::Queue(command) => queue::run(client, command, out).await,
        Command::Barrier(command) => barrier::run(client, command, out).await,
        Command::Counter(command) => counter::run(client, command, out).await,
        Command::Call(args) => call::run(client, args, out).await,
        Command::Ask(args) => call::ask(client, args, out).await,
        Command::Plugin(command) => plugin::run(client, command, out).await,
        Command::Status(_) => status::run(client, out).await,
        Command::Import(args) => port::import(client, &args, out).await,
        Command::Export(args) => port::export(client, &args, out).await,
        Command::Cluster(command) => cluster::run(client, &command, out).await,
        Command::Backup(args) => backup::run(client, &args, tools, out).await,
        Command::Bench(args) => bench::run(client, &args, out).await,
    }
}
