//! Elections: one leader a path, at most one at any time, with a fence for its term. See the README for what it promises.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidate;
#[cfg(test)]
mod tests;

use conclave_plugin::{Answer, Context, Create, Park, Path, Reason, Result, Resumed, Tree};
use serde::{Deserialize, Serialize};

pub use candidate::{Candidate, Who};
use candidate::{Layout, before, give_back};

/// The plugin.
pub struct Election;

conclave_plugin::export!(Election: procedures(campaign, resign, hand_over), queries(leader, candidates));

#[derive(Deserialize)]
struct Campaign {
    path: Path,
    #[serde(default)]
    name: Option<String>,
    priority: i64,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    wait: Option<u64>,
}

#[derive(Deserialize)]
struct Resign {
    path: Path,
    #[serde(default)]
    zxid: Option<u64>,
}

#[derive(Deserialize)]
struct HandOver {
    path: Path,
    to: String,
    #[serde(default)]
    zxid: Option<u64>,
}

#[derive(Deserialize)]
struct Show {
    path: Path,
}

/// A znode of one's own: its path, and the zxid of its creation: of the leader's, the term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The leader's znode.
    pub path: Path,
    /// When it was created: the fence.
    pub zxid: u64,
}

/// What a waiting call takes along.
#[derive(Serialize, Deserialize)]
struct Waiting {
    place: Term,
    until_ms: Option<u64>,
}

/// Its term, once it leads; none when that took too long.
fn campaign(tree: &Tree, context: &Context, args: Campaign) -> Result<Answer<Option<Term>>> {
    let layout = Layout::new(&args.path)?;
    match context.resumed() {
        Some(resumed) if resumed.is_over() => withdraw(tree, resumed),
        Some(resumed) => {
            let waiting: Waiting = resumed.state()?.ok_or("the call has lost its place")?;
            decide(tree, &layout, waiting, resumed.reason == Reason::Deadline)
        }
        None => begin(tree, context, &layout, args),
    }
}

fn begin(tree: &Tree, context: &Context, layout: &Layout, args: Campaign) -> Result<Answer<Option<Term>>> {
    let session = context.session()?;
    let holder = tree.exists(&layout.holder)?;
    if holder.is_some_and(|stat| stat.owner == Some(session)) {
        return Err(format!("this session leads at {} already", args.path).into());
    }
    let line = layout.candidates(tree)?;
    if let Some(place) = line.iter().find(|place| place.session == Some(session)) {
        return Err(format!("this session is a candidate at {} already, at {}", args.path, place.path).into());
    }
    let principal = context.principal();
    let who = Who { principal, name: args.name, priority: args.priority, data: args.data, ..Who::default() };
    if holder.is_none() && line.is_empty() {
        return lead(tree, layout, &who).map(|term| Answer::Done(Some(term)));
    }
    let place = layout.queue(tree, &who)?;
    let until_ms = args.wait.map(|wait| context.now_ms().saturating_add(wait));
    decide(tree, layout, Waiting { place, until_ms }, args.wait == Some(0))
}

/// Leads, if it is the first and nobody does; otherwise waits for the one before it, or the leader.
fn decide(tree: &Tree, layout: &Layout, waiting: Waiting, is_last: bool) -> Result<Answer<Option<Term>>> {
    let line = layout.candidates(tree)?;
    let place = &waiting.place;
    let Some(me) = line.iter().find(|other| other.path == place.path && other.zxid == place.zxid) else {
        return Err(format!("the place {} is not there any more: somebody deleted it", place.path).into());
    };
    let before = before(&line, me).map(|other| other.path.clone());
    let is_led = tree.exists(&layout.holder)?.is_some();
    if before.is_none() && !is_led {
        give_back(tree, place)?;
        let who = Who { chosen: false, ..me.who.clone() };
        return lead(tree, layout, &who).map(|term| Answer::Done(Some(term)));
    }
    if is_last {
        give_back(tree, place)?;
        return Ok(Answer::Done(None));
    }
    // Its own place changes when the leader hands over to it.
    let chosen = Park::version_above(&place.path, me.version);
    let turn = Park::absent(before.as_ref().unwrap_or(&layout.holder));
    // All whose condition holds, whatever those who called before wait for: a path is waited for in more than one way here.
    Ok(turn.or(chosen).wake_all().until_ms(waiting.until_ms).state(&waiting).into())
}

fn lead(tree: &Tree, layout: &Layout, who: &Who) -> Result<Term> {
    let created = tree.create(&layout.holder, who.encode()?, Create::ephemeral())?;
    Ok(Term { path: created.path, zxid: created.stat.created })
}

fn withdraw(tree: &Tree, resumed: &Resumed) -> Result<Answer<Option<Term>>> {
    if let Some(term) = resumed.done::<Option<Term>>()?.flatten() {
        give_back(tree, &term)?;
    }
    if let Some(waiting) = resumed.state::<Waiting>()? {
        give_back(tree, &waiting.place)?;
    }
    Ok(Answer::Done(None))
}

/// Gives up leading.
fn resign(tree: &Tree, context: &Context, args: Resign) -> Result<()> {
    let layout = Layout::new(&args.path)?;
    must_lead(tree, context, &layout, args.zxid)?;
    tree.delete_tree(&layout.holder).map(drop)
}

/// Gives up leading for this candidate: it comes before all others.
fn hand_over(tree: &Tree, context: &Context, args: HandOver) -> Result<()> {
    let layout = Layout::new(&args.path)?;
    must_lead(tree, context, &layout, args.zxid)?;
    let mut line = layout.candidates(tree)?;
    line.sort_by(candidate::order);
    let named = |candidate: &&Candidate| {
        let who = &candidate.who;
        who.name.as_ref() == Some(&args.to) || (who.name.is_none() && who.principal == args.to)
    };
    let Some(to) = line.iter().find(named) else {
        let names: Vec<&str> = line.iter().map(|candidate| candidate.who.called()).collect();
        return Err(format!("{} is no candidate at {}: these are: {}", args.to, args.path, names.join(", ")).into());
    };
    // Who was chosen before, and did not come to lead, is one of many again.
    for other in line.iter().filter(|other| other.who.chosen && other.path != to.path) {
        tree.set(&other.path, Who { chosen: false, ..other.who.clone() }.encode()?)?;
    }
    tree.set(&to.path, Who { chosen: true, ..to.who.clone() }.encode()?)?;
    tree.delete_tree(&layout.holder).map(drop)
}

fn must_lead(tree: &Tree, context: &Context, layout: &Layout, zxid: Option<u64>) -> Result<()> {
    let session = context.session()?;
    match tree.exists(&layout.holder)? {
        Some(stat) if stat.owner == Some(session) => match zxid.filter(|zxid| *zxid != stat.created) {
            None => Ok(()),
            Some(zxid) => Err(format!("this session leads since zxid {}, you said {zxid}", stat.created).into()),
        },
        _ => Err(format!("this session does not lead at {}", layout.election).into()),
    }
}

/// Who leads, if anybody does.
fn leader(tree: &Tree, _: &Context, args: Show) -> Result<Option<Candidate>> {
    let layout = Layout::new(&args.path)?;
    Ok(tree.get(&layout.holder)?.map(|znode| Candidate::new(layout.holder.clone(), &znode.data, &znode.stat)))
}

/// Who waits to lead, the next one first.
fn candidates(tree: &Tree, _: &Context, args: Show) -> Result<Vec<Candidate>> {
    let mut line = Layout::new(&args.path)?.candidates(tree)?;
    line.sort_by(candidate::order);
    Ok(line)
}
