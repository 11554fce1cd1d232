//! The long run: increments on real processes while leaders are killed, and a table of what happened.
//!
//! `cargo run --release -p conclave-cluster-tests --example increments -- --increments 100000 --kills 50`
#![allow(clippy::print_stdout)]

use std::time::Duration;

use conclave_cluster_tests::Weather;
use conclave_cluster_tests::increments::{Plan, run};
use conclave_testing::Error;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let weather = Weather { lost: 5, twice: 5, late: 5, delay: Duration::from_millis(20) };
    let mut plan = Plan { increments: 100_000, kills: 50, clients: 4, depth: 16, weather };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--increments" => plan.increments = value.parse()?,
            "--kills" => plan.kills = value.parse()?,
            "--clients" => plan.clients = value.parse()?,
            "--depth" => plan.depth = value.parse()?,
            _ => return Err(format!("{flag}: there are --increments, --kills, --clients and --depth").into()),
        }
    }
    let report = run(plan).await?;
    println!("{report}");
    match report.missing()[..] {
        [] => Ok(()),
        ref missing => Err(format!("nothing is proven without: {}", missing.join(", ")).into()),
    }
}
