//! Rule 8: when a digest is another than an entry says, a majority of voters decides who is wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use conclave_protocol::Zxid;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::peer::{Peers, wire};
use crate::raft::{Members, Replica};

/// How many of the last digests a member keeps for others to ask.
const KEPT: usize = 1_000;
/// How long a member has to tell its digest.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait before those that had no answer are asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// What this member computed after its last entries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Computed(Arc<Mutex<VecDeque<(Zxid, u128)>>>);

impl Computed {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Zxid, u128)>> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the entry that ends with this zxid.
    pub(crate) fn keep(&self, zxid: Zxid, digest: u128) {
        let mut kept = self.lock();
        // A rebuilt state computes again what it has computed.
        while kept.back().is_some_and(|(last, _)| *last >= zxid) {
            kept.pop_back();
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((zxid, digest));
    }

    /// After this zxid, if it is kept.
    pub(crate) fn at(&self, zxid: Zxid) -> Option<u128> {
        let kept = self.lock();
        kept.binary_search_by_key(&zxid, |(zxid, _)| *zxid).ok().map(|found| kept[found].1)
    }
}

/// Who is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A majority computed what this member did.
    Mine,
    /// The same, and it was this member that planned the entry: its planner is wrong.
    MineAndPlanned,
    /// A majority agrees on something else.
    Theirs,
    /// Every voter has told, and there is no majority.
    Nobody,
}

/// Counts what voters computed.
///
/// None as long as those that have not told may still decide.
pub(crate) fn count(mine: u128, told: &BTreeMap<u64, u128>, members: &Members) -> Option<Verdict> {
    // While one set of voters changes into another, either has to agree.
    let agreed = |digest: u128| {
        members.voters.iter().all(|voters| {
            let agreeing = voters.iter().filter(|voter| told.get(voter) == Some(&digest)).count();
            agreeing * 2 > voters.len()
        })
    };
    if members.voters.is_empty() {
        return None;
    }
    if agreed(mine) {
        return Some(Verdict::Mine);
    }
    if told.values().any(|digest| agreed(*digest)) {
        return Some(Verdict::Theirs);
    }
    let everybody = members.voters.iter().flatten().all(|voter| told.contains_key(voter));
    everybody.then_some(Verdict::Nobody)
}

/// Asks the voters what they computed after `zxid`, again and again until that decides who is right.
pub(crate) async fn decide(peers: &Peers, members: impl Fn() -> Members, zxid: Zxid, computed: u128) -> Verdict {
    let mut told = BTreeMap::from([(peers.id(), computed)]);
    loop {
        let members = members();
        let asked: Vec<u64> =
            members.voters.iter().flatten().copied().filter(|voter| !told.contains_key(voter)).collect();
        let answers = futures::future::join_all(asked.into_iter().map(async |voter| {
            let request = wire::Request::Digest { zxid: zxid.0, computed };
            match peers.ask(voter, request, ASK_WITHIN).await {
                Ok(wire::Response::Digest(Some(digest))) => Some((voter, digest)),
                Ok(_) | Err(_) => None,
            }
        }));
        told.extend(answers.await.into_iter().flatten());
        if let Some(verdict) = count(computed, &told, &members) {
            let told: Vec<String> = told.iter().map(|(voter, digest)| format!("{voter}: {digest:032x}")).collect();
            tracing::warn!(%zxid, ?verdict, told = told.join(", "), "members compared their digests");
            return verdict;
        }
        sleep(AGAIN).await;
    }
}

/// Where the apply thread gets its verdicts: it runs before Raft does, which knows the voters.
#[derive(Clone, Default)]
pub(crate) struct Court {
    replica: Arc<OnceLock<Replica>>,
    /// Who belonged to the cluster when the last run ended.
    before: Members,
}

impl Court {
    /// For a member that still knows of these members from its last run.
    pub(crate) fn new(before: Members) -> Self {
        Self { replica: Arc::default(), before }
    }

    /// Raft runs: it knows the members of now.
    pub(crate) fn opens(&self, replica: Replica) {
        drop(self.replica.set(replica));
    }

    /// Decides whose digest holds; called on a thread that may block.
    pub(crate) fn judge(&self, peers: Peers, runtime: Handle) -> Box<dyn Fn(Zxid, u128) -> Verdict + Send> {
        let court = self.clone();
        Box::new(move |zxid, computed| {
            let members = || court.replica.get().map_or_else(|| court.before.clone(), Replica::membership);
            let verdict = runtime.block_on(decide(&peers, members, zxid, computed));
            let leads = court.replica.get().is_some_and(|replica| replica.leadership().borrow().is_leader);
            if verdict == Verdict::Mine && leads { Verdict::MineAndPlanned } else { verdict }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn members(voters: &[&[u64]]) -> Members {
        let voters = voters.iter().map(|voters| voters.iter().copied().collect::<BTreeSet<u64>>()).collect();
        Members { voters, nodes: BTreeMap::new() }
    }

    #[test]
    fn the_last_digests_are_kept_and_older_ones_forgotten() {
        let computed = Computed::default();
        for zxid in 1..=2_000 {
            computed.keep(Zxid(zxid), u128::from(zxid) * 7);
        }
        assert_eq!(computed.at(Zxid(2_000)), Some(14_000));
        assert_eq!(computed.at(Zxid(1_001)), Some(7_007));
        assert_eq!(computed.at(Zxid(1_000)), None);
        computed.keep(Zxid(1_999), 1);
        assert_eq!((computed.at(Zxid(1_999)), computed.at(Zxid(2_000))), (Some(1), None));
    }

    #[test]
    fn a_majority_of_voters_decides_and_nobody_before_it_is_one() {
        let three = members(&[&[1, 2, 3]]);
        assert_eq!(count(5, &BTreeMap::from([(1, 5)]), &three), None);
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (2, 5)]), &three), Some(Verdict::Mine));
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (2, 6)]), &three), None);
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (2, 6), (3, 6)]), &three), Some(Verdict::Theirs));
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (2, 6), (3, 7)]), &three), Some(Verdict::Nobody));
        // A learner has no say.
        assert_eq!(count(5, &BTreeMap::from([(4, 5), (2, 6), (3, 6)]), &three), Some(Verdict::Theirs));
    }

    #[test]
    fn of_two_sets_of_voters_both_must_agree() {
        let joint = members(&[&[1, 2, 3], &[3, 4, 5]]);
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (2, 5), (3, 5)]), &joint), None);
        assert_eq!(count(5, &BTreeMap::from([(1, 5), (3, 5), (4, 5)]), &joint), Some(Verdict::Mine));
    }

    #[test]
    fn nothing_is_decided_before_the_membership_is_known() {
        assert_eq!(count(5, &BTreeMap::from([(1, 5)]), &members(&[])), None);
    }
}
