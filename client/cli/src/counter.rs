//! `counter`: numbers that many count in.

use conclave_client::Client;
use conclave_counters::{Counter, Error};
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::Out;

/// What is shown of a counter.
#[derive(Serialize)]
struct Shown {
    path: String,
    value: i64,
}

pub(crate) async fn run(client: &Client, command: args::Counter, out: Out) -> Result<u8, Failure> {
    let counter = |path: &str| Counter::new(client, path).map_err(failure);
    let (path, value) = match command {
        args::Counter::Get { path } => {
            let value = counter(&path)?.get().await.map_err(failure)?;
            (path, value)
        }
        args::Counter::Add { path, number } => {
            let value = counter(&path)?.add(number).await.map_err(failure)?;
            (path, value)
        }
        args::Counter::Set { path, value, expected } => {
            let set = counter(&path)?.compare_and_set(expected, value).await.map_err(failure)?;
            if let Err(now) = set {
                let text = format!("{path} is {now}, you said {expected}. Nothing was changed.");
                return Err(Failure::Refused { code: "check-failed", text });
            }
            (path, value)
        }
    };
    out.show(&Shown { path, value }, |shown| shown.value.to_string())?;
    Ok(DONE)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => error.writing(),
        other => Failure::Refused { code: "counter-failed", text: format!("{other}.") },
    }
}
