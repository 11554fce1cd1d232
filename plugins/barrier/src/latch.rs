//! The latch: a count that goes down to nothing, once; then everybody passes for good.

use conclave_plugin::{Answer, Context, Create, Park, Path, Reason, Result, Tree};
use serde::Deserialize;

use crate::{Wait, until_ms};

#[derive(Deserialize)]
pub(crate) struct SetLatch {
    path: Path,
    count: u64,
}

#[derive(Deserialize)]
pub(crate) struct CountDown {
    path: Path,
    by: u64,
}

/// Makes a latch; one that is there has to be deleted first, with what is below it.
pub(crate) fn set_latch(tree: &Tree, _: &Context, args: SetLatch) -> Result<()> {
    tree.create(&args.path, args.count.to_string(), Create::with_parents())?;
    if args.count == 0 { open(tree, &args.path) } else { Ok(()) }
}

/// Counts down; what is left.
pub(crate) fn count_down(tree: &Tree, _: &Context, args: CountDown) -> Result<u64> {
    let count = read(tree, &args.path)?;
    let left = count.saturating_sub(args.by);
    if left != count {
        tree.set(&args.path, left.to_string())?;
        if left == 0 {
            open(tree, &args.path)?;
        }
    }
    Ok(left)
}

/// True once the count is 0; false when that took too long.
pub(crate) fn wait_latch(tree: &Tree, context: &Context, args: Wait) -> Result<Answer<bool>> {
    let opened = args.path.join("open")?;
    let reason = context.resumed().map(|resumed| resumed.reason);
    if matches!(reason, Some(Reason::Cancel | Reason::SessionEnd)) {
        return Ok(Answer::Done(false));
    }
    if tree.exists(&opened)?.is_some() {
        return Ok(Answer::Done(true));
    }
    read(tree, &args.path)?;
    if args.wait == Some(0) || reason == Some(Reason::Deadline) {
        return Ok(Answer::Done(false));
    }
    Ok(Park::exists(&opened).wake_all().until_ms(until_ms(context, args.wait)).into())
}

fn open(tree: &Tree, path: &Path) -> Result<()> {
    tree.create(path.join("open")?, "", Create::default()).map(drop)
}

fn read(tree: &Tree, path: &Path) -> Result<u64> {
    let znode = tree.get(path)?.ok_or_else(|| format!("{path} is no latch: set one with set-latch"))?;
    znode.text()?.parse().map_err(|_| format!("{path} is no latch: its data is no number").into())
}
