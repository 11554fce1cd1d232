//! Gives out tickets, of which there are only so many, each with a number: `cargo run --example tickets`.
#![allow(clippy::print_stdout)]

use conclave_client::{Client, Options};
use conclave_counters::{Counter, Sequence};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Options::load()?).await?;
    let left = Counter::new(&client, "/tickets/left")?;
    let numbers = Sequence::new(&client, "/tickets/numbers")?.block(10);
    let mut now = left.get().await?;
    if now == 0 {
        // Whoever comes first fills it up.
        let _ = left.compare_and_set(0, 3).await?;
        now = left.get().await?;
    }
    while now > 0 {
        match left.compare_and_set(now, now - 1).await? {
            Ok(()) => {
                println!("ticket {}, {} left", numbers.next().await?, now - 1);
                break;
            }
            Err(actual) => now = actual,
        }
    }
    Ok(client.close().await?)
}
