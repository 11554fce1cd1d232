//! Elections whose leaders, candidates and members die.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use conclave_client::{Client, Error as ClientError, Refusal};
use conclave_election::{Error, Lost, State};
use conclave_testing::{Cluster, Mortal, PATIENCE, eventually};

use crate::common::{LONG, Way, assert_fenced_out, campaign, candidate, until_candidates, until_led_by, until_over};

async fn client_with(cluster: &Cluster, name: &str, session_timeout: Duration) -> Client {
    Client::connect(cluster.options(name).unwrap().with_session_timeout(session_timeout)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_death_somebody_leads_in_a_later_term_and_the_dead_write_nothing() {
    const SHORT: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = candidate(&cluster, Way::Procedure, "observer").await;
    let hand = cluster.client("hand").await.unwrap();
    let mortal =
        async |name: &str| Mortal::connect(cluster.options(name).unwrap().with_session_timeout(SHORT)).await.unwrap();
    // The leader and the next one vanish without a word; each by another way.
    let (first, second) = (mortal("first").await, mortal("second").await);
    let leading = Way::Procedure.election(first.client()).name("first").campaign().await.unwrap();
    let never = campaign(&Way::Plain.election(second.client()).name("second"));
    until_candidates(&observer, &["second"]).await;
    let third = candidate(&cluster, Way::Procedure, "third").await;
    let thirds = campaign(&third);
    until_candidates(&observer, &["second", "third"]).await;
    first.kill();
    second.kill();
    let third = tokio::time::timeout(LONG, thirds).await.unwrap().unwrap().unwrap();
    assert!(third.number() > leading.number());
    // All that lives on of it goes by the clock.
    assert_eq!((leading.state(), leading.lost().await), (State::Lost, Lost::SessionOver));
    assert_fenced_out(&hand, leading.fence()).await;
    never.abort();

    // A session is ended.
    let fourth = client_with(&cluster, "fourth", LONG).await;
    let fourths = campaign(&Way::Plain.election(&fourth).name("fourth"));
    until_candidates(&observer, &["fourth"]).await;
    let session = observer.leader().await.unwrap().unwrap().session.unwrap();
    let third_client = cluster.client("third").await.unwrap();
    third_client.end_session(session).await.unwrap();
    let why = third.lost().await;
    assert!(matches!(why, Lost::SessionOver | Lost::HolderGone), "{why}");
    let fourths = tokio::time::timeout(LONG, fourths).await.unwrap().unwrap().unwrap();
    assert!(fourths.number() > third.number());
    assert_fenced_out(&hand, third.fence()).await;

    // Members die: nobody loses it for that, and nobody else leads.
    let fifths = campaign(&candidate(&cluster, Way::Procedure, "fifth").await);
    until_candidates(&observer, &["fifth"]).await;
    hand.at("/state").create("").await.unwrap();
    for round in 1..=2 {
        let member = cluster.leader().await.unwrap();
        cluster.kill(member).await;
        fourths.fenced(&hand).unwrap().at("/state").set(round.to_string()).await.unwrap();
        cluster.restart(member).await.unwrap();
        assert_eq!(observer.leader().await.unwrap().map(|leader| leader.fence), Some(fourths.fence()));
        assert!(!fifths.is_finished(), "two lead");
    }
    // Resigned while there is no leader among the members.
    let member = cluster.leader().await.unwrap();
    cluster.kill(member).await;
    let term = fourths.term();
    fourths.resign().await.unwrap();
    let fifth = tokio::time::timeout(LONG, fifths).await.unwrap().unwrap().unwrap();
    assert!(fifth.number() > term.number());
    assert_eq!(until_led_by(&observer, "fifth").await.fence, fifth.fence());
    fifth.resign().await.unwrap();
    until_over(&observer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nobody_knows_it_before_the_next_leads_and_never_revives() {
    let cluster = Cluster::proxied(3).await.unwrap();
    let client = client_with(&cluster, "short", Duration::from_secs(2)).await;
    let hand = cluster.client("hand").await.unwrap();
    let election = Way::Procedure.election(&client).name("short");
    let leading = election.campaign().await.unwrap();
    hand.at("/state").create("").await.unwrap();
    let fenced = leading.fenced(&hand).unwrap();
    fenced.at("/state").set("mine").await.unwrap();
    let next = candidate(&cluster, Way::Procedure, "next").await;
    let waiting = tokio::spawn({
        let next = next.clone();
        async move { (next.campaign().within(LONG).await.unwrap(), Instant::now()) }
    });
    until_candidates(&next, &["next"]).await;
    // What its work does when it is cut off is dropped before anybody else leads.
    cluster.cut(&client).unwrap();
    let mut uncertain = false;
    eventually("it is lost", || {
        uncertain |= leading.state() == State::Uncertain;
        leading.state() == State::Lost
    })
    .await
    .unwrap();
    let lost = Instant::now();
    assert!(uncertain, "it was not doubted before it was lost");
    let (next, led) = waiting.await.unwrap();
    assert!(lost < led, "two believed that they lead");
    cluster.mend(&client).unwrap();
    client.at("/").stat().await.unwrap();
    assert_eq!((leading.state(), next.state()), (State::Lost, State::Held));
    // Written by one who was paused between looking and writing.
    let late = fenced.at("/state").set("late").await.unwrap_err();
    assert!(matches!(late, ClientError::Refused(Refusal::Fenced { .. })), "{late}");
    assert!(matches!(leading.resign().await, Err(Error::Lost(Lost::SessionOver))));
    assert!(matches!(election.campaign().await, Err(Error::SessionOver)));
    assert_eq!(next.state(), State::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_leader_a_term_whoever_comes_goes_and_hands_over() {
    const CANDIDATES: usize = 5;
    const EACH: usize = 10;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = candidate(&cluster, Way::Procedure, "observer").await;
    let hand = cluster.client("hand").await.unwrap();
    hand.at("/sum").create("0").await.unwrap();
    // By term, who led in it: what they say of themselves when they do.
    let led: Arc<StdMutex<BTreeMap<u64, usize>>> = Arc::default();
    let leading: Arc<StdMutex<Option<usize>>> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..CANDIDATES {
        let client = cluster.client(&format!("c{n}")).await.unwrap();
        let (led, leading) = (Arc::clone(&led), Arc::clone(&leading));
        tasks.push(tokio::spawn(async move {
            for round in 0..EACH {
                let election = Way::of(n + round).election(&client).name(format!("c{n}"));
                if round % 4 == 3 {
                    // One that gives up, wherever it stands by then.
                    drop(
                        tokio::time::timeout(Duration::from_millis(n as u64 * 3), election.campaign().into_future())
                            .await,
                    );
                }
                let mut leadership = election.campaign().within(LONG).await.unwrap();
                assert_eq!(leading.lock().unwrap().replace(n), None, "two lead");
                let before = led.lock().unwrap().insert(leadership.number(), n);
                assert_eq!(before, None, "two led in one term");
                let latest = led.lock().unwrap().last_key_value().map(|(term, _)| *term);
                assert_eq!(latest, Some(leadership.number()), "terms rise");
                leadership.fenced(&client).unwrap().at("/sum").add(1).await.unwrap();
                *leading.lock().unwrap() = None;
                let next = format!("c{}", (n + 1) % CANDIDATES);
                match round % 3 {
                    0 => leadership.resign().await.unwrap(),
                    1 => drop(leadership),
                    // It may have no turn to wait for just now.
                    _ => match leadership.hand_over(&next).await {
                        Ok(()) | Err(Error::NoCandidate { .. }) => drop(leadership),
                        Err(error) => panic!("{error}"),
                    },
                }
            }
        }));
    }
    let half = CANDIDATES * EACH / 2;
    eventually("leaders follow each other", || led.lock().unwrap().len() >= half).await.unwrap();
    let member = cluster.leader().await.unwrap();
    cluster.kill(member).await;
    cluster.restart(member).await.unwrap();
    for task in tasks {
        tokio::time::timeout(2 * PATIENCE, task).await.expect("nobody leads any more").unwrap();
    }
    assert_eq!(led.lock().unwrap().len(), CANDIDATES * EACH);
    assert_eq!(hand.at("/sum").get().await.unwrap().data, (CANDIDATES * EACH).to_string());
    until_over(&observer).await;
}
