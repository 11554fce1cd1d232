//! The log's thread and its handles: order, watermarks, reading, faults.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Told, nothing, record, small};
use conclave_log::{Error, Handle, Loss, MemDisk, Options, Position, RealDisk, Record, Vote, Writer, open};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(20);

fn start(disk: &MemDisk) -> (Handle, Writer) {
    let (log, votes, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    Writer::new(log, votes, &recovered, &small(), Box::new(|_| {}))
}

fn read(handle: &Handle) -> Vec<Record> {
    handle.read(0..u64::MAX, usize::MAX).unwrap()
}

#[test]
fn entries_are_read_as_soon_as_they_are_queued() {
    let (handle, mut writer) = start(&MemDisk::new());
    let records: Vec<Record> = (5..10).map(|i| record(i, 1, 20)).collect();
    handle.append(records.clone(), nothing()).unwrap();
    assert_eq!(read(&handle), records);
    assert_eq!((handle.first(), handle.last()), (Some(5), Some(Position { index: 9, term: 1 })));
    assert_eq!((handle.written(), handle.durable()), (Some(4), Some(4)));
    assert!(writer.step());
    assert_eq!((handle.written(), handle.durable()), (Some(9), Some(9)));
    assert_eq!(read(&handle), records);
}

#[test]
fn a_batch_takes_one_sync_and_is_told_in_order() {
    let disk = MemDisk::new();
    let (handle, mut writer) = start(&disk);
    // The zeros ahead of a new log are durable with its first sync; from then on there is room.
    handle.append(vec![record(0, 1, 0)], nothing()).unwrap();
    writer.step();
    let told = Told::default();
    let before = disk.syncs();
    for i in 1..=4 {
        handle.append(vec![record(i, 1, 10)], told.done(i)).unwrap();
    }
    assert!(told.good().is_empty());
    writer.step();
    assert_eq!(told.good(), [1, 2, 3, 4]);
    assert_eq!(disk.syncs(), before + 1);
    assert_eq!(handle.stats().fsyncs.load(SeqCst), 2);
    assert_eq!(handle.stats().entries.load(SeqCst), 5);
    assert_eq!(handle.stats().bytes.load(SeqCst), 40);
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let (handle, mut writer) = start(&MemDisk::new());
    handle.append(vec![record(1, 1, 5)], nothing()).unwrap();
    let told = Told::default();
    let gap = handle.append(vec![record(2, 1, 5), record(4, 1, 5)], told.done(1));
    assert!(matches!(gap, Err(Error::Gap { expected: 3, got: 4 })), "{gap:?}");
    let large = handle.append(vec![record(2, 1, 5000)], told.done(2));
    assert!(matches!(large, Err(Error::TooLarge { bytes: 5000, .. })), "{large:?}");
    handle.purge_upto(Position { index: 1, term: 1 }, nothing()).unwrap();
    assert!(matches!(handle.truncate_after(None, told.done(3)), Err(Error::Purged(1))));
    assert_eq!(told.bad(), [1, 2, 3]);
    assert!(writer.step(), "the log goes on");
    assert_eq!(handle.last(), Some(Position { index: 1, term: 1 }));
    handle.append(vec![record(2, 1, 5)], nothing()).unwrap();
    assert!(writer.step());
    assert_eq!(handle.durable(), Some(2));
}

#[test]
fn written_comes_before_durable() {
    let disk = MemDisk::new();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    let (handle, thread) = Writer::spawn(log, votes, &recovered, &small(), Box::new(|_| {})).unwrap();
    disk.stall();
    handle.append(vec![record(1, 1, 10)], nothing()).unwrap();
    assert!(handle.wait_written(1, LONG).unwrap());
    assert_eq!(handle.durable(), Some(0));
    assert!(!handle.wait_durable(1, Duration::from_millis(1)).unwrap());
    assert!(!handle.wait_written(2, Duration::from_millis(1)).unwrap());
    disk.release();
    assert!(handle.wait_durable(1, LONG).unwrap());
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn a_truncation_takes_the_watermarks_back_at_once() {
    let (handle, mut writer) = start(&MemDisk::new());
    handle.append((1..=9).map(|i| record(i, 1, 10)).collect(), nothing()).unwrap();
    writer.step();
    assert_eq!(handle.written(), Some(9));
    handle.truncate_after(Some(4), nothing()).unwrap();
    assert_eq!((handle.written(), handle.durable()), (Some(4), Some(4)));
    handle.append(vec![record(5, 2, 10), record(6, 2, 10)], nothing()).unwrap();
    assert_eq!(handle.written(), Some(4), "the old entry 5 was written, the new one is not");
    assert_eq!(handle.term_at(5), Some(2));
    assert_eq!(handle.term_at(7), None);
    writer.step();
    assert_eq!(handle.durable(), Some(6));
    assert_eq!(read(&handle).iter().map(|r| r.term).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2]);
}

#[test]
fn a_failed_sync_is_final() {
    let disk = MemDisk::new();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    let fatal = Arc::new(AtomicUsize::new(0));
    let counted = fatal.clone();
    let on_fatal = Box::new(move |_: &Error| {
        counted.fetch_add(1, SeqCst);
    });
    let (handle, mut writer) = Writer::new(log, votes, &recovered, &small(), on_fatal);
    let told = Told::default();
    handle.append(vec![record(1, 1, 10)], told.done(1)).unwrap();
    assert!(writer.step());
    disk.fail_sync_after(0);
    handle.append(vec![record(2, 1, 10)], told.done(2)).unwrap();
    handle.append(vec![record(3, 1, 10)], told.done(3)).unwrap();
    assert!(!writer.step());
    let syncs = disk.syncs();
    assert!(handle.append(vec![record(4, 1, 10)], told.done(4)).is_err());
    assert!(handle.save_vote(Vote::default(), told.done(5)).is_err());
    assert!(!writer.step());
    assert_eq!((told.good(), told.bad()), (vec![1], vec![2, 3, 4, 5]));
    assert_eq!(fatal.load(SeqCst), 1);
    assert_eq!(disk.syncs(), syncs, "nothing is tried again");
    assert_eq!(handle.durable(), Some(1));
    assert!(matches!(handle.wait_durable(3, LONG), Err(Error::Dead(_))));
    assert!(handle.wait_durable(1, LONG).unwrap());
    let (log, _, _) = open(Arc::new(disk.crash(Loss::All)), small()).unwrap();
    assert_eq!(log.last().unwrap().index, 1);
}

#[test]
fn waiters_wake_when_the_thread_dies() {
    let disk = MemDisk::new();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    let (handle, thread) = Writer::spawn(log, votes, &recovered, &small(), Box::new(|_| {})).unwrap();
    let waiter = handle.clone();
    let waiting = std::thread::spawn(move || waiter.wait_written(1, LONG));
    disk.fill_after(Some(0));
    handle.append(vec![record(1, 1, 10)], nothing()).unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Dead(_))));
    thread.join().unwrap();
}

#[test]
fn a_callback_that_panics_ends_the_log_and_leaves_nobody_waiting() {
    let (handle, mut writer) = start(&MemDisk::new());
    let told = Told::default();
    handle.append(vec![record(1, 1, 10)], Box::new(|_| panic!("on purpose"))).unwrap();
    handle.append(vec![record(2, 1, 10)], told.done(2)).unwrap();
    assert!(!writer.step());
    assert_eq!(told.bad(), [2]);
    assert!(matches!(handle.wait_durable(3, LONG), Err(Error::Dead(_))));
}

#[test]
fn a_vote_is_durable_before_entries_of_its_term() {
    let disk = MemDisk::recording();
    let (handle, mut writer) = start(&disk);
    let told = Told::default();
    for term in 1..=5 {
        handle.save_vote(Vote { term, node: Some(1), committed: true }, told.done(term * 10)).unwrap();
        handle.append(vec![record(term, term, 100)], told.done(term * 10 + 1)).unwrap();
    }
    assert_eq!(handle.vote(), None, "not before it is durable");
    writer.step();
    assert_eq!(handle.vote().unwrap().term, 5);
    assert_eq!(told.good(), [10, 11, 20, 21, 30, 31, 40, 41, 50, 51]);
    let mut entries = 0;
    for operations in 0..=disk.operations() {
        for loss in [Loss::All, Loss::Nothing, Loss::Some(operations as u64)] {
            let (log, votes, _) = open(Arc::new(disk.after(operations).crash(loss)), small()).unwrap();
            let voted = votes.current().map_or(0, |v| v.term);
            let term = log.last().map_or(0, |l| l.term);
            assert!(term <= voted, "entry of term {term}, vote of term {voted}");
            assert!(voted <= term + 1, "vote of term {voted} came before the entry queued ahead of it ({term})");
            entries += term;
        }
    }
    assert!(entries > 0);
}

#[test]
fn a_callback_comes_after_the_sync_that_covers_it() {
    let disk = MemDisk::new();
    let (handle, mut writer) = start(&disk);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for i in 1..=30 {
        let (disk, seen) = (disk.clone(), seen.clone());
        let done = Box::new(move |result: std::io::Result<()>| {
            result.unwrap();
            let (log, _, _) = open(Arc::new(disk.crash(Loss::All)), small()).unwrap();
            seen.lock().unwrap().push((i, log.last().map_or(0, |l| l.index)));
        });
        handle.append(vec![record(i, 1, 200)], done).unwrap();
        if i % 3 == 0 {
            writer.step();
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|(i, found)| found >= i), "{seen:?}");
}

#[test]
fn old_entries_leave_memory_and_are_read_from_disk() {
    let disk = MemDisk::new();
    let (handle, mut writer) = start(&disk);
    let records: Vec<Record> = (1..=60).map(|i| record(i, 1 + i / 20, 50)).collect();
    for record in &records {
        handle.append(vec![record.clone()], nothing()).unwrap();
        writer.step();
    }
    assert_eq!(read(&handle), records);
    assert_eq!(handle.read(10..20, usize::MAX).unwrap(), records[9..19]);
    assert_eq!(handle.read(10..60, 120).unwrap(), records[9..11]);
    assert_eq!(handle.read(10..60, 0).unwrap(), records[9..10], "at least one");
    assert_eq!(handle.read(45..60, 250).unwrap(), records[44..49], "over the edge of the cache");
    assert_eq!(handle.term_at(3), Some(1));
    for name in conclave_log::Disk::list(&disk).unwrap() {
        let content = disk.content(&name).unwrap();
        disk.overwrite(&name, vec![0; content.len()]);
    }
    assert_eq!(handle.read(55..61, usize::MAX).unwrap(), records[54..], "from memory");
    assert!(handle.read(1..61, usize::MAX).unwrap_err().is_corrupt());
}

#[test]
fn what_is_not_durable_stays_in_memory_however_much_it_is() {
    let (handle, mut writer) = start(&MemDisk::new());
    let told = Told::default();
    let records: Vec<Record> = (1..=40).map(|i| record(i, 1, 300)).collect();
    handle.append(records[..20].to_vec(), nothing()).unwrap();
    let (reader, expected, inner) = (handle.clone(), records.clone(), told.clone());
    let in_between = Box::new(move |_| inner.done(u64::from(read(&reader) == expected))(Ok(())));
    // Durable before the second half is even written.
    handle.save_vote(Vote::default(), in_between).unwrap();
    handle.append(records[20..].to_vec(), nothing()).unwrap();
    writer.step();
    assert_eq!(told.good(), [1]);
    assert_eq!(read(&handle), records);
}

#[test]
fn a_purge_removes_segments_and_is_remembered() {
    let disk = MemDisk::new();
    let (handle, mut writer) = start(&disk);
    handle.append((1..=200).map(|i| record(i, 3, 60)).collect(), nothing()).unwrap();
    writer.step();
    let before = conclave_log::Disk::list(&disk).unwrap().len();
    let at = Position { index: 150, term: 3 };
    handle.purge_upto(at, nothing()).unwrap();
    writer.step();
    let after = conclave_log::Disk::list(&disk).unwrap().len();
    assert!(after * 2 < before, "{before} files, then {after}");
    assert_eq!((handle.first(), handle.purged(), handle.term_at(150)), (Some(151), Some(at), Some(3)));
    assert_eq!(handle.read(0..153, usize::MAX).unwrap().len(), 2);
    // Beyond the end: a snapshot was installed.
    let beyond = Position { index: 500, term: 4 };
    handle.purge_upto(beyond, nothing()).unwrap();
    assert_eq!((handle.first(), handle.last()), (None, Some(beyond)));
    writer.step();
    drop((handle, writer));
    let (handle, mut writer) = start(&disk.crash(Loss::All));
    assert_eq!((handle.purged(), handle.last(), handle.durable()), (Some(beyond), Some(beyond), Some(500)));
    assert!(handle.append(vec![record(201, 4, 5)], nothing()).is_err());
    handle.append(vec![record(501, 4, 5)], nothing()).unwrap();
    writer.step();
    assert_eq!(handle.first(), Some(501));
}

#[test]
fn the_thread_finishes_what_is_queued_and_ends_with_the_last_handle() {
    let parent = tempfile::tempdir().unwrap();
    let options = Options::default();
    let root = parent.path().join("log");
    let records: Vec<Record> = (0..500).map(|i| record(i, 1, 300)).collect();
    {
        let disk = Arc::new(RealDisk::open(&root).unwrap());
        let (log, votes, recovered) = open(disk, options.clone()).unwrap();
        let (handle, thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
        handle.save_vote(Vote { term: 1, node: Some(2), committed: true }, nothing()).unwrap();
        for batch in records.chunks(7) {
            handle.append(batch.to_vec(), nothing()).unwrap();
        }
        drop(handle);
        thread.join().unwrap();
    }
    let disk = Arc::new(RealDisk::open(&root).unwrap());
    let (log, votes, recovered) = open(disk, options).unwrap();
    assert_eq!((recovered.entries, recovered.torn), (500, None));
    assert_eq!(votes.current(), Some(Vote { term: 1, node: Some(2), committed: true }));
    assert_eq!(log.reader().read(0..500, usize::MAX).unwrap(), records);
}

#[derive(Debug, Clone)]
enum Act {
    Append(u8, u16),
    Truncate(u8),
    Purge(u8),
    Jump(u8),
    Step,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..8_u8, 0..400_u16).prop_map(|(n, l)| Act::Append(n, l)),
        2 => (0..12_u8).prop_map(Act::Truncate),
        1 => (0..12_u8).prop_map(Act::Purge),
        1 => (0..5_u8).prop_map(Act::Jump),
        4 => Just(Act::Step),
        1 => Just(Act::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: Vec<Record>,
    purged: Option<Position>,
}

impl Model {
    fn next(&self) -> u64 {
        self.entries.last().map(|r| r.index).or(self.purged.map(|p| p.index)).map_or(1, |i| i + 1)
    }

    fn last(&self) -> Option<Position> {
        self.entries.last().map(|r| Position { index: r.index, term: r.term }).or(self.purged)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn the_log_agrees_with_a_naive_one(acts in proptest::collection::vec(act(), 1..60)) {
        let disk = MemDisk::new();
        let (mut handle, mut writer) = start(&disk);
        let mut model = Model::default();
        let mut term = 1;
        for act in acts {
            match act {
                Act::Append(count, length) => {
                    let next = model.next();
                    let records: Vec<Record> =
                        (next..next + u64::from(count)).map(|i| record(i, term, usize::from(length))).collect();
                    handle.append(records.clone(), nothing()).unwrap();
                    model.entries.extend(records);
                }
                Act::Truncate(back) => {
                    let keep = model.entries.len().saturating_sub(usize::from(back));
                    let last = model.entries.get(keep).map_or(model.next() - 1, |r| r.index - 1);
                    handle.truncate_after(Some(last), nothing()).unwrap();
                    model.entries.truncate(keep);
                    term += 1;
                }
                Act::Purge(count) => {
                    if let Some(upto) = model.entries.get(usize::from(count)) {
                        let upto = Position { index: upto.index, term: upto.term };
                        handle.purge_upto(upto, nothing()).unwrap();
                        model.entries.retain(|r| r.index > upto.index);
                        model.purged = Some(upto);
                    }
                }
                Act::Jump(by) => {
                    let upto = Position { index: model.next() + u64::from(by), term };
                    handle.purge_upto(upto, nothing()).unwrap();
                    model.entries.clear();
                    model.purged = Some(upto);
                }
                Act::Step => prop_assert!(writer.step()),
                Act::Reopen => {
                    writer.step();
                    drop((handle, writer));
                    (handle, writer) = start(&disk.crash(Loss::Nothing));
                    // The copy is what goes on.
                    prop_assert_eq!(read(&handle), model.entries.clone());
                    drop((handle, writer));
                    (handle, writer) = start(&disk);
                }
            }
            prop_assert_eq!(handle.last(), model.last());
            prop_assert_eq!(handle.purged(), model.purged);
            prop_assert_eq!(handle.first(), model.entries.first().map(|r| r.index));
            prop_assert_eq!(read(&handle), model.entries.clone());
            for record in &model.entries {
                prop_assert_eq!(handle.term_at(record.index), Some(record.term));
            }
        }
    }
}

#[test]
fn what_is_about_to_be_taken_back_is_never_called_committed() {
    let disk = MemDisk::recording();
    let (handle, mut writer) = start(&disk);
    handle.append((1..=6).map(|i| record(i, 1, 20)).collect(), nothing()).unwrap();
    handle.set_committed(3);
    writer.step();
    // One more of the old leader's, then the new leader takes its tail back and writes over it, and a quorum has that:
    // all of it before the log's thread comes to it.
    handle.append(vec![record(7, 1, 20)], nothing()).unwrap();
    handle.truncate_after(Some(3), nothing()).unwrap();
    handle.append((4..=9).map(|i| record(i, 2, 20)).collect(), nothing()).unwrap();
    handle.set_committed(9);
    writer.step();
    handle.append(vec![record(10, 2, 20)], nothing()).unwrap();
    writer.step();
    let mut seen = std::collections::BTreeSet::new();
    for operations in 0..=disk.operations() {
        // As a crash of the process leaves it.
        let Ok((log, _, recovered)) = open(Arc::new(disk.after(operations)), small()) else { continue };
        let Some(committed) = recovered.committed else { continue };
        seen.insert(committed);
        let entries = common::all(&log);
        let called: Vec<(u64, u64)> =
            entries.iter().filter(|entry| entry.index <= committed).map(|entry| (entry.index, entry.term)).collect();
        let real: Vec<(u64, u64)> = (1..=committed).map(|index| (index, if index <= 3 { 1 } else { 2 })).collect();
        assert_eq!(called, real, "after {operations} operations");
    }
    assert!(seen.contains(&3) && seen.contains(&9), "{seen:?}");
}
