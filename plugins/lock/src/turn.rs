//! The mutex and the read-write lock: one line for both. Whoever is first, and finds nobody that excludes it, takes it.

use conclave_plugin::{Answer, Context, Create, Park, Path, Reason, Result, Resumed, Tree};
use serde::{Deserialize, Serialize};

use crate::layout::{Held, Layout, Mode, Who, check_fence, give_back};

/// What `lock` and its kin are called with.
#[derive(Deserialize)]
pub(crate) struct Lock {
    pub(crate) path: Path,
    #[serde(default)]
    pub(crate) wait: Option<u64>,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

/// What `unlock` and its kin are called with.
#[derive(Deserialize)]
pub(crate) struct Unlock {
    pub(crate) path: Path,
    #[serde(default)]
    pub(crate) zxid: Option<u64>,
}

/// What a waiting call takes along.
#[derive(Serialize, Deserialize)]
struct Waiting {
    place: Held,
    until_ms: Option<u64>,
}

/// Takes the lock, or a place in line.
pub(crate) fn take(tree: &Tree, context: &Context, args: Lock, mode: Mode) -> Result<Answer<Option<Held>>> {
    let layout = Layout::new(&args.path)?;
    match context.resumed() {
        Some(resumed) if resumed.is_over() => end(tree, resumed),
        Some(resumed) => {
            let waiting: Waiting = resumed.state()?.ok_or("the call has lost its place")?;
            go_on(tree, context, &layout, args, mode, waiting, resumed.reason == Reason::Deadline)
        }
        None => begin(tree, context, &layout, args, mode),
    }
}

/// Takes it only if it is free and nobody waits.
pub(crate) fn try_take(tree: &Tree, context: &Context, args: Lock, mode: Mode) -> Result<Answer<Option<Held>>> {
    take(tree, context, Lock { wait: Some(0), ..args }, mode)
}

fn begin(tree: &Tree, context: &Context, layout: &Layout, args: Lock, mode: Mode) -> Result<Answer<Option<Held>>> {
    let session = context.session()?;
    if let Some(held) = own(tree, layout, session)? {
        let Held { path, zxid } = held;
        return Err(format!(
            "this session holds {} already, as {path} since zxid {zxid}: a lock is not re-entrant",
            args.path
        )
        .into());
    }
    let who = Who::of(context, args.note.clone());
    if layout.first(tree)?.is_none() && in_the_way(tree, layout, mode)?.is_none() {
        return award(tree, layout, mode, &who).map(|held| Answer::Done(Some(held)));
    }
    if args.wait == Some(0) {
        return Ok(Answer::Done(None));
    }
    let (place, before) = layout.queue(tree, mode, &who)?;
    let until_ms = args.wait.map(|wait| context.now_ms().saturating_add(wait));
    wait(tree, layout, mode, before, &Waiting { place, until_ms })
}

/// Woken, or out of time.
fn go_on(
    tree: &Tree,
    context: &Context,
    layout: &Layout,
    args: Lock,
    mode: Mode,
    waiting: Waiting,
    is_last: bool,
) -> Result<Answer<Option<Held>>> {
    let place = &waiting.place;
    if tree.exists(&place.path)?.is_none_or(|stat| stat.created != place.zxid) {
        return Err(format!("the place {} is not there any more: somebody deleted it", place.path).into());
    }
    let before = layout.before(tree, &place.path)?;
    let is_mine = before.is_none() && in_the_way(tree, layout, mode)?.is_none();
    if is_mine || is_last {
        give_back(tree, place)?;
    }
    match (is_mine, is_last) {
        (true, _) => award(tree, layout, mode, &Who::of(context, args.note)).map(|held| Answer::Done(Some(held))),
        (false, true) => Ok(Answer::Done(None)),
        (false, false) => wait(tree, layout, mode, before, &waiting),
    }
}

/// Parks on the place before its own; the first, on what is in its way.
fn wait(
    tree: &Tree,
    layout: &Layout,
    mode: Mode,
    before: Option<Path>,
    waiting: &Waiting,
) -> Result<Answer<Option<Held>>> {
    let on = match before {
        Some(before) => before,
        // Nobody: only between two looks of one transaction, in which nothing changes.
        None => in_the_way(tree, layout, mode)?.unwrap_or_else(|| layout.holder.clone()),
    };
    Ok(Park::absent(on).wake_one().until_ms(waiting.until_ms).state(waiting).into())
}

/// Who holds the lock and keeps this one out. Several may share it: then one of them, as each has to go.
fn in_the_way(tree: &Tree, layout: &Layout, mode: Mode) -> Result<Option<Path>> {
    if tree.exists(&layout.holder)?.is_some() {
        return Ok(Some(layout.holder.clone()));
    }
    match mode {
        Mode::Shared => Ok(None),
        Mode::Exclusive => Ok(tree.children(&layout.shared).first()?.map(|holder| holder.path)),
    }
}

fn award(tree: &Tree, layout: &Layout, mode: Mode, who: &Who) -> Result<Held> {
    let created = match mode {
        Mode::Exclusive => tree.create(&layout.holder, who.encode()?, Create::ephemeral())?,
        Mode::Shared => tree.create(layout.shared.join("h-")?, who.encode()?, Create::ephemeral().numbered())?,
    };
    Ok(Held { path: created.path, zxid: created.stat.created })
}

/// Gives back the lock, or the place.
fn end(tree: &Tree, resumed: &Resumed) -> Result<Answer<Option<Held>>> {
    if let Some(held) = resumed.done::<Option<Held>>()?.flatten() {
        give_back(tree, &held)?;
    }
    if let Some(waiting) = resumed.state::<Waiting>()? {
        give_back(tree, &waiting.place)?;
    }
    Ok(Answer::Done(None))
}

/// What this session holds of the lock.
fn own(tree: &Tree, layout: &Layout, session: u64) -> Result<Option<Held>> {
    let holder = tree.exists(&layout.holder)?;
    if let Some(stat) = holder.filter(|stat| stat.owner == Some(session)) {
        return Ok(Some(Held { path: layout.holder.clone(), zxid: stat.created }));
    }
    let mut shared = tree.children(&layout.shared).all()?.into_iter();
    let own = shared.find(|holder| holder.stat.owner == Some(session));
    Ok(own.map(|holder| Held { path: holder.path, zxid: holder.stat.created }))
}

/// Gives the lock back, exclusive or shared.
pub(crate) fn unlock(tree: &Tree, context: &Context, args: Unlock) -> Result<()> {
    let layout = Layout::new(&args.path)?;
    let held = must_hold(tree, context, &layout, &args)?;
    tree.delete_tree(&held.path).map(drop)
}

/// What was exclusive is shared, without anybody in between.
pub(crate) fn downgrade(tree: &Tree, context: &Context, args: Unlock) -> Result<Held> {
    let layout = Layout::new(&args.path)?;
    let held = must_hold(tree, context, &layout, &args)?;
    if held.path != layout.holder {
        return Err(format!("this session shares {} already", args.path).into());
    }
    let who = tree.get(&held.path)?.map(|znode| Who::decode(&znode.data)).unwrap_or_default();
    tree.delete_tree(&held.path)?;
    award(tree, &layout, Mode::Shared, &who)
}

/// What was shared is exclusive, if nobody else shares it. Whoever waits, waits on.
pub(crate) fn try_upgrade(tree: &Tree, context: &Context, args: Unlock) -> Result<Option<Held>> {
    let layout = Layout::new(&args.path)?;
    let held = must_hold(tree, context, &layout, &args)?;
    if held.path == layout.holder {
        return Err(format!("this session holds {} alone already", args.path).into());
    }
    if tree.children(&layout.shared).limit(2).all()?.len() > 1 {
        return Ok(None);
    }
    let who = tree.get(&held.path)?.map(|znode| Who::decode(&znode.data)).unwrap_or_default();
    tree.delete_tree(&held.path)?;
    award(tree, &layout, Mode::Exclusive, &who).map(Some)
}

fn must_hold(tree: &Tree, context: &Context, layout: &Layout, args: &Unlock) -> Result<Held> {
    let session = context.session()?;
    let Some(held) = own(tree, layout, session)? else {
        let holder = tree.get(&layout.holder)?;
        let holder = holder.map_or_else(|| "nobody alone".to_owned(), |znode| Who::decode(&znode.data).words());
        return Err(format!("this session does not hold {}: {holder} does", args.path).into());
    };
    let stat = tree.exists(&held.path)?.unwrap_or_default();
    check_fence(&held.path, &stat, args.zxid)?;
    Ok(held)
}
