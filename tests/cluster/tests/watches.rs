//! Watches: each change once, in order, before newer replies, across members and leaders.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use conclave_client::{Change, ChangeKind, Client, Watch, WatchEvent, Zxid};
use conclave_protocol::{Answer, ClientMessage, Path, Scope, ServerMessage, WatchId, WatchRequest, limits};
use conclave_testing::{Cluster, PATIENCE, Raw};

/// The next event's changes.
async fn next(watch: &mut Watch) -> (Zxid, Vec<Change>) {
    let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    match event {
        WatchEvent::Changes { zxid, changes, .. } => (zxid, changes),
        other => panic!("{other:?}"),
    }
}

fn told(changes: &[Change]) -> Vec<(ChangeKind, &str)> {
    changes.iter().map(|change| (change.kind, change.path.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_is_told_of_its_changes() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let writer = cluster.client("bob").await.unwrap();
    let mut data = client.watch("/a").data().await.unwrap();
    let mut children = client.watch("/a").children().await.unwrap();
    let mut subtree = client.watch("/a").subtree().await.unwrap();
    let mut once = client.watch("/a").data().once().await.unwrap();
    writer.at("/a/b").create("1").parents().await.unwrap();
    writer.at("/a").set("2").await.unwrap();
    writer.at("/a/b").set("3").await.unwrap();
    writer.at("/a").delete().recursive().await.unwrap();

    use ChangeKind::{Created, Data, Deleted};
    assert_eq!(told(&next(&mut data).await.1), [(Created, "/a")]);
    assert_eq!(told(&next(&mut data).await.1), [(Data, "/a")]);
    assert_eq!(told(&next(&mut data).await.1), [(Deleted, "/a")]);
    assert_eq!(told(&next(&mut children).await.1), [(Created, "/a/b")]);
    assert_eq!(told(&next(&mut children).await.1), [(Deleted, "/a/b"), (Deleted, "/a")]);
    assert_eq!(told(&next(&mut subtree).await.1), [(Created, "/a"), (Created, "/a/b")]);
    assert_eq!(told(&next(&mut subtree).await.1), [(Data, "/a")]);
    assert_eq!(told(&next(&mut subtree).await.1), [(Data, "/a/b")]);
    assert_eq!(told(&next(&mut subtree).await.1), [(Deleted, "/a/b"), (Deleted, "/a")]);
    assert_eq!(told(&next(&mut once).await.1), [(Created, "/a")]);
    assert!(once.next().await.is_none(), "a one-shot watch ends with its event");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_once_whoever_dies() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let writer = cluster.client("bob").await.unwrap().pipelined();
    writer.at("/w").create("").await.unwrap();
    let mut watch = client.watch("/w").subtree().await.unwrap();

    const WRITES: usize = 300;
    let writing = tokio::spawn(async move {
        for n in 0..WRITES {
            writer.at(format!("/w/{n:04}")).create(n.to_string()).await.unwrap();
        }
    });
    let mut seen = BTreeMap::new();
    let mut last = Zxid(0);
    while seen.len() < WRITES {
        let (zxid, changes) = next(&mut watch).await;
        assert!(zxid > last, "events come in order, each once");
        last = zxid;
        for change in changes {
            *seen.entry(change.path.to_string()).or_insert(0) += 1;
        }
        // Whoever serves the watch dies, then whoever leads.
        if seen.len() == WRITES / 4 || seen.len() == WRITES / 2 {
            let id = client.peer().unwrap().member.0;
            cluster.kill(id).await;
            cluster.restart(id).await.unwrap();
        }
        if seen.len() == WRITES * 3 / 4 {
            let id = cluster.leader().await.unwrap();
            cluster.kill(id).await;
            cluster.restart(id).await.unwrap();
        }
    }
    writing.await.unwrap();
    assert!(seen.values().all(|count| *count == 1), "nothing is told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_from_a_zxid_and_events_come_before_newer_replies() {
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let created = client.at("/r").create("0").await.unwrap();
    for n in 1..=400u32 {
        client.at("/r").set(n.to_string()).await.unwrap();
    }
    let mut watch = client.watch("/r").since(created.stat.created).await.unwrap();
    for version in 1..=400u64 {
        let (_, changes) = next(&mut watch).await;
        assert_eq!(changes[0].version, version, "all of the past, in order");
    }
    // An event must already be there when a reply arrives that knows of it.
    let mut watch = client.watch("/r").await.unwrap();
    let writer = cluster.client("bob").await.unwrap();
    for n in 0..50u32 {
        let stat = writer.at("/r").set(format!("x{n}")).await.unwrap();
        let znode = client.at("/r").get().linearizable().await.unwrap();
        assert!(znode.stat.version >= stat.version);
        let event = futures::poll!(std::pin::pin!(watch.next()));
        let std::task::Poll::Ready(Some(Ok(WatchEvent::Changes { changes, .. }))) = event else {
            panic!("the reply came before the event: {event:?}");
        };
        assert_eq!(changes[0].version, stat.version);
    }
}

/// Sets a znode so often, many at a time.
async fn set_often(client: &Client, path: &str, times: u64) {
    const AT_A_TIME: u64 = 500;
    for _ in 0..times / AT_A_TIME {
        let writes = (0..AT_A_TIME).map(|_| client.at(path).set("x").within(PATIENCE).into_future());
        futures::future::try_join_all(writes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_past_is_not_kept_any_more_is_told_to_read_the_present() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap().pipelined();
    let created = client.at("/r").create("0").await.unwrap();
    set_often(&client, "/r", limits::HISTORY_TRANSACTIONS + 1_000).await;
    let mut watch = client.watch("/r").since(created.stat.created).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    let WatchEvent::Resync { zxid } = event else { panic!("{event:?}") };
    assert_eq!(zxid, client.zxid());
    let stat = client.at("/r").set("last").await.unwrap();
    assert_eq!(next(&mut watch).await.1[0].version, stat.version, "later changes are told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_told_to_read_the_present_and_then_goes_on() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap().pipelined();
    client.at("/r").create("0").await.unwrap();
    let mut slow = Raw::connect(&cluster, 1, "slow").await.unwrap();
    slow.hello().await.unwrap();
    // Long paths fill the stream's window soon; then events pile up at the member, up to its limit.
    let path = Path::parse("/r").unwrap();
    let watch = WatchRequest::new(WatchId(1), path, Scope::Subtree);
    slow.send(&ClientMessage::Watch { id: 1, watch }).await.unwrap();
    let answer = slow.receive().await.unwrap();
    assert!(matches!(answer, Some(ServerMessage::Answer { answer: Ok(Answer::Watching), .. })), "{answer:?}");
    let long = format!("/r/{}", "n".repeat(250));
    client.at(long.as_str()).create("").await.unwrap();
    set_often(&client, &long, 3 * limits::QUEUED_EVENTS as u64).await;

    let (mut told, mut resync) = (0, None);
    while resync.is_none() {
        match slow.receive().await.unwrap().unwrap() {
            ServerMessage::Event { changes, .. } => told += changes.len(),
            ServerMessage::Resync { zxid, .. } => resync = Some(zxid),
            other => panic!("{other:?}"),
        }
    }
    assert!((limits::QUEUED_EVENTS..3 * limits::QUEUED_EVENTS).contains(&told), "bounded: {told}");
    assert!(resync.unwrap() <= client.zxid());
    let stat = client.at("/r").set("after").await.unwrap();
    loop {
        if let Some(ServerMessage::Event { changes, zxid, .. }) = slow.receive().await.unwrap()
            && changes[0].path.as_str() == "/r"
        {
            assert!(zxid > resync.unwrap());
            assert_eq!(changes[0].version, stat.version);
            break;
        }
    }
}
