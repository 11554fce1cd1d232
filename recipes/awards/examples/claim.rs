//! Claims a name for as long as the program runs: `cargo run --example claim -- /claims/tape-1`.
#![allow(clippy::print_stdout)]

use conclave_awards::{Guard, Owned};
use conclave_client::{Client, Fence, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/claims/tape-1".to_owned());
    let client = Client::connect(Options::load()?).await?;
    let session = client.session().await?;
    let created = client.at(path).create("").parents().ephemeral().await?;
    let guard = Guard::new(Owned::new(&client, Fence { path: created.path, zxid: created.stat.created }), session);
    println!("claimed: {}", guard.fence());
    tokio::select! {
        why = guard.lost() => return Err(why.into()),
        stop = tokio::signal::ctrl_c() => stop?,
    }
    guard.release().await?;
    Ok(client.close().await?)
}
