//! Run it several times: one of them leads, and when that ends another does. `cargo run --example lead -- NAME`.
#![allow(clippy::print_stdout)]

use conclave_client::{Client, Options};
use conclave_election::Election;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Options::load()?).await?;
    let mut election = Election::new(&client, "/election/example")?;
    if let Some(name) = std::env::args().nth(1) {
        election = election.name(name);
    }
    let mut leaders = election.observe().await?;
    let watching = tokio::spawn(async move {
        while let Some(Ok(leader)) = leaders.next().await {
            match leader {
                Some(leader) => println!("{leader} leads, in term {}", leader.term()),
                None => println!("nobody leads"),
            }
        }
    });
    let stop = election.keep_leading(|term| async move {
        println!("this one leads: {}", term.fence());
        tokio::signal::ctrl_c().await
    });
    stop.await??;
    client.close().await?;
    Ok(watching.await?)
}
