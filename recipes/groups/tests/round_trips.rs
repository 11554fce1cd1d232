//! The round trips of groups, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::Client;
use conclave_client::Sent::{self, Hello, Read, Session, Stream, Watch, Write};
use conclave_groups::{Group, Partition, PersistentEphemeral, Share, Shares};
use conclave_testing::{PATIENCE, Tally, eventually};

const GROUP: &str = "/groups/w";

/// What comes soon, or never.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not come")
}

async fn next(shares: &mut Shares) -> Share {
    soon(shares.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn znodes_that_come_back_and_members_take_the_stated_round_trips() {
    let cluster = Tally::cluster(None).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mut tally = Tally::new(&client);
    let kept = PersistentEphemeral::create(&client, "/workers/a", "1").await.unwrap();
    let row = "create: 2, and 1 for the session; its watch: 1 in the background";
    tally.row(row, &[Session, Read, Write, Watch]).await;
    kept.set_data("2").await.unwrap();
    tally.row("set_data: 1", &[Write]).await;
    kept.remove().await.unwrap();
    tally.row("remove: 1", &[Write]).await;
    let kept = PersistentEphemeral::create(&client, "/workers/a", "1").await.unwrap();
    tally.row("create: 2", &[Read, Write, Watch]).await;

    let group = Group::new(&client, GROUP).unwrap();
    let member = group.join("ann", "").await.unwrap();
    tally.row("join: 2", &[Read, Write, Watch]).await;
    member.set_data("1").await.unwrap();
    tally.row("Member::set_data: 1", &[Write]).await;
    let mut members = group.watch().await.unwrap();
    assert_eq!(members.next().await.unwrap().unwrap().members.len(), 1);
    tally.row("Group::watch: 2 to begin", &[Watch, Stream]).await;
    member.leave().await.unwrap();
    tally.row("Member::leave: 1", &[Write]).await;
    while !soon(members.next()).await.unwrap().unwrap().members.is_empty() {}
    tally.row("a view: 0", &[]).await;
    drop(members);

    // As many as a page has, and one.
    for (names, expected) in [(0..1_000, &[Read][..]), (1_000..1_001, &[Read, Read, Stream])] {
        let paths = names.clone().map(|n| format!("{GROUP}/members/m{n}"));
        paths.fold(client.transaction(), |multi, path| multi.create(path, "")).await.unwrap();
        tally.row("they are made: 1", &[Write]).await;
        assert_eq!(group.members().await.unwrap().members.len(), names.end);
        tally.row("Group::members: 1 up to 1,000", expected).await;
    }

    let first = kept.fence();
    cluster.kill_session(&client).await.unwrap();
    eventually("it is there again", || kept.fence().is_some_and(|fence| Some(fence) != first)).await.unwrap();
    // With a client of its own. What the one before still asks, when it hears of the znode's end before it hears of its
    // session's, nobody waits for.
    let again = kept.client().unwrap();
    let sent = [Hello, Session, Read, Write, Watch, Stream].map(|kind| (kind, again.sent(kind)));
    let expected = [(Hello, 1), (Session, 1), (Read, 1), (Write, 1), (Watch, 0), (Stream, 0)];
    assert_eq!(sent, expected, "after a session was lost: a connection, a session, and 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_take_the_stated_round_trips() {
    /// The group in memory, and a member with a session.
    const JOIN: [Sent; 6] = [Watch, Stream, Session, Read, Write, Watch];
    let cluster = Tally::cluster(None).await.unwrap();
    let [ann, bob] = [cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap()];
    let [mut anns, mut bobs] = [Tally::new(&ann), Tally::new(&bob)];
    ann.at(GROUP).create("").parents().await.unwrap();
    anns.row("the group is made: 1", &[Write]).await;
    let items = |client: &Client| Partition::new(&Group::new(client, GROUP).unwrap(), ["a", "b"]).unwrap();

    let mut own = items(&ann).join("ann", "").await.unwrap();
    let shares = [next(&mut own).await, next(&mut own).await];
    let row = "Partition::join: 4, and 1 for each item that is free, sent together";
    anns.row(row, &[&JOIN[..], &[Write, Write]].concat()).await;

    let mut others = items(&bob).join("bob", "").await.unwrap();
    bobs.row("Partition::join: 4", &JOIN).await;
    let [a, b] = shares;
    let is_a = tokio::select! {
        () = a.recalled() => true,
        () = b.recalled() => false,
    };
    let (passes, stays) = if is_a { (a, b) } else { (b, a) };
    let item = passes.item().to_owned();
    passes.release().await.unwrap();
    assert_eq!(next(&mut others).await.item(), item);
    anns.row("an item that passes on: 1 to release it", &[Write]).await;
    bobs.row("and 1 to claim it", &[Write]).await;
    assert!(!stays.is_recalled());
}
