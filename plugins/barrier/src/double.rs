//! The double barrier: so many members enter together, and leave together, cycle after cycle.
//!
//! The barrier's znode has the cycle as JSON; its members are ephemeral znodes below `cycle-N`, a container. Members gather there
//! until they are enough: the last sets the cycle to `inside`. Who comes then waits for the next cycle. A cycle is over once
//! nobody is below `cycle-N`: the last who leaves deletes it; if the last ones die instead, it goes by itself, being a container.

use conclave_plugin::{Answer, Context, Create, Park, Path, Reason, Result, Resumed, Tree};
use serde::{Deserialize, Serialize};

use crate::{Wait, until_ms};

#[derive(Deserialize)]
pub(crate) struct Enter {
    path: Path,
    members: u64,
    #[serde(default)]
    wait: Option<u64>,
    #[serde(default)]
    note: Option<String>,
}

/// What lies in the barrier's znode.
#[derive(Clone, Serialize, Deserialize)]
struct Cycle {
    cycle: u64,
    members: u64,
    inside: bool,
}

/// What lies in a member's znode.
#[derive(Serialize)]
struct Member {
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What a waiting call takes along.
#[derive(Serialize, Deserialize)]
struct Waiting {
    /// The cycle that it is a member of; none: it waits for the next one.
    cycle: Option<u64>,
    /// When its znode was created.
    zxid: u64,
    until_ms: Option<u64>,
}

/// The number of the cycle that it entered; none when too few came in time.
pub(crate) fn enter(tree: &Tree, context: &Context, args: Enter) -> Result<Answer<Option<u64>>> {
    let session = context.session()?;
    let resumed = context.resumed();
    if let Some(resumed) = resumed.filter(|resumed| resumed.is_over()) {
        withdraw(tree, &args.path, session, resumed)?;
        return Ok(Answer::Done(None));
    }
    let waiting = resumed.map(Resumed::state::<Waiting>).transpose()?.flatten();
    let until_ms = waiting.as_ref().map_or_else(|| until_ms(context, args.wait), |waiting| waiting.until_ms);
    let (mut now, version) = current(tree, &args.path, args.members)?;
    // A member of a cycle that has begun is inside, even if that is over already.
    if let Some(mine) = waiting.as_ref().and_then(|waiting| waiting.cycle)
        && (now.cycle > mine || now.inside)
    {
        return Ok(Answer::Done(Some(mine)));
    }
    let is_last = args.wait == Some(0) || resumed.is_some_and(|resumed| resumed.reason == Reason::Deadline);
    let below = folder(&args.path, now.cycle)?;
    let place = below.join(&format!("s-{session}"))?;
    if now.inside {
        if tree.exists(&place)?.is_some() {
            return Err(format!("this session is inside {} already: leave first", args.path).into());
        }
        if is_last {
            return Ok(Answer::Done(None));
        }
        let waiting = Waiting { cycle: None, zxid: 0, until_ms };
        return Ok(all_gone(&below).until_ms(until_ms).state(&waiting).into());
    }
    let zxid = match (&waiting, tree.exists(&place)?) {
        (Some(Waiting { cycle: Some(_), zxid, .. }), Some(stat)) if stat.created == *zxid => *zxid,
        (_, Some(_)) => return Err(format!("this session waits at {} already", args.path).into()),
        (Some(Waiting { cycle: Some(_), .. }), None) => {
            return Err(format!("the member {place} is not there any more: somebody deleted it").into());
        }
        (_, None) => {
            make_folder(tree, &below)?;
            let member = Member { principal: context.principal(), note: args.note };
            tree.create(&place, serde_json::to_vec(&member)?, Create::ephemeral())?.stat.created
        }
    };
    if tree.exists(&below)?.is_some_and(|stat| stat.children >= now.members) {
        now.inside = true;
        tree.set(&args.path, serde_json::to_vec(&now)?)?;
        return Ok(Answer::Done(Some(now.cycle)));
    }
    if is_last {
        tree.delete(&place)?;
        return Ok(Answer::Done(None));
    }
    let waiting = Waiting { cycle: Some(now.cycle), zxid, until_ms };
    Ok(Park::version_above(&args.path, version).wake_all().until_ms(until_ms).state(&waiting).into())
}

/// Leaves; the number of the cycle once all have left, none when that took too long. This session has left in any case.
pub(crate) fn leave(tree: &Tree, context: &Context, args: Wait) -> Result<Answer<Option<u64>>> {
    let session = context.session()?;
    let resumed = context.resumed();
    if resumed.is_some_and(Resumed::is_over) {
        return Ok(Answer::Done(None));
    }
    if let Some((cycle, until_ms)) = resumed.map(Resumed::state::<(u64, Option<u64>)>).transpose()?.flatten() {
        let below = folder(&args.path, cycle)?;
        // Once it is empty it stays so: who comes is of the next cycle.
        return match (is_empty(tree, &below)?, resumed.map(|resumed| resumed.reason)) {
            (true, _) => Ok(Answer::Done(Some(cycle))),
            (false, Some(Reason::Deadline)) => Ok(Answer::Done(None)),
            (false, _) => Ok(all_gone(&below).until_ms(until_ms).state(&(cycle, until_ms)).into()),
        };
    }
    let Some((now, _)) = read(tree, &args.path)? else {
        return Err(format!("{} is no double barrier: nobody has entered", args.path).into());
    };
    let below = folder(&args.path, now.cycle)?;
    let place = below.join(&format!("s-{session}"))?;
    if !now.inside || tree.exists(&place)?.is_none() {
        return Err(format!("this session is not inside {}", args.path).into());
    }
    tree.delete(&place)?;
    if finish(tree, &below)? {
        return Ok(Answer::Done(Some(now.cycle)));
    }
    if args.wait == Some(0) {
        return Ok(Answer::Done(None));
    }
    let until_ms = until_ms(context, args.wait);
    Ok(all_gone(&below).until_ms(until_ms).state(&(now.cycle, until_ms)).into())
}

/// Takes back what it did: before the cycle began its member goes; after that it has left.
fn withdraw(tree: &Tree, path: &Path, session: u64, resumed: &Resumed) -> Result<()> {
    let waiting: Option<Waiting> = resumed.state()?;
    let mine = resumed.done::<Option<u64>>()?.flatten().or(waiting.as_ref().and_then(|waiting| waiting.cycle));
    let Some(cycle) = mine else { return Ok(()) };
    let below = folder(path, cycle)?;
    let place = below.join(&format!("s-{session}"))?;
    if tree.exists(&place)?.is_none() {
        return Ok(());
    }
    tree.delete(&place)?;
    if read(tree, path)?.is_some_and(|(now, _)| now.inside && now.cycle == cycle) {
        finish(tree, &below)?;
    }
    Ok(())
}

/// Until nobody is inside any more.
fn all_gone(below: &Path) -> Park {
    Park::children_at_most(below, 0).wake_all()
}

/// Whether nobody is there, or it is gone itself.
fn is_empty(tree: &Tree, below: &Path) -> Result<bool> {
    Ok(tree.exists(below)?.is_none_or(|stat| stat.children == 0))
}

/// Ends the cycle if everybody has left.
fn finish(tree: &Tree, below: &Path) -> Result<bool> {
    let is_empty = tree.exists(below)?.is_some_and(|stat| stat.children == 0);
    if is_empty {
        tree.delete(below)?;
    }
    Ok(is_empty)
}

/// The cycle at hand and the barrier's version; the next one, if that one is over.
fn current(tree: &Tree, path: &Path, members: u64) -> Result<(Cycle, u64)> {
    if members == 0 {
        return Err("a double barrier has at least one member".into());
    }
    let Some((now, version)) = read(tree, path)? else {
        let first = Cycle { cycle: 0, members, inside: false };
        return write(tree, path, first);
    };
    if now.inside && is_empty(tree, &folder(path, now.cycle)?)? {
        return write(tree, path, Cycle { cycle: now.cycle + 1, members, inside: false });
    }
    // Who gathers agrees on how many they are; the first of a cycle says it.
    let has_begun = now.inside || tree.exists(folder(path, now.cycle)?)?.is_some_and(|stat| stat.children > 0);
    match (has_begun, now.members == members) {
        (_, true) => Ok((now, version)),
        (false, false) => write(tree, path, Cycle { members, ..now }),
        (true, false) => Err(format!("{path} is for {} members, you said {members}", now.members).into()),
    }
}

fn write(tree: &Tree, path: &Path, cycle: Cycle) -> Result<(Cycle, u64)> {
    let data = serde_json::to_vec(&cycle)?;
    let stat = match tree.exists(path)? {
        Some(_) => tree.set(path, data)?,
        None => tree.create(path, data, Create::with_parents())?.stat,
    };
    Ok((cycle, stat.version))
}

fn read(tree: &Tree, path: &Path) -> Result<Option<(Cycle, u64)>> {
    let Some(znode) = tree.get(path)?.filter(|znode| !znode.data.is_empty()) else { return Ok(None) };
    let cycle = znode.json().map_err(|error| format!("{path} is no double barrier: {error}"))?;
    Ok(Some((cycle, znode.stat.version)))
}

fn folder(path: &Path, cycle: u64) -> Result<Path> {
    path.join(&format!("cycle-{cycle}"))
}

fn make_folder(tree: &Tree, below: &Path) -> Result<()> {
    if tree.exists(below)?.is_none() {
        tree.create(below, "", Create { container: true, ..Create::default() })?;
    }
    Ok(())
}
