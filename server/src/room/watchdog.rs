//! The watchdog of the log's disk: a leader whose disk stalls or is full hands over, and ends if it can't.
//!
//! Raft alone does not notice: a leader whose disk stands still goes on sending heartbeats, and nothing gets done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;

use crate::member::Shared;
use crate::monotonic;
use crate::peer::wire::{Request, Response};
use crate::raft::Error;

/// Between two attempts to hand over.
const ATTEMPT_EVERY: Duration = Duration::from_secs(1);
/// After so many times what is a stall, a leader that could not hand over ends.
const GIVE_UP_AFTER: u32 = 10;
/// How often the disk is looked at in the time that is a stall.
const LOOKS: u32 = 10;
/// How long another voter has to say how it is.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// How long an attempt may take before it counts as failed.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);

/// What is seen of the leader's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    /// Whether this member leads.
    leads: bool,
    /// How long the log's present write or sync has taken so far.
    busy: Option<Duration>,
    /// Whether the log waits for room.
    full: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// Hand over to the voter whose log is furthest: the disk has been busy for so long.
    HandOver(Duration),
    /// Hand over to a voter that has room.
    HandOverFull,
    /// The disk has been busy for so long, and nobody took over: end, if the others can do without.
    End(Duration),
}

/// Decides; pure.
struct Watchdog {
    stalled: Duration,
    full_since: Option<Duration>,
    attempted: Option<Duration>,
}

impl Watchdog {
    fn new(stalled: Duration) -> Self {
        Self { stalled, full_since: None, attempted: None }
    }

    fn look(&mut self, now: Duration, sight: Sight) -> Act {
        let full_since = if sight.leads && sight.full { Some(*self.full_since.get_or_insert(now)) } else { None };
        self.full_since = full_since;
        if !sight.leads {
            self.attempted = None;
            return Act::Nothing;
        }
        let act = match (sight.busy, full_since) {
            (Some(busy), _) if busy >= self.stalled * GIVE_UP_AFTER => Act::End(busy),
            (Some(busy), _) if busy >= self.stalled => Act::HandOver(busy),
            (_, Some(since)) if now.saturating_sub(since) >= self.stalled => Act::HandOverFull,
            _ => return Act::Nothing,
        };
        if self.attempted.is_some_and(|at| now.saturating_sub(at) < ATTEMPT_EVERY) {
            return Act::Nothing;
        }
        self.attempted = Some(now);
        act
    }
}

/// Watches until the member ends.
pub(super) async fn run(shared: Arc<Shared>, stalled: Duration) {
    let mut watchdog = Watchdog::new(stalled);
    let mut ticks = tokio::time::interval((stalled / LOOKS).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stats = shared.log.stats();
        let sight = Sight {
            leads: shared.leadership.borrow().is_leader,
            busy: stats.busy_for(),
            full: stats.full.load(Ordering::Relaxed),
        };
        match watchdog.look(monotonic(), sight) {
            Act::Nothing => {}
            Act::HandOver(busy) => {
                tracing::warn!(busy_ms = busy.as_millis(), "the log's disk stands still: this member hands over");
                attempt(&shared, shared.replica.step_down()).await;
            }
            Act::HandOverFull => {
                // Where nobody has more room, this member leads on: deletes may help, another leader would not.
                if let Some(to) = with_room(&shared).await {
                    tracing::warn!(to, "the log waits for room on a full disk: this member hands over");
                    attempt(&shared, shared.replica.transfer_leader(to)).await;
                }
            }
            Act::End(busy) if others_are_a_majority(&shared).await => {
                let busy_s = busy.as_secs();
                return shared.fault(format!(
                    "the log's disk has not ended a write or sync for {busy_s} s, and leadership could not be handed \
                     over: this member ends, so that the others can go on"
                ));
            }
            Act::End(_) => attempt(&shared, shared.replica.step_down()).await,
        }
    }
}

async fn attempt(shared: &Shared, handing_over: impl Future<Output = Result<(), Error>>) {
    let done = match tokio::time::timeout(ATTEMPT_WITHIN, handing_over).await {
        Ok(Ok(())) => {
            shared.room.count_handed_over();
            return tracing::info!("another member leads");
        }
        Ok(Err(error)) => error,
        Err(_) => Error::NotInTime(ATTEMPT_WITHIN),
    };
    tracing::warn!(error = %done, "no other member leads yet");
}

/// The voters beside this member, and how many make a majority with it, of the larger of two sets if there are two.
fn voters(shared: &Shared) -> (BTreeSet<u64>, usize) {
    let sets = shared.replica.membership().voters;
    let majority = sets.iter().map(|set| set.len() / 2 + 1).max().unwrap_or(1);
    (sets.into_iter().flatten().filter(|id| *id != shared.id.0).collect(), majority)
}

/// Whether enough other voters answer to elect a leader without this member.
async fn others_are_a_majority(shared: &Shared) -> bool {
    let (others, majority) = voters(shared);
    let asked = others.into_iter().map(|id| shared.peers.ask(id, Request::Clock, ASK_WITHIN));
    join_all(asked).await.iter().filter(|answer| answer.is_ok()).count() >= majority
}

/// The other voter with most room, if it has more than this member needs.
async fn with_room(shared: &Shared) -> Option<u64> {
    let (others, _) = voters(shared);
    let asked = others.into_iter().map(async |id| (shared.peers.ask(id, Request::Status, ASK_WITHIN).await, id));
    let told = join_all(asked).await.into_iter().filter_map(|(answer, id)| match answer {
        Ok(Response::Status(status)) => Some((status.free_bytes, id)),
        _ => None,
    });
    told.filter(|(free_bytes, _)| *free_bytes > shared.room.needed_bytes()).max().map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn busy(for_ms: u64) -> Sight {
        Sight { leads: true, busy: Some(ms(for_ms)), full: false }
    }

    #[test]
    fn a_disk_that_is_busy_for_less_than_a_stall_is_let_be() {
        let mut watchdog = Watchdog::new(STALLED);
        for now in 0..100 {
            assert_eq!(watchdog.look(ms(now * 100), busy(999)), Act::Nothing);
        }
        assert_eq!(watchdog.look(ms(20_000), Sight { leads: true, busy: None, full: false }), Act::Nothing);
    }

    #[test]
    fn a_stalled_leader_hands_over_once_a_second_and_then_ends() {
        let mut watchdog = Watchdog::new(STALLED);
        let acts: Vec<(u64, Act)> = (0..=120)
            .map(|n| (n * 100, watchdog.look(ms(n * 100), busy(n * 100))))
            .filter(|(_, act)| *act != Act::Nothing)
            .collect();
        let hand_over = |s: u64| (s * 1_000, Act::HandOver(ms(s * 1_000)));
        let end = |s: u64| (s * 1_000, Act::End(ms(s * 1_000)));
        let expected: Vec<_> = (1..10).map(hand_over).chain((10..=12).map(end)).collect();
        assert_eq!(acts, expected);
    }

    #[test]
    fn a_follower_is_let_be_and_what_was_before_its_leadership_does_not_count() {
        let mut watchdog = Watchdog::new(STALLED);
        let follows = Sight { leads: false, full: true, ..busy(60_000) };
        assert_eq!(watchdog.look(ms(0), follows), Act::Nothing);
        let full = Sight { leads: true, busy: None, full: true };
        assert_eq!(watchdog.look(ms(5_000), full), Act::Nothing, "full since just now, as far as leading goes");
        assert_eq!(watchdog.look(ms(6_000), full), Act::HandOverFull);
        // Another term of it begins anew.
        assert_eq!(watchdog.look(ms(6_100), follows), Act::Nothing);
        assert_eq!(watchdog.look(ms(6_200), busy(1_000)), Act::HandOver(ms(1_000)));
    }

    #[test]
    fn a_full_leader_never_ends() {
        let mut watchdog = Watchdog::new(STALLED);
        let full = Sight { leads: true, busy: None, full: true };
        for now in 0..100_u64 {
            let act = watchdog.look(ms(now * 500), full);
            let expected = if now >= 2 && now % 2 == 0 { Act::HandOverFull } else { Act::Nothing };
            assert_eq!(act, expected, "{now}");
        }
        let room = Sight { full: false, ..full };
        assert_eq!(watchdog.look(ms(100_000), room), Act::Nothing);
        assert_eq!(watchdog.look(ms(101_000), full), Act::Nothing, "it was not full in between");
    }
}
