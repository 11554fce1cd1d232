//! Goes through steps together with others, each step when all are ready: `cargo run --example steps -- [MEMBERS]`, in as
//! many terminals.
#![allow(clippy::print_stdout)]

use conclave_barriers::DoubleBarrier;
use conclave_client::{Client, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let members = std::env::args().nth(1).map_or(Ok(2), |members| members.parse())?;
    let client = Client::connect(Options::load()?).await?;
    let step = DoubleBarrier::new(&client, "/barriers/step", members)?;
    for _ in 0..3 {
        println!("ready; waiting until {members} are");
        let cycle = step.run(|cycle| async move { cycle }).await?;
        println!("step {cycle} is done by all");
    }
    Ok(client.close().await?)
}
