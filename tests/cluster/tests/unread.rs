//! Clients that never read: what waits for them is bounded, and nothing that they are owed is lost.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use conclave_protocol::{ClientMessage, Consistency, Path, Query, Scope, ServerMessage, WatchId, WatchRequest};
use conclave_testing::{Cluster, Raw};

/// What this process, member and all, has in memory, MiB.
fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_whoever_does_not_read_is_bounded_and_comes_when_he_does() {
    const LARGE: usize = 1 << 20;
    const READS: u64 = 1_500;
    const SETS: u64 = 300;
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("writer").await.unwrap();
    client.at("/large").create(vec![1_u8; LARGE]).await.unwrap();
    let begun = resident_mib();

    // A gigabyte and a half of replies.
    let mut reader = Raw::connect(&cluster, 1, "reader").await.unwrap();
    reader.hello().await.unwrap();
    let asking = tokio::spawn(async move {
        for id in 1..=READS {
            let query = Query::Get { path: path("/large") };
            let read = ClientMessage::Read { id, consistency: Consistency::Session, within_ms: 60_000, query };
            reader.send(&read).await.unwrap();
        }
        reader
    });

    // And events with data, which nobody takes either.
    let mut watcher = Raw::connect(&cluster, 1, "watcher").await.unwrap();
    watcher.hello().await.unwrap();
    let watch = WatchRequest { data: true, ..WatchRequest::new(WatchId(1), path("/large"), Scope::Data) };
    watcher.send(&ClientMessage::Watch { id: 1, watch }).await.unwrap();
    assert!(matches!(watcher.receive().await.unwrap(), Some(ServerMessage::Answer { answer: Ok(_), .. })));
    let mut last = 0;
    for n in 0..SETS {
        last = client.at("/large").set(vec![n.to_le_bytes()[0]; LARGE]).await.unwrap().version;
    }
    let grown = resident_mib().saturating_sub(begun);
    assert!(grown < 400, "{grown} MiB wait for two clients that do not read");

    // The member serves others all the while, and what waited arrives: every reply, in order ...
    assert_eq!(client.at("/large").get().await.unwrap().stat.version, last);
    let mut reader = asking.await.unwrap();
    for expected in 1..=READS {
        match reader.receive().await.unwrap() {
            Some(ServerMessage::Answer { id, answer: Ok(_), .. }) => assert_eq!(id, expected),
            other => panic!("{other:?}"),
        }
    }
    // ... and events, or a resync for those that were left out.
    let end = client.at("/large").set("end").await.unwrap().modified;
    let (mut told, mut resynced) = (BTreeSet::new(), 0);
    loop {
        match watcher.receive().await.unwrap() {
            Some(ServerMessage::Event { zxid, changes, .. }) => {
                assert!(told.insert(changes[0].version), "told twice");
                if zxid == end {
                    break;
                }
            }
            Some(ServerMessage::Resync { zxid, .. }) => {
                resynced += 1;
                if zxid >= end {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(resynced >= 1 && told.len() < usize::try_from(SETS).unwrap(), "{resynced} resyncs, {} told", told.len());
}
