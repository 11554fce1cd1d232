//! `conclave plugin`: writing, building and trying plugins here, without a cluster; the rest is the client's.

mod build;
mod new;
mod toolchain;
mod tried;

use std::path::Path;

use clap::Subcommand;

use crate::out::{Failure, Outcome};

/// Write, build, try, install and manage plugins
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    New(new::Args),
    Build(build::Args),
    Check(tried::Check),
    Run(tried::Run),
    Bench(tried::Bench),
    #[command(flatten)]
    Client(conclave_cli::args::Plugin),
}

/// Runs one that needs no cluster; gives back those of the client.
pub(crate) fn run(command: Command, json: bool) -> Result<Outcome, Box<conclave_cli::Command>> {
    Ok(match command {
        Command::New(args) => new::run(&args, json),
        Command::Build(args) => build::run(&args, json),
        Command::Check(args) => tried::check(&args, json),
        Command::Run(args) => tried::run(&args, json),
        Command::Bench(args) => tried::bench(&args, json),
        Command::Client(command) => return Err(Box::new(conclave_cli::Command::Plugin(command))),
    })
}

fn read(file: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(file).map_err(|error| Failure::refused("file", format!("{}: {error}", file.display())))
}

fn write(file: &Path, bytes: &[u8]) -> Outcome {
    let failed = |error: std::io::Error| Failure::broken(file.display(), error);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(file, bytes).map_err(failed)
}
