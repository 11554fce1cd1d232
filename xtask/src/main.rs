//! The project's chores: `cargo xtask plugins [--check]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

mod plugins;

const USAGE: &str = "usage: cargo xtask COMMAND

  plugins            build the components of plugins/ into plugins/prebuilt/
  plugins --check    fail when those are not what the sources make";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["plugins"] => plugins::build(),
        ["plugins", "--check"] => plugins::check(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
