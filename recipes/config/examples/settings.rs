//! Shows a configuration as it changes, and raises it by one: `cargo run --example settings`.
#![allow(clippy::print_stdout)]

use conclave_client::{Client, Options};
use conclave_config::{Config, Error, Event};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Settings {
    workers: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::connect(Options::load()?).await?;
    let config = Config::<Settings>::new(&client, "/examples/settings")?.keep(5);
    match config.update(|settings| settings.workers += 1).await {
        Err(Error::Absent { .. }) => drop(config.publish(&Settings { workers: 1 }).note("the first").await?),
        done => println!("now {:?}", done?.value),
    }
    for past in config.history().await? {
        println!("version {} by {}: {:?}", past.version, past.by, past.value);
    }
    println!("change it with: conclave set /examples/settings '{{\"workers\": 9}}'; end this with ctrl-c");
    let mut watch = config.watch().await?;
    loop {
        tokio::select! {
            event = watch.next() => match event {
                Some(event) => match event? {
                    Event::Value(value) => println!("version {}: {:?}", value.version, value.value),
                    other => println!("{other:?}; the last good one is {:?}", watch.last_good()),
                },
                None => return Ok(()),
            },
            done = tokio::signal::ctrl_c() => return Ok(done?),
        }
    }
}
