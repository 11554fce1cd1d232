//! Making a checkpoint, and what damage to it or to the tables does.

use std::fs;
use std::ops::ControlFlow;

use conclave_core::apply::{Position, Tables};
use conclave_core::{Fault, Table};
use conclave_protocol::Zxid;

use super::{Bench, CLUSTER, Change, flip, go_on, keep};
use crate::{Checkpoint, CheckpointError, Checkpoints, DirLock, Discarded, Error, Options, Step, Store};

#[test]
fn a_checkpoint_says_what_it_holds_and_is_found_again() {
    let bench = Bench::new();
    let made = bench.make();
    assert_eq!(made.position(), Position { term: 1, index: 5 });
    assert_eq!(made.local(), bench.opened.writer.local());
    assert_eq!((made.zxid(), made.time_ms(), made.cluster(), made.rows()), (Zxid(3), 1_000, CLUSTER, 4));
    assert_eq!(bench.shelf(), ["checkpoint-00000000000000000005-1"]);
    assert_eq!(bench.checkpoints.bytes(), made.bytes());
    made.verify(&mut go_on).unwrap();

    let again = Bench::open(bench.close());
    let found = again.checkpoints.newest().unwrap();
    assert_eq!((found.offer(), found.local()), (made.offer(), made.local()));
    assert_eq!(again.opened.rebuilt_from, None, "the tables were believed");
}

#[test]
fn two_checkpoints_of_one_state_are_the_same_bytes() {
    let bench = Bench::new();
    let first = fs::read(bench.make().path()).unwrap();
    assert_eq!(fs::read(bench.make().path()).unwrap(), first);
}

#[test]
fn an_empty_state_has_a_checkpoint_too() {
    let bench = Bench::open(tempfile::tempdir().unwrap());
    let made = bench.make();
    assert_eq!((made.position(), made.rows()), (Position { term: 0, index: 0 }, 0));
    made.verify(&mut go_on).unwrap();
}

#[test]
fn a_newer_one_takes_the_place_of_the_older_which_can_still_be_read() {
    let mut bench = Bench::new();
    let old = bench.make();
    keep(&mut bench.opened.writer, 9, &[(Table::Data, b"k", Some(b"w"))]);
    let new = bench.make();
    assert_eq!(bench.shelf(), ["checkpoint-00000000000000000009-1"]);
    assert_eq!(bench.checkpoints.newest().unwrap().id(), new.id());
    assert_ne!(old.id(), new.id());
    old.verify(&mut go_on).unwrap();
    let mut bytes = vec![0; 8];
    assert_eq!(old.read_at(0, &mut bytes).unwrap(), 8);
    assert_eq!(bytes, b"cncl-cpt");
    assert_eq!(old.read_at(old.bytes(), &mut bytes).unwrap(), 0);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_file_is_refused() {
    let bench = Bench::new();
    let made = bench.make();
    let good = fs::read(made.path()).unwrap();
    let path = bench.dir.path().join("damaged");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match Checkpoint::open(&path).and_then(|opened| opened.verify(&mut go_on)) {
            Ok(()) => false,
            Err(CheckpointError::Damaged { .. } | CheckpointError::OtherFormat { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(!refused(&good));
    let mut flipped = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(refused(&bytes), "byte {at}, bit {bit}");
            flipped += 1;
        }
        assert!(refused(&good[..at]), "cut at {at}");
    }
    assert!(refused(&[&good[..], &[0]].concat()), "a byte after its end");
    assert!(refused(&[&good[..], &good[..]].concat()), "twice");
    assert!(flipped > 1_000, "{flipped}");
}

#[test]
fn a_damaged_row_in_the_tables_fails_the_making_and_leaves_the_older_one() {
    let mut bench = Bench::new();
    let old = bench.make();
    let value = b"a value that stands nowhere else in the file";
    keep(&mut bench.opened.writer, 6, &[(Table::Data, b"victim", Some(value))]);
    let dir = bench.close();
    flip(dir.path(), value, 20);
    let bench = Bench::open(dir);
    let error = bench.checkpoints.make(&bench.opened.store, &mut go_on).unwrap_err();
    assert!(matches!(error, CheckpointError::Tables(Fault::Damaged { table: Table::Data, .. })), "{error}");
    assert_eq!(bench.shelf(), ["checkpoint-00000000000000000005-1"]);
    assert_eq!(bench.checkpoints.newest().unwrap().id(), old.id());
}

#[test]
fn rows_that_do_not_come_to_the_kept_digest_fail_the_making() {
    let mut bench = Bench::new();
    let batch = |tables: &mut dyn Tables| {
        // Each row has its right hash, and one is missing.
        tables.write(Table::Data, b"k", None)?;
        Ok(())
    };
    bench.opened.writer.write(batch, |_| Ok(())).unwrap();
    let error = bench.checkpoints.make(&bench.opened.store, &mut go_on).unwrap_err();
    assert!(matches!(error, CheckpointError::Tables(Fault::Digest { zxid: Zxid(3), .. })), "{error}");
    assert!(bench.shelf().is_empty());
    assert!(bench.checkpoints.newest().is_none());
}

#[test]
fn progress_counts_up_and_can_stop_each_step() {
    let mut bench = Bench::new();
    let large = vec![7; 300_000];
    let keys: Vec<_> = (0..8_u8).map(|at| [at + 1]).collect();
    let rows: Vec<Change<'_>> = keys.iter().map(|key| (Table::Blob, &key[..], Some(&large[..]))).collect();
    keep(&mut bench.opened.writer, 6, &rows);
    let mut seen = Vec::new();
    let made = bench.checkpoints.make(&bench.opened.store, &mut |now| {
        seen.push(now);
        ControlFlow::Continue(())
    });
    let made = made.unwrap();
    for step in [Step::Write, Step::Verify] {
        let steps: Vec<_> = seen.iter().filter(|now| now.step == step).collect();
        assert!(steps.len() >= 8 && steps.windows(2).all(|pair| pair[0].rows < pair[1].rows), "{steps:?}");
        assert!(steps.iter().all(|now| now.total_rows == Some(made.rows())));
        let stopped = bench.checkpoints.make(&bench.opened.store, &mut |now| {
            if now.step == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(CheckpointError::Cancelled)));
        assert_eq!(bench.shelf(), ["checkpoint-00000000000000000006-1"], "nothing is left over");
    }
    assert_eq!(bench.checkpoints.newest().unwrap().id(), made.id());
}

#[test]
fn one_is_made_at_a_time() {
    let bench = Bench::new();
    let mut tried = 0;
    let again = |_| {
        let second = bench.checkpoints.make(&bench.opened.store, &mut go_on);
        assert!(matches!(second, Err(CheckpointError::Busy("made"))));
        tried += 1;
        ControlFlow::Continue(())
    };
    bench.checkpoints.make(&bench.opened.store, &mut { again }).unwrap();
    assert!(tried > 0);
    bench.make();
}

#[test]
fn what_was_being_made_is_cleared_away() {
    let bench = Bench::new();
    bench.make();
    let dir = bench.close();
    let left = dir.path().join("checkpoints").join("checkpoint-00000000000000000007-1.new");
    fs::write(&left, "half").unwrap();
    assert_eq!(Bench::open(dir).shelf(), ["checkpoint-00000000000000000005-1"]);
}

#[test]
fn another_clusters_checkpoint_is_refused_and_left_alone() {
    let bench = Bench::new();
    bench.make();
    let dir = bench.close();
    let lock = DirLock::acquire(dir.path()).unwrap();
    match Checkpoints::open(&lock, "beef").unwrap_err() {
        Error::OtherCluster { found, expected } => assert_eq!((found.as_str(), expected.as_str()), (CLUSTER, "beef")),
        other => panic!("{other}"),
    }
    drop(lock);
    assert!(Bench::open(dir).checkpoints.newest().is_some());
}

#[test]
fn a_checkpoint_under_anothers_name_is_damaged() {
    let bench = Bench::new();
    let path = bench.make().path().to_owned();
    fs::rename(&path, path.with_file_name("checkpoint-00000000000000000006-1")).unwrap();
    let bench = Bench::open(bench.close());
    assert!(bench.checkpoints.newest().is_none());
    assert_eq!(bench.checkpoints.damaged().len(), 1);
    bench.checkpoints.forget_damaged().unwrap();
    assert!(bench.shelf().is_empty() && bench.checkpoints.damaged().is_empty());
}

#[test]
fn discarded_tables_are_built_again_from_the_newest_checkpoint() {
    let mut bench = Bench::new();
    let before = super::content(&bench.opened.store);
    bench.make();
    keep(&mut bench.opened.writer, 6, &[(Table::Data, b"later", Some(b"x"))]);
    let bench = Bench::open_in(bench.crash(), "other boot");
    assert_eq!(bench.opened.discarded, Some(Discarded::OtherBoot));
    assert_eq!(bench.opened.rebuilt_from, Some(Position { term: 1, index: 5 }));
    assert_eq!(super::content(&bench.opened.store), before);
    assert_eq!(*bench.opened.writer.local(), before.0);
    // Believed from now on, as any others.
    let bench = Bench::open_in(bench.crash(), "other boot");
    assert_eq!((bench.opened.discarded, bench.opened.rebuilt_from), (None, None));
}

#[test]
fn tables_are_discarded_when_that_is_asked_for() {
    let bench = Bench::new();
    bench.make();
    let dir = bench.close();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
    let asked = Options { discard: true, ..super::options("boot") };
    let opened = Store::open(&lock, CLUSTER, &checkpoints, &asked).unwrap();
    assert_eq!(opened.discarded, Some(Discarded::Asked));
    assert_eq!(opened.rebuilt_from, Some(Position { term: 1, index: 5 }));
}

#[test]
fn a_checkpoint_without_tables_is_where_they_begin() {
    let bench = Bench::new();
    bench.make();
    let before = super::content(&bench.opened.store);
    let dir = bench.close();
    fs::remove_dir_all(dir.path().join("env-1")).unwrap();
    fs::remove_file(dir.path().join("marker")).unwrap();
    let bench = Bench::open(dir);
    assert_eq!(bench.opened.discarded, Some(Discarded::Missing));
    assert_eq!(super::content(&bench.opened.store), before);
}

#[test]
fn a_damaged_checkpoint_stops_the_start_only_when_it_is_needed() {
    // In its header, its rows, its trailer: found at the opening of the directory, or not before the rows are read.
    for at in [20_i64, 110, -1] {
        let bench = Bench::new();
        let path = bench.make().path().to_owned();
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from(at).unwrap_or(bytes.len() - 1);
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();

        let bench = Bench::open(bench.close());
        assert_eq!(bench.opened.discarded, None, "the tables are good");
        let dir = bench.crash();
        for _ in 0..2 {
            match super::try_open(dir.path(), CLUSTER, "other boot").unwrap_err() {
                Error::DamagedCheckpoint { path: told, .. } => assert_eq!(told, path),
                other => panic!("{other}"),
            }
        }
        let lock = DirLock::acquire(dir.path()).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        if let Some(newest) = checkpoints.newest() {
            checkpoints.forget(&newest).unwrap();
        }
        checkpoints.forget_damaged().unwrap();
        let opened = Store::open(&lock, CLUSTER, &checkpoints, &super::options("other boot")).unwrap();
        assert!(opened.discarded.is_some());
        assert_eq!(opened.writer.local().applied, None, "it begins empty");
    }
}
