//! The leader's part: asks members whether they are ready for what waits, and has it activated, or rejected; and hands over
//! when it lacks what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conclave_core::plan::Work;
use conclave_protocol::plugin::ComponentDigest;
use futures::future::join_all;

use super::readiness::{Component, Part, Since, State};
use crate::member::Shared;
use crate::peer::wire;
use crate::planner;

/// How often members are asked while something waits.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a member has to answer; one that does not is not waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a member that can't hand over waits until it tries again what it lacks.
const AGAIN: Duration = Duration::from_secs(1);

/// What voters said of the components that they were asked for, in that order; none: no answer came.
type Said = BTreeMap<u64, Option<Vec<State>>>;

/// Activates what members are ready for, while this member leads.
pub(crate) async fn lead(shared: Arc<Shared>, planner: planner::Handle) {
    let mut leadership = shared.leadership.clone();
    let mut changed = shared.plugins.subscribe();
    let mut since = Since::default();
    loop {
        let now = *leadership.borrow_and_update();
        changed.mark_unchanged();
        let pending = if now.is_leader { shared.plugins.pending() } else { Vec::new() };
        since.keep(&pending);
        if pending.is_empty() {
            tokio::select! {
                still = leadership.changed() => if still.is_err() { return },
                still = changed.changed() => if still.is_err() { return },
            }
            continue;
        }
        let digests = pending.iter().map(|one| one.digest).collect();
        let said = ask(&shared, digests).await;
        for work in decide(&pending, &shared.replica.membership().voters, &said) {
            tell(&shared, &work, &mut since);
            planner.send(planner::Command::Own(now.term, Box::new(work)));
        }
        // What was proposed is applied, or was not: then it is proposed again.
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Logs and counts what is proposed, the first time.
fn tell(shared: &Shared, work: &Work, since: &mut Since) {
    let counts = shared.plugins.counts();
    match work {
        Work::Activate { plugin, digest } => {
            if let Some(took_ms) = since.decided(plugin, *digest) {
                tracing::info!(plugin, %digest, took_ms, "enough members are ready for a plugin: it becomes active");
                counts.activated.fetch_add(1, Ordering::Relaxed);
                counts.activation_ms.store(took_ms, Ordering::Relaxed);
            }
        }
        Work::Reject { plugin, digest, why } if since.decided(plugin, *digest).is_some() => {
            tracing::warn!(plugin, %digest, why, "a plugin is rejected");
            counts.rejected.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Asks every voter how these components are there.
async fn ask(shared: &Shared, digests: Vec<ComponentDigest>) -> Said {
    let voters: BTreeSet<u64> = shared.replica.membership().voters.into_iter().flatten().collect();
    let asked = voters.into_iter().map(async |voter| {
        if voter == shared.id.0 {
            return (voter, Some(digests.iter().map(|digest| shared.plugins.state(*digest)).collect()));
        }
        let answer = shared.peers.ask(voter, wire::Request::Ready(digests.clone()), ANSWER_WITHIN).await;
        match answer {
            Ok(wire::Response::Ready(states)) if states.len() == digests.len() => (voter, Some(states)),
            Ok(_) | Err(_) => (voter, None),
        }
    });
    join_all(asked).await.into_iter().collect()
}

/// What is to become of what waits: active, when all who answer and a majority are ready; rejected, when one of them can't
/// run it. `voters`: while the membership changes, the majorities that count.
fn decide(pending: &[Component], voters: &[BTreeSet<u64>], said: &Said) -> Vec<Work> {
    let mut works = Vec::new();
    for (number, Component { plugin, digest, part, .. }) in pending.iter().enumerate() {
        let states = || said.iter().filter_map(|(voter, states)| Some((voter, states.as_ref()?.get(number)?)));
        let cannot = states().find_map(|(voter, state)| match state {
            State::Cannot(why) => Some(format!("member {voter} can't run it: {why}")),
            State::Ready | State::NotYet => None,
        });
        if let Some(why) = cannot {
            works.push(Work::Reject { plugin: plugin.clone(), digest: *digest, why });
            continue;
        }
        let ready: BTreeSet<u64> =
            states().filter(|(_, state)| **state == State::Ready).map(|(voter, _)| *voter).collect();
        let all = states().all(|(voter, _)| ready.contains(voter));
        let is_majority = |set: &BTreeSet<u64>| set.intersection(&ready).count() * 2 > set.len();
        if *part == Part::Pending && all && !voters.is_empty() && voters.iter().all(is_majority) {
            works.push(Work::Activate { plugin: plugin.clone(), digest: *digest });
        }
    }
    works
}

/// This member leads in this term, and can't run an active plugin: hands over to a voter that can; where there is none,
/// has the planner try again.
pub(crate) async fn hand_over(shared: Arc<Shared>, planner: planner::Handle, term: u64, plugin: String, why: String) {
    let note = format!("it was elected and does not lead, because it can't run plugin {plugin}: {why}");
    tracing::error!(term, "this member does not plan: {note}");
    shared.plugins.lacks(Some(note));
    let digests = shared.plugins.of(Part::Active).into_iter().map(|one| one.digest).collect();
    let mut said = ask(&shared, digests).await;
    said.remove(&shared.id.0);
    let progress = shared.replica.progress();
    let matched = |voter: u64| progress.get(&voter).copied().flatten().unwrap_or(0);
    let handed = match choose(&said, matched) {
        Some(voter) => {
            tracing::warn!(term, voter, "leadership is handed over");
            shared.replica.transfer_leader(voter).await.map_err(|error| error.to_string())
        }
        None => Err("no other voter that answers can run what is active".to_owned()),
    };
    match handed {
        Ok(()) => {
            shared.plugins.counts().handed_over.fetch_add(1, Ordering::Relaxed);
            shared.plugins.lacks(None);
        }
        Err(error) => {
            tracing::error!(
                term,
                error,
                plugin,
                "nobody takes over: no write is planned until this member can run the plugin, or another leads"
            );
            tokio::time::sleep(AGAIN).await;
            planner.send(planner::Command::Again(term));
        }
    }
}

/// Whom to hand over to: one that has all that is active ready; or else one that answers, and does not say that it can't.
/// Of several the one whose log is furthest.
fn choose(said: &Said, matched: impl Fn(u64) -> u64) -> Option<u64> {
    let candidates = said.iter().filter_map(|(voter, states)| {
        let states = states.as_ref()?;
        let can = !states.iter().any(|state| matches!(state, State::Cannot(_)));
        let is_ready = states.iter().all(|state| *state == State::Ready);
        can.then(|| (is_ready, matched(*voter), *voter))
    });
    candidates.max().map(|(_, _, voter)| voter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ComponentDigest = ComponentDigest([1; 32]);

    fn waits(part: Part) -> Vec<Component> {
        vec![Component { plugin: "p".to_owned(), digest: ONE, bytes: 1, part }]
    }

    fn said(states: &[(u64, Option<State>)]) -> Said {
        states.iter().map(|(voter, state)| (*voter, state.clone().map(|state| vec![state]))).collect()
    }

    fn words(part: Part, voters: &[u64], states: &[(u64, Option<State>)]) -> Vec<String> {
        let works = decide(&waits(part), &[voters.iter().copied().collect()], &said(states));
        let word = |work| match work {
            Work::Activate { plugin, digest } if digest == ONE => format!("activate {plugin}"),
            Work::Reject { plugin, why, .. } => format!("reject {plugin}: {why}"),
            other => panic!("{other:?}"),
        };
        works.into_iter().map(word).collect()
    }

    fn ready() -> Option<State> {
        Some(State::Ready)
    }

    fn not_yet() -> Option<State> {
        Some(State::NotYet)
    }

    fn cannot() -> Option<State> {
        Some(State::Cannot("no such import".to_owned()))
    }

    #[test]
    fn a_plugin_becomes_active_when_all_who_answer_and_a_majority_are_ready() {
        let three = |states: &[(u64, Option<State>)]| words(Part::Pending, &[1, 2, 3], states);
        assert_eq!(three(&[(1, ready()), (2, ready()), (3, ready())]), ["activate p"]);
        assert_eq!(
            three(&[(1, ready()), (2, ready()), (3, None)]),
            ["activate p"],
            "one that is gone is not waited for"
        );
        assert_eq!(three(&[(1, ready()), (2, ready()), (3, not_yet())]), [""; 0], "one that answers is");
        assert_eq!(three(&[(1, ready()), (2, None), (3, None)]), [""; 0], "one of three is no majority");
        assert_eq!(words(Part::Pending, &[1], &[(1, ready())]), ["activate p"]);
        assert_eq!(words(Part::Pending, &[1, 2], &[(1, ready()), (2, None)]), [""; 0]);
    }

    #[test]
    fn while_the_membership_changes_both_majorities_are_to_be_ready() {
        let set = |voters: &[u64]| voters.iter().copied().collect::<BTreeSet<u64>>();
        let both = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        let decided = |states: &[(u64, Option<State>)]| decide(&waits(Part::Pending), &both, &said(states)).len();
        let none = |voter| (voter, None);
        assert_eq!(decided(&[(1, ready()), (2, ready()), (3, ready()), none(4), none(5)]), 0);
        assert_eq!(decided(&[(1, ready()), none(2), (3, ready()), (4, ready()), none(5)]), 1);
    }

    #[test]
    fn a_plugin_that_one_member_can_not_run_is_rejected_by_that_members_number() {
        let states = [(1, ready()), (2, cannot()), (3, not_yet())];
        let expected = ["reject p: member 2 can't run it: no such import"];
        assert_eq!(words(Part::Pending, &[1, 2, 3], &states), expected);
        assert_eq!(words(Part::Shadow, &[1, 2, 3], &states), expected);
    }

    #[test]
    fn a_shadow_that_is_ready_everywhere_stays_one() {
        assert_eq!(words(Part::Shadow, &[1], &[(1, ready())]), [""; 0]);
    }

    #[test]
    fn leadership_goes_to_one_that_is_ready_and_never_to_one_that_can_not() {
        let far = |voter: u64| voter;
        assert_eq!(choose(&said(&[(2, ready()), (3, not_yet())]), far), Some(2));
        assert_eq!(choose(&said(&[(2, ready()), (3, ready())]), far), Some(3), "its log is further");
        assert_eq!(choose(&said(&[(2, not_yet()), (3, cannot())]), far), Some(2), "it makes ready what it is missing");
        assert_eq!(choose(&said(&[(2, None), (3, cannot())]), far), None);
        assert_eq!(choose(&said(&[]), far), None);
    }
}
