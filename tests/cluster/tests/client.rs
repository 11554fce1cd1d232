//! What the typed client offers over the tree, on whole clusters: namespaces, typed values, snapshots, bookmarks, parts.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_client::{Bookmark, ChangeKind, Client, Error, Refusal, TypedEvent, Watch, WatchEvent, Zxid};
use conclave_testing::{Cluster, PATIENCE};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> Refusal {
    match answer.unwrap_err() {
        Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

async fn next(watch: &mut Watch) -> WatchEvent {
    tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_a_tree_of_its_own_and_its_end_is_said() {
    let cluster = Cluster::start(3).await.unwrap();
    let outer = cluster.client("ann").await.unwrap();
    outer.at("/tenants/a").create("").parents().await.unwrap();
    let inner = outer.namespace("/tenants/a").unwrap();
    let mut watch = inner.watch("/").subtree().await.unwrap();
    let created = inner.at("/x/y").create("1").parents().await.unwrap();
    assert_eq!(created.path.as_str(), "/x/y");
    assert_eq!(outer.at("/tenants/a/x/y").get().await.unwrap().data, "1");
    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no changes") };
    assert_eq!(changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["/x", "/x/y"]);
    assert!(matches!(refusal(inner.at("/x").create("").await), Refusal::ZnodeExists { path } if path.as_str() == "/x"));
    let deep = inner.namespace("/x").unwrap();
    assert_eq!(deep.at("/y").get().await.unwrap().data, "1");
    let all: Vec<_> = deep.at("/").subtree().await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["/", "/y"]);

    // Its root goes under it.
    outer.at("/tenants/a").delete().recursive().await.unwrap();
    assert!(matches!(refusal(deep.at("/y").get().await), Refusal::NoZnode { path } if path.as_str() == "/y"));
    assert!(matches!(refusal(deep.at("/z").create("").await), Refusal::NoZnode { path } if path.as_str() == "/"));
    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no changes") };
    assert!(changes.iter().all(|change| change.kind == ChangeKind::Deleted) && changes.len() == 3);
    deep.at("/z").create("again").parents().await.unwrap();
    assert_eq!(outer.at("/tenants/a/x/z").get().await.unwrap().data, "again");
    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no changes") };
    assert_eq!(changes.last().unwrap().path.as_str(), "/x/z", "the watch goes on");
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Settings {
    workers: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_values_are_updated_by_many_and_bad_data_is_no_end_of_their_watch() {
    const CLIENTS: u32 = 4;
    const EACH: u32 = 25;
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let settings = client.at("/settings").typed::<Settings>().json();
    settings.create(Settings::default()).await.unwrap();
    let mut watch = settings.watch().await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..CLIENTS {
        let client = cluster.client(&format!("worker-{n}")).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let settings = client.at("/settings").typed::<Settings>().json().within(Duration::from_secs(60));
            for _ in 0..EACH {
                settings.update(|settings| settings.workers += 1).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let read = settings.get().await.unwrap();
    assert_eq!(read.value, Settings { workers: CLIENTS * EACH });
    assert_eq!(read.stat.version, u64::from(CLIENTS * EACH));
    client.at("/settings").set("{no settings").await.unwrap();
    settings.set(Settings { workers: 7 }).await.unwrap();
    assert!(
        matches!(settings.update(|_| Err::<(), _>("not today")).await, Err(error) if error.to_string().contains("not today"))
    );
    client.at("/settings").delete().await.unwrap();
    // Values may be skipped, none goes back; what does not decode is told, and what follows it too.
    let (mut last, mut undecodable) = (0, 0);
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        match event {
            TypedEvent::Value(value) => {
                assert!(value.stat.version >= last, "{value:?} after version {last}");
                last = value.stat.version;
            }
            TypedEvent::Undecodable(_) => undecodable += 1,
            TypedEvent::Absent { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(undecodable <= 1 && last <= u64::from(CLIENTS * EACH) + 2);
}

/// The tree that a watch with a snapshot tells of.
#[derive(Default)]
struct Told(BTreeMap<String, u64>);

impl Told {
    fn take(&mut self, event: WatchEvent) -> Zxid {
        match event {
            WatchEvent::Snapshot { zxid, part, entries, .. } => {
                if part == 0 {
                    self.0.clear();
                }
                self.0.extend(entries.into_iter().map(|entry| (entry.path.to_string(), entry.stat.version)));
                zxid
            }
            WatchEvent::Changes { zxid, changes, .. } => {
                for change in changes {
                    match change.kind {
                        ChangeKind::Deleted => self.0.remove(change.path.as_str()),
                        _ => self.0.insert(change.path.to_string(), change.version),
                    };
                }
                zxid
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn write(client: Client, from: u32, count: u32) {
    for n in from..from + count {
        let path = format!("/s/{}/{}", n % 7, n % 50);
        match n % 5 {
            4 => drop(client.at(&path).delete().await),
            _ => drop(client.at(&path).create(n.to_string()).or_set().parents().await.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_its_tail_are_the_tree_also_from_a_bookmark() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/s").create("").await.unwrap();
    write(client.clone(), 0, 200).await;
    let writing = tokio::spawn(write(cluster.client("bob").await.unwrap(), 200, 600));
    let mut told = Told::default();
    let mut watch = client.watch("/s").subtree().snapshot().await.unwrap();
    for _ in 0..100 {
        told.take(next(&mut watch).await);
    }
    // Another process goes on where this one was, at another member.
    let bookmark: Bookmark = watch.bookmark().unwrap().to_string().parse().unwrap();
    drop(watch);
    let id = client.peer().unwrap().member.0;
    cluster.kill(id).await;
    let later = cluster.client("ann").await.unwrap();
    let mut watch = later.watch("/s").subtree().snapshot().resume(bookmark.clone()).await.unwrap();
    writing.await.unwrap();
    let end = later.at("/s").set("end").await.unwrap().modified;
    while told.take(next(&mut watch).await) < end {}
    let tree: Vec<_> = later.at("/s").subtree().await.unwrap().try_collect().await.unwrap();
    let tree: BTreeMap<String, u64> =
        tree.into_iter().map(|entry| (entry.path.to_string(), entry.stat.version)).collect();
    assert_eq!(told.0, tree);
    cluster.restart(id).await.unwrap();

    let other = Bookmark { cluster: "another".to_owned(), ..bookmark.clone() };
    let refused = refusal(later.watch("/s").resume(other).await);
    assert!(matches!(refused, Refusal::OtherCluster { .. }), "{refused}");
    let future = Bookmark { zxid: Zxid(end.0 + 1_000_000), ..bookmark };
    let refused = refusal(later.watch("/s").resume(future).await);
    assert!(matches!(refused, Refusal::FutureZxid { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subtree_too_large_for_one_transaction_goes_in_parts_and_is_read_as_of_one_zxid() {
    const COUNT: usize = 12_000;
    let cluster = Cluster::start(3).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/huge").create("").await.unwrap();
    for from in (0..COUNT).step_by(1_000) {
        let mut transaction = client.transaction();
        for n in from..from + 1_000 {
            transaction = transaction.create(format!("/huge/{n}"), "x");
        }
        transaction.await.unwrap();
    }
    let refused = refusal(client.at("/huge").delete().recursive().await);
    assert!(matches!(refused, Refusal::Limit { limit: 10_000, .. }), "{refused}");
    let mut tree = client.at("/huge").subtree().with_data().await.unwrap();
    // It goes while it is read: what is read is as of one zxid all the same.
    let deleting = tokio::spawn({
        let client = client.clone();
        async move { client.at("/huge").delete_all().await }
    });
    let mut entries = 0;
    while let Some(entry) = tree.next().await {
        let entry = entry.unwrap();
        assert!(entry.stat.modified <= tree.zxid());
        entries += 1;
    }
    assert_eq!(entries, COUNT + 1);
    assert_eq!(deleting.await.unwrap().unwrap(), COUNT as u64 + 1);
    assert!(!client.at("/huge").exists().await.unwrap());
}
