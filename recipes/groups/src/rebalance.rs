//! The task that divides the items: sees the group at one zxid, recalls what another is to own, claims what is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_awards::Owned;
use conclave_client::{Cache, Error as ClientError, SessionId, Zxid};
use futures::future::join_all;
use tokio::sync::watch;

use crate::assign::assign;
use crate::ephemeral::{Award, Now, Seen};
use crate::error::Lost;
use crate::group::Layout;
use crate::owned::{self, is_over, is_overtaken};
use crate::partition::Desk;
use crate::share::{Held, Share};

/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The group as it was at one zxid.
#[derive(Debug, Default)]
struct Seat {
    zxid: Zxid,
    /// The members, and whose session each has.
    members: BTreeMap<String, Option<SessionId>>,
    /// The claims, and by which session and zxid each was made.
    claims: BTreeMap<String, (Option<SessionId>, Zxid)>,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Todo {
    /// Items that are owned here, and wanted by others.
    recall: Vec<String>,
    /// Items that nobody owns, and that are to be owned here.
    claim: Vec<String>,
    /// Items whose claims were deleted by somebody else.
    gone: Vec<String>,
}

impl Seat {
    fn read(cache: &Cache, layout: &Layout) -> Result<Self, ClientError> {
        let read = cache.read();
        let name = |path: &conclave_client::Path| path.name().unwrap_or_default().to_owned();
        let members = read.children(layout.members())?;
        let members = members.map(|(path, znode)| (name(path), znode.stat.owner)).collect();
        let claims = read.children(layout.claims())?;
        let claims = claims.map(|(path, znode)| (name(path), (znode.stat.owner, znode.stat.created))).collect();
        Ok(Self { zxid: read.zxid().unwrap_or_default(), members, claims })
    }

    /// Decides what a member does, which holds these items, each since that zxid. Pure.
    fn decide(&self, me: &str, items: &BTreeSet<String>, held: &BTreeMap<&str, Zxid>) -> Todo {
        let members: BTreeSet<&str> = self.members.keys().map(String::as_str).collect();
        let items: BTreeSet<&str> = items.iter().map(String::as_str).collect();
        let by_session: BTreeMap<SessionId, &str> =
            self.members.iter().filter_map(|(name, session)| Some(((*session)?, name.as_str()))).collect();
        let owner = |(item, (session, _)): (&'_ String, &(Option<SessionId>, Zxid))| {
            Some((items.get(item.as_str()).copied()?, session.and_then(|session| by_session.get(&session).copied())?))
        };
        let mut owned: BTreeMap<&str, &str> = self.claims.iter().filter_map(owner).collect();
        // What was claimed a moment ago is not in this state yet.
        let newer = held.iter().filter(|(_, since)| **since > self.zxid);
        owned.extend(newer.filter_map(|(item, _)| Some((items.get(item).copied()?, members.get(me).copied()?))));
        let plan = assign(&members, &items, &owned);
        let mine = |item: &str| plan.get(item).is_some_and(|owner| *owner == me);
        let is_gone = |item: &str, since: Zxid| {
            since <= self.zxid && self.claims.get(item).is_none_or(|(_, created)| *created != since)
        };
        let mut todo = Todo::default();
        for (item, since) in held {
            if is_gone(item, *since) {
                todo.gone.push((*item).to_owned());
            } else if !mine(item) {
                todo.recall.push((*item).to_owned());
            }
        }
        let is_held = |item: &str| held.get(item).is_some_and(|since| !is_gone(item, *since));
        let free = items.iter().filter(|item| !self.claims.contains_key(**item) && !is_held(item));
        todo.claim.extend(free.filter(|item| mine(item)).map(|item| (*item).to_owned()));
        todo
    }
}

/// Divides until nobody reads it and nothing is held any more.
pub(crate) async fn run(desk: Arc<Desk>, layout: Layout, cache: Cache, seen: watch::Receiver<Seen>) {
    let ended = divide(&desk, &layout, &cache, seen).await;
    // What can't be watched can't be divided: others are to have it.
    desk.end(ended);
    loop {
        let held = desk.held();
        if held.is_empty() {
            return;
        }
        held.iter().for_each(|one| desk.recall(one));
        tokio::select! {
            () = any_lost(&held) => {}
            () = desk.news.notified() => {}
        }
    }
}

/// See [`run`]. Gives the error that ended it, if it was one.
async fn divide(desk: &Desk, layout: &Layout, cache: &Cache, mut seen: watch::Receiver<Seen>) -> Option<ClientError> {
    let mut changes = cache.changes();
    let mut is_member = true;
    loop {
        let award = match &seen.borrow_and_update().now {
            Now::Here(award) => Some(award.clone()),
            _ => None,
        };
        let stopped = desk.is_stopped();
        let held = desk.held();
        if stopped && held.is_empty() {
            return None;
        }
        let seat = match Seat::read(cache, layout) {
            Ok(seat) => seat,
            Err(error) => return Some(error),
        };
        let again = act(desk, layout, &seat, award.as_ref(), &held, stopped).await;
        // With what was claimed just now.
        let held = desk.held();
        tokio::select! {
            set = changes.next() => match set {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(error),
                None => return None,
            },
            // Once the member has left there is no more news of it.
            changed = seen.changed(), if is_member => is_member = changed.is_ok(),
            () = any_lost(&held) => {}
            () = desk.news.notified() => {}
            () = tokio::time::sleep(PAUSE), if again => {}
        }
    }
}

/// Does what is to be done; says whether something failed that is to be tried again.
async fn act(desk: &Desk, layout: &Layout, seat: &Seat, award: Option<&Award>, held: &[Held], stopped: bool) -> bool {
    let since: BTreeMap<&str, Zxid> = held.iter().map(|one| (one.item(), one.fence().zxid)).collect();
    let todo = seat.decide(&desk.name, &desk.items, &since);
    let of = |item: &String| held.iter().find(|one| one.item() == item);
    for one in todo.gone.iter().filter_map(of) {
        // A session that ends takes all with it: that is the reason then, whichever is seen first.
        let lives = seat.members.values().any(|session| *session == Some(one.session_id()));
        one.end(if lives { Lost::HolderGone } else { Lost::SessionOver });
    }
    // A state without this membership says nothing about it.
    let counts = award.is_some_and(|award| award.fence.zxid <= seat.zxid);
    if stopped {
        held.iter().for_each(|one| desk.recall(one));
    } else if counts {
        todo.recall.iter().filter_map(of).for_each(|one| desk.recall(one));
    }
    let Some(award) = award.filter(|_| counts && !stopped) else { return false };
    let claims = todo.claim.iter().map(|item| claim(desk, layout, award, item));
    join_all(claims).await.contains(&true)
}

/// Claims an item; says whether that failed for a reason that may pass.
async fn claim(desk: &Desk, layout: &Layout, award: &Award, item: &str) -> bool {
    let Ok(path) = layout.claims().join(item) else { return false };
    // Only for as long as the claimer is a member: one that is not would keep the item from all.
    let creation = owned::creation(&award.client, &path, desk.name.clone().into(), None);
    let creation = creation.fenced(award.fence.clone());
    match Owned::create(&award.client, creation).await {
        Ok(owned) => {
            desk.put(Share::new(item, owned, award.session.clone(), &desk.news));
            false
        }
        Err(error) if is_overtaken(&error) || is_over(&error) => false,
        Err(error) => {
            tracing::warn!(%path, %error, "an item can't be claimed yet");
            true
        }
    }
}

/// Waits until a session is lost that something is held in, and tells all that is.
async fn any_lost(held: &[Held]) {
    let mut sessions: BTreeMap<SessionId, &Held> = BTreeMap::new();
    for one in held {
        sessions.entry(one.session_id()).or_insert(one);
    }
    if sessions.is_empty() {
        return std::future::pending().await;
    }
    let lost = sessions.into_values().map(|one| {
        Box::pin(async move {
            one.session().lost().await;
            one.session_id()
        })
    });
    let (lost, ..) = futures::future::select_all(lost).await;
    for one in held.iter().filter(|one| one.session_id() == lost) {
        one.end(Lost::SessionOver);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(zxid: u64, members: &[(&str, u64)], claims: &[(&str, u64, u64)]) -> Seat {
        Seat {
            zxid: Zxid(zxid),
            members: members.iter().map(|(name, session)| ((*name).into(), Some(SessionId(*session)))).collect(),
            claims: claims
                .iter()
                .map(|(item, session, created)| ((*item).into(), (Some(SessionId(*session)), Zxid(*created))))
                .collect(),
        }
    }

    fn todo(recall: &[&str], claim: &[&str], gone: &[&str]) -> Todo {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Todo { recall: owned(recall), claim: owned(claim), gone: owned(gone) }
    }

    #[test]
    fn what_is_free_is_claimed_and_what_is_held_by_anybody_is_waited_for() {
        let items: BTreeSet<String> = ["x", "y"].map(str::to_owned).into();
        let held = |entries: &[(&'static str, u64)]| entries.iter().map(|(i, z)| (*i, Zxid(*z))).collect();
        for (case, seat, held, expected) in [
            ("alone", seat(9, &[("a", 1)], &[]), held(&[]), todo(&[], &["x", "y"], &[])),
            ("a ghost's is waited for", seat(9, &[("a", 1)], &[("x", 7, 3)]), held(&[]), todo(&[], &["y"], &[])),
            (
                "all owned",
                seat(9, &[("a", 1)], &[("x", 1, 3), ("y", 1, 4)]),
                held(&[("x", 3), ("y", 4)]),
                todo(&[], &[], &[]),
            ),
            (
                "released, and the view is old",
                seat(9, &[("a", 1)], &[("x", 1, 3), ("y", 1, 4)]),
                held(&[("x", 3)]),
                todo(&[], &[], &[]),
            ),
            ("claimed, and the view is old", seat(2, &[("a", 1)], &[]), held(&[("x", 3)]), todo(&[], &["y"], &[])),
            (
                "deleted by hand",
                seat(9, &[("a", 1)], &[("x", 1, 3)]),
                held(&[("x", 3), ("y", 4)]),
                todo(&[], &["y"], &["y"]),
            ),
            (
                "made anew",
                seat(9, &[("a", 1)], &[("x", 2, 6), ("y", 1, 4)]),
                held(&[("x", 3), ("y", 4)]),
                todo(&[], &[], &["x"]),
            ),
            ("no member any more", seat(9, &[("b", 2)], &[("x", 1, 3)]), held(&[("x", 3)]), todo(&["x"], &[], &[])),
            ("nobody", seat(9, &[], &[]), held(&[]), todo(&[], &[], &[])),
        ] {
            assert_eq!(seat.decide("a", &items, &held), expected, "{case}");
        }
    }

    #[test]
    fn who_has_too_much_lets_one_go_and_the_other_waits_for_it() {
        let items: BTreeSet<String> = ["x", "y"].map(str::to_owned).into();
        let both = seat(9, &[("a", 1), ("b", 2)], &[("x", 1, 3), ("y", 1, 4)]);
        let held = BTreeMap::from([("x", Zxid(3)), ("y", Zxid(4))]);
        let let_go = both.decide("a", &items, &held);
        assert_eq!((let_go.recall.len(), let_go.claim.len()), (1, 0));
        assert_eq!(both.decide("b", &items, &BTreeMap::new()), Todo::default());
        // Then it is free, and the other's.
        let left = if let_go.recall == ["x"] { ("y", 1, 4) } else { ("x", 1, 3) };
        let free = seat(10, &[("a", 1), ("b", 2)], &[left]);
        assert_eq!(free.decide("b", &items, &BTreeMap::new()).claim, let_go.recall);
        let kept = BTreeMap::from([(left.0, Zxid(left.2))]);
        assert_eq!(free.decide("a", &items, &kept), Todo::default());
    }
}
