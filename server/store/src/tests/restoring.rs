//! Restoring a backup as another cluster.

use std::fs;
use std::ops::ControlFlow;

use bytes::Bytes;
use conclave_core::apply::Position;
use conclave_core::digest::Chain;
use conclave_protocol::Zxid;

use super::{Bench, content, go_on, names, options};
use crate::{CheckpointError, Checkpoints, DirLock, Error, Store, restore};

const AT: Position = Position { term: 0, index: 5 };
const MEMBERS: Bytes = Bytes::from_static(b"only me");

#[test]
fn a_backup_becomes_a_cluster_of_its_own() {
    let from = Bench::new();
    let backup = from.make();
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let restored = restore(&lock, backup.path(), "new", AT, MEMBERS, &mut go_on).unwrap().finish().unwrap();
    assert_eq!((restored.digest.0, restored.zxid, restored.rows), (backup.local().digest, Zxid(3), 4));

    let checkpoints = Checkpoints::open(&lock, "new").unwrap();
    // Closed: another boot finds it good.
    let opened = Store::open(&lock, "new", &checkpoints, &options("other boot")).unwrap();
    assert_eq!((opened.discarded, opened.rebuilt_from), (None, None));
    let (local, rows) = content(&opened.store);
    assert_eq!(rows, content(&from.opened.store).1);
    assert_eq!((local.applied, &local.membership, local.digest), (Some(AT), &MEMBERS, backup.local().digest));
    assert!(![backup.local().chain, Chain::start("new"), Chain::start(super::CLUSTER)].contains(&local.chain));
    let made = checkpoints.newest().unwrap();
    assert_eq!((made.position(), made.local(), made.cluster()), (AT, &local, "new"));
    made.verify(&mut go_on).unwrap();
}

#[test]
fn a_directory_that_holds_anything_of_a_member_is_refused() {
    let from = Bench::new();
    let backup = from.make();
    for (name, inside) in [("marker", None), ("env-1", Some("data.mdb")), ("log", Some("log-1"))] {
        let dir = tempfile::tempdir().unwrap();
        match inside {
            None => fs::write(dir.path().join(name), "x").unwrap(),
            Some(file) => {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join(file), "x").unwrap();
            }
        }
        let lock = DirLock::acquire(dir.path()).unwrap();
        let refused = restore(&lock, backup.path(), "new", AT, MEMBERS, &mut go_on);
        assert!(matches!(refused, Err(Error::NotEmpty { found, .. }) if found == name));
        let mut expected = ["lock", name];
        expected.sort_unstable();
        assert_eq!(names(dir.path()), expected, "nothing was written");
    }
}

#[test]
fn a_damaged_backup_writes_nothing() {
    let from = Bench::new();
    let good = fs::read(from.make().path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    for at in [0, 30, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(file.path(), bytes).unwrap();
        let refused = restore(&lock, file.path(), "new", AT, MEMBERS, &mut go_on);
        assert!(matches!(refused, Err(Error::DamagedCheckpoint { .. })), "{at}: {refused:?}");
    }
    let missing = restore(&lock, &dir.path().join("none"), "new", AT, MEMBERS, &mut go_on);
    assert!(matches!(missing, Err(Error::Io { .. })));
    assert_eq!(names(dir.path()), ["lock"]);
}

#[test]
fn an_interrupted_restore_is_not_taken_for_a_member_and_can_be_repeated() {
    let from = Bench::new();
    let backup = from.make();
    // In each of: verifying the backup, loading, writing the checkpoint's file, reading it back.
    for stop_at in 1..=5 {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let mut calls = 0;
        let stopped = restore(&lock, backup.path(), "new", AT, MEMBERS, &mut |_| {
            calls += 1;
            if calls == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if stopped.is_ok() {
            assert!(calls < stop_at && stop_at > 3, "{calls} calls");
            continue;
        }
        assert!(matches!(stopped, Err(Error::Checkpoint(CheckpointError::Cancelled))));
        if stop_at > 1 {
            let checkpoints = Checkpoints::open(&lock, "new").unwrap();
            let opened = Store::open(&lock, "new", &checkpoints, &options("boot"));
            assert!(matches!(opened, Err(Error::HalfRestored { .. })), "{stop_at}");
        }
        restore(&lock, backup.path(), "new", AT, MEMBERS, &mut go_on).unwrap().finish().unwrap();
        let checkpoints = Checkpoints::open(&lock, "new").unwrap();
        let opened = Store::open(&lock, "new", &checkpoints, &options("boot")).unwrap();
        assert_eq!(content(&opened.store).1, content(&from.opened.store).1);
    }
}

#[test]
fn a_restore_that_was_not_finished_is_refused_by_every_open_and_begun_anew_with_its_log() {
    let from = Bench::new();
    let backup = from.make();
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    drop(restore(&lock, backup.path(), "first", AT, MEMBERS, &mut go_on).unwrap());
    // The crash came while the log was being begun.
    let log = dir.path().join("log");
    fs::create_dir_all(log.join("deeper")).unwrap();
    fs::write(log.join("segment"), "half").unwrap();
    let refused = |cluster| {
        let checkpoints = Checkpoints::open(&lock, cluster).unwrap();
        let opened = Store::open(&lock, cluster, &checkpoints, &options("boot"));
        assert!(matches!(opened, Err(Error::HalfRestored { .. })), "{opened:?}");
    };
    refused("first");

    // Another backup's cluster, at another position.
    let at = Position { term: 0, index: 3 };
    let restoring = restore(&lock, backup.path(), "new", at, MEMBERS, &mut go_on).unwrap();
    assert!(names(&log).is_empty(), "the log that was half begun is gone");
    refused("new");
    restoring.finish().unwrap();
    let checkpoints = Checkpoints::open(&lock, "new").unwrap();
    let opened = Store::open(&lock, "new", &checkpoints, &options("boot")).unwrap();
    assert_eq!(content(&opened.store).0.applied, Some(at));
}
