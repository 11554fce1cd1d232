//! The cache against a member inside the process.

use conclave_protocol::{Delete, Op, Refusal, Set};

use super::*;
use crate::fake::{Fake, World};

fn set(world: &mut World, path: &str, data: &'static str) {
    let path = Path::parse(path).unwrap();
    world.write(Op::Set(Set { path, data: data.into(), if_version: None })).unwrap();
}

#[tokio::test]
async fn a_cache_shows_the_subtree_and_follows_it() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app/a").create("1").parents().await.unwrap();
    client.at("/other").create("x").await.unwrap();
    let cache = client.cache("/app").await.unwrap();
    assert_eq!(cache.zxid(), Some(Zxid(2)));
    assert_eq!(cache.get("/app/a").unwrap().unwrap().data, "1");
    assert_eq!(cache.get("/other").unwrap(), None);
    assert!(cache.children("/").unwrap().is_empty(), "it is not in the cache");
    assert_eq!(cache.read().children("/").unwrap().count(), 0);
    let mut changes = cache.changes();
    let steps = client.transaction().set("/app/a", "2").create("/app/b", "3").set("/other", "y");
    steps.commit().await.unwrap();
    cache.reached(client.zxid()).await.unwrap();
    let names: Vec<String> = cache.children("/app").unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["/app/a", "/app/b"]);
    assert_eq!(cache.get("/app").unwrap().unwrap().stat.children, 2);
    assert_eq!(cache.read().iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["/app", "/app/a", "/app/b"]);
    let set = changes.next().await.unwrap().unwrap();
    assert_eq!((set.from, set.to), (Zxid(2), Zxid(3)));
    let paths: Vec<&str> = set.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["/app", "/app/a", "/app/b"], "the parent's list of children changed too");
    client.at("/app").delete().recursive().await.unwrap();
    cache.reached(client.zxid()).await.unwrap();
    assert!(cache.read().is_empty());
    drop(cache);
    assert!(changes.next().await.unwrap().unwrap().changes.iter().all(|change| change.after.is_none()));
    assert!(changes.next().await.is_none());
}

#[tokio::test]
async fn a_transaction_elsewhere_is_reached_although_nothing_is_told_of_it() {
    let fake = Fake::new();
    let client = fake.client().await;
    let cache = client.cache("/nowhere").await.unwrap();
    assert!(cache.read().is_empty());
    client.at("/other").create("x").await.unwrap();
    let other = fake.client().await;
    let stat = other.at("/other").set("y").await.unwrap();
    cache.reached(stat.modified).await.unwrap();
    assert!(cache.zxid() >= Some(stat.modified));
}

#[tokio::test]
async fn what_was_told_before_the_answer_is_taken_before_it_counts_as_reached() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app").create("1").await.unwrap();
    let cache = client.cache("/app").await.unwrap();
    let mut changes = cache.changes();
    fake.world().before_read = Some(Box::new(|world| set(world, "/app", "2")));
    cache.reached(Zxid(2)).await.unwrap();
    let set = changes.next().await.unwrap().unwrap();
    assert_eq!((set.from, set.to), (Zxid(1), Zxid(2)), "2 was never seen without its change");
}

#[tokio::test]
async fn a_cache_goes_on_over_a_cut_and_tells_the_difference_after_a_long_one() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app/a").create("1").parents().await.unwrap();
    let cache = client.cache("/app").await.unwrap();
    let mut changes = cache.changes();
    // A short break: it resumes.
    fake.world().silent = true;
    fake.cut.notify_waiters();
    set(&mut fake.world(), "/app/a", "2");
    fake.world().silent = false;
    assert_eq!(changes.next().await.unwrap().unwrap().changes[0].after.as_ref().unwrap().data, "2");
    let begun = fake.world().begun.len();
    // A long one: the member has forgotten what happened.
    {
        let mut world = fake.world();
        world.silent = true;
        set(&mut world, "/app/a", "3");
        world.write(Op::Create(conclave_protocol::Create::new(Path::parse("/app/b").unwrap(), "4"))).unwrap();
        world.forgotten = Zxid(world.zxid);
        world.meanwhile = Some(Box::new(|world| set(world, "/app/b", "5")));
    }
    fake.cut.notify_waiters();
    let difference = changes.next().await.unwrap().unwrap();
    assert_eq!((difference.from, difference.to), (Zxid(2), Zxid(4)));
    let after = |at: &str| {
        let change = difference.changes.iter().find(|change| change.path.as_str() == at).unwrap();
        change.after.as_ref().unwrap().data.clone()
    };
    assert_eq!((after("/app/a"), after("/app/b")), ("3".into(), "4".into()));
    assert_eq!(fake.world().begun.len(), begun + 1);
    {
        let mut world = fake.world();
        world.silent = false;
        world.speak();
    }
    let next = changes.next().await.unwrap().unwrap();
    assert_eq!(next.changes[0].after.as_ref().unwrap().data, "5", "and not what the snapshot had in it");
}

#[tokio::test]
async fn what_is_told_from_a_newer_state_is_not_seen_before_its_time() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app/a").create("1").parents().await.unwrap();
    let cache = client.cache("/app").await.unwrap();
    let mut changes = cache.changes();
    {
        let mut world = fake.world();
        world.silent = true;
        set(&mut world, "/app/a", "2");
        set(&mut world, "/app/a", "3");
        world.write(Op::Delete(Delete { path: Path::parse("/app/a").unwrap(), ..Delete::default() })).unwrap();
        world.silent = false;
        world.speak();
    }
    let set = changes.next().await.unwrap().unwrap();
    assert_eq!((set.from, set.to), (Zxid(1), Zxid(4)), "in between it was already gone");
    assert_eq!(cache.get("/app/a").unwrap(), None);
}

#[tokio::test]
async fn a_cache_that_is_too_small_ends_with_a_refusal_and_shows_what_it_showed() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app").create("1").await.unwrap();
    let error = client.cache("/app").limit_bytes(100).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Limit { limit: 100, .. })), "{error}");
    let cache = client.cache("/app").limit_bytes(5_000).await.unwrap();
    let mut changes = cache.changes();
    client.at("/app").set(vec![0; 5_000]).await.unwrap();
    assert!(matches!(changes.next().await, Some(Err(Error::Refused(Refusal::Limit { .. })))));
    assert!(matches!(cache.reached(Zxid(2)).await, Err(Error::Refused(Refusal::Limit { .. }))));
    assert_eq!(cache.get("/app").unwrap().unwrap().data, "1");
    assert!(cache.failed().is_some() && cache.changes().next().await.unwrap().is_err());
}

#[tokio::test]
async fn a_cache_in_a_namespace_is_relative_to_it() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/tenants/a/app/x").create("1").parents().await.unwrap();
    let tenant = client.namespace("/tenants/a").unwrap();
    let cache = tenant.cache("/").await.unwrap();
    assert_eq!(cache.get("/app/x").unwrap().unwrap().data, "1");
    tenant.at("/app/y").create("2").await.unwrap();
    cache.reached(tenant.zxid()).await.unwrap();
    assert_eq!(cache.children("/app").unwrap(), ["/app/x", "/app/y"].map(|path| Path::parse(path).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_held_stays_and_keeps_nobody_waiting() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/app").create("1").await.unwrap();
    let cache = client.cache("/app").await.unwrap();
    let view = cache.read();
    let stat = client.at("/app").set("2").await.unwrap();
    let reached = tokio::time::timeout(Duration::from_secs(10), cache.reached(stat.modified)).await;
    reached.expect("the cache waits for the view").unwrap();
    // On the thread that holds it, which must not wait for itself.
    assert_eq!(cache.get("/app").unwrap().unwrap().data, "2");
    assert_eq!(cache.read().get("/app").unwrap().unwrap().data, "2");
    assert_eq!((view.zxid(), &view.get("/app").unwrap().unwrap().data[..]), (Some(Zxid(1)), &b"1"[..]));
}
