//! Sweeps over all files of a small, realistic log: every bit, every length, every file gone or in another's place.
//! Each log opens whole, or ends at a torn tail above what anyone was told of, or is refused.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{ops::AddAssign, sync::Arc, thread};

use common::{all, record};
use conclave_log::{Disk, Loss, MemDisk, Options, Position, Record, Vote, check, open};

/// Segments of about two sectors.
fn tiny() -> Options {
    Options { segment_bytes: 1300, ahead_bytes: 400, step_bytes: 300, ..common::small() }
}

/// A log on a disk, and what is known of it.
struct Subject {
    disk: MemDisk,
    /// What it opens to.
    entries: Vec<Record>,
    purged: Option<Position>,
    vote: Option<Vote>,
    /// So many of the entries were acknowledged.
    promised: usize,
    torn: bool,
}

/// How a subject's life ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// At rest: all is durable, and a mark says so.
    Marked,
    /// By a crash of the process: the last batch was written, and nobody was told.
    Untold,
    /// By a crash of the machine, which tore the last batch.
    Torn,
}

fn subject(end: End) -> Subject {
    let disk = MemDisk::new();
    let (mut log, mut votes, _) = open(Arc::new(disk.clone()), tiny()).unwrap();
    let mut term = 1;
    let mut expected: Vec<Record> = Vec::new();
    let vote = |term| Vote { term, node: Some(term % 3), committed: term % 2 == 0 };
    votes.save(vote(term)).unwrap();
    for step in 0..20_u64 {
        let next = log.last().map_or(1, |last| last.index + 1);
        let batch: Vec<Record> = (next..=next + step % 3).map(|i| record(i, term, (i * 29 % 130) as usize)).collect();
        log.append(&batch).unwrap();
        expected.extend(batch);
        log.sync().unwrap();
        log.prepare().unwrap();
        log.set_committed(next.saturating_sub(3));
        if step % 4 == 3 {
            log.mark().unwrap();
        }
        if step % 7 == 5 {
            // A new leader's log differs.
            term += 1;
            votes.save(vote(term)).unwrap();
            log.truncate_after(Some(next - 2)).unwrap();
            expected.retain(|r| r.index <= next - 2);
        }
        if step == 11 {
            let upto = &expected[expected.len() / 2];
            log.purge_upto(Position { index: upto.index, term: upto.term }).unwrap();
            expected.retain(|r| r.index > log.purged().unwrap().index);
            log.sync().unwrap();
        }
    }
    log.mark().unwrap();
    let promised = expected.len();
    let next = log.last().unwrap().index + 1;
    let disk = match end {
        End::Marked => disk,
        End::Untold | End::Torn => {
            // Zeros, as a lost sector would leave them: damage to these looks like a tear.
            let zeros = Record { payload: vec![0; 600].into(), ..record(next + 2, term, 0) };
            let last = if matches!(end, End::Torn) { record(next + 2, term, 90) } else { zeros };
            log.append(&[record(next, term, 150), record(next + 1, term, 200), last]).unwrap();
            let torn = |disk: &MemDisk| {
                let report = check(disk).unwrap();
                report.torn.is_some() && report.entries as usize > promised
            };
            match end {
                End::Torn => (0..1000).map(|seed| disk.crash(Loss::Some(seed))).find(torn).unwrap(),
                _ => disk.copy(),
            }
        }
    };
    let (log, votes, recovered) = open(Arc::new(disk.copy()), tiny()).unwrap();
    let entries = all(&log);
    assert_eq!(entries[..promised], expected);
    assert_eq!(votes.current(), Some(vote(term)));
    assert!(recovered.segments > 3 && recovered.purged.is_some());
    let (purged, vote, torn) = (log.purged(), votes.current(), recovered.torn.is_some());
    Subject { disk, entries, purged, vote, promised, torn }
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Count {
    cases: u64,
    whole: u64,
    /// Ends at a torn tail, above what anyone was told of.
    torn: u64,
    /// Of which entries are gone that nobody was told of; in the others none is.
    shorter: u64,
    refused: u64,
    silently_wrong: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.whole += other.whole;
        self.torn += other.torn;
        self.shorter += other.shorter;
        self.refused += other.refused;
        self.silently_wrong += other.silently_wrong;
    }
}

impl Subject {
    fn segments(&self) -> Vec<String> {
        let mut names = Disk::list(&self.disk).unwrap();
        names.retain(|name| name.starts_with("log-"));
        names.sort();
        names
    }

    /// Opens a damaged copy, and says what came of it.
    fn judge(&self, damaged: &MemDisk) -> Count {
        let checked = check(damaged);
        let mut count = Count { cases: 1, ..Count::default() };
        match open(Arc::new(damaged.clone()), tiny()) {
            Ok((log, votes, recovered)) => {
                let got = all(&log);
                let same = log.purged() == self.purged && votes.current() == self.vote;
                if same && got == self.entries && recovered.torn.is_some() == self.torn {
                    count.whole = 1;
                } else if same
                    && recovered.torn.is_some()
                    && got.len() >= self.promised
                    && self.entries.starts_with(&got)
                {
                    count.torn = 1;
                    count.shorter = u64::from(got.len() < self.entries.len());
                } else {
                    count.silently_wrong = 1;
                }
                let report = checked.unwrap();
                assert!(report.is_sound());
                assert_eq!((report.entries, report.torn), (got.len() as u64, recovered.torn), "check says otherwise");
            }
            Err(error) if error.is_corrupt() => {
                count.refused = 1;
                assert!(!checked.unwrap().is_sound(), "check says otherwise");
            }
            Err(_) => count.silently_wrong = 1,
        }
        count
    }

    /// Judges `cases` copies of the log, each damaged by `damage`, on two threads.
    fn sweep(&self, cases: usize, damage: impl Fn(&MemDisk, usize) + Sync) -> Count {
        let damage = &damage;
        let counts = thread::scope(|scope| {
            let halves = [0, 1].map(|half| {
                scope.spawn(move || {
                    let mut count = Count::default();
                    for case in (half..cases).step_by(2) {
                        let copy = self.disk.copy();
                        damage(&copy, case);
                        count += self.judge(&copy);
                    }
                    count
                })
            });
            halves.map(|half| half.join().unwrap())
        });
        let mut count = Count::default();
        counts.into_iter().for_each(|half| count += half);
        count
    }

    fn sweep_bits(&self, name: &str) -> Count {
        let bits = self.disk.content(name).unwrap().len() * 8;
        self.sweep(bits, |copy, bit| copy.flip(name, bit))
    }

    fn sweep_lengths(&self, name: &str) -> Count {
        let content = self.disk.content(name).unwrap();
        self.sweep(content.len(), |copy, length| copy.overwrite(name, content[..length].to_vec()))
    }
}

#[test]
fn every_bit_of_every_segment_flipped() {
    let mut all = Count::default();
    for end in [End::Marked, End::Untold, End::Torn] {
        let subject = subject(end);
        let mut count = Count::default();
        for name in subject.segments() {
            count += subject.sweep_bits(&name);
        }
        println!("bits flipped, {end:?}: {count:?}");
        assert_eq!(count.silently_wrong, 0);
        all += count;
    }
    println!("bits flipped: {all:?}");
    assert!(all.cases > 80_000 && all.refused > 40_000 && all.whole > 1_000 && all.torn > 500, "{all:?}");
    assert!(all.shorter > 500, "{all:?}");
}

#[test]
fn every_length_of_every_segment() {
    let mut all = Count::default();
    for end in [End::Marked, End::Untold, End::Torn] {
        let subject = subject(end);
        for name in subject.segments() {
            all += subject.sweep_lengths(&name);
        }
    }
    println!("lengths cut: {all:?}");
    assert_eq!(all.silently_wrong, 0);
    assert!(all.cases > 10_000 && all.refused > 8_000 && all.whole > 100, "{all:?}");
}

#[test]
fn every_run_of_segments_gone_and_every_two_swapped_or_doubled() {
    let (mut gone, mut moved) = (Count::default(), Count::default());
    for end in [End::Marked, End::Untold, End::Torn] {
        let subject = subject(end);
        let names = subject.segments();
        let pairs: Vec<(usize, usize)> = (0..names.len()).flat_map(|a| (0..names.len()).map(move |b| (a, b))).collect();
        let runs: Vec<(usize, usize)> = pairs.iter().copied().filter(|(a, b)| a <= b).collect();
        gone += subject.sweep(runs.len(), |copy, case| {
            let (from, to) = runs[case];
            names[from..=to].iter().for_each(|name| copy.lose(name));
        });
        let others: Vec<(usize, usize)> = pairs.into_iter().filter(|(a, b)| a != b).collect();
        let content = |at: usize| subject.disk.content(&names[at]).unwrap();
        moved += subject.sweep(others.len() * 2, |copy, case| {
            let (one, two) = others[case / 2];
            copy.overwrite(&names[one], content(two));
            if case % 2 == 0 {
                copy.overwrite(&names[two], content(one));
            }
        });
    }
    println!("runs of segments removed: {gone:?}");
    println!("segments swapped or doubled: {moved:?}");
    assert!(gone.cases > 25 && gone.refused == gone.cases, "{gone:?}");
    assert!(moved.cases > 60 && moved.refused == moved.cases, "{moved:?}");
}

#[test]
fn the_vote_copies_by_bit_by_length_removed_and_of_another_time() {
    let subject = subject(End::Marked);
    let mut one = Count::default();
    for name in ["vote-a", "vote-b"] {
        one += subject.sweep_bits(name);
        one += subject.sweep_lengths(name);
        one += subject.sweep(1, |copy, _| copy.lose(name));
    }
    println!("one copy of the vote damaged, cut or removed: {one:?}");
    assert!(one.cases > 700 && one.whole == one.cases, "{one:?}");

    // Whatever befalls both.
    let record = subject.disk.content("vote-a").unwrap();
    let (bits, lengths) = (record.len() * 8, record.len());
    let hurt = |copy: &MemDisk, name: &str, how: usize| match how {
        0 => copy.lose(name),
        _ if how <= bits => copy.flip(name, how - 1),
        _ => copy.overwrite(name, record[..how - bits - 1].to_vec()),
    };
    let ways = 1 + bits + lengths;
    let both = subject.sweep(ways * 2, |copy, case| {
        hurt(copy, "vote-a", case / 2);
        hurt(copy, "vote-b", if case % 2 == 0 { case / 2 } else { (case * 131 + 7) % ways });
    });
    println!("both copies: {both:?}");
    assert!(both.refused == both.cases && both.cases > 700, "{both:?}");

    // One copy as it was at an earlier vote: the other one counts, or the record is refused.
    let (mut older, mut history) = (Count::default(), Vec::new());
    let disk = MemDisk::new();
    let mut votes = conclave_log::Votes::open(Arc::new(disk.clone())).unwrap();
    for term in 0..=subject.vote.unwrap().term {
        history.push(disk.content("vote-a").unwrap());
        let vote = Vote { term: term + 1, node: Some((term + 1) % 3), committed: (term + 1) % 2 == 0 };
        votes.save(vote).unwrap();
    }
    assert_eq!(history.pop().unwrap(), record, "the same votes make the same bytes");
    older += subject.sweep(history.len() * 2, |copy, case| {
        copy.overwrite(["vote-a", "vote-b"][case % 2], history[case / 2].clone());
    });
    println!("one copy of the vote older: {older:?}");
    assert_eq!((older.whole, older.refused, older.cases), (2, older.cases - 2, history.len() as u64 * 2));
    assert!(older.refused >= 4);
}
