//! Receiving a checkpoint: in pieces, broken off, of another one, damaged on the way.

use std::fs;

use conclave_core::Table;
use conclave_core::apply::Position;

use super::{Bench, go_on, keep};
use crate::{Checkpoint, CheckpointError, Offer};

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
    let lock = crate::DirLock::acquire(dir.path()).unwrap();
    let mine = crate::Checkpoints::open(&lock, "beef").unwrap();
    let mut incoming = mine.receive(&sent.offer()).unwrap();
    incoming.write(&bytes_of(&sent)).unwrap();
    assert!(matches!(incoming.finish(&mut go_on), Err(CheckpointError::OtherCluster { .. })));
    assert!(mine.newest().is_none());
}
