//! What becomes visible by itself: delayed items that are due, claims that have run out.

use conclave_plugin::{Context, Level, Result, Tree};
use serde::Deserialize;

use crate::layout::{Config, Item, Layout, time_of, timed};

/// Items that one run moves at most: few enough that a call stays fast. The next one goes on.
const BATCH: usize = 100;

/// Queues that the timer looks at, below each of the paths that it is told.
const QUEUES: u32 = 500;

/// The plugin's settings.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Znodes whose children are queues.
    below: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { below: vec!["/queues".to_owned()] }
    }
}

/// The timer: all queues that it is told of, so that who waits gets what is due.
pub(crate) fn tick(tree: &Tree, context: &Context) -> Result<()> {
    let settings: Settings = context.settings()?;
    for above in &settings.below {
        for queue in tree.children(above).limit(QUEUES).all()? {
            // What is wrong with one queue is nothing that others wait for.
            if let Err(error) = sweep(tree, context, &Layout::new(&queue.path)?) {
                context.log(Level::Warn, format!("{}: {error}", queue.path));
            }
        }
    }
    Ok(())
}

/// Makes visible what is due.
pub(crate) fn sweep(tree: &Tree, context: &Context, layout: &Layout) -> Result<()> {
    let now_ms = context.now_ms();
    let mut moved = 0;
    while let Some(child) = tree.children(&layout.delayed).with_data().first()? {
        let Some((_, name)) = time_of(&child).filter(|(due, _)| *due <= now_ms && moved < BATCH) else { break };
        // Put first: whatever is refused, nothing is lost.
        layout.put_back(tree, &layout.items, name, &Item::decode(&child.data))?;
        tree.delete(&child.path)?;
        moved += 1;
    }
    // By the names' times. Those that were extended stay where they are, and are passed over.
    let mut after = String::new();
    while moved < BATCH {
        let claims = tree.children(&layout.claimed).after(&after).limit(1).with_data();
        let Some(claim) = claims.first()? else { break };
        if time_of(&claim).is_none_or(|(until, _)| until > now_ms) {
            break;
        }
        claim.name().clone_into(&mut after);
        let item = Item::decode(&claim.data);
        if item.header.until_ms.is_none_or(|until| until <= now_ms) {
            let config = layout.config(tree)?;
            return_item(tree, layout, &config, claim.name(), item, None)?;
            tree.delete(&claim.path)?;
            moved += 1;
        }
    }
    Ok(())
}

/// Puts a claimed item back: at its old place, later, or among the dead.
pub(crate) fn return_item(
    tree: &Tree,
    layout: &Layout,
    config: &Config,
    claim: &str,
    mut item: Item,
    due_ms: Option<u64>,
) -> Result<()> {
    let mut name = std::mem::take(&mut item.header.item);
    if name.is_empty() {
        // Somebody made this claim by hand.
        claim.clone_into(&mut name);
    }
    item.header.until_ms = None;
    if item.header.deliveries >= config.max_deliveries {
        return layout.put_back(tree, &layout.dead, &name, &item);
    }
    match due_ms {
        Some(due_ms) => layout.put_back(tree, &layout.delayed, &timed(due_ms, &name), &item),
        None => layout.put_back(tree, &layout.items, &name, &item),
    }
}
