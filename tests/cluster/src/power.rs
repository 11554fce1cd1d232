//! Power cuts of a whole cluster: what was acknowledged before the cut is there after it, whatever the disks lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conclave_client::Client;
use conclave_log::{Loss, MemDisk};
use conclave_server::{Config, StorageOptions, StoreBoot, Surroundings};
use conclave_testing::{Cluster, Error, small_storage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Members of the cluster.
const MEMBERS: u64 = 3;
/// Writers, each with a znode range of its own.
const WRITERS: u64 = 6;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Power cuts.
    pub cuts: u64,
    /// Writes that were acknowledged before one.
    pub acknowledged: u64,
    /// Those of them that were gone, or older, after it: none.
    pub lost: u64,
    /// Writes whose answer the cut swallowed.
    pub unknown: u64,
    /// Of these, how many had happened.
    pub happened: u64,
    /// Entries that a log had let go behind a checkpoint, over all members and cuts.
    pub purged: u64,
}

/// What a writer was told of its znode: the last number that was acknowledged, and the last that was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    acknowledged: u64,
    asked: u64,
}

/// Counts only what was told before the cut.
#[derive(Default)]
struct Ledger {
    closed: bool,
    told: BTreeMap<(u64, u64), Told>,
    acknowledged: u64,
}

fn config(config: &mut Config) {
    config.storage = StorageOptions { checkpoint_log_bytes: 128 << 10, ..small_storage() };
}

fn surroundings(disk: &MemDisk, cut: u64) -> Surroundings {
    Surroundings {
        log_disk: Some(Arc::new(disk.clone())),
        boot: Some(StoreBoot::named(&format!("boot {cut}"))),
        ..Surroundings::default()
    }
}

/// Cuts the power of all members at once, so many times, at moments and with losses that the seed decides, while writers
/// write; after each cut the cluster starts again, and every znode is compared with what its writer was told.
///
/// # Errors
/// When the cluster does not come back.
pub async fn cuts(cuts: u64, seed: u64) -> Result<Outcome, Error> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disks: BTreeMap<u64, MemDisk> = (1..=MEMBERS).map(|id| (id, MemDisk::new())).collect();
    let mut cluster = Cluster::start_in(MEMBERS, config, |id| surroundings(&disks[&id], 0)).await?;
    cluster.client("setup").await?.at("/power").create("").await?;
    let mut outcome = Outcome::default();
    let mut known: BTreeMap<(u64, u64), Told> = BTreeMap::new();
    for cut in 1..=cuts {
        let ledger = Arc::new(Mutex::new(Ledger { told: known.clone(), ..Ledger::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let client = cluster.client(&format!("writer-{writer}")).await?;
            let (ledger, stop, written) = (Arc::clone(&ledger), Arc::clone(&stop), Arc::clone(&written));
            writers.push(tokio::spawn(write(client, writer, ledger, stop, written)));
        }
        let enough = random.random_range(20..400);
        conclave_testing::eventually("enough is written", || written.load(Ordering::Acquire) >= enough).await?;

        // First nothing counts any more, then the power goes: everything that counts was told before.
        lock(&ledger).closed = true;
        // With no disk that syncs nothing more is committed, and no checkpoint can hold what the disks will not have.
        disks.values().for_each(MemDisk::stall);
        let shelves = cluster.dir().join("shelves");
        let mut gone = Vec::new();
        for (id, disk) in &mut disks {
            let loss = match random.random_range(0..3) {
                0 => Loss::All,
                _ => Loss::Some(random.random()),
            };
            let after = disk.crash(loss);
            copy(&cluster.config(*id).data.join("checkpoints"), &shelves.join(id.to_string()))?;
            gone.push(std::mem::replace(disk, after));
        }
        // Not one before all are looked at: two members that sync go on without the third.
        gone.iter().for_each(MemDisk::release);
        for id in 1..=MEMBERS {
            outcome.purged += cluster.metric(id, "log_purged_index").await.unwrap_or(0);
            cluster.kill(id).await;
            copy(&shelves.join(id.to_string()), &cluster.config(id).data.join("checkpoints"))?;
        }
        stop.store(true, Ordering::Release);
        for writer in writers {
            writer.abort();
            drop(writer.await);
        }
        for id in 1..=MEMBERS {
            cluster.surround(id, surroundings(&disks[&id], cut));
            cluster.launch(id).await?;
        }
        cluster.ready().await?;

        let ledger = std::mem::take(&mut *lock(&ledger));
        outcome.cuts += 1;
        outcome.acknowledged += ledger.acknowledged;
        known = compare(&cluster, ledger.told, &mut outcome).await?;
    }
    Ok(outcome)
}

/// Makes one directory of files like another. A file that is just being made is not durable, and need not come along.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_none() {
            std::fs::hard_link(&path, to.join(name))?;
        }
    }
    Ok(())
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets its znodes to rising numbers, one after the other, until it is stopped.
async fn write(
    client: Client,
    writer: u64,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) {
    for round in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let key = (writer, round % 8);
        let next = {
            let mut ledger = lock(&ledger);
            if ledger.closed {
                return;
            }
            let told = ledger.told.entry(key).or_default();
            told.asked += 1;
            told.asked
        };
        let path = format!("/power/{}-{}", key.0, key.1);
        // Not to be repeated by the client beyond the cut: what it is told then does not count.
        let value = format!("{next:>600}");
        let at = client.at(path);
        let done = match next {
            1 => at.create(value).within(Duration::from_secs(5)).await.map(|_| ()),
            _ => at.set(value).within(Duration::from_secs(5)).await.map(|_| ()),
        };
        let mut ledger = lock(&ledger);
        if ledger.closed || done.is_err() {
            return;
        }
        if let Some(told) = ledger.told.get_mut(&key) {
            told.acknowledged = next;
        }
        ledger.acknowledged += 1;
        written.fetch_add(1, Ordering::AcqRel);
    }
}

/// Where to look.
#[allow(clippy::print_stderr)]
fn say_lost(key: (u64, u64), found: u64, told: Told) {
    eprintln!("/power/{}-{}: found {found}, of {told:?}", key.0, key.1);
}

/// Reads every znode, and gives what is known of it from now on.
async fn compare(
    cluster: &Cluster,
    told: BTreeMap<(u64, u64), Told>,
    outcome: &mut Outcome,
) -> Result<BTreeMap<(u64, u64), Told>, Error> {
    let reader = cluster.client("reader").await?;
    let mut known = BTreeMap::new();
    for (key, told) in told {
        let found = match reader.at(format!("/power/{}-{}", key.0, key.1)).get().linearizable().await {
            Ok(znode) => std::str::from_utf8(&znode.data)?.trim().parse()?,
            Err(conclave_client::Error::Refused(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        if found < told.acknowledged || found > told.asked {
            say_lost(key, found, told);
            outcome.lost += 1;
        }
        if told.asked > told.acknowledged {
            outcome.unknown += 1;
            outcome.happened += u64::from(found == told.asked);
        }
        known.insert(key, Told { acknowledged: found, asked: found });
    }
    Ok(known)
}
