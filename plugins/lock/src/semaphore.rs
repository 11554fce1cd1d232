//! The semaphore: permits in numbers, given out in the order of the line, whatever each wants.

use conclave_plugin::{Answer, Child, Context, Create, Park, Path, Reason, Result, Resumed, Tree};
use serde::{Deserialize, Serialize};

use crate::layout::{Held, Layout, Mode, Who, check_fence, give_back};
use crate::turn::Unlock;

/// What `acquire` is called with.
#[derive(Deserialize)]
pub(crate) struct Acquire {
    path: Path,
    permits: u64,
    #[serde(default)]
    capacity: Option<u64>,
    #[serde(default)]
    wait: Option<u64>,
    #[serde(default)]
    note: Option<String>,
}

/// What `set-capacity` is called with.
#[derive(Deserialize)]
pub(crate) struct SetCapacity {
    path: Path,
    capacity: u64,
}

/// What lies in the semaphore's own znode.
#[derive(Serialize, Deserialize)]
struct Settings {
    capacity: u64,
}

/// What a waiting call takes along.
#[derive(Serialize, Deserialize)]
struct Waiting {
    place: Held,
    until_ms: Option<u64>,
}

/// The semaphore as it is.
struct Seen {
    capacity: u64,
    version: u64,
    holders: Vec<Child>,
    used: u64,
}

/// Takes permits, or a place in line.
pub(crate) fn acquire(tree: &Tree, context: &Context, args: Acquire) -> Result<Answer<Option<Held>>> {
    let layout = Layout::new(&args.path)?;
    match context.resumed() {
        Some(resumed) if resumed.is_over() => end(tree, resumed),
        Some(resumed) => go_on(tree, context, &layout, &args, resumed),
        None => begin(tree, context, &layout, &args),
    }
}

fn begin(tree: &Tree, context: &Context, layout: &Layout, args: &Acquire) -> Result<Answer<Option<Held>>> {
    let session = context.session()?;
    let seen = match (see(tree, layout, &args.path)?, args.capacity) {
        (Some(seen), Some(capacity)) if seen.capacity != capacity => {
            return Err(format!("{} has a capacity of {}, you said {capacity}", args.path, seen.capacity).into());
        }
        (Some(seen), _) => seen,
        (None, Some(capacity)) => {
            write_capacity(tree, &args.path, capacity)?;
            see(tree, layout, &args.path)?.ok_or("the semaphore was just made")?
        }
        (None, None) => {
            return Err(
                format!("{} is no semaphore yet: say its capacity, or set it with set-capacity", args.path).into()
            );
        }
    };
    if args.permits == 0 || args.permits > seen.capacity {
        return Err(format!(
            "{} permits of {} of {}: none would ever be enough",
            args.permits, seen.capacity, args.path
        )
        .into());
    }
    if let Some(own) = seen.holders.iter().find(|holder| holder.stat.owner == Some(session)) {
        return Err(format!("this session holds permits of {} already, at {}", args.path, own.path).into());
    }
    let who = Who { permits: Some(args.permits), ..Who::of(context, args.note.clone()) };
    if layout.first(tree)?.is_none() && seen.has_room(args.permits) {
        return award(tree, layout, &who);
    }
    if args.wait == Some(0) {
        return Ok(Answer::Done(None));
    }
    let (place, before) = layout.queue(tree, Mode::Exclusive, &who)?;
    let until_ms = args.wait.map(|wait| context.now_ms().saturating_add(wait));
    wait(layout, args, before, &seen, &Waiting { place, until_ms })
}

fn go_on(
    tree: &Tree,
    context: &Context,
    layout: &Layout,
    args: &Acquire,
    resumed: &Resumed,
) -> Result<Answer<Option<Held>>> {
    let waiting: Waiting = resumed.state()?.ok_or("the call has lost its place")?;
    let place = &waiting.place;
    if tree.exists(&place.path)?.is_none_or(|stat| stat.created != place.zxid) {
        return Err(format!("the place {} is not there any more: somebody deleted it", place.path).into());
    }
    let seen = see(tree, layout, &args.path)?.ok_or_else(|| format!("{} is no semaphore any more", args.path))?;
    let before = layout.before(tree, &place.path)?;
    let is_mine = before.is_none() && seen.has_room(args.permits);
    if is_mine {
        give_back(tree, place)?;
        return award(tree, layout, &Who { permits: Some(args.permits), ..Who::of(context, args.note.clone()) });
    }
    if resumed.reason == Reason::Deadline {
        give_back(tree, place)?;
        return Ok(Answer::Done(None));
    }
    wait(layout, args, before, &seen, &waiting)
}

/// Parks on the place before its own; the first, on whatever could give it room: a holder that goes (as nobody passes the first
/// in line, each that goes makes them fewer), or another capacity.
fn wait(
    layout: &Layout,
    args: &Acquire,
    before: Option<Path>,
    seen: &Seen,
    waiting: &Waiting,
) -> Result<Answer<Option<Held>>> {
    let park = match before {
        Some(before) => Park::absent(before),
        None => {
            let fewer = (seen.holders.len() as u64).saturating_sub(1);
            Park::version_above(&args.path, seen.version).or(Park::children_at_most(&layout.shared, fewer))
        }
    };
    Ok(park.wake_one().until_ms(waiting.until_ms).state(waiting).into())
}

fn award(tree: &Tree, layout: &Layout, who: &Who) -> Result<Answer<Option<Held>>> {
    let created = tree.create(layout.shared.join("h-")?, who.encode()?, Create::ephemeral().numbered())?;
    Ok(Answer::Done(Some(Held { path: created.path, zxid: created.stat.created })))
}

/// Gives back permits, or the place.
fn end(tree: &Tree, resumed: &Resumed) -> Result<Answer<Option<Held>>> {
    if let Some(held) = resumed.done::<Option<Held>>()?.flatten() {
        give_back(tree, &held)?;
    }
    if let Some(waiting) = resumed.state::<Waiting>()? {
        give_back(tree, &waiting.place)?;
    }
    Ok(Answer::Done(None))
}

/// Gives back this session's permits.
pub(crate) fn release(tree: &Tree, context: &Context, args: Unlock) -> Result<()> {
    let (layout, session) = (Layout::new(&args.path)?, context.session()?);
    let mut holders = tree.children(&layout.shared).all()?.into_iter();
    let Some(own) = holders.find(|holder| holder.stat.owner == Some(session)) else {
        return Err(format!("this session holds no permits of {}", args.path).into());
    };
    check_fence(&own.path, &own.stat, args.zxid)?;
    tree.delete_tree(&own.path).map(drop)
}

/// Makes a semaphore, or changes its capacity. Who holds permits keeps them.
pub(crate) fn set_capacity(tree: &Tree, _: &Context, args: SetCapacity) -> Result<()> {
    write_capacity(tree, &args.path, args.capacity)
}

fn write_capacity(tree: &Tree, path: &Path, capacity: u64) -> Result<()> {
    if capacity == 0 {
        return Err("a semaphore has a capacity of at least 1".into());
    }
    let data = serde_json::to_vec(&Settings { capacity })?;
    match tree.exists(path)? {
        Some(_) => tree.set(path, data).map(drop),
        None => tree.create(path, data, Create::with_parents()).map(drop),
    }
}

fn see(tree: &Tree, layout: &Layout, path: &Path) -> Result<Option<Seen>> {
    let Some(znode) = tree.get(path)?.filter(|znode| !znode.data.is_empty()) else { return Ok(None) };
    let Settings { capacity } = znode.json().map_err(|error| format!("{path} is no semaphore: {error}"))?;
    let holders = tree.children(&layout.shared).with_data().all()?;
    let used = holders.iter().map(|holder| Who::decode(&holder.data).permits.unwrap_or(1)).sum();
    Ok(Some(Seen { capacity, version: znode.stat.version, holders, used }))
}

impl Seen {
    fn has_room(&self, permits: u64) -> bool {
        self.used.saturating_add(permits) <= self.capacity
    }
}
