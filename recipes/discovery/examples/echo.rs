//! Registers an instance and picks one every second, as one terminal or many: `cargo run --example echo ADDRESS`.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_discovery::{Discovery, Instance, Pick};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| format!("127.0.0.1:{}", std::process::id() % 60_000));
    let client = Client::connect(Options::load()?).await?;
    let services = Discovery::new(&client, "/services")?;
    let me = services.register(Instance::new("echo", &address)).await?;
    let view = services.view("echo").await?;
    println!("{address} is {}; end it with ctrl-c", me.path());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => match view.pick(Pick::RoundRobin) {
                Ok(echo) => println!("{} of {}{}", echo.address, view.instances().all.len(), if view.is_stale() { ", stale" } else { "" }),
                Err(error) => println!("{error}"),
            },
            done = tokio::signal::ctrl_c() => {
                done?;
                me.drain().await?;
                me.deregister().await?;
                return Ok(client.close().await?);
            }
        }
    }
}
