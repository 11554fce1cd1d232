//! What is in a queue, without taking it.

use conclave_plugin::{Bytes, Context, Path, Result, Tree};
use serde::{Deserialize, Serialize};

use crate::layout::{Item, Layout};

#[derive(Deserialize)]
pub(crate) struct Peek {
    queue: Path,
    limit: u32,
}

#[derive(Deserialize)]
pub(crate) struct DeadLetters {
    queue: Path,
    limit: u32,
    #[serde(default)]
    after: Option<String>,
}

/// What `peek` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Peeked {
    /// How many can be taken.
    pub ready: u64,
    /// How many are not due yet.
    pub delayed: u64,
    /// How many somebody works on; some of these claims may have run out.
    pub claimed: u64,
    /// How many were delivered too often.
    pub dead: u64,
    /// The first of those that can be taken.
    pub items: Vec<Dead>,
}

/// An item that is looked at.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// Its name.
    pub id: String,
    /// What was pushed.
    pub data: Bytes,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// How often it was given to somebody.
    pub deliveries: u64,
    /// When it was pushed, cluster time in milliseconds.
    pub pushed_ms: u64,
}

pub(crate) fn peek(tree: &Tree, _: &Context, args: Peek) -> Result<Peeked> {
    let layout = Layout::new(&args.queue)?;
    let count = |path: &Path| tree.exists(path).map(|stat| stat.map_or(0, |stat| stat.children));
    Ok(Peeked {
        ready: count(&layout.items)?,
        delayed: count(&layout.delayed)?,
        claimed: count(&layout.claimed)?,
        dead: count(&layout.dead)?,
        items: items(tree, &layout.items, args.limit, None)?,
    })
}

pub(crate) fn dead_letters(tree: &Tree, _: &Context, args: DeadLetters) -> Result<Vec<Dead>> {
    items(tree, &Layout::new(&args.queue)?.dead, args.limit, args.after)
}

fn items(tree: &Tree, below: &Path, limit: u32, after: Option<String>) -> Result<Vec<Dead>> {
    let children = tree.children(below).limit(limit).with_data();
    let children = match after {
        Some(after) => children.after(&after),
        None => children,
    };
    let seen = children.all()?.into_iter().map(|child| {
        let Item { header, data } = Item::decode(&child.data);
        let (id, data) = (child.name().to_owned(), Bytes::from(data));
        Dead { id, data, key: header.key, deliveries: header.deliveries, pushed_ms: header.pushed_ms }
    });
    Ok(seen.collect())
}
