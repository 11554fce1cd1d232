//! The offline check: tells what is there and what is damaged, and changes nothing.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{record, small};
use conclave_log::{Disk, Loss, MemDisk, Position, Vote, VoteCopy, Votes, check, open};

/// A member's log: several segments, purged in front, one vote.
fn member() -> MemDisk {
    let disk = MemDisk::new();
    let (mut log, mut votes, _) = open(Arc::new(disk.clone()), small()).unwrap();
    votes.save(Vote { term: 3, node: Some(2), committed: true }).unwrap();
    for i in 1..=80 {
        log.append(&[record(i, 3, 100)]).unwrap();
        log.set_committed(i - 1);
        log.sync().unwrap();
    }
    log.purge_upto(Position { index: 30, term: 3 }).unwrap();
    log.sync().unwrap();
    disk
}

/// Checks `disk`, and that this changed nothing.
fn checked(disk: &MemDisk) -> conclave_log::CheckReport {
    let files = |disk: &MemDisk| -> Vec<_> {
        Disk::list(disk).unwrap().into_iter().map(|name| (disk.content(&name), name)).collect()
    };
    let before = files(disk);
    let recording = MemDisk::recording();
    for (content, name) in &before {
        recording.overwrite(name, content.clone().unwrap());
    }
    let report = check(&recording).unwrap();
    assert_eq!(recording.operations(), 0, "it wrote");
    assert_eq!(files(&recording), before);
    report
}

#[test]
fn a_sound_log_is_described() {
    let report = checked(&member());
    assert!(report.is_sound() && report.torn.is_none() && report.unfinished.is_empty(), "{report:?}");
    assert_eq!((report.entries, report.first, report.committed), (50, Some(31), Some(79)));
    assert_eq!(report.last, Some(Position { index: 80, term: 3 }));
    assert_eq!(report.purged, Some(Position { index: 30, term: 3 }));
    let vote = Some(Vote { term: 3, node: Some(2), committed: true });
    assert_eq!((report.vote, report.votes), (vote, [VoteCopy::Whole { sequence: 1, vote }; 2]));
    assert!(report.segments.len() > 3 && report.segments.iter().all(|s| s.used_bytes < s.length_bytes));
}

#[test]
fn where_there_is_no_log_nothing_is_found_and_nothing_made() {
    let report = checked(&MemDisk::new());
    assert!(report.is_sound() && report.segments.is_empty() && report.last.is_none());
    assert_eq!(report.votes, [VoteCopy::Missing; 2]);
}

#[test]
fn damage_is_told_with_its_file_and_what_to_do() {
    let disk = member();
    let report = checked(&disk);
    let hit = &report.segments[1].name;
    disk.flip(hit, 300 * 8);
    let report = checked(&disk);
    assert!(!report.is_sound() && report.segments.len() == 2);
    let text = report.damage[0].to_string();
    assert!(text.starts_with(&format!("{hit} is damaged at byte ")) && text.contains("under a new id"), "{text}");
    assert_eq!(text, open(Arc::new(disk), small()).err().unwrap().to_string(), "as at a start");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let disk = member();
    let (mut log, _, _) = open(Arc::new(disk.clone()), small()).unwrap();
    log.append(&[record(81, 3, 900)]).unwrap();
    let torn =
        (0..1000).map(|seed| disk.crash(Loss::Some(seed))).find(|crashed| check(crashed).unwrap().torn.is_some());
    let torn = torn.unwrap();
    let report = checked(&torn);
    assert!(report.is_sound() && report.entries == 50, "{report:?}");
    assert_eq!(report.torn, open(Arc::new(torn), small()).unwrap().2.torn);
}

#[test]
fn one_bad_copy_of_the_vote_is_no_damage_and_two_are() {
    let disk = member();
    disk.flip("vote-a", 70);
    let report = checked(&disk);
    assert!(report.is_sound() && report.votes[0] == VoteCopy::Damaged && report.vote.is_some());
    disk.lose("vote-b");
    let report = checked(&disk);
    assert_eq!((report.damage.len(), report.vote, report.votes[1]), (1, None, VoteCopy::Missing));
    disk.lose("vote-a");
    assert_eq!(checked(&disk).damage.len(), 1, "entries without votes");
    let disk = MemDisk::new();
    Votes::open(Arc::new(disk.clone())).unwrap();
    assert_eq!(checked(&disk).damage.len(), 1, "votes without a log");
}

#[test]
fn half_made_files_are_told() {
    let disk = member();
    disk.overwrite("next.tmp", vec![1; 9]);
    let report = checked(&disk);
    assert!(report.is_sound() && report.unfinished == ["next.tmp"]);
    drop(open(Arc::new(disk.clone()), small()).unwrap());
    assert!(checked(&disk).unfinished.is_empty());
}
