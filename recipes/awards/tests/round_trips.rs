//! The round trips of awards, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_awards::line::{Turn, Wanted, queue, take_free, take_turn};
use conclave_awards::{Exchanged, Guard, Owned, State, UnderWay};
use conclave_client::Sent::{Session, Watch, Write};
use conclave_client::{Client, Path};
use conclave_testing::Tally;
use futures::FutureExt;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn wanted(holder: &str) -> Wanted {
    Wanted { holder: path(holder), is_numbered: false, data: "".into(), only_if: Vec::new() }
}

/// A place in line, that nobody is before.
async fn place(client: &Client, tally: &mut Tally, under_way: &UnderWay) -> Owned {
    let place = queue(client, &path("/m/line"), &path("/m/line/w-"), "".into(), under_way).await.unwrap();
    tally.row("queue: 1", &[Write]).await;
    place
}

/// A guard of what was awarded.
async fn guard(client: &Client, tally: &mut Tally, award: Owned) -> Guard {
    let guard = Guard::new(award, client.session().await.unwrap());
    tally.row("Guard::new: none, and 1 in the background", &[Watch]).await;
    guard
}

#[tokio::test(flavor = "multi_thread")]
async fn awards_take_the_stated_round_trips() {
    let cluster = Tally::cluster(None).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let under_way = UnderWay::default();
    let mut tally = Tally::new(&client);
    client.session().await.unwrap();
    tally.row("the session: 1", &[Session]).await;
    client.at("/m/line").create("").parents().await.unwrap();
    tally.row("the line is made: 1", &[Write]).await;

    let award = take_free(&client, &path("/m/line"), 0, wanted("/m/holder"), &under_way).await.unwrap().unwrap();
    tally.row("take_free: 1", &[Write]).await;
    let first = guard(&client, &mut tally, award).await;
    assert!(take_free(&client, &path("/m/line"), 0, wanted("/m/holder"), &under_way).await.unwrap().is_none());
    tally.row("take_free of what is held: 1", &[Write]).await;

    let held = first.held();
    assert_eq!((held.state(), held.why(), held.token()), (State::Held, None, held.fence().zxid.0));
    assert!(held.deadline() > std::time::Instant::now() && !held.time_left().is_zero());
    assert_eq!(held.session().id(), first.session().id());
    assert!(held.lost().now_or_never().is_none());
    let fenced = held.fenced(&client).unwrap();
    tally.row("what is asked of Held: none", &[]).await;
    fenced.at("/m/n").create("0").await.unwrap();
    tally.row("a write through Fenced: 1", &[Write]).await;
    fenced.transaction().set("/m/n", "1").commit().await.unwrap();
    tally.row("a transaction through Fenced: 1", &[Write]).await;

    let mine = place(&client, &mut tally, &under_way).await;
    let Turn::NotNow(mine) = take_turn(mine, wanted("/m/holder"), &under_way).await.unwrap() else { panic!() };
    tally.row("take_turn when it is held: 1", &[Write]).await;
    first.release().await.unwrap();
    tally.row("Guard::release: 1", &[Write]).await;
    let Turn::Award(award) = take_turn(mine, wanted("/m/holder"), &under_way).await.unwrap() else { panic!() };
    tally.row("take_turn: 1", &[Write]).await;
    let second = guard(&client, &mut tally, award).await;

    let Exchanged::Not(second) = second.exchange(wanted("/m/n"), &under_way).await.unwrap() else { panic!() };
    tally.row("Guard::exchange for what is not to be had: 1", &[Write]).await;
    let Exchanged::For(third) = second.exchange(wanted("/m/other"), &under_way).await.unwrap() else { panic!() };
    tally.row("Guard::exchange: 1, and that of the new guard in the background", &[Write, Watch]).await;
    drop(third);
    tally.row("a guard is dropped: 1 that is not waited for", &[Write]).await;
    drop(place(&client, &mut tally, &under_way).await);
    tally.row("a place is dropped: 1 that is not waited for", &[Write]).await;
}
