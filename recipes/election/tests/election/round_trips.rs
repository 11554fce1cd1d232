//! The round trips of elections, counted: what the table of the crate's page states.

use conclave_client::Client;
use conclave_client::Sent::{self, Read, Session, Watch, Write};
use conclave_testing::{Cluster, Tally};

use crate::common::{self, Way, campaign, until_candidates};

/// A look on plain znodes takes two: the leader, and then the line and what is in it, sent together.
const LOOK: [Sent; 3] = [Read; 3];
/// Whom one waits for and one's own place are watched: sent together.
const WATCHES: [Sent; 2] = [Watch; 2];

fn all(steps: &[&[Sent]]) -> Vec<Sent> {
    steps.concat()
}

/// A client whose session is open, and what it has sent.
async fn counted(cluster: &Cluster, name: &str) -> (Client, Tally) {
    let client = cluster.client(name).await.unwrap();
    let mut tally = Tally::new(&client);
    client.session().await.unwrap();
    tally.row("the first use of a client: 1, its session", &[Session]).await;
    (client, tally)
}

async fn elections_take_the_stated_round_trips(way: Way) {
    let cluster = Tally::cluster(Some("election")).await.unwrap();
    let (client, mut tally) = counted(&cluster, "ann").await;
    let (other, mut others) = counted(&cluster, "bob").await;
    let ann = way.election(&client).name("ann");
    let [bob, cid] = [("bob", other), ("cid", cluster.client("cid").await.unwrap())]
        .map(|(name, client)| way.election(&client).name(name));
    let by = |plain: &[&[Sent]], procedure: &[Sent]| if way == Way::Plain { all(plain) } else { procedure.to_vec() };

    for (which, making) in [("the first time", &[Write][..]), ("", &[])] {
        let leads = ann.campaign().await.unwrap();
        let row = format!("campaign when nobody leads {which}: 1; plain 3, the first time 4");
        tally.row(&row, &by(&[&LOOK, making, &[Write, Watch]], &[Write, Watch])).await;
        leads.resign().await.unwrap();
        tally.row("resign: 1", &[Write]).await;
    }

    // Waits for one before it in line, and then for the leader: two changes.
    let leads = cid.campaign().await.unwrap();
    let next = campaign(&bob);
    until_candidates(&cid, &["bob"]).await;
    // Twice a look takes two; a place in line and the watches one each.
    others.row("campaign, and wait: 1; plain 6", &by(&[&LOOK, &[Write], &LOOK, &WATCHES], &[Write])).await;
    let mine = campaign(&ann);
    until_candidates(&cid, &["bob", "ann"]).await;
    tally.row("campaign, and wait: 1; plain 6", &by(&[&LOOK, &[Write], &LOOK, &WATCHES], &[Write])).await;
    leads.resign().await.unwrap();
    let leads = next.await.unwrap().unwrap();
    others.row("to lead: none; plain 3", &by(&[&LOOK, &[Write, Watch]], &[Watch])).await;
    tally.row("who is before it has changed: none; plain 3", &by(&[&LOOK, &WATCHES], &[])).await;
    leads.resign().await.unwrap();
    others.row("resign: 1", &[Write]).await;
    let mut leads = mine.await.unwrap().unwrap();
    tally.row("to lead: none; plain 3", &by(&[&LOOK, &[Write, Watch]], &[Watch])).await;

    let next = campaign(&bob);
    until_candidates(&cid, &["bob"]).await;
    others.row("campaign, and wait", &by(&[&LOOK, &[Write], &LOOK, &WATCHES], &[Write])).await;
    ann.leader().await.unwrap().unwrap();
    tally.row("the leader: 1", &[Read]).await;
    assert_eq!(ann.candidates().await.unwrap().len(), 1);
    tally.row("the candidates: 1", &[Read]).await;
    leads.hand_over("bob").await.unwrap();
    tally.row("hand over: 1; plain 2", &by(&[&[Read, Write]], &[Write])).await;
    drop(leads);
    tally.row("what was handed over is not given back", &[]).await;

    let leads = next.await.unwrap().unwrap();
    let mut observed = ann.observe().await.unwrap();
    assert_eq!(observed.next().await.unwrap().unwrap().unwrap().name, "bob");
    tally.row("observe: 2 to begin", &[Watch, Read]).await;
    leads.resign().await.unwrap();
    assert_eq!(observed.next().await.unwrap().unwrap(), None);
    tally.row("a change comes by itself", &[]).await;
    let mut observed = ann.observe().await.unwrap();
    assert_eq!(observed.next().await.unwrap().unwrap(), None);
    tally.row("observe when nobody leads: 3 to begin", &[Watch, Read, Read]).await;
}

common::both_ways!(elections_take_the_stated_round_trips);
