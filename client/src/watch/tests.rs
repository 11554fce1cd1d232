//! Snapshots with tails, bookmarks and filters, against a member inside the process.

use std::time::Duration;

use conclave_protocol::{ChangeKind, Create, Delete, Kinds, Op, Path, Refusal, Scope, Set};

use super::*;
use crate::fake::{Fake, World};

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn set(world: &mut World, at: &str, data: &'static str) {
    world.write(Op::Set(Set { path: path(at), data: data.into(), if_version: None })).unwrap();
}

fn create(world: &mut World, at: &str) {
    world.write(Op::Create(Create { parents: true, ..Create::new(path(at), "") })).unwrap();
}

async fn next(watch: &mut Watch) -> WatchEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("nothing is told");
    event.unwrap().unwrap()
}

/// The whole of the snapshot that is told next: its zxid and its paths.
async fn whole(watch: &mut Watch) -> (Zxid, Vec<String>) {
    let mut paths = Vec::new();
    let mut expected = None;
    loop {
        let WatchEvent::Snapshot { zxid, part, entries, more } = next(watch).await else { panic!("no snapshot") };
        if part == 0 {
            paths.clear();
            expected = Some(zxid);
        }
        assert_eq!(expected, Some(zxid), "all parts are of one zxid");
        assert_eq!(watch.bookmark().is_some(), !more);
        paths.extend(entries.iter().map(|entry| entry.path.to_string()));
        if !more {
            return (zxid, paths);
        }
    }
}

async fn change(watch: &mut Watch) -> (Zxid, String) {
    match next(watch).await {
        WatchEvent::Changes { zxid, changes, .. } => (zxid, changes[0].path.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_is_followed_by_every_change_after_it_and_none_that_is_in_it() {
    let fake = Fake::new();
    let client = fake.client().await;
    for at in ["/a/b", "/a/c", "/z"] {
        create(&mut fake.world(), at);
    }
    // Changes while it is read: after its state was taken.
    fake.world().meanwhile = Some(Box::new(|world| {
        create(world, "/a/d");
        set(world, "/a/b", "2");
    }));
    let mut watch = client.watch("/a").subtree().snapshot().await.unwrap();
    // And between the watch's beginning and the reading.
    create(&mut fake.world(), "/a/b/early");
    assert_eq!(watch.bookmark(), None);
    let (zxid, paths) = whole(&mut watch).await;
    assert_eq!((zxid, paths), (Zxid(4), vec!["/a".into(), "/a/b".into(), "/a/b/early".into(), "/a/c".into()]));
    assert_eq!(change(&mut watch).await, (Zxid(5), "/a/d".into()), "4 is in the snapshot");
    assert_eq!(change(&mut watch).await, (Zxid(6), "/a/b".into()));
    assert_eq!(watch.bookmark().unwrap().to_string(), "6@fake");
}

#[tokio::test]
async fn a_watch_for_one_event_has_it_after_its_snapshot() {
    let fake = Fake::new();
    let client = fake.client().await;
    create(&mut fake.world(), "/a");
    let mut watch = client.watch("/a").subtree().snapshot().once().await.unwrap();
    // It is told, and in the snapshot.
    create(&mut fake.world(), "/a/early");
    assert_eq!(whole(&mut watch).await, (Zxid(2), vec!["/a".into(), "/a/early".into()]));
    create(&mut fake.world(), "/a/late");
    set(&mut fake.world(), "/a/late", "1");
    assert_eq!(change(&mut watch).await, (Zxid(3), "/a/late".into()));
    assert!(watch.next().await.is_none(), "it was for one event");
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_begins_anew() {
    let fake = Fake::new();
    let client = fake.client().await;
    for at in ["/a/b", "/a/c", "/a/d"] {
        create(&mut fake.world(), at);
    }
    fake.world().breaks = 2;
    let mut watch = client.watch("/a").subtree().with_data().snapshot().await.unwrap();
    let (zxid, paths) = whole(&mut watch).await;
    assert_eq!((zxid, paths.len()), (Zxid(3), 4));
    assert_eq!(fake.world().breaks, 0);
}

#[tokio::test]
async fn a_resync_is_a_new_snapshot() {
    let fake = Fake::new();
    let client = fake.client().await;
    create(&mut fake.world(), "/a/b");
    let mut watch = client.watch("/a").subtree().snapshot().await.unwrap();
    whole(&mut watch).await;
    {
        let mut world = fake.world();
        world.silent = true;
        create(&mut world, "/a/c");
        world.forgotten = Zxid(world.zxid);
    }
    fake.cut.notify_waiters();
    assert_eq!(whole(&mut watch).await.1, ["/a", "/a/b", "/a/c"]);
    {
        let mut world = fake.world();
        world.silent = false;
        set(&mut world, "/a/c", "1");
    }
    assert_eq!(change(&mut watch).await, (Zxid(3), "/a/c".into()));
}

#[tokio::test]
async fn each_scope_has_its_snapshot() {
    let fake = Fake::new();
    let client = fake.client().await;
    for at in ["/a/b/deep", "/a/c.json", "/a/d.json"] {
        create(&mut fake.world(), at);
    }
    let of = |watch: WatchBuilder| async move {
        let mut watch = watch.snapshot().await.unwrap();
        let WatchEvent::Snapshot { part: 0, entries, more: false, .. } = next(&mut watch).await else {
            panic!("not one part")
        };
        let data = entries.iter().all(|entry| entry.data.is_some());
        (entries.into_iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>(), data)
    };
    assert_eq!(of(client.watch("/a").data().with_data()).await, (vec!["/a".into()], true));
    assert_eq!(of(client.watch("/a").existence()).await, (vec!["/a".into()], false));
    assert_eq!(of(client.watch("/none").data()).await.0, Vec::<String>::new());
    assert_eq!(of(client.watch("/none").data().with_data()).await.0, Vec::<String>::new());
    assert_eq!(of(client.watch("/none").children()).await.0, Vec::<String>::new());
    assert_eq!(of(client.watch("/none").subtree()).await.0, Vec::<String>::new());
    let children = ["/a/b", "/a/c.json", "/a/d.json"].map(String::from).to_vec();
    assert_eq!(of(client.watch("/a").children().with_data()).await, (children, true));
    let json = ["/a/c.json", "/a/d.json"].map(String::from).to_vec();
    assert_eq!(of(client.watch("/a").children().names("*.json")).await, (json.clone(), false));
    let mut named = client.watch("/a").subtree().names("*.json").snapshot().await.unwrap();
    assert_eq!(whole(&mut named).await.1, json);
    create(&mut fake.world(), "/a/e.toml");
    create(&mut fake.world(), "/a/f.json");
    assert_eq!(change(&mut named).await.1, "/a/f.json");
}

#[tokio::test]
async fn children_on_several_pages_are_those_of_one_zxid() {
    for churn in [false, true] {
        let fake = Fake::new();
        let client = fake.client().await;
        for n in 0..10 {
            create(&mut fake.world(), &format!("/a/{n}/below"));
        }
        fake.world().page = 3;
        let mut watch = client.watch("/a").children().snapshot().await.unwrap();
        let stop = Arc::new(tokio::sync::Notify::new());
        if churn {
            // A child comes or goes with every listing: they are taken from the subtree in the end.
            let (fake, stop) = (Arc::clone(&fake), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut n = 0;
                let mut seen = 0;
                loop {
                    let reads = fake.world().queries.len();
                    if reads != seen {
                        seen = reads;
                        n += 1;
                        create(&mut fake.world(), &format!("/a/x{n}"));
                    }
                    tokio::select! {
                        () = stop.notified() => return,
                        () = tokio::task::yield_now() => {}
                    }
                }
            });
        }
        let WatchEvent::Snapshot { zxid, entries, more: false, .. } = next(&mut watch).await else { panic!("no part") };
        stop.notify_one();
        let names: Vec<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
        let mut expected: Vec<String> = (0..10).map(|n| format!("/a/{n}")).collect();
        expected.extend((1..=zxid.0 - 10).map(|n| format!("/a/x{n}")));
        expected.sort_unstable();
        assert_eq!(names, expected, "exactly those of {zxid}");
        assert_eq!(churn, zxid > Zxid(10));
    }
}

#[tokio::test]
async fn children_of_a_znode_that_goes_while_they_change_are_none() {
    fn churn(world: &mut World) {
        let n = world.queries.len();
        create(world, &format!("/a/x{n}"));
        world.before_read = Some(Box::new(churn));
    }
    let fake = Fake::new();
    let client = fake.client().await;
    for n in 0..10 {
        create(&mut fake.world(), &format!("/a/{n}"));
    }
    {
        let mut world = fake.world();
        world.page = 3;
        world.before_read = Some(Box::new(churn));
        // When they are taken from the subtree there is none.
        world.before_side = Some(Box::new(|world| {
            world.before_read = None;
            world.write(Op::Delete(Delete { path: path("/a"), recursive: true, ..Delete::default() })).unwrap();
        }));
    }
    let mut watch = client.watch("/a").children().snapshot().await.unwrap();
    assert_eq!(whole(&mut watch).await, (Zxid(fake.world().zxid), Vec::new()));
    create(&mut fake.world(), "/a/b");
    assert_eq!(change(&mut watch).await.1, "/a/b");
}

#[tokio::test]
async fn a_bookmark_goes_on_where_it_was_made_and_only_there() {
    let fake = Fake::new();
    let client = fake.client().await;
    create(&mut fake.world(), "/a");
    let mut watch = client.watch("/a").await.unwrap();
    set(&mut fake.world(), "/a", "1");
    change(&mut watch).await;
    let bookmark = watch.bookmark().unwrap();
    drop(watch);
    set(&mut fake.world(), "/a", "2");
    let again = client.watch("/a").with_data().snapshot();
    let mut watch = again.resume(bookmark.to_string().parse().unwrap()).await.unwrap();
    assert_eq!(watch.zxid(), bookmark.zxid);
    let WatchEvent::Changes { zxid: Zxid(3), present, .. } = next(&mut watch).await else { panic!("no change") };
    assert_eq!(present[0].as_ref().unwrap().data, "2");

    let begun = fake.world().begun.len();
    let elsewhere = Bookmark { cluster: "other".into(), ..bookmark.clone() };
    let error = client.watch("/a").resume(elsewhere).await.unwrap_err();
    let expected = Refusal::OtherCluster { expected: "other".into(), actual: "fake".into() };
    assert_eq!(error.refusal(), Some(&expected));
    assert_eq!(fake.world().begun.len(), begun, "nothing was sent");
    let error = client.watch("/a").resume(Bookmark { zxid: Zxid(99), ..bookmark }).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::FutureZxid { zxid: Zxid(99), last: Zxid(3) }));
}

#[tokio::test]
async fn kinds_and_existence_are_asked_for_as_they_are_said() {
    let fake = Fake::new();
    let client = fake.client().await;
    let deleted = client.watch("/a").subtree().kinds(&[ChangeKind::Deleted]).names("?").with_data().once().await;
    let mut deleted = deleted.unwrap();
    let mut there = client.watch("/a").existence().await.unwrap();
    {
        let world = fake.world();
        let [first, second] = &world.begun[..] else { panic!("{:?}", world.begun) };
        assert!(first.once && first.data && first.names.as_ref().unwrap().as_str() == "?");
        assert_eq!(first.kinds, Some(Kinds::of(&[ChangeKind::Deleted])));
        assert_eq!((second.scope, second.kinds, second.data), (Scope::Existence, None, false));
    }
    create(&mut fake.world(), "/a");
    set(&mut fake.world(), "/a", "1");
    client.at("/a").delete().await.unwrap();
    assert_eq!(change(&mut there).await.0, Zxid(1));
    assert_eq!(change(&mut there).await.0, Zxid(3));
    assert_eq!(change(&mut deleted).await.0, Zxid(3));
    assert!(deleted.next().await.is_none(), "it was for one event");
}
