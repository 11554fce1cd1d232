//! At most three of these run at a time, on however many machines: `cargo run --example semaphore`.
#![allow(clippy::print_stdout)]

use conclave_client::{Client, Options};
use conclave_locks::Semaphore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(Options::load()?).await?;
    let crawlers = Semaphore::new(&client, "/limits/crawlers", 3)?;
    let crawled = crawlers.run(async |held| {
        println!("one of three: {}", held.fence());
        let view = crawlers.view().await?;
        println!("{} of {:?} permits are held, {} wait", view.used(), view.capacity, view.line.len());
        Ok::<_, conclave_locks::Error>(())
    });
    crawled.await??;
    Ok(client.close().await?)
}
