//! Configurations that are published by many, while leaders are killed: nothing is lost, and nothing is seen half.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use conclave_client::{Client, Outcome, Refusal};
use conclave_config::{Config, ConfigSet, Error, Event, Found};
use conclave_testing::{Cluster, PATIENCE};
use serde::{Deserialize, Serialize};

const PATH: &str = "/app/config";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct App {
    workers: u32,
}

fn config(client: &Client) -> Config<App> {
    Config::new(client, PATH).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_kept_and_can_be_had_again_and_nobody_is_written_over() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let valid = |app: &App| if app.workers < 100 { Ok(()) } else { Err(format!("{} are too many", app.workers)) };
    let config = config(&ann).keep(3).validate(valid);
    assert!(matches!(config.get().await, Err(Error::Absent { .. })));
    assert!(matches!(config.update(|app| app.workers = 1).await, Err(Error::Absent { .. })));
    assert!(config.history().await.unwrap().is_empty());
    let none = config.publish(&App { workers: 1 }).if_version(0).await.unwrap_err();
    assert!(matches!(none, Error::Conflict { expected: 0, actual: Found(None), .. }), "{none}");

    let (version, zxid) = config.publish(&App { workers: 1 }).note("the first").await.unwrap();
    let read = config.get().await.unwrap();
    assert_eq!((version, read.version, read.zxid, read.workers), (0, 0, zxid, 1));
    for workers in 2..=5 {
        let done = config.publish(&App { workers }).if_version(u64::from(workers) - 2).await.unwrap();
        assert_eq!(done.0, u64::from(workers) - 1);
    }
    // Whoever was not told of it publishes over nobody.
    let late = config.publish(&App { workers: 9 }).if_version(2).await.unwrap_err();
    assert!(matches!(late, Error::Conflict { expected: 2, actual: Found(Some(4)), .. }), "{late}");
    let invalid = config.publish(&App { workers: 100 }).await.unwrap_err();
    assert!(invalid.to_string().contains("100 are too many"), "{invalid}");
    assert_eq!(config.get().await.unwrap().version, 4);

    let history = config.history().await.unwrap();
    let kept: Vec<_> = history.iter().map(|past| (past.version, past.value.clone().unwrap().workers)).collect();
    assert_eq!(kept, [(4, 5), (3, 4), (2, 3)]);
    assert!(history[0].by.ends_with("ann"), "{}", history[0].by);
    assert_eq!((history[0].zxid, history[0].note.as_deref()), (config.get().await.unwrap().zxid, None));

    // By hand: no entry, and nothing is confused by it.
    ann.at(PATH).set(r#"{"workers": 200}"#).await.unwrap();
    let back = config.roll_back(3).await.unwrap();
    assert_eq!((back.workers, back.version), (4, 6));
    let history = config.history().await.unwrap();
    assert_eq!(history.iter().map(|past| past.version).collect::<Vec<_>>(), [6, 4, 3]);
    assert_eq!(history[0].note.as_deref(), Some("roll back to version 3"));
    let gone = config.roll_back(0).await.unwrap_err();
    assert!(
        matches!(&gone, Error::NoSuchVersion { version: 0, kept_versions, .. } if *kept_versions == [3, 4, 6]),
        "{gone}"
    );
    // What may not be published today is not rolled back to either.
    let strict = config.clone().validate(|app: &App| if app.workers < 4 { Ok(()) } else { Err("too many") });
    assert!(matches!(strict.roll_back(4).await, Err(Error::Invalid { .. })));
    let said_no = config.update(|_| Err("not today")).await.unwrap_err();
    assert_eq!((said_no.to_string().as_str(), said_no.outcome()), ("not published: not today", Outcome::NotApplied));

    // What does not decode is an event and no end, and the last good value stays.
    let mut watch = config.watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), Event::Value(back.clone()));
    ann.at(PATH).set("{").await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, Event::Undecodable { version: 7, .. }), "{event:?}");
    assert_eq!(watch.last_good(), Some(&back));
    assert!(matches!(config.get().await, Err(Error::Undecodable { version: 7, .. })));
    ann.at(PATH).delete().recursive().await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), Event::Absent { .. }));
    config.publish(&App { workers: 7 }).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), Event::Value(value) if value.workers == 7));

    // A value that the cluster refuses names the reason, and no step.
    let text = Config::<String>::new(&ann, "/app/text").unwrap();
    let refused = text.publish(&"x".repeat(2 << 20)).await.unwrap_err();
    assert!(matches!(&refused, Error::Client(conclave_client::Error::Refused(Refusal::Limit { .. }))), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_update_counts_once_while_leaders_are_killed() {
    const CLIENTS: u32 = 3;
    const UPDATES: u32 = 10;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    config(&observer).publish(&App { workers: 0 }).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..CLIENTS {
        let config = config(&cluster.client(&format!("client-{n}")).await.unwrap()).within(PATIENCE);
        tasks.push(tokio::spawn(async move {
            for _ in 0..UPDATES {
                config.update(|app| app.workers += 1).await.unwrap();
            }
        }));
    }
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    for task in tasks {
        task.await.unwrap();
    }
    let read = config(&observer).get().await.unwrap();
    assert_eq!((read.workers, read.version), (CLIENTS * UPDATES, u64::from(CLIENTS * UPDATES)));
    // The history is that of the same transactions.
    let history = config(&observer).history().await.unwrap();
    assert_eq!(history.len(), 10);
    assert!(history.iter().all(|past| u64::from(past.value.as_ref().unwrap().workers) == past.version), "{history:?}");
    assert_eq!(history[0].version, read.version);
}

/// Parts that must agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    left: u64,
    /// A new part: older publications have none.
    middle: Option<String>,
    right: u64,
}

impl Parts {
    fn new(n: u64) -> Self {
        Self { left: n, middle: n.is_multiple_of(3).then(|| n.to_string()), right: n }
    }

    fn agrees(&self) -> bool {
        *self == Self::new(self.left)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_never_seen_half_changed_while_leaders_are_killed() {
    const WRITERS: u64 = 2;
    const WRITES: u64 = 25;
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let set = ConfigSet::<Parts>::new(&observer, "/app/set").unwrap();
    assert!(matches!(set.get().await, Err(Error::Absent { .. })));
    let mut watch = set.watch().await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), Event::Absent { .. }));
    assert_eq!(set.publish(&Parts::new(0)).await.unwrap().0, 1);
    let watching = tokio::spawn(async move {
        let (mut last, mut values) = (None, 0);
        loop {
            let event = watch.next().await.unwrap().unwrap();
            let Event::Value(value) = event else { panic!("{event:?}") };
            assert!(value.agrees(), "half of a publication: {value:?}");
            assert!(last.is_none_or(|last| last < value.zxid), "backwards");
            (last, values) = (Some(value.zxid), values + 1);
            if value.left == WRITERS * WRITES {
                assert_eq!(watch.last_good(), Some(&value));
                return (value, values);
            }
        }
    });
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let client = cluster.client(&format!("writer-{n}")).await.unwrap();
        let set = ConfigSet::<Parts>::new(&client, "/app/set").unwrap().within(PATIENCE);
        writers.push(tokio::spawn(async move {
            for _ in 0..WRITES {
                let written = set.update(|parts| *parts = Parts::new(parts.left + 1)).await.unwrap();
                assert!(written.agrees());
                let read = set.get().await.unwrap();
                assert!(read.agrees() && read.version >= written.version, "half of a publication: {read:?}");
            }
        }));
    }
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    for writer in writers {
        writer.await.unwrap();
    }
    let (last, values) = tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert!(values > 1, "nothing was seen");
    let read = set.get().await.unwrap();
    assert_eq!((read.value.clone(), read.version), (last.value, WRITERS * WRITES + 1));

    // A part that is changed by hand meanwhile is noticed, whichever it is.
    let by_hand = observer.at("/app/set/left");
    let mut first = true;
    let fixed = set.update(|parts| {
        if std::mem::take(&mut first) {
            // Somebody else, between the look and the transaction.
            let set = by_hand.set("7").within(Duration::from_secs(10));
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(set.into_future())).unwrap();
        }
        parts.right = parts.left;
    });
    let fixed = fixed.await.unwrap();
    assert_eq!((fixed.left, fixed.right), (7, 7));
    let late = set.publish(&Parts::new(1)).if_version(read.version).await.unwrap_err();
    assert!(matches!(late, Error::Conflict { .. }), "{late}");
    set.remove("right").await.unwrap();
    set.remove("right").await.unwrap();
    let undecodable = set.get().await.unwrap_err();
    assert!(undecodable.to_string().contains("missing field `right`"), "{undecodable}");
}
