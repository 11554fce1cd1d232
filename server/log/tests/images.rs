//! Crash images: every prefix of what is done to the disk, with all that a power cut may do to what was not synced.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    ops::AddAssign,
    sync::{Arc, Mutex},
    thread,
};

use common::{Random, all, record};
use conclave_log::{Bytes, Disk, Handle, Loss, MemDisk, Options, Position, Record, Vote, Writer, check, open};

/// Segments of a few sectors, so that all is met within a short run.
fn tiny() -> Options {
    Options { segment_bytes: 3000, ahead_bytes: 1024, step_bytes: 700, cache_bytes: 400, ..common::small() }
}

#[derive(Clone, PartialEq, Debug, Default)]
struct State {
    entries: Vec<Record>,
    purged: Option<Position>,
    vote: Option<Vote>,
}

/// What was done, in one order: the states that log and vote went through, each with the number of disk operations
/// when it was begun; and which of them were acknowledged, at which operation.
struct History {
    disk: MemDisk,
    states: Vec<(usize, State)>,
    acknowledged: Vec<(usize, usize)>,
}

/// Drives a writer, and keeps the books.
struct Workload {
    disk: MemDisk,
    handle: Handle,
    writer: Writer,
    random: Random,
    state: State,
    term: u64,
    states: Vec<(usize, State)>,
    acknowledged: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Workload {
    fn new(seed: u64) -> Self {
        let disk = MemDisk::recording();
        let (log, votes, recovered) = open(Arc::new(disk.clone()), tiny()).unwrap();
        let (handle, writer) = Writer::new(log, votes, &recovered, &tiny(), Box::new(|fault| panic!("{fault}")));
        Self {
            disk,
            handle,
            writer,
            random: Random(seed),
            state: State::default(),
            term: 1,
            states: vec![(0, State::default())],
            acknowledged: Arc::default(),
        }
    }

    /// Notes that the state is now one step further.
    fn note(&mut self) {
        self.states.push((self.disk.operations(), self.state.clone()));
    }

    /// Tells when the newest state is acknowledged.
    fn done(&self) -> conclave_log::Done {
        let (disk, acknowledged, state) = (self.disk.clone(), self.acknowledged.clone(), self.states.len() - 1);
        Box::new(move |result| {
            result.unwrap();
            acknowledged.lock().unwrap().push((disk.operations(), state));
        })
    }

    fn append(&mut self) {
        let next = self.handle.last().map_or(1, |last| last.index + 1);
        let records: Vec<Record> = (next..next + 1 + self.random.below(5))
            .map(|i| match self.random.below(12) {
                0 => record(i, self.term, 600 + self.random.below(900) as usize),
                // Zeros, as users store them: a lost sector of these is no different from a kept one.
                1 => Record { payload: Bytes::from(vec![0; 700]), ..record(i, self.term, 0) },
                _ => record(i, self.term, self.random.below(250) as usize),
            })
            .collect();
        for record in &records {
            self.state.entries.push(record.clone());
            self.note();
        }
        self.handle.append(records, self.done()).unwrap();
    }

    fn truncate(&mut self) {
        let Some(first) = self.state.entries.first().map(|r| r.index) else { return };
        let keep = self.random.below(self.state.entries.len() as u64 + 1);
        self.term += 1;
        self.vote(true);
        self.state.entries.truncate(keep as usize);
        self.note();
        self.handle.truncate_after((first + keep).checked_sub(1), self.done()).unwrap();
    }

    fn purge(&mut self) {
        // On a full disk a purge overtakes, and there is no one order any more.
        self.disk.limit(None);
        self.writer.step();
        let beyond = self.random.below(8) == 0;
        let upto = match self.state.entries.get(self.state.entries.len() / 2) {
            Some(_) if beyond => Position { index: self.handle.last().unwrap().index + 7, term: self.term },
            Some(upto) => Position { index: upto.index, term: upto.term },
            None => return,
        };
        self.state.entries.retain(|r| r.index > upto.index);
        self.state.purged = Some(upto);
        self.note();
        self.handle.purge_upto(upto, self.done()).unwrap();
    }

    fn vote(&mut self, committed: bool) {
        let vote = Vote { term: self.term, node: Some(self.term % 3), committed };
        self.state.vote = Some(vote);
        self.note();
        self.handle.save_vote(vote, self.done()).unwrap();
    }

    fn run(mut self, steps: usize) -> History {
        for _ in 0..steps {
            match self.random.below(20) {
                0..=8 => self.append(),
                9 => self.truncate(),
                10 | 11 if self.state.entries.len() > 6 => self.purge(),
                12 => {
                    self.term += 1;
                    self.vote(false);
                }
                13 => self.handle.barrier(self.done()).unwrap(),
                14 => self.disk.limit(Some(self.disk.used() + self.random.below(900))),
                15 => self.disk.limit(None),
                16 => self.handle.set_committed(self.handle.last().map_or(0, |last| last.index / 2)),
                _ => assert!(self.writer.step()),
            }
        }
        self.disk.limit(None);
        assert!(self.writer.step());
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        assert!(acknowledged.is_sorted() && acknowledged.last().unwrap().1 == self.states.len() - 1);
        History { disk: self.disk, states: self.states, acknowledged }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    prefixes: u64,
    /// Of which all images were gone through.
    exhausted: u64,
    images: u64,
    torn: u64,
    /// Of which an acknowledgement was in the balance: what was begun is more than what was promised.
    open_ended: u64,
    recoveries: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.prefixes += other.prefixes;
        self.exhausted += other.exhausted;
        self.images += other.images;
        self.torn += other.torn;
        self.open_ended += other.open_ended;
        self.recoveries += other.recoveries;
    }
}

/// If there are no more combinations of losses than this, all are gone through.
const ALL: usize = 256;
/// Else so many images are made of them.
const SOME: usize = 60;

/// What a power cut may leave of `disk`, each image once; and whether this is all.
fn images(disk: &MemDisk, seed: u64) -> (Vec<MemDisk>, bool) {
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    let mut add = |image: MemDisk| {
        if seen.insert(fingerprint(&image)) {
            images.push(image);
        }
    };
    // Counts through all combinations of choices, like an odometer whose wheels are found on the way.
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let exhausted = (0..ALL).any(|_| {
        let mut at = 0;
        let image = disk.crash_by(&mut |bound| {
            if at == choices.len() {
                choices.push((0, bound));
            }
            at += 1;
            choices[at - 1].0
        });
        choices.truncate(at);
        add(image);
        while choices.last().is_some_and(|(choice, bound)| choice + 1 == *bound) {
            choices.pop();
        }
        choices.last_mut().map(|(choice, _)| *choice += 1).is_none()
    });
    if exhausted {
        return (images, true);
    }
    // Too many: all lost, all kept, and a share of them at random.
    images.clear();
    seen.clear();
    let mut random = Random(seed);
    let mut add = |image: MemDisk| {
        if images.len() < SOME && seen.insert(fingerprint(&image)) {
            images.push(image);
        }
    };
    add(disk.crash(Loss::All));
    add(disk.crash(Loss::Nothing));
    for round in 0..SOME {
        add(disk.crash(Loss::Some(random.below(u64::MAX))));
        let share = [1, 2, 4, 7][round % 4];
        add(disk.crash_by(&mut |_| usize::from(random.below(8) < share)));
    }
    (images, false)
}

fn fingerprint(disk: &MemDisk) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut names = Disk::list(disk).unwrap();
    names.sort();
    for name in names {
        (disk.content(&name), name).hash(&mut hash);
    }
    hash.finish()
}

impl History {
    /// The states that may be found after so many operations: from the last acknowledged one to the last begun.
    fn allowed(&self, operations: usize) -> &[(usize, State)] {
        let told = self.acknowledged.partition_point(|(at, _)| *at <= operations);
        let from = told.checked_sub(1).map_or(0, |last| self.acknowledged[last].1);
        let to = self.states.partition_point(|(begun, _)| *begun <= operations);
        &self.states[from..to]
    }

    fn prefix(&self, operations: usize, seed: u64) -> Count {
        let (images, exhausted) = images(&self.disk.after(operations), seed ^ operations as u64);
        let mut count = Count { prefixes: 1, exhausted: u64::from(exhausted), ..Count::default() };
        let allowed = self.allowed(operations);
        for (number, image) in images.iter().enumerate() {
            let what = format!("after {operations} operations, image {number}");
            count.images += 1;
            count.open_ended += u64::from(allowed.len() > 1);
            let report = check(image).unwrap();
            assert!(report.is_sound(), "{what}: {:?}", report.damage);
            let copy = image.copy();
            let crashed_again = report.torn.is_some() && number % 4 == 0;
            if crashed_again {
                copy.record();
            }
            let got = found(&copy, allowed, &what);
            count.torn += u64::from(report.torn.is_some());
            if crashed_again {
                // Recovery itself is cut short, at each of its operations: nothing that was there goes.
                for cut in 0..=copy.operations() {
                    for loss in [Loss::All, Loss::Some(seed ^ cut as u64)] {
                        count.recoveries += 1;
                        assert_eq!(found(&copy.after(cut).crash(loss), allowed, &what), got, "{what}, cut at {cut}");
                    }
                }
            }
            goes_on(&copy, &got, &what);
        }
        count
    }
}

/// Opens the image; what it holds must be one of the `allowed` states.
fn found(image: &MemDisk, allowed: &[(usize, State)], what: &str) -> State {
    let (log, votes, _) = match open(Arc::new(image.clone()), tiny()) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let got = State { entries: all(&log), purged: log.purged(), vote: votes.current() };
    let (floor, ceiling) = (&allowed[0].1, &allowed[allowed.len() - 1].1);
    assert!(got.vote.map(|v| v.term) >= floor.vote.map(|v| v.term), "{what}: a vote went back");
    assert!(
        allowed.iter().any(|(_, state)| *state == got),
        "{what}: found {got:?}, which is no state between {floor:?} and {ceiling:?}"
    );
    got
}

/// What was found counts as durable, and can be built on.
fn goes_on(image: &MemDisk, got: &State, what: &str) {
    let (mut log, mut votes, recovered) = open(Arc::new(image.clone()), tiny()).unwrap();
    assert_eq!(recovered.torn, None, "{what}: a torn tail was not cleared");
    let after = record(log.last().map_or(1, |l| l.index + 1), 999, 700);
    let vote = Vote { term: 999, node: None, committed: false };
    votes.save(vote).unwrap();
    log.append([&after]).unwrap();
    log.sync().unwrap();
    let (log, votes, _) = open(Arc::new(image.crash(Loss::All)), tiny()).unwrap();
    let mut expected = got.entries.clone();
    expected.push(after);
    assert_eq!((all(&log), votes.current()), (expected, Some(vote)), "{what}, and another crash");
}

/// All prefixes of one run, on two threads.
fn replay(seed: u64, steps: usize) -> Count {
    let history = Workload::new(seed).run(steps);
    let last = history.disk.operations();
    let names: HashSet<String> = (0..=last).flat_map(|at| Disk::list(&history.disk.after(at)).unwrap()).collect();
    assert!(names.len() > 7, "too few segments: {names:?}");
    let history = &history;
    let counts = thread::scope(|scope| {
        let workers = [0, 1].map(|half| {
            scope.spawn(move || {
                let mut count = Count::default();
                (half..=last).step_by(2).for_each(|operations| count += history.prefix(operations, seed));
                count
            })
        });
        workers.map(|worker| worker.join().unwrap())
    });
    let mut count = Count::default();
    counts.into_iter().for_each(|part| count += part);
    count
}

#[test]
fn no_crash_image_lacks_what_was_acknowledged_or_holds_what_was_never_written() {
    let mut count = Count::default();
    for seed in 0..SEEDS {
        count += replay(seed, STEPS);
    }
    println!("crash images: {count:?}, failures: 0");
    assert!(count.images >= 20_000, "{count:?}");
    assert!(count.exhausted * 2 > count.prefixes, "{count:?}");
    assert!(count.torn > 2_000 && count.recoveries > 1_000 && count.open_ended * 3 > count.images, "{count:?}");
}

const SEEDS: u64 = 4;
const STEPS: usize = 350;

#[test]
fn a_workload_meets_all_that_it_should() {
    let history = Workload::new(1).run(STEPS);
    let all = &history.states;
    assert!(all.windows(2).any(|w| w[0].1.entries.len() > w[1].1.entries.len() && w[0].1.purged == w[1].1.purged));
    assert!(all.windows(2).any(|w| w[0].1.purged != w[1].1.purged));
    assert!(all.windows(2).filter(|w| w[0].1.vote != w[1].1.vote).count() > 10);
    let half_made = |at: usize| Disk::list(&history.disk.after(at)).unwrap().contains(&"next.tmp".to_owned());
    let made = (1..history.disk.operations()).filter(|at| half_made(*at) && !half_made(at - 1)).count();
    assert!(made > 8, "{made} segments were begun");
    // Some of them in vain, on a full disk.
    let last = Disk::list(&history.disk).unwrap();
    let last = last.iter().filter_map(|n| n.strip_prefix("log-")?.parse::<usize>().ok()).max().unwrap();
    assert!(made > last, "{made} segments were begun, {last} made");
}
