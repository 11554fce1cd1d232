//! What watches promise, held against the whole history: in order, each change once, none missing, whoever dies.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave_client::{
    AccessList, Change, ChangeKind, Client, Error, Path, Refusal, Scope, Step, Watch, WatchEvent, Zxid,
};
use conclave_testing::{Cluster, PATIENCE, eventually};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Writes of one writer.
const WRITES: u64 = 900;
const WRITERS: u64 = 4;
/// How often somebody is killed.
const KILLS: u64 = 6;

type History = Vec<(Zxid, Vec<Change>)>;

/// Which changes a watch wants, as its documentation says.
#[derive(Clone, Copy, Debug)]
struct Wish {
    path: &'static str,
    scope: Scope,
    kinds: Option<&'static [ChangeKind]>,
    /// Only znodes whose name is this; and it is asked for by this pattern.
    name: Option<(&'static str, &'static str)>,
    data: bool,
}

const fn wish(path: &'static str, scope: Scope) -> Wish {
    Wish { path, scope, kinds: None, name: None, data: false }
}

const WISHES: [Wish; 12] = [
    wish("/", Scope::Subtree),
    wish("/t", Scope::Subtree),
    wish("/t/a", Scope::Subtree),
    wish("/t/a/1", Scope::Data),
    wish("/t/a/1", Scope::Existence),
    wish("/t/a/1", Scope::Children),
    wish("/t/b", Scope::Children),
    wish("/t", Scope::Children),
    Wish { kinds: Some(&[ChangeKind::Deleted]), ..wish("/t", Scope::Subtree) },
    Wish { kinds: Some(&[ChangeKind::Created, ChangeKind::Acl]), data: true, ..wish("/t/c", Scope::Subtree) },
    Wish { name: Some(("x", "x")), ..wish("/t", Scope::Subtree) },
    Wish { name: Some(("1", "?")), data: true, ..wish("/t/a", Scope::Subtree) },
];

impl Wish {
    async fn watch(self, client: &Client, since: Option<Zxid>) -> Watch {
        let mut builder = client.watch(self.path);
        builder = match self.scope {
            Scope::Data => builder.data(),
            Scope::Existence => builder.existence(),
            Scope::Children => builder.children(),
            Scope::Subtree => builder.subtree(),
        };
        if let Some(kinds) = self.kinds {
            builder = builder.kinds(kinds);
        }
        if let Some((_, pattern)) = self.name {
            builder = builder.names(pattern);
        }
        if self.data {
            builder = builder.with_data();
        }
        if let Some(since) = since {
            builder = builder.since(since);
        }
        builder.await.unwrap()
    }

    fn wants(self, change: &Change) -> bool {
        let path = Path::parse(self.path).unwrap();
        let (is_it, is_child) = (change.path == path, change.path.parent().is_some_and(|parent| parent == path));
        let comes_or_goes = matches!(change.kind, ChangeKind::Created | ChangeKind::Deleted);
        let in_scope = match self.scope {
            Scope::Data => is_it,
            Scope::Existence => is_it && comes_or_goes,
            Scope::Children => is_child && comes_or_goes || is_it && change.kind == ChangeKind::Deleted,
            Scope::Subtree => change.path.is_within(&path),
        };
        in_scope
            && self.kinds.is_none_or(|kinds| kinds.contains(&change.kind))
            && self.name.is_none_or(|(name, pattern)| {
                change.path.name().is_some_and(|own| own == name || pattern == "?" && own.len() == 1)
            })
    }

    fn of(self, history: &[(Zxid, Vec<Change>)], after: Zxid) -> History {
        let later = history.iter().filter(|(zxid, _)| *zxid > after);
        let wanted = later.map(|(zxid, changes)| {
            (*zxid, changes.iter().filter(|change| self.wants(change)).cloned().collect::<Vec<_>>())
        });
        wanted.filter(|(_, changes)| !changes.is_empty()).collect()
    }
}

/// Writes at random: what exists is changed, created again, deleted with all below it. Gives the last zxid.
async fn write(client: Client, seed: u64, done: Arc<AtomicU64>) -> Zxid {
    let mut random = StdRng::seed_from_u64(seed);
    let mut writes = futures::stream::iter(0..WRITES)
        .map(|n| {
            let folder = ["a", "b", "c"][random.random_range(0..3)];
            let one = format!("/t/{folder}/{}", random.random_range(0..3));
            let leaf = format!("{one}/{}", ["x", "y"][random.random_range(0..2)]);
            let what = random.random_range(0..20);
            let (client, done) = (client.clone(), Arc::clone(&done));
            async move {
                let answer = match what {
                    0..6 => client.at(&leaf).create(n.to_string()).parents().await.map(drop),
                    6..12 => client.at(&leaf).set(n.to_string()).await.map(drop),
                    12 => client.at(&one).delete().recursive().await.map(drop),
                    13 => client.at(&leaf).delete().await.map(drop),
                    14 => client.at(&leaf).set_acl(AccessList::open()).await.map(drop),
                    15 => client.at(&one).set(n.to_string()).await.map(drop),
                    16 => client.at(&one).delete_all().part_size(2).await.map(drop),
                    17 => client.at(&leaf).create("").or_set().parents().await.map(drop),
                    _ => {
                        let path = Path::parse(&leaf).unwrap();
                        let set = conclave_client::SetStep { path, data: "m".into(), if_version: None };
                        client.multi([Step::Set(set.clone()), Step::Set(set)]).await.map(drop)
                    }
                };
                done.fetch_add(1, Ordering::Relaxed);
                match answer {
                    Ok(()) | Err(Error::Refused(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .buffered(16);
    while writes.next().await.is_some() {}
    client.zxid()
}

/// Reads a watch until it tells of something after `last`, once that is known.
async fn collect(mut watch: Watch, wish: Wish, last: tokio::sync::watch::Receiver<Option<Zxid>>) -> History {
    let mut told: History = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        let WatchEvent::Changes { zxid, changes, present } = event else { panic!("{event:?}") };
        assert!(told.last().is_none_or(|(last, _)| *last < zxid), "in order, each transaction once");
        assert_eq!(present.len(), if wish.data { changes.len() } else { 0 });
        for (change, present) in changes.iter().zip(&present) {
            if let (ChangeKind::Created | ChangeKind::Data, Some(present)) = (change.kind, present) {
                let newest = present.stat.created.max(present.stat.modified);
                assert!(newest >= zxid, "what is told of {zxid} is not older: {newest}");
            }
        }
        if last.borrow().is_some_and(|last| zxid > last) {
            return told;
        }
        told.push((zxid, changes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watch_tells_the_history_whoever_dies() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let admin = cluster.client("admin").await.unwrap();
    for path in ["/t", "/t/a", "/t/b", "/t/c"] {
        admin.at(path).create("").await.unwrap();
    }
    let begun = admin.zxid();
    let mut watchers = Vec::new();
    for (n, wish) in WISHES.into_iter().enumerate() {
        let client = cluster.client(&format!("watcher-{}", n % 3)).await.unwrap();
        let watch = wish.watch(&client, None).await;
        watchers.push((wish, watch, client));
    }
    let (over, last) = tokio::sync::watch::channel(None);
    let read = |wish: Wish, watch: Watch| (wish, watch.zxid(), tokio::spawn(collect(watch, wish, last.clone())));
    let mut watching: Vec<_> = Vec::new();
    let mut clients = Vec::new();
    for (wish, watch, client) in watchers {
        watching.push(read(wish, watch));
        clients.push(client);
    }
    let done = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let client = cluster.client(&format!("writer-{n}")).await.unwrap().pipelined();
        writers.push(tokio::spawn(write(client, n, Arc::clone(&done))));
    }
    for n in 0..KILLS {
        let until = WRITES * WRITERS * (n + 1) / (KILLS + 1);
        let reached = eventually("the writes go on", || done.load(Ordering::Relaxed) >= until).await;
        reached.unwrap();
        // In turn whoever serves a watch, whoever leads, and anybody.
        let id = match n % 3 {
            0 => clients[usize::try_from(n).unwrap()].peer().unwrap().member.0,
            1 => cluster.leader().await.unwrap(),
            _ => n % 2 + 1,
        };
        cluster.kill(id).await;
        // Somebody resumes in the midst of it, from the beginning.
        let wish = WISHES[usize::try_from(n).unwrap()];
        let client = cluster.client(&format!("late-{n}")).await.unwrap();
        watching.push(read(wish, wish.watch(&client, Some(begun)).await));
        clients.push(client);
        cluster.restart(id).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    admin.at("/t").get().linearizable().await.unwrap();
    let last = admin.zxid();
    over.send_replace(Some(last));
    for wish in WISHES {
        finish(&admin, wish).await;
    }
    let mut all = admin.watch("/").subtree().since(begun).await.unwrap();
    let history = whole(&mut all, admin.zxid()).await;
    assert!(history.len() > 1_000, "a run in which little happened proves nothing: {}", history.len());
    let mut events = 0;
    for (wish, after, collected) in watching {
        let collected = collected.await.unwrap();
        let mut expected = wish.of(&history, after);
        expected.retain(|(zxid, _)| *zxid <= last);
        assert_eq!(collected, expected, "{wish:?} after {after}");
        events += collected.len();
    }
    assert!(events > 2_000, "{events} events in all");
}

/// Changes something that this watch is told of.
async fn finish(client: &Client, wish: Wish) {
    let end = match (wish.scope, wish.name) {
        (Scope::Data | Scope::Existence, _) => wish.path.to_owned(),
        (_, Some((name, _))) => format!("{}/end/{name}", wish.path),
        (_, None) => format!("{}/end", wish.path.trim_end_matches('/')),
    };
    match client.at(&end).create("end").parents().await {
        Ok(_) => {}
        Err(Error::Refused(Refusal::ZnodeExists { .. })) => drop(client.at(&end).set("end").await.unwrap()),
        Err(error) => panic!("{error}"),
    }
    client.at(&end).delete_all().await.unwrap();
}

/// All of it up to a zxid that changed something.
async fn whole(watch: &mut Watch, upto: Zxid) -> History {
    let mut history: History = Vec::new();
    while history.last().is_none_or(|(zxid, _)| *zxid < upto) {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        let WatchEvent::Changes { zxid, changes, .. } = event else { panic!("{event:?}") };
        history.push((zxid, changes));
    }
    history
}
