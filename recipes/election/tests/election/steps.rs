//! Elections whose cluster's leader dies at every step of a transaction, and whose candidates die after every step of
//! theirs. (A *leader* is the cluster's here; of an election one *leads*.)

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_client::Client;
use conclave_election::{Election, Error, Leadership, State};
use conclave_testing::{Cluster, End, Mortal, PATIENCE, Step, hasty};

use crate::common::{self, LONG, Way, assert_fenced_out, campaign, until_candidates, until_led_by, until_over};

/// Entries of the scenario: two campaigns, three writes, a hand-over or a resignation, a resignation; by plain znodes more. Of
/// the last one a member may hear when the scenario is over.
const ENTRIES: u32 = 7 - 1;
/// More than there are: every one of them is tried.
const MOST: u32 = 20;

fn election(way: Way, client: &Client, path: &str, name: &str) -> Election {
    let election = Election::new(client, path).unwrap().name(name);
    if way == Way::Plain { election.plain() } else { election }
}

async fn ready(cluster: &Cluster, name: &str) -> Client {
    let client = cluster.client(name).await.unwrap();
    client.session().await.unwrap();
    client
}

/// Writes down who leads in which term.
fn led(terms: &mut BTreeMap<u64, &'static str>, leadership: &Leadership, name: &'static str) {
    assert!(
        terms.keys().all(|term| *term < leadership.number()),
        "{name} leads in {} after {terms:?}",
        leadership.number()
    );
    terms.insert(leadership.number(), name);
}

async fn whenever_the_leader_dies_one_leads_after_the_other(way: Way) {
    // Two clusters at a time: most of it is waiting for elections.
    let (before, after) = Step::ALL.split_at(4);
    tokio::join!(leaders_die(way, before), leaders_die(way, after));
}

async fn leaders_die(way: Way, steps: &[Step]) {
    let mut cluster = Cluster::setup(3).proxied().configured(hasty).start().await.unwrap();
    let (ann, bob, hand) = (ready(&cluster, "ann").await, ready(&cluster, "bob").await, ready(&cluster, "hand").await);
    hand.at("/sum").create("0").await.unwrap();
    let mut sum = 0;
    let scenario = async |round| {
        let path = format!("/election/{round}");
        let (anns, bobs) = (election(way, &ann, &path, "ann"), election(way, &bob, &path, "bob"));
        let mut terms = BTreeMap::new();
        let mut first = anns.campaign().within(LONG).await.unwrap();
        led(&mut terms, &first, "ann");
        let waiting = campaign(&bobs);
        until_candidates(&anns, &["bob"]).await;
        first.fenced(&ann).unwrap().at("/sum").add(1).await.unwrap();
        assert!(!waiting.is_finished(), "two lead");
        assert_eq!(bobs.leader().await.unwrap().map(|leader| leader.fence), Some(first.fence()));
        let fence = first.fence();
        if round % 2 == 0 {
            first.resign().await.unwrap()
        } else {
            first.hand_over("bob").await.unwrap()
        }
        let second = tokio::time::timeout(PATIENCE, waiting).await.expect("nobody leads").unwrap().unwrap();
        led(&mut terms, &second, "bob");
        assert_fenced_out(&hand, fence).await;
        second.fenced(&hand).unwrap().at("/sum").add(1).await.unwrap();
        assert_eq!(until_led_by(&anns, "bob").await.fence, second.fence());
        assert_ne!(second.state(), State::Lost);
        second.resign().await.unwrap();
        until_over(&bobs).await;
        sum += 2;
        // Each write was carried out once, and only of those who led.
        assert_eq!(hand.at("/sum").get().await.unwrap().data, sum.to_string());
    };
    let deaths = cluster.fail_everywhere(steps, MOST, scenario).await.unwrap();
    assert!(deaths.values().all(|deaths| *deaths >= ENTRIES), "{deaths:?}");
}

/// How far a candidate comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    Leads,
    Writes,
    HandsOver,
    Resigns,
}

async fn whatever_a_candidate_did_before_its_end_the_next_one_leads(way: Way) {
    let cluster = Cluster::proxied(3).await.unwrap();
    cluster.client("hand").await.unwrap().at("/state").create("").await.unwrap();
    let mut ends = Vec::new();
    for stage in [Stage::Waits, Stage::Leads, Stage::Writes, Stage::HandsOver, Stage::Resigns] {
        for end in End::ALL {
            ends.push(one_ends(&cluster, way, stage, end));
        }
    }
    // Each in an election of its own.
    futures::future::join_all(ends).await;
}

async fn one_ends(cluster: &Cluster, way: Way, stage: Stage, end: End) {
    let name = format!("{stage:?}-{end:?}");
    let path = format!("/election/{name}");
    let candidate = async |who: &str| {
        let options = cluster.options(&format!("{who}-{name}")).unwrap().with_session_timeout(LONG);
        Client::connect(options).await.unwrap()
    };
    let (other, next) = (candidate("other").await, candidate("next").await);
    let options = cluster.options(&format!("victim-{name}")).unwrap();
    let victim = Mortal::connect(options.with_session_timeout(Duration::from_secs(2))).await.unwrap();
    let client = victim.client().clone();
    let others = election(way, &other, &path, "other");

    let first = others.campaign().await.unwrap();
    let mine = campaign(&election(way, &client, &path, "victim"));
    until_candidates(&others, &["victim"]).await;
    let waiting = campaign(&election(way, &next, &path, "next"));
    until_candidates(&others, &["victim", "next"]).await;
    let (mut first, mut mine, mut held, mut fence) = (Some(first), Some(mine), None, None);
    if stage != Stage::Waits {
        first.take().unwrap().resign().await.unwrap();
        let mut leading = mine.take().unwrap().await.unwrap().unwrap();
        fence = Some(leading.fence());
        match stage {
            Stage::Waits | Stage::Leads => held = Some(leading),
            Stage::Writes => {
                leading.fenced(&client).unwrap().at("/state").set(name.clone()).await.unwrap();
                held = Some(leading);
            }
            Stage::HandsOver => leading.hand_over("next").await.unwrap(),
            Stage::Resigns => leading.resign().await.unwrap(),
        }
    }
    let mut victim = Some(victim);
    end.befall(cluster, &client, &mut victim).await.unwrap();
    // What it says while nobody hears it, and what arrives of it when it is heard again.
    let late = format!("/late-{name}");
    let writes = fence.clone().filter(|_| end == End::IsPaused);
    let writes = writes.map(|fence| tokio::spawn(client.at(&late).create("").fenced(fence).into_future()));
    if let Some(first) = first {
        // The turn of one who is gone, whether that is known already or not.
        first.resign().await.unwrap();
    }
    let next = tokio::time::timeout(PATIENCE, waiting).await.expect("nobody leads").unwrap().unwrap();
    if let Some(leading) = held {
        // Who was not told goes by the clock, and knows before anybody else leads.
        if end == End::SessionIsKilled {
            leading.lost().await;
        }
        assert_eq!(leading.state(), State::Lost, "{stage:?}, {end:?}: two lead");
    }
    if end == End::IsPaused {
        cluster.mend(&client).unwrap();
    }
    match mine {
        // Nobody is left to hear it.
        Some(mine) if end == End::Vanishes => mine.abort(),
        Some(mine) => assert!(matches!(mine.await.unwrap(), Err(Error::SessionOver)), "{stage:?}, {end:?}"),
        None => {}
    }
    if let Some(fence) = fence {
        assert!(next.number() > fence.zxid.0);
        assert_fenced_out(&other, fence).await;
    }
    if let Some(writes) = writes {
        assert!(writes.await.unwrap().is_err(), "{name}: it wrote when its time was over");
        assert!(!other.at(&late).exists().linearizable().await.unwrap());
    }
    next.fenced(&other).unwrap().at("/state").set("").await.unwrap();
    assert_eq!(until_led_by(&others, "next").await.fence, next.fence());
    next.resign().await.unwrap();
    until_over(&others).await;
}

common::both_ways!(
    whenever_the_leader_dies_one_leads_after_the_other,
    whatever_a_candidate_did_before_its_end_the_next_one_leads,
);
