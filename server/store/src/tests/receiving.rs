//! Receiving a checkpoint: in pieces, broken off, of another one, damaged on the way.

use std::fs;

use conclave_core::Table;
use conclave_core::apply::Position;

use super::{Bench, CLUSTER, go_on, keep};
use crate::{Checkpoint, CheckpointError, Checkpoints, DirLock, Incoming, Offer};

fn bytes_of(checkpoint: &Checkpoint) -> Vec<u8> {
    fs::read(checkpoint.path()).unwrap()
}

/// Some member's, at index 9.
fn theirs() -> (Bench, Checkpoint) {
    let mut bench = Bench::new();
    keep(&mut bench.opened.writer, 9, &[(Table::Data, b"theirs", Some(b"x"))]);
    let made = bench.make();
    (bench, made)
}

/// All of a checkpoint, received.
fn received(by: &Checkpoints, sent: &Checkpoint) -> Incoming {
    let mut incoming = by.receive(&sent.offer()).unwrap();
    incoming.write(&bytes_of(sent)[usize::try_from(incoming.offset()).unwrap()..]).unwrap();
    incoming
}

#[test]
fn what_another_member_sends_becomes_the_newest() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    mine.make();
    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    for piece in bytes_of(&sent).chunks(17) {
        incoming.write(piece).unwrap();
    }
    assert!(mine.checkpoints.bytes() > sent.bytes(), "both are there");
    let received = incoming.finish(&mut go_on).unwrap();
    assert_eq!(received.offer(), sent.offer());
    assert_eq!(mine.checkpoints.newest().unwrap().id(), sent.id());
    assert_eq!(mine.shelf(), ["checkpoint-00000000000000000009-1"]);
    assert_eq!(bytes_of(&received), bytes_of(&sent));
}

#[test]
fn a_broken_connection_or_a_restart_costs_nothing_that_came() {
    let (_kept, sent) = theirs();
    let bytes = bytes_of(&sent);
    let (first, second) = (bytes.len() / 3, bytes.len() / 2);
    let mine = Bench::new();
    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    incoming.write(&bytes[..first]).unwrap();
    assert!(matches!(mine.checkpoints.receive(&sent.offer()), Err(CheckpointError::Busy("received"))));
    drop(incoming);

    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    assert_eq!(incoming.offset(), first as u64);
    incoming.write(&bytes[first..second]).unwrap();
    drop(incoming);
    let mine = Bench::open(mine.crash());
    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    assert_eq!(incoming.offset(), second as u64);
    incoming.write(&bytes[second..]).unwrap();
    assert_eq!(incoming.finish(&mut go_on).unwrap().id(), sent.id());
}

#[test]
fn what_came_of_another_one_is_replaced() {
    let (mut theirs, first) = theirs();
    let mine = Bench::new();
    mine.checkpoints.receive(&first.offer()).unwrap().write(&bytes_of(&first)[..50]).unwrap();
    // The same position, and another id: a member that was restored, or lies.
    keep(&mut theirs.opened.writer, 9, &[(Table::Data, b"theirs", Some(b"y"))]);
    let second = theirs.make();
    assert_eq!(first.position(), second.position());
    let incoming = mine.checkpoints.receive(&second.offer()).unwrap();
    assert_eq!(incoming.offset(), 0);
    let parts = mine.shelf().into_iter().filter(|name| name.ends_with(".part")).count();
    assert_eq!(parts, 1);
}

#[test]
fn more_than_was_offered_is_refused_and_less_does_not_count() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    let bytes = bytes_of(&sent);
    assert!(matches!(incoming.write(&[&bytes[..], &[0]].concat()), Err(CheckpointError::Damaged { .. })));
    assert_eq!(incoming.offset(), 0);
    incoming.write(&bytes[..50]).unwrap();
    assert!(matches!(incoming.finish(&mut go_on), Err(CheckpointError::Damaged { .. })));
    assert_eq!(mine.checkpoints.receive(&sent.offer()).unwrap().offset(), 50, "it goes on from there");
    // A length that another file of that name never had.
    let less = Offer { bytes: 40, ..sent.offer() };
    assert_eq!(mine.checkpoints.receive(&less).unwrap().offset(), 0);
}

#[test]
fn damage_on_the_way_is_found_and_the_older_one_stays() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let old = mine.make();
    let good = bytes_of(&sent);
    for at in (0..good.len()).step_by(9) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
        assert_eq!(incoming.offset(), 0, "the damaged one was removed");
        incoming.write(&bytes).unwrap();
        let error = incoming.finish(&mut go_on).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Damaged { .. } | CheckpointError::OtherFormat { .. }),
            "byte {at}: {error}"
        );
    }
    assert_eq!(mine.checkpoints.newest().unwrap().id(), old.id());
    assert_eq!(mine.shelf(), ["checkpoint-00000000000000000005-1"]);
}

#[test]
fn a_good_file_that_is_not_the_one_offered_is_refused() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let lie = Offer { position: Position { term: 1, index: 8 }, ..sent.offer() };
    for offer in [lie, Offer { id: 1, ..sent.offer() }] {
        let mut incoming = mine.checkpoints.receive(&offer).unwrap();
        incoming.write(&bytes_of(&sent)).unwrap();
        assert!(matches!(incoming.finish(&mut go_on), Err(CheckpointError::Damaged { .. })));
    }
    assert!(mine.shelf().is_empty());
}

#[test]
fn another_clusters_is_refused() {
    let (_kept, sent) = theirs();
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let mine = Checkpoints::open(&lock, "beef").unwrap();
    let mut incoming = mine.receive(&sent.offer()).unwrap();
    incoming.write(&bytes_of(&sent)).unwrap();
    assert!(matches!(incoming.finish(&mut go_on), Err(CheckpointError::OtherCluster { .. })));
    assert!(mine.newest().is_none());
}

#[test]
fn one_that_is_no_newer_is_refused_and_what_is_here_stays() {
    let (_kept, sent) = theirs();
    // At the same index with another content, and at a later one.
    for index in [9, 12] {
        let mut mine = Bench::new();
        keep(&mut mine.opened.writer, index, &[(Table::Data, b"mine", Some(b"x"))]);
        let made = mine.make();
        let shelf = mine.shelf();
        let refused = received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap_err();
        let told = matches!(refused, CheckpointError::Older { position, newest, .. }
            if position == sent.position() && newest == made.position());
        assert!(told, "{refused}");
        assert_eq!(mine.shelf(), shelf, "nothing of it is left");
        assert_eq!(mine.checkpoints.newest().unwrap().id(), made.id());
        made.verify(&mut go_on).unwrap();
    }
}

#[test]
fn in_the_place_of_a_state_that_is_not_believed_an_older_one_counts_too() {
    let (_kept, sent) = theirs();
    for index in [9, 12] {
        let mut mine = Bench::new();
        keep(&mut mine.opened.writer, index, &[(Table::Data, b"mine", Some(b"x"))]);
        mine.make();
        // One that can't be read is newer than both.
        let dir = mine.close();
        fs::write(dir.path().join("checkpoints/checkpoint-00000000000000000020-1"), "x").unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        assert_eq!(checkpoints.damaged().len(), 1);
        let only = received(&checkpoints, &sent).finish_as_only(&mut go_on).unwrap();
        assert_eq!(only.offer(), sent.offer());
        assert!(checkpoints.damaged().is_empty());
        let again = Checkpoints::open(&lock, CLUSTER).unwrap();
        assert_eq!((again.newest().unwrap().id(), again.damaged().len()), (sent.id(), 0));
        assert_eq!(super::names(&dir.path().join("checkpoints")), ["checkpoint-00000000000000000009-1"]);
    }
}

#[test]
fn a_damaged_one_does_not_take_the_place_of_a_state_that_is_not_believed() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let made = mine.make();
    let mut bytes = bytes_of(&sent);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    incoming.write(&bytes).unwrap();
    assert!(matches!(incoming.finish_as_only(&mut go_on), Err(CheckpointError::Damaged { .. })));
    assert_eq!(mine.checkpoints.newest().unwrap().id(), made.id());
    assert_eq!(mine.shelf(), ["checkpoint-00000000000000000005-1"]);
}

#[test]
fn what_was_adopted_already_is_not_sent_again() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap();
    // The sender did not hear of it.
    for only in [false, true] {
        let mut incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
        assert_eq!(incoming.offset(), sent.bytes());
        incoming.write(b"").unwrap();
        assert!(matches!(incoming.write(b"x"), Err(CheckpointError::Damaged { .. })));
        let again = if only { incoming.finish_as_only(&mut go_on) } else { incoming.finish(&mut go_on) };
        assert_eq!(again.unwrap().offer(), sent.offer());
        assert_eq!(mine.shelf(), ["checkpoint-00000000000000000009-1"]);
    }
    // A lie about its length, or its position.
    let lie = Offer { bytes: sent.bytes() + 1, ..sent.offer() };
    assert_eq!(mine.checkpoints.receive(&lie).unwrap().offset(), 0);
}

#[test]
fn the_newest_one_that_became_damaged_is_sent_again() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let newest = received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap();
    let mut bytes = bytes_of(&newest);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(newest.path(), bytes).unwrap();
    let incoming = mine.checkpoints.receive(&sent.offer()).unwrap();
    assert!(matches!(incoming.finish(&mut go_on), Err(CheckpointError::Damaged { .. })));
    assert!(mine.checkpoints.newest().is_none());
    received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap().verify(&mut go_on).unwrap();
}

#[test]
fn what_came_of_others_goes_when_one_is_received_or_made() {
    let (_kept, sent) = theirs();
    let mut mine = Bench::new();
    let shelf = mine.dir.path().join("checkpoints");
    let part = |index: u64| format!("checkpoint-{index:020}-1-{:032x}.part", 7);
    let put = |index| fs::write(shelf.join(part(index)), "x").unwrap();
    let begun = || mine.checkpoints.receive(&sent.offer()).unwrap();
    begun().write(&bytes_of(&sent)[..50]).unwrap();
    [3, 20].into_iter().for_each(put);
    assert_eq!(begun().offset(), 50);
    assert_eq!(mine.shelf().len(), 1, "the others went although this one was begun: {:?}", mine.shelf());
    received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap();

    [3, 15, 20].into_iter().for_each(put);
    fs::write(shelf.join("some.part"), "x").unwrap();
    keep(&mut mine.opened.writer, 15, &[(Table::Data, b"k", Some(b"w"))]);
    mine.make();
    // It may still be needed.
    assert_eq!(mine.shelf(), ["checkpoint-00000000000000000015-1".to_owned(), part(20)]);
    let offer = Offer { position: Position { term: 1, index: 14 }, ..sent.offer() };
    let coming = mine.checkpoints.receive(&offer).unwrap();
    mine.make();
    assert_eq!(mine.shelf().len(), 2, "not what comes just now: {:?}", mine.shelf());
    drop(coming);
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun() {
    let (_kept, sent) = theirs();
    let mine = Bench::new();
    let space = rustix::fs::statvfs(mine.dir.path()).unwrap();
    // All of the disk, and what there could never be.
    for bytes in [space.f_blocks * space.f_frsize, u64::MAX] {
        let refused = mine.checkpoints.receive(&Offer { bytes, ..sent.offer() }).unwrap_err();
        assert!(refused.is_full(), "{refused}");
        assert!(mine.shelf().is_empty());
    }
    received(&mine.checkpoints, &sent).finish(&mut go_on).unwrap();
}
