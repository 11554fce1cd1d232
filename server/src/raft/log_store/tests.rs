//! openraft's own conformance suite over the log store, and what it does not ask.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use conclave_log::{Loss, MemDisk, Options, Writer, open};
use futures::{StreamExt, TryStreamExt};
use openraft::{
    EntryPayload, RaftSnapshotBuilder, StorageError,
    alias::{SnapshotMetaOf, SnapshotOf},
    storage::{EntryResponder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
};

use super::super::types::{Payload, StoredMembership};
use super::*;

/// Remembers what was applied, and nothing else: the suite is here for the log.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMetaOf<Types>>,
}

impl RaftStateMachine<Types> for Memory {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let this = self.0.lock().unwrap();
        Ok((this.applied, this.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            let mut this = self.0.lock().unwrap();
            this.applied = Some(entry.log_id());
            if let EntryPayload::Membership(membership) = entry.payload {
                this.membership = StoredMembership::new(this.applied, membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, _snapshot: ()) -> Result<(), io::Error> {
        let mut this = self.0.lock().unwrap();
        this.applied = meta.last_log_id;
        this.membership = meta.last_membership.clone();
        this.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        let this = self.0.lock().unwrap();
        Ok(this.snapshot.clone().map(|meta| SnapshotOf::<Types, ()> { meta, snapshot: () }))
    }
}

impl RaftSnapshotBuilder<Types> for Memory {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        let mut this = self.0.lock().unwrap();
        let meta = SnapshotMetaOf::<Types> { last_log_id: this.applied, last_membership: this.membership.clone() };
        this.snapshot = Some(meta.clone());
        Ok(SnapshotOf::<Types, ()> { meta, snapshot: () })
    }
}

fn small() -> Options {
    Options { segment_bytes: 4096, ahead_bytes: 1024, step_bytes: 1024, cache_bytes: 300, ..Options::default() }
}

fn store(disk: &MemDisk) -> LogStore {
    let (log, votes, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    // The thread ends with the last handle.
    let (handle, _thread) = Writer::spawn(log, votes, &recovered, &small(), Box::new(|_| {})).unwrap();
    LogStore::new(handle, steps::Steps::default())
}

struct OnMemory;

impl StoreBuilder<Types, LogStore, Memory> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, Memory), StorageError<Types>> {
        Ok(((), store(&MemDisk::new()), Memory::default()))
    }
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) -> Result<(), io::Error> {
    let (told, durable) = Types::oneshot();
    store.append(entries, IOFlushed::signal(told)).await?;
    durable.await.unwrap()
}

fn entry(term: u64, index: u64, payload: &'static [u8]) -> Entry {
    Entry::new(LogId::new_term_index(term, index), EntryPayload::Normal(Payload(Bytes::from_static(payload))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(OnMemory).await.unwrap();
}

#[tokio::test]
async fn vote_entries_and_committed_come_back_after_a_power_cut() {
    let disk = MemDisk::new();
    let mut first = store(&disk);
    let vote = Vote::new_committed(3, 7);
    first.save_vote(&vote).await.unwrap();
    append(&mut first, vec![entry(1, 0, b"a"), entry(1, 1, b"b"), entry(3, 2, b"c")]).await.unwrap();
    first.save_committed(Some(LogId::new_term_index(1, 1))).await.unwrap();
    append(&mut first, vec![entry(3, 3, b"d")]).await.unwrap();

    let mut again = store(&disk.crash(Loss::All));
    let mut reader = again.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    assert_eq!(again.read_committed().await.unwrap(), Some(LogId::new_term_index(1, 1)));
    let entries: Vec<Entry> = reader.entries_stream(..).await.try_collect().await.unwrap();
    assert_eq!(entries, [entry(1, 0, b"a"), entry(1, 1, b"b"), entry(3, 2, b"c"), entry(3, 3, b"d")]);
}

#[tokio::test]
async fn a_backlog_is_read_in_steps_without_a_gap() {
    static LARGE: [u8; 300_000] = [7; 300_000];
    let mut store = store(&MemDisk::new());
    append(&mut store, (1..=20).map(|i| entry(1, i, &LARGE)).collect()).await.unwrap();
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(2, 20).await.unwrap().len(), 3);
    let indices: Vec<u64> =
        reader.entries_stream(3..=18).await.map(|e| e.unwrap().log_id.index).collect::<Vec<_>>().await;
    assert_eq!(indices, (3..=18).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_follower_is_never_sent_entries_from_behind_a_purge() {
    let mut store = store(&MemDisk::new());
    append(&mut store, (1..=20).map(|i| entry(1, i, b"x")).collect()).await.unwrap();
    store.purge(LogId::new_term_index(1, 8)).await.unwrap();
    let mut reader = store.get_log_reader().await;
    assert!(reader.limited_get_log_entries(5, 15).await.unwrap().is_empty());
    assert_eq!(reader.limited_get_log_entries(9, 15).await.unwrap().len(), 6);
}

#[tokio::test]
async fn damage_is_an_error_never_a_shorter_answer() {
    let disk = MemDisk::new();
    let mut store = store(&disk);
    append(
        &mut store,
        (1..=20).map(|i| entry(1, i, b"something to be damaged, long enough to leave the cache")).collect(),
    )
    .await
    .unwrap();
    append(&mut store, vec![entry(1, 21, b"x")]).await.unwrap();
    let name = "log-0000000000000001";
    let content = disk.content(name).unwrap();
    let at = content.windows(9).position(|w| w == b"something").unwrap();
    disk.flip(name, at * 8);
    let mut reader = store.get_log_reader().await;
    for range in [0..5, 1..2, 0..22] {
        let error = reader.try_get_log_entries(range).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
    assert!(reader.limited_get_log_entries(1, 22).await.is_err());
    assert!(reader.entries_stream(1..22).await.any(|e| async move { e.is_err() }).await);
}
