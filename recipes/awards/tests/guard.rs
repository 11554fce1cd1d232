//! A guard of a znode of one's own: what it finds out, what it gives back, and what is refused once it is lost.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_awards::line::{Turn, Wanted, queue, take_free, take_turn};
use conclave_awards::{Error, Exchanged, Guard, Lost, Owned, State, UnderWay};
use conclave_client::{Client, Error as ClientError, Fence, Path, Refusal};
use conclave_testing::{Cluster, eventually_async};
use futures::FutureExt;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn wanted(holder: &str) -> Wanted {
    Wanted { holder: path(holder), is_numbered: false, data: "".into(), only_if: Vec::new() }
}

async fn claim(client: &Client, at: &str) -> Guard {
    let session = client.session().await.unwrap();
    let created = client.at(at).create("").parents().ephemeral().await.unwrap();
    Guard::new(Owned::new(client, Fence { path: created.path, zxid: created.stat.created }), session)
}

async fn until_absent(client: &Client, at: &str) {
    let absent = async || !client.at(at).exists().await.unwrap();
    eventually_async(&format!("{at} is gone"), absent).await.unwrap();
}

fn is_fenced_out<T: std::fmt::Debug>(done: Result<T, ClientError>) -> bool {
    matches!(done.unwrap_err(), ClientError::Refused(Refusal::Fenced { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_award_is_known_and_its_writes_are_refused_in_every_namespace() {
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, hand) = (cluster.client("ann").await.unwrap(), cluster.client("hand").await.unwrap());
    let tenant = ann.namespace("/tenants/a").unwrap();
    let guard = claim(&tenant, "/claims/x").await;
    assert_eq!(guard.fence().path, path("/claims/x"));
    let (inside, outside) = (guard.fenced(&tenant).unwrap(), guard.fenced(&hand).unwrap());
    assert_eq!(outside.fence().path, path("/tenants/a/claims/x"));
    let elsewhere = guard.fenced(&ann.namespace("/tenants/b").unwrap()).unwrap_err();
    assert!(matches!(elsewhere, Error::Client(ClientError::Refused(Refusal::BadPath { .. }))), "{elsewhere}");
    inside.at("/n").create("0").await.unwrap();
    outside.at("/tenants/a/n").add(1).await.unwrap();
    outside.transaction().add("/tenants/a/n", 1).commit().await.unwrap();
    assert_eq!(inside.at("/n").get().await.unwrap().data, "2");

    hand.at("/tenants/a/claims/x").delete().await.unwrap();
    assert_eq!(guard.lost().await, Lost::HolderGone);
    assert_eq!(guard.state(), State::Lost);
    // Another's now: the path is the same, the fence is not.
    let next = claim(&hand.namespace("/tenants/a").unwrap(), "/claims/x").await;
    assert!(next.token() > guard.token());
    assert!(is_fenced_out(inside.at("/n").set("late").await));
    assert!(is_fenced_out(outside.at("/tenants/a/n").add(1).await));
    assert!(is_fenced_out(outside.transaction().set("/tenants/a/n", "late").commit().await));
    assert!(matches!(guard.release().await, Err(Error::Lost(Lost::HolderGone))));
    assert_eq!(next.state(), State::Held, "nothing was taken from the next");
    assert_eq!(hand.at("/tenants/a/n").get().await.unwrap().data, "2");

    // A session that ends takes it away, and says so.
    let guard = claim(&ann, "/claims/y").await;
    cluster.kill_session(&ann).await.unwrap();
    // Which of the two it hears first is open, and not that it hears.
    let why = guard.lost().await;
    assert!(matches!(why, Lost::SessionOver | Lost::HolderGone), "{why}");
    assert_eq!(guard.state(), State::Lost);
    let released = guard.release().await;
    assert!(matches!(released, Err(Error::Lost(said)) if said == why), "{released:?}");
    assert!(ann.session().await.is_err());

    // A client that is closed has lost it, too.
    let bob = cluster.client("bob").await.unwrap();
    let guard = claim(&bob, "/claims/y").await;
    bob.close().await.unwrap();
    assert_eq!(guard.lost().await, Lost::SessionOver);
    until_absent(&hand, "/claims/y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_future_that_is_dropped_leaves_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let under_way = UnderWay::default();
    client.at("/m/line").create("").parents().await.unwrap();
    let (line, place) = (path("/m/line"), path("/m/line/w-"));
    let places = async || client.at("/m/line").children().await.unwrap().children.len();

    // Dropped as soon as it was sent: what it made is given back.
    assert!(queue(&client, &line, &place, "".into(), &under_way).now_or_never().is_none());
    eventually_async("the place was taken", async || client.at("/m/line").stat().await.unwrap().unwrap().version > 0)
        .await
        .unwrap();
    eventually_async("the place is given back", async || places().await == 0).await.unwrap();

    let version = client.at("/m/line").stat().await.unwrap().unwrap().version;
    assert!(take_free(&client, &line, version, wanted("/m/holder"), &under_way).now_or_never().is_none());
    under_way.settled().await;
    until_absent(&client, "/m/holder").await;

    let mine = queue(&client, &line, &place, "".into(), &under_way).await.unwrap();
    assert!(take_turn(mine, wanted("/m/holder"), &under_way).now_or_never().is_none());
    under_way.settled().await;
    until_absent(&client, "/m/holder").await;
    assert_eq!(places().await, 0);

    // An exchange that is dropped gives back what there was and what there would have been.
    let guard = claim(&client, "/m/holder").await;
    let held = guard.held();
    assert!(guard.exchange(wanted("/m/other"), &under_way).now_or_never().is_none());
    under_way.settled().await;
    until_absent(&client, "/m/other").await;
    until_absent(&client, "/m/holder").await;
    assert_eq!(held.lost().await, Lost::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_award_comes_from_an_empty_line_or_from_a_place_and_never_from_what_is_gone() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let under_way = UnderWay::default();
    client.at("/m/line").create("").parents().await.unwrap();
    let (line, place) = (path("/m/line"), path("/m/line/w-"));
    let mine = queue(&client, &line, &place, "".into(), &under_way).await.unwrap();
    // The line is not what it was at version 0.
    assert!(take_free(&client, &line, 0, wanted("/m/holder"), &under_way).await.unwrap().is_none());
    let Turn::Award(award) = take_turn(mine, wanted("/m/holder"), &under_way).await.unwrap() else { panic!() };
    let second = queue(&client, &line, &place, "".into(), &under_way).await.unwrap();
    // It is held: the place is kept.
    let Turn::NotNow(second) = take_turn(second, wanted("/m/holder"), &under_way).await.unwrap() else { panic!() };
    let session = client.session().await.unwrap();
    let guard = Guard::new(award, session);

    // One award for another, and back to the same one when that is not to be had: it was held all the time.
    client.at("/m/taken").create("").await.unwrap();
    let held = guard.held();
    let Exchanged::Not(guard) = guard.exchange(wanted("/m/taken"), &under_way).await.unwrap() else { panic!() };
    assert_eq!(held.state(), State::Held);
    let Exchanged::For(other) = guard.exchange(wanted("/m/other"), &under_way).await.unwrap() else { panic!() };
    assert_eq!((held.lost().await, other.state()), (Lost::Released, State::Held));
    assert!(other.token() > held.token());
    let gone = async || !client.at("/m/holder").exists().await.unwrap();
    assert!(gone().await, "the old one is gone when the new one is there");
    other.release().await.unwrap();

    client.at(&second.fence().path).delete().await.unwrap();
    let error = take_turn(second, wanted("/m/holder"), &under_way).await.unwrap_err();
    assert!(matches!(error, Error::PlaceGone { .. }), "{error}");
    assert!(gone().await);
}
