//! Ten items, divided among as many of these programs as run: `cargo run --example workers NAME`.
#![allow(clippy::print_stdout)]

use conclave_client::{Client, Options};
use conclave_groups::{Group, Partition};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| format!("worker-{}", std::process::id()));
    let client = Client::connect(Options::load()?).await?;
    let group = Group::new(&client, "/groups/example")?;
    let items = (0..10).map(|n| format!("item-{n}"));
    let mut shares = Partition::new(&group, items)?.join(&name, "").await?;
    println!("{name} is there; end it with ctrl-c");
    loop {
        tokio::select! {
            share = shares.next() => {
                let Some(share) = share else { return Ok(()) };
                let share = share?;
                println!("{name} owns {}, token {}", share.item(), share.token());
                tokio::spawn(share.run(|held| async move {
                    held.recalled().await;
                    println!("{} goes to somebody else", held.item());
                }));
            }
            done = tokio::signal::ctrl_c() => {
                done?;
                shares.leave().await?;
                return Ok(client.close().await?);
            }
        }
    }
}
