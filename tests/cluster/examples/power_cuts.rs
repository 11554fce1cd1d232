//! Cuts the power of a whole cluster again and again, and counts what was lost: `power_cuts [CUTS] [SEED]`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (Some(Ok(cuts)) | None, Some(Ok(seed)) | None) =
        (args.next().or(Some(Ok(200))), args.next().or(Some(Ok(1))))
    else {
        eprintln!("usage: power_cuts [CUTS] [SEED]");
        return ExitCode::from(2);
    };
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
