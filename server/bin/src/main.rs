//! `conclave`: one binary for those who run a cluster, use one, or try one out.

mod check;
mod dev;
mod doctor;
mod out;
mod overview;
mod pki;
mod plugin;
mod replace;
mod restore;
mod server;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Coordination for distributed programs: a replicated tree of znodes with sessions, watches, locks and plugins.
#[derive(Debug, Parser)]
#[command(name = "conclave", version, propagate_version = false, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    globals: conclave_cli::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Server(server::Args),
    Pki(pki::Args),
    Restore(restore::Args),
    Doctor(doctor::Args),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(flatten)]
    Client(conclave_cli::Command),
}

fn main() -> ExitCode {
    let matches = overview::grouped(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let json = cli.globals.json;
    match cli.command {
        Command::Dev(args) => out::end(&dev::run(&args), false),
        Command::Server(args) => out::end(&server::run(&args, json), json),
        Command::Pki(args) => out::end(&pki::run(&args, json), json),
        Command::Restore(args) => out::end(&restore::run(&args, json), json),
        Command::Doctor(args) => doctor::run(&args, &cli.globals),
        Command::Plugin(command) => match plugin::run(command, json) {
            Ok(ended) => out::end(&ended, json),
            Err(command) => client(*command, &cli.globals),
        },
        Command::Client(command) => client(command, &cli.globals),
    }
}

fn client(command: conclave_cli::Command, globals: &conclave_cli::Globals) -> ExitCode {
    let tools = conclave_cli::Tools { verify_backup: restore::verify };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Box::pin(conclave_cli::run(command, globals, &tools))),
        Err(error) => out::end(&Err(out::Failure::broken("cannot start a runtime", error)), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        overview::grouped(Cli::command()).debug_assert();
    }

    #[test]
    fn no_command_has_an_option_of_a_global_ones_name_and_another_type() {
        fn walk(command: &clap::Command, globals: &[&clap::Arg], taken: &mut Vec<String>) {
            for sub in command.get_subcommands() {
                let differs = |arg: &clap::Arg, global: &clap::Arg| {
                    arg.get_id() == global.get_id()
                        && arg.get_value_parser().type_id() != global.get_value_parser().type_id()
                };
                let own = sub.get_arguments().filter(|arg| globals.iter().any(|global| differs(arg, global)));
                taken.extend(own.map(|arg| format!("{} {}", sub.get_name(), arg.get_id())));
                walk(sub, globals, taken);
            }
        }
        let command = Cli::command();
        let globals: Vec<&clap::Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
        let mut taken = Vec::new();
        walk(&command, &globals, &mut taken);
        assert!(globals.len() > 5 && taken.is_empty(), "{taken:?}");
    }

    #[test]
    fn every_command_has_its_place_in_the_overview() {
        assert_eq!(overview::without_a_group(&Cli::command()), Vec::<String>::new());
    }
}
