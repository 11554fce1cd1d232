//! Crashes at every operation: what was reported durable is there, and nothing is invented.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::Arc;

use common::{Random, all, open, record, small};
use conclave_log::{Loss, MemDisk, Position, Record, Vote, Votes};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    entries: Vec<Record>,
    purged: Option<u64>,
}

/// All states that the log went through, with the number of disk operations before each was begun, and which were
/// reported durable, at which operation.
struct History {
    disk: MemDisk,
    states: Vec<(usize, State)>,
    durable: Vec<(usize, usize)>,
}

fn run(seed: u64, steps: usize) -> History {
    let disk = MemDisk::recording();
    let (mut log, _) = open(&disk, small()).unwrap();
    let mut random = Random(seed);
    let mut state = State::default();
    let mut history = History { disk: disk.clone(), states: vec![(0, State::default())], durable: Vec::new() };
    let mut term = 1;
    for _ in 0..steps {
        let operations = disk.operations();
        let next = state.entries.last().map_or(state.purged.map_or(1, |p| p + 1), |r| r.index + 1);
        match random.below(10) {
            0..=5 => {
                let records: Vec<Record> =
                    (next..next + 1 + random.below(6)).map(|i| record(i, term, random.below(300) as usize)).collect();
                log.append(&records).unwrap();
                for record in records {
                    state.entries.push(record);
                    history.states.push((operations, state.clone()));
                }
            }
            6 if !state.entries.is_empty() => {
                let first = state.entries[0].index;
                let keep = random.below(state.entries.len() as u64 + 1);
                log.truncate_after((first + keep).checked_sub(1)).unwrap();
                state.entries.truncate(keep as usize);
                term += 1;
                history.states.push((operations, state.clone()));
            }
            7 if state.entries.len() > 8 => {
                let upto = &state.entries[state.entries.len() / 2];
                let position = Position { index: upto.index, term: upto.term };
                log.purge_upto(position).unwrap();
                state.entries.retain(|r| r.index > position.index);
                state.purged = Some(position.index);
                history.states.push((operations, state.clone()));
            }
            _ => {
                log.sync().unwrap();
                history.durable.push((disk.operations(), history.states.len() - 1));
                if random.below(2) == 0 {
                    log.prepare().unwrap();
                    log.mark().unwrap();
                }
            }
        }
    }
    history
}

impl History {
    /// Crashes after `operations`, opens, and checks. Returns whether a torn tail was found.
    fn check(&self, operations: usize, loss: Loss) -> bool {
        let disk = self.disk.after(operations).crash(loss);
        let (mut log, recovered) = match open(&disk, small()) {
            Ok(opened) => opened,
            Err(error) => panic!("after {operations} operations, {loss:?}: {error}"),
        };
        let got = State { entries: all(&log), purged: log.purged().map(|p| p.index) };
        let floor = self.durable.iter().rev().find(|(at, _)| *at <= operations).map_or(0, |(_, state)| *state);
        let known = self.states[floor..].iter().take_while(|(begun, _)| *begun <= operations).any(|(_, s)| *s == got);
        assert!(known, "after {operations} operations, {loss:?}: {got:?} is no state since the durable one");

        // What was found counts as durable, and the log goes on from there.
        let after = record(log.last().map_or(1, |l| l.index + 1), 99, 700);
        log.append([&after]).unwrap();
        log.sync().unwrap();
        drop(log);
        let (log, again) = open(&disk.crash(Loss::All), small()).unwrap();
        let mut expected = got.entries;
        expected.push(after);
        assert_eq!(all(&log), expected, "after {operations} operations, {loss:?}, and another crash");
        assert_eq!(again.torn, None);
        recovered.torn.is_some()
    }
}

#[test]
fn a_crash_after_any_operation_loses_nothing_durable_and_invents_nothing() {
    let mut torn = 0;
    for seed in 0..6 {
        let history = run(seed, 90);
        for operations in 0..=history.disk.operations() {
            for loss in [Loss::All, Loss::Nothing, Loss::Some(seed + operations as u64), Loss::Some(!operations as u64)]
            {
                torn += usize::from(history.check(operations, loss));
            }
        }
    }
    assert!(torn > 50, "the crashes tore too little: {torn}");
}

#[test]
fn entries_found_after_a_crash_of_the_process_survive_one_of_the_machine() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, small()).unwrap();
    log.append(&[record(1, 1, 10), record(2, 1, 10)]).unwrap();
    drop(log);
    // Written, never synced: found in the page cache.
    let (log, recovered) = open(&disk, small()).unwrap();
    assert_eq!(recovered.entries, 2);
    drop(log);
    assert_eq!(open(&disk.crash(Loss::All), small()).unwrap().1.entries, 2);
}

#[test]
fn the_committed_index_comes_back_without_a_sync_of_its_own() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, small()).unwrap();
    log.append(&[record(0, 1, 10), record(1, 1, 10), record(2, 1, 10)]).unwrap();
    log.sync().unwrap();
    log.set_committed(1);
    log.mark().unwrap();
    let syncs = disk.syncs();
    assert_eq!(open(&disk.copy(), small()).unwrap().1.committed, Some(1));
    log.set_committed(2);
    log.append(&[record(3, 1, 10)]).unwrap();
    log.sync().unwrap();
    assert_eq!(disk.syncs(), syncs + 1);
    assert_eq!(open(&disk.crash(Loss::All), small()).unwrap().1.committed, Some(2));
    drop(log);
    // Never beyond what is there.
    let (mut log, _) = open(&disk, small()).unwrap();
    log.set_committed(500);
    log.append(&[record(4, 1, 10)]).unwrap();
    assert_eq!(open(&disk.copy(), small()).unwrap().1.committed, Some(4));
}

#[test]
fn segment_names_are_never_used_again() {
    let history = run(3, 400);
    let mut seen = std::collections::BTreeMap::new();
    let mut greatest = 0;
    for operations in 0..=history.disk.operations() {
        let disk = history.disk.after(operations);
        for name in conclave_log::Disk::list(&disk).unwrap() {
            let Some(number) = name.strip_prefix("log-").and_then(|n| n.parse::<u64>().ok()) else { continue };
            let head = disk.content(&name).unwrap()[..128].to_vec();
            assert_eq!(seen.entry(number).or_insert_with(|| head.clone()), &head, "{name} began anew");
            assert!(number + 1 >= greatest || disk.content(&name).is_some());
            greatest = greatest.max(number);
        }
    }
    assert!(greatest > 10 && seen.len() as u64 == greatest, "{greatest}");
}

#[test]
fn an_acknowledged_vote_is_never_taken_back() {
    let vote = |term| Vote { term, node: (term % 2 == 0).then_some(term), committed: term % 3 == 0 };
    let disk = MemDisk::recording();
    let mut votes = Votes::open(Arc::new(disk.clone())).unwrap();
    let mut saved = vec![disk.operations()];
    for term in 1..=12 {
        votes.save(vote(term)).unwrap();
        saved.push(disk.operations());
    }
    for operations in 0..=disk.operations() {
        let acknowledged = saved.iter().filter(|at| **at <= operations).count().saturating_sub(1) as u64;
        for seed in 0..6 {
            let loss = [Loss::All, Loss::Nothing, Loss::Some(seed + operations as u64)][seed.min(2) as usize];
            let crashed = disk.after(operations).crash(loss);
            let votes = Votes::open(Arc::new(crashed.clone())).unwrap();
            let term = votes.current().map_or(0, |v| v.term);
            assert!(term == acknowledged || term == acknowledged + 1, "{term} after {acknowledged}");
            assert_eq!(votes.current(), (term > 0).then(|| vote(term)));
            // And whichever copy is damaged now, it stays.
            for name in ["vote-a", "vote-b"] {
                let crashed = crashed.crash(Loss::All);
                crashed.flip(name, 77);
                assert_eq!(Votes::open(Arc::new(crashed)).unwrap().current(), votes.current());
            }
        }
    }
}

#[test]
fn a_damaged_copy_of_the_vote_is_mended_and_two_are_refused() {
    let disk = MemDisk::new();
    let mut votes = Votes::open(Arc::new(disk.clone())).unwrap();
    let vote = Vote { term: 7, node: Some(3), committed: true };
    votes.save(Vote { term: 6, ..vote }).unwrap();
    votes.save(vote).unwrap();
    let bits = disk.content("vote-a").unwrap().len() * 8;
    for bit in 0..bits {
        for (hit, other) in [("vote-a", "vote-b"), ("vote-b", "vote-a")] {
            let disk = disk.copy();
            disk.flip(hit, bit);
            assert_eq!(Votes::open(Arc::new(disk.clone())).unwrap().current(), Some(vote));
            disk.flip(other, bit);
            assert_eq!(Votes::open(Arc::new(disk)).unwrap().current(), Some(vote), "the first was not mended");
        }
        let disk = disk.copy();
        disk.flip("vote-a", bit);
        disk.flip("vote-b", (bit * 7) % bits);
        assert!(Votes::open(Arc::new(disk)).err().unwrap().is_corrupt());
    }
    for name in ["vote-a", "vote-b"] {
        let disk = disk.copy();
        disk.lose(name);
        assert_eq!(Votes::open(Arc::new(disk)).unwrap().current(), Some(vote));
    }
}

#[test]
fn a_copy_of_the_vote_from_long_ago_is_refused() {
    let disk = MemDisk::new();
    let mut votes = Votes::open(Arc::new(disk.clone())).unwrap();
    let old = disk.content("vote-b").unwrap();
    for term in 1..=2 {
        votes.save(Vote { term, node: None, committed: false }).unwrap();
    }
    disk.overwrite("vote-b", old);
    assert!(Votes::open(Arc::new(disk)).err().unwrap().is_corrupt());
}

#[test]
fn a_log_that_failed_to_sync_takes_nothing_more() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, small()).unwrap();
    log.append(&[record(1, 1, 10)]).unwrap();
    disk.fail_sync_after(0);
    assert!(log.sync().is_err());
    let syncs = disk.syncs();
    assert!(log.sync().is_err() && log.append(&[record(2, 1, 10)]).is_err() && log.mark().is_err());
    assert_eq!(disk.syncs(), syncs, "retried");
}

#[test]
fn a_failed_sync_of_a_vote_is_final() {
    let disk = MemDisk::new();
    let mut votes = Votes::open(Arc::new(disk.clone())).unwrap();
    let vote = Vote { term: 1, node: Some(1), committed: false };
    disk.fail_sync_after(1);
    assert!(votes.save(vote).is_err());
    assert!(votes.save(vote).is_err(), "retried");
    assert_eq!(votes.current(), None);
}
