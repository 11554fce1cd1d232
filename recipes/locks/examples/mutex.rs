//! Writes a znode under a lock, so that two runs never write at the same time: `cargo run --example mutex -- v9`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_locks::Mutex;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let release = std::env::args().nth(1).unwrap_or_else(|| "v1".to_owned());
    let client = Client::connect(Options::load()?).await?;
    let mutex = Mutex::new(&client, "/locks/release")?.note(format!("release {release}"));
    let guard = mutex
        .acquire()
        .within(Duration::from_secs(60))
        .on_wait(|waiting| match &waiting.holder {
            Some(holder) => println!("waiting: held by {holder}, {} ahead", waiting.ahead),
            None => println!("waiting: {} ahead", waiting.ahead),
        })
        .await?;
    println!("held: {}", guard.fence());
    // Refused if the lock is lost before it arrives.
    guard.fenced(&client)?.at("/release").create(release).or_set().await?;
    guard.release().await?;
    Ok(client.close().await?)
}
