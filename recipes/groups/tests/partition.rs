//! A set of items among members that come, go and lose their sessions: nobody owns what another owns.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use conclave_client::{Client, Refusal, Zxid};
use conclave_groups::{Group, Hold, Lost, Partition, Share, Shares};
use conclave_testing::{Cluster, PATIENCE, eventually, eventually_async};
use tokio::task::JoinHandle;

const GROUP: &str = "/groups/w";

fn items() -> Vec<String> {
    (0..7).map(|n| format!("item-{n}")).collect()
}

/// Who owns what, as the tree says: the item, its owner, and since when.
async fn claims(client: &Client) -> BTreeMap<String, (String, Zxid)> {
    let Ok(listing) = client.at(format!("{GROUP}/claims")).children().with_data().linearizable().await else {
        return BTreeMap::new();
    };
    let claim = |entry: &conclave_client::Entry| {
        let owner = String::from_utf8_lossy(entry.data.as_deref().unwrap_or_default()).into_owned();
        (entry.name.clone(), (owner, entry.stat.unwrap().created))
    };
    listing.children.iter().map(claim).collect()
}

/// Waits until all items are owned, and every member owns so many, in whatever order.
async fn until_divided(client: &Client, sizes: &[usize]) -> BTreeMap<String, (String, Zxid)> {
    let mut seen = BTreeMap::new();
    let what = format!("the items are divided into {sizes:?}");
    let done = eventually_async(&what, async || {
        seen = claims(client).await;
        let owners: BTreeSet<&String> = seen.values().map(|(owner, _)| owner).collect();
        let count = |owner| seen.values().filter(|(other, _)| other == owner).count();
        let mut found: Vec<usize> = owners.into_iter().map(count).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found == sizes
    });
    let done = done.await;
    assert!(done.is_ok(), "{done:?}: {seen:?}");
    seen
}

/// What comes soon, or never.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not come")
}

/// The next share.
async fn next(shares: &mut Shares) -> Share {
    soon(shares.next()).await.unwrap().unwrap()
}

/// What the owners believe: who owns each item, and the last award of it.
#[derive(Default)]
struct Oracle {
    owners: BTreeMap<String, String>,
    tokens: BTreeMap<String, u64>,
}

/// An item that is owned, and told to the oracle as long as it is: until before it is released.
struct Owning {
    oracle: Arc<Mutex<Oracle>>,
    share: Share,
}

impl Owning {
    fn new(oracle: &Arc<Mutex<Oracle>>, name: &str, share: Share) -> Self {
        let mut seen = oracle.lock().unwrap();
        let before = seen.owners.insert(share.item().to_owned(), name.to_owned());
        assert_eq!(before, None, "{name} and another own {} at the same time", share.item());
        let last = seen.tokens.insert(share.item().to_owned(), share.token());
        assert!(last.is_none_or(|last| last < share.token()), "the fences of {} do not rise", share.item());
        Self { oracle: Arc::clone(oracle), share }
    }
}

impl Drop for Owning {
    fn drop(&mut self) {
        if let Ok(mut oracle) = self.oracle.lock() {
            oracle.owners.remove(self.share.item());
        }
    }
}

/// A member whose items are owned until they are recalled.
async fn worker(client: &Client, name: &str, oracle: &Arc<Mutex<Oracle>>) -> JoinHandle<()> {
    let group = Group::new(client, GROUP).unwrap();
    let mut shares = Partition::new(&group, items()).unwrap().join(name, "").await.unwrap();
    let (oracle, name) = (Arc::clone(oracle), name.to_owned());
    tokio::spawn(async move {
        let mut owning = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                share = shares.next() => {
                    let owned = Owning::new(&oracle, &name, share.unwrap().unwrap());
                    owning.spawn(async move {
                        tokio::select! {
                            () = owned.share.recalled() => {}
                            _ = owned.share.lost() => {}
                        }
                    });
                }
                // A panic in there is that of the test.
                Some(done) = owning.join_next() => done.unwrap(),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_no_item_ever_has_two_owners() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let mut workers = Vec::new();
    let mut before = BTreeMap::new();
    for (n, sizes) in [&[7][..], &[4, 3], &[3, 2, 2], &[2, 2, 2, 1]].into_iter().enumerate() {
        let client = cluster.client(&format!("worker-{n}")).await.unwrap();
        workers.push(worker(&client, &format!("w{n}"), &oracle).await);
        let now = until_divided(&observer, sizes).await;
        // No more moved than what the new one has; what stayed is the same award.
        let moved = before.iter().filter(|(item, claim)| now.get(*item) != Some(claim)).count();
        assert_eq!(moved, if n == 0 { 0 } else { *sizes.last().unwrap() }, "{before:?} to {now:?}");
        before = now;
    }
    // One goes while there is no leader.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await;
    let gone = workers.remove(0);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled(), "a worker failed");
    let now = until_divided(&observer, &[3, 2, 2]).await;
    assert!(before.iter().filter(|(_, (owner, _))| owner != "w0").all(|(item, claim)| now.get(item) == Some(claim)));
    cluster.restart(leader).await.unwrap();
    for worker in workers {
        worker.abort();
        assert!(worker.await.unwrap_err().is_cancelled(), "a worker failed");
    }
    eventually_async("nothing is left", async || {
        claims(&observer).await.is_empty()
            && Group::new(&observer, GROUP).unwrap().members().await.unwrap().members.is_empty()
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_loses_its_shares_for_good_and_the_member_comes_back() {
    let cluster = Cluster::start(1).await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let partition = Partition::new(&Group::new(&ann, GROUP).unwrap(), ["a", "b"]).unwrap();
    let mut shares = partition.join("ann", "").await.unwrap();
    let (first, second) = (next(&mut shares).await, next(&mut shares).await);
    observer.at("/done").create("").await.unwrap();
    observer.at("/done").set("1").fenced(first.fence()).await.unwrap();

    // Deleted by hand: that one alone is lost, and comes again.
    observer.at(first.fence().path).delete().await.unwrap();
    assert_eq!(soon(first.lost()).await, Lost::HolderGone);
    assert_eq!((first.state(), second.state()), (Hold::Lost, Hold::Held));
    let again = next(&mut shares).await;
    assert_eq!(again.item(), first.item());
    assert!(again.token() > first.token());

    cluster.kill_session(&ann).await.unwrap();
    assert_eq!((soon(again.lost()).await, soon(second.lost()).await), (Lost::SessionOver, Lost::SessionOver));
    let refused = observer.at("/done").set("2").fenced(second.fence()).await.unwrap_err();
    assert!(matches!(refused, conclave_client::Error::Refused(Refusal::Fenced { .. })), "{refused}");
    // The member has a new session, and owns both again, by other awards, though the lost ones are still kept.
    let (third, fourth) = (next(&mut shares).await, next(&mut shares).await);
    assert!(third.token().min(fourth.token()) > again.token().max(second.token()));
    assert_ne!(third.item(), fourth.item());
    observer.at("/done").set("2").fenced(third.fence()).await.unwrap();
    let error = second.release().await.unwrap_err();
    assert!(matches!(error, conclave_groups::Error::Lost(Lost::SessionOver)), "{error}");

    // What nobody has taken is not kept from others; what somebody has is, until it is let go.
    let bob = cluster.client("bob").await.unwrap();
    let mut bobs =
        Partition::new(&Group::new(&bob, GROUP).unwrap(), ["a", "b"]).unwrap().join("bob", "").await.unwrap();
    let held = [third.held(), fourth.held()];
    eventually("one is recalled", || held.iter().filter(|held| held.is_recalled()).count() == 1).await.unwrap();
    assert_eq!(claims(&observer).await.values().filter(|(owner, _)| owner == "ann").count(), 2);
    let (recalled, kept) = if held[0].is_recalled() { (third, fourth) } else { (fourth, third) };
    let item = recalled.item().to_owned();
    recalled.release().await.unwrap();
    let bobs_share = next(&mut bobs).await;
    assert_eq!(bobs_share.item(), item);
    // Leaving recalls what is still held, and gives it up when that is dropped.
    shares.leave().await.unwrap();
    soon(kept.recalled()).await;
    assert_eq!(kept.state(), Hold::Held);
    drop(kept);
    let rest = next(&mut bobs).await;
    assert_ne!(rest.item(), bobs_share.item());
    // The work is told when it is recalled, and what it gives is given.
    let done = tokio::spawn(rest.run(|held| async move {
        held.recalled().await;
        held.item().to_owned()
    }));
    drop(bobs);
    assert_ne!(soon(done).await.unwrap().unwrap(), item);
    drop(bobs_share);
    eventually_async("nothing is left", async || claims(&observer).await.is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_dropped_at_any_moment_leaves_no_member_and_no_claim() {
    let cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    let observer = cluster.client("observer").await.unwrap();
    let group = Group::new(&ann, GROUP).unwrap();
    let partition = Partition::new(&group, ["a", "b", "c"]).unwrap();
    let owns_all = async |name: &str| {
        let mut shares = partition.join(name, "").await.unwrap();
        let mut held = Vec::new();
        while held.len() < 3 {
            held.push(next(&mut shares).await);
        }
    };
    let begun = Instant::now();
    owns_all("first").await;
    let whole = begun.elapsed();
    let mut dropped = 0;
    for round in 0..60 {
        // Between any two steps: while it joins, while it claims, with some shares taken and others not.
        let time = whole * (round * 37 % 60) / 30;
        dropped += u32::from(tokio::time::timeout(time, owns_all(&format!("m{round}"))).await.is_err());
    }
    assert!(dropped > 0, "it was never dropped");
    eventually_async("nothing is left", async || {
        claims(&observer).await.is_empty() && group.members().await.unwrap().members.is_empty()
    })
    .await
    .unwrap();
    // And all can be had again.
    soon(owns_all("last")).await;
    // What comes to one who does not ask for it is not kept from others.
    let idle = partition.join("idle", "").await.unwrap();
    soon(idle.owned().wait_for(|owned| *owned == 3)).await.unwrap();
    let mut others = partition.join("other", "").await.unwrap();
    assert_eq!(soon(others.next()).await.unwrap().unwrap().state(), Hold::Held);
}
