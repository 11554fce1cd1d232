//! The project's chores: `cargo xtask verify`, `fix`, `tidy`, `plugins`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::path::Path;
use std::process::ExitCode;

mod gate;
mod plugins;
mod tidy;

const USAGE: &str = "usage: cargo xtask COMMAND

  verify             the gate; writes nothing: formatting, clippy, tests, docs, tidy, plugins --check
  verify --no-tests  the same without `cargo test --workspace`, for who has just run it
  fix                formats, and mends what clippy can mend
  tidy               our own rules on sources, crates, licences and docs
  plugins            build the components of plugins/ into plugins/prebuilt/
  plugins --check    fail when those are not what the sources make
  plugins --into D   build them into the directory D instead";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["verify"] => gate::verify(true),
        ["verify", "--no-tests"] => gate::verify(false),
        ["fix"] => gate::fix(),
        ["tidy"] => plugins::root().and_then(|root| tidy::run(&root)),
        ["plugins"] => plugins::build(None),
        ["plugins", "--into", directory] => plugins::build(Some(Path::new(directory))),
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
