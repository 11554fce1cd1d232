//! Full and failing disks: the log waits for room, loses nothing, and goes on; anything else is final.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{Told, all, eventually, nothing, record, small};
use conclave_log::{
    Act, Disk, Error, Fault, Handle, Loss, MemDisk, Options, Position, Record, Vote, Writer, check, open,
};

fn start(disk: &MemDisk, options: &Options) -> (Handle, Writer, Arc<AtomicUsize>) {
    let (log, votes, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let fatal = Arc::new(AtomicUsize::new(0));
    let counted = fatal.clone();
    let on_fatal = Box::new(move |_: &Error| {
        counted.fetch_add(1, SeqCst);
    });
    let (handle, writer) = Writer::new(log, votes, &recovered, options, on_fatal);
    (handle, writer, fatal)
}

fn full(handle: &Handle) -> bool {
    handle.stats().full.load(SeqCst)
}

fn read(handle: &Handle) -> Vec<Record> {
    handle.read(0..u64::MAX, usize::MAX).unwrap()
}

/// All that a crash of the machine leaves.
fn after_a_crash(disk: &MemDisk) -> Vec<Record> {
    all(&open(Arc::new(disk.crash(Loss::All)), small()).unwrap().0)
}

#[test]
fn a_log_that_meets_a_full_disk_waits_and_goes_on_when_there_is_room() {
    // Every amount of free space: it ends while zeros are filled ahead, in a new segment, in a growing tail.
    for free in (0..9000).step_by(77) {
        let disk = MemDisk::new();
        let (handle, mut writer, fatal) = start(&disk, &small());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        handle.on_full(Box::new(move || {
            counted.fetch_add(1, SeqCst);
        }));
        disk.limit(Some(disk.used() + free));
        let records: Vec<Record> = (1..=60).map(|i| record(i, 1, (i * 37 % 400) as usize)).collect();
        let told = Told::default();
        for batch in records.chunks(4) {
            handle.append(batch.to_vec(), told.done(batch[batch.len() - 1].index)).unwrap();
            assert!(writer.step(), "{free} bytes free");
        }
        assert!(full(&handle), "{free} bytes free are not few enough for this test");
        let done = told.good().last().copied().unwrap_or(0);
        assert_eq!(handle.durable().unwrap_or(0), done, "only what was told is durable");
        assert!(after_a_crash(&disk).len() >= done as usize);
        assert_eq!(read(&handle), records, "what waits can be read");
        assert!(!Disk::list(&disk).unwrap().contains(&"next.tmp".to_owned()), "a half-made file takes room");
        assert_eq!((asked.load(SeqCst), told.bad(), handle.stats().busy_for()), (1, vec![], None));
        for _ in 0..3 {
            assert!(writer.step());
        }
        assert_eq!((told.good().last().copied().unwrap_or(0), asked.load(SeqCst)), (done, 1), "nothing is told");

        disk.limit(None);
        assert!(writer.step() && !full(&handle));
        assert_eq!(told.good(), (1..=15).map(|i| i * 4).collect::<Vec<_>>(), "{free} bytes free");
        assert_eq!(after_a_crash(&disk), records, "{free} bytes free");
        assert_eq!(fatal.load(SeqCst), 0);

        // It can happen again.
        disk.limit(Some(disk.used()));
        handle.append((61..=100).map(|i| record(i, 1, 200)).collect(), told.done(100)).unwrap();
        assert!(writer.step() && full(&handle) && asked.load(SeqCst) == 2);
        disk.limit(None);
        assert!(writer.step() && !full(&handle) && handle.durable() == Some(100));
    }
}

#[test]
fn a_reserve_that_is_given_up_is_used_at_once() {
    let disk = MemDisk::new();
    disk.overwrite("reserve", vec![0; 40_000]);
    let (handle, mut writer, _) = start(&disk, &small());
    disk.limit(Some(disk.used()));
    let reserve = disk.clone();
    handle.on_full(Box::new(move || reserve.lose("reserve")));
    handle.append((1..=40).map(|i| record(i, 1, 300)).collect(), nothing()).unwrap();
    assert!(writer.step());
    assert!(!full(&handle) && handle.durable() == Some(40));
    assert!(disk.content("reserve").is_none());
}

#[test]
fn a_crash_while_the_disk_is_full_loses_nothing_and_the_log_opens_without_room() {
    for free in (0..6000).step_by(131) {
        let disk = MemDisk::recording();
        let (handle, mut writer, _) = start(&disk, &small());
        disk.limit(Some(disk.used() + free));
        let records: Vec<Record> = (1..=40).map(|i| record(i, 1, (i * 53 % 500) as usize)).collect();
        for record in &records {
            handle.append(vec![record.clone()], nothing()).unwrap();
            writer.step();
        }
        assert!(full(&handle));
        let told = handle.durable().unwrap_or(0) as usize;
        for loss in [Loss::All, Loss::Nothing, Loss::Some(free), Loss::Some(!free)] {
            let crashed = disk.crash(loss);
            crashed.limit(Some(crashed.used()));
            let (log, _, _) = open(Arc::new(crashed.clone()), small()).unwrap();
            let got = all(&log);
            assert!(got.len() >= told && records.starts_with(&got), "{} entries, {told} were told", got.len());
            drop(log);
            assert_eq!(check(&crashed).unwrap().entries, got.len() as u64);
        }
    }
}

#[test]
fn a_purge_overtakes_what_waits_for_room_and_makes_it() {
    for free in (0..4000).step_by(59) {
        let disk = MemDisk::new();
        let (handle, mut writer, fatal) = start(&disk, &small());
        let records: Vec<Record> = (1..=200).map(|i| record(i, 1, 120)).collect();
        handle.append(records[..100].to_vec(), nothing()).unwrap();
        writer.step();
        disk.limit(Some(disk.used() + free));
        let told = Told::default();
        for record in &records[100..] {
            handle.append(vec![record.clone()], told.done(record.index)).unwrap();
        }
        assert!(writer.step() && full(&handle));
        let before = told.good().len();
        handle.purge_upto(Position { index: 90, term: 1 }, told.done(0)).unwrap();
        assert!(writer.step());
        assert!(told.good().contains(&0) && told.good().len() > before + 1, "{free}: {before} and no more");
        assert_eq!(fatal.load(SeqCst), 0);
        assert_eq!(read(&handle), records[90..]);
        disk.limit(None);
        assert!(writer.step());
        assert_eq!(handle.durable(), Some(200));
        assert_eq!(after_a_crash(&disk), records[90..]);
    }
}

#[test]
fn a_purge_of_entries_behind_a_truncation_keeps_its_place() {
    let disk = MemDisk::new();
    let (handle, mut writer, fatal) = start(&disk, &small());
    handle.append((1..=10).map(|i| record(i, 1, 20)).collect(), nothing()).unwrap();
    writer.step();
    disk.limit(Some(disk.used()));
    handle.append((11..=40).map(|i| record(i, 1, 200)).collect(), nothing()).unwrap();
    handle.truncate_after(Some(4), nothing()).unwrap();
    handle.append((5..=9).map(|i| record(i, 2, 20)).collect(), nothing()).unwrap();
    handle.purge_upto(Position { index: 8, term: 2 }, nothing()).unwrap();
    assert!(writer.step() && full(&handle));
    disk.limit(None);
    assert!(writer.step() && !full(&handle));
    assert_eq!(fatal.load(SeqCst), 0);
    assert_eq!(read(&handle), [record(9, 2, 20)]);
    assert_eq!(after_a_crash(&disk), [record(9, 2, 20)]);
}

#[test]
fn a_vote_is_saved_on_a_full_disk() {
    let disk = MemDisk::new();
    let (handle, mut writer, _) = start(&disk, &small());
    disk.limit(Some(0));
    for term in 1..50 {
        let vote = Vote { term, node: Some(u64::MAX), committed: true };
        let told = Told::default();
        handle.save_vote(vote, told.done(1)).unwrap();
        assert!(writer.step() && !full(&handle));
        assert_eq!((told.good(), handle.vote()), (vec![1], Some(vote)));
        let (_, votes, _) = open(Arc::new(disk.crash(Loss::All)), small()).unwrap();
        assert_eq!(votes.current(), Some(vote));
    }
}

#[test]
fn a_log_that_waits_for_room_can_be_closed() {
    let disk = MemDisk::new();
    let options = small();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let on_fatal = Box::new(|fault: &Error| panic!("a full disk is no fault: {fault}"));
    let (handle, thread) = Writer::spawn(log, votes, &recovered, &options, on_fatal).unwrap();
    disk.limit(Some(0));
    let told = Told::default();
    handle.append((1..=40).map(|i| record(i, 1, 200)).collect(), told.done(1)).unwrap();
    handle.barrier(told.done(2)).unwrap();
    assert!(eventually(|| full(&handle)));
    drop(handle);
    thread.join().unwrap();
    assert_eq!((told.good(), told.bad()), (vec![], vec![1, 2]), "nobody is left waiting");
}

#[test]
fn the_thread_goes_on_by_itself_when_there_is_room() {
    let disk = MemDisk::new();
    let options = small();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let (handle, thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
    disk.limit(Some(0));
    let told = Told::default();
    handle.append((1..=40).map(|i| record(i, 1, 200)).collect(), told.done(1)).unwrap();
    assert!(eventually(|| full(&handle)));
    assert_eq!(told.good(), []);
    disk.limit(None);
    assert!(eventually(|| told.good() == [1]));
    assert!(!full(&handle) && handle.durable() == Some(40));
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn a_long_stall_can_be_seen_from_outside() {
    let disk = MemDisk::new();
    let options = small();
    let (log, votes, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let (handle, thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
    assert_eq!(handle.stats().busy_for(), None);
    disk.stall();
    let told = Told::default();
    handle.append(vec![record(1, 1, 10)], told.done(1)).unwrap();
    assert!(eventually(|| handle.stats().busy_for().is_some_and(|long| long.as_millis() > 20)));
    assert!(told.good().is_empty());
    disk.release();
    assert!(eventually(|| told.good() == [1] && handle.stats().busy_for().is_none()));
    assert!(handle.stats().sync_quantile_us(0.5).unwrap() > 10_000);
    drop(handle);
    thread.join().unwrap();
}

/// Whatever act fails in whatever way, at whatever moment: all that was told is there after a crash, what failed is
/// told as failed, the log never tries again, and only want of room for growing is no fault.
#[test]
fn any_act_of_the_disk_may_fail_and_what_was_told_stays() {
    let acts = [Act::Create, Act::Rename, Act::Remove, Act::SyncDir, Act::Write, Act::Sync];
    let (mut faults, mut waits) = (0, 0);
    for (act, fault) in acts.into_iter().flat_map(|act| [(act, Fault::Broken), (act, Fault::Full)]) {
        for successes in 0.. {
            let disk = MemDisk::new();
            let (handle, mut writer, fatal) = start(&disk, &small());
            let told = Told::default();
            disk.fail(act, successes, fault);
            let mut waited = false;
            for i in 1..=40 {
                let _ = handle.append(vec![record(i, 1, 150)], told.done(i));
                if i % 10 == 0 {
                    let _ = handle.save_vote(Vote { term: i, node: None, committed: false }, nothing());
                    let _ = handle.purge_upto(Position { index: i - 6, term: 1 }, nothing());
                }
                writer.step();
                waited |= full(&handle);
            }
            let (good, bad) = (told.good(), told.bad());
            let what = format!("{act:?} {fault:?} after {successes}");
            let crashed = disk.crash(Loss::All);
            let (log, votes, _) = open(Arc::new(crashed), small()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let last = log.last().map_or(0, |l| l.index);
            assert!(last >= good.last().copied().unwrap_or(0), "{what}: {good:?}, and {last} is the last");
            assert!(votes.current().map(|v| v.term) >= handle.vote().map(|v| v.term), "{what}");
            assert_eq!(good.len() + bad.len(), 40, "{what}");
            if disk.armed() {
                assert_eq!((bad.len(), fatal.load(SeqCst)), (0, 0), "{what}");
                assert!(successes > 2, "{act:?} was hardly called");
                break;
            }
            let ended = fatal.load(SeqCst) == 1;
            assert!(ended || bad.is_empty(), "{what}: {bad:?}");
            assert_eq!(good.iter().chain(&bad).copied().collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>(), "{what}");
            faults += usize::from(ended);
            waits += usize::from(!ended);
            // Only want of room for growing is no fault.
            let grows = fault == Fault::Full && matches!(act, Act::Create | Act::Rename | Act::Write);
            assert!(ended || grows, "{what} was passed over");
            assert!(!ended || !grows || act == Act::Write, "{what} ended the log");
            assert!(!waited, "{what}: it is tried again at once");
        }
    }
    println!("single faults: {faults} ended the log, {waits} were waited out");
    assert!(faults > 100 && waits > 15, "{faults} {waits}");
}
