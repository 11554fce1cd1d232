//! What an end of the process, of the machine, and another owner do to the tables.

use std::fs;
use std::path::Path;
use std::time::Duration;

use conclave_core::Fault;
use conclave_core::apply::Local;
use conclave_core::digest::Chain;

use super::{CLUSTER, applied, data, flip, open, open_with, options, put, try_open};
use crate::opening::{Judged, judge};
use crate::{Boot, DirLock, Discarded, Error, FORMAT, Opened, Options};

#[test]
fn a_crash_of_the_process_keeps_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 7, &[(b"k", b"v")]);
    let before = writer.local().clone();
    drop((writer, store));
    let Opened { store, writer, discarded, .. } = open(dir.path());
    assert_eq!(discarded, None);
    assert_eq!(*writer.local(), before);
    assert_eq!(data(&store, b"k").unwrap(), "v");
}

#[test]
fn a_crash_of_the_machine_discards_and_a_clean_end_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = try_open(dir.path(), CLUSTER, "monday").unwrap();
    put(&mut first.writer, 7, &[(b"k", b"v")]);
    first.writer.close().unwrap();
    drop(first.store);

    let mut second = try_open(dir.path(), CLUSTER, "tuesday").unwrap();
    assert_eq!(second.discarded, None, "it was synced and closed");
    assert_eq!(applied(second.writer.local()), Some(7));
    put(&mut second.writer, 8, &[(b"k", b"w")]);
    second.store.sync().unwrap();
    drop((second.writer, second.store));

    let third = try_open(dir.path(), CLUSTER, "wednesday").unwrap();
    assert_eq!(third.discarded, Some(Discarded::OtherBoot), "synced once is not closed");
    assert_eq!(*third.writer.local(), Local { chain: Chain::start(CLUSTER), ..Local::default() });
    assert_eq!(data(&third.store, b"k"), None);
}

#[test]
fn a_missing_or_damaged_marker_discards() {
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "clean").unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        put(&mut opened.writer, 1, &[(b"k", b"v")]);
        opened.writer.close().unwrap();
        drop(opened.store);
        damage(&dir.path().join("marker"));
        let opened = open(dir.path());
        assert_eq!(opened.discarded, Some(Discarded::Unmarked));
        assert_eq!(data(&opened.store, b"k"), None);
    }
}

#[test]
fn a_copy_of_open_tables_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    drop((opened.writer, opened.store));
    let path = dir.path().join("env-1").join("data.mdb");
    fs::copy(&path, path.with_extension("copy")).unwrap();
    fs::rename(path.with_extension("copy"), &path).unwrap();
    assert_eq!(open(dir.path()).discarded, Some(Discarded::OtherPlace));
}

#[test]
fn every_damaged_or_cut_marker_discards_and_none_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    opened.writer.close().unwrap();
    drop(opened.store);
    let path = dir.path().join("marker");
    let good = fs::read(&path).unwrap();
    let flipped = (0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..good.len()).map(|at| good[..at].to_vec());
    for bytes in flipped.chain(cut) {
        fs::write(&path, bytes).unwrap();
        let judged = judge(dir.path(), CLUSTER, &Boot::named("boot"), false).unwrap();
        assert_eq!(judged, Judged::Discarded(Discarded::Unmarked));
    }
    fs::write(&path, good).unwrap();
    assert_eq!(open(dir.path()).discarded, None);
}

#[test]
fn a_directory_copied_while_it_is_in_use_is_discarded_and_the_original_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    let copy = tempfile::tempdir().unwrap();
    // With times, owners and modes, as a careless backup does it; the same boot, device and mount.
    let from = format!("{}/.", dir.path().display());
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let theirs = open(copy.path());
    assert_eq!(theirs.discarded, Some(Discarded::OtherPlace));
    assert_eq!(data(&theirs.store, b"k"), None);

    put(&mut opened.writer, 2, &[(b"k", b"w")]);
    drop((opened.writer, opened.store));
    let mine = open(dir.path());
    assert_eq!(mine.discarded, None);
    assert_eq!(data(&mine.store, b"k").unwrap(), "w");
}

#[test]
fn a_closed_directory_can_be_moved_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    opened.writer.close().unwrap();
    drop(opened.store);
    let copy = tempfile::tempdir().unwrap();
    let from = format!("{}/.", dir.path().display());
    assert!(std::process::Command::new("cp").arg("-r").arg(from).arg(copy.path()).status().unwrap().success());
    let theirs = try_open(copy.path(), CLUSTER, "another machine").unwrap();
    assert_eq!(theirs.discarded, None);
    assert_eq!(data(&theirs.store, b"k").unwrap(), "v");
}

#[test]
fn tables_are_also_discarded_before_anything_was_ever_written_to_them() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let opened = try_open(dir.path(), CLUSTER, "other").unwrap();
    assert_eq!((opened.discarded, opened.rebuilt_from), (Some(Discarded::OtherBoot), None));
}

#[test]
fn a_marker_of_another_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.writer.close().unwrap();
    drop(opened.store);
    let path = dir.path().join("marker");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let signed = bytes.len() - 16;
    let check = xxhash_rust::xxh3::xxh3_128(&bytes[..signed]).to_le_bytes();
    bytes[signed..].copy_from_slice(&check);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(try_open(dir.path(), CLUSTER, "boot"), Err(Error::OtherFormat { found: 9, expected: FORMAT })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(dir.path().join("env-1").exists());
}

#[test]
fn other_environments_than_the_markers_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    opened.writer.close().unwrap();
    drop(opened.store);
    fs::create_dir(dir.path().join("env-2")).unwrap();
    fs::write(dir.path().join("env-2").join("data.mdb"), "half").unwrap();
    let opened = open(dir.path());
    assert_eq!(opened.discarded, None);
    assert_eq!(data(&opened.store, b"k").unwrap(), "v");
    assert!(!dir.path().join("env-2").exists());
}

#[test]
fn tables_that_are_gone_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.writer.close().unwrap();
    drop(opened.store);
    fs::remove_dir_all(dir.path().join("env-1")).unwrap();
    assert_eq!(open(dir.path()).discarded, Some(Discarded::Missing));
}

#[test]
fn two_crashes_in_a_row_soon_after_opening_discard() {
    let dir = tempfile::tempdir().unwrap();
    let reopened = || open(dir.path()).discarded;
    let ends = [reopened(), reopened(), reopened(), reopened()];
    assert_eq!(ends, [None, None, Some(Discarded::Crashing), None]);
}

#[test]
fn crashes_long_after_opening_do_not_discard() {
    let dir = tempfile::tempdir().unwrap();
    let at_once = Options { settled_after: Duration::ZERO, ..options("boot") };
    for _ in 0..4 {
        let opened = open_with(&DirLock::acquire(dir.path()).unwrap(), CLUSTER, &at_once).unwrap();
        assert_eq!(opened.discarded, None);
        opened.store.sync().unwrap();
    }
}

#[test]
fn a_close_that_failed_is_not_tried_again_and_counts_as_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 1, &[(b"k", b"v")]);
    // The next marker can't be written while a directory has its name.
    let obstacle = dir.path().join("marker.new");
    fs::create_dir(&obstacle).unwrap();
    let fault = writer.close().unwrap_err();
    assert!(matches!(fault, Fault::Storage(_)));
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(store.sync(), Err(fault));
    drop(store);
    assert_eq!(try_open(dir.path(), CLUSTER, "other").unwrap().discarded, Some(Discarded::OtherBoot));
}

#[test]
fn another_clusters_tables_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    drop((opened.writer, opened.store));
    // In another boot, too: what is not ours is not ours to discard.
    for boot in ["boot", "other"] {
        match try_open(dir.path(), "beef", boot).unwrap_err() {
            Error::OtherCluster { found, expected } => {
                assert_eq!((found.as_str(), expected.as_str()), (CLUSTER, "beef"))
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(data(&open(dir.path()).store, b"k").unwrap(), "v");
}

#[test]
fn tables_of_another_format_or_cluster_are_refused_by_what_they_say_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.writer.close().unwrap();
    drop(opened.store);
    let marker = fs::read(dir.path().join("marker")).unwrap();

    let other = tempfile::tempdir().unwrap();
    let opened = try_open(other.path(), "beef", "boot").unwrap();
    opened.writer.close().unwrap();
    drop(opened.store);
    fs::write(other.path().join("marker"), marker).unwrap();
    assert!(
        matches!(try_open(other.path(), CLUSTER, "boot"), Err(Error::OtherCluster { found, .. }) if found == "beef")
    );

    // In a page of LMDB the value follows its key.
    flip(dir.path(), &[&b"format"[..], &FORMAT.to_be_bytes()].concat(), 9);
    let refused = try_open(dir.path(), CLUSTER, "boot");
    assert!(matches!(refused, Err(Error::OtherFormat { found, expected: FORMAT }) if found == FORMAT ^ 1));
}

#[test]
fn a_second_open_in_the_same_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let opened = open_with(&lock, CLUSTER, &options("boot")).unwrap();
    // Nor does another boot, or a third start in a row, throw away what is open.
    for boot in ["boot", "other", "boot"] {
        assert!(matches!(open_with(&lock, CLUSTER, &options(boot)), Err(Error::Locked { .. })));
    }
    drop(lock);
    assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })), "the tables keep the lock");
    let snapshot = opened.store.snapshot().unwrap();
    drop((opened.store, opened.writer));
    assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })), "so does a reader");
    drop(snapshot);
    DirLock::acquire(dir.path()).unwrap();
}
