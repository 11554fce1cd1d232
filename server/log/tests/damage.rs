//! Damage to the log's files: found and refused, or above what was durable; never silently wrong.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{sync::Arc, thread};

use common::{all, open, record, single, small};
use conclave_log::{Error, MemDisk, Options, Position, Record};

/// A log of `count` records in synced batches of 1 to 5; returns also the length of all but the last batch.
fn filled(options: Options, count: u64, mark: bool) -> (MemDisk, Vec<Record>, usize) {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, options).unwrap();
    let records: Vec<Record> = (1..=count).map(|i| record(i, 1 + i / 50, 3 + (i % 4) as usize)).collect();
    let mut rest = &records[..];
    let mut before = 0;
    while !rest.is_empty() {
        before = records.len() - rest.len();
        let (batch, left) = rest.split_at((1 + before % 5).min(rest.len()));
        log.append(batch).unwrap();
        log.sync().unwrap();
        log.prepare().unwrap();
        rest = left;
    }
    if mark {
        log.mark().unwrap();
    }
    (disk, records, before)
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Count {
    whole: u64,
    torn: u64,
    refused: u64,
    silently_wrong: u64,
}

impl Count {
    /// Opens `disk` and judges what comes out. `promised` entries must be there.
    fn judge(&mut self, disk: &MemDisk, options: Options, records: &[Record], promised: usize) {
        match open(disk, options) {
            Ok((log, recovered)) => {
                let got = all(&log);
                if got == records {
                    self.whole += 1;
                } else if recovered.torn.is_some() && got.len() >= promised && records.starts_with(&got) {
                    self.torn += 1;
                } else {
                    self.silently_wrong += 1;
                }
            }
            Err(error) if error.is_corrupt() => self.refused += 1,
            Err(_) => self.silently_wrong += 1,
        }
    }
}

#[test]
fn no_flipped_bit_of_a_marked_log_goes_unseen() {
    let (disk, records, _) = filled(single(), 200, true);
    let name = disk.list_one();
    let content = disk.content(&name).unwrap();
    let used = content.iter().rposition(|b| *b != 0).unwrap() + 1;
    let halves = [(0, used / 2), (used / 2, used)];
    let counts = thread::scope(|scope| {
        let sweeps = halves.map(|(from, to)| {
            let (records, content, name) = (&records, &content, &name);
            scope.spawn(move || {
                let mut count = Count::default();
                let disk = MemDisk::new();
                for bit in from * 8..to * 8 {
                    disk.overwrite(name, content.clone());
                    disk.flip(name, bit);
                    count.judge(&disk, single(), records, records.len());
                }
                count
            })
        });
        sweeps.map(|s| s.join().unwrap())
    });
    let flips = counts.iter().map(|c| c.refused + c.whole + c.torn + c.silently_wrong).sum::<u64>();
    assert_eq!(flips, used as u64 * 8);
    assert_eq!(counts.iter().map(|c| c.silently_wrong).sum::<u64>(), 0, "{counts:?}");
    assert_eq!(counts.iter().map(|c| c.torn).sum::<u64>(), 0, "nothing was lost in a crash: {counts:?}");
    // The mark itself may be hit: then all entries are there, or it is refused.
    assert!(counts[1].whole <= 72 * 8, "{counts:?}");
}

#[test]
fn a_flip_in_an_unmarked_last_batch_does_not_pass_for_a_torn_tail() {
    let (disk, records, before) = filled(single(), 60, false);
    let name = disk.list_one();
    let content = disk.content(&name).unwrap();
    let used = content.iter().rposition(|b| *b != 0).unwrap() + 1;
    let mut count = Count::default();
    for bit in (used - 600) * 8..used * 8 {
        let disk = MemDisk::new();
        disk.overwrite(&name, content.clone());
        disk.flip(&name, bit);
        count.judge(&disk, single(), &records, before);
    }
    assert_eq!((count.silently_wrong, count.whole), (0, 0), "{count:?}");
    // Seen as a tear only where the flipped frame has a few bytes in a sector of their own, all zero by chance.
    assert!(count.torn * 20 < count.refused, "{count:?}");
}

#[test]
fn a_file_that_was_cut_is_refused_at_every_length() {
    let (disk, records, _) = filled(single(), 100, false);
    let name = disk.list_one();
    let content = disk.content(&name).unwrap();
    let used = content.iter().rposition(|b| *b != 0).unwrap() + 1;
    let mut count = Count::default();
    for length in 0..content.len() {
        let disk = MemDisk::new();
        disk.overwrite(&name, content[..length].to_vec());
        let before = count;
        count.judge(&disk, single(), &records, records.len());
        if length < used {
            assert_eq!(count.refused, before.refused + 1, "cut to {length}");
        }
    }
    assert_eq!((count.silently_wrong, count.torn), (0, 0), "{count:?}");
}

#[test]
fn a_zeroed_sector_is_refused_unless_it_may_never_have_been_written() {
    let (disk, records, before) = filled(single(), 100, false);
    let name = disk.list_one();
    let content = disk.content(&name).unwrap();
    let mut count = Count::default();
    for sector in 0..content.len() / 512 {
        let mut content = content.clone();
        content[sector * 512..(sector + 1) * 512].fill(0);
        let disk = MemDisk::new();
        disk.overwrite(&name, content);
        count.judge(&disk, single(), &records, before);
    }
    assert_eq!(count.silently_wrong, 0, "{count:?}");
    assert!(count.torn <= 2 && count.refused > 10, "{count:?}");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (disk, _, _) = filled(small(), 150, true);
    let (other, _, _) = filled(Options { salt: 99, ..small() }, 150, true);
    for name in disk.names() {
        let disk = disk.copy();
        disk.overwrite(&name, other.content(&name).unwrap());
        assert!(open(&disk, small()).err().unwrap().is_corrupt(), "{name}");
    }
}

#[test]
fn frames_of_a_twin_log_are_refused_although_each_is_whole() {
    // The same salt, places and sequence numbers, another content: only the chain tells.
    let twin = |options: Options, fill: u8| {
        let disk = MemDisk::new();
        let (mut log, _) = open(&disk, options).unwrap();
        for index in 1..=60 {
            log.append(&[Record { payload: vec![fill; 20].into(), ..record(index, 1, 0) }]).unwrap();
            log.sync().unwrap();
        }
        disk
    };
    let (one, two) = (twin(single(), 1), twin(single(), 2));
    let name = one.list_one();
    let (mut mixed, other) = (one.content(&name).unwrap(), two.content(&name).unwrap());
    assert_eq!(mixed.len(), other.len());
    let frame = 72 + 20;
    let half = 72 + 56 + 30 * frame;
    mixed[half..].copy_from_slice(&other[half..]);
    one.overwrite(&name, mixed);
    assert!(open(&one, single()).err().unwrap().is_corrupt());

    let (one, two) = (twin(small(), 1), twin(small(), 2));
    let names = one.names();
    assert_eq!(names, two.names());
    for name in &names[1..] {
        let mixed = one.copy();
        mixed.overwrite(name, two.content(name).unwrap());
        assert!(open(&mixed, small()).err().unwrap().is_corrupt(), "{name}");
    }
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_a_fault_on_reading() {
    let (disk, records, _) = filled(single(), 20, true);
    let (log, _) = open(&disk, single()).unwrap();
    let name = disk.list_one();
    let at = {
        let content = disk.content(&name).unwrap();
        let payload = &records[9].payload;
        content.windows(payload.len()).position(|w| w == &payload[..]).unwrap()
    };
    disk.flip(&name, at * 8);
    let reader = log.reader();
    assert_eq!(reader.read(1..10, usize::MAX).unwrap(), records[..9]);
    assert!(matches!(reader.read(5..15, usize::MAX), Err(Error::Corrupt { .. })));
    assert_eq!(reader.read(11..21, usize::MAX).unwrap(), records[10..]);
}

#[test]
fn a_purged_log_refuses_to_open_without_its_first_segment() {
    let (disk, _, _) = filled(small(), 150, true);
    let (mut log, _) = open(&disk, small()).unwrap();
    log.purge_upto(Position { index: 70, term: 2 }).unwrap();
    log.sync().unwrap();
    drop(log);
    let names = disk.names();
    assert_ne!(names[0], "log-0000000000000001");
    assert!(open(&disk.copy(), small()).is_ok());
    disk.lose(&names[0]);
    assert!(open(&disk, small()).err().unwrap().is_corrupt());
}

#[test]
fn a_lost_log_or_vote_record_is_seen_by_the_other() {
    let disk = MemDisk::new();
    let (mut log, _, recovered) = conclave_log::open(Arc::new(disk.clone()), small()).unwrap();
    assert!(recovered.created);
    // Nothing was appended yet: a crash between the creation of the two is no loss.
    let unfinished = disk.copy();
    unfinished.lose("vote-a");
    unfinished.lose("vote-b");
    assert!(conclave_log::open(Arc::new(unfinished), small()).is_ok());
    log.append(&[record(1, 1, 5)]).unwrap();
    log.sync().unwrap();
    drop(log);
    let without_log = disk.copy();
    without_log.lose("log-0000000000000001");
    assert!(conclave_log::open(Arc::new(without_log), small()).err().unwrap().is_corrupt());
    let without_votes = disk.copy();
    without_votes.lose("vote-a");
    without_votes.lose("vote-b");
    assert!(conclave_log::open(Arc::new(without_votes), small()).err().unwrap().is_corrupt());
    assert!(conclave_log::open(Arc::new(disk), small()).is_ok());
}

trait Names {
    fn names(&self) -> Vec<String>;
    fn list_one(&self) -> String;
}

impl Names for MemDisk {
    fn names(&self) -> Vec<String> {
        conclave_log::Disk::list(self).unwrap()
    }

    fn list_one(&self) -> String {
        let names = self.names();
        assert_eq!(names.len(), 1);
        names[0].clone()
    }
}
