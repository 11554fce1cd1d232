//! Rule 8: when a digest is another than an entry says, a majority of voters decides who is wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
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
/// How often whoever waits for a verdict looks whether the member is stopping.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What this member computed after its last entries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Computed(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Up to here all was applied before anything was kept.
    before: Zxid,
    last: VecDeque<(Zxid, u128)>,
}

impl Computed {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a member whose tables have applied this much when it starts.
    pub(crate) fn after(applied: Zxid) -> Self {
        Self(Arc::new(Mutex::new(Kept { before: applied, last: VecDeque::new() })))
    }

    /// After the entry that ends with this zxid.
    pub(crate) fn keep(&self, zxid: Zxid, digest: u128) {
        let kept = &mut self.lock().last;
        // A rebuilt state computes again what it has computed.
        while kept.back().is_some_and(|(last, _)| *last >= zxid) {
            kept.pop_back();
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((zxid, digest));
    }

    /// After this zxid, as far as it is known.
    pub(crate) fn at(&self, zxid: Zxid) -> wire::Computed {
        let kept = self.lock();
        match kept.last.binary_search_by_key(&zxid, |(zxid, _)| *zxid) {
            Ok(found) => wire::Computed::Is(kept.last[found].1),
            Err(_) if zxid <= kept.applied().0 => wire::Computed::Forgotten,
            Err(_) => wire::Computed::NotYet,
        }
    }

    /// The last zxid that is applied, and the digest after it, if it was computed in this run.
    pub(crate) fn last(&self) -> (Zxid, Option<u128>) {
        self.lock().applied()
    }
}

impl Kept {
    fn applied(&self) -> (Zxid, Option<u128>) {
        self.last.back().map_or((self.before, None), |(zxid, digest)| (*zxid, Some(*digest)))
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
    /// The member is stopping: nothing was decided.
    Stopping,
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

/// What an answer counts as: a member that went on behind an entry, and has forgotten what it computed there, stands for
/// what the entry says. None when it has to be asked again.
fn vote(answer: wire::Computed, expected: u128) -> Option<u128> {
    match answer {
        wire::Computed::NotYet => None,
        wire::Computed::Forgotten => Some(expected),
        wire::Computed::Is(digest) => Some(digest),
    }
}

/// Asks the voters what they computed after `zxid`, where the entry says `expected`, again and again until that decides
/// who is right.
pub(crate) async fn decide(
    peers: &Peers,
    members: impl Fn() -> Members,
    zxid: Zxid,
    computed: u128,
    expected: u128,
) -> Verdict {
    let mut told = BTreeMap::from([(peers.id(), computed)]);
    loop {
        let members = members();
        let asked: Vec<u64> =
            members.voters.iter().flatten().copied().filter(|voter| !told.contains_key(voter)).collect();
        let answers = futures::future::join_all(asked.into_iter().map(async |voter| {
            let request = wire::Request::Digest { zxid: zxid.0, computed };
            match peers.ask(voter, request, ASK_WITHIN).await {
                Ok(wire::Response::Digest(answer)) => vote(answer, expected).map(|digest| (voter, digest)),
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

/// What a member says that stops because nobody is right.
pub(crate) fn no_majority(zxid: Zxid) -> String {
    format!(
        "no majority of voters agrees on the digest after zxid {zxid}: which of them holds the right state can't be told. \
         All stop writing. Compare them with `conclave doctor --dir` and restore the right one, or a backup"
    )
}

/// Where the apply thread gets its verdicts: it runs before Raft does, which knows the voters.
#[derive(Clone, Default)]
pub(crate) struct Court {
    replica: Arc<OnceLock<Replica>>,
    /// Who belonged to the cluster when the last run ended.
    before: Members,
    stopping: Arc<AtomicBool>,
}

impl Court {
    /// For a member that still knows of these members from its last run.
    pub(crate) fn new(before: Members) -> Self {
        Self { replica: Arc::default(), before, stopping: Arc::default() }
    }

    /// Raft runs: it knows the members of now.
    pub(crate) fn opens(&self, replica: Replica) {
        drop(self.replica.set(replica));
    }

    /// The member is stopping: whoever waits for a verdict gets [`Verdict::Stopping`], now and from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Decides whose digest holds: what this member computed after a zxid, or what the entry says. Called on a thread that
    /// may block; the asking is done on `runtime`.
    pub(crate) fn judge(&self, peers: Peers, runtime: Handle) -> Box<dyn Fn(Zxid, u128, u128) -> Verdict + Send> {
        let court = self.clone();
        Box::new(move |zxid, computed, expected| {
            let (peers, here) = (peers.clone(), court.clone());
            let members = move || here.replica.get().map_or_else(|| here.before.clone(), Replica::membership);
            let deciding = async move { decide(&peers, members, zxid, computed, expected).await };
            let verdict = wait(deciding, &runtime, &court.stopping);
            let leads = court.replica.get().is_some_and(|replica| replica.leadership().borrow().is_leader);
            if verdict == Verdict::Mine && leads { Verdict::MineAndPlanned } else { verdict }
        })
    }
}

/// Waits for a verdict that is found on a runtime, which may end meanwhile, or have ended.
fn wait(deciding: impl Future<Output = Verdict> + Send + 'static, runtime: &Handle, stopping: &AtomicBool) -> Verdict {
    let (tell, told) = mpsc::channel();
    let task = runtime.spawn(async move {
        // Whoever waits may have given up.
        let _ = tell.send(deciding.await);
    });
    let verdict = loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(verdict) => break verdict,
            Err(RecvTimeoutError::Timeout) if !stopping.load(Ordering::Acquire) => {}
            // A runtime that has ended drops what it was to do.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break Verdict::Stopping,
        }
    };
    task.abort();
    verdict
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
        use wire::Computed::{Forgotten, Is, NotYet};
        let computed = Computed::after(Zxid(10));
        assert_eq!((computed.at(Zxid(10)), computed.at(Zxid(11))), (Forgotten, NotYet), "known from the tables");
        assert_eq!(computed.last(), (Zxid(10), None));
        for zxid in 11..=2_010 {
            computed.keep(Zxid(zxid), u128::from(zxid) * 7);
        }
        assert_eq!(computed.at(Zxid(2_010)), Is(14_070));
        assert_eq!(computed.at(Zxid(1_011)), Is(7_077));
        assert_eq!(computed.at(Zxid(1_010)), Forgotten);
        assert_eq!(computed.at(Zxid(2_011)), NotYet);
        computed.keep(Zxid(2_009), 1);
        assert_eq!((computed.at(Zxid(2_009)), computed.at(Zxid(2_010))), (Is(1), NotYet));
        assert_eq!(computed.last(), (Zxid(2_009), Some(1)));
    }

    #[test]
    fn whoever_has_forgotten_stands_for_the_entry_and_whoever_is_behind_is_asked_again() {
        assert_eq!(vote(wire::Computed::Is(5), 6), Some(5));
        assert_eq!(vote(wire::Computed::Forgotten, 6), Some(6));
        assert_eq!(vote(wire::Computed::NotYet, 6), None);
        // Two that were there long before this one came back: without their say nothing would ever be decided.
        let told = [(1, Some(5)), (2, vote(wire::Computed::Forgotten, 6)), (3, vote(wire::Computed::Forgotten, 6))];
        let told = told.into_iter().filter_map(|(voter, digest)| Some((voter, digest?))).collect();
        assert_eq!(count(5, &told, &members(&[&[1, 2, 3]])), Some(Verdict::Theirs));
    }

    #[test]
    fn a_court_that_is_stopped_lets_go_of_whoever_waits() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let stopping = Arc::<AtomicBool>::default();
        let (handle, flag) = (runtime.handle().clone(), Arc::clone(&stopping));
        let waiting = std::thread::spawn(move || wait(std::future::pending(), &handle, &flag));
        stopping.store(true, Ordering::Release);
        assert_eq!(waiting.join().unwrap(), Verdict::Stopping);
    }

    #[test]
    fn a_verdict_that_is_waited_for_on_a_runtime_that_ends_or_has_ended_is_none() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert_eq!(wait(async { Verdict::Nobody }, runtime.handle(), &AtomicBool::new(false)), Verdict::Nobody);
        let handle = runtime.handle().clone();
        let (tell, told) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let deciding = async move {
                tell.send(()).unwrap();
                std::future::pending().await
            };
            wait(deciding, &handle, &AtomicBool::new(false))
        });
        told.recv().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        assert_eq!(waiting.join().unwrap(), Verdict::Stopping);
        assert_eq!(wait(std::future::pending(), &handle, &AtomicBool::new(false)), Verdict::Stopping);
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
    fn whoever_stops_because_nobody_is_right_says_it_in_one_line() {
        let text = no_majority(Zxid(7));
        assert!(text.contains("zxid 7: which") && text.contains("told. All stop") && !text.contains("  "), "{text}");
    }

    #[test]
    fn nothing_is_decided_before_the_membership_is_known() {
        assert_eq!(count(5, &BTreeMap::from([(1, 5)]), &members(&[])), None);
    }
}
