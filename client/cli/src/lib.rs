//! The commands that a client can run: the tree, watches, locks, procedures, status and load.
//!
//! [`Globals`] and [`Command`] are parts of a clap command line; [`run`] does what was asked.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;

mod base64;
mod bench;
mod call;
mod connect;
mod data;
mod document;
mod failure;
mod hold;
mod lock;
mod ls;
mod out;
mod port;
mod stat;
mod status;
mod supervise;
mod tree;
mod watch;

use std::process::ExitCode;

pub use args::{Command, Globals};
use conclave_client::Client;

use failure::{DONE, Failure};
use out::Out;

/// Does what was asked, and says how it went: 0 done, 1 refused, 2 usage, 3 no connection, 4 outcome unknown, 5 timed
/// out; with a command of the user's, its exit code, or one of 123 to 127 as `conclave lock --help` says.
///
/// What was asked for goes to stdout, everything else to stderr.
pub async fn run(command: Command, globals: &Globals) -> ExitCode {
    let out = Out { json: globals.json };
    let ended = Box::pin(dispatch(command, globals, out)).await;
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

async fn dispatch(command: Command, globals: &Globals, out: Out) -> Result<u8, Failure> {
    // Those that run a command of the user's keep its exit codes apart from ours.
    let holds = match &command {
        Command::Lock(args) => !args.show,
        Command::Create(args) => !args.command.is_empty(),
        _ => false,
    };
    let ended = async {
        let client = connect::connect(globals).await?;
        let ended = Box::pin(with(&client, command, out)).await;
        connect::goodbye(&client).await;
        ended
    };
    let ended = ended.await;
    if holds { ended.map_err(lock::as_ours) } else { ended }
}

async fn with(client: &Client, command: Command, out: Out) -> Result<u8, Failure> {
    match command {
        Command::Create(args) => tree::create(client, args, out).await,
        Command::Get(args) => tree::get(client, &args, out).await,
        Command::Set(args) => tree::set(client, args, out).await,
        Command::Delete(args) => tree::delete(client, args, out).await,
        Command::Stat(args) => tree::stat(client, &args, out).await,
        Command::Ls(args) => ls::run(client, &args, out).await,
        Command::Watch(args) => watch::run(client, &args, out).await,
        Command::Lock(args) if args.show => lock::show(client, &args, out).await,
        Command::Lock(args) => lock::run(client, args, out).await,
        Command::Call(args) => call::run(client, args, out).await,
        Command::Status(_) => status::run(client, out).await,
        Command::Import(args) => port::import(client, &args, out).await,
        Command::Export(args) => port::export(client, &args, out).await,
        Command::Bench(args) => bench::run(client, &args, out).await,
    }
}
