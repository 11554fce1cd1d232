//! Putting a checkpoint's tables in the place of those that are read, with readers, crashes and damage.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use conclave_core::Table;
use conclave_core::apply::Position;
use conclave_core::view::Base;

use super::{Bench, content, data, environments, go_on, keep};
use crate::install::Point;
use crate::{Checkpoint, CheckpointError, Step};

/// A member that is behind: `b"k"` is `b"old"` at index 2.
fn behind() -> Bench {
    let mut bench = Bench::open(tempfile::tempdir().unwrap());
    keep(&mut bench.opened.writer, 2, &[(Table::Data, b"k", Some(b"old")), (Table::Data, b"mine", Some(b"x"))]);
    bench
}

/// Sends what one member has to another.
fn send(from: &Checkpoint, to: &Bench) -> Checkpoint {
    let mut incoming = to.checkpoints.receive(&from.offer()).unwrap();
    incoming.write(&fs::read(from.path()).unwrap()).unwrap();
    incoming.finish(&mut go_on).unwrap()
}

#[test]
fn readers_of_the_old_tables_drain_while_new_ones_read_the_new() {
    let ahead = Bench::new();
    let mut mine = behind();
    let checkpoint = send(&ahead.make(), &mine);
    let old = mine.opened.store.snapshot().unwrap();
    let clone = mine.opened.store.clone();
    mine.opened.writer.install(&checkpoint, &mut go_on).unwrap();

    assert_eq!(content(&clone), content(&ahead.opened.store));
    assert_eq!(mine.opened.writer.local(), checkpoint.local());
    assert_eq!(clone.environment(), 2);
    assert_eq!(old.row(Table::Data, b"k").unwrap().unwrap(), "old");
    assert_eq!(environments(mine.dir.path()), ["env-1", "env-2"]);
    let readers = clone.readers();
    assert_eq!((readers.open, readers.commits_behind), (1, 1), "the swap counts as a commit");
    let with_old = clone.disk_bytes().unwrap();

    keep(&mut mine.opened.writer, 6, &[(Table::Data, b"k", Some(b"new"))]);
    assert_eq!(data(&clone, b"k").unwrap(), "new");
    assert_eq!(old.row(Table::Data, b"k").unwrap().unwrap(), "old");
    assert_eq!(clone.readers().commits_behind, 2);
    drop(old);
    assert_eq!(environments(mine.dir.path()), ["env-2"]);
    assert_eq!(clone.readers().open, 0);
    assert!(clone.disk_bytes().unwrap() < with_old);

    drop(clone);
    let mine = Bench::open(mine.crash());
    assert_eq!((mine.opened.discarded, mine.opened.store.environment()), (None, 2));
    assert_eq!(data(&mine.opened.store, b"k").unwrap(), "new");
}

#[test]
fn installs_follow_one_another_while_readers_of_each_drain() {
    let mut ahead = Bench::new();
    let mut mine = behind();
    let mut held = vec![mine.opened.store.snapshot().unwrap()];
    for (round, value) in [(6_u64, b"6"), (7, b"7"), (8, b"8")] {
        keep(&mut ahead.opened.writer, round, &[(Table::Data, b"k", Some(value))]);
        let checkpoint = send(&ahead.make(), &mine);
        mine.opened.writer.install(&checkpoint, &mut go_on).unwrap();
        held.push(mine.opened.store.snapshot().unwrap());
    }
    assert_eq!(environments(mine.dir.path()), ["env-1", "env-2", "env-3", "env-4"]);
    let values: Vec<_> = held.iter().map(|held| held.row(Table::Data, b"k").unwrap().unwrap()).collect();
    assert_eq!(values, ["old", "6", "7", "8"]);
    assert_eq!(mine.opened.store.readers().open, 4);
    drop(held);
    assert_eq!(environments(mine.dir.path()), ["env-4"]);
    let dir = mine.close();
    assert_eq!(Bench::open(dir).opened.store.environment(), 4);
}

#[test]
fn no_reader_sees_a_mix_while_tables_are_swapped_under_it() {
    let mut ahead = Bench::new();
    let mut mine = behind();
    let store = mine.opened.store.clone();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let read = || {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Acquire) {
                let snapshot = store.snapshot().unwrap();
                let row = snapshot.row(Table::Data, b"index").unwrap();
                let applied = snapshot.local().unwrap().applied.unwrap().index;
                assert_eq!(row.map_or(2, |row| u64::from_be_bytes(row[..].try_into().unwrap())), applied);
                assert_eq!(snapshot.scrub().unwrap().0, snapshot.local().unwrap().digest);
                store.sync().unwrap();
                let _ = (store.readers(), store.environment(), store.disk_bytes().unwrap());
                seen.insert(applied);
            }
            seen
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for index in 10..20_u64 {
            keep(&mut ahead.opened.writer, index, &[(Table::Data, b"index", Some(&index.to_be_bytes()))]);
            let checkpoint = send(&ahead.make(), &mine);
            mine.opened.writer.install(&checkpoint, &mut go_on).unwrap();
        }
        done.store(true, Ordering::Release);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(seen.iter().all(|seen| !seen.is_empty()));
    assert_eq!(environments(mine.dir.path()), ["env-11"]);
}

#[test]
fn one_that_was_received_while_an_older_one_was_being_made_stays() {
    let ahead = Bench::new();
    let newer = ahead.make();
    let mut mine = behind();
    // Two blocks: the first is told of while the old tables are read.
    let large = vec![7; 300_000];
    keep(&mut mine.opened.writer, 3, &[(Table::Blob, b"a", Some(&large)), (Table::Blob, b"b", Some(&large))]);
    let Bench { opened, checkpoints, dir } = &mut mine;
    let (store, writer) = (opened.store.clone(), &mut opened.writer);
    let mut installed_at = None;
    let made = checkpoints.make(&store, &mut |now| {
        if installed_at.is_none() {
            let mut incoming = checkpoints.receive(&newer.offer()).unwrap();
            incoming.write(&fs::read(newer.path()).unwrap()).unwrap();
            writer.install(&incoming.finish(&mut go_on).unwrap(), &mut go_on).unwrap();
            installed_at = Some((now.step, environments(dir.path()).len()));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(installed_at, Some((Step::Write, 2)), "the old tables were still being read");
    // The log may be purged up to the newer one by now.
    assert_eq!(made.unwrap().id(), newer.id());
    assert_eq!(checkpoints.newest().unwrap().id(), newer.id());
    assert_eq!(environments(dir.path()), ["env-2"]);
    assert_eq!(mine.shelf(), ["checkpoint-00000000000000000005-1"]);
}

#[test]
fn an_interrupted_install_ends_with_the_old_or_the_new_never_a_mix() {
    let ahead = Bench::new();
    let sent = ahead.make();
    let cases = [
        (None, false),
        (Some(Point::Loaded), false),
        (Some(Point::Durable), false),
        (Some(Point::Marked), true),
        (Some(Point::Swapped), true),
    ];
    for (point, is_new) in cases {
        let mut mine = behind();
        let before = content(&mine.opened.store);
        let checkpoint = send(&sent, &mine);
        let crashed = catch_unwind(AssertUnwindSafe(|| {
            let mut progress = |_| if point.is_none() { panic!("crash") } else { ControlFlow::Continue(()) };
            let mut reached = |at| assert_ne!(Some(at), point, "crash");
            mine.opened.writer.install_in_steps(&checkpoint, &mut progress, &mut reached)
        }));
        assert!(crashed.is_err(), "{point:?}");
        let mine = Bench::open(mine.crash());
        let expected = if is_new { content(&ahead.opened.store) } else { before };
        assert_eq!(content(&mine.opened.store), expected, "{point:?}");
        assert_eq!(mine.opened.discarded, None, "{point:?}");
        let kept = if is_new { "env-2" } else { "env-1" };
        assert_eq!(environments(mine.dir.path()), [kept], "{point:?}");
        assert_eq!(mine.checkpoints.newest().unwrap().id(), sent.id());

        // And once more, to its end.
        let mut mine = mine;
        mine.opened.writer.install(&checkpoint, &mut go_on).unwrap();
        assert_eq!(content(&mine.opened.store), content(&ahead.opened.store));
    }
}

#[test]
fn a_crash_of_the_machine_after_the_marker_was_written_finds_the_checkpoint() {
    let ahead = Bench::new();
    let mut mine = behind();
    let checkpoint = send(&ahead.make(), &mine);
    mine.opened.writer.install(&checkpoint, &mut go_on).unwrap();
    let mine = Bench::open_in(mine.crash(), "other boot");
    assert_eq!(mine.opened.rebuilt_from, Some(Position { term: 1, index: 5 }));
    assert_eq!(content(&mine.opened.store), content(&ahead.opened.store));
}

#[test]
fn an_install_that_fails_changes_nothing() {
    let ahead = Bench::new();
    let mut mine = behind();
    let before = content(&mine.opened.store);
    let checkpoint = send(&ahead.make(), &mine);
    let stopped = mine.opened.writer.install(&checkpoint, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(CheckpointError::Cancelled)));
    assert_eq!(environments(mine.dir.path()), ["env-1"]);

    // Damaged since it was received.
    let mut bytes = fs::read(checkpoint.path()).unwrap();
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    fs::write(checkpoint.path(), bytes).unwrap();
    let damaged = mine.opened.writer.install(&checkpoint, &mut go_on);
    assert!(matches!(damaged, Err(CheckpointError::Damaged { .. })), "{damaged:?}");

    assert_eq!(environments(mine.dir.path()), ["env-1"]);
    assert_eq!(content(&mine.opened.store), before);
    keep(&mut mine.opened.writer, 3, &[(Table::Data, b"k", Some(b"on"))]);
    assert_eq!(data(&mine.opened.store, b"k").unwrap(), "on", "the old tables go on");
}

#[test]
fn a_marker_that_can_not_be_replaced_stops_the_member() {
    let ahead = Bench::new();
    let mut mine = behind();
    let checkpoint = send(&ahead.make(), &mine);
    fs::create_dir(mine.dir.path().join("marker.new")).unwrap();
    let failed = mine.opened.writer.install(&checkpoint, &mut go_on);
    assert!(matches!(failed, Err(CheckpointError::Fault(_))), "{failed:?}");
    assert!(mine.opened.store.sync().is_err());
    assert_eq!(mine.opened.store.environment(), 1);
}

#[test]
fn another_clusters_checkpoint_is_not_installed() {
    let ahead = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let mut other = super::try_open(dir.path(), "beef", "boot").unwrap();
    let refused = other.writer.install(&ahead.make(), &mut go_on);
    assert!(matches!(refused, Err(CheckpointError::OtherCluster { .. })));
    assert_eq!(environments(dir.path()), ["env-1"]);
}
