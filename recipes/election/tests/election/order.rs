//! Who leads next: by priority, by age, by choice; what observers see; who is refused.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use conclave_client::Outcome;
use conclave_election::{Election, Error, Leader, Lost, State};
use conclave_testing::{Cluster, PATIENCE, eventually};

use crate::common::{
    self, LONG, Way, assert_fenced_out, campaign, candidate, until_candidates, until_led_by, until_over,
};

async fn the_greatest_priority_leads_next_and_of_the_same_the_oldest(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    // One of each way: there is one order for both.
    let other = if way == Way::Plain { Way::Procedure } else { Way::Plain };
    let first = candidate(&cluster, way, "first").await.data("h:1");
    assert_eq!((first.leader().await.unwrap(), first.candidates().await.unwrap()), (None, Vec::new()));
    let leadership = first.campaign().await.unwrap();
    let leader = first.leader().await.unwrap().unwrap();
    assert_eq!((leader.term(), leader.name.as_str()), (leadership.number(), "first"));
    assert_eq!((leader.data.as_deref(), leader.fence), (Some("h:1"), leadership.fence()));

    let mut tasks = Vec::new();
    let mut names = Vec::new();
    for (name, way, priority) in [("old", way, 0), ("new", other, 0), ("high", way, 5), ("low", other, -1)] {
        let candidate = candidate(&cluster, way, name).await.priority(priority);
        tasks.push((name, campaign(&candidate)));
        names.push(name);
        names.sort_by_key(|name| ["high", "old", "new", "low"].iter().position(|other| other == name));
        until_candidates(&first, &names).await;
    }
    // A leader is not replaced because a greater priority comes.
    assert_eq!(leadership.state(), State::Held);
    let mut term = leadership.number();
    leadership.resign().await.unwrap();
    for next in ["high", "old", "new", "low"] {
        let at = tasks.iter().position(|(name, _)| *name == next).unwrap();
        let (_, task) = tasks.remove(at);
        let leadership = tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
        assert_eq!(first.leader().await.unwrap().map(|leader| leader.fence), Some(leadership.fence()));
        assert!(tasks.iter().all(|(_, task)| !task.is_finished()), "two lead");
        assert!(leadership.number() > term);
        term = leadership.number();
        drop(leadership);
    }
    until_over(&first).await;
}

async fn it_is_handed_over_to_whom_the_leader_chooses(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let other = if way == Way::Plain { Way::Procedure } else { Way::Plain };
    let (ann, bob) = (candidate(&cluster, way, "ann").await, candidate(&cluster, other, "bob").await);
    let (eve, high) = (candidate(&cluster, way, "eve").await, candidate(&cluster, other, "high").await.priority(9));
    let hand = cluster.client("hand").await.unwrap();
    let mut leadership = ann.campaign().await.unwrap();
    let term = leadership.term();
    let bobs = campaign(&bob);
    until_candidates(&ann, &["bob"]).await;
    let eves = campaign(&eve);
    until_candidates(&ann, &["bob", "eve"]).await;
    let highs = campaign(&high);
    until_candidates(&ann, &["high", "bob", "eve"]).await;

    let Err(Error::NoCandidate { to, candidates }) = leadership.hand_over("nobody").await else { panic!() };
    assert_eq!((to.as_str(), candidates), ("nobody", ["high", "bob", "eve"].map(str::to_owned).to_vec()));
    assert_eq!(leadership.state(), State::Held, "it leads on");
    leadership.hand_over("eve").await.unwrap();
    assert_eq!((term.state(), term.lost().await), (State::Lost, Lost::Released));
    assert!(matches!(leadership.hand_over("bob").await, Err(Error::Lost(Lost::Released))));
    assert_fenced_out(&hand, term.fence()).await;
    let mut eves = tokio::time::timeout(PATIENCE, eves).await.unwrap().unwrap().unwrap();
    assert!(eves.number() > term.number());
    assert!(!bobs.is_finished() && !highs.is_finished());
    until_candidates(&ann, &["high", "bob"]).await;
    // To one of the other way.
    eves.hand_over("bob").await.unwrap();
    let bobs = tokio::time::timeout(PATIENCE, bobs).await.unwrap().unwrap().unwrap();
    assert!(!highs.is_finished());
    // Who has nothing to hand over any more takes nothing away.
    drop((leadership, eves));
    assert_eq!(ann.leader().await.unwrap().unwrap().fence, bobs.fence());
    hand.at(&bobs.fence().path).delete().await.unwrap();
    assert_eq!(bobs.lost().await, Lost::HolderGone);
    tokio::time::timeout(PATIENCE, highs).await.unwrap().unwrap().unwrap().resign().await.unwrap();
    until_over(&ann).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_are_told_the_present_leader_first_and_each_once() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (candidate(&cluster, Way::Procedure, "ann").await, candidate(&cluster, Way::Plain, "bob").await);
    let next = async |leaders: &mut conclave_election::Observe| {
        let next = tokio::time::timeout(PATIENCE, leaders.next()).await.expect("nothing is told");
        next.unwrap().unwrap().map(|leader: Leader| (leader.name.clone(), leader.term()))
    };
    let mut early = bob.observe().await.unwrap();
    assert_eq!(next(&mut early).await, None, "nobody leads yet");
    let first = ann.campaign().await.unwrap();
    let anns = Some(("ann".to_owned(), first.number()));
    assert_eq!(next(&mut early).await, anns);
    let mut late = bob.observe().await.unwrap();
    assert_eq!(next(&mut late).await, anns, "the present one is told at once");
    let waiting = campaign(&bob);
    until_candidates(&ann, &["bob"]).await;
    // Whatever else changes about the leader's znode, or the line, is no other leader.
    let hand = cluster.client("ann").await.unwrap();
    let holder = hand.at(&first.fence().path);
    holder.set_acl(holder.acl().await.unwrap().acl).await.unwrap();
    first.resign().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    let bobs = Some(("bob".to_owned(), second.number()));
    for leaders in [&mut early, &mut late] {
        let mut told = next(leaders).await;
        if told.is_none() {
            // In between, nobody did; that may be told.
            told = next(leaders).await;
        }
        assert_eq!(told, bobs);
    }
    drop(second);
    assert_eq!((next(&mut early).await, next(&mut late).await), (None, None));
    until_over(&ann).await;
}

async fn a_session_is_a_candidate_once(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let (ann, again) = (way.election(&client), way.election(&client));
    let bob = candidate(&cluster, way, "bob").await;
    let leadership = ann.campaign().await.unwrap();
    // Without a name it is called by its principal.
    assert!(bob.leader().await.unwrap().unwrap().name.ends_with("ann"));
    let Err(Error::AlreadyLeads { fence }) = again.campaign().await else { panic!("it leads twice") };
    assert_eq!(fence, leadership.fence());
    let waiting = campaign(&bob);
    let place = until_candidates(&ann, &["bob"]).await.remove(0).place;
    let Err(Error::AlreadyCandidate { place: already }) = bob.campaign().await else { panic!("it waits twice") };
    assert_eq!(already, place);
    let eve = candidate(&cluster, way, "eve").await;
    let time = Duration::from_millis(200);
    let error = eve.campaign().within(time).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let Error::TimedOut { after, leader: Some(leader) } = error else { panic!("{error}") };
    assert_eq!((after, leader.fence), (time, leadership.fence()));
    until_candidates(&ann, &["bob"]).await;

    // A place that is deleted by hand is told when its turn would be next.
    client.at(&place).delete().await.unwrap();
    leadership.resign().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::PlaceGone { place: gone } if *gone == place), "{error}");
    until_over(&ann).await;
}

async fn who_has_no_time_leads_only_if_nobody_does_and_nobody_waits(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = candidate(&cluster, way, "ann").await;
    let bob = candidate(&cluster, way, "bob").await;
    let at_once = |election: &Election| election.campaign().within(Duration::ZERO).into_future();
    let leadership = at_once(&ann).await.unwrap();
    let error = at_once(&bob).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let Error::TimedOut { after: Duration::ZERO, leader: Some(leader) } = error else { panic!("{error}") };
    assert_eq!(leader.fence, leadership.fence());
    assert!(matches!(at_once(&ann).await, Err(Error::AlreadyLeads { .. })));
    until_candidates(&ann, &[]).await;
    leadership.resign().await.unwrap();
    at_once(&bob).await.unwrap().resign().await.unwrap();
    until_over(&ann).await;
}

async fn campaigns_that_are_dropped_lose_no_turn_and_leave_nothing(way: Way) {
    const ROUNDS: u32 = 60;
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (candidate(&cluster, way, "ann").await, candidate(&cluster, Way::Plain, "bob").await);
    let begun = std::time::Instant::now();
    drop(ann.campaign().await.unwrap());
    let whole = begun.elapsed();
    // One that is always there, behind those that come and go.
    let terms = Arc::new(AtomicUsize::new(0));
    let steady = tokio::spawn({
        let (bob, terms) = (bob.clone(), Arc::clone(&terms));
        async move {
            loop {
                drop(bob.campaign().await.unwrap());
                terms.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for round in 0..ROUNDS {
        let time = whole * (round * 37 % ROUNDS) / (ROUNDS / 2);
        match tokio::time::timeout(time, ann.campaign().into_future()).await {
            // Refused is what would be left over.
            Ok(leadership) => drop(leadership.unwrap()),
            Err(_) => {
                let reached = terms.load(Ordering::SeqCst) + 1;
                eventually("the other leads", || terms.load(Ordering::SeqCst) >= reached).await.unwrap();
            }
        }
    }
    steady.abort();
    drop(steady.await);
    ann.campaign().within(LONG).await.unwrap().resign().await.unwrap();
    until_over(&ann).await;
}

async fn work_is_done_while_it_leads_and_dropped_when_it_does_not(way: Way) {
    let cluster = Cluster::start(1).await.unwrap();
    let hand = cluster.client("hand").await.unwrap();
    let ann = candidate(&cluster, way, "ann").await;
    let number = ann.lead(|term| async move { (term.state(), term.number()) }).await.unwrap();
    assert_eq!(number.0, State::Held);
    until_over(&ann).await;

    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let work = Dropped(Arc::clone(&drops));
    let leading = ann.lead(|term| {
        let hand = hand.clone();
        async move {
            let _work = work;
            hand.at(&term.fence().path).delete().await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    let error = tokio::time::timeout(PATIENCE, leading).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::HolderGone)), "{error}");
    assert_eq!((error.outcome(), drops.load(Ordering::SeqCst)), (Outcome::Unknown, 1));

    // Asked to, it leads again: each time in a later term.
    let terms = Arc::new(StdMutex::new(Vec::new()));
    let leading = ann.keep_leading(|term| {
        let (hand, terms) = (hand.clone(), Arc::clone(&terms));
        async move {
            let count = {
                let mut terms = terms.lock().unwrap();
                terms.push(term.number());
                terms.len()
            };
            if count < 3 {
                hand.at(&term.fence().path).delete().await.unwrap();
                std::future::pending::<()>().await;
            }
            count
        }
    });
    assert_eq!(tokio::time::timeout(PATIENCE, leading).await.unwrap().unwrap(), 3);
    let terms = terms.lock().unwrap().clone();
    assert!(terms.is_sorted_by(|a, b| a < b) && number.1 < terms[0], "{terms:?}");
    until_over(&ann).await;
    assert!(until_candidates(&ann, &[]).await.is_empty());
    let again = ann.campaign().await.unwrap();
    until_led_by(&ann, "ann").await;
    drop(again);
}

common::both_ways!(
    the_greatest_priority_leads_next_and_of_the_same_the_oldest,
    it_is_handed_over_to_whom_the_leader_chooses,
    a_session_is_a_candidate_once,
    who_has_no_time_leads_only_if_nobody_does_and_nobody_waits,
    campaigns_that_are_dropped_lose_no_turn_and_leave_nothing,
    work_is_done_while_it_leads_and_dropped_when_it_does_not,
);
