//! Values in and out, updates that race, and a watch that data of any kind does not end.

use std::collections::VecDeque;

use conclave_protocol::{Change, ChangeKind, Present};
use serde::Deserialize;

use super::watch::Values;
use super::*;
use crate::error::Outcome;
use crate::fake::Fake;
use crate::watch::WatchEvent;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Config {
    workers: u32,
    motto: String,
}

fn config(workers: u32) -> Config {
    Config { workers, motto: "m".into() }
}

#[tokio::test]
async fn values_are_created_read_set_and_defaulted_in_cbor_and_json() {
    let fake = Fake::new();
    let client = fake.client().await;
    for (path, json) in [("/cbor", false), ("/json", true)] {
        let typed = client.at(path).typed::<Config>();
        let typed = if json { typed.json() } else { typed };
        assert_eq!(typed.get_or_default().await.unwrap(), Config::default());
        assert_eq!(typed.get().await.unwrap_err().refusal().unwrap().code(), "no-znode");
        typed.create(config(1)).await.unwrap();
        let read = typed.get().await.unwrap();
        assert_eq!((read.workers, read.stat.version), (1, 0));
        let second = config(2);
        typed.set(&second).if_version(0).await.unwrap();
        assert!(typed.set(config(3)).if_version(0).await.is_err());
        assert_eq!(typed.get_or_default().await.unwrap(), config(2));
        let raw = client.at(path).get().await.unwrap().data;
        assert_eq!(raw.starts_with(b"{"), json);
    }
}

#[tokio::test]
async fn data_that_does_not_decode_is_an_error_that_holds_it() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/x").create("{\"workers\": \"many\"}").await.unwrap();
    let at = client.at("/x");
    for typed in [at.typed::<Config>(), at.typed::<Config>().json()] {
        let Err(Error::Undecodable(error)) = typed.get().await else { panic!("decoded") };
        assert_eq!((error.path.as_str(), error.stat.version), ("/x", 0));
        assert!(error.data.starts_with(b"{\"w"));
        assert!(typed.update(|_| ()).await.is_err());
        let error = Error::Undecodable(error);
        assert!(!error.is_retryable() && error.outcome() == Outcome::NotApplied);
    }
    assert_eq!(client.at("/x").stat().await.unwrap().unwrap().version, 0);
    let nested = [0x81_u8; 100_000];
    assert!(Format::Cbor.decode::<ciborium::Value>(&nested).is_err());
    assert!(Format::Cbor.decode::<u8>(&[1, 2]).unwrap_err().contains("1 bytes follow"));
    assert!(Format::Json.decode::<u8>(b"").unwrap_err().contains("no data"));
}

#[tokio::test]
async fn a_znode_that_was_made_as_a_parent_holds_the_default() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/x/below").create("").parents().await.unwrap();
    for typed in [client.at("/x").typed::<Config>(), client.at("/x/below").typed::<Config>().json()] {
        assert!(matches!(typed.get().await, Err(Error::Undecodable(_))));
        assert!(matches!(typed.update(|_| ()).await, Err(Error::Undecodable(_))));
        assert_eq!(typed.get_or_default().await.unwrap(), Config::default());
        let updated = typed.update_or_default(|config| config.workers += 7).await.unwrap();
        assert_eq!((updated.workers, updated.stat.version), (7, 1));
        assert_eq!(typed.get().await.unwrap().workers, 7);
    }
}

#[tokio::test]
async fn an_update_without_an_answer_names_the_whole_time_that_it_had() {
    let fake = Fake::new();
    let client = fake.client().await;
    fake.world().deaf = true;
    let within = Duration::from_millis(50);
    let late = client.at("/x").typed::<Config>().within(within).update(|_| ()).await;
    assert!(matches!(late, Err(Error::TimedOut { after }) if after == within), "{late:?}");
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_is_not_sent() {
    struct Never;
    impl Serialize for Never {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    let fake = Fake::new();
    let client = fake.client().await;
    for typed in [client.at("/x").typed::<Never>(), client.at("/x").typed::<Never>().json()] {
        assert!(matches!(typed.create(Never).await, Err(Error::Unencodable { why }) if why.contains("never")));
        assert!(matches!(typed.set(Never).await, Err(Error::Unencodable { .. })));
    }
    assert!(fake.world().ops.is_empty());
}

#[tokio::test]
async fn concurrent_updates_lose_nothing() {
    let fake = Fake::new();
    let clients = [fake.client().await, fake.client().await];
    let update = |client: &crate::Client| {
        let typed = client.at("/counter").typed::<u64>().within(Duration::from_secs(30));
        tokio::spawn(async move {
            for _ in 0..50 {
                typed.update_or_default(|count| *count += 1).await.unwrap();
            }
        })
    };
    let all = [update(&clients[0]), update(&clients[1]), update(&clients[0])];
    for done in futures::future::join_all(all).await {
        done.unwrap();
    }
    let read = clients[0].at("/counter").typed::<u64>().get().await.unwrap();
    assert_eq!((read.value, read.stat.version), (150, 149));
}

#[tokio::test]
async fn an_update_whose_closure_says_no_changes_nothing_and_one_without_its_znode_is_refused() {
    let fake = Fake::new();
    let client = fake.client().await;
    let typed = client.at("/x").typed::<u64>();
    assert_eq!(typed.update(|_| ()).await.unwrap_err().refusal().unwrap().code(), "no-znode");
    typed.create(5).await.unwrap();
    let error = typed.update(|_| Err::<(), _>("it is mine")).await.unwrap_err();
    assert!(matches!(&error, Error::Abandoned { why } if why == "it is mine"));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(typed.get().await.unwrap().stat.version, 0);
}

#[tokio::test]
async fn an_update_does_not_overwrite_another_znode_of_the_same_name_and_version() {
    let fake = Fake::new();
    let client = fake.client().await;
    let typed = client.at("/x").typed::<u64>();
    typed.create(1).await.unwrap();
    let mut runs = 0;
    let updated = typed
        .update(|value| {
            runs += 1;
            if runs == 1 {
                // Between the reading and the writing.
                let mut world = fake.world();
                let path = Path::parse("/x").unwrap();
                world
                    .write(conclave_protocol::Op::Delete(conclave_protocol::Delete {
                        path: path.clone(),
                        ..Default::default()
                    }))
                    .unwrap();
                let data = Format::Cbor.encode(&100_u64).unwrap();
                world.write(conclave_protocol::Op::Create(conclave_protocol::Create::new(path, data))).unwrap();
            }
            *value += 1;
        })
        .await
        .unwrap();
    assert_eq!((updated.value, runs), (101, 2));
}

#[tokio::test]
async fn an_update_that_others_always_beat_times_out() {
    let fake = Fake::new();
    let client = fake.client().await;
    let typed = client.at("/x").typed::<u64>().within(Duration::from_millis(60));
    typed.create(1).await.unwrap();
    let beaten = typed.update(|value| {
        let data = Format::Cbor.encode(&(*value + 1)).unwrap();
        let set = conclave_protocol::Set { path: Path::parse("/x").unwrap(), data, if_version: None };
        fake.world().write(conclave_protocol::Op::Set(set)).unwrap();
    });
    assert!(matches!(beaten.await, Err(Error::TimedOut { .. })));
}

#[tokio::test]
async fn a_typed_watch_tells_values_their_absence_and_what_does_not_decode() {
    let fake = Fake::new();
    let client = fake.client().await;
    let typed = client.at("/x").typed::<u64>();
    let mut watch = typed.watch().await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(TypedEvent::Absent { zxid: Zxid(0) }))));
    typed.create(1).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(TypedEvent::Value(Decoded { value: 1, .. })))));
    client.at("/x").set("text").await.unwrap();
    let Some(Ok(TypedEvent::Undecodable(error))) = watch.next().await else { panic!("decoded") };
    assert_eq!((error.path.as_str(), error.stat.version, &error.data[..]), ("/x", 1, &b"text"[..]));
    typed.set(2).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(TypedEvent::Value(Decoded { value: 2, .. })))));
    client.at("/x").delete().await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(TypedEvent::Absent { zxid: Zxid(4) }))));
    client.close().await.unwrap();
    assert!(watch.next().await.is_none());
}

#[test]
fn a_value_is_told_once_and_a_znode_that_came_again_is_told_as_such() {
    let mut values = Values::new(Format::Json);
    let mut out: VecDeque<TypedEvent<u64>> = VecDeque::new();
    let path = Path::parse("/x").unwrap();
    let mut tell = |zxid, kind, present: Option<(u64, u64)>| {
        let change = Change { kind, path: path.clone(), version: 0 };
        let stat = |created, version| Stat { created: Zxid(created), modified: Zxid(9), version, ..Stat::default() };
        let present = present.map(|(created, version)| Present { data: "7".into(), stat: stat(created, version) });
        let event = WatchEvent::Changes { zxid: Zxid(zxid), changes: vec![change], present: vec![present] };
        values.take(event, &mut out);
        out.drain(..).map(|event| matches!(event, TypedEvent::Value(_))).collect::<Vec<_>>()
    };
    // All told from the state at 9, in which another znode is there.
    assert_eq!(tell(4, ChangeKind::Data, Some((8, 3))), [true]);
    assert_eq!(tell(5, ChangeKind::Data, Some((8, 3))), [false; 0]);
    assert_eq!(tell(7, ChangeKind::Deleted, Some((8, 3))), [false]);
    assert_eq!(tell(8, ChangeKind::Created, Some((8, 3))), [true]);
    assert_eq!(tell(9, ChangeKind::Data, Some((8, 3))), [false; 0]);
    assert_eq!(tell(10, ChangeKind::Acl, None), [false]);
    assert_eq!(tell(11, ChangeKind::Deleted, None), [false; 0]);
}
