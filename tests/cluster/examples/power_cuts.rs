//! Cuts the power of a whole cluster again and again, and counts what was lost: `power_cuts [CUTS] [SEED]`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Result<Vec<u64>, _> = std::env::args().skip(1).map(|arg| arg.parse()).collect();
    let Ok(args) = args else {
        eprintln!("usage: power_cuts [CUTS] [SEED]");
        return ExitCode::from(2);
    };
    let (cuts, seed) = (args.first().copied().unwrap_or(200), args.get(1).copied().unwrap_or(1));
    match conclave_cluster_tests::power::cuts(cuts, seed).await {
        Ok(outcome) => {
            println!("{outcome:?}");
            if outcome.lost == 0 && outcome.acknowledged > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
