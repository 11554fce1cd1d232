//! A queue: at least once, in order of priority and age, one taker an item. See the README for what it promises.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod layout;
mod sweep;
#[cfg(test)]
mod tests;
mod view;

use conclave_plugin::{Answer, Bytes, Context, Create, Park, Path, Reason, Result, Timer, Tree};
use serde::{Deserialize, Serialize};

use layout::{Config, Header, ITEM_BYTES, Item, Layout, PRIORITIES, item_name, timed};
use sweep::{return_item, sweep};
pub use view::{Dead, Peeked};
use view::{dead_letters, peek};

/// The plugin.
pub struct Queue;

conclave_plugin::export!(
    Queue: timer,
    procedures(push, take, ack, nack, extend, redrive, configure),
    queries(peek, dead_letters)
);

#[derive(Deserialize)]
struct Push {
    queue: Path,
    data: Bytes,
    priority: u64,
    #[serde(default)]
    delay: Option<u64>,
    #[serde(default)]
    key: Option<String>,
}

/// What `push` answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The item.
    pub id: String,
    /// An item of this key was pushed lately: this is that one, and nothing was added.
    pub duplicate: bool,
}

#[derive(Deserialize)]
struct Take {
    queue: Path,
    #[serde(default)]
    wait: Option<u64>,
    #[serde(default)]
    visibility: Option<u64>,
}

/// What `take` answers: an item, and the claim on it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The claim: what `ack`, `nack` and `extend` want.
    pub claim: String,
    /// The item.
    pub id: String,
    /// What was pushed.
    pub data: Bytes,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// How often it was given to somebody, this time included.
    pub deliveries: u64,
    /// When the claim runs out, cluster time in milliseconds.
    pub until_ms: u64,
}

#[derive(Deserialize)]
struct Claim {
    queue: Path,
    claim: String,
    #[serde(default)]
    delay: Option<u64>,
    #[serde(default)]
    visibility: Option<u64>,
}

#[derive(Deserialize)]
struct Redrive {
    queue: Path,
    #[serde(default)]
    id: Option<String>,
    limit: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configure {
    queue: Path,
    #[serde(default)]
    visibility: Option<u64>,
    #[serde(default)]
    max_deliveries: Option<u64>,
    #[serde(default)]
    bound: Option<u64>,
    #[serde(default)]
    dedup: Option<u64>,
}

fn push(tree: &Tree, context: &Context, args: Push) -> Result<Pushed> {
    let layout = Layout::new(&args.queue)?;
    let config = layout.config(tree)?;
    if args.priority > PRIORITIES {
        return Err(format!("the priority {} is none of 0 to {PRIORITIES}, the greatest first", args.priority).into());
    }
    let bytes = args.data.len();
    if bytes > ITEM_BYTES {
        return Err(format!(
            "the item has {bytes} bytes, {ITEM_BYTES} are allowed: put what is larger into a znode, and its path into the item"
        )
        .into());
    }
    let id = item_name(args.priority, context.zxid());
    if let Some(key) = &args.key {
        let path = layout.keys.join(key)?;
        if let Some(znode) = tree.get(&path)? {
            return Ok(Pushed { id: znode.text()?.to_owned(), duplicate: true });
        }
        tree.create(path, &id, Create { ttl_ms: Some(config.dedup_ms), ..Create::with_parents() })?;
    }
    let mut there = 0;
    for path in [&layout.items, &layout.delayed, &layout.claimed] {
        there += tree.exists(path)?.map_or(0, |stat| stat.children);
    }
    if there >= config.bound {
        return Err(format!("{} is full: it has {there} items, {} are allowed", args.queue, config.bound).into());
    }
    let header = Header { pushed_ms: context.now_ms(), key: args.key, ..Header::default() };
    let item = Item { header, data: args.data.into_vec() };
    match args.delay.filter(|delay| *delay > 0) {
        Some(delay) => {
            let name = timed(context.now_ms().saturating_add(delay), &id);
            layout.put(tree, &layout.delayed, &name, &item)?;
        }
        None => layout.put(tree, &layout.items, &id, &item)?,
    }
    Ok(Pushed { id, duplicate: false })
}

fn take(tree: &Tree, context: &Context, args: Take) -> Result<Answer<Option<Taken>>> {
    let layout = Layout::new(&args.queue)?;
    let resumed = context.resumed();
    if let Some(resumed) = resumed.filter(|resumed| resumed.is_over()) {
        if let Some(taken) = resumed.done::<Option<Taken>>()?.flatten() {
            undo(tree, &layout, &taken)?;
        }
        return Ok(Answer::Done(None));
    }
    sweep(tree, context, &layout)?;
    while let Some(first) = tree.children(&layout.items).with_data().first()? {
        let mut item = Item::decode(&first.data);
        tree.delete(&first.path)?;
        if item.data.len() > ITEM_BYTES {
            // Somebody made it by hand. Nobody can be given it, and it must not keep the others.
            layout.put_back(tree, &layout.dead, first.name(), &item)?;
            continue;
        }
        let visibility_ms = match args.visibility {
            Some(visibility_ms) => visibility_ms,
            None => layout.config(tree)?.visibility_ms,
        };
        let until_ms = context.now_ms().saturating_add(visibility_ms);
        item.header.deliveries += 1;
        item.header.until_ms = Some(until_ms);
        first.name().clone_into(&mut item.header.item);
        let claim = timed(until_ms, &format!("{:020}", context.zxid()));
        layout.put(tree, &layout.claimed, &claim, &item)?;
        let Header { deliveries, key, .. } = item.header;
        let (id, data) = (first.name().to_owned(), Bytes::from(item.data));
        return Ok(Answer::Done(Some(Taken { claim, id, data, key, deliveries, until_ms })));
    }
    let is_last = resumed.is_some_and(|resumed| resumed.reason == Reason::Deadline);
    if is_last || args.wait == Some(0) {
        return Ok(Answer::Done(None));
    }
    let until_ms = match resumed.map(|resumed| resumed.state::<Option<u64>>()).transpose()?.flatten() {
        Some(until_ms) => until_ms,
        None => args.wait.map(|wait| context.now_ms().saturating_add(wait)),
    };
    Ok(Park::children(&layout.items).wake_one().until_ms(until_ms).state(&until_ms).into())
}

/// Puts back what nobody got: it does not count as delivered.
fn undo(tree: &Tree, layout: &Layout, taken: &Taken) -> Result<()> {
    let path = layout.claimed.join(&taken.claim)?;
    let Some(znode) = tree.get(&path)? else { return Ok(()) };
    let mut item = Item::decode(&znode.data);
    tree.delete(&path)?;
    item.header.deliveries = item.header.deliveries.saturating_sub(1);
    return_item(tree, layout, &Config { max_deliveries: u64::MAX, ..Config::default() }, &taken.claim, item, None)
}

fn ack(tree: &Tree, context: &Context, args: Claim) -> Result<()> {
    let layout = Layout::new(&args.queue)?;
    let (path, _) = claimed(tree, context, &layout, &args)?;
    tree.delete(path)
}

fn nack(tree: &Tree, context: &Context, args: Claim) -> Result<()> {
    let layout = Layout::new(&args.queue)?;
    let (path, item) = claimed(tree, context, &layout, &args)?;
    tree.delete(path)?;
    let due_ms = args.delay.filter(|delay| *delay > 0).map(|delay| context.now_ms().saturating_add(delay));
    return_item(tree, &layout, &layout.config(tree)?, &args.claim, item, due_ms)
}

/// The new end of the claim.
fn extend(tree: &Tree, context: &Context, args: Claim) -> Result<u64> {
    let layout = Layout::new(&args.queue)?;
    let (path, mut item) = claimed(tree, context, &layout, &args)?;
    let visibility_ms = match args.visibility {
        Some(visibility_ms) => visibility_ms,
        None => layout.config(tree)?.visibility_ms,
    };
    let until_ms = context.now_ms().saturating_add(visibility_ms);
    item.header.until_ms = Some(until_ms);
    tree.set(path, item.encode()?)?;
    Ok(until_ms)
}

/// The claim, as long as it holds: from the moment at which it runs out another may have the item.
fn claimed(tree: &Tree, context: &Context, layout: &Layout, args: &Claim) -> Result<(Path, Item)> {
    let path = layout.claimed.join(&args.claim)?;
    let item = tree.get(&path)?.map(|znode| Item::decode(&znode.data));
    match item {
        Some(item) if item.header.until_ms.is_none_or(|until| until > context.now_ms()) => Ok((path, item)),
        _ => Err(format!("the claim {} is none of {}: it ran out, or was settled", args.claim, args.queue).into()),
    }
}

/// Puts dead letters back, as if they were never delivered; how many.
fn redrive(tree: &Tree, _: &Context, args: Redrive) -> Result<u64> {
    let layout = Layout::new(&args.queue)?;
    let letters = match &args.id {
        Some(id) => {
            let path = layout.dead.join(id)?;
            let Some(_) = tree.exists(&path)? else { return Err(format!("{path} does not exist").into()) };
            vec![path]
        }
        None => tree.children(&layout.dead).limit(args.limit).all()?.into_iter().map(|letter| letter.path).collect(),
    };
    for path in &letters {
        let Some(znode) = tree.get(path)? else { continue };
        let mut item = Item::decode(&znode.data);
        item.header.deliveries = 0;
        tree.delete(path)?;
        layout.put_back(tree, &layout.items, path.name(), &item)?;
    }
    Ok(letters.len() as u64)
}

/// Makes the queue, or changes what is given.
fn configure(tree: &Tree, _: &Context, args: Configure) -> Result<()> {
    let layout = Layout::new(&args.queue)?;
    let mut config = layout.config(tree)?;
    config.visibility_ms = args.visibility.unwrap_or(config.visibility_ms);
    config.max_deliveries = args.max_deliveries.unwrap_or(config.max_deliveries);
    config.bound = args.bound.unwrap_or(config.bound);
    config.dedup_ms = args.dedup.unwrap_or(config.dedup_ms);
    for (name, value) in [
        ("visibility", config.visibility_ms),
        ("max-deliveries", config.max_deliveries),
        ("bound", config.bound),
        ("dedup", config.dedup_ms),
    ] {
        if value == 0 {
            return Err(format!("{name} can't be 0").into());
        }
    }
    let data = serde_json::to_vec(&config)?;
    match tree.exists(&layout.queue)? {
        Some(_) => tree.set(&layout.queue, data).map(drop),
        None => tree.create(&layout.queue, data, Create::with_parents()).map(drop),
    }
}

impl Timer for Queue {
    fn tick(&self, tree: &Tree, context: &Context) -> Result<()> {
        sweep::tick(tree, context)
    }
}
