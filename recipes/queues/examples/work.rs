//! Works on the items of a queue until it is told to stop: `cargo run --example work -- [QUEUE]`.
//!
//! Push something from elsewhere, `{"to": "ann"}` for example, and stop it with Ctrl-C: what it is working on is finished.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_queues::Queue;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Email {
    to: String,
}

/// What a worker does with an item. An error gives it back, to be tried again a second later.
async fn send(mail: &Email) -> Result<(), String> {
    match mail.to.as_str() {
        "" => Err("nobody is to have it".to_owned()),
        to => {
            println!("sent to {to}");
            Ok(())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/queues/mail".to_owned());
    let client = Client::connect(Options::load()?).await?;
    let queue = Queue::<Email>::new(&client, path)?.json().visibility(Duration::from_secs(30));
    queue.push(&Email { to: "ann".to_owned() }).dedup("welcome-ann").await?;
    println!("working on {}", queue.path());
    let stop = tokio::signal::ctrl_c();
    let done = queue.workers(4).run_until(stop, |mail| async move { send(&mail).await }).await?;
    println!("done: {} sent, {} failed, {} lost", done.acked, done.failed, done.lost);
    Ok(client.close().await?)
}
