//! Full disks for real: members on a small file system of their own, filled by writes and from outside, and brought back.
//!
//! It mounts, so it is run as root: `cargo run -p conclave-cluster-tests --example full_disk`
#![allow(clippy::print_stdout)]

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, Error as ClientError, Outcome, Refusal};
use conclave_cluster_tests::{Metrics, Processes};
use conclave_server::StorageOptions;
use conclave_testing::Error;
use futures::future::join_all;
use rand::RngCore;
use rustix::process::Signal;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 64 * MIB;
/// Bytes of data of each znode: not to be packed by anybody.
const DATA_BYTES: usize = 16 << 10;
/// Znodes that are asked for at a time.
const DEPTH: usize = 8;
/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is refused for so long is not refused because a checkpoint is not ready yet, which lets log go.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err("it mounts a file system: run it as root".into());
    }
    let began = Instant::now();
    println!("written and removed: {}", written_full().await?);
    println!("written and deleted: {}", written_and_deleted().await?);
    println!("filled from outside: {}", filled_from_outside().await?);
    println!("one follower's full: {}", one_follower().await?);
    println!("all of it in {} s", began.elapsed().as_secs());
    Ok(())
}

/// What was seen in a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    deleted: u64,
    read: u64,
    checkpoints: u64,
    reserves: u64,
    back_in_ms: u128,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, unknown, deleted, read, checkpoints, reserves, back_in_ms } = self;
        write!(
            f,
            "{acknowledged} creates acknowledged, {refused} refused with disk-full, {unknown} unknown, {deleted} deletes, \
             {read} read back, {checkpoints} checkpoints, {reserves} reserves given up meanwhile, growing again after {back_in_ms} ms, digests equal, nobody died"
        )
    }
}

/// Writes fill the disk that all members share; then something else on it goes.
async fn written_full() -> Result<Counts, Error> {
    let disk = Disk::mount()?;
    disk.ballast("other", 16 * MIB)?;
    let mut bench = Bench::start(disk, &[1, 2, 3]).await?;
    bench.fill().await?;
    bench.must_be_refused().await?;
    bench.verify().await?;
    bench.delete(20).await?;
    bench.must_be_refused().await?;
    bench.disk.remove("other")?;
    bench.until_it_grows().await?;
    bench.end().await
}

/// Writes fill the disk; then deletes, and the checkpoint that follows, make room.
async fn written_and_deleted() -> Result<Counts, Error> {
    let mut bench = Bench::start(Disk::mount()?, &[1, 2, 3]).await?;
    bench.fill().await?;
    bench.must_be_refused().await?;
    bench.verify().await?;
    bench.delete(usize::MAX).await?;
    bench.until_it_grows().await?;
    bench.end().await
}

/// Another program takes every byte there is while writes go on, and lets go of them after a while.
async fn filled_from_outside() -> Result<Counts, Error> {
    let mut bench = Bench::start(Disk::mount()?, &[1, 2, 3]).await?;
    for _ in 0..10 {
        bench.write().await?;
    }
    let filler = Filler::start(bench.disk.file("ballast"))?;
    // What members give up is taken as well: their reserves are gone, and nothing is left.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        bench.write().await?;
    }
    if bench.reserves_given_up().await? == 0 {
        return Err("the disk was full to the last block, and no reserve was given up".into());
    }
    filler.stop()?;
    bench.disk.remove("ballast")?;
    bench.until_it_grows().await?;
    bench.end().await
}

/// A follower's disk is full from outside: the others go on, and it follows when there is room.
async fn one_follower() -> Result<Counts, Error> {
    let mut bench = Bench::start(Disk::mount()?, &[1]).await?;
    bench.follows(1).await?;
    for _ in 0..10 {
        bench.write().await?;
    }
    let filler = Filler::start(bench.disk.file("ballast"))?;
    let before = bench.counts.acknowledged;
    // Not too much: it may have to be there twice, should the follower need a snapshot.
    for _ in 0..40 {
        if !bench.write().await? {
            // On a busy machine anybody may be elected.
            bench.follows(1).await?;
        }
    }
    if bench.counts.acknowledged - before < 30 * DEPTH as u64 {
        return Err(format!("a follower's full disk kept the others from writing: {:?}", bench.counts).into());
    }
    filler.stop()?;
    bench.disk.remove("ballast")?;
    bench.until_it_grows().await?;
    bench.end().await
}

/// A cluster on a disk, and what it acknowledged. The cluster goes before the disk.
struct Bench {
    cluster: Processes,
    client: Client,
    disk: Disk,
    counts: Counts,
    /// Numbers of the znodes that were acknowledged, and are not deleted.
    there: Vec<u64>,
    next: u64,
}

impl Bench {
    /// Three members, these of them on the disk.
    async fn start(disk: Disk, on_it: &[u64]) -> Result<Self, Error> {
        let storage = StorageOptions {
            checkpoint_log_bytes: 4 * MIB,
            log_segment_bytes: MIB,
            log_keep_bytes: MIB,
            reserve_bytes: 4 * MIB,
            least_free_bytes: 12 * MIB,
            ..StorageOptions::default()
        };
        let cluster = Processes::start_with(3, None, |config| {
            config.storage = storage;
            if on_it.contains(&config.member) {
                config.data = disk.file(&format!("member-{}", config.member));
            }
        })
        .await?;
        let client = cluster.client("filler").await?;
        client.at("/f").create("").await?;
        Ok(Self { cluster, client, disk, counts: Counts::default(), there: Vec::new(), next: 0 })
    }

    /// Asks for a few creates at a time; true when one was done. An answer of another kind than was to be expected is an
    /// error.
    async fn write(&mut self) -> Result<bool, Error> {
        let numbers: Vec<u64> = (self.next..self.next + DEPTH as u64).collect();
        self.next += DEPTH as u64;
        let creates = numbers.iter().map(|number| {
            let create = self.client.at(path(*number)).create(data(*number));
            async { create.await }
        });
        let before = self.counts.acknowledged;
        for (number, created) in numbers.iter().zip(join_all(creates).await) {
            match created {
                Ok(_) => {
                    self.counts.acknowledged += 1;
                    self.there.push(*number);
                }
                Err(ClientError::Refused(Refusal::DiskFull { .. })) => self.counts.refused += 1,
                Err(error) if error.outcome() == Outcome::Unknown => self.counts.unknown += 1,
                Err(ClientError::TimedOut { .. }) => self.counts.unknown += 1,
                Err(error) => return Err(format!("a create: {error}").into()),
            }
        }
        self.alive()?;
        Ok(self.counts.acknowledged > before)
    }

    /// Writes until it is refused for good.
    async fn fill(&mut self) -> Result<(), Error> {
        let mut refused_since = Instant::now();
        while refused_since.elapsed() < SETTLED {
            if self.write().await? {
                refused_since = Instant::now();
            } else {
                // tidy: allow sleep, between two looks at a condition that has a deadline
                tokio::time::sleep(LOOK).await;
            }
            if self.counts.acknowledged * DATA_BYTES as u64 > DISK_BYTES {
                return Err("more was written than the disk can hold, and nothing was refused".into());
            }
        }
        match self.counts {
            Counts { acknowledged: 0, .. } => Err("nothing was ever written".into()),
            Counts { refused: 0, .. } => Err("it stopped, and nothing was refused".into()),
            Counts { unknown: 1.., .. } => Err("requests were lost on the way to a full disk".into()),
            _ => Ok(()),
        }
    }

    /// The command line is refused too, and says what to do.
    async fn must_be_refused(&mut self) -> Result<(), Error> {
        let mut command = self.cluster.cli("person", Duration::from_secs(10))?;
        let output = tokio::task::spawn_blocking(move || command.args(["create", "/g", "x"]).output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let right = output.status.code() == Some(1) && said.contains("disk-full") && said.contains("make room");
        if right { Ok(()) } else { Err(format!("a create on a full disk: {} {said}", output.status).into()) }
    }

    /// Everything that was acknowledged is there, as it was written.
    async fn verify(&mut self) -> Result<(), Error> {
        for number in &self.there {
            let znode = self.client.at(path(*number)).get().linearizable().within(PATIENCE).await?;
            if znode.data != data(*number) {
                return Err(format!("{} has other data than was acknowledged", path(*number)).into());
            }
        }
        self.counts.read += self.there.len() as u64;
        Ok(())
    }

    /// Deletes the first of them.
    async fn delete(&mut self, most: usize) -> Result<(), Error> {
        let count = most.min(self.there.len());
        for number in self.there.drain(..count) {
            self.client.at(path(number)).delete().within(PATIENCE).await?;
            self.counts.deleted += 1;
        }
        Ok(())
    }

    /// It grows again, by itself, and goes on.
    async fn until_it_grows(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        // Nothing is written until the leader allows it: nothing but the members themselves is to help.
        while self.is_refused().await? || !self.write().await? {
            if began.elapsed() > PATIENCE {
                self.cluster.keep();
                return Err(format!(
                    "there is room, and nothing grows: see {}; {}",
                    self.cluster.dir().display(),
                    self.disk.list()
                )
                .into());
            }
            // tidy: allow sleep, between two looks at a condition that has a deadline
            tokio::time::sleep(LOOK).await;
        }
        self.counts.back_in_ms = began.elapsed().as_millis();
        for _ in 0..5 {
            self.write().await?;
        }
        Ok(())
    }

    /// Whether the leader says that nothing may grow.
    async fn is_refused(&self) -> Result<bool, Error> {
        let leader = self.cluster.admin(self.cluster.leader().await?)?;
        Ok(Metrics::of(leader).await.is_none_or(|metrics| metrics.is("refuses_growth")))
    }

    /// Counts the members that have no reserve.
    async fn reserves_given_up(&mut self) -> Result<u64, Error> {
        for id in self.cluster.ids() {
            let metrics = Metrics::of(self.cluster.admin(id)?).await.ok_or("a member tells nothing")?;
            self.counts.reserves += u64::from(!metrics.is("reserve_held"));
        }
        Ok(self.counts.reserves)
    }

    /// Makes a member one that follows.
    async fn follows(&mut self, id: u64) -> Result<(), Error> {
        let (leader, term) = self.cluster.leader_after(0).await?;
        if leader == id {
            self.cluster.signal(id, Signal::STOP)?;
            let elected = self.cluster.leader_after(term).await;
            self.cluster.signal(id, Signal::CONT)?;
            elected?;
        }
        Ok(())
    }

    fn alive(&mut self) -> Result<(), Error> {
        match self.cluster.fallen()[..] {
            [] => Ok(()),
            ref fallen => {
                self.cluster.keep();
                Err(format!("members {fallen:?} died: see {}", self.cluster.dir().display()).into())
            }
        }
    }

    /// All acknowledged is there, all members have the same, and none has died.
    async fn end(mut self) -> Result<Counts, Error> {
        self.verify().await?;
        let began = Instant::now();
        loop {
            let status = self.client.status().await?;
            let of = status.members.iter().filter_map(|member| Some((member.zxid?, member.digest.clone()?)));
            let states: Vec<_> = of.collect();
            if states.len() == 3 && states.windows(2).all(|pair| pair[0] == pair[1]) {
                break;
            }
            if began.elapsed() > PATIENCE {
                self.cluster.keep();
                return Err(format!("the members do not agree: {states:?}").into());
            }
            // tidy: allow sleep, between two looks at a condition that has a deadline
            tokio::time::sleep(LOOK).await;
        }
        for id in self.cluster.ids() {
            let metrics = Metrics::of(self.cluster.admin(id)?).await.unwrap_or_default();
            self.counts.checkpoints += metrics.value("checkpoints_total");
        }
        self.alive()?;
        Ok(self.counts)
    }
}

fn path(number: u64) -> String {
    format!("/f/{number}")
}

/// Data that follows from its number, and that cannot be packed.
fn data(number: u64) -> Vec<u8> {
    use rand::SeedableRng;
    let mut data = vec![0; DATA_BYTES];
    rand::rngs::StdRng::seed_from_u64(number).fill_bytes(&mut data);
    data
}

/// A small file system in a file, mounted as long as this lives.
struct Disk {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("conclave-full-").tempdir()?;
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        File::create(&image)?.set_len(DISK_BYTES)?;
        std::fs::create_dir(&at)?;
        // Nothing is kept for root: the members run as root here.
        tool("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), &image])?;
        tool("mount", &["-o".as_ref(), "loop".as_ref(), &image, &at])?;
        Ok(Self { at, _dir: dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn ballast(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = File::create(self.file(name))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file(name))?;
        File::open(&self.at)?.sync_all()
    }

    /// What takes the room.
    fn list(&self) -> String {
        let output = Command::new("du").arg("-ak").arg(&self.at).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Members that were killed a moment ago may still hold it.
        if tool("umount", &[&self.at]).is_err()
            && let Err(error) = tool("umount", &["-l".as_ref(), &self.at])
        {
            println!("{} stays mounted: {error}", self.at.display());
        }
    }
}

fn tool(name: &str, args: &[&Path]) -> Result<(), Error> {
    let output = Command::new(name).args(args).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Another program that takes whatever is free.
struct Filler {
    ending: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl Filler {
    /// Returns when there is nothing left.
    fn start(path: PathBuf) -> Result<Self, Error> {
        let mut file = File::create(path)?;
        take(&mut file)?;
        let ending = Arc::new(AtomicBool::new(false));
        let here = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            while !here.load(Ordering::Acquire) {
                take(&mut file)?;
                // tidy: allow sleep, the pace at which somebody else fills the disk
                std::thread::sleep(LOOK);
            }
            Ok(())
        });
        Ok(Self { ending, thread })
    }

    fn stop(self) -> Result<(), Error> {
        self.ending.store(true, Ordering::Release);
        Ok(self.thread.join().map_err(|_| "the filler panicked")??)
    }
}

/// Writes until the disk is full to the last block.
fn take(file: &mut File) -> io::Result<()> {
    let mut chunk = 256 << 10;
    let zeros = vec![0; chunk];
    while chunk >= 1 << 10 {
        match file.write(&zeros[..chunk]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => chunk /= 2,
            Err(error) => return Err(error),
        }
    }
    // Blocks that are promised and not given yet are nobody else's either, but they could not be counted on.
    match file.sync_all() {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
        _ => Ok(()),
    }
}
