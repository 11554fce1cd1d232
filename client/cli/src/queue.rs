//! `queue`: items that are pushed, taken and settled, each by a command of its own.

use std::time::Duration;

use conclave_client::{Client, Error, Outcome, Path};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::json;

use crate::args;
use crate::data::{self, Json};
use crate::failure::{DONE, Failure, TIMED_OUT, While, span};
use crate::out::{self, Out, table};
use crate::stat::utc;
use crate::supervise::{Signals, signal_exit};

/// The plugin.
const PLUGIN: &str = "queue";

pub(crate) async fn run(client: &Client, command: args::Queue, out: Out) -> Result<u8, Failure> {
    // The plugin would say so too, in the words of its parameters.
    Path::parse(command.path()).map_err(|error| Error::from(error).writing())?;
    match command {
        args::Queue::Push(args) => push(client, args, out).await,
        args::Queue::Take(args) => take(client, args, out).await,
        args::Queue::Ack { path, claim } => {
            settle(client.call(PLUGIN, "ack").arg("queue", &path).arg("claim", &claim)).await?;
            done(out, "acknowledged", &path, &claim)
        }
        args::Queue::Nack { path, claim, delay } => {
            let mut nack = client.call(PLUGIN, "nack").arg("queue", &path).arg("claim", &claim);
            if let Some(delay) = delay {
                nack = nack.arg("delay", ms(delay));
            }
            settle(nack).await?;
            done(out, "given back", &path, &claim)
        }
        args::Queue::Peek { path, limit } => {
            let peek = client.ask(PLUGIN, "peek").arg("queue", &path).arg("limit", limit).linearizable();
            let seen = peek.typed::<Seen>().await.reading()?;
            out.show(&seen.shown(), |_| seen.text())?;
            Ok(DONE)
        }
        args::Queue::Dead { path, limit } => {
            let dead = client.ask(PLUGIN, "dead-letters").arg("queue", &path).arg("limit", limit).linearizable();
            let letters = dead.typed::<Vec<Item>>().await.reading()?;
            let shown: Vec<Shown> = letters.iter().map(Item::shown).collect();
            out.show(&json!({ "dead": shown }), |_| rows(&letters))?;
            Ok(DONE)
        }
        args::Queue::Redrive { path, id } => {
            let mut redrive = client.call(PLUGIN, "redrive").arg("queue", &path);
            if let Some(id) = id {
                redrive = redrive.arg("id", id);
            }
            let count = redrive.typed::<u64>().await.writing()?;
            out.show(&json!({ "path": path, "redriven": count }), |_| format!("redriven  {path}  {count}"))?;
            Ok(DONE)
        }
        args::Queue::Configure(args) => configure(client, args, out).await,
    }
}

async fn settle(call: conclave_client::Call) -> Result<(), Failure> {
    call.await.map(drop).writing()
}

fn done(out: Out, done: &str, path: &str, claim: &str) -> Result<u8, Failure> {
    out.show(&json!({ "done": done, "path": path, "claim": claim }), |_| format!("{done}  {path}  {claim}"))?;
    Ok(DONE)
}

/// What `push` returns.
#[derive(Deserialize, Serialize)]
struct Pushed {
    id: String,
    duplicate: bool,
}

async fn push(client: &Client, args: args::Push, out: Out) -> Result<u8, Failure> {
    let args::Push { path, data, priority, delay, dedup: key } = args;
    let item = data::read(&data)?.unwrap_or_default();
    let mut push = client.call(PLUGIN, "push").arg("queue", &path).arg("data", ByteBuf::from(item));
    push = push.arg("priority", priority);
    if let Some(delay) = delay {
        push = push.arg("delay", ms(delay));
    }
    if let Some(key) = key {
        push = push.arg("key", key);
    }
    let pushed = push.typed::<Pushed>().await.writing()?;
    out.show(&pushed, |pushed| match pushed.duplicate {
        false => format!("pushed  {path}  {}", pushed.id),
        true => format!("pushed before  {path}  {}", pushed.id),
    })?;
    Ok(DONE)
}

/// An item, as the plugin tells of it. What is not known of it in a place is not there.
#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    claim: Option<String>,
    data: ByteBuf,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    deliveries: u64,
    #[serde(default)]
    until_ms: Option<u64>,
}

/// The same for programs.
#[derive(Serialize)]
struct Shown {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
    data: Json,
    key: Option<String>,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

impl Item {
    fn shown(&self) -> Shown {
        let Self { id, claim, data, key, deliveries, until_ms } = self;
        Shown {
            id: id.clone(),
            claim: claim.clone(),
            data: Json::of(data),
            key: key.clone(),
            deliveries: *deliveries,
            until_ms: *until_ms,
        }
    }
}

async fn take(client: &Client, args: args::Take, out: Out) -> Result<u8, Failure> {
    let args::Take { path, wait, visibility } = args;
    let mut take = client.call(PLUGIN, "take").in_session().arg("queue", &path);
    if let Some(wait) = wait {
        take = take.arg("wait", ms(wait));
    }
    if let Some(visibility) = visibility {
        take = take.arg("visibility", ms(visibility));
    }
    let mut signals = Signals::listen().map_err(crate::lock::failed)?;
    let taken = tokio::select! {
        taken = take.typed::<Option<Item>>() => taken,
        // The call's future is gone then: what it may have taken is put back.
        signal = signals.next() => return Ok(signal_exit(signal)),
    };
    let item = match (taken, wait) {
        (Ok(Some(item)), _) => item,
        (Ok(None), wait) => {
            let waited = span(wait.unwrap_or_default());
            let text = format!("timed out: {path} had nothing for {waited}. Nothing was taken.");
            return Err(Failure::Exact { code: "timed-out", exit: TIMED_OUT, outcome: Outcome::NotApplied, text });
        }
        (Err(error), _) => return Err(Error::writing(error)),
    };
    if out.json {
        out.json(&item.shown())?;
        return Ok(DONE);
    }
    if out::is_terminal() {
        out.text(&String::from_utf8_lossy(&item.data))?;
    } else {
        out.bytes(&item.data)?;
    }
    let Item { id, claim, deliveries, until_ms, .. } = item;
    let (claim, until) = (claim.unwrap_or_default(), utc(until_ms.unwrap_or_default()));
    out.note(format_args!(
        "item {id}, delivery {deliveries}, yours until {until}. Done? conclave queue ack {path} {claim}"
    ));
    Ok(DONE)
}

/// What `peek` returns.
#[derive(Deserialize)]
struct Seen {
    ready: u64,
    delayed: u64,
    claimed: u64,
    dead: u64,
    items: Vec<Item>,
}

impl Seen {
    fn shown(&self) -> serde_json::Value {
        let Self { ready, delayed, claimed, dead, items } = self;
        let items: Vec<Shown> = items.iter().map(Item::shown).collect();
        json!({ "ready": ready, "delayed": delayed, "claimed": claimed, "dead": dead, "items": items })
    }

    fn text(&self) -> String {
        let Self { ready, delayed, claimed, dead, items } = self;
        let mut text = format!("ready {ready}  delayed {delayed}  claimed {claimed}  dead {dead}\n");
        if !items.is_empty() {
            text.push('\n');
            text.push_str(&rows(items));
        }
        text
    }
}

fn rows(items: &[Item]) -> String {
    /// Characters of an item's data in a table.
    const SHOWN: usize = 60;
    let row = |item: &Item| {
        let text = String::from_utf8_lossy(&item.data).replace(char::is_control, " ");
        let data: String = text.chars().take(SHOWN).collect();
        vec![item.id.clone(), item.deliveries.to_string(), item.key.clone().unwrap_or_default(), data]
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    table(&["ITEM", "DELIVERIES", "KEY", "DATA"], &[false, true, false, false], &rows)
}

async fn configure(client: &Client, args: args::Configure, out: Out) -> Result<u8, Failure> {
    let args::Configure { path, visibility, max_deliveries, bound, dedup } = args;
    let mut configure = client.call(PLUGIN, "configure").arg("queue", &path);
    if let Some(visibility) = visibility {
        configure = configure.arg("visibility", ms(visibility));
    }
    if let Some(deliveries) = max_deliveries {
        configure = configure.arg("max-deliveries", deliveries);
    }
    if let Some(bound) = bound {
        configure = configure.arg("bound", bound);
    }
    if let Some(dedup) = dedup {
        configure = configure.arg("dedup", ms(dedup));
    }
    configure.await.writing()?;
    out.show(&json!({ "done": "configured", "path": path }), |_| format!("configured  {path}"))?;
    Ok(DONE)
}

/// As plugins take times: a text with its unit.
fn ms(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
