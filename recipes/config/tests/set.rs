//! The history of a set: versions that are kept whole, and had again whole, whoever publishes meanwhile.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use conclave_client::{AccessList, Client, Error as ClientError, Grant, Outcome, Refusal, Who};
use conclave_config::{ConfigSet, Error, Event};
use conclave_testing::{Cluster, PATIENCE};
use serde::{Deserialize, Serialize};

const PATH: &str = "/app/set";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct App {
    workers: u32,
    motto: String,
}

impl App {
    fn new(workers: u32) -> Self {
        Self { workers, motto: format!("{workers} together") }
    }
}

fn set(client: &Client) -> ConfigSet<App> {
    ConfigSet::new(client, PATH).unwrap().keep(10)
}

/// A list that lets one client do everything, and nobody else anything.
fn only(client: &Client) -> AccessList {
    let principal = client.peer().unwrap().principal;
    AccessList(vec![Grant { who: Who::Principal(principal), may: "crwda".parse().unwrap() }])
}

async fn versions(set: &ConfigSet<App>) -> Vec<u64> {
    set.history().await.unwrap().iter().map(|past| past.version).collect()
}

/// The names below a znode, in order.
async fn names(client: &Client, path: &str) -> Vec<String> {
    let listing = client.at(path).children().names_only().linearizable().await.unwrap();
    listing.children.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_set_are_kept_whole_and_can_be_had_again() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let valid = |app: &App| if app.workers < 100 { Ok(()) } else { Err(format!("{} are too many", app.workers)) };
    let set = set(&ann).keep(3).validate(valid);
    assert!(set.history().await.unwrap().is_empty());
    let none = set.roll_back(1).await.unwrap_err();
    assert!(matches!(&none, Error::NoSuchVersion { kept_versions, .. } if kept_versions.is_empty()), "{none}");

    assert_eq!(set.publish(&App::new(1)).note("the first").await.unwrap().0, 1);
    let first = set.history().await.unwrap().remove(0);
    assert_eq!((first.version, first.value.unwrap(), first.note.as_deref()), (1, App::new(1), Some("the first")));
    assert!(first.by.ends_with("ann"), "{}", first.by);
    for workers in 2..=4 {
        let (version, zxid) = set.publish(&App::new(workers)).if_version(u64::from(workers) - 1).await.unwrap();
        let newest = set.history().await.unwrap().remove(0);
        assert_eq!((newest.version, newest.zxid, newest.value.unwrap().workers), (version, zxid, workers));
    }
    // So many and no more, and nothing else lies there.
    assert_eq!(versions(&set).await, [4, 3, 2]);
    assert_eq!(names(&ann, "/app/set/.history").await, ["0000000002", "0000000003", "0000000004"]);
    assert_eq!(names(&ann, "/app/set/.history/0000000003").await, ["motto", "workers"]);
    assert_eq!(names(&ann, PATH).await, [".history", "motto", "workers"]);
    // What is refused leaves nothing.
    let late = set.publish(&App::new(9)).if_version(3).await.unwrap_err();
    assert!(matches!(late, Error::Conflict { .. }), "{late}");
    assert!(matches!(set.publish(&App::new(100)).await, Err(Error::Invalid { .. })));
    assert_eq!(versions(&set).await, [4, 3, 2]);

    // Parts that the type has not, and one that was set by hand, are in the next version, byte by byte.
    ann.at("/app/set/other").create("{ \"b\": 1.50 }").await.unwrap();
    ann.at("/app/set/other/deeper").create("no part").await.unwrap();
    ann.at("/app/set/workers").set("7").await.unwrap();
    assert_eq!(set.update(|app| app.motto = "seven".into()).await.unwrap().version, 5);
    assert_eq!(ann.at("/app/set/.history/0000000005/other").get().await.unwrap().data, "{ \"b\": 1.50 }");
    assert_eq!(names(&ann, "/app/set/.history/0000000005").await, ["motto", "other", "workers"]);

    // Going back is one transaction: what has come since goes, with all below it.
    let mut watch = set.watch().await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), Event::Value(value) if value.version == 5));
    let back = set.roll_back(4).await.unwrap();
    assert_eq!((back.version, &back.value), (6, &App::new(4)));
    assert_eq!(watch.next().await.unwrap().unwrap(), Event::Value(back.clone()));
    assert_eq!(set.get().await.unwrap(), back);
    let part = ann.at("/app/set/workers").stat().linearizable().await.unwrap().unwrap();
    let kept = ann.at("/app/set/.history/0000000006/workers").stat().linearizable().await.unwrap().unwrap();
    assert_eq!((part.modified, kept.created), (back.zxid, back.zxid));
    assert_eq!(names(&ann, PATH).await, [".history", "motto", "workers"]);
    assert_eq!(set.history().await.unwrap()[0].note.as_deref(), Some("roll back to version 4"));
    // And forth.
    set.roll_back(5).await.unwrap();
    assert_eq!(ann.at("/app/set/other").get().await.unwrap().data, "{ \"b\": 1.50 }");
    assert_eq!(ann.at("/app/set/workers").get().await.unwrap().data, "7");
    let gone = set.roll_back(4).await.unwrap_err();
    assert!(
        matches!(&gone, Error::NoSuchVersion { version: 4, kept_versions, .. } if *kept_versions == [5, 6, 7]),
        "{gone}"
    );
    assert_eq!(gone.outcome(), Outcome::NotApplied);

    // A part that goes is a version too.
    set.remove("other").await.unwrap();
    set.remove("other").await.unwrap();
    assert_eq!(versions(&set).await, [8, 7, 6]);
    assert_eq!(names(&ann, "/app/set/.history/0000000008").await, ["motto", "workers"]);
    // Fewer are to be kept from now on. Who keeps none leaves alone what others keep.
    set.clone().keep(1).update(|app| app.workers = 9).await.unwrap();
    assert_eq!(versions(&set).await, [9]);
    set.clone().keep(0).update(|app| app.workers = 10).await.unwrap();
    assert_eq!(versions(&set).await, [9]);
    set.publish(&App::new(11)).await.unwrap();
    assert_eq!(versions(&set).await, [11, 9]);
    // What lies where the next one will is no hindrance, and what is nobody's is left alone.
    ann.at("/app/set/.history/0000000012/workers").create("made by hand").parents().await.unwrap();
    ann.at("/app/set/.history/readme").create("made by hand").await.unwrap();
    set.publish(&App::new(12)).await.unwrap();
    let history = set.history().await.unwrap();
    assert_eq!((history.len(), history[0].value.clone().unwrap()), (3, App::new(12)));
    assert_eq!(names(&ann, "/app/set/.history").await, ["0000000009", "0000000011", "0000000012", "readme"]);
    // The history is the set's: with another set at the same place it begins anew.
    ann.at(PATH).delete().recursive().await.unwrap();
    set.publish(&App::new(1)).await.unwrap();
    assert_eq!(versions(&set).await, [1]);
    let map = ConfigSet::<BTreeMap<String, u32>>::new(&ann, "/app/map").unwrap();
    let taken = map.publish(&BTreeMap::from([(".history".to_owned(), 1)])).await.unwrap_err();
    assert!(matches!(taken, Error::Unencodable { .. }), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_was_not_asked_to_keeps_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let plain = ConfigSet::<App>::new(&ann, PATH).unwrap();
    plain.publish(&App::new(1)).note("nobody keeps it").await.unwrap();
    plain.update(|app| *app = App::new(2)).await.unwrap();
    assert_eq!(names(&ann, PATH).await, ["motto", "workers"]);
    // Nor does it see what others keep.
    set(&ann).publish(&App::new(3)).await.unwrap();
    assert_eq!((versions(&set(&ann)).await, versions(&plain).await), (vec![3], vec![]));
    for version in [1, 3] {
        let none = plain.roll_back(version).await.unwrap_err();
        assert!(matches!(&none, Error::NoSuchVersion { kept_versions, .. } if kept_versions.is_empty()), "{none}");
        assert!(none.to_string().contains("`keep`"), "{none}");
        assert_eq!(none.outcome(), Outcome::NotApplied);
    }
    assert_eq!((plain.get().await.unwrap().value, versions(&set(&ann)).await), (App::new(3), vec![3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_shown_all_parts_keeps_no_version_and_goes_back_to_none() {
    #[derive(Serialize, Deserialize)]
    struct Open {
        workers: u32,
    }
    let cluster = Cluster::start(1).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let anns = set(&ann);
    let plain = ConfigSet::<Open>::new(&bob, PATH).unwrap();
    let bobs = plain.clone().keep(10).within(PATIENCE);
    assert_eq!(anns.publish(&App::new(1)).await.unwrap().0, 1);
    let motto = ann.at("/app/set/motto");
    motto.set_acl(only(&ann)).await.unwrap();
    let hidden = |done: Result<_, Error>, at: &str| {
        let error = done.unwrap_err();
        assert!(matches!(&error, Error::Hidden { path, .. } if path.as_str() == at), "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    };
    // He may have published, and would not have kept all that there is.
    hidden(bobs.publish(&Open { workers: 7 }).await.map(drop), PATH);
    hidden(bobs.update(|open| open.workers = 7).await.map(drop), PATH);
    hidden(bobs.remove("workers").await, PATH);
    hidden(bobs.roll_back(1).await.map(drop), PATH);
    assert_eq!(anns.get().await.unwrap().version, 1, "nothing was published");
    assert_eq!(versions(&anns).await, [1]);
    // Without a history he publishes what is his.
    assert_eq!(plain.publish(&Open { workers: 2 }).await.unwrap().0, 2);
    assert_eq!(motto.get().await.unwrap().data, "\"1 together\"");

    // What is kept has the list that the history had then: the set's own, or another one.
    ann.at("/app/set/.history").set_acl(only(&ann)).await.unwrap();
    assert_eq!(anns.publish(&App::new(3)).await.unwrap().0, 3);
    let kept = async |version: u64| bob.at(format!("/app/set/.history/{version:010}/motto")).get().await;
    assert_eq!(kept(1).await.unwrap().data, "\"1 together\"");
    let closed = kept(3).await.unwrap_err();
    assert!(matches!(closed, ClientError::Refused(Refusal::NotAllowed { .. })), "{closed}");
    assert!(bobs.history().await.unwrap().is_empty());
    assert!(matches!(bobs.roll_back(1).await, Err(Error::NoSuchVersion { .. })));
    motto.set_acl(AccessList::open()).await.unwrap();
    hidden(bobs.publish(&Open { workers: 7 }).await.map(drop), PATH);

    // A part of a version that he is not shown: going back would delete it from the set.
    ann.at("/app/set/.history").set_acl(AccessList::open()).await.unwrap();
    ann.at("/app/set/.history/0000000001/motto").set_acl(only(&ann)).await.unwrap();
    hidden(bobs.roll_back(1).await.map(drop), "/app/set/.history/0000000001");
    assert_eq!(anns.get().await.unwrap().value, App::new(3));
    // What he is shown whole he goes back to.
    assert_eq!(anns.publish(&App::new(4)).await.unwrap().0, 4);
    ann.at("/app/set/workers").set("9").await.unwrap();
    assert_eq!(bobs.roll_back(4).await.unwrap().version, 5);
    assert_eq!(anns.get().await.unwrap().value, App::new(4));
}

/// Between the look and the transaction of an update somebody does something by hand, once.
async fn update_while(set: &ConfigSet<App>, workers: u32, by_hand: impl Future<Output = ()> + Send) {
    let mut by_hand = Some(Box::pin(by_hand));
    let update = set.update(|app| {
        if let Some(by_hand) = by_hand.take() {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(by_hand));
        }
        app.workers = workers;
    });
    assert_eq!(update.await.unwrap().workers, workers);
    assert!(by_hand.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_all_that_there_was_whatever_is_done_by_hand_meanwhile() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let set = set(&ann);
    set.publish(&App::new(1)).await.unwrap();
    let other = ann.at("/app/set/other");
    let kept = async |version: u64| {
        let path = format!("/app/set/.history/{version:010}");
        let listing = ann.at(&path).children().with_data().linearizable().await.unwrap();
        let named = listing.children.into_iter().filter(|part| part.name != "motto");
        named.map(|part| (part.name, part.data.unwrap())).collect::<Vec<_>>()
    };
    let workers = |n: u32| ("workers".to_owned(), n.to_string().into());
    update_while(&set, 2, async { drop(other.create("1").await.unwrap()) }).await;
    assert_eq!(kept(2).await, [("other".to_owned(), "1".into()), workers(2)]);
    update_while(&set, 3, async { _ = other.set("2").await.unwrap() }).await;
    assert_eq!(kept(3).await, [("other".to_owned(), "2".into()), workers(3)]);
    // As many as before, and not the same.
    let instead = async {
        other.delete().await.unwrap();
        ann.at("/app/set/another").create("3").await.unwrap();
    };
    update_while(&set, 4, instead).await;
    assert_eq!(kept(4).await, [("another".to_owned(), "3".into()), workers(4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_longer_decodes_is_told_as_that_and_gone_back_from_and_not_to() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let set = set(&ann);
    set.publish(&App::new(1)).await.unwrap();
    // Published by a program of another time.
    #[derive(Serialize, Deserialize)]
    struct Older {
        workers: String,
    }
    let older = ConfigSet::<Older>::new(&ann, PATH).unwrap().keep(10);
    older.publish(&Older { workers: "many".into() }).await.unwrap();
    assert!(matches!(set.get().await, Err(Error::Undecodable { .. })));
    set.publish(&App::new(3)).await.unwrap();

    let history = set.history().await.unwrap();
    let kept: Vec<_> = history.iter().map(|past| past.value.clone().map(|app| app.workers)).collect();
    assert_eq!((kept[0].clone(), kept[2].clone()), (Ok(3), Ok(1)));
    assert!(kept[1].as_ref().unwrap_err().contains("invalid type: string"), "{kept:?}");
    let undecodable = set.roll_back(2).await.unwrap_err();
    assert!(undecodable.to_string().contains("/app/set/.history/0000000002 at version 2 is no such"), "{undecodable}");
    let strict = set.clone().validate(|app: &App| if app.workers > 1 { Ok(()) } else { Err("too few") });
    assert!(matches!(strict.roll_back(1).await, Err(Error::Invalid { .. })));
    assert_eq!(set.get().await.unwrap().version, 3, "nothing was published");

    // A part that is no JSON at all: the watch says so, and the way back is open.
    let mut watch = set.watch().await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), Event::Value(_)));
    ann.at("/app/set/workers").set("{").await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, Event::Undecodable { version: 3, .. }), "{event:?}");
    assert!(matches!(set.update(|app| app.workers = 4).await, Err(Error::Undecodable { .. })));
    let back = set.roll_back(3).await.unwrap();
    assert_eq!((back.workers, back.version), (3, 4));
    assert_eq!(watch.next().await.unwrap().unwrap(), Event::Value(back));
    // In the history it says which part.
    ann.at("/app/set/.history/0000000001/motto").set("{").await.unwrap();
    let history = set.history().await.unwrap();
    assert!(history[3].value.as_ref().unwrap_err().starts_with("motto: "), "{:?}", history[3]);
    // That the history was changed is no change of the set: what is told next is the next publication.
    set.publish(&App::new(5)).await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(&event, Event::Value(value) if value.workers == 5), "{event:?}");
}

/// Each version once, by whom it may be, and going back among them: every one is whole, and is what its publisher said.
#[tokio::test(flavor = "multi_thread")]
async fn publishers_and_those_who_go_back_never_mix_while_a_leader_is_killed() {
    const WRITERS: u32 = 3;
    const WRITES: u32 = 12;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let seen = set(&observer);
    seen.publish(&App::new(0)).await.unwrap();
    let mut watch = seen.watch().await.unwrap();
    let watching = tokio::spawn(async move {
        let mut told = BTreeMap::new();
        while let Some(event) = watch.next().await {
            let Event::Value(value) = event.unwrap() else { panic!("a set that nobody took away") };
            assert_eq!(value.motto, App::new(value.workers).motto, "half of a publication: {value:?}");
            assert!(told.keys().next_back().is_none_or(|last| *last < value.version), "backwards");
            let is_last = value.workers == u32::MAX;
            told.insert(value.version, value.value);
            if is_last {
                break;
            }
        }
        told
    });
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let set = set(&cluster.client(&format!("writer-{n}")).await.unwrap()).within(PATIENCE);
        writers.push(tokio::spawn(async move {
            let mut published = BTreeMap::new();
            for write in 0..WRITES {
                let app = App::new(1 + n * WRITES + write);
                published.insert(set.publish(&app).await.unwrap().0, app);
            }
            published
        }));
    }
    let done = Arc::new(AtomicBool::new(false));
    let going_back = tokio::spawn({
        let set = set(&cluster.client("ben").await.unwrap()).within(PATIENCE);
        let done = Arc::clone(&done);
        async move {
            let (mut published, mut sources) = (BTreeMap::new(), BTreeMap::new());
            let mut tries = 0;
            // At least once: when all others are done, nothing is dropped any more.
            while !done.load(Ordering::SeqCst) || sources.is_empty() {
                // In turns one that stays for a while, and the oldest, which may be dropped meanwhile.
                let mut history = set.history().await.unwrap();
                let at = if tries % 2 == 0 { history.len() / 2 } else { history.len() - 1 };
                let past = history.swap_remove(at);
                tries += 1;
                match set.roll_back(past.version).await {
                    Ok(back) => {
                        assert_eq!(back.value, past.value.unwrap());
                        sources.insert(back.version, past.version);
                        published.insert(back.version, back.value);
                    }
                    Err(Error::NoSuchVersion { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            (published, sources)
        }
    });
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let mut published = BTreeMap::from([(1, App::new(0))]);
    let mut count = 1;
    for writer in writers {
        let own = writer.await.unwrap();
        count += own.len();
        published.extend(own);
    }
    done.store(true, Ordering::SeqCst);
    let (own, sources) =
        tokio::time::timeout(PATIENCE, going_back).await.expect("it goes back once, and ends").unwrap();
    count += own.len();
    published.extend(own);
    // Each has a version of its own, and none is missing.
    assert_eq!(published.len(), count, "two have published one version");
    assert_eq!(published.keys().copied().collect::<Vec<_>>(), (1..=count as u64).collect::<Vec<_>>());
    for (version, source) in &sources {
        assert_eq!(published[version], published[source], "{version} is not what {source} was");
    }
    // What is kept are the last ones, each as its publisher said.
    let history = seen.history().await.unwrap();
    let last: Vec<u64> = published.keys().rev().take(10).copied().collect();
    assert_eq!(history.iter().map(|past| past.version).collect::<Vec<_>>(), last);
    for past in history {
        assert_eq!(past.value.as_ref(), Ok(&published[&past.version]), "version {}", past.version);
    }
    seen.publish(&App::new(u32::MAX)).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert!(told.len() > 2, "nothing was seen");
    for (version, app) in told.iter().filter(|(version, _)| **version <= count as u64) {
        assert_eq!(*app, published[version], "version {version} as it was watched");
    }
}
