//! The gate: who waits passes when it is opened, however soon it is closed again.
//!
//! Its znode's data is JSON. Each opening and each closing raises its version by one, nothing else does: so who waits for a version
//! above that of a closed gate has seen an opening for certain.

use conclave_plugin::{Answer, Context, Create, Park, Path, Reason, Result, Tree};
use serde::{Deserialize, Serialize};

use crate::{Wait, until_ms};

#[derive(Deserialize)]
pub(crate) struct Gate {
    path: Path,
}

#[derive(Serialize, Deserialize)]
struct State {
    closed: bool,
}

/// Closes it; one that does not exist is open.
pub(crate) fn close(tree: &Tree, _: &Context, args: Gate) -> Result<()> {
    set(tree, &args.path, true)
}

/// Opens it: all who wait pass.
pub(crate) fn open(tree: &Tree, _: &Context, args: Gate) -> Result<()> {
    set(tree, &args.path, false)
}

fn set(tree: &Tree, path: &Path, closed: bool) -> Result<()> {
    let data = serde_json::to_vec(&State { closed })?;
    match read(tree, path)? {
        Some((state, _)) if state.closed == closed => Ok(()),
        Some(_) => tree.set(path, data).map(drop),
        None if tree.exists(path)?.is_some() => tree.set(path, data).map(drop),
        None => tree.create(path, data, Create::with_parents()).map(drop),
    }
}

fn read(tree: &Tree, path: &Path) -> Result<Option<(State, u64)>> {
    let Some(znode) = tree.get(path)?.filter(|znode| !znode.data.is_empty()) else { return Ok(None) };
    let state = znode.json().map_err(|error| format!("{path} is no gate: {error}"))?;
    Ok(Some((state, znode.stat.version)))
}

/// True once it is open, or was opened; false when that took too long.
pub(crate) fn wait(tree: &Tree, context: &Context, args: Wait) -> Result<Answer<bool>> {
    let seen = match context.resumed() {
        Some(resumed) if resumed.is_over() => return Ok(Answer::Done(false)),
        Some(resumed) => resumed.state::<u64>()?,
        None => None,
    };
    let Some((state, version)) = read(tree, &args.path)? else { return Ok(Answer::Done(true)) };
    if !state.closed || seen.is_some_and(|seen| version > seen) {
        return Ok(Answer::Done(true));
    }
    if args.wait == Some(0) || context.resumed().is_some_and(|resumed| resumed.reason == Reason::Deadline) {
        return Ok(Answer::Done(false));
    }
    let opened = Park::version_above(&args.path, version).or(Park::absent(&args.path));
    Ok(opened.wake_all().until_ms(until_ms(context, args.wait)).state(&version).into())
}
