//! The client's cache: whatever it shows is the tree as of its zxid, while members die under load.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use conclave_client::{Cache, Client, Error, Op, Path, Step, Zxid};
use conclave_protocol::{Create as CreateOp, Delete as DeleteOp};
use conclave_testing::{Cluster, PATIENCE, eventually};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WRITERS: u64 = 3;
const WRITES: u64 = 400;
const KILLS: u64 = 4;

/// What a transaction did to the subtree.
#[derive(Clone, Debug)]
enum Did {
    Set(Path, Bytes),
    Removed(Path),
}

type Log = Arc<Mutex<BTreeMap<Zxid, Vec<Did>>>>;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// One transaction at random: a znode is set, a folder goes, or two znodes are set at once.
fn choose(random: &mut StdRng, n: u64) -> (Op, Vec<Did>) {
    let folder = format!("/c/{}", random.random_range(0..3));
    let set = |at: String, n: u64| {
        let data = Bytes::from(n.to_string());
        let create = CreateOp { or_set: true, parents: true, ..CreateOp::new(path(&at), data.clone()) };
        // A parent that is made with it is empty; one that was there keeps what it has, which is nothing too.
        let did = vec![Did::Set(path(&at).parent().unwrap(), Bytes::new()), Did::Set(path(&at), data)];
        (create, did)
    };
    match random.random_range(0..8) {
        0 => {
            let delete = DeleteOp { recursive: true, ..DeleteOp { path: path(&folder), ..DeleteOp::default() } };
            (Op::Delete(delete), vec![Did::Removed(path(&folder))])
        }
        1..3 => {
            let (one, mut did) = set(format!("{folder}/left"), n);
            let (other, more) = set(format!("{folder}/right"), n);
            did.extend(more);
            (Op::Multi(vec![Step::Create(one), Step::Create(other)]), did)
        }
        _ => {
            let (create, did) = set(format!("{folder}/{}", random.random_range(0..4)), n);
            (Op::Create(create), did)
        }
    }
}

async fn write(client: Client, seed: u64, log: Log, done: Arc<AtomicU64>) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..WRITES {
        let (op, did) = choose(&mut random, n);
        match client.submit(op).within(PATIENCE).await {
            Ok((zxid, _)) => drop(log.lock().unwrap().insert(zxid, did)),
            Err(Error::Refused(_)) => {}
            Err(error) => panic!("{error}"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

type Seen = (Zxid, BTreeMap<Path, Bytes>);

/// What a cache shows now.
fn seen(cache: &Cache) -> Option<Seen> {
    let view = cache.read();
    let tree = view.iter().map(|(path, present)| (path.clone(), present.data.clone())).collect();
    Some((view.zxid()?, tree))
}

/// Looks at a cache after each change that it tells of, until it holds this zxid.
async fn look(cache: Cache, upto: tokio::sync::watch::Receiver<Option<Zxid>>) -> Vec<Seen> {
    let mut changes = cache.changes();
    let mut all = Vec::new();
    loop {
        tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap().unwrap();
        let now = seen(&cache).unwrap();
        let zxid = now.0;
        assert!(all.last().is_none_or(|(last, _)| *last <= zxid), "it never goes back");
        all.push(now);
        if upto.borrow().is_some_and(|upto| zxid >= upto) {
            return all;
        }
    }
}

/// The tree after this zxid, by what the writers did.
fn tree_at(log: &BTreeMap<Zxid, Vec<Did>>, zxid: Zxid) -> BTreeMap<Path, Bytes> {
    let mut tree = BTreeMap::from([(path("/c"), Bytes::new())]);
    for did in log.range(..=zxid).flat_map(|(_, did)| did) {
        match did {
            Did::Set(path, data) => drop(tree.insert(path.clone(), data.clone())),
            Did::Removed(top) => tree.retain(|path, _| !path.is_within(top)),
        }
    }
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_shows_nothing_but_states_that_there_were() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let admin = cluster.client("admin").await.unwrap();
    admin.at("/c").create("").await.unwrap();
    let (over, upto) = tokio::sync::watch::channel(None);
    let (log, done) = (Log::default(), Arc::new(AtomicU64::new(0)));
    let mut lookers = Vec::new();
    let mut clients = Vec::new();
    for n in 0..3 {
        let client = cluster.client(&format!("reader-{n}")).await.unwrap();
        let cache = client.cache("/c").await.unwrap();
        lookers.push(tokio::spawn(look(cache, upto.clone())));
        clients.push(client);
    }
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let client = cluster.client(&format!("writer-{n}")).await.unwrap();
        writers.push(tokio::spawn(write(client, n, Arc::clone(&log), Arc::clone(&done))));
    }
    for n in 0..KILLS {
        let until = WRITERS * WRITES * (n + 1) / (KILLS + 1);
        eventually("the writes go on", || done.load(Ordering::Relaxed) >= until).await.unwrap();
        let id = clients[usize::try_from(n % 3).unwrap()].peer().unwrap().member.0;
        cluster.kill(id).await;
        // Somebody begins in the midst of it.
        let client = cluster.client(&format!("late-{n}")).await.unwrap();
        lookers.push(tokio::spawn(look(client.cache("/c").await.unwrap(), upto.clone())));
        clients.push(client);
        cluster.restart(id).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (end, _) = admin.submit(Op::Create(CreateOp::new(path("/c/end"), "end"))).await.unwrap();
    log.lock().unwrap().insert(end, vec![Did::Set(path("/c/end"), "end".into())]);
    over.send_replace(Some(end));
    // For those that had seen that already.
    let (last, _) = admin.submit(Op::Create(CreateOp::new(path("/c/last"), "last"))).await.unwrap();
    log.lock().unwrap().insert(last, vec![Did::Set(path("/c/last"), "last".into())]);
    let log = log.lock().unwrap().clone();
    let mut looks = 0;
    for looker in lookers {
        for (zxid, shown) in looker.await.unwrap() {
            assert_eq!(shown, tree_at(&log, zxid), "at {zxid}");
            looks += 1;
        }
    }
    assert!(looks > 1_000, "{looks} looks");
}
